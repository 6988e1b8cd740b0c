package badgerstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/scepgate/scepgate/store"
)

// sweepStep is how many changes one transaction makes.
const sweepStep = 100

// Sweep marks what has expired and removes what is past its retention. It
// looks only at what is due, so it costs little when there is nothing to do. A
// record that cannot be read is left alone, and is an error after the others.
func (s *Store) Sweep(ctx context.Context, max int) (int, error) {
	total := 0
	for total < max {
		var r swept
		err := s.update(ctx, func(t *tx) (err error) {
			r, err = t.sweep(min(sweepStep, max-total))
			return err
		})
		if err == nil {
			total, err = total+r.changes, r.unreadable
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
	unreadable error
}

// sweep makes at most max changes.
func (t *tx) sweep(max int) (swept, error) {
	type due struct{ key, record []byte }
	var list []due
	var r swept
	err := t.scan([]byte{kindDue}, []byte{kindDue}, false, func(k, v []byte) (bool, error) {
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
		if remove, _ := e.Sweep(t.now); remove {
			err = t.remove(&e, p)
		} else {
			err = t.save(&e, p)
		}
		if err != nil {
			return swept{}, err
		}
		r.changes++
	}
	return r, nil
}
