package matchers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
)

const workers = 3

// fleet is an inventory of many devices, and those that enrol one after the other.
type fleet struct {
	*stage
	number    atomic.Int64
	certified [workers]atomic.Int64
	waited    atomic.Int64 // answers that told a device to come again
}

const fleetSize = 20000

func newFleet(t *testing.T, dir string) *fleet {
	t.Helper()
	build(t)
	if runtime.GOOS != "linux" {
		t.Skip("looks at processes in /proc")
	}
	var rows strings.Builder
	rows.WriteString("serial,status,cn,o\n")
	for i := range fleetSize {
		fmt.Fprintf(&rows, "%d,active,dev-%d,Example Corp\n", i, i)
	}
	write(t, filepath.Join(dir, "inventory.csv"), rows.String())
	return &fleet{stage: set(t, dir, inventoryLines(t, dir, ""))}
}

// enrol brings one device to its certificate. It may be told to come again only
// if patient.
func (f *fleet) enrol(worker int, patient bool) error {
	n := f.number.Add(1)
	w := want{cn: fmt.Sprintf("dev-%d", n%fleetSize), device: worker}
	if err := f.register(&w, "CN=what the MDM knows"); err != nil {
		return fmt.Errorf("%s: %w", w.cn, err)
	}
	message := f.message(w)
	for end := time.Now().Add(30 * time.Second); ; {
		got, err := f.post(message)
		switch {
		case err == nil && got == issued:
			f.certified[worker].Add(1)
			return nil
		case err == nil && got == again && patient && time.Now().Before(end):
			f.waited.Add(1)
			time.Sleep(50 * time.Millisecond) // as Retry-After says, only sooner
		default:
			return fmt.Errorf("%s: %q, %v", w.cn, got, err)
		}
	}
}

// underLoad enrols devices until do has returned. None may be refused.
func (f *fleet) underLoad(patient bool, do func()) {
	f.Helper()
	var wg sync.WaitGroup
	var stop atomic.Bool
	for i := range workers {
		wg.Go(func() {
			for failed := 0; !stop.Load() && failed < 3; {
				if err := f.enrol(i, patient); err != nil {
					failed++
					f.Errorf("an enrolment failed: %v", err)
				}
			}
		})
	}
	func() {
		defer wg.Wait()
		defer stop.Store(true)
		do()
	}()
	seen := map[string]bool{}
	for _, i := range f.ndes.Issued() {
		cn := i.Certificate.Subject.CommonName
		if seen[cn] {
			f.Errorf("%s has two certificates", cn)
		}
		seen[cn] = true
	}
	f.Logf("%d certificates, %d answers to come again", len(seen), f.waited.Load())
}

// goesOn waits until every worker has enrolled a device from beginning to end.
func (f *fleet) goesOn() {
	f.Helper()
	var enough [workers]int64
	for i := range enough {
		enough[i] = f.certified[i].Load() + 2
	}
	f.until("devices enrol", func() bool {
		for i := range enough {
			if f.certified[i].Load() < enough[i] {
				return f.Failed()
			}
		}
		return true
	})
}

func TestAPluginThatIsKilledUnderLoadComesBack(t *testing.T) {
	f := newFleet(t, t.TempDir())
	pid := f.started(0)
	f.underLoad(true, func() {
		f.goesOn()
		for range 3 {
			mark := f.Mark()
			p, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			next := f.started(mark)
			if next == pid {
				t.Fatalf("process %d again", pid)
			}
			f.until("the killed process is gone", func() bool { return !lives(pid) })
			pid = next
			f.goesOn()
		}
	})
	if !f.counts("caddy_scep_matcher_exits_total", `matcher="inventory"`) {
		t.Error("the exits are not counted")
	}
}

