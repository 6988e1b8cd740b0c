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

// Claim gives a key a use, or counts one more forward of the use it has. On an
// error nothing has changed.
func (e *Expectation) Claim(now time.Time, c Claim) (Use, error) {
	if len(c.Key) == 0 || len(c.Identity) == 0 && !c.Poll || c.TransactionID == "" || len(c.TransactionID) > maxName {
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
	case c.Poll:
		if u == nil || u.State != Pending || !slices.Contains(u.TransactionIDs, c.TransactionID) || !bytes.Equal(u.Subject, c.Subject) {
			return Use{}, ErrUsed // threat D19
		}
		what = "polled"
	case u != nil && !bytes.Equal(u.Identity, c.Identity):
		return Use{}, ErrUsed
	case u != nil && u.State == Issued:
		// The answer was lost on its way: NDES gives the same certificate again.
		if !slices.Contains(u.TransactionIDs, c.TransactionID) || !now.Before(u.SettledAt.Add(c.RetryWindow)) {
			return Use{}, ErrUsed
		}
		what = "retried"
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
			Generation:  e.Generation + 1,
			State:       Claimed,
			Key:         bytes.Clone(c.Key),
			Identity:    bytes.Clone(c.Identity),
			Subject:     bytes.Clone(c.Subject),
			Certificate: bytes.Clone(c.Certificate),
			ClaimedAt:   utc(now),
			ClientIP:    bound(c.ClientIP, maxField),
			UserAgent:   bound(c.UserAgent, maxText),
		})
		u = &e.Uses[len(e.Uses)-1]
		if c.RetryWindow > 0 {
			u.DoubtAt = utc(now.Add(c.RetryWindow))
		}
		e.EverClaimed = true // and for good, also if the forward turns out never to have left
	}
	u.Forwards++
	u.ForwardedAt = utc(now)
	e.RetainUntil = utc(later(e.RetainUntil, c.RetainUntil))
	if u.State == Claimed && c.ReleaseAfter > 0 {
		u.ReleaseAt = utc(now.Add(c.ReleaseAfter))
	}
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
		if u.inFlight() > 0 {
			u.Doubtful++
		}
		e.note(ev)
		return
	}

	ended := false
	if s.Outcome == OutcomeUnsent {
		// As if it had never been claimed. Forwards that are in doubt keep the use.
		if u.inFlight() > 0 {
			u.Forwards--
		}
		// One that was refused waits only for those that did leave.
		ended = u.State == Claimed && (u.Forwards == 0 || u.Refused && u.Verified >= u.Forwards)
	} else if u.inFlight() > 0 {
		u.Verified++
	}
	locked := false
	if u.State != Issued { // nothing leaves issued, whatever comes late
		switch s.Outcome {
		case OutcomeIssued:
			u.answered(Issued, now)
		case OutcomePending:
			u.answered(Pending, now)
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

// Release takes from e what keeps an honest device out: a lock with the
// mismatches behind it, or the uses that are claimed and in doubt. opened is
// when this process opened the store: a forward claimed before cannot be in
// flight, since whoever sent it is gone.
func (e *Expectation) Release(now, opened time.Time, by string) error {
	e.Normalise(now)
	open := func(u *Use) bool { return u.State == Claimed || u.State == Pending && e.State == Locked }
	switch e.State {
	case Locked:
	case Registered, Claimed:
		if !e.hasUse(Claimed) {
			return ErrNotReleasable
		}
	default:
		return ErrNotReleasable
	}
	for i := range e.Uses {
		if u := &e.Uses[i]; open(u) && u.flying(now, opened) {
			return ErrExpectationInUse
		}
	}
	e.release(func(u *Use) bool { return open(u) }, now, by)
	return nil
}

// release ends the uses that gone selects.
func (e *Expectation) release(gone func(*Use) bool, now time.Time, by string) {
	left := e.Uses[:0:0]
	for i := range e.Uses {
		if !gone(&e.Uses[i]) {
			left = append(left, e.Uses[i])
		}
	}
	if e.Uses = left; len(left) == 0 {
		e.Uses = nil // as it is read back
	}
	if e.State == Locked {
		e.State, e.Mismatches = Registered, nil
	}
	e.derive(now)
	e.change(now, Event{What: "released", By: by})
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
	if e.unused() {
		return nil
	}
	if e.State.Live() {
		return ErrChallengeInUse
	}
	return e.Tombstone(now)
}

// Decisive chooses between the two records that a renewal may be kept under, by
// its certificate's hash and by its serial number; either may be nil. What ends
// it counts before what allows it, and what holds it or was registered before
// what the gateway made and nobody holds.
func Decisive(byHash, bySerial *Expectation) *Expectation {
	switch {
	case byHash == nil:
		return bySerial
	case bySerial == nil:
		return byHash
	case byHash.State == Revoked || byHash.State == Locked:
		return byHash
	case bySerial.State == Revoked || bySerial.State == Locked:
		return bySerial
	case len(byHash.Uses) > 0:
		return byHash
	case len(bySerial.Uses) > 0 || byHash.Owner == "":
		return bySerial
	}
	return byHash
}

// unused reports whether e is a renewal's record that the gateway made and that
// no key holds: a registration may take its place.
func (e *Expectation) unused() bool { return e.Renews != nil && e.Owner == "" && len(e.Uses) == 0 }

// Tombstone is ErrChallengeUsed while e, whatever its state, has been claimed
// and is within Retention of its last change.
func (e *Expectation) Tombstone(now time.Time) error {
	if e.EverClaimed && now.Before(later(e.ChangedAt.Add(Retention), e.RetainUntil)) {
		return ErrChallengeUsed
	}
	return nil
}

// Due says when the sweeper has something to do with e as it is stored: its
// time is up, its retention over, or a claim of it has become doubtful. False
// for what may not be touched.
func (e *Expectation) Due() (time.Time, bool) {
	switch e.State {
	case Registered:
		return earliest(e.ExpiresAt, e.doubt()), true
	case Claimed, Pending:
		due := e.doubt()
		return due, !due.IsZero()
	case Locked:
		// It holds its challenge; after its time and the tombstone's it may go.
		return later(later(e.ExpiresAt, e.ChangedAt).Add(Retention), e.RetainUntil), true
	}
	if e.EverClaimed || e.Renews != nil { // a renewal that was revoked must not be free again tomorrow
		return later(e.ChangedAt.Add(Retention), e.RetainUntil), true
	}
	return e.ChangedAt.Add(EndedRetention), true
}

// doubt is when the next open claim is reported or released; zero: never.
func (e *Expectation) doubt() (at time.Time) {
	for i := range e.Uses {
		if u := &e.Uses[i]; u.State == Claimed {
			at = earliest(earliest(at, u.DoubtAt), u.ReleaseAt)
		}
	}
	return at
}

// ReleasedByItself is who releases what in_doubt_release has run out for.
const ReleasedByItself = "in_doubt_release"

// Sweep brings the state up to date and reports whether e may be removed, and
// if not whether it has changed, and whether a claim has become doubtful.
// opened is as for Release.
func (e *Expectation) Sweep(now, opened time.Time) (remove, changed, doubt bool) {
	before := e.State
	e.Normalise(now)
	if e.State == Registered || e.State == Claimed || e.State == Pending {
		changed, doubt = e.sweepClaims(now, opened)
		return false, changed || e.State != before, doubt
	}
	if due, ok := e.Due(); ok && !now.Before(due) {
		return true, false, false
	}
	return false, e.State != before, false
}

func (e *Expectation) sweepClaims(now, opened time.Time) (changed, doubt bool) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	gone := map[uint64]bool{}
	for i := range e.Uses {
		u := &e.Uses[i]
		if u.State != Claimed {
			continue
		}
		if due(u.DoubtAt) {
			u.DoubtAt, changed, doubt = time.Time{}, true, true
		}
		switch {
		case !due(u.ReleaseAt):
		case u.flying(now, opened):
			u.ReleaseAt, changed = utc(now.Add(time.Minute)), true // ask again when it may have ended
		default:
			gone[u.Generation] = true
		}
	}
	if len(gone) > 0 {
		e.release(func(u *Use) bool { return gone[u.Generation] }, now, ReleasedByItself)
		changed = true
	}
	return changed, doubt
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
