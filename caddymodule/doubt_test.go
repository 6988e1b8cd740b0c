package caddymodule

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

// emitted collects events.
type emitted struct {
	mu     sync.Mutex
	events []event
}

func (e *emitted) all() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

// doubtApp is an app that collects the events it emits.
func doubtApp() (*App, *observer.ObservedLogs, *emitted) {
	core, logs := observer.New(zapcore.DebugLevel)
	e := new(emitted)
	a := &App{logger: zap.New(core)}
	a.emitBy(func(name string, data map[string]any) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.events = append(e.events, event{name, data})
	})
	return a, logs, e
}

func claimedStore(t *testing.T, windows ...time.Duration) (store.Store, store.Expectation) {
	t.Helper()
	s := memstore.New(time.Now)
	e := must(s.Register(t.Context(), store.Expectation{
		ID: "exp_1", Profile: "wifi", ExternalID: "jamf:1", Owner: "jamf", ChallengeHash: make([]byte, 32), Request: []byte("{}"),
		MaxUses: len(windows), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(24 * time.Hour), Labels: map[string]string{"device": "d1"},
	}))
	for i, window := range windows {
		claimed, use, err := s.Claim(t.Context(), store.Claim{
			Profile: "wifi", ID: e.ID, Generation: e.Generation, Key: []byte{byte(i), 1}, Identity: []byte{1}, Subject: []byte{1},
			TransactionID: string(rune('a' + i)), SenderNonce: make([]byte, 16), ClientIP: "192.0.2.1", UserAgent: "a\x1b", RetryWindow: window,
		})
		if err != nil {
			t.Fatal(err)
		}
		if e, err = s.Settle(t.Context(), store.Settlement{Profile: "wifi", ID: e.ID, UseGeneration: use.Generation, TransactionID: string(rune('a' + i))}); err != nil {
			t.Fatal(err)
		}
		_ = claimed
		time.Sleep(time.Second)
	}
	return s, e
}

func TestAClaimInDoubtIsToldOnceByTheNewestConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := claimedStore(t, 20*time.Minute, 40*time.Minute)
		p := newPooledStore(s, "")
		older, _, olderEvents := doubtApp()
		a, logs, events := doubtApp()
		stopOlder := p.listen(older.inDoubt)
		stop := p.listen(a.inDoubt)
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if len(events.all()) != want || logs.FilterMessage("enrollment in doubt").FilterLevelExact(zapcore.WarnLevel).Len() != want {
				t.Errorf("%d events and %v, want %d", len(events.all()), logs.All(), want)
			}
		}
		after(19*time.Minute, 0)
		after(2*time.Minute, 1)
		after(15*time.Minute, 1)
		if t.Failed() {
			t.FailNow()
		}
		got := events.all()[0]
		claimedAt := got.data["claimed_at"]
		if _, err := time.Parse(time.RFC3339, claimedAt.(string)); err != nil {
			t.Error(err)
		}
		delete(got.data, "claimed_at")
		delete(got.data, "challenge_fingerprint")
		want := event{"enrollment.in_doubt", map[string]any{
			"profile": "wifi", "expectation_id": "exp_1", "external_id": "jamf:1", "labels": map[string]string{"device": "d1"}, "state": "claimed",
			"transaction_id": "a", "spki_sha256": "0001", "client_ip": "192.0.2.1", "user_agent": `a\u{001B}`,
		}}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
			t.Error(diff)
		}
		after(10*time.Minute, 2)
		if got := events.all()[1].data["transaction_id"]; got != "b" {
			t.Errorf("the second is %v", got)
		}
		if len(olderEvents.all()) != 0 {
			t.Error("two configurations told of it")
		}
		stop()
		p.tell([]store.Expectation{{ID: "exp_2"}})
		if len(olderEvents.all()) != 1 || len(events.all()) != 2 {
			t.Error("not told by the configuration that is left")
		}
		stopOlder()
		p.tell([]store.Expectation{{ID: "exp_3"}})
		if err := p.Destruct(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatASweepFoundIsToldAlsoIfItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooledStore(&failingSweep{stubStore{check: func() error { return nil }}}, "")
		a, _, events := doubtApp()
		p.listen(a.inDoubt)
		time.Sleep(sweepEvery)
		synctest.Wait()
		if len(events.all()) != 1 {
			t.Errorf("%d events", len(events.all()))
		}
		if err := p.Destruct(); err != nil {
			t.Error(err)
		}
	})
}

type failingSweep struct{ stubStore }

func (*failingSweep) Sweep(context.Context, int) (store.Swept, error) {
	return store.Swept{InDoubt: []store.Expectation{{ID: "exp_1", Profile: "wifi"}}}, errBroken
}

func TestTheLoadedAppIsTold(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	config := func(allow ...string) []byte {
		p := s.profile()
		p.Allow = allow
		return caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{"wifi": p})
	}
	first := load(t, config())
	second := load(t, config("patterns"))
	p := second.current.Load()
	if first == second || len(p.listeners) != 1 {
		t.Fatalf("%d listeners after a reload", len(p.listeners))
	}
	var told []string
	second.emitBy(func(name string, _ map[string]any) { told = append(told, name) })
	p.tell([]store.Expectation{{ID: "exp_1", Profile: "wifi"}})
	if diff := cmp.Diff([]string{"enrollment.in_doubt"}, told); diff != "" {
		t.Error(diff)
	}
}
