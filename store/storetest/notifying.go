package storetest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/scepgate/scepgate/store"
)

// notices is what two matchers are owed about the n-th forward.
func notices(n int) []store.Notice {
	return []store.Notice{
		{Matcher: "intune", Sealed: []byte(fmt.Sprint("sealed ", n, "\x00\xff"))},
		{Matcher: "inventory"},
	}
}

// claimOwing claims with notices.
func (f *fixture) claimOwing(id, device string, owed []store.Notice) store.Use {
	f.Helper()
	c := claimOf(f.get(id), device)
	c.Notices = owed
	_, u, err := f.s.Claim(f.ctx, c)
	if err != nil {
		f.Fatalf("claim by %s: %v", device, err)
	}
	return u
}

// due lists what is due.
func (f *fixture) due() []store.Delivery {
	f.Helper()
	list, err := f.s.Deliveries(f.ctx, store.MaxDue)
	if err != nil {
		f.Fatalf("deliveries: %v", err)
	}
	return list
}

// take takes everything that is due, and says what it is: the result for the
// matcher, and what was sealed for it.
func (f *fixture) take() (told []string) {
	f.Helper()
	for _, d := range f.due() {
		told = append(told, fmt.Sprintf("%s to %s: %q", d.Result, d.Matcher, d.Sealed))
		f.want("delivered", f.s.Delivered(f.ctx, d.ID), nil)
	}
	return told
}

// told is what take says of a result and the notices of the n-th forward.
func told(result string, n int) []string {
	return []string{
		fmt.Sprintf("%s to intune: %q", result, fmt.Sprint("sealed ", n, "\x00\xff")),
		fmt.Sprintf("%s to inventory: %q", result, ""),
	}
}

