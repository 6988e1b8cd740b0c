package gate

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
)

func TestDistinguishedNamesAreReadAsRFC4514(t *testing.T) {
	cn := func(v string) [][]attr { return [][]attr{{{oidCN, v}}} }
	const o, ou, l = "2.5.4.10", "2.5.4.11", "2.5.4.7"
	for _, tc := range []struct {
		name, text string
		want       [][]attr
	}{
		{"empty text has no RDN", "", nil},
		{"blank text has no RDN", "  ", nil},
		{"one attribute", "CN=a", cn("a")},
		{"types are case-insensitive", "cn=a", cn("a")},
		{"dotted type", "2.5.4.3=a", cn("a")},
		{"order of the text is kept", "CN=a,O=b", [][]attr{{{oidCN, "a"}}, {{o, "b"}}}},
		{"space before a type", "CN=a, O=b", [][]attr{{{oidCN, "a"}}, {{o, "b"}}}},
		{"multi-valued RDN", "CN=a+OU=b,O=c", [][]attr{{{oidCN, "a"}, {ou, "b"}}, {{o, "c"}}}},
		{"space before a type of a multi-valued RDN", "CN=a+ OU=b", [][]attr{{{oidCN, "a"}, {ou, "b"}}}},
		{"escaped comma", `CN=a\,b`, cn("a,b")},
		{"comma as hexadecimal pair", `CN=a\2Cb`, cn("a,b")},
		{"lower-case hexadecimal pair", `CN=a\2cb`, cn("a,b")},
		{"all specials escaped", `CN=\"\+\,\;\<\>\ \#\=\\`, cn(`"+,;<> #=\`)},
		{"UTF-8 as hexadecimal pairs", `CN=M\C3\BCller`, cn("Müller")},
		{"UTF-8 as it is", `CN=Müller`, cn("Müller")},
		{"equals sign in a value", "CN=a=b", cn("a=b")},
		{"hash inside of a value", "CN=a#b", cn("a#b")},
		{"escaped hash at the start", `CN=\#a`, cn("#a")},
		{"escaped spaces at both ends", `CN=\ a\ `, cn(" a ")},
		{"escaped space at the end before another RDN", `CN=a\ ,L=x`, [][]attr{{{oidCN, "a "}}, {{l, "x"}}}},
		{"inner spaces", "CN=a  b", cn("a  b")},
		{"empty value is read, and refused later", "CN=", cn("")},
		{"empty value before another", "CN=,O=a", [][]attr{{{oidCN, ""}}, {{o, "a"}}}},
		{"structure in an escaped value stays a value", `CN=x\,OU\=admins`, cn("x,OU=admins")},
		{"NUL is read, and refused later", `CN=a\00`, cn("a\x00")},
		{"placeholders are text", "CN=%A% {{B}} ${C} $D", cn("%A% {{B}} ${C} $D")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseDN(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	for name, text := range map[string]string{
		"no equals sign":              "CN",
		"second RDN without equals":   "CN=a,b",
		"trailing comma":              "CN=a,",
		"trailing plus":               "CN=a+",
		"leading comma":               ",CN=a",
		"unknown type":                "XX=a",
		"empty type":                  "=a",
		"space behind the type":       "CN =a",
		"OID. form of RFC 2253":       "OID.2.5.4.3=a",
		"OID with a leading zero":     "2.5.4.03=a",
		"OID of one arc":              "2=a",
		"quoted value":                `CN="a,b"`,
		"quote inside of a value":     `CN=a"b`,
		"semicolon between RDNs":      "CN=a;O=b",
		"less-than":                   "CN=a<b",
		"greater-than":                "CN=a>b",
		"hexadecimal BER":             "CN=#0C0161",
		"hash alone":                  "CN=#",
		"raw NUL":                     "CN=a\x00b",
		"backslash at the end":        `CN=a\`,
		"backslash before a letter":   `CN=a\zz`,
		"half a pair":                 `CN=a\2`,
		"sign in a pair":              `CN=a\-1`,
		"pair that is not UTF-8":      `CN=a\FF`,
		"raw byte that is not UTF-8":  "CN=a\xff",
		"space at the start of value": "CN= a",
		"space at the end of value":   "CN=a ,O=b",
		"space at the end of text":    "CN=a ",
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			got, err := parseDN(text)
			if !errors.Is(err, errDN) || got != nil {
				t.Errorf("parseDN(%q) = %v, %v", text, got, err)
			}
		})
	}
}

func TestSubjectTextIsSafeAndReadsBack(t *testing.T) {
	for _, tc := range []struct {
		name string
		rdns []inspector.RDN
		want string
	}{
		{"nothing", nil, ""},
		{"last RDN first", []inspector.RDN{{{Type: "2.5.4.6", Value: "DE"}}, {{Type: oidCN, Value: "a"}}}, "CN=a,C=DE"},
		{"multi-valued", []inspector.RDN{{{Type: oidCN, Value: "a"}, {Type: "2.5.4.11", Value: "b"}}}, "CN=a+OU=b"},
		{"specials", []inspector.RDN{{{Type: oidCN, Value: `#a,b+c"d\e<f>g;h `}}}, `CN=\#a\,b\+c\"d\\e\<f\>g\;h\ `},
		{"spaces", []inspector.RDN{{{Type: oidCN, Value: "  "}}}, `CN=\ \ `},
		{"line feed and bidi", []inspector.RDN{{{Type: oidCN, Value: "a\nSAN:upn=\u202eb"}}}, `CN=a\0ASAN:upn=\E2\80\AEb`},
		{"not UTF-8", []inspector.RDN{{{Type: oidCN, Value: "a\xff"}}}, `CN=a\FF`},
		{"unknown type", []inspector.RDN{{{Type: "1.2.3", Value: "a"}}}, "1.2.3=a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := subjectText(tc.rdns); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	var many []inspector.RDN
	for range 1000 {
		many = append(many, inspector.RDN{{Type: oidCN, Value: strings.Repeat("x\n", 1000)}})
	}
	if got := subjectText(many); len(got) > maxSubjectText || !plain(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestAlternativeNamesInTextAreBounded(t *testing.T) {
	if d := cmp.Diff([]string{"dns:a", `upn:b\u{000A}c`}, sanText([]inspector.GeneralName{{Type: "dns", Value: "a"}, {Type: "upn", Value: "b\nc"}})); d != "" {
		t.Error(d)
	}
	var many []inspector.GeneralName
	for range 64 {
		many = append(many, inspector.GeneralName{Type: "uri", Value: strings.Repeat("x", 2048)})
	}
	got := sanText(many)
	if len(got) != maxSANTexts+1 || got[maxSANTexts] != "… 48 more" {
		t.Errorf("%d entries, last %q", len(got), got[len(got)-1])
	}
	for _, s := range got {
		if len(s) > maxSANText {
			t.Errorf("entry of %d bytes", len(s))
		}
	}
}

func FuzzParseDN(f *testing.F) {
	for _, s := range []string{"", "CN=a", `CN=a\,b+OU=\C3\BC,O=c`, `CN=\ a\ `, "CN=#00", `CN="a"`, "CN=a;O=b", `CN=\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rdns, err := parseDN(s)
		if err != nil {
			return
		}
		// What was read, written as text, reads back as the same (if it was not cut).
		var reversed []inspector.RDN
		for i := len(rdns) - 1; i >= 0; i-- {
			var rdn inspector.RDN
			for _, a := range rdns[i] {
				rdn = append(rdn, inspector.AttributeTypeAndValue{Type: a.Type, Value: a.Value})
			}
			reversed = append(reversed, rdn)
		}
		text := subjectText(reversed)
		if len(text) > maxSubjectText || !plain(text) {
			t.Fatalf("unsafe text %q", text)
		}
		if strings.Contains(text, ellipsis) {
			return
		}
		again, err := parseDN(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if d := cmp.Diff(rdns, again); d != "" {
			t.Fatalf("%q: %s", text, d)
		}
	})
}
