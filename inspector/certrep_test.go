package inspector

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// testCertificate makes a certificate for key, signed by itself under another
// issuer's name: only names and key matter here.
func testCertificate(t testing.TB, key *rsa.PrivateKey, issuer string, serial *big.Int) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "NDES-MSCEP-RA"},
		NotBefore:    testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// rawReply is a CertRep in pieces, each of which a test can replace.
type rawReply struct {
	version      []byte
	digests      []byte
	encap        []byte
	certificates []byte
	crls         []byte
	infoVersion  []byte
	sid          []byte
	digestAlg    []byte
	attributes   [][]byte
	noAttributes bool
	signatureAlg []byte
	signature    []byte // OCTET STRING; nil: made over the attributes
	unsigned     []byte
	infos        func(info []byte) []byte
	digest       *digestAlgorithm
	key          *rsa.PrivateKey
}

func scepAttributes(status, failInfo string, digest []byte) [][]byte {
	list := [][]byte{
		derAttribute(oidMessageType, derPrintable("3")),
		derAttribute(oidPKIStatus, derPrintable(status)),
		derAttribute(oidContentType, derOID(oidData)),
		derAttribute(oidSenderNonce, derOctets(bytes.Repeat([]byte{1}, 16))),
		derAttribute(oidRecipientNonce, derOctets(bytes.Repeat([]byte{2}, 16))),
		derAttribute(oidMessageDigest, derOctets(digest)),
		derAttribute(oidTransactionID, derPrintable("9CB1CB998B7FCC0142297B492988AFB4")),
	}
	if failInfo != "" {
		list = append(list, derAttribute(oidFailInfo, derPrintable(failInfo)))
	}
	return list
}

// newRawReply is a FAILURE as NDES sends it.
func newRawReply(t testing.TB) *rawReply { return rawReplyFor(t, raCertificate(t), testKey(t, "ra")) }

func rawReplyFor(t testing.TB, ra *x509.Certificate, key *rsa.PrivateKey) *rawReply {
	digest := digestByOID(oidSHA1)
	r := &rawReply{
		version:      derInt(1),
		digests:      derSet(derAlgorithm(digest.oid)),
		infoVersion:  derInt(1),
		sid:          derSequence(ra.RawIssuer, derBigInt(ra.SerialNumber)),
		digestAlg:    derAlgorithm(digest.oid),
		signatureAlg: derAlgorithm(oidRSAEncryption),
		infos:        func(info []byte) []byte { return derSet(info) },
		digest:       digest,
		key:          key,
	}
	r.content("2", "2", []byte{0})
	return r
}

// content replaces content, status and messageDigest.
func (r *rawReply) content(status, failInfo string, content []byte) {
	r.encap = derSequence(derOID(oidData), explicitTag(0, derOctets(content)))
	r.attributes = scepAttributes(status, failInfo, r.digest.sum(content))
}

// replace replaces the attribute of one type; none removes it.
func (r *rawReply) replace(dotted string, with ...[]byte) {
	var kept [][]byte
	prefix := derOID(dotted)
	for _, a := range r.attributes {
		if !bytes.Equal(a[2:2+len(prefix)], prefix) {
			kept = append(kept, a)
		}
	}
	r.attributes = append(kept, with...)
}

func (r *rawReply) der(t testing.TB) []byte {
	t.Helper()
	sorted := sortSetOf(r.attributes)
	signature := r.signature
	if signature == nil {
		s, err := rsa.SignPKCS1v15(nil, r.key, r.digest.hash, r.digest.sum(derSet(sorted...)))
		if err != nil {
			t.Fatal(err)
		}
		signature = derOctets(s)
	}
	attributes := explicitTag(0, sorted...)
	if r.noAttributes {
		attributes = nil
	}
	info := derSequence(r.infoVersion, r.sid, r.digestAlg, attributes, r.signatureAlg, signature, r.unsigned)
	return derSequence(derOID(oidSignedData), explicitTag(0,
		derSequence(r.version, r.digests, r.encap, r.certificates, r.crls, r.infos(info))))
}

