package inspector

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
)

func selfSigned(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := SelfSignedCertificate(CommonName("SCEP Protocol Certificate"), testNow, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestBuiltMessagesAreReadBack(t *testing.T) {
	key, ra := testKey(t, "device"), testCertificate(t, testKey(t, "ra"), "Example CA", big.NewInt(0x7901))
	opener, err := NewOpener([]RAKey{{Name: "ndes1", Certificate: ra, Key: testKey(t, "ra")}}, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	request, err := BuildCSR(CSRParams{Subject: CommonName("device-1"), Challenge: "8CE317021F690069"}, key)
	if err != nil {
		t.Fatal(err)
	}
	nonce := bytes.Repeat([]byte{9}, 8)
	for name, c := range map[string]struct {
		message       PKIMessage
		transactionID string
		digest        string
		cipher        string
		transport     string
	}{
		"defaults":    {PKIMessage{}, "", "sha256", "aes128", "pkcs1v15"},
		"Windows":     {PKIMessage{Digest: "sha1", Cipher: "aes128", OAEP: true, TransactionID: "abc"}, "abc", "sha1", "aes128", "oaep_sha1"},
		"Android":     {PKIMessage{Digest: "sha512", Cipher: "des3"}, "", "sha512", "des3", "pkcs1v15"},
		"scepclient":  {PKIMessage{Digest: "sha1", Cipher: "des"}, "", "sha1", "des", "pkcs1v15"},
		"Apple nonce": {PKIMessage{Digest: "sha384", Cipher: "aes256", SenderNonce: nonce}, "", "sha384", "aes256", "pkcs1v15"},
		"md5":         {PKIMessage{Digest: "md5"}, "", "md5", "aes128", "pkcs1v15"},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.message
			m.MessageType, m.Content, m.Recipient, m.SignerCert, m.SignerKey = "19", request, ra, selfSigned(t, key), key
			raw, err := BuildPKIMessage(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseMessage(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got.MessageType != "19" || got.Digest != c.digest || got.Certificates != 1 || !got.Signer.SelfSigned || !bytes.Equal(got.Signer.SPKI, spkiOf(t, key)) {
				t.Errorf("read %+v", got)
			}
			switch {
			case c.transactionID != "" && got.TransactionID != c.transactionID,
				c.transactionID == "" && (len(got.TransactionID) != 40 || strings.ToUpper(got.TransactionID) != got.TransactionID),
				m.SenderNonce != nil && !bytes.Equal(got.SenderNonce, m.SenderNonce),
				m.SenderNonce == nil && len(got.SenderNonce) != 16:
				t.Errorf("transactionID %q, nonce %x", got.TransactionID, got.SenderNonce)
			}
			opened := opener.Open(got)
			if opened.Err != nil {
				t.Fatal(opened.Err)
			}
			if opened.Cipher != c.cipher || opened.KeyTransport != c.transport || !bytes.Equal(opened.CSR.Raw, request) || opened.CSR.Challenge != "8CE317021F690069" {
				t.Errorf("opened with %s, %s", opened.Cipher, opened.KeyTransport)
			}
		})
	}
}

func TestBuildPKIMessageRefusesWhatItCanNotWrite(t *testing.T) {
	key, ra := testKey(t, "device"), raCertificate(t)
	good := PKIMessage{MessageType: "19", Content: []byte("x"), Recipient: ra, SignerCert: selfSigned(t, key), SignerKey: key}
	for name, change := range map[string]func(m *PKIMessage){
		"digest":                func(m *PKIMessage) { m.Digest = "sha3" },
		"cipher":                func(m *PKIMessage) { m.Cipher = "rc4" },
		"no recipient":          func(m *PKIMessage) { m.Recipient = nil },
		"recipient without RSA": func(m *PKIMessage) { m.Recipient = &x509.Certificate{} },
		"no key":                func(m *PKIMessage) { m.SignerKey = nil },
		"no certificate":        func(m *PKIMessage) { m.SignerCert = nil },
	} {
		m := good
		change(&m)
		if raw, err := BuildPKIMessage(m); err == nil || raw != nil {
			t.Errorf("%s: built", name)
		}
	}
}

func TestSelfSignedCertificateIsReadByCryptoX509(t *testing.T) {
	key := testKey(t, "device")
	certificate, err := x509.ParseCertificate(selfSigned(t, key))
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(certificate.RawIssuer, certificate.RawSubject) || certificate.Subject.CommonName != "SCEP Protocol Certificate" {
		t.Errorf("issuer %s, subject %s", certificate.Issuer, certificate.Subject)
	}
	if testNow.Before(certificate.NotBefore) || testNow.After(certificate.NotAfter) {
		t.Error("not valid now")
	}
}

// successReply is a CertRep SUCCESS enveloped to the certificate in envelope.
func successReply(t testing.TB, envelope PKIMessage) []byte {
	t.Helper()
	content, err := composeEnvelopedData(envelope)
	if err != nil {
		t.Fatal(err)
	}
	r := newRawReply(t)
	r.content("0", "", content)
	return r.der(t)
}

func TestOpenCertRep(t *testing.T) {
	key := testKey(t, "device")
	recipient, err := x509.ParseCertificate(selfSigned(t, key))
	if err != nil {
		t.Fatal(err)
	}
	issued := testCertificate(t, key, "Example CA", big.NewInt(77))
	for _, m := range []PKIMessage{{}, {OAEP: true}, {Cipher: "aes256", OAEP: true}, {Cipher: "des3"}, {Cipher: "des"}} {
		m.Recipient, m.Content = recipient, certsOnly(issued.Raw)
		raw := successReply(t, m)
		certificates, err := OpenCertRep(raw, key)
		if err != nil || len(certificates) != 1 || !certificates[0].Equal(issued) {
			t.Errorf("%s, OAEP %v: %d certificates, %v", m.Cipher, m.OAEP, len(certificates), err)
		}
		if certificates, err := OpenCertRep(raw, testKey(t, "other")); err == nil || certificates != nil {
			t.Errorf("%s, OAEP %v: opened with another key", m.Cipher, m.OAEP)
		}
		if _, err := OpenCertRep(raw, nil); err == nil {
			t.Error("opened without a key")
		}
	}
	for name, raw := range map[string][]byte{
		"failure":                    newRawReply(t).der(t),
		"no CertRep":                 []byte("<html>"),
		"no certificates within":     successReply(t, PKIMessage{Recipient: recipient, Content: certsOnly()}),
		"something else within":      successReply(t, PKIMessage{Recipient: recipient, Content: []byte("text")}),
		"bytes after them within":    successReply(t, PKIMessage{Recipient: recipient, Content: append(certsOnly(issued.Raw), 0)}),
		"a request in place of them": successReply(t, PKIMessage{Recipient: recipient, Content: newRawCSR(t).der(t)}),
	} {
		if certificates, err := OpenCertRep(raw, key); err == nil || certificates != nil {
			t.Errorf("%s: opened", name)
		}
	}
}
