package storetest

import (
	"fmt"
	"time"

	"github.com/scepgate/scepgate/store"
)

const (
	unknown  = store.OutcomeUnknown
	unsent   = store.OutcomeUnsent
	issued   = store.OutcomeIssued
	pending  = store.OutcomePending
	refused  = store.OutcomeRefused
	deferred = store.OutcomeDeferred
)

func settles(f *fixture) {
	for _, c := range []struct {
		name     string
		forwards int // claimed before the first outcome
		outcomes []store.Outcome
		state    store.State
		open     bool // the use is still there
		what     string
	}{
		{"success issues", 1, []store.Outcome{issued}, store.Issued, true, "issued"},
		{"pending pends", 1, []store.Outcome{pending}, store.Pending, true, "pending"},
		{"pending, then success", 2, []store.Outcome{pending, issued}, store.Issued, true, "issued"},
		{"pending twice", 2, []store.Outcome{pending, pending}, store.Pending, true, "pending"},
		{"pending, then failure locks", 2, []store.Outcome{pending, refused}, store.Locked, false, "locked"},
		{"pending, then failure locks while another forward is open", 3, []store.Outcome{pending, refused}, store.Locked, true, "locked"},
		{"failure gives back", 1, []store.Outcome{refused}, store.Registered, false, "failed"},
		{"failure with another forward in flight changes nothing", 2, []store.Outcome{refused}, store.Claimed, true, "failed"},
		{"failure of all gives back", 2, []store.Outcome{refused, refused}, store.Registered, false, "failed"},
		{"failure after one without answer changes nothing", 2, []store.Outcome{unknown, refused}, store.Claimed, true, "failed"},
		{"success after one without answer issues", 2, []store.Outcome{unknown, issued}, store.Issued, true, "issued"},
		{"no answer leaves it in doubt", 1, []store.Outcome{unknown}, store.Claimed, true, "in_doubt"},
		{"a failure that says nothing lasting stays claimed", 1, []store.Outcome{deferred}, store.Claimed, true, "failed"},
		{"and a definite one after it gives back", 2, []store.Outcome{deferred, refused}, store.Registered, false, "failed"},
		{"one that says nothing lasting stays pending", 2, []store.Outcome{pending, deferred}, store.Pending, true, "failed"},
		{"not sent gives back", 1, []store.Outcome{unsent}, store.Registered, false, "unsent"},
		{"not sent leaves the other forward", 2, []store.Outcome{unsent}, store.Claimed, true, "unsent"},
		{"none sent gives back", 2, []store.Outcome{unsent, unsent}, store.Registered, false, "unsent"},
		{"not sent leaves one in doubt", 2, []store.Outcome{unknown, unsent}, store.Claimed, true, "unsent"},
		{"not sent leaves pending", 2, []store.Outcome{pending, unsent}, store.Pending, true, "unsent"},
		{"not sent, then failure gives back", 2, []store.Outcome{unsent, refused}, store.Registered, false, "failed"},
		{"nothing leaves issued", 5, []store.Outcome{issued, refused, pending, unsent, unknown}, store.Issued, true, "in_doubt"},
		{"an outcome that is not known is no answer", 2, []store.Outcome{store.Outcome(99), refused}, store.Claimed, true, "failed"},
	} {
		e := f.fresh(c.name)
		var u store.Use
		for range c.forwards {
			_, u = f.claim(e.ID, c.name)
		}
		for _, o := range c.outcomes {
			e = f.settle(e.ID, u.Generation, o)
		}
		if e.State != c.state || (len(e.Uses) == 1) != c.open || !e.EverClaimed {
			f.Errorf("%s: %s with %d uses, want %s", c.name, e.State, len(e.Uses), c.state)
			continue
		}
		last := e.History[len(e.History)-1]
		if last.What != c.what || !last.At.Equal(f.clock.Now()) {
			f.Errorf("%s: history ends with %+v", c.name, last)
		}
		f.equal(c.name, f.get(e.ID), e)
	}
	_, err := f.s.Settle(f.ctx, store.Settlement{Profile: profile, ID: ID(9999)})
	f.want("settle", err, store.ErrNotFound)
	f.counted(profile)
}

func lateSettlement(f *fixture) {
	e := f.fresh("c")
	_, first := f.claim(e.ID, "a")
	f.settle(e.ID, first.Generation, store.OutcomeRefused)
	e, second := f.claim(e.ID, "b")
	if first.Generation == second.Generation {
		f.Fatal("two uses of one generation")
	}
	for _, o := range []store.Outcome{store.OutcomeIssued, store.OutcomeRefused, store.OutcomeUnsent, store.OutcomePending, store.OutcomeDeferred, store.OutcomeUnknown} {
		for _, g := range []uint64{first.Generation, 0, 1 << 60} {
			late := f.settle(e.ID, g, o)
			if len(late.History) != len(e.History)+1 {
				f.Fatalf("outcome %d: not in the history", o)
			}
			got := late
			got.History = e.History
			f.equal(fmt.Sprintf("outcome %d of generation %d", o, g), got, e)
			e = late
		}
	}
	f.state(f.settle(e.ID, second.Generation, store.OutcomeIssued), store.Issued)
}

