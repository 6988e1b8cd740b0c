package storetest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
)

func ids(list []store.Expectation) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.ID)
	}
	return out
}

func lists(f *fixture) {
	f.equal("nothing", f.all(store.Query{Profile: profile}), []store.Expectation(nil))
	var want []string
	for i := range 23 {
		want = append(want, f.fresh(fmt.Sprint(i)).ID)
	}
	f.register(Example(500, "lan", "x", f.clock.Now()))
	slices.Reverse(want)
	for _, limit := range []int{1, 2, 7, 22, 23, 24, 0} {
		got := f.all(store.Query{Profile: profile, Limit: limit})
		f.equal(fmt.Sprintf("in pages of %d", limit), ids(got), want)
		for _, e := range got {
			if e.History != nil {
				f.Fatal("listed with history")
			}
		}
	}
	page, err := f.s.List(f.ctx, store.Query{Profile: profile, Limit: 23})
	if err != nil || page.Next != "" || page.Items == nil {
		f.Fatalf("the last page says there is another: %q, %v", page.Next, err)
	}
	f.equal("other profiles", len(f.all(store.Query{Profile: "lan"})), 1)
	page, err = f.s.List(f.ctx, store.Query{})
	if err != nil || len(page.Items) != 0 {
		f.Fatalf("no profile: %d items, %v", len(page.Items), err)
	}
}

func listFilters(f *fixture) {
	for i := range 12 {
		e := f.New(fmt.Sprint(i))
		if i%2 == 0 {
			e.Owner = "intune"
		}
		if i%3 == 0 {
			e.Labels = map[string]string{"site": "bern", "device": "d"}
		}
		if i == 5 {
			e.ExternalID = "jamf:5"
		}
		f.register(e)
	}
	again := f.New("again")
	again.ExternalID = "jamf:5"
	newest, _, err := f.s.Replace(f.ctx, again, nil)
	f.want("replace", err, nil)
	f.claim(ID(1), "dev")

	for _, c := range []struct {
		name string
		q    store.Query
		want int
	}{
		{"owner", store.Query{Owner: "intune"}, 6},
		{"unknown owner", store.Query{Owner: "nobody"}, 0},
		{"label", store.Query{LabelKey: "site", LabelValue: "bern"}, 4},
		{"label with another value", store.Query{LabelKey: "site", LabelValue: "basel"}, 0},
		{"label that is absent has no empty value", store.Query{LabelKey: "site"}, 0},
		{"owner and label", store.Query{Owner: "intune", LabelKey: "site", LabelValue: "bern"}, 2},
		{"state", store.Query{State: store.Claimed}, 1},
		{"registered", store.Query{State: store.Registered}, 11},
		{"external id, ended ones too", store.Query{ExternalID: "jamf:5"}, 2},
		{"external id and state", store.Query{ExternalID: "jamf:5", State: store.Registered}, 1},
		{"external id and owner", store.Query{ExternalID: "jamf:5", Owner: "intune"}, 0},
		{"unknown external id", store.Query{ExternalID: "jamf:"}, 0},
	} {
		c.q.Profile, c.q.Limit = profile, 1
		got := f.all(c.q)
		if len(got) != c.want {
			f.Errorf("%s: %v, want %d", c.name, ids(got), c.want)
		}
		if !slices.IsSortedFunc(got, func(a, b store.Expectation) int {
			if a.ID > b.ID {
				return -1
			}
			return 1
		}) {
			f.Errorf("%s: not newest first: %v", c.name, ids(got))
		}
	}
	f.equal("newest first", f.all(store.Query{Profile: profile, ExternalID: "jamf:5"})[0].ID, newest.ID)
}

func listWhileInserting(f *fixture) {
	var want []string
	for i := range 40 {
		want = append(want, f.fresh(fmt.Sprint(i)).ID)
	}
	slices.Reverse(want)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 40 {
			if _, err := f.s.Register(f.ctx, Example(100+i, profile, fmt.Sprint("new", i), f.clock.Now())); err != nil {
				f.Errorf("register: %v", err)
			}
		}
	})
	got := f.all(store.Query{Profile: profile, Limit: 3})
	wg.Wait()
	all := ids(got)
	for i := 1; i < len(all); i++ {
		if all[i] >= all[i-1] {
			f.Fatalf("out of order or twice: %s after %s", all[i], all[i-1])
		}
	}
	f.equal("all that were there before", all[len(all)-len(want):], want)
}

