package caddymodule

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
)

func TestASourceThatIsRefusedTooMuchIsStoppedAndAdmittedAgain(t *testing.T) {
	var l refusalLimits
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	if l.stops("a", now) {
		t.Fatal("stopped before anything happened")
	}
	for i := range sourceRefusalBurst {
		if l.stops("a", now) {
			t.Fatalf("stopped after %d refusals", i)
		}
		l.count("a", now)
	}
	if !l.stops("a", now) {
		t.Error("not stopped after the burst")
	}
	for range 1000 { // of requests that were on their way
		l.count("a", now)
	}
	if l.stops("b", now) {
		t.Error("another source is stopped")
	}
	if l.stops("a", now.Add(time.Second/50)) {
		t.Error("what is over the bucket's content is owed")
	}
	now = now.Add(time.Second)
	for i := range int(sourceRefusals) {
		if l.stops("a", now) {
			t.Fatalf("stopped after %d refusals in a second", i)
		}
		l.count("a", now)
	}
	if !l.stops("a", now) {
		t.Error("more than the rate")
	}
}

func TestManySourcesTogetherStopThemselvesAndNobodyElse(t *testing.T) {
	var l refusalLimits
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	sources := make([]string, 1000)
	for i := range sources {
		sources[i] = fmt.Sprint("thief ", i)
	}
	l.count("clumsy", now.Add(-refusalMemory)) // refused once, long ago
	for i := range profileRefusalBurst {
		l.count(sources[i%len(sources)], now)
	}
	for _, s := range sources {
		if !l.stops(s, now) {
			t.Fatalf("%s is not stopped", s)
		}
	}
	for _, s := range []string{"site", "clumsy"} {
		if l.stops(s, now) {
			t.Errorf("%s is stopped", s)
		}
	}
	if now = now.Add(time.Second); l.stops(sources[0], now) {
		t.Error("the profile's bucket does not fill")
	}
}

func TestTheSourcesRememberedAreBounded(t *testing.T) {
	var l refusalLimits
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for range sourceRefusalBurst {
		l.count("busy", now)
	}
	for i := range 3 * refusalSources {
		l.count(fmt.Sprint(i), now)
		if i%100 == 0 {
			l.count("busy", now) // is still at it
		}
	}
	if len(l.sources) != refusalSources || l.recent.Len() != refusalSources {
		t.Errorf("%d sources, %d in order", len(l.sources), l.recent.Len())
	}
	if !l.stops("busy", now) {
		t.Error("a source that is refused all the time was forgotten")
	}
}

func TestARefusedSourceGets503BeforeThePrivateKeyIsUsed(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	honest := w.message(device{})
	from := func(address string) *http.Request {
		r := post(honest)
		r.RemoteAddr = address
		return r
	}
	now := time.Now().Add(time.Hour) // its refill is not waited for
	for range sourceRefusalBurst {
		w.g.profile.refusals.count("2001:db8::/48", now)
	}
	opener := w.g.profile.files.Load().opener
	w.files(func(f *profileFiles) { f.opener = nil }) // whoever uses it panics
	for _, address := range []string{"[2001:db8::1]:1", "[2001:db8:0:ffff::2]:1"} {
		rec := w.serve(from(address))
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: got %d", address, rec.Code)
		}
		if line, reason := w.lastReason(); line != "enrollment failed" || reason != "overloaded" {
			t.Errorf("recorded %q %s", line, reason)
		}
	}
	if got := w.expectation(e.ID).State; got != store.Registered {
		t.Errorf("state %s", got)
	}
	w.files(func(f *profileFiles) { f.opener = opener })
	if rec := w.serve(from("[2001:db8:1::1]:1")); rec.Code != 200 {
		t.Errorf("the honest device next door got %d", rec.Code)
	}
	r := get("operation=GetCACaps")
	r.RemoteAddr = "[2001:db8::1]:1"
	if rec := w.serve(r); rec.Code != 200 {
		t.Errorf("GetCACaps got %d", rec.Code)
	}
}

func TestOnlyRefusalsCount(t *testing.T) {
	w := newWorld(t)
	w.register()
	for _, tc := range []struct {
		name    string
		r       *http.Request
		refused bool
	}{
		{"what is forwarded", post(w.message(device{})), false},
		{"another operation", get("operation=GetCACaps"), false},
		{"a wrong name", post(w.message(device{cn: "admin"})), true},
		{"another key", post(w.message(device{key: strangerKey()})), true},
		{"what cannot be read", post([]byte("rubbish")), false},
		{"what is no message", get("operation=PKIOperation&x=1"), false},
	} {
		limits := &w.g.profile.refusals
		limits.sources, limits.profile = nil, nil
		limits.recent.Init()
		w.serve(tc.r)
		if got := len(limits.sources) == 1; got != tc.refused {
			line, reason := w.lastReason()
			t.Errorf("%s: counted %v (%s: %s)", tc.name, got, line, reason)
		}
	}
	w.house.down = true
	limits := &w.g.profile.refusals
	limits.sources, limits.profile = nil, nil
	if rec := w.serve(post(w.message(device{}))); rec.Code != 503 || len(limits.sources) != 0 {
		t.Errorf("%d; our own trouble counted as a refusal", rec.Code)
	}
}
