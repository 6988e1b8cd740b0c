//go:build !windows

package host

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/scepgate/scepgate/plugins"
)

func run(name string, args ...string) ([]byte, error) {
	return exec.Command(name, args...).CombinedOutput()
}

// beAHost is the test binary as a gateway: it starts a plugin, says its process
// number, and lives until it is killed.
func beAHost() {
	c := Config{Path: os.Getenv("SCEPGATE_TEST_HOST"), Args: []string{os.Getenv("SCEPGATE_TEST_MODE")}}
	digest, err := hex.DecodeString(os.Getenv("SCEPGATE_TEST_SHA256"))
	if err != nil || copy(c.SHA256[:], digest) != sha256.Size {
		fmt.Println("bad digest")
		os.Exit(1)
	}
	h, err := New(c)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	a, err := h.Match(context.Background(), plugins.Request{TransactionID: "pid"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(a.Findings[0].Got)
	select {}
}

func TestNoPluginOutlivesAHostThatWasKilled(t *testing.T) {
	needProc(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := misbehave(t)
	digest := sum(t, path)
	modes := []string{"obey"} // it watches its parent, as plugins.Serve does
	if runtime.GOOS == "linux" {
		modes = append(modes, "stubborn") // it would stay: the kernel kills it
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "SCEPGATE_TEST_HOST="+path, "SCEPGATE_TEST_MODE="+mode,
				"SCEPGATE_TEST_SHA256="+hex.EncodeToString(digest[:]), "TMPDIR="+sockets)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := sync.OnceFunc(func() {
				cmd.Process.Kill() // SIGKILL: nothing in the host can clean up
				cmd.Wait()
			})
			defer kill()
			line, err := bufio.NewReader(out).ReadString('\n')
			pid, errPid := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || errPid != nil {
				t.Fatalf("%q %v", line, err)
			}
			if state(pid) == "" {
				t.Fatal("the plugin does not run")
			}
			kill()
			eventually(t, "the plugin is gone", func() bool { s := state(pid); return s == "" || s == "Z" })

			// Its folder could not go with it. Whoever starts a plugin next removes it.
			next := host(t, config(t))
			pidOf(t, next)
			next.Close()
			left, err := os.ReadDir(sockets)
			if err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), folderPrefix) }) {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}
