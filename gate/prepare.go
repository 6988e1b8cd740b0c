package gate

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/scepgate/scepgate/store"
)

// Bounds of a registration.
const (
	maxTTL          = 30 * 24 * time.Hour
	maxUsesLimit    = 100 // every use is kept in the record
	minChallenge    = 8
	maxChallenge    = 8192 // Intune's challenges are several KB
	weakChallenge   = 16   // below it a challenge can be guessed by many (threat F13)
	longChallenge   = 32   // above it not every client sends it whole
	maxSubject      = 8192 // bytes of RFC 4514 text
	maxVariables    = 64
	maxVariable     = 256 // bytes of one value
	maxPurposes     = 32
	maxLabels       = 32
	maxLabelKey     = 64
	maxLabelValue   = 256
	maxExternalID   = 256
	maxTemplate     = 256
	minKeyBits      = 1024
	maxKeyBits      = 8192
	maxProblems     = 64
	quoted          = 64 // bytes of a wrong value that a problem quotes
	madeChallenge   = 16 // random bytes of a challenge made here
	expectationName = "exp_"
)

// Prepare validates r against the profile and compiles it. Problems are 422.
func (g *Gate) Prepare(r Registration, owner string) (Prepared, []Problem) {
	return prepare(&g.profile, g.hasher, g.now(), r, owner)
}

// prepare is Prepare without a gate. It lists every problem and then returns
// nothing else.
func prepare(p *Profile, h *Hasher, now time.Time, r Registration, owner string) (Prepared, []Problem) {
	c := &checker{profile: p, now: now.UTC()}
	e := store.Expectation{
		ID:        newID(c.now),
		Profile:   p.Name,
		Owner:     owner,
		CreatedAt: c.now,
	}
	if r.Renews != nil {
		return c.renewal(h, r, e)
	}
	challenge, made := c.challenge(r.Challenge)
	c.variables(r.Variables)
	e.Content = c.content(r)
	e.ExternalID = c.externalID(r.ExternalID)
	e.Labels = c.labels(r.Labels)
	e.ExpiresAt = c.expiry(r.TTLSeconds, r.ExpiresAt)
	e.MaxUses = c.maxUses(r.MaxUses)
	if len(c.problems) > 0 {
		return Prepared{}, c.problems
	}

	if p.Source == SourceNDESStatic {
		id, ok := expectedIdentity(e.Content)
		if !ok { // content refuses patterns here; nothing may be filed under half an identity
			c.problem("", "identity_open", "a profile with a static password finds expectations by their identity")
			return Prepared{}, c.problems
		}
		e.IdentityHash = h.Identity(p.Name, id.canonical())
	} else {
		e.ChallengeHash = h.Challenge(p.Name, challenge)
	}
	r.Challenge = nil // it is never stored
	request, err := json.Marshal(r)
	if err != nil {
		c.problem("", "not_json", "the registration cannot be written as JSON")
		return Prepared{}, c.problems
	}
	e.Request = request
	out := Prepared{Expectation: e, Warnings: c.warnings}
	if made {
		out.Challenge = challenge
	}
	return out, nil
}

// checker collects what is wrong with one registration.
type checker struct {
	profile  *Profile
	now      time.Time
	values   map[string]string // of variables
	problems []Problem
	warnings []string
}

// problem notes one. Everything in args that came from the caller is escaped
// and bounded by safe before it gets here.
func (c *checker) problem(at, code, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Pointer: at, Code: code, Detail: fmt.Sprintf(format, args...)})
	}
}

// pointerToken makes a name one token of a JSON pointer (RFC 6901 §3).
func pointerToken(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(safe(name, quoted))
}

