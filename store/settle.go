package store

import (
	"encoding/hex"
	"time"
)

// Settle ends one forward, and gives what matchers are to be told for it.
func (e *Expectation) Settle(now time.Time, s Settlement) []Delivery {
	e.Normalise(now)
	ev := Event{At: now, TransactionID: s.TransactionID, HRESULT: s.HRESULT, Text: s.Text}
	switch s.Outcome {
	case OutcomeUnsent:
		ev.What = "unsent"
	case OutcomeIssued:
		ev.What = "issued"
	case OutcomePending:
		ev.What = "pending"
	case OutcomeRefused, OutcomeDeferred:
		ev.What = "failed"
	default:
		ev.What = "in_doubt"
	}
	i := e.useOf(s.UseGeneration)
	if i < 0 {
		ev.Reason = "late"
		e.note(ev)
		return nil
	}
	u := &e.Uses[i]
	ev.SPKISHA256 = hex.EncodeToString(u.Key)
	if ev.What == "in_doubt" {
		if u.inFlight() > 0 {
			u.Doubtful++
		}
		e.note(ev)
		return nil
	}

	var told []Delivery
	ended := false
	if s.Outcome == OutcomeUnsent {
		// As if it had never been claimed. Forwards that are in doubt keep the use.
		if u.inFlight() > 0 {
			u.Forwards--
		}
		// One that was refused waits only for those that did leave.
		ended = u.State == Claimed && (u.Forwards == 0 || u.Refused && u.Verified >= u.Forwards)
		if ended && u.Refused {
			told = e.tell(u, now, ResultFailed, e.failure(u))
		}
	} else if u.inFlight() > 0 {
		u.Verified++
	}
	locked := false
	if u.State != Issued { // nothing leaves issued, whatever comes late
		switch s.Outcome {
		case OutcomeIssued:
			told = e.tell(u, now, ResultIssued, ev) // also if it is revoked meanwhile
			u.Notices = nil
			u.answered(Issued, now)
		case OutcomePending:
			u.answered(Pending, now)
		case OutcomeRefused:
			// A forward in flight or in doubt may still bring a certificate for
			// this key, so the use goes only when every forward has been answered.
			u.Refused = true
			ended = u.Verified >= u.Forwards
			if ended || u.State == Pending {
				told = e.tell(u, now, ResultFailed, ev)
			}
			locked = u.State == Pending && e.State != Revoked // the manager said no
		}
	}
	if ended {
		if e.Uses = append(e.Uses[:i], e.Uses[i+1:]...); len(e.Uses) == 0 {
			e.Uses = nil // as it is read back
		}
	}
	if locked {
		e.State = Locked
	}
	e.derive(now)
	e.change(now, ev)
	if locked {
		e.note(Event{At: now, What: "locked"})
	}
	return told
}

// inFlight counts the forwards that nobody has heard of since.
func (u *Use) inFlight() int { return u.Forwards - u.Verified - u.Doubtful }

// maxFlight is longer than NDES may take to answer. An outcome that could not be
// written down leaves a forward open; nobody waits for it after that.
const maxFlight = 15 * time.Minute

// flying reports whether a forward may still bring an answer to this process,
// which opened the store at that time.
func (u *Use) flying(now, opened time.Time) bool {
	return u.inFlight() > 0 && !u.ForwardedAt.Before(utc(opened)) && now.Before(u.ForwardedAt.Add(maxFlight))
}

// answered says that NDES knows the request: there is no doubt any more.
func (u *Use) answered(s State, now time.Time) {
	u.State, u.SettledAt = s, utc(now)
	u.DoubtAt, u.ReleaseAt = time.Time{}, time.Time{}
}

// useOf finds the use that the claim of this generation made, or -1.
func (e *Expectation) useOf(generation uint64) int {
	for i := range e.Uses {
		if e.Uses[i].Generation == generation {
			return i
		}
	}
	return -1
}
