// Package plugins is what a matcher is written against: the [Matcher]
// interface and plain, bounded structs. It imports nothing of the gateway.
//
// A matcher compares the facts of one request with one expectation and answers
// for the fields it declares. It sees neither the challenge nor any bytes that
// were not parsed, has no side effects, and may be called more than once for a
// request. [Exact] is the matcher that always runs.
package plugins

import "context"

// Verdict is a matcher's answer for one field. The zero value, and any value
// that is not Agree, is a refusal.
type Verdict int

// The verdicts.
const (
	Refuse Verdict = iota
	Agree
)

// Field names what a matcher can answer for.
type Field string

// The fields, in the order in which findings are reported.
const (
	Subject             Field = "subject"
	SAN                 Field = "san"
	SID                 Field = "sid"
	KeyUsage            Field = "key_usage"
	ExtKeyUsage         Field = "ext_key_usage"
	ApplicationPolicies Field = "application_policies"
	CertificateTemplate Field = "certificate_template"
	Key                 Field = "key"
)

// NameAttribute is one attribute of a distinguished name: dotted OID and decoded value.
type NameAttribute struct {
	Type  string
	Value string
}

// AltName is one subject alternative name: dns, email, uri, ip, upn or other.
type AltName struct {
	Type  string
	Value string
}

// Facts is what a request asks for.
type Facts struct {
	Subject                []([]NameAttribute)
	SAN                    []AltName // without the URI that carries a SID
	SIDs                   []string  // every carrier in the request, extension and URI
	KeyUsage               []string  // bit names; an absent extension as NDES takes it
	HasExtKeyUsage         bool
	ExtKeyUsage            []string
	HasApplicationPolicies bool
	ApplicationPolicies    []string
	Template               string // what NDES will pick from KeyUsage, "" if it cannot be told
	TemplateOID            string // the configured OID of that template, "" if none
	RequestTemplateName    string // template extensions in the request, "" if absent
	RequestTemplateOID     string
	KeyBits                int
	SPKISHA256             string // lower-case hex
}

// ExpectedAttribute is one expected name attribute. Match is exact,
// exact_ignore_case, any_of, prefix, any or regex.
type ExpectedAttribute struct {
	Type   string
	Match  string
	Value  string
	Values []string
}

// ExpectedAltNames expects Min..Max names of Type.
type ExpectedAltNames struct {
	Type     string
	Match    string
	Value    string
	Values   []string
	Min, Max int
}

// Expectation is what may be asked for; nothing in it is left to a default.
type Expectation struct {
	Subject             []([]ExpectedAttribute)
	SAN                 []ExpectedAltNames
	SID                 string
	CertificateTemplate string
	KeyUsage            []string
	ExtKeyUsage         []string
	ApplicationPolicies []string
	MinKeyBits          int
	SPKISHA256          string
	Labels              map[string]string
}

// Request is one question to a matcher.
type Request struct {
	Profile     string
	Facts       Facts
	Expectation Expectation
}

// Finding is one difference. Expected and Got are text for an operator; the
// caller escapes and bounds them.
type Finding struct {
	Field    Field
	Expected string
	Got      string
}

// Answer is what a matcher says: a field that is not in Verdicts is refused.
type Answer struct {
	Verdicts map[Field]Verdict
	Findings []Finding
}

// Matcher judges fields. An error means that nothing could be decided, which
// is never an agreement.
type Matcher interface {
	Name() string
	Decides() []Field
	Match(ctx context.Context, r Request) (Answer, error)
}
