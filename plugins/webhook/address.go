package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	maxConnections = 64
	maxHeader      = 16 << 10
	// Shorter than servers keep idle connections, so that a question seldom meets
	// one that the server is closing.
	idleTimeout = time.Second
)

// address is where a server listens.
type address struct {
	url     string
	socket  string // of a unix socket, "" for TCP
	exposed bool   // plain HTTP over a network
}

func parseURL(s string) (*address, error) {
	if socket, ok := strings.CutPrefix(s, "unix/"); ok { // as Caddy writes it: unix//run/x.sock
		if !strings.HasPrefix(socket, "/") || path.Clean(socket) != socket || socket == "/" || strings.ContainsRune(socket, 0) {
			return nil, errors.New("unix/ wants an absolute path, as in unix//run/matcher.sock")
		}
		return &address{url: "http://localhost/", socket: socket}, nil
	}
	// Neither the text nor url.Error, which quotes it: a query may hold a token.
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Opaque != "", u.Hostname() == "", u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the url is none of http://host…, https://host…, unix//path")
	case u.User != nil:
		return nil, errors.New("the url has a user or password in it; use a secret, which signs")
	case u.Fragment != "":
		return nil, errors.New("the url has a fragment")
	}
	return &address{url: s, exposed: u.Scheme == "http" && !loopback(u.Hostname())}, nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// transport sends each question at most once: HTTP/1.1 only, a POST that is not
// replayable, and net/http repeats such only if not a byte of it was written.
// It follows no redirect, keeps no cookie, and asks the environment for no proxy.
//
// Where the challenge is revealed each question has a connection of its own:
// net/http writes to the log what a server says on an idle one.
func (a *address) transport(reveal bool) *http.Transport {
	dialer := &net.Dialer{}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		DisableCompression:     true,
		DisableKeepAlives:      reveal,
		MaxConnsPerHost:        maxConnections,
		MaxIdleConnsPerHost:    maxConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if a.socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", a.socket)
		}
	}
	return t
}
