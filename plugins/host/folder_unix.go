//go:build !windows

package host

import (
	"os"
	"path/filepath"
	"syscall"
)

const (
	folderPrefix = "scepgate-plugin-"
	lockName     = "socket-folder.lock"
)

// folder holds one process's socket, and only our user may enter it. It is
// locked as long as we live, so that who comes after one that was killed knows
// what nobody needs any more.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder, and removes those that the dead left. Its name is
// short: the path of a socket has at most 103 bytes, of which go-plugin takes 38.
func newFolder() (*folder, error) {
	in := os.TempDir()
	if len(in) > 38 || !filepath.IsAbs(in) {
		in = "/tmp"
	}
	sweep(in)
	path, err := os.MkdirTemp(in, folderPrefix) // 0700
	if err != nil {
		return nil, err
	}
	f := &folder{path: path}
	if err := f.hold(); err != nil {
		f.remove()
		return nil, err
	}
	return f, nil
}

// hold makes the lock appear only once it is locked.
func (f *folder) hold() (err error) {
	fresh := filepath.Join(f.path, lockName+".new")
	if f.lock, err = os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(f.path, lockName))
}

func (f *folder) remove() {
	_ = os.RemoveAll(f.path)
	if f.lock != nil {
		_ = f.lock.Close()
	}
}

// sweep removes our user's folders whose locks nobody holds. What it cannot
// judge it leaves alone.
func sweep(in string) {
	found, err := filepath.Glob(filepath.Join(in, folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			continue
		}
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != os.Geteuid() {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			_ = lock.Close()
			continue
		}
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}
}
