package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
			}
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
