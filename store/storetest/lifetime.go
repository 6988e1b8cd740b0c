package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

func copies(f *fixture) {
	spoil := func(e *store.Expectation) {
		e.ChallengeHash[0] ^= 1
		e.Labels["device"] = "spoilt"
		e.Content.Subject[0][0].Value = "admin"
		e.Content.KeyUsage[0] = "spoilt"
		e.Request[0] = ' '
		for i := range e.Uses {
			e.Uses[i].Key[0] ^= 1
			e.Uses[i].TransactionIDs[0] = "spoilt"
			e.Uses[i].SenderNonces[0][0] ^= 1
			for _, n := range e.Uses[i].Notices {
				for j := range n.Sealed {
					n.Sealed[j] ^= 1
				}
			}
		}
		for i := range e.History {
			e.History[i].What = "spoilt"
		}
	}
	in := f.New("c")
	in.ExternalID = "jamf:1"
	out := f.register(in)
	want := f.get(in.ID)
	spoil(&in)
	f.equal("after the argument changed", f.get(in.ID), want)
	spoil(&out)
	f.equal("after the result changed", f.get(in.ID), want)

	c := claimOf(want, "dev")
	c.Notices = notices(1)
	e, u, err := f.s.Claim(f.ctx, c)
	f.want("claim", err, nil)
	want = f.get(in.ID)
	c.Key[0] ^= 1
	c.Identity[0] ^= 1
	c.SenderNonce[0] ^= 1
	c.Notices[0].Sealed[0] ^= 1
	u.Notices[0].Sealed[0] ^= 1
	spoil(&e)
	u.Key[0] ^= 1
	u.SenderNonces[0][0] ^= 1
	f.equal("after the claim changed", f.get(in.ID), want)

	g := f.get(in.ID)
	spoil(&g)
	found := f.find("c")
	spoil(found)
	p, err := f.s.List(f.ctx, store.Query{Profile: profile})
	f.want("list", err, nil)
	spoil(&p.Items[0])
	f.equal("after what was read changed", f.get(in.ID), want)

	r := f.New("r")
	r.ExternalID = "jamf:2"
	first := f.register(r)
	_, _, err = f.s.Replace(f.ctx, r, func(old store.Expectation) bool {
		spoil(&old)
		return true
	})
	f.want("replace", err, nil)
	f.equal("after same() changed its argument", f.get(first.ID).Content, first.Content)

	counts, err := f.s.Counts(f.ctx)
	f.want("counts", err, nil)
	clear(counts)
	f.counted(profile)
}

// everything calls each method once, for a store that refuses.
func everything(ctx context.Context, s store.Store, e store.Expectation) map[string]error {
	errs := map[string]error{}
	_, errs["register"] = s.Register(ctx, e)
	_, _, errs["replace"] = s.Replace(ctx, e, nil)
	_, errs["get"] = s.Get(ctx, e.Profile, e.ID)
	_, errs["find"] = s.Find(ctx, store.Lookup{Profile: e.Profile, ChallengeHash: e.ChallengeHash})
	_, _, errs["claim"] = s.Claim(ctx, claimOf(e, "dev"))
	_, errs["settle"] = s.Settle(ctx, store.Settlement{Profile: e.Profile, ID: e.ID, Outcome: store.OutcomeIssued})
	_, _, errs["mismatch"] = s.Mismatch(ctx, e.Profile, e.ID, hash("x"), 1, store.Event{})
	_, errs["revoke"] = s.Revoke(ctx, e.Profile, e.ID, "op")
	_, errs["extend"] = s.Extend(ctx, e.Profile, e.ID, e.ExpiresAt.Add(time.Hour), "op")
	_, errs["list"] = s.List(ctx, store.Query{Profile: e.Profile})
	_, errs["notify"] = s.Notify(ctx, []store.Delivery{{Profile: e.Profile, Matcher: "m", Result: store.ResultRefused}})
	_, errs["deliveries"] = s.Deliveries(ctx, 10)
	errs["delivered"] = s.Delivered(ctx, "dlv_1")
	errs["postpone"] = s.Postpone(ctx, "dlv_1", e.ExpiresAt)
	_, errs["sweep"] = s.Sweep(ctx, 10)
	_, errs["counts"] = s.Counts(ctx)
	errs["bind"] = s.BindChallengeKey(ctx, []byte("check"))
	errs["check"] = s.Check(ctx)
	return errs
}

func cancelled(f *fixture) {
	e := f.New("c")
	e.ExternalID = "jamf:1"
	e = f.register(e)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for what, err := range everything(ctx, f.s, e) {
		if !errors.Is(err, context.Canceled) {
			f.Errorf("%s: %v", what, err)
		}
	}
	n := f.New("new")
	_, err := f.s.Register(ctx, n)
	f.want("register", err, context.Canceled)
	f.equal("untouched", f.get(e.ID), e)
	if f.find("new") != nil {
		f.Fatal("a cancelled registration is there")
	}
	f.equal("told", len(f.due()), 0)
	f.want("the key was not bound", f.s.BindChallengeKey(f.ctx, []byte("other")), store.ErrChallengeKey)
	f.counted(profile)
}

