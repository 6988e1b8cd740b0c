package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	callerInfo = "scepgate intune " + version

	// How the service is found: the app that Intune is in Microsoft's directory,
	// and what it calls the service there.
	intuneApp   = "0000000a-0000-0000-c000-000000000000"
	serviceName = "ScepRequestValidationFEService"
	apiVersion  = "2018-02-20"

	intuneScope = "https://api.manage.microsoft.com//.default" // two slashes, as it stands there
	graphPath   = "/.default"

	maxReply = 256 << 10

	// early is how long before its end a token is given up.
	early = 5 * time.Minute
)

// client speaks with Intune. What it has learned, tokens and the service's
// address, is kept until it ends or something fails.
type client struct {
	settings settings
	http     *http.Client
	now      func() time.Time

	turn chan struct{} // whoever looks something up; those who wait for it can give up

	mu      sync.Mutex       // never held while anybody is asked
	tokens  map[string]token // by scope
	service *url.URL         // nil: not known
}

type token struct {
	text  string
	until time.Time
}

func newClient(s settings, now func() time.Time) *client {
	return &client{
		settings: s, now: now, turn: make(chan struct{}, 1), tokens: make(map[string]token),
		http: &http.Client{
			// A redirect would take the token, or the secret, somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment, // what `env HTTPS_PROXY …` gives
				TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
				ForceAttemptHTTP2:      true,
				MaxIdleConnsPerHost:    4,
				IdleConnTimeout:        time.Minute,
				TLSHandshakeTimeout:    5 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
			},
		},
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// reply is what the service answers to everything.
type reply struct {
	code      string
	requestID string // what Microsoft's support asks for
}

// act is [client.post], with an end before ctx's own: that Intune is silent is
// then this matcher's answer, and the gateway does not take it for hung.
func (c *client) act(ctx context.Context, action string, body any) (reply, error) {
	outer := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*9/10)
		defer cancel()
	}
	out, err := c.post(ctx, action, body)
	if err != nil && ctx.Err() != nil && outer.Err() == nil {
		return reply{}, fmt.Errorf("%s: Intune did not answer in time", action)
	}
	return out, err
}

// post posts to one of the service's actions. Only a reply that could be read is
// returned without an error. After any other the address is looked up again, as
// it may have moved.
func (c *client) post(ctx context.Context, action string, body any) (reply, error) {
	service, bearer, err := c.prepare(ctx)
	if err != nil {
		return reply{}, err
	}
	text, err := json.Marshal(body)
	if err != nil {
		return reply{}, fmt.Errorf("%s: %w", action, err)
	}
	id := newRequestID()
	answer, status, err := c.do(ctx, http.MethodPost, service.JoinPath("ScepActions", action), bytes.NewReader(text), http.Header{
		"Authorization":     {"Bearer " + bearer},
		"Client-Request-Id": {id},
		"Api-Version":       {apiVersion},
		"Content-Type":      {"application/json"},
	})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("HTTP status %d", status)
	}
	out := reply{requestID: id}
	if err == nil {
		out.code, err = readCode(answer)
	}
	if err != nil {
		c.forget(status, intuneScope)
		return reply{}, fmt.Errorf("%s (client-request-id %s): %w", action, id, err)
	}
	return out, nil
}

// readCode takes the code out of a reply. Names of fields are what they are:
// encoding/json alone would take "CODE" as well.
func readCode(answer []byte) (string, error) {
	var fields map[string]json.RawMessage
	var code *string
	if json.Unmarshal(answer, &fields) != nil || json.Unmarshal(fields["code"], &code) != nil || code == nil || *code == "" {
		return "", errors.New("the reply is not JSON with a code")
	}
	return *code, nil
}

// forget gives up the service's address, and tokens that were not taken. A
// status of 400 is about the request: the service was found.
func (c *client) forget(status int, scopes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if status != http.StatusBadRequest {
		c.service = nil
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		for _, scope := range scopes {
			delete(c.tokens, scope)
		}
	}
}

// known is what was learned before.
func (c *client) known(scope string) (service *url.URL, bearer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.tokens[scope]; ok && c.now().Before(t.until) {
		bearer = t.text
	}
	return c.service, bearer
}

