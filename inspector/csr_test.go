package inspector

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rawCSR is a PKCS#10 in pieces, each of which a test can replace.
type rawCSR struct {
	version    []byte
	subject    []byte
	spki       []byte
	attributes []byte // with its tag
	infoExtra  []byte
	algorithm  []byte
	signature  []byte // BIT STRING; nil: made over the info
	extra      []byte
	after      []byte
	key        *rsa.PrivateKey
	hash       crypto.Hash
}

func newRawCSR(t testing.TB) *rawCSR { return rawCSRFor(t, testKey(t, "device")) }

func rawCSRFor(t testing.TB, key *rsa.PrivateKey) *rawCSR {
	return &rawCSR{
		version:    integerOctets(0),
		subject:    subjectCN("device-1"),
		spki:       spkiOf(t, key),
		attributes: explicitTag(0),
		algorithm:  derAlgorithm(oidSHA256WithRSA),
		key:        key,
		hash:       crypto.SHA256,
	}
}

func spkiOf(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func (r *rawCSR) der(t testing.TB) []byte {
	t.Helper()
	info := derSequence(r.version, r.subject, r.spki, r.attributes, r.infoExtra)
	signature := r.signature
	if signature == nil {
		h := r.hash.New()
		h.Write(info)
		s, err := rsa.SignPKCS1v15(nil, r.key, r.hash, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		signature = derBits(s)
	}
	return append(derSequence(info, r.algorithm, signature, r.extra), r.after...)
}

func (r *rawCSR) withAttributes(attributes ...[]byte) { r.attributes = explicitTag(0, attributes...) }

func (r *rawCSR) withExtensions(extensions ...[]byte) {
	r.withAttributes(derAttribute(oidExtensionRequest, derSequence(extensions...)))
}

func atv(t string, value []byte) []byte          { return derSequence(derOID(t), value) }
func subjectCN(cn string) []byte                 { return derSequence(derSet(atv(oidCommonName, derPrintable(cn)))) }
func subjectValue(t string, value []byte) []byte { return derSequence(derSet(atv(t, value))) }
func extension(t string, value []byte) []byte    { return derSequence(derOID(t), derOctets(value)) }
func criticalExtension(t string, value []byte) []byte {
	return derSequence(derOID(t), []byte{0x01, 0x01, 0xff}, derOctets(value))
}
func san(names ...[]byte) []byte { return extension(oidSubjectAltName, derSequence(names...)) }
func upn(value []byte) []byte    { return explicitTag(0, derOID(oidMSUPN), explicitTag(0, value)) }
func sidExtension(value []byte) []byte {
	return extension(oidMSSID, derSequence(explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, value))))
}
func dnsName(s string) []byte { return implicitTag(2, []byte(s)) }

// parseRefused asserts that der is refused with kind and gives nothing.
func parseRefused(t testing.TB, der []byte, kind Kind) {
	t.Helper()
	csr, err := ParseCSR(der)
	if csr != nil {
		t.Fatal("a refused request came back")
	}
	var perr *ParseError
	if !errors.As(err, &perr) {
		t.Fatalf("error is %T %v, want *ParseError", err, err)
	}
	if perr.Kind != kind {
		t.Fatalf("kind %d (%v), want %d", perr.Kind, err, kind)
	}
}

// accepted asserts that der is accepted and that crypto/x509 agrees.
func accepted(t testing.TB, der []byte) *CSR {
	t.Helper()
	csr, err := ParseCSR(der)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	other, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatalf("crypto/x509 does not parse what was accepted: %v", err)
	}
	if !bytes.Equal(other.RawSubjectPublicKeyInfo, csr.SPKI) || !bytes.Equal(csr.Raw, der) {
		t.Fatal("crypto/x509 reads another key or request")
	}
	if err := other.CheckSignature(); err != nil && csr.SignatureDigest != "sha1" {
		t.Fatalf("crypto/x509 does not verify the signature: %v", err)
	}
	return csr
}

// sharedText must not come back in an error.
const sharedText = "canary-text"

