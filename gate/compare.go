package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// sidTag begins the alternative name that carries a SID (contract §4.1).
const sidTag = "tag:microsoft.com,2022-09-14:sid:"

// wanted is what a request asks for, as it is judged.
type wanted struct {
	csr      *inspector.CSR
	san      []inspector.GeneralName // without the carriers of a SID
	sids     []string                // every carrier; one that is not spelt exactly stands as it is
	oddSID   string                  // such a one
	keyUsage []string
	template Template // what NDES will pick, zero if it cannot be told
	picks    bool     // NDES can pick by this key usage
}

func (g *Gate) read(csr *inspector.CSR) *wanted {
	w := &wanted{csr: csr, keyUsage: keyUsageNames(absentKeyUsage)} // threat A06: as NDES takes it
	if csr.HasKeyUsage {
		w.keyUsage = keyUsageNames(csr.KeyUsage)
	}
	w.san, w.sids, w.oddSID = carriers(csr.SAN, csr.SID)
	t, ok := g.profile.Templates.pick(w.keyUsage)
	w.picks = ok
	if t != nil {
		w.template = *t
	}
	return w
}

// carriers parts alternative names from what carries a SID: its extension, and
// URIs. One that is not spelt exactly stands among the SIDs as it is, and is odd.
func carriers(san []inspector.GeneralName, extension string) (names []inspector.GeneralName, sids []string, odd string) {
	if extension != "" {
		sids = append(sids, extension)
	}
	for _, n := range san {
		switch {
		case n.Type == sanURI && strings.HasPrefix(n.Value, sidTag):
			sids = append(sids, n.Value[len(sidTag):])
		case n.Type == sanURI && sidURI(n.Value):
			odd = n.Value
			sids = append(sids, n.Value)
		default:
			names = append(names, n)
		}
	}
	return names, sids, odd
}

// identity is whom w is for. More than one SID makes an identity that nobody can expect.
func (w *wanted) identity() identity {
	sid := ""
	switch len(w.sids) {
	case 0:
	case 1:
		sid = w.sids[0]
	default:
		sid = encode(w.sids...)
	}
	return requestIdentity(w.csr.Subject, w.san, sid)
}

// digest is the identity digest: a retry must have the same, a distinct wrong
// identity has another.
func (w *wanted) digest() []byte {
	optional := func(has bool, oids []string) string {
		if !has {
			return ""
		}
		return encode(slices.Sorted(slices.Values(oids))...)
	}
	return w.identity().digest(
		encode(w.keyUsage...),
		optional(w.csr.HasExtKeyUsage, w.csr.ExtKeyUsage),
		optional(w.csr.HasApplicationPolicies, w.csr.ApplicationPolicies),
		encode(w.template.Name, w.template.OID, w.csr.TemplateName, w.csr.TemplateOID),
	)
}

func (w *wanted) requestSHA256() string {
	sum := sha256.Sum256(w.csr.Raw)
	return hex.EncodeToString(sum[:])
}

// facts translates for the matchers. Each gets its own copy (threat D03).
func (w *wanted) facts() plugins.Facts {
	spki := w.csr.SPKISHA256()
	f := plugins.Facts{
		SIDs:                   slices.Clone(w.sids),
		KeyUsage:               slices.Clone(w.keyUsage),
		HasExtKeyUsage:         w.csr.HasExtKeyUsage,
		ExtKeyUsage:            slices.Clone(w.csr.ExtKeyUsage),
		HasApplicationPolicies: w.csr.HasApplicationPolicies,
		ApplicationPolicies:    slices.Clone(w.csr.ApplicationPolicies),
		Template:               w.template.Name,
		TemplateOID:            w.template.OID,
		RequestTemplateName:    w.csr.TemplateName,
		RequestTemplateOID:     w.csr.TemplateOID,
		KeyBits:                w.csr.PublicKey.N.BitLen(),
		SPKI:                   slices.Clone(w.csr.SPKI),
		SPKISHA256:             hex.EncodeToString(spki[:]),
		RequestSHA256:          w.requestSHA256(),
	}
	for _, rdn := range w.csr.Subject {
		attributes := make([]plugins.NameAttribute, len(rdn))
		for i, a := range rdn {
			attributes[i] = plugins.NameAttribute{Type: a.Type, Value: a.Value}
		}
		f.Subject = append(f.Subject, attributes)
	}
	for _, n := range w.san {
		f.SAN = append(f.SAN, plugins.AltName{Type: n.Type, Value: n.Value})
	}
	return f
}

// expectation translates for the matchers.
func expectation(e *store.Expectation) plugins.Expectation {
	c := &e.Content
	out := plugins.Expectation{
		ID:                  e.ID,
		ExternalID:          e.ExternalID,
		SID:                 c.SID,
		CertificateTemplate: c.CertificateTemplate,
		KeyUsage:            slices.Clone(c.KeyUsage),
		ExtKeyUsage:         slices.Clone(c.ExtKeyUsage),
		ApplicationPolicies: slices.Clone(c.ApplicationPolicies),
		MinKeyBits:          c.Key.MinBits,
		SPKISHA256:          c.Key.SPKISHA256,
		Labels:              make(map[string]string, len(e.Labels)),
	}
	for k, v := range e.Labels {
		out.Labels[k] = v
	}
	for _, rdn := range c.Subject {
		attributes := make([]plugins.ExpectedAttribute, len(rdn))
		for i, v := range rdn {
			attributes[i] = plugins.ExpectedAttribute{Type: v.Type, Match: v.Match, Value: v.Value, Values: slices.Clone(v.Values)}
		}
		out.Subject = append(out.Subject, attributes)
	}
	for _, r := range c.SAN {
		out.SAN = append(out.SAN, plugins.ExpectedAltNames{
			Type: r.Type, Match: r.Match, Value: r.Value, Values: slices.Clone(r.Values), Min: r.Min, Max: r.Max,
		})
	}
	return out
}

// unexpected lists what nothing and nobody can expect.
func (w *wanted) unexpected() (findings []Finding) {
	for _, oid := range w.csr.UnexpectedExtensions {
		findings = append(findings, finding(UnexpectedExtension, "extension", "", oid))
	}
	for _, oid := range w.csr.UnexpectedAttributes {
		findings = append(findings, finding(UnexpectedAttribute, "attribute", "", oid))
	}
	return findings
}