// prepare finds what a request to the service needs. One looks it up for all.
func (c *client) prepare(ctx context.Context) (*url.URL, string, error) {
	if service, bearer := c.known(intuneScope); service != nil && bearer != "" {
		return service, bearer, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	service, _ := c.known(intuneScope)
	if service == nil {
		var err error
		if service, err = c.discover(ctx); err != nil {
			return nil, "", fmt.Errorf("looking for the service: %w", err)
		}
		c.mu.Lock()
		c.service = service
		c.mu.Unlock()
	}
	bearer, err := c.token(ctx, intuneScope)
	return service, bearer, err
}

// discover asks Microsoft Graph where the tenant's service is.
func (c *client) discover(ctx context.Context) (*url.URL, error) {
	scope := strings.TrimSuffix(c.settings.graph.String(), "/") + graphPath
	bearer, err := c.token(ctx, scope)
	if err != nil {
		return nil, err
	}
	u := c.settings.graph.JoinPath("v1.0", "servicePrincipals", "appId="+intuneApp, "endpoints")
	answer, status, err := c.do(ctx, http.MethodGet, u, nil, http.Header{
		"Authorization": {"Bearer " + bearer}, "Client-Request-Id": {newRequestID()},
	})
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		c.forget(status, scope)
		return nil, fmt.Errorf("HTTP status %d", status)
	}
	var list struct {
		Value []struct {
			ProviderName string `json:"providerName"`
			URI          string `json:"uri"`
		} `json:"value"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, errors.New("the list of services is not JSON")
	}
	for _, e := range list.Value {
		if !strings.EqualFold(e.ProviderName, serviceName) {
			continue
		}
		service, err := base(e.URI)
		if err == nil && service.Scheme != "https" && !loopback(c.settings.graph) {
			err = errors.New("is not https") // a real Graph does not send to this machine
		}
		if err != nil {
			return nil, fmt.Errorf("the address of %s: %w", serviceName, err)
		}
		return service, nil
	}
	return nil, fmt.Errorf("the tenant has no %s", serviceName)
}

var oauthError = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

// token returns one for scope, by the client's own credentials.
func (c *client) token(ctx context.Context, scope string) (string, error) {
	if _, bearer := c.known(scope); bearer != "" {
		return bearer, nil
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "scope": {scope},
		"client_id": {c.settings.clientID}, "client_secret": {c.settings.clientSecret},
	}
	asked := c.now()
	answer, status, err := c.do(ctx, http.MethodPost, c.settings.login.JoinPath(c.settings.tenant, "oauth2", "v2.0", "token"),
		strings.NewReader(form.Encode()), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	var t struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		Error       string `json:"error"`
	}
	readable := json.Unmarshal(answer, &t) == nil
	if status != http.StatusOK {
		if readable && oauthError.MatchString(t.Error) {
			return "", fmt.Errorf("asking for a token: HTTP status %d, %s", status, t.Error)
		}
		return "", fmt.Errorf("asking for a token: HTTP status %d", status)
	}
	if !readable || t.AccessToken == "" || t.ExpiresIn <= 0 {
		return "", errors.New("asking for a token: the answer is not JSON with a token")
	}
	life := time.Duration(min(t.ExpiresIn, 86400)) * time.Second
	c.mu.Lock()
	c.tokens[scope] = token{t.AccessToken, asked.Add(max(life-early, life/2))}
	c.mu.Unlock()
	return t.AccessToken, nil
}

// do sends one request, once, and reads all of the answer. Its errors say where
// to, and never what was sent.
func (c *client) do(ctx context.Context, method string, u *url.URL, body io.Reader, header http.Header) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: cannot be asked", u.Host)
	}
	req.GetBody = nil // net/http sends again what it can begin anew
	req.Header = header
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", callerInfo)
	resp, err := c.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, 0, fmt.Errorf("%s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, resp.StatusCode, fmt.Errorf("%s: reading the answer: %w", u.Host, err)
	}
	if len(answer) > maxReply {
		return nil, resp.StatusCode, fmt.Errorf("%s: the answer is longer than %d bytes", u.Host, maxReply)
	}
	return answer, resp.StatusCode, nil
}

// newRequestID is a random UUID.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
