package gate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// Matcher is a matcher as a profile uses it.
type Matcher struct {
	plugins.Matcher
	Name    string          // for logs and metrics; of its own in the profile
	Decides []plugins.Field // what it takes over from exact; empty: it can only object
	Reveal  bool            // it is shown the challenge and the PKCS#10
	Timeout time.Duration   // of one question

	// Notify reports whether it wants to hear of outcomes. Nil: it does not.
	Notify func() bool
}

const (
	// matcherTimeout bounds all matchers of one judgement, so that a store that
	// works can still be told.
	matcherTimeout = 8 * time.Second
	// MaxMatcherTimeout bounds one question.
	MaxMatcherTimeout = 5 * time.Second

	maxMatcherFindings = 16
)

// ErrNoMatcher says that nobody of that name wants to hear of an outcome.
var ErrNoMatcher = errors.New("no matcher of that name wants to hear of outcomes")

// Decidable are the fields that a configuration can give to a matcher. The
// others are floors, or say where the request goes: they stay with exact.
var Decidable = []plugins.Field{
	plugins.Challenge, plugins.Subject, plugins.SAN, plugins.SID, plugins.KeyUsage, plugins.ExtKeyUsage,
}

// exactly are all fields that exact decides.
var exactly = new(plugins.Exact).Info().Decides

// codeSyntax is what a matcher's code may be (contract §5).
var codeSyntax = regexp.MustCompile(`^[a-z0-9_]{1,48}$`)

// chain takes the matchers: exact is always there, and first.
func (g *Gate) chain(matchers []Matcher) error {
	seen := map[string]bool{"exact": true}
	sources := false
	for _, m := range matchers {
		if m.Matcher == nil {
			return errors.New("a matcher is nil")
		}
		if m.Name == "" || seen[m.Name] {
			return fmt.Errorf("matcher %q has no name of its own", m.Name)
		}
		seen[m.Name] = true
		if m.Timeout <= 0 || m.Timeout > MaxMatcherTimeout {
			return fmt.Errorf("matcher %q: timeout is not within 0 and %s", m.Name, MaxMatcherTimeout)
		}
		for i, field := range m.Decides {
			if !slices.Contains(Decidable, field) || slices.Contains(m.Decides[:i], field) {
				return fmt.Errorf("matcher %q decides %q, which is no field that a matcher can decide, or twice", m.Name, field)
			}
		}
		if slices.Contains(m.Decides, plugins.Challenge) {
			sources = true
		}
		g.matchers = append(g.matchers, m)
	}
	if sources != (g.profile.Source == SourceMatcher) {
		return errors.New("challenge matcher goes with a matcher that decides challenge, and only with it")
	}
	return nil
}

// decided reports whether a matcher takes field over.
func (g *Gate) decided(field plugins.Field) bool {
	return slices.ContainsFunc(g.matchers, func(m Matcher) bool { return slices.Contains(m.Decides, field) })
}

// compare judges what the request asks for against e: the one comparison that
// [Gate.Judge] and [Gate.Check] have. What exact can tell comes first, so that
// the other matchers are only asked about requests that nothing else refuses.
// asked are those that were. condemned: the request is refused already, and
// nobody else needs to be asked.
func (g *Gate) compare(ctx context.Context, q *asked, e *store.Expectation, condemned bool) (findings []Finding, calls []MatcherCall) {
	ctx, cancel := context.WithTimeout(ctx, matcherTimeout)
	defer cancel()
	w := q.w
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
	// A pattern may fit what nobody may ever have, and so may a matcher (threat F35).
	if field, why := forbiddenIdentity(&g.profile, w.identity()); why != "" {
		add(field, "", why)
	}
	for _, oid := range w.csr.ExtKeyUsage {
		if why, never := forbiddenEKUs[oid]; never { // threats B09 B10 B11
			add(plugins.ExtKeyUsage, "", oid+" ("+why+")")
		}
	}
	if !w.picks {
		add(plugins.KeyUsage, strings.Join(e.Content.KeyUsage, ", "), strings.Join(w.keyUsage, ", ")) // threat A05
	}
	exact := func(fields []plugins.Field, e *store.Expectation) {
		if len(fields) == 0 {
			return
		}
		differences, call := g.exact(ctx, fields, w, e)
		calls = append(calls, call)
		for _, f := range differences {
			if f.Reason == MatcherFailed {
				findings = append(findings, f)
				continue
			}
			add(plugins.Field(f.Field), f.Expected, f.Got)
		}
	}
	// What a source vouched for is written down in the record: exact holds
	// everybody to it who comes after. What a matcher takes over must at least be
	// something that could be expected: no second CN, no name of a strange type,
	// none twice, not nobody.
	mine := slices.Clone(exactly)
	if !g.vouched(e) {
		mine = slices.DeleteFunc(mine, g.decided)
		if len(mine) < len(exactly) {
			exact(slices.DeleteFunc(slices.Clone(exactly), func(f plugins.Field) bool { return !g.decided(f) }), &store.Expectation{Content: w.content()})
		}
	}
	exact(mine, e)
	findings = append(findings, w.unexpected()...)
	if condemned || len(findings) > 0 {
		return findings, calls
	}

	left := slices.DeleteFunc(slices.Clone(Decidable), func(f plugins.Field) bool { return !g.decided(f) })
	for _, m := range g.matchers {
		call, against := g.consult(ctx, m, q, e)
		calls = append(calls, call)
		findings = append(findings, against...)
		switch call.Result {
		case "agree", "refuse": // either way it has decided
			left = slices.DeleteFunc(left, func(f plugins.Field) bool { return slices.Contains(m.Decides, f) })
		case "failed":
			return findings, calls // nothing can be decided any more, whatever the others say
		}
	}
	// Nobody's but exact's after all; and a challenge that no source knows is unknown.
	if i := slices.Index(left, plugins.Challenge); i >= 0 {
		left = slices.Delete(left, i, i+1)
		if len(findings) == 0 {
			findings = append(findings, finding(ChallengeUnknown, "challenge", "", ""))
		}
	}
	if q.made { // e has these fields from the request, and nobody has vouched for them
		e = g.silent(e)
	}
	exact(left, e)
	return findings, calls
}

