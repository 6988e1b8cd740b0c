package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/scepgate/scepgate/store"
)

// random does what comes to its mind, on few names so that they collide, and
// checks after each step what must hold whatever happens.
func random(f *fixture) {
	seed := uint64(time.Now().UnixNano())
	f.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	profiles := []string{"wifi", "lan"}
	keys := map[string]map[string]bool{} // id → keys that were ever honoured and not given back
	var made []store.Expectation         // profile, id and max uses
	claimedAt := map[string]time.Time{}  // profile and challenge → when it was last claimed
	waiting := queue{}
	pick := func() store.Expectation {
		if len(made) == 0 {
			return store.Expectation{Profile: "wifi", ID: ID(0)}
		}
		return made[max(0, len(made)-1-r.IntN(30))]
	}
	known := func(err error) bool {
		for _, s := range []error{
			nil, store.ErrNotFound, store.ErrChallengeInUse, store.ErrChallengeUsed, store.ErrIdentityInUse,
			store.ErrExternalIDInUse, store.ErrExpectationInUse, store.ErrNotRegistered, store.ErrGeneration,
			store.ErrTransactionConflict, store.ErrKeyConflict, store.ErrUsed, store.ErrNotReleasable,
		} {
			if errors.Is(err, s) {
				return true
			}
		}
		return false
	}
	steps := 1500
	for step := range steps {
		var err error
		what := ""
		switch op := r.IntN(20); {
		case op < 5: // register or replace
			challenge := fmt.Sprint("c", r.IntN(30))
			e := Example(step+1, profiles[r.IntN(2)], challenge, f.clock.Now())
			e.MaxUses = 1 + r.IntN(2)
			if r.IntN(4) == 0 {
				e.ChallengeHash, e.IdentityHash = nil, hash(challenge)
			}
			if r.IntN(2) == 0 {
				e.ExternalID = fmt.Sprint("x", r.IntN(10))
			}
			e.ExpiresAt = f.clock.Now().Add(time.Duration(r.IntN(300)) * time.Minute)
			var out store.Expectation
			if what = "replace"; e.ExternalID != "" && r.IntN(2) == 0 {
				out, _, err = f.s.Replace(f.ctx, e, func(store.Expectation) bool { return r.IntN(2) == 0 })
			} else {
				what = "register"
				out, err = f.s.Register(f.ctx, e)
			}
			if err == nil && out.ID == e.ID {
				made = append(made, e)
				at, ever := claimedAt[e.Profile+string(e.ChallengeHash)]
				if len(e.ChallengeHash) > 0 && ever && f.clock.Now().Before(at.Add(store.Retention)) {
					f.Fatalf("step %d: a challenge that was claimed at %v was registered again", step, at)
				}
			}
		case op < 11:
			what = "claim"
			m := pick()
			var e store.Expectation
			if e, err = f.s.Get(f.ctx, m.Profile, m.ID); err != nil {
				break
			}
			c := claimOf(e, fmt.Sprint("dev", r.IntN(6)))
			if r.IntN(8) == 0 {
				c.Generation--
			}
			if r.IntN(8) == 0 {
				c.Identity = hash("another")
			}
			if r.IntN(8) == 0 {
				c.TransactionID = fmt.Sprint("tx dev", r.IntN(6))
			}
			if r.IntN(2) == 0 {
				c.Notices = notices(step)
			}
			var u store.Use
			if _, u, err = f.s.Claim(f.ctx, c); err == nil {
				if keys[m.ID] == nil {
					keys[m.ID] = map[string]bool{}
				}
				keys[m.ID][string(u.Key)] = true
				claimedAt[e.Profile+string(e.ChallengeHash)] = f.clock.Now()
			}
		case op < 15:
			what = "settle"
			m := pick()
			var e, after store.Expectation
			if e, err = f.s.Get(f.ctx, m.Profile, m.ID); err != nil || len(e.Uses) == 0 {
				break
			}
			u := e.Uses[r.IntN(len(e.Uses))]
			g := u.Generation
			if r.IntN(8) == 0 {
				g = uint64(r.IntN(20))
			}
			after, err = f.s.Settle(f.ctx, store.Settlement{Profile: m.Profile, ID: m.ID, UseGeneration: g, Outcome: store.Outcome(r.IntN(6))})
			if err == nil {
				givenBack(f, keys[m.ID], e, after)
				waiting.settled(f, e.Uses, g, after)
			}
		case op == 15 && r.IntN(3) == 0:
			what = "notify"
			_, err = f.s.Notify(f.ctx, []store.Delivery{{Profile: "wifi", Matcher: "m", Result: store.ResultRefused}})
			waiting.expected++
		case op == 15:
			what = "mismatch"
			m := pick()
			_, _, err = f.s.Mismatch(f.ctx, m.Profile, m.ID, hash(fmt.Sprint(r.IntN(5))), r.IntN(4), store.Event{})
		case op == 16 && r.IntN(3) == 0:
			what = "revoke"
			m := pick()
			_, err = f.s.Revoke(f.ctx, m.Profile, m.ID, "op")
		case op == 17:
			what = "extend"
			m := pick()
			_, err = f.s.Extend(f.ctx, m.Profile, m.ID, f.clock.Now().Add(time.Duration(r.IntN(300)-30)*time.Minute), "op")
		case op == 16:
			what = "release"
			m := pick()
			var before, after store.Expectation
			if before, err = f.s.Get(f.ctx, m.Profile, m.ID); err != nil {
				break
			}
			if after, err = f.s.Release(f.ctx, m.Profile, m.ID, "op"); err == nil {
				givenBack(f, keys[m.ID], before, after)
			}
		case op == 18:
			what = "sweep"
			_, err = f.s.Sweep(f.ctx, r.IntN(20))
		case op == 19:
			what = "time"
			f.clock.Add(time.Duration(r.IntN(60)) * time.Minute)
			if r.IntN(40) == 0 {
				f.clock.Add(time.Duration(r.IntN(100)) * 24 * time.Hour)
			}
		}
		if !known(err) {
			f.Fatalf("step %d: %s: %v", step, what, err)
		}
		waiting.work(f, r)
		m := pick()
		if e, err := f.s.Get(f.ctx, m.Profile, m.ID); err == nil {
			if len(e.Uses) > m.MaxUses || len(keys[m.ID]) > m.MaxUses { // threat D02
				f.Fatalf("step %d: %s: %d keys, %d uses, %d allowed", step, what, len(keys[m.ID]), len(e.Uses), m.MaxUses)
			}
			for _, u := range e.Uses {
				if u.Verified > u.Forwards || u.Forwards < 1 {
					f.Fatalf("step %d: %s: %d of %d answered", step, what, u.Verified, u.Forwards)
				}
			}
		}
		if step%300 == 299 {
			f.counted(profiles...)
			held := map[string]string{}
			for _, p := range profiles {
				for _, e := range f.all(store.Query{Profile: p, Limit: 9}) {
					if !e.State.Live() {
						continue
					}
					for _, k := range []string{"c" + string(e.ChallengeHash), "i" + string(e.IdentityHash), "x" + e.ExternalID} {
						if len(k) == 1 {
							continue
						}
						if other := held[p+k]; other != "" {
							f.Fatalf("step %d: %s and %s hold the same", step, other, e.ID)
						}
						held[p+k] = e.ID
					}
				}
			}
		}
	}
	f.counted(profiles...)
	if f.engine.Reopen != nil {
		f.s = f.engine.Reopen(f.T, f.s)
		f.counted(profiles...)
		waiting.work(f, r)
	}
}

