package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

const (
	defaultLogin = "https://login.microsoftonline.com"
	defaultGraph = "https://graph.microsoft.com"
	maxSecret    = 1024
)

var (
	tenantSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)
	clientSyntax = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

// settings are the `config` block. No error quotes the secret.
type settings struct {
	tenant, clientID, clientSecret string
	login, graph                   *url.URL
}

func readSettings(config map[string]string) (s settings, err error) {
	for key := range config {
		switch key {
		case "tenant", "client_id", "client_secret", "login_url", "graph_url":
		default:
			return settings{}, fmt.Errorf("unknown option %q", key)
		}
	}
	s.tenant, s.clientID = config["tenant"], config["client_id"]
	s.clientSecret = strings.TrimRight(config["client_secret"], "\r\n") // a file ends with a line end
	if !tenantSyntax.MatchString(s.tenant) {
		return settings{}, errors.New("tenant: must be the tenant's domain or id")
	}
	if !clientSyntax.MatchString(s.clientID) {
		return settings{}, errors.New("client_id: must be the id of an app registration, 8-4-4-4-12 hexadecimal digits")
	}
	if s.clientSecret == "" || len(s.clientSecret) > maxSecret || strings.ContainsFunc(s.clientSecret, func(r rune) bool { return r < ' ' || r > '~' }) {
		return settings{}, fmt.Errorf("client_secret: must be 1 to %d printable ASCII characters", maxSecret)
	}
	if s.login, err = base(cmp.Or(config["login_url"], defaultLogin)); err != nil {
		return settings{}, fmt.Errorf("login_url: %w", err)
	}
	if s.graph, err = base(cmp.Or(config["graph_url"], defaultGraph)); err != nil {
		return settings{}, fmt.Errorf("graph_url: %w", err)
	}
	return s, nil
}

// base reads where to send a token or a secret. That is never in clear text over
// a network.
func base(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	if u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("must be scheme, host and perhaps a path")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u)) {
		return nil, errors.New("must be https, or http to this machine's own address")
	}
	return u, nil
}

// loopback takes addresses only: what a name leads to can change.
func loopback(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}
