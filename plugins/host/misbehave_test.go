//go:build !windows

package host

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

// misbehaviour is one row of docs/matchers/exec.md.
type misbehaviour struct {
	name  string
	start []string // misbehave's arguments
	alter func(t *testing.T, c *Config)
	spoil func(t *testing.T, c *Config) // after New

	question string // default agree
	device   string // what it gets
	cause    Cause  // of the error, "" if it is an answer
	detail   string // in the error's text
	down     bool   // known to be down, before the next start
}

var misbehaviours = []misbehaviour{
	// before it runs
	{name: "file is gone", spoil: func(t *testing.T, c *Config) { remove(t, c.Path) }, cause: MissingFile, down: true},
	{name: "file was replaced", spoil: func(t *testing.T, c *Config) { replace(t, c.Path, "another") }, cause: WrongChecksum, down: true},
	{name: "signature was replaced", alter: signed, spoil: func(t *testing.T, c *Config) { replace(t, c.Path+".sig", strings.Repeat("x", 64)) }, cause: WrongSignature, down: true},
	{name: "signature is gone", alter: signed, spoil: func(t *testing.T, c *Config) { remove(t, c.Path+".sig") }, cause: MissingFile, down: true},
	{name: "file became writable by others", spoil: func(t *testing.T, c *Config) { chmod(t, c.Path, 0o777) }, cause: UnsafeFile, down: true},
	{name: "no program", alter: func(t *testing.T, c *Config) { replace(t, c.Path, "\x7fELF nonsense"); c.SHA256 = sum(t, c.Path) }, cause: UnusableFile, down: true},
	// at its start
	{name: "exits at start", start: []string{"exits"}, cause: ExitedAtStart, detail: "exit status 3", down: true},
	{name: "says nothing", start: []string{"sleeps"}, cause: StartTimedOut, down: true},
	{name: "closes its standard output", start: []string{"shuts_stdout"}, cause: NotAPlugin, down: true},
	{name: "greets with rubbish", start: []string{"rubbish"}, cause: NotAPlugin, detail: "Hello, world!", down: true},
	{name: "greets without end", start: []string{"endless_stdout"}, cause: NotAPlugin, down: true},
	{name: "speaks another protocol", start: []string{"netrpc"}, cause: NotAPlugin, detail: "netrpc", down: true},
	{name: "speaks another version", start: []string{"other_version"}, cause: WrongProtocolVersion, detail: "99", down: true},
	{name: "speaks another service", start: []string{"other_service"}, cause: NotAPlugin, down: true},
	{name: "names another socket", start: []string{"elsewhere", "/run/docker.sock"}, cause: NotAPlugin, detail: "folder", down: true},
	{name: "names another host", start: []string{"remote", "192.0.2.1:443"}, cause: NotAPlugin, detail: "address", down: true},
	{name: "listens and is deaf", start: []string{"deaf"}, cause: StartTimedOut, down: true},
	{name: "is not who it says it is", start: []string{"imposter"}, cause: NotAPlugin, down: true},
	{name: "lacks a field", start: []string{"shy"}, alter: func(_ *testing.T, c *Config) { c.Decides = []plugins.Field{plugins.Subject} }, cause: LacksField, detail: "subject", down: true},
	{name: "refuses its configuration", alter: configured("start", "refuse"), cause: WrongConfiguration, detail: `url: \u{001B}[31mnot a URL\u{000A}`, down: true},
	{name: "crashes over its configuration", alter: configured("start", "crash"), cause: ExitedAtStart, detail: "exit status 9", down: true},
	{name: "hangs over its configuration", alter: configured("start", "hang"), cause: StartTimedOut, down: true},
	// while it runs
	{name: "crashes in Match", question: "crash", cause: Crashed, detail: "exit status 7"},
	{name: "crashes beside Match", question: "crash_in_goroutine", cause: Crashed, detail: "exit status 2"},
	{name: "panics in Match", question: "panic", cause: PluginError, detail: "panicked"},
	{name: "hangs in Match", question: "hang", cause: TimedOut},
	{name: "stops altogether", question: "stop", cause: TimedOut},
	{name: "is slow", question: "slow", cause: TimedOut},
	{name: "returns an error", question: "error", cause: PluginError, detail: `cmdb: \u{001B}[31mno such host`},
	{name: "answers with rubbish", start: []string{"raw"}, question: "rubbish", cause: GarbageAnswer},
	{name: "answers with 10 MiB", start: []string{"raw"}, question: "oversized", cause: GarbageAnswer},
	{name: "answers about another request", start: []string{"raw"}, question: "other_request", cause: GarbageAnswer},
	{name: "answers that it is unavailable", start: []string{"raw"}, question: "unavailable", cause: Unreachable, detail: "try later"},
	{name: "answers with an unknown verdict", start: []string{"raw"}, question: "unknown_verdict", device: "refused"},
	{name: "answers without a verdict", start: []string{"raw"}, question: "no_verdict", device: "refused"},
	{name: "writes to standard error without end", start: []string{"noisy"}, device: "goes on"},
	{name: "writes to standard output without end", start: []string{"blurts"}, device: "goes on"},
	{name: "prints without end", start: []string{"prints"}, device: "goes on"},
	{name: "has a child", start: []string{"parent"}, question: "crash", cause: Crashed},
	{name: "has a child that ran away with its output", start: []string{"parent_of_runaway"}, question: "crash", cause: Crashed},
	{name: "does not end when asked to", start: []string{"stubborn"}, device: "goes on"},
}

