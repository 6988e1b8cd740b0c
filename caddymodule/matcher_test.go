package caddymodule

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// matcherOf is a `matcher` block.
func matcherOf(t testing.TB, common Matcher, kind string, options map[string]any) *Matcher {
	t.Helper()
	module := map[string]any{"type": kind}
	for k, v := range options {
		module[k] = v
	}
	raw, err := json.Marshal(module)
	if err != nil {
		t.Fatal(err)
	}
	common.MatcherRaw = raw
	return &common
}

func (s *site) withMatchers(t testing.TB, source string, matchers ...*Matcher) []byte {
	p := s.profile()
	p.Challenge.Source = source
	p.Matchers = matchers
	return caddyConfig(t, badgerAt(s.path("data")), "", map[string]*Profile{"wifi": p})
}

// receiver is a webhook's server.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	bodies []string
	signs  []http.Header
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies, r.signs = append(r.bodies, string(body)), append(r.signs, req.Header.Clone())
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(r.status)
		io.WriteString(w, `{"verdict":"agree"}`)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() ([]string, []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies), slices.Clone(r.signs)
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func TestMatchersThatCannotWorkDoNotLoad(t *testing.T) {
	s := newSite(t)
	open := s.write(t, "open.secret", []byte("0123456789abcdef"), 0o644)
	short := s.write(t, "short.secret", []byte("short"), 0o600)
	program := s.write(t, "program", []byte("#!/bin/sh\n"), 0o700)
	for name, tc := range map[string]struct {
		source   string
		matchers []*Matcher
		want     string
	}{
		"no module":                     {"gateway", []*Matcher{{}}, "says not what it is"},
		"a module that is not there":    {"gateway", []*Matcher{matcherOf(t, Matcher{}, "lua", nil)}, "unknown module"},
		"a null":                        {"gateway", []*Matcher{nil}, "matcher: is empty"},
		"an expression that is none":    {"gateway", []*Matcher{matcherOf(t, Matcher{}, "expression", map[string]any{"expression": "1 +"})}, "1:4"},
		"an expression with a typo":     {"gateway", []*Matcher{matcherOf(t, Matcher{}, "expression", map[string]any{"expression": "requst.san == []"})}, "1:1"},
		"a challenge not revealed":      {"gateway", []*Matcher{matcherOf(t, Matcher{}, "expression", map[string]any{"expression": "request.challenge == ''"})}, "challenge"},
		"a webhook without a URL":       {"gateway", []*Matcher{matcherOf(t, Matcher{}, "webhook", nil)}, "url"},
		"a webhook over ftp":            {"gateway", []*Matcher{matcherOf(t, Matcher{}, "webhook", map[string]any{"url": "ftp://x/"})}, "webhook"},
		"the challenge in clear text":   {"gateway", []*Matcher{matcherOf(t, Matcher{Reveal: []string{"challenge"}}, "webhook", map[string]any{"url": "http://192.0.2.1/"})}, "https"},
		"a secret that all may read":    {"gateway", []*Matcher{matcherOf(t, Matcher{}, "webhook", map[string]any{"url": "http://127.0.0.1:1/", "secret_file": open})}, "open to everybody"},
		"a short secret":                {"gateway", []*Matcher{matcherOf(t, Matcher{}, "webhook", map[string]any{"url": "http://127.0.0.1:1/", "secret_file": short})}, "shorter"},
		"a program of no path":          {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": "program", "sha256": strings.Repeat("a", 64)})}, "absolute"},
		"a program that is not there":   {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": s.path("missing"), "sha256": strings.Repeat("a", 64)})}, "missing"},
		"a program of another checksum": {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": program, "sha256": strings.Repeat("a", 64)})}, "checksum"},
		"a program nobody vouches for":  {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": program})}, "either sha256 or signed_by"},
		"half a checksum":               {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": program, "sha256": "abcd"})}, "64 hexadecimal digits"},
		"no signature":                  {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": program, "signed_by": strings.Repeat("ab", 32)})}, ".sig"},
		"no key":                        {"gateway", []*Matcher{matcherOf(t, Matcher{}, "exec", map[string]any{"path": program, "signed_by": "me"})}, "Ed25519"},
		"no source":                     {"matcher", nil, "no matcher decides challenge"},
		"a source for a gateway":        {"gateway", []*Matcher{matcherOf(t, Matcher{Decides: []string{"challenge"}}, "expression", map[string]any{"expression": "true"})}, "challenge matcher"},
		"a name twice":                  {"gateway", []*Matcher{matcherOf(t, Matcher{Name: "a"}, "expression", map[string]any{"expression": "true"}), matcherOf(t, Matcher{Name: "a"}, "expression", map[string]any{"expression": "true"})}, "no other's"},
	} {
		err := caddy.Validate(must(parsed(s.withMatchers(t, tc.source, tc.matchers...))))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func parsed(config []byte) (*caddy.Config, error) {
	c := new(caddy.Config)
	return c, json.Unmarshal(config, c)
}

func TestAMatcherHasANameOfItsOwnAndTwoSeconds(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	yes := map[string]any{"expression": "true"}
	a := load(t, s.withMatchers(t, "gateway", matcherOf(t, Matcher{}, "exact", nil), matcherOf(t, Matcher{}, "expression", yes),
		matcherOf(t, Matcher{Decides: []string{"san"}}, "expression", yes), matcherOf(t, Matcher{Name: "site", Timeout: caddy.Duration(time.Second)}, "expression", yes)))
	var names []string
	for _, m := range a.profile("wifi").matchers {
		names = append(names, m.Name+" "+m.Timeout.String())
	}
	if got := strings.Join(names, ", "); got != "expression 2s, expression_2 2s, site 1s" {
		t.Errorf("%s", got)
	}
}

func TestASecretFileIsFollowed(t *testing.T) {
	ownCaddy(t)
	s, r := newSite(t), newReceiver(t)
	secret := s.write(t, "webhook.secret", []byte("the first of the secrets\n"), 0o600)
	s.write(t, "webhook.secret", []byte("first-secret-of-this-test\n"), 0o600)
	a := load(t, s.withMatchers(t, "gateway", matcherOf(t, Matcher{}, "webhook", map[string]any{"url": r.URL, "secret_file": secret})))
	m := a.profile("wifi").matchers[0]
	ask := func() {
		t.Helper()
		if _, err := m.Match(t.Context(), plugins.Request{Profile: "wifi", TransactionID: "TX", Facts: plugins.Facts{SPKI: []byte{48, 0}, SPKISHA256: strings.Repeat("ab", 32), KeyBits: 2048, RequestSHA256: strings.Repeat("ab", 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	signed := func(i int, secret string) bool {
		bodies, headers := r.got()
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(bodies[i]))
		return strings.Contains(headers[i].Get("X-Scepgate-Signature"), hex.EncodeToString(mac.Sum(nil)))
	}
	ask()
	s.write(t, "webhook.secret", []byte("x"), 0o600) // not usable: what was loaded before stays
	a.watcher.check(a.logger)
	ask()
	s.write(t, "webhook.secret", []byte("second-secret-of-this-test"), 0o600)
	a.watcher.check(a.logger)
	ask()
	for i, secret := range []string{"first-secret-of-this-test", "first-secret-of-this-test", "second-secret-of-this-test"} {
		if !signed(i, secret) {
			t.Errorf("question %d is not signed with %s", i, secret)
		}
	}
}

func TestAnOutcomeIsDeliveredOnceItIsTakenAndLaterIfItIsNot(t *testing.T) {
	ownCaddy(t)
	s, r := newSite(t), newReceiver(t)
	a := load(t, s.withMatchers(t, "gateway", matcherOf(t, Matcher{Name: "mdm"}, "webhook", map[string]any{"url": r.URL, "notify": true})))
	a.stopOutcomes() // this test is the clock
	lease := must(a.lease())
	defer lease.release()
	tell := func(matcher string) {
		t.Helper()
		list := []store.Delivery{{At: time.Now(), Profile: "wifi", Matcher: matcher, Result: store.ResultRefused, Reason: "matcher_refused", TransactionID: "TX"}}
		if _, err := lease.Notify(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		a.tellOutcomes(t.Context())
		a.tellOutcomes(t.Context())
	}
	tell("mdm")
	bodies, _ := r.got()
	if len(bodies) != 1 || !strings.Contains(bodies[0], "matcher_refused") || !strings.Contains(bodies[0], "TX") {
		t.Fatalf("the matcher heard %q", bodies)
	}
	r.answer(http.StatusInternalServerError)
	tell("mdm") // it is not due again at once
	tell("somebody who is gone")
	if bodies, _ := r.got(); len(bodies) != 2 {
		t.Errorf("the matcher was told %d times", len(bodies))
	}
	if due := must(lease.Deliveries(t.Context(), 10)); len(due) != 0 {
		t.Errorf("due: %+v", due)
	}
}

func TestAnOutcomeComesAgainLessAndLessOften(t *testing.T) {
	last := time.Duration(0)
	for attempts := range 20 {
		wait := again(attempts)
		if wait < last || wait < firstAgain || wait > latestAgain {
			t.Errorf("after %d attempts: %s", attempts, wait)
		}
		last = wait
	}
	if last != latestAgain {
		t.Errorf("in the end %s", last)
	}
}

// sick is a matcher that can be down.
type sick struct {
	plugins.Exact
	down error
}

func (s *sick) Healthy() error { return s.down }

func TestAMatcherThatIsDownIs503ForEverybodyBeforeAnyPrivateKeyOperation(t *testing.T) {
	w := newWorld(t)
	w.register()
	m := &sick{down: errors.New("webhook: not asked for 1s")}
	w.g.profile.matchers = []gate.Matcher{{Matcher: m, Name: "mdm", Timeout: time.Second}}
	messages := refusals(w)
	messages[gate.OK] = w.message(device{})
	for reason, message := range messages {
		rec := w.serve(post(message))
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %v", reason, rec.Code, rec.Header())
		}
		if line, got := w.lastReason(); line != "enrollment failed" || got != string(gate.MatcherFailed) {
			t.Errorf("recorded %q %s", line, got)
		}
	}
	if rec := w.serve(httptest.NewRequest(http.MethodGet, "/healthz", nil)); rec.Code != 503 {
		t.Errorf("health %d", rec.Code)
	}
	m.down = nil
	if rec := w.serve(post(w.message(device{}))); rec.Code != 200 || isRefusal(rec) {
		t.Errorf("it is well again: %d", rec.Code)
	}
}

func TestTheQueryThatMatchersSeeHasNoMessage(t *testing.T) {
	for raw, want := range map[string]string{
		"operation=PKIOperation&message=MIIB":  "operation=PKIOperation",
		"message=MIIB&operation=PKIOperation":  "operation=PKIOperation",
		"?operation=PKIOperation&message=MIIB": "?operation=PKIOperation",
		"operation=PKIOperation":               "operation=PKIOperation",
		"":                                     "",
	} {
		if got := queryWithoutMessage(raw); got != want {
			t.Errorf("%s: %s", raw, got)
		}
	}
}
