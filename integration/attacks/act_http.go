package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/ndes"
)

// rawPatience bounds a connection that is written by hand.
const rawPatience = 20 * time.Second

// target is a request whose request line has exactly this target.
func (t *try) target(method, target string, body []byte) *http.Request {
	req := t.httpRequest(method, "", body)
	req.URL.Opaque = target
	return req
}

// visiting asks for a target with GET; querying asks the SCEP path with a raw query.
func visiting(target string) func(*try) *http.Request {
	return func(t *try) *http.Request { return t.target(http.MethodGet, target, nil) }
}

func querying(raw string) func(*try) *http.Request {
	return func(t *try) *http.Request { return t.target(http.MethodGet, attack.Path+"?"+raw, nil) }
}

// posted is the POST of t.M with a changed request.
func posted(change func(t *try, r *http.Request)) func(*try) *http.Request {
	return func(t *try) *http.Request {
		req := t.postRequest(t.M.Bytes())
		change(t, req)
		return req
	}
}

// host is where the vector's devices connect to.
func (t *try) host() string {
	u, err := url.Parse(t.base())
	if err != nil {
		return ""
	}
	return u.Host
}

// dial opens a connection to the device port.
func (t *try) dial() (net.Conn, error) {
	d := &net.Dialer{Timeout: rawPatience}
	host := t.host()
	var c net.Conn
	var err error
	if strings.HasPrefix(t.base(), "https://") {
		if !strings.Contains(host, ":") {
			host += ":443"
		}
		c, err = tls.DialWithDialer(d, "tcp", host, &tls.Config{NextProtos: []string{"http/1.1"}})
	} else {
		if !strings.Contains(host, ":") {
			host += ":80"
		}
		c, err = d.Dial("tcp", host)
	}
	if err == nil {
		err = c.SetDeadline(time.Now().Add(rawPatience))
	}
	return c, err
}

// raw writes octets on a connection of their own and reads answers until the
// server closes it; the last request should ask for that. A server that closes
// without a word has given no answers.
func (t *try) raw(octets string) []attack.Answer {
	c, err := t.dial()
	if err != nil {
		t.failf("connecting: %v", err)
		return nil
	}
	defer c.Close()
	go io.WriteString(c, octets) // the server may answer, and close, before it has read all
	return t.answers(c)
}

func (t *try) answers(c net.Conn) (answers []attack.Answer) {
	r := bufio.NewReader(c)
	for {
		if _, err := r.Peek(1); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.failf("the connection stayed open for %s", rawPatience)
			}
			return answers
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.failf("no HTTP answer: %v", err)
			return answers
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			t.failf("a broken answer: %v", err)
		}
		a := attack.Answer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Header: resp.Header, Body: body}
		if rep, err := inspector.ParseCertRep(body); err == nil {
			a.Rep = rep
		}
		t.back = append(t.back, describe(a))
		answers = append(answers, a)
	}
}

// rawStatus demands exactly one bare answer to octets, with one of these
// statuses, and that nothing reached NDES.
func (t *try) rawStatus(octets string, statuses ...int) {
	t.demands++
	answers := t.raw(octets)
	if len(answers) != 1 {
		t.failf("%d answers instead of one", len(answers))
		return
	}
	for _, s := range statuses {
		if answers[0].Status == s {
			t.status(answers[0], s)
			t.reached()
			return
		}
	}
	t.failf("%s instead of %v", describe(answers[0]), statuses)
}

// rawPost is a POST of message by hand, with further header lines.
func (t *try) rawPost(message []byte, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s?operation=PKIOperation HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-pki-message\r\n", attack.Path, t.host())
	for _, l := range append(lines, "Connection: close") {
		b.WriteString(l + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(message)
	return b.String()
}

// chunked is a body in one chunk.
func chunked(message []byte) []byte {
	return fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(message), message)
}

// answering lets NDES answer messages with f, and everything else as ever.
func (t *try) answering(f http.HandlerFunc) {
	t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.RawQuery, "operation=PKIOperation") {
			return false
		}
		f(w, r)
		return true
	})
}

// messages gives the requests with a message that reached NDES since the vector
// began.
func (t *try) messages() (list []ndes.Request) {
	for _, r := range t.Up.since(t.from) {
		if messageOf(r) != nil {
			list = append(list, r)
		}
	}
	return list
}

// call calls the API and gives status and answer.
func (t *try) call(token, method, path string, in any) (status int, answer string) {
	var out any
	status, err := t.Call(context.Background(), token, method, path, in, &out)
	if err != nil {
		return status, err.Error()
	}
	return status, fmt.Sprint(out)
}

// demandCall demands a status of the API, and a word in its answer.
func (t *try) demandCall(token, method, path string, in any, status int, word string) {
	t.demands++
	got, answer := t.call(token, method, path, in)
	t.back = append(t.back, fmt.Sprint(got))
	if got != status || !strings.Contains(answer, word) {
		t.failf("%s %s: %d %s, not %d %s", method, path, got, answer, status, word)
		return
	}
	if word != "" {
		t.operator = append(t.operator, word)
	}
}

// also registers a second expectation for the same profile.
func (t *try) also(e map[string]any) (id string) {
	id, status, refusal := t.register(t.Token, t.profile(), e)
	if id == "" {
		t.failf("registering: %d %s", status, refusal)
	}
	return id
}

// demand notes a demand of the vector's own.
func (t *try) demand(ok bool, format string, args ...any) {
	t.demands++
	if !ok {
		t.failf(format, args...)
	}
}

// undecryptable demands that the operator reads that a message could not be
// opened. Where the content key was replaced, one padding in 256 is right by
// chance, and then it is the request that cannot be read.
func (t *try) undecryptable() string {
	l := t.decision("")
	if l == nil {
		return ""
	}
	reason := l.String("reason")
	t.demand(reason == "undecryptable" || reason == "malformed_request", "the operator reads %q, not undecryptable", reason)
	return reason
}

// anyOf reports whether b holds one of these.
func anyOf(b []byte, parts ...[]byte) bool {
	for _, p := range parts {
		if bytes.Contains(b, p) {
			return true
		}
	}
	return false
}
