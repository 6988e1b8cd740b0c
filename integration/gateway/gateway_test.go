package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"encoding/base64"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

var built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// set runs the real binary on Caddyfile.example.
func set(t *testing.T, env map[string]string) (*gateway.Stage, gateway.Config) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "scepgate-test-"); built.err == nil {
			built.binary, built.err = gateway.Build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := gateway.Config{Binary: built.binary, Dir: t.TempDir(), Env: env}
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
	return s, c
}

func register(t *testing.T, s *gateway.Stage, cn, challenge string) string {
	t.Helper()
	e := map[string]any{"subject": "CN=" + cn}
	if challenge != "" {
		e["challenge"] = challenge
	}
	var answer struct {
		Challenge string `json:"challenge"`
	}
	if err := s.Register(t.Context(), e, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Challenge
}

func message(t *testing.T, s *gateway.Stage, cn, challenge string) (*attack.Device, []byte) {
	t.Helper()
	d, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Build(attack.Message{Request: inspector.CSRParams{Subject: attack.Name(cn), Challenge: challenge}}, s.NDES.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	return d, m
}

func post(t *testing.T, s *gateway.Stage, m []byte) attack.Answer {
	t.Helper()
	a, err := attack.Post(http.DefaultClient, s.Devices, m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func status(a attack.Answer) string {
	if a.Rep == nil {
		return fmt.Sprint(a.Status)
	}
	return "pkiStatus " + a.Rep.PKIStatus
}

func TestIdleGatewayKeepsUnder64MiBOfAnonymousMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	s, _ := set(t, nil)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.PID()))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kib); n == 1 {
			t.Logf("%.1f MiB anonymous", float64(kib)/1024)
			if kib >= 64<<10 {
				t.Errorf("%d KiB of anonymous memory with an empty store", kib)
			}
			return
		}
	}
	t.Skip("no Anonymous line in smaps_rollup")
}