func (c *checker) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// challenge applies the rules of the profile's source and makes a challenge
// where that is its business. No problem ever quotes one.
func (c *checker) challenge(given *string) (challenge string, made bool) {
	const at = "/challenge"
	switch c.profile.Source {
	case SourceGateway:
		if given == nil {
			b := make([]byte, madeChallenge)
			rand.Read(b) // never fails: crypto/rand ends the process instead
			return strings.ToUpper(hex.EncodeToString(b)), true
		}
	case SourceNDESOneTime:
		if given == nil {
			c.problem(at, "challenge_required", "this profile needs the one-time password that NDES made")
			return "", false
		}
	case SourceNDESStatic:
		if given != nil {
			c.problem(at, "challenge_not_allowed", "this profile has one static password; leave the challenge out")
		}
		return "", false
	case SourceMatcher:
		c.problem("", "not_registrable", "nobody registers for this profile: a matcher vouches for challenges")
		return "", false
	default:
		c.problem(at, "challenge_not_allowed", "this profile has no source of challenges")
		return "", false
	}
	s := *given
	switch {
	case len(s) < minChallenge || len(s) > maxChallenge || !printableASCII(s) || strings.TrimSpace(s) != s:
		c.problem(at, "challenge_syntax", "must be %d to %d printable ASCII characters without a space at either end", minChallenge, maxChallenge)
	case wholePlaceholder(s):
		// threat A16: a challenge that everybody knows
		c.problem(at, "placeholder_unresolved", "is a placeholder; only subject and alternative names are expanded")
	}
	if len(s) < weakChallenge {
		c.warn("challenge is shorter than %d characters", weakChallenge)
	}
	if len(s) > longChallenge {
		c.warn("challenge is longer than %d characters; not every client can send it", longChallenge)
	}
	return s, false
}

// variables keeps the values that can be expanded.
func (c *checker) variables(given map[string]string) {
	if len(given) > maxVariables {
		c.problem("/variables", "too_many", "at most %d variables", maxVariables)
		return
	}
	c.values = given
	for _, name := range slices.Sorted(maps.Keys(given)) {
		at := "/variables/" + pointerToken(name)
		if !variableName(name) {
			c.problem(at, "variable_name", "must be letters, digits, '_', '.', '-', and not begin with a digit")
		}
		if v := given[name]; len(v) > maxVariable || !plain(v) {
			c.problem(at, "value_characters", "must be at most %d bytes of text without control or invisible characters", maxVariable)
		}
	}
}

// content compiles what the certificate may contain.
func (c *checker) content(r Registration) store.Content {
	before := len(c.problems)
	out := store.Content{
		Subject: c.subject(r.Subject, r.SubjectRDNs),
		SAN:     c.altNames(r.SAN, r.SANRules),
		SID:     c.sid(r.SID),
	}
	if len(c.problems) == before && !tellsWho(out) {
		c.problem("/subject", "identity_empty", "no subject, alternative name or SID that would tell this certificate from another")
	}
	c.usage(&out, r)
	out.Key = c.key(r.Key)
	if out.SID == "" && slices.ContainsFunc(out.SAN, func(s store.SANRule) bool { return s.Type == sanUPN }) {
		c.warn("a UPN without a SID maps weakly to an account (KB5014754)") // threat B42
	}
	return out
}

// tellsWho reports whether anything in c must be there and cannot be anything.
func tellsWho(c store.Content) bool {
	if c.SID != "" {
		return true
	}
	for _, rdn := range c.Subject {
		for _, a := range rdn {
			if !saysNothing(a.Match, a.Value) {
				return true
			}
		}
	}
	return slices.ContainsFunc(c.SAN, func(s store.SANRule) bool {
		return s.Min > 0 && !saysNothing(s.Match, s.Value)
	})
}

