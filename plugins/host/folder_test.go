//go:build !windows

package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyFoldersOfTheDeadAreRemoved(t *testing.T) {
	in, err := os.MkdirTemp("/tmp", "sgt")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(in)
	t.Setenv("TMPDIR", in)
	living, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	defer living.remove()
	dead, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // what the kernel does to the dead
	for path, mode := range map[string]os.FileMode{folderPrefix + "unlocked": 0o700, folderPrefix + "open": 0o755, "other": 0o700} {
		if err := os.Mkdir(filepath.Join(in, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{folderPrefix + "open", "other"} {
		if err := os.WriteFile(filepath.Join(in, path, lockName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next, err := newFolder()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(next.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	if _, err := os.Stat(dead.path); !os.IsNotExist(err) {
		t.Error("the folder of the dead is there:", err)
	}
	for _, path := range []string{living.path, filepath.Join(in, folderPrefix+"unlocked"), filepath.Join(in, folderPrefix+"open"), filepath.Join(in, "other")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	next.remove()
	if _, err := os.Stat(next.path); !os.IsNotExist(err) {
		t.Error("not removed:", err)
	}
}