func (f *fixture) wantTold(what string, want ...[]string) {
	f.Helper()
	var all []string
	for _, w := range want {
		all = append(all, w...)
	}
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if d := cmp.Diff(all, f.take(), sorted); d != "" {
		f.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func tellsOutcomes(f *fixture) {
	for _, c := range []struct {
		name     string
		forwards int // claimed before the first outcome; the last one's notices count
		outcomes []store.Outcome
		told     []string // after which outcome who is told what: "1 issued"
		open     bool     // the use still owes
	}{
		{"success", 1, []store.Outcome{issued}, []string{"1 issued"}, false},
		{"failure", 1, []store.Outcome{refused}, []string{"1 failed"}, false},
		{"no answer", 1, []store.Outcome{unknown}, nil, true},
		{"an outcome that is not known", 1, []store.Outcome{store.Outcome(99)}, nil, true},
		{"a failure that says nothing lasting", 1, []store.Outcome{deferred}, nil, true},
		{"pending", 1, []store.Outcome{pending}, nil, true},
		{"not sent", 1, []store.Outcome{unsent}, nil, false},
		{"not sent beside another", 2, []store.Outcome{unsent}, nil, true},
		{"no answer, then success", 2, []store.Outcome{unknown, issued}, []string{"2 issued"}, false},
		{"no answer, then failure", 2, []store.Outcome{unknown, refused}, nil, true},
		{"deferred, then success", 2, []store.Outcome{deferred, issued}, []string{"2 issued"}, false},
		{"deferred, then failure", 2, []store.Outcome{deferred, refused}, []string{"2 failed"}, false},
		{"pending, then success", 2, []store.Outcome{pending, issued}, []string{"2 issued"}, false},
		{"pending, then denied", 2, []store.Outcome{pending, refused}, []string{"2 failed"}, false},
		{"denied beside another, which then succeeds", 3, []store.Outcome{pending, refused, issued}, []string{"2 failed", "3 issued"}, false},
		{"denied twice", 3, []store.Outcome{pending, refused, refused}, []string{"2 failed"}, false},
		{"denied beside one without answer", 3, []store.Outcome{pending, refused, unknown}, []string{"2 failed"}, true},
		{"failure beside another", 2, []store.Outcome{refused}, nil, true},
		{"failure of all", 2, []store.Outcome{refused, refused}, []string{"2 failed"}, false},
		{"failure, and the other was not sent", 2, []store.Outcome{refused, unsent}, []string{"2 failed"}, false},
		{"failure, then success", 2, []store.Outcome{refused, issued}, []string{"2 issued"}, false},
		{"success twice", 2, []store.Outcome{issued, issued}, []string{"1 issued"}, false},
		{"success, then everything else", 6, []store.Outcome{issued, refused, pending, unsent, unknown, deferred}, []string{"1 issued"}, false},
	} {
		for _, revoked := range []bool{false, true} {
			name := c.name
			if revoked {
				name += ", revoked meanwhile"
			}
			e := f.fresh(name)
			var u store.Use
			for i := range c.forwards {
				u = f.claimOwing(e.ID, name, notices(i))
			}
			if revoked {
				_, err := f.s.Revoke(f.ctx, profile, e.ID, "op")
				f.want("revoke", err, nil)
			}
			for i, o := range c.outcomes {
				e = f.settle(e.ID, u.Generation, o)
				var want [][]string
				for _, w := range c.told {
					if result, ok := strings.CutPrefix(w, fmt.Sprint(i+1, " ")); ok {
						want = append(want, told(result, c.forwards-1))
					}
				}
				f.wantTold(fmt.Sprintf("%s, outcome %d", name, i+1), want...)
			}
			open := len(e.Uses) > 0 && len(e.Uses[0].Notices) > 0
			if open != c.open {
				f.Errorf("%s: owed still: %v, want %v", name, open, c.open)
			}
			f.settle(e.ID, 1<<60, store.OutcomeIssued) // of no use
			f.wantTold(name + ", of another generation")
		}
	}
	f.counted(profile)
}

func tellsEverything(f *fixture) {
	e := f.New("c")
	e.ExternalID = "jamf:1"
	e = f.register(e)
	u := f.claimOwing(e.ID, "dev", notices(0))
	f.clock.Add(time.Minute)
	_, err := f.s.Settle(f.ctx, store.Settlement{
		Profile: profile, ID: e.ID, UseGeneration: u.Generation, Outcome: store.OutcomeRefused,
		TransactionID: "tx dev", HRESULT: "0x80094014", Text: "denied",
	})
	f.want("settle", err, nil)
	list := f.due()
	f.equal("deliveries", len(list), 2)
	got := list[0]
	if got.Matcher != "intune" {
		got = list[1]
	}
	if len(got.ID) < 20 || len(got.ID) > 64 || list[0].ID == list[1].ID {
		f.Errorf("ids %q and %q", list[0].ID, list[1].ID)
	}
	got.ID = ""
	f.equal("delivery", got, store.Delivery{
		At: f.clock.Now(), Due: f.clock.Now(), Profile: profile, Matcher: "intune", Result: store.ResultFailed,
		HRESULT: "0x80094014", Text: "denied", TransactionID: "tx dev", ExpectationID: e.ID, ExternalID: "jamf:1",
		SPKISHA256: fmt.Sprintf("%x", hash("key dev")), Sealed: notices(0)[0].Sealed,
	})
	f.take()

	// The failure that ends a use need not be the last that is settled.
	u = f.claimOwing(e.ID, "dev", notices(0))
	f.claimOwing(e.ID, "dev", notices(1))
	f.settle(e.ID, u.Generation, store.OutcomeRefused)
	_, err = f.s.Settle(f.ctx, store.Settlement{Profile: profile, ID: e.ID, UseGeneration: u.Generation, Outcome: store.OutcomeUnsent, TransactionID: "tx unsent"})
	f.want("settle", err, nil)
	for _, d := range f.due() {
		if d.Result != store.ResultFailed || d.HRESULT != "0x80070490" || d.TransactionID != "tx" {
			f.Errorf("%+v", d)
		}
	}
	f.equal("told", len(f.take()), 2)

	_, err = f.s.Settle(f.ctx, store.Settlement{Profile: profile, ID: ID(9999), Outcome: store.OutcomeIssued})
	f.want("settle", err, store.ErrNotFound)
	f.wantTold("of nothing")
}

func owes(f *fixture) {
	e := f.fresh("c")
	u := f.claimOwing(e.ID, "dev", notices(0))
	f.equal("returned", u.Notices, notices(0))
	f.equal("kept", f.get(e.ID).Uses[0].Notices, notices(0))
	for _, x := range f.all(store.Query{Profile: profile}) {
		f.equal("listed", x.Uses[0].Notices, []store.Notice(nil))
	}
	f.claimOwing(e.ID, "dev", notices(1))
	f.equal("after a retry", f.get(e.ID).Uses[0].Notices, notices(1))
	f.claimOwing(e.ID, "dev", nil)
	f.equal("after a retry that owes nothing", len(f.get(e.ID).Uses[0].Notices), 0)
	f.claimOwing(e.ID, "dev", notices(2))
	f.settle(e.ID, u.Generation, store.OutcomePending)
	c := claimOf(f.get(e.ID), "dev")
	c.Poll, c.Identity, c.Notices = true, nil, notices(3)
	_, _, err := f.s.Claim(f.ctx, c)
	f.want("poll", err, nil)
	f.equal("after a poll", f.get(e.ID).Uses[0].Notices, notices(2))
	f.claimOwing(e.ID, "dev", notices(4))
	f.clock.Add(100 * 24 * time.Hour) // a manager takes his time
	f.sweep()
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.wantTold("a retry while pending", told("issued", 4))

	c = claimOf(f.get(e.ID), "dev")
	c.RetryWindow, c.Notices = window, notices(5)
	_, u, err = f.s.Claim(f.ctx, c)
	f.want("a retry after issue", err, nil)
	f.equal("owed after issue", len(u.Notices), 0)
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.wantTold("the same certificate once more")

	// A claim that fails owes nothing.
	e = f.fresh("held")
	u = f.claimOwing(e.ID, "a", notices(6))
	for what, spoil := range map[string]func(*store.Claim){
		"another key":      func(c *store.Claim) { c.Key = hash("thief") },
		"another identity": func(c *store.Claim) { c.Identity = hash("other") },
	} {
		c := claimOf(f.get(e.ID), "a")
		c.Notices = notices(7)
		spoil(&c)
		if _, _, err := f.s.Claim(f.ctx, c); err == nil {
			f.Errorf("%s: claimed", what)
		}
	}
	f.equal("owed", f.get(e.ID).Uses[0].Notices, notices(6))

	// Nobody learns the outcome of what was released.
	f.settle(e.ID, u.Generation, store.OutcomeUnknown)
	_, err = f.s.Release(f.ctx, profile, e.ID, "op")
	f.want("release", err, nil)
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.wantTold("released")

	// Each use owes its own.
	e = f.New("several")
	e.MaxUses = 2
	e = f.register(e)
	a, b := f.claimOwing(e.ID, "use a", notices(8)), f.claimOwing(e.ID, "use b", notices(9))
	f.settle(e.ID, b.Generation, store.OutcomeIssued)
	f.wantTold("one of two", told("issued", 9))
	f.settle(e.ID, a.Generation, store.OutcomeRefused)
	f.wantTold("the other", told("failed", 8))

	// What was swept owes nothing any more, and nothing is told of it.
	e = f.fresh("revoked for long")
	u = f.claimOwing(e.ID, "gone", notices(10))
	_, err = f.s.Revoke(f.ctx, profile, e.ID, "op")
	f.want("revoke", err, nil)
	f.clock.Add(2 * store.Retention)
	f.sweep()
	_, err = f.s.Settle(f.ctx, store.Settlement{Profile: profile, ID: e.ID, UseGeneration: u.Generation, Outcome: store.OutcomeIssued})
	f.want("settle", err, store.ErrNotFound)
	f.wantTold("swept")
}

func owesLittle(f *fixture) {
	e := f.fresh("c")
	try := func(owed ...store.Notice) error {
		c := claimOf(f.get(e.ID), "dev")
		c.Notices = owed
		_, _, err := f.s.Claim(f.ctx, c)
		return err
	}
	many := make([]store.Notice, store.MaxNotices+1)
	for i := range many {
		many[i].Matcher = fmt.Sprint("m", i)
	}
	for what, owed := range map[string][]store.Notice{
		"too many":         many,
		"for nobody":       {{Sealed: []byte("x")}},
		"for a long name":  {{Matcher: strings.Repeat("x", 10_000)}},
		"for no UTF-8":     {{Matcher: "\xff"}},
		"one of them good": {{Matcher: "m"}, {}},
	} {
		if try(owed...) == nil {
			f.Errorf("%s: claimed", what)
		}
	}
	f.equal("untouched", f.get(e.ID), e)

	// What is too long to be kept is no reason to refuse a device.
	long := make([]byte, store.MaxSealed+1)
	f.want("too long", try(store.Notice{Matcher: "long", Sealed: long}, store.Notice{Matcher: "short", Sealed: long[1:]}), nil)
	f.settle(e.ID, f.get(e.ID).Uses[0].Generation, store.OutcomeIssued)
	sizes := map[string]int{}
	for _, d := range f.due() {
		sizes[d.Matcher] = len(d.Sealed)
	}
	f.equal("sealed", sizes, map[string]int{"long": 0, "short": store.MaxSealed})
	f.take()

	// More keys than a record has room for, each with the most that may be owed: all
	// are claimed, settled, and told of. Only what is sealed may be missing.
	e = f.New("crowd")
	e.MaxUses = 12
	e = f.register(e)
	for i := range many[:store.MaxNotices] {
		many[i].Sealed = long[1:]
	}
	var uses []store.Use
	for i := range e.MaxUses {
		uses = append(uses, f.claimOwing(e.ID, fmt.Sprint("crowd ", i), many[:store.MaxNotices]))
	}
	for i, u := range uses {
		f.settle(e.ID, u.Generation, store.OutcomeIssued)
		list := f.due()
		if len(list) != store.MaxNotices {
			f.Fatalf("%d are told of use %d", len(list), i)
		}
		if last := i == len(uses)-1; last && len(list[0].Sealed) == 0 {
			f.Error("what is sealed for the newest went before that of the oldest")
		}
		f.take()
	}
}

func notifies(f *fixture) {
	refusal := func(n int) store.Delivery {
		return store.Delivery{
			Profile: profile, Matcher: fmt.Sprint("m", n), Result: store.ResultRefused, Reason: "subject_mismatch",
			TransactionID: "tx", SPKISHA256: "ab", Sealed: []byte(fmt.Sprint("sealed ", n)), ExpectationID: "exp_1", ExternalID: "x",
		}
	}
	dropped, err := f.s.Notify(f.ctx, nil)
	f.equal("of nothing", dropped, 0)
	f.want("notify", err, nil)
	in := []store.Delivery{refusal(1), refusal(2)}
	in[0].ID, in[0].Attempts, in[0].Due = "chosen", 7, f.clock.Now().Add(time.Hour) // the store's to say
	in[0].At = f.clock.Now().Add(-time.Second)
	in[1].At = f.clock.Now().Add(time.Second) // not yet
	dropped, err = f.s.Notify(f.ctx, in)
	f.equal("dropped", dropped, 0)
	f.want("notify", err, nil)
	in[0].Sealed[0] = 'X' // the caller's own again
	got := map[string]store.Delivery{}
	for _, d := range f.due() {
		if d.ID == "" || d.ID == "chosen" {
			f.Errorf("id %q", d.ID)
		}
		d.ID = ""
		got[d.Matcher] = d
	}
	want := map[string]store.Delivery{"m1": refusal(1), "m2": refusal(2)}
	for m, d := range want {
		d.At, d.Due = f.clock.Now(), f.clock.Now()
		if m == "m1" {
			d.At = f.clock.Now().Add(-time.Second)
		}
		want[m] = d
	}
	f.equal("deliveries", got, want)
	f.take()

	many := make([]store.Delivery, store.MaxNotices+1)
	for i := range many {
		many[i] = refusal(i)
	}
	for what, list := range map[string][]store.Delivery{
		"too many":      many,
		"no matcher":    {refusal(1), {Profile: profile, Result: store.ResultRefused}},
		"no profile":    {{Matcher: "m", Result: store.ResultRefused}},
		"no result":     {{Profile: profile, Matcher: "m"}},
		"another":       {{Profile: profile, Matcher: "m", Result: "agreed"}},
		"a long name":   {{Profile: profile, Matcher: strings.Repeat("m", 1000), Result: store.ResultRefused}},
		"a long one":    {{Profile: strings.Repeat("m", 1000), Matcher: "m", Result: store.ResultRefused}},
		"none in UTF-8": {{Profile: profile, Matcher: "\xff", Result: store.ResultRefused}},
	} {
		if n, err := f.s.Notify(f.ctx, list); err == nil || n != 0 {
			f.Errorf("%s: %d, %v", what, n, err)
		}
	}
	f.wantTold("what was not understood")

	big := strings.Repeat("<\x00é", 20_000)
	_, err = f.s.Notify(f.ctx, []store.Delivery{{
		Profile: profile, Matcher: "m", Result: store.ResultRefused, Reason: big, HRESULT: big, Text: big,
		TransactionID: big, ExpectationID: big, ExternalID: big, SPKISHA256: big, Sealed: make([]byte, store.MaxSealed+1),
	}})
	f.want("notify", err, nil)
	d := f.due()[0]
	if n := len(d.Reason + d.HRESULT + d.Text + d.TransactionID + d.ExpectationID + d.ExternalID + d.SPKISHA256); n > 4096 || len(d.Sealed) != 0 {
		f.Errorf("%d bytes of text, %d sealed", n, len(d.Sealed))
	}
	f.take()
}

func dropsWhatIsTooMuch(f *fixture) {
	full := make([]store.Delivery, store.MaxNotices)
	for i := range full {
		full[i] = store.Delivery{Profile: profile, Matcher: "m", Result: store.ResultRefused}
	}
	notify := func(n int) int {
		f.Helper()
		dropped, err := f.s.Notify(f.ctx, full[:n])
		f.want("notify", err, nil)
		return dropped
	}
	for notify(3) != 0 { // so that the last ones do not fit as a whole
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	dropped := 0
	for range 50 {
		wg.Go(func() {
			for range (store.MaxDeliveries/len(full) + 100) / 50 {
				n, err := f.s.Notify(f.ctx, full)
				if err != nil {
					f.Error(err)
				}
				mu.Lock()
				dropped += n
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	sent := 3 + 50*((store.MaxDeliveries/len(full)+100)/50)*len(full)
	f.equal("dropped", dropped, sent-store.MaxDeliveries)
	f.equal("dropped of two", notify(2), 2)

	// The outcome of a claim is never dropped.
	e := f.fresh("c")
	u := f.claimOwing(e.ID, "dev", notices(0))
	f.clock.Add(-time.Second) // so that it is the first
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.clock.Add(time.Second)
	if f.engine.Reopen != nil {
		f.s = f.engine.Reopen(f.T, f.s)
	}
	list, err := f.s.Deliveries(f.ctx, 1<<30)
	f.want("deliveries", err, nil)
	f.equal("given at once", len(list), store.MaxDue)
	if list[0].Result != store.ResultIssued || list[1].Result != store.ResultIssued || list[2].Result != store.ResultRefused {
		f.Fatalf("%s, %s, %s", list[0].Result, list[1].Result, list[2].Result)
	}
	for i, left := range []int{2, 2, 2, 1, 1} { // two more than may wait: room begins below
		f.equal(fmt.Sprint("dropped after ", i), notify(2), left)
		f.want("delivered", f.s.Delivered(f.ctx, list[i].ID), nil)
	}
}

func delivers(f *fixture) {
	add := func(matcher string) {
		f.Helper()
		_, err := f.s.Notify(f.ctx, []store.Delivery{{Profile: profile, Matcher: matcher, Result: store.ResultRefused}})
		f.want("notify", err, nil)
	}
	order := func(max int) (names []string) {
		f.Helper()
		list, err := f.s.Deliveries(f.ctx, max)
		f.want("deliveries", err, nil)
		for _, d := range list {
			names = append(names, d.Matcher)
		}
		return names
	}
	f.equal("an empty queue", order(10), []string(nil))
	for _, m := range []string{"a", "b", "c"} {
		add(m)
		f.clock.Add(time.Second)
	}
	f.equal("the oldest first", order(10), []string{"a", "b", "c"})
	f.equal("and again until delivered", order(2), []string{"a", "b"})
	f.equal("none", order(0), []string(nil))
	f.equal("less than none", order(-1), []string(nil))

	list := f.due()
	a, b := list[0], list[1]
	f.want("postpone", f.s.Postpone(f.ctx, a.ID, f.clock.Now().Add(time.Minute)), nil)
	f.equal("postponed", order(10), []string{"b", "c"})
	f.want("delivered", f.s.Delivered(f.ctx, b.ID), nil)
	f.equal("delivered", order(10), []string{"c"})
	for _, id := range []string{"", b.ID, "dlv_unknown", "q", strings.Repeat("x", 100_000), "\x00"} {
		f.want("delivered", f.s.Delivered(f.ctx, id), nil)
		f.want("postpone", f.s.Postpone(f.ctx, id, f.clock.Now()), nil)
	}
	f.equal("after what is not there", order(10), []string{"c"})
	f.clock.Add(time.Minute - 1)
	f.equal("not yet", order(10), []string{"c"})
	f.clock.Add(1)
	f.equal("due", order(10), []string{"c", "a"})
	again := f.due()[1]
	a.Attempts, a.Due = 1, f.clock.Now()
	f.equal("postponed once", again, a)
	f.want("postpone into the past", f.s.Postpone(f.ctx, a.ID, time.Time{}), nil)
	a.Attempts = 2
	f.equal("postponed twice", f.due()[1], a)

	// What is new is found, however often it was asked for before.
	for i := range 5 {
		f.clock.Add(time.Second)
		f.equal("before", len(order(100)), 2+i)
		add(fmt.Sprint("d", i))
		f.equal("after", len(order(100)), 3+i)
	}
	if f.engine.Reopen != nil {
		before := f.due()
		f.s = f.engine.Reopen(f.T, f.s)
		f.equal("after opening again", f.due(), before)
	}
	f.take()
	f.equal("all delivered", order(100), []string(nil))
}

func forgetsDeliveries(f *fixture) {
	add := func() store.Delivery {
		f.Helper()
		_, err := f.s.Notify(f.ctx, []store.Delivery{{Profile: profile, Matcher: "m", Result: store.ResultRefused}})
		f.want("notify", err, nil)
		list := f.due()
		return list[len(list)-1]
	}
	sweep := func(max int) store.Swept {
		f.Helper()
		n, err := f.s.Sweep(f.ctx, max)
		f.want("sweep", err, nil)
		return n
	}
	first := add()
	f.clock.Add(time.Hour)
	second := add()
	f.want("postpone", f.s.Postpone(f.ctx, second.ID, f.clock.Now().Add(100*24*time.Hour)), nil)
	f.clock.Add(store.DeliveryRetention - time.Hour - 2*time.Millisecond)
	f.equal("within the retention", sweep(100), store.Swept{})
	f.clock.Add(2 * time.Millisecond)
	f.equal("after it", sweep(100), store.Swept{Changes: 1, Undelivered: 1})
	f.equal("left", len(f.due()), 0)
	f.want("delivered", f.s.Delivered(f.ctx, first.ID), nil)
	f.want("postpone", f.s.Postpone(f.ctx, first.ID, f.clock.Now()), nil)
	f.equal("left", len(f.due()), 0)
	f.clock.Add(time.Hour)
	f.equal("postponed for longer", sweep(100), store.Swept{Changes: 1, Undelivered: 1})
	f.clock.Add(100 * 24 * time.Hour)
	f.equal("left", len(f.due()), 0)

	for range 250 {
		add()
	}
	f.fresh("expiring")
	f.clock.Add(store.DeliveryRetention)
	f.equal("no more than asked", sweep(7), store.Swept{Changes: 7, Undelivered: 7})
	f.equal("the rest", sweep(1000), store.Swept{Changes: 244, Undelivered: 243})
	f.equal("left", len(f.due()), 0)
	f.equal("nothing", sweep(1000).Undelivered, 0)
}

// A claim for a challenge that nobody registered: a matcher vouches for it.
func vouched(f *fixture) {
	claim := func(challenge, device string) (store.Expectation, store.Use, error) {
		f.Helper()
		e := f.New(challenge)
		e.Owner = ""
		c := claimOf(e, device)
		c.Generation, c.New, c.Notices = 1, &e, notices(0)
		return f.s.Claim(f.ctx, c)
	}
	e, u, err := claim("c", "dev")
	f.want("the first", err, nil)
	f.state(e, store.Claimed)
	f.equal("found", *f.find("c"), e)
	f.equal("kept", f.get(e.ID), e)

	// What is kept is judged by whoever finds it, not made again.
	again := func(what string, want error) {
		f.Helper()
		before := f.get(e.ID)
		for _, device := range []string{"dev", "thief"} {
			out, _, err := claim("c", device)
			f.want(what+", by "+device, err, want)
			f.equal(what, out.ID, "")
		}
		f.equal(what, f.get(e.ID), before)
		f.equal(what+": found", *f.find("c"), before) // so nobody asks in circles
	}
	again("claimed", store.ErrGeneration)
	f.settle(e.ID, u.Generation, store.OutcomePending)
	again("pending", store.ErrGeneration)
	f.settle(e.ID, u.Generation, store.OutcomeIssued)
	f.wantTold("issued", told("issued", 0))
	again("issued", store.ErrChallengeUsed)
	_, err = f.s.Revoke(f.ctx, profile, e.ID, "op")
	f.want("revoke", err, nil)
	again("revoked", store.ErrChallengeUsed)
	if f.engine.Reopen != nil {
		f.s = f.engine.Reopen(f.T, f.s)
		again("after opening again", store.ErrChallengeUsed)
	}
	f.clock.Add(store.Retention - 1)
	f.sweep()
	again("at the end of the retention", store.ErrChallengeUsed)
	_, err = f.s.Register(f.ctx, f.New("c"))
	f.want("registered", err, store.ErrChallengeUsed)
	f.clock.Add(1)
	f.sweep()
	if f.find("c") != nil {
		f.Fatal("kept for ever")
	}
	e, u, err = claim("c", "dev")
	f.want("after the retention", err, nil)

	// Given back it is claimed as it stands, and used up when its time is over.
	f.state(f.settle(e.ID, u.Generation, store.OutcomeUnsent), store.Registered)
	again("given back", store.ErrGeneration)
	f.clock.Add(2 * time.Hour)
	again("given back, and expired", store.ErrChallengeUsed)

	// What was registered and never claimed is not overridden either.
	e = f.fresh("revoked")
	_, err = f.s.Revoke(f.ctx, profile, e.ID, "op")
	f.want("revoke", err, nil)
	_, _, err = claim("revoked", "dev r")
	f.want("a registration that was revoked", err, store.ErrGeneration)
	f.state(*f.find("revoked"), store.Revoked)
	e = f.fresh("expired")
	f.clock.Add(time.Hour)
	_, _, err = claim("expired", "dev e")
	f.want("a registration that expired", err, store.ErrGeneration)
	f.state(*f.find("expired"), store.Expired)

	// A claim that fails leaves nothing: neither a record nor a notice.
	f.claim(f.fresh("other").ID, "first")
	lost := f.New("lost")
	c := claimOf(lost, "second")
	c.Generation, c.New, c.TransactionID, c.Notices = 1, &lost, "tx first", notices(1)
	_, _, err = f.s.Claim(f.ctx, c)
	f.want("a transactionID of another key", err, store.ErrTransactionConflict)
	if f.find("lost") != nil {
		f.Fatal("a record was left behind")
	}
	f.counted(profile)
}
