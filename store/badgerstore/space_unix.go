//go:build linux || darwin

package badgerstore

import "syscall"

// freeSpace gives what an ordinary user may still write below dir.
func freeSpace(dir string) (uint64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 0, false // some network file systems do not say
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true
}