func TestParseCSRRefusesStructure(t *testing.T) {
	goodChallenge := derAttribute(oidChallengePassword, derPrintable("PW12345678"))
	otherChallenge := derAttribute(oidChallengePassword, derPrintable("PW87654321"))
	goodSAN := san(dnsName("a.example.com"))
	evilSAN := san(dnsName("dc01.example.com"))
	for name, change := range map[string]func(r *rawCSR){
		"bytes after the request (C22)":                func(r *rawCSR) { r.after = []byte{0} },
		"a second request after the first (C22)":       func(r *rawCSR) { r.after = newRawCSR(t).der(t) },
		"a fourth element (C07)":                       func(r *rawCSR) { r.extra = derNull() },
		"an element after the attributes (C07)":        func(r *rawCSR) { r.infoExtra = derNull() },
		"version 3 (C16)":                              func(r *rawCSR) { r.version = integerOctets(3) },
		"version -1 (C16)":                             func(r *rawCSR) { r.version = integerOctets(0xff) },
		"version of five bytes (C16)":                  func(r *rawCSR) { r.version = integerOctets(1, 0, 0, 0, 0) },
		"version not minimal":                          func(r *rawCSR) { r.version = integerOctets(0, 0) },
		"version is no integer":                        func(r *rawCSR) { r.version = derOctets([]byte{0}) },
		"no attributes field (C15)":                    func(r *rawCSR) { r.attributes = nil },
		"primitive attributes field (C15)":             func(r *rawCSR) { r.attributes = []byte{0x80, 0x00} },
		"attributes as a universal SET (C15)":          func(r *rawCSR) { r.attributes = derSet() },
		"attributes under [1] (C15)":                   func(r *rawCSR) { r.attributes = explicitTag(1) },
		"more attributes than the limit":               func(r *rawCSR) { r.withAttributes(manyAttributes(maxAttributes + 1)...) },
		"signature with unused bits":                   func(r *rawCSR) { r.signature = tlv(3, []byte{1}, bytes.Repeat([]byte{2}, 256)) },
		"signature is an octet string":                 func(r *rawCSR) { r.signature = derOctets(bytes.Repeat([]byte{2}, 256)) },
		"signature of no octets":                       func(r *rawCSR) { r.signature = derBits(nil) },
		"signature over other bytes (C17)":             func(r *rawCSR) { r.signature = derBits(bytes.Repeat([]byte{2}, 256)) },
		"signature by another key (C17)":               func(r *rawCSR) { r.key = testKey(t, "other") },
		"signature algorithm with absent parameters":   func(r *rawCSR) { r.algorithm = derSequence(derOID(oidSHA256WithRSA)) },
		"signature algorithm with other parameters":    func(r *rawCSR) { r.algorithm = derSequence(derOID(oidSHA256WithRSA), derSequence()) },
		"signature algorithm with a third element":     func(r *rawCSR) { r.algorithm = derSequence(derOID(oidSHA256WithRSA), derNull(), derNull()) },
		"digest of the signature is not the one named": func(r *rawCSR) { r.algorithm = derAlgorithm(oidSHA512WithRSA) },
		"attribute whose values are a SEQUENCE (C06)": func(r *rawCSR) {
			r.withAttributes(derSequence(derOID(oidChallengePassword), derSequence(derPrintable("PW"))))
		},
		"attribute with an empty SET (C06)":        func(r *rawCSR) { r.withAttributes(derAttribute(oidChallengePassword)) },
		"attribute with a long-form length (C06)":  func(r *rawCSR) { r.withAttributes(longForm(goodChallenge)) },
		"attribute with a padded identifier (C06)": func(r *rawCSR) { r.withAttributes(paddedExtensionRequest(goodSAN)) },
		"attribute with a third element (C07)": func(r *rawCSR) {
			r.withAttributes(derSequence(derOID(oidChallengePassword), derSet(derPrintable("PW")), derNull()))
		},
		"attribute that is no SEQUENCE":     func(r *rawCSR) { r.withAttributes(derSet(derOID(oidChallengePassword), derSet(derPrintable("PW")))) },
		"two challenges (C10)":              func(r *rawCSR) { r.withAttributes(goodChallenge, otherChallenge) },
		"two challenges, other order (C10)": func(r *rawCSR) { r.withAttributes(otherChallenge, goodChallenge) },
		"two values of the challenge (C11)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidChallengePassword, derPrintable("A"), derPrintable("B")))
		},
		"extensions under both identifiers (C02)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidExtensionRequest, derSequence(goodSAN)), derAttribute(oidMSCertExtensions, derSequence(evilSAN)))
		},
		"extensions under both, other order (C02)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidMSCertExtensions, derSequence(evilSAN)), derAttribute(oidExtensionRequest, derSequence(goodSAN)))
		},
		"two extensionRequests (C03)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidExtensionRequest, derSequence(goodSAN)), derAttribute(oidExtensionRequest, derSequence(sidExtension(derOctets([]byte("S-1-5-21-1"))))))
		},
		"two extensionRequests of the same (C04)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidExtensionRequest, derSequence(goodSAN)), derAttribute(oidExtensionRequest, derSequence(goodSAN)))
		},
		"two values of extensionRequest (C05)": func(r *rawCSR) {
			r.withAttributes(derAttribute(oidExtensionRequest, derSequence(goodSAN), derSequence(evilSAN)))
		},
		"two values of an unknown attribute": func(r *rawCSR) { r.withAttributes(derAttribute("1.2.3.4", derNull(), derNull())) },
		"an unknown attribute twice": func(r *rawCSR) {
			r.withAttributes(derAttribute("1.2.3.4", derNull()), derAttribute("1.2.3.4", derOctets(nil)))
		},
		"indefinite length inside (C23)":  func(r *rawCSR) { r.withAttributes([]byte{0x30, 0x80, 0, 0}) },
		"constructed string inside (C23)": func(r *rawCSR) { r.withAttributes(derAttribute(oidChallengePassword, tlv(0x33, derPrintable("PW")))) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			change(r)
			parseRefused(t, r.der(t), KindRequest)
		})
	}
}

func manyAttributes(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = derSequence(tlv(6, []byte{0x2a, byte(i)}), derSet(derNull()))
	}
	return list
}

