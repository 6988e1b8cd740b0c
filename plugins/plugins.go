// Package plugins is what a matcher is written against: the [Matcher]
// interface, plain bounded structs, and [Serve], which makes a process of one.
// It imports nothing of the gateway.
//
// A matcher looks at one request that the gateway has opened and verified, and
// at the expectation that it belongs to, and answers for the fields that the
// configuration lets it decide. It sees neither the challenge nor any bytes
// that were not parsed unless the configuration reveals them. It has no side
// effects, and may be asked more than once about a request. [Exact] is the
// matcher that always runs and decides what no other does.
package plugins

import (
	"context"
	"time"
)

// Verdict is a matcher's answer. The zero value, and any value that is not
// named here, is a refusal. In JSON it is a word: agree, refuse, not_mine.
type Verdict int

// The verdicts.
const (
	Refuse  Verdict = iota
	Agree           // with every field that it was asked to decide
	NotMine         // it has nothing to say about this request: what it decides is left to the others, and to exact
)

// MarshalText gives the verdict's word; what is not named is a refusal.
func (v Verdict) MarshalText() ([]byte, error) {
	switch v {
	case Agree:
		return []byte("agree"), nil
	case NotMine:
		return []byte("not_mine"), nil
	}
	return []byte("refuse"), nil
}

// UnmarshalText reads a verdict's word; a word that is not known is a refusal.
func (v *Verdict) UnmarshalText(text []byte) error {
	switch string(text) {
	case "agree":
		*v = Agree
	case "not_mine":
		*v = NotMine
	default:
		*v = Refuse
	}
	return nil
}

// Field names what a matcher can answer for.
type Field string

// The fields, in the order in which findings are reported. The configuration
// can give the first six to a matcher; the others are always exact's.
const (
	Challenge           Field = "challenge" // vouches for a challenge, and for whom it is, that nobody registered
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
	Type  string `json:"type"`
	Value string `json:"value"`
}

// AltName is one subject alternative name: dns, email, uri, ip, upn or other.
type AltName struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// Facts is what a request asks for. Nothing in it is longer than the message it
// came in (max_message, by default 64 KiB).
type Facts struct {
	Subject                []([]NameAttribute) `json:"subject_rdns"`
	SAN                    []AltName           `json:"san"`       // without the URI that carries a SID
	SIDs                   []string            `json:"sids"`      // every carrier in the request, extension and URI
	KeyUsage               []string            `json:"key_usage"` // bit names; an absent extension as NDES takes it
	HasExtKeyUsage         bool                `json:"has_ext_key_usage"`
	ExtKeyUsage            []string            `json:"ext_key_usage"` // dotted OIDs
	HasApplicationPolicies bool                `json:"has_application_policies"`
	ApplicationPolicies    []string            `json:"application_policies"`
	Template               string              `json:"certificate_template"`     // what NDES will pick from KeyUsage, "" if it cannot be told
	TemplateOID            string              `json:"certificate_template_oid"` // the configured OID of that template, "" if none
	RequestTemplateName    string              `json:"request_template_name"`    // template extensions in the request, "" if absent
	RequestTemplateOID     string              `json:"request_template_oid"`
	KeyBits                int                 `json:"key_bits"`
	SPKI                   []byte              `json:"spki"`           // SubjectPublicKeyInfo, DER
	SPKISHA256             string              `json:"spki_sha256"`    // lower-case hex
	RequestSHA256          string              `json:"request_sha256"` // of the PKCS#10, lower-case hex: the same if it is asked again
}

// ExpectedAttribute is one expected name attribute. Match is exact,
// exact_ignore_case, any_of, prefix, any or regex.
type ExpectedAttribute struct {
	Type   string   `json:"type"`
	Match  string   `json:"match"`
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
}

// ExpectedAltNames expects Min..Max names of Type.
type ExpectedAltNames struct {
	Type   string   `json:"type"`
	Match  string   `json:"match"`
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
	Min    int      `json:"min"`
	Max    int      `json:"max"`
}

