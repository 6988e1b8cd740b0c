// Package badgerstore keeps expectations in an embedded Badger database: one
// folder, one process.
//
// What it guarantees: a method that returned nil is on disk, also over a power
// cut; each method is one transaction; a challenge is never more than a hash
// here. It trusts the folder to be its own and the caller as package store says.
// The one call is [Open].
//
// All writes go through one goroutine that puts what is waiting into one
// transaction (commit.go): Badger syncs its log once for every transaction, so
// this is what lets concurrent claims share a sync. It also makes conflicts
// impossible and lets the counts be kept in the same transaction.
//
// After a write that failed nobody knows what is on disk. The store then stays
// failed, whatever is asked, until it is opened again: see [Store.Check].
//
// Badger writes through memory maps, where a full disk is not an error but a
// signal that ends the process. So the store refuses to write while less than
// its reserve is free (space.go). Nothing else should fill that disk.
package badgerstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/scepgate/scepgate/store"
)

// schema is the version of the layout in keys.go. A store with a newer one is
// refused (threat F36). An older one is read as it is and takes this number:
// version 2 added what version 1 would not have kept, the holders of
// transactionIDs and what a record remembers of renewals and doubt. The queue of
// deliveries has not changed it: an older binary does not see the queue, and
// leaves out what matchers are owed when it writes a record.
const schema = 2

// Sizes that keep an idle store small: a claim is about a kilobyte, and the
// operating system caches what is mapped.
const (
	memTable        = 8 << 20 // bounds a transaction to 15 % of it
	valueLogFile    = 16 << 20
	blockCache      = 8 << 20  // encrypted only: decrypted blocks
	indexCache      = 48 << 20 // encrypted only: decrypted indexes and bloom filters, as needed
	gcInterval      = 10 * time.Minute
	reserveInterval = time.Minute
)

// Options says where the store is and how it is opened.
type Options struct {
	Path          string           // folder; made 0700 if absent
	EncryptionKey []byte           // nil: not encrypted; else 32 bytes. A store is one or the other for good
	Now           func() time.Time // nil: the system's
	Logger        *slog.Logger     // nil: nothing is logged
}

// Store is a store.Store in Badger.
type Store struct {
	db     *badger.DB
	dir    string
	now    func() time.Time
	opened time.Time // a forward claimed before is nobody's any more
	log    *slog.Logger
	space  atomic.Pointer[space]

	recent recent
	swept  sweepMark
	due    dueMark

	// use is held for reading by every call, and for writing by Close: Badger
	// must not be asked anything after it was closed.
	use    sync.RWMutex
	closed bool

	writes  chan *write
	stop    chan struct{}
	workers sync.WaitGroup

	failed  atomic.Pointer[error] // the write that failed; set once
	reserve atomic.Uint64         // bytes that must be free for a write to begin

	countsMu sync.Mutex
	counts   map[store.CountKey]int // what is committed
	queued   atomic.Int64           // deliveries that are committed; added to by the writer only
}

var _ store.Store = (*Store)(nil)

// Open opens the store at o.Path, or makes it.
func Open(o Options) (*Store, error) {
	s, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("opening store %q: %w", o.Path, err)
	}
	return s, nil
}

func open(o Options) (*Store, error) {
	if n := len(o.EncryptionKey); n != 0 && n != 32 {
		return nil, fmt.Errorf("encryption key has %d bytes, not 32", n)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := prepareFolder(o.Path)
	if err != nil {
		return nil, err
	}
	if err := keyFits(dir, o.EncryptionKey); err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, now: o.Now, opened: o.Now(), log: o.Logger,
		writes: make(chan *write, maxGroup), stop: make(chan struct{}),
		counts: map[store.CountKey]int{},
	}
	s.space.Store(&space{freeSpace})
	s.reserve.Store(minFree)
	if err := s.room(); err != nil {
		return nil, err
	}

	bo := badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(logger{o.Logger}).
		WithMetricsEnabled(false).
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithValueLogFileSize(valueLogFile).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithDetectConflicts(true).
		WithChecksumVerificationMode(options.OnBlockRead) // a flipped bit is an error, not an expectation
	if len(o.EncryptionKey) != 0 {
		bo = bo.WithEncryptionKey(append([]byte(nil), o.EncryptionKey...)).
			WithBlockCacheSize(blockCache).
			WithIndexCacheSize(indexCache)
	}
	if s.db, err = badger.Open(bo); err != nil {
		return nil, err
	}
	s.workers.Add(1)
	go s.commitLoop()
	if err := s.bootstrap(); err != nil {
		_ = s.Close()
		return nil, err
	}
	s.measure()
	s.workers.Add(1)
	go s.maintain()
	return s, nil
}

