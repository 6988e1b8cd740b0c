package inspector

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseIssuerAndSubjectReadsTwoNames(t *testing.T) {
	ca := newCA(t, "Issuing CA", testKey(t, "other"))
	want := &IssuerAndSubject{Issuer: ca.RawSubject, Subject: []RDN{
		{{Type: "2.5.4.10", Value: "Example Corp", Tag: tagPrintableString}},
		{{Type: oidCommonName, Value: "gerät", Tag: tagUTF8String}},
	}}
	der, err := BuildIssuerAndSubject(ca.RawSubject, want.Subject)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseIssuerAndSubject(der)
	if err != nil {
		t.Fatal(err)
	}
	clear(der) // as Open does
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if der, err := BuildIssuerAndSubject(ca.RawSubject, []RDN{{{Type: "x", Value: "y"}}}); err == nil || der != nil {
		t.Error("built a name without a type")
	}
}

func TestTheIssuerOfAPollMayHaveAnyStringType(t *testing.T) {
	issuer := derSequence(derSet(derSequence(derOID(oidCommonName), derBMP("CA"))), derSet(derSequence(derOID("2.5.4.10"), tlv(0x14, []byte("O")))))
	got, err := ParseIssuerAndSubject(derSequence(issuer, derName("a")))
	if err != nil || !bytes.Equal(got.Issuer, issuer) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseIssuerAndSubjectRefuses(t *testing.T) {
	ca, device := derName("ca"), derName("device")
	many := make([][]byte, maxRDNs+1)
	wide := make([][]byte, maxRDNAttributes+1)
	for i := range many {
		many[i] = derSet(derSequence(derOID(oidCommonName), derUTF8(fmt.Sprint(i))))
	}
	for i := range wide {
		wide[i] = derSequence(derOID(oidCommonName), derUTF8(fmt.Sprint(i)))
	}
	for name, der := range map[string][]byte{
		"nothing":                        nil,
		"junk":                           []byte("junk"),
		"an empty sequence":              derSequence(),
		"a set":                          derSet(ca, device),
		"the issuer alone":               derSequence(ca),
		"a third name":                   derSequence(ca, device, device),
		"a serial number behind":         derSequence(ca, device, derInt(1)),
		"a serial number for a subject":  derSequence(ca, derInt(1)),
		"a byte behind":                  append(derSequence(ca, device), 0),
		"C57 a second element behind":    append(derSequence(ca, device), derNull()...),
		"indefinite length":              indefinite(0x30, ca, device),
		"an issuer without an RDN":       derSequence(derSequence(), device),
		"an issuer that is no sequence":  derSequence(derSet(), device),
		"an issuer of attributes":        derSequence(derSequence(derSequence(derOID(oidCommonName), derUTF8("ca"))), device),
		"an empty RDN in the issuer":     derSequence(derSequence(derSet()), device),
		"an attribute without a value":   derSequence(derSequence(derSet(derSequence(derOID(oidCommonName)))), device),
		"an attribute with two values":   derSequence(derSequence(derSet(derSequence(derOID(oidCommonName), derUTF8("a"), derUTF8("b")))), device),
		"an attribute without a type":    derSequence(derSequence(derSet(derSequence(derUTF8("a"), derUTF8("b")))), device),
		"an attribute that is no pair":   derSequence(derSequence(derSet(derUTF8("a"))), device),
		"an issuer of too many RDNs":     derSequence(derSequence(many...), device),
		"an issuer of a too wide RDN":    derSequence(derSequence(derSet(wide...)), device),
		"a subject as BMPString":         derSequence(ca, derSequence(derSet(derSequence(derOID(oidCommonName), derBMP("a"))))),
		"B32 a subject with a line feed": derSequence(ca, derName("a\nb")),
		"D20 a PKCS#10":                  testCSR(t),
	} {
		got, err := ParseIssuerAndSubject(der)
		var stage *ParseError
		if got != nil || !errors.As(err, &stage) || stage.Kind != KindRequest {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// threat D20: the inner grammar is fixed by messageType.
func TestTheMessageTypeSaysWhatIsInTheEnvelope(t *testing.T) {
	ra := raPair(t, "one")
	o := newTestOpener(t, ra)
	poll, csr := derSequence(derName("ca"), derName("device")), testCSR(t)
	for _, tt := range []struct {
		messageType string
		content     []byte
		csr, poll   bool
	}{
		{"19", csr, true, false},
		{"17", csr, true, false},
		{"20", poll, false, true},
		{"20", csr, false, false},
		{"19", poll, false, false},
		{"17", poll, false, false},
		{"18", poll, false, false},
		{"020", poll, false, false},
		{"", poll, false, false},
	} {
		m := sealed(t, ra, "aes128", tt.content).message()
		m.MessageType = tt.messageType
		got := o.Open(m)
		if (got.CSR != nil) != tt.csr || (got.Poll != nil) != tt.poll || (got.Err == nil) != (tt.csr || tt.poll) {
			t.Errorf("type %s: %+v", tt.messageType, got)
		}
		if got.Err != nil && got.Err.Kind != KindRequest {
			t.Errorf("type %s: kind %d", tt.messageType, got.Err.Kind)
		}
		if got.Poll != nil && !bytes.Equal(got.Poll.Issuer, derName("ca")) { // the plaintext was wiped
			t.Errorf("issuer %x", got.Poll.Issuer)
		}
	}
}

func TestFailedDecryptionsOfAPollCannotBeToldApart(t *testing.T) {
	ra := raPair(t, "one")
	o := newTestOpener(t, ra)
	open := func(change func(s *envelopeSpec)) *ParseError {
		s := sealed(t, ra, "aes128", derSequence(derName("ca"), derName("device")))
		change(s)
		m := s.message()
		m.MessageType = "20"
		got := o.Open(m)
		if got.Poll != nil || got.CSR != nil || got.Err == nil {
			t.Fatalf("%+v", got)
		}
		return got.Err
	}
	size := ra.Certificate.PublicKey.(*rsa.PublicKey).Size()
	first := open(func(s *envelopeSpec) { s.encryptedKey = derOctets(wrapPKCS1v15(t, ra, make([]byte, 15))) })
	for name, change := range map[string]func(s *envelopeSpec){
		"block type 1": func(s *envelopeSpec) {
			padded := bytes.Repeat([]byte{0xa5}, size)
			padded[0], padded[1] = 0, 1
			s.encryptedKey = derOctets(rawRSA(ra, padded))
		},
		"wrong padding": func(s *envelopeSpec) {
			s.encrypted = tlv(0x80, s.encrypt(t, bytes.Repeat([]byte{0x30}, 64)))
		},
		"partial block": func(s *envelopeSpec) { s.encrypted = tlv(0x80, make([]byte, 40)) },
	} {
		if got := open(change); got.Kind != first.Kind || got.Error() != first.Error() {
			t.Errorf("%s: %v, not %v", name, got, first)
		}
	}
}

// FuzzIssuerAndSubject: no panic; an error comes with nothing; what is accepted
// has one reading.
func FuzzIssuerAndSubject(f *testing.F) {
	f.Add(derSequence(derName("ca"), derName("device")))
	f.Add(derSequence(derSequence(derSet(derSequence(derOID(oidCommonName), derBMP("CA")))), derSequence()))
	f.Add(derSequence(derName("ca"), derSequence(derSet(derSequence(derOID("2.5.4.10"), derPrintable("O")), derSequence(derOID(oidEmailAddress), derIA5("a@b"))))))
	f.Add(indefinite(0x30, derName("ca"), derName("device")))
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := ParseIssuerAndSubject(der)
		if (got == nil) == (err == nil) {
			t.Fatalf("%+v with %v", got, err)
		}
		if err != nil {
			var stage *ParseError
			if !errors.As(err, &stage) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		again, err := BuildIssuerAndSubject(got.Issuer, got.Subject)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x\nis written as %x, %v", der, again, err)
		}
	})
}
