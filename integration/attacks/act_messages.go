package main

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// changed is one variant of a table: what is sent, and how it differs from what
// an honest device sends.
type changed[T any] struct {
	variant string
	change  func(t *try, piece *T)
}

// table makes vectors that demand the same answer; on is csr, envelope or signed.
func table[T any](v vector, on func(func(*try, *T)) func(*try), list []changed[T]) []vector {
	var all []vector
	for _, c := range list {
		v.variant, v.message = c.variant, on(c.change)
		all = append(all, v)
	}
	return all
}

// sent is one variant of a table of whole messages.
type sent struct {
	variant string
	bytes   func(t *try) []byte
}

// tableOf makes vectors that demand the same answer to whole messages.
func tableOf(v vector, list []sent) []vector {
	var all []vector
	for _, s := range list {
		v.variant, v.request = s.variant, raw(s.bytes)
		all = append(all, v)
	}
	return all
}

// raw POSTs these bytes, whatever they are.
func raw(bytes func(t *try) []byte) func(*try) *http.Request {
	return func(t *try) *http.Request { return t.postRequest(bytes(t)) }
}

// passes demands that a message is forwarded as it is, once, and brings a
// certificate.
func (t *try) passes(message []byte) {
	t.issued(t.post(message))
	t.reached(message)
	t.decision("ok")
	t.state(t.ID, "issued")
}

// turnedAway demands the uniform refusal of a message, for this reason.
func (t *try) turnedAway(message []byte, reason string) {
	t.refused(t.post(message))
	t.reached()
	t.decision(reason)
	t.state(t.ID, "registered")
}

// stopped demands a bare status for a message that no CertRep can answer.
func (t *try) stopped(message []byte, status int) {
	t.status(t.post(message), status)
	t.reached()
	t.decision("malformed_message")
	t.state(t.ID, "registered")
}

// settleContent makes request and envelope now, so that what signs can be built
// over them.
func (t *try) settleContent() []byte {
	if t.M.Content == nil {
		t.M.Content = t.M.Envelope.Bytes(t.settleRequest())
	}
	return t.M.Content
}

// settleRequest makes the request now, so that the envelope can be built around it.
func (t *try) settleRequest() []byte {
	if t.M.Plaintext == nil {
		t.M.Plaintext = t.M.Request.Bytes()
	}
	return t.M.Plaintext
}

// sanOf is an expectation of alternative names of one type.
func sanOf(typ string, names ...string) map[string]any {
	return map[string]any{"san": map[string]any{typ: names}}
}

// withSAN adds a subject alternative name to a request.
func withSAN(names ...[]byte) func(*try, *wire.Request) {
	return func(_ *try, r *wire.Request) { r.Extend(wire.SAN(names...)) }
}

// withSubject makes these RDNs the subject of a request.
func withSubject(rdns ...[]byte) func(*try, *wire.Request) {
	return func(_ *try, r *wire.Request) { r.Subject = wire.Name(rdns...) }
}

// rdn is an RDN of one attribute.
func rdn(oid string, value []byte) []byte { return wire.RDN(wire.ATV(oid, value)) }

func cn(value []byte) []byte { return rdn(wire.OIDCommonName, value) }

// byRow joins vectors in the order of their rows.
func byRow(parts ...[]vector) []vector {
	all := slices.Concat(parts...)
	slices.SortStableFunc(all, func(a, b vector) int { return strings.Compare(a.row, b.row) })
	return all
}

// oneWins sends messages at once and demands that one of them is forwarded and
// brings a certificate, and that the others are refused for this reason.
func (t *try) oneWins(messages [][]byte, reason string) {
	answers, errs := make([]attack.Answer, len(messages)), make([]error, len(messages))
	var all sync.WaitGroup
	for i := range messages {
		all.Go(func() { answers[i], errs[i] = attack.Do(t.Client, t.postRequest(messages[i])) })
	}
	all.Wait()
	won := [][]byte{}
	for i, a := range answers {
		if errs[i] != nil {
			t.failf("no answer: %v", errs[i])
			return
		}
		t.back = append(t.back, describe(a))
		if a.Rep != nil && a.Rep.PKIStatus == "0" {
			won = append(won, messages[i])
			continue
		}
		t.refused(a)
	}
	t.demand(len(won) == 1, "%d keys got a certificate", len(won))
	t.reached(won...)
	seen := map[string]int{}
	for range messages {
		seen[t.decision("").String("reason")]++
	}
	t.demand(seen["ok"] == 1 && seen[reason] == len(messages)-1, "the operator reads %v", seen)
}
