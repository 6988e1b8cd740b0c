package gate

import (
	"strings"
	"testing"
)

func TestAlternativeNamesHaveTheGrammarOfARequest(t *testing.T) {
	label := strings.Repeat("a", 63)
	good := map[string]map[string]string{
		sanDNS:   {"a": "a", "C02XK1.Example.com": "c02xk1.example.com", "xn--bcher-kva.example": "xn--bcher-kva.example", "1a.2b": "1a.2b", label + ".x": label + ".x"},
		sanEmail: {"Ann.B+c@Example.COM": "Ann.B+c@example.com", "a_b@x": "a_b@x"},
		sanURI: {
			"https://example.com/a?b=c#d": "https://example.com/a?b=c#d", "urn:uuid:F81D4FAE": "urn:uuid:F81D4FAE", "https://[2001:db8::1]:8443/": "https://[2001:db8::1]:8443/",
			"spiffe://td/x": "spiffe://td/x", "ID:Microsoft%20Endpoint:GUID:1": "ID:Microsoft%20Endpoint:GUID:1",
		},
		sanIP:  {"192.0.2.1": "192.0.2.1", "2001:DB8:0:0::1": "2001:db8::1"},
		sanUPN: {"Ann@Example.com": "ann@example.com", "HOST$@corp": "host$@corp", "müller@example.com": "müller@example.com"},
	}
	for typ, values := range good {
		for in, want := range values {
			if got, why := altNameSyntax(typ, in); why != "" || got != want {
				t.Errorf("%s %q: %q, %q", typ, in, got, why)
			}
		}
	}
	bad := map[string][]string{
		sanDNS: {
			"", ".", "a.", ".a", "a..b", "-a", "a-", "*.a", "a_b", "a b", "a:1", "a/b", "192.0.2.1", "10.1", "2001:db8::1", "bücher.example",
			label + "a", strings.Repeat("a.", 127) + "b", "a\x00.b", "a.b.1",
		},
		sanEmail: {"", "@", "a", "a@", "@a", "a@b@c", "a..b@c", ".a@b", "a.@b", `"a b"@c`, "a b@c", "Ann <a@b>", "ü@b", "a@b.", "a@192.0.2.1", strings.Repeat("a", 65) + "@b"},
		sanURI:   {"", "a", "/a", "//a/b", "https://a b", "https://a\x00", "https://ü", "https://a/%zz", "https://a_b/", "https://a.1/", "http://a/<b>", `https://a\b`, "1a:b", "https://[fe80::1%25eth0]/"},
		sanIP:    {"", "a", "192.0.2", "192.0.2.01", "192.0.2.1/24", "::ffff:192.0.2.1", "fe80::1%eth0", " 192.0.2.1", "3221225985"},
		sanUPN:   {"", "@", "a", "a@", "@a", "a@b@c", "a b@c", "a@b c", "a@b.", "a@*", strings.Repeat("a", 255) + "@b"},
	}
	for typ, values := range bad {
		for _, in := range values {
			if got, why := altNameSyntax(typ, in); why == "" {
				t.Errorf("%s %q is accepted as %q", typ, in, got)
			}
		}
	}
}

func TestSIDsHaveOneSpelling(t *testing.T) {
	for _, s := range []string{"S-1-5-21-1-2-3-1104", "S-1-5-21-4294967295-0-3-1104", "S-1-12-1-1-2-3-4"} {
		if !validSID(s) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{
		"", "S-1-5-21-1-2-3", "S-1-5-21-1-2-3-4-5", "s-1-5-21-1-2-3-1104", "S-1-5-21-01-2-3-1104", "S-1-5-21-1-2-3-01104", "S-1-5-21-4294967296-2-3-4",
		"S-1-5-32-544", "S-1-5-18", "S-1-5-21-1-2-3-1104 ", " S-1-5-21-1-2-3-1104", "S-1-5-21-1-2-3-", "S-1-5-21-1-2-3-+4", "S-2-5-21-1-2-3-4", "S-1-5-21-1-2-3-1104\n", "x",
	} {
		if validSID(s) {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestASIDURIIsKnownHoweverItIsSpelt(t *testing.T) {
	for _, s := range []string{
		"tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500", "TAG:microsoft.com,2022-09-14:sid:x", "tag:Microsoft.com,2022-09-14:sid:x",
		"tag%3Amicrosoft.com,2022-09-14:sid:x", "tag:microsoft.com%2C2022-09-14:sid:x", "tag:microsoft.com,2022-09-15:sid:x",
	} {
		if !sidURI(s) {
			t.Errorf("%s is not known", s)
		}
	}
	for _, s := range []string{"", "tag:example.com,2022:sid:x", "https://microsoft.com,2022", "urn:x"} {
		if sidURI(s) {
			t.Errorf("%s is taken for one", s)
		}
	}
}

func TestAPatternMustMatchTheWholeValue(t *testing.T) {
	for _, tc := range []struct {
		pattern, value string
		want           bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a", "ba", false}, {"a|b", "ab", false}, {"a|b", "b", true}, {"(?m)^a$", "a\nb", false}, {"a", "a\n", false},
	} {
		re, err := anchored(tc.pattern)
		if err != nil || re.MatchString(tc.value) != tc.want {
			t.Errorf("%q on %q: %v", tc.pattern, tc.value, err)
		}
	}
	for _, p := range []string{"a)|(b", "a)", "(", `\Qa`, "[", "a{2000}", "(?<a", `\C`, "a**"} {
		if re, err := anchored(p); err == nil {
			t.Errorf("%q compiles as %s", p, re)
		}
	}
}

func TestPatternsAimedAtPrivilegedAccountsAreKnown(t *testing.T) {
	for _, tc := range []struct {
		match, value string
		want         bool
	}{
		{matchPrefix, "administrator", true}, {matchPrefix, "Admin", true}, {matchPrefix, "krbtgt@", true}, {matchPrefix, "ADMINISTRATOR-", true},
		{matchPrefix, "A", false}, {matchPrefix, "admin-laptop-", false}, {matchPrefix, "C02", false},
		{matchRegex, "(?i)administrator", true}, {matchRegex, "adm.*", true}, {matchRegex, "krbtgt|x", true}, {matchRegex, "(?i)krbtgt@.*", true},
		{matchRegex, ".*", false}, {matchRegex, "[a-z]+", false}, {matchRegex, `[a-z]+@example\.com`, false}, {matchRegex, "[A-Za-z0-9.-]+", false}, {matchRegex, "C02[A-Z0-9]+", false}, {matchRegex, "(", false},
		{matchAny, "", false}, {matchExact, "administrator", false},
	} {
		if got := aimsAt(tc.match, tc.value); got != tc.want {
			t.Errorf("aimsAt(%s, %q) = %v", tc.match, tc.value, got)
		}
	}
}