// subject compiles one of the two ways to write a subject.
func (c *checker) subject(text *string, rdns [][]NameRule) [][]store.Value {
	out := [][]store.Value{}
	if text != nil && *text != "" {
		if len(rdns) > 0 {
			c.problem("/subject_rdns", "subject_twice", "give subject or subject_rdns, not both")
			return nil
		}
		if len(*text) > maxSubject {
			c.problem("/subject", "value_too_long", "at most %d bytes", maxSubject)
			return nil
		}
		// Parsed first and expanded then: a comma in a variable's value makes
		// no RDN (threat C43).
		parsed, err := parseDN(*text)
		if err != nil {
			c.problem("/subject", "subject_syntax", "%s", err)
			return nil
		}
		for i := range parsed {
			var values []store.Value
			for _, a := range parsed[i] {
				value, _ := c.nameValue(a.Type)("/subject", expand(a.Value, c.values, verbatim))
				values = append(values, store.Value{Type: a.Type, Match: matchExact, Value: value})
			}
			out = append(out, values)
		}
	}
	at := "/subject"
	if len(rdns) > 0 {
		at = "/subject_rdns"
	}
	if len(out) > maxRDNs || len(rdns) > maxRDNs {
		c.problem(at, "too_many", "at most %d RDNs", maxRDNs)
		return nil
	}
	for i, rdn := range rdns {
		if len(rdn) == 0 || len(rdn) > maxAttributes {
			c.problem(fmt.Sprintf("%s/%d", at, i), "rdn_size", "an RDN has 1 to %d attributes", maxAttributes)
			continue
		}
		var values []store.Value
		for j, rule := range rdn {
			item := fmt.Sprintf("%s/%d/%d", at, i, j)
			oid, ok := attributeOID(rule.Type)
			if !ok {
				c.problem(item+"/type", "type_unknown", "%q is no attribute type", safe(rule.Type, quoted))
				continue
			}
			v, ok := c.expected(item, rule.Match, rule.Value, rule.Values, c.nameValue(oid), oid == oidCN)
			if ok {
				v.Type = oid
				values = append(values, v)
			}
		}
		out = append(out, values)
	}
	c.subjectShape(at, out)
	return out
}

// subjectShape judges the subject as a whole.
func (c *checker) subjectShape(at string, subject [][]store.Value) {
	cns, exact := 0, true
	var names [][]attr
	for _, rdn := range subject {
		if len(rdn) > maxAttributes {
			c.problem(at, "rdn_size", "an RDN has 1 to %d attributes", maxAttributes)
		}
		seen := map[string]bool{}
		var attrs []attr
		for _, v := range rdn {
			if v.Type == oidCN {
				cns++
			}
			if seen[v.Type] { // X.501 §9.3
				c.problem(at, "duplicate", "%s stands twice in one RDN", attributeName(v.Type))
			}
			seen[v.Type] = true
			exact = exact && v.Match == matchExact
			attrs = append(attrs, attr{v.Type, v.Value})
		}
		names = append(names, attrs)
	}
	if cns > 1 { // threats C24 B34
		c.problem(at, "common_names", "more than one CN")
	}
	if why := forbiddenSubject(c.profile, names); exact && why != "" {
		c.problem(at, "identity_forbidden", "is %s", why)
	}
}

// judgeValue judges one value, written out, and returns it as it will be compared.
type judgeValue func(at, value string) (canonical string, ok bool)

// nameValue judges values of one attribute type.
func (c *checker) nameValue(oid string) judgeValue {
	return func(at, v string) (string, bool) {
		name := attributeName(oid)
		if !c.text(at, "value of "+name, v, maxNameBytes) {
			return "", false
		}
		if unresolved(v) {
			c.problem(at, "placeholder_unresolved", "value of %s: %q has a placeholder without a value", name, safe(v, quoted))
			return "", false
		}
		if oid != oidCN {
			return v, true
		}
		if why := forbiddenCN(c.profile, v); why != "" {
			c.problem(at, "identity_forbidden", "%q is %s", safe(v, quoted), why)
			return "", false
		}
		return v, true
	}
}

// text applies what holds for every value: it must be what a request can carry.
func (c *checker) text(at, what, v string, max int) bool {
	switch {
	case v == "":
		c.problem(at, "value_empty", "%s is empty", what)
	case len(v) > max:
		c.problem(at, "value_too_long", "%s is longer than %d bytes", what, max)
	case !plain(v) || !norm.NFC.IsNormalString(v): // threats B32 C33 C34
		c.problem(at, "value_characters", "%s: %q has control or invisible characters, or is not in normal form C", what, safe(v, quoted))
	case strings.Contains(v, "*"):
		c.problem(at, "wildcard", "%s: %q has a '*'; nothing is a wildcard here", what, safe(v, quoted))
	default:
		return true
	}
	return false
}