// queue is what the deliveries must be.
type queue struct {
	due      map[string]time.Time // by id
	expected int                  // that came to it since
}

// settled counts what matchers must hear of the use that was settled.
func (q *queue) settled(f *fixture, uses []store.Use, generation uint64, e store.Expectation) {
	i := slices.IndexFunc(uses, func(u store.Use) bool { return u.Generation == generation })
	if i < 0 {
		return
	}
	before := uses[i]
	after := e.Use(before.Key)
	switch {
	case before.State == store.Issued:
	case after != nil && after.State == store.Issued,
		after == nil && (e.History[len(e.History)-1].What != "unsent" || before.Refused) && !before.Told,
		after != nil && after.Told && !before.Told:
		q.expected += len(before.Notices)
	}
	if after != nil && len(after.Notices) > 0 && after.State == store.Issued {
		f.Fatalf("an issued use of %s owes", e.ID)
	}
}

// work compares what is due with what must be, and delivers or postpones it.
func (q *queue) work(f *fixture, r *rand.Rand) {
	f.Helper()
	if q.due == nil {
		q.due = map[string]time.Time{}
	}
	now, list := f.clock.Now(), f.due()
	got := map[string]bool{}
	for _, d := range list {
		due, ok := q.due[d.ID]
		switch {
		case !ok:
			q.expected--
			q.due[d.ID] = d.Due
		case now.Before(due) || got[d.ID] || d.Attempts == 0:
			f.Fatalf("%s is due at %v, and was given at %v: %+v", d.ID, due, now, d)
		}
		got[d.ID] = true
	}
	if q.expected != 0 {
		f.Fatalf("%d deliveries are missing", q.expected)
	}
	for id, due := range q.due {
		if kept := id >= store.FirstDelivery(now); kept && !now.Before(due) && !got[id] {
			f.Fatalf("%s was due at %v, and is not there", id, due)
		}
	}
	for id := range got {
		if r.IntN(3) > 0 {
			f.want("delivered", f.s.Delivered(f.ctx, id), nil)
			delete(q.due, id)
			continue
		}
		q.due[id] = now.Add(time.Duration(1+r.IntN(72)) * time.Hour)
		f.want("postpone", f.s.Postpone(f.ctx, id, q.due[id]), nil)
	}
}

// givenBack forgets the keys whose use has ended. An issued one never does.
func givenBack(f *fixture, keys map[string]bool, before, after store.Expectation) {
	f.Helper()
	for _, u := range before.Uses {
		if after.Use(u.Key) == nil {
			if u.State == store.Issued {
				f.Fatalf("an issued use of %s was given back", before.ID)
			}
			delete(keys, string(u.Key))
		}
	}
}
