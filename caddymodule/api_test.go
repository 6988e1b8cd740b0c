package caddymodule

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

// fakeAPIApp is an app with profiles of the given sources over one store.
type fakeAPIApp struct {
	store    store.Store
	profiles map[string]*running
	leaseErr error
	failed   atomic.Int32
}

func (a *fakeAPIApp) lease() (storeLease, error) {
	return storeLease{Store: a.store, release: func() {}}, a.leaseErr
}
func (a *fakeAPIApp) storeFailed(err error) {
	if err != nil {
		a.failed.Add(1)
	}
}
func (a *fakeAPIApp) profile(name string) *running { return a.profiles[name] }
func (a *fakeAPIApp) profileNames() []string       { return slices.Sorted(maps.Keys(a.profiles)) }

// failingStore fails what is listed in it.
type failingStore struct {
	store.Store
	err error
}

func (s *failingStore) Register(ctx context.Context, e store.Expectation) (store.Expectation, error) {
	if s.err != nil {
		return store.Expectation{}, s.err
	}
	return s.Store.Register(ctx, e)
}

func (s *failingStore) Check(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	return s.Store.Check(ctx)
}

// Tokens of the test's clients.
const (
	tokenJamf    = "scg_jamf-jamf-jamf-jamf-jamf-jamf-jamf"
	tokenOther   = "scg_other-other-other-other-other-other"
	tokenAll     = "scg_all-all-all-all-all-all-all-all-all"
	tokenReader  = "scg_reader-reader-reader-reader-reader"
	tokenNarrow  = "scg_narrow-narrow-narrow-narrow-narrow"
	tokenExpired = "scg_expired-expired-expired-expired-exp"
	tokenUnknown = "scg_unknown-unknown-unknown-unknown-unk"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

const testConstraints = `{"subject":{"CN":["a"],"O":["Example Corp"]},"ext_key_usage":["clientAuth"],"certificate_templates":["WiFiClient"]}`

func testClients(certificate string) string {
	entry := func(name, token, scopes, more string) string {
		return fmt.Sprintf(`{"name":%q,"token_sha256":[%q],"profiles":["wifi","ndes","static"],"scopes":%s%s}`, name, hashOf(token), scopes, more)
	}
	all := `["register","read","revoke","release"]`
	return "[" + strings.Join([]string{
		entry("jamf", tokenJamf, all, `,"certificate_spki_sha256":["`+certificate+`"]`),
		entry("other", tokenOther, all, ""),
		entry("all", tokenAll, all, `,"sees":"all"`),
		entry("reader", tokenReader, `["read"]`, ""),
		entry("narrow", tokenNarrow, all, `,"constraints":`+testConstraints),
		entry("expired", tokenExpired, all, `,"not_after":"2026-01-01T00:00:00Z"`),
	}, ",") + "]"
}

// apiBench is an API with everything behind it and a clock of its own.
type apiBench struct {
	t     testing.TB
	h     *API
	app   *fakeAPIApp
	store *failingStore
	logs  *observer.ObservedLogs
	mu    sync.Mutex
	now   time.Time
}

// The key of CA and RA, and the key of the device.
var apiKey, apiDeviceKey = sync.OnceValue(newAPIKey), sync.OnceValue(newAPIKey)

func newAPIKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

func apiCertificate(t testing.TB, cn string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, apiKey().Public(), apiKey())
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newAPIBench(t testing.TB) *apiBench {
	t.Helper()
	b := &apiBench{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.now
	}
	b.store = &failingStore{Store: memstore.New(clock)}
	b.app = &fakeAPIApp{store: b.store, profiles: map[string]*running{}}
	hasher, err := gate.NewHasher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	ca, ra := apiCertificate(t, "Test CA"), apiCertificate(t, "Test RA")
	for name, source := range map[string]gate.Source{"wifi": gate.SourceGateway, "ndes": gate.SourceNDESOneTime, "static": gate.SourceNDESStatic, "hidden": gate.SourceGateway} {
		p := &Profile{
			Challenge:  &Challenge{Source: string(source), TTL: caddy.Duration(24 * time.Hour)},
			Templates:  &Templates{GeneralPurpose: &Template{Name: "WiFiClient"}},
			Defaults:   &Defaults{KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{"clientAuth"}},
			Algorithms: &Algorithms{Digest: []string{"sha256"}, Cipher: []string{"aes128"}, MinRSABits: 2048},
			Mode:       &Mode{Kind: modeEnforce},
		}
		compiled := gate.Profile{
			Name: name, Source: source, DefaultTTL: 24 * time.Hour, CAs: []*x509.Certificate{ca}, RAs: []*x509.Certificate{ra},
			Templates: gate.Templates{GeneralPurpose: &gate.Template{Name: "WiFiClient"}},
			KeyUsage:  p.Defaults.KeyUsage, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
			Digests: p.Algorithms.Digest, Ciphers: p.Algorithms.Cipher, MinRSABits: 2048, MaxMismatches: 3,
			Constraints: func(string) (*gate.Constraints, bool) { return nil, true },
		}
		if source == gate.SourceNDESStatic {
			compiled.StaticPassword = "static-password"
		}
		g, err := gate.New(compiled, hasher, nil, clock)
		if err != nil {
			t.Fatal(err)
		}
		r := &running{name: name, config: p}
		r.files.Store(&profileFiles{gate: g, cas: []*x509.Certificate{ca}, ras: []raIdentity{{name: "ndes1", certificate: ra}}})
		b.app.profiles[name] = r
	}
	core, logs := observer.New(zap.InfoLevel)
	b.logs = logs
	b.h = &API{PublicURL: "http://scep.example.com/certsrv/mscep/mscep.dll"}
	b.h.setUp(b.app, zap.New(core), clock)
	spki := sha256.Sum256(apiCertificate(t, "client").RawSubjectPublicKeyInfo)
	set, err := parseClients([]byte(testClients(hex.EncodeToString(spki[:]))), b.h.profileExists)
	if err != nil {
		t.Fatal(err)
	}
	b.h.clients = new(clientsFile)
	b.h.clients.set.Store(set)
	return b
}

func (b *apiBench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// request is one request as jamf sends it; edit changes it.
func (b *apiBench) request(method, path, body string, edit ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.1:1234"
	r.TLS = &tls.ConnectionState{}
	r.Header.Set("Authorization", "Bearer "+tokenJamf)
	for _, e := range edit {
		e(r)
	}
	return r
}

func (b *apiBench) do(method, path, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.send(b.request(method, path, body, edit...))
}

func (b *apiBench) send(r *http.Request) *httptest.ResponseRecorder {
	b.t.Helper()
	w := httptest.NewRecorder()
	if err := b.h.ServeHTTP(w, r, nil); err != nil {
		b.t.Fatal(err)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		b.t.Errorf("Cache-Control is %q", got)
	}
	return w
}

func as(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// object decodes an answer.
func object(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	return v
}

func wantStatus(t testing.TB, w *httptest.ResponseRecorder, status int) map[string]any {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if status == http.StatusNoContent {
		return nil
	}
	return object(t, w)
}

// wantProblem checks the shape that every problem has.
func wantProblem(t testing.TB, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	v := wantStatus(t, w, status)
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	errs, _ := v["errors"].([]any)
	if len(errs) == 0 {
		t.Fatalf("no errors in %s", w.Body)
	}
	first, _ := errs[0].(map[string]any)
	if v["code"] != code && first["code"] != code {
		t.Errorf("code %v and %v, want %s", v["code"], first["code"], code)
	}
	if v["status"] != float64(status) {
		t.Errorf("status member is %v", v["status"])
	}
}

const (
	wifi       = "/v1/profiles/wifi/expectations"
	simpleBody = `{"external_id":"jamf:1","challenge":"8CE317021F690069AA","subject":"CN=C02XK1,O=Example Corp"}`
)

func TestRegisteringAnswersWithEveryKeyAndNeverTheChallengeThatWasSent(t *testing.T) {
	b := newAPIBench(t)
	body := `{"external_id":"jamf:4711","challenge":"8CE317021F690069AA",
		"subject":"CN=%SerialNumber% WIFI,O=Example Corp","variables":{"SerialNumber":"C02XK1"},
		"san":{"dns":["c02xk1.example.com"]},"key":{"min_bits":2048,"spki_sha256":null},
		"certificate_template":"WiFiClient","ttl_seconds":259200,"max_uses":1,"labels":{"device":"C02XK1"}}`
	w := b.do("POST", wifi, body)
	got := wantStatus(t, w, 201)
	var names []string
	for name := range jsonFields(typeOf[expectationAnswer]()) {
		names = append(names, name)
	}
	slices.Sort(names)
	if diff := cmp.Diff(names, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(w.Body.String(), "8CE317021F690069AA") || got["challenge"] != nil {
		t.Errorf("the challenge is in the answer: %s", w.Body)
	}
	if got["state"] != "registered" || got["created_at"] != "2026-11-22T12:00:00Z" || got["expires_at"] != "2026-11-25T12:00:00Z" || got["profile"] != "wifi" {
		t.Errorf("answer: %s", w.Body)
	}
	if fp, _ := got["challenge_fingerprint"].(string); len(fp) != 8 {
		t.Errorf("challenge_fingerprint is %v", got["challenge_fingerprint"])
	}
	effective, _ := json.Marshal(got["effective"])
	if !strings.Contains(string(effective), "C02XK1 WIFI") || !strings.Contains(string(effective), "clientAuth") {
		t.Errorf("effective: %s", effective)
	}
	san, _ := got["san"].(map[string]any)
	if diff := cmp.Diff(map[string]any{"dns": []any{"c02xk1.example.com"}, "email": []any{}, "uri": []any{}, "ip": []any{}, "upn": []any{}}, san); diff != "" {
		t.Error(diff)
	}
}

func TestAChallengeMadeHereIsShownOnceAndNowhereElse(t *testing.T) {
	b := newAPIBench(t)
	got := wantStatus(t, b.do("POST", wifi, `{"subject":"CN=C02XK1"}`), 201)
	challenge, _ := got["challenge"].(string)
	if len(challenge) != 32 || strings.ToUpper(challenge) != challenge {
		t.Fatalf("challenge is %q", challenge)
	}
	id := got["id"].(string)
	for _, w := range []*httptest.ResponseRecorder{b.do("GET", wifi+"/"+id, ""), b.do("GET", wifi, "")} {
		if w.Code != 200 || strings.Contains(w.Body.String(), challenge) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	}
	for _, entry := range b.logs.All() {
		text, _ := json.Marshal(entry.ContextMap())
		if strings.Contains(string(text)+entry.Message, challenge) {
			t.Errorf("the challenge is in the log: %s", text)
		}
	}
}

func TestEachWriteIsOneLogLine(t *testing.T) {
	b := newAPIBench(t)
	got := wantStatus(t, b.do("POST", wifi, `{"external_id":"a b\"é","subject":"CN=C02XK1"}`), 201)
	b.do("DELETE", wifi+"/"+got["id"].(string), "")
	b.do("GET", wifi, "")
	entries := b.logs.FilterMessage("api write").All()
	if len(entries) != 2 {
		t.Fatalf("%d lines", len(entries))
	}
	line := entries[0].ContextMap()
	want := map[string]any{"client": "jamf", "action": "create", "profile": "wifi", "expectation_id": got["id"],
		"external_id": `a b\"\u00e9`, "status": int64(201), "code": "", "client_ip": "192.0.2.1"}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Error(diff)
	}
	if entries[1].ContextMap()["action"] != "revoke" || entries[1].ContextMap()["status"] != int64(204) {
		t.Errorf("second line: %v", entries[1].ContextMap())
	}
}

func TestWhoCalls(t *testing.T) {
	certificate := apiCertificate(t, "client")
	stranger := *certificate
	stranger.RawSubjectPublicKeyInfo = []byte("other")
	withCertificate := func(c *x509.Certificate, verified bool) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del("Authorization")
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
			if verified {
				r.TLS.VerifiedChains = [][]*x509.Certificate{{c}}
			}
		}
	}
	plain := func(peer string) func(*http.Request) {
		return func(r *http.Request) { r.TLS, r.RemoteAddr = nil, peer }
	}
	for name, test := range map[string]struct {
		edit   func(*http.Request)
		status int
		code   string
	}{
		"a token":                               {as(tokenJamf), 200, ""},
		"a token, scheme in another case":       {header("Authorization", "bearer "+tokenJamf), 200, ""},
		"no token":                              {func(r *http.Request) { r.Header.Del("Authorization") }, 401, "unauthorized"},
		"an unknown token":                      {as(tokenUnknown), 401, "unauthorized"},
		"an empty token":                        {as(""), 401, "unauthorized"},
		"a token's hash instead of the token":   {as(hashOf(tokenJamf)), 401, "unauthorized"},
		"an expired client":                     {as(tokenExpired), 401, "unauthorized"},
		"basic authentication":                  {header("Authorization", "Basic "+tokenJamf), 401, "unauthorized"},
		"two headers":                           {func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+tokenJamf) }, 401, "unauthorized"},
		"a verified certificate":                {withCertificate(certificate, true), 200, ""},
		"a certificate that was not verified":   {withCertificate(certificate, false), 401, "unauthorized"},
		"a verified certificate of a stranger":  {withCertificate(&stranger, true), 401, "unauthorized"},
		"a wrong token beside a certificate":    {func(r *http.Request) { withCertificate(certificate, true)(r); as(tokenUnknown)(r) }, 401, "unauthorized"},
		"a token without TLS":                   {plain("192.0.2.1:1234"), 403, "tls_required"},
		"a token without TLS from the machine":  {plain("127.0.0.1:1234"), 200, ""},
		"a token without TLS over IPv6 locally": {plain("[::1]:1234"), 200, ""},
		"a token without TLS from nowhere":      {plain(""), 403, "tls_required"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newAPIBench(t)
			w := b.do("GET", "/v1/profiles/wifi", "", test.edit)
			if test.status == 200 {
				wantStatus(t, w, 200)
				return
			}
			wantProblem(t, w, test.status, test.code)
			if challenge := w.Header().Get("WWW-Authenticate"); (test.status == 401) != strings.HasPrefix(challenge, "Bearer ") {
				t.Errorf("WWW-Authenticate is %q", challenge)
			}
		})
	}
}