// expected compiles match, value and values of one rule. account says that the
// value may name an account.
func (c *checker) expected(at string, match, value *string, values []string, judge judgeValue, account bool) (store.Value, bool) {
	out := store.Value{Match: matchExact}
	if match != nil {
		out.Match = *match
	}
	before := len(c.problems)
	switch out.Match {
	case matchExact:
	case matchIgnoreCase, matchAnyOf, matchPrefix, matchAny, matchRegex:
		if c.profile.Source == SourceNDESStatic || !c.profile.AllowPatterns {
			c.problem(at+"/match", "patterns_not_allowed", "this profile allows only exact values")
		}
	default:
		c.problem(at+"/match", "match_unknown", "%q is not a way to match", safe(out.Match, quoted))
		return out, false
	}
	wantValue, wantValues := out.Match != matchAny && out.Match != matchAnyOf, out.Match == matchAnyOf
	if wantValue != (value != nil) {
		c.problem(at+"/value", "match_arguments", "match %s %s a value", out.Match, needs(wantValue))
	}
	if wantValues != (len(values) > 0) {
		c.problem(at+"/values", "match_arguments", "match %s %s values", out.Match, needs(wantValues))
	}
	if len(values) > maxAltNames {
		c.problem(at+"/values", "too_many", "at most %d values", maxAltNames)
	}
	if len(c.problems) > before {
		return out, false
	}
	switch out.Match {
	case matchExact, matchIgnoreCase:
		out.Value, _ = judge(at+"/value", expand(*value, c.values, verbatim))
	case matchAnyOf:
		for i, v := range values {
			item := fmt.Sprintf("%s/values/%d", at, i)
			v, ok := judge(item, expand(v, c.values, verbatim))
			if ok && slices.Contains(out.Values, v) {
				c.problem(item, "duplicate", "%q stands twice", safe(v, quoted))
			}
			out.Values = append(out.Values, v)
		}
	case matchPrefix:
		out.Value = expand(*value, c.values, verbatim)
		if c.text(at+"/value", "prefix", out.Value, maxNameBytes) && unresolved(out.Value) {
			c.problem(at+"/value", "placeholder_unresolved", "%q has a placeholder without a value", safe(out.Value, quoted))
		}
	case matchRegex:
		out.Value = c.pattern(at+"/value", *value)
	}
	if account && aimsAt(out.Match, out.Value) {
		c.problem(at+"/value", "identity_forbidden", "%q is for the name of a privileged account", safe(out.Value, quoted))
	}
	return out, len(c.problems) == before
}

func needs(yes bool) string {
	if yes {
		return "needs"
	}
	return "takes no"
}

// pattern compiles a regular expression for proof; what is kept is its text.
// Variables go in as values: their characters mean themselves.
func (c *checker) pattern(at, v string) string {
	v = expand(v, c.values, regexp.QuoteMeta)
	switch {
	case v == "":
		c.problem(at, "value_empty", "the pattern is empty")
	case len(v) > maxPattern:
		c.problem(at, "value_too_long", "the pattern is longer than %d bytes", maxPattern)
	case !plain(v):
		c.problem(at, "value_characters", "the pattern has control or invisible characters")
	case unresolvedPattern(v):
		c.problem(at, "placeholder_unresolved", "%q has a placeholder without a value", safe(v, quoted))
	default:
		if _, err := anchored(v); err != nil {
			c.problem(at, "pattern_syntax", "%s", safe(err.Error(), maxPattern))
		}
	}
	return v
}

