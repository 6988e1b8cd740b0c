package gate

import (
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/scepgate/scepgate/store"
)

// serialSyntax is a serial number as certificates have it: at most 64 octets.
var serialSyntax = regexp.MustCompile(`^[0-9a-fA-F]{1,128}$`)

// renewal compiles a registration that lets one certificate be renewed. It is
// found by the certificate that signs, never by a challenge.
func (c *checker) renewal(h *Hasher, r Registration, e store.Expectation) (Prepared, []Problem) {
	if c.profile.Renewal == nil {
		c.problem("/renews", "renewal_disabled", "this profile renews no certificate")
	}
	c.nothingBeside(r)
	by := c.renews(*r.Renews)
	e.Renews = &by
	e.ExternalID = c.externalID(r.ExternalID)
	e.Labels = c.labels(r.Labels)
	e.ExpiresAt = c.expiry(r.TTLSeconds, r.ExpiresAt)
	e.MaxUses = 1
	if len(c.problems) > 0 {
		return Prepared{}, c.problems
	}
	if by.SHA256 != "" {
		e.ChallengeHash = h.Renewal(c.profile.Name, by.SHA256)
	} else {
		e.IdentityHash = h.RenewalSerial(c.profile.Name, by.Serial)
	}
	request, err := json.Marshal(r)
	if err != nil {
		c.problem("", "not_json", "the registration cannot be written as JSON")
		return Prepared{}, c.problems
	}
	e.Request = request
	return Prepared{Expectation: e, Warnings: c.warnings}, nil
}

// nothingBeside wants everything absent that the certificate decides. An empty
// list is a list.
func (c *checker) nothingBeside(r Registration) {
	for _, f := range [...]struct {
		at    string
		given bool
	}{
		{"/challenge", r.Challenge != nil},
		{"/subject", r.Subject != nil},
		{"/subject_rdns", r.SubjectRDNs != nil},
		{"/variables", r.Variables != nil},
		{"/san", r.SAN != nil},
		{"/san_rules", r.SANRules != nil},
		{"/sid", r.SID != nil},
		{"/certificate_template", r.CertificateTemplate != nil},
		{"/key_usage", r.KeyUsage != nil},
		{"/ext_key_usage", r.ExtKeyUsage != nil},
		{"/application_policies", r.ApplicationPolicies != nil},
		{"/key", r.Key != nil},
		{"/max_uses", r.MaxUses != nil},
	} {
		if f.given {
			c.problem(f.at, "not_with_renews", "the certificate that is renewed decides it; leave it out")
		}
	}
}

// renews compiles the name of a certificate.
func (c *checker) renews(given Renews) (out store.Renews) {
	switch {
	case (given.Serial == nil) == (given.SHA256 == nil):
		c.problem("/renews", "renews_one", "give either serial or sha256")
	case given.Serial != nil:
		out.Serial = strings.TrimLeft(strings.ToLower(*given.Serial), "0")
		if !serialSyntax.MatchString(*given.Serial) || out.Serial == "" {
			c.problem("/renews/serial", "renews_serial", "must be 1 to 128 hexadecimal digits, and not zero")
		}
	default:
		sum, err := hex.DecodeString(*given.SHA256)
		if err != nil || len(sum) != 32 {
			c.problem("/renews/sha256", "renews_sha256", "must be 64 hexadecimal digits")
		}
		out.SHA256 = hex.EncodeToString(sum)
	}
	return out
}

// effectiveRenewal is Effective of a renewal.
func effectiveRenewal(r *store.Renews) json.RawMessage {
	var out struct {
		Renews Renews `json:"renews"`
	}
	out.Renews = Renews{Serial: unlessEmpty(r.Serial), SHA256: unlessEmpty(r.SHA256)}
	text, err := json.Marshal(out)
	if err != nil { // strings only: unreachable
		return json.RawMessage(`null`)
	}
	return text
}