func revokedMeanwhile(f *fixture) {
	for _, o := range []store.Outcome{store.OutcomeIssued, store.OutcomeRefused, store.OutcomeUnsent, store.OutcomePending, store.OutcomeDeferred, store.OutcomeUnknown} {
		name := fmt.Sprint("revoked, outcome ", o)
		e := f.fresh(name)
		_, u := f.claim(e.ID, name)
		e, err := f.s.Revoke(f.ctx, profile, e.ID, "op")
		f.want("revoke", err, nil)
		events := len(e.History)
		f.clock.Add(time.Second)
		e = f.settle(e.ID, u.Generation, o)
		f.state(e, store.Revoked)
		f.equal("events", len(e.History), events+1)
		_, err = f.s.Register(f.ctx, f.New(name))
		f.want(name, err, store.ErrChallengeUsed)
	}
	e := f.fresh("pending")
	_, u := f.claim(e.ID, "dev p")
	f.claim(e.ID, "dev p")
	f.settle(e.ID, u.Generation, store.OutcomePending)
	if _, err := f.s.Revoke(f.ctx, profile, e.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.state(f.settle(e.ID, u.Generation, store.OutcomeRefused), store.Revoked)
	f.counted(profile)
}

func expires(f *fixture) {
	e := f.fresh("c")
	f.clock.Add(time.Hour - 1)
	f.state(f.get(e.ID), store.Registered)
	f.state(*f.find("c"), store.Registered)
	f.clock.Add(1)
	x := f.get(e.ID)
	f.state(x, store.Expired) // threat D33
	f.state(*f.find("c"), store.Expired)
	f.equal("listed", f.all(store.Query{Profile: profile, State: store.Expired})[0].ID, e.ID)
	f.equal("listed", len(f.all(store.Query{Profile: profile, State: store.Registered})), 0)
	_, err := f.s.Extend(f.ctx, profile, e.ID, f.clock.Now().Add(time.Hour), "op")
	f.want("extend", err, store.ErrNotRegistered)
	f.clock.Add(time.Minute)
	f.equal("marked", f.sweep(), 1)
	f.equal("the sweeper changes nothing that is seen", f.get(e.ID), x)
	f.equal("expired at", x.ChangedAt, e.ExpiresAt)
	f.counted(profile)
}

func claimedOutlivesTime(f *fixture) {
	e := f.fresh("c")
	_, u := f.claim(e.ID, "dev")
	f.clock.Add(200 * 24 * time.Hour)
	f.equal("swept", f.sweep(), 0)
	f.state(f.get(e.ID), store.Claimed)
	f.claim(e.ID, "dev") // a retry at any age
	f.settle(e.ID, u.Generation, store.OutcomePending)
	f.clock.Add(200 * 24 * time.Hour)
	f.equal("swept", f.sweep(), 0)
	f.state(f.get(e.ID), store.Pending)
	f.state(f.settle(e.ID, u.Generation, store.OutcomeIssued), store.Issued)

	e = f.fresh("late failure")
	_, u = f.claim(e.ID, "dev 2")
	f.clock.Add(2 * time.Hour)
	f.state(f.settle(e.ID, u.Generation, store.OutcomeRefused), store.Expired)
	f.counted(profile)
}

func mismatches(f *fixture) {
	ev := store.Event{Reason: "subject_mismatch", ClientIP: "192.0.2.7", TransactionID: "t"}
	hit := func(id, identity string, max int) (store.Expectation, bool) {
		f.Helper()
		var digest []byte
		if identity != "" {
			digest = hash(identity)
		}
		e, locked, err := f.s.Mismatch(f.ctx, profile, id, digest, max, ev)
		if err != nil {
			f.Fatal(err)
		}
		if len(e.History) == 0 {
			f.Fatal("no history")
		}
		return e, locked
	}
	e := f.fresh("c")
	generation := e.Generation
	for _, identity := range []string{"a", "a", "", "b", "", "b", "a"} {
		var locked bool
		if e, locked = hit(e.ID, identity, 3); locked {
			f.Fatalf("locked by %d identities", len(e.Mismatches))
		}
	}
	f.state(e, store.Registered)
	f.equal("distinct", len(e.Mismatches), 2)
	f.equal("generation", e.Generation, generation) // a thief does not disturb the device's claim
	last := e.History[len(e.History)-1]
	f.equal("event", last, store.Event{At: f.clock.Now(), What: "mismatch", Reason: ev.Reason, ClientIP: ev.ClientIP, TransactionID: "t"})
	e, locked := hit(e.ID, "c", 3)
	f.equal("locked", locked, true)
	f.state(e, store.Locked)
	if e.Generation == generation {
		f.Fatal("locking left the generation")
	}
	_, locked = hit(e.ID, "d", 3)
	f.equal("locked again", locked, false)
	f.clock.Add(2 * time.Hour)
	f.state(f.get(e.ID), store.Locked)

	e = f.fresh("never")
	for i := range 200 {
		if e, locked = hit(e.ID, fmt.Sprint(i), 0); locked {
			f.Fatal("locked although nothing locks")
		}
	}
	f.state(e, store.Registered)
	if len(e.Mismatches) > 100 {
		f.Fatalf("%d digests kept", len(e.Mismatches))
	}

	e = f.fresh("claimed")
	_, u := f.claim(e.ID, "dev")
	for i := range 5 {
		if e, locked = hit(e.ID, fmt.Sprint(i), 3); locked {
			f.Fatal("a claimed one was locked")
		}
	}
	f.state(e, store.Claimed)
	f.state(f.settle(e.ID, u.Generation, store.OutcomeIssued), store.Issued)
	_, _, err := f.s.Mismatch(f.ctx, profile, ID(9999), hash("x"), 3, ev)
	f.want("mismatch", err, store.ErrNotFound)
	f.counted(profile)
}

func revokes(f *fixture) {
	revoke := func(id string) store.Expectation {
		f.Helper()
		e, err := f.s.Revoke(f.ctx, profile, id, "op")
		if err != nil {
			f.Fatal(err)
		}
		return e
	}
	e := revoke(f.fresh("registered").ID)
	f.state(e, store.Revoked)
	last := e.History[len(e.History)-1]
	f.equal("event", last, store.Event{At: f.clock.Now(), What: "revoked", By: "op"})
	f.clock.Add(time.Minute)
	f.equal("again", revoke(e.ID), e)
	f.state(*f.find("registered"), store.Revoked)

	e = f.fresh("issued")
	_, u := f.claim(e.ID, "dev")
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.state(revoke(e.ID), store.Revoked)

	e = f.fresh("expired")
	f.clock.Add(time.Hour)
	f.state(revoke(e.ID), store.Expired)

	_, err := f.s.Revoke(f.ctx, profile, ID(9999), "op")
	f.want("revoke", err, store.ErrNotFound)
	f.counted(profile)
}

func extends(f *fixture) {
	e := f.fresh("c")
	end := f.clock.Now().Add(3 * time.Hour)
	got, err := f.s.Extend(f.ctx, profile, e.ID, end, "op")
	f.want("extend", err, nil)
	f.equal("end", got.ExpiresAt, end)
	f.equal("event", got.History[len(got.History)-1].What, "extended")
	f.clock.Add(2 * time.Hour)
	f.equal("swept", f.sweep(), 0)
	f.state(f.get(e.ID), store.Registered)

	// Also to an earlier end.
	_, err = f.s.Extend(f.ctx, profile, e.ID, f.clock.Now(), "op")
	f.want("shorten", err, nil)
	f.state(f.get(e.ID), store.Expired)

	c := f.fresh("claimed")
	f.claim(c.ID, "dev")
	for _, id := range []string{c.ID, e.ID} {
		_, err = f.s.Extend(f.ctx, profile, id, end, "op")
		f.want("extend", err, store.ErrNotRegistered)
	}
	_, err = f.s.Extend(f.ctx, profile, ID(9999), end, "op")
	f.want("extend", err, store.ErrNotFound)
	f.counted(profile)
}

func historyBounded(f *fixture) {
	e := f.fresh("c")
	big := make([]byte, 100000)
	for i := range big {
		big[i] = 'x'
	}
	for i := range store.MaxHistory + 10 {
		var err error
		e, _, err = f.s.Mismatch(f.ctx, profile, e.ID, nil, 3, store.Event{Reason: fmt.Sprint(i), Text: string(big), ClientIP: string(big)})
		if err != nil {
			f.Fatal(err)
		}
	}
	f.equal("events", len(e.History), store.MaxHistory)
	f.equal("the last stays", e.History[store.MaxHistory-1].Reason, fmt.Sprint(store.MaxHistory+9))
	if n := len(e.History[0].Text) + len(e.History[0].ClientIP); n > 2000 {
		f.Fatalf("an event keeps %d bytes", n)
	}
	c := claimOf(e, "dev")
	c.UserAgent = string(big)
	_, u, err := f.s.Claim(f.ctx, c)
	f.want("claim", err, nil)
	if len(u.UserAgent) > 1000 {
		f.Fatalf("a use keeps %d bytes", len(u.UserAgent))
	}
}
