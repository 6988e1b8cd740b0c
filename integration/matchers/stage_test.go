package matchers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// built are the gateway and the example plugins, compiled once.
var built struct {
	once    sync.Once
	dir     string
	gateway string
	devices []*attack.Device
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// canary stands in every challenge of these tests and must be seen nowhere
// (invariant 8).
const canary = "CANARY4711x"

// stage is the real binary in front of the simulator.
type stage struct {
	*testing.T
	*gateway.Stage
	ndes   *ndes.Server
	config gateway.Config
	text   string // of the configuration, with its matchers
	posts  *http.Client
	next   atomic.Int64
	logs   []string // of processes that have ended
}

func build(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	if runtime.GOOS == "windows" {
		t.Skip("signals and sockets of unix")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "scepgate-matchers-"); built.err != nil {
			return
		}
		if built.gateway, built.err = gateway.Build(built.dir); built.err != nil {
			return
		}
		var root string
		if root, built.err = gateway.Root(); built.err != nil {
			return
		}
		for _, name := range []string{"inventory", "intune"} {
			cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, name), "./plugins/examples/"+name)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("%s: %w\n%s", name, err, out)
				return
			}
		}
		for range 4 { // a key is worth nothing here
			d, err := attack.NewDevice()
			if err != nil {
				built.err = err
				return
			}
			built.devices = append(built.devices, d)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
}

// set runs the gateway with these lines in its profile. A challenge line among
// them takes the place of the other.
func set(t *testing.T, dir, matchers string) *stage {
	t.Helper()
	build(t)
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{T: t, ndes: server, text: configured(t, matchers)}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(s.text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config = gateway.Config{Binary: built.gateway, Dir: dir, Caddyfile: file}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if s.Stage, err = gateway.SetUp(ctx, s.config, server, "wifi"); err != nil {
		t.Fatal(err)
	}
	// Every request has a connection of its own: one that was kept over a reload
	// may be closed by the server while the next request is on its way.
	s.posts = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(s.leave)
	return s
}

func configured(t *testing.T, matchers string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "matchers.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	if strings.Contains(matchers, "challenge matcher\n") {
		config = strings.Replace(config, "challenge gateway\n", "", 1)
	}
	return strings.Replace(config, "# matchers", matchers, 1)
}

// leave ends everything, and looks for the challenges of the test wherever the
// process could have left them.
func (s *stage) leave() {
	if !s.within(10*time.Second, func() bool { return s.counts("caddy_scep_decisions_total") }) { // after the answer
		s.Error("no decision is counted")
	}
	seen := s.fetch("/metrics") + s.fetch("/config/")
	if err := s.Close(); err != nil {
		s.Errorf("stopping the gateway: %v", err)
	}
	log := strings.Join(append(s.logs, s.Gateway.Log()), "")
	if i := strings.Index(seen+log, canary); i >= 0 {
		s.Errorf("a challenge was seen: %.500s", (seen + log)[max(0, i-250):])
	}
	if strings.Contains(log, "panic") {
		s.Error("the log speaks of a panic")
	}
	err := filepath.WalkDir(s.config.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(canary)) {
			s.Errorf("%s holds a challenge", path)
		}
		return err
	})
	if err != nil {
		s.Error(err)
	}
	if s.Failed() {
		for line := range strings.Lines(log) {
			if strings.Contains(line, `"msg":"enrollment failed"`) || strings.Contains(line, `"msg":"plugin `) || strings.Contains(line, `"level":"error"`) {
				s.Logf("the gateway's log: %.1000s", line)
			}
		}
	}
}

func (s *stage) fetch(path string) string {
	resp, err := s.posts.Get("http://" + s.Admin + path)
	if err != nil {
		s.Error(err)
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		s.Error(err)
	}
	return string(text)
}

// counts tells whether the metrics have a sample of this name and these labels
// that is not zero.
func (s *stage) counts(name string, labels ...string) bool {
	for line := range strings.Lines(s.fetch("/metrics")) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); err != nil || n == 0 || !strings.HasPrefix(series, name+"{") {
			continue
		}
		has := true
		for _, l := range labels {
			has = has && strings.Contains(series, l)
		}
		if has {
			return true
		}
	}
	return false
}

// want is what a device asks for.
type want struct {
	cn        string
	dns       []string
	challenge string
	device    int // which key
}

// message is a new transaction.
func (s *stage) message(w want) []byte {
	s.Helper()
	var san []inspector.GeneralName
	for _, name := range w.dns {
		san = append(san, inspector.GeneralName{Type: "dns", Value: name})
	}
	d := built.devices[w.device%len(built.devices)]
	csr, err := inspector.BuildCSR(inspector.CSRParams{
		Subject: attack.Subject(attack.CN, w.cn, attack.O, "Example Corp"), SAN: san, Challenge: w.challenge,
	}, d.Key)
	if err != nil {
		s.Fatal(err)
	}
	message, err := inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "19", TransactionID: fmt.Sprintf("tx-%d", s.next.Add(1)), Content: csr, Recipient: s.ndes.Exchange, SignerCert: d.SelfSigned, SignerKey: d.Key,
	})
	if err != nil {
		s.Fatal(err)
	}
	return message
}

// post sends a message, and returns the pkiStatus or else the HTTP status.
func (s *stage) post(message []byte) (string, error) {
	for try := 0; ; try++ {
		a, err := attack.Post(s.posts, s.Devices, message)
		if try < 5 && cut(err) {
			continue // as devices do
		}
		switch {
		case err != nil:
			return "", err
		case a.Rep != nil:
			return "pkiStatus " + a.Rep.PKIStatus, nil
		}
		return strconv.Itoa(a.Status), nil
	}
}

