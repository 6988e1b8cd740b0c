package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// The life of an expectation. Every engine loads one, calls exactly one of the
// methods of life.go, claim.go, settle.go, ending.go and due.go, and saves the
// result, all in one transaction. The rules stand there and nowhere else.

// Bounds of what a record keeps of text that came from outside, in bytes.
const (
	maxText       = 512
	maxField      = 256
	maxName       = 512 // profile, external id, owner, id, transactionID: longer is refused
	maxMismatches = 64  // digests kept, unless more are needed to reach the limit

	// What is registered and what the uses add are bounded apart, so that one
	// that could be claimed can always be settled.
	maxRegistered = 128 << 10
	maxUseBytes   = 640 << 10 // 100 uses with the longest of everything stay below
)

// Start makes e a new registration. It refuses what could not be found or
// told apart again.
func (e *Expectation) Start(now time.Time) error {
	switch {
	case e.ID == "" || e.Profile == "":
		return errors.New("expectation has no id or no profile")
	case (len(e.ChallengeHash) == 0) == (len(e.IdentityHash) == 0):
		return errors.New("expectation needs either a challenge hash or an identity hash")
	case e.MaxUses < 1:
		return errors.New("expectation allows no use")
	case e.ExpiresAt.IsZero():
		return errors.New("expectation has no end")
	}
	for _, s := range []string{e.ID, e.Profile, e.ExternalID, e.Owner} {
		if len(s) > maxName {
			return fmt.Errorf("id, profile, external id or owner is longer than %d bytes", maxName)
		}
		// Records are JSON: other bytes would not come back as they were.
		if !utf8.ValidString(s) {
			return errors.New("id, profile, external id or owner is not UTF-8")
		}
	}
	// The challenge itself is nowhere in a store, whoever forgot to take it out (threat F23).
	var secret struct {
		Challenge any `json:"challenge"`
	}
	if len(e.Request) > 0 {
		if err := json.Unmarshal(e.Request, &secret); err != nil || secret.Challenge != nil {
			return errors.New("request is not an object without a challenge")
		}
	}
	e.CreatedAt, e.ExpiresAt = utc(e.CreatedAt), utc(e.ExpiresAt)
	e.State, e.Generation, e.ChangedAt = Registered, 1, utc(now)
	if r := e.Renews; r != nil && (r.SHA256 == "") == (r.Serial == "") {
		return errors.New("renewal names either a certificate's hash or its serial number")
	}
	e.RetainUntil = utc(e.RetainUntil)
	e.EverClaimed, e.Uses, e.Mismatches, e.History = false, nil, nil, nil
	e.note(Event{At: now, What: "registered", By: e.Owner})
	if raw, err := e.Encode(); err != nil {
		return err
	} else if len(raw) > maxRegistered {
		return fmt.Errorf("expectation is larger than %d KiB", maxRegistered>>10)
	}
	return nil
}

// Normalise brings the state up to date with the clock: what is Registered when
// its time is up is Expired, at ExpiresAt exactly (threat D33). Engines call it
// on every read.
func (e *Expectation) Normalise(now time.Time) {
	before := e.State
	e.derive(now)
	if before != Expired && e.State == Expired {
		if e.ChangedAt.Before(e.ExpiresAt) {
			e.ChangedAt = e.ExpiresAt
		}
		e.note(Event{At: e.ExpiresAt, What: "expired"})
	}
}

// derive computes the state from the uses. Revoked, Locked and Expired are
// final here: nothing that a use does leads out of them.
func (e *Expectation) derive(now time.Time) {
	if e.State == Revoked || e.State == Locked || e.State == Expired {
		return
	}
	left, over := len(e.Uses) < e.MaxUses, !now.Before(e.ExpiresAt)
	switch {
	case left && !over:
		e.State = Registered
	case e.hasUse(Claimed):
		e.State = Claimed
	case e.hasUse(Pending):
		e.State = Pending
	case left:
		e.State = Expired
	default:
		e.State = Issued
	}
}

func (e *Expectation) hasUse(s State) bool {
	for i := range e.Uses {
		if e.Uses[i].State == s {
			return true
		}
	}
	return false
}

// Matches reports whether e, up to date, is selected by q.
func (q *Query) Matches(e *Expectation) bool {
	if q.LabelKey != "" {
		if v, ok := e.Labels[q.LabelKey]; !ok || v != q.LabelValue {
			return false
		}
	}
	return e.Profile == q.Profile &&
		(q.Owner == "" || q.Owner == e.Owner) &&
		(q.State == "" || q.State == e.State) &&
		(q.ExternalID == "" || q.ExternalID == e.ExternalID)
}

// Shorten leaves out what a listing does not show: the history, and what
// matchers are owed. For engines.
func (e *Expectation) Shorten() {
	e.History = nil
	for i := range e.Uses {
		e.Uses[i].Notices = nil
	}
}

// change counts one change of e. Whoever judged it before must look again.
func (e *Expectation) change(now time.Time, ev Event) {
	e.Generation++
	e.ChangedAt = utc(now)
	ev.At = now
	e.note(ev)
}

// note adds to the history without changing anything else.
func (e *Expectation) note(ev Event) {
	ev.At = utc(ev.At)
	ev.What, ev.By, ev.Reason = bound(ev.What, maxField), bound(ev.By, maxField), bound(ev.Reason, maxField)
	ev.TransactionID, ev.SPKISHA256 = bound(ev.TransactionID, maxField), bound(ev.SPKISHA256, maxField)
	ev.ClientIP, ev.HRESULT = bound(ev.ClientIP, maxField), bound(ev.HRESULT, maxField)
	ev.Text = bound(ev.Text, maxText)
	e.History = last(append(e.History, ev), MaxHistory)
}

func (u *Use) clone() Use {
	c := *u
	c.Notices = slices.Clone(u.Notices)
	for i := range c.Notices {
		c.Notices[i].Sealed = bytes.Clone(c.Notices[i].Sealed)
	}
	c.Key, c.Identity, c.Subject, c.Certificate = bytes.Clone(u.Key), bytes.Clone(u.Identity), bytes.Clone(u.Subject), bytes.Clone(u.Certificate)
	c.TransactionIDs = append([]string(nil), u.TransactionIDs...)
	c.SenderNonces = make([][]byte, len(u.SenderNonces))
	for i, n := range u.SenderNonces {
		c.SenderNonces[i] = bytes.Clone(n)
	}
	return c
}

// last keeps the last n of s.
func last[T any](s []T, n int) []T {
	if len(s) > n {
		s = append([]T(nil), s[len(s)-n:]...)
	}
	return s
}

// bound cuts s to n bytes, between characters.
func bound(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// earliest is the earlier of two times that are set.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// utc also drops the monotonic reading, so that what is kept equals what is read back.
func utc(t time.Time) time.Time { return t.UTC().Round(0) }
