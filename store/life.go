package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// The life of an expectation. Every engine loads one, calls exactly one of the
// methods below and saves the result, all in one transaction. The rules stand
// here and nowhere else.

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

// Claim gives a key a use, or counts one more forward of the use it has. On an
// error nothing has changed.
func (e *Expectation) Claim(now time.Time, c Claim) (Use, error) {
	if len(c.Key) == 0 || len(c.Identity) == 0 || c.TransactionID == "" || len(c.TransactionID) > maxName {
		return Use{}, errors.New("claim without key, identity or transactionID")
	}
	e.Normalise(now)
	if len(c.SenderNonce) > maxField {
		return Use{}, fmt.Errorf("senderNonce is longer than %d bytes", maxField)
	}
	if c.Generation != e.Generation {
		return Use{}, ErrGeneration // the judgement was made on something else (threats D02, D03)
	}
	switch e.State {
	case Registered, Claimed, Pending, Issued:
	default:
		return Use{}, ErrNotRegistered
	}

	what := "claimed"
	u := e.Use(c.Key)
	switch {
	case u != nil && (u.State == Issued || !bytes.Equal(u.Identity, c.Identity)):
		return Use{}, ErrUsed
	case u != nil:
		what = "retried"
	case len(e.Uses) >= e.MaxUses:
		return Use{}, ErrKeyConflict // never more than MaxUses keys
	case e.State != Registered:
		return Use{}, ErrNotRegistered // uses are left, but the time is up
	case e.useBytes() > maxUseBytes:
		return Use{}, ErrKeyConflict // no use is left that could be kept
	default:
		e.Uses = append(e.Uses, Use{
			Generation: e.Generation + 1,
			State:      Claimed,
			Key:        bytes.Clone(c.Key),
			Identity:   bytes.Clone(c.Identity),
			ClaimedAt:  utc(now),
			ClientIP:   bound(c.ClientIP, maxField),
			UserAgent:  bound(c.UserAgent, maxText),
		})
		u = &e.Uses[len(e.Uses)-1]
		e.EverClaimed = true // and for good, also if the forward turns out never to have left
	}
	u.Forwards++
	if n := len(u.TransactionIDs); n == 0 || u.TransactionIDs[n-1] != c.TransactionID {
		u.TransactionIDs = last(append(u.TransactionIDs, c.TransactionID), MaxForwards)
	}
	if !slices.ContainsFunc(u.SenderNonces, func(n []byte) bool { return bytes.Equal(n, c.SenderNonce) }) {
		if len(u.SenderNonces) == MaxForwards { // NDES may answer with the first for as long as it likes
			u.SenderNonces = slices.Delete(u.SenderNonces, 1, 2)
		}
		u.SenderNonces = append(u.SenderNonces, bytes.Clone(c.SenderNonce))
	}
	e.derive(now)
	e.change(now, Event{
		What: what, TransactionID: c.TransactionID, ClientIP: c.ClientIP,
		SPKISHA256: hex.EncodeToString(c.Key),
	})
	return u.clone(), nil
}

// MessageID identifies the message that c claims for, for engines.
func (c Claim) MessageID() []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.TransactionID), c.Key, c.SenderNonce} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// useBytes estimates what the uses take when encoded.
func (e *Expectation) useBytes() int {
	n := 0
	for i := range e.Uses {
		u := &e.Uses[i]
		n += 512 + len(u.UserAgent)
		for _, id := range u.TransactionIDs {
			n += len(id) + 8
		}
		for _, nonce := range u.SenderNonces {
			n += 2*len(nonce) + 8
		}
	}
	return n
}