// longForm gives an element the length 81 nn where nn is enough.
func longForm(element []byte) []byte {
	return append([]byte{element[0], 0x81}, element[1:]...)
}

// paddedExtensionRequest names extensionRequest with a padded last arc.
func paddedExtensionRequest(extensions ...[]byte) []byte {
	id := tlv(6, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x80, 0x0e})
	return derSequence(id, derSet(derSequence(extensions...)))
}

func TestParseCSRRefusesWhatIsNoPKCS10(t *testing.T) {
	good := newRawCSR(t).der(t)
	for name, der := range map[string][]byte{
		"nothing":                            nil,
		"one byte":                           {0x30},
		"text":                               []byte("-----BEGIN CERTIFICATE REQUEST-----"),
		"a SET":                              append([]byte{0x31}, good[1:]...),
		"an empty SEQUENCE":                  derSequence(),
		"a PKCS#10 in an OCTET STRING (B30)": derOctets(good),
		"a ContentInfo (B30)":                derSequence(derOID(oidSignedData), explicitTag(0, derSequence())),
		"cut short":                          good[:len(good)-1],
		"indefinite length":                  append(append([]byte{0x30, 0x80}, good[4:]...), 0, 0),
		"leading zero in the length":         append([]byte{0x30, 0x83, 0x00}, good[2:]...),
		"nested deeper than the limit (C60)": nested(maxDepth + 1),
		"more elements than the limit (C61)": derSequence(bytes.Repeat(derNull(), maxElements)),
		"larger than the limit":              derSequence(derOctets(make([]byte, maxInput))),
	} {
		t.Run(name, func(t *testing.T) { parseRefused(t, der, KindRequest) })
	}
}

func nested(depth int) []byte {
	var b []byte
	for range depth {
		b = derSequence(b)
	}
	return b
}

func TestParseCSRRefusesNames(t *testing.T) {
	two := func(a, b []byte) []byte { return derSequence(derSet(a, b)) }
	cn, ou := atv(oidCommonName, derPrintable("a")), atv("2.5.4.11", derPrintable("b"))
	many := make([][]byte, maxRDNs+1)
	for i := range many {
		many[i] = derSet(cn)
	}
	for name, subject := range map[string][]byte{
		"empty RDN (C27)":                      derSequence(derSet(), derSet(cn)),
		"RDN as a SEQUENCE":                    derSequence(derSequence(cn)),
		"subject as a SET":                     derSet(derSet(cn)),
		"multi-valued RDN unsorted (C25)":      two(ou, cn),
		"multi-valued RDN with equal elements": two(cn, cn),
		"more RDNs than the limit":             derSequence(many...),
		"more attributes in an RDN than limit": derSequence(derSet(sortSetOf(manyNameAttributes(maxRDNAttributes + 1))...)),
		"third element in the attribute (C07)": derSequence(derSet(derSequence(derOID(oidCommonName), derPrintable("a"), derNull()))),
		"attribute without a value":            derSequence(derSet(derSequence(derOID(oidCommonName)))),
		"attribute as a SET":                   derSequence(derSet(derSet(derOID(oidCommonName), derPrintable("a")))),
		"attribute type is no identifier":      derSequence(derSet(derSequence(derOctets([]byte("cn")), derPrintable("a")))),
		"empty value":                          subjectCN(""),
		"value longer than the limit (C21)":    subjectCN(strings.Repeat("a", maxNameValue+1)),
		"INTEGER (C28)":                        subjectValue(oidCommonName, integerOctets(5)),
		"OCTET STRING (C28)":                   subjectValue(oidCommonName, derOctets([]byte(sharedText))),
		"SEQUENCE (C28)":                       subjectValue(oidCommonName, derSequence(derNull())),
		"UniversalString (C28)":                subjectValue(oidCommonName, tlv(0x1c, []byte{0, 0, 0, 'a'})),
		"BMPString (C30)":                      subjectValue(oidCommonName, derBMP("a")),
		"T61String (C31)":                      subjectValue(oidCommonName, tlv(0x14, []byte("a"))),
		"VisibleString":                        subjectValue(oidCommonName, tlv(0x1a, []byte("a"))),
		"NumericString":                        subjectValue(oidCommonName, tlv(0x12, []byte("1"))),
		"context-specific tag":                 subjectValue(oidCommonName, implicitTag(12, []byte("a"))),
		"IA5String in CN":                      subjectValue(oidCommonName, derIA5("a")),
		"IA5String in unstructuredAddress":     subjectValue("1.2.840.113549.1.9.8", derIA5("192.0.2.7")),
		"IA5String in serialNumber":            subjectValue("2.5.4.5", derIA5("42")),
		"control in unstructuredName":          subjectValue(oidUnstructuredName, derIA5("r1\n.example.com")),
		"8-bit character in unstructuredName":  subjectValue(oidUnstructuredName, derIA5("r1\xe9")),
		"empty unstructuredName":               subjectValue(oidUnstructuredName, derIA5("")),
		"T61String in unstructuredName":        subjectValue(oidUnstructuredName, tlv(0x14, []byte("a"))),
		"IA5String with an 8-bit character":    subjectValue(oidEmailAddress, derIA5("\xe9@example.com")),
		"IA5String with a control":             subjectValue(oidEmailAddress, derIA5("a\n@example.com")),
		"PrintableString with * (C32)":         subjectCN("*"),
		"PrintableString with & (C32)":         subjectCN("a&b"),
		"PrintableString with @ (C32)":         subjectCN("a@b"),
		"PrintableString with _ (C32)":         subjectCN("a_b"),
		"UTF8String that is not UTF-8":         subjectValue(oidCommonName, derUTF8("a\xff")),
		"UTF8String with an overlong form":     subjectValue(oidCommonName, derUTF8("\xc0\x80")),
		"UTF8String with a surrogate":          subjectValue(oidCommonName, derUTF8("\xed\xa0\x80")),
		"NUL (C33)":                            subjectValue(oidCommonName, derUTF8("good\x00evil")),
		"LF (B32)":                             subjectValue(oidCommonName, derUTF8("x\nSAN:upn=admin")),
		"CR (B32)":                             subjectValue(oidCommonName, derUTF8("x\ry")),
		"DEL (B32)":                            subjectValue(oidCommonName, derUTF8("x\x7f")),
		"C1 control (B32)":                     subjectValue(oidCommonName, derUTF8("x\u0085")),
		"line separator (B32)":                 subjectValue(oidCommonName, derUTF8("x\u2028y")),
		"paragraph separator (B32)":            subjectValue(oidCommonName, derUTF8("x\u2029y")),
		"right-to-left override (C34)":         subjectValue(oidCommonName, derUTF8("x\u202ey")),
		"isolate (C34)":                        subjectValue(oidCommonName, derUTF8("x\u2066y")),
		"zero-width space (C34)":               subjectValue(oidCommonName, derUTF8("x\u200by")),
		"zero-width joiner (C34)":              subjectValue(oidCommonName, derUTF8("x\u200dy")),
		"byte order mark (C34)":                subjectValue(oidCommonName, derUTF8("\ufeffx")),
		"soft hyphen (C34)":                    subjectValue(oidCommonName, derUTF8("x\u00ady")),
		"Hangul filler (C34)":                  subjectValue(oidCommonName, derUTF8("x\u3164")),
		"grapheme joiner (C34)":                subjectValue(oidCommonName, derUTF8("x\u034fy")),
		"variation selector (C34)":             subjectValue(oidCommonName, derUTF8("x\ufe0f")),
		"private use":                          subjectValue(oidCommonName, derUTF8("x\ue000")),
		"noncharacter":                         subjectValue(oidCommonName, derUTF8("x\uffff")),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.subject = subject
			der := r.der(t)
			parseRefused(t, der, KindRequest)
			if _, err := ParseCSR(der); strings.Contains(err.Error(), sharedText) {
				t.Errorf("error quotes the request: %v", err)
			}
		})
	}
}

