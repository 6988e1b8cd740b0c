package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

func claims(f *fixture) {
	before := f.fresh("c")
	e, u := f.claim(before.ID, "dev")
	f.state(e, store.Claimed)
	c := claimOf(before, "dev")
	f.equal("use", u, store.Use{
		Generation: e.Generation, State: store.Claimed, Key: c.Key, Identity: c.Identity,
		TransactionIDs: []string{c.TransactionID}, SenderNonces: [][]byte{c.SenderNonce},
		Forwards: 1, ClaimedAt: f.clock.Now(), ForwardedAt: f.clock.Now(), ClientIP: c.ClientIP, UserAgent: c.UserAgent,
	})
	f.equal("kept", f.get(e.ID), e)
	f.equal("found", *f.find("c"), e)
	if !e.EverClaimed || e.Generation <= before.Generation {
		f.Fatalf("not marked as claimed: %+v", e)
	}

	// A retry brings another transactionID and nonce, and the claimer stays who it was.
	f.clock.Add(time.Minute)
	c = claimOf(e, "dev")
	c.TransactionID, c.SenderNonce, c.ClientIP, c.UserAgent = "tx 2", hash("2")[:16], "198.51.100.9", "other"
	e2, u2, err := f.s.Claim(f.ctx, c)
	f.want("retry", err, nil)
	f.state(e2, store.Claimed)
	if u2.Generation != u.Generation || u2.Forwards != 2 || u2.Verified != 0 || len(u2.TransactionIDs) != 2 || len(u2.SenderNonces) != 2 ||
		u2.ClientIP != u.ClientIP || !u2.ClaimedAt.Equal(u.ClaimedAt) {
		f.Fatalf("retry: %+v", u2)
	}

	// Kept per use: the last MaxForwards.
	for i := range store.MaxForwards + 5 {
		c := claimOf(f.get(e.ID), "dev")
		c.TransactionID, c.SenderNonce = fmt.Sprintf("tx %d", 100+i), hash(fmt.Sprint("nonce ", i))[:16]
		if _, u2, err = f.s.Claim(f.ctx, c); err != nil {
			f.Fatal(err)
		}
	}
	if len(u2.TransactionIDs) != store.MaxForwards || len(u2.SenderNonces) != store.MaxForwards ||
		u2.TransactionIDs[store.MaxForwards-1] != fmt.Sprintf("tx %d", 100+store.MaxForwards+4) {
		f.Fatalf("%d transactionIDs, %d nonces kept", len(u2.TransactionIDs), len(u2.SenderNonces))
	}
	f.counted(profile)
}

func claimRefused(f *fixture) {
	e := f.fresh("c")
	try := func(what string, c store.Claim, want error) {
		f.Helper()
		before, _ := f.s.Get(f.ctx, c.Profile, c.ID)
		out, u, err := f.s.Claim(f.ctx, c)
		if err == nil || want != nil && !errors.Is(err, want) {
			f.Fatalf("%s: error %v, want %v", what, err, want)
		}
		if out.ID != "" || u.Forwards != 0 {
			f.Fatalf("%s: a refused claim returned %+v", what, u)
		}
		after, _ := f.s.Get(f.ctx, c.Profile, c.ID)
		f.equal(what+": the expectation", after, before)
	}
	c := claimOf(e, "dev")
	for what, spoil := range map[string]func(*store.Claim){
		"no key":           func(c *store.Claim) { c.Key = nil },
		"no identity":      func(c *store.Claim) { c.Identity = nil },
		"no transactionID": func(c *store.Claim) { c.TransactionID = "" },
		"the zero claim":   func(c *store.Claim) { *c = store.Claim{} },
	} {
		c := c
		spoil(&c)
		try(what, c, nil)
	}
	gone := c
	gone.ID = ID(99)
	try("unknown id", gone, store.ErrNotFound)
	other := c
	other.Profile = "lan"
	try("another profile", other, store.ErrNotFound)
	stale := c
	stale.Generation += 7
	try("another generation", stale, store.ErrGeneration)

	e, u := f.claim(e.ID, "dev")
	try("the generation before", c, store.ErrGeneration)
	try("another key", claimOf(e, "thief"), store.ErrKeyConflict)
	changed := claimOf(e, "dev")
	changed.Identity = hash("somebody else")
	try("own key, other identity", changed, store.ErrUsed)
	e = f.settle(e.ID, u.Generation, store.OutcomePending)
	try("another key while pending", claimOf(e, "thief"), store.ErrKeyConflict)
	e = f.settle(e.ID, u.Generation, store.OutcomeIssued)
	try("own key, issued", claimOf(e, "dev"), store.ErrUsed)
	try("another key, issued", claimOf(e, "thief"), store.ErrKeyConflict)
	e, err := f.s.Revoke(f.ctx, profile, e.ID, "op")
	f.want("revoke", err, nil)
	try("revoked", claimOf(e, "thief"), store.ErrNotRegistered)
	try("revoked, own key", claimOf(e, "dev"), store.ErrNotRegistered)

	e = f.fresh("revoked while claimed")
	f.claim(e.ID, "dev r")
	e, err = f.s.Revoke(f.ctx, profile, e.ID, "op")
	f.want("revoke", err, nil)
	try("a retry after revocation", claimOf(e, "dev r"), store.ErrNotRegistered)

	e = f.fresh("locked")
	e, locked, err := f.s.Mismatch(f.ctx, profile, e.ID, hash("wrong"), 1, store.Event{})
	if err != nil || !locked {
		f.Fatalf("locked %v, %v", locked, err)
	}
	try("locked", claimOf(e, "dev l"), store.ErrNotRegistered)

	e = f.fresh("expired")
	asRead := claimOf(e, "dev e")
	f.clock.Add(time.Hour)
	try("expired since it was read", asRead, store.ErrNotRegistered)
	try("expired", claimOf(f.get(e.ID), "dev e"), store.ErrNotRegistered)
	f.counted(profile)
}