func TestWhateverAPluginDoesWrongIsAnErrorWithItsCause(t *testing.T) {
	needProc(t)
	misbehave(t)
	for _, m := range misbehaviours {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m.run(t)
		})
	}
}

func (m *misbehaviour) run(t *testing.T) {
	c := config(t, m.start...)
	c.Timeout = 3 * time.Second
	c.Path = copied(t, c.Path)
	if m.alter != nil {
		m.alter(t, &c)
	}
	h := host(t, c)
	h.startTimeout = 5 * time.Second
	if m.spoil != nil {
		m.spoil(t, &c)
	}
	if m.cause == StartTimedOut {
		h.startTimeout = 500 * time.Millisecond
	}
	h.pause = func(deaths int) time.Duration {
		if deaths == 0 {
			return 0
		}
		return time.Hour // the next start is another test
	}
	device := m.device
	if device == "" {
		device = "503"
	}
	command := m.question
	if command == "" {
		command = "agree"
	}
	// A start takes as long as it takes on a busy machine; the time of a call is
	// for the call.
	eventually(t, "up or down", func() bool {
		h.Start()
		return h.Stats().Up || h.Healthy() != nil
	})
	if slices.Contains(m.start, "parent_of_runaway") {
		endWithTest(t, told(t, h, "child"))
	}
	a, err := h.Match(t.Context(), question(command))
	if got := answers(a, err); got != device {
		t.Fatalf("device gets %s (%+v, %v), not %s", got, a, err, device)
	}
	if err != nil {
		if CauseOf(err) != m.cause {
			t.Errorf("cause is %q, not %q: %v", CauseOf(err), m.cause, err)
		}
		if !strings.Contains(err.Error(), m.detail) {
			t.Errorf("%q does not say %q", err, m.detail)
		}
		if len(err.Error()) > 2*maxDetail || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("unfit for a log: %q", err)
		}
	}
	if healthy := h.Healthy(); (healthy != nil) != m.down || m.down && CauseOf(healthy) != m.cause {
		t.Errorf("Healthy is %v", healthy)
	}
	if m.down {
		if s := h.Stats(); s.Up || s.Starts != 0 || s.FailedStarts != 1 || s.Cause != m.cause {
			t.Errorf("stats %+v", s)
		}
		return
	}
	// It is the next device's turn.
	if m.question == "stop" {
		eventually(t, "a new process", func() bool { return h.Stats().Starts == 2 })
		if s := h.Stats(); s.Cause != Hung {
			t.Errorf("stats %+v, should have been hung", s)
		}
	}
	if slices.Contains(m.start, "parent_of_runaway") {
		endWithTest(t, told(t, h, "child"))
	}
	a, err = h.Match(t.Context(), question("agree"))
	if got := answers(a, err); got != "goes on" {
		t.Errorf("next device gets %s: %+v %v", got, a, err)
	}
}

// endWithTest kills what a plugin has set free.
func endWithTest(t *testing.T, number string) {
	t.Helper()
	pid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("child %d: %v", pid, err)
		}
	})
}

// copied gives a test a binary of its own. It is copied by a process: a file
// that this one has open for writing while another test forks cannot be run.
func copied(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "plugin")
	if out, err := run("cp", path, to); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return to
}

var _, signer, _ = ed25519.GenerateKey(nil)

func signed(t *testing.T, c *Config) {
	t.Helper()
	b, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, c.Path+".sig", string(ed25519.Sign(signer, b)))
	c.SHA256 = [32]byte{}
	c.SignedBy = signer.Public().(ed25519.PublicKey)
}

func configured(pairs ...string) func(*testing.T, *Config) {
	return func(_ *testing.T, c *Config) {
		c.Config = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			c.Config[pairs[i]] = pairs[i+1]
		}
	}
}

func replace(t *testing.T, path, content string) {
	t.Helper()
	_ = os.Remove(path) // what runs cannot be written to
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
