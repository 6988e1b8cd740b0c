package storetest

import (
	"bytes"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/scepgate/scepgate/store"
)

func registers(f *fixture) {
	in := f.New("c")
	in.ExternalID = "jamf:1"
	e := f.register(in)
	f.state(e, store.Registered)
	if e.Generation == 0 || !e.ChangedAt.Equal(f.clock.Now()) || len(e.History) != 1 || e.History[0].What != "registered" || e.History[0].By != "jamf" {
		f.Fatalf("not as registered: %+v", e)
	}
	f.equal("registered", cmp.Diff(in, e, cmpopts.IgnoreFields(store.Expectation{}, "State", "Generation", "ChangedAt", "History")), "")
	f.equal("got", f.get(e.ID), e)
	f.equal("found", *f.find("c"), e)
	if f.find("another") != nil {
		f.Fatal("found what nobody registered")
	}
	found, err := f.s.Find(f.ctx, store.Lookup{Profile: "lan", ChallengeHash: in.ChallengeHash})
	if err != nil || found.Expectation != nil {
		f.Fatalf("found in another profile: %+v, %v", found, err) // threat F10
	}
	_, err = f.s.Get(f.ctx, "lan", e.ID)
	f.want("get from another profile", err, store.ErrNotFound)
	_, err = f.s.Get(f.ctx, profile, ID(99))
	f.want("get", err, store.ErrNotFound)

	static := f.New("")
	static.ChallengeHash, static.IdentityHash = nil, hash("ann")
	e = f.register(static)
	found, err = f.s.Find(f.ctx, store.Lookup{Profile: profile, IdentityHash: hash("ann")})
	if err != nil || found.Expectation == nil {
		f.Fatalf("by identity: %+v, %v", found, err)
	}
	f.equal("by identity", *found.Expectation, e)
	found, err = f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("ann")})
	if err != nil || found.Expectation != nil {
		f.Fatalf("an identity found as a challenge: %+v, %v", found, err)
	}
	if err := f.s.Check(f.ctx); err != nil {
		f.Fatalf("check: %v", err)
	}
	f.counted(profile)
}

func refusesNonsense(f *fixture) {
	for name, spoil := range map[string]func(*store.Expectation){
		"no id":           func(e *store.Expectation) { e.ID = "" },
		"no profile":      func(e *store.Expectation) { e.Profile = "" },
		"no hash":         func(e *store.Expectation) { e.ChallengeHash = nil },
		"both hashes":     func(e *store.Expectation) { e.IdentityHash = hash("x") },
		"no use":          func(e *store.Expectation) { e.MaxUses = 0 },
		"no end":          func(e *store.Expectation) { e.ExpiresAt = time.Time{} },
		"not UTF-8":       func(e *store.Expectation) { e.ExternalID = "\xff" },
		"a huge name":     func(e *store.Expectation) { e.ExternalID = strings.Repeat("x", 70000) },
		"a huge request":  func(e *store.Expectation) { e.Request = []byte(`{"subject":"` + strings.Repeat("x", 1<<20) + `"}`) },
		"a challenge":     func(e *store.Expectation) { e.Request = []byte(`{"challenge":"8CE317021F690069"}`) },
		"broken request":  func(e *store.Expectation) { e.Request = []byte("{") },
		"the zero record": func(e *store.Expectation) { *e = store.Expectation{} },
	} {
		e := f.New(name)
		spoil(&e)
		if out, err := f.s.Register(f.ctx, e); err == nil || out.ID != "" {
			f.Errorf("%s: registered, %v", name, err)
		}
	}
	e := f.fresh("first")
	again := f.New("second")
	again.ID = e.ID
	if _, err := f.s.Register(f.ctx, again); err == nil {
		f.Error("an id was registered twice")
	}
	f.equal("what had the id", f.get(e.ID), e)
	if _, err := f.s.Find(f.ctx, store.Lookup{Profile: profile}); err == nil {
		f.Error("a lookup for nothing was answered")
	}
	for name, r := range map[string]*store.Renews{"neither": {}, "both": {SHA256: "aa", Serial: "bb"}} {
		e := f.New("renewal of " + name)
		e.Renews = r
		if _, err := f.s.Register(f.ctx, e); err == nil {
			f.Errorf("a renewal of %s was registered", name)
		}
	}
	f.counted(profile)
}

