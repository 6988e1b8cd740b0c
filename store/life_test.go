package store

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The engines' suite (storetest) walks through the life; here is what it cannot see.

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func started(t *testing.T) Expectation {
	t.Helper()
	e := Expectation{
		ID: "exp_1", Profile: "wifi", Owner: "jamf", ChallengeHash: []byte("h"),
		MaxUses: 1, CreatedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}
	if err := e.Start(noon); err != nil {
		t.Fatal(err)
	}
	return e
}

func claimed(t *testing.T) (Expectation, Use) {
	t.Helper()
	e := started(t)
	u, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return e, u
}

func TestARefusedClaimChangesNothing(t *testing.T) {
	e, _ := claimed(t)
	before, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Claim{
		"zero":        {},
		"generation":  {Generation: 99, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"},
		"another key": {Generation: e.Generation, Key: []byte("l"), Identity: []byte("i"), TransactionID: "t"},
		"identity":    {Generation: e.Generation, Key: []byte("k"), Identity: []byte("j"), TransactionID: "t"},
		"long id":     {Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: strings.Repeat("t", maxName+1)},
	} {
		if u, err := e.Claim(noon, c); err == nil || u.Forwards != 0 {
			t.Errorf("%s: claimed", name)
		}
		after, err := e.Encode()
		if err != nil || string(after) != string(before) {
			t.Errorf("%s: changed: %v\n%s", name, err, cmp.Diff(string(before), string(after)))
		}
	}
}

func TestTheZeroExpectationIsNeverClaimed(t *testing.T) {
	var e Expectation
	if _, err := e.Claim(noon, Claim{Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err == nil {
		t.Fatal("claimed")
	}
	if e.State.Live() || e.Mismatch(noon, []byte("i"), 1, Event{}) {
		t.Fatal("live")
	}
}

func TestNoOutcomeCountsMoreAnswersThanForwards(t *testing.T) {
	for _, o := range []Outcome{OutcomePending, OutcomeDeferred, OutcomeIssued} {
		e, u := claimed(t)
		for range 5 { // also if a caller settles twice
			e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: o})
		}
		if got := e.Uses[0]; got.Verified != 1 || got.Forwards != 1 {
			t.Errorf("outcome %d: %d of %d", o, got.Verified, got.Forwards)
		}
	}
}

func TestATombstoneStandsExactlyForTheRetention(t *testing.T) {
	e, u := claimed(t)
	e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomeIssued})
	due, ok := e.Due()
	if !ok || !due.Equal(noon.Add(Retention)) {
		t.Fatalf("due %v, %v", due, ok)
	}
	for _, c := range []struct {
		at   time.Time
		want error
	}{{due.Add(-1), ErrChallengeUsed}, {due, nil}} {
		e := e
		if err := e.ChallengeFree(c.at); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("at %v: %v", c.at, err)
		}
		if remove, changed, _ := e.Sweep(c.at, noon); remove != (c.want == nil) || changed {
			t.Errorf("at %v: remove %v, changed %v", c.at, remove, changed)
		}
	}
}

func TestWhatIsOpenIsNeverDue(t *testing.T) {
	e, u := claimed(t)
	for range 2 {
		if due, ok := e.Due(); ok {
			t.Errorf("%s is due at %v", e.State, due)
		}
		if remove, changed, _ := e.Sweep(noon.Add(1000*Retention), noon); remove || changed {
			t.Errorf("%s was swept", e.State)
		}
		e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomePending})
	}
}

