package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/store"
)

var prepareTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// prepareProfile is one that accepts whatever any profile accepts.
func prepareProfile() *Profile {
	p := authorityProfile()
	p.Name = "wifi"
	p.Source = SourceGateway
	p.DefaultTTL = 24 * time.Hour
	p.AllowPatterns = true
	p.KeyUsage = []string{"digitalSignature", "keyEncipherment"}
	p.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.2"}
	p.Templates = Templates{Signature: &Template{Name: "Sig"}, GeneralPurpose: &Template{Name: "WiFiClient", OID: "1.2.3"}}
	p.Renewal = renews(nil)
	return p
}

func prepareHasher(t testing.TB) *Hasher {
	h, err := NewHasher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func registration(t testing.TB, text string) Registration {
	var r Registration
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r
}

// unacceptable has a case for every way in which a registration is 422.
var unacceptable = []struct {
	name, json, at, code string
	profile              func(*Profile)
}{
	{"challenge too short", `{"challenge":"1234567"}`, "/challenge", "challenge_syntax", nil},
	{"challenge too long", `{"challenge":"` + strings.Repeat("a", 8193) + `"}`, "/challenge", "challenge_syntax", nil},
	{"challenge empty", `{"challenge":""}`, "/challenge", "challenge_syntax", nil},
	{"challenge not ASCII", `{"challenge":"12345678ü"}`, "/challenge", "challenge_syntax", nil},
	{"challenge with a control", `{"challenge":"1234\n5678"}`, "/challenge", "challenge_syntax", nil},
	{"challenge with a space at the end", `{"challenge":"12345678 "}`, "/challenge", "challenge_syntax", nil},
	{"challenge of spaces", `{"challenge":"          "}`, "/challenge", "challenge_syntax", nil},
	{"challenge that is a placeholder", `{"challenge":"%Challenge%"}`, "/challenge", "placeholder_unresolved", nil},
	{"no challenge for ndes_one_time", `{"challenge":null}`, "/challenge", "challenge_required", source(SourceNDESOneTime)},
	{"challenge for ndes_static", `{"challenge":"1234567890123456"}`, "/challenge", "challenge_not_allowed", source(SourceNDESStatic)},
	{"challenge matcher", `{"challenge":"1234567890123456"}`, "", "not_registrable", source(SourceMatcher)},
	{"profile without a source", `{}`, "/challenge", "challenge_not_allowed", source("")},

	{"subject and subject_rdns", `{"subject_rdns":[[{"type":"CN","value":"a"}]]}`, "/subject_rdns", "subject_twice", nil},
	{"subject that is not RFC 4514", `{"subject":"CN"}`, "/subject", "subject_syntax", nil},
	{"subject with #hex", `{"subject":"CN=#0C0161"}`, "/subject", "subject_syntax", nil},
	{"subject too long", `{"subject":"CN=` + strings.Repeat("a", 8192) + `"}`, "/subject", "value_too_long", nil},
	{"subject with too many RDNs", `{"subject":"OU=a` + strings.Repeat(",OU=a", 64) + `"}`, "/subject", "too_many", nil},
	{"subject with too wide an RDN", `{"subject":"CN=a+OU=a+O=a+L=a+ST=a+C=a+T=a+GN=a+SN=a"}`, "/subject", "rdn_size", nil},
	{"subject_rdns with too many RDNs", `{"subject":null,"subject_rdns":[` + strings.Repeat(`[{"type":"OU","value":"a"}],`, 64) + `[{"type":"OU","value":"a"}]]}`, "/subject_rdns", "too_many", nil},
	{"RDN without an attribute", `{"subject":null,"subject_rdns":[[{"type":"CN","value":"a"}],[]]}`, "/subject_rdns/1", "rdn_size", nil},
	{"RDN with too many attributes", `{"subject":null,"subject_rdns":[[` + strings.Repeat(`{"type":"OU","value":"a"},`, 8) + `{"type":"O","value":"a"}]]}`, "/subject_rdns/0", "rdn_size", nil},
	{"attribute type unknown", `{"subject":null,"subject_rdns":[[{"type":"XX","value":"a"}]]}`, "/subject_rdns/0/0/type", "type_unknown", nil},
	{"attribute type twice in one RDN", `{"subject":"OU=a+OU=b"}`, "/subject", "duplicate", nil},
	{"two CNs", `{"subject":"CN=a,CN=b"}`, "/subject", "common_names", nil},
	{"two CNs in one RDN", `{"subject":null,"subject_rdns":[[{"type":"CN","value":"a"},{"type":"2.5.4.3","value":"b"}]]}`, "/subject_rdns", "common_names", nil},
	{"empty value", `{"subject":"CN=,O=a"}`, "/subject", "value_empty", nil},
	{"value too long", `{"subject":"CN=` + strings.Repeat("a", 257) + `"}`, "/subject", "value_too_long", nil},
	{"value with a control", `{"subject":"CN=a\\0Ab"}`, "/subject", "value_characters", nil},
	{"value with NUL", `{"subject":"CN=a\\00b"}`, "/subject", "value_characters", nil},
	{"value with bidi", `{"subject":"CN=a\u202eb"}`, "/subject", "value_characters", nil},
	{"value with zero width", `{"subject":"CN=a\u200bb"}`, "/subject", "value_characters", nil},
	{"value not in normal form C", `{"subject":"CN=a\u0301"}`, "/subject", "value_characters", nil},
	{"star as a value", `{"subject":"CN=*"}`, "/subject", "wildcard", nil},
	{"star in a value", `{"subject":"CN=a*"}`, "/subject", "wildcard", nil},

	{"placeholder %Name%", `{"subject":"CN=%SerialNumber%"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder {{Name}}", `{"subject":"CN={{device}}"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder ${NAME}", `{"subject":"CN=${DEVICE}"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder $NAME", `{"subject":"CN=$DEVICE"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder {Name}", `{"subject":"CN={DeviceUid}"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder written as escapes", `{"subject":"CN=\\25SerialNumber\\25"}`, "/subject", "placeholder_unresolved", nil},
	{"placeholder of another name", `{"subject":"CN=%B%","variables":{"A":"a"}}`, "/subject", "placeholder_unresolved", nil},
	{"variable without a value", `{"subject":"CN=%A%","variables":{"A":""}}`, "/subject", "placeholder_unresolved", nil},
	{"variable whose value is a placeholder", `{"subject":"CN=%A%","variables":{"A":"%B%","B":"b"}}`, "/subject", "placeholder_unresolved", nil},
	{"variable whose value makes a placeholder with its surroundings", `{"subject":"CN=%A%B}}","variables":{"A":"{{"}}`, "/subject", "placeholder_unresolved", nil},
	{"variable whose value is a star", `{"subject":"CN=%A%","variables":{"A":"*"}}`, "/subject", "wildcard", nil},
	{"variable whose value is an administrator", `{"subject":"CN=%A%","variables":{"A":"Administrator"}}`, "/subject", "identity_forbidden", nil},
	{"variable with a control", `{"variables":{"A":"a\nb"}}`, "/variables/A", "value_characters", nil},
	{"variable too long", `{"variables":{"A":"` + strings.Repeat("a", 257) + `"}}`, "/variables/A", "value_characters", nil},
	{"variable with an odd name", `{"variables":{"a/b~":"a"}}`, "/variables/a~1b~0", "variable_name", nil},
	{"variable whose name begins with a digit", `{"variables":{"1a":"a"}}`, "/variables/1a", "variable_name", nil},
	{"too many variables", `{"variables":{` + manyPairs(65) + `}}`, "/variables", "too_many", nil},
	{"placeholder in an alternative name", `{"san":{"upn":["%User%@example.com"]}}`, "/san/upn/0", "placeholder_unresolved", nil},
	{"placeholder in a URI", `{"san":{"uri":["https://example.com/%Serial%"]}}`, "/san/uri/0", "placeholder_unresolved", nil},
	{"placeholder in a prefix", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"prefix","value":"%A%-"}]]}`, "/subject_rdns/0/0/value", "placeholder_unresolved", nil},
	{"placeholder in a pattern", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"%A%-[0-9]+"}]]}`, "/subject_rdns/0/0/value", "placeholder_unresolved", nil},

	{"nothing at all", `{"subject":null}`, "/subject", "identity_empty", nil},
	{"empty subject and empty lists", `{"subject":"","subject_rdns":[],"san":{"dns":[]},"san_rules":[]}`, "/subject", "identity_empty", nil},
	{"any for everything", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any"}]],"san_rules":[{"type":"dns","match":"any"}]}`, "/subject", "identity_empty", nil},
	{"a pattern that everything meets", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":".+"}]]}`, "/subject", "identity_empty", nil},
	{"only a name that may be missing", `{"subject":null,"san_rules":[{"type":"dns","match":"prefix","value":"a","min":0}]}`, "/subject", "identity_empty", nil},

	{"CN administrator", `{"subject":"CN=Administrator"}`, "/subject", "identity_forbidden", nil},
	{"CN krbtgt with spaces and dots", `{"subject":"CN=\\ KRB.TGT"}`, "/subject", "identity_forbidden", nil},
	{"CN administrator, case ignored", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"exact_ignore_case","value":"ADMINISTRATOR"}]]}`, "/subject_rdns/0/0/value", "identity_forbidden", nil},
	{"CN administrator among others", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","values":["a","administrator"]}]]}`, "/subject_rdns/0/0/values/1", "identity_forbidden", nil},
	{"CN with an administrator's prefix", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"prefix","value":"admin"}]]}`, "/subject_rdns/0/0/value", "identity_forbidden", nil},
	{"CN with an administrator's pattern", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"(?i)krbtgt"}]]}`, "/subject_rdns/0/0/value", "identity_forbidden", nil},
	{"CN of a CA", `{"subject":"CN=Example Issuing CA"}`, "/subject", "identity_forbidden", nil},
	{"CN of an RA", `{"subject":"CN=ndes-mscep-ra,O=x"}`, "/subject", "identity_forbidden", nil},
	{"subject of a CA", `{"subject":"OU=Old Root"}`, "/subject", "identity_forbidden", nil},
	{"UPN administrator", `{"san":{"upn":["Administrator@example.com"]}}`, "/san/upn/0", "identity_forbidden", nil},
	{"UPN pattern for krbtgt", `{"san_rules":[{"type":"upn","match":"prefix","value":"krbtgt@"}]}`, "/san_rules/0/value", "identity_forbidden", nil},

	{"san and san_rules", `{"san":{"dns":["a"]},"san_rules":[{"type":"dns","value":"b"}]}`, "/san_rules", "san_twice", nil},
	{"dns wildcard", `{"san":{"dns":["*.example.com"]}}`, "/san/dns/0", "wildcard", nil},
	{"dns with a dot at the end", `{"san":{"dns":["a.example.com."]}}`, "/san/dns/0", "dns_syntax", nil},
	{"dns that is an address", `{"san":{"dns":["192.0.2.1"]}}`, "/san/dns/0", "dns_syntax", nil},
	{"dns with an underscore", `{"san":{"dns":["a_b"]}}`, "/san/dns/0", "dns_syntax", nil},
	{"dns not ASCII", `{"san":{"dns":["bücher.example"]}}`, "/san/dns/0", "dns_syntax", nil},
	{"dns empty", `{"san":{"dns":["a",""]}}`, "/san/dns/1", "value_empty", nil},
	{"email with two at signs", `{"san":{"email":["a@b@c"]}}`, "/san/email/0", "email_syntax", nil},
	{"email not ASCII", `{"san":{"email":["ü@b"]}}`, "/san/email/0", "email_syntax", nil},
	{"uri without a scheme", `{"san":{"uri":["example.com"]}}`, "/san/uri/0", "uri_syntax", nil},
	{"uri not ASCII", `{"san":{"uri":["https://example.com/ü"]}}`, "/san/uri/0", "uri_syntax", nil},
	{"uri too long", `{"san":{"uri":["https://example.com/` + strings.Repeat("a", 2048) + `"]}}`, "/san/uri/0", "value_too_long", nil},
	{"uri with a broken escape", `{"san":{"uri":["tag:%6dicrosoft.com,2022-09-14:sid:x%"]}}`, "/san/uri/0", "uri_syntax", nil},
	{"uri that is a SID", `{"san":{"uri":["tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104"]}}`, "/san/uri/0", "sid_uri", nil},
	{"ip that is none", `{"san":{"ip":["192.0.2"]}}`, "/san/ip/0", "ip_syntax", nil},
	{"ip mapped", `{"san":{"ip":["::ffff:192.0.2.1"]}}`, "/san/ip/0", "ip_syntax", nil},
	{"upn without a realm", `{"san":{"upn":["ann"]}}`, "/san/upn/0", "upn_syntax", nil},
	{"name twice", `{"san":{"dns":["a.example.com","A.example.com"]}}`, "/san", "duplicate", nil},
	{"address twice", `{"san":{"ip":["2001:db8::1","2001:DB8:0::1"]}}`, "/san", "duplicate", nil},
	{"email twice but for case", `{"san":{"email":["ann@b","Ann@b"]}}`, "/san", "duplicate", nil},
	{"name twice in rules", `{"san_rules":[{"type":"dns","value":"a"},{"type":"dns","value":"A"}]}`, "/san_rules", "duplicate", nil},
	{"too many names", `{"san":{"dns":[` + manyNames(65) + `]}}`, "/san", "too_many", nil},
	{"too many rules", `{"san_rules":[` + strings.Repeat(`{"type":"dns","match":"any"},`, 64) + `{"type":"dns","match":"any"}]}`, "/san_rules", "too_many", nil},
	{"more names than a request holds", `{"san_rules":[{"type":"dns","match":"any","min":64,"max":64},{"type":"ip","match":"any"}]}`, "/san_rules", "too_many", nil},
	{"rule of an unknown type", `{"san_rules":[{"type":"other","value":"a"}]}`, "/san_rules/0/type", "type_unknown", nil},
	{"rule with a malformed value", `{"san_rules":[{"type":"ip","value":"a"}]}`, "/san_rules/0/value", "ip_syntax", nil},
	{"exact rule that may be missing", `{"san_rules":[{"type":"dns","value":"a","min":0}]}`, "/san_rules/0", "bounds", nil},
	{"exact rule met twice", `{"san_rules":[{"type":"dns","value":"a","max":2}]}`, "/san_rules/0", "bounds", nil},
	{"min below zero", `{"san_rules":[{"type":"dns","match":"any","min":-1}]}`, "/san_rules/0", "bounds", nil},
	{"max zero", `{"san_rules":[{"type":"dns","match":"any","min":0,"max":0}]}`, "/san_rules/0", "bounds", nil},
	{"max above 64", `{"san_rules":[{"type":"dns","match":"any","max":65}]}`, "/san_rules/0", "bounds", nil},
	{"min above max", `{"san_rules":[{"type":"dns","match":"any","min":3,"max":2}]}`, "/san_rules/0", "bounds", nil},
	{"prefix of an address", `{"san_rules":[{"type":"ip","match":"prefix","value":"10."}]}`, "/san_rules/0/match", "match_arguments", nil},

	{"pattern where none is allowed", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"prefix","value":"a"}]]}`, "/subject_rdns/0/0/match", "patterns_not_allowed", exactOnly},
	{"any_of where no pattern is allowed", `{"san_rules":[{"type":"dns","match":"any_of","values":["a"]}]}`, "/san_rules/0/match", "patterns_not_allowed", exactOnly},
	{"case ignored where no pattern is allowed", `{"san_rules":[{"type":"uri","match":"exact_ignore_case","value":"urn:a"}]}`, "/san_rules/0/match", "patterns_not_allowed", exactOnly},
	{"pattern in ndes_static", `{"san_rules":[{"type":"dns","match":"any"}]}`, "/san_rules/0/match", "patterns_not_allowed", source(SourceNDESStatic)},
	{"unknown match", `{"san_rules":[{"type":"dns","match":"contains","value":"a"}]}`, "/san_rules/0/match", "match_unknown", nil},
	{"empty match", `{"san_rules":[{"type":"dns","match":"","value":"a"}]}`, "/san_rules/0/match", "match_unknown", nil},
	{"exact without a value", `{"subject":null,"subject_rdns":[[{"type":"CN"}]]}`, "/subject_rdns/0/0/value", "match_arguments", nil},
	{"exact with values", `{"subject":null,"subject_rdns":[[{"type":"CN","value":"a","values":["b"]}]]}`, "/subject_rdns/0/0/values", "match_arguments", nil},
	{"any_of without values", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","values":[]}]]}`, "/subject_rdns/0/0/values", "match_arguments", nil},
	{"any_of with a value", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","value":"a","values":["a"]}]]}`, "/subject_rdns/0/0/value", "match_arguments", nil},
	{"any_of with a value twice", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","values":["a","a"]}]]}`, "/subject_rdns/0/0/values/1", "duplicate", nil},
	{"any_of with an empty value", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","values":["a",""]}]]}`, "/subject_rdns/0/0/values/1", "value_empty", nil},
	{"any_of with too many values", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"any_of","values":[` + manyNames(65) + `]}]]}`, "/subject_rdns/0/0/values", "too_many", nil},
	{"any with a value", `{"san_rules":[{"type":"dns","match":"any","value":"a"}]}`, "/san_rules/0/value", "match_arguments", nil},
	{"empty prefix", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"prefix","value":""}]]}`, "/subject_rdns/0/0/value", "value_empty", nil},
	{"star in a prefix", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"prefix","value":"a*"}]]}`, "/subject_rdns/0/0/value", "wildcard", nil},
	{"empty pattern", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":""}]]}`, "/subject_rdns/0/0/value", "value_empty", nil},
	{"pattern too long", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"` + strings.Repeat("a", 257) + `"}]]}`, "/subject_rdns/0/0/value", "value_too_long", nil},
	{"pattern with a control", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"a\nb"}]]}`, "/subject_rdns/0/0/value", "value_characters", nil},
	{"pattern that does not compile", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"("}]]}`, "/subject_rdns/0/0/value", "pattern_syntax", nil},
	{"pattern that breaks out of its anchors", `{"subject":null,"subject_rdns":[[{"type":"CN","match":"regex","value":"a)|(b"}]]}`, "/subject_rdns/0/0/value", "pattern_syntax", nil},

	{"sid that is none", `{"sid":"x"}`, "/sid", "sid_syntax", nil},
	{"sid empty", `{"sid":""}`, "/sid", "sid_syntax", nil},
	{"sid in lower case", `{"sid":"s-1-5-21-1-2-3-1104"}`, "/sid", "sid_syntax", nil},
	{"sid of nobody who could enrol", `{"sid":"S-1-5-18"}`, "/sid", "sid_syntax", nil},
	{"sid 500", `{"sid":"S-1-5-21-1-2-3-500"}`, "/sid", "identity_forbidden", nil},
	{"sid 502", `{"sid":"S-1-5-21-1-2-3-502"}`, "/sid", "identity_forbidden", nil},
	{"sid 512", `{"sid":"S-1-5-21-1-2-3-512"}`, "/sid", "identity_forbidden", nil},
	{"sid 516", `{"sid":"S-1-5-21-1-2-3-516"}`, "/sid", "identity_forbidden", nil},
	{"sid 518", `{"sid":"S-1-5-21-1-2-3-518"}`, "/sid", "identity_forbidden", nil},
	{"sid 519", `{"sid":"S-1-5-21-1-2-3-519"}`, "/sid", "identity_forbidden", nil},

	{"key usage unknown", `{"key_usage":["digitalSignature","x"]}`, "/key_usage", "key_usage_unknown", nil},
	{"key usage twice", `{"key_usage":["digitalSignature","digitalSignature"]}`, "/key_usage", "key_usage_unknown", nil},
	{"keyCertSign", `{"key_usage":["digitalSignature","keyCertSign"]}`, "/key_usage", "key_usage_forbidden", nil},
	{"cRLSign", `{"key_usage":["cRLSign"]}`, "/key_usage", "key_usage_forbidden", nil},
	{"key usage that NDES cannot use", `{"key_usage":["digitalSignature","keyAgreement"]}`, "/key_usage", "key_usage_underivable", nil},
	{"no key usage", `{"key_usage":[]}`, "/key_usage", "key_usage_underivable", nil},
	{"template that the key usage does not select", `{"certificate_template":"Sig"}`, "/certificate_template", "template_mismatch", nil},
	{"template that is not configured", `{"certificate_template":"WiFiClient","key_usage":["keyEncipherment"]}`, "/certificate_template", "template_mismatch", nil},
	{"template without templates", `{"certificate_template":"WiFiClient"}`, "/certificate_template", "template_mismatch", func(p *Profile) { p.Templates = Templates{} }},
	{"template that is empty", `{"certificate_template":""}`, "/certificate_template", "template_mismatch", nil},
	{"template in another case", `{"certificate_template":"wificlient"}`, "/certificate_template", "template_mismatch", nil},

	{"purpose unknown", `{"ext_key_usage":["x"]}`, "/ext_key_usage/0", "purpose_unknown", nil},
	{"purpose twice", `{"ext_key_usage":["clientAuth","1.3.6.1.5.5.7.3.2"]}`, "/ext_key_usage/1", "duplicate", nil},
	{"too many purposes", `{"ext_key_usage":[` + strings.Repeat(`"clientAuth",`, 32) + `"clientAuth"]}`, "/ext_key_usage", "too_many", nil},
	{"enrollment agent", `{"ext_key_usage":["1.3.6.1.4.1.311.20.2.1"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"any purpose", `{"ext_key_usage":["2.5.29.37.0"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"any purpose by name", `{"ext_key_usage":["anyExtendedKeyUsage"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"any purpose of Microsoft", `{"ext_key_usage":["1.3.6.1.4.1.311.10.12.1"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"KDC", `{"ext_key_usage":["clientAuth","1.3.6.1.5.2.3.5"]}`, "/ext_key_usage/1", "purpose_forbidden", nil},
	{"OCSP signing", `{"ext_key_usage":["OCSPSigning"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"code signing", `{"ext_key_usage":["codeSigning"]}`, "/ext_key_usage/0", "purpose_forbidden", nil},
	{"forbidden purpose by default", `{}`, "/ext_key_usage/0", "purpose_forbidden", func(p *Profile) { p.ExtKeyUsage = []string{"2.5.29.37.0"} }},
	{"enrollment agent as policy", `{"application_policies":["1.3.6.1.4.1.311.20.2.1"]}`, "/application_policies/0", "purpose_forbidden", nil},
	{"any purpose as policy", `{"application_policies":["2.5.29.37.0"]}`, "/application_policies/0", "purpose_forbidden", nil},
	{"any purpose of Microsoft as policy", `{"application_policies":["1.3.6.1.4.1.311.10.12.1"]}`, "/application_policies/0", "purpose_forbidden", nil},
	{"KDC as policy", `{"application_policies":["1.3.6.1.5.2.3.5"]}`, "/application_policies/0", "purpose_forbidden", nil},
	{"OCSP signing as policy", `{"application_policies":["1.3.6.1.5.5.7.3.9"]}`, "/application_policies/0", "purpose_forbidden", nil},
	{"code signing as policy", `{"application_policies":["1.3.6.1.5.5.7.3.3"]}`, "/application_policies/0", "purpose_forbidden", nil},

	{"key too small", `{"key":{"min_bits":1023}}`, "/key/min_bits", "key_bits", nil},
	{"key too large", `{"key":{"min_bits":8193}}`, "/key/min_bits", "key_bits", nil},
	{"key hash too short", `{"key":{"spki_sha256":"00"}}`, "/key/spki_sha256", "spki_sha256", nil},
	{"key hash not hexadecimal", `{"key":{"spki_sha256":"` + strings.Repeat("z", 64) + `"}}`, "/key/spki_sha256", "spki_sha256", nil},

	{"ttl and expiry", `{"ttl_seconds":60,"expires_at":"2026-03-05T00:00:00Z"}`, "/expires_at", "expiry_twice", nil},
	{"ttl zero", `{"ttl_seconds":0}`, "/ttl_seconds", "ttl_range", nil},
	{"ttl below zero", `{"ttl_seconds":-1}`, "/ttl_seconds", "ttl_range", nil},
	{"ttl too long", `{"ttl_seconds":2592001}`, "/ttl_seconds", "ttl_range", nil},
	{"ttl that overflows", `{"ttl_seconds":9223372036854775807}`, "/ttl_seconds", "ttl_range", nil},
	{"expiry now", `{"expires_at":"2026-03-04T05:06:07Z"}`, "/expires_at", "ttl_range", nil},
	{"expiry too far", `{"expires_at":"2026-04-03T05:06:08Z"}`, "/expires_at", "ttl_range", nil},
	{"no ttl", `{}`, "/ttl_seconds", "ttl_required", func(p *Profile) { p.DefaultTTL = 0 }},
	{"no use", `{"max_uses":0}`, "/max_uses", "max_uses", nil},
	{"too many uses", `{"max_uses":101}`, "/max_uses", "max_uses", nil},
	{"two uses of a one-time password", `{"challenge":"8CE317021F690069","max_uses":2}`, "/max_uses", "max_uses", source(SourceNDESOneTime)},

	{"too many labels", `{"labels":{` + manyPairs(33) + `}}`, "/labels", "too_many", nil},
	{"label with an odd key", `{"labels":{"a b":"x"}}`, "/labels/a b", "label", nil},
	{"label with an empty key", `{"labels":{"":"x"}}`, "/labels/", "label", nil},
	{"label with too long a key", `{"labels":{"` + strings.Repeat("a", 65) + `":"x"}}`, "/labels/" + strings.Repeat("a", 61) + "…", "label", nil},
	{"label with too long a value", `{"labels":{"a":"` + strings.Repeat("a", 257) + `"}}`, "/labels/a", "label", nil},
	{"label with a control", `{"labels":{"a":"x\ny"}}`, "/labels/a", "label", nil},
	{"external id empty", `{"external_id":""}`, "/external_id", "external_id", nil},
	{"external id too long", `{"external_id":"` + strings.Repeat("a", 257) + `"}`, "/external_id", "external_id", nil},
	{"external id with a control", `{"external_id":"a\u0000"}`, "/external_id", "external_id", nil},
	{"renewal of nothing", `{"subject":null,"renews":{}}`, "/renews", "renews_one", nil},
	{"renewal of two certificates", `{"subject":null,"renews":{"serial":"01","sha256":"` + strings.Repeat("a", 64) + `"}}`, "/renews", "renews_one", nil},
	{"renewal of an empty serial number", `{"subject":null,"renews":{"serial":""}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of serial number zero", `{"subject":null,"renews":{"serial":"000"}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of a negative serial number", `{"subject":null,"renews":{"serial":"-1f"}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of a serial number with colons", `{"subject":null,"renews":{"serial":"1b:ad"}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of a serial number with a line feed", `{"subject":null,"renews":{"serial":"1bad\n"}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of a serial number that no certificate has", `{"subject":null,"renews":{"serial":"` + strings.Repeat("1", 129) + `"}}`, "/renews/serial", "renews_serial", nil},
	{"renewal of a hash that is none", `{"subject":null,"renews":{"sha256":"` + strings.Repeat("g", 64) + `"}}`, "/renews/sha256", "renews_sha256", nil},
	{"renewal of a short hash", `{"subject":null,"renews":{"sha256":"` + strings.Repeat("a", 40) + `"}}`, "/renews/sha256", "renews_sha256", nil},
	{"renewal of an empty hash", `{"subject":null,"renews":{"sha256":""}}`, "/renews/sha256", "renews_sha256", nil},
	{"renewal where there is none", `{"subject":null,"renews":{"serial":"01"}}`, "/renews", "renewal_disabled", func(p *Profile) { p.Renewal = nil }},
	{"renewal without an end", `{"subject":null,"renews":{"serial":"01"}}`, "/ttl_seconds", "ttl_required", func(p *Profile) { p.DefaultTTL = 0 }},
	{"renewal with a bad label", `{"subject":null,"renews":{"serial":"01"},"labels":{"":"x"}}`, "/labels/", "label", nil},
	{"renewal with an empty external id", `{"subject":null,"renews":{"serial":"01"},"external_id":""}`, "/external_id", "external_id", nil},
	{"renewal with a challenge", `{"subject":null,"renews":{"serial":"01"},"challenge":"8CE317021F690069"}`, "/challenge", "not_with_renews", nil},
	{"renewal with a subject", `{"renews":{"serial":"01"}}`, "/subject", "not_with_renews", nil},
	{"renewal with an empty subject", `{"subject":"","renews":{"serial":"01"}}`, "/subject", "not_with_renews", nil},
	{"renewal with RDNs", `{"subject":null,"renews":{"serial":"01"},"subject_rdns":[]}`, "/subject_rdns", "not_with_renews", nil},
	{"renewal with variables", `{"subject":null,"renews":{"serial":"01"},"variables":{"A":"a"}}`, "/variables", "not_with_renews", nil},
	{"renewal with names", `{"subject":null,"renews":{"serial":"01"},"san":{"dns":["a.example.com"]}}`, "/san", "not_with_renews", nil},
	{"renewal with name rules", `{"subject":null,"renews":{"serial":"01"},"san_rules":[]}`, "/san_rules", "not_with_renews", nil},
	{"renewal with a SID", `{"subject":null,"renews":{"serial":"01"},"sid":"S-1-5-21-1-2-3-1104"}`, "/sid", "not_with_renews", nil},
	{"renewal with a template", `{"subject":null,"renews":{"serial":"01"},"certificate_template":"WiFiClient"}`, "/certificate_template", "not_with_renews", nil},
	{"renewal with a key usage", `{"subject":null,"renews":{"serial":"01"},"key_usage":["digitalSignature"]}`, "/key_usage", "not_with_renews", nil},
	{"renewal with a purpose", `{"subject":null,"renews":{"serial":"01"},"ext_key_usage":[]}`, "/ext_key_usage", "not_with_renews", nil},
	{"renewal with a policy", `{"subject":null,"renews":{"serial":"01"},"application_policies":[]}`, "/application_policies", "not_with_renews", nil},
	{"renewal with a key", `{"subject":null,"renews":{"serial":"01"},"key":{}}`, "/key", "not_with_renews", nil},
	{"renewal with uses", `{"subject":null,"renews":{"serial":"01"},"max_uses":1}`, "/max_uses", "not_with_renews", nil},
}

func source(s Source) func(*Profile) { return func(p *Profile) { p.Source = s } }

func exactOnly(p *Profile) { p.AllowPatterns = false }

func manyPairs(n int) string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprintf(`"a%d":"x"`, i))
	}
	return strings.Join(pairs, ",")
}

func manyNames(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf(`"a%d"`, i))
	}
	return strings.Join(names, ",")
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	for _, tc := range unacceptable {
		t.Run(tc.name, func(t *testing.T) {
			p := prepareProfile()
			if tc.profile != nil {
				tc.profile(p)
			}
			r := registration(t, `{"subject":"CN=device"}`)
			if err := json.Unmarshal([]byte(tc.json), &r); err != nil {
				t.Fatal(err)
			}
			got, problems := prepare(p, prepareHasher(t), prepareTime, r, "jamf")
			if d := cmp.Diff(Prepared{}, got); d != "" {
				t.Errorf("something is returned with a problem: %s", d)
			}
			if len(problems) == 0 {
				t.Fatal("accepted")
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Pointer == tc.at && p.Code == tc.code }) {
				t.Errorf("want %s %s, got %v", tc.at, tc.code, problems)
			}
			for _, p := range problems {
				if p.Detail == "" || !plain(p.Detail) || len(p.Detail) > 600 {
					t.Errorf("detail %q", p.Detail)
				}
				if r.Challenge != nil && len(*r.Challenge) >= minChallenge && strings.Contains(p.Detail, *r.Challenge) {
					t.Errorf("detail quotes the challenge: %q", p.Detail)
				}
			}
		})
	}
}

func TestAllProblemsAreListed(t *testing.T) {
	_, problems := prepare(prepareProfile(), prepareHasher(t), prepareTime, registration(t, `{"challenge":"x","subject":"CN=*","san":{"ip":["x"]},
		"sid":"x","key_usage":["x"],"ext_key_usage":["x"],"key":{"min_bits":1},"ttl_seconds":0,"max_uses":0,"external_id":"","labels":{" ":""}}`), "jamf")
	var at []string
	for _, p := range problems {
		at = append(at, p.Pointer)
	}
	want := []string{"/challenge", "/subject", "/san/ip/0", "/sid", "/key_usage", "/ext_key_usage/0", "/key/min_bits", "/external_id",
		"/labels/ ", "/ttl_seconds", "/max_uses"}
	if d := cmp.Diff(want, at); d != "" {
		t.Error(d)
	}
	_, problems = prepare(prepareProfile(), prepareHasher(t), prepareTime,
		registration(t, `{"subject":"CN=`+strings.Repeat(",CN=", 1000)+`"}`), "jamf")
	if len(problems) == 0 || len(problems) > maxProblems {
		t.Errorf("%d problems", len(problems))
	}
}

// The contract's own example, and what becomes of it.
const exampleRegistration = `{
  "external_id": "jamf:4711",
  "challenge": "8CE317021F690069",
  "subject": "CN=%SerialNumber% WIFI,OU=WiFi,O=Example Corp",
  "variables": {"SerialNumber": "C02XK1"},
  "san": {"dns": ["C02XK1.example.com"], "email": [], "uri": [], "ip": ["2001:DB8::0:1"], "upn": ["Ann@example.com"]},
  "sid": "S-1-5-21-1-2-3-1104",
  "certificate_template": "WiFiClient",
  "key_usage": ["keyEncipherment", "digitalSignature"],
  "ext_key_usage": ["clientAuth", "1.3.6.1.4.1.311.20.2.2"],
  "application_policies": [],
  "key": {"min_bits": 2048, "spki_sha256": null},
  "ttl_seconds": 259200,
  "max_uses": 1,
  "labels": {"device": "C02XK1"}
}`

func TestARegistrationIsCompiled(t *testing.T) {
	h := prepareHasher(t)
	got, problems := prepare(prepareProfile(), h, prepareTime, registration(t, exampleRegistration), "jamf")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if !regexp.MustCompile(`^exp_[0-7][0-9a-hjkmnp-tv-z]{25}$`).MatchString(got.Expectation.ID) {
		t.Errorf("id %q", got.Expectation.ID)
	}
	if strings.Contains(string(got.Expectation.Request), "8CE317021F690069") || !strings.Contains(string(got.Expectation.Request), `"application_policies":[]`) {
		t.Errorf("request as kept: %s", got.Expectation.Request)
	}
	want := store.Expectation{
		ID: got.Expectation.ID, Profile: "wifi", ExternalID: "jamf:4711", Owner: "jamf",
		ChallengeHash: h.Challenge("wifi", "8CE317021F690069"),
		Request:       got.Expectation.Request,
		Content: store.Content{
			Subject: [][]store.Value{{exactAttr(oidCN, "C02XK1 WIFI")}, {exactAttr("2.5.4.11", "WiFi")}, {exactAttr("2.5.4.10", "Example Corp")}},
			SAN:     []store.SANRule{exactName(sanDNS, "c02xk1.example.com"), exactName(sanIP, "2001:db8::1"), exactName(sanUPN, "ann@example.com")},
			SID:     "S-1-5-21-1-2-3-1104", CertificateTemplate: "WiFiClient",
			KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"},
			ApplicationPolicies: []string{},
			Key:                 store.KeyRule{MinBits: 2048},
		},
		Labels: map[string]string{"device": "C02XK1"}, MaxUses: 1,
		CreatedAt: prepareTime, ExpiresAt: prepareTime.Add(72 * time.Hour),
	}
	if d := cmp.Diff(Prepared{Expectation: want}, got); d != "" {
		t.Error(d)
	}
	const effective = `{"subject_rdns":[[{"type":"CN","value":"C02XK1 WIFI","match":"exact"}],[{"type":"OU","value":"WiFi","match":"exact"}],` +
		`[{"type":"O","value":"Example Corp","match":"exact"}]],"san_rules":[{"type":"dns","match":"exact","value":"c02xk1.example.com","min":1,"max":1},` +
		`{"type":"ip","match":"exact","value":"2001:db8::1","min":1,"max":1},{"type":"upn","match":"exact","value":"ann@example.com","min":1,"max":1}],` +
		`"sid":"S-1-5-21-1-2-3-1104","certificate_template":"WiFiClient","key_usage":["digitalSignature","keyEncipherment"],` +
		`"ext_key_usage":["clientAuth","smartcardLogon"],"application_policies":[],"key":{"min_bits":2048}}`
	if d := cmp.Diff(effective, string(Effective(got.Expectation))); d != "" {
		t.Error(d)
	}
}

func TestTheGateHandsItsProfileToRegistrations(t *testing.T) {
	h := prepareHasher(t)
	g := &Gate{profile: *prepareProfile(), hasher: h, now: func() time.Time { return prepareTime }}
	got, problems := g.Prepare(registration(t, exampleRegistration), "jamf")
	if len(problems) > 0 || got.Expectation.Profile != "wifi" || !got.Expectation.CreatedAt.Equal(prepareTime) {
		t.Errorf("%v %v", got, problems)
	}
}

func mustPrepare(t testing.TB, p *Profile, text string) Prepared {
	t.Helper()
	got, problems := prepare(p, prepareHasher(t), prepareTime, registration(t, text), "jamf")
	if len(problems) > 0 {
		t.Fatalf("%s: %v", text, problems)
	}
	return got
}

func TestAVariableIsAValueAndNeverStructure(t *testing.T) {
	got := mustPrepare(t, prepareProfile(), `{"subject":"CN=%A%+OU={{A}},O=x$A","variables":{"A":"a,OU=Domain Admins+C=\"x\" \\2C#;"}}`)
	const v = `a,OU=Domain Admins+C="x" \2C#;`
	want := [][]store.Value{{exactAttr(oidCN, v), exactAttr("2.5.4.11", v)}, {exactAttr("2.5.4.10", "x"+v)}}
	if d := cmp.Diff(want, got.Expectation.Content.Subject); d != "" {
		t.Error(d)
	}
	got = mustPrepare(t, prepareProfile(), `{"subject_rdns":[[{"type":"CN","match":"regex","value":"%A%-[0-9]{2}"}]],"variables":{"A":"a.b|c"}}`)
	re, err := anchored(got.Expectation.Content.Subject[0][0].Value)
	if err != nil || !re.MatchString("a.b|c-12") || re.MatchString("axb") || re.MatchString("c-12") {
		t.Errorf("%s, %v", re, err)
	}
}

func TestChallengesAreMadeOrTaken(t *testing.T) {
	made := regexp.MustCompile(`^[0-9A-F]{32}$`)
	p := prepareProfile()
	a, b := mustPrepare(t, p, `{"subject":"CN=a"}`), mustPrepare(t, p, `{"subject":"CN=a","challenge":null}`)
	for _, x := range []Prepared{a, b} {
		if !made.MatchString(x.Challenge) || !bytes.Equal(x.Expectation.ChallengeHash, prepareHasher(t).Challenge("wifi", x.Challenge)) {
			t.Errorf("%q", x.Challenge)
		}
		if len(x.Warnings) > 0 {
			t.Errorf("a challenge made here is worth a warning: %v", x.Warnings)
		}
		if text, _ := json.Marshal(x.Expectation); bytes.Contains(text, []byte(x.Challenge)) {
			t.Error("the challenge is stored")
		}
	}
	if a.Challenge == b.Challenge {
		t.Error("two challenges are the same")
	}
	for _, s := range []Source{SourceGateway, SourceNDESOneTime} {
		p.Source = s
		for _, c := range []string{"12345678", strings.Repeat("a", 8192), "a b~!c$d", "$ecretPassw0rd-long"} {
			if got := mustPrepare(t, p, `{"subject":"CN=a","challenge":"`+c+`"}`); got.Challenge != "" {
				t.Error("a challenge that was given is returned")
			}
		}
	}
}

func TestStaticPasswordsAreFoundByIdentity(t *testing.T) {
	p := prepareProfile()
	p.Source = SourceNDESStatic
	got := mustPrepare(t, p, `{"subject":"CN=a,O=b","san":{"dns":["A.example.com","b"]},"max_uses":5}`)
	id := identity{Subject: [][]attr{{{"2.5.4.10", "b"}}, {{oidCN, "a"}}}, SAN: []altName{{"dns", "b"}, {"dns", "a.example.com"}}}
	if got.Challenge != "" || got.Expectation.ChallengeHash != nil ||
		!bytes.Equal(got.Expectation.IdentityHash, prepareHasher(t).Identity("wifi", id.canonical())) {
		t.Errorf("%+v", got)
	}
	if got := mustPrepare(t, p, `{"sid":"S-1-5-21-1-2-3-1104"}`); len(got.Expectation.IdentityHash) != 32 {
		t.Error("a SID alone is an identity")
	}
}

func TestWhatARegistrationLeavesOutComesFromTheProfile(t *testing.T) {
	p := prepareProfile()
	got := mustPrepare(t, p, `{"subject":"CN=a","key_usage":null,"ext_key_usage":null,"application_policies":null,"san":null,"key":null,"labels":null}`).Expectation
	want := store.Content{
		Subject: [][]store.Value{{exactAttr(oidCN, "a")}}, SAN: []store.SANRule{}, CertificateTemplate: "WiFiClient",
		KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}, ApplicationPolicies: []string{},
	}
	if d := cmp.Diff(want, got.Content); d != "" {
		t.Error(d)
	}
	if got.MaxUses != 1 || !got.ExpiresAt.Equal(prepareTime.Add(24*time.Hour)) {
		t.Errorf("%d uses until %s", got.MaxUses, got.ExpiresAt)
	}
	if got := mustPrepare(t, p, `{"subject":"CN=a","ext_key_usage":[]}`).Expectation; len(got.Content.ExtKeyUsage) != 0 || !strings.Contains(string(got.Request), `"ext_key_usage":[]`) {
		t.Errorf("an empty list is one: %v %s", got.Content.ExtKeyUsage, got.Request)
	}
	p.KeyUsage, p.ExtKeyUsage = nil, nil
	got = mustPrepare(t, p, `{"subject":"CN=a"}`).Expectation
	if d := cmp.Diff(want.KeyUsage, got.Content.KeyUsage); d != "" || len(got.Content.ExtKeyUsage) != 0 {
		t.Errorf("%s %v", d, got.Content.ExtKeyUsage)
	}
	if got := mustPrepare(t, p, `{"subject":"CN=a","key_usage":["keyEncipherment"]}`).Expectation; got.Content.CertificateTemplate != "" {
		t.Errorf("template %q is not configured", got.Content.CertificateTemplate)
	}
	got = mustPrepare(t, p, `{"subject":"CN=a","expires_at":"2026-04-03T07:06:07+02:00","key":{"spki_sha256":"`+strings.Repeat("AB", 32)+`"}}`).Expectation
	if got.ExpiresAt != prepareTime.Add(30*24*time.Hour) || got.Content.Key.SPKISHA256 != strings.Repeat("ab", 32) {
		t.Errorf("%s %s", got.ExpiresAt, got.Content.Key.SPKISHA256)
	}
}