// curl says that a body is a form unless told otherwise. A page in a browser can
// send one across sites, with the user's certificate but never with a token.
func TestAFormIsTakenWithATokenAndNotWithACertificate(t *testing.T) {
	b := newAPIBench(t)
	form := header("Content-Type", "application/x-www-form-urlencoded")
	wantStatus(t, b.do("POST", wifi, simpleBody, form), 201)
	c := apiCertificate(t, "client")
	w := b.do("POST", wifi, simpleBody, form, func(r *http.Request) {
		r.Header.Del("Authorization")
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
	})
	wantProblem(t, w, 415, "unsupported_media_type")
}

func TestACertificateThatExpiredSinceTheHandshakeIsNotTaken(t *testing.T) {
	b := newAPIBench(t)
	b.advance(365 * 24 * time.Hour)
	c := apiCertificate(t, "client")
	w := b.do("GET", "/v1/profiles/wifi", "", func(r *http.Request) {
		r.Header.Del("Authorization")
		r.TLS.VerifiedChains = [][]*x509.Certificate{{c}}
	})
	wantProblem(t, w, 401, "unauthorized")
}

func TestFailuresAreLimitedBySource(t *testing.T) {
	b := newAPIBench(t)
	for range failureBurst {
		wantProblem(t, b.do("GET", wifi, "", as(tokenUnknown)), 401, "unauthorized")
	}
	wantStatus(t, b.do("GET", wifi, ""), 200) // who is known is not locked out by what others try
	w := b.do("GET", wifi, "", as(tokenUnknown))
	wantProblem(t, w, 429, "too_many_failures")
	if w.Header().Get("Retry-After") != "6" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
	wantStatus(t, b.do("GET", wifi, "", func(r *http.Request) { r.RemoteAddr = "192.0.2.2:1" }), 200)
	b.advance(failureRefill)
	wantStatus(t, b.do("GET", wifi, ""), 200)
	wantProblem(t, b.do("GET", wifi, "", as(tokenUnknown)), 401, "unauthorized")
	wantProblem(t, b.do("GET", wifi, "", as(tokenUnknown)), 429, "too_many_failures")
	b.advance(failureBurst * failureRefill)
	for range failureBurst {
		wantProblem(t, b.do("GET", wifi, "", as(tokenUnknown)), 401, "unauthorized")
	}
	wantProblem(t, b.do("GET", wifi, "", as(tokenUnknown)), 429, "too_many_failures")
}

