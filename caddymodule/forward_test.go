package caddymodule

import (
	"bufio"
	"context"
	"errors"
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
	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/inspector"
)

// proxyTo is a next that does what reverse_proxy does, with the transport of net/http.
func proxyTo(transport *http.Transport, address string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", address, ""
		res, err := transport.RoundTrip(out)
		if err != nil {
			return caddyhttp.Error(http.StatusBadGateway, err)
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		if _, err := io.Copy(w, res.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
}

// flakyServer answers the first request of a connection and closes it after
// having read the second. It counts messages.
func flakyServer(t *testing.T) (address string, messages *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	messages = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				reader := bufio.NewReader(conn)
				for i := range 2 {
					req, err := http.ReadRequest(reader)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if strings.Contains(req.URL.RawQuery, "PKIOperation") {
						messages.Add(1)
					}
					if i == 0 {
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String(), messages
}

func upstreamCall(t *testing.T, method string, operation inspector.Operation, message []byte, next caddyhttp.Handler) (*reply, bool, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return callNext(upstreamRequest(ctx, httptest.NewRequest("GET", "/", nil), method, operation, message), next)
}

func TestASecondAttemptOfTheTransportIsStopped(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			address, messages := flakyServer(t)
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			next := proxyTo(transport, address)
			if rep, _, err := upstreamCall(t, http.MethodGet, inspector.GetCACaps, nil, next); err != nil || string(rep.body) != "ok" {
				t.Fatal(err)
			}
			rep, sent, err := upstreamCall(t, method, inspector.PKIOperation, make([]byte, 9000), next)
			if err == nil || rep != nil || !sent {
				t.Errorf("reply %v, sent %v, %v; want an unknown outcome", rep, sent, err)
			}
			if n := messages.Load(); n != 1 {
				t.Errorf("NDES saw the message %d times", n)
			}
			// The next request works.
			if _, _, err := upstreamCall(t, http.MethodGet, inspector.GetCACaps, nil, next); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARetryOfTheProxyIsStopped(t *testing.T) {
	address, messages := flakyServer(t)
	transport := &http.Transport{DisableKeepAlives: true}
	once := proxyTo(transport, address)
	twice := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		_ = once(httptest.NewRecorder(), r)
		return once(w, r)
	})
	_, sent, err := upstreamCall(t, http.MethodGet, inspector.PKIOperation, []byte("message"), twice)
	if err == nil || !sent || messages.Load() != 1 {
		t.Errorf("sent %v, %v; NDES saw the message %d times", sent, err, messages.Load())
	}
}

func TestNotOneByteLeftIsToldFromUnknown(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	errNoUpstreams := errors.New("no upstreams available")
	for _, tc := range []struct {
		name string
		next caddyhttp.Handler
		sent bool
	}{
		{"the connection is refused", proxyTo(transport, address), false},
		{"the proxy has no upstream", caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			return caddyhttp.Error(http.StatusServiceUnavailable, errNoUpstreams)
		}), false},
		{"a handler that says nothing of it", caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errBroken }), true},
		{"a panic", caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { panic("x") }), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rep, sent, err := upstreamCall(t, http.MethodPost, inspector.PKIOperation, []byte("message"), tc.next)
			if rep != nil || err == nil || sent != tc.sent {
				t.Errorf("reply %v, sent %v, %v", rep, sent, err)
			}
		})
	}
}

func TestAForwardThatNeverLeftUndoesTheClaim(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	w := newWorld(t)
	e := w.register()
	rec, err := w.serveThrough(post(w.message(device{})), proxyTo(transport, address))
	if err != nil || rec.Code != 502 {
		t.Fatalf("%d %v", rec.Code, err)
	}
	if got := w.expectation(e.ID); got.State != "registered" || got.InUse() {
		t.Errorf("state %s, in use %v", got.State, got.InUse())
	}
	// Another key may have it.
	if rec := w.serve(post(w.message(device{key: strangerKey()}))); rec.Code != 200 || isRefusal(rec) {
		t.Errorf("another key got %d", rec.Code)
	}
}

func TestNothingGetsPastTheReplyWriter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &replyWriter{header: make(http.Header), cancel: cancel}
	if err := http.NewResponseController(w).Flush(); err == nil {
		t.Error("can be flushed")
	}
	if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
		t.Error("can be hijacked")
	}
	w.WriteHeader(103)
	w.WriteHeader(200)
	w.WriteHeader(500)
	if w.code != 200 {
		t.Errorf("status %d", w.code)
	}
	if _, err := w.Write(make([]byte, maxReply)); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte{0}); !errors.Is(err, errReplyTooLarge) || ctx.Err() == nil {
		t.Errorf("over the cap: %v, context %v", err, ctx.Err())
	}
}

func TestOtherBytesThanTheJudgedOnesDoNotLeave(t *testing.T) {
	w := newWorld(t)
	v := &visit{g: w.g, r: httptest.NewRequest("GET", "/", nil), next: w.ndes}
	if _, sent, err := v.send([]byte("other"), [32]byte{}, true); sent || !errors.Is(err, errInternal) || len(w.ndes.seen) != 0 {
		t.Errorf("sent %v, %v", sent, err)
	}
}

func TestRouteGroupsAreFreshForEveryCallOfNext(t *testing.T) {
	rec := httptest.NewRecorder()
	r := caddyhttp.PrepareRequest(httptest.NewRequest("GET", "/", nil), caddy.NewReplacer(), rec, nil)
	groups := routeGroups(r)
	if groups == nil {
		t.Fatal("package caddyhttp keeps route groups elsewhere")
	}
	for range 2 {
		ctx, cancel := detached(r, groups, time.Minute)
		defer cancel()
		fresh := ctx.Value(routeGroupCtxKey).(map[string]struct{})
		if len(fresh) != 0 {
			t.Error("a group counts as served")
		}
		fresh["group0"] = struct{}{}
		caddyhttp.SetVar(ctx, "x", "y")
	}
	if caddyhttp.GetVar(r.Context(), "x") != nil {
		t.Error("variables are shared with the device's request")
	}
}
