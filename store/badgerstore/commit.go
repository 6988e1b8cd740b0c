package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/scepgate/scepgate/store"
)

// Bounds of one transaction. Badger allows 15 % of the memtable, 1.2 MiB.
const (
	maxGroup        = 256
	maxGroupBytes   = 768 << 10
	maxGroupEntries = 4096
	entryOverhead   = 64 // bytes, generously
)

// write is one method waiting for the writer.
type write struct {
	f     func(*tx) error
	taken atomic.Bool // by the writer, or by its caller who gave up: whoever sets it decides
	done  chan error  // one value, once taken by the writer
}

// update runs f with everybody else's writes before or after it, and returns
// when its effect is on disk. An error means that it had none, except for a
// failing disk, where nobody knows.
func (s *Store) update(ctx context.Context, f func(*tx) error) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	w := &write{f: f, done: make(chan error, 1)}
	select {
	case s.writes <- w:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		if w.taken.CompareAndSwap(false, true) {
			return ctx.Err() // the writer will pass it over
		}
		return <-w.done // too late to give up: the caller must know how it ended
	}
}

// commitLoop is the one writer. While it waits for the disk, those who come
// queue up; together they are the next group.
func (s *Store) commitLoop() {
	defer s.workers.Done()
	for {
		var group []*write
		select {
		case <-s.stop: // Close has let everybody who waits finish
			return
		case w := <-s.writes:
			group = append(group, w)
		}
		// Whoever else is about to write goes first, if they are running: on one
		// core the writer would otherwise be woken by each, and sync for each.
		runtime.Gosched()
		for more := true; more && len(group) < maxGroup; {
			select {
			case w := <-s.writes:
				group = append(group, w)
			default:
				more = false
			}
		}
		b := &batch{s: s}
		for _, w := range group {
			if w.taken.CompareAndSwap(false, true) {
				b.run(w)
			}
		}
		b.commit()
	}
}

// batch is one transaction in the making. Only the writer has one.
type batch struct {
	s       *Store
	txn     *badger.Txn // nil: not begun
	bytes   int
	entries int
	deltas  map[store.CountKey]int
	queued  int // deliveries added
	waiting []*write
}

// run lets w read and write within the batch. Its caller is answered when the
// batch is on disk, or at once if it failed and so wrote nothing.
func (b *batch) run(w *write) {
	if err := b.begin(); err != nil {
		w.done <- err
		return
	}
	t := &tx{base: b.txn, recent: &b.s.recent, now: b.s.now(), waiting: int(b.s.queued.Load()) + b.queued}
	if err := guard(func() error { return w.f(t) }); err != nil {
		w.done <- err
		return
	}
	size := t.size()
	if size > maxGroupBytes || len(t.staged) > maxGroupEntries {
		w.done <- errors.New("too much for one transaction")
		return
	}
	if b.bytes+size > maxGroupBytes || b.entries+len(t.staged) > maxGroupEntries {
		b.commit() // what w has read is what this makes durable
		if err := b.begin(); err != nil {
			w.done <- err
			return
		}
	}
	b.waiting = append(b.waiting, w)
	b.bytes += size
	b.entries += len(t.staged)
	b.queued += t.queued
	for k, e := range t.staged {
		var err error
		switch {
		case e.value == nil:
			err = b.txn.Delete([]byte(k))
		case e.ttl > 0:
			err = b.txn.SetEntry(badger.NewEntry([]byte(k), e.value).WithTTL(e.ttl))
		default:
			err = b.txn.Set([]byte(k), e.value)
		}
		if err != nil {
			b.end(fmt.Errorf("staging: %w", err)) // nothing of the batch was written
			return
		}
	}
	for k, d := range t.deltas {
		if b.deltas == nil {
			b.deltas = map[store.CountKey]int{}
		}
		b.deltas[k] += d
	}
}

func (b *batch) begin() error {
	if b.txn != nil {
		return nil
	}
	if err := b.s.failed.Load(); err != nil {
		return *err
	}
	if err := b.s.room(); err != nil {
		return err
	}
	b.txn = b.s.db.NewTransaction(true)
	return nil
}

// commit makes the batch durable and answers who waits for it.
func (b *batch) commit() {
	if b.txn == nil {
		return
	}
	if b.entries == 0 {
		b.end(nil)
		return
	}
	counts, err := b.setCounts()
	if err != nil {
		b.end(err)
		return
	}
	if err := guard(b.txn.Commit); err != nil {
		err = fmt.Errorf("writing: %w", err)
		if !errors.Is(err, badger.ErrConflict) {
			err = b.s.fail(err)
		}
		b.end(err)
		return
	}
	b.s.countsMu.Lock()
	for k, n := range counts {
		if n == 0 {
			delete(b.s.counts, k)
		} else {
			b.s.counts[k] = n
		}
	}
	b.s.countsMu.Unlock()
	b.s.queued.Add(int64(b.queued))
	b.end(nil)
}

// setCounts puts the counts that change into the transaction that changes them.
func (b *batch) setCounts() (map[store.CountKey]int, error) {
	counts := map[store.CountKey]int{}
	for k, d := range b.deltas {
		if d == 0 {
			continue
		}
		n := b.s.counts[k] + d // written by this goroutine only
		if n < 0 {
			return nil, errors.New("counts do not add up")
		}
		counts[k] = n
		var err error
		if n == 0 {
			err = b.txn.Delete(countKey(k))
		} else {
			err = b.txn.Set(countKey(k), countValue(k.Profile, n))
		}
		if err != nil {
			return nil, fmt.Errorf("staging: %w", err)
		}
	}
	return counts, nil
}

// end answers everybody and leaves the batch as if new.
func (b *batch) end(err error) {
	b.txn.Discard()
	for _, w := range b.waiting {
		w.done <- err
	}
	*b = batch{s: b.s}
}

// fail keeps the store from being used on: memory and disk may differ now, and
// Badger does not survive every failed write.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("store has failed and must be opened again: %w", err)
	if s.failed.CompareAndSwap(nil, &err) {
		s.log.Error("store failed", "error", err)
	}
	return err
}