// silent is e where nobody decides: what the profile says, and no SID.
func (g *Gate) silent(e *store.Expectation) *store.Expectation {
	d := *e
	d.Content.SID = ""
	d.Content.KeyUsage, d.Content.ExtKeyUsage = g.profile.KeyUsage, g.profile.ExtKeyUsage
	return &d
}

// exact asks the one matcher that always runs about some fields.
func (g *Gate) exact(ctx context.Context, fields []plugins.Field, w *wanted, e *store.Expectation) ([]Finding, MatcherCall) {
	a, err := put(ctx, &g.always, plugins.Request{
		Profile: g.profile.Name, Decides: fields, Facts: w.facts(), Expectation: expectation(e),
	})
	if err != nil {
		return []Finding{FailedMatcher("exact", err)}, MatcherCall{"exact", "failed"}
	}
	if a.Verdict == plugins.Agree && len(a.Findings) == 0 {
		return nil, MatcherCall{"exact", "agree"}
	}
	if len(a.Findings) == 0 {
		a.Findings = []plugins.Finding{{Field: fields[0]}}
	}
	var findings []Finding
	for _, f := range a.Findings {
		reason, _ := fieldReason(f.Field)
		findings = append(findings, finding(reason, string(f.Field), f.Expected, f.Got))
	}
	return findings, MatcherCall{"exact", "refuse"}
}

// objections asks the matchers that decide nothing whether they object to a
// renewal: what it may contain is in the certificate that signs it.
func (g *Gate) objections(ctx context.Context, q *asked, e *store.Expectation) (findings []Finding, calls []MatcherCall) {
	ctx, cancel := context.WithTimeout(ctx, matcherTimeout)
	defer cancel()
	for _, m := range g.matchers {
		if len(m.Decides) > 0 {
			continue
		}
		call, against := g.consult(ctx, m, q, e)
		calls = append(calls, call)
		findings = append(findings, against...)
		if call.Result == "failed" {
			break
		}
	}
	return findings, calls
}

// consult asks one matcher.
func (g *Gate) consult(ctx context.Context, m Matcher, q *asked, e *store.Expectation) (MatcherCall, []Finding) {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	r := g.question(q, e)
	r.Decides = slices.Clone(m.Decides)
	if m.Reveal {
		r.Challenge, r.PKCS10 = q.w.csr.Challenge, slices.Clone(q.w.csr.Raw)
	}
	a, err := put(ctx, m.Matcher, r)
	if err == nil {
		err = ctx.Err() // threat F14: an answer that comes too late is none
	}
	if err != nil {
		err = errors.New(q.discreet(err.Error()))
	}
	switch {
	case err != nil:
		return MatcherCall{m.Name, "failed"}, []Finding{FailedMatcher(m.Name, err)}
	case a.Verdict == plugins.Agree && len(a.Findings) == 0:
		return MatcherCall{m.Name, "agree"}, nil
	case a.Verdict == plugins.NotMine && len(a.Findings) == 0:
		return MatcherCall{m.Name, "not_mine"}, nil
	}
	// Everything else is a refusal (threat F19).
	code := q.discreet(a.Code)
	if !codeSyntax.MatchString(code) {
		code = ""
	}
	given := a.Findings[:min(len(a.Findings), maxMatcherFindings)]
	if len(given) == 0 {
		field := plugins.Field("matcher")
		if len(m.Decides) > 0 {
			field = m.Decides[0]
		}
		given = []plugins.Finding{{Field: field}}
	}
	var findings []Finding
	for _, f := range given {
		out := finding(MatcherRefused, safe(q.discreet(string(f.Field)), 32), q.discreet(f.Expected), q.discreet(f.Got))
		out.Matcher, out.Code = m.Name, code
		findings = append(findings, out)
	}
	return MatcherCall{m.Name, "refuse"}, findings
}

