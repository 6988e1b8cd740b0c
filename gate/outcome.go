package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// note is what the gateway must still know when it tells a matcher of an
// outcome. It is sealed, since a request holds its challenge.
type note struct {
	RequestSHA256 string `json:"request_sha256"`
	PKCS10        []byte `json:"pkcs10,omitempty"` // for those to whom it was revealed
}

// maxNoted leaves room for what sealing and encoding add (store.MaxSealed).
const maxNoted = 11 << 10

// notices is what the matchers that were asked, and had something to say, are
// owed about q.
func (g *Gate) notices(q *asked, calls []MatcherCall) (owed []store.Notice) {
	for _, m := range g.matchers {
		had := slices.ContainsFunc(calls, func(c MatcherCall) bool {
			return c.Matcher == m.Name && (c.Result == "agree" || c.Result == "refuse")
		})
		if !had || m.Notify == nil || !m.Notify() {
			continue
		}
		n := note{RequestSHA256: q.w.requestSHA256()}
		if m.Reveal && len(q.w.csr.Raw) <= maxNoted {
			n.PKCS10 = q.w.csr.Raw
		}
		text, err := json.Marshal(n)
		if err != nil { // unreachable: strings and bytes only
			text = []byte("{}")
		}
		owed = append(owed, store.Notice{Matcher: m.Name, Sealed: g.hasher.seal(text, g.profile.Name, m.Name)})
	}
	return owed[:min(len(owed), store.MaxNotices)]
}

// tellRefused queues that the gateway refused what matchers were asked about.
// Like the history's entry it is lost if the store cannot write.
func (g *Gate) tellRefused(ctx context.Context, s store.Store, q *asked, d *Decision) {
	if q.w == nil || len(d.MatcherCalls) == 0 {
		return
	}
	var list []store.Delivery
	for _, n := range g.notices(q, d.MatcherCalls) {
		list = append(list, store.Delivery{
			At: g.now().UTC(), Profile: g.profile.Name, Matcher: n.Matcher, Result: store.ResultRefused, Reason: string(d.Reason),
			TransactionID: d.TransactionID, ExpectationID: d.ExpectationID, ExternalID: d.ExternalID, SPKISHA256: d.SPKISHA256, Sealed: n.Sealed,
		})
	}
	if len(list) == 0 {
		return
	}
	_ = guarded(func() error {
		_, err := s.Notify(ctx, list)
		return err
	})
}

// Outcome opens what the store has kept for a matcher. What another challenge
// key sealed is lost; the rest is told.
func (g *Gate) Outcome(d store.Delivery) plugins.Outcome {
	o := plugins.Outcome{
		ID: d.ID, Time: d.At, Profile: d.Profile, Result: plugins.Result(d.Result), Reason: d.Reason,
		HRESULT: d.HRESULT, Text: d.Text, TransactionID: d.TransactionID,
		ExpectationID: d.ExpectationID, ExternalID: d.ExternalID, SPKISHA256: d.SPKISHA256,
	}
	if o.Reason == "" {
		o.Reason = string(OK) // it was forwarded
	}
	var n note
	if text, err := g.hasher.open(d.Sealed, d.Profile, d.Matcher); err == nil && json.Unmarshal(text, &n) == nil {
		o.RequestSHA256, o.PKCS10 = n.RequestSHA256, n.PKCS10
	}
	if m := g.matcher(d.Matcher); m == nil || !m.Reveal {
		o.PKCS10 = nil // not revealed any more
	}
	return o
}

// Tell delivers an outcome to the matcher that it is for. ErrNoMatcher if there
// is none of that name that wants it.
func (g *Gate) Tell(ctx context.Context, d store.Delivery) (err error) {
	m := g.matcher(d.Matcher)
	if m == nil || m.Notify == nil || !m.Notify() {
		return ErrNoMatcher
	}
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("matcher %s panicked", m.Name)
		}
	}()
	n, ok := m.Matcher.(plugins.Notified)
	if !ok {
		return ErrNoMatcher
	}
	return n.Notified(ctx, g.Outcome(d))
}

func (g *Gate) matcher(name string) *Matcher {
	if i := slices.IndexFunc(g.matchers, func(m Matcher) bool { return m.Name == name }); i >= 0 {
		return &g.matchers[i]
	}
	return nil
}
