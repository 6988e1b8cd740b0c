package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

// sweepStep is how many changes one transaction makes.
const sweepStep = 100

// Sweep marks what has expired and removes what is past its retention. It
// looks only at what is due, so it costs little when there is nothing to do. A
// record that cannot be read is left alone, and is an error after the others.
func (s *Store) Sweep(ctx context.Context, max int) (store.Swept, error) {
	var total store.Swept
	for more := s.queued.Load() > 0; more && total.Changes < max; {
		n, step := 0, min(sweepStep, max-total.Changes)
		err := s.update(ctx, func(t *tx) (err error) {
			n, err = t.sweepQueue(step)
			return err
		})
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		total.Changes += n
		total.Undelivered += n
		more = n == step
	}
	for total.Changes < max {
		var r swept
		err := s.update(ctx, func(t *tx) (err error) {
			r, err = t.sweep(min(sweepStep, max-total.Changes), s.opened, s.swept.get())
			return err
		})
		if err == nil {
			s.swept.set(r.last)
		}
		if err == nil {
			total.Changes += r.changes
			total.InDoubt = append(total.InDoubt, r.doubt...)
			err = r.unreadable
		}
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		if !r.more {
			break
		}
	}
	return total, nil
}

type swept struct {
	changes    int
	more       bool
	doubt      []store.Expectation
	unreadable error
	last       []byte // the due key to go on from; nil: the end was reached
}

// sweepMark is where the next sweep goes on: what was removed before it leaves
// marks in the database that would be walked over each time. What became due
// before the mark meanwhile waits until the end was reached.
type sweepMark struct {
	mu  sync.Mutex
	key []byte
}

func (m *sweepMark) get() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == nil {
		return []byte{kindDue}
	}
	return m.key
}

func (m *sweepMark) set(key []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key = key
}

// sweep makes at most max changes.
func (t *tx) sweep(max int, opened time.Time, from []byte) (swept, error) {
	type due struct{ key, record []byte }
	var list []due
	var r swept
	err := t.scan([]byte{kindDue}, from, false, func(k, v []byte) (bool, error) {
		if string(k) >= string(dueBefore(t.now)) {
			return false, nil
		}
		list = append(list, due{k, v})
		r.more = len(list) == max
		return !r.more, nil
	})
	if err != nil {
		return swept{}, err
	}
	for _, d := range list {
		r.last = d.key
		if t.size() > maxGroupBytes/4 {
			r.more = true
			break
		}
		e, p, err := t.load(d.record)
		if errors.Is(err, store.ErrNotFound) {
			t.delete(d.key)
			continue
		}
		if err != nil {
			r.unreadable = fmt.Errorf("%.64q: %w", d.record, err)
			continue
		}
		// load has brought it up to date; what is left is whether it may go.
		held := certificates(&e)
		remove, _, doubt := e.Sweep(t.now, opened)
		if remove { // what it held stays bound until the certificate's end
			err = t.remove(&e, p)
		} else if err = t.givenBack(&e, held); err == nil {
			err = t.save(&e, p)
		}
		if doubt {
			r.doubt = append(r.doubt, e.Clone())
		}
		if err != nil {
			return swept{}, err
		}
		r.changes++
	}
	if !r.more {
		r.last = nil
	}
	return r, nil
}
