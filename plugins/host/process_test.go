//go:build !windows

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

func TestAMatcherInAProcessIsAMatcher(t *testing.T) {
	pluginstest.Run(t, func(t *testing.T) plugins.Matcher {
		c := config(t, "exact")
		c.Decides = []plugins.Field{plugins.Subject, plugins.SAN, plugins.SID, plugins.KeyUsage, plugins.ExtKeyUsage}
		c.Timeout = 10 * time.Second
		return host(t, c)
	})
}

func TestAPluginGetsItsEnvironmentAndNothingOfTheGateways(t *testing.T) {
	t.Setenv("GATEWAYS_SECRET", "hush")
	c := config(t, "obey", "--site", "wifi")
	c.Env = []string{"CMDB=https://cmdb.example.com", "EMPTY="}
	c.Config = map[string]string{"url": "u", "Mixed Case": "ü\n"}
	h := host(t, c)
	var names []string
	for variable := range strings.SplitSeq(told(t, h, "environment"), "\x1e") {
		name, value, _ := strings.Cut(variable, "=")
		if name == "CMDB" && value != "https://cmdb.example.com" {
			t.Error(variable)
		}
		names = append(names, name)
	}
	for _, n := range names {
		switch {
		case n == "CMDB", n == "EMPTY", n == plugins.Handshake.MagicCookieKey, strings.HasPrefix(n, "PLUGIN_"):
		default:
			t.Errorf("it sees %s", n)
		}
	}
	if len(names) < 5 {
		t.Errorf("it sees only %v", names)
	}
	if got := told(t, h, "arguments"); got != c.Path+" obey --site wifi" {
		t.Errorf("arguments %q", got)
	}
	if got := told(t, h, "config"); got != "Mixed Case=ü\n;url=u;" {
		t.Errorf("config %q", got)
	}
	if got := told(t, h, "stdin"); got != `"" EOF` {
		t.Errorf("standard input gives %s", got)
	}
	if got, want := told(t, h, "folder"), filepath.Dir(c.Path)+" drwx------"; got != want {
		t.Errorf("folders are %q, not %q", got, want)
	}
}

func TestWhatAPluginSaysOfItselfIsDescribed(t *testing.T) {
	h := host(t, config(t))
	if h.WantsOutcomes() {
		t.Error("wants outcomes before it was asked")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	i, err := h.Described(ctx)
	if err != nil || i.Name != "misbehave" || i.Version != "1.2.3" || len(i.Decides) != 2 {
		t.Errorf("%+v %v", i, err)
	}
	if !h.WantsOutcomes() {
		t.Error("does not want outcomes")
	}
	exact := host(t, config(t, "exact"))
	if _, err := exact.Described(ctx); err != nil || exact.WantsOutcomes() {
		t.Errorf("%v, wants outcomes: %t", err, exact.WantsOutcomes())
	}
}

func TestOutcomesAreDelivered(t *testing.T) {
	h := host(t, config(t))
	if err := h.Notified(t.Context(), plugins.Outcome{ID: "1", Result: plugins.Issued}); err != nil {
		t.Error(err)
	}
	if err := h.Notified(t.Context(), plugins.Outcome{ID: "2", Reason: "again"}); CauseOf(err) != PluginError {
		t.Error(err)
	}
	if got := told(t, h, "heard"); got != "1" {
		t.Errorf("heard %s", got)
	}
}

func TestCloseLeavesNothingOfAPluginBehind(t *testing.T) {
	needProc(t)
	for _, mode := range []string{"obey", "stubborn", "noisy", "parent"} {
		t.Run(mode, func(t *testing.T) {
			before, _ := os.ReadDir(sockets)
			h := host(t, config(t, mode))
			pids := []int{pidOf(t, h)}
			if mode == "parent" {
				child, err := strconv.Atoi(told(t, h, "child"))
				if err != nil || state(child) == "" {
					t.Fatalf("child %d does not run: %v", child, err)
				}
				pids = append(pids, child)
			}
			h.Close()
			for _, pid := range pids {
				// A child that its parent left is reaped by init.
				eventually(t, "gone", func() bool { return gone(pid) || state(pid) == "Z" && pid != pids[0] })
			}
			if !gone(pids[0]) {
				t.Error("not reaped")
			}
			after, _ := os.ReadDir(sockets)
			if len(after) != len(before) {
				t.Errorf("folders: %v", after)
			}
		})
	}
}

func TestAPluginWhoseStarterThreadIsIdleLives(t *testing.T) {
	needProc(t)
	h := host(t, config(t))
	pid := pidOf(t, h)
	for range 100 { // threads come and go
		done := make(chan struct{})
		go func() { time.Sleep(time.Millisecond); close(done) }()
		<-done
	}
	if again := pidOf(t, h); again != pid {
		t.Errorf("it was another process: %d, %d", pid, again)
	}
}

func TestAKilledPluginIsBackForTheNextDevice(t *testing.T) {
	needProc(t)
	c := config(t)
	c.Timeout = 10 * time.Second
	h := host(t, c)
	pid := pidOf(t, h)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is noticed", func() bool { return h.Stats().Exits == 1 })
	if again := pidOf(t, h); again == pid {
		t.Error("the dead answers")
	}
	if s := h.Stats(); s.Starts != 2 || s.Cause != Crashed {
		t.Errorf("%+v", s)
	}
}

func TestACallerThatGivesUpGetsItsOwnError(t *testing.T) {
	h := host(t, config(t))
	pidOf(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := h.Match(ctx, question("slow")); result <- err }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