func manyNameAttributes(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = atv(oidCommonName, derPrintable(string(rune('a'+i))))
	}
	return list
}

func TestParseCSRKeepsTheSubjectAsSent(t *testing.T) {
	r := newRawCSR(t)
	r.subject = derSequence(
		derSet(atv(oidDomainComponent, derIA5("example"))),
		derSet(atv("2.5.4.10", derUTF8("Müller & Söhne"))),
		derSet(atv("2.5.4.5", derPrintable("42")), atv(oidCommonName, derPrintable("good"))),
		derSet(atv(oidCommonName, derUTF8("evil"))),
		derSet(atv(oidEmailAddress, derIA5("a@example.com"))),
	)
	want := []RDN{
		{{oidDomainComponent, "example", 22}},
		{{"2.5.4.10", "Müller & Söhne", 12}},
		{{"2.5.4.5", "42", 19}, {oidCommonName, "good", 19}},
		{{oidCommonName, "evil", 12}},
		{{oidEmailAddress, "a@example.com", 22}},
	}
	if diff := cmp.Diff(want, accepted(t, r.der(t)).Subject); diff != "" {
		t.Error(diff)
	}
}

// Subjects as Cisco IOS ("crypto pki enroll") and ASA write them: the device's
// own attributes in one RDN, in DER order, the host name an IA5String.
func TestParseCSRReadsTheSubjectsOfRouters(t *testing.T) {
	cn := derSet(atv(oidCommonName, derPrintable("r1.example.com")))
	host := atv(oidUnstructuredName, derIA5("r1.example.com"))
	for name, c := range map[string]struct {
		last []byte
		want RDN
	}{
		"host name": {derSet(host), RDN{{oidUnstructuredName, "r1.example.com", 22}}},
		"serial number and host name": {derSet(atv("2.5.4.5", derPrintable("FTX1234ABCD")), host),
			RDN{{"2.5.4.5", "FTX1234ABCD", 19}, {oidUnstructuredName, "r1.example.com", 22}}},
		"address and host name": {derSet(atv("1.2.840.113549.1.9.8", derPrintable("192.0.2.7")), host),
			RDN{{"1.2.840.113549.1.9.8", "192.0.2.7", 19}, {oidUnstructuredName, "r1.example.com", 22}}},
		"host name as PrintableString": {derSet(atv(oidUnstructuredName, derPrintable("r1"))), RDN{{oidUnstructuredName, "r1", 19}}},
		"host name as UTF8String":      {derSet(atv(oidUnstructuredName, derUTF8("r1"))), RDN{{oidUnstructuredName, "r1", 12}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.subject = derSequence(cn, c.last)
			if diff := cmp.Diff([]RDN{{{oidCommonName, "r1.example.com", 19}}, c.want}, accepted(t, r.der(t)).Subject); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseCSRTakesAnEmptySubjectAsAFact(t *testing.T) {
	r := newRawCSR(t)
	r.subject = derSequence()
	if got := accepted(t, r.der(t)).Subject; len(got) != 0 {
		t.Errorf("subject %v", got)
	}
}

func TestParseCSRTakesAValueOfTheLimit(t *testing.T) {
	r := newRawCSR(t)
	r.subject = subjectCN(strings.Repeat("a", maxNameValue))
	accepted(t, r.der(t))
}

func TestParseCSRRefusesAlgorithms(t *testing.T) {
	for name, algorithm := range map[string][]byte{
		"md5":                        derAlgorithm(oidMD5WithRSA),
		"md2":                        derAlgorithm("1.2.840.113549.1.1.2"),
		"sha224":                     derAlgorithm("1.2.840.113549.1.1.14"),
		"PSS (C18)":                  derSequence(derOID("1.2.840.113549.1.1.10"), derSequence()),
		"ecdsa":                      derSequence(derOID(oidECDSAWithSHA256)),
		"rsaEncryption as signature": derAlgorithm(oidRSAEncryption),
		"unknown (C17)":              derAlgorithm("1.2.3.4"),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.algorithm = algorithm
			parseRefused(t, r.der(t), KindAlgorithm)
		})
	}
}

func TestParseCSRTakesEveryDigestButMD5(t *testing.T) {
	for _, d := range digestAlgorithms[1:] {
		r := newRawCSR(t)
		r.algorithm, r.hash = derAlgorithm(d.withRSA), d.hash
		if got := accepted(t, r.der(t)).SignatureDigest; got != d.name {
			t.Errorf("digest %q, want %q", got, d.name)
		}
	}
}

// threat C19: all refused before the signature is looked at, which in these
// requests verifies under no key.
func TestParseCSRRefusesKeys(t *testing.T) {
	rsaSPKI := func(n *big.Int, e int64) []byte {
		integer := func(i *big.Int) []byte {
			b := i.Bytes()
			if len(b) == 0 || b[0] >= 0x80 {
				b = append([]byte{0}, b...)
			}
			return tlv(2, b)
		}
		return derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(integer(n), integer(big.NewInt(e)))))
	}
	modulus := func(bits uint) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return n.Add(n, big.NewInt(1))
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := x509.MarshalPKIXPublicKey(&curve.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := spkiOf(t, testKey(t, "device"))
	for name, spki := range map[string][]byte{
		"P-256":                         p256,
		"Ed25519":                       derSequence(derSequence(derOID("1.3.101.112")), derBits(make([]byte, 32))),
		"RSA-PSS key":                   derSequence(derAlgorithm("1.2.840.113549.1.1.10"), derBits(derSequence(integerOctets(3), integerOctets(3)))),
		"512 bits":                      rsaSPKI(modulus(512), 65537),
		"1023 bits":                     rsaSPKI(modulus(1023), 65537),
		"8193 bits":                     rsaSPKI(modulus(8193), 65537),
		"65536 bits":                    rsaSPKI(modulus(65536), 65537),
		"even modulus":                  rsaSPKI(new(big.Int).Lsh(big.NewInt(1), 2047), 65537),
		"zero modulus":                  rsaSPKI(new(big.Int), 65537),
		"negative modulus":              derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(tlv(2, bytes.Repeat([]byte{0x81}, 256)), integerOctets(1, 0, 1)))),
		"exponent 1":                    rsaSPKI(modulus(2048), 1),
		"exponent 3":                    rsaSPKI(modulus(2048), 3),
		"even exponent":                 rsaSPKI(modulus(2048), 65538),
		"exponent 2^31 + 1":             rsaSPKI(modulus(2048), 1<<31+1),
		"absent parameters":             derSequence(derSequence(derOID(oidRSAEncryption)), derBits(derSequence(integerOctets(3), integerOctets(3)))),
		"key with a third element":      derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(integerOctets(3), integerOctets(3), derNull()))),
		"bytes after the key":           derSequence(derAlgorithm(oidRSAEncryption), derBits(append(derSequence(integerOctets(3), integerOctets(3)), derNull()...))),
		"key info with a third element": tlv(0x30, good[4:], derNull()),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.spki = spki
			parseRefused(t, r.der(t), KindKey)
		})
	}
}

