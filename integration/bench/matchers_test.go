package bench

import (
	"context"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/expression"
	"github.com/scepgate/scepgate/plugins/host"
	"github.com/scepgate/scepgate/plugins/webhook"
)

const (
	matcherTurns = 40
	matcherCalls = 50 // of each way in a turn
)

// BenchmarkMatchers asks the same question in every way that a matcher can be
// asked, in turns, and reports each way's median as so many times that of the
// in-process matcher; and of a bare round trip over a unix socket to another
// process, which is what a question costs there at least.
func BenchmarkMatchers(b *testing.B) {
	question := plugins.Request{
		Profile: "wifi", Decides: []plugins.Field{plugins.Subject, plugins.SAN}, TransactionID: "TX", MessageType: "pkcs_req", ClientIP: "192.0.2.1",
		Facts: plugins.Facts{
			Subject:  [][]plugins.NameAttribute{{{Type: "2.5.4.3", Value: "C02XK1"}}},
			SAN:      []plugins.AltName{{Type: "dns", Value: "c02xk1.example.com"}},
			KeyUsage: []string{"digitalSignature", "keyEncipherment"}, KeyBits: 2048, SPKI: make([]byte, 294),
			SPKISHA256: strings.Repeat("ab", 32), RequestSHA256: strings.Repeat("cd", 32),
		},
		Expectation: plugins.Expectation{
			ID: "exp_1", Subject: [][]plugins.ExpectedAttribute{{{Type: "2.5.4.3", Match: "exact", Value: "C02XK1"}}},
			SAN: []plugins.ExpectedAltNames{{Type: "dns", Match: "exact", Value: "c02xk1.example.com", Min: 1, Max: 1}},
		},
	}
	dir, err := os.MkdirTemp("", "scepgate-bench-") // short: a socket's path has a limit
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)

	binary := other(b, dir)
	in := new(plugins.Exact)
	condition, err := expression.New(expression.Config{
		Expression: `request.subject.CN == ["C02XK1"] && request.san.dns == ["c02xk1.example.com"]`, Decides: question.Decides,
	})
	if err != nil {
		b.Fatal(err)
	}
	server, err := webhook.New(webhook.Config{URL: "unix/" + listening(b, binary, "webhook"), Decides: question.Decides, Secret: []byte("a secret of the benchmark")})
	if err != nil {
		b.Fatal(err)
	}
	process := startExact(b, binary, question.Decides)
	trip := echo(b, binary)

	asks := []struct {
		name string
		ask  func() error
	}{
		{"in-process", agreed(in, question)},
		{"expression", agreed(condition, question)},
		{"round-trip", trip},
		{"exec", agreed(process, question)},
		{"webhook", agreed(server, question)},
	}
	for _, a := range asks { // connections, and the plugin's start
		if err := a.ask(); err != nil {
			b.Fatalf("%s: %v", a.name, err)
		}
	}
	for range b.N {
		took := make(map[string][]time.Duration)
		for range matcherTurns {
			for _, a := range asks {
				for range matcherCalls {
					begun := time.Now()
					if err := a.ask(); err != nil {
						b.Fatalf("%s: %v", a.name, err)
					}
					took[a.name] = append(took[a.name], time.Since(begun))
				}
			}
		}
		median := func(name string) float64 {
			slices.Sort(took[name])
			return float64(took[name][len(took[name])/2].Nanoseconds())
		}
		b.ReportMetric(median("in-process")/1000, "in-process-µs")
		for _, a := range asks[1:] {
			b.ReportMetric(median(a.name)/median("in-process"), a.name+"/in-process")
		}
		b.ReportMetric(median("exec")/median("round-trip"), "exec/round-trip")
		b.ReportMetric(median("webhook")/median("round-trip"), "webhook/round-trip")
	}
}

type disagreed plugins.Answer

func (d disagreed) Error() string { return "it did not agree: " + d.Code }

func agreed(m plugins.Matcher, r plugins.Request) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		a, err := m.Match(ctx, r)
		if err == nil && a.Verdict != plugins.Agree {
			err = disagreed(a)
		}
		return err
	}
}

// other builds what is at the other end.
func other(b *testing.B, dir string) string {
	root, err := gateway.Root()
	if err != nil {
		b.Fatal(err)
	}
	binary := filepath.Join(dir, "other")
	build := exec.Command("go", "build", "-o", binary, "./integration/bench/other")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// listening starts it and returns its socket.
func listening(b *testing.B, binary, as string) string {
	path := filepath.Join(filepath.Dir(binary), as)
	cmd := exec.Command(binary, as, path)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if time.Now().After(end) {
			b.Fatalf("%s does not listen", as)
		}
	}
}

// startExact is the in-process matcher as a process.
func startExact(b *testing.B, binary string, decides []plugins.Field) plugins.Matcher {
	text, err := os.ReadFile(binary)
	if err != nil {
		b.Fatal(err)
	}
	h, err := host.New(host.Config{Path: binary, SHA256: sha256.Sum256(text), Decides: decides, Timeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	h.Start()
	b.Cleanup(func() { h.Close() })
	return h
}

// echo is one round trip of a kilobyte over a unix socket.
func echo(b *testing.B, binary string) func() error {
	c, err := net.Dial("unix", listening(b, binary, "echo"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	message, answer := make([]byte, 1024), make([]byte, 1024)
	return func() error {
		if _, err := c.Write(message); err != nil {
			return err
		}
		_, err := io.ReadFull(c, answer)
		return err
	}
}
