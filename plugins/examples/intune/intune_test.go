package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/examples/intune/intunefake"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const challenge = "MIIChallengeOfIntune+/=="

// house is the matcher in front of a fake.
type house struct {
	*intune
	fake *intunefake.Server
	log  *bytes.Buffer

	mu   sync.Mutex
	time time.Time
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{fake: intunefake.New(t), log: new(bytes.Buffer), time: time.Unix(1e9, 0)}
	h.intune = &intune{
		now: func() time.Time {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.time
		},
		logger: hclog.New(&hclog.LoggerOptions{Output: h.log, JSONFormat: true}),
	}
	if err := h.Configure(t.Context(), h.fake.Config()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.client.close() })
	h.fake.Promise(challenge, "C02XK1", "c02xk1.example.com")
	return h
}

func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.time = h.time.Add(d)
}

var key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

// asks is a question about a request by cn with a challenge: an attribute that
// crypto/x509 makes of a DNS name is good enough to carry it here.
func asks(t *testing.T, cn, challenge string, dns ...string) plugins.Request {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: cn}, DNSNames: dns,
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte(challenge)}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Request{
		Profile: "wifi", Decides: []plugins.Field{plugins.Challenge}, TransactionID: "9F2C", Challenge: challenge, PKCS10: der,
		Facts: plugins.Facts{RequestSHA256: strings.Repeat("ab", 32)},
	}
}

func (h *house) says(t *testing.T, r plugins.Request, code string) {
	t.Helper()
	a, err := h.Match(t.Context(), r)
	if err != nil || a.Code != code || (a.Verdict == plugins.Agree) != (code == "") {
		t.Errorf("%+v, error %v; want code %q", a, err, code)
	}
}

func (h *house) fails(t *testing.T, r plugins.Request, says string) {
	t.Helper()
	a, err := h.Match(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%+v, error %v; want one that says %q", a, err, says)
	}
	if a.Verdict == plugins.Agree {
		t.Error("agreed beside an error")
	}
	if err != nil && (strings.Contains(err.Error(), intunefake.ClientSecret) || strings.Contains(err.Error(), "token-") || strings.Contains(err.Error(), r.Challenge)) {
		t.Errorf("a secret stands in %q", err)
	}
}

func TestItKeepsTheRulesForMatchers(t *testing.T) {
	for name, wrap := range map[string]func(*testing.T, plugins.Matcher) plugins.Matcher{
		"in process":      func(_ *testing.T, m plugins.Matcher) plugins.Matcher { return m },
		"behind the wire": func(t *testing.T, m plugins.Matcher) plugins.Matcher { return pluginstest.Serve(t, m) },
	} {
		t.Run(name, func(t *testing.T) {
			pluginstest.Run(t, func(t *testing.T) plugins.Matcher { return wrap(t, newHouse(t).intune) },
				asks(t, "C02XK1", challenge, "c02xk1.example.com"))
		})
	}
}

func TestOnlySuccessIsAnAgreement(t *testing.T) {
	h := newHouse(t)
	h.says(t, asks(t, "C02XK1", challenge, "c02xk1.example.com"), "")
	h.says(t, asks(t, "administrator", challenge), "subject_name_mismatch")
	h.says(t, asks(t, "C02XK1", challenge, "dc01.example.com"), "subject_alt_name_mismatch")
	h.says(t, asks(t, "C02XK1", "made up by somebody"), "challenge_decryption_error")

	calls := h.fake.Calls("validateRequest")
	if len(calls) != 4 {
		t.Fatalf("%d calls", len(calls))
	}
	seen := map[string]bool{}
	for _, c := range calls {
		if c.TransactionID != "9F2C" || !strings.HasPrefix(c.CallerInfo, "scepgate intune ") || seen[c.RequestID] {
			t.Errorf("%+v", c)
		}
		seen[c.RequestID] = true
	}
	if said := h.log.String(); !strings.Contains(said, calls[1].RequestID) || strings.Contains(said, challenge) {
		t.Errorf("the log says %s", said)
	}

	syntax := regexp.MustCompile(`^[a-z0-9_]{1,48}$`)
	words := map[string]string{}
	for code, field := range refusals {
		w := word(code)
		if !syntax.MatchString(w) || words[w] != "" {
			t.Errorf("%s is %q, and so is %q", code, w, words[w])
		}
		words[w] = code
		h.fake.Refuse("a challenge of its own", code)
		a, err := h.Match(t.Context(), asks(t, "C02XK1", "a challenge of its own"))
		if err != nil || a.Verdict != plugins.Refuse || a.Code != w || (len(a.Findings) == 1) != (field != "") || field != "" && a.Findings[0].Field != field {
			t.Errorf("%s: %+v, %v", code, a, err)
		}
	}
	for _, code := range []string{"success", "SUCCESS", "Success ", "Succes", "SomethingNew", "\u001b[2J", strings.Repeat("x", 1000), "a b"} {
		h.fake.Refuse("a challenge of its own", code)
		h.says(t, asks(t, "C02XK1", "a challenge of its own"), "intune_code_unknown")
	}
}