func holdsOnce(f *fixture) {
	a := f.New("c")
	a.ExternalID = "jamf:1"
	a = f.register(a)

	_, err := f.s.Register(f.ctx, f.New("c"))
	f.want("same challenge", err, store.ErrChallengeInUse)
	b := f.New("other")
	b.ExternalID = "jamf:1"
	_, err = f.s.Register(f.ctx, b)
	f.want("same external id", err, store.ErrExternalIDInUse)
	if f.find("other") != nil {
		f.Fatal("a refused registration left its challenge behind")
	}
	static := func() store.Expectation {
		e := f.New("")
		e.ChallengeHash, e.IdentityHash = nil, hash("ann")
		return e
	}
	s := f.register(static())
	_, err = f.s.Register(f.ctx, static())
	f.want("same identity", err, store.ErrIdentityInUse)

	// Another profile is another world.
	other := Example(1000, "lan", "c", f.clock.Now())
	other.ChallengeHash, other.ExternalID = a.ChallengeHash, "jamf:1"
	f.register(other)

	// Each live state holds; an ended one that was never claimed does not.
	for i, hold := range []func(){
		func() {},
		func() { f.claim(a.ID, "dev") },
		func() { f.settle(a.ID, f.get(a.ID).Uses[0].Generation, store.OutcomePending) },
		func() { f.settle(a.ID, f.get(a.ID).Uses[0].Generation, store.OutcomeRefused) }, // locked
	} {
		hold()
		_, err = f.s.Register(f.ctx, f.New("c"))
		f.want(string(f.get(a.ID).State), err, store.ErrChallengeInUse)
		b.ID = ID(500 + i)
		_, err = f.s.Register(f.ctx, b)
		f.want(string(f.get(a.ID).State), err, store.ErrExternalIDInUse)
	}
	f.state(f.get(a.ID), store.Locked)

	if _, err := f.s.Revoke(f.ctx, profile, s.ID, "jamf"); err != nil {
		f.Fatal(err)
	}
	s = f.register(static())
	f.clock.Add(time.Hour)
	f.state(f.get(s.ID), store.Expired)
	s = f.register(static())
	found, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, IdentityHash: hash("ann")})
	if err != nil || found.Expectation == nil || found.Expectation.ID != s.ID {
		f.Fatalf("the newest is not found: %+v, %v", found, err)
	}

	never := f.fresh("never claimed")
	f.clock.Add(time.Hour)
	next := f.fresh("never claimed")
	f.equal("found", f.find("never claimed").ID, next.ID)
	f.clock.Add(25 * time.Hour)
	f.sweep() // takes the older one, not what the newer one holds
	_, err = f.s.Get(f.ctx, profile, never.ID)
	f.want("swept", err, store.ErrNotFound)
	f.counted(profile, "lan")
}

func tombstones(f *fixture) {
	for name, end := range map[string]func(id string, u store.Use){
		"issued": func(id string, u store.Use) { f.settle(id, u.Generation, store.OutcomeIssued) },
		"issued, then revoked": func(id string, u store.Use) {
			f.settle(id, u.Generation, store.OutcomeIssued)
			if _, err := f.s.Revoke(f.ctx, profile, id, "op"); err != nil {
				f.Fatal(err)
			}
		},
		"refused, then expired": func(id string, u store.Use) {
			f.settle(id, u.Generation, store.OutcomeRefused)
			f.clock.Add(time.Hour)
		},
		"never sent, then expired": func(id string, u store.Use) {
			f.settle(id, u.Generation, store.OutcomeUnsent)
			f.clock.Add(time.Hour)
		},
		"revoked while claimed": func(id string, u store.Use) {
			if _, err := f.s.Revoke(f.ctx, profile, id, "op"); err != nil {
				f.Fatal(err)
			}
		},
	} {
		e := f.fresh(name)
		_, u := f.claim(e.ID, name)
		end(e.ID, u)
		if f.get(e.ID).State.Live() {
			f.Fatalf("%s: still live", name)
		}
		left := f.get(e.ID).ChangedAt.Add(store.Retention).Sub(f.clock.Now())
		f.clock.Add(left - 1)
		f.sweep()
		_, err := f.s.Register(f.ctx, f.New(name))
		f.want(name+": just before the retention ends", err, store.ErrChallengeUsed)
		f.clock.Add(1)
		// Whether or not the sweeper has come by.
		f.equal("registered again", f.fresh(name).State, store.Registered)
		f.sweep()
		_, err = f.s.Get(f.ctx, profile, e.ID)
		f.want(name+": after the retention", err, store.ErrNotFound)
		if f.find(name) == nil {
			f.Fatalf("%s: the sweeper took the new one's challenge", name)
		}
	}
	f.counted(profile)
}

