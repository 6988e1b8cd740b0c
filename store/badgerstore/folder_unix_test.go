//go:build unix

package badgerstore

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheFolderIsForItsOwnerOnly(t *testing.T) {
	mode := func(dir string) os.FileMode {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	made := filepath.Join(t.TempDir(), "a", "b")
	openAt(t, made, nil)
	if mode(made) != 0o700 || mode(filepath.Dir(made)) != 0o700 {
		t.Errorf("made with mode %v", mode(made))
	}
	loose := t.TempDir()
	if err := os.Chmod(loose, 0o755); err != nil {
		t.Fatal(err)
	}
	openAt(t, loose, nil)
	if mode(loose) != 0o700 {
		t.Errorf("left with mode %v", mode(loose))
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Path: foreign}, "no part of a store")
	if mode(foreign) != 0o755 {
		t.Errorf("a foreign folder was changed to %v", mode(foreign))
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a folder that belongs to another user")
	}
	theirs := t.TempDir()
	if err := os.Chown(theirs, 65534, 65534); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(theirs, 0o750); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Path: theirs}, "belongs to another user")
}
