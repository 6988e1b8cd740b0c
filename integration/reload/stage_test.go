package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// workers is how many devices enrol at once under traffic.
const workers = 4

// stage is the real binary in front of an upstream.
type stage struct {
	*testing.T
	*gateway.Stage
	config   gateway.Config
	text     string // of the configuration that it began with
	up       *upstream
	devices  []*attack.Device
	posts    *http.Client
	enrolled atomic.Int64 // names given

	certified [workers]atomic.Int64 // by each worker of underTraffic
}

func set(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "scepgate-reload-"); built.err == nil {
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
	s := &stage{T: t, up: &upstream{ndes: server, devices: map[string]*attack.Device{}}}
	for range 4 { // a key is worth nothing here
		d, err := attack.NewDevice()
		if err != nil {
			t.Fatal(err)
		}
		s.devices = append(s.devices, d)
		s.up.devices[string(d.SelfSigned)] = d
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s.up, ReadHeaderTimeout: 10 * time.Second}
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })

	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(root, "integration", "reload", "testdata", "reload.Caddyfile")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.text = string(text)
	s.config = gateway.Config{Binary: built.binary, Dir: dir, Caddyfile: file, Env: map[string]string{
		"NDES_UPSTREAM": l.Addr().String(), "SCEPGATE_CHALLENGE_KEY": filepath.Join(dir, "challenge.key"),
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if s.Stage, err = gateway.SetUp(ctx, s.config, server, "wifi"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			log := s.Gateway.Log()
			t.Logf("the gateway's log ends:\n%s", log[max(0, len(log)-2<<10):])
		}
	})
	// Every request has a connection of its own: one that was kept over a reload
	// may be closed by the server while the next request is on its way.
	s.posts = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	api, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	api.Transport.(*http.Transport).DisableKeepAlives = true
	return s
}

func (s *stage) data() string { return filepath.Join(s.config.Dir, "data") }

// load gives the running process another configuration, as `scepgate reload
// --force` does, and returns what it said against it.
func (s *stage) load(text string) error {
	return s.again(func() error {
		req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+s.Admin+"/load", strings.NewReader(text))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "text/caddyfile")
		req.Header.Set("Cache-Control", "must-revalidate") // also if nothing has changed
		resp, err := s.posts.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16)); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%d %s", resp.StatusCode, body)
		}
		return nil
	})
}

func (s *stage) mustLoad(text string) {
	s.Helper()
	if err := s.load(text); err != nil {
		s.Fatalf("reload: %v", err)
	}
}

// command runs the binary beside the live one, with its environment.
func (s *stage) command(env []string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.config.Binary, args...)
	cmd.Dir, cmd.Env = s.config.Dir, append(append([]string(nil), s.Env...), env...)
	return cmd.CombinedOutput()
}

// with is the first configuration with other lines in the place of some.
func (s *stage) with(oldAndNew ...string) string {
	s.Helper()
	text := s.text
	for i := 0; i < len(oldAndNew); i += 2 {
		if !strings.Contains(text, oldAndNew[i]) {
			s.Fatalf("the configuration has no %q", oldAndNew[i])
		}
		text = strings.Replace(text, oldAndNew[i], oldAndNew[i+1], 1)
	}
	return text
}

// lockOf is the lock file of a store. It is written when the store is opened
// and removed when it is closed, so that it stays the same while it stays open.
func lockOf(data string) (fs.FileInfo, error) { return os.Stat(filepath.Join(data, "LOCK")) }

// stays returns what checks that the store has stayed open, alone, since
// (invariant 9).
func (s *stage) stays() func() {
	s.Helper()
	before, err := lockOf(s.data())
	if err != nil {
		s.Fatal(err)
	}
	mark := s.Mark()
	return func() {
		s.Helper()
		now, err := lockOf(s.data())
		if err != nil {
			s.Errorf("the store was closed: %v", err)
		} else if !os.SameFile(before, now) || !now.ModTime().Equal(before.ModTime()) {
			s.Error("the store was closed and opened again")
		}
		// It is there already if it is there at all.
		done, cancel := context.WithCancel(context.Background())
		cancel()
		if l, err := s.Find(done, mark, troubled); err == nil {
			s.Errorf("the log speaks of trouble: %v", l)
		}
	}
}

// troubled are lines that no reload may bring about.
func troubled(l gateway.Line) bool {
	text := l.String("msg") + " " + l.String("error")
	for _, bad := range []string{"store is down", "closing the store", "store is closed", "does not close", "panic"} {
		if strings.Contains(text, bad) {
			return true
		}
	}
	return false
}

// enrolment is one device on its way to a certificate.
type enrolment struct {
	cn, id  string
	device  *attack.Device
	message []byte
}

// register tells the gateway of a device that will encrypt to recipient; nil is
// the simulator's own RA certificate.
func (s *stage) register(recipient *raPair) (*enrolment, error) {
	n := s.enrolled.Add(1)
	e := &enrolment{cn: fmt.Sprintf("dev-%d", n), device: s.devices[int(n)%len(s.devices)]}
	var answer struct {
		ID string `json:"id"`
	}
	challenge := "challenge of " + e.cn
	csr, err := inspector.BuildCSR(inspector.CSRParams{Subject: attack.Name(e.cn), Challenge: challenge}, e.device.Key)
	if err != nil {
		return nil, err
	}
	err = s.again(func() error {
		// By its external id: if the answer is lost on the way, the same again does no harm.
		_, err := s.Call(s.Context(), s.Token, http.MethodPut, "/v1/profiles/wifi/expectations/by-external-id/"+e.cn,
			map[string]any{"subject": "CN=" + e.cn, "challenge": challenge}, &answer)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("registering %s: %w", e.cn, err)
	}
	e.id = answer.ID
	to := s.up.ndes.Exchange
	if recipient != nil {
		to = recipient.certificate
	}
	e.message, err = inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "19", TransactionID: e.cn, Content: csr, Recipient: to, SignerCert: e.device.SelfSigned, SignerKey: e.device.Key,
	})
	return e, err
}