// Settle ends one forward.
func (e *Expectation) Settle(now time.Time, s Settlement) {
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
		return
	}
	u := &e.Uses[i]
	ev.SPKISHA256 = hex.EncodeToString(u.Key)
	if ev.What == "in_doubt" {
		e.note(ev)
		return
	}

	ended := false
	if s.Outcome == OutcomeUnsent {
		// As if it had never been claimed. Forwards that are in doubt keep the use.
		if u.Forwards > u.Verified {
			u.Forwards--
		}
		// One that was refused waits only for those that did leave.
		ended = u.Forwards == 0 || u.Refused && u.State == Claimed && u.Verified >= u.Forwards
	} else if u.Verified < u.Forwards {
		u.Verified++
	}
	locked := false
	if u.State != Issued { // nothing leaves issued, whatever comes late
		switch s.Outcome {
		case OutcomeIssued:
			u.State, u.SettledAt = Issued, utc(now)
		case OutcomePending:
			u.State, u.SettledAt = Pending, utc(now)
		case OutcomeRefused:
			// A forward in flight or in doubt may still bring a certificate for
			// this key, so the use goes only when every forward has been answered.
			u.Refused = true
			ended = u.Verified >= u.Forwards
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

// Mismatch records a refused attempt and reports whether it has locked e.
func (e *Expectation) Mismatch(now time.Time, identity []byte, max int, ev Event) bool {
	e.Normalise(now)
	if ev.At.IsZero() {
		ev.At = now
	}
	if ev.What == "" {
		ev.What = "mismatch"
	}
	e.note(ev)
	if len(identity) == 0 {
		return false
	}
	known := false
	for _, m := range e.Mismatches {
		known = known || bytes.Equal(m, identity)
	}
	if n := len(e.Mismatches); !known && (n < maxMismatches || n < max) {
		e.Mismatches = append(e.Mismatches, bytes.Clone(identity))
	}
	if e.State != Registered || max <= 0 || len(e.Mismatches) < max {
		return false
	}
	e.State = Locked
	e.change(now, Event{What: "locked"})
	return true
}

// Revoke ends e, also when it is issued, and reports whether that changed it.
func (e *Expectation) Revoke(now time.Time, by string) bool { return e.end(now, "revoked", by) }

// Supersede revokes e in favour of another registration.
func (e *Expectation) Supersede(now time.Time, by string) bool { return e.end(now, "replaced", by) }

func (e *Expectation) end(now time.Time, what, by string) bool {
	e.Normalise(now)
	if !e.State.Live() && e.State != Issued {
		return false
	}
	e.State = Revoked
	e.change(now, Event{What: what, By: by})
	return true
}

// Extend moves the end of one that is Registered. It never revives.
func (e *Expectation) Extend(now, expiresAt time.Time, by string) error {
	e.Normalise(now)
	if e.State != Registered {
		return ErrNotRegistered
	}
	if expiresAt.IsZero() {
		return errors.New("expectation has no end")
	}
	e.ExpiresAt = utc(expiresAt)
	e.change(now, Event{What: "extended", By: by})
	return nil
}

// Renew is what Replace does to a registration that stays: the end moves, if it differs.
func (e *Expectation) Renew(now, expiresAt time.Time, by string) error {
	if e.ExpiresAt.Equal(expiresAt) {
		return nil
	}
	return e.Extend(now, expiresAt, by)
}

// Replaceable reports whether Replace may put another in the place of a live
// e: ErrExpectationInUse while any key's outcome is open.
func (e *Expectation) Replaceable() error {
	if e.State.Live() && e.InUse() {
		return ErrExpectationInUse
	}
	return nil
}

// ChallengeFree reports whether the challenge that e holds may be registered
// again: ErrChallengeInUse, ErrChallengeUsed or nil. (threats F11, F12, F13)
func (e *Expectation) ChallengeFree(now time.Time) error {
	e.Normalise(now)
	if e.State.Live() {
		return ErrChallengeInUse
	}
	return e.Tombstone(now)
}

// Tombstone is ErrChallengeUsed while e, whatever its state, has been claimed
// and is within Retention of its last change.
func (e *Expectation) Tombstone(now time.Time) error {
	if e.EverClaimed && now.Before(e.ChangedAt.Add(Retention)) {
		return ErrChallengeUsed
	}
	return nil
}

// Due says when the sweeper has something to do with e as it is stored: its
// time is up or its retention over. False for what may not be touched.
func (e *Expectation) Due() (time.Time, bool) {
	switch e.State {
	case Registered:
		return e.ExpiresAt, true
	case Claimed, Pending:
		return time.Time{}, false
	case Locked:
		// It holds its challenge; after its time and the tombstone's it may go.
		return later(e.ExpiresAt, e.ChangedAt).Add(Retention), true
	}
	if e.EverClaimed {
		return e.ChangedAt.Add(Retention), true
	}
	return e.ChangedAt.Add(EndedRetention), true
}

// Sweep brings the state up to date and reports whether e may be removed, and
// if not whether it has changed.
func (e *Expectation) Sweep(now time.Time) (remove, changed bool) {
	before := e.State
	e.Normalise(now)
	if due, ok := e.Due(); ok && e.State != Registered && !now.Before(due) {
		return true, false
	}
	return false, e.State != before
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
	c.Key, c.Identity = bytes.Clone(u.Key), bytes.Clone(u.Identity)
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// utc also drops the monotonic reading, so that what is kept equals what is read back.
func utc(t time.Time) time.Time { return t.UTC().Round(0) }
