package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	oidOU     = "2.5.4.11"
	oidO      = "2.5.4.10"
	oidSerial = "2.5.4.5"
	oidEmail  = "1.2.840.113549.1.9.1"

	clientAuth = "1.3.6.1.5.5.7.3.2"
	serverAuth = "1.3.6.1.5.5.7.3.1"
	smartCard  = "1.3.6.1.4.1.311.20.2.2"
	agent      = "1.3.6.1.4.1.311.20.2.1"
	anyPurpose = "2.5.29.37.0"
	anyPolicy  = "1.3.6.1.4.1.311.10.12.1"

	sid = "S-1-5-21-1-2-3-1104"
)

func name(pairs ...string) [][]NameAttribute {
	var out [][]NameAttribute
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, []NameAttribute{{Type: pairs[i], Value: pairs[i+1]}})
	}
	return out
}

func wantName(pairs ...string) [][]ExpectedAttribute {
	var out [][]ExpectedAttribute
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, []ExpectedAttribute{{Type: pairs[i], Match: "exact", Value: pairs[i+1]}})
	}
	return out
}

func wantSAN(pairs ...string) []ExpectedAltNames {
	var out []ExpectedAltNames
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, ExpectedAltNames{Type: pairs[i], Match: "exact", Value: pairs[i+1], Min: 1, Max: 1})
	}
	return out
}

