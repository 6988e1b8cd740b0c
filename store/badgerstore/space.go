package badgerstore

import (
	"errors"
	"fmt"
)

// The reserve is what must be free before a write begins: room for the log and
// the tables that what is already accepted will become, and for merging them.
const (
	minFree         = 4 * memTable
	reserveFraction = 4       // of the tables
	maxReserve      = 1 << 30 // bytes
)

// space tells how much is free, if that is known. Tests make it small.
type space struct {
	free func(dir string) (bytes uint64, known bool)
}

var errNoSpace = errors.New("too little disk space is left")

// room refuses a write that Badger might not survive: its memory maps turn a
// full disk into a signal that ends the process (threat F14).
func (s *Store) room() error {
	free, known := s.space.Load().free(s.dir)
	if reserve := s.reserve.Load(); known && free < reserve {
		return fmt.Errorf("%w: %d MiB, and %d MiB must be", errNoSpace, free>>20, reserve>>20)
	}
	return nil
}

// measure sets the reserve by the size of the database.
func (s *Store) measure() {
	var tables uint64
	for _, l := range s.db.Levels() {
		if l.Size > 0 {
			tables += uint64(l.Size)
		}
	}
	s.reserve.Store(min(maxReserve, minFree+tables/reserveFraction))
}