func transactions(f *fixture) {
	key := func(tx string) []byte {
		f.Helper()
		found, err := f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: hash("nobody"), TransactionID: tx})
		if err != nil {
			f.Fatal(err)
		}
		return found.TransactionKey
	}
	a, b := f.fresh("a"), f.fresh("b")
	if key("tx dev") != nil {
		f.Fatal("bound before any claim")
	}
	f.claim(a.ID, "dev")
	f.equal("bound key", key("tx dev"), hash("key dev"))

	c := claimOf(b, "thief")
	c.TransactionID = "tx dev"
	_, _, err := f.s.Claim(f.ctx, c)
	f.want("another key", err, store.ErrTransactionConflict) // threat D22
	f.equal("not claimed", f.get(b.ID), b)
	f.equal("bound key", key("tx dev"), hash("key dev"))

	c = claimOf(b, "dev") // the same key may use it elsewhere
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("same key", err, nil)

	other := f.register(Example(700, "lan", "l", f.clock.Now()))
	c = claimOf(other, "thief")
	c.TransactionID = "tx dev"
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("another profile", err, nil)

	f.clock.Add(store.Retention - 1)
	f.sweep()
	f.equal("bound key", key("tx dev"), hash("key dev"))
	f.clock.Add(1)
	if key("tx dev") != nil {
		f.Fatal("bound for ever")
	}
	n := f.fresh("n")
	c = claimOf(n, "thief")
	c.TransactionID = "tx dev"
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("after the retention", err, nil)
}

// An old message does not claim what was registered anew for its device (threat D01).
func replays(f *fixture) {
	register := func(n int) store.Expectation {
		e := f.New(fmt.Sprint("static ", n))
		e.ChallengeHash, e.IdentityHash = nil, hash("ann")
		return f.register(e)
	}
	first := register(1)
	old := claimOf(first, "ann")
	_, u, err := f.s.Claim(f.ctx, old)
	f.want("first", err, nil)
	f.settle(first.ID, u.Generation, store.OutcomeIssued)

	second := register(2)
	again := old
	again.ID, again.Generation = second.ID, second.Generation
	_, _, err = f.s.Claim(f.ctx, again)
	f.want("the same message for the new one", err, store.ErrUsed)
	f.equal("not claimed", f.get(second.ID), second)
	fresh := again
	fresh.SenderNonce = []byte("another nonce of the same key")
	_, _, err = f.s.Claim(f.ctx, fresh)
	f.want("a new message of the same key and transactionID", err, nil)
	fresh.Generation = f.get(second.ID).Generation
	_, _, err = f.s.Claim(f.ctx, fresh)
	f.want("and its retry", err, nil)
}

