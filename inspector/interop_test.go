package inspector

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/smallstep/pkcs7"
)

// An encoder that is not ours: scepclient and other clients in Go use it.
func TestMessageOfAnotherEncoderIsOpened(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	key := testKey(t, "client")
	spec := newCertificateSpec("device", testSerial, key)
	signer, err := x509.ParseCertificate(spec.build(t))
	if err != nil {
		t.Fatal(err)
	}
	content, err := pkcs7.Encrypt(csr, []*x509.Certificate{ra.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := pkcs7.NewSignedData(content)
	if err != nil {
		t.Fatal(err)
	}
	scep := func(last int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, last} }
	config := pkcs7.SignerInfoConfig{ExtraSignedAttributes: []pkcs7.Attribute{
		{Type: scep(7), Value: asn1.RawValue{FullBytes: derPrintable("HVvzN0228V+AW+dUuDe8OPyDXD0=")}},
		{Type: scep(2), Value: asn1.RawValue{FullBytes: derPrintable("19")}},
		{Type: scep(5), Value: testNonce},
	}}
	if err := signed.AddSigner(signer, key, config); err != nil {
		t.Fatal(err)
	}
	raw, err := signed.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.TransactionID != "HVvzN0228V+AW+dUuDe8OPyDXD0=" || m.MessageType != "19" || !bytes.Equal(m.SenderNonce, testNonce) {
		t.Errorf("facts %+v", m)
	}
	opened := newTestOpener(t, ra).Open(m)
	if opened.Err != nil {
		t.Fatal(opened.Err)
	}
	if !bytes.Equal(opened.CSR.Raw, csr) {
		t.Error("another request came out")
	}
}
