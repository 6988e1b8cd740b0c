package badgerstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

func openAt(t *testing.T, dir string, key []byte) *Store {
	t.Helper()
	s, err := Open(Options{Path: dir, EncryptionKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func refused(t *testing.T, o Options, text string) {
	t.Helper()
	s, err := Open(o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("opened; want %q", text)
	}
	if !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "store \""+o.Path) {
		t.Fatalf("error %q does not name the path and say %q", err, text)
	}
}

func TestOneProcessPerFolder(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, nil)
	refused(t, Options{Path: dir}, "nother process is using")
	if err := s.Check(context.Background()); err != nil {
		t.Fatalf("the first one suffered: %v", err)
	}
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Path: foreign}, "no part of a store")
	if names, _ := os.ReadDir(foreign); len(names) != 1 {
		t.Fatalf("something was put beside it: %v", names)
	}
	file := filepath.Join(foreign, "passwd")
	refused(t, Options{Path: file}, "not a folder")
	refused(t, Options{}, "no path")
	refused(t, Options{Path: t.TempDir(), EncryptionKey: []byte("short")}, "not 32")

	other := t.TempDir()
	db, err := badger.Open(badger.DefaultOptions(other).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(b *badger.Txn) error { return b.Set([]byte("x"), []byte("y")) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Path: other}, "another database")
}

func TestANewerSchemaIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		value []byte
		text  string
	}{
		"newer":      {binary.AppendUvarint(nil, schema+1), "newer version"},
		"unreadable": {[]byte{0xff}, "cannot be read"},
		"zero":       {[]byte{0}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, nil)
			err := s.update(context.Background(), func(t *tx) error {
				t.set(schemaKey, c.value)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			refused(t, Options{Path: dir}, c.text)
			_, err = Open(Options{Path: dir})
			if errors.Is(err, store.ErrSchema) != (name == "newer") {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestAnOlderSchemaIsReadAndTakesTheNewNumber(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, nil)
	e := storetest.Example(1, "wifi", "c", time.Now())
	if _, err := s.Register(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	write := func(v uint64) {
		err := s.update(context.Background(), func(t *tx) error {
			t.set(schemaKey, binary.AppendUvarint(nil, v))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(schema - 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, nil)
	defer s.Close()
	if got, err := s.Get(context.Background(), "wifi", e.ID); err != nil || got.State != store.Registered {
		t.Errorf("%s, %v", got.State, err)
	}
	err := s.view(context.Background(), func(tx *tx) error {
		raw, err := tx.get(schemaKey)
		if v, _ := binary.Uvarint(raw); v != schema {
			t.Errorf("schema %d", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if counts, err := s.Counts(context.Background()); err != nil || counts[store.CountKey{Profile: "wifi", State: store.Registered}] != 1 {
		t.Errorf("counts %v, %v", counts, err)
	}
}

func TestEncryptionHidesWhatIsStored(t *testing.T) {
	const canary = "canary-2f8c1d5e"
	key := bytes.Repeat([]byte{7}, 32)
	found := func(key []byte) bool {
		dir := t.TempDir()
		s := openAt(t, dir, key)
		e := storetest.Example(1, "wifi", "c", time.Now())
		e.Owner, e.Content.SID = canary, canary
		if _, err := s.Register(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		in := func() bool {
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(files) == 0 {
				t.Fatal("no files", err)
			}
			for _, f := range files {
				if b, err := os.ReadFile(f); err != nil {
					t.Fatal(err)
				} else if bytes.Contains(b, []byte(canary)) {
					return true
				}
			}
			return false
		}
		open := in() // in the log
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open || in() // in the tables
	}
	if found(key) {
		t.Error("an encrypted store shows what is in it")
	}
	if !found(nil) {
		t.Error("the search would not find it")
	}
}

func TestTheEncryptionKeyMustFit(t *testing.T) {
	key, other := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	plain, secret := t.TempDir(), t.TempDir()
	for dir, k := range map[string][]byte{plain: nil, secret: key} {
		if err := openAt(t, dir, k).Close(); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, Options{Path: secret}, "no encryption key")
	refused(t, Options{Path: secret, EncryptionKey: other}, "not this store's")
	refused(t, Options{Path: plain, EncryptionKey: key}, "is not encrypted")
	openAt(t, secret, key)
	openAt(t, plain, nil)
}
