package badgerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

var ctx = context.Background()

func register(t *testing.T, s *Store, n int) store.Expectation {
	t.Helper()
	e, err := s.Register(ctx, storetest.Example(n, "wifi", fmt.Sprint(n), time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A log file that cannot be made is the failure after which Badger has no
// table to write to or read from.
func TestAfterAFailedWriteEverythingIsRefused(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	first := register(t, s, 1)
	for n := range 50 {
		name := filepath.Join(s.dir, fmt.Sprintf("%05d.mem", n))
		if _, err := os.Stat(name); err != nil {
			if err := os.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	var err error
	for n := 2; err == nil && n < 1000; n++ {
		e := storetest.Example(n, "wifi", fmt.Sprint(n), time.Now())
		e.Request, _ = json.Marshal(map[string]string{"subject": strings.Repeat("x", 100_000)})
		_, err = s.Register(ctx, e)
	}
	if err == nil {
		t.Fatal("wrote without a log")
	}
	for range 3 { // it does not recover by being asked again
		if err := s.Check(ctx); err == nil {
			t.Fatal("check says all is well")
		}
		if _, _, err := s.Claim(ctx, store.Claim{Profile: "wifi", ID: first.ID, Generation: 1, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err == nil {
			t.Fatal("claimed")
		}
		if _, err := s.Find(ctx, store.Lookup{Profile: "wifi", ChallengeHash: first.ChallengeHash}); err == nil {
			t.Fatal("found")
		}
		if _, err := s.Get(ctx, "wifi", first.ID); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Fatalf("get: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	if err := s.Check(ctx); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}

func TestTooLittleSpaceRefusesWritesUntilThereIsMore(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	e := register(t, s, 1)
	var free atomic.Uint64
	var known atomic.Bool
	s.space.Store(&space{func(string) (uint64, bool) { return free.Load(), known.Load() }})
	free.Store(minFree - 1)
	known.Store(true)
	if err := s.Check(ctx); !errors.Is(err, errNoSpace) {
		t.Fatalf("check: %v", err)
	}
	if _, err := s.Revoke(ctx, "wifi", e.ID, "op"); !errors.Is(err, errNoSpace) {
		t.Fatalf("revoke: %v", err)
	}
	if got, err := s.Get(ctx, "wifi", e.ID); err != nil || got.State != store.Registered {
		t.Fatalf("reading: %s, %v", got.State, err)
	}
	for _, c := range []struct {
		free  uint64
		known bool
	}{{minFree, true}, {0, false}} {
		free.Store(c.free)
		known.Store(c.known)
		if err := s.Check(ctx); err != nil {
			t.Fatalf("%d free, known %v: %v", c.free, c.known, err)
		}
	}
	if real, known := freeSpace(s.dir); runtime.GOOS == "linux" && (!known || real == 0) {
		t.Fatal("free space is not known")
	}
	if _, known := freeSpace(filepath.Join(s.dir, "absent")); known {
		t.Fatal("free space of nothing is known")
	}
}

func TestWhoWaitsForTheDiskSharesATransaction(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	const n = 64
	before := s.db.MaxVersion()
	release, blocked := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.update(ctx, func(*tx) error {
			close(blocked)
			<-release
			return nil
		})
	})
	<-blocked
	for i := range n {
		wg.Go(func() {
			e := storetest.Example(i, "wifi", fmt.Sprint(i), time.Now())
			if _, err := s.Register(ctx, e); err != nil {
				t.Error(err)
			}
		})
	}
	for len(s.writes) < n {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if d := s.db.MaxVersion() - before; d != 1 {
		t.Errorf("%d registrations took %d transactions", n, d)
	}
}

func TestWhoGivesUpWhileWaitingHasNoEffect(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	release, blocked := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.update(ctx, func(*tx) error {
			close(blocked)
			<-release
			return nil
		})
	})
	<-blocked
	e := storetest.Example(1, "wifi", "c", time.Now())
	impatient, cancel := context.WithCancel(ctx)
	gone := make(chan error)
	go func() {
		_, err := s.Register(impatient, e)
		gone <- err
	}()
	for len(s.writes) < 1 {
		runtime.Gosched()
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) { // although the writer is busy
		t.Errorf("register: %v", err)
	}
	close(release)
	wg.Wait()
	if err := s.Check(ctx); err != nil { // whoever was before it has been served
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "wifi", e.ID); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("it was registered: %v", err)
	}
}

func TestAPanicOfTheCallerIsAnError(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	e := storetest.Example(1, "wifi", "c", time.Now())
	e.ExternalID = "x"
	if _, err := s.Register(ctx, e); err != nil {
		t.Fatal(err)
	}
	e.ID = storetest.ID(2)
	_, _, err := s.Replace(ctx, e, func(store.Expectation) bool { panic("oh") })
	if err == nil {
		t.Fatal("replaced")
	}
	if err := s.Check(ctx); err != nil {
		t.Fatalf("the store suffered: %v", err)
	}
}

func TestWhatIsTooLargeIsRefusedAlone(t *testing.T) {
	s := openAt(t, t.TempDir(), nil)
	err := s.update(ctx, func(t *tx) error {
		t.set([]byte("x"), make([]byte, maxGroupBytes+1))
		return nil
	})
	if err == nil {
		t.Fatal("written")
	}
	// Several that fit only one by one, together in one group.
	release, blocked := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.update(ctx, func(*tx) error {
			close(blocked)
			<-release
			return nil
		})
	})
	<-blocked
	const n = 16
	for i := range n {
		wg.Go(func() {
			e := storetest.Example(i, "wifi", fmt.Sprint(i), time.Now())
			e.Request, _ = json.Marshal(map[string]string{"subject": strings.Repeat("x", 100<<10)})
			if _, err := s.Register(ctx, e); err != nil {
				t.Error(err)
			}
		})
	}
	for len(s.writes) < n {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	counts, err := s.Counts(ctx)
	if err != nil || counts[store.CountKey{Profile: "wifi", State: store.Registered}] != n {
		t.Fatalf("%v, %v", counts, err)
	}
	for i := range n {
		if _, err := s.Revoke(ctx, "wifi", storetest.ID(i), "op"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSweepingLargeRecordsTakesSeveralTransactions(t *testing.T) {
	clock := storetest.NewClock()
	s, err := Open(Options{Path: t.TempDir(), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 16
	for i := range n {
		e := storetest.Example(i, "wifi", fmt.Sprint(i), clock.Now())
		e.Request, _ = json.Marshal(map[string]string{"subject": strings.Repeat("x", 100<<10)})
		if _, err := s.Register(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	clock.Add(time.Hour)
	if swept, err := s.Sweep(ctx, 100); err != nil || swept.Changes != n {
		t.Fatalf("swept %d, %v", swept.Changes, err)
	}
}

func TestARecordThatCannotBeReadIsNeverLive(t *testing.T) {
	clock := storetest.NewClock()
	s, err := Open(Options{Path: t.TempDir(), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range 3 {
		if _, err := s.Register(ctx, storetest.Example(n, "wifi", fmt.Sprint(n), clock.Now())); err != nil {
			t.Fatal(err)
		}
	}
	bad := storetest.Example(0, "wifi", "0", clock.Now())
	for _, raw := range []string{"", "{", "{}", "null", `{"id":"x","profile":"wifi","state":"free"}`, `{"id":"x","profile":"wifi"}`} {
		err := s.update(ctx, func(t *tx) error {
			t.set(recordKey("wifi", bad.ID), []byte(raw))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(ctx, store.Lookup{Profile: "wifi", ChallengeHash: bad.ChallengeHash}); err == nil {
			t.Errorf("%q was found", raw)
		}
		again := storetest.Example(50, "wifi", "0", clock.Now())
		if _, err := s.Register(ctx, again); err == nil {
			t.Errorf("the challenge of %q was registered again", raw)
		}
		if _, _, err := s.Claim(ctx, store.Claim{Profile: "wifi", ID: bad.ID, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err == nil {
			t.Errorf("%q was claimed", raw)
		}
	}
	clock.Add(time.Hour)
	if n, err := s.Sweep(ctx, 100); err == nil || n.Changes != 2 {
		t.Errorf("swept %d, %v", n.Changes, err)
	}
}
