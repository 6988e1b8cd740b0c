//go:build !windows

package host

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
)

// sockets is where the plugins of these tests have their folders.
var sockets string

func TestMain(m *testing.M) {
	if os.Getenv("SCEPGATE_TEST_HOST") != "" {
		beAHost()
		return
	}
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("/tmp", "sgt") // the path of a socket is short
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		sockets = filepath.Join(dir, "s")
		if err := os.Mkdir(sockets, 0o700); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv("TMPDIR", sockets)
		built.path = filepath.Join(dir, "misbehave")
		code := m.Run()
		if code == 0 {
			if err := goleak.Find(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			if left, _ := os.ReadDir(sockets); len(left) > 0 {
				fmt.Fprintf(os.Stderr, "socket folders left: %v\n", left)
				return 1
			}
		}
		return code
	}())
}

var built struct {
	once sync.Once
	path string
	err  error
}

// misbehave is testdata/misbehave, built once.
func misbehave(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	built.once.Do(func() {
		cmd := exec.Command("go", "build", "-o", built.path, "./testdata/misbehave")
		cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %v\n%s", err, out)
			return
		}
		built.err = os.Chmod(built.path, 0o755)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func sum(t testing.TB, path string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// config runs misbehave with args.
func config(t testing.TB, args ...string) Config {
	t.Helper()
	path := misbehave(t)
	return Config{Path: path, Args: args, SHA256: sum(t, path)}
}

// host makes a Host that is closed with the test.
func host(t testing.TB, c Config) *Host {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// question commands misbehave.
func question(command string) plugins.Request {
	return plugins.Request{TransactionID: command, Decides: []plugins.Field{plugins.Subject}, Facts: plugins.Facts{RequestSHA256: "ab12"}}
}

// told is what misbehave answers to a question about itself.
func told(t testing.TB, h *Host, command string) string {
	t.Helper()
	a, err := h.Match(t.Context(), question(command))
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if a.Verdict != plugins.Refuse || len(a.Findings) != 1 {
		t.Fatalf("%s: %+v", command, a)
	}
	return a.Findings[0].Got
}

func pidOf(t testing.TB, h *Host) int {
	t.Helper()
	pid, err := strconv.Atoi(told(t, h, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gone reports that no process has this number, not even as a zombie.
func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return os.IsNotExist(err)
}

// state is a process's letter in /proc, "" if there is none.
func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func needProc(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc")
	}
}

// answers says in one word what a device gets for what Match returned: the
// gate makes 503 of an error, and a refusal of whatever is no agreement.
func answers(a plugins.Answer, err error) string {
	switch {
	case err != nil:
		return "503"
	case a.Verdict == plugins.Agree && len(a.Findings) == 0:
		return "goes on"
	case a.Verdict == plugins.NotMine && len(a.Findings) == 0:
		return "left to others"
	}
	return "refused"
}