// altNames compiles one of the two ways to write the alternative names.
func (c *checker) altNames(san *SAN, rules []SANRule) []store.SANRule {
	out := []store.SANRule{}
	if san != nil {
		for _, list := range [...]struct {
			typ    string
			values []string
		}{{sanDNS, san.DNS}, {sanEmail, san.Email}, {sanURI, san.URI}, {sanIP, san.IP}, {sanUPN, san.UPN}} {
			for i, v := range list.values {
				if len(out) == maxAltNames {
					c.problem("/san", "too_many", "at most %d alternative names", maxAltNames)
					return nil
				}
				canonical, _ := c.altName(list.typ)(fmt.Sprintf("/san/%s/%d", list.typ, i), expand(v, c.values, verbatim))
				out = append(out, store.SANRule{Type: list.typ, Match: matchExact, Value: canonical, Min: 1, Max: 1})
			}
		}
	}
	if len(out) > 0 && len(rules) > 0 {
		c.problem("/san_rules", "san_twice", "give san or san_rules, not both")
		return nil
	}
	if len(rules) > maxAltNames {
		c.problem("/san_rules", "too_many", "at most %d rules", maxAltNames)
		return nil
	}
	least := len(out)
	for i, rule := range rules {
		at := fmt.Sprintf("/san_rules/%d", i)
		r, ok := c.altNameRule(at, rule)
		if !ok {
			continue
		}
		least += r.Min
		out = append(out, r)
	}
	if least > maxAltNames {
		c.problem("/san_rules", "too_many", "no request can carry more than %d names", maxAltNames)
	}
	seen := map[string]bool{}
	for _, r := range out { // a request that has a name twice is malformed: it can be expected once
		key := altNameKey(r.Type, r.Value)
		if r.Match == matchExact && r.Value != "" && seen[key] {
			at := "/san"
			if len(rules) > 0 {
				at = "/san_rules"
			}
			c.problem(at, "duplicate", "%s %q stands twice", r.Type, safe(r.Value, quoted))
		}
		seen[key] = seen[key] || r.Match == matchExact
	}
	return out
}

func (c *checker) altNameRule(at string, rule SANRule) (store.SANRule, bool) {
	if !slices.Contains(sanTypes, rule.Type) {
		c.problem(at+"/type", "type_unknown", "%q is not one of %s", safe(rule.Type, quoted), strings.Join(sanTypes, ", "))
		return store.SANRule{}, false
	}
	v, ok := c.expected(at, rule.Match, rule.Value, rule.Values, c.altName(rule.Type), rule.Type == sanUPN)
	if !ok {
		return store.SANRule{}, false
	}
	if rule.Type == sanIP && v.Match == matchPrefix {
		c.problem(at+"/match", "match_arguments", "an address is octets, it has no prefix as text")
		return store.SANRule{}, false
	}
	out := store.SANRule{Type: rule.Type, Match: v.Match, Value: v.Value, Values: v.Values, Min: 1, Max: 1}
	if out.Match == matchPrefix && rule.Type != sanEmail {
		out.Value = foldAltName(rule.Type, out.Value)
	}
	if rule.Min != nil {
		out.Min = *rule.Min
	}
	if rule.Max != nil {
		out.Max = *rule.Max
	} else if out.Min > 1 {
		out.Max = out.Min
	}
	switch {
	case out.Match == matchExact && (out.Min != 1 || out.Max != 1):
		c.problem(at, "bounds", "an exact name is there exactly once")
		return store.SANRule{}, false
	case out.Min < 0 || out.Max < 1 || out.Min > out.Max || out.Max > maxAltNames:
		c.problem(at, "bounds", "min and max must be in order, from 0 and 1 to %d", maxAltNames)
		return store.SANRule{}, false
	}
	return out, true
}

