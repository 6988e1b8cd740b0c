package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/scepgate/scepgate/store"
)

// queued is a delivery, encoded, and what changes of it.
type queued struct {
	data     []byte
	due      time.Time
	attempts int
}

// enqueue adds all of list, or none.
func (s *Store) enqueue(list []store.Delivery) error {
	data := make([][]byte, len(list))
	for i := range list {
		var err error
		if data[i], err = list[i].Encode(); err != nil {
			return err
		}
	}
	for i, d := range list {
		s.queue[d.ID] = queued{data: data[i], due: d.Due}
	}
	return nil
}

// Notify adds deliveries, or drops them while too many wait.
func (s *Store) Notify(ctx context.Context, list []store.Delivery) (int, error) {
	end, err := s.write(ctx)
	if err != nil {
		return 0, fmt.Errorf("notify: %w", err)
	}
	defer end()
	entries, err := store.Enter(s.now(), list)
	kept := min(len(entries), max(0, store.MaxDeliveries-len(s.queue)))
	if err == nil {
		err = s.enqueue(entries[:kept])
	}
	if err != nil {
		return 0, fmt.Errorf("notify: %w", err)
	}
	return len(entries) - kept, nil
}

// Deliveries gives what is due.
func (s *Store) Deliveries(ctx context.Context, max int) ([]store.Delivery, error) {
	end, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("deliveries: %w", err)
	}
	defer end()
	now := s.now()
	var due []string
	for id, q := range s.queue {
		if !now.Before(q.due) {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(s.queue[a].due.Compare(s.queue[b].due), cmp.Compare(a, b))
	})
	var list []store.Delivery
	for i, id := range due {
		if i >= min(max, store.MaxDue) {
			break
		}
		q := s.queue[id]
		d, err := store.DecodeDelivery(q.data)
		if err != nil {
			return nil, fmt.Errorf("deliveries: %w", err)
		}
		d.Due, d.Attempts = q.due, q.attempts
		list = append(list, d)
	}
	return list, nil
}

// Delivered removes one.
func (s *Store) Delivered(ctx context.Context, id string) error {
	end, err := s.write(ctx)
	if err != nil {
		return fmt.Errorf("delivered: %w", err)
	}
	defer end()
	delete(s.queue, id)
	return nil
}

// Postpone makes one due later.
func (s *Store) Postpone(ctx context.Context, id string, due time.Time) error {
	end, err := s.write(ctx)
	if err != nil {
		return fmt.Errorf("postpone: %w", err)
	}
	defer end()
	if q, ok := s.queue[id]; ok {
		if now := s.now(); due.Before(now) {
			due = now
		}
		q.due, q.attempts = due.UTC().Round(0), q.attempts+1
		s.queue[id] = q
	}
	return nil
}

// sweepQueue removes at most max deliveries whose retention is over.
func (s *Store) sweepQueue(now time.Time, max int) int {
	removed, first := 0, store.FirstDelivery(now)
	for id := range s.queue {
		if id < first && removed < max {
			delete(s.queue, id)
			removed++
		}
	}
	return removed
}
