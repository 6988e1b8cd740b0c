package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMatchersAreToldAtTheStepsThatEndAClaim goes every way from every state,
// and again after a DELETE: these are the steps of which a matcher hears.
func TestMatchersAreToldAtTheStepsThatEndAClaim(t *testing.T) {
	want := []string{
		"claimed, NDES: SUCCESS: issued",
		"claimed, NDES: FAILURE, definite: failed",
		"claimed, in doubt, NDES: SUCCESS: issued",
		"claimed, deferred, NDES: SUCCESS: issued",
		"claimed, deferred, NDES: FAILURE, definite: failed",
		"pending, NDES: SUCCESS: issued",
		"pending, NDES: FAILURE, definite: failed",
		"claimed, revoked, NDES: SUCCESS: issued",
		"claimed, revoked, NDES: FAILURE, definite: failed",
	}
	var got []string
	for _, revoked := range []bool{false, true} {
		for _, from := range lifeStates {
			for _, step := range lifeSteps {
				l := newLife()
				from.reach(l)
				name := from.name + ", "
				if revoked {
					if !l.e.Revoke(l.now, "mdm") {
						continue
					}
					name += "revoked, "
				}
				l.told = nil
				err := step.do(l)
				for _, d := range l.told {
					got = append(got, name+step.name+": "+d.Result)
				}
				if len(l.told) > 0 && err != nil {
					t.Errorf("%s%s: told, and refused with %v", name, step.name, err)
				}
				for _, u := range l.e.Uses { // an open use owes, a finished one does not
					if owes := len(u.Notices) > 0; owes != (u.State != Issued) {
						t.Errorf("%s%s: %s, owes %v", name, step.name, u.State, owes)
					}
				}
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAnIssuedPendingUseIsToldAlsoIfItWasRevokedInFlight(t *testing.T) {
	e, u := claimed(t)
	if _, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t", Notices: []Notice{{Matcher: "m"}}}); err != nil {
		t.Fatal(err)
	}
	settle := func(o Outcome) []Delivery { return e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: o}) }
	if told := settle(OutcomePending); told != nil {
		t.Errorf("told of pending: %+v", told)
	}
	e.Revoke(noon, "mdm")
	for _, want := range []string{ResultIssued, ""} {
		told := settle(OutcomeIssued)
		if got := len(told) == 1 && told[0].Result == want; got != (want != "") {
			t.Errorf("want %q: %+v", want, told)
		}
	}
}

// A record of schema version 2 has no notices; one that owes nothing is still
// written like that.
func TestARecordWithoutNoticesOwesNothing(t *testing.T) {
	e, u := claimed(t)
	before, err := e.Encode()
	if err != nil || strings.Contains(string(before), "notices") || strings.Contains(string(before), "told") {
		t.Fatalf("%s, %v", before, err)
	}
	if e, err = Decode(before); err != nil {
		t.Fatal(err)
	}
	if told := e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomeIssued}); told != nil || e.State != Issued {
		t.Errorf("%s, told %+v", e.State, told)
	}
}

func TestNoticesNeverMakeARecordTooLarge(t *testing.T) {
	for _, forwards := range []int{1, MaxForwards} {
		e := started(t)
		e.MaxUses = 100
		owed := make([]Notice, MaxNotices)
		for i := range owed {
			owed[i] = Notice{Matcher: strings.Repeat("m", maxField-1) + fmt.Sprint(i), Sealed: make([]byte, MaxSealed)}
		}
		claim := func(k, f int) {
			t.Helper()
			_, err := e.Claim(noon, Claim{
				Generation: e.Generation, Key: []byte(fmt.Sprintf("%032d", k)), Identity: make([]byte, 32), UserAgent: strings.Repeat("u", 4096),
				TransactionID: fmt.Sprintf("%0128d", f), SenderNonce: []byte(fmt.Sprintf("%064d", f)), Notices: owed,
			})
			if err != nil {
				t.Fatalf("key %d, forward %d: %v", k, f, err)
			}
		}
		size := func() int {
			t.Helper()
			raw, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return len(raw)
		}
		for k := range e.MaxUses {
			claim(k, 0)
		}
		// Whatever retries add afterwards, without anything owed, takes from what is owed.
		owed = nil
		for k := range e.MaxUses / 2 {
			for f := 1; f < forwards; f++ {
				claim(2*k, f)
			}
		}
		if n := size(); n > 700<<10 {
			t.Errorf("%d forwards: %d bytes", forwards, n)
		}
		for _, u := range e.Uses {
			told := e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomeIssued, Text: strings.Repeat("x", 10_000)})
			n := size()
			for i := range told {
				raw, err := told[i].Encode()
				if err != nil {
					t.Fatal(err)
				}
				n += len(raw)
			}
			if n > 768<<10 { // what one transaction holds
				t.Fatalf("%d forwards: %d bytes with %d deliveries", forwards, n, len(told))
			}
		}
	}
}

func TestDeliveryIDsSortByTheirTimeAndAreUnique(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		now := noon.Add(time.Duration(i) * time.Millisecond)
		id := deliveryID(now)
		if id <= last || seen[id] || seen[deliveryID(now)] {
			t.Fatalf("%s after %s", id, last)
		}
		if end := now.Add(DeliveryRetention); FirstDelivery(end.Add(-1)) > id || FirstDelivery(end) <= id {
			t.Fatalf("%s is not kept until exactly %v", id, end)
		}
		seen[id], last = true, id
	}
	for _, odd := range []time.Time{{}, time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if id := deliveryID(odd); len(id) != len(last) {
			t.Errorf("%v: %q", odd, id)
		}
	}
}

func FuzzDecodeDelivery(f *testing.F) {
	entered, err := Enter(noon, []Delivery{{Profile: "wifi", Matcher: "m", Result: ResultRefused, Text: "é", Sealed: []byte{0}}})
	if err != nil {
		f.Fatal(err)
	}
	raw, err := entered[0].Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"id":"dlv_1","matcher":"m","at":"x"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := DecodeDelivery(raw)
		if err != nil {
			if d.ID != "" {
				t.Fatal("an error with a result")
			}
			return
		}
		if entered, err := Enter(noon, []Delivery{d}); err == nil && (entered[0].ID == d.ID || len(entered[0].Text) > maxText) {
			t.Fatalf("%+v", entered[0])
		}
		if again, err := d.Encode(); err == nil {
			if e, err := DecodeDelivery(again); err != nil || e.ID != d.ID || e.Matcher != d.Matcher {
				t.Fatalf("%+v, %v", e, err)
			}
		}
	})
}
