package badgerstore

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

func TestMain(m *testing.M) {
	if inChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// engine opens stores below the test's own folder.
func engine(key []byte) storetest.Engine {
	open := func(t *testing.T, dir string, now func() time.Time) store.Store {
		t.Helper()
		s, err := Open(Options{Path: dir, EncryptionKey: key, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return storetest.Engine{
		Open: func(t *testing.T, now func() time.Time) store.Store { return open(t, t.TempDir(), now) },
		Reopen: func(t *testing.T, old store.Store) store.Store {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			b := old.(*Store)
			return open(t, b.dir, b.now)
		},
	}
}

func TestBadgerPassesTheSuite(t *testing.T) { storetest.Run(t, engine(nil)) }

func TestEncryptedBadgerPassesTheSuite(t *testing.T) {
	storetest.Run(t, engine([]byte("0123456789abcdef0123456789abcdef")))
}