func TestAReloadTakesTheReplacedBinaryAndFailsNoEnrolment(t *testing.T) {
	dir := t.TempDir()
	f := newFleet(t, dir)
	pid := f.started(0)
	f.underLoad(false, func() {
		f.goesOn()
		for i := range 3 {
			mark := f.Mark()
			lines := inventoryLines(t, dir, fmt.Sprintf("another build %d", i)) // replaces the file
			f.goesOn()
			if !lives(pid) {
				t.Fatal("the process ended when its file was replaced")
			}
			if err := f.load(configured(t, lines)); err != nil {
				t.Fatalf("reload: %v", err)
			}
			next := f.started(mark)
			if next == pid {
				t.Fatalf("process %d again", pid)
			}
			f.goesOn()
			f.until("the old process is gone", func() bool { return !lives(pid) })
			pid = next
		}
		// A reload that changes nothing of the plugin leaves it alone.
		mark := f.Mark()
		if err := f.load(strings.Replace(f.configuredNow(dir), "upstream_timeout 30s", "upstream_timeout 29s", 1)); err != nil {
			t.Fatalf("reload: %v", err)
		}
		f.goesOn()
		if !lives(pid) {
			t.Error("a reload that changed something else ended the plugin")
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if l, err := f.Find(done, mark, func(l gateway.Line) bool { return l.String("msg") == "plugin started" }); err == nil {
			t.Errorf("a reload that changed something else started it again: %v", l)
		}
		// One with a wrong checksum is refused, and changes nothing.
		if err := f.load(strings.Replace(f.configuredNow(dir), "sha256 ", "sha256 00", 1)); err == nil {
			t.Error("a checksum of 66 digits was loaded")
		}
		wrong := strings.Repeat("0", 63) + "1"
		if err := f.load(configured(t, strings.Replace(inventoryLines(t, dir, "x"), "sha256 ", "sha256 "+wrong+"\n #", 1))); err == nil || !strings.Contains(err.Error(), "wrong checksum") {
			t.Errorf("a wrong checksum: %v", err)
		}
		f.goesOn()
		if !lives(pid) {
			t.Error("a reload that failed ended the plugin")
		}
		// Caddy's admin endpoint shows the metrics of the configuration that was
		// tried last, whether or not it was loaded.
		if err := f.load(configured(t, inventoryLines(t, dir, ""))); err != nil {
			t.Fatalf("reload: %v", err)
		}
	})
}

// configuredNow is the configuration with the binary as it was placed last.
func (f *fleet) configuredNow(dir string) string {
	f.Helper()
	return configured(f.T, inventoryLines(f.T, dir, "another build 2"))
}

// slow is a body of which the second half comes when it is let go.
type slow struct {
	first, second io.Reader
	began, letGo  chan struct{}
	once          sync.Once
}

func newSlow(body []byte) *slow {
	return &slow{first: bytes.NewReader(body[:len(body)/2]), second: bytes.NewReader(body[len(body)/2:]), began: make(chan struct{}), letGo: make(chan struct{})}
}

func (s *slow) Read(b []byte) (int, error) {
	if n, err := s.first.Read(b); err == nil {
		return n, nil
	}
	s.once.Do(func() { close(s.began) })
	<-s.letGo
	return s.second.Read(b)
}

func TestARequestThatArrivedBeforeAReloadIsStillJudged(t *testing.T) {
	dir := t.TempDir()
	f := newFleet(t, dir)
	pid := f.started(0)
	for _, next := range []struct{ name, config string }{
		{"another binary", configured(t, inventoryLines(t, dir, "another build"))},
		{"no plugin", configured(t, "")},
	} {
		message := f.message(f.differs(fmt.Sprintf("dev-%d", f.number.Add(1))))
		body := newSlow(message)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.Devices+attack.Path+"?operation=PKIOperation", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = int64(len(message))
		req.Header.Set("Content-Type", "application/x-pki-message")
		answer := make(chan string, 1)
		go func() {
			a, err := attack.Do(f.posts, req)
			if err != nil || a.Rep == nil {
				answer <- fmt.Sprintf("status %d, %v", a.Status, err)
				return
			}
			answer <- "pkiStatus " + a.Rep.PKIStatus
		}()
		<-body.began
		if err := f.load(next.config); err != nil {
			t.Fatal(err)
		}
		close(body.letGo)
		if got := <-answer; got != issued {
			t.Errorf("while %s was loaded: %s", next.name, got)
		}
	}
	f.until("the first plugin is gone", func() bool { return !lives(pid) })
}

func TestNoPluginOutlivesTheGateway(t *testing.T) {
	f := newFleet(t, t.TempDir())
	pid := f.started(0)
	if err := f.enrol(0, false); err != nil || !lives(pid) {
		t.Fatalf("%v, lives %v", err, lives(pid))
	}
	f.Kill()
	f.until("the plugin of a gateway that was killed is gone", func() bool { return !lives(pid) })

	f.restart()
	pid = f.started(0)
	if err := f.enrol(0, true); err != nil || !lives(pid) {
		t.Fatalf("%v, lives %v", err, lives(pid))
	}
	if err := f.Stop(30 * time.Second); err != nil {
		t.Error(err)
	}
	if lives(pid) {
		t.Error("the plugin of a gateway that was stopped is still there")
	}
	f.restart()
	if err := f.enrol(0, true); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsWrongWithAMatcherIsFoundByValidate(t *testing.T) {
	build(t)
	dir := t.TempDir()
	s := set(t, dir, inventoryLines(t, dir, ""))
	s.tries(s.asks("C02XK1", "c02xk1.example.com"), issued) // validate works beside it
	good := inventoryLines(t, dir, "")
	other, _ := place(t, t.TempDir(), "inventory", "something else")
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	path, validated := filepath.Join(dir, "inventory"), t.TempDir()
	for _, tt := range []struct {
		name, lines string
		says        []string
	}{
		{"good", good, nil},
		{"another binary", strings.Replace(good, path, other, 1), []string{"matcher inventory", "wrong checksum"}},
		{"no binary", strings.Replace(good, path, path+"-absent", 1), []string{"matcher inventory", "missing file", path + "-absent"}},
		{"a binary that others can write", strings.Replace(good, path, open, 1), []string{"matcher inventory", "unsafe file", open}},
		{"a relative path", strings.Replace(good, path, "./inventory", 1), []string{"matcher inventory", "absolute"}},
		{"no checksum", strings.Replace(good, "sha256", "#", 1), []string{"matcher inventory", "sha256 or signed_by"}},
		{"an option that does not exist", strings.Replace(good, "sha256", "sha512", 1), []string{"sha512", "Caddyfile:21"}},
		{"a misspelt name in an expression", "matcher expression `request.subjekt == \"x\"`", []string{"Caddyfile:19", "1:8", "subjekt"}},
		{"an expression that is no condition", "matcher expression `1 + 1`", []string{"Caddyfile:19", "bool"}},
		{"half an expression", "matcher expression `profile ==`", []string{"Caddyfile:19", "1:11"}},
		{"a webhook without a secret file", "matcher webhook https://127.0.0.1:1 {\n secret_file " + filepath.Join(dir, "absent") + "\n}", []string{"matcher webhook", "absent"}},
		{"a revealing webhook in clear text", "matcher webhook http://192.0.2.1 {\n reveal challenge\n}", []string{"matcher webhook", "https"}},
		{"a source without challenge matcher", strings.Replace(good, "decides subject", "decides challenge subject", 1), []string{"challenge matcher"}},
	} {
		out, err := s.command("validate", "--config", write(t, filepath.Join(validated, "Caddyfile"), configured(t, tt.lines)), "--adapter", "caddyfile")
		if (err == nil) != (tt.says == nil) {
			t.Errorf("%s: %v\n%s", tt.name, err, out)
		}
		for _, want := range tt.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: it does not say %q:\n%s", tt.name, want, out[max(0, len(out)-600):])
			}
		}
	}
}