func uses(f *fixture) {
	e := f.New("m")
	e.MaxUses = 2
	e = f.register(e)
	e, a := f.claim(e.ID, "a")
	f.state(e, store.Registered) // a use is left
	if !e.InUse() {
		f.Fatal("not in use")
	}
	f.claim(e.ID, "a") // a retry takes none
	e, b := f.claim(e.ID, "b")
	f.state(e, store.Claimed)
	_, _, err := f.s.Claim(f.ctx, claimOf(e, "c"))
	f.want("third key", err, store.ErrKeyConflict)
	e = f.settle(e.ID, b.Generation, store.OutcomePending)
	f.state(e, store.Claimed)
	f.settle(e.ID, a.Generation, store.OutcomeIssued)
	e = f.settle(e.ID, a.Generation, store.OutcomeIssued)
	f.state(e, store.Pending)
	_, _, err = f.s.Claim(f.ctx, claimOf(e, "a"))
	f.want("own use issued", err, store.ErrUsed)
	_, _, err = f.s.Claim(f.ctx, claimOf(e, "b"))
	f.want("retry while pending", err, nil)
	f.settle(e.ID, b.Generation, store.OutcomePending)
	e = f.settle(e.ID, b.Generation, store.OutcomeIssued)
	f.state(e, store.Issued)

	// A refused use is given back, to any key.
	e = f.New("n")
	e.MaxUses = 2
	e = f.register(e)
	_, a = f.claim(e.ID, "na")
	_, b = f.claim(e.ID, "nb")
	f.settle(e.ID, a.Generation, store.OutcomeIssued)
	e = f.settle(e.ID, b.Generation, store.OutcomeRefused)
	f.state(e, store.Registered)
	e, _ = f.claim(e.ID, "nc")
	f.state(e, store.Claimed)
	if e.Use(hash("key nb")) != nil || e.Use(hash("key na")) == nil || len(e.Uses) != 2 {
		f.Fatalf("uses: %+v", e.Uses)
	}

	// Time ends what is left of it, not the use that is open.
	e = f.New("t")
	e.MaxUses = 3
	e = f.register(e)
	_, a = f.claim(e.ID, "ta")
	f.clock.Add(time.Hour)
	e = f.get(e.ID)
	f.state(e, store.Claimed)
	f.sweep()
	f.equal("swept", f.get(e.ID), e)
	_, _, err = f.s.Claim(f.ctx, claimOf(e, "tb"))
	f.want("another key after the end", err, store.ErrNotRegistered)
	f.claim(e.ID, "ta")
	f.settle(e.ID, a.Generation, store.OutcomeIssued)
	f.state(f.settle(e.ID, a.Generation, store.OutcomeIssued), store.Expired)
	f.counted(profile)
}

// race lets n devices claim one expectation, each trying again when somebody
// else was faster, and returns how many have a use.
func (f *fixture) race(e store.Expectation, n int) int {
	f.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	won := make([]bool, n)
	for i := range n {
		wg.Go(func() {
			<-start
			for {
				now, err := f.s.Get(f.ctx, profile, e.ID)
				if err != nil {
					f.Errorf("get: %v", err)
					return
				}
				_, u, err := f.s.Claim(f.ctx, claimOf(now, fmt.Sprint("dev", i)))
				switch {
				case err == nil:
					won[i] = string(u.Key) == string(hash(fmt.Sprint("key dev", i)))
					return
				case errors.Is(err, store.ErrKeyConflict):
					return
				case !errors.Is(err, store.ErrGeneration):
					f.Errorf("claim: %v", err)
					return
				}
			}
		})
	}
	close(start)
	wg.Wait()
	winners := 0
	for _, w := range won {
		if w {
			winners++
		}
	}
	return winners
}

func oneWinner(f *fixture) {
	e := f.fresh("c")
	f.equal("winners", f.race(e, 100), 1) // threats D02, F16
	f.equal("uses", len(f.get(e.ID).Uses), 1)
	f.counted(profile)
}

func threeWinners(f *fixture) {
	e := f.New("c")
	e.MaxUses = 3
	e = f.register(e)
	f.equal("winners", f.race(e, 100), 3)
	e = f.get(e.ID)
	f.state(e, store.Claimed)
	f.equal("uses", len(e.Uses), 3)
	f.counted(profile)
}

func parallelRetries(f *fixture) {
	e := f.fresh("c")
	const n = 20
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				now, err := f.s.Get(f.ctx, profile, e.ID)
				if err == nil {
					_, _, err = f.s.Claim(f.ctx, claimOf(now, "dev"))
				}
				if err == nil {
					return
				}
				if !errors.Is(err, store.ErrGeneration) {
					f.Errorf("claim: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	e = f.get(e.ID)
	if len(e.Uses) != 1 || e.Uses[0].Forwards != n {
		f.Fatalf("uses: %+v", e.Uses)
	}
	// Only the answer to the last open forward gives it back.
	for i := range n {
		e = f.settle(e.ID, e.Uses[0].Generation, store.OutcomeRefused)
		if want := i == n-1; (e.State == store.Registered) != want {
			f.Fatalf("after %d answers: %s", i+1, e.State)
		}
	}
}
