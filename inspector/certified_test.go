package inspector

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// issued is a certificate with these extensions, as a CA writes it.
func issued(t testing.TB, subject []byte, extensions ...[]byte) certificateSpec {
	spec := newCertificateSpec("device", 1, testKey(t, "client"))
	spec.subject = subject
	if extensions != nil {
		spec.extensions = tlv(0xa3, derSequence(extensions...))
	}
	return spec
}

func TestCertifiedReadsWhatACAWrites(t *testing.T) {
	clientAuth := derOID("1.3.6.1.5.5.7.3.2")
	all := [][]byte{
		criticalExtension(oidKeyUsage, []byte{3, 2, 5, 0xa0}),
		extension(oidSubjectAltName, derSequence(dnsName("c02xk1.example.com"))),
		extension(oidExtKeyUsage, derSequence(clientAuth)),
		extension(oidMSApplicationPolicies, derSequence(derSequence(clientAuth))),
		sidExtension(derOctets([]byte("S-1-5-21-1-2-3-1104"))),
		extension(oidMSTemplateName, derBMP("WiFiClient")),
		extension(oidMSTemplateOID, derSequence(derOID("1.3.6.1.4.1.311.21.8.1"), derInt(100), derInt(3))),
		extension(oidSubjectKeyIdentifier, derOctets(make([]byte, 20))),
		extension(oidAuthorityKeyIdentifier, derSequence(implicitTag(0, make([]byte, 20)))),
		extension(oidCRLDistributionPoints, derSequence()),
		extension(oidAuthorityInfoAccess, derSequence()),
		extension("1.3.6.1.4.1.311.21.1", derInt(0)),
	}
	full := &Certified{
		Subject: []RDN{{{Type: oidCommonName, Value: "device", Tag: tagUTF8String}}},
		SAN:     []GeneralName{{"dns", "c02xk1.example.com"}}, SID: "S-1-5-21-1-2-3-1104",
		HasKeyUsage: true, KeyUsage: 5, HasExtKeyUsage: true, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
		HasApplicationPolicies: true, ApplicationPolicies: []string{"1.3.6.1.5.5.7.3.2"},
		TemplateName: "WiFiClient", TemplateOID: "1.3.6.1.4.1.311.21.8.1",
	}
	subject := []RDN{{{Type: oidCommonName, Value: "device", Tag: tagUTF8String}}}
	value := func(tag byte, oid, text string) []byte {
		return derSequence(derSet(derSequence(derOID(oid), tlv(tag, []byte(text)))))
	}
	tests := []struct {
		name string
		spec certificateSpec
		want *Certified
	}{
		{"everything", issued(t, derName("device"), all...), full},
		{"no extension", issued(t, derName("device")), &Certified{Subject: subject}},
		{"an empty subject", issued(t, derSequence(), all[1]), &Certified{Subject: []RDN{}, SAN: full.SAN}},
		{"PrintableString", issued(t, value(tagPrintableString, oidCommonName, "a")), &Certified{Subject: []RDN{{{oidCommonName, "a", tagPrintableString}}}}},
		{"IA5String in E", issued(t, value(tagIA5String, oidEmailAddress, "a@b")), &Certified{Subject: []RDN{{{oidEmailAddress, "a@b", tagIA5String}}}}},
		{"IA5String in any attribute", issued(t, value(tagIA5String, "2.5.4.10", "a")), &Certified{Subject: []RDN{{{"2.5.4.10", "a", tagIA5String}}}}},
		{"UTF8String in DC", issued(t, value(tagUTF8String, oidDomainComponent, "a")), &Certified{Subject: []RDN{{{oidDomainComponent, "a", tagUTF8String}}}}},
		{"everything critical", issued(t, derName("device"),
			criticalExtension(oidSubjectAltName, derSequence(dnsName("c02xk1.example.com"))),
			criticalExtension(oidExtKeyUsage, derSequence(clientAuth)),
			criticalExtension(oidAuthorityKeyIdentifier, derSequence()),
			criticalExtension(oidCertificatePolicies, derSequence())),
			&Certified{Subject: subject, SAN: full.SAN, HasExtKeyUsage: true, ExtKeyUsage: full.ExtKeyUsage}},
		{"an end entity's basic constraints", issued(t, derName("device"), criticalExtension(oidBasicConstraints, derSequence())), &Certified{Subject: subject}},
		{"the default written", issued(t, derName("device"), extension(oidBasicConstraints, derSequence([]byte{1, 1, 0}))), &Certified{Subject: subject}},
		{"a CA", issued(t, derName("device"), criticalExtension(oidBasicConstraints, derSequence([]byte{1, 1, 0xff}, derInt(0)))), &Certified{Subject: subject, IsCA: true}},
		{"B37 a name that nobody can expect", issued(t, derName("device"), extension(oidSubjectAltName, derSequence(tlv(0xa4, derName("a"))))),
			&Certified{Subject: subject, SAN: []GeneralName{{"other", "4"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readSigner(t, tt.spec).Certified()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCertifiedRefusesWhatCannotBeToldForCertain(t *testing.T) {
	dns := extension(oidSubjectAltName, derSequence(dnsName("a.example.com")))
	named := func(value []byte) certificateSpec {
		return issued(t, derSequence(derSet(derSequence(derOID(oidCommonName), value))))
	}
	with := func(extensions ...[]byte) certificateSpec { return issued(t, derName("device"), extensions...) }
	many := make([][]byte, maxExtensions+1)
	for i := range many {
		many[i] = extension(fmt.Sprintf("1.2.3.%d", i), derNull())
	}
	for name, spec := range map[string]certificateSpec{
		"C30 BMPString in a name":                named(derBMP("a")),
		"C30 T61String in a name":                named(tlv(0x14, []byte("a"))),
		"UniversalString in a name":              named(tlv(28, []byte{0, 0, 0, 'a'})),
		"an empty value":                         named(derUTF8("")),
		"a value that is too long":               named(derUTF8(strings.Repeat("a", maxNameValue+1))),
		"UTF8String that is none":                named(derUTF8("\xff")),
		"B32 a line feed in a name":              named(derUTF8("a\nb")),
		"IA5String with a control":               named(derIA5("a\n")),
		"PrintableString with an @":              named(derPrintable("a@b")),
		"C25 attributes out of order":            issued(t, derSequence(derSet(derSequence(derOID("2.5.4.10"), derUTF8("b")), derSequence(derOID(oidCommonName), derUTF8("a"))))),
		"C09 an extension twice":                 with(dns, dns),
		"C09 an unknown extension twice":         with(extension("1.2.3", derNull()), extension("1.2.3", derNull())),
		"an unknown critical extension":          with(criticalExtension("1.2.3", derNull())),
		"name constraints, critical":             with(criticalExtension("2.5.29.30", derSequence())),
		"no extension in the list":               with([][]byte{}...),
		"more extensions than the limit":         with(many...),
		"C42 an empty SAN":                       with(extension(oidSubjectAltName, derSequence())),
		"C42 a name twice":                       with(extension(oidSubjectAltName, derSequence(dnsName("a.example.com"), dnsName("A.example.com")))),
		"C08 a byte behind the SAN":              with(extension(oidSubjectAltName, append(derSequence(dnsName("a.example.com")), 0))),
		"BER in the SAN":                         with(extension(oidSubjectAltName, indefinite(0x30, dnsName("a.example.com")))),
		"key usage without a bit":                with(extension(oidKeyUsage, []byte{3, 1, 0})),
		"key usage with trailing zeros":          with(extension(oidKeyUsage, []byte{3, 2, 0, 0xa0})),
		"an empty EKU":                           with(extension(oidExtKeyUsage, derSequence())),
		"B08 a policy with qualifiers":           with(extension(oidMSApplicationPolicies, derSequence(derSequence(derOID("1.2.3"), derSequence())))),
		"B05 a SID that is none":                 with(sidExtension(derOctets([]byte("S-2")))),
		"B21 a template name as UTF8String":      with(extension(oidMSTemplateName, derUTF8("WiFiClient"))),
		"B22 a template without an OID":          with(extension(oidMSTemplateOID, derSequence(derInt(1)))),
		"basic constraints that are no sequence": with(extension(oidBasicConstraints, derNull())),
		"basic constraints, true as 01":          with(extension(oidBasicConstraints, derSequence([]byte{1, 1, 1}))),
		"basic constraints with a third element": with(extension(oidBasicConstraints, derSequence([]byte{1, 1, 0xff}, derInt(0), derNull()))),
		"a path length without a CA":             with(extension(oidBasicConstraints, derSequence(derInt(0)))),
		"a path length that is no small number":  with(extension(oidBasicConstraints, derSequence([]byte{1, 1, 0xff}, derBigInt(new(big.Int).Lsh(big.NewInt(1), 40))))),
		"critical FALSE written":                 with(derSequence(derOID(oidKeyUsage), []byte{1, 1, 0}, derOctets([]byte{3, 2, 5, 0xa0}))),
		"extensions of a certificate of version 2": func() certificateSpec {
			spec := with(dns)
			spec.version = tlv(0xa0, derInt(1))
			return spec
		}(),
		"extensions of a certificate of version 1": func() certificateSpec {
			spec := with(dns)
			spec.version = nil
			return spec
		}(),
		"a unique identifier of the subject": func() certificateSpec {
			spec := with(dns)
			spec.spki = append(bytes.Clone(spec.spki), implicitTag(2, []byte{0, 1})...)
			return spec
		}(),
		"extensions that are no sequence": func() certificateSpec {
			spec := with(dns)
			spec.extensions = tlv(0xa3, derSet(dns))
			return spec
		}(),
		"two lists of extensions": func() certificateSpec {
			spec := with(dns)
			spec.extensions = tlv(0xa3, derSequence(dns), derSequence(dns))
			return spec
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := readSigner(t, spec).Certified(); err == nil || got != nil {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	for _, s := range []*Signer{nil, {}, {Raw: []byte{0x30}}, {Raw: derSequence()}} {
		if got, err := s.Certified(); err == nil || got != nil {
			t.Errorf("%+v: %+v", s, got)
		}
	}
}

// What crypto/x509 writes, and what it reads, are a second opinion.
func TestCertifiedAgreesWithTheStandardLibrary(t *testing.T) {
	ca := newCA(t, "Issuing CA", testKey(t, "other"))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Unix(1, 0), NotAfter: time.Unix(1<<32, 0),
		Subject:  pkix.Name{CommonName: "C02XK1", Organization: []string{"Example Corp"}, Country: []string{"CH"}},
		DNSNames: []string{"c02xk1.example.com"}, EmailAddresses: []string{"ann@example.com"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, CRLDistributionPoints: []string{"http://ca.example.com/ca.crl"}, IssuingCertificateURL: []string{"http://ca.example.com/ca.crt"},
		PolicyIdentifiers: []asn1.ObjectIdentifier{{1, 2, 3}}, AuthorityKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &testKey(t, "client").PublicKey, testKey(t, "other"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := readLoneCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.signer()
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Certified()
	if err != nil {
		t.Fatal(err)
	}
	want := &Certified{
		Subject: []RDN{
			{{Type: "2.5.4.6", Value: "CH", Tag: tagPrintableString}},
			{{Type: "2.5.4.10", Value: "Example Corp", Tag: tagPrintableString}},
			{{Type: "2.5.4.3", Value: "C02XK1", Tag: tagPrintableString}},
		},
		SAN:         []GeneralName{{"dns", "c02xk1.example.com"}, {"email", "ann@example.com"}},
		HasKeyUsage: true, KeyUsage: 5, HasExtKeyUsage: true, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzCertified: no panic; an error comes with nothing; what is accepted is what
// crypto/x509 reads, where that reads it. The frame is put around what is
// mutated, or lengths would hide everything behind them.
func FuzzCertified(f *testing.F) {
	key := fuzzKey(f)
	clientAuth := derOID("1.3.6.1.5.5.7.3.2")
	for _, extension := range [][]byte{
		criticalExtension(oidKeyUsage, []byte{3, 2, 5, 0xa0}),
		extension(oidSubjectAltName, derSequence(dnsName("c02xk1.example.com"), upn(derUTF8("a@b")))),
		extension(oidExtKeyUsage, derSequence(clientAuth)),
		extension(oidMSApplicationPolicies, derSequence(derSequence(clientAuth))),
		sidExtension(derOctets([]byte("S-1-5-21-1-2-3-1104"))),
		extension(oidMSTemplateName, derBMP("WiFiClient")),
		extension(oidMSTemplateOID, derSequence(derOID("1.3.6.1.4.1.311.21.8.1"), derInt(100), derInt(3))),
		criticalExtension(oidBasicConstraints, derSequence([]byte{1, 1, 0xff}, derInt(0))),
	} {
		f.Add(derSequence(derOID(oidCommonName), derUTF8("device")), extension)
	}
	f.Fuzz(func(t *testing.T, attribute, extension []byte) {
		spec := newCertificateSpec("device", 1, key)
		spec.subject, spec.signature = derSequence(derSet(attribute)), []byte{1}
		spec.extensions = tlv(0xa3, derSequence(extension))
		raw := spec.build(t)
		got, err := (&Signer{Raw: raw}).Certified()
		if (got == nil) == (err == nil) {
			t.Fatalf("%+v with %v", got, err)
		}
		if err != nil {
			return
		}
		if got.HasExtKeyUsage != (len(got.ExtKeyUsage) > 0) || got.HasApplicationPolicies != (len(got.ApplicationPolicies) > 0) ||
			got.HasKeyUsage != (got.KeyUsage != 0) {
			t.Fatalf("%+v", got)
		}
		standard, err := x509.ParseCertificate(raw)
		if err != nil {
			return
		}
		if standard.IsCA != got.IsCA || len(standard.DNSNames)+len(standard.EmailAddresses)+len(standard.URIs)+len(standard.IPAddresses) > len(got.SAN) ||
			len(standard.ExtKeyUsage)+len(standard.UnknownExtKeyUsage) != len(got.ExtKeyUsage) || got.HasKeyUsage && standard.KeyUsage != x509.KeyUsage(got.KeyUsage) {
			t.Fatalf("%+v, crypto/x509 reads %+v", got, standard)
		}
		var values []string
		for _, rdn := range got.Subject {
			for _, a := range rdn {
				values = append(values, a.Type+"="+a.Value)
			}
		}
		var theirs []string
		for _, n := range standard.Subject.Names {
			theirs = append(theirs, fmt.Sprintf("%s=%s", n.Type, n.Value))
		}
		if diff := cmp.Diff(theirs, values); diff != "" {
			t.Fatalf("(-crypto/x509 +got):\n%s", diff)
		}
	})
}
