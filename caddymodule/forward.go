package caddymodule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/scepgate/scepgate/inspector"
)

const (
	// ndesPath is where everything is forwarded to, whatever spelling the device used. threat E23
	ndesPath = "/certsrv/mscep/mscep.dll"

	mediaPKIMessage = "application/x-pki-message"

	// maxReply bounds what NDES may answer; a CertRep has a few kilobytes. threat E30
	maxReply = 1 << 20
)

// errReplyTooLarge stops a next that writes more than maxReply.
var errReplyTooLarge = errors.New("upstream answer too large")

// secondAttempt is the panic that keeps a transport from sending a request a
// second time.
type secondAttempt struct{}

// reply is what came out of next, whole.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// upstreamRequest makes a request of our own for next: nothing of the device's
// request is in it but its address (threats E15, E21, E28). The message is in
// the body or in URL.RawQuery, never in RequestURI, which proxies log.
func upstreamRequest(ctx context.Context, r *http.Request, method string, operation inspector.Operation, message []byte) *http.Request {
	query := "operation=" + string(operation)
	req := &http.Request{
		Method: method,
		URL:    &url.URL{Path: ndesPath, RawQuery: query},
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:     http.Header{"User-Agent": {"scepgate"}},
		Body:       http.NoBody,
		RemoteAddr: r.RemoteAddr,
		RequestURI: ndesPath + "?" + query,
		TLS:        r.TLS,
		// Host, Trailer, TransferEncoding and GetBody stay empty: the upstream's
		// Host, no chunked body (IIS refuses it), no replay.
	}
	switch {
	case message == nil:
	case method == http.MethodPost:
		req.Header.Set("Content-Type", mediaPKIMessage)
		req.Body = io.NopCloser(bytes.NewReader(message))
		req.ContentLength = int64(len(message))
	default:
		// QueryEscape escapes + / and =, which is all that base64 has.
		req.URL.RawQuery += "&message=" + url.QueryEscape(base64.StdEncoding.EncodeToString(message))
	}
	return req.WithContext(ctx)
}

// detached gives the context in which next works for us: the values of the
// device's request, but not its cancellation (threat D05), and copies of what
// Caddy keeps per request and changes on the way. A copied route group matters:
// routes after this handler run once per group, and we may call them twice, for
// GetCACert and for the message.
func detached(r *http.Request, groups map[string]struct{}, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(r.Context())
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	}
	fresh := maps.Clone(groups)
	if fresh == nil {
		fresh = make(map[string]struct{})
	}
	ctx = context.WithValue(ctx, routeGroupCtxKey, fresh)
	// The original request has the message in its URL.
	ctx = context.WithValue(ctx, caddyhttp.OriginalRequestCtxKey, http.Request{
		Method:     r.Method,
		RemoteAddr: r.RemoteAddr,
		RequestURI: ndesPath,
		URL:        &url.URL{Path: ndesPath},
	})
	return context.WithTimeout(ctx, timeout)
}

// routeGroupCtxKey is the key under which package caddyhttp remembers which
// route groups were served; it does not export it.
const routeGroupCtxKey = caddy.CtxKey("route_group")

// routeGroups is what was served when this handler was reached.
func routeGroups(r *http.Request) map[string]struct{} {
	groups, _ := r.Context().Value(routeGroupCtxKey).(map[string]struct{})
	return maps.Clone(groups)
}

// attempt watches, through httptrace, whether a request has left. Hooks run on
// the transport's goroutines.
type attempt struct {
	asked atomic.Bool // a transport looked for a connection
	got   atomic.Bool // and had one: from here on bytes may have left
	wrote atomic.Bool // headers were written
}

// trace gives the hooks. GotConn runs on the goroutine that called RoundTrip,
// so its panic comes out of next. It is the only way to keep net/http from
// repeating a GET on a connection that the server closed after reading the
// request: the transport looks neither at the body nor at a cancelled context
// before it writes again.
func (a *attempt) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { a.asked.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) {
			if a.wrote.Load() {
				closeUnshared(info)
				panic(secondAttempt{})
			}
			a.got.Store(true)
		},
		WroteHeaderField: func(string, []string) { a.wrote.Store(true) },
		WroteHeaders:     func() { a.wrote.Store(true) },
	}
}