func (f *fixture) replacement(external, challenge string) store.Expectation {
	e := f.New(challenge)
	e.ExternalID = external
	return e
}

func replaces(f *fixture) {
	never := func(store.Expectation) bool { return false }
	a, replaced, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "a"), never)
	f.want("first", err, nil)
	f.equal("replaced", replaced, false)
	f.state(a, store.Registered)

	b, replaced, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "b"), func(old store.Expectation) bool {
		f.equal("old", old.ID, a.ID)
		return false
	})
	f.want("second", err, nil)
	f.equal("replaced", replaced, true)
	old := f.find("a")
	if old == nil {
		f.Fatal("a late device does not get its reason")
	}
	f.state(*old, store.Revoked)
	f.equal("history", old.History[len(old.History)-1].What, "replaced")
	f.equal("found", f.find("b").ID, b.ID)

	// With the challenge that the old one has, too.
	c, replaced, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "b"), never)
	f.want("same challenge", err, nil)
	f.equal("replaced", replaced, true)
	f.equal("found", f.find("b").ID, c.ID)
	f.state(f.get(b.ID), store.Revoked)

	// A nil same replaces as well; a locked one can be replaced.
	for i := range 3 {
		if _, _, err := f.s.Mismatch(f.ctx, profile, c.ID, []byte{byte(i)}, 3, store.Event{}); err != nil {
			f.Fatal(err)
		}
	}
	f.state(f.get(c.ID), store.Locked)
	d, replaced, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "d"), nil)
	f.want("locked", err, nil)
	f.equal("replaced", replaced, true)
	f.state(f.get(c.ID), store.Revoked)

	// Somebody else's challenge is in the way, and then nothing has happened.
	f.fresh("theirs")
	_, _, err = f.s.Replace(f.ctx, f.replacement("jamf:1", "theirs"), never)
	f.want("another's challenge", err, store.ErrChallengeInUse)
	f.equal("the old one", f.get(d.ID), d)

	// What was claimed once cannot be registered again by replacing it.
	_, u := f.claim(d.ID, "dev")
	f.settle(d.ID, u.Generation, store.OutcomeRefused)
	f.state(f.get(d.ID), store.Registered)
	_, _, err = f.s.Replace(f.ctx, f.replacement("jamf:1", "d"), never)
	f.want("a used challenge", err, store.ErrChallengeUsed)
	f.state(f.get(d.ID), store.Registered)

	// By identity.
	s := f.replacement("jamf:2", "")
	s.ChallengeHash, s.IdentityHash = nil, hash("ann")
	f.register(s)
	s.ID = ID(900)
	s, replaced, err = f.s.Replace(f.ctx, s, never)
	f.want("same identity", err, nil)
	f.equal("replaced", replaced, true)
	found, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, IdentityHash: hash("ann")})
	if err != nil || found.Expectation == nil || found.Expectation.ID != s.ID {
		f.Fatalf("by identity: %+v, %v", found, err)
	}

	if _, _, err := f.s.Replace(f.ctx, f.New("no external id"), never); err == nil {
		f.Error("replaced without an external id")
	}
	f.counted(profile)
}