// altName judges alternative names of one type.
func (c *checker) altName(typ string) judgeValue {
	return func(at, v string) (string, bool) {
		limit := maxNameBytes
		open := unresolved
		if typ == sanURI {
			limit, open = maxURI, unresolvedURI
		}
		if typ == sanEmail { // a local part and a domain
			limit = maxEmailLocal + 254
		}
		if !c.text(at, typ+" name", v, limit) {
			return "", false
		}
		if open(v) {
			c.problem(at, "placeholder_unresolved", "%q has a placeholder without a value", safe(v, quoted))
			return "", false
		}
		if typ == sanURI && sidURI(v) {
			c.problem(at, "sid_uri", "is a SID; put it into sid, which is met by either carrier")
			return "", false
		}
		canonical, why := altNameSyntax(typ, v)
		if why != "" {
			c.problem(at, typ+"_syntax", "%q %s", safe(v, quoted), why)
			return "", false
		}
		if typ != sanUPN {
			return canonical, true
		}
		if why := forbiddenUPN(v); why != "" {
			c.problem(at, "identity_forbidden", "%q is %s", safe(v, quoted), why)
			return "", false
		}
		return canonical, true
	}
}

func (c *checker) sid(given *string) string {
	if given == nil {
		return ""
	}
	if !validSID(*given) {
		c.problem("/sid", "sid_syntax", "%q is not the SID of an account: S-1-5-21-…-… or S-1-12-1-…", safe(*given, quoted))
		return ""
	}
	if why := forbiddenSID(*given); why != "" {
		c.problem("/sid", "identity_forbidden", "%q is %s", safe(*given, quoted), why)
	}
	return *given
}

// usage compiles key usage, template, extended key usage and application policies.
func (c *checker) usage(out *store.Content, r Registration) {
	names := r.KeyUsage
	if names == nil {
		names = c.profile.KeyUsage
	}
	if names == nil { // what NDES takes a request for that says nothing
		names = keyUsageNames(absentKeyUsage)
	}
	bits, err := parseKeyUsage(names)
	switch {
	case err != nil:
		c.problem("/key_usage", "key_usage_unknown", "%s", err)
	case bits&(keyCertSign|cRLSign) != 0: // threat B13
		c.problem("/key_usage", "key_usage_forbidden", "keyCertSign and cRLSign are for CAs")
	default:
		out.KeyUsage = keyUsageNames(bits)
		c.template(out, r.CertificateTemplate)
	}

	purposes := r.ExtKeyUsage
	if purposes == nil {
		purposes = c.profile.ExtKeyUsage
	}
	out.ExtKeyUsage = c.purposes("/ext_key_usage", purposes)
	out.ApplicationPolicies = c.purposes("/application_policies", r.ApplicationPolicies) // threat B08: no defaults
}

// template finds what NDES will pick from the key usage. A registration that
// names one must name that one.
func (c *checker) template(out *store.Content, given *string) {
	picked, ok := c.profile.Templates.pick(out.KeyUsage)
	if !ok {
		c.problem("/key_usage", "key_usage_underivable", "NDES chooses no template for this combination")
		return
	}
	if picked != nil {
		out.CertificateTemplate = picked.Name
	}
	if given == nil || *given == out.CertificateTemplate && *given != "" {
		return
	}
	name := safe(*given, quoted)
	if picked == nil {
		c.problem("/certificate_template", "template_mismatch", "%q cannot be checked: the profile names no template for this key usage", name)
		return
	}
	c.problem("/certificate_template", "template_mismatch", "%q is not what the key usage selects, which is %q", name, safe(picked.Name, quoted))
}

// purposes compiles a list of extended key usages or application policies.
func (c *checker) purposes(at string, given []string) []string {
	out := []string{}
	if len(given) > maxPurposes {
		c.problem(at, "too_many", "at most %d", maxPurposes)
		return out
	}
	for i, g := range given {
		item := fmt.Sprintf("%s/%d", at, i)
		oid, ok := ekuOID(g)
		forbidden := forbiddenEKUs[oid]
		switch {
		case !ok:
			c.problem(item, "purpose_unknown", "%q is neither a known purpose nor an object identifier", safe(g, quoted))
		case forbidden != "": // threats B09 B10 B11
			c.problem(item, "purpose_forbidden", "%q is %s, which nobody may register", safe(g, quoted), forbidden)
		case slices.Contains(out, oid):
			c.problem(item, "duplicate", "%q stands twice", safe(g, quoted))
		default:
			out = append(out, oid)
		}
	}
	return out
}

