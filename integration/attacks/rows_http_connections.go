package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsBodies: E11–E13. What thousands of them do at once is integration/floods.
func rowsBodies() []vector {
	list := []vector{
		{row: "E11", variant: "POST that announces 1 GiB", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus(t.rawPost([]byte("0\x80"), "Content-Length: 1073741824"), http.StatusRequestEntityTooLarge)
			t.decision("malformed_message")
		}},
		{row: "E11", variant: "POST of 64 KiB and one octet", want: pre, status: 413, reason: "malformed_message",
			request: func(t *try) *http.Request { return t.postRequest(make([]byte, 64<<10+1)) }},
		{row: "E11", variant: "POST of 200 KiB without a length", want: pre, status: 413, reason: "malformed_message",
			request: func(t *try) *http.Request {
				req := t.postRequest([]byte{0})
				req.Body, req.ContentLength, req.GetBody = io.NopCloser(strings.NewReader(strings.Repeat("0", 200<<10))), -1, nil
				return req
			}},
		{row: "E11", variant: "a message, then 100 KiB of NUL", want: pre, status: 413, reason: "malformed_message",
			request: func(t *try) *http.Request { return t.postRequest(append(t.M.Bytes(), make([]byte, 100<<10)...)) }},
		{row: "E11", variant: "GET of a message of 64 KiB and one octet", want: pre, status: 413, reason: "malformed_message",
			request: querying("operation=PKIOperation&message=" + base64.StdEncoding.EncodeToString(make([]byte, 64<<10+1)))},
		{row: "E11", variant: "GET with a query of 96 KiB and one octet", want: pre, status: 414, reason: "malformed_message",
			request: querying("operation=PKIOperation&message=" + strings.Repeat("A", 96<<10+1-len("operation=PKIOperation&message=")))},
		{row: "E11", variant: "GET with a query of 200 KiB", want: pre, status: 414, reason: "malformed_message",
			request: querying("operation=GetCACert&message=" + strings.Repeat("A", 200<<10))},
		{row: "E11", variant: "a request head of 300 KiB", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("GET "+attack.Path+"?operation=GetCACaps HTTP/1.1\r\nHost: x\r\nX-Padding: "+strings.Repeat("A", 300<<10)+"\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge)
		}},
		// How long a body may take is 10 seconds; integration/floods waits for them.
		{row: "E12", variant: "a body that ends before its length", want: pre, anywhere: true, act: func(t *try) {
			t.truncated(t.rawPost(t.M.Bytes()[:100], "Content-Length: 2000"))
			t.decision("malformed_message")
		}},
		{row: "E12", variant: "a chunked body that ends without its last chunk", want: pre, anywhere: true, act: func(t *try) {
			m := t.M.Bytes()
			t.truncated(t.rawPost(fmt.Appendf(nil, "%x\r\n%s\r\n", len(m), m), "Transfer-Encoding: chunked"))
			t.decision("malformed_message")
		}},
		{row: "E13", variant: "the message in a form, as curl -d sends it", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				req := t.postRequest([]byte("message=" + base64.StdEncoding.EncodeToString(t.M.Bytes())))
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				return req
			}},
		{row: "E13", variant: "the message in multipart/form-data", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				req := t.postRequest([]byte("--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n" + string(t.M.Bytes()) + "\r\n--x--\r\n"))
				req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
				return req
			}},
		// The body is what is judged; RFC 8894 §4.1 names a type, clients send others.
		{row: "E13", variant: "the message itself, called a form", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			req := t.postRequest(m)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			t.issued(t.do(req))
			t.decision("ok")
			for _, r := range t.messages() {
				t.demand(r.Header.Get("Content-Type") == "application/x-pki-message", "NDES was sent the type %q", r.Header.Get("Content-Type"))
			}
			t.reached(m)
		}},
		{row: "E13", variant: "Content-Encoding: identity", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			req := t.postRequest(m)
			req.Header.Set("Content-Encoding", "identity")
			t.issued(t.do(req))
			t.decision("ok")
			t.reached(m)
		}},
	}
	for _, encoding := range []string{"gzip", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "identity, gzip", "base64"} {
		list = append(list, vector{row: "E13", variant: "Content-Encoding: " + encoding, want: pre, status: 400, reason: "malformed_message",
			request: posted(func(_ *try, r *http.Request) { r.Header.Set("Content-Encoding", encoding) })})
	}
	return list
}

