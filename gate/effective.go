package gate

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/scepgate/scepgate/store"
)

// SameRegistration reports whether a and b expect the same, whatever their ids
// and times and the order in which lists were written. Two challenges that were
// made here are never the same.
func SameRegistration(a, b store.Expectation) bool {
	return a.Profile == b.Profile && a.Owner == b.Owner && a.ExternalID == b.ExternalID &&
		slices.Equal(a.ChallengeHash, b.ChallengeHash) && slices.Equal(a.IdentityHash, b.IdentityHash) &&
		(a.Renews == nil) == (b.Renews == nil) && // which certificate is in the hashes
		a.MaxUses == b.MaxUses && maps.Equal(a.Labels, b.Labels) &&
		contentKey(a.Content) == contentKey(b.Content)
}

// contentKey is equal for two contents exactly if the same requests meet them.
func contentKey(c store.Content) string {
	var rdns, san []string
	for _, rdn := range c.Subject {
		var attrs []string
		for _, a := range rdn {
			attrs = append(attrs, encode(a.Type, a.Match, a.Value, encodeSet(a.Values)))
		}
		rdns = append(rdns, encodeSet(attrs))
	}
	for _, r := range c.SAN {
		san = append(san, encode(r.Type, r.Match, r.Value, encodeSet(r.Values), strconv.Itoa(r.Min), strconv.Itoa(r.Max)))
	}
	return encode(encodeSet(rdns), encodeSet(san), c.SID, c.CertificateTemplate, encodeSet(c.KeyUsage),
		encodeSet(c.ExtKeyUsage), encodeSet(c.ApplicationPolicies), strconv.Itoa(c.Key.MinBits), c.Key.SPKISHA256)
}

// encodeSet is encode without regard to order. Multiplicity counts.
func encodeSet(parts []string) string {
	return encode(slices.Sorted(slices.Values(parts))...)
}

// effective is the answer's object of this name, in the words of a
// registration: registering it again expects the same.
type effective struct {
	SubjectRDNs         [][]store.Value `json:"subject_rdns"`
	SANRules            []store.SANRule `json:"san_rules"`
	SID                 *string         `json:"sid"`
	CertificateTemplate *string         `json:"certificate_template"`
	KeyUsage            []string        `json:"key_usage"`
	ExtKeyUsage         []string        `json:"ext_key_usage"`
	ApplicationPolicies []string        `json:"application_policies"`
	Key                 Key             `json:"key"`
}

// Effective is the answer's `effective` object: what will be compared. Of a
// renewal that is which certificate must sign it: the rest is in there.
func Effective(e store.Expectation) json.RawMessage {
	if e.Renews != nil {
		return effectiveRenewal(e.Renews)
	}
	c := e.Content
	out := effective{
		SubjectRDNs:         [][]store.Value{},
		SANRules:            append([]store.SANRule{}, c.SAN...),
		SID:                 unlessEmpty(c.SID),
		CertificateTemplate: unlessEmpty(c.CertificateTemplate),
		KeyUsage:            append([]string{}, c.KeyUsage...),
		ExtKeyUsage:         ekuNames(c.ExtKeyUsage),
		ApplicationPolicies: ekuNames(c.ApplicationPolicies),
		Key:                 Key{SPKISHA256: unlessEmpty(c.Key.SPKISHA256)},
	}
	for _, rdn := range c.Subject {
		named := []store.Value{}
		for _, a := range rdn {
			a.Type = attributeName(a.Type)
			named = append(named, a)
		}
		out.SubjectRDNs = append(out.SubjectRDNs, named)
	}
	if c.Key.MinBits != 0 {
		out.Key.MinBits = &c.Key.MinBits
	}
	text, err := json.Marshal(out)
	if err != nil { // strings and numbers only: unreachable
		return json.RawMessage(`null`)
	}
	return text
}

func ekuNames(oids []string) []string {
	names := []string{}
	for _, oid := range oids {
		names = append(names, ekuName(oid))
	}
	return names
}

func unlessEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