// action lets f answer the service's actions.
func action(f http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return on("/ScepActions/", f)
}

func on(path string, f http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		f(w, r)
		return true
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestWithoutAReadableAnswerNothingIsDecided(t *testing.T) {
	elsewhere := httptest.NewServer(text(200, `{"code":"Success"}`))
	defer elsewhere.Close()
	to := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}
	const ok = `{"code":"Success"}`
	for _, tt := range []struct {
		name, says string
		instead    func(http.ResponseWriter, *http.Request) bool
	}{
		{"rubbish", "not JSON with a code", action(text(200, "<html>"))},
		{"nothing", "not JSON with a code", action(text(200, ""))},
		{"two values", "not JSON with a code", action(text(200, ok+ok))},
		{"a list", "not JSON with a code", action(text(200, "["+ok+"]"))},
		{"no code", "not JSON with a code", action(text(200, `{"errorDescription":"Success"}`))},
		{"the code in another case", "not JSON with a code", action(text(200, `{"Code":"Success"}`))},
		{"an empty code", "not JSON with a code", action(text(200, `{"code":""}`))},
		{"a code that is null", "not JSON with a code", action(text(200, `{"code":null}`))},
		{"a code that is a number", "not JSON with a code", action(text(200, `{"code":1}`))},
		{"ten megabytes", "longer than", action(text(200, strings.Repeat(" ", 10<<20)+ok))},
		{"201", "HTTP status 201", action(text(201, ok))},
		{"204", "HTTP status 204", action(text(204, ""))},
		{"400", "HTTP status 400", action(text(400, ok))},
		{"401", "HTTP status 401", action(text(401, ok))},
		{"403", "HTTP status 403", action(text(403, ok))},
		{"429", "HTTP status 429", action(text(429, ok))},
		{"500", "HTTP status 500", action(text(500, ok))},
		{"a redirect", "HTTP status 307", action(to)},
		{"a connection that ends", "EOF", action(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
		{"an answer that ends", "EOF", action(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, ok)
		})},
		{"no such client", "invalid_client", on("/token", text(401, `{"error":"invalid_client","error_description":"x"}`))},
		{"an error with a line end", "HTTP status 400", on("/token", text(400, `{"error":"x\ny"}`))},
		{"a token that is none", "JSON with a token", on("/token", text(200, `{"expires_in":3600}`))},
		{"a token without an end", "JSON with a token", on("/token", text(200, `{"access_token":"x"}`))},
		{"a redirect of the secret", "HTTP status 307", on("/token", to)},
		{"no list of services", "HTTP status 500", on("/endpoints", text(500, ""))},
		{"a list of services that is none", "not JSON", on("/endpoints", text(200, "<html>"))},
		{"a list without the service", "has no ScepRequestValidationFEService", on("/endpoints", text(200, `{"value":[]}`))},
		{"a service in clear text", "must be https", on("/endpoints", text(200, `{"value":[{"providerName":"ScepRequestValidationFEService","uri":"http://example.com/x"}]}`))},
		{"a service that is no URL", "the address", on("/endpoints", text(200, `{"value":[{"providerName":"ScepRequestValidationFEService","uri":"file:///etc/passwd"}]}`))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			r := asks(t, "C02XK1", challenge, "c02xk1.example.com")
			h.fake.Instead(tt.instead)
			h.fails(t, r, tt.says)
			h.fails(t, r, tt.says)
			h.fake.Instead(nil)
			h.says(t, r, "")
		})
	}
	t.Run("the request is not revealed", func(t *testing.T) {
		h := newHouse(t)
		r := asks(t, "C02XK1", challenge, "c02xk1.example.com")
		r.PKCS10 = nil
		h.fails(t, r, "reveal challenge")
	})
	t.Run("nobody is there", func(t *testing.T) {
		h := newHouse(t)
		h.fake.Close()
		h.fails(t, asks(t, "C02XK1", challenge), "refused")
	})
}

