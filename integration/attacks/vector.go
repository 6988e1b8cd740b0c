package main

import (
	"net/http"

	"github.com/scepgate/scepgate/integration/wire"
)

// want is what the catalogue demands as the answer.
type want string

const (
	pre         want = "PRE"  // before any private-key operation, with vector.status
	rej         want = "REJ"  // the uniform refusal; the expectation stays as it was
	rejStrike   want = "REJ#" // the same outside; the expectation remembers
	forwarded   want = "FWD"  // exactly once, the same bytes
	failed      want = "503"  // fails closed, with vector.status where it is another
	cfg         want = "CFG"  // refused at registration or at load
	asDescribed want = "act"  // several steps; act itself demands each answer
)

// vector is one attack on one row of the catalogue. What differs from an
// honest enrolment is all that it says.
type vector struct {
	row     string // A01 … F36
	variant string // what is sent, for the report; unique in its row
	want    want
	status  int    // of PRE and 503
	reason  string // what the operator must read; "" if there is no decision to log
	finding string // a word that a finding must name as its field; optional

	profile      string         // default wifi
	expect       map[string]any // laid over the expectation of an honest device; null removes a key
	unregistered bool           // nothing is registered
	anywhere     bool           // means the same against a deployed gateway that knows nothing

	message func(t *try) // changes t.M, which is then POSTed
	request func(t *try) *http.Request
	act     func(t *try)
}

// remote reports whether the vector says something about a gateway on which
// nothing can be registered.
func (v *vector) remote() bool {
	if v.act != nil || v.want == cfg || v.want == forwarded {
		return v.anywhere
	}
	switch v.reason {
	case "", "malformed_message", "bad_signature", "message_type_refused", "undecryptable", "malformed_request",
		"algorithm_refused", "key_refused", "signer_mismatch", "challenge_missing", "challenge_unknown":
		return v.profile == "" && (v.want == pre || v.want == rej || v.want == rejStrike)
	}
	return v.anywhere
}

// vectors is the whole suite, in the catalogue's order.
func vectors() []vector {
	var all []vector
	for _, rows := range [][]vector{
		rowsA(), rowsB(), rowsRequest(), rowsNames(), rowsCMS(), rowsProtocol(), rowsHTTP(), rowsGateway(),
	} {
		all = append(all, rows...)
	}
	return all
}

// csr, envelope and signed shorten the most frequent kinds of message.
func csr(change func(t *try, r *wire.Request)) func(*try) {
	return func(t *try) { change(t, &t.M.Request) }
}

func envelope(change func(t *try, e *wire.Envelope)) func(*try) {
	return func(t *try) { change(t, &t.M.Envelope) }
}

func signed(change func(t *try, d *wire.SignedData)) func(*try) {
	return func(t *try) { change(t, &t.M.SignedData) }
}
