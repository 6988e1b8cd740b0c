package interop

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

var long = flag.Bool("long", false, "also wait for clients that ask again only after 30 s")

// lifeStage is a stage whose CA can hold requests, and whose devices keep their
// address while the gateway is restarted.
type lifeStage struct {
	*stage
	front  string
	behind atomic.Int64 // of NDES's clock, so that what was just issued can be old

	mu sync.RWMutex // held while there is no gateway
}

// caching is longer than NDES answers a repeated request with the certificate
// that it has already made: a renewal with the old key is one.
const caching = 30 * time.Minute

// pass lets that time pass at NDES.
func (s *lifeStage) pass() { s.behind.Add(-int64(caching)) }

func live(t *testing.T, capabilities []string) *lifeStage {
	s := &lifeStage{}
	s.behind.Store(3 * int64(caching))
	s.stage = set(t, ndes.Config{Capabilities: capabilities, Template: "WiFiClient", Now: func() time.Time {
		return time.Now().Add(-time.Duration(s.behind.Load()))
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.front = "http://" + l.Addr().String()
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { s.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	return s
}

// carry brings one connection to the gateway that runs now.
func (s *lifeStage) carry(device net.Conn) {
	defer device.Close()
	s.mu.RLock()
	address := strings.TrimPrefix(s.Devices, "http://")
	s.mu.RUnlock()
	g, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return
	}
	defer g.Close()
	// Nobody talks longer than that here.
	end := time.Now().Add(30 * time.Second)
	device.SetDeadline(end)
	g.SetDeadline(end)
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(g, device)
		g.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		io.Copy(device, g)
		device.(*net.TCPConn).CloseWrite()
	})
	both.Wait()
}

func (s *lifeStage) restart(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage.restart(t)
}

const lifeName = "device.example.com"

// device registers one and gives it a folder.
func (s *lifeStage) device(t *testing.T) (d device, id string) {
	t.Helper()
	id, challenge := s.register(t, lifeProfile, lifeName)
	return device{t.TempDir(), s.front + "/" + lifeProfile + "/certsrv/mscep/mscep.dll", challenge, lifeName}, id
}

// state is what the MDM reads of an expectation.
func (s *lifeStage) state(t *testing.T, id, want string) {
	t.Helper()
	var answer struct {
		State string `json:"state"`
	}
	if _, err := s.Call(t.Context(), s.Token, http.MethodGet, "/v1/profiles/"+lifeProfile+"/expectations/"+id, nil, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.State != want {
		t.Errorf("the expectation is %s, want %s", answer.State, want)
	}
}

// The messageTypes as the log names them.
const (
	pkcsReq        = "pkcs_req"
	renewalReq     = "renewal_req"
	getCertInitial = "get_cert_initial"
)

// forwarded waits for a decision after mark that let a message of that type
// pass, and how NDES answered.
func (s *lifeStage) forwarded(t *testing.T, mark int, messageType, status string) {
	t.Helper()
	// The line of the message before may come late: it is written after its answer.
	s.line(t, mark, func(l gateway.Line) bool {
		return l.String("msg") == "enrollment forwarded" && l.String("message_type") == messageType && l.String("upstream_status") == status
	})
}

// waiting waits until NDES holds one request, and returns its transactionID.
func (s *lifeStage) waiting(t *testing.T) (transactionID string) {
	t.Helper()
	s.until(t, "nothing waits for approval", func() bool {
		ids := s.NDES.Waiting()
		if len(ids) == 1 {
			transactionID = ids[0]
		}
		return len(ids) == 1
	})
	return transactionID
}

// polled waits until the gateway has let n more messages of that type pass.
func (s *lifeStage) polled(t *testing.T, mark int, messageType string, n int) {
	t.Helper()
	s.line(t, mark, func(l gateway.Line) bool {
		if l.String("msg") == "enrollment forwarded" && l.String("message_type") == messageType {
			n--
		}
		return n == 0
	})
}

func (s *lifeStage) until(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatal(otherwise)
		case <-tick.C:
		}
	}
}

// decide is the CA manager's word.
func (s *lifeStage) decide(t *testing.T, transactionID string, approve bool) {
	t.Helper()
	decided := s.NDES.Deny
	if approve {
		decided = s.NDES.Approve
	}
	if !decided(transactionID) {
		t.Fatalf("%s does not wait for approval", transactionID)
	}
}

// background runs commands until they end by themselves or stop is called.
func (c *client) background(t *testing.T, d device, commands string) (wait func() (output string, code int), stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	cmd := c.command(ctx, d, commands)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var once sync.Once
	wait = func() (string, int) {
		once.Do(func() {
			var exit *exec.ExitError
			if err := <-ended; err != nil && !errors.As(err, &exit) {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
		return out.String(), cmd.ProcessState.ExitCode()
	}
	stop = func() {
		cancel()
		wait()
	}
	t.Cleanup(stop)
	return wait, stop
}

// contents is what a client wrote into a file.
func contents(t *testing.T, d device, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// read parses a certificate's file.
func read(t *testing.T, d device, file string) *x509.Certificate {
	t.Helper()
	return certificate(t, filepath.Join(d.dir, file))
}

// renewed checks that file is what NDES has just renewed old into, and reports
// whether it is for the old key.
func (s *lifeStage) renewed(t *testing.T, d device, old *x509.Certificate, file string) (sameKey bool) {
	t.Helper()
	s.issued(t, filepath.Join(d.dir, file), d.name)
	issued := s.NDES.Issued()
	if last := issued[len(issued)-1]; !last.Renewal || last.Certificate.Equal(old) {
		t.Error("NDES has renewed nothing")
	}
	return bytes.Equal(read(t, d, file).RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo)
}