// truncated writes octets and then no more, and demands that the answer, if
// there is any, is 400.
func (t *try) truncated(octets string) {
	t.demands++
	c, err := t.dial()
	if err != nil {
		t.failf("connecting: %v", err)
		return
	}
	defer c.Close()
	io.WriteString(c, octets)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	for _, a := range t.answers(c) {
		t.status(a, http.StatusBadRequest)
	}
	t.reached()
}

// rowsConnections: E14–E16.
func rowsConnections() []vector {
	list := []vector{
		{row: "E14", variant: "HEAD of PKIOperation", want: pre, status: 405, request: func(t *try) *http.Request {
			return t.target(http.MethodHead, attack.Path+"?operation=PKIOperation&message=MAA=", nil)
		}},
		{row: "E14", variant: "HEAD of GetCACaps", want: asDescribed, anywhere: true, act: func(t *try) {
			a := t.do(t.target(http.MethodHead, attack.Path+"?operation=GetCACaps", nil))
			t.demand(a.Status == http.StatusOK && len(a.Body) == 0, "%d octets, %s", len(a.Body), describe(a))
			t.reached()
		}},
		{row: "E14", variant: "CONNECT to NDES", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("CONNECT ndes.internal:80 HTTP/1.1\r\nHost: ndes.internal:80\r\nConnection: close\r\n\r\n", 400, 404, 405)
		}},
		{row: "E14", variant: "OPTIONS *", want: pre, anywhere: true, act: func(t *try) {
			t.rawAny("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		}},
		{row: "E14", variant: "an Expect that nobody knows", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus(t.rawPost(nil, "Content-Length: 2000", "Expect: 200-ok"), http.StatusExpectationFailed)
		}},
		{row: "E14", variant: "a trailer behind the message", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			body := fmt.Appendf(nil, "%x\r\n%s\r\n0\r\nX-Original-URL: /certsrv/mscep_admin/\r\nContent-Type: text/html\r\n\r\n", len(m), m)
			t.carried(t.rawPost(body, "Transfer-Encoding: chunked", "Trailer: X-Original-URL, Content-Type"), m)
		}},
		{row: "E14", variant: "Upgrade: websocket", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.carried(t.rawPost(m, "Content-Length: "+itoa(len(m)), "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"), m)
		}},
		{row: "E14", variant: "Upgrade: h2c", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.carried(t.rawPost(m, "Content-Length: "+itoa(len(m)), "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), m)
		}},
		{row: "E14", variant: "Expect: 100-continue", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.carried(t.rawPost(m, "Content-Length: "+itoa(len(m)), "Expect: 100-continue"), m)
		}},
		// Whichever length is believed, what NDES gets is written anew.
		{row: "E15", variant: "Content-Length and Transfer-Encoding", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			t.smuggled(t.rawPost(chunked(m), "Content-Length: 5", "Transfer-Encoding: chunked"), m)
		}},
		{row: "E15", variant: "a request for mscep_admin behind the last chunk", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			head := strings.Replace(t.rawPost(nil, "Transfer-Encoding: chunked"), "Connection: close\r\n", "", 1)
			t.smuggled(head+string(chunked(m))+"GET /certsrv/mscep_admin/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", m)
		}},
		{row: "E15", variant: "a request for mscep_admin behind the length", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			head := strings.Replace(t.rawPost(nil, "Content-Length: "+itoa(len(m))), "Connection: close\r\n", "", 1)
			t.smuggled(head+string(m)+"GET /certsrv/mscep_admin/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", m)
		}},
		{row: "E15", variant: "a second message behind the length", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			t.smuggled(t.rawPost([]byte(string(m)+t.rawPost(m, "Content-Length: "+itoa(len(m)))), "Content-Length: "+itoa(len(m))), m)
		}},
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "COPY", "SEARCH", "DEBUG", "RPC_IN_DATA", "get", "FOO"} {
		list = append(list, vector{row: "E14", variant: method + " of a message", want: pre, anywhere: true, act: func(t *try) {
			a := t.do(t.target(method, attack.Path+"?operation=PKIOperation", nil))
			t.status(a, http.StatusMethodNotAllowed)
			t.demand(a.Header.Get("Allow") != "", "405 without Allow")
			t.reached()
		}})
	}
	for _, c := range []struct {
		variant string
		lines   func(m []byte) ([]string, []byte)
	}{
		{"two Content-Length that differ", func(m []byte) ([]string, []byte) {
			return []string{"Content-Length: " + itoa(len(m)), "Content-Length: 5"}, m
		}},
		{"two Content-Length in one line", func(m []byte) ([]string, []byte) {
			return []string{"Content-Length: " + itoa(len(m)) + ", 5"}, m
		}},
		{"a negative Content-Length", func(m []byte) ([]string, []byte) { return []string{"Content-Length: -1"}, m }},
		{"a Content-Length with a sign", func(m []byte) ([]string, []byte) { return []string{"Content-Length: +" + itoa(len(m))}, m }},
		{"a blank before the colon of Content-Length", func(m []byte) ([]string, []byte) {
			return []string{"Content-Length : " + itoa(len(m))}, m
		}},
		{"Transfer-Encoding: xchunked", func(m []byte) ([]string, []byte) { return []string{"Transfer-Encoding: xchunked"}, chunked(m) }},
		{"Transfer-Encoding: chunked, identity", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: chunked, identity"}, chunked(m)
		}},
		{"Transfer-Encoding twice", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"}, chunked(m)
		}},
		{"Transfer-Encoding with a vertical tab", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: \vchunked"}, chunked(m)
		}},
		{"Transfer-Encoding folded onto a line of its own", func(m []byte) ([]string, []byte) {
			return []string{"Content-Length: 5", "X-Y: z\r\n Transfer-Encoding: chunked\r\nTransfer-Encoding\x00: chunked"}, chunked(m)
		}},
		{"chunks whose lines end with LF alone", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: chunked"}, fmt.Appendf(nil, "%x\n%s\r\n0\r\n\r\n", len(m), m)
		}},
		{"a chunk extension with LF alone in it", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: chunked"}, fmt.Appendf(nil, "%x;a\nb\r\n%s\r\n0\r\n\r\n", len(m), m)
		}},
		{"a chunk that is longer than it says", func(m []byte) ([]string, []byte) {
			return []string{"Transfer-Encoding: chunked"}, fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(m)-1, m)
		}},
	} {
		list = append(list, vector{row: "E15", variant: c.variant, want: pre, anywhere: true, act: func(t *try) {
			lines, body := c.lines(t.M.Bytes())
			t.demands++
			for _, a := range t.raw(t.rawPost(body, lines...)) {
				t.demand(a.Rep == nil && (a.Status == 400 || a.Status == 501), "%s instead of 400 or 501", describe(a))
			}
			t.reached()
			t.state(t.ID, "registered")
			t.quiet()
		}})
	}
	return append(list, rowsHTTP2()...)
}