func TestBoundCutsBetweenCharacters(t *testing.T) {
	for _, s := range []string{"", "abc", "ääää", "日本語", "\xff\xff\xff\xff\xff", strings.Repeat("é", 300)} {
		for n := range 8 {
			got := bound(s, n)
			if len(got) > n || !strings.HasPrefix(s, got) || utf8.ValidString(s) && !utf8.ValidString(got) {
				t.Errorf("bound(%q, %d) = %q", s, n, got)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	var e Expectation
	e.ID, e.Profile, e.ChallengeHash, e.MaxUses, e.ExpiresAt = "exp_1", "wifi", []byte("h"), 1, noon
	if err := e.Start(noon); err != nil {
		f.Fatal(err)
	}
	raw, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"id":"x","profile":"y","state":"registered","uses":[{}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Decode(raw)
		if err != nil {
			if e.ID != "" || e.State != "" {
				t.Fatal("an error with a result")
			}
			return
		}
		// Whatever it says, the life does not fall over it nor give more keys than uses.
		e.Normalise(noon)
		before := len(e.Uses)
		if _, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err == nil && len(e.Uses) > max(before, e.MaxUses) {
			t.Fatal("more keys than uses")
		}
		if len(e.Uses) > 0 {
			e.Settle(noon, Settlement{UseGeneration: e.Uses[0].Generation, Outcome: OutcomeRefused})
		}
		e.Mismatch(noon, []byte("x"), 1, Event{})
		e.Sweep(noon.Add(Retention), noon)
		if _, err := e.Encode(); err != nil {
			t.Skip("years that JSON cannot say")
		}
	})
}

func TestWhoWasRefusedIsFreeOnceNothingElseHasLeft(t *testing.T) {
	for _, order := range [][]Outcome{{OutcomeRefused, OutcomeUnsent}, {OutcomeUnsent, OutcomeRefused}} {
		e, u := claimed(t)
		if _, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err != nil {
			t.Fatal(err)
		}
		for _, o := range order {
			e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: o})
		}
		if e.State != Registered || len(e.Uses) != 0 {
			t.Errorf("%v: %s, %d uses", order, e.State, len(e.Uses))
		}
	}
	// One in doubt may still have brought a certificate.
	e, u := claimed(t)
	if _, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t"}); err != nil {
		t.Fatal(err)
	}
	e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomeUnknown})
	e.Settle(noon, Settlement{UseGeneration: u.Generation, Outcome: OutcomeRefused})
	if e.State != Claimed {
		t.Errorf("refused beside one in doubt: %s", e.State)
	}
}

func TestRepeatedMessagesDoNotCrowdOutTheFirstNonce(t *testing.T) {
	e := started(t)
	claim := func(nonce string) Use {
		u, err := e.Claim(noon, Claim{Generation: e.Generation, Key: []byte("k"), Identity: []byte("i"), TransactionID: "t", SenderNonce: []byte(nonce)})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	claim("first")
	for range 3 * MaxForwards {
		claim("again")
	}
	u := claim("again")
	if len(u.SenderNonces) != 2 {
		t.Errorf("%d nonces of two", len(u.SenderNonces))
	}
	for i := range 3 * MaxForwards {
		u = claim(strings.Repeat("n", i+1))
	}
	if len(u.SenderNonces) != MaxForwards || string(u.SenderNonces[0]) != "first" || string(u.SenderNonces[MaxForwards-1]) != strings.Repeat("n", 3*MaxForwards) {
		t.Errorf("kept %d, first %q", len(u.SenderNonces), u.SenderNonces[0])
	}
}

func TestTheLongestOfEverythingLeavesRoomForAHundredKeys(t *testing.T) {
	e := started(t)
	e.MaxUses = 100
	for k := range e.MaxUses {
		for f := range MaxForwards {
			c := Claim{Generation: e.Generation, Key: []byte(strings.Repeat("k", 31) + string(rune('0'+k))), Identity: make([]byte, 32), TransactionID: strings.Repeat("t", 127) + string(rune('0'+f)), SenderNonce: []byte(strings.Repeat("n", 63) + string(rune('0'+f))), UserAgent: strings.Repeat("u", 4096)}
			if _, err := e.Claim(noon, c); err != nil {
				t.Fatalf("key %d, forward %d: %v", k, f, err)
			}
		}
	}
	e.Settle(noon, Settlement{UseGeneration: e.Uses[0].Generation, Outcome: OutcomeIssued})
	if raw, err := e.Encode(); err != nil || len(raw) > 700<<10 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}