// raCertificate is the signer that newRawReply names.
func raCertificate(t testing.TB) *x509.Certificate {
	return testCertificate(t, testKey(t, "ra"), "Example CA", big.NewInt(0x7900))
}

func envelopeOf(t testing.TB) []byte {
	t.Helper()
	der, err := composeEnvelopedData(PKIMessage{Recipient: raCertificate(t), Content: []byte("certificates")})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestParseCertRepRefuses(t *testing.T) {
	nonce := derOctets(make([]byte, 16))
	for name, change := range map[string]func(r *rawReply){
		"version 2":                      func(r *rawReply) { r.version = derInt(2) },
		"no digest":                      func(r *rawReply) { r.digests = derSet() },
		"another digest announced (C77)": func(r *rawReply) { r.digests = derSet(derAlgorithm(oidSHA256)) },
		"content type other than data (C69)": func(r *rawReply) {
			r.encap = derSequence(derOID(oidEnvelopedData), explicitTag(0, derOctets([]byte{0})))
		},
		"content that is no OCTET STRING (C74)": func(r *rawReply) { r.encap = derSequence(derOID(oidData), explicitTag(0, derUTF8("\x00"))) },
		"content type missing":                  func(r *rawReply) { r.encap = derSequence() },
		"content with a third element": func(r *rawReply) {
			r.encap = derSequence(derOID(oidData), explicitTag(0, derOctets([]byte{0})), derNull())
		},
		"nine certificates": func(r *rawReply) {
			r.certificates = explicitTag(0, bytes.Repeat(derSequence(), maxReplyCertificates+1))
		},
		"primitive certificates":         func(r *rawReply) { r.certificates = implicitTag(0, []byte("x")) },
		"CRLs":                           func(r *rawReply) { r.crls = explicitTag(1, derSequence()) },
		"no signer (C62)":                func(r *rawReply) { r.infos = func([]byte) []byte { return derSet() } },
		"two signers (C64)":              func(r *rawReply) { r.infos = func(i []byte) []byte { return derSet(i, i) } },
		"signers missing":                func(r *rawReply) { r.infos = func([]byte) []byte { return nil } },
		"element after the signers":      func(r *rawReply) { r.infos = func(i []byte) []byte { return append(derSet(i), derNull()...) } },
		"signer as a SET":                func(r *rawReply) { r.infos = func(i []byte) []byte { return derSet(derSet()) } },
		"signer of version 3":            func(r *rawReply) { r.infoVersion = derInt(3) },
		"signer by key identifier (C66)": func(r *rawReply) { r.sid = implicitTag(0, make([]byte, 20)) },
		"signer identifier with a third": func(r *rawReply) { r.sid = derSequence(derName("CA"), derInt(1), derNull()) },
		"md5": func(r *rawReply) {
			r.digests, r.digestAlg = derSet(derAlgorithm(oidMD5)), derAlgorithm(oidMD5)
			r.setDigest(oidMD5)
		},
		"digest unknown":                        func(r *rawReply) { r.digests, r.digestAlg = derSet(derAlgorithm("1.2.3")), derAlgorithm("1.2.3") },
		"digest with parameters":                func(r *rawReply) { r.digestAlg = derSequence(derOID(oidSHA1), derSequence()) },
		"signature algorithm of another digest": func(r *rawReply) { r.signatureAlg = derAlgorithm(oidSHA256WithRSA) },
		"signature algorithm PSS":               func(r *rawReply) { r.signatureAlg = derAlgorithm("1.2.840.113549.1.1.10") },
		"no signed attributes (C68)":            func(r *rawReply) { r.noAttributes = true },
		"unsigned attributes (C73)":             func(r *rawReply) { r.unsigned = explicitTag(1, derAttribute("1.2.3", derNull())) },
		"signature as BIT STRING":               func(r *rawReply) { r.signature = derBits(make([]byte, 256)) },
		"attribute that is no SEQUENCE":         func(r *rawReply) { r.attributes = append(r.attributes, derSet()) },
		"attribute with a third element": func(r *rawReply) {
			r.attributes = append(r.attributes, derSequence(derOID("1.2.3"), derSet(derNull()), derNull()))
		},
		"attribute whose values are a SEQUENCE": func(r *rawReply) {
			r.attributes = append(r.attributes, derSequence(derOID("1.2.3"), derSequence(derNull())))
		},
		"messageType missing":       func(r *rawReply) { r.replace(oidMessageType) },
		"messageType 19 (D25)":      func(r *rawReply) { r.replace(oidMessageType, derAttribute(oidMessageType, derPrintable("19"))) },
		"messageType as UTF8String": func(r *rawReply) { r.replace(oidMessageType, derAttribute(oidMessageType, derUTF8("3"))) },
		"messageType twice (C71)": func(r *rawReply) {
			r.attributes = append(r.attributes, derAttribute(oidMessageType, derPrintable("3")))
		},
		"messageType with two values (C71)": func(r *rawReply) {
			r.replace(oidMessageType, derAttribute(oidMessageType, derPrintable("3"), derPrintable("3")))
		},
		"pkiStatus missing":           func(r *rawReply) { r.replace(oidPKIStatus) },
		"pkiStatus 1":                 func(r *rawReply) { r.replace(oidPKIStatus, derAttribute(oidPKIStatus, derPrintable("1"))) },
		"pkiStatus empty":             func(r *rawReply) { r.replace(oidPKIStatus, derAttribute(oidPKIStatus, derPrintable(""))) },
		"pkiStatus twice (C71)":       func(r *rawReply) { r.attributes = append(r.attributes, derAttribute(oidPKIStatus, derPrintable("0"))) },
		"failInfo empty":              func(r *rawReply) { r.replace(oidFailInfo, derAttribute(oidFailInfo, derPrintable(""))) },
		"failInfo too long":           func(r *rawReply) { r.replace(oidFailInfo, derAttribute(oidFailInfo, derPrintable("22222"))) },
		"failInfo twice":              func(r *rawReply) { r.attributes = append(r.attributes, derAttribute(oidFailInfo, derPrintable("1"))) },
		"contentType missing":         func(r *rawReply) { r.replace(oidContentType) },
		"contentType other than data": func(r *rawReply) { r.replace(oidContentType, derAttribute(oidContentType, derOID(oidEnvelopedData))) },
		"messageDigest missing (C70)": func(r *rawReply) { r.replace(oidMessageDigest) },
		"messageDigest of other content": func(r *rawReply) {
			r.replace(oidMessageDigest, derAttribute(oidMessageDigest, derOctets(make([]byte, 20))))
		},
		"messageDigest empty":         func(r *rawReply) { r.replace(oidMessageDigest, derAttribute(oidMessageDigest, derOctets(nil))) },
		"messageDigest as UTF8String": func(r *rawReply) { r.replace(oidMessageDigest, derAttribute(oidMessageDigest, derUTF8("x"))) },
		"messageDigest twice (C70)":   func(r *rawReply) { r.attributes = append(r.attributes, derAttribute(oidMessageDigest, nonce)) },
		"transactionID missing":       func(r *rawReply) { r.replace(oidTransactionID) },
		"transactionID empty":         func(r *rawReply) { r.replace(oidTransactionID, derAttribute(oidTransactionID, derPrintable(""))) },
		"transactionID too long": func(r *rawReply) {
			r.replace(oidTransactionID, derAttribute(oidTransactionID, derPrintable(strings.Repeat("A", 129))))
		},
		"transactionID with a blank": func(r *rawReply) { r.replace(oidTransactionID, derAttribute(oidTransactionID, derPrintable("A B"))) },
		"senderNonce empty":          func(r *rawReply) { r.replace(oidSenderNonce, derAttribute(oidSenderNonce, derOctets(nil))) },
		"senderNonce too long": func(r *rawReply) {
			r.replace(oidSenderNonce, derAttribute(oidSenderNonce, derOctets(make([]byte, 65))))
		},
		"senderNonce twice":            func(r *rawReply) { r.attributes = append(r.attributes, derAttribute(oidSenderNonce, nonce)) },
		"recipientNonce missing":       func(r *rawReply) { r.replace(oidRecipientNonce) },
		"recipientNonce as UTF8String": func(r *rawReply) { r.replace(oidRecipientNonce, derAttribute(oidRecipientNonce, derUTF8("x"))) },
		"recipientNonce twice":         func(r *rawReply) { r.attributes = append(r.attributes, derAttribute(oidRecipientNonce, nonce)) },
		"HRESULT twice":                func(r *rawReply) { r.attributes = append(r.attributes, hresult("1"), hresult("2")) },
		"server message twice": func(r *rawReply) {
			r.attributes = append(r.attributes, derAttribute(oidSCEPServerMessage, derUTF8("a")), derAttribute(oidSCEPServerMessage, derUTF8("b")))
		},
		"success with failInfo (D26)": func(r *rawReply) { r.content("0", "2", envelopeOf(t)) },
		"success without content":     func(r *rawReply) { r.content("0", "", nil) },
		"success with one byte":       func(r *rawReply) { r.content("0", "", []byte{0}) },
		"success with content in the clear": func(r *rawReply) {
			r.content("0", "", derSequence(derOID(oidSignedData), explicitTag(0, derSequence())))
		},
		"success with bytes after the envelope": func(r *rawReply) { r.content("0", "", append(envelopeOf(t), 0)) },
		"failure with an envelope":              func(r *rawReply) { r.content("2", "2", envelopeOf(t)) },
		"pending with an envelope":              func(r *rawReply) { r.content("3", "", envelopeOf(t)) },
		"pending with failInfo (D26)":           func(r *rawReply) { r.content("3", "2", []byte{0}) },
		"failure with other content":            func(r *rawReply) { r.content("2", "2", []byte{1}) },
		"failure with two bytes":                func(r *rawReply) { r.content("2", "2", []byte{0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawReply(t)
			change(r)
			if c, err := ParseCertRep(r.der(t)); err == nil || c != nil {
				t.Errorf("accepted: %+v %v", c, err)
			}
		})
	}
	good := newRawReply(t).der(t)
	for name, raw := range map[string][]byte{
		"nothing":                 nil,
		"a page":                  []byte("<html>500</html>"),
		"bytes after it (C57)":    append(bytes.Clone(good), 0),
		"cut short":               good[:len(good)-1],
		"envelopedData outermost": envelopeOf(t),
		"nested too deep":         nested(maxDepth + 1),
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := ParseCertRep(raw); err == nil || c != nil {
				t.Errorf("accepted: %+v %v", c, err)
			}
		})
	}
}

