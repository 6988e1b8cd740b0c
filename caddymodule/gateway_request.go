package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/scepgate/scepgate/inspector"
)

// bodyDeadline bounds the whole reading of a body: Caddy's own limits let a
// device trickle (threat E12).
const bodyDeadline = 10 * time.Second

// plainPath reports whether a path has one reading only, here and in IIS, which
// normalises after us. threats E23–E25
func plainPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, `%\;:`) &&
		!strings.Contains(path, "//") && !strings.Contains(path, "..")
}

// sameFold compares without regard to ASCII case; strings.EqualFold would also
// take U+017F for an s.
func sameFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if asciiLower(a[i]) != asciiLower(b[i]) {
			return false
		}
	}
	return true
}

func asciiLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// listed reports whether the URL, as it stands after rewrites, is exactly one
// of paths.
func listed(u *url.URL, paths ...string) bool {
	path := u.EscapedPath()
	if !plainPath(path) {
		return false
	}
	for _, p := range paths {
		if p != "" && sameFold(p, path) {
			return true
		}
	}
	return false
}

// readRequest gives the operation and, for PKIOperation, the message: as many
// bytes as the device sent, or an error. An error of a handler before this one,
// such as the limit of request_body, comes back as it is.
func (g *Gateway) readRequest(w http.ResponseWriter, r *http.Request) (inspector.Operation, []byte, error) {
	q, err := inspector.ParseQuery(r.Method, r.URL.RawQuery, int(g.MaxMessage))
	if err != nil {
		return "", nil, err
	}
	for _, encoding := range r.Header.Values("Content-Encoding") {
		if !sameFold(strings.TrimSpace(encoding), "identity") { // threat E13
			return q.Operation, nil, fmt.Errorf("%w: content encoding", errBody)
		}
	}
	if r.Method != http.MethodPost {
		if r.ContentLength != 0 { // also -1: chunked. threat E21
			return q.Operation, nil, fmt.Errorf("%w: %s with a body", errBody, r.Method)
		}
		return q.Operation, q.Message, nil
	}
	if r.ContentLength > g.MaxMessage {
		return q.Operation, nil, inspector.ErrMessageTooLarge
	}
	body, err := readBody(w, r, g.MaxMessage)
	return q.Operation, body, err
}

// readBody reads all of the body. A length that was not announced is counted
// just the same. threats C60, E11
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	controller := http.NewResponseController(w)
	// Writers that know no deadline (errors.ErrUnsupported) are read without one.
	_ = controller.SetReadDeadline(time.Now().Add(bodyDeadline))
	// Left standing, it would expire while NDES works and cancel the request.
	defer func() { _ = controller.SetReadDeadline(time.Time{}) }()

	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var before caddyhttp.HandlerError
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &before):
		return nil, err
	case errors.As(err, &tooLarge), err == nil && int64(len(body)) > limit:
		return nil, inspector.ErrMessageTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return nil, errBodyTimeout
	case err != nil:
		return nil, fmt.Errorf("%w: %v", errBody, err)
	}
	return body, nil
}

// clientIP is the device's address as Caddy sees it through trusted_proxies.
func clientIP(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// queryWithoutMessage is a query that was understood (see inspector.ParseQuery)
// without the message: that holds the challenge, if only encrypted.
func queryWithoutMessage(raw string) string {
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		if name, _, _ := strings.Cut(strings.TrimLeft(part, "?"), "="); name != "message" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}
