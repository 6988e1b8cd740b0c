package store

import (
	"bytes"
	"errors"
	"time"
)

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

// Bars says why a claim may not make another record under the hash of e, which
// is kept: never nil. Only a challenge is used up; what is kept of a renewal is to
// be judged, and so is what was never claimed.
func (e *Expectation) Bars(now time.Time) error {
	e.Normalise(now)
	if e.Renews == nil && len(e.ChallengeHash) > 0 && !e.State.Live() && e.Tombstone(now) != nil {
		return ErrChallengeUsed
	}
	return ErrGeneration
}

// Decisive chooses between the two records that a renewal may be kept under, by
// its certificate's hash and by its serial number; either may be nil. What stops
// it counts before what allows it, what holds it before what nobody holds, and a
// registration before what the gateway made or what time has ended.
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
	case len(bySerial.Uses) > 0 || byHash.Owner == "" || byHash.State == Expired:
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