func (r *rawReply) setDigest(dotted string) {
	r.digest = digestByOID(dotted)
	r.content("2", "2", []byte{0})
}

func hresult(text string) []byte { return derAttribute(oidSCEPError, derPrintable(text)) }

func TestParseCertRepReadsFailureAndPending(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(r *rawReply)
		status   string
		failInfo string
	}{
		"failure with one byte":    {func(r *rawReply) {}, "2", "2"},
		"failure without content":  {func(r *rawReply) { r.content("2", "4", nil); r.encap = derSequence(derOID(oidData)) }, "2", "4"},
		"failure of empty content": {func(r *rawReply) { r.content("2", "1", nil) }, "2", "1"},
		"failure without failInfo": {func(r *rawReply) { r.replace(oidFailInfo) }, "2", ""},
		"pending":                  {func(r *rawReply) { r.content("3", "", []byte{0}) }, "3", ""},
		"success":                  {func(r *rawReply) { r.content("0", "", envelopeOf(t)) }, "0", ""},
		"sha256 with its signature": {func(r *rawReply) {
			r.digests, r.digestAlg, r.signatureAlg = derSet(derAlgorithm(oidSHA256)), derAlgorithm(oidSHA256), derAlgorithm(oidSHA256WithRSA)
			r.setDigest(oidSHA256)
		}, "2", "2"},
		"algorithms without NULL": {func(r *rawReply) {
			r.digests, r.digestAlg = derSet(derSequence(derOID(oidSHA1))), derSequence(derOID(oidSHA1))
		}, "2", "2"},
		"certificates, ignored": {func(r *rawReply) { r.certificates = explicitTag(0, bytes.Repeat(derSequence(), maxReplyCertificates)) }, "2", "2"},
		"attributes of the server's own": {func(r *rawReply) {
			r.attributes = append(r.attributes, derAttribute("1.2.3", derNull()), derAttribute("1.2.3", derNull(), derOctets(nil)), derAttribute("1.2.4"))
		}, "2", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawReply(t)
			c.change(r)
			got, err := ParseCertRep(r.der(t))
			if err != nil {
				t.Fatal(err)
			}
			if got.PKIStatus != c.status || got.FailInfo != c.failInfo || got.TransactionID != "9CB1CB998B7FCC0142297B492988AFB4" ||
				!bytes.Equal(got.SenderNonce, bytes.Repeat([]byte{1}, 16)) || !bytes.Equal(got.RecipientNonce, bytes.Repeat([]byte{2}, 16)) {
				t.Errorf("read %+v", got)
			}
			if _, err := got.VerifySigner([]*x509.Certificate{raCertificate(t)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseCertRepReadsBER(t *testing.T) {
	content := envelopeOf(t)
	r := newRawReply(t)
	r.content("0", "", content)
	r.encap = derSequence(derOID(oidData), indefinite(0xa0, indefinite(0x24, derOctets(content[:100]), derOctets(content[100:]))))
	n, err := walk(r.der(t), modeBER)
	if err != nil {
		t.Fatal(err)
	}
	signedData := n.children[1].children[0]
	c, err := ParseCertRep(indefinite(0x30, n.children[0].raw, indefinite(0xa0, indefinite(0x30, signedData.content))))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.content, content) {
		t.Error("content differs")
	}
	if _, err := c.VerifySigner([]*x509.Certificate{raCertificate(t)}); err != nil {
		t.Error(err)
	}
}

func TestParseCertRepTakesWhatOnlyInforms(t *testing.T) {
	for name, c := range map[string]struct {
		attribute []byte
		has       bool
		hresult   uint32
		text      string
	}{
		"negative":                 {hresult("-2147024809"), true, 0x80070057, ""},
		"positive":                 {hresult("1"), true, 1, ""},
		"unsigned":                 {hresult("2147944122"), true, 0x800706ba, ""},
		"out of range":             {hresult("4294967296"), false, 0, ""},
		"out of range below":       {hresult("-2147483649"), false, 0, ""},
		"hexadecimal":              {hresult("0x80070057"), false, 0, ""},
		"empty":                    {hresult(""), false, 0, ""},
		"HRESULT as UTF8String":    {derAttribute(oidSCEPError, derUTF8("1")), false, 0, ""},
		"message":                  {derAttribute(oidSCEPServerMessage, derUTF8("Issued")), false, 0, "Issued"},
		"message as it was sent":   {derAttribute(oidSCEPServerMessage, derUTF8("a\r\nb")), false, 0, "a\r\nb"},
		"message of another type":  {derAttribute(oidSCEPServerMessage, derPrintable("Issued")), false, 0, ""},
		"message that is no UTF-8": {derAttribute(oidSCEPServerMessage, derUTF8("\xff")), false, 0, ""},
		"message too long":         {derAttribute(oidSCEPServerMessage, derUTF8(strings.Repeat("a", maxServerMessage+1))), false, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawReply(t)
			r.attributes = append(r.attributes, c.attribute)
			got, err := ParseCertRep(r.der(t))
			if err != nil {
				t.Fatal(err)
			}
			if isError := bytes.Contains(c.attribute, derOID(oidSCEPError)); got.HasError != isError {
				t.Errorf("error attribute there: %v", got.HasError)
			}
			if got.HasHRESULT != c.has || got.HRESULT != c.hresult || got.ServerMessage != c.text {
				t.Errorf("read %v %#x %q", got.HasHRESULT, got.HRESULT, got.ServerMessage)
			}
		})
	}
}

func TestVerifySignerFindsTheOneThatSigned(t *testing.T) {
	r := newRawReply(t)
	c, err := ParseCertRep(r.der(t))
	if err != nil {
		t.Fatal(err)
	}
	serial := big.NewInt(0x7900)
	ra := raCertificate(t)
	decoy := testCertificate(t, testKey(t, "other"), "Example CA", serial) // threat C65: same name and number, other key
	for name, others := range map[string][]*x509.Certificate{
		"none":                  nil,
		"only nil":              {nil},
		"another key":           {decoy},
		"another issuer":        {testCertificate(t, testKey(t, "ra"), "Other CA", serial)},
		"another serial":        {testCertificate(t, testKey(t, "ra"), "Example CA", big.NewInt(0x7901))},
		"serial without number": {{RawIssuer: ra.RawIssuer, PublicKey: ra.PublicKey}},
		"key of another type":   {{RawIssuer: ra.RawIssuer, SerialNumber: serial, PublicKey: "key"}},
		"key too small":         {{RawIssuer: ra.RawIssuer, SerialNumber: serial, PublicKey: &rsa.PublicKey{N: big.NewInt(77), E: 65537}}},
	} {
		if got, err := c.VerifySigner(others); err == nil || got != nil {
			t.Errorf("%s: found", name)
		}
		got, err := c.VerifySigner(append(others, ra, decoy))
		if err != nil || got != ra {
			t.Errorf("%s before it: %v", name, err)
		}
	}
	r.signature = derOctets(make([]byte, 256))
	if c, err = ParseCertRep(r.der(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.VerifySigner([]*x509.Certificate{ra}); err == nil {
		t.Error("broken signature verifies")
	}
	if _, err := (&CertRep{SignerIssuer: ra.RawIssuer, SignerSerial: []byte{0x79, 0}}).VerifySigner([]*x509.Certificate{ra}); err == nil {
		t.Error("a CertRep that was not parsed verifies")
	}
}

func TestVerifySignerCoversTheAttributes(t *testing.T) {
	r := newRawReply(t)
	raw := r.der(t)
	at := bytes.Index(raw, []byte("9CB1CB99"))
	raw[at] = 'A'
	c, err := ParseCertRep(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.VerifySigner([]*x509.Certificate{raCertificate(t)}); err == nil {
		t.Error("altered transactionID verifies")
	}
}

// Whatever byte changes, the reply is refused, its signer is not found, or
// every fact is as it was.
func TestVerifiedRepliesSayWhatWasSigned(t *testing.T) {
	raw := newRawReply(t).der(t)
	ra := []*x509.Certificate{raCertificate(t)}
	want, err := ParseCertRep(raw)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		c, err := ParseCertRep(changed)
		if err == nil {
			_, err = c.VerifySigner(ra)
		}
		if err != nil {
			refused++
			continue
		}
		if diff := cmp.Diff(want, c, cmp.AllowUnexported(CertRep{}), cmpopts.IgnoreFields(CertRep{}, "digest")); diff != "" {
			t.Errorf("byte %d: %s", i, diff)
		}
	}
	if refused == 0 {
		t.Error("no change is refused")
	}
}

func TestParseCertRepRefusesEveryMissingElement(t *testing.T) {
	n, err := walk(newRawReply(t).der(t), modeDER)
	if err != nil {
		t.Fatal(err)
	}
	signedData := n.children[1].children[0]
	info := signedData.children[len(signedData.children)-1].children[0]
	wrap := func(parts ...[]byte) []byte {
		return derSequence(derOID(oidSignedData), explicitTag(0, derSequence(parts...)))
	}
	for i := range signedData.children {
		if c, err := ParseCertRep(wrap(without(signedData, i)...)); err == nil || c != nil {
			t.Errorf("accepted without field %d", i)
		}
	}
	for i := range info.children {
		parts := append(without(signedData, len(signedData.children)-1), derSet(derSequence(without(info, i)...)))
		if c, err := ParseCertRep(wrap(parts...)); err == nil || c != nil {
			t.Errorf("accepted without field %d of the signer", i)
		}
	}
}

func TestParseCertRepReadsCapturedReplies(t *testing.T) {
	block, _ := pem.Decode(afterText(vector(t, "ca2.pem")))
	if block == nil {
		t.Fatal("no certificate in ca2.pem")
	}
	signer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("NDES success without certificates", func(t *testing.T) {
		c, err := ParseCertRep(vector(t, "CertRep_NoCertificatesForSigners.der"))
		if err != nil {
			t.Fatal(err)
		}
		if c.PKIStatus != "0" || c.FailInfo != "" || c.ServerMessage != "Issued" || c.HasHRESULT || len(c.RecipientNonce) != 16 || len(c.SenderNonce) != 16 {
			t.Errorf("read %+v", c)
		}
		if got, err := c.VerifySigner([]*x509.Certificate{signer}); err != nil || got != signer {
			t.Error(err)
		}
		if _, stage := parseEnvelope(c.content); stage != nil {
			t.Error(stage)
		}
	})
	t.Run("success of another server, with certificates", func(t *testing.T) {
		c, err := ParseCertRep(vector(t, "CertRep.der"))
		if err != nil {
			t.Fatal(err)
		}
		if c.PKIStatus != "0" || c.TransactionID != "A13090761A30F66664F85D37433D2065E1112BA1" || len(c.RecipientNonce) != 8 || c.SenderNonce != nil {
			t.Errorf("read %+v", c)
		}
		if _, err := c.VerifySigner([]*x509.Certificate{signer}); err == nil {
			t.Error("verified by a foreign signer")
		}
	})
	t.Run("NDES failure", func(t *testing.T) {
		block, _ := pem.Decode(vector(t, "ndes_getcrl_fail.pem"))
		c, err := ParseCertRep(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if c.PKIStatus != "2" || c.FailInfo != "2" || !c.HasHRESULT || c.HRESULT != 0x80070057 || c.TransactionID != "9CB1CB998B7FCC0142297B492988AFB4" {
			t.Errorf("read %+v", c)
		}
	})
}

// afterText skips the text before a PEM block.
func afterText(b []byte) []byte { return b[max(bytes.Index(b, []byte("-----BEGIN")), 0):] }

func newFailure() Failure {
	return Failure{
		TransactionID:  "9CB1CB998B7FCC0142297B492988AFB4",
		RecipientNonce: bytes.Repeat([]byte{7}, 8),
		SenderNonce:    bytes.Repeat([]byte{8}, 16),
	}
}

func TestBuildFailureIsShapedAsNDESShapesIt(t *testing.T) {
	ra := raCertificate(t)
	f := newFailure()
	der, err := BuildFailure(f, ra, testKey(t, "ra"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := walk(der, modeDER)
	if err != nil {
		t.Fatal(err)
	}
	signedData := n.children[1].children[0]
	if len(signedData.children) != 4 {
		t.Fatalf("%d fields: certificates or CRLs are there", len(signedData.children))
	}
	info := signedData.children[3].children[0]
	var types []string
	for i, a := range info.children[3].children {
		id, err := a.children[0].oid()
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, id)
		if i > 0 && bytes.Compare(info.children[3].children[i-1].raw, a.raw) >= 0 {
			t.Error("attributes not in DER order")
		}
	}
	want := []string{
		oidMessageType, oidPKIStatus, oidFailInfo, oidContentType,
		oidRecipientNonce, oidSenderNonce, oidTransactionID, oidMessageDigest,
	}
	slices.Sort(want)
	slices.Sort(types)
	if diff := cmp.Diff(want, types); diff != "" {
		t.Error(diff)
	}
	if algorithm, err := info.children[4].algorithmNull(); err != nil || algorithm != oidRSAEncryption {
		t.Errorf("signature algorithm %s: strongSwan does not read it", algorithm)
	}
	c, err := ParseCertRep(der)
	if err != nil {
		t.Fatal(err)
	}
	if c.PKIStatus != "2" || c.FailInfo != "2" || c.TransactionID != f.TransactionID || c.HasHRESULT || c.ServerMessage != "" || c.digest.name != "sha256" ||
		!bytes.Equal(c.content, []byte{0}) || !bytes.Equal(c.RecipientNonce, f.RecipientNonce) || !bytes.Equal(c.SenderNonce, f.SenderNonce) {
		t.Errorf("read back %+v", c)
	}
	if _, err := c.VerifySigner([]*x509.Certificate{ra}); err != nil {
		t.Error(err)
	}
}

func TestBuildFailureHasOneLengthForOneRequest(t *testing.T) {
	ra, key := raCertificate(t), testKey(t, "ra")
	first, err := BuildFailure(newFailure(), ra, key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		f := newFailure()
		f.SenderNonce = bytes.Repeat([]byte{byte(i * 13)}, 16)
		f.RecipientNonce = bytes.Repeat([]byte{byte(255 - i)}, 8)
		der, err := BuildFailure(f, ra, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(der) != len(first) {
			t.Errorf("%d and %d bytes", len(der), len(first))
		}
	}
}

func TestBuildFailureRefuses(t *testing.T) {
	ra, key := raCertificate(t), testKey(t, "ra")
	for name, change := range map[string]func(f *Failure){
		"no transactionID":       func(f *Failure) { f.TransactionID = "" },
		"transactionID with LF":  func(f *Failure) { f.TransactionID = "a\nb" },
		"transactionID too long": func(f *Failure) { f.TransactionID = strings.Repeat("A", 129) },
		"no senderNonce":         func(f *Failure) { f.SenderNonce = nil },
		"short senderNonce":      func(f *Failure) { f.SenderNonce = make([]byte, 15) },
		"no recipientNonce":      func(f *Failure) { f.RecipientNonce = nil },
		"long recipientNonce":    func(f *Failure) { f.RecipientNonce = make([]byte, 65) },
	} {
		f := newFailure()
		change(&f)
		if der, err := BuildFailure(f, ra, key); err == nil || der != nil {
			t.Errorf("%s: built", name)
		}
	}
	if der, err := BuildFailure(newFailure(), ra, testKey(t, "other")); err == nil || der != nil {
		t.Error("another key: built")
	}
	if der, err := BuildFailure(newFailure(), nil, key); err == nil || der != nil {
		t.Error("no certificate: built")
	}
	if der, err := BuildFailure(newFailure(), ra, nil); err == nil || der != nil {
		t.Error("no key: built")
	}
}

func TestBuildFailureVerifiesWithOpenSSL(t *testing.T) {
	path := openssl(t)
	ra := raCertificate(t)
	der, err := BuildFailure(newFailure(), ra, testKey(t, "ra"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ra.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ra.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "cms", "-verify", "-noverify", "-binary", "-inform", "DER", "-certfile", file)
	cmd.Stdin = bytes.NewReader(der)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	if !bytes.Equal(out, []byte{0}) {
		t.Errorf("content %x", out)
	}
}

// FuzzReply: no panic in either reader of NDES's answers; an error comes with
// nothing; what is accepted is consistent.
func FuzzReply(f *testing.F) {
	key := fuzzKey(f)
	ra := testCertificate(f, key, "Example CA", big.NewInt(0x7900))
	r := rawReplyFor(f, ra, key)
	f.Add(r.der(f))
	envelope, err := composeEnvelopedData(PKIMessage{Recipient: ra, Content: []byte("certificates")})
	if err != nil {
		f.Fatal(err)
	}
	r.content("0", "", envelope)
	f.Add(r.der(f))
	failure, err := BuildFailure(newFailure(), ra, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(failure)
	f.Add(certsOnly(ra.Raw))
	f.Add(ra.Raw)
	candidates := []*x509.Certificate{ra}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseCertRep(raw)
		switch {
		case err != nil && c != nil:
			t.Fatal("error and reply")
		case err == nil && c.PKIStatus == "0" && (c.FailInfo != "" || len(c.content) < 2):
			t.Fatal("success that says two things")
		case err == nil:
			_, _ = c.VerifySigner(candidates)
		}
		certificates, err := ParseCACert(raw)
		if err != nil && certificates != nil || err == nil && (len(certificates) == 0 || len(certificates) > maxCACertificates) {
			t.Fatalf("%d certificates, error %v", len(certificates), err)
		}
	})
}