// rawAny demands nothing of the answer but that nothing reached NDES.
func (t *try) rawAny(octets string) {
	t.raw(octets)
	t.reached()
}

// carried demands that a message comes through a raw request as it is, in a
// request that has nothing else of it.
func (t *try) carried(octets string, m []byte) {
	answers := t.raw(octets)
	for _, a := range answers {
		if a.Status != http.StatusContinue {
			t.issued(a)
		}
	}
	t.demand(len(answers) > 0, "no answer")
	t.decision("ok")
	t.onlyOurs()
	t.reached(m)
	t.state(t.ID, "issued")
}

// smuggled demands that a raw request brings NDES at most its message, once, and
// that everything behind it is judged as a request of its own.
func (t *try) smuggled(octets string, m []byte) {
	t.demands++
	answers := t.raw(octets)
	for i, a := range answers {
		if i > 0 || a.Rep == nil {
			t.demand(a.Rep == nil && a.Status >= 400 && a.Status < 500, "%s to what stood behind", describe(a))
		}
	}
	t.demand(len(answers) > 0, "no answer")
	for _, r := range t.Up.since(t.from) {
		t.demand(strings.EqualFold(r.Path, attack.Path), "NDES was asked for %s", r.Path)
	}
	t.onlyOurs()
	if len(answers) > 0 && answers[0].Rep != nil {
		t.issued(answers[0])
		t.decision("ok")
		t.reached(m)
		t.state(t.ID, "issued")
		return
	}
	t.reached()
	t.state(t.ID, "registered")
	t.quiet()
}

// quiet takes the decision lines of what was just refused out of the way of
// the next demand: one more message, which has a line of its own.
func (t *try) quiet() {
	if t.Remote {
		return
	}
	m := t.message(t.Device)
	m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(newChallenge()))}
	t.refused(t.post(m.Bytes()))
	for range 3 {
		if l := t.decision(""); l == nil || l.String("reason") == "challenge_unknown" {
			return
		}
	}
}
