package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const challenge = "8CE317021F690069CAFE"

var secret = []byte("0123456789abcdef0123456789abcdef")

// requestDER is a PKCS#10 with the names of ordinary and the challenge, made with openssl.
//
//go:embed testdata/request.der
var requestDER []byte

func spki() []byte {
	csr, err := x509.ParseCertificateRequest(requestDER)
	if err != nil {
		panic(err)
	}
	return csr.RawSubjectPublicKeyInfo
}

func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func ordinary() plugins.Request {
	return plugins.Request{
		Profile: "wifi",
		Decides: []plugins.Field{plugins.Subject, plugins.SAN},
		Facts: plugins.Facts{
			Subject: [][]plugins.NameAttribute{
				{{Type: "2.5.4.3", Value: "C02XK1"}}, {{Type: "2.5.4.11", Value: "WiFi"}, {Type: "2.5.4.5", Value: "4711"}},
				{{Type: "2.5.4.10", Value: "Example Corp"}}, {{Type: "1.2.840.113549.1.9.1", Value: "ann@example.com"}},
			},
			SAN: []plugins.AltName{
				{Type: "dns", Value: "c02xk1.example.com"}, {Type: "email", Value: "ann@example.com"},
				{Type: "ip", Value: "192.0.2.7"}, {Type: "uri", Value: "urn:device:4711"},
			},
			SIDs:           []string{"S-1-5-21-1-2-3-1104"},
			KeyUsage:       []string{"digitalSignature", "keyEncipherment"},
			HasExtKeyUsage: true,
			ExtKeyUsage:    []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"},
			Template:       "WiFiClient",
			KeyBits:        2048,
			SPKI:           spki(),
			SPKISHA256:     strings.Repeat("ab", 32),
			RequestSHA256:  strings.Repeat("cd", 32),
		},
		Expectation: plugins.Expectation{
			ID: "exp_0123456789", ExternalID: "mdm:4711",
			Subject:             [][]plugins.ExpectedAttribute{{{Type: "2.5.4.3", Match: "exact", Value: "C02XK1"}}},
			SAN:                 []plugins.ExpectedAltNames{{Type: "dns", Match: "any_of", Values: []string{"a", "b"}, Min: 1, Max: 1}},
			SID:                 "S-1-5-21-1-2-3-1104",
			CertificateTemplate: "WiFiClient",
			KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2"},
			MinKeyBits:          2048,
			Labels:              map[string]string{"device": "C02XK1"},
		},
		MessageType: "pkcs_req", TransactionID: "9F2C11D0",
		ClientIP: "192.0.2.7", UserAgent: "CFNetwork/1.0 Darwin/23.0", Query: "operation=PKIOperation",
		Challenge: challenge, PKCS10: slices.Clone(requestDER),
	}
}

// receiver is a server of an operator's: it answers one way, and keeps what it got.
type receiver struct {
	answer http.HandlerFunc

	mu     sync.Mutex
	bodies [][]byte
	header http.Header
}

func (s *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.bodies, s.header = append(s.bodies, body), r.Header
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.answer(w, r)
}

func (s *receiver) got() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, text)
	}
}

