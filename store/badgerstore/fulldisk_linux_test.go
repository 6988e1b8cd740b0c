package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

// A disk that fills up while the store is written to: the process lives, what
// was answered is kept, and with room again it goes on.
func TestAFullDiskIsAnErrorAndNotTheEnd(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=96m"); err != nil {
		t.Skipf("no file system of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(Options{Path: filepath.Join(mount, "store")})
	if err != nil {
		t.Fatal(err)
	}
	free, _ := freeSpace(mount)
	filler := filepath.Join(mount, "filler")
	if err := os.WriteFile(filler, make([]byte, free-minFree-(6<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var kept sync.Map
	var n atomic.Int64
	for range 32 {
		wg.Go(func() {
			for {
				i := int(n.Add(1))
				e, err := s.Register(ctx, storetest.Example(i, "wifi", fmt.Sprint(i), time.Now()))
				if errors.Is(err, errNoSpace) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				kept.Store(e.ID, true)
			}
		})
	}
	wg.Wait()
	if err := s.Check(ctx); !errors.Is(err, errNoSpace) {
		t.Errorf("check on a full disk: %v", err)
	}
	if err := s.Close(); err != nil { // it must still find room for what it has in memory
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Path: filepath.Join(mount, "store")}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept.Range(func(id, _ any) bool {
		if e, err := s.Get(ctx, "wifi", id.(string)); err != nil || e.State != store.Registered {
			t.Errorf("%s: %v", id, err)
			return false
		}
		return true
	})
	if err := s.Check(ctx); err != nil {
		t.Errorf("check with room again: %v", err)
	}
}
