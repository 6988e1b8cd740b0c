package storetest

import (
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

const window = 20 * time.Minute

func retriesAfterIssue(f *fixture) {
	e := f.fresh("c")
	c := claimOf(e, "dev")
	c.RetryWindow = window
	_, u, err := f.s.Claim(f.ctx, c)
	f.want("claim", err, nil)
	e = f.settle(e.ID, u.Generation, store.OutcomeIssued)
	again := func(change func(*store.Claim)) error {
		c := claimOf(f.get(e.ID), "dev")
		c.RetryWindow = window
		change(&c)
		_, _, err := f.s.Claim(f.ctx, c)
		return err
	}
	same := func(*store.Claim) {}
	f.want("another transactionID", again(func(c *store.Claim) { c.TransactionID = "tx other" }), store.ErrUsed)
	f.want("another identity", again(func(c *store.Claim) { c.Identity = hash("other") }), store.ErrUsed)
	f.want("without a window", again(func(c *store.Claim) { c.RetryWindow = 0 }), store.ErrUsed)
	f.clock.Add(window - 1)
	f.want("within the window", again(same), nil)
	got := f.get(e.ID)
	f.state(got, store.Issued)
	if u := got.Uses[0]; u.Forwards != 2 || !u.SettledAt.Equal(e.Uses[0].SettledAt) {
		f.Fatalf("a retry after issue: %+v", u)
	}
	for _, o := range []store.Outcome{store.OutcomeRefused, store.OutcomeUnsent, store.OutcomeUnknown, store.OutcomePending} {
		f.state(f.settle(e.ID, u.Generation, o), store.Issued)
	}
	f.clock.Add(1)
	f.want("when the window is over", again(same), store.ErrUsed)
	if _, err := f.s.Revoke(f.ctx, profile, e.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.want("revoked", again(same), store.ErrNotRegistered)
}

func polls(f *fixture) {
	e := f.fresh("c")
	c := claimOf(e, "dev")
	c.Subject = hash("subject")
	_, u, err := f.s.Claim(f.ctx, c)
	f.want("claim", err, nil)
	poll := func(change func(*store.Claim)) error {
		c := claimOf(f.get(e.ID), "dev")
		c.Poll, c.Identity, c.Subject = true, nil, hash("subject")
		change(&c)
		_, _, err := f.s.Claim(f.ctx, c)
		return err
	}
	same := func(*store.Claim) {}
	f.want("while claimed", poll(same), store.ErrUsed)
	f.settle(e.ID, u.Generation, store.OutcomePending)
	f.clock.Add(30 * 24 * time.Hour) // days later, and after its time
	f.want("of another key", poll(func(c *store.Claim) { c.Key = hash("thief") }), store.ErrUsed)
	f.want("of another transaction", poll(func(c *store.Claim) { c.TransactionID = "tx other" }), store.ErrUsed)
	f.want("for another subject", poll(func(c *store.Claim) { c.Subject = hash("administrator") }), store.ErrUsed)
	f.want("for no subject", poll(func(c *store.Claim) { c.Subject = nil }), store.ErrUsed)
	f.want("its own", poll(same), nil)
	got := f.get(e.ID)
	f.state(got, store.Pending)
	if last := got.History[len(got.History)-1]; last.What != "polled" || got.Uses[0].Forwards != 2 {
		f.Fatalf("%+v, %+v", last, got.Uses[0])
	}

	lookup := store.Lookup{Profile: profile, ChallengeHash: hash("at random"), TransactionID: "tx dev", Poll: true}
	found, err := f.s.Find(f.ctx, lookup)
	if err != nil || found.Expectation != nil || found.Holder == nil || found.Holder.ID != e.ID {
		f.Fatalf("%+v, %v", found, err)
	}
	lookup.Poll = false
	if found, err = f.s.Find(f.ctx, lookup); err != nil || found.Holder != nil {
		f.Fatalf("a holder that nobody asked for: %+v, %v", found.Holder, err)
	}
	lookup.Poll, lookup.TransactionID = true, "tx nobody's"
	if found, err = f.s.Find(f.ctx, lookup); err != nil || found.Holder != nil {
		f.Fatalf("the holder of nothing: %+v, %v", found.Holder, err)
	}

	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.want("once issued", poll(same), store.ErrUsed)
}

// renewal is what the gateway keeps for a certificate's renewal.
func (f *fixture) renewal(certificate string) store.Expectation {
	e := f.New("")
	e.ChallengeHash, e.IdentityHash = hash("renewal of "+certificate), nil
	e.Owner, e.ExternalID = "", ""
	e.Renews = &store.Renews{SHA256: certificate}
	e.RetainUntil = e.CreatedAt.Add(365 * 24 * time.Hour)
	e.ExpiresAt = e.RetainUntil
	return e
}

func findsRenewals(f *fixture) {
	byHash := f.renewal("aa")
	byHash.Owner = "jamf"
	byHash = f.register(byHash)
	bySerial := f.renewal("bb")
	bySerial.ChallengeHash, bySerial.IdentityHash = nil, hash("serial 5")
	bySerial.Renews = &store.Renews{Serial: "5"}
	bySerial = f.register(bySerial)
	for _, c := range []struct {
		what   string
		lookup store.Lookup
		want   string
	}{
		{"both, the first is there", store.Lookup{ChallengeHash: hash("renewal of aa"), IdentityHash: hash("serial 5")}, byHash.ID},
		{"both, the second is there", store.Lookup{ChallengeHash: hash("renewal of zz"), IdentityHash: hash("serial 5")}, bySerial.ID},
		{"both, neither is there", store.Lookup{ChallengeHash: hash("renewal of zz"), IdentityHash: hash("serial 6")}, ""},
	} {
		c.lookup.Profile, c.lookup.TransactionID = profile, "tx"
		found, err := f.s.Find(f.ctx, c.lookup)
		got := ""
		if found.Expectation != nil {
			got = found.Expectation.ID
		}
		if err != nil || got != c.want {
			f.Errorf("%s: %q, %v", c.what, got, err)
		}
	}
}

func claimsNew(f *fixture) {
	claim := func(e store.Expectation, device string) store.Claim {
		c := claimOf(e, device)
		c.ID, c.Generation, c.New = e.ID, 1, &e
		return c
	}
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for i := range cap(errs) {
		e := f.renewal("aa")
		wg.Go(func() {
			_, _, err := f.s.Claim(f.ctx, claim(e, string(rune('a'+i))))
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	won := 0
	for err := range errs {
		if err == nil {
			won++
			continue
		}
		f.want("a lost race", err, store.ErrGeneration)
	}
	f.equal("claims that made the record", won, 1)
	found, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("renewal of aa"), TransactionID: "tx"})
	if err != nil || found.Expectation == nil {
		f.Fatalf("%+v, %v", found, err)
	}
	f.state(*found.Expectation, store.Claimed)
	f.equal("record", f.get(found.Expectation.ID), *found.Expectation)

	// A claim that fails leaves no record behind.
	e := f.renewal("bb")
	c := claim(e, "dev")
	c.Identity = nil
	if _, _, err := f.s.Claim(f.ctx, c); err == nil {
		f.Fatal("claimed without an identity")
	}
	taken := claim(f.renewal("cc"), "z")
	taken.TransactionID = "tx a"
	if _, err := f.s.Register(f.ctx, f.New("other")); err != nil {
		f.Fatal(err)
	}
	f.claim(f.fresh("holder of the transactionID").ID, "first")
	taken.TransactionID = "tx first"
	_, _, err = f.s.Claim(f.ctx, taken)
	f.want("a transactionID of another key", err, store.ErrTransactionConflict)
	for _, certificate := range []string{"bb", "cc"} {
		found, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("renewal of " + certificate), TransactionID: "tx"})
		if err != nil || found.Expectation != nil {
			f.Errorf("%s was left behind: %+v, %v", certificate, found.Expectation, err)
		}
	}
	f.counted(profile)
}

func retains(f *fixture) {
	e := f.register(f.renewal("aa"))
	_, u := f.claim(e.ID, "dev")
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	registered := f.renewal("bb")
	registered.RetainUntil = time.Time{} // whoever registered it did not know the certificate's end
	registered.ExpiresAt = f.clock.Now().Add(time.Hour)
	registered = f.register(registered)
	c := claimOf(registered, "of another")
	c.RetainUntil = f.clock.Now().Add(365 * 24 * time.Hour)
	_, v, err := f.s.Claim(f.ctx, c)
	f.want("claim", err, nil)
	f.settle(registered.ID, v.Generation, store.OutcomeIssued)
	stopped := f.register(f.renewal("cc"))
	stopped.RetainUntil = time.Time{}
	if _, err := f.s.Revoke(f.ctx, profile, stopped.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.clock.Add(2 * store.EndedRetention)
	f.sweep()
	f.state(f.get(stopped.ID), store.Revoked)

	f.clock.Add(store.Retention + time.Hour) // and the certificate is valid for longer
	f.sweep()
	f.state(f.get(e.ID), store.Issued)
	f.state(f.get(registered.ID), store.Issued)
	again := f.renewal("aa")
	_, err = f.s.Register(f.ctx, again)
	f.want("registering while the record must last", err, store.ErrChallengeUsed)
	f.clock.Add(365 * 24 * time.Hour)
	f.sweep()
	_, err = f.s.Get(f.ctx, profile, e.ID)
	f.want("when it need not last any more", err, store.ErrNotFound)
}

func releases(f *fixture) {
	release := func(id string) (store.Expectation, error) { return f.s.Release(f.ctx, profile, id, "ann") }
	last := func(e store.Expectation) store.Event { return e.History[len(e.History)-1] }

	e := f.fresh("locked")
	if _, locked, err := f.s.Mismatch(f.ctx, profile, e.ID, hash("wrong"), 1, store.Event{}); err != nil || !locked {
		f.Fatalf("locked %v, %v", locked, err)
	}
	e, err := release(e.ID)
	f.want("locked", err, nil)
	f.state(e, store.Registered)
	if l := last(e); l.What != "released" || l.By != "ann" || len(e.Mismatches) != 0 {
		f.Fatalf("%+v, %d mismatches", l, len(e.Mismatches))
	}
	f.claim(e.ID, "after the lock")

	e = f.fresh("in flight")
	_, u := f.claim(e.ID, "flying")
	_, err = release(e.ID)
	f.want("in flight", err, store.ErrExpectationInUse)
	f.settle(e.ID, u.Generation, store.OutcomeUnknown)
	e, err = release(e.ID)
	f.want("in doubt", err, nil)
	f.state(e, store.Registered)
	f.equal("kept", f.get(e.ID), e)
	f.claim(e.ID, "another key")
	e = f.settle(e.ID, u.Generation, store.OutcomeIssued)
	if last(e).Reason != "late" || len(e.Uses) != 1 {
		f.Fatalf("an answer after the release: %+v", e.Uses)
	}

	e = f.fresh("deferred")
	_, u = f.claim(e.ID, "deferred")
	f.settle(e.ID, u.Generation, store.OutcomeDeferred)
	e, err = release(e.ID)
	f.want("a failure that says nothing lasting", err, nil)
	f.state(e, store.Registered)

	e = f.fresh("too late")
	_, u = f.claim(e.ID, "late")
	f.settle(e.ID, u.Generation, store.OutcomeUnknown)
	f.clock.Add(2 * time.Hour)
	e, err = release(e.ID)
	f.want("after its time", err, nil)
	f.state(e, store.Expired)

	e = f.fresh("denied")
	_, u = f.claim(e.ID, "denied")
	f.settle(e.ID, u.Generation, store.OutcomePending)
	_, err = release(e.ID)
	f.want("pending", err, store.ErrNotReleasable)
	f.claim(e.ID, "denied")
	f.state(f.settle(e.ID, u.Generation, store.OutcomeRefused), store.Locked)
	e, err = release(e.ID)
	f.want("denied by the CA's manager", err, nil)
	f.state(e, store.Registered)

	for _, c := range []struct {
		name string
		end  func(id string)
	}{
		{"registered", func(string) {}},
		{"issued", func(id string) {
			_, u := f.claim(id, "issued")
			f.settle(id, u.Generation, store.OutcomeIssued)
		}},
		{"revoked", func(id string) {
			f.claim(id, "revoked")
			if _, err := f.s.Revoke(f.ctx, profile, id, "op"); err != nil {
				f.Fatal(err)
			}
		}},
		{"expired", func(string) { f.clock.Add(2 * time.Hour) }},
	} {
		e := f.fresh(c.name)
		c.end(e.ID)
		before := f.get(e.ID)
		_, err := release(e.ID)
		f.want(c.name, err, store.ErrNotReleasable)
		f.equal(c.name, f.get(e.ID), before)
	}
	_, err = release(ID(9999))
	f.want("unknown", err, store.ErrNotFound)

	// Of several uses only those in doubt go.
	e = f.New("several")
	e.MaxUses = 3
	e = f.register(e)
	_, a := f.claim(e.ID, "a")
	f.settle(e.ID, a.Generation, store.OutcomeIssued)
	_, b := f.claim(e.ID, "b")
	f.settle(e.ID, b.Generation, store.OutcomeUnknown)
	e, err = release(e.ID)
	f.want("one of several", err, nil)
	if len(e.Uses) != 1 || e.Uses[0].State != store.Issued {
		f.Fatalf("%+v", e.Uses)
	}

	if f.engine.Reopen == nil {
		return
	}
	// Whoever sent what was in flight when the process ended is gone.
	e = f.fresh("crashed")
	f.claim(e.ID, "crashed")
	f.clock.Add(time.Minute)
	f.s = f.engine.Reopen(f.T, f.s)
	e, err = release(e.ID)
	f.want("after opening again", err, nil)
	f.state(e, store.Registered)
}

func doubts(f *fixture) {
	claim := func(name string, release time.Duration) (store.Expectation, store.Use) {
		c := claimOf(f.fresh(name), name)
		c.RetryWindow, c.ReleaseAfter = window, release
		e, u, err := f.s.Claim(f.ctx, c)
		f.want(name, err, nil)
		return e, u
	}
	sweep := func() (ids []string) {
		f.Helper()
		swept, err := f.s.Sweep(f.ctx, 1000)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range swept.InDoubt {
			ids = append(ids, e.ID)
		}
		return ids
	}
	told, u := claim("told", 0)
	f.settle(told.ID, u.Generation, store.OutcomeUnknown)
	answered, u := claim("answered", time.Hour)
	f.settle(answered.ID, u.Generation, store.OutcomeIssued)
	waits, u := claim("waits", time.Hour)
	f.settle(waits.ID, u.Generation, store.OutcomePending)
	freed, u := claim("freed", time.Hour)
	f.settle(freed.ID, u.Generation, store.OutcomeUnknown)

	f.clock.Add(window - 1)
	f.equal("before the window is over", sweep(), []string(nil))
	f.clock.Add(1)
	got := map[string]bool{}
	for _, id := range sweep() {
		got[id] = true
	}
	f.equal("in doubt", got, map[string]bool{told.ID: true, freed.ID: true})
	f.equal("told once", sweep(), []string(nil))

	f.clock.Add(40*time.Minute - 1)
	f.sweep()
	f.state(f.get(freed.ID), store.Claimed)
	f.clock.Add(1)
	f.sweep()
	e := f.get(freed.ID)
	if last := e.History[len(e.History)-1]; len(e.Uses) != 0 || last.What != "expired" && last.What != "released" {
		f.Fatalf("not released: %+v, %+v", e.Uses, last)
	}
	f.state(f.get(told.ID), store.Claimed) // nobody asked for its release
	f.state(f.get(waits.ID), store.Pending)
	f.state(f.get(answered.ID), store.Issued)

	// One in flight may still bring a certificate, but not for ever: what NDES
	// answered may not have been written down.
	flying, _ := claim("flying", 5*time.Minute)
	f.clock.Add(6 * time.Minute)
	f.sweep()
	f.state(f.get(flying.ID), store.Claimed)
	f.clock.Add(10 * time.Minute)
	f.sweep()
	f.state(f.get(flying.ID), store.Registered)
	f.counted(profile)
}

// A certificate is renewed under one record, whatever leads to it.
func oneRecordPerCertificate(f *fixture) {
	f.n += 100
	bySerial := func(serial, owner string) store.Expectation {
		e := f.renewal("")
		e.Renews, e.Owner = &store.Renews{Serial: serial}, owner
		e.ChallengeHash, e.IdentityHash = nil, hash("serial "+serial)
		return e
	}
	claim := func(e store.Expectation, device, certificate string) (store.Use, error) {
		c := claimOf(e, device)
		c.Certificate, c.RetainUntil = hash(certificate), f.clock.Now().Add(365*24*time.Hour)
		_, u, err := f.s.Claim(f.ctx, c)
		return u, err
	}
	first := f.register(bySerial("5", "jamf"))
	u, err := claim(first, "a", "cert 5")
	f.want("the first", err, nil)
	f.settle(first.ID, u.Generation, store.OutcomeIssued)

	again := f.register(bySerial("5", "jamf")) // found by identity, which leaves no tombstone
	for _, device := range []string{"b", "a"} {
		_, err := claim(again, device, "cert 5")
		f.want("registered again by its serial", err, store.ErrKeyConflict)
	}
	byHash := f.register(f.renewal("hash of cert 5"))
	_, err = claim(byHash, "b", "cert 5")
	f.want("registered by its hash", err, store.ErrKeyConflict)
	made := f.renewal("another spelling of cert 5")
	c := claimOf(made, "b")
	c.ID, c.Generation, c.New, c.Certificate = made.ID, 1, &made, hash("cert 5")
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("made anew", err, store.ErrKeyConflict)
	elsewhere := f.renewal("in another profile")
	elsewhere.Profile = "vpn"
	elsewhere = f.register(elsewhere)
	_, err = claim(elsewhere, "b", "cert 5")
	f.want("in another profile", err, store.ErrKeyConflict)
	_, err = claim(byHash, "b", "cert 6")
	f.want("another certificate", err, nil)

	if _, err := f.s.Revoke(f.ctx, profile, again.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.clock.Add(store.Retention + 24*time.Hour)
	f.sweep()
	later := f.register(bySerial("5", "jamf"))
	_, err = claim(later, "b", "cert 5")
	f.want("when the first record may be gone", err, store.ErrKeyConflict)

	// One that never ends is kept as well: its time is beyond what a duration holds.
	endless := func(e store.Expectation, device string) error {
		c := claimOf(e, device)
		c.Certificate, c.RetainUntil = hash("endless"), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		_, _, err := f.s.Claim(f.ctx, c)
		return err
	}
	f.want("one without an end", endless(f.register(bySerial("9", "jamf")), "first of endless"), nil)
	f.want("once more", endless(f.register(f.renewal("hash of endless")), "second of endless"), store.ErrKeyConflict)

	// What is given back may be claimed under another record.
	for what, end := range map[string]func(store.Expectation, store.Use){
		"refused": func(e store.Expectation, u store.Use) { f.settle(e.ID, u.Generation, store.OutcomeRefused) },
		"unsent":  func(e store.Expectation, u store.Use) { f.settle(e.ID, u.Generation, store.OutcomeUnsent) },
		"released": func(e store.Expectation, u store.Use) {
			f.settle(e.ID, u.Generation, store.OutcomeUnknown)
			if _, err := f.s.Release(f.ctx, profile, e.ID, "op"); err != nil {
				f.Fatal(err)
			}
		},
	} {
		e := f.register(bySerial("of "+what, "jamf"))
		u, err := claim(e, what+" 1", "cert "+what)
		f.want(what, err, nil)
		other := f.register(f.renewal("hash of " + what))
		_, err = claim(other, what+" 2", "cert "+what)
		f.want(what+", while it is held", err, store.ErrKeyConflict)
		end(e, u)
		_, err = claim(other, what+" 2", "cert "+what)
		f.want(what+", given back", err, nil)
	}
}

// Of two records for one certificate the one that stops it counts.
func decisive(f *fixture) {
	found := func() string {
		hit, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("renewal of aa"), IdentityHash: hash("serial 7"), TransactionID: "tx"})
		if err != nil || hit.Expectation == nil {
			f.Fatalf("%+v, %v", hit, err)
		}
		return hit.Expectation.ID
	}
	own := f.register(f.renewal("aa")) // made by the gateway, nobody holds it
	f.equal("alone", found(), own.ID)
	registered := f.renewal("")
	registered.Renews, registered.Owner = &store.Renews{Serial: "7"}, "jamf"
	registered.ChallengeHash, registered.IdentityHash = nil, hash("serial 7")
	registered = f.register(registered)
	f.equal("registered beside it", found(), registered.ID)
	if _, err := f.s.Revoke(f.ctx, profile, registered.ID, "jamf"); err != nil {
		f.Fatal(err)
	}
	f.equal("revoked", found(), registered.ID)

	// And a registration by the hash takes the place of what nobody holds.
	byHash := f.renewal("aa")
	byHash.Owner = "jamf"
	byHash = f.register(byHash)
	if _, err := f.s.Revoke(f.ctx, profile, byHash.ID, "jamf"); err != nil {
		f.Fatal(err)
	}
	f.equal("registered by its hash, and revoked", found(), byHash.ID)
}

// A registration that time has ended is not in the way of one under the other hash.
func decisiveInTime(f *fixture) {
	byHash := f.renewal("aa")
	byHash.Owner, byHash.ExpiresAt = "jamf", f.clock.Now().Add(time.Hour)
	byHash = f.register(byHash)
	bySerial := f.renewal("")
	bySerial.Renews, bySerial.Owner = &store.Renews{Serial: "7"}, "jamf"
	bySerial.ChallengeHash, bySerial.IdentityHash = nil, hash("serial 7")
	bySerial = f.register(bySerial)
	for _, want := range []string{byHash.ID, bySerial.ID} {
		hit, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("renewal of aa"), IdentityHash: hash("serial 7"), TransactionID: "tx"})
		if err != nil || hit.Expectation == nil || hit.Expectation.ID != want {
			f.Fatalf("%+v, %v; want %s", hit.Expectation, err, want)
		}
		f.clock.Add(2 * time.Hour)
	}
}