func listen(t *testing.T, answer http.HandlerFunc) (*receiver, string) {
	t.Helper()
	s := &receiver{answer: answer}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

func listenUnix(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wh") // t.TempDir can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: &receiver{answer: answer}}}
	server.Start()
	t.Cleanup(server.Close)
	return "unix/" + filepath.Join(dir, "s")
}

func newMatcher(t *testing.T, c Config) *Matcher {
	t.Helper()
	if c.Now == nil {
		c.Now = noon
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

var both = []plugins.Field{plugins.Subject, plugins.SAN}

// compares is a receiver of our format that wants the CN that was registered.
func compares(w http.ResponseWriter, r *http.Request) {
	type name struct{ Type, Value string }
	var q struct {
		Request struct {
			Subject [][]name `json:"subject_rdns"`
		}
		Expectation *struct {
			Subject [][]name `json:"subject_rdns"`
		}
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, "no question", http.StatusBadRequest)
		return
	}
	answer := `{"verdict":"refuse","code":"other_cn"}`
	if q.Expectation != nil && cmp.Equal(q.Request.Subject, q.Expectation.Subject) {
		answer = `{"verdict":"agree"}`
	}
	says(answer)(w, r)
}

func agreed() plugins.Request {
	r := ordinary()
	r.Facts.Subject = r.Facts.Subject[:1]
	return r
}

func TestWebhookConforms(t *testing.T) {
	_, tcp := listen(t, compares)
	_, stepCA := listen(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"commonName":"C02XK1"`)) && bytes.Contains(body, []byte(`"organizationalUnit":["WiFi"]`)) {
			io.WriteString(w, `{"allow":true}`)
			return
		}
		io.WriteString(w, `{"allow":false,"error":{"code":"Not Mine!","message":`+string(mustJSON(string(body)))+`}}`)
	})
	for name, run := range map[string]struct {
		config Config
		agreed plugins.Request
	}{
		"tcp":              {Config{URL: tcp, Secret: secret, Decides: both}, agreed()},
		"tcp, revealed":    {Config{URL: tcp, Decides: both, Reveal: true, Notify: true}, agreed()},
		"unix":             {Config{URL: listenUnix(t, compares), Decides: both}, agreed()},
		"step-ca revealed": {Config{URL: stepCA, Format: StepCA, Secret: secret, Decides: []plugins.Field{plugins.Challenge, plugins.Subject}, Reveal: true}, func() plugins.Request { r := ordinary(); r.Decides = r.Decides[:1]; return r }()},
	} {
		t.Run(name, func(t *testing.T) {
			pluginstest.Run(t, func(t *testing.T) plugins.Matcher { return newMatcher(t, run.config) }, run.agreed)
		})
	}
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func TestBodiesAreAsDocumented(t *testing.T) {
	unregistered := ordinary()
	unregistered.Expectation, unregistered.Decides = plugins.Expectation{}, nil
	unregistered.Facts.HasExtKeyUsage, unregistered.Facts.ExtKeyUsage = false, nil
	for name, c := range map[string]struct {
		config  Config
		request plugins.Request
	}{
		"question":              {Config{Decides: both}, ordinary()},
		"question_revealed":     {Config{Decides: both, Reveal: true}, ordinary()},
		"question_unregistered": {Config{}, unregistered},
		"step_ca":               {Config{Format: StepCA, Secret: secret, Decides: both}, ordinary()},
		"step_ca_revealed":      {Config{Format: StepCA, Secret: secret, ID: "wh-1", Decides: both, Reveal: true}, ordinary()},
	} {
		t.Run(name, func(t *testing.T) {
			yes := `{"verdict":"agree"}`
			if c.config.Format == StepCA {
				yes = `{"allow":true}`
			}
			s, url := listen(t, says(yes))
			c.config.URL = url
			a, err := newMatcher(t, c.config).Match(t.Context(), c.request)
			if err != nil || a.Verdict != plugins.Agree {
				t.Fatalf("Match = %v, %v, want agreement", a, err)
			}
			golden(t, name, s.bodies[0])
			if got := bytes.Contains(s.bodies[0], []byte(challenge)); got != c.config.Reveal {
				t.Errorf("the body holds the challenge: %t, revealed: %t", got, c.config.Reveal)
			}
		})
	}
}

func golden(t *testing.T, name string, body []byte) {
	t.Helper()
	var indented bytes.Buffer
	if err := json.Indent(&indented, body, "", "  "); err != nil {
		t.Fatal(err)
	}
	indented.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, indented.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), indented.String()); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, d)
	}
}

func TestBodiesAreSigned(t *testing.T) {
	mac := func(body []byte) string {
		h := hmac.New(sha256.New, secret)
		h.Write(body)
		return hex.EncodeToString(h.Sum(nil))
	}
	for name, c := range map[string]struct {
		config Config
		want   func(body []byte) map[string]string
	}{
		"ours": {Config{Secret: secret}, func(b []byte) map[string]string {
			return map[string]string{"X-Scepgate-Signature": "sha256=" + mac(b), "X-Smallstep-Signature": ""}
		}},
		"ours, unsigned": {Config{}, func([]byte) map[string]string {
			return map[string]string{"X-Scepgate-Signature": ""}
		}},
		"step-ca's": {Config{Secret: secret, Format: StepCA, ID: "wh-1"}, func(b []byte) map[string]string {
			return map[string]string{"X-Smallstep-Signature": mac(b), "X-Smallstep-Webhook-Id": "wh-1", "X-Scepgate-Signature": ""}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := listen(t, says(`{}`))
			c.config.URL = url
			r := ordinary()
			r.Decides = nil
			if _, err := newMatcher(t, c.config).Match(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			for header, want := range c.want(s.bodies[0]) {
				if got := s.header.Get(header); got != want {
					t.Errorf("%s = %q, want %q", header, got, want)
				}
			}
			for _, header := range []string{"Cookie", "Accept-Encoding", "Authorization", "Referer"} {
				if got := s.header.Get(header); got != "" {
					t.Errorf("%s = %q, want none", header, got)
				}
			}
		})
	}
}

func TestOutcomesArePostedOnlyIfWanted(t *testing.T) {
	o := plugins.Outcome{
		ID: "out_1", Time: noon(), Profile: "wifi", Result: plugins.Failed, Reason: "ok", HRESULT: "0x80070490", Text: "no template",
		TransactionID: "9F2C11D0", ExpectationID: "exp_1", ExternalID: "mdm:4711",
		SPKISHA256: strings.Repeat("ab", 32), RequestSHA256: strings.Repeat("cd", 32), PKCS10: []byte{0x30, 0x00},
	}
	status := http.StatusNoContent
	s, url := listen(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	silent := newMatcher(t, Config{URL: url})
	if err := silent.Notified(t.Context(), o); err != nil || s.got() != 0 {
		t.Fatalf("without notify: %v, %d posted", err, s.got())
	}
	m := newMatcher(t, Config{URL: url, Secret: secret, Notify: true})
	if err := m.Notified(t.Context(), o); err != nil {
		t.Fatalf("Notified = %v", err)
	}
	golden(t, "outcome", s.bodies[0])
	if s.header.Get("X-Scepgate-Signature") == "" {
		t.Error("the outcome is not signed")
	}
	if err := newMatcher(t, Config{URL: url, Reveal: true, Notify: true}).Notified(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	golden(t, "outcome_revealed", s.bodies[1])
	for _, status = range []int{301, 404, 500} {
		for range 10 {
			if err := m.Notified(t.Context(), o); err == nil || !strings.Contains(err.Error(), "status") {
				t.Fatalf("status %d: Notified = %v, want the status", status, err)
			}
		}
	}
	if err := m.Healthy(); err != nil {
		t.Errorf("who takes no outcomes can still be asked: %v", err)
	}
}

func TestEndedQuestionsAreAbandonedNotCounted(t *testing.T) {
	arrived := make(chan struct{})
	release := make(chan struct{})
	_, url := listen(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-release })
	defer close(release)
	m := newMatcher(t, Config{URL: url, Timeout: time.Minute})
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		r := ordinary()
		r.Decides = nil
		if _, err := m.Match(ctx, r); err == nil {
			t.Fatal("answered although nobody waits any more")
		}
	}
	if err := m.Healthy(); err != nil {
		t.Errorf("Healthy = %v: it was never the server that gave up", err)
	}
}

func TestStepCAsAnswerAgreesToWhatStepCAsWordsShow(t *testing.T) {
	_, url := listen(t, says(`{"allow":true}`))
	for name, c := range map[string]struct {
		decides []plugins.Field
		change  func(*plugins.Request)
		want    string // code, "" to agree
	}{
		"all of it": {both, func(*plugins.Request) {}, ""},
		"a UPN": {both, func(r *plugins.Request) {
			r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "upn", Value: "a@b"})
		}, codeSAN},
		"a UPN, by a source": {[]plugins.Field{plugins.Challenge}, func(r *plugins.Request) {
			r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "upn", Value: "a@b"})
		}, codeSAN},
		"a UPN that it decides not": {[]plugins.Field{plugins.Subject}, func(r *plugins.Request) {
			r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "upn", Value: "a@b"})
		}, ""},
		"a SID": {[]plugins.Field{plugins.SID}, func(r *plugins.Request) { r.Facts.SIDs = []string{"S-1-5-21-1-2-3-1104"} }, codeSID},
	} {
		r := ordinary()
		r.Decides = c.decides
		c.change(&r)
		a, err := newMatcher(t, Config{URL: url, Decides: c.decides}).Match(t.Context(), r)
		if err != nil || a.Code != c.want || (a.Verdict == plugins.Agree) != (c.want == "") {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}
