package badgerstore

import (
	"bytes"
	"sync"

	"github.com/scepgate/scepgate/store"
)

// maxRecent bounds the records kept decoded: what is in flight at once, and more.
const maxRecent = 512

// recent keeps what was decoded or encoded last, since an enrolment reads its
// record three times within a second. It is no cache of the truth: the bytes are
// read from Badger every time, and an entry counts only for the very same ones.
type recent struct {
	mu      sync.Mutex
	entries map[string]decoded
}

type decoded struct {
	raw []byte
	e   store.Expectation
}

// get gives the decoded form of raw, which was read under key; a copy.
func (r *recent) get(key, raw []byte) (store.Expectation, bool) {
	r.mu.Lock()
	d, ok := r.entries[string(key)]
	r.mu.Unlock()
	if !ok || !bytes.Equal(d.raw, raw) {
		return store.Expectation{}, false
	}
	return d.e.Clone(), true // entries are never modified
}

func (r *recent) put(key, raw []byte, e *store.Expectation) {
	d := decoded{bytes.Clone(raw), e.Clone()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil {
		r.entries = make(map[string]decoded)
	}
	for k := range r.entries {
		if len(r.entries) < maxRecent {
			break
		}
		delete(r.entries, k) // any: maps begin anywhere
	}
	r.entries[string(key)] = d
}