func TestPatternsAreCompiledWhereAllowed(t *testing.T) {
	got := mustPrepare(t, prepareProfile(), `{"subject_rdns":[[{"type":"CN","match":"prefix","value":"Dev-"},{"type":"OU","match":"any"}],
		[{"type":"O","match":"any_of","values":["a","b"]}],[{"type":"L","match":"exact_ignore_case","value":"Berlin"}]],
		"san_rules":[{"type":"dns","match":"prefix","value":"DEV-","min":0,"max":3},{"type":"dns","value":"a"},{"type":"ip","match":"any","min":2},
		{"type":"upn","match":"regex","value":"[a-z]+@example\\.com"}]}`).Expectation.Content
	want := store.Content{
		Subject: [][]store.Value{
			{{Type: oidCN, Match: "prefix", Value: "Dev-"}, {Type: "2.5.4.11", Match: "any"}},
			{{Type: "2.5.4.10", Match: "any_of", Values: []string{"a", "b"}}},
			{{Type: "2.5.4.7", Match: "exact_ignore_case", Value: "Berlin"}},
		},
		SAN: []store.SANRule{
			{Type: "dns", Match: "prefix", Value: "dev-", Min: 0, Max: 3},
			exactName(sanDNS, "a"),
			{Type: "ip", Match: "any", Min: 2, Max: 2},
			{Type: "upn", Match: "regex", Value: `[a-z]+@example\.com`, Min: 1, Max: 1},
		},
	}
	if d := cmp.Diff(want.Subject, got.Subject); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want.SAN, got.SAN); d != "" {
		t.Error(d)
	}
}

