//go:build unix

package badgerstore

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// tighten takes away what group and others may do, if the folder is ours.
func tighten(dir string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("mode is %04o and the folder belongs to another user; make it 0700", info.Mode().Perm())
	}
	return os.Chmod(dir, 0o700)
}