func san(pairs ...string) []AltName {
	var out []AltName
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, AltName{Type: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// compliant is a request that agrees in every field.
func compliant() Request {
	return Request{
		Profile: "wifi",
		Facts: Facts{
			Subject:        name(oidCommonName, "C02XK1 WIFI", oidOU, "WiFi", oidO, "Example Corp"),
			SAN:            san("dns", "c02xk1.example.com", "upn", "ann@example.com"),
			SIDs:           []string{sid},
			KeyUsage:       []string{"digitalSignature", "keyEncipherment"},
			HasExtKeyUsage: true,
			ExtKeyUsage:    []string{clientAuth, smartCard},
			Template:       "WiFiClient",
			TemplateOID:    "1.3.6.1.4.1.311.21.8.1",
			KeyBits:        2048,
			SPKISHA256:     strings.Repeat("ab", 32),
		},
		Expectation: Expectation{
			Subject:             wantName(oidCommonName, "C02XK1 WIFI", oidOU, "WiFi", oidO, "Example Corp"),
			SAN:                 wantSAN("dns", "c02xk1.example.com", "upn", "ann@example.com"),
			SID:                 sid,
			CertificateTemplate: "WiFiClient",
			KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage:         []string{clientAuth, smartCard},
			MinKeyBits:          2048,
		},
	}
}

// refused returns the fields that Exact refuses if it decides them all. It holds
// that verdict and code go with the findings.
func refused(t *testing.T, r Request) []Field {
	t.Helper()
	x := new(Exact)
	r.Decides = x.Info().Decides
	a, err := x.Match(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var out []Field
	for _, f := range a.Findings {
		out = append(out, f.Field)
	}
	want := Answer{Verdict: Refuse, Code: "mismatch", Findings: a.Findings}
	if len(out) == 0 {
		want = Answer{Verdict: Agree}
	}
	if d := cmp.Diff(want, a); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
	return out
}

func TestExactRefusesAnythingThatIsNotExpected(t *testing.T) {
	tests := []struct {
		name   string
		change func(f *Facts, e *Expectation)
		want   []Field // refused; nil: agrees
	}{
		{"the compliant request agrees", func(*Facts, *Expectation) {}, nil},
		{"order of RDNs is free (C26)", func(f *Facts, _ *Expectation) { slices.Reverse(f.Subject) }, nil},
		{"order of alternative names is free", func(f *Facts, _ *Expectation) { slices.Reverse(f.SAN) }, nil},
		{"order of EKUs is free", func(f *Facts, _ *Expectation) { slices.Reverse(f.ExtKeyUsage) }, nil},
		{"order of key usage bits is free", func(f *Facts, _ *Expectation) { slices.Reverse(f.KeyUsage) }, nil},

		{"A01 other subject", func(f *Facts, _ *Expectation) { f.Subject = name(oidCommonName, "administrator") }, []Field{Subject}},
		{"A01 one bit of the subject", func(f *Facts, _ *Expectation) { f.Subject[0][0].Value = "C02XK0 WIFI" }, []Field{Subject}},
		{"subject attribute of another type", func(f *Facts, _ *Expectation) { f.Subject[1][0].Type = oidSerial }, []Field{Subject}},
		{"subject attribute left out", func(f *Facts, _ *Expectation) { f.Subject = f.Subject[:2] }, []Field{Subject}},
		{"subject attribute added", func(f *Facts, _ *Expectation) { f.Subject = append(f.Subject, name(oidSerial, "1")...) }, []Field{Subject}},
		{"B34 an RDN twice", func(f *Facts, _ *Expectation) { f.Subject = append(f.Subject, f.Subject[1]) }, []Field{Subject}},
		{"B34 two OUs in place of one and another", func(f *Facts, _ *Expectation) { f.Subject[2] = f.Subject[1] }, []Field{Subject}},
		{"an RDN twice where it is expected twice", func(f *Facts, e *Expectation) {
			f.Subject = append(f.Subject, name(oidOU, "WiFi")...)
			e.Subject = append(e.Subject, wantName(oidOU, "WiFi")...)
		}, nil},
		{"B34 and C24 more than one CN, even if expected", func(f *Facts, e *Expectation) {
			f.Subject = append(f.Subject, name(oidCommonName, "b")...)
			e.Subject = append(e.Subject, wantName(oidCommonName, "b")...)
		}, []Field{Subject}},
		{"C24 more than one CN in one RDN, even if expected", func(f *Facts, e *Expectation) {
			f.Subject = [][]NameAttribute{{{oidCommonName, "a"}, {oidCommonName, "b"}}}
			e.Subject = [][]ExpectedAttribute{{{Type: oidCommonName, Match: "exact", Value: "a"}, {Type: oidCommonName, Match: "exact", Value: "b"}}}
		}, []Field{Subject}},
		{"B36 emailAddress in the name", func(f *Facts, _ *Expectation) {
			f.Subject = append(f.Subject, name(oidEmail, "ann@example.com")...)
		}, []Field{Subject}},
		{"C25 multi-valued where single is expected", func(f *Facts, _ *Expectation) {
			f.Subject = [][]NameAttribute{{f.Subject[0][0], f.Subject[1][0]}, f.Subject[2]}
		}, []Field{Subject}},
		{"C25 single where multi-valued is expected", func(_ *Facts, e *Expectation) {
			e.Subject = [][]ExpectedAttribute{{e.Subject[0][0], e.Subject[1][0]}, e.Subject[2]}
		}, []Field{Subject}},
		{"C25 multi-valued as expected, in another order", func(f *Facts, e *Expectation) {
			f.Subject = [][]NameAttribute{{f.Subject[1][0], f.Subject[0][0]}, f.Subject[2]}
			e.Subject = [][]ExpectedAttribute{{e.Subject[0][0], e.Subject[1][0]}, e.Subject[2]}
		}, nil},
		{"C27 an empty RDN", func(f *Facts, _ *Expectation) { f.Subject[1] = nil }, []Field{Subject}},
		{"C27 an empty RDN, even if expected", func(f *Facts, e *Expectation) { f.Subject[1], e.Subject[1] = nil, nil }, []Field{Subject}},
		{"C28 an empty value", func(f *Facts, e *Expectation) { f.Subject[1][0].Value, e.Subject[1][0].Value = "", "" }, []Field{Subject}},
		{"C29 an empty subject", func(f *Facts, _ *Expectation) { f.Subject = nil }, []Field{Subject}},
		{"C29 an empty subject as expected", func(f *Facts, e *Expectation) { f.Subject, e.Subject = nil, nil }, nil},
		{"C33 a NUL and more", func(f *Facts, _ *Expectation) { f.Subject[0][0].Value += "\x00x" }, []Field{Subject}},
		{"C34 Cyrillic a", func(f *Facts, e *Expectation) { f.Subject[1][0].Value, e.Subject[1][0].Value = "\u0430", "a" }, []Field{Subject}},
		{"C34 decomposed accent", func(f *Facts, e *Expectation) { f.Subject[1][0].Value, e.Subject[1][0].Value = "e\u0301", "\u00e9" }, []Field{Subject}},
		{"C34 zero-width space", func(f *Facts, _ *Expectation) { f.Subject[1][0].Value += "\u200b" }, []Field{Subject}},
		{"C35 case", func(f *Facts, _ *Expectation) { f.Subject[1][0].Value = "WIFI" }, []Field{Subject}},
		{"C35 trailing space", func(f *Facts, _ *Expectation) { f.Subject[1][0].Value += " " }, []Field{Subject}},
		{"C35 double space", func(f *Facts, _ *Expectation) { f.Subject[0][0].Value = "C02XK1  WIFI" }, []Field{Subject}},
		{"C43 a value that only prints like two RDNs", func(f *Facts, _ *Expectation) {
			f.Subject = name(oidCommonName, "C02XK1 WIFI, OU=WiFi", oidO, "Example Corp")
		}, []Field{Subject}},
		{"more attributes than are ever compared", func(f *Facts, e *Expectation) {
			f.Subject, e.Subject = nil, nil
			for range maxAttributes + 1 {
				f.Subject, e.Subject = append(f.Subject, name(oidOU, "x")...), append(e.Subject, wantName(oidOU, "x")...)
			}
		}, []Field{Subject}},

		{"A02 dns of another", func(f *Facts, _ *Expectation) { f.SAN[0].Value = "dc01.example.com" }, []Field{SAN}},
		{"A02 upn of another", func(f *Facts, _ *Expectation) { f.SAN[1].Value = "administrator@example.com" }, []Field{SAN}},
		{"A02 same text, other type", func(f *Facts, _ *Expectation) { f.SAN[1].Type = "email" }, []Field{SAN}},
		{"A03 email added", func(f *Facts, _ *Expectation) { f.SAN = append(f.SAN, san("email", "a@b.c")...) }, []Field{SAN}},
		{"A03 uri added", func(f *Facts, _ *Expectation) { f.SAN = append(f.SAN, san("uri", "urn:x")...) }, []Field{SAN}},
		{"A03 ip added", func(f *Facts, _ *Expectation) { f.SAN = append(f.SAN, san("ip", "10.0.0.1")...) }, []Field{SAN}},
		{"A03 a name where none is expected", func(_ *Facts, e *Expectation) { e.SAN = nil }, []Field{SAN}},
		{"A04 one name removed", func(f *Facts, _ *Expectation) { f.SAN = f.SAN[:1] }, []Field{SAN}},
		{"A04 all names removed", func(f *Facts, _ *Expectation) { f.SAN = nil }, []Field{SAN}},
		{"B01 B35 upn where none is expected", func(_ *Facts, e *Expectation) { e.SAN = e.SAN[:1] }, []Field{SAN}},
		{"B37 B38 a type that cannot be expected", func(f *Facts, _ *Expectation) { f.SAN = append(f.SAN, san("other", "4")...) }, []Field{SAN}},
		{"B37 B38 a type that cannot be expected, even if expected", func(f *Facts, e *Expectation) {
			f.SAN = append(f.SAN, san("other", "4")...)
			e.SAN = append(e.SAN, ExpectedAltNames{Type: "other", Match: "any", Min: 1, Max: 1})
		}, []Field{SAN}},
		{"B04 dns in another case", func(f *Facts, _ *Expectation) { f.SAN[0].Value = "C02XK1.EXAMPLE.com" }, nil},
		{"B04 C36 dns with a trailing dot", func(f *Facts, _ *Expectation) { f.SAN[0].Value += "." }, []Field{SAN}},
		{"B04 dns with NUL", func(f *Facts, _ *Expectation) { f.SAN[0].Value += "\x00.x" }, []Field{SAN}},
		{"C36 dns wildcard", func(f *Facts, _ *Expectation) { f.SAN[0].Value = "*.example.com" }, []Field{SAN}},
		{"upn with the Kelvin sign for k", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("upn", "\u212a@x.y"), wantSAN("upn", "k@x.y")
		}, []Field{SAN}},
		{"C37 dns with the Kelvin sign for k", func(f *Facts, _ *Expectation) { f.SAN[0].Value = "c02x\u212a1.example.com" }, []Field{SAN}},
		{"upn in another case", func(f *Facts, _ *Expectation) { f.SAN[1].Value = "Ann@EXAMPLE.com" }, nil},
		{"email with domain in another case", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("email", "Ann@EXAMPLE.com"), wantSAN("email", "Ann@example.com")
		}, nil},
		{"email with local part in another case", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("email", "ann@example.com"), wantSAN("email", "Ann@example.com")
		}, []Field{SAN}},
		{"C38 ip, other spelling of the same octets", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("ip", "2001:db8::1"), wantSAN("ip", "2001:DB8:0::1")
		}, nil},
		{"C38 v4-mapped ip in the request", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("ip", "::ffff:10.0.0.1"), wantSAN("ip", "10.0.0.1")
		}, []Field{SAN}},
		{"C38 v4-mapped ip on both sides", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("ip", "::ffff:10.0.0.1"), wantSAN("ip", "::ffff:10.0.0.1")
		}, []Field{SAN}},
		{"C38 no ip on both sides", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("ip", "x"), wantSAN("ip", "x")
		}, []Field{SAN}},
		{"C40 uri as expected", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("uri", "https://a/%41"), wantSAN("uri", "https://a/%41")
		}, nil},
		{"C40 uri, an equivalent spelling", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = san("uri", "https://a/A"), wantSAN("uri", "https://a/%41")
		}, []Field{SAN}},
		{"C42 a name twice", func(f *Facts, _ *Expectation) { f.SAN = append(f.SAN, f.SAN[0]) }, []Field{SAN}},
		{"C42 a name twice, in two spellings, where two are allowed", func(f *Facts, e *Expectation) {
			f.SAN = san("dns", "a.b", "dns", "A.b")
			e.SAN = []ExpectedAltNames{{Type: "dns", Match: "any", Min: 1, Max: 2}}
		}, []Field{SAN}},
		{"C42 more names than are ever compared", func(f *Facts, e *Expectation) {
			f.SAN, e.SAN = nil, []ExpectedAltNames{{Type: "dns", Match: "any", Min: 1, Max: 1000}}
			for i := range maxNames + 1 {
				f.SAN = append(f.SAN, san("dns", fmt.Sprintf("h%d.example.com", i))...)
			}
		}, []Field{SAN}},

		{"A04 SID removed", func(f *Facts, _ *Expectation) { f.SIDs = nil }, []Field{SID}},
		{"B05 another SID", func(f *Facts, _ *Expectation) { f.SIDs[0] = "S-1-5-21-1-2-3-500" }, []Field{SID}},
		{"B05 SID in another case", func(f *Facts, _ *Expectation) { f.SIDs[0] = strings.ToLower(sid) }, []Field{SID}},
		{"B05 SID where none is expected", func(_ *Facts, e *Expectation) { e.SID = "" }, []Field{SID}},
		{"no SID where none is expected", func(f *Facts, e *Expectation) { f.SIDs, e.SID = nil, "" }, nil},
		{"B06 B07 two carriers, even if equal", func(f *Facts, _ *Expectation) { f.SIDs = []string{sid, sid} }, []Field{SID}},
		{"B07 two carriers that disagree", func(f *Facts, _ *Expectation) { f.SIDs = []string{sid, "S-1-5-21-1-2-3-500"} }, []Field{SID}},
		{"an empty carrier", func(f *Facts, e *Expectation) { f.SIDs, e.SID = []string{""}, "" }, []Field{SID}},

		{"A05 only digitalSignature", func(f *Facts, _ *Expectation) { f.KeyUsage = f.KeyUsage[:1] }, []Field{KeyUsage}},
		{"A05 only keyEncipherment", func(f *Facts, _ *Expectation) { f.KeyUsage = f.KeyUsage[1:] }, []Field{KeyUsage}},
		{"A05 both where one is expected", func(_ *Facts, e *Expectation) { e.KeyUsage = e.KeyUsage[:1] }, []Field{KeyUsage}},
		{"A05 keyCertSign added", func(f *Facts, _ *Expectation) { f.KeyUsage = append(f.KeyUsage, "keyCertSign") }, []Field{KeyUsage}},
		{"A06 no bits", func(f *Facts, _ *Expectation) { f.KeyUsage = nil }, []Field{KeyUsage}},
		{"A06 no bits, and none expected", func(f *Facts, e *Expectation) { f.KeyUsage, e.KeyUsage = nil, nil }, []Field{KeyUsage}},
		{"A06 a bit twice", func(f *Facts, _ *Expectation) { f.KeyUsage[1] = f.KeyUsage[0] }, []Field{KeyUsage}},

		{"EKU absent: the template supplies it", func(f *Facts, _ *Expectation) { f.HasExtKeyUsage, f.ExtKeyUsage = false, nil }, nil},
		{"EKU said to be absent with values", func(f *Facts, _ *Expectation) { f.HasExtKeyUsage = false }, []Field{ExtKeyUsage}},
		{"A07 B11 one EKU more", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = append(f.ExtKeyUsage, "1.3.6.1.5.2.3.5") }, []Field{ExtKeyUsage}},
		{"A07 one EKU less", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = f.ExtKeyUsage[:1] }, []Field{ExtKeyUsage}},
		{"A07 an EKU twice", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = []string{clientAuth, clientAuth} }, []Field{ExtKeyUsage}},
		{"A07 an EKU twice, next to the others", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = append(f.ExtKeyUsage, clientAuth) }, []Field{ExtKeyUsage}},
		{"B09 enrollment agent", func(f *Facts, _ *Expectation) { f.ExtKeyUsage[1] = agent }, []Field{ExtKeyUsage}},
		{"B10 any purpose", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = []string{anyPurpose} }, []Field{ExtKeyUsage}},
		{"B10 empty EKU", func(f *Facts, _ *Expectation) { f.ExtKeyUsage = nil }, []Field{ExtKeyUsage}},
		{"B10 empty EKU, none expected", func(f *Facts, e *Expectation) { f.ExtKeyUsage, e.ExtKeyUsage = nil, nil }, []Field{ExtKeyUsage}},
		{"B12 serverAuth", func(f *Facts, _ *Expectation) { f.ExtKeyUsage[1] = serverAuth }, []Field{ExtKeyUsage}},

		{"B08 application policies that are not listed", func(f *Facts, _ *Expectation) {
			f.HasApplicationPolicies, f.ApplicationPolicies = true, []string{clientAuth}
		}, []Field{ApplicationPolicies}},
		{"B08 empty application policies", func(f *Facts, _ *Expectation) { f.HasApplicationPolicies = true }, []Field{ApplicationPolicies}},
		{"application policies as listed", func(f *Facts, e *Expectation) {
			f.HasApplicationPolicies, f.ApplicationPolicies, e.ApplicationPolicies = true, []string{clientAuth}, []string{clientAuth}
		}, nil},
		{"application policies listed and absent", func(_ *Facts, e *Expectation) { e.ApplicationPolicies = []string{clientAuth} }, nil},
		{"B10 application policies with one more", func(f *Facts, e *Expectation) {
			f.HasApplicationPolicies, f.ApplicationPolicies, e.ApplicationPolicies = true, []string{clientAuth, anyPolicy}, []string{clientAuth}
		}, []Field{ApplicationPolicies}},
		{"application policies with one less", func(f *Facts, e *Expectation) {
			f.HasApplicationPolicies, f.ApplicationPolicies, e.ApplicationPolicies = true, []string{clientAuth}, []string{clientAuth, smartCard}
		}, []Field{ApplicationPolicies}},

		{"another template than expected", func(f *Facts, _ *Expectation) { f.Template = "VPN" }, []Field{CertificateTemplate}},
		{"no template where one is expected", func(f *Facts, _ *Expectation) { f.Template = "" }, []Field{CertificateTemplate}},
		{"no template expected", func(_ *Facts, e *Expectation) { e.CertificateTemplate = "" }, nil},
		{"B21 template name as picked", func(f *Facts, _ *Expectation) { f.RequestTemplateName = "WiFiClient" }, nil},
		{"B21 another template name", func(f *Facts, _ *Expectation) { f.RequestTemplateName = "SubCA" }, []Field{CertificateTemplate}},
		{"B21 template name in another case", func(f *Facts, _ *Expectation) { f.RequestTemplateName = "wificlient" }, []Field{CertificateTemplate}},
		{"B21 template name with NUL", func(f *Facts, _ *Expectation) { f.RequestTemplateName = "WiFiClient\x00" }, []Field{CertificateTemplate}},
		{"B21 template name without templates", func(f *Facts, e *Expectation) {
			f.Template, f.TemplateOID, e.CertificateTemplate, f.RequestTemplateName = "", "", "", "WiFiClient"
		}, []Field{CertificateTemplate}},
		{"B22 template OID as picked", func(f *Facts, _ *Expectation) { f.RequestTemplateOID = f.TemplateOID }, nil},
		{"B22 another template OID", func(f *Facts, _ *Expectation) { f.RequestTemplateOID = "1.3.6.1.4.1.311.21.8.2" }, []Field{CertificateTemplate}},
		{"B22 template OID where none is configured", func(f *Facts, _ *Expectation) {
			f.TemplateOID, f.RequestTemplateOID = "", "1.3.6.1.4.1.311.21.8.1"
		}, []Field{CertificateTemplate}},
		{"B23 both, one of them another", func(f *Facts, _ *Expectation) {
			f.RequestTemplateName, f.RequestTemplateOID = "WiFiClient", "1.3.6.1.4.1.311.21.8.2"
		}, []Field{CertificateTemplate}},

		{"key too short", func(f *Facts, _ *Expectation) { f.KeyBits = 2047 }, []Field{Key}},
		{"no key", func(f *Facts, e *Expectation) { f.KeyBits, e.MinKeyBits = 0, 0 }, []Field{Key}},
		{"pinned key", func(f *Facts, e *Expectation) { e.SPKISHA256 = f.SPKISHA256 }, nil},
		{"A14 another key than the pinned", func(_ *Facts, e *Expectation) { e.SPKISHA256 = strings.Repeat("cd", 32) }, []Field{Key}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := compliant()
			tt.change(&r.Facts, &r.Expectation)
			if d := cmp.Diff(tt.want, refused(t, r)); d != "" {
				t.Errorf("refused fields (-want +got):\n%s", d)
			}
		})
	}
}

