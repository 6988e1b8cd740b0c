package caddymodule

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

const contenders = 100

// contestKeys are different keys made of few primes: making a hundred from
// scratch would take longer than everything that is tested with them.
var contestKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var primes []*big.Int
	for len(primes) < 16 {
		p := must(rand.Prime(rand.Reader, 1024))
		if new(big.Int).Mod(new(big.Int).Sub(p, big.NewInt(1)), big.NewInt(65537)).Sign() != 0 {
			primes = append(primes, p)
		}
	}
	var keys []*rsa.PrivateKey
	one := big.NewInt(1)
	for i, p := range primes {
		for _, q := range primes[:i] {
			phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
			k := &rsa.PrivateKey{
				PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
				D:         new(big.Int).ModInverse(big.NewInt(65537), phi), Primes: []*big.Int{p, q},
			}
			k.Precompute()
			keys = append(keys, k)
		}
	}
	return keys[:contenders]
})

// contest is what came of one: what each device got, in its order.
type contest struct {
	status    []int
	pkiStatus []string
}

// compete posts all messages at the same moment. What NDES answers is held back
// until everybody else has been answered, if held: the claim must stand while
// its forward is in flight.
func (w *world) compete(messages [][]byte, agent func(i int) string, held bool) contest {
	w.t.Helper()
	c := contest{status: make([]int, len(messages)), pkiStatus: make([]string, len(messages))}
	var answered atomic.Int64
	others := make(chan struct{}) // closed when all but one have been answered
	w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error {
		if held {
			<-others
		}
		return writeCertRep(rw, w.success(m))
	}
	start := make(chan struct{})
	var work sync.WaitGroup
	for i, message := range messages {
		work.Go(func() {
			<-start
			r := post(message)
			r.Header.Set("User-Agent", agent(i))
			rec := httptest.NewRecorder()
			if err := w.g.ServeHTTP(rec, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, nil), w.ndes); err != nil {
				w.t.Errorf("the handler returned %v", err)
			}
			c.status[i] = rec.Code
			if rep, err := inspector.ParseCertRep(rec.Body.Bytes()); err == nil {
				c.pkiStatus[i] = rep.PKIStatus
			}
			if answered.Add(1) == int64(len(messages)-1) {
				close(others)
			}
		})
	}
	close(start)
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		w.t.Fatal("not everybody was answered")
	}
	return c
}

// The gate's own contests are in its package; this one is through the handler,
// with real messages.
func TestOfAHundredDevicesWithOneChallengeOneReachesNDES(t *testing.T) {
	w := newWorld(t)
	w.g.MaxConcurrent = contenders
	w.g.open()
	messages := make([][]byte, contenders)
	for i := range messages {
		messages[i] = w.message(device{key: contestKeys()[i]})
	}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for n := range rounds {
		w.house.store = memstore.New(time.Now) // the same messages are new to it
		e := w.register()
		w.mu.Lock()
		w.events = nil
		w.mu.Unlock()
		logged, forwarded := len(w.decisions()), len(w.ndes.enrolments())
		thief := n % contenders // of another kind than all the others
		c := w.compete(messages, func(i int) string {
			if i == thief {
				return "curl"
			}
			return "profiled/1.0"
		}, n%2 == 0)

		won := slices.Index(c.pkiStatus, "0")
		if won < 0 {
			t.Fatalf("nobody has a certificate: %v", c)
		}
		for i := range contenders {
			if want := map[bool]string{true: "0", false: "2"}[i == won]; c.status[i] != http.StatusOK || c.pkiStatus[i] != want {
				t.Errorf("device %d: %d, pkiStatus %q, want %q", i, c.status[i], c.pkiStatus[i], want)
			}
		}
		if n := len(w.ndes.enrolments()) - forwarded; n != 1 {
			t.Errorf("%d messages reached NDES", n)
		}
		lines := map[string]int{}
		for _, line := range w.decisions()[logged:] {
			lines[reasonLine(line)]++
		}
		if diff := cmp.Diff(map[string]int{"enrollment forwarded ok": 1, "enrollment refused challenge_in_use": contenders - 1}, lines); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		thefts := 0
		for _, name := range w.eventNames() {
			if name == eventTheftSuspected {
				thefts++
			}
		}
		// All look alike but one: it is the thief, or everybody else is.
		want := 1
		if won == thief {
			want = contenders - 1
		}
		if thefts != want {
			t.Errorf("%d events of a theft, want %d", thefts, want)
		}
		spki := must(inspector.ParseMessage(messages[won])).Signer.SPKISHA256()
		if e := w.expectation(e.ID); e.State != store.Issued || len(e.Uses) != 1 || e.Use(spki[:]) == nil {
			t.Errorf("expectation after: %s with %d uses", e.State, len(e.Uses))
		}
		if n := w.house.leases() + len(w.g.forwards.taken) + len(w.g.keys.taken); n != 0 {
			t.Errorf("%d leases and slots were not released", n)
		}
		if err := w.house.store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func reasonLine(line observer.LoggedEntry) string {
	return fmt.Sprintf("%s %s", line.Message, line.ContextMap()["reason"])
}
