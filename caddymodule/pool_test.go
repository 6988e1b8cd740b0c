package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

// stubStore answers what the pool itself asks.
type stubStore struct {
	store.Store // nil: nothing else is asked
	check       func() error
	sweep       func(max int) (int, error)
	hang        chan struct{} // if set, Close waits for it
	closed      atomic.Bool
}

func (s *stubStore) Check(context.Context) error {
	if s.check == nil {
		return nil
	}
	return s.check()
}

func (s *stubStore) Sweep(_ context.Context, max int) (store.Swept, error) {
	if s.sweep == nil {
		return store.Swept{}, nil
	}
	n, err := s.sweep(max)
	return store.Swept{Changes: n}, err
}

func (s *stubStore) Close() error {
	if s.hang != nil {
		<-s.hang
	}
	s.closed.Store(true)
	return nil
}

func TestAPooledStoreClosesWhenTheLastLeaseIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(stubStore)
		p := newPooledStore(s, "")
		first, err := p.acquire()
		if err != nil {
			t.Fatal(err)
		}
		second, err := p.acquire()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- p.Destruct() }()
		synctest.Wait()
		if _, err := p.acquire(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("a lease on a closing store: %v", err)
		}
		first()
		first() // counts once
		synctest.Wait()
		if s.closed.Load() {
			t.Fatal("closed while leased")
		}
		second()
		if err := <-done; err != nil || !s.closed.Load() {
			t.Errorf("closed %v, %v", s.closed.Load(), err)
		}
	})
}

func TestALeaseThatNeverComesBackHoldsNothingUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(stubStore)
		p := newPooledStore(s, "")
		release, err := p.acquire()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now() // of the bubble's clock
		if err := p.Destruct(); err != nil || !s.closed.Load() {
			t.Fatalf("closed %v, %v", s.closed.Load(), err)
		}
		if waited := time.Since(begin); waited != drainTime {
			t.Errorf("waited %v", waited)
		}
		release() // late, and harmless
	})
}

func TestAnEngineThatDoesNotCloseHoldsNothingUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stubStore{hang: make(chan struct{})}
		begin := time.Now()
		if err := newPooledStore(s, "").Destruct(); err == nil || s.closed.Load() {
			t.Errorf("closed %v, %v", s.closed.Load(), err)
		}
		if waited := time.Since(begin); waited != closeTime {
			t.Errorf("waited %v", waited)
		}
		close(s.hang)
	})
}

func TestAStoreThatFailedIsDownUntilAProbeSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		var probes atomic.Int32
		p := newPooledStore(&stubStore{check: func() error {
			probes.Add(1)
			if broken.Load() {
				return errors.New("disk full")
			}
			return nil
		}}, "")
		defer p.Destruct()

		time.Sleep(time.Hour)
		if n := probes.Load(); n != 0 || !p.healthy() {
			t.Fatalf("%d probes of a store that never failed, healthy %v", n, p.healthy())
		}
		p.reportError(errors.New("disk full"))
		if p.healthy() {
			t.Fatal("healthy after a failure")
		}
		time.Sleep(3*probeEvery + probeEvery/2)
		synctest.Wait()
		if p.healthy() || probes.Load() != 3 {
			t.Fatalf("healthy %v after %d failed probes", p.healthy(), probes.Load())
		}
		broken.Store(false)
		time.Sleep(probeEvery)
		synctest.Wait()
		if !p.healthy() {
			t.Fatal("still down after a successful probe")
		}
		n := probes.Load()
		time.Sleep(time.Hour)
		if probes.Load() != n {
			t.Error("probed although it is up")
		}
	})
}

func TestAnswersOfAWorkingStoreDoNotTakeItDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooledStore(new(stubStore), "")
		defer p.Destruct()
		for _, err := range []error{
			nil, context.Canceled, store.ErrNotFound, store.ErrGeneration, store.ErrKeyConflict, store.ErrChallengeInUse,
			fmt.Errorf("claiming: %w", store.ErrTransactionConflict),
		} {
			if p.reportError(err); !p.healthy() {
				t.Errorf("down after %v", err)
				return
			}
		}
		for _, err := range []error{context.DeadlineExceeded, store.ErrClosed, errors.New("i/o error")} {
			if p.reportError(err); p.healthy() {
				t.Errorf("healthy after %v", err)
			}
			time.Sleep(2 * probeEvery)
			synctest.Wait()
		}
	})
}

func TestTheSweeperWorksInBatchesUntilNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		left, batches := 2*sweepBatch+5, []int(nil)
		p := newPooledStore(&stubStore{sweep: func(max int) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			n := min(max, left)
			left -= n
			batches = append(batches, n)
			return n, nil
		}}, "")
		begun := time.Now()
		time.Sleep(sweepEvery + 50*time.Millisecond) // three batches, and two rests as long
		synctest.Wait()
		if want := []int{sweepBatch, sweepBatch, 5}; !slices.Equal(batches, want) || time.Since(begun) != sweepEvery+50*time.Millisecond {
			t.Errorf("batches %v, want %v", batches, want)
		}
		if err := p.Destruct(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if len(batches) != 3 {
			t.Error("swept after it was closed")
		}
	})
}

func TestASweepThatFailsTakesTheStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sweeps := 0
		p := newPooledStore(&stubStore{
			sweep: func(int) (int, error) { sweeps++; return sweepBatch, errors.New("i/o error") },
			check: func() error { return errors.New("i/o error") },
		}, "")
		defer p.Destruct()
		time.Sleep(sweepEvery)
		synctest.Wait()
		if p.healthy() || sweeps != 1 {
			t.Errorf("healthy %v after %d failed sweeps", p.healthy(), sweeps)
		}
	})
}

func TestAClosedStoreAnswersLateLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooledStore(memstore.New(time.Now), "")
		if _, err := p.acquire(); err != nil {
			t.Fatal(err)
		}
		if err := p.Destruct(); err != nil {
			t.Fatal(err)
		}
		if err := p.store.Check(t.Context()); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
