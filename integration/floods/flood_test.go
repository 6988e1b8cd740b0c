package floods

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

const (
	senders    = 32               // at once, in most floods of messages
	crowd      = 256              // at once, in the flood that takes the private key
	perSender  = 20_000           // at most
	enrolments = 3                // honest ones beside each flood
	memory     = 256 << 20        // anonymous memory that no flood may exceed, in bytes
	connection = 3000             // idle or slow ones at once
	patience   = 90 * time.Second // of the honest device, retries and all
)

// TestAnHonestDeviceEnrolsBesideEveryFlood: so do GetCACaps and GetCACert, and
// the process keeps its memory.
func TestAnHonestDeviceEnrolsBesideEveryFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	dir := t.TempDir()
	binary, err := gateway.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stage, err := gateway.SetUp(ctx, gateway.Config{Binary: binary, Dir: dir}, server, "wifi")
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	d, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, Stage: stage, device: d}
	s.beside("nothing", func(context.Context) int { return 0 }) // warms up, and is what the others are compared with

	for _, f := range messages(d.Key, d.SelfSigned, server.Exchange) {
		s.beside(f.name, s.send(senders, f.body, nil))
	}
	unknown := messages(d.Key, d.SelfSigned, server.Exchange)
	s.beside("more private-key operations than there are slots", s.send(crowd, unknown[len(unknown)-1].body, nil))
	s.beside("compressed bodies", s.send(senders, compressed(t), http.Header{"Content-Encoding": {"gzip"}}))
	s.beside("endless chunked bodies", s.endless)
	s.beside("bodies that come an octet at a time", s.connections(fmt.Sprintf("POST %s?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n0", attack.Path)))
	s.beside("heads that never end", s.connections("GET "+attack.Path+"?operation=GetCACaps HTTP/1.1\r\nX-Slow: "))
	s.beside("idle connections", s.connections(""))

	if n := server.PKIOperations(); n != s.enrolled {
		t.Errorf("%d messages reached NDES for %d enrolments", n, s.enrolled)
	}
}

type scene struct {
	*testing.T
	*gateway.Stage
	device   *attack.Device
	enrolled int
	quiet    time.Duration // the median enrolment beside nothing
}

// beside runs a flood until the honest devices are through.
func (s *scene) beside(name string, flood func(context.Context) int) {
	s.Run(name, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var sent, peak atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() { sent.Store(int64(flood(ctx))) })
		wg.Go(func() { s.watch(ctx, &peak) })
		var took []time.Duration
		busy := 0
		for i := range enrolments {
			start := time.Now()
			busy += s.enrol(t, fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", ""), i))
			took = append(took, time.Since(start))
			for _, operation := range []string{"GetCACaps", "GetCACert"} {
				resp, err := http.Get(s.Devices + attack.Path + "?operation=" + operation)
				if err != nil {
					t.Errorf("%s: %v", operation, err)
					continue
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %d", operation, resp.StatusCode)
				}
			}
		}
		stop()
		wg.Wait()
		slices.Sort(took)
		if s.quiet == 0 {
			s.quiet = took[len(took)/2]
		}
		t.Logf("%6d sent; enrolment %4.1f times the quiet one, %d answers 503; at most %.0f MiB",
			sent.Load(), float64(took[len(took)/2])/float64(s.quiet), busy, float64(peak.Load())/(1<<20))
		if peak.Load() > memory {
			t.Errorf("%d MiB of anonymous memory", peak.Load()>>20)
		}
	})
}

// enrol is an honest device: it comes back when it is told to. It returns how
// often it was.
func (s *scene) enrol(t *testing.T, cn string) (busy int) {
	var answer struct {
		Challenge string `json:"challenge"`
	}
	if err := s.Register(t.Context(), map[string]any{"subject": "CN=" + cn}, &answer); err != nil {
		t.Error(err)
		return 0
	}
	d, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Build(attack.Message{Request: inspector.CSRParams{Subject: attack.Name(cn), Challenge: answer.Challenge}}, s.NDES.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		a, err := attack.Post(http.DefaultClient, s.Devices, m)
		switch {
		case err != nil:
			t.Errorf("an honest device was cut off: %v", err)
			return busy
		case a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") != "":
			busy++
			time.Sleep(50 * time.Millisecond) // more eager than told
			continue
		case a.Rep == nil || a.Rep.PKIStatus != "0":
			t.Errorf("an honest device got %d %+v", a.Status, a.Rep)
			return busy
		}
		s.enrolled++
		return busy
	}
	t.Errorf("an honest device gave up after %d answers 503", busy)
	return busy
}

// send floods with one message from n senders.
func (s *scene) send(n int, body []byte, header http.Header) func(context.Context) int {
	return func(ctx context.Context) int {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
		defer client.CloseIdleConnections()
		var sent atomic.Int64
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for range perSender {
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Devices+attack.Path+"?operation=PKIOperation", bytes.NewReader(body))
					if err != nil {
						return
					}
					for k, v := range header {
						req.Header[k] = v
					}
					resp, err := client.Do(req)
					if err != nil {
						if ctx.Err() != nil {
							return
						}
						continue // refused before it was read
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					sent.Add(1)
					if resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusInternalServerError {
						s.Errorf("a hostile message got %d", resp.StatusCode)
						return
					}
				}
			})
		}
		wg.Wait()
		return int(sent.Load())
	}
}

// compressed is a body that would be 64 MiB.
func compressed(t *testing.T) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// endless sends chunked bodies that go on until somebody hangs up.
func (s *scene) endless(ctx context.Context) int {
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Devices+attack.Path+"?operation=PKIOperation", struct{ io.Reader }{zeros{}})
				if err != nil {
					return
				}
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
				sent.Add(1)
			}
		})
	}
	wg.Wait()
	return int(sent.Load())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// connections opens many, writes head on each and an octet now and then.
func (s *scene) connections(head string) func(context.Context) int {
	return func(ctx context.Context) int {
		u, err := url.Parse(s.Devices)
		if err != nil {
			s.Error(err)
			return 0
		}
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		dialer := net.Dialer{Timeout: 10 * time.Second}
		for len(open) < connection && ctx.Err() == nil {
			c, err := dialer.DialContext(ctx, "tcp", u.Host)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					s.Errorf("connection %d: %v", len(open), err)
				}
				break
			}
			open = append(open, c)
			io.WriteString(c, head)
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return len(open)
			case <-tick.C:
			}
			for _, c := range open {
				if head != "" {
					io.WriteString(c, "0")
				}
			}
		}
	}
}

// watch keeps the highest anonymous memory of the gateway's process.
func (s *scene) watch(ctx context.Context, peak *atomic.Int64) {
	if runtime.GOOS != "linux" {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.PID()))
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kib); n == 1 {
				peak.Store(max(peak.Load(), kib<<10))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
