package gate

import (
	"time"

	"github.com/scepgate/scepgate/store"
)

// Registration is an expectation as an MDM writes it (the JSON of the API).
// Absent and null are the same; an empty list is a list.
type Registration struct {
	ExternalID          *string           `json:"external_id,omitempty"`
	Challenge           *string           `json:"challenge,omitempty"`
	Subject             *string           `json:"subject,omitempty"`
	SubjectRDNs         [][]NameRule      `json:"subject_rdns,omitzero"`
	Variables           map[string]string `json:"variables,omitzero"`
	SAN                 *SAN              `json:"san,omitempty"`
	SANRules            []SANRule         `json:"san_rules,omitzero"`
	SID                 *string           `json:"sid,omitempty"`
	CertificateTemplate *string           `json:"certificate_template,omitempty"`
	KeyUsage            []string          `json:"key_usage,omitzero"`
	ExtKeyUsage         []string          `json:"ext_key_usage,omitzero"`
	ApplicationPolicies []string          `json:"application_policies,omitzero"`
	Key                 *Key              `json:"key,omitempty"`
	TTLSeconds          *int64            `json:"ttl_seconds,omitempty"`
	ExpiresAt           *time.Time        `json:"expires_at,omitempty"`
	MaxUses             *int              `json:"max_uses,omitempty"`
	Labels              map[string]string `json:"labels,omitzero"`
	Renews              *Renews           `json:"renews,omitempty"`
}

// Renews names the certificate that may be renewed once, by exactly one of the
// two. What the new one contains is in it already, so that nothing else of a
// registration goes with it but external_id, labels and the end.
type Renews struct {
	Serial *string `json:"serial,omitempty"` // hexadecimal
	SHA256 *string `json:"sha256,omitempty"` // of the certificate, hexadecimal
}

// NameRule is one expected attribute of a name.
type NameRule struct {
	Type   string   `json:"type"`
	Value  *string  `json:"value,omitempty"`
	Match  *string  `json:"match,omitempty"`
	Values []string `json:"values,omitzero"`
}

// SAN lists exact names by type.
type SAN struct {
	DNS   []string `json:"dns,omitzero"`
	Email []string `json:"email,omitzero"`
	URI   []string `json:"uri,omitzero"`
	IP    []string `json:"ip,omitzero"`
	UPN   []string `json:"upn,omitzero"`
}

// SANRule expects Min to Max names of one type; both default to 1.
type SANRule struct {
	Type   string   `json:"type"`
	Match  *string  `json:"match,omitempty"`
	Value  *string  `json:"value,omitempty"`
	Values []string `json:"values,omitzero"`
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

// Prepared is a valid registration, ready for the store.
type Prepared struct {
	Expectation store.Expectation
	Challenge   string   // only if it was made here: shown once
	Warnings    []string // e.g. challenge longer than 32 characters
}
