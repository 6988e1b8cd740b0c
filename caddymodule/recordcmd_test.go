package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins/cases"
)

// recordRun is `plugin record` at work.
type recordRun struct {
	file   string
	stop   context.CancelFunc // as an interrupt does
	out    bytes.Buffer
	err    error
	ended  chan struct{}
	begins chan struct{} // closed when it says that it records
}

// startRecording runs the command against an admin endpoint.
func startRecording(t *testing.T, address string, args ...string) *recordRun {
	t.Helper()
	r := &recordRun{file: filepath.Join(t.TempDir(), "cases.ndjson"), ended: make(chan struct{}), begins: make(chan struct{})}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	cmd := pluginCommand()
	cmd.SetOut(&r.out)
	cmd.SetErr(writerFunc(func(b []byte) (int, error) {
		if strings.HasPrefix(string(b), "recording wifi into") {
			close(r.begins)
		}
		return len(b), nil
	}))
	cmd.SilenceErrors = true
	cmd.SetArgs(append([]string{"record", "--out", r.file, "--address", address}, args...))
	go func() {
		defer close(r.ended)
		r.err = cmd.ExecuteContext(ctx)
	}()
	t.Cleanup(func() {
		r.stop()
		<-r.ended
	})
	return r
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (r *recordRun) begun(t *testing.T) {
	t.Helper()
	select {
	case <-r.begins:
	case <-r.ended:
		t.Fatalf("it ended: %v", r.err)
	}
}

// written waits for a case in the file.
func (r *recordRun) written(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if data, err := os.ReadFile(r.file); err == nil && bytes.HasSuffix(data, []byte("\n")) {
			return
		}
		select {
		case <-tick.C:
		case <-r.ended:
			t.Fatalf("it ended: %v", r.err)
		}
	}
}

// wait gives what the command said, and its error.
func (r *recordRun) wait(t *testing.T) (string, error) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	return r.out.String(), r.err
}

func (r *recordRun) read(t *testing.T) []cases.Case {
	t.Helper()
	f, err := os.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return remaining(t, f)
}

func (b *adminBench) address() string { return b.Listener.Addr().String() }

func TestRecordWritesAFileThatCanBeReadByItsOwnerOnly(t *testing.T) {
	b := newAdminBench(t)
	r := startRecording(t, b.address(), "--limit", "2", "wifi")
	r.begun(t)
	recorders.hand(b.wifi, judgedOK())
	recorders.hand(b.wifi, judgedOK())
	out, err := r.wait(t)
	if err != nil || out != "2 cases in "+r.file+"; ended by limit\n" {
		t.Errorf("%q, %v", out, err)
	}
	if got := r.read(t); len(got) != 2 || got[0].Name != "dec_1: ok" {
		t.Errorf("%+v", got)
	}
	info, err := os.Stat(r.file)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAnInterruptEndsARecordAndKeepsItsCases(t *testing.T) {
	b := newAdminBench(t)
	r := startRecording(t, b.address(), "wifi")
	r.begun(t)
	recorders.hand(b.wifi, judgedOK())
	r.written(t)
	r.stop()
	if out, err := r.wait(t); err != nil || out != "1 cases in "+r.file+"; ended by interrupt\n" {
		t.Errorf("%q, %v", out, err)
	}
	if got := r.read(t); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestARecordWithoutACaseLeavesNoFile(t *testing.T) {
	b := newAdminBench(t)
	r := startRecording(t, b.address(), "--for", "50ms", "wifi")
	if out, err := r.wait(t); err != nil || out != "no case, and no file; ended by time\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := os.Stat(r.file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestARecordThatIsCutShortFailsAndKeepsItsCases(t *testing.T) {
	b := newAdminBench(t)
	r := startRecording(t, b.address(), "wifi")
	r.begun(t)
	recorders.now()[0].dropped.Add(3)
	recorders.hand(b.wifi, judgedOK())
	r.written(t)
	b.end()
	out, err := r.wait(t)
	if err == nil || !strings.HasSuffix(out, "ended by configuration; 3 were lost on the way\n") {
		t.Errorf("%q, %v", out, err)
	}
	if got := r.read(t); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestRecordNeverOverwrites(t *testing.T) {
	b := newAdminBench(t)
	file := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := file + ".link"
	if err := os.Symlink(filepath.Join(filepath.Dir(file), "elsewhere"), link); err != nil {
		t.Skip(err)
	}
	for _, out := range []string{file, link} {
		c := recordClient{recordOptions: recordOptions{profile: "wifi", limit: 1, time: time.Second}, out: out, address: b.address()}
		if err := c.run(t.Context(), io.Discard, io.Discard); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", out, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestRecordSaysWhyNotAndLeavesNoFile(t *testing.T) {
	b := newAdminBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	odd := func(answer string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, answer)
		}))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	for name, test := range map[string]struct {
		address string
		args    []string
		says    string
	}{
		"no such profile":    {b.address(), []string{"vpn"}, "no such profile"},
		"nobody there":       {nobody, []string{"wifi"}, "admin endpoint " + nobody},
		"no address":         {"::::", []string{"wifi"}, "admin endpoint"},
		"a limit of nothing": {b.address(), []string{"--limit", "0", "wifi"}, "limit: must be"},
		"a time of nothing":  {b.address(), []string{"--for", "0s", "wifi"}, "for: must be"},
		"somebody else":      {odd("<html>hello</html>\n"), []string{"wifi"}, "is no case"},
		"a line without end": {odd(strings.Repeat("x", cases.MaxLine+2)), []string{"wifi"}, "too long"},
		"nothing at all":     {odd(""), []string{"wifi"}, "ended before it was told to"},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRecording(t, test.address, test.args...)
			out, err := r.wait(t)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q, %v", out, err)
			}
			if _, err := os.Stat(r.file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a file: %v", err)
			}
		})
	}
}

func TestAnInterruptEndsARecordThatGetsNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := startRecording(t, l.Addr().String(), "wifi")
	r.stop()
	if out, err := r.wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", out, err)
	}
}
