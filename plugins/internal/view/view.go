// Package view is how the built-in matchers show a question to people and
// programs: the words of the API, as JSON and as CEL fields, for what
// [plugins.Request] says in Go. It trusts nothing in it, and decides nothing.
// [Of] translates a request's facts, [Expected] an expectation.
package view

import "github.com/scepgate/scepgate/plugins"

// Attribute is one attribute of a name: CN, or a dotted OID where the type has no name.
type Attribute struct {
	Type  string `json:"type" cel:"type"`
	Value string `json:"value" cel:"value"`
}

// SAN is the alternative names by type, each list in the order of the request.
type SAN struct {
	DNS   []string `json:"dns" cel:"dns"`
	Email []string `json:"email" cel:"email"`
	URI   []string `json:"uri" cel:"uri"`
	IP    []string `json:"ip" cel:"ip"`
	UPN   []string `json:"upn" cel:"upn"`
	Other []string `json:"other" cel:"other"` // every type that has no list of its own
}

// Key is the public key that the certificate will be for.
type Key struct {
	Bits       int    `json:"bits" cel:"bits"`
	SPKI       []byte `json:"spki" cel:"spki"`
	SPKISHA256 string `json:"spki_sha256" cel:"spki_sha256"`
}

// Facts is what a request asks for. In JSON an absent extension is null, an
// empty one is [].
type Facts struct {
	SubjectRDNs            [][]Attribute `json:"subject_rdns" cel:"subject_rdns"`
	SAN                    SAN           `json:"san" cel:"san"`
	SIDs                   []string      `json:"sids" cel:"sids"`
	KeyUsage               []string      `json:"key_usage" cel:"key_usage"`
	ExtKeyUsage            []string      `json:"ext_key_usage" cel:"ext_key_usage"`
	ApplicationPolicies    []string      `json:"application_policies" cel:"application_policies"`
	CertificateTemplate    string        `json:"certificate_template" cel:"certificate_template"`
	CertificateTemplateOID string        `json:"certificate_template_oid" cel:"certificate_template_oid"`
	RequestTemplateName    string        `json:"request_template_name" cel:"request_template_name"`
	RequestTemplateOID     string        `json:"request_template_oid" cel:"request_template_oid"`
	Key                    Key           `json:"key" cel:"key"`
	SHA256                 string        `json:"sha256" cel:"sha256"` // of the PKCS#10
}

// ExpectedAttribute is one attribute as it was registered.
type ExpectedAttribute struct {
	Type   string   `json:"type" cel:"type"`
	Match  string   `json:"match" cel:"match"`
	Value  string   `json:"value" cel:"value"`
	Values []string `json:"values" cel:"values"`
}

// SANRule is one rule for alternative names as it was registered.
type SANRule struct {
	Type   string   `json:"type" cel:"type"`
	Match  string   `json:"match" cel:"match"`
	Value  string   `json:"value" cel:"value"`
	Values []string `json:"values" cel:"values"`
	Min    int      `json:"min" cel:"min"`
	Max    int      `json:"max" cel:"max"`
}

// ExpectedKey is what is expected of the public key.
type ExpectedKey struct {
	MinBits    int    `json:"min_bits" cel:"min_bits"`
	SPKISHA256 string `json:"spki_sha256" cel:"spki_sha256"`
}

// Expectation is what was registered.
type Expectation struct {
	ID                  string                `json:"id" cel:"id"`
	ExternalID          string                `json:"external_id" cel:"external_id"`
	SubjectRDNs         [][]ExpectedAttribute `json:"subject_rdns" cel:"subject_rdns"`
	SANRules            []SANRule             `json:"san_rules" cel:"san_rules"`
	SID                 string                `json:"sid" cel:"sid"`
	CertificateTemplate string                `json:"certificate_template" cel:"certificate_template"`
	KeyUsage            []string              `json:"key_usage" cel:"key_usage"`
	ExtKeyUsage         []string              `json:"ext_key_usage" cel:"ext_key_usage"`
	ApplicationPolicies []string              `json:"application_policies" cel:"application_policies"`
	Key                 ExpectedKey           `json:"key" cel:"key"`
	Labels              map[string]string     `json:"labels" cel:"labels"`
}

// Of translates what a request asks for.
func Of(f *plugins.Facts) Facts {
	out := Facts{
		SubjectRDNs:            make([][]Attribute, 0, len(f.Subject)),
		SIDs:                   present(f.SIDs),
		KeyUsage:               present(f.KeyUsage),
		CertificateTemplate:    f.Template,
		CertificateTemplateOID: f.TemplateOID,
		RequestTemplateName:    f.RequestTemplateName,
		RequestTemplateOID:     f.RequestTemplateOID,
		Key:                    Key{Bits: f.KeyBits, SPKI: f.SPKI, SPKISHA256: f.SPKISHA256},
		SHA256:                 f.RequestSHA256,
	}
	for _, rdn := range f.Subject {
		attributes := make([]Attribute, len(rdn))
		for i, a := range rdn {
			attributes[i] = Attribute{Type: AttributeType(a.Type), Value: a.Value}
		}
		out.SubjectRDNs = append(out.SubjectRDNs, attributes)
	}
	out.SAN = alternatives(f.SAN)
	if f.HasExtKeyUsage {
		out.ExtKeyUsage = usages(f.ExtKeyUsage)
	}
	if f.HasApplicationPolicies {
		out.ApplicationPolicies = usages(f.ApplicationPolicies)
	}
	return out
}

func alternatives(names []plugins.AltName) SAN {
	out := SAN{DNS: []string{}, Email: []string{}, URI: []string{}, IP: []string{}, UPN: []string{}, Other: []string{}}
	for _, n := range names {
		list := &out.Other
		switch n.Type {
		case "dns":
			list = &out.DNS
		case "email":
			list = &out.Email
		case "uri":
			list = &out.URI
		case "ip":
			list = &out.IP
		case "upn":
			list = &out.UPN
		}
		*list = append(*list, n.Value)
	}
	return out
}

// Expected translates what was registered.
func Expected(e *plugins.Expectation) Expectation {
	out := Expectation{
		ID:                  e.ID,
		ExternalID:          e.ExternalID,
		SubjectRDNs:         make([][]ExpectedAttribute, 0, len(e.Subject)),
		SANRules:            make([]SANRule, 0, len(e.SAN)),
		SID:                 e.SID,
		CertificateTemplate: e.CertificateTemplate,
		KeyUsage:            present(e.KeyUsage),
		ExtKeyUsage:         usages(e.ExtKeyUsage),
		ApplicationPolicies: usages(e.ApplicationPolicies),
		Key:                 ExpectedKey{MinBits: e.MinKeyBits, SPKISHA256: e.SPKISHA256},
		Labels:              e.Labels,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for _, rdn := range e.Subject {
		attributes := make([]ExpectedAttribute, len(rdn))
		for i, a := range rdn {
			attributes[i] = ExpectedAttribute{Type: AttributeType(a.Type), Match: a.Match, Value: a.Value, Values: present(a.Values)}
		}
		out.SubjectRDNs = append(out.SubjectRDNs, attributes)
	}
	for _, n := range e.SAN {
		out.SANRules = append(out.SANRules, SANRule{
			Type: n.Type, Match: n.Match, Value: n.Value, Values: present(n.Values), Min: n.Min, Max: n.Max,
		})
	}
	return out
}

// present keeps an empty list from becoming null.
func present(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func usages(oids []string) []string {
	out := make([]string, len(oids))
	for i, oid := range oids {
		out[i] = ExtKeyUsage(oid)
	}
	return out
}