// question is what a matcher is shown that nothing is revealed to: neither the
// challenge nor anything that holds it. Each gets its own copy (threat D03).
func (g *Gate) question(q *asked, e *store.Expectation) plugins.Request {
	r := plugins.Request{
		Profile: g.profile.Name, Facts: q.w.facts(), Renewal: q.old != nil,
		MessageType: q.messageType, TransactionID: q.transactionID,
		ClientIP: q.clientIP, UserAgent: q.userAgent, Query: q.query,
	}
	if !q.made { // nobody registered what only the claim would make
		r.Expectation = expectation(e)
	}
	return r
}

// discreet takes the challenge out of what a matcher says that it was revealed
// to (invariant 8).
func (q *asked) discreet(text string) string {
	if c := q.w.csr.Challenge; c != "" {
		text = strings.ReplaceAll(text, c, "(challenge)")
	}
	return text
}

// FailedMatcher says that a matcher could decide nothing. The text of the error
// is the matcher's, and bounded like all text.
func FailedMatcher(name string, err error) Finding {
	f := finding(MatcherFailed, "matcher", "", err.Error())
	f.Matcher = name
	return f
}

// put asks m. A panic is an error, and an error is no agreement (threat F18).
func put(ctx context.Context, m plugins.Matcher, r plugins.Request) (a plugins.Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			a, err = plugins.Answer{}, errors.New("matcher panicked")
		}
	}()
	return m.Match(ctx, r)
}

// vouched reports whether e is, or would be, a record that a source matcher's
// word has made and no client's registration.
func (g *Gate) vouched(e *store.Expectation) bool {
	return g.profile.Source == SourceMatcher && e.Owner == "" && e.Renews == nil
}

// vouch is the record of a request whose challenge nobody registered, to be
// made by its claim if a source agrees. It holds whoever comes with the
// challenge to this identity. What no matcher decides is what the profile says
// (invariant 2): a SID that nobody vouches for is one too many.
func (g *Gate) vouch(q *asked) *store.Expectation {
	now := g.now().UTC()
	c := q.w.content()
	c.Key.MinBits = g.profile.MinRSABits
	if !g.decided(plugins.SID) {
		c.SID = ""
	}
	if !g.decided(plugins.KeyUsage) {
		c.KeyUsage = slices.Clone(g.profile.KeyUsage)
	}
	if !g.decided(plugins.ExtKeyUsage) || len(c.ExtKeyUsage) == 0 {
		c.ExtKeyUsage = slices.Clone(g.profile.ExtKeyUsage)
	}
	return &store.Expectation{
		ID: newID(now), Profile: g.profile.Name, ChallengeHash: q.lookup.ChallengeHash,
		Request: []byte("{}"), Content: c, MaxUses: 1,
		CreatedAt: now, ExpiresAt: now.Add(g.profile.DefaultTTL), State: store.Registered, Generation: 1,
	}
}

// content is what would have to be expected for w to be met to the letter. Only
// what a certificate's identity and usage are is in it.
func (w *wanted) content() store.Content {
	c := store.Content{KeyUsage: slices.Clone(w.keyUsage), ExtKeyUsage: slices.Clone(w.csr.ExtKeyUsage)}
	for _, rdn := range w.csr.Subject {
		values := make([]store.Value, len(rdn))
		for i, a := range rdn {
			values[i] = store.Value{Type: a.Type, Value: a.Value, Match: "exact"}
		}
		c.Subject = append(c.Subject, values)
	}
	for _, n := range w.san {
		c.SAN = append(c.SAN, store.SANRule{Type: n.Type, Match: "exact", Value: n.Value, Min: 1, Max: 1})
	}
	if len(w.sids) == 1 {
		c.SID = w.sids[0]
	}
	return c
}
