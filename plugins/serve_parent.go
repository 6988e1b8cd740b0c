//go:build !windows

package plugins

import (
	"os"
	"time"
)

// parentEnds returns when the process that started this one has died, however
// it died: the kernel then gives its children another parent.
func parentEnds() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	watch(os.Getppid, tick.C)
}

func watch(parent func() int, tick <-chan time.Time) {
	first := parent()
	for range tick {
		if parent() != first {
			return
		}
	}
}
