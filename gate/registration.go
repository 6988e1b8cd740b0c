package gate

import (
	"encoding/json"
	"time"

	"github.com/scepgate/scepgate/store"
)

// Registration is an expectation as an MDM writes it (the JSON of the API).
// Absent and null are the same.
type Registration struct {
	ExternalID          *string           `json:"external_id,omitempty"`
	Challenge           *string           `json:"challenge,omitempty"`
	Subject             *string           `json:"subject,omitempty"`
	SubjectRDNs         [][]NameRule      `json:"subject_rdns,omitempty"`
	Variables           map[string]string `json:"variables,omitempty"`
	SAN                 *SAN              `json:"san,omitempty"`
	SANRules            []SANRule         `json:"san_rules,omitempty"`
	SID                 *string           `json:"sid,omitempty"`
	CertificateTemplate *string           `json:"certificate_template,omitempty"`
	KeyUsage            []string          `json:"key_usage,omitempty"`
	ExtKeyUsage         []string          `json:"ext_key_usage,omitempty"`
	ApplicationPolicies []string          `json:"application_policies,omitempty"`
	Key                 *Key              `json:"key,omitempty"`
	TTLSeconds          *int64            `json:"ttl_seconds,omitempty"`
	ExpiresAt           *time.Time        `json:"expires_at,omitempty"`
	MaxUses             *int              `json:"max_uses,omitempty"`
	Labels              map[string]string `json:"labels,omitempty"`
}

// NameRule is one expected attribute of a name.
type NameRule struct {
	Type   string   `json:"type"`
	Value  *string  `json:"value,omitempty"`
	Match  *string  `json:"match,omitempty"`
	Values []string `json:"values,omitempty"`
}

// SAN lists exact names by type.
type SAN struct {
	DNS   []string `json:"dns,omitempty"`
	Email []string `json:"email,omitempty"`
	URI   []string `json:"uri,omitempty"`
	IP    []string `json:"ip,omitempty"`
	UPN   []string `json:"upn,omitempty"`
}

// SANRule expects Min to Max names of one type; both default to 1.
type SANRule struct {
	Type   string   `json:"type"`
	Match  *string  `json:"match,omitempty"`
	Value  *string  `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
	Min    *int     `json:"min,omitempty"`
	Max    *int     `json:"max,omitempty"`
}

// Key is what the key must be.
type Key struct {
	MinBits    *int    `json:"min_bits,omitempty"`
	SPKISHA256 *string `json:"spki_sha256,omitempty"`
}

// Problem is one thing wrong with a registration. Pointer is a JSON pointer (RFC 6901).
type Problem struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

// Constraints is what an API client may register; nil fields refuse any value
// in the field they govern (contract: a field that carries a value and has no
// key is refused). A nil *Constraints allows everything.
type Constraints struct {
	Subject              map[string][]string `json:"subject,omitempty"`
	DNSSuffixes          []string            `json:"dns_suffixes,omitempty"`
	UPNSuffixes          []string            `json:"upn_suffixes,omitempty"`
	EmailSuffixes        []string            `json:"email_suffixes,omitempty"`
	URIPrefixes          []string            `json:"uri_prefixes,omitempty"`
	IPCIDRs              []string            `json:"ip_cidrs,omitempty"`
	SIDPrefixes          []string            `json:"sid_prefixes,omitempty"`
	CertificateTemplates []string            `json:"certificate_templates,omitempty"`
	ExtKeyUsage          []string            `json:"ext_key_usage,omitempty"`
	ApplicationPolicies  []string            `json:"application_policies,omitempty"`
}

// Prepared is a valid registration, ready for the store.
type Prepared struct {
	Expectation store.Expectation
	Challenge   string   // only if it was made here: shown once
	Warnings    []string // e.g. challenge longer than 32 characters
}

// Prepare validates r against the profile and compiles it. Problems are 422.
func (g *Gate) Prepare(r Registration, owner string) (Prepared, []Problem) { panic("unwritten") }

// Violations lists what c does not allow in e. Not empty: 403 at registration, refusal at use.
func (c *Constraints) Violations(e store.Content) []Problem { panic("unwritten") }

// Validate reports what is wrong with c itself, e.g. a CIDR that does not parse.
func (c *Constraints) Validate() error { panic("unwritten") }

// SameRegistration reports whether a and b expect the same, whatever their ids and times.
func SameRegistration(a, b store.Expectation) bool { panic("unwritten") }

// Effective is the answer's `effective` object: what will be compared.
func Effective(e store.Expectation) json.RawMessage { panic("unwritten") }
