package badgerstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

// The queue of deliveries. What changes of one, Due and Attempts, stands before
// its JSON, so that it can be moved and removed without being understood.

const queuedHead = 8 + 4

// queued is the stored form of a delivery.
func queued(due uint64, attempts int, raw []byte) []byte {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, queuedHead+len(raw)), due)
	return append(binary.BigEndian.AppendUint32(v, uint32(attempts)), raw...)
}

func queueKey(id string) []byte { return append([]byte{kindQueue}, id...) }

// queueDueKey sorts by due.
func queueDueKey(due uint64, id string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{kindQueueDue}, due), id...)
}

func (t *tx) enqueue(d *store.Delivery) error {
	raw, err := d.Encode()
	if err != nil {
		return err
	}
	due := nanos(d.Due)
	t.set(queueKey(d.ID), queued(due, d.Attempts, raw))
	t.set(queueDueKey(due, d.ID), []byte{})
	t.queued++
	return nil
}

// dequeue removes one, and gives its stored form: nil if there is none.
func (t *tx) dequeue(id string) ([]byte, error) {
	if len(id) > maxID {
		return nil, nil
	}
	v, err := t.get(queueKey(id))
	if v == nil || err != nil {
		return nil, err
	}
	t.delete(queueKey(id))
	if len(v) >= queuedHead {
		t.delete(queueDueKey(binary.BigEndian.Uint64(v), id))
	}
	t.queued--
	return v, nil
}

// Notify adds deliveries, or drops them while too many wait.
func (s *Store) Notify(ctx context.Context, list []store.Delivery) (int, error) {
	dropped := 0
	err := s.update(ctx, func(t *tx) error {
		entries, err := store.Enter(t.now, list)
		if err != nil {
			return err
		}
		kept := min(len(entries), max(0, store.MaxDeliveries-t.waiting))
		for i := range entries[:kept] {
			if err := t.enqueue(&entries[i]); err != nil {
				return err
			}
		}
		dropped = len(entries) - kept
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("notify: %w", err)
	}
	return dropped, nil
}

// Deliveries gives what is due. What cannot be read is left out, and an error
// only if it is all there is: it must not be in the way of the others.
func (s *Store) Deliveries(ctx context.Context, max int) ([]store.Delivery, error) {
	var list []store.Delivery
	err := s.view(ctx, func(t *tx) error {
		if max = min(max, store.MaxDue); max <= 0 || s.queued.Load() == 0 {
			return nil
		}
		var unreadable error
		first := nanos(t.now.Add(-rescan))
		err := t.scan([]byte{kindQueueDue}, s.due.from(t.now), false, func(k, _ []byte) (bool, error) {
			if string(k) >= string(queueDueKey(nanos(t.now)+1, "")) {
				return false, nil
			}
			d, err := t.delivery(k)
			if err != nil {
				unreadable = fmt.Errorf("%.64q: %w", k, err)
				return true, nil
			}
			if list = append(list, d); len(list) == 1 {
				first = min(first, nanos(d.Due))
			}
			return len(list) < max, nil
		})
		if err == nil {
			s.due.set(queueDueKey(first, ""))
		}
		if err == nil && len(list) == 0 {
			err = unreadable
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("deliveries: %w", err)
	}
	return list, nil
}

// delivery reads the one that a key of kindQueueDue leads to.
func (t *tx) delivery(due []byte) (store.Delivery, error) {
	if len(due) < 9 {
		return store.Delivery{}, fmt.Errorf("a key of %d bytes", len(due))
	}
	v, err := t.get(queueKey(string(due[9:])))
	if err != nil {
		return store.Delivery{}, err
	}
	if len(v) < queuedHead {
		return store.Delivery{}, fmt.Errorf("a value of %d bytes", len(v))
	}
	d, err := store.DecodeDelivery(v[queuedHead:])
	if err != nil {
		return store.Delivery{}, err
	}
	d.Due = time.Unix(0, int64(binary.BigEndian.Uint64(v))).UTC()
	d.Attempts = int(binary.BigEndian.Uint32(v[8:]))
	return d, nil
}

// Delivered removes one.
func (s *Store) Delivered(ctx context.Context, id string) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.dequeue(id)
		return err
	})
	if err != nil {
		return fmt.Errorf("delivered: %w", err)
	}
	return nil
}

// Postpone makes one due later.
func (s *Store) Postpone(ctx context.Context, id string, due time.Time) error {
	err := s.update(ctx, func(t *tx) error {
		v, err := t.dequeue(id)
		if v == nil || err != nil {
			return err
		}
		if len(v) < queuedHead {
			return fmt.Errorf("a value of %d bytes", len(v))
		}
		at := nanos(later(due, t.now))
		t.set(queueKey(id), queued(at, int(binary.BigEndian.Uint32(v[8:]))+1, v[queuedHead:]))
		t.set(queueDueKey(at, id), []byte{})
		t.queued++
		return nil
	})
	if err != nil {
		return fmt.Errorf("postpone: %w", err)
	}
	return nil
}

// sweepQueue removes at most max deliveries whose retention is over.
func (t *tx) sweepQueue(max int) (removed int, err error) {
	var ids []string
	end := queueKey(store.FirstDelivery(t.now))
	err = t.scan([]byte{kindQueue}, []byte{kindQueue}, false, func(k, _ []byte) (bool, error) {
		if string(k) >= string(end) {
			return false, nil
		}
		ids = append(ids, string(k[1:]))
		return len(ids) < max, nil
	})
	for _, id := range ids {
		if err == nil {
			_, err = t.dequeue(id)
		}
	}
	return len(ids), err
}

// rescan is how often the queue is read from its beginning, and how far before
// now it is read always: what a writer that had to wait, or a clock set back, puts
// before the mark is overlooked no longer.
const rescan = time.Minute

// dueMark is where reading begins. What was delivered before it leaves marks in
// the database that would be walked over each time.
type dueMark struct {
	mu   sync.Mutex
	key  []byte
	next time.Time // when to begin at the beginning again
}

func (m *dueMark) from(now time.Time) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == nil || !now.Before(m.next) || now.Before(m.next.Add(-rescan)) {
		m.key, m.next = nil, now.Add(rescan)
		return []byte{kindQueueDue}
	}
	return m.key
}

func (m *dueMark) set(key []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key = key
}