func replaceInUse(f *fixture) {
	a := f.register(f.replacement("jamf:1", "a"))
	_, u := f.claim(a.ID, "dev")
	for _, s := range []store.State{store.Claimed, store.Pending} {
		before := f.get(a.ID)
		f.state(before, s)
		_, _, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "b"), func(store.Expectation) bool { return true })
		f.want(string(s), err, store.ErrExpectationInUse)
		f.equal("the old one", f.get(a.ID), before)
		f.settle(a.ID, u.Generation, store.OutcomePending)
	}
	f.settle(a.ID, u.Generation, store.OutcomeIssued)
	b, replaced, err := f.s.Replace(f.ctx, f.replacement("jamf:1", "b"), nil)
	f.want("issued", err, nil)
	f.equal("replaced", replaced, false)
	f.state(b, store.Registered)
	f.state(f.get(a.ID), store.Issued)

	// Uses left, but one is open.
	m := f.replacement("jamf:3", "m")
	m.MaxUses = 2
	m = f.register(m)
	f.claim(m.ID, "dev m")
	_, _, err = f.s.Replace(f.ctx, f.replacement("jamf:3", "n"), nil)
	f.want("one use open", err, store.ErrExpectationInUse)
	f.counted(profile)
}

func replaceSame(f *fixture) {
	a := f.register(f.replacement("jamf:1", "a"))
	again := f.replacement("jamf:1", "a")
	again.ExpiresAt = a.ExpiresAt.Add(time.Hour)
	got, replaced, err := f.s.Replace(f.ctx, again, func(store.Expectation) bool { return true })
	f.want("same", err, nil)
	f.equal("replaced", replaced, true)
	f.equal("id", got.ID, a.ID)
	f.equal("end", got.ExpiresAt, again.ExpiresAt)
	f.equal("kept", f.get(a.ID), got)
	_, err = f.s.Get(f.ctx, profile, again.ID)
	f.want("the other", err, store.ErrNotFound)

	twice, _, err := f.s.Replace(f.ctx, again, func(store.Expectation) bool { return true })
	f.want("same again", err, nil)
	f.equal("unchanged", twice, got)
	f.counted(profile)
}

func names(f *fixture) {
	long := strings.Repeat("ü", 200)
	parts := []string{"", "\x00", "a", "a\x00", "\x00a", "a/b", "a//b", "a|", "ä", "A", " a", "a\x01b", strings.Repeat("\xc3\xbf", 127), long, long + "x", "e", "c", "../a"}
	type made struct{ profile, external, id string }
	var all []made
	n := 0
	for _, p := range parts[1:] {
		for _, x := range parts {
			n++
			e := Example(n, p, "c"+x, f.clock.Now())
			e.ExternalID = x
			e = f.register(e)
			all = append(all, made{p, x, e.ID})
		}
	}
	for _, m := range all {
		e, err := f.s.Get(f.ctx, m.profile, m.id)
		if err != nil || e.Profile != m.profile || e.ExternalID != m.external {
			f.Fatalf("get %q %q: %+v, %v", m.profile, m.external, e, err)
		}
		found, err := f.s.Find(f.ctx, store.Lookup{Profile: m.profile, ChallengeHash: e.ChallengeHash})
		if err != nil || found.Expectation == nil || found.Expectation.ID != m.id {
			f.Fatalf("find %q %q: %+v, %v", m.profile, m.external, found, err)
		}
		if m.external == "" {
			continue
		}
		items := f.all(store.Query{Profile: m.profile, ExternalID: m.external})
		if len(items) != 1 || items[0].ID != m.id {
			f.Fatalf("by external id %q %q: %d items", m.profile, m.external, len(items))
		}
	}
	for _, p := range parts[1:] {
		if got := len(f.all(store.Query{Profile: p, Limit: 5})); got != len(parts) {
			f.Fatalf("profile %q lists %d of %d", p, got, len(parts))
		}
	}
	for _, id := range []string{"", "\x00", strings.Repeat("x", 100000), "\xff\xff", "exp_"} {
		_, err := f.s.Get(f.ctx, "a", id)
		f.want("get", err, store.ErrNotFound)
		_, err = f.s.Get(f.ctx, "nobody"+id, ID(1))
		f.want("get", err, store.ErrNotFound)
	}
	found, err := f.s.Find(f.ctx, store.Lookup{Profile: "a", ChallengeHash: bytes.Repeat([]byte{1}, 100000), TransactionID: strings.Repeat("t", 100000)})
	if err != nil || found.Expectation != nil || found.TransactionKey != nil {
		f.Fatalf("find: %+v, %v", found, err)
	}
}