func TestParseCSRChallenge(t *testing.T) {
	long := strings.Repeat("x", maxChallenge)
	for name, c := range map[string]struct {
		value []byte
		want  string // "": no challenge
	}{
		"PrintableString":        {derPrintable("8CE317021F690069"), "8CE317021F690069"},
		"UTF8String":             {derUTF8("p@ss_w*rd~"), "p@ss_w*rd~"},
		"blanks around it stay":  {derUTF8(" PW "), " PW "},
		"of the greatest length": {derPrintable(long), long},
		"empty (A11)":            {derPrintable(""), ""},
		"blank (A11)":            {derPrintable(" "), ""},
		"blanks (A11)":           {derUTF8("   "), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.withAttributes(derAttribute(oidChallengePassword, c.value))
			csr := accepted(t, r.der(t))
			if csr.HasChallenge != (c.want != "") || csr.Challenge != c.want {
				t.Errorf("has %v, challenge of %d characters", csr.HasChallenge, len(csr.Challenge))
			}
		})
	}
	for name, value := range map[string][]byte{
		"BMPString (C12)":          derBMP("PW12345678"),
		"T61String (C12)":          tlv(0x14, []byte("PW12345678")),
		"IA5String (C12)":          derIA5("PW12345678"),
		"UniversalString (C12)":    tlv(0x1c, []byte{0, 0, 0, 'P'}),
		"OCTET STRING":             derOctets([]byte("PW12345678")),
		"context-specific":         implicitTag(12, []byte("PW12345678")),
		"NUL":                      derUTF8("PW\x00x"),
		"control":                  derUTF8("PW\n"),
		"not ASCII":                derUTF8("pässword"),
		"PrintableString with *":   derPrintable("PW*"),
		"longer than the greatest": derPrintable(long + "x"),
		"nested in a SEQUENCE":     derSequence(derPrintable("PW12345678")),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.withAttributes(derAttribute(oidChallengePassword, value))
			der := r.der(t)
			parseRefused(t, der, KindRequest)
			if _, err := ParseCSR(der); strings.Contains(err.Error(), "PW") {
				t.Errorf("error quotes the challenge: %v", err)
			}
		})
	}
}

