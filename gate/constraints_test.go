package gate

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/store"
)

func constrained() *Constraints {
	return &Constraints{
		Subject:              map[string][]string{"O": {"Example Corp"}, "2.5.4.11": {"WiFi", "VPN"}, "CN": {"a", "b"}},
		DNSSuffixes:          []string{"example.com"},
		UPNSuffixes:          []string{"example.com"},
		EmailSuffixes:        []string{"example.com"},
		URIPrefixes:          []string{"https://example.com", "https://example.org/dev/", "https://example.net/a", "https://example.edu:8443", "spiffe://td"},
		IPCIDRs:              []string{"192.0.2.0/24", "2001:db8::/32"},
		SIDPrefixes:          []string{"S-1-5-21-1-2-3"},
		CertificateTemplates: []string{"WiFiClient"},
		ExtKeyUsage:          []string{"clientAuth", "1.3.6.1.4.1.311.20.2.2"},
		ApplicationPolicies:  []string{"1.3.6.1.5.5.7.3.2"},
	}
}

func exactAttr(typ, v string) store.Value { return store.Value{Type: typ, Match: matchExact, Value: v} }

func exactName(typ, v string) store.SANRule {
	return store.SANRule{Type: typ, Match: matchExact, Value: v, Min: 1, Max: 1}
}

// registered is an expectation whose owner said all that is in content.
func registered(content store.Content) store.Expectation { return store.Expectation{Content: content} }

func TestWhatTheProfileSuppliesNeedsNoKeyButIsHeldToOne(t *testing.T) {
	content := store.Content{CertificateTemplate: "WiFiClient", ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}}
	silent := store.Expectation{Content: content, Request: json.RawMessage(`{"subject":"CN=a"}`)}
	spoken := store.Expectation{Content: content, Request: json.RawMessage(`{"certificate_template":"WiFiClient","ext_key_usage":["clientAuth"]}`)}
	none := &Constraints{}
	if got := none.Violations(silent); len(got) != 0 {
		t.Errorf("the profile's own values without a key: %v", got)
	}
	if got := none.Violations(spoken); len(got) != 2 {
		t.Errorf("the same values, said by the client, without a key: %v", got)
	}
	other := &Constraints{CertificateTemplates: []string{"VPN"}, ExtKeyUsage: []string{"serverAuth"}}
	if got := other.Violations(silent); len(got) != 2 {
		t.Errorf("the profile's own values against keys: %v", got)
	}
}

