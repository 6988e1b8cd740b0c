package gate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
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
		SPKISHA256:             hex.EncodeToString(spki[:]),
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

// compare judges what the request asks for against e: the one comparison that
// [Gate.Judge] and [Gate.Check] have.
func (g *Gate) compare(ctx context.Context, w *wanted, e *store.Expectation) (findings []Finding, calls []MatcherCall) {
	ctx, cancel := context.WithTimeout(ctx, matcherTimeout)
	defer cancel()
	// One finding per field is enough, the first says most.
	add := func(field plugins.Field, expected, got string) {
		reason, ok := fieldReason(field)
		if !ok {
			reason = MatcherFailed
		}
		if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Field == string(field) }) {
			findings = append(findings, finding(reason, string(field), expected, got))
		}
	}
	if w.oddSID != "" {
		add(plugins.SID, sidTag+"…", w.oddSID) // threat B06
	}
	// A pattern may fit what nobody may ever have (threat F35).
	if field, why := forbiddenIdentity(&g.profile, w.identity()); why != "" {
		add(field, "", why)
	}
	if !w.picks {
		add(plugins.KeyUsage, strings.Join(e.Content.KeyUsage, ", "), strings.Join(w.keyUsage, ", ")) // threat A05
	}
	for i, m := range g.matchers {
		a, err := ask(ctx, m, plugins.Request{Profile: g.profile.Name, Facts: w.facts(), Expectation: expectation(e)})
		if err != nil {
			findings = append(findings, finding(MatcherFailed, m.Name(), "", err.Error()))
			calls = append(calls, MatcherCall{m.Name(), "failed"})
			continue
		}
		result := "agree"
		for _, field := range fields {
			if !slices.Contains(g.deciders[field], i) {
				continue
			}
			// A field without a verdict is refused, and an agreement that comes
			// with a difference is none (threat F19).
			differs := false
			for _, f := range a.Findings {
				if f.Field == field {
					differs, result = true, "refuse"
					add(field, f.Expected, f.Got)
				}
			}
			if a.Verdicts[field] != plugins.Agree && !differs {
				result = "refuse"
				add(field, "", "")
			}
		}
		calls = append(calls, MatcherCall{m.Name(), result})
	}
	return append(findings, w.unexpected()...), calls
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

// fields in the order of the findings.
var fields = new(plugins.Exact).Decides()

// chain builds the matchers: exact first, and who decides what.
func (g *Gate) chain(matchers []plugins.Matcher) error {
	exact := new(plugins.Exact)
	g.matchers = []plugins.Matcher{exact}
	g.deciders = make(map[plugins.Field][]int)
	seen := map[string]bool{exact.Name(): true}
	for _, m := range matchers {
		if m == nil {
			return errors.New("a matcher is nil")
		}
		if _, ok := m.(*plugins.Exact); ok {
			continue // it is there
		}
		name := m.Name()
		if name == "" || seen[name] {
			return fmt.Errorf("matcher %q has no name of its own", name)
		}
		seen[name] = true
		g.matchers = append(g.matchers, m)
		if len(m.Decides()) == 0 {
			return fmt.Errorf("matcher %q decides nothing", name)
		}
		for _, field := range m.Decides() {
			if !slices.Contains(fields, field) {
				return fmt.Errorf("matcher %q decides %q, which is no field", name, field)
			}
			g.deciders[field] = append(g.deciders[field], len(g.matchers)-1)
		}
	}
	for _, field := range fields {
		if len(g.deciders[field]) == 0 {
			g.deciders[field] = []int{0}
		}
	}
	return nil
}

// ask calls a matcher. A panic is an error, and an error is no agreement (threat F18).
func ask(ctx context.Context, m plugins.Matcher, r plugins.Request) (a plugins.Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			a, err = plugins.Answer{}, errors.New("matcher panicked")
		}
	}()
	return m.Match(ctx, r)
}
