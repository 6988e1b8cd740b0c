package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/scepgate/scepgate/integration/ndes"
)

// upstream stands where NDES stands: it writes down every request and lets the
// credulous simulator answer, unless a vector wants another answer.
type upstream struct {
	ndes http.Handler

	mu     sync.Mutex
	seen   []ndes.Request
	answer func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	u.mu.Lock()
	u.seen = append(u.seen, ndes.Request{
		Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery, Header: r.Header.Clone(), Host: r.Host,
		Chunked: len(r.TransferEncoding) > 0, Body: body,
	})
	answer := u.answer
	u.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if answer != nil && answer(w, r) {
		return
	}
	u.ndes.ServeHTTP(w, r)
}

// since gives the requests after the first n.
func (u *upstream) since(n int) []ndes.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]ndes.Request(nil), u.seen[n:]...)
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

func (u *upstream) set(answer func(http.ResponseWriter, *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = answer
}

// messageOf is the CMS message that a request brought; nil if it is none.
func messageOf(r ndes.Request) []byte {
	switch r.RawQuery {
	case "operation=GetCACaps", "operation=GetCACert":
		return nil
	case "operation=PKIOperation":
		return r.Body
	}
	if escaped, ok := strings.CutPrefix(r.RawQuery, "operation=PKIOperation&message="); ok {
		if text, err := url.QueryUnescape(escaped); err == nil {
			if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
				return raw
			}
		}
	}
	return []byte("not a request that the gateway makes: " + r.Method + " " + r.Path + "?" + r.RawQuery)
}