func bindsKey(f *fixture) {
	if err := f.s.BindChallengeKey(f.ctx, nil); err == nil {
		f.Fatal("bound to nothing")
	}
	f.want("first", f.s.BindChallengeKey(f.ctx, []byte("one")), nil)
	f.want("again", f.s.BindChallengeKey(f.ctx, []byte("one")), nil)
	f.want("another", f.s.BindChallengeKey(f.ctx, []byte("two")), store.ErrChallengeKey)
	f.fresh("c")
	f.want("again", f.s.BindChallengeKey(f.ctx, []byte("one")), nil)
	f.want("another", f.s.BindChallengeKey(f.ctx, []byte("on")), store.ErrChallengeKey)

	g := newFixture(f.T, f.engine)
	g.fresh("c")
	g.want("a store with records and no key", g.s.BindChallengeKey(g.ctx, []byte("one")), store.ErrChallengeKey)
}

func closed(f *fixture) {
	e := f.fresh("c")
	if err := f.s.Close(); err != nil {
		f.Fatal(err)
	}
	for what, err := range everything(f.ctx, f.s, e) {
		if !errors.Is(err, store.ErrClosed) {
			f.Errorf("%s: %v", what, err)
		}
	}
	f.want("close", f.s.Close(), store.ErrClosed)
}

func closeBesideCalls(f *fixture) {
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for i := range 16 {
		started.Add(1)
		wg.Go(func() {
			for n := 0; ; n++ {
				e := Example(1000*(i+1)+n, profile, fmt.Sprint(i, " ", n), f.clock.Now())
				out, err := f.s.Register(f.ctx, e)
				if err == nil {
					_, _, err = f.s.Claim(f.ctx, claimOf(out, fmt.Sprint(i, " ", n)))
				}
				if err == nil {
					_, err = f.s.Find(f.ctx, store.Lookup{Profile: profile, ChallengeHash: e.ChallengeHash})
				}
				if err == nil {
					_, err = f.s.Sweep(f.ctx, 1)
				}
				if n == 0 {
					started.Done()
				}
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					f.Errorf("beside close: %v", err)
					return
				}
			}
		})
	}
	started.Wait()
	if err := f.s.Close(); err != nil {
		f.Errorf("close: %v", err)
	}
	wg.Wait()
}

func reopens(f *fixture) {
	if f.engine.Reopen == nil {
		f.Skip("this engine keeps nothing")
	}
	f.want("bind", f.s.BindChallengeKey(f.ctx, []byte("one")), nil)
	var want []store.Expectation
	for i := range 20 {
		e := f.New(fmt.Sprint(i))
		e.ExternalID = fmt.Sprint("jamf:", i)
		e = f.register(e)
		switch i % 4 {
		case 1:
			f.claimOwing(e.ID, fmt.Sprint(i), notices(i))
			e = f.get(e.ID)
		case 2:
			_, u := f.claim(e.ID, fmt.Sprint(i))
			e = f.settle(e.ID, u.Generation, store.OutcomeIssued)
		case 3:
			var err error
			if e, err = f.s.Revoke(f.ctx, profile, e.ID, "op"); err != nil {
				f.Fatal(err)
			}
		}
		want = append(want, e)
	}
	for range 2 {
		f.s = f.engine.Reopen(f.T, f.s)
		for i, e := range want {
			f.equal("got", f.get(e.ID), e)
			f.equal("found", *f.find(fmt.Sprint(i)), e)
		}
		f.counted(profile)
		f.want("another key", f.s.BindChallengeKey(f.ctx, []byte("two")), store.ErrChallengeKey)
		f.want("its key", f.s.BindChallengeKey(f.ctx, []byte("one")), nil)
		f.want("check", f.s.Check(f.ctx), nil)
	}
	_, err := f.s.Register(f.ctx, f.New("1"))
	f.want("held", err, store.ErrChallengeInUse)
	_, err = f.s.Register(f.ctx, f.New("2"))
	f.want("used", err, store.ErrChallengeUsed)
	_, _, err = f.s.Claim(f.ctx, claimOf(f.get(want[1].ID), "thief"))
	f.want("claimed before", err, store.ErrKeyConflict)
	c := claimOf(f.get(want[0].ID), "thief")
	c.TransactionID = "tx 1"
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("transaction before", err, store.ErrTransactionConflict)
	f.settle(want[1].ID, want[1].Uses[0].Generation, store.OutcomeIssued)
	f.wantTold("owed before", told("issued", 1))
}