func listBounded(f *fixture) {
	if testing.Short() {
		f.Skip("many records")
	}
	const n = 5200
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := g; i < n; i += 64 {
				if _, err := f.s.Register(f.ctx, Example(i, profile, fmt.Sprint(i), f.clock.Now())); err != nil {
					f.Errorf("register: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	q := store.Query{Profile: profile, LabelKey: "device", LabelValue: "dev1", Limit: 10}
	p, err := f.s.List(f.ctx, q)
	if err != nil || len(p.Items) != 0 || p.Next == "" {
		f.Fatalf("all %d were looked at for one page: %d items, %v", n, len(p.Items), err)
	}
	q.Cursor = p.Next
	p, err = f.s.List(f.ctx, q)
	if err != nil || len(p.Items) != 1 || p.Next != "" {
		f.Fatalf("%d items, next %q, %v", len(p.Items), p.Next, err)
	}
}

func cursors(f *fixture) {
	for i := range 5 {
		e := f.New(fmt.Sprint(i))
		e.ExpiresAt = f.clock.Now().Add(29 * 24 * time.Hour)
		f.register(e)
	}
	p, err := f.s.List(f.ctx, store.Query{Profile: profile, Limit: 2})
	if err != nil || p.Next == "" {
		f.Fatalf("no next: %v", err)
	}
	for name, q := range map[string]store.Query{
		"text":            {Profile: profile, Cursor: "../../etc"},
		"not base64":      {Profile: profile, Cursor: "%%%"},
		"empty":           {Profile: profile, Cursor: "AA"},
		"padded":          {Profile: profile, Cursor: p.Next + "="},
		"bytes":           {Profile: profile, Cursor: base64.RawURLEncoding.EncodeToString([]byte("\x00\xff\x00e"))},
		"another profile": {Profile: "lan", Cursor: p.Next},
	} {
		page, err := f.s.List(f.ctx, q)
		f.want(name, err, store.ErrCursor)
		if page.Items != nil || page.Next != "" {
			f.Errorf("%s: an error with a page", name)
		}
	}
	// One whose expectation is gone still leads on.
	last := p.Items[len(p.Items)-1]
	if _, err := f.s.Revoke(f.ctx, profile, last.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.clock.Add(25 * time.Hour)
	f.sweep()
	next, err := f.s.List(f.ctx, store.Query{Profile: profile, Limit: 10, Cursor: p.Next})
	f.want("after a removal", err, nil)
	f.equal("items", ids(next.Items), []string{ID(3), ID(2), ID(1)})
}

func sweeps(f *fixture) {
	exists := func(e store.Expectation) bool {
		_, err := f.s.Get(f.ctx, profile, e.ID)
		return err == nil
	}
	registered := f.New("registered")
	registered.ExpiresAt = f.clock.Now().Add(29 * 24 * time.Hour)
	registered = f.register(registered)
	expired, revoked, claimed, pending, issued, locked := f.fresh("expired"), f.fresh("revoked"), f.fresh("claimed"), f.fresh("pending"), f.fresh("issued"), f.fresh("locked")
	if _, err := f.s.Revoke(f.ctx, profile, revoked.ID, "op"); err != nil {
		f.Fatal(err)
	}
	f.claim(claimed.ID, "c")
	_, u := f.claim(pending.ID, "p")
	f.settle(pending.ID, u.Generation, store.OutcomePending)
	_, u = f.claim(issued.ID, "i")
	f.settle(issued.ID, u.Generation, store.OutcomeIssued)
	if _, l, err := f.s.Mismatch(f.ctx, profile, locked.ID, hash("x"), 1, store.Event{}); err != nil || !l {
		f.Fatal("not locked", err)
	}
	check := func(when string, want map[string]bool) {
		f.Helper()
		f.sweep()
		got := map[string]bool{
			"registered": exists(registered), "expired": exists(expired), "revoked": exists(revoked),
			"claimed": exists(claimed), "pending": exists(pending), "issued": exists(issued), "locked": exists(locked),
		}
		f.equal(when, got, want)
		f.counted(profile)
	}
	all := map[string]bool{"registered": true, "expired": true, "revoked": true, "claimed": true, "pending": true, "issued": true, "locked": true}
	check("at once", all)
	f.clock.Add(store.EndedRetention - 1)
	check("before a day is over", all)
	f.clock.Add(1)
	all["revoked"] = false
	check("a day after revocation", all)
	f.clock.Add(time.Hour)
	all["expired"] = false
	check("a day after expiry", all)
	f.clock.Add(store.Retention - store.EndedRetention - time.Hour - 1)
	all["registered"] = false // by now
	check("before 90 days are over", all)
	f.clock.Add(1)
	all["issued"] = false
	check("after 90 days", all)
	f.clock.Add(time.Hour)
	all["locked"] = false
	check("90 days after its time was up", all)
	f.clock.Add(1000 * 24 * time.Hour)
	check("years later", all)
	if f.find("issued") != nil || f.find("expired") != nil {
		f.Fatal("an index outlived what it leads to")
	}
}

func sweepBounded(f *fixture) {
	for i := range 30 {
		f.fresh(fmt.Sprint(i))
	}
	f.clock.Add(time.Hour)
	for _, want := range []int{0, 10, 10, 10, 0} {
		max := 10
		if want == 0 {
			max = want
		}
		n, err := f.s.Sweep(f.ctx, max)
		if err != nil || n.Changes != want {
			f.Fatalf("%d changes, %v; want %d", n.Changes, err, want)
		}
	}
	n, err := f.s.Sweep(f.ctx, 10)
	if err != nil || n.Changes != 0 {
		f.Fatalf("%d changes where nothing is due, %v", n.Changes, err)
	}
	f.clock.Add(store.EndedRetention)
	n, err = f.s.Sweep(f.ctx, 1000)
	if err != nil || n.Changes != 30 {
		f.Fatalf("%d removed, %v", n.Changes, err)
	}
	f.equal("left", len(f.all(store.Query{Profile: profile})), 0)
	f.counted(profile)

	// What is past both its time and its retention goes at once.
	f.fresh("late")
	f.clock.Add(1000 * time.Hour)
	n, err = f.s.Sweep(f.ctx, 1000)
	if err != nil || n.Changes != 1 {
		f.Fatalf("%d changes, %v", n.Changes, err)
	}
	f.equal("left", len(f.all(store.Query{Profile: profile})), 0)
}