func TestTheFailureLimiterForgetsTheLeastRecentSource(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newFailureLimiter(func() time.Time { return now })
	for range failureBurst {
		l.fail("first")
	}
	for i := range failureSources - 1 {
		l.fail(fmt.Sprint(i))
	}
	if l.wait("first") == 0 {
		t.Error("forgotten although there is room")
	}
	l.fail("one more")
	if l.wait("first") != 0 || len(l.entries) != failureSources || l.recent.Len() != failureSources {
		t.Errorf("%d sources are remembered", len(l.entries))
	}
}

func TestOneIPv6HostIsOneSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::/64",
		"2001:db8:0:0:ffff::2": "2001:db8::/64", "fe80::1%eth0": "fe80::/64", "": "unknown", "x": "unknown",
	} {
		if got := failureSource(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestWhatAClientMayDo(t *testing.T) {
	b := newAPIBench(t)
	hidden := b.do("GET", "/v1/profiles/hidden", "")
	wantProblem(t, hidden, 403, "profile_forbidden")
	if absent := b.do("GET", "/v1/profiles/absent", ""); absent.Body.String() != hidden.Body.String() || absent.Code != hidden.Code {
		t.Error("a profile that is not there answers differently from one that is not allowed")
	}
	wantProblem(t, b.do("POST", wifi, simpleBody, as(tokenReader)), 403, "scope_missing")
	wantProblem(t, b.do("DELETE", wifi+"/exp_x", "", as(tokenReader)), 403, "scope_missing")
	wantProblem(t, b.do("POST", "/v1/profiles/wifi/check", "{}", as(tokenReader)), 403, "scope_missing")
	wantStatus(t, b.do("GET", wifi, "", as(tokenReader)), 200)
	wantStatus(t, b.do("GET", "/v1/profiles/wifi", "", as(tokenReader)), 200)

	wantStatus(t, b.do("POST", wifi, `{"subject":"CN=a,O=Example Corp"}`, as(tokenNarrow)), 201)
	wantProblem(t, b.do("POST", wifi, `{"subject":"CN=a,O=Other Corp"}`, as(tokenNarrow)), 403, "constraint_violated")
	wantProblem(t, b.do("POST", wifi, `{"subject":"CN=a","san":{"dns":["a.example.com"]}}`, as(tokenNarrow)), 403, "constraint_violated")
}

func TestRouting(t *testing.T) {
	b := newAPIBench(t)
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/v1", 404, ""},
		{"GET", wifi + "/", 404, ""},
		{"GET", "//v1/profiles/wifi", 404, ""},
		{"GET", "/v1/profile%73/wifi", 404, ""},
		{"GET", "/v1/profiles/", 404, ""},
		{"POST", wifi + "/exp_x/release", 404, ""},
		{"GET", "/v1/profiles/wifi/decisions", 404, ""},
		{"PUT", wifi, 405, "POST, GET"},
		{"OPTIONS", wifi, 405, "POST, GET"},
		{"HEAD", wifi, 405, "POST, GET"},
		{"GET", wifi + "/batch", 405, "POST"},
		{"POST", wifi + "/exp_x", 405, "GET, PATCH, DELETE"},
		{"GET", wifi + "/by-external-id/a", 405, "PUT"},
		{"POST", "/v1/profiles/wifi", 405, "GET"},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"GET", wifi + "?x=1", 400, ""},
		{"GET", wifi + "?limit=1&limit=2", 400, ""},
		{"GET", wifi + "?limit=1;state=claimed", 400, ""},
		{"GET", wifi + "?limit=%zz", 400, ""},
		{"GET", wifi + "?Limit=1", 400, ""},
		{"GET", "/v1/profiles/wifi?x", 400, ""},
		{"GET", wifi + "?limit=0", 400, ""},
		{"GET", wifi + "?limit=501", 400, ""},
		{"GET", wifi + "?limit=", 400, ""},
		{"GET", wifi + "?state=open", 400, ""},
		{"GET", wifi + "?label=device", 400, ""},
		{"GET", wifi + "?cursor=x", 400, ""},
		{"GET", wifi + "?state=" + strings.Repeat("a", 9000), 414, ""},
		{"GET", wifi + "/exp_absent", 404, ""},
	} {
		w := b.do(test.method, test.path, "")
		if w.Code != test.status || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q: %s", test.method, test.path, w.Code, w.Header().Get("Allow"), w.Body)
		}
		if w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: Content-Type %q", test.method, test.path, w.Header().Get("Content-Type"))
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Error("browsers are let in")
		}
	}
}