// keyFits tries the key on what an existing store has encrypted with its own,
// before Badger is opened: it would say less.
func keyFits(dir string, key []byte) error {
	try := func(key []byte) error {
		_, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true, EncryptionKey: key})
		return err
	}
	err := try(key)
	switch {
	case !errors.Is(err, badger.ErrEncryptionKeyMismatch):
		return err
	case len(key) == 0:
		return errors.New("the store is encrypted and there is no encryption key")
	case try(nil) == nil:
		return errors.New("the store is not encrypted and there is an encryption key")
	}
	return errors.New("the encryption key is not this store's")
}

// bootstrap checks or writes the schema and reads the counts.
func (s *Store) bootstrap() error {
	ctx := context.Background()
	write := false
	err := s.view(ctx, func(t *tx) error {
		raw, err := t.get(schemaKey)
		if err != nil {
			return err
		}
		if raw == nil {
			if !t.empty() {
				return errors.New("the folder holds another database")
			}
			write = true
			return nil
		}
		v, n := binary.Uvarint(raw)
		switch {
		case n <= 0 || v == 0:
			return errors.New("the schema version cannot be read")
		case v > schema:
			return fmt.Errorf("%w: schema %d, this binary knows %d", store.ErrSchema, v, schema)
		}
		write = v < schema
		if s.counts, err = t.readCounts(); err != nil {
			return err
		}
		waiting, err := t.readQueued()
		s.queued.Store(int64(waiting))
		return err
	})
	if err != nil || !write {
		return err
	}
	return s.update(ctx, func(t *tx) error {
		t.set(schemaKey, binary.AppendUvarint(nil, schema))
		return nil
	})
}

// maintain collects the value log and measures the disk until Close.
func (s *Store) maintain() {
	defer s.workers.Done()
	gc, reserve := time.NewTicker(gcInterval), time.NewTicker(reserveInterval)
	defer gc.Stop()
	defer reserve.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-reserve.C:
			s.measure()
		case <-gc.C:
			if s.failed.Load() != nil {
				continue
			}
			err := s.db.RunValueLogGC(0.5)
			if err != nil && !errors.Is(err, badger.ErrNoRewrite) && !errors.Is(err, badger.ErrRejected) {
				s.log.Warn("value log was not collected", "error", err)
			}
		}
	}
}

// enter begins a call; its result ends it.
func (s *Store) enter(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.use.RLock()
	if s.closed {
		s.use.RUnlock()
		return nil, store.ErrClosed
	}
	if err := s.failed.Load(); err != nil {
		s.use.RUnlock()
		return nil, *err
	}
	return s.use.RUnlock, nil
}

// view runs f on a snapshot.
func (s *Store) view(ctx context.Context, f func(*tx) error) (err error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.db.View(func(b *badger.Txn) error {
		return guard(func() error { return f(&tx{base: b, recent: &s.recent, now: s.now()}) })
	})
}

// guard turns a panic into an error: nothing that is stored may end the process.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal failure: %.200s", fmt.Sprint(r))
		}
	}()
	return f()
}

// Counts counts by stored state: what has expired counts as such once swept.
func (s *Store) Counts(ctx context.Context) (map[store.CountKey]int, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	defer leave()
	s.countsMu.Lock()
	defer s.countsMu.Unlock()
	return maps.Clone(s.counts), nil
}

// BindChallengeKey keeps check in an empty store, or compares it with the one kept.
func (s *Store) BindChallengeKey(ctx context.Context, check []byte) error {
	if len(check) == 0 {
		return errors.New("challenge key: no check value")
	}
	err := s.update(ctx, func(t *tx) error {
		kept, err := t.get(challengeKeyKey)
		if err != nil {
			return err
		}
		if kept == nil {
			if t.hasRecords() { // whose hashes nobody can vouch for
				return store.ErrChallengeKey
			}
			t.set(challengeKeyKey, append([]byte(nil), check...))
			return nil
		}
		if string(kept) != string(check) {
			return store.ErrChallengeKey
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("challenge key: %w", err)
	}
	return nil
}

// Check writes, syncs and reads back. It fails for good after any write has
// failed: until the store is opened again nobody knows what is on disk, and a
// later sync that succeeds proves nothing about the earlier one.
func (s *Store) Check(ctx context.Context) error {
	err := s.update(ctx, func(t *tx) error {
		t.set(probeKey, binary.BigEndian.AppendUint64(nil, nanos(t.now)))
		return nil
	})
	if err == nil {
		err = s.view(ctx, func(t *tx) error {
			raw, err := t.get(probeKey)
			if err == nil && len(raw) != 8 {
				err = errors.New("what was written is not there")
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// Close lets calls that have begun finish and closes the database.
func (s *Store) Close() error {
	s.use.Lock()
	if s.closed {
		s.use.Unlock()
		return store.ErrClosed
	}
	s.closed = true
	s.use.Unlock()
	close(s.stop)
	s.workers.Wait()
	if err := guard(s.db.Close); err != nil {
		return fmt.Errorf("closing store %q: %w", s.dir, err)
	}
	return nil
}
