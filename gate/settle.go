package gate

import (
	"context"
	"fmt"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// Forwarded says how a forward ended.
type Forwarded struct {
	Sent bool               // false: not one byte left
	Rep  *inspector.CertRep // the verified answer; nil if there was none
}

// Settled is what became of it. For the log line and events.
type Settled struct {
	State   store.State // of the expectation, after; "" if nothing was claimed
	InDoubt bool        // the key keeps its claim, nobody knows whether it has a certificate
	HRESULT string      // "0x80070490", "" if none
	Text    string      // escaped, bounded
	Err     error
}

// The pkiStatus values (RFC 8894 §3.2.1.3).
const (
	statusSuccess = "0"
	statusFailure = "2"
	statusPending = "3"
)

// Settle reports the outcome of a Forward decision. Without a claim (mode
// observe) it only reads the answer.
func (g *Gate) Settle(ctx context.Context, s store.Store, d Decision, f Forwarded) Settled {
	out := Settled{}
	if f.Rep != nil {
		out.HRESULT, out.Text = hresult(f.Rep)
	}
	if d.claim == nil {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, dependencyTimeout)
	defer cancel()
	outcome := outcomeOf(f)
	out.InDoubt = outcome == store.OutcomeUnknown
	err := guarded(func() error {
		e, err := s.Settle(ctx, store.Settlement{
			Profile: g.profile.Name, ID: d.claim.id, UseGeneration: d.claim.generation,
			Outcome: outcome, TransactionID: d.TransactionID, HRESULT: out.HRESULT, Text: out.Text,
		})
		if err == nil {
			out.State = e.State
		}
		return err
	})
	if err != nil {
		// What is not written down is in doubt, whatever NDES said.
		out.State, out.InDoubt = "", true
		out.Err = fmt.Errorf("settling %s: %w", d.claim.id, err)
	}
	return out
}

// outcomeOf maps an answer to what it means for the expectation. What is not
// understood is Unknown: the key keeps its claim.
func outcomeOf(f Forwarded) store.Outcome {
	switch {
	case f.Rep == nil && !f.Sent:
		return store.OutcomeUnsent
	case f.Rep == nil || !f.Sent:
		return store.OutcomeUnknown
	}
	switch f.Rep.PKIStatus {
	case statusSuccess:
		return store.OutcomeIssued
	case statusPending:
		return store.OutcomePending
	case statusFailure:
		switch {
		case f.Rep.HasHRESULT && transient(f.Rep.HRESULT),
			f.Rep.HasError && !f.Rep.HasHRESULT: // what cannot be read may be transient
			return store.OutcomeDeferred
		}
		return store.OutcomeRefused
	}
	return store.OutcomeUnknown
}
