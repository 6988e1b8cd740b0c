//go:build unix

package caddymodule

import (
	"os"
	"syscall"
)

// keepOwner gives f the owner of old, so that a file that root rewrites is
// still readable by the server's user.
func keepOwner(f *os.File, old os.FileInfo) error {
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return nil
	}
	return f.Chown(int(stat.Uid), int(stat.Gid))
}