func TestWarnings(t *testing.T) {
	p := prepareProfile()
	for text, want := range map[string]string{
		`{"subject":"CN=a","challenge":"` + strings.Repeat("a", 33) + `"}`:                 "longer than 32",
		`{"subject":"CN=a","challenge":"123456789012345"}`:                                 "shorter than 16",
		`{"subject":"CN=a","san":{"upn":["a@b"]}}`:                                         "without a SID",
		`{"subject":"CN=a","san":{"upn":["a@b"]},"sid":"S-1-5-21-1-2-3-4"}`:                "",
		`{"subject":"CN=a","challenge":"1234567890123456","san":{"dns":["a"],"upn":null}}`: "",
	} {
		got := mustPrepare(t, p, text).Warnings
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	last, seen := "", map[string]bool{}
	for i := range 1000 {
		id := newID(prepareTime.Add(time.Duration(i) * time.Millisecond))
		if id <= last || len(id) != 30 {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	for range 1000 {
		id := newID(prepareTime)
		if seen[id] || id[:13] != newID(prepareTime)[:13] {
			t.Fatalf("%s", id)
		}
		seen[id] = true
	}
	if a, b := newID(time.UnixMilli(0)), newID(time.UnixMilli(1<<48-1)); !strings.HasPrefix(a, "exp_0000000000") || !strings.HasPrefix(b, "exp_7zzzzzzzzz") {
		t.Errorf("%s %s", a, b)
	}
}

func TestSameRegistration(t *testing.T) {
	p := prepareProfile()
	base := mustPrepare(t, p, exampleRegistration).Expectation
	edit := func(old, new string) store.Expectation {
		text := strings.Replace(exampleRegistration, old, new, 1)
		if text == exampleRegistration {
			t.Fatalf("%s is not in the example", old)
		}
		return mustPrepare(t, p, text).Expectation
	}
	for name, same := range map[string]store.Expectation{
		"itself":           base,
		"the same again":   mustPrepare(t, p, exampleRegistration).Expectation,
		"another ttl":      edit("259200", "60"),
		"order of RDNs":    edit("OU=WiFi,O=Example Corp", "O=Example Corp,OU=WiFi"),
		"a value expanded": edit("%SerialNumber%", "C02XK1"),
		"order of usages":  edit(`"keyEncipherment", "digitalSignature"`, `"digitalSignature", "keyEncipherment"`),
		"names for OIDs":   edit(`"clientAuth", "1.3.6.1.4.1.311.20.2.2"`, `"smartcardLogon", "1.3.6.1.5.5.7.3.2"`),
		"case of a name":   edit("C02XK1.example", "c02xk1.example"),
	} {
		if !SameRegistration(base, same) {
			t.Errorf("%s makes a difference", name)
		}
	}
	owner := base
	owner.Owner = "other"
	profile := base
	profile.Profile = "vpn"
	for name, other := range map[string]store.Expectation{
		"owner":         owner,
		"profile":       profile,
		"external id":   edit("jamf:4711", "jamf:4712"),
		"challenge":     edit("8CE317021F690069", "8CE317021F690060"),
		"made here":     edit(`"8CE317021F690069"`, "null"),
		"subject":       edit("O=Example Corp", "O=Example"),
		"multiplicity":  edit("OU=WiFi", "OU=WiFi,OU=WiFi"),
		"san":           edit(`["Ann@example.com"]`, "[]"),
		"sid":           edit("-1104", "-1105"),
		"ext_key_usage": edit(`"clientAuth", `, ""),
		"policies":      edit(`"application_policies": []`, `"application_policies": ["clientAuth"]`),
		"key":           edit("2048", "3072"),
		"uses":          edit(`"max_uses": 1`, `"max_uses": 2`),
		"labels":        edit(`{"device": "C02XK1"}`, `{}`),
		"key_usage":     edit(`"certificate_template": "WiFiClient",`+"\n"+`  "key_usage": ["keyEncipherment", "digitalSignature"]`, `"key_usage": ["digitalSignature"]`),
	} {
		if SameRegistration(base, other) {
			t.Errorf("%s makes no difference", name)
		}
	}
	a, b := mustPrepare(t, p, `{"subject":"CN=a"}`), mustPrepare(t, p, `{"subject":"CN=a"}`)
	if SameRegistration(a.Expectation, b.Expectation) {
		t.Error("two challenges made here are the same")
	}
}

func TestEveryReasonAndProblemIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	constants, err := os.ReadFile("reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`(?m)^\s+\w+\s+Reason\s+= "(\w+)"`).FindAllSubmatch(constants, -1)
	if len(reasons) < 30 {
		t.Fatalf("%d reasons found", len(reasons))
	}
	var order []string
	for _, r := range reasons {
		order = append(order, string(r[1]))
	}
	var headings []string
	for _, h := range regexp.MustCompile("(?m)^### `(\\w+)`$").FindAllSubmatch(text, -1) {
		headings = append(headings, string(h[1]))
	}
	if d := cmp.Diff(order, headings); d != "" {
		t.Errorf("headings of docs/reasons.md: %s", d)
	}
	cases := map[string]bool{
		"not_json": true, "identity_open": true, // cannot happen: they only keep a mistake of ours from passing
	}
	for _, r := range unacceptable {
		cases[r.code] = true
		if !bytes.Contains(text, []byte("`"+r.code+"`")) {
			t.Errorf("problem %s is not in docs/reasons.md", r.code)
		}
	}
	source, err := os.ReadFile("prepare.go")
	if err != nil {
		t.Fatal(err)
	}
	renewals, err := os.ReadFile("preparerenewal.go")
	if err != nil {
		t.Fatal(err)
	}
	source = append(source, renewals...)
	for _, m := range regexp.MustCompile(`c\.problem\([^"\n]*(?:"[^"]*"[^",\n]*)?, "(\w+)", "`).FindAllSubmatch(source, -1) {
		if !cases[string(m[1])] {
			t.Errorf("problem %s has no case", m[1])
		}
	}
}

func TestARenewalIsRegisteredByItsCertificateAlone(t *testing.T) {
	p, h := prepareProfile(), prepareHasher(t)
	sum := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		json, effective string
		want            store.Expectation
	}{
		{`{"renews":{"serial":"00A1b2"},"external_id":"jamf:1","labels":{"device":"x"},"ttl_seconds":60}`, `{"renews":{"serial":"a1b2"}}`, store.Expectation{
			IdentityHash: h.RenewalSerial("wifi", "a1b2"), Renews: &store.Renews{Serial: "a1b2"}, ExternalID: "jamf:1",
			Labels: map[string]string{"device": "x"}, ExpiresAt: prepareTime.Add(time.Minute),
		}},
		{`{"renews":{"sha256":"` + strings.ToUpper(sum) + `"}}`, `{"renews":{"sha256":"` + sum + `"}}`, store.Expectation{
			ChallengeHash: h.Renewal("wifi", sum), Renews: &store.Renews{SHA256: sum}, ExpiresAt: prepareTime.Add(24 * time.Hour),
		}},
	} {
		for _, source := range []Source{SourceGateway, SourceNDESOneTime, SourceNDESStatic} {
			p.Source = source
			got := mustPrepare(t, p, tc.json)
			e := got.Expectation
			tc.want.ID, tc.want.Profile, tc.want.Owner, tc.want.CreatedAt, tc.want.MaxUses = e.ID, "wifi", "jamf", prepareTime.UTC(), 1
			tc.want.Request = e.Request
			if d := cmp.Diff(Prepared{Expectation: tc.want}, got); d != "" {
				t.Errorf("%s: %s", tc.json, d)
			}
			if d := cmp.Diff(registration(t, tc.json), registration(t, string(e.Request))); d != "" {
				t.Errorf("request: %s", d)
			}
			if d := cmp.Diff(tc.effective, string(Effective(e))); d != "" {
				t.Errorf("effective: %s", d)
			}
			// What is effective is a registration that expects the same.
			again := mustPrepare(t, p, tc.effective).Expectation
			again.ExternalID, again.Labels = e.ExternalID, e.Labels
			if !SameRegistration(e, again) {
				t.Errorf("%+v is not %+v", again, e)
			}
		}
	}
	a, b := mustPrepare(t, p, `{"renews":{"serial":"1"}}`).Expectation, mustPrepare(t, p, `{"renews":{"serial":"2"}}`).Expectation
	c := a
	c.Renews = nil
	for _, other := range []store.Expectation{b, c} {
		if SameRegistration(a, other) || SameRegistration(other, a) {
			t.Errorf("%+v is the same as %+v", a, other)
		}
	}
}

func FuzzExpectation(f *testing.F) {
	f.Add([]byte(exampleRegistration), byte(0))
	for i, tc := range unacceptable {
		if i%5 == 0 && len(tc.json) < 300 {
			f.Add([]byte(tc.json), byte(i))
		}
	}
	f.Add([]byte(`{"subject_rdns":[[{"type":"CN","match":"regex","value":"%A%[0-9]+"}]],"san_rules":[{"type":"dns","match":"any","min":0}],"variables":{"A":"a"}}`), byte(0))
	f.Add([]byte(`{"san":{"uri":["https://x/%c3%bc"],"ip":["::1"]},"sid":"S-1-12-1-1-2-3-4","ext_key_usage":[]}`), byte(2))
	f.Add([]byte(`{"renews":{"serial":"00A1b2"},"labels":{"device":"x"}}`), byte(0))
	h := prepareHasher(f)
	f.Fuzz(func(t *testing.T, text []byte, which byte) {
		var r Registration
		if json.Unmarshal(text, &r) != nil {
			return
		}
		p := prepareProfile()
		p.Source = []Source{SourceGateway, SourceNDESOneTime, SourceNDESStatic, ""}[which%4]
		p.AllowPatterns = which&4 == 0
		got, problems := prepare(p, h, prepareTime, r, "jamf")
		if len(problems) > 0 {
			if len(problems) > maxProblems || got.Expectation.ID != "" || got.Challenge != "" {
				t.Fatalf("%d problems and %+v", len(problems), got)
			}
			for _, p := range problems {
				if !plain(p.Detail) || !plain(p.Pointer) || len(p.Detail) > 1024 {
					t.Fatalf("%q %q", p.Pointer, p.Detail)
				}
			}
			return
		}
		if e := got.Expectation; e.Renews != nil {
			if d := cmp.Diff(store.Content{}, e.Content); d != "" || (e.ChallengeHash == nil) == (e.IdentityHash == nil) || got.Challenge != "" {
				t.Fatalf("%+v", got)
			}
			if err := e.Start(prepareTime); err != nil {
				t.Fatal(err)
			}
			return
		}
		c := got.Expectation.Content
		for _, rdn := range c.Subject {
			for _, a := range rdn {
				if a.Match == matchExact && (unresolved(a.Value) || a.Value == "" || !plain(a.Value) || strings.Contains(a.Value, "*")) {
					t.Fatalf("attribute %+v", a)
				}
			}
		}
		for _, s := range c.SAN {
			if s.Match == matchExact && s.Type != sanURI && (unresolved(s.Value) || s.Value == "" || !plain(s.Value) || strings.Contains(s.Value, "*")) {
				t.Fatalf("name %+v", s)
			}
		}
		if id, ok := expectedIdentity(c); ok {
			if field, why := forbiddenIdentity(p, id); why != "" {
				t.Fatalf("%s is %s: %+v", field, why, c)
			}
		}
		if !tellsWho(c) {
			t.Fatalf("empty identity: %+v", c)
		}
		// What is effective is a registration that expects the same.
		var again Registration
		if err := json.Unmarshal(Effective(got.Expectation), &again); err != nil {
			t.Fatal(err)
		}
		again.Challenge = r.Challenge
		second, problems := prepare(p, h, prepareTime, again, "jamf")
		if len(problems) > 0 {
			t.Fatalf("%s: %v", Effective(got.Expectation), problems)
		}
		if d := cmp.Diff(c, second.Expectation.Content); d != "" {
			t.Fatal(d)
		}
		if !bytes.Equal(got.Expectation.IdentityHash, second.Expectation.IdentityHash) {
			t.Fatal("another identity")
		}
	})
}