// post sends the message and wants a certificate.
func (s *stage) post(e *enrolment) error {
	var a attack.Answer
	err := s.again(func() (err error) {
		a, err = attack.Post(s.posts, s.Devices, e.message)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", e.cn, err)
	case a.Rep == nil:
		return fmt.Errorf("%s: %d %.100q", e.cn, a.Status, a.Body)
	case a.Rep.PKIStatus != "0":
		return fmt.Errorf("%s: pkiStatus %s", e.cn, a.Rep.PKIStatus)
	}
	return nil
}

// resets counts connections that ended before there was an answer.
var resets atomic.Int64

// again tries once more where the connection broke, as devices do. While Caddy
// puts a listener in the place of another, the system resets what waits to be
// accepted by the old one, and net/http closes what it has accepted but not read.
// A connection that is refused is another matter.
func (s *stage) again(f func() error) (err error) {
	for range 5 {
		var broken *net.OpError
		err = f()
		if !errors.As(err, &broken) && !errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		resets.Add(1)
	}
	return err
}

// enrol registers and enrols one device.
func (s *stage) enrol(recipient *raPair) error {
	e, err := s.register(recipient)
	if err != nil {
		return err
	}
	return s.post(e)
}

func (s *stage) mustEnrol(what string, recipient *raPair) {
	s.Helper()
	if err := s.enrol(recipient); err != nil {
		s.Errorf("%s: %v", what, err)
	}
}

// state reads what has become of e.
func (s *stage) state(e *enrolment) string {
	s.Helper()
	var answer struct {
		State string `json:"state"`
	}
	if _, err := s.Call(s.Context(), s.Token, http.MethodGet, "/v1/profiles/wifi/expectations/"+e.id, nil, &answer); err != nil {
		return err.Error()
	}
	return answer.State
}

// underTraffic enrols devices, one after the other from each of some workers,
// until f has returned. None may fail, and none may be issued to twice.
func (s *stage) underTraffic(f func()) {
	s.Helper()
	var (
		wg     sync.WaitGroup
		stop   atomic.Bool
		broken = resets.Load()
		seen   = s.up.ndes.PKIOperations()
		before = s.enrolled.Load()
	)
	for i := range workers {
		wg.Go(func() {
			for failed := 0; !stop.Load() && failed < 5; {
				if err := s.enrol(nil); err != nil {
					failed++
					s.Errorf("an enrolment failed: %v", err)
					continue
				}
				s.certified[i].Add(1)
			}
		})
	}
	func() {
		defer wg.Wait()
		defer stop.Store(true)
		f()
	}()
	// What broke had not been read: nobody was judged or forwarded, and then
	// did not hear of it.
	if forwarded, all := s.up.ndes.PKIOperations()-seen, s.enrolled.Load()-before; int64(forwarded) != all {
		s.Errorf("%d messages reached NDES, of %d devices", forwarded, all)
	}
	issued := map[string]int{}
	for _, i := range s.up.ndes.Issued() {
		cn := i.Certificate.Subject.CommonName
		if issued[cn]++; issued[cn] == 2 && strings.HasPrefix(cn, "dev-") {
			s.Errorf("%s has two certificates", cn)
		}
	}
	s.Logf("%d enrolments, %d connections broken before an answer", s.enrolled.Load()-before, resets.Load()-broken)
}

// goesOn waits until every worker has enrolled a device from beginning to end:
// nothing is in flight any more that was when it was called.
func (s *stage) goesOn() {
	s.Helper()
	var enough [workers]int64
	for i := range enough {
		enough[i] = s.certified[i].Load() + 2
	}
	s.until("others enrol", func() bool {
		for i := range enough {
			if s.certified[i].Load() < enough[i] {
				return s.Failed()
			}
		}
		return true
	})
}

// until waits for another process.
func (s *stage) until(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			s.Fatalf("in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// inFlight is an enrolment that waits for NDES.
type inFlight struct {
	*enrolment
	letGo  func()
	answer chan error
}

// depart sends a message and returns when NDES has it and makes it wait.
func (s *stage) depart() *inFlight {
	s.Helper()
	e, err := s.register(nil)
	if err != nil {
		s.Fatal(err)
	}
	came, letGo := s.up.hold()
	s.Cleanup(letGo)
	f := &inFlight{e, letGo, make(chan error, 1)}
	go func() { f.answer <- s.post(e) }()
	select {
	case <-came:
	case err := <-f.answer:
		s.Fatalf("it did not wait for NDES: %v", err)
	case <-time.After(30 * time.Second):
		s.Fatal("it did not reach NDES")
	}
	return f
}

// arrive lets NDES answer, and wants the answer to reach the device.
func (s *stage) arrive(f *inFlight) {
	s.Helper()
	f.letGo()
	select {
	case err := <-f.answer:
		if err != nil {
			s.Errorf("the request in flight: %v", err)
		}
	case <-time.After(30 * time.Second):
		s.Error("the request in flight was never answered")
	}
}