func (c *checker) key(given *Key) store.KeyRule {
	var out store.KeyRule
	if given == nil {
		return out
	}
	if given.MinBits != nil {
		out.MinBits = *given.MinBits
		if out.MinBits < minKeyBits || out.MinBits > maxKeyBits {
			c.problem("/key/min_bits", "key_bits", "must be %d to %d", minKeyBits, maxKeyBits)
		}
	}
	if given.SPKISHA256 != nil {
		sum, err := hex.DecodeString(*given.SPKISHA256)
		if err != nil || len(sum) != 32 {
			c.problem("/key/spki_sha256", "spki_sha256", "must be 64 hexadecimal digits")
		}
		out.SPKISHA256 = hex.EncodeToString(sum)
	}
	return out
}

func (c *checker) externalID(given *string) string {
	if given == nil {
		return ""
	}
	if *given == "" || len(*given) > maxExternalID || !plain(*given) {
		c.problem("/external_id", "external_id", "must be 1 to %d bytes of text without control or invisible characters", maxExternalID)
	}
	return *given
}

func (c *checker) labels(given map[string]string) map[string]string {
	if len(given) > maxLabels {
		c.problem("/labels", "too_many", "at most %d labels", maxLabels)
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(given)) {
		at := "/labels/" + pointerToken(k)
		if k == "" || len(k) > maxLabelKey || nameLength(k, ".-") != len(k) {
			c.problem(at, "label", "a key must be 1 to %d letters, digits, '_', '.', '-'", maxLabelKey)
		}
		if v := given[k]; len(v) > maxLabelValue || !plain(v) {
			c.problem(at, "label", "a value must be at most %d bytes of text without control or invisible characters", maxLabelValue)
		}
	}
	return given
}

// expiry gives the end of a registration's life.
func (c *checker) expiry(seconds *int64, at *time.Time) time.Time {
	days := int(maxTTL / (24 * time.Hour))
	switch {
	case seconds != nil && at != nil:
		c.problem("/expires_at", "expiry_twice", "give ttl_seconds or expires_at, not both")
		return time.Time{}
	case seconds != nil:
		if *seconds <= 0 || *seconds > int64(maxTTL/time.Second) {
			c.problem("/ttl_seconds", "ttl_range", "must be more than 0 and at most %d days", days)
			return time.Time{}
		}
		return c.now.Add(time.Duration(*seconds) * time.Second)
	case at != nil:
		if !at.After(c.now) || at.After(c.now.Add(maxTTL)) {
			c.problem("/expires_at", "ttl_range", "must be in the future and at most %d days away", days)
			return time.Time{}
		}
		return at.UTC()
	case c.profile.DefaultTTL <= 0 || c.profile.DefaultTTL > maxTTL:
		c.problem("/ttl_seconds", "ttl_required", "this profile has no default")
		return time.Time{}
	}
	return c.now.Add(c.profile.DefaultTTL)
}

func (c *checker) maxUses(given *int) int {
	if given == nil {
		return 1
	}
	switch {
	case *given < 1 || *given > maxUsesLimit:
		c.problem("/max_uses", "max_uses", "must be 1 to %d", maxUsesLimit)
	case *given > 1 && c.profile.Source != SourceGateway && c.profile.Source != SourceNDESStatic:
		c.problem("/max_uses", "max_uses", "NDES accepts a one-time password once")
	}
	return *given
}

// crockford writes numbers so that text sorts as they do.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID makes an id that sorts by time of creation to the millisecond: 48 bits
// of time, 80 of randomness, two zero bits before them to fill 26 characters.
func newID(now time.Time) string {
	var b [17]byte // 130 bits: the number is in the first 128 of them
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:16])
	// Shift right by two bits, so that the padding stands in front.
	for i := len(b) - 1; i > 0; i-- {
		b[i] = b[i]>>2 | b[i-1]<<6
	}
	b[0] >>= 2
	return expectationName + crockford.EncodeToString(b[:])[:26]
}
