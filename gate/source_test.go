package gate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

const vouchedChallenge = "only the source knows it"

// sourceHouse has a profile for which nobody registers.
func sourceHouse(t *testing.T, matchers ...Matcher) *house {
	t.Helper()
	h := newHouse(t, nil, nil)
	p := h.profile
	p.Source, p.DefaultTTL = SourceMatcher, time.Hour
	p.KeyUsage, p.ExtKeyUsage = []string{"digitalSignature", "keyEncipherment"}, []string{oidClientAuth}
	h.rebuild(p, matchers...)
	return h
}

// vouchable is a request that nobody registered, by key n.
func vouchable(n int, change func(c *inspector.CSR)) Request {
	return with(n, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.Challenge, c.SID = vouchedChallenge, ""
		if change != nil {
			change(c)
		}
	})
}

// kept is the record of the vouched challenge, nil if there is none.
func (h *house) kept() *store.Expectation {
	h.t.Helper()
	found, err := h.store.Find(h.t.Context(), store.Lookup{
		Profile: h.profile.Name, ChallengeHash: judgeHasher(h.t).Challenge(h.profile.Name, vouchedChallenge), TransactionID: "none",
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if found.Expectation != nil {
		e, err := h.store.Get(h.t.Context(), h.profile.Name, found.Expectation.ID)
		if err != nil {
			h.t.Fatal(err)
		}
		return &e
	}
	return nil
}

func TestWhatASourceVouchesForIsKeptAndClaimedLikeAnyOther(t *testing.T) {
	var shown []plugins.Request
	source := deciding("mdm", func(_ context.Context, r plugins.Request) (plugins.Answer, error) {
		shown = append(shown, r)
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}, plugins.Challenge)
	source.Reveal = true
	h := sourceHouse(t, source)
	d := h.judge(vouchable(1, nil))
	if !d.Forward || d.Reason != OK || d.ExpectationID == "" {
		t.Fatalf("%+v", d)
	}
	if r := shown[0]; r.Expectation.ID != "" || r.Challenge != vouchedChallenge {
		t.Errorf("the source was shown %+v", r)
	}
	e := h.kept()
	if e == nil || e.ID != d.ExpectationID || e.State != store.Claimed || e.Owner != "" || e.MaxUses != 1 || !e.ExpiresAt.Equal(h.clock.now().Add(time.Hour)) {
		t.Fatalf("kept: %+v", e)
	}
	if got := string(Effective(*e)); !strings.Contains(got, "C02XK1 WIFI") || strings.Contains(got, vouchedChallenge) {
		t.Errorf("effective: %s", got)
	}
	// The same key again is a retry, and is judged again; another key has lost.
	if again := h.judge(vouchable(1, nil)); !again.Forward || len(shown) != 2 || shown[1].Expectation.ID != e.ID {
		t.Errorf("retry: %+v", again)
	}
	if other := h.judge(vouchable(2, nil)); other.Forward || other.Reason != ChallengeInUse || len(shown) != 2 {
		t.Errorf("another key: %+v, asked %d times", other, len(shown))
	}
	h.settle(d, rep("0"))
	if e := h.kept(); e.State != store.Issued {
		t.Errorf("after SUCCESS: %s", e.State)
	}
	if other := h.judge(vouchable(2, nil)); other.Forward || other.Reason != ChallengeInUse {
		t.Errorf("another key after SUCCESS: %+v", other)
	}
}

func TestASourceVouchesForNothingButWhatItDecides(t *testing.T) {
	asked := 0
	yes := func(context.Context, plugins.Request) (plugins.Answer, error) {
		asked++
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	withSID := func(c *inspector.CSR) { c.SID = judgeSID }
	signs := func(c *inspector.CSR) { c.KeyUsage = digitalSignature }
	mail := func(c *inspector.CSR) { c.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.4"} }
	for _, tt := range []struct {
		name    string
		decides []plugins.Field
		change  func(*inspector.CSR)
		want    Reason
	}{
		{"who it is", []plugins.Field{plugins.Challenge}, nil, OK},
		{"a SID", []plugins.Field{plugins.Challenge}, withSID, SIDMismatch},
		{"a SID that it decides", []plugins.Field{plugins.Challenge, plugins.SID}, withSID, OK},
		{"another key usage", []plugins.Field{plugins.Challenge}, signs, KeyUsageMismatch},
		{"a key usage that it decides", []plugins.Field{plugins.Challenge, plugins.KeyUsage}, signs, OK},
		{"another EKU", []plugins.Field{plugins.Challenge}, mail, ExtKeyUsageMismatch},
		{"an EKU that it decides", []plugins.Field{plugins.Challenge, plugins.ExtKeyUsage}, mail, OK},
		{"no EKU", []plugins.Field{plugins.Challenge}, func(c *inspector.CSR) { c.HasExtKeyUsage, c.ExtKeyUsage = false, nil }, OK},
	} {
		asked = 0
		h := sourceHouse(t, deciding("mdm", yes, tt.decides...))
		d := h.judge(vouchable(1, tt.change))
		if d.Reason != tt.want || d.Forward != (tt.want == OK) || (asked > 0) != (tt.want == OK) {
			t.Errorf("%s: %s, %v, asked %d times", tt.name, d.Reason, d.Findings, asked)
		}
		if (h.kept() != nil) != (tt.want == OK) {
			t.Errorf("%s: kept %+v", tt.name, h.kept())
		}
	}
}

func TestWithoutASourcesWordThereIsNoRecord(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source []answers
		want   Reason
	}{
		{"it refuses", []answers{says(plugins.Answer{Code: "challenge_expired"})}, MatcherRefused},
		{"it has nothing to say", []answers{says(plugins.Answer{Verdict: plugins.NotMine})}, ChallengeUnknown},
		{"none has", []answers{says(plugins.Answer{Verdict: plugins.NotMine}), says(plugins.Answer{Verdict: plugins.NotMine})}, ChallengeUnknown},
		{"one of two refuses", []answers{agrees, says(plugins.Answer{})}, MatcherRefused},
		{"it fails", []answers{func(context.Context, plugins.Request) (plugins.Answer, error) {
			return plugins.Answer{}, errors.New("gone")
		}}, MatcherFailed},
		{"one of two fails", []answers{agrees, func(context.Context, plugins.Request) (plugins.Answer, error) { panic("gone") }}, MatcherFailed},
	} {
		var m []Matcher
		for i, f := range tt.source {
			m = append(m, deciding(string(rune('a'+i)), f, plugins.Challenge, plugins.Subject, plugins.SAN))
		}
		h := sourceHouse(t, m...)
		d := h.judge(vouchable(1, nil))
		if d.Forward || d.Reason != tt.want || d.Failed != (tt.want == MatcherFailed) || d.ExpectationID != "" && !d.Failed {
			t.Errorf("%s: %+v", tt.name, d)
		}
		if e := h.kept(); e != nil {
			t.Errorf("%s: kept %+v", tt.name, e)
		}
	}
}

func TestASourceThatChangesItsMindStopsARetry(t *testing.T) {
	answer := plugins.Answer{Verdict: plugins.Agree}
	h := sourceHouse(t, deciding("mdm", func(context.Context, plugins.Request) (plugins.Answer, error) { return answer, nil }, plugins.Challenge))
	h.enrol(vouchable(1, nil))
	answer = plugins.Answer{Code: "device_revoked"}
	if d := h.judge(vouchable(1, nil)); d.Forward || d.Reason != MatcherRefused {
		t.Errorf("%+v", d)
	}
}

func TestAVouchedChallengeStaysWithWhomItWasVouchedFor(t *testing.T) {
	h := sourceHouse(t, deciding("mdm", agrees, plugins.Challenge, plugins.Subject, plugins.SAN))
	d := h.enrol(vouchable(1, nil))
	h.gate.Settle(t.Context(), h.store, d, Forwarded{}) // nothing was sent: the challenge is free again
	if e := h.kept(); e == nil || e.State != store.Registered {
		t.Fatalf("kept: %+v", e)
	}
	other := h.judge(vouchable(2, func(c *inspector.CSR) { c.Subject[1][0].Value = "somebody else" }))
	if other.Forward || other.Reason != SubjectMismatch {
		t.Errorf("another name: %+v", other)
	}
	if same := h.judge(vouchable(3, nil)); !same.Forward {
		t.Errorf("the same name, another key: %+v", same)
	}
}

func TestASourceIsNotAskedWhenSomethingElseIsWrong(t *testing.T) {
	h := sourceHouse(t, deciding("mdm", func(context.Context, plugins.Request) (plugins.Answer, error) {
		t.Error("asked")
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}, plugins.Challenge))
	for name, change := range map[string]func(*inspector.Message, *inspector.Opened, *inspector.CSR){
		"signed by another key": func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			m.Signer.SPKI, m.Signer.PublicKey = spkiOf(7), publicKey(7)
		},
		"no challenge": func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasChallenge, c.Challenge = false, ""
		},
		"a weak digest": func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Digest = "md5" },
	} {
		r := vouchable(1, nil)
		change(r.Message, r.Opened, r.Opened.CSR)
		if d := h.judge(r); d.Forward || d.Failed {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestNobodyElsesRecordIsHonouredWithoutTheSource(t *testing.T) {
	// Registered by a client before the profile got a source.
	h := newHouse(t, nil, nil)
	p := h.profile
	p.Source, p.DefaultTTL = SourceMatcher, time.Hour
	h.rebuild(p, deciding("mdm", says(plugins.Answer{Verdict: plugins.NotMine}), plugins.Challenge))
	if d := h.judge(compliant(1)); d.Forward || d.Reason != ChallengeUnknown {
		t.Errorf("%+v", d)
	}
	// Vouched for, and the profile has a source no more.
	h = sourceHouse(t, deciding("mdm", agrees, plugins.Challenge))
	h.gate.Settle(t.Context(), h.store, h.enrol(vouchable(1, nil)), Forwarded{})
	p = h.profile
	p.Source = SourceGateway
	h.rebuild(p)
	if d := h.judge(vouchable(1, nil)); d.Forward || d.Reason != ChallengeRevoked {
		t.Errorf("%+v", d)
	}
}

func TestWhatOnlyASilentMatcherDecidesIsNotTakenFromTheRequest(t *testing.T) {
	notMine := says(plugins.Answer{Verdict: plugins.NotMine})
	for _, tt := range []struct {
		name   string
		silent []plugins.Field
		change func(*inspector.CSR)
		want   Reason
	}{
		{"a SID", []plugins.Field{plugins.SID}, func(c *inspector.CSR) { c.SID = judgeSID }, SIDMismatch},
		{"a SID, by a second source", []plugins.Field{plugins.Challenge, plugins.SID}, func(c *inspector.CSR) { c.SID = judgeSID }, SIDMismatch},
		{"a key usage", []plugins.Field{plugins.KeyUsage}, func(c *inspector.CSR) { c.KeyUsage = digitalSignature }, KeyUsageMismatch},
		{"an EKU", []plugins.Field{plugins.ExtKeyUsage}, func(c *inspector.CSR) { c.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.4"} }, ExtKeyUsageMismatch},
		{"nothing of the kind", []plugins.Field{plugins.SID, plugins.KeyUsage, plugins.ExtKeyUsage}, nil, OK},
	} {
		for _, first := range []bool{true, false} {
			source, silent := deciding("intune", agrees, plugins.Challenge), deciding("jamf", notMine, tt.silent...)
			h := sourceHouse(t, source, silent)
			if !first {
				h.rebuild(h.profile, silent, source)
			}
			if d := h.judge(vouchable(1, tt.change)); d.Reason != tt.want || d.Forward != (tt.want == OK) {
				t.Errorf("%s: %+v", tt.name, d)
			}
		}
	}
}