func TestParseCSRMicrosoftAttributes(t *testing.T) {
	clientInfo := func(id []byte, texts ...[]byte) []byte {
		return derAttribute(oidMSRequestClientInfo, derSequence(append([][]byte{id}, texts...)...))
	}
	csp := func(parts ...[]byte) []byte { return derAttribute(oidMSCSP, derSequence(parts...)) }
	good := [][]byte{
		derAttribute(oidMSOSVersion, derIA5("10.0.19045.2")),
		clientInfo(integerOctets(9), derUTF8("pc1.example.com"), derUTF8(`EXAMPLE\ann`), derUTF8("certreq.exe")),
		csp(integerOctets(1), derBMP("Microsoft Software Key Storage Provider"), derBits(nil)),
	}
	r := newRawCSR(t)
	r.withAttributes(good...)
	if got := accepted(t, r.der(t)).UnexpectedAttributes; got != nil {
		t.Errorf("unexpected attributes %v", got)
	}
	for name, attribute := range map[string][]byte{
		"OS version as UTF8String":         derAttribute(oidMSOSVersion, derUTF8("10")),
		"OS version empty":                 derAttribute(oidMSOSVersion, derIA5("")),
		"OS version with a control":        derAttribute(oidMSOSVersion, derIA5("10\r\n")),
		"OS version too long":              derAttribute(oidMSOSVersion, derIA5(strings.Repeat("1", maxOSVersion+1))),
		"OS version with two values (B25)": derAttribute(oidMSOSVersion, derIA5("10"), derIA5("11")),
		"client info with CRLF (B24)":      clientInfo(integerOctets(9), derUTF8("a\r\nb"), derUTF8("u"), derUTF8("p")),
		"client info too long (B24)":       clientInfo(integerOctets(9), derUTF8(strings.Repeat("a", maxClientText+1)), derUTF8("u"), derUTF8("p")),
		"client info with four texts":      clientInfo(integerOctets(9), derUTF8("a"), derUTF8("u"), derUTF8("p"), derUTF8("x")),
		"client info with two texts":       clientInfo(integerOctets(9), derUTF8("a"), derUTF8("u")),
		"client info with IA5String":       clientInfo(integerOctets(9), derIA5("a"), derUTF8("u"), derUTF8("p")),
		"client info with a huge number":   clientInfo(integerOctets(1, 0, 0, 0, 0), derUTF8("a"), derUTF8("u"), derUTF8("p")),
		"client info without number":       clientInfo(derUTF8("x"), derUTF8("a"), derUTF8("u"), derUTF8("p")),
		"client info is no SEQUENCE":       derAttribute(oidMSRequestClientInfo, derNull()),
		"CSP name of odd length (B26)":     csp(integerOctets(1), tlv(0x1e, []byte{0, 'a', 0}), derBits(nil)),
		"CSP name with a surrogate":        csp(integerOctets(1), tlv(0x1e, []byte{0xd8, 0x00}), derBits(nil)),
		"CSP name with NUL":                csp(integerOctets(1), tlv(0x1e, []byte{0, 'a', 0, 0}), derBits(nil)),
		"CSP name too long":                csp(integerOctets(1), derBMP(strings.Repeat("a", maxCSPName+1)), derBits(nil)),
		"CSP name as UTF8String":           csp(integerOctets(1), derUTF8("a"), derBits(nil)),
		"CSP without signature":            csp(integerOctets(1), derBMP("a")),
		"CSP with a fourth element":        csp(integerOctets(1), derBMP("a"), derBits(nil), derNull()),
		"CSP with a malformed signature":   csp(integerOctets(1), derBMP("a"), tlv(3)),
		"CSP with a huge number":           csp(integerOctets(1, 0, 0, 0, 0), derBMP("a"), derBits(nil)),
		"CSP is no SEQUENCE":               derAttribute(oidMSCSP, derNull()),
		"CSP without number":               csp(derBMP("a"), derBits(nil)),
		"friendly name as UTF8String":      derAttribute(oidFriendlyName, derUTF8("a")),
		"friendly name with NUL":           derAttribute(oidFriendlyName, tlv(0x1e, []byte{0, 'a', 0, 0})),
		"friendly name too long":           derAttribute(oidFriendlyName, derBMP(strings.Repeat("a", maxFriendlyName+1))),
		"friendly name of two values":      derAttribute(oidFriendlyName, derBMP("a"), derBMP("b")),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRawCSR(t)
			r.withAttributes(attribute)
			parseRefused(t, r.der(t), KindRequest)
		})
	}
}