func TestSilenceEndsWithTheQuestionAndIsNoHang(t *testing.T) {
	for _, where := range []string{"/token", "/endpoints", "/ScepActions/"} {
		h := newHouse(t)
		h.fake.Instead(on(where, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then the server sees that the client has gone
			<-r.Context().Done()
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		var wg sync.WaitGroup
		for range 8 { // also those who wait for another's lookup
			wg.Go(func() {
				_, err := h.Match(ctx, asks(t, "C02XK1", challenge, "c02xk1.example.com"))
				if err == nil || !strings.Contains(err.Error(), "did not answer in time") {
					t.Errorf("%s: %v", where, err)
				}
			})
		}
		wg.Wait()
		cancel()
		h.fake.Instead(nil)
		h.says(t, asks(t, "C02XK1", challenge, "c02xk1.example.com"), "")
	}
}

func TestWhatIsLearnedIsKeptUntilItEndsOrFails(t *testing.T) {
	h := newHouse(t)
	r := asks(t, "C02XK1", challenge, "c02xk1.example.com")
	looked := func(tokens, lists int) {
		t.Helper()
		if gotTokens, gotLists := h.fake.Lookups(); gotTokens != tokens || gotLists != lists {
			t.Errorf("%d tokens and %d lists so far, want %d and %d", gotTokens, gotLists, tokens, lists)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { h.says(t, r, "") })
	}
	wg.Wait()
	looked(2, 1) // one for Graph, one for Intune
	h.later(54 * time.Minute)
	h.says(t, r, "")
	looked(2, 1)
	h.later(time.Minute) // five before its end
	h.says(t, r, "")
	looked(3, 1)

	h.fake.Move()
	h.fails(t, r, "HTTP status 404")
	h.says(t, r, "")
	looked(4, 2) // Graph's had ended too

	h.fake.Revoke()
	h.fails(t, r, "HTTP status 401")
	h.fails(t, r, "HTTP status 401") // Graph's is found out next
	h.says(t, r, "")
	looked(6, 3)

	h.fake.Instead(action(text(400, ""))) // whatever a device may bring about
	h.fails(t, r, "HTTP status 400")
	h.fake.Instead(nil)
	h.says(t, r, "")
	looked(6, 3)
}

func TestFailuresAreTold(t *testing.T) {
	pkcs10 := []byte("a PKCS#10")
	for _, tt := range []struct {
		name        string
		outcome     plugins.Outcome
		hresult     int64 // 0: nothing is told
		description string
	}{
		{"NDES refuses", plugins.Outcome{Result: plugins.Failed, Reason: "ok", HRESULT: "0x80094001", Text: "The request subject name is invalid", PKCS10: pkcs10}, 0x80094001, "refused by the CA: The request subject name is invalid"},
		{"NDES refuses without an HRESULT", plugins.Outcome{Result: plugins.Failed, Reason: "ok", PKCS10: pkcs10}, 0x80070005, "refused by the CA: "},
		{"an HRESULT that is none", plugins.Outcome{Result: plugins.Failed, HRESULT: "0x123456789", PKCS10: pkcs10}, 0x80070005, "refused by the CA: "},
		{"the gateway refuses", plugins.Outcome{Result: plugins.Refused, Reason: "matcher_refused", PKCS10: pkcs10}, 0x80070005, "refused by scepgate: matcher_refused"},
		{"a long text", plugins.Outcome{Result: plugins.Failed, Text: strings.Repeat("ü", 300), PKCS10: pkcs10}, 0x80070005, "refused by the CA: " + strings.Repeat("ü", 118)},
		{"another key came with the challenge", plugins.Outcome{Result: plugins.Refused, Reason: "challenge_in_use", PKCS10: pkcs10}, 0, ""},
		{"the challenge came again", plugins.Outcome{Result: plugins.Refused, Reason: "challenge_used", PKCS10: pkcs10}, 0, ""},
		{"a certificate was issued", plugins.Outcome{Result: plugins.Issued, Reason: "ok", PKCS10: pkcs10}, 0, ""},
		{"the request is lost", plugins.Outcome{Result: plugins.Failed, Reason: "ok"}, 0, ""},
		{"a result of tomorrow", plugins.Outcome{Result: "revoked", PKCS10: pkcs10}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			tt.outcome.ID, tt.outcome.TransactionID = "out_1", "9F2C"
			if err := h.Notified(t.Context(), tt.outcome); err != nil {
				t.Fatal(err)
			}
			calls := h.fake.Calls("failureNotification")
			if tt.hresult == 0 {
				if len(calls) != 0 {
					t.Errorf("told %+v", calls)
				}
				return
			}
			if len(calls) != 1 || calls[0].HResult != tt.hresult || calls[0].ErrorDescription != tt.description || calls[0].TransactionID != "9F2C" || !bytes.Equal(calls[0].Request, pkcs10) || len(calls[0].ErrorDescription) > maxDescription {
				t.Errorf("told %+v", calls)
			}
		})
	}
}

func TestAFailureThatWasNotTakenIsToldAgainIfThatCanHelp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		again  bool
	}{
		{"500", text(500, ""), true},
		{"rubbish", text(200, "x"), true},
		{"unknown", text(200, `{"code":"Unknown"}`), true},
		{"a code of tomorrow", text(200, `{"code":"ComeBackLater"}`), true},
		{"the challenge has expired meanwhile", text(200, `{"code":"ChallengeExpired"}`), false},
		{"taken", text(200, `{"code":"Success"}`), false},
	} {
		h := newHouse(t)
		h.fake.Instead(action(tt.answer))
		err := h.Notified(t.Context(), plugins.Outcome{ID: "out_1", TransactionID: "9F2C", Result: plugins.Failed, PKCS10: []byte("x")})
		if (err != nil) != tt.again {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestItsConfiguration(t *testing.T) {
	good := map[string]string{"tenant": intunefake.Tenant, "client_id": intunefake.ClientID, "client_secret": "s3cret-value"}
	for _, tt := range []struct {
		name, key, value string
		ok               bool
	}{
		{"nothing else", "tenant", "contoso.onmicrosoft.com", true},
		{"a tenant's id", "tenant", "11111111-2222-3333-4444-555555555555", true},
		{"a secret from a file", "client_secret", "s3cret-value\r\n", true},
		{"another cloud", "graph_url", "https://graph.microsoft.us", true},
		{"loopback", "login_url", "http://127.0.0.1:8080", true},
		{"loopback, IPv6", "login_url", "http://[::1]:8080", true},
		{"no tenant", "tenant", "", false},
		{"a tenant with a path", "tenant", "contoso/../x", false},
		{"no client", "client_id", "", false},
		{"a client that is none", "client_id", "scepgate", false},
		{"no secret", "client_secret", "", false},
		{"a secret that is a placeholder's nothing", "client_secret", "\n", false},
		{"a secret of two lines", "client_secret", "s3cret\nvalue", false},
		{"a long secret", "client_secret", strings.Repeat("x", 2000), false},
		{"clear text", "login_url", "http://login.example.com", false},
		{"clear text to a name", "login_url", "http://localhost:8080", false},
		{"clear text to another machine", "graph_url", "http://10.0.0.1", false},
		{"a user", "graph_url", "https://user:s3cret-value@example.com", false},
		{"no host", "graph_url", "https:///x", false},
		{"no scheme", "graph_url", "graph.microsoft.com", false},
		{"no URL", "graph_url", "https://\x7f", false},
		{"another option", "secret", "x", false},
	} {
		config := maps.Clone(good)
		config[tt.key] = tt.value
		err := new(intune).Configure(t.Context(), config)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the secret stands in %q", tt.name, err)
		}
	}
	if _, err := new(intune).Match(t.Context(), asks(t, "C02XK1", challenge)); err == nil {
		t.Error("answers without a configuration")
	}
}