func TestBodiesThatAreNotTaken(t *testing.T) {
	for name, test := range map[string]struct {
		body    string
		edit    func(*http.Request)
		status  int
		code    string
		pointer string
	}{
		"empty":                      {"", nil, 400, "invalid_json", ""},
		"not JSON":                   {"{", nil, 400, "invalid_json", ""},
		"trailing data":              {simpleBody + " {}", nil, 400, "invalid_json", ""},
		"a list":                     {"[]", nil, 400, "wrong_type", ""},
		"null":                       {"null", nil, 400, "wrong_type", ""},
		"an unknown field":           {`{"subject":"CN=a","subjects":1}`, nil, 400, "unknown_field", "/subjects"},
		"a field in another case":    {`{"Subject":"CN=a"}`, nil, 400, "unknown_field", "/Subject"},
		"a duplicate field":          {`{"subject":"CN=a","subject":"CN=b"}`, nil, 400, "duplicate_field", "/subject"},
		"a duplicate deep inside":    {`{"subject":"CN=a","san":{"dns":["a.b"],"dns":[]}}`, nil, 400, "duplicate_field", "/san/dns"},
		"a duplicate label":          {`{"subject":"CN=a","labels":{"a/b":"1","a/b":"2"}}`, nil, 400, "duplicate_field", "/labels/a~1b"},
		"a number for text":          {`{"subject":1}`, nil, 400, "wrong_type", "/subject"},
		"text for a number":          {`{"subject":"CN=a","max_uses":"1"}`, nil, 400, "wrong_type", "/max_uses"},
		"a fraction":                 {`{"subject":"CN=a","max_uses":1.5}`, nil, 400, "wrong_type", "/max_uses"},
		"a number out of range":      {`{"subject":"CN=a","ttl_seconds":99999999999999999999}`, nil, 400, "wrong_type", "/ttl_seconds"},
		"null in a list":             {`{"subject":"CN=a","key_usage":[null]}`, nil, 400, "wrong_type", "/key_usage/0"},
		"null for a label":           {`{"subject":"CN=a","labels":{"a":null}}`, nil, 400, "wrong_type", "/labels/a"},
		"no time":                    {`{"subject":"CN=a","expires_at":"tomorrow"}`, nil, 400, "wrong_type", "/expires_at"},
		"a lone surrogate":           {`{"subject":"CN=\ud800"}`, nil, 400, "invalid_text", "/subject"},
		"bytes that are not UTF-8":   {"{\"subject\":\"CN=\xff\"}", nil, 400, "invalid_text", "/subject"},
		"nested too deeply":          {`{"subject":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, nil, 400, "wrong_type", "/subject"},
		"too large":                  {`{"subject":"` + strings.Repeat("a", maxAPIBody) + `"}`, nil, 413, "too_large", ""},
		"too large, length unknown":  {`{"subject":"` + strings.Repeat("a", maxAPIBody) + `"}`, func(r *http.Request) { r.ContentLength = -1 }, 413, "too_large", ""},
		"another media type":         {simpleBody, header("Content-Type", "text/plain"), 415, "unsupported_media_type", ""},
		"another charset":            {simpleBody, header("Content-Type", "application/json; charset=utf-16"), 415, "unsupported_media_type", ""},
		"compressed":                 {simpleBody, header("Content-Encoding", "gzip"), 415, "unsupported_media_type", ""},
		"an expectation with faults": {`{"subject":"CN=%Name%"}`, nil, 422, "placeholder_unresolved", "/subject"},
		"no identity":                {`{}`, nil, 422, "identity_empty", "/subject"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newAPIBench(t)
			edit := test.edit
			if edit == nil {
				edit = header("Content-Type", "application/json; charset=UTF-8")
			}
			w := b.do("POST", wifi, test.body, edit)
			wantProblem(t, w, test.status, test.code)
			first := object(t, w)["errors"].([]any)[0].(map[string]any)
			if first["pointer"] != test.pointer {
				t.Errorf("pointer is %v, want %q", first["pointer"], test.pointer)
			}
			if page, err := b.store.List(context.Background(), store.Query{Profile: "wifi"}); err != nil || len(page.Items) > 0 {
				t.Errorf("something was registered: %v %v", page, err)
			}
		})
	}
}

func TestConflictsSayWhatIsInTheWay(t *testing.T) {
	b := newAPIBench(t)
	first := wantStatus(t, b.do("POST", wifi, simpleBody), 201)
	wantProblem(t, b.do("POST", wifi, `{"challenge":"8CE317021F690069AA","subject":"CN=b"}`), 409, "challenge_in_use")
	wantProblem(t, b.do("POST", wifi, `{"external_id":"jamf:1","subject":"CN=b"}`), 409, "external_id_in_use")

	static := "/v1/profiles/static/expectations"
	wantStatus(t, b.do("POST", static, `{"subject":"CN=a"}`), 201)
	wantProblem(t, b.do("POST", static, `{"subject":"CN=a"}`), 409, "identity_in_use")

	b.claim(first["id"].(string))
	wantProblem(t, b.do("PUT", wifi+"/by-external-id/jamf:1", `{"subject":"CN=b"}`), 409, "expectation_in_use")
	wantProblem(t, b.do("PATCH", wifi+"/"+first["id"].(string), `{"expires_at":"2026-11-23T12:00:00Z"}`), 409, "not_registered")
	wantStatus(t, b.do("DELETE", wifi+"/"+first["id"].(string), ""), 204)
	wantProblem(t, b.do("POST", wifi, simpleBody), 409, "challenge_used")
}

// claim lets a key take the expectation. Nothing is settled: its forward is in flight.
func (b *apiBench) claim(id string) store.Use {
	b.t.Helper()
	e, err := b.store.Get(context.Background(), "wifi", id)
	if err != nil {
		b.t.Fatal(err)
	}
	_, use, err := b.store.Claim(context.Background(), store.Claim{Profile: "wifi", ID: id, Generation: e.Generation,
		Key: []byte("key"), Identity: []byte("identity"), TransactionID: "tx", SenderNonce: []byte("nonce")})
	if err != nil {
		b.t.Fatal(err)
	}
	return use
}

func TestUpsert(t *testing.T) {
	b := newAPIBench(t)
	path := wifi + "/by-external-id/a%2Fb%20c"
	body := `{"challenge":"8CE317021F690069AA","subject":"CN=a"}`
	first := wantStatus(t, b.do("PUT", path, body), 201)
	if first["external_id"] != "a/b c" {
		t.Errorf("external_id is %v", first["external_id"])
	}
	same := wantStatus(t, b.do("PUT", path, body), 200)
	if same["id"] != first["id"] {
		t.Error("the same registration was replaced")
	}
	other := wantStatus(t, b.do("PUT", path, `{"external_id":"a/b c","challenge":"8CE317021F690069BB","subject":"CN=b"}`), 200)
	if other["id"] == first["id"] {
		t.Error("another registration did not replace")
	}
	old := wantStatus(t, b.do("GET", wifi+"/"+first["id"].(string), ""), 200)
	if old["state"] != "revoked" {
		t.Errorf("the old one is %v", old["state"])
	}
	made := wantStatus(t, b.do("PUT", path, `{"subject":"CN=b"}`), 200)
	again := wantStatus(t, b.do("PUT", path, `{"subject":"CN=b"}`), 200)
	if made["challenge"] == nil || again["challenge"] == nil || made["challenge"] == again["challenge"] {
		t.Error("a made challenge was not shown anew")
	}
	wantProblem(t, b.do("PUT", path, `{"external_id":"other","subject":"CN=b"}`), 422, "external_id_mismatch")
	wantProblem(t, b.do("PUT", wifi+"/by-external-id/%FF", `{"subject":"CN=b"}`), 404, "not_found")
}

func TestAClientSeesItsOwnExpectationsOnly(t *testing.T) {
	b := newAPIBench(t)
	mine := wantStatus(t, b.do("POST", wifi, simpleBody), 201)
	path := wifi + "/" + mine["id"].(string)
	for _, request := range []struct{ method, path, body string }{
		{"GET", path, ""}, {"PATCH", path, `{"expires_at":"2026-11-23T12:00:00Z"}`}, {"DELETE", path, ""},
		{"POST", "/v1/profiles/wifi/check", `{"csr":"` + base64.StdEncoding.EncodeToString(apiCSR(t, "C02XK1")) + `","expectation_id":"` + mine["id"].(string) + `"}`},
	} {
		wantProblem(t, b.do(request.method, request.path, request.body, as(tokenOther)), 404, "not_found")
	}
	absent := b.do("GET", wifi+"/exp_absent", "", as(tokenOther))
	if foreign := b.do("GET", path, "", as(tokenOther)); foreign.Body.String() != absent.Body.String() {
		t.Error("another client's expectation is told from one that is not there")
	}
	wantProblem(t, b.do("PUT", wifi+"/by-external-id/jamf:1", `{"subject":"CN=b"}`, as(tokenOther)), 409, "external_id_in_use")
	if items := wantStatus(t, b.do("GET", wifi, "", as(tokenOther)), 200)["items"].([]any); len(items) != 0 {
		t.Errorf("lists %v", items)
	}
	still := wantStatus(t, b.do("GET", path, ""), 200)
	if still["state"] != "registered" || still["expires_at"] != mine["expires_at"] {
		t.Errorf("changed by another client: %v", still)
	}

	if items := wantStatus(t, b.do("GET", wifi, "", as(tokenAll)), 200)["items"].([]any); len(items) != 1 {
		t.Errorf("a client that sees all lists %v", items)
	}
	wantStatus(t, b.do("PUT", wifi+"/by-external-id/jamf:1", `{"subject":"CN=b"}`, as(tokenAll)), 200)
	wantStatus(t, b.do("DELETE", path, "", as(tokenAll)), 204)
}

func TestListing(t *testing.T) {
	b := newAPIBench(t)
	for i := range 5 {
		wantStatus(t, b.do("POST", wifi, fmt.Sprintf(`{"external_id":"x%d","subject":"CN=d%d","labels":{"n":"%d","k":"a=b"}}`, i, i, i%2)), 201)
		b.advance(time.Second)
	}
	ids := func(path string) (got []string) {
		for _, item := range wantStatus(t, b.do("GET", path, ""), 200)["items"].([]any) {
			e := item.(map[string]any)
			if e["history"] != nil {
				t.Error("a list has a history")
			}
			got = append(got, e["external_id"].(string))
		}
		return got
	}
	for query, want := range map[string][]string{
		"":                                {"x4", "x3", "x2", "x1", "x0"},
		"?label=n%3D1":                    {"x3", "x1"},
		"?label=k=a%3Db&external_id=x2":   {"x2"},
		"?state=claimed":                  nil,
		"?state=registered&limit=2":       {"x4", "x3"},
		"?external_id=x9":                 nil,
		"?label=n=0&state=registered":     {"x4", "x2", "x0"},
		"?label=absent=0&limit=500":       nil,
		"?label=n=0&limit=1&external_id=": nil,
	} {
		if strings.HasSuffix(query, "=") {
			wantProblem(t, b.do("GET", wifi+query, ""), 400, "invalid_parameter")
			continue
		}
		if diff := cmp.Diff(want, ids(wifi+query)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	var all []string
	cursor := ""
	for range 10 {
		path := wifi + "?limit=2" + cursor
		all = append(all, ids(path)...)
		next := object(t, b.do("GET", path, ""))["next_cursor"]
		if next == nil {
			break
		}
		cursor = "&cursor=" + next.(string)
	}
	if diff := cmp.Diff([]string{"x4", "x3", "x2", "x1", "x0"}, all); diff != "" {
		t.Error(diff)
	}
}

func TestOneExpectationHasItsHistory(t *testing.T) {
	b := newAPIBench(t)
	made := wantStatus(t, b.do("POST", wifi, simpleBody), 201)
	b.claim(made["id"].(string))
	history := wantStatus(t, b.do("GET", wifi+"/"+made["id"].(string), ""), 200)["history"].([]any)
	if len(history) != 2 {
		t.Fatalf("history: %v", history)
	}
	last := history[1].(map[string]any)
	if last["what"] != "claimed" || last["transaction_id"] != "tx" || last["at"] != "2026-11-22T12:00:00Z" {
		t.Errorf("last entry: %v", last)
	}
	if len(last) != len(jsonFields(typeOf[eventAnswer]())) {
		t.Errorf("keys are missing in %v", last)
	}
}

func TestExtending(t *testing.T) {
	b := newAPIBench(t)
	path := wifi + "/" + wantStatus(t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	got := wantStatus(t, b.do("PATCH", path, `{"expires_at":"2026-12-22T14:00:00+02:00"}`), 200)
	if got["expires_at"] != "2026-12-22T12:00:00Z" {
		t.Errorf("expires_at is %v", got["expires_at"])
	}
	for body, code := range map[string]string{
		`{}`: "required", `{"expires_at":null}`: "required",
		`{"expires_at":"2026-11-22T12:00:00Z"}`: "expires_at_past",
		`{"expires_at":"2026-12-22T12:00:01Z"}`: "expires_at_too_late",
	} {
		wantProblem(t, b.do("PATCH", path, body), 422, code)
	}
	wantProblem(t, b.do("PATCH", path, `{"state":"registered"}`), 400, "unknown_field")
	b.advance(31 * 24 * time.Hour)
	wantProblem(t, b.do("PATCH", path, `{"expires_at":"2026-12-24T12:00:00Z"}`), 409, "not_registered")
}

func TestRevokingTwiceIsHarmless(t *testing.T) {
	b := newAPIBench(t)
	path := wifi + "/" + wantStatus(t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	wantStatus(t, b.do("DELETE", path, ""), 204)
	wantStatus(t, b.do("DELETE", path, ""), 204)
	if state := wantStatus(t, b.do("GET", path, ""), 200)["state"]; state != "revoked" {
		t.Errorf("state is %v", state)
	}
	wantProblem(t, b.do("DELETE", wifi+"/exp_absent", ""), 404, "not_found")
}

func TestAFailedStoreIs503(t *testing.T) {
	b := newAPIBench(t)
	b.store.err = errors.New("disk on fire: secret path")
	w := b.do("POST", wifi, simpleBody)
	wantProblem(t, w, 503, "store_unavailable")
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "fire") || b.app.failed.Load() != 1 {
		t.Errorf("answer %s, reported %d times", w.Body, b.app.failed.Load())
	}
	b.app.leaseErr = store.ErrClosed
	wantProblem(t, b.do("GET", wifi, ""), 503, "store_unavailable")
	b.app.profiles["wifi"].files.Store(nil)
	wantProblem(t, b.do("GET", "/v1/profiles/wifi", ""), 503, "store_unavailable")
}

func TestHealth(t *testing.T) {
	b := newAPIBench(t)
	health := func(method string) int {
		w := b.do(method, "/healthz", "", func(r *http.Request) { r.Header.Del("Authorization"); r.TLS = nil })
		if w.Body.Len() > 0 {
			t.Errorf("tells %q", w.Body)
		}
		return w.Code
	}
	if got := health("GET"); got != 200 {
		t.Errorf("healthy: %d", got)
	}
	b.store.err = errors.New("no")
	if got := health("HEAD"); got != 200 {
		t.Errorf("an answer serves for a second: %d", got)
	}
	b.advance(healthLifetime)
	if got := health("GET"); got != 503 {
		t.Errorf("store down: %d", got)
	}
	b.store.err = nil
	b.advance(healthLifetime)
	if got := health("HEAD"); got != 200 {
		t.Errorf("store up again: %d", got)
	}
	b.app.profiles["wifi"].files.Store(nil)
	b.advance(healthLifetime)
	if got := health("GET"); got != 503 {
		t.Errorf("without keys: %d", got)
	}
}

func TestTheProfileTellsWhatAnMDMNeeds(t *testing.T) {
	b := newAPIBench(t)
	got := wantStatus(t, b.do("GET", "/v1/profiles/wifi", ""), 200)
	ca := b.app.profiles["wifi"].files.Load().cas[0]
	sum := sha256.Sum256(ca.Raw)
	if got["ca"].([]any)[0].(map[string]any)["sha256"] != hex.EncodeToString(sum[:]) {
		t.Errorf("ca: %v", got["ca"])
	}
	for key, want := range map[string]any{
		"name": "wifi", "scep_url": "http://scep.example.com/certsrv/mscep/mscep.dll", "mode": "enforce", "observe_until": nil,
		"challenge": map[string]any{"source": "gateway", "ttl_seconds": 86400.0},
		"ra":        []any{map[string]any{"name": "ndes1", "not_after": "2027-01-01T00:00:00Z"}},
		"templates": map[string]any{"signature": nil, "encryption": nil, "general_purpose": map[string]any{"name": "WiFiClient", "oid": nil}},
	} {
		if diff := cmp.Diff(want, got[key]); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
	if limits := got["limits"].(map[string]any); limits["max_message"] != 65536.0 || limits["max_ttl_seconds"] != 2592000.0 {
		t.Errorf("limits: %v", limits)
	}
	b.h.PublicURL = ""
	b.app.profiles["wifi"].config.Mode = &Mode{Kind: modeObserve, Until: "2026-12-01"}
	got = wantStatus(t, b.do("GET", "/v1/profiles/wifi", ""), 200)
	if got["scep_url"] != nil || got["mode"] != "observe" || got["observe_until"] != "2026-12-01T00:00:00Z" {
		t.Errorf("answer: %v", got)
	}
}

func apiCSR(t testing.TB, cn string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, apiDeviceKey())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCheckingChangesNothing(t *testing.T) {
	b := newAPIBench(t)
	der := apiCSR(t, "C02XK1")
	text := base64.StdEncoding.EncodeToString(der)
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	ask := func(v map[string]any) string {
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	path := "/v1/profiles/wifi/check"
	for name, csr := range map[string]string{"PEM": block, "base64": text, "wrapped base64": text[:64] + "\r\n" + text[64:] + "\n"} {
		got := wantStatus(t, b.do("POST", path, ask(map[string]any{"csr": csr, "expectation": map[string]any{"subject": "CN=C02XK1"}})), 200)
		if got["verdict"] != "accept" || got["reason"] != "ok" || len(got["findings"].([]any)) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	got := wantStatus(t, b.do("POST", path, ask(map[string]any{"csr": text, "expectation": map[string]any{"subject": "CN=other"}})), 200)
	if got["verdict"] != "refuse" || got["reason"] != "subject_mismatch" {
		t.Errorf("another name: %v", got)
	}
	if finding := got["findings"].([]any)[0].(map[string]any); len(finding) != 6 {
		t.Errorf("finding: %v", finding)
	}
	// Where NDES makes the challenge a dry run does without.
	got = wantStatus(t, b.do("POST", "/v1/profiles/ndes/check", ask(map[string]any{"csr": text, "expectation": map[string]any{"subject": "CN=C02XK1"}})), 200)
	if got["verdict"] != "accept" {
		t.Errorf("ndes_one_time: %v", got)
	}
	wantProblem(t, b.do("POST", "/v1/profiles/ndes/expectations", `{"subject":"CN=C02XK1"}`), 422, "challenge_required")

	made := wantStatus(t, b.do("POST", wifi, `{"subject":"CN=C02XK1"}`), 201)
	id := made["id"].(string)
	before := b.do("GET", wifi+"/"+id, "").Body.String()
	got = wantStatus(t, b.do("POST", path, ask(map[string]any{"csr": text, "expectation_id": id})), 200)
	if got["verdict"] != "refuse" || got["reason"] != "challenge_missing" {
		t.Errorf("by id the challenge is compared: %v", got)
	}
	if after := b.do("GET", wifi+"/"+id, "").Body.String(); after != before {
		t.Errorf("changed from %s to %s", before, after)
	}
	if page, err := b.store.List(context.Background(), store.Query{Profile: "ndes"}); err != nil || len(page.Items) != 0 {
		t.Errorf("something was registered: %v %v", page, err)
	}

	for name, test := range map[string]struct {
		body    string
		status  int
		code    string
		pointer string
	}{
		"no csr":            {`{"expectation":{"subject":"CN=a"}}`, 422, "required", "/csr"},
		"neither":           {ask(map[string]any{"csr": text}), 422, "expectation_or_id", ""},
		"both":              {ask(map[string]any{"csr": text, "expectation": map[string]any{}, "expectation_id": id}), 422, "expectation_or_id", ""},
		"no base64":         {`{"csr":"%%","expectation_id":"x"}`, 422, "invalid_csr", "/csr"},
		"a certificate":     {ask(map[string]any{"csr": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "expectation_id": "x"}), 422, "invalid_csr", "/csr"},
		"two requests":      {ask(map[string]any{"csr": block + block, "expectation_id": "x"}), 422, "invalid_csr", "/csr"},
		"a large request":   {ask(map[string]any{"csr": base64.StdEncoding.EncodeToString(make([]byte, maxCheckedCSR+1)), "expectation_id": "x"}), 422, "invalid_csr", "/csr"},
		"a bad expectation": {ask(map[string]any{"csr": text, "expectation": map[string]any{"subject": "CN=%x%"}}), 422, "placeholder_unresolved", "/expectation/subject"},
		"an absent id":      {ask(map[string]any{"csr": text, "expectation_id": "exp_absent"}), 404, "not_found", ""},
	} {
		w := b.do("POST", path, test.body)
		wantProblem(t, w, test.status, test.code)
		if first := object(t, w)["errors"].([]any)[0].(map[string]any); first["pointer"] != test.pointer {
			t.Errorf("%s: pointer is %v", name, first["pointer"])
		}
	}
	got = wantStatus(t, b.do("POST", path, `{"csr":"AAAA","expectation_id":"`+id+`"}`), 200)
	if got["verdict"] != "refuse" || got["reason"] != "malformed_request" {
		t.Errorf("bytes that are no request: %v", got)
	}
	wantProblem(t, b.do("POST", path, ask(map[string]any{"csr": text, "expectation": map[string]any{"subject": "CN=a,O=x"}}), as(tokenNarrow)), 403, "constraint_violated")
}

func TestAPanicIsAnswered500AndNotLoggedInWords(t *testing.T) {
	b := newAPIBench(t)
	b.store.Store = nil // every method panics
	wantProblem(t, b.do("GET", wifi, ""), 500, "internal_error")
	if b.logs.FilterMessage("panic in the API").Len() != 1 {
		t.Error("not logged")
	}
}