func TestConstraintsHoldEveryField(t *testing.T) {
	rdn := func(v store.Value) func(*store.Content) {
		return func(c *store.Content) { c.Subject = [][]store.Value{{v}} }
	}
	san := func(typ, v string) func(*store.Content) {
		return func(c *store.Content) { c.SAN = []store.SANRule{exactName(typ, v)} }
	}
	for _, tc := range []struct {
		name    string
		content func(*store.Content)
		at      string // "" if allowed
	}{
		{"listed value", rdn(exactAttr("2.5.4.10", "Example Corp")), ""},
		{"listed by OID", rdn(exactAttr("2.5.4.11", "VPN")), ""},
		{"value in another case", rdn(exactAttr("2.5.4.10", "example corp")), "/subject_rdns/0/0"},
		{"value not listed", rdn(exactAttr("2.5.4.11", "Admins")), "/subject_rdns/0/0"},
		{"address in the subject", rdn(exactAttr("1.2.840.113549.1.9.1", "ann@example.com")), ""},
		{"address in the subject, elsewhere", rdn(exactAttr("1.2.840.113549.1.9.1", "ceo@evil.test")), "/subject_rdns/0/0"},
		{"type without a key is free", rdn(exactAttr("2.5.4.7", "Berlin")), ""},
		{"second attribute of an RDN", func(c *store.Content) {
			c.Subject = [][]store.Value{{exactAttr(oidCN, "a")}, {exactAttr(oidCN, "a"), exactAttr("2.5.4.11", "x")}}
		}, "/subject_rdns/1/1"},
		{"prefix", rdn(store.Value{Type: oidCN, Match: matchPrefix, Value: "a"}), "/subject_rdns/0/0"},
		{"any", rdn(store.Value{Type: oidCN, Match: matchAny}), "/subject_rdns/0/0"},
		{"any_of listed values", rdn(store.Value{Type: "2.5.4.11", Match: matchAnyOf, Values: []string{"WiFi"}}), "/subject_rdns/0/0"},

		{"dns below the suffix", san(sanDNS, "a.b.example.com"), ""},
		{"dns that is the suffix", san(sanDNS, "EXAMPLE.com"), ""},
		{"dns with a longer label", san(sanDNS, "evilexample.com"), "/san_rules/0"},
		{"dns above the suffix", san(sanDNS, "com"), "/san_rules/0"},
		{"dns with the suffix inside", san(sanDNS, "example.com.evil"), "/san_rules/0"},
		{"dns pattern", func(c *store.Content) {
			c.SAN = []store.SANRule{{Type: sanDNS, Match: matchRegex, Value: `.*\.example\.com`, Min: 1, Max: 1}}
		}, "/san_rules/0"},

		{"upn", san(sanUPN, "ann@example.com"), ""},
		{"upn of a subdomain", san(sanUPN, "ann@eu.example.com"), ""},
		{"upn of another realm", san(sanUPN, "ann@evil.org"), "/san_rules/0"},
		{"upn with the suffix as user", san(sanUPN, "example.com@evil.org"), "/san_rules/0"},
		{"upn of two realms", san(sanUPN, "ann@example.com@evil.org"), "/san_rules/0"},
		{"upn without a realm", san(sanUPN, "example.com"), "/san_rules/0"},
		{"email", san(sanEmail, "ann@example.com"), ""},
		{"email elsewhere", san(sanEmail, "ann@notexample.com"), "/san_rules/0"},

		{"uri that is the prefix", san(sanURI, "https://example.com"), ""},
		{"uri with a path", san(sanURI, "https://example.com/x"), ""},
		{"uri with a query", san(sanURI, "https://example.com?x"), ""},
		{"uri with a port", san(sanURI, "https://example.com:8443/x"), ""},
		{"uri with a longer host", san(sanURI, "https://example.com.evil/x"), "/san_rules/0"},
		{"uri with the prefix as user", san(sanURI, "https://example.com@evil/x"), "/san_rules/0"},
		{"uri with the prefix as user and password", san(sanURI, "https://example.com:8443@evil/x"), "/san_rules/0"},
		{"uri of another scheme", san(sanURI, "http://example.com/x"), "/san_rules/0"},
		{"uri in another case", san(sanURI, "HTTPS://example.com/x"), "/san_rules/0"},
		{"uri below a folder", san(sanURI, "https://example.org/dev/x"), ""},
		{"uri beside a folder", san(sanURI, "https://example.org/devil"), "/san_rules/0"},
		{"uri that climbs out", san(sanURI, "https://example.org/dev/../x"), "/san_rules/0"},
		{"uri that climbs out, escaped", san(sanURI, "https://example.org/dev/%2e%2e/x"), "/san_rules/0"},
		{"uri below a path", san(sanURI, "https://example.net/a/b"), ""},
		{"uri with a longer segment", san(sanURI, "https://example.net/ab"), "/san_rules/0"},
		{"uri with a colon behind a path", san(sanURI, "https://example.net/a:b"), "/san_rules/0"},
		{"uri with the port of the prefix", san(sanURI, "https://example.edu:8443/x"), ""},
		{"uri with a longer port", san(sanURI, "https://example.edu:84430/x"), "/san_rules/0"},
		{"uri of another kind", san(sanURI, "spiffe://td/x"), ""},

		{"ip", san(sanIP, "192.0.2.255"), ""},
		{"ip outside", san(sanIP, "192.0.3.0"), "/san_rules/0"},
		{"ip of version 6", san(sanIP, "2001:db8::1"), ""},
		{"ip of version 6 outside", san(sanIP, "2001:db9::1"), "/san_rules/0"},
		{"ip that is none", san(sanIP, "x"), "/san_rules/0"},
		{"type that nothing governs", san("other", "x"), "/san_rules/0"},

		{"sid", func(c *store.Content) { c.SID = "S-1-5-21-1-2-3-1104" }, ""},
		{"sid of a domain with more digits", func(c *store.Content) { c.SID = "S-1-5-21-1-2-30-1104" }, "/sid"},
		{"template not listed", func(c *store.Content) { c.CertificateTemplate = "SubCA" }, "/certificate_template"},
		{"template unknown", func(c *store.Content) { c.CertificateTemplate = "" }, "/certificate_template"},
		{"purposes", func(c *store.Content) { c.ExtKeyUsage = []string{"1.3.6.1.4.1.311.20.2.2", "1.3.6.1.5.5.7.3.2"} }, ""},
		{"purpose not listed", func(c *store.Content) { c.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"} }, "/ext_key_usage/1"},
		{"policy", func(c *store.Content) { c.ApplicationPolicies = []string{"1.3.6.1.5.5.7.3.2"} }, ""},
		{"policy not listed", func(c *store.Content) { c.ApplicationPolicies = []string{"1.3.6.1.5.5.7.3.1"} }, "/application_policies/0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			content := store.Content{CertificateTemplate: "WiFiClient", KeyUsage: []string{"digitalSignature"}}
			tc.content(&content)
			got := constrained().Violations(registered(content))
			if tc.at == "" {
				if len(got) != 0 {
					t.Error(got)
				}
				return
			}
			if len(got) != 1 || got[0].Pointer != tc.at || got[0].Code != "constraint_violation" || got[0].Detail == "" {
				t.Error(got)
			}
			// The same field, whatever it holds, is refused without a key for it.
			if len((&Constraints{}).Violations(registered(content))) == 0 && tc.name != "template unknown" {
				t.Error("no key, and yet allowed")
			}
		})
	}
}

func TestWithoutAKeyAFieldCarriesNoValue(t *testing.T) {
	content := store.Content{
		Subject: [][]store.Value{{exactAttr(oidCN, "a")}},
		SAN: []store.SANRule{exactName(sanDNS, "a.example.com"), exactName(sanEmail, "a@example.com"), exactName(sanURI, "https://example.com/"),
			exactName(sanIP, "192.0.2.1"), exactName(sanUPN, "a@example.com")},
		SID:                 "S-1-5-21-1-2-3-1104",
		CertificateTemplate: "WiFiClient",
		KeyUsage:            []string{"digitalSignature"},
		ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2"},
		ApplicationPolicies: []string{"1.3.6.1.5.5.7.3.2"},
	}
	if got := (*Constraints)(nil).Violations(registered(content)); len(got) != 0 {
		t.Errorf("no constraints: %v", got)
	}
	if got := constrained().Violations(registered(content)); len(got) != 0 {
		t.Errorf("all keys: %v", got)
	}
	var pointers []string
	for _, p := range (&Constraints{}).Violations(registered(content)) {
		pointers = append(pointers, p.Pointer)
	}
	want := []string{"/subject_rdns/0/0", "/san_rules/0", "/san_rules/1", "/san_rules/2", "/san_rules/3", "/san_rules/4", "/sid",
		"/certificate_template", "/ext_key_usage/0", "/application_policies/0"}
	if d := cmp.Diff(want, pointers); d != "" {
		t.Error(d)
	}
	// An entry that Validate would have refused covers nothing.
	odd := &Constraints{URIPrefixes: []string{"https://"}, IPCIDRs: []string{"192.0.2.1"}, DNSSuffixes: []string{""}, SIDPrefixes: []string{""}}
	odd.Subject = map[string][]string{"CN": {"*"}}
	if got := odd.Violations(registered(content)); len(got) != len(want) {
		t.Error(got)
	}
	// A key with an empty list allows no value either.
	empty := &Constraints{}
	if err := json.Unmarshal([]byte(`{"subject":{"CN":[]},"dns_suffixes":[],"email_suffixes":[],"uri_prefixes":[],"ip_cidrs":[],"upn_suffixes":[],
		"sid_prefixes":[],"certificate_templates":[],"ext_key_usage":[],"application_policies":[]}`), empty); err != nil {
		t.Fatal(err)
	}
	if got := empty.Violations(registered(content)); len(got) != len(want) {
		t.Error(got)
	}
	if got := (&Constraints{}).Violations(registered(store.Content{KeyUsage: []string{"digitalSignature"}})); len(got) != 0 {
		t.Errorf("nothing carries a value: %v", got)
	}
}

func TestConstraintsThatCannotBeMeantAreRefused(t *testing.T) {
	if err := constrained().Validate(); err != nil {
		t.Error(err)
	}
	if err := (*Constraints)(nil).Validate(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]Constraints{
		"unknown attribute":        {Subject: map[string][]string{"XX": {"a"}}},
		"one attribute twice":      {Subject: map[string][]string{"O": {"a"}, "2.5.4.10": {"b"}}},
		"empty value":              {Subject: map[string][]string{"O": {""}}},
		"wildcard in a value":      {Subject: map[string][]string{"O": {"a*"}}},
		"control in a value":       {Subject: map[string][]string{"O": {"a\n"}}},
		"empty suffix":             {DNSSuffixes: []string{""}},
		"suffix with a dot before": {DNSSuffixes: []string{".example.com"}},
		"suffix with a star":       {UPNSuffixes: []string{"*.example.com"}},
		"suffix with an at":        {EmailSuffixes: []string{"@example.com"}},
		"prefix without a host":    {URIPrefixes: []string{"https://"}},
		"prefix without a scheme":  {URIPrefixes: []string{"example.com/"}},
		"prefix with a user":       {URIPrefixes: []string{"https://a@example.com"}},
		"prefix with a query":      {URIPrefixes: []string{"https://example.com/?a"}},
		"prefix that climbs":       {URIPrefixes: []string{"https://example.com/a/.."}},
		"address without a length": {IPCIDRs: []string{"192.0.2.1"}},
		"network with host bits":   {IPCIDRs: []string{"192.0.2.1/24"}},
		"mapped network":           {IPCIDRs: []string{"::ffff:192.0.2.0/120"}},
		"no SID":                   {SIDPrefixes: []string{"S-1"}},
		"SID with a hyphen behind": {SIDPrefixes: []string{"S-1-5-21-"}},
		"empty template":           {CertificateTemplates: []string{""}},
		"unknown purpose":          {ExtKeyUsage: []string{"clientauth"}},
		"unknown policy":           {ApplicationPolicies: []string{"x"}},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