func TestAnEmptyExpectationRefusesEverything(t *testing.T) {
	x := new(Exact)
	for name, r := range map[string]Request{
		"zero request":      {},
		"zero expectation":  {Facts: compliant().Facts},
		"only attributes":   {Expectation: Expectation{KeyUsage: []string{"digitalSignature"}}, Facts: Facts{KeyUsage: []string{"digitalSignature"}, KeyBits: 2048, SPKISHA256: "00"}},
		"identity is empty": {Expectation: Expectation{Subject: wantName()}, Facts: Facts{KeyBits: 2048}},
	} {
		if d := cmp.Diff(x.Info().Decides, refused(t, r)); d != "" {
			t.Errorf("%s: refused fields (-want +got):\n%s", name, d)
		}
	}
}

func TestExactDecidesOnlyWhatItIsAskedTo(t *testing.T) {
	all := new(Exact).Info().Decides
	for _, field := range all {
		wrong := compliant()
		wrong.Facts.Subject[0][0].Value = "administrator"
		wrong.Facts.SAN[0].Value = "dc01.example.com"
		wrong.Facts.SIDs[0] = "S-1-5-21-1-2-3-500"
		wrong.Facts.KeyUsage = []string{"keyCertSign"}
		wrong.Facts.ExtKeyUsage = []string{anyPurpose}
		wrong.Facts.HasApplicationPolicies = true
		wrong.Facts.RequestTemplateName = "SubCA"
		wrong.Facts.KeyBits = 1024
		wrong.Decides = []Field{field}
		a, err := new(Exact).Match(t.Context(), wrong)
		if err != nil {
			t.Fatal(err)
		}
		if a.Verdict != Refuse || len(a.Findings) != 1 || a.Findings[0].Field != field {
			t.Errorf("asked about %s: %v", field, a)
		}

		// Whatever the others are, a field alone agrees if it is as expected.
		right := compliant()
		right.Decides = []Field{field}
		if a, err := new(Exact).Match(t.Context(), right); err != nil || a.Verdict != Agree || len(a.Findings) > 0 {
			t.Errorf("asked about %s as expected: %v, %v", field, a, err)
		}
	}
}

func TestExactRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, decides := range [][]Field{nil, {}, {Challenge}, {"x"}, {""}, {"Subject"}, {Subject, "x"}, {"x", Subject}} {
		r := compliant()
		r.Decides = decides
		a, err := new(Exact).Match(t.Context(), r)
		if err != nil || a.Verdict != Refuse {
			t.Errorf("asked to decide %q: %v, %v", decides, a, err)
		}
	}
}

func TestAnExpectationWithoutIdentityIsMetOnlyIfOthersDecideWhoItIs(t *testing.T) {
	r := compliant()
	r.Facts.Subject, r.Facts.SAN, r.Facts.SIDs = nil, nil, nil
	r.Expectation.Subject, r.Expectation.SAN, r.Expectation.SID = nil, nil, ""
	r.Decides = []Field{Subject, SAN, SID, KeyUsage, Key}
	a, err := new(Exact).Match(t.Context(), r)
	if err != nil || a.Verdict != Refuse || len(a.Findings) != len(r.Decides) {
		t.Errorf("nobody decides who it is: %v, %v", a, err)
	}
	for i := range 3 {
		r.Decides = slices.Delete([]Field{Subject, SAN, SID, KeyUsage, Key}, i, i+1)
		if a, err := new(Exact).Match(t.Context(), r); err != nil || a.Verdict != Agree {
			t.Errorf("deciding %q: %v, %v", r.Decides, a, err)
		}
	}
}

