package store

import (
	"time"
)

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
