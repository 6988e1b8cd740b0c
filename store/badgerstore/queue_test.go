package badgerstore

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

// openOn opens a new store on a clock that stands.
func openOn(t *testing.T) (*Store, *storetest.Clock) {
	t.Helper()
	clock := storetest.NewClock()
	s, err := Open(Options{Path: t.TempDir(), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, clock
}

func notify(t *testing.T, s *Store, matchers ...string) {
	t.Helper()
	for _, m := range matchers {
		if n, err := s.Notify(ctx, []store.Delivery{{Profile: "wifi", Matcher: m, Result: store.ResultRefused}}); n != 0 || err != nil {
			t.Fatalf("%s: %d dropped, %v", m, n, err)
		}
	}
}

// queueKeys counts what the queue has in the database.
func queueKeys(t *testing.T, s *Store) (n int) {
	t.Helper()
	err := s.view(ctx, func(t *tx) error {
		for _, kind := range []byte{kindQueue, kindQueueDue} {
			err := t.scan([]byte{kind}, []byte{kind}, false, func(_, _ []byte) (bool, error) {
				n++
				return true, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestADeliveryThatCannotBeReadIsInNobodysWay(t *testing.T) {
	for name, spoil := range map[string]func(v []byte) []byte{
		"no JSON":   func(v []byte) []byte { return append(v[:queuedHead:queuedHead], "{"...) },
		"not ours":  func(v []byte) []byte { return append(v[:queuedHead:queuedHead], "{}"...) },
		"cut":       func(v []byte) []byte { return v[:queuedHead-1] },
		"empty":     func([]byte) []byte { return []byte{} },
		"is absent": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, clock := openOn(t)
			notify(t, s, "bad")
			list, err := s.Deliveries(ctx, 1)
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			bad := list[0].ID
			err = s.update(ctx, func(t *tx) error {
				v, err := t.get(queueKey(bad))
				t.put(queueKey(bad), entry{value: spoil(v)})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if list, err := s.Deliveries(ctx, 1); err == nil || len(list) != 0 {
				t.Errorf("alone: %v, %v", list, err)
			}
			clock.Add(time.Second)
			notify(t, s, "good")
			list, err = s.Deliveries(ctx, 1)
			if err != nil || len(list) != 1 || list[0].Matcher != "good" {
				t.Fatalf("beside it: %v, %v", list, err)
			}
			clock.Add(store.DeliveryRetention)
			if swept, err := s.Sweep(ctx, 100); err != nil || swept.Undelivered == 0 {
				t.Errorf("%+v, %v", swept, err)
			}
			if n := s.queued.Load(); name != "is absent" && n != 0 {
				t.Errorf("%d are counted", n)
			}
			if err := s.Check(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheQueueLeavesNothingBehind(t *testing.T) {
	s, clock := openOn(t)
	for range 3 {
		notify(t, s, "a", "b", "c", "d")
		clock.Add(time.Second)
		list, err := s.Deliveries(ctx, 100)
		if err != nil || len(list) != 4 {
			t.Fatal(list, err)
		}
		for i, d := range list {
			for range i { // postponed often, and into the past
				if err := s.Postpone(ctx, d.ID, clock.Now().Add(time.Duration(i-2)*time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			if n := queueKeys(t, s); n != 2*(4-i) {
				t.Fatalf("%d keys of %d deliveries", n, 4-i)
			}
			if err := s.Delivered(ctx, d.ID); err != nil {
				t.Fatal(err)
			}
		}
		if n, counted := queueKeys(t, s), s.queued.Load(); n != 0 || counted != 0 {
			t.Fatalf("%d keys left, %d counted", n, counted)
		}
	}
}

// What a writer that had to wait puts before what was read already is found: at
// once if it had to wait for less than a minute, else after another one.
func TestADeliveryThatComesLateIsFound(t *testing.T) {
	for _, late := range []time.Duration{rescan - 1, rescan + time.Second, time.Hour} {
		s, clock := openOn(t)
		notify(t, s, "in order")
		clock.Add(2 * time.Hour)
		list, err := s.Deliveries(ctx, 10)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if err := s.Delivered(ctx, list[0].ID); err != nil {
			t.Fatal(err)
		}
		notify(t, s, "another") // so that the queue is not empty
		if list, err = s.Deliveries(ctx, 10); err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		clock.Add(-late)
		notify(t, s, "late")
		clock.Add(late)
		find := func() string {
			list, err := s.Deliveries(ctx, 10)
			if err != nil || len(list) == 0 {
				t.Fatal(list, err)
			}
			return list[0].Matcher
		}
		if got := find(); late < rescan && got != "late" {
			t.Errorf("%v late: %s is first", late, got)
		}
		clock.Add(rescan)
		if got := find(); got != "late" {
			t.Errorf("%v late, after a minute: %s is first", late, got)
		}
	}
}

// The queue did not change the schema: what version 2 wrote is opened, and stays
// what a binary of that version opens.
func TestTheQueueLeavesTheSchemaVersionAsItWas(t *testing.T) {
	s, clock := openOn(t)
	e, err := s.Register(ctx, storetest.Example(1, "wifi", "c", clock.Now()))
	if err != nil {
		t.Fatal(err)
	}
	_, u, err := s.Claim(ctx, claimFor(e))
	if err != nil {
		t.Fatal(err)
	}
	notify(t, s, "m")
	if _, err := s.Settle(ctx, store.Settlement{Profile: "wifi", ID: e.ID, UseGeneration: u.Generation, Outcome: store.OutcomeIssued}); err != nil {
		t.Fatal(err)
	}
	if n := queueKeys(t, s); n != 4 {
		t.Errorf("%d keys of two deliveries", n)
	}
	err = s.view(ctx, func(tx *tx) error {
		raw, err := tx.get(schemaKey)
		if v, _ := binary.Uvarint(raw); v != 2 {
			t.Errorf("schema %d", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func claimFor(e store.Expectation) store.Claim {
	return store.Claim{
		Profile: e.Profile, ID: e.ID, Generation: e.Generation, Notices: []store.Notice{{Matcher: "m", Sealed: []byte(e.ID)}},
		Key: []byte("key of " + e.ID), Identity: []byte("identity"), TransactionID: fmt.Sprint("tx ", e.ID),
	}
}
