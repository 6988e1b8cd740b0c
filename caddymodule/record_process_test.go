package caddymodule_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/cases"
)

const recordedCanary = "CANARY8CE317021F690069"

// recorder is `plugin record wifi` as a process.
type recorder struct {
	cmd  *exec.Cmd
	file string
	out  bytes.Buffer
}

// record starts one, and returns when it records.
func record(t *testing.T, s *gateway.Stage, binary string, args ...string) *recorder {
	t.Helper()
	r := &recorder{file: filepath.Join(t.TempDir(), "cases.ndjson")}
	r.cmd = exec.CommandContext(t.Context(), binary, append([]string{"scep", "plugin", "record", "wifi", "--out", r.file, "--address", s.Admin}, args...)...)
	r.cmd.Env = s.Env
	r.cmd.Stdout = &r.out
	progress, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(progress)
	for { // Caddy's own lines come first, if there are any
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "recording wifi") {
			break
		}
		if err != nil {
			t.Fatalf("it does not record: %v; %v", err, r.cmd.Wait())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return r
}

func enrol(t *testing.T, s *gateway.Stage, registered, asked string) {
	t.Helper()
	err := s.Register(t.Context(), map[string]any{
		"subject": "CN=" + registered, "challenge": recordedCanary + registered, "labels": map[string]string{"device": registered},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Build(attack.Message{Request: inspector.CSRParams{Subject: attack.Name(asked), Challenge: recordedCanary + registered}}, s.NDES.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attack.Post(http.DefaultClient, s.Devices, m); err != nil {
		t.Fatal(err)
	}
}

func TestRecordingTheRealGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	binary, err := gateway.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := gateway.Config{Binary: binary, Dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := gateway.SetUp(ctx, c, server, "wifi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.Log())
		}
	})

	t.Run("holds what was judged, and no secret", func(t *testing.T) {
		r := record(t, s, binary, "--limit", "2")
		enrol(t, s, "device1", "device1")
		enrol(t, s, "device2", "administrator")
		if err := r.cmd.Wait(); err != nil || !strings.HasSuffix(r.out.String(), "; ended by limit\n") {
			t.Fatalf("%v: %s", err, &r.out)
		}
		data, err := os.ReadFile(r.file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(recordedCanary)) {
			t.Errorf("it holds a challenge:\n%s", data)
		}
		all, err := cases.Read(bytes.NewReader(data))
		if err != nil || len(all) != 2 {
			t.Fatalf("%d cases, %v", len(all), err)
		}
		for i, want := range []struct {
			label string
			want  cases.Want
		}{
			{"device1", cases.Want{Verdict: plugins.Agree}},
			{"device2", cases.Want{Code: "subject_mismatch"}},
		} {
			got := all[i]
			if got.Want != want.want || got.Request.Expectation.Labels["device"] != want.label || got.Request.ClientIP != "127.0.0.1" || got.Request.MessageType != "pkcs_req" {
				t.Errorf("%+v", got)
			}
			got.Want.Code = ""
			if err := got.Check(t.Context(), new(plugins.Exact)); err != nil {
				t.Errorf("put to exact: %v", err)
			}
		}
	})

	t.Run("goes on until an interrupt", func(t *testing.T) {
		r := record(t, s, binary)
		enrol(t, s, "device3", "device3")
		waitForCase(t, r)
		if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Skip(err)
		}
		if err := r.cmd.Wait(); err != nil || !strings.HasPrefix(r.out.String(), "1 cases in ") || !strings.HasSuffix(r.out.String(), "; ended by interrupt\n") {
			t.Errorf("%v: %s", err, &r.out)
		}
	})

	t.Run("ends with a reload, which it does not hold up", func(t *testing.T) {
		r := record(t, s, binary)
		enrol(t, s, "device4", "device4")
		waitForCase(t, r)
		reload := exec.CommandContext(t.Context(), binary, "reload", "--force", "--config", exampleFile(t), "--adapter", "caddyfile", "--address", s.Admin)
		reload.Dir, reload.Env = c.Dir, s.Env
		if out, err := reload.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		err := r.cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasSuffix(r.out.String(), "; ended by configuration\n") {
			t.Errorf("%v: %s", err, &r.out)
		}
		again := record(t, s, binary, "--limit", "1")
		enrol(t, s, "device5", "device5")
		if err := again.cmd.Wait(); err != nil {
			t.Errorf("after the reload: %v: %s", err, &again.out)
		}
	})
}

func exampleFile(t *testing.T) string {
	t.Helper()
	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "Caddyfile.example")
}

func waitForCase(t *testing.T, r *recorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if data, err := os.ReadFile(r.file); err == nil && bytes.HasSuffix(data, []byte("\n")) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nothing is recorded")
		}
	}
}
