package matchers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
)

// receiver is a webhook that agrees to everybody but C02XK3.
type receiver struct {
	t      *testing.T
	secret string

	mu       sync.Mutex
	busy     bool // it takes no outcomes
	bodies   []string
	outcomes map[string]outcome // by transaction
	times    map[string]int     // by id
}

type outcome struct {
	ID            string `json:"id"`
	Result        string `json:"result"`
	Reason        string `json:"reason"`
	TransactionID string `json:"transaction_id"`
	ExpectationID string `json:"expectation_id"`
	SPKISHA256    string `json:"spki_sha256"`
	RequestSHA256 string `json:"request_sha256"`
	PKCS10        []byte `json:"pkcs10"`
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		return
	}
	mac := hmac.New(sha256.New, []byte(r.secret))
	mac.Write(body)
	if req.Header.Get("X-Scepgate-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		r.t.Error("a question without its signature")
	}
	var question struct {
		Type    string  `json:"type"`
		Outcome outcome `json:"outcome"`
		Request struct {
			SubjectRDNs [][]struct{ Type, Value string } `json:"subject_rdns"`
		} `json:"request"`
	}
	if err := json.Unmarshal(body, &question); err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, string(body))
	w.Header().Set("Content-Type", "application/json")
	switch {
	case question.Type == "outcome" && r.busy:
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case question.Type == "outcome":
		r.outcomes[question.Outcome.TransactionID] = question.Outcome
		r.times[question.Outcome.ID]++
	case strings.Contains(fmt.Sprint(question.Request.SubjectRDNs), "C02XK3"):
		io.WriteString(w, `{"verdict":"refuse","code":"stolen_device"}`)
	default:
		io.WriteString(w, `{"verdict":"agree"}`)
	}
}

func (r *receiver) take(takes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = !takes
}

// heard is what came about a transaction.
func (r *receiver) heard(transaction string) (outcome, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.outcomes[transaction]
	return o, ok
}

func (r *receiver) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.bodies, "\n")
}

func TestOutcomesAreDeliveredAlsoAfterACrash(t *testing.T) {
	for _, tt := range []struct{ name, reveal string }{
		{"without reveal", ""},
		{"with reveal", "reveal challenge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			build(t)
			t.Parallel() // it waits for ten seconds, twice
			dir, run := t.TempDir(), socketDir(t)
			r := &receiver{t: t, secret: "what-only-the-two-of-us-know", outcomes: map[string]outcome{}, times: map[string]int{}}
			l, err := net.Listen("unix", filepath.Join(run, "s"))
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
			go server.Serve(l)
			t.Cleanup(func() { server.Close() })
			secret := write(t, filepath.Join(dir, "webhook.secret"), r.secret+"\n")
			s := set(t, dir, fmt.Sprintf("matcher webhook unix/%s {\n name cmdb\n decides subject san\n secret_file %s\n notify\n %s\n}", l.Addr(), secret, tt.reveal))

			check := func(line gateway.Line, result, reason string) {
				t.Helper()
				transaction := line.String("transaction_id")
				s.until("the outcome of "+transaction, func() bool { _, ok := r.heard(transaction); return ok })
				o, _ := r.heard(transaction)
				if o.Result != result || o.Reason != reason || o.ID == "" || o.ExpectationID != line.String("expectation_id") || o.SPKISHA256 != line.String("spki_sha256") {
					t.Errorf("%s: %+v", transaction, o)
				}
				if (len(o.PKCS10) > 0) != (tt.reveal != "") || o.PKCS10 != nil && fmt.Sprintf("%x", sha256.Sum256(o.PKCS10)) != o.RequestSHA256 || len(o.RequestSHA256) != 64 {
					t.Errorf("%s: request %s, %d bytes of it", transaction, o.RequestSHA256, len(o.PKCS10))
				}
			}
			check(s.tries(s.differs("C02XK1", "c02xk1.example.com"), issued), "issued", "ok")

			r.take(false)
			won := s.tries(s.asks("C02XK2"), issued)
			lost := s.tries(s.asks("C02XK3"), refused)
			s.Kill()
			r.take(true)
			s.restart()
			check(won, "issued", "ok")
			check(lost, "refused", "matcher_refused")

			// It is asked whatever else is wrong with outcomes, and the other way round.
			r.take(false)
			w := s.tries(s.asks("C02XK4"), issued)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := s.Find(ctx, 0, func(l gateway.Line) bool {
				return strings.HasPrefix(l.String("msg"), "matcher did not take an outcome") && l.String("matcher") == "cmdb"
			}); err != nil {
				t.Error(err)
			}
			r.take(true)
			check(w, "issued", "ok") // ten seconds after the first attempt

			if known := strings.Contains(r.all(), canary); known != (tt.reveal != "") {
				t.Errorf("the receiver knows the challenge: %v", known)
			}
		})
	}
}

func TestAnExpressionObjectsOrDecides(t *testing.T) {
	build(t)
	s := set(t, t.TempDir(), "matcher expression `request.san.dns.all(n, n.endsWith(\".example.com\")) && in_cidr(client_ip, \"127.0.0.0/8\")` {\n name names\n decides san\n code foreign_name\n}\n"+
		"matcher expression `!expectation.external_id.startsWith(\"x\")`")
	w := want{cn: "C02XK1"}
	if err := s.register(&w, ""); err != nil { // without an alternative name
		t.Fatal(err)
	}
	w.dns = []string{"c02xk1.example.com", "other.example.com"}
	s.tries(w, issued)
	s.refuses(s.asks("C02XK2", "c02xk2.example.org"), "foreign_name")
	if line := s.tries(s.differs("C02XK2", "c02xk2.example.com"), refused); line.String("reason") != "subject_mismatch" {
		t.Errorf("what it does not decide: %s", line.String("reason"))
	}
}
