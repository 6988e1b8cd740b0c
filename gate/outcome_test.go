package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// listener is a matcher that wants to hear of outcomes.
type listener struct {
	answers
	heard []plugins.Outcome
	err   error
}

func (l *listener) Notified(_ context.Context, o plugins.Outcome) error {
	l.heard = append(l.heard, o)
	return l.err
}

// listening is l as a profile uses it.
func listening(l *listener, reveal bool) Matcher {
	m := deciding("mdm", nil, plugins.SAN)
	m.Matcher, m.Reveal, m.Notify = l, reveal, func() bool { return true }
	return m
}

// waiting gives the deliveries that are due.
func (h *house) waiting() []store.Delivery {
	h.t.Helper()
	list, err := h.store.Deliveries(h.t.Context(), 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

func TestAMatcherThatWasAskedHearsWhatBecameOfTheRequest(t *testing.T) {
	raw := []byte("pkcs10 with " + judgeChallenge)
	request := func(n int) Request {
		return with(n, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Raw = raw })
	}
	failure := rep("2")
	for _, tt := range []struct {
		name   string
		answer plugins.Answer
		settle func(h *house, d Decision)
		want   plugins.Result
		reason Reason
	}{
		{"issued", plugins.Answer{Verdict: plugins.Agree}, func(h *house, d Decision) { h.settle(d, rep("0")) }, plugins.Issued, OK},
		{"failed", plugins.Answer{Verdict: plugins.Agree}, func(h *house, d Decision) { h.settle(d, failure) }, plugins.Failed, OK},
		{"pending", plugins.Answer{Verdict: plugins.Agree}, func(h *house, d Decision) { h.settle(d, rep("3")) }, "", ""},
		{"no answer", plugins.Answer{Verdict: plugins.Agree}, func(h *house, d Decision) { h.settle(d, nil) }, "", ""},
		{"refused by itself", plugins.Answer{}, nil, plugins.Refused, MatcherRefused},
		{"it had nothing to say", plugins.Answer{Verdict: plugins.NotMine}, func(h *house, d Decision) { h.settle(d, rep("0")) }, "", ""},
	} {
		for _, reveal := range []bool{false, true} {
			l := &listener{answers: says(tt.answer)}
			h := newHouse(t, nil, nil)
			h.rebuild(h.profile, listening(l, reveal))
			d := h.judge(request(1))
			if tt.settle != nil {
				tt.settle(h, d)
			}
			list := h.waiting()
			if tt.want == "" {
				if len(list) != 0 {
					t.Errorf("%s: told %+v", tt.name, list)
				}
				continue
			}
			if len(list) != 1 {
				t.Errorf("%s: %d deliveries", tt.name, len(list))
				continue
			}
			if text := fmt.Appendf(nil, "%s %+v", list[0].Sealed, list[0]); bytes.Contains(text, []byte(judgeChallenge)) {
				t.Errorf("%s: the store was given the challenge", tt.name)
			}
			if err := h.gate.Tell(t.Context(), list[0]); err != nil {
				t.Fatal(err)
			}
			o := l.heard[0]
			if o.ID != list[0].ID || o.Result != tt.want || o.Reason != string(tt.reason) || o.Profile != "wifi" || o.TransactionID != "TX1" ||
				o.ExpectationID != h.id || len(o.SPKISHA256) != 64 || len(o.RequestSHA256) != 64 {
				t.Errorf("%s: heard %+v", tt.name, o)
			}
			if bytes.Equal(o.PKCS10, raw) != reveal || !reveal && o.PKCS10 != nil {
				t.Errorf("%s, revealed %v: was given %q", tt.name, reveal, o.PKCS10)
			}
		}
	}
}

func TestAMatcherThatWasNotAskedHearsNothing(t *testing.T) {
	l := &listener{answers: agrees}
	h := newHouse(t, nil, nil)
	h.rebuild(h.profile, listening(l, false))
	h.judge(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Subject[1][0].Value = "x" }))
	if list := h.waiting(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestWhatWasSealedOpensOnlyWhereItWasSealedFor(t *testing.T) {
	h := judgeHasher(t)
	sealed := h.seal([]byte("text"), "wifi", "mdm")
	if text, err := h.open(sealed, "wifi", "mdm"); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	other, err := NewHasher(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return other.open(sealed, "wifi", "mdm") },
		"another profile": func() ([]byte, error) { return h.open(sealed, "lan", "mdm") },
		"another matcher": func() ([]byte, error) { return h.open(sealed, "wifi", "x") },
		"moved border":    func() ([]byte, error) { return h.open(sealed, "wifim", "dm") },
		"nothing":         func() ([]byte, error) { return h.open(nil, "wifi", "mdm") },
		"changed":         func() ([]byte, error) { return h.open(append(bytes.Clone(sealed), 0), "wifi", "mdm") },
	} {
		if text, err := open(); err == nil {
			t.Errorf("%s: opened %q", name, text)
		}
	}
}

func TestAnOutcomeOfAMatcherThatIsGoneIsNotTold(t *testing.T) {
	h := newHouse(t, nil, nil)
	l := &listener{answers: agrees, err: errors.New("down")}
	h.rebuild(h.profile, listening(l, false))
	if err := h.gate.Tell(t.Context(), store.Delivery{Matcher: "other"}); !errors.Is(err, ErrNoMatcher) {
		t.Error(err)
	}
	if err := h.gate.Tell(t.Context(), store.Delivery{Matcher: "mdm"}); err == nil || errors.Is(err, ErrNoMatcher) {
		t.Errorf("its error: %v", err)
	}
}

func TestWhatIsOnlyObservedIsNotToldAsRefused(t *testing.T) {
	l := &listener{answers: says(plugins.Answer{Code: "no"})}
	h := newHouse(t, nil, nil)
	p := h.profile
	p.ObserveUntil = h.clock.now().Add(time.Hour)
	h.rebuild(p, listening(l, false))
	if d := h.judge(compliant(1)); !d.Observed || d.Reason != MatcherRefused {
		t.Fatalf("%+v", d)
	}
	if list := h.waiting(); len(list) != 0 {
		t.Errorf("told %+v", list)
	}
}
