//go:build !windows

package host

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags: a FIFO in the binary's place must not block.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

func executable(info fs.FileInfo) bool { return info.Mode()&0o111 != 0 }

// foreign says who else can change a file or what a folder lists, "" if nobody.
// In a folder with the sticky bit only owners can, and they are asked as well.
func foreign(info fs.FileInfo) string {
	if info.Mode()&0o022 != 0 && (!info.IsDir() || info.Mode()&fs.ModeSticky == 0) {
		return "is writable by group or others"
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Sprintf("belongs neither to root nor to the gateway's user (uid %d)", os.Geteuid())
	}
	return ""
}
