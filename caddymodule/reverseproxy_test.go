package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the directives that a Caddyfile has

	"github.com/scepgate/scepgate/inspector"
)

// realProxy is Caddy's reverse_proxy in front of address, told to retry.
func realProxy(t *testing.T, address string) caddyhttp.Handler {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	h := &reverseproxy.Handler{
		Upstreams:     reverseproxy.UpstreamPool{{Dial: address}},
		LoadBalancing: &reverseproxy.LoadBalancing{Retries: 3, TryDuration: caddy.Duration(5 * time.Second), TryInterval: caddy.Duration(time.Millisecond)},
	}
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Cleanup() })
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	})
}

func (w *world) serveProxied(r *http.Request, next caddyhttp.Handler) *httptest.ResponseRecorder {
	w.t.Helper()
	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, &caddyhttp.Server{})
	if err := w.g.ServeHTTP(rec, r, next); err != nil {
		w.t.Fatal(err)
	}
	return rec
}

func TestThroughReverseProxyADeviceEnrols(t *testing.T) {
	w := newWorld(t)
	w.register()
	var header http.Header
	var host string
	var chunked bool
	ndes := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			header, host, chunked = r.Header.Clone(), r.Host, len(r.TransferEncoding) > 0 || r.ContentLength <= 0
		}
		_ = w.ndes.ServeHTTP(rw, r)
	}))
	defer ndes.Close()
	r := post(w.message(device{}))
	r.ContentLength, r.TransferEncoding, r.Trailer = -1, []string{"chunked"}, http.Header{"X-Late": nil}
	r.Header.Set("Te", "trailers")
	rec := w.serveProxied(r, realProxy(t, ndes.Listener.Addr().String()))
	if rec.Code != 200 || isRefusal(rec) {
		_, reason := w.lastReason()
		t.Fatalf("%d (%s)", rec.Code, reason)
	}
	if chunked || host != ndes.Listener.Addr().String() || header.Get("User-Agent") != "scepgate" || header.Get("Te") != "" || header.Get("Trailer") != "" {
		t.Errorf("NDES saw host %q, chunked %v, %v", host, chunked, header)
	}
	if rec.Header().Get("Via") != "" || rec.Header().Get("Server") != "" {
		t.Errorf("the device saw %v", rec.Header())
	}
}

func TestThroughReverseProxyAMessageLeavesOnce(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			address, messages := flakyServer(t)
			next := realProxy(t, address)
			call := func(method string, operation inspector.Operation, message []byte) (*reply, bool, error) {
				rec := httptest.NewRecorder()
				r := caddyhttp.PrepareRequest(httptest.NewRequest("GET", "/", nil), caddy.NewReplacer(), rec, &caddyhttp.Server{})
				ctx, cancel := detached(r, routeGroups(r), 20*time.Second)
				defer cancel()
				return callNext(upstreamRequest(ctx, r, method, operation, message), next)
			}
			if _, _, err := call(http.MethodGet, inspector.GetCACaps, nil); err != nil {
				t.Fatal(err)
			}
			if rep, sent, err := call(method, inspector.PKIOperation, make([]byte, 9000)); rep != nil || !sent || err == nil {
				t.Errorf("reply %v, sent %v, %v", rep, sent, err)
			}
			if n := messages.Load(); n != 1 {
				t.Errorf("NDES saw the message %d times", n)
			}
		})
	}
}

func TestThroughReverseProxyATruncatedAnswerIs502(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				io.Copy(io.Discard, req.Body)
				if strings.Contains(req.URL.RawQuery, "PKIOperation") {
					seen.Add(1)
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\nhalf", mediaPKIMessage)
			}
			conn.Close()
		}
	}()
	defer func() {
		listener.Close()
		<-done
	}()
	w := newWorld(t)
	e := w.register()
	rec := w.serveProxied(post(w.message(device{})), realProxy(t, listener.Addr().String()))
	if rec.Code != 502 || seen.Load() != 1 {
		t.Errorf("%d, NDES saw %d messages", rec.Code, seen.Load())
	}
	if got := w.expectation(e.ID).State; got != "claimed" {
		t.Errorf("state %s", got)
	}
}

func TestThroughReverseProxyARefusedConnectionUndoesTheClaim(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	w := newWorld(t)
	e := w.register()
	rec := w.serveProxied(post(w.message(device{})), realProxy(t, listener.Addr().String()))
	if got := w.expectation(e.ID).State; rec.Code != 502 || got != "registered" {
		t.Errorf("%d, state %s", rec.Code, got)
	}
}
