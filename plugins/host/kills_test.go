//go:build !windows

package host

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

var kills = flag.Int("kills", 25, "how many times TestKillsUnderLoadLeaveNothingBehind kills the plugin")

// belongings is what this process has of what a plugin could leave behind.
type belongings struct {
	children, descriptors, folders, goroutines int
}

func count(t *testing.T) belongings {
	t.Helper()
	b := belongings{goroutines: runtime.NumGoroutine()}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Skip("needs CONFIG_PROC_CHILDREN")
	}
	for _, task := range tasks {
		list, _ := os.ReadFile(task) // the thread may be gone; its children have another then
		b.children += len(strings.Fields(string(list)))
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	b.descriptors = len(fds)
	folders, err := os.ReadDir(sockets)
	if err != nil {
		t.Fatal(err)
	}
	b.folders = len(folders)
	return b
}

// The long run: go test ./plugins/host -run Kills -kills 1000 -timeout 60m
func TestKillsUnderLoadLeaveNothingBehind(t *testing.T) {
	needProc(t)
	c := config(t)
	c.Timeout = 10 * time.Second
	// One round first, so that what the runtime keeps for good is not counted.
	warm := host(t, c)
	pidOf(t, warm)
	warm.Close()
	before := count(t)

	h := host(t, c)
	h.pause = func(int) time.Duration { return time.Millisecond } // or it would take hours
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var agreed, failed atomic.Int64
	var callers sync.WaitGroup
	wrong := make(chan string, 1)
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				a, err := h.Match(ctx, question("agree"))
				switch {
				case ctx.Err() != nil:
				case err != nil:
					failed.Add(1)
					time.Sleep(time.Millisecond)
				case a.Verdict == plugins.Agree:
					agreed.Add(1)
				default:
					select {
					case wrong <- fmt.Sprintf("%+v", a):
					default:
					}
				}
			}
		})
	}
	for i := range *kills {
		var pid int
		eventually(t, "a plugin to kill", func() bool {
			a, err := h.Match(ctx, question("pid"))
			if err != nil || len(a.Findings) != 1 {
				return false
			}
			pid, err = strconv.Atoi(a.Findings[0].Got)
			return err == nil
		})
		calls := agreed.Load()
		eventually(t, "load", func() bool { return agreed.Load() > calls+int64(rand.IntN(50)) })
		exits := h.Stats().Exits
		switch i % 4 {
		case 0:
			go h.Match(ctx, question("crash"))
		case 1:
			syscall.Kill(pid, syscall.SIGTERM) // which it obeys
		default:
			syscall.Kill(pid, syscall.SIGKILL)
		}
		eventually(t, "its end is noticed", func() bool { return h.Stats().Exits > exits })
	}
	cancel()
	callers.Wait()
	h.Close()
	select {
	case a := <-wrong:
		t.Errorf("a killed plugin answered %s", a)
	default:
	}
	var after belongings
	eventually(t, fmt.Sprintf("back to %+v", before), func() bool {
		after = count(t)
		return after.children <= before.children && after.descriptors <= before.descriptors &&
			after.folders <= before.folders && after.goroutines <= before.goroutines
	})
	if n := h.Stats().Exits; n < uint64(*kills) {
		t.Errorf("%d exits for %d kills", n, *kills)
	}
	t.Logf("%d kills, %d calls agreed, %d failed; before %+v, after %+v", *kills, agreed.Load(), failed.Load(), before, after)
}