func TestAZeroAnswerAgreesToNothing(t *testing.T) {
	if (Answer{}).Verdict == Agree || (Answer{}).Verdict == NotMine {
		t.Error("a zero answer is no refusal")
	}
}

func TestExactGivesNoAnswerAfterItsTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := compliant()
	r.Decides = []Field{Subject}
	a, err := new(Exact).Match(ctx, r)
	if err == nil || a.Verdict != Refuse || len(a.Findings) != 0 {
		t.Errorf("answer %v, error %v", a, err)
	}
}

func TestMatchKinds(t *testing.T) {
	ou := func(match, value string, values ...string) []ExpectedAttribute {
		return []ExpectedAttribute{{Type: oidOU, Match: match, Value: value, Values: values}}
	}
	tests := []struct {
		name string
		want [][]ExpectedAttribute
		got  [][]NameAttribute
		ok   bool
	}{
		{"exact_ignore_case", [][]ExpectedAttribute{ou("exact_ignore_case", "WiFi")}, name(oidOU, "WIFI"), true},
		{"exact_ignore_case beyond ASCII", [][]ExpectedAttribute{ou("exact_ignore_case", "M\u00fcller")}, name(oidOU, "M\u00dcLLER"), true},
		{"exact_ignore_case does not take the Kelvin sign for k", [][]ExpectedAttribute{ou("exact_ignore_case", "k")}, name(oidOU, "\u212a"), false},
		{"any_of", [][]ExpectedAttribute{ou("any_of", "", "a", "b")}, name(oidOU, "b"), true},
		{"any_of another", [][]ExpectedAttribute{ou("any_of", "", "a", "b")}, name(oidOU, "c"), false},
		{"any_of ignores value", [][]ExpectedAttribute{ou("any_of", "c", "a", "b")}, name(oidOU, "c"), false},
		{"any_of nothing", [][]ExpectedAttribute{ou("any_of", "")}, name(oidOU, "c"), false},
		{"prefix", [][]ExpectedAttribute{ou("prefix", "dev-")}, name(oidOU, "dev-1"), true},
		{"prefix not at the beginning", [][]ExpectedAttribute{ou("prefix", "dev-")}, name(oidOU, "xdev-1"), false},
		{"empty prefix", [][]ExpectedAttribute{ou("prefix", "")}, name(oidOU, "x"), false},
		{"any", [][]ExpectedAttribute{ou("any", "")}, name(oidOU, "x"), true},
		{"any is not empty", [][]ExpectedAttribute{ou("any", "")}, name(oidOU, ""), false},
		{"any of another type", [][]ExpectedAttribute{ou("any", "")}, name(oidO, "x"), false},
		{"regex", [][]ExpectedAttribute{ou("regex", "dev-[0-9]+")}, name(oidOU, "dev-12"), true},
		{"regex is anchored at the end", [][]ExpectedAttribute{ou("regex", "dev-[0-9]+")}, name(oidOU, "dev-12x"), false},
		{"regex is anchored at the beginning", [][]ExpectedAttribute{ou("regex", "dev-[0-9]+")}, name(oidOU, "xdev-12"), false},
		{"regex alternation is anchored", [][]ExpectedAttribute{ou("regex", "a|b")}, name(oidOU, "ax"), false},
		{"regex with multi-line flag is anchored", [][]ExpectedAttribute{ou("regex", "(?m)^a$")}, name(oidOU, "a\nadmin"), false},
		{"regex that closes the anchors' group", [][]ExpectedAttribute{ou("regex", "a)|(.*")}, name(oidOU, "admin"), false},
		{"regex that is none", [][]ExpectedAttribute{ou("regex", "(")}, name(oidOU, "("), false},
		{"empty regex", [][]ExpectedAttribute{ou("regex", "")}, name(oidOU, "x"), false},
		{"regex too long", [][]ExpectedAttribute{ou("regex", strings.Repeat("a?", maxPattern))}, name(oidOU, "a"), false},
		{"unknown match", [][]ExpectedAttribute{ou("contains", "x")}, name(oidOU, "x"), false},
		{"no match", [][]ExpectedAttribute{ou("", "x")}, name(oidOU, "x"), false},

		{"two patterns, each value serves one", [][]ExpectedAttribute{ou("any", ""), ou("exact", "a")}, name(oidOU, "a", oidOU, "b"), true},
		{"no double counting", [][]ExpectedAttribute{ou("any", ""), ou("exact", "a")}, name(oidOU, "b", oidOU, "c"), false},
		{"one value does not serve two patterns", [][]ExpectedAttribute{ou("prefix", "a"), ou("prefix", "ab")}, name(oidOU, "ab", oidOU, "x"), false},
		{"a chain of displacements", [][]ExpectedAttribute{ou("any", ""), ou("prefix", "a"), ou("prefix", "ab"), ou("exact", "abc")},
			name(oidOU, "abc", oidOU, "abd", oidOU, "ad", oidOU, "x"), true},
		{"a chain that breaks", [][]ExpectedAttribute{ou("prefix", "a"), ou("prefix", "a"), ou("prefix", "ab"), ou("exact", "abc")},
			name(oidOU, "abc", oidOU, "abd", oidOU, "ad", oidOU, "x"), false},
		{"inside one RDN", [][]ExpectedAttribute{{ou("any", "")[0], ou("exact", "a")[0]}}, [][]NameAttribute{{{oidOU, "a"}, {oidOU, "b"}}}, true},
		{"inside one RDN, no double counting", [][]ExpectedAttribute{{ou("any", "")[0], ou("exact", "a")[0]}}, [][]NameAttribute{{{oidOU, "c"}, {oidOU, "b"}}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := new(Exact).subject(tt.want, tt.got); got != tt.ok {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSANRules(t *testing.T) {
	rule := func(typ, match, value string, min, max int) ExpectedAltNames {
		return ExpectedAltNames{Type: typ, Match: match, Value: value, Min: min, Max: max}
	}
	rules := func(r ...ExpectedAltNames) []ExpectedAltNames { return r }
	tests := []struct {
		name string
		want []ExpectedAltNames
		got  []AltName
		ok   bool
	}{
		{"nothing expected, nothing asked", nil, nil, true},
		{"optional and absent", rules(rule("dns", "any", "", 0, 1)), nil, true},
		{"optional and there", rules(rule("dns", "any", "", 0, 1)), san("dns", "a.b"), true},
		{"one over max", rules(rule("dns", "any", "", 0, 1)), san("dns", "a.b", "dns", "c.d"), false},
		{"one under min", rules(rule("dns", "any", "", 2, 3)), san("dns", "a.b"), false},
		{"between", rules(rule("dns", "any", "", 1, 3)), san("dns", "a.b", "dns", "c.d"), true},
		{"max 0 allows nothing, and is no rule", rules(rule("dns", "any", "", 0, 0)), nil, false},
		{"zero rule", rules(ExpectedAltNames{}), nil, false},
		{"negative min", rules(rule("dns", "any", "", -1, 1)), san("dns", "a.b"), false},
		{"min over max", rules(rule("dns", "any", "", 2, 1)), san("dns", "a.b"), false},
		{"huge min", rules(rule("dns", "any", "", 1<<40, 1<<41)), san("dns", "a.b"), false},
		{"one name does not meet two rules", rules(rule("dns", "any", "", 1, 1), rule("dns", "exact", "a.b", 1, 1)), san("dns", "a.b"), false},
		{"min of the narrow rule is kept free", rules(rule("dns", "any", "", 0, 2), rule("dns", "exact", "a.b", 1, 1)), san("dns", "a.b", "dns", "c.d"), true},
		{"min is met by nobody", rules(rule("dns", "any", "", 0, 5), rule("dns", "exact", "a.b", 1, 1)), san("dns", "x.b", "dns", "c.d"), false},
		{"displacement through capacities", rules(rule("dns", "any", "", 1, 1), rule("dns", "prefix", "a", 1, 2)), san("dns", "a.b", "dns", "a.c", "dns", "x.y"), true},
		{"regex sees lower case", rules(rule("dns", "regex", `[a-z]+\.example\.com`, 1, 1)), san("dns", "ABC.Example.com"), true},
		{"prefix of dns ignores case", rules(rule("dns", "prefix", "Dev-", 1, 1)), san("dns", "DEV-1.example.com"), true},
		{"prefix of email keeps the local part's case", rules(rule("email", "prefix", "Ann", 1, 1)), san("email", "Ann.B@example.com"), true},
		{"prefix of an address in octets is none", rules(rule("ip", "prefix", "10.", 1, 1)), san("ip", "10.0.0.1"), false},
		{"any ip", rules(rule("ip", "any", "", 1, 1)), san("ip", "10.0.0.1"), true},
		{"any ip is not v4-mapped", rules(rule("ip", "any", "", 1, 1)), san("ip", "::ffff:10.0.0.1"), false},
		{"any ip has no zone", rules(rule("ip", "any", "", 1, 1)), san("ip", "fe80::1%eth0"), false},
		{"any_of", rules(ExpectedAltNames{Type: "upn", Match: "any_of", Values: []string{"A@x.y", "b@x.y"}, Min: 1, Max: 1}), san("upn", "a@X.y"), true},
		{"64 by 64", func() (r []ExpectedAltNames) {
			for i := range maxNames {
				r = append(r, rule("dns", "prefix", strings.Repeat("a", i+1), 1, 1))
			}
			return
		}(), func() (g []AltName) {
			for i := range maxNames {
				g = append(g, AltName{"dns", strings.Repeat("a", maxNames-i)})
			}
			return
		}(), true},
		{"64 by 64, one short", func() (r []ExpectedAltNames) {
			for i := range maxNames {
				r = append(r, rule("dns", "prefix", strings.Repeat("a", i+2), 1, 1))
			}
			return
		}(), func() (g []AltName) {
			for i := range maxNames {
				g = append(g, AltName{"dns", strings.Repeat("a", maxNames-i)})
			}
			return
		}(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := new(Exact).san(tt.want, tt.got); got != tt.ok {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCompiledExpressionsAreBounded(t *testing.T) {
	x := new(Exact)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2 * maxCompiled {
				x.expression(fmt.Sprintf("a%d-%d", g, i))
			}
		})
	}
	wg.Wait()
	if n := len(x.patterns.m); n > maxCompiled {
		t.Errorf("%d expressions kept", n)
	}
}

// FuzzExactSubject holds that whatever agrees to exact values is a permutation of them.
func FuzzExactSubject(f *testing.F) {
	f.Add("a", "b", "a", "b")
	f.Add("a", "b", "b", "a")
	f.Add("a", "", "a", "")
	f.Fuzz(func(t *testing.T, w1, w2, g1, g2 string) {
		ok := new(Exact).subject(wantName(oidOU, w1, oidO, w2), name(oidOU, g1, oidO, g2))
		if want := w1 == g1 && w2 == g2 && w1 != "" && w2 != ""; ok != want {
			t.Errorf("%q %q against %q %q: %v", w1, w2, g1, g2, ok)
		}
	})
}

func TestFindingsSayWhatDiffers(t *testing.T) {
	x := new(Exact)
	r := compliant()
	r.Facts.Subject = [][]NameAttribute{{{oidCommonName, "admin"}, {"1.2.3", "x"}}}
	r.Facts.SAN = san("upn", "b@x.y", "dns", "a.b")
	r.Expectation.Subject = [][]ExpectedAttribute{
		{{Type: oidCommonName, Match: "prefix", Value: "dev-"}},
		{{Type: oidOU, Match: "any_of", Values: []string{"a", "b"}}, {Type: oidO, Match: "any"}},
	}
	r.Expectation.MinKeyBits = 4096
	r.Decides = x.Info().Decides
	a, err := x.Match(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := []Finding{
		{Subject, "CN=(prefix dev-), OU=(any_of a | b) + O=(any)", "CN=admin + 1.2.3=x"},
		{SAN, "dns:c02xk1.example.com, upn:ann@example.com", "dns:a.b, upn:b@x.y"},
		{Key, "4096 bits", "2048 bits, SHA-256 " + strings.Repeat("ab", 32)},
	}
	if d := cmp.Diff(want, a.Findings); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	if i := x.Info(); i.Name != "exact" || i.Validate() != nil {
		t.Errorf("%v: %v", i, i.Validate())
	}
}