// Expectation is what may be asked for; nothing in it is left to a default. Its
// zero value, with an empty ID, says that nobody registered one.
type Expectation struct {
	ID                  string                  `json:"id"`
	ExternalID          string                  `json:"external_id"`
	Subject             []([]ExpectedAttribute) `json:"subject_rdns"`
	SAN                 []ExpectedAltNames      `json:"san_rules"`
	SID                 string                  `json:"sid"`
	CertificateTemplate string                  `json:"certificate_template"`
	KeyUsage            []string                `json:"key_usage"`
	ExtKeyUsage         []string                `json:"ext_key_usage"`
	ApplicationPolicies []string                `json:"application_policies"`
	MinKeyBits          int                     `json:"min_key_bits"`
	SPKISHA256          string                  `json:"spki_sha256"`
	Labels              map[string]string       `json:"labels"`
}

// Request is one question to a matcher.
type Request struct {
	Profile       string      `json:"profile"`
	Decides       []Field     `json:"decides"` // what this matcher is asked to decide; empty: only whether it objects
	Facts         Facts       `json:"facts"`
	Expectation   Expectation `json:"expectation"`
	MessageType   string      `json:"message_type"` // pkcs_req or renewal_req, as the device says
	Renewal       bool        `json:"renewal"`      // signed by the certificate that it renews; only matchers that decide nothing are asked about it
	TransactionID string      `json:"transaction_id"`
	ClientIP      string      `json:"client_ip"`  // as the gateway's proxy settings tell it; "" in a dry run
	UserAgent     string      `json:"user_agent"` // as sent, at most 1 KiB
	Query         string      `json:"query"`      // of the URL, without the message

	// Empty unless the configuration says `reveal challenge`.
	Challenge string `json:"challenge,omitempty"`
	PKCS10    []byte `json:"pkcs10,omitempty"` // DER; it holds the challenge
}

// Finding is one difference. Expected and Got are text for an operator; the
// gateway escapes and bounds them.
type Finding struct {
	Field    Field  `json:"field,omitempty"`
	Expected string `json:"expected,omitempty"`
	Got      string `json:"got,omitempty"`
}

// Answer is what a matcher says. Code says in one word why it refuses,
// [a-z0-9_]{1,48}; operators see and count it. An agreement that comes with
// findings is a refusal.
type Answer struct {
	Verdict  Verdict   `json:"verdict"`
	Code     string    `json:"code,omitempty"`
	Findings []Finding `json:"findings,omitempty"` // at most 16 are kept
}

// Info describes a matcher.
type Info struct {
	Name    string  `json:"name"`    // [a-z0-9_-]{1,48}, for logs and metrics
	Version string  `json:"version"` // its maker's
	Decides []Field `json:"decides"` // what it can decide; the configuration picks from these
}

// Matcher judges requests. It is safe for concurrent use. Info is constant. An
// error means that nothing could be decided, which is never an agreement: the
// device is told to come again. Match returns soon after ctx has ended.
type Matcher interface {
	Info() Info
	Match(ctx context.Context, r Request) (Answer, error)
}

// Configurer is a Matcher that takes the `config` block of its configuration,
// before the first Match. A key that it does not know is an error.
type Configurer interface {
	Configure(ctx context.Context, config map[string]string) error
}

// Result says how an enrolment ended.
type Result string

// The results.
const (
	Issued  Result = "issued"  // NDES returned a certificate
	Refused Result = "refused" // by the gateway, after this matcher was asked
	Failed  Result = "failed"  // by NDES
)

// Outcome tells a matcher what became of a request that it was asked about.
type Outcome struct {
	ID            string    `json:"id"` // the same if it is delivered again
	Time          time.Time `json:"time"`
	Profile       string    `json:"profile"`
	Result        Result    `json:"result"`
	Reason        string    `json:"reason"`  // of the gateway, "ok" if it was forwarded
	HRESULT       string    `json:"hresult"` // NDES's, "0x80070490"; "" if there is none
	Text          string    `json:"text"`    // NDES's
	TransactionID string    `json:"transaction_id"`
	ExpectationID string    `json:"expectation_id"`
	ExternalID    string    `json:"external_id"`
	SPKISHA256    string    `json:"spki_sha256"`
	RequestSHA256 string    `json:"request_sha256"`

	// Empty unless the configuration says `reveal challenge`.
	PKCS10 []byte `json:"pkcs10,omitempty"`
}

// Notified is a Matcher that wants to hear of outcomes. Each is delivered at
// least once, in no certain order; an error asks for another delivery later.
type Notified interface {
	Notified(ctx context.Context, o Outcome) error
}