// invariant 8
func TestNoChallengeLeavesTheGateway(t *testing.T) {
	s, c := set(t, nil)
	const canary = "CANARY-4711-never-to-be-seen"
	if made := register(t, s, "canary", canary); made != "" {
		t.Errorf("a challenge that was brought came back as %q", made)
	}
	_, wrong := message(t, s, "administrator", canary)
	if got := status(post(t, s, wrong)); got != "pkiStatus 2" {
		t.Errorf("another name: %s", got)
	}
	_, unknown := message(t, s, "canary", canary+"x")
	if got := status(post(t, s, unknown)); got != "pkiStatus 2" {
		t.Errorf("another challenge: %s", got)
	}
	_, right := message(t, s, "canary", canary)
	get := s.Devices + attack.Path + "?operation=PKIOperation&message=" + url.QueryEscape(base64.StdEncoding.EncodeToString(right))
	req, err := http.NewRequest(http.MethodGet, get, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := attack.Do(http.DefaultClient, req); err != nil || status(a) != "pkiStatus 0" {
		t.Fatalf("the right request: %s, %v", status(a), err)
	}
	for _, raw := range []string{s.Token + "x", ""} { // an unknown token, and a body with the challenge in the wrong place
		s.Call(t.Context(), raw, http.MethodPost, "/v1/profiles/wifi/expectations", map[string]any{"subject": canary, "challenge": canary}, nil)
	}
	s.Call(t.Context(), s.Token, http.MethodPost, "/v1/profiles/wifi/expectations", map[string]any{"subject": "CN=second", "challenge": canary}, nil)

	var seen bytes.Buffer
	for _, u := range []string{"http://" + s.Admin + "/metrics", "http://" + s.Admin + "/config/"} {
		resp, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(&seen, resp.Body)
		resp.Body.Close()
	}
	if !strings.Contains(seen.String(), "caddy_scep_decisions_total") {
		t.Error("no decision is counted in the metrics")
	}
	var list map[string]any
	if _, err := s.Call(t.Context(), s.Token, http.MethodGet, "/v1/profiles/wifi/expectations", nil, &list); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&seen, list)
	if err := s.Stop(30 * time.Second); err != nil {
		t.Error(err)
	}
	seen.WriteString(s.Log())
	err = filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(canary)) {
			t.Errorf("%s holds the challenge", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(seen.String(), canary); i >= 0 {
		t.Errorf("the challenge was seen: …%s…", seen.String()[max(0, i-200):i])
	}
	if i := strings.Index(s.Log(), base64.StdEncoding.EncodeToString(right)[:60]); i >= 0 {
		t.Error("the message of a GET is in the log")
	}
}

// invariant 9
func TestValidateBesideALiveServerCreatesNothing(t *testing.T) {
	s, c := set(t, nil)
	empty := t.TempDir()
	for name, data := range map[string]string{"the live store": "", "a folder that is not there": filepath.Join(empty, "data")} {
		cmd := exec.Command(c.Binary, "validate", "--config", "Caddyfile.example", "--adapter", "caddyfile")
		root, err := gateway.Root()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Dir, cmd.Env = root, s.Env
		if data != "" {
			cmd.Env = append(cmd.Env, "SCEPGATE_DATA="+data)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("validate with %s: %v\n%s", name, err, out)
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("validate left %v, %v", left, err)
	}
	_, m := message(t, s, "dev", register(t, s, "dev", ""))
	if got := status(post(t, s, m)); got != "pkiStatus 0" {
		t.Errorf("an enrolment after it: %s", got)
	}
}

func TestReloadKeepsExpectationsAndABrokenOneChangesNothing(t *testing.T) {
	s, c := set(t, nil)
	challenge := register(t, s, "dev", "")
	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(root, "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) ([]byte, error) {
		file := filepath.Join(c.Dir, "Caddyfile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(c.Binary, "reload", "--config", file, "--adapter", "caddyfile", "--address", s.Admin)
		cmd.Dir, cmd.Env = c.Dir, s.Env
		return cmd.CombinedOutput()
	}
	broken := strings.Replace(string(example), "renewal off", "", 1)
	if out, err := reload(broken); err == nil || !strings.Contains(string(out), "renewal") {
		t.Errorf("a profile without renewal was loaded: %v\n%s", err, out)
	}
	changed := strings.Replace(string(example), "health /healthz", "health /healthz\n\t\tca_cache 2m", 1)
	if out, err := reload(changed); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	_, m := message(t, s, "dev", challenge)
	if got := status(post(t, s, m)); got != "pkiStatus 0" {
		t.Errorf("an expectation from before the reload: %s", got)
	}
}

func TestRestartKeepsExpectationsAndClaims(t *testing.T) {
	s, c := set(t, nil)
	used, open := register(t, s, "used", ""), register(t, s, "open", "")
	_, m := message(t, s, "used", used)
	if got := status(post(t, s, m)); got != "pkiStatus 0" {
		t.Fatalf("first enrolment: %s", got)
	}
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c.Env = gateway.ExampleEnv(c.Dir, s.NDESURL, filepath.Join(c.Dir, "clients.json"))
	again, err := gateway.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Stop(30 * time.Second) })
	for name, want := range map[string]string{"used": "pkiStatus 2", "open": "pkiStatus 0"} {
		challenge := map[string]string{"used": used, "open": open}[name]
		_, m := message(t, s, name, challenge)
		a, err := attack.Post(http.DefaultClient, again.Devices, m)
		if err != nil || status(a) != want {
			t.Errorf("%s after the crash: %s, want %s (%v)", name, status(a), want, err)
		}
	}
}

// A store that cannot write: 503, nothing forwarded, nothing lost (contract §3).
func TestFullDiskForwardsNothingAndLosesNothing(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	small := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", small).Run() })
	s, _ := set(t, map[string]string{"SCEPGATE_DATA": filepath.Join(small, "data")})
	challenge := register(t, s, "dev", "")

	ballast := filepath.Join(small, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(chunk)
	}
	f.Close()

	_, m := message(t, s, "dev", challenge)
	seen := s.NDES.PKIOperations()
	for i := range 3 {
		a := post(t, s, m)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("try %d on a full disk: %s, Retry-After %q", i, status(a), a.Header.Get("Retry-After"))
		}
	}
	if s.NDES.PKIOperations() != seen {
		t.Error("something was forwarded without a durable claim")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		resp, err := http.Get(s.Devices + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if ctx.Err() != nil {
			t.Fatal("not healthy again though the disk has room")
		}
		time.Sleep(200 * time.Millisecond) // polls another process
	}
	if got := status(post(t, s, m)); got != "pkiStatus 0" {
		t.Errorf("after the disk has room again: %s", got)
	}
}