const (
	issued  = "pkiStatus 0"
	refused = "pkiStatus 2"
	again   = "503"
)

// tries sends what w asks for and returns the operator's line about it.
func (s *stage) tries(w want, status string) gateway.Line {
	s.Helper()
	return s.sends(s.message(w), w.cn, status)
}

func (s *stage) sends(message []byte, what, status string) gateway.Line {
	s.Helper()
	mark, before := s.Mark(), s.ndes.PKIOperations()
	got, err := s.post(message)
	if err != nil || got != status {
		s.Fatalf("%s: %q, %v, want %q", what, got, err, status)
	}
	if reached := s.ndes.PKIOperations() > before; reached != (status == issued) {
		s.Errorf("%s: NDES was reached: %v", what, reached)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	line, err := s.Find(ctx, mark, func(l gateway.Line) bool { return strings.HasPrefix(l.String("msg"), "enrollment ") })
	if err != nil {
		s.Fatal(err)
	}
	return line
}

// refuses wants a refusal by a matcher, with its code in the operator's line.
func (s *stage) refuses(w want, code string) {
	s.Helper()
	line := s.tries(w, refused)
	findings, err := json.Marshal(line["findings"])
	if err != nil || line.String("reason") != "matcher_refused" || !strings.Contains(string(findings), `"`+code+`"`) {
		s.Errorf("%s: %s %s, want matcher_refused with %s", w.cn, line.String("reason"), findings, code)
	}
}

// fails wants 503 because a matcher could decide nothing.
func (s *stage) fails(w want) {
	s.Helper()
	if line := s.tries(w, again); line.String("reason") != "matcher_failed" {
		s.Errorf("%s: %s", w.cn, line.String("reason"))
	}
}

// register gives a device a challenge for what w asks for; other is what the MDM
// has in the subject's place.
func (s *stage) register(w *want, other string) error {
	w.challenge = fmt.Sprintf("%s-%d", canary, s.next.Add(1))
	subject := "CN=" + w.cn + ",O=Example Corp"
	if other != "" {
		subject = other
	}
	expectation := map[string]any{"subject": subject, "challenge": w.challenge}
	if len(w.dns) > 0 && other == "" {
		expectation["san"] = map[string]any{"dns": w.dns}
	}
	// By an external id: if the answer is lost on the way, the same again does no harm.
	path := fmt.Sprintf("/v1/profiles/wifi/expectations/by-external-id/%d", s.next.Add(1))
	for try := 0; ; try++ {
		_, err := s.Call(s.Context(), s.Token, http.MethodPut, path, expectation, nil)
		if try == 5 || !cut(err) {
			return err
		}
	}
}

// cut tells whether a connection broke before there was an answer: while Caddy
// changes listeners those that wait are reset. One that is refused is another
// matter.
func cut(err error) bool {
	var broken *net.OpError
	return (errors.As(err, &broken) || errors.Is(err, io.EOF)) && !errors.Is(err, syscall.ECONNREFUSED)
}

// asks registers what a device asks for, to the letter: only a matcher can object.
func (s *stage) asks(cn string, dns ...string) want {
	s.Helper()
	w := want{cn: cn, dns: dns}
	if err := s.register(&w, ""); err != nil {
		s.Fatal(err)
	}
	return w
}

// differs registers other names than a device asks for: only a matcher that
// decides them can agree.
func (s *stage) differs(cn string, dns ...string) want {
	s.Helper()
	w := want{cn: cn, dns: dns}
	if err := s.register(&w, "CN=what the MDM knows"); err != nil {
		s.Fatal(err)
	}
	return w
}

// load gives the running process another configuration.
func (s *stage) load(text string) error {
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+s.Admin+"/load", strings.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	resp, err := s.posts.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16)); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return nil
}

// command runs the binary beside the live one, with its environment.
func (s *stage) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.config.Binary, args...)
	cmd.Dir, cmd.Env = s.config.Dir, s.Env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// restart begins again where a process has ended.
func (s *stage) restart() {
	s.Helper()
	s.logs = append(s.logs, s.Gateway.Log())
	c := s.config
	c.Env = gateway.ExampleEnv(c.Dir, s.NDESURL, filepath.Join(c.Dir, "clients.json"))
	for k, v := range s.config.Env {
		c.Env[k] = v
	}
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	g, err := gateway.Start(ctx, c)
	if err != nil {
		s.Fatal(err)
	}
	s.Stage.Gateway = g
}

// started waits until a plugin runs, and returns its process.
func (s *stage) started(mark int) (pid int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	line, err := s.Find(ctx, mark, func(l gateway.Line) bool { return l.String("msg") == "plugin started" })
	if err != nil {
		s.Fatal(err)
	}
	n, ok := line["pid"].(float64)
	if !ok || n <= 1 {
		s.Fatalf("no pid in %v", line)
	}
	return int(n)
}

// lives tells whether a process is there and is no zombie.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// until waits for other processes.
func (s *stage) until(what string, ok func() bool) {
	s.Helper()
	if !s.within(30*time.Second, ok) {
		s.Fatalf("in vain: %s", what)
	}
}

func (s *stage) within(patience time.Duration, ok func() bool) bool {
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// place copies an example into dir, and returns its path and checksum. tail
// makes it another binary that does the same.
func place(t *testing.T, dir, name, tail string) (path, sum string) {
	t.Helper()
	build(t)
	content, err := os.ReadFile(filepath.Join(built.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, tail...)
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", content, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(content)
	return path, hex.EncodeToString(hash[:])
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}
