package gate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
)

// What the configuration and the enroll command use of this package.

func TestKeyUsageSelectsATemplate(t *testing.T) {
	for usage, want := range map[string]string{
		"":                                  "",
		"digitalSignature":                  "signature",
		"digitalSignature nonRepudiation":   "signature",
		"nonRepudiation":                    "",
		"keyEncipherment":                   "encryption",
		"keyEncipherment dataEncipherment":  "encryption",
		"dataEncipherment":                  "",
		"digitalSignature keyEncipherment":  "general_purpose",
		"digitalSignature dataEncipherment": "",
		"digitalSignature keyAgreement":     "",
		"keyEncipherment keyCertSign":       "",
		"keyEncipherment unknown":           "",
		"keyEncipherment nonRepudiation":    "",
		"keyEncipherment digitalSignature nonRepudiation dataEncipherment": "general_purpose",
	} {
		if got := TemplateKind(strings.Fields(usage)); got != want {
			t.Errorf("%s: %q, want %q", usage, got, want)
		}
	}
}

func TestObjectIdentifiers(t *testing.T) {
	for oid, want := range map[string]bool{
		"1.3.6.1.4.1.311.21.8.16735.2147483647": true, "2.999": true, "0.39": true,
		"": false, "1": false, "3.1": false, "1.40": false, "1..2": false, "1.2.": false, "1.02": false, "1.-2": false, "1.+2": false, "1.2 ": false,
		"1.3.6.1.4.1.311.21.8.16735.2147483648": false, strings.Repeat("1.", 100) + "1": false,
	} {
		if got := IsOID(oid); got != want {
			t.Errorf("%q: %v", oid, got)
		}
	}
}

func TestSubjectsAreReadAsRFC4514(t *testing.T) {
	a := func(typ, value string) inspector.AttributeTypeAndValue {
		return inspector.AttributeTypeAndValue{Type: typ, Value: value}
	}
	for text, want := range map[string][]inspector.RDN{
		"CN=x,O=Example Corp":     {{a("2.5.4.10", "Example Corp")}, {a("2.5.4.3", "x")}},
		`cn=a\,b\2C\20, OU=y+L=z`: {{a("2.5.4.11", "y"), a("2.5.4.7", "z")}, {a("2.5.4.3", "a,b, ")}},
		"1.2.3=v=w":               {{a("1.2.3", "v=w")}},
	} {
		got, err := ParseSubject(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	for _, text := range []string{"", "CN", "CN=", "CN=x,", "XX=y", "CN=#0401", `CN=x\`, "=x", "CN=x++O=y", "1.=x"} {
		if got, err := ParseSubject(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	f.Add(`CN=a\,b\2C+OU= x ,O=y`)
	f.Fuzz(func(t *testing.T, text string) {
		subject, err := ParseSubject(text)
		if err != nil && subject != nil {
			t.Error("a result beside an error")
		}
		for _, rdn := range subject {
			if len(rdn) == 0 {
				t.Error("an empty RDN")
			}
		}
	})
}