// threats B16–B20, B27–B29, C14
func TestParseCSRListsUnknownAttributesByIdentifierOnly(t *testing.T) {
	r := newRawCSR(t)
	r.withAttributes(
		derAttribute("1.3.6.1.4.1.311.13.2.1", derSequence(derBMP("SAN"), derBMP("upn=admin"))),
		derAttribute(oidChallengePassword, derPrintable("PW12345678")),
		derAttribute("1.2.840.113549.1.9.2", derPrintable("name")),
	)
	csr := accepted(t, r.der(t))
	if diff := cmp.Diff([]string{"1.3.6.1.4.1.311.13.2.1", "1.2.840.113549.1.9.2"}, csr.UnexpectedAttributes); diff != "" {
		t.Error(diff)
	}
	if !csr.HasChallenge {
		t.Error("challenge between them lost")
	}
}

func TestParseCSRRefusesEveryChangedByte(t *testing.T) {
	der, err := BuildCSR(CSRParams{
		Subject: CommonName("device-1"), SAN: []GeneralName{{"dns", "a.example.com"}}, SID: "S-1-5-21-1",
		KeyUsage: 5, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}, Challenge: "8CE317021F690069",
	}, testKey(t, "device"))
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, der)
	for i := range der {
		changed := bytes.Clone(der)
		changed[i] ^= 1
		if csr, err := ParseCSR(changed); err == nil || csr != nil {
			t.Errorf("byte %d changed and accepted", i)
		}
	}
}

func TestParseCSRRefusesEveryMissingElement(t *testing.T) {
	good := newRawCSR(t)
	n, err := walk(good.der(t), modeDER)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n.children {
		parseRefused(t, derSequence(without(n, i)...), KindRequest)
	}
	for i, change := range []func(r *rawCSR){
		func(r *rawCSR) { r.version = nil },
		func(r *rawCSR) { r.subject = nil },
		func(r *rawCSR) { r.spki = nil },
		func(r *rawCSR) { r.attributes = nil },
		func(r *rawCSR) { r.version, r.subject, r.spki, r.attributes = nil, nil, nil, nil },
	} {
		r := newRawCSR(t)
		change(r)
		if csr, err := ParseCSR(r.der(t)); err == nil || csr != nil {
			t.Errorf("change %d accepted", i)
		}
	}
}

// without gives the children of n but one.
func without(n *node, i int) [][]byte {
	var parts [][]byte
	for j, child := range n.children {
		if j != i {
			parts = append(parts, child.raw)
		}
	}
	return parts
}

func TestParseCSRKeepsNothingOfItsArgument(t *testing.T) {
	r := newRawCSR(t)
	der := r.der(t)
	kept := bytes.Clone(der)
	csr := accepted(t, der)
	clear(der)
	if !bytes.Equal(csr.Raw, kept) || !bytes.Equal(csr.SPKI, r.spki) {
		t.Error("request changed with the argument")
	}
	if csr.SPKISHA256() != sha256.Sum256(r.spki) {
		t.Error("fingerprint is not the key's")
	}
}

func TestParseCSRReadsACapturedAppleRequest(t *testing.T) {
	csr := accepted(t, vector(t, "apple_2016_csr.der"))
	want := []RDN{{{oidCommonName, "com.apple.security.scep.063D7953-1338-4BF0-8F99-913382996224", 12}}}
	if diff := cmp.Diff(want, csr.Subject); diff != "" {
		t.Error(diff)
	}
	if csr.Version != 2 || csr.PublicKey.N.BitLen() != 1024 || csr.SignatureDigest != "sha1" || csr.HasChallenge ||
		!csr.HasKeyUsage || csr.KeyUsage != 1 || csr.UnexpectedExtensions != nil || csr.UnexpectedAttributes != nil || csr.SAN != nil {
		t.Errorf("facts: version %d, %d bits, %s, key usage %d", csr.Version, csr.PublicKey.N.BitLen(), csr.SignatureDigest, csr.KeyUsage)
	}
}

