package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/scepgate/scepgate/store"
)

// tx is what one method sees: a snapshot (or the group's transaction) with its
// own writes on top. They reach the transaction only if the method succeeds.
type tx struct {
	base   *badger.Txn
	recent *recent
	now    time.Time // one reading for the whole method
	staged map[string]entry
	deltas map[store.CountKey]int

	waiting int // deliveries before this method
	queued  int // and how many it adds
}

// entry is one write. A nil value deletes.
type entry struct {
	value []byte
	ttl   time.Duration // 0: none
}

// get returns the value, or nil if there is none.
func (t *tx) get(key []byte) ([]byte, error) {
	if e, ok := t.staged[string(key)]; ok {
		return e.value, nil
	}
	item, err := t.base.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if v == nil {
		v = []byte{}
	}
	return v, nil
}

func (t *tx) set(key, value []byte) { t.put(key, entry{value: value}) }
func (t *tx) delete(key []byte)     { t.put(key, entry{}) }

func (t *tx) put(key []byte, e entry) {
	if t.staged == nil {
		t.staged = map[string]entry{}
	}
	t.staged[string(key)] = e
}

// size is what the transaction grows by.
func (t *tx) size() int {
	n := 0
	for k, e := range t.staged {
		n += len(k) + len(e.value) + entryOverhead
	}
	return n
}

// prior is what is stored of an expectation before it changes.
type prior struct {
	exists bool
	state  store.State
	due    []byte
}

// load returns one as it is stored, and up to date. ErrNotFound.
func (t *tx) load(key []byte) (store.Expectation, prior, error) {
	raw, err := t.get(key)
	if err != nil {
		return store.Expectation{}, prior{}, err
	}
	if raw == nil {
		return store.Expectation{}, prior{}, store.ErrNotFound
	}
	e, ok := t.recent.get(key, raw)
	if !ok {
		if e, err = store.Decode(raw); err != nil {
			return store.Expectation{}, prior{}, err
		}
		t.recent.put(key, raw, &e)
	}
	p := prior{exists: true, state: e.State, due: dueKey(&e)}
	e.Normalise(t.now)
	return e, p, nil
}

func (t *tx) save(e *store.Expectation, p prior) error {
	raw, err := e.Encode()
	if err != nil {
		return err
	}
	key := recordKey(e.Profile, e.ID)
	t.set(key, raw)
	if p.exists {
		t.recent.put(key, raw, e)
	}
	due := dueKey(e)
	if p.due != nil && string(p.due) != string(due) {
		t.delete(p.due)
	}
	if due != nil && string(p.due) != string(due) {
		t.set(due, key)
	}
	if p.exists {
		t.count(e.Profile, p.state, -1)
	}
	t.count(e.Profile, e.State, 1)
	return nil
}

// remove forgets e and whatever leads to it. An index entry that leads to a
// newer one stays.
func (t *tx) remove(e *store.Expectation, p prior) error {
	t.delete(recordKey(e.Profile, e.ID))
	if p.due != nil {
		t.delete(p.due)
	}
	indexes := [][]byte{}
	if len(e.ChallengeHash) > 0 {
		indexes = append(indexes, indexKey(kindChallenge, e.Profile, e.ChallengeHash))
	}
	if len(e.IdentityHash) > 0 {
		indexes = append(indexes, indexKey(kindIdentity, e.Profile, e.IdentityHash))
	}
	if e.ExternalID != "" {
		indexes = append(indexes, indexKey(kindExternal, e.Profile, e.ExternalID))
		t.delete(byExternalKey(e.Profile, e.ExternalID, e.ID))
	}
	for _, k := range indexes {
		id, err := t.get(k)
		if err != nil {
			return err
		}
		if string(id) == e.ID {
			t.delete(k)
		}
	}
	t.count(e.Profile, p.state, -1)
	return nil
}

func (t *tx) count(profile string, s store.State, by int) {
	if t.deltas == nil {
		t.deltas = map[store.CountKey]int{}
	}
	t.deltas[store.CountKey{Profile: profile, State: s}] += by
}

// scan calls f with the keys and values that begin with prefix, from start, or
// backwards from it, until f returns false. It does not see staged writes.
func (t *tx) scan(prefix, start []byte, reverse bool, f func(key, value []byte) (bool, error)) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.Reverse = prefix, reverse
	o.PrefetchValues = false // they lie beside the keys
	it := t.base.NewIterator(o)
	defer it.Close()
	for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		v, err := item.ValueCopy(nil)
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		more, err := f(item.KeyCopy(nil), v)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// any reports whether a key begins with prefix. What cannot be read is not nothing.
func (t *tx) any(prefix []byte) bool {
	found := false
	err := t.scan(prefix, prefix, false, func(_, _ []byte) (bool, error) {
		found = true
		return false, nil
	})
	return found || err != nil
}

func (t *tx) empty() bool      { return !t.any(nil) }
func (t *tx) hasRecords() bool { return t.any([]byte{kindRecord}) }

func (t *tx) readCounts() (map[store.CountKey]int, error) {
	counts := map[store.CountKey]int{}
	p := []byte{kindCount}
	err := t.scan(p, p, false, func(k, v []byte) (bool, error) {
		n, size := binary.Uvarint(v)
		if len(k) < 2 || int(k[1]) >= len(states) || size <= 0 {
			return false, errors.New("a count cannot be read")
		}
		counts[store.CountKey{Profile: string(v[size:]), State: states[k[1]]}] = int(n)
		return true, nil
	})
	return counts, err
}

// readQueued counts the deliveries.
func (t *tx) readQueued() (n int, err error) {
	p := []byte{kindQueueDue}
	err = t.scan(p, p, false, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	return n, err
}

func countValue(profile string, n int) []byte {
	return append(binary.AppendUvarint(nil, uint64(n)), profile...)
}