// closeUnshared closes the connection of a request that will not be sent, so
// that the transport does not wait for it for ever. An HTTP/2 connection is
// shared with other requests and stays.
func closeUnshared(info httptrace.GotConnInfo) {
	if info.Conn == nil {
		return
	}
	if c, ok := info.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok && c.ConnectionState().NegotiatedProtocol == "h2" {
		return
	}
	_ = info.Conn.Close()
}

// unsent reports whether it is certain that not one byte left: a transport
// asked for a connection and never had one, or the proxy had no upstream to
// choose. In any other case the answer is "unknown": with a long request line
// bytes leave before any hook about writing runs.
func (a *attempt) unsent(err error) bool {
	return !a.got.Load() && !a.wrote.Load() && (a.asked.Load() || noUpstream(err))
}

// noUpstream recognises reverse_proxy's answer when every upstream is marked
// down; the error itself is not exported.
func noUpstream(err error) bool {
	var he caddyhttp.HandlerError
	return errors.As(err, &he) && he.StatusCode == http.StatusServiceUnavailable && he.Err != nil &&
		he.Err.Error() == "no upstreams available"
}

// callNext runs next for req and gives its whole answer. Every panic of next
// ends here: reverse_proxy panics when an answer is cut short. If there is no
// answer, sent tells whether bytes may have left.
func callNext(req *http.Request, next caddyhttp.Handler) (rep *reply, sent bool, err error) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	a := new(attempt)
	w := &replyWriter{header: make(http.Header), cancel: cancel}
	err = runNext(w, req.WithContext(httptrace.WithClientTrace(ctx, a.trace())), next)
	sent = !a.unsent(err)
	switch {
	case err != nil:
		return nil, sent, withoutTrace(err)
	case w.tooLarge:
		return nil, sent, errReplyTooLarge
	case w.code == 0:
		return nil, sent, errors.New("no answer")
	}
	return &reply{code: w.code, header: w.header, body: w.body.Bytes()}, true, nil
}

// withoutTrace takes Caddy's id and source line off an error.
func withoutTrace(err error) error {
	var he caddyhttp.HandlerError
	if errors.As(err, &he) && he.Err != nil {
		return he.Err
	}
	return err
}

func runNext(w http.ResponseWriter, req *http.Request, next caddyhttp.Handler) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case secondAttempt:
			err = errors.New("connection lost after sending; a second attempt was stopped")
		case error:
			if errors.Is(p, http.ErrAbortHandler) {
				err = errors.New("answer was cut short")
				return
			}
			err = fmt.Errorf("panic of the next handler: %T", p) // its text may quote the request
		default:
			err = fmt.Errorf("panic of the next handler: %T", p)
		}
	}()
	return next.ServeHTTP(w, req)
}

// replyWriter takes next's answer into memory. It can neither be flushed nor
// hijacked, so nothing gets past it to the device.
type replyWriter struct {
	header   http.Header
	code     int
	body     bytes.Buffer
	tooLarge bool
	cancel   context.CancelFunc
}

func (w *replyWriter) Header() http.Header { return w.header }

func (w *replyWriter) WriteHeader(code int) {
	if code < 200 && code != http.StatusSwitchingProtocols {
		return // interim; may come from a transport's goroutine
	}
	if w.code == 0 {
		w.code = code
	}
}

func (w *replyWriter) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	if w.tooLarge || w.body.Len()+len(b) > maxReply {
		w.tooLarge = true
		w.cancel()
		return 0, errReplyTooLarge
	}
	return w.body.Write(b)
}

// send forwards the message, once. judged is the hash of the bytes that the
// gate saw: other bytes do not leave (invariant 1, threat D03).
func (v *visit) send(message []byte, judged [sha256.Size]byte, post bool) (rep *reply, sent bool, err error) {
	if sha256.Sum256(message) != judged {
		return nil, false, fmt.Errorf("%w: message differs from the judged one", errInternal)
	}
	ctx, cancel := detached(v.r, v.groups, time.Duration(v.g.UpstreamTimeout))
	defer cancel()
	method := http.MethodGet
	if post {
		method = http.MethodPost
	}
	return callNext(upstreamRequest(ctx, v.r, method, inspector.PKIOperation, message), v.next)
}