func TestBuiltRequestsAreReadBack(t *testing.T) {
	key := testKey(t, "device")
	challenge := "8CE317021F690069 +x"
	params := CSRParams{
		Version: 2,
		Subject: []RDN{
			{{Type: oidDomainComponent, Value: "example"}},
			{{Type: "2.5.4.11", Value: "Straße"}, {Type: oidCommonName, Value: "c02xk1"}},
		},
		SAN: []GeneralName{
			{"dns", "c02xk1.example.com"}, {"email", "ann@example.com"},
			{"uri", "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104"},
			{"ip", "192.0.2.7"}, {"ip", "2001:db8::7"}, {"upn", "ann@example.com"},
		},
		SID:         "S-1-5-21-1-2-3-1104",
		KeyUsage:    1 | 1<<2,
		ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"},
		Challenge:   challenge,
		Digest:      "sha512",
	}
	for _, microsoft := range []bool{false, true} {
		params.MicrosoftExtensions = microsoft
		der, err := BuildCSR(params, key)
		if err != nil {
			t.Fatal(err)
		}
		got := accepted(t, der)
		want := &CSR{
			Raw: der, Version: 2, SPKI: spkiOf(t, key), PublicKey: &key.PublicKey, SignatureDigest: "sha512",
			Subject: []RDN{
				{{oidDomainComponent, "example", 22}},
				{{oidCommonName, "c02xk1", 19}, {"2.5.4.11", "Straße", 12}},
			},
			HasChallenge: true, Challenge: challenge,
			SAN: params.SAN, SID: params.SID,
			HasKeyUsage: true, KeyUsage: params.KeyUsage,
			HasExtKeyUsage: true, ExtKeyUsage: params.ExtKeyUsage,
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *rsa.PublicKey) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("microsoft %v: %s", microsoft, diff)
		}
		opensslVerifies(t, der)
	}
}

func TestBuildCSRRefusesWhatItCanNotWrite(t *testing.T) {
	key := testKey(t, "device")
	for name, p := range map[string]CSRParams{
		"digest":     {Digest: "sha3"},
		"identifier": {ExtKeyUsage: []string{"clientAuth"}},
		"subject":    {Subject: []RDN{{{Type: "CN", Value: "x"}}}},
		"tag":        {Subject: []RDN{{{Type: oidCommonName, Value: "x", Tag: 99}}}},
		"address":    {SAN: []GeneralName{{"ip", "somewhere"}}},
		"name type":  {SAN: []GeneralName{{"other", "4"}}},
	} {
		if der, err := BuildCSR(p, key); err == nil || der != nil {
			t.Errorf("%s: built", name)
		}
	}
}

// opensslVerifies asks a second decoder, where there is one.
func opensslVerifies(t testing.TB, der []byte) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	cmd := exec.Command(path, "req", "-verify", "-noout", "-inform", "DER")
	cmd.Stdin = bytes.NewReader(der)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl req -verify: %v: %s", err, out)
	}
}

// FuzzCSR: no panic; an error comes with no request; what is accepted has one
// reading, that of crypto/x509.
func FuzzCSR(f *testing.F) {
	key := fuzzKey(f)
	plain := rawCSRFor(f, key)
	f.Add(plain.der(f))
	for _, microsoft := range []bool{false, true} {
		der, err := BuildCSR(CSRParams{
			Subject: CommonName("device-1"), SAN: []GeneralName{{"dns", "a.example.com"}, {"upn", "a@b"}},
			SID: "S-1-5-21-1", KeyUsage: 5, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}, Challenge: "PW12345678",
			MicrosoftExtensions: microsoft,
		}, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add(derSequence(derSequence(integerOctets(0), derSequence(), derSequence(), explicitTag(0)), derSequence(), derBits(nil)))
	f.Fuzz(func(t *testing.T, der []byte) {
		// A mutated request has a broken signature, which would hide everything
		// behind it: the info is signed anew.
		for _, candidate := range [][]byte{der, resigned(der, key)} {
			csr, err := ParseCSR(candidate)
			if err != nil {
				if csr != nil {
					t.Fatal("error and request")
				}
				var perr *ParseError
				if !errors.As(err, &perr) {
					t.Fatalf("error of type %T", err)
				}
				continue
			}
			accepted(t, candidate)
		}
	})
}

// resigned replaces key and signature of a request by those of key.
func resigned(der []byte, key *rsa.PrivateKey) []byte {
	n, err := walk(der, modeDER)
	if err != nil || len(n.children) != 3 || len(n.children[0].children) < 4 {
		return nil
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil
	}
	parts := [][]byte{}
	for i, child := range n.children[0].children {
		if i == 2 {
			parts = append(parts, spki)
			continue
		}
		parts = append(parts, child.raw)
	}
	info := derSequence(parts...)
	sum := sha1.Sum(info)
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA1, sum[:])
	if err != nil {
		return nil
	}
	return derSequence(info, derAlgorithm(oidSHA1WithRSA), derBits(signature))
}
