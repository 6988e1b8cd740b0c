package interop

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
)

// upstreamSite is a gateway in front of a server, and a recording proxy between.
type upstreamSite struct {
	*upstream
	*gateway.Gateway
	token string
	seen  *recorder
}

// recorder passes requests on and remembers them.
type recorder struct {
	mu       sync.Mutex
	requests []recorded
}

type recorded struct {
	method, path, query string
	body                []byte
}

func (r *recorder) all() []recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]recorded(nil), r.requests...)
}

// operations are the messages among them.
func (r *recorder) operations() (messages []recorded) {
	for _, q := range r.all() {
		if strings.Contains(q.query, "operation=PKIOperation") {
			messages = append(messages, q)
		}
	}
	return messages
}

// before starts a proxy in front of u and returns its address.
func (r *recorder) before(t *testing.T, u *upstream) string {
	t.Helper()
	target, err := url.Parse(u.base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		if err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		r.requests = append(r.requests, recorded{req.Method, req.URL.Path, req.URL.RawQuery, body})
		r.mu.Unlock()
		req.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// sharedSecret is the challenge source for a server with a static challenge.
func sharedSecret(t *testing.T) string {
	t.Helper()
	file := writeUpstreamFile(t, filepath.Join(t.TempDir(), "secret"), []byte(upstreamSecret+"\n"))
	return "ndes_static {\n\tpassword_file " + file + "\n}"
}

// newUpstreamSite starts the gateway in front of u; challenge is who owns the
// challenges, in the words of the Caddyfile.
func newUpstreamSite(t *testing.T, u *upstream, bin, challenge string) *upstreamSite {
	t.Helper()
	s := &upstreamSite{upstream: u, seen: new(recorder)}
	dir := t.TempDir()
	caddyfile, err := filepath.Abs(filepath.Join("testdata", "upstream.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	clients := filepath.Join(dir, "clients.json")
	token, err := exec.CommandContext(ctx, bin, "scep", "client", "add", "--file", clients, "--name", "mdm",
		"--profile", "upstream", "--scope", "register").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(token))
	s.Gateway, err = gateway.Start(ctx, gateway.Config{Binary: bin, Dir: dir, Caddyfile: caddyfile, Env: map[string]string{
		"SCEPGATE_CLIENTS":   clients,
		"UPSTREAM_CHALLENGE": challenge,
		"UPSTREAM_RA_CERT":   u.raCertificate,
		"UPSTREAM_RA_KEY":    u.raKey,
		"UPSTREAM_CA_CERT":   u.caCertificate,
		"UPSTREAM_PATH":      u.path,
		"UPSTREAM_ADDRESS":   s.seen.before(t, u),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop(30 * time.Second)
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.Log())
		}
	})
	return s
}

// register returns the challenge, if the gateway made one.
func (s *upstreamSite) register(t *testing.T, expectation map[string]any) string {
	t.Helper()
	var answer struct {
		Challenge string `json:"challenge"`
	}
	if _, err := s.Call(t.Context(), s.token, http.MethodPost, "/v1/profiles/upstream/expectations", expectation, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Challenge
}

func (s *upstreamSite) build(t *testing.T, d *attack.Device, m attack.Message) []byte {
	t.Helper()
	message, err := d.Build(m, s.recipient)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// through sends a message through the gateway, and returns the reason that the
// operator's log gives.
func (s *upstreamSite) through(t *testing.T, message []byte) (attack.Answer, string) {
	t.Helper()
	m, err := inspector.ParseMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	mark := s.Mark()
	answer, err := attack.Post(http.DefaultClient, s.Devices, message)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	line, err := s.Find(ctx, mark, func(l gateway.Line) bool {
		return strings.HasPrefix(l.String("msg"), "enrollment ") && l.String("transaction_id") == m.TransactionID
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer, line.String("reason")
}
