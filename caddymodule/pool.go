package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/store"
)

// stores holds every open store of the process, by what it is (engine and
// resolved path) and not by how it is configured: a reload that changes an
// option must never open the same folder twice.
var stores = caddy.NewUsagePool()

const (
	drainTime    = 10 * time.Second // how long a reload waits for requests of the configuration before it
	closeTime    = 30 * time.Second // how long it waits for an engine to close
	sweepEvery   = time.Minute
	sweepBatch   = 32               // changes in one transaction of the sweeper: enrolments wait for it
	sweepTimeout = 30 * time.Second // for one batch
	probeEvery   = time.Second      // while the store is known to be down
	probeTimeout = 5 * time.Second
)

// pooledStore is an open store that outlives configurations. It owns what must
// run once per store and not once per configuration: the sweeper and the probe.
type pooledStore struct {
	store    store.Store
	settings string // digest of the options it was opened with
	// ownKey keys the challenge hashes of a store that keeps nothing on disk
	// and so needs no key file: it must live as long as what it hashed.
	ownKey [32]byte

	mu        sync.Mutex // guards what follows
	leases    int
	closing   bool
	idle      chan struct{}              // closed when closing and no lease is left
	listeners []*func(store.Expectation) // told of claims in doubt; the newest configuration's last

	down   atomic.Bool
	wake   chan struct{} // tells the probe that the store went down
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// newPooledStore takes s over.
func newPooledStore(s store.Store, settings string) *pooledStore {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pooledStore{
		store: s, settings: settings, cancel: cancel,
		idle: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	rand.Read(p.ownKey[:]) // never fails (crypto/rand)
	p.work.Go(func() { p.sweep(ctx) })
	p.work.Go(func() { p.probe(ctx) })
	return p
}

func (p *pooledStore) log() *zap.Logger { return storeLogger() }

// acquire leases the store: it stays open until release is called, which may
// be called more than once.
func (p *pooledStore) acquire() (release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, store.ErrClosed
	}
	p.leases++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leases--
		if p.closing && p.leases == 0 {
			close(p.idle)
		}
	}), nil
}

// Destruct refuses new leases, waits for the old ones, and closes. Caddy calls
// it when the last configuration that uses the store has gone; it holds up the
// reload for as long, so the wait is bounded.
func (p *pooledStore) Destruct() error {
	p.mu.Lock()
	p.closing = true
	open := p.leases
	p.mu.Unlock()
	if open > 0 {
		timeout := time.NewTimer(drainTime)
		defer timeout.Stop()
		select {
		case <-p.idle:
		case <-timeout.C:
			p.log().Warn("closing the store although requests still use it", zap.Int("requests", open))
		}
	}
	p.cancel()
	closed := make(chan error, 1)
	go func() {
		p.work.Wait()
		closed <- p.store.Close()
	}()
	timeout := time.NewTimer(closeTime)
	defer timeout.Stop()
	select {
	case err := <-closed:
		return err
	case <-timeout.C:
		// As when the folder was removed under an open database.
		return errors.New("store does not close; restart to release its folder")
	}
}

// healthy reports whether the store is not known to be down. It costs nothing:
// it is asked before every private-key operation.
func (p *pooledStore) healthy() bool { return !p.down.Load() }

// reportError tells that an operation failed. An answer of the store's own,
// such as a conflict, and a caller that went away say nothing about its health.
func (p *pooledStore) reportError(err error) {
	if err == nil || isAnswer(err) || errors.Is(err, context.Canceled) {
		return
	}
	if !p.down.Swap(true) {
		p.log().Error("store is down", zap.Error(err))
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// isAnswer reports whether err is a sentinel by which a working store answers.
func isAnswer(err error) bool {
	for _, sentinel := range []error{
		store.ErrNotFound, store.ErrChallengeInUse, store.ErrChallengeUsed, store.ErrIdentityInUse,
		store.ErrExternalIDInUse, store.ErrExpectationInUse, store.ErrNotRegistered, store.ErrGeneration,
		store.ErrTransactionConflict, store.ErrKeyConflict, store.ErrUsed, store.ErrNotReleasable, store.ErrCursor,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// probe asks a store that is down whether it works again.
func (p *pooledStore) probe(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for p.down.Load() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(probeEvery):
			}
			if err := p.check(ctx); err == nil {
				p.down.Store(false)
				p.log().Info("store is up again")
			}
		}
	}
}

func (p *pooledStore) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return p.store.Check(ctx)
}

// listen lets f be told of claims in doubt until stop is called. Only whoever
// came last is told: while a reload replaces a configuration there are two.
func (p *pooledStore) listen(f func(store.Expectation)) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = append(p.listeners, &f)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listeners = slices.DeleteFunc(p.listeners, func(l *func(store.Expectation)) bool { return l == &f })
	}
}

// tell tells of claims that the sweeper found to be in doubt.
func (p *pooledStore) tell(inDoubt []store.Expectation) {
	p.mu.Lock()
	var listener func(store.Expectation)
	if n := len(p.listeners); n > 0 {
		listener = *p.listeners[n-1]
	}
	p.mu.Unlock()
	if listener == nil {
		return
	}
	for _, e := range inDoubt {
		listener(e)
	}
}

// sweep removes what is past its retention, and tells of claims in doubt.
func (p *pooledStore) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for changes := sweepBatch; changes >= sweepBatch && ctx.Err() == nil; {
			begun := time.Now()
			swept, err := p.sweepOnce(ctx)
			// The store reports each once: what is not told now is never told.
			p.tell(swept.InDoubt)
			if err != nil {
				if ctx.Err() == nil {
					p.log().Error("sweeping the store", zap.Error(err))
					p.reportError(err)
				}
				break
			}
			if changes = swept.Changes; changes >= sweepBatch {
				rest(ctx, time.Since(begun)) // half of the writer's time is the enrolments'
			}
		}
	}
}

// maxRest bounds what work in bulk leaves to others after each of its pieces.
const maxRest = 100 * time.Millisecond

// rest waits as long as a piece of work in bulk has taken, so that an enrolment
// beside it is not slowed down by more than half.
func rest(ctx context.Context, took time.Duration) {
	timer := time.NewTimer(min(took, maxRest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *pooledStore) sweepOnce(ctx context.Context) (store.Swept, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return p.store.Sweep(ctx, sweepBatch)
}

// Interface guard
var _ caddy.Destructor = (*pooledStore)(nil)
