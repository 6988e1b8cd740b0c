package store

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the table of docs/lifecycle.md")

// The times of a life in these tests: registered at noon for an hour.
const (
	testWindow  = 20 * time.Minute
	testRelease = 30 * time.Minute
)

// life is one expectation on its way, with what the next step needs to know.
type life struct {
	e    Expectation
	now  time.Time
	use  Use        // of the device, if it has claimed
	told []Delivery // to matchers
}

func newLife() *life {
	e := Expectation{
		ID: "exp_1", Profile: "wifi", ChallengeHash: []byte("hash"), MaxUses: 1,
		CreatedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}
	if err := e.Start(noon); err != nil {
		panic(err)
	}
	return &life{e: e, now: noon}
}

// claim is what a device with this key asks for.
func (l *life) claim(key, identity, transactionID string, poll bool) error {
	c := Claim{
		Profile: "wifi", ID: l.e.ID, Generation: l.e.Generation, Key: []byte(key), Identity: []byte(identity), Subject: []byte("subject"),
		TransactionID: transactionID, SenderNonce: []byte("nonce"), RetryWindow: testWindow, ReleaseAfter: testRelease, Poll: poll,
		Notices: []Notice{{Matcher: "m"}},
	}
	u, err := l.e.Claim(l.now, c)
	if err == nil {
		l.use = u
	}
	return err
}

func (l *life) settle(o Outcome) error {
	l.told = append(l.told, l.e.Settle(l.now, Settlement{UseGeneration: l.use.Generation, Outcome: o, TransactionID: "tx"})...)
	return nil
}

// states makes an expectation in each state. Claimed and pending have one
// forward in flight, unless in doubt.
var lifeStates = []struct {
	name  string
	reach func(l *life)
}{
	{"registered", func(*life) {}},
	{"claimed", func(l *life) { l.claim("device", "identity", "tx", false) }},
	{"claimed, in doubt", func(l *life) {
		l.claim("device", "identity", "tx", false)
		l.settle(OutcomeUnknown)
	}},
	{"claimed, deferred", func(l *life) {
		l.claim("device", "identity", "tx", false)
		l.settle(OutcomeDeferred)
	}},
	{"pending", func(l *life) {
		l.claim("device", "identity", "tx", false)
		l.settle(OutcomePending)
	}},
	{"issued", func(l *life) {
		l.claim("device", "identity", "tx", false)
		l.settle(OutcomeIssued)
	}},
	{"locked", func(l *life) { l.e.Mismatch(l.now, []byte("wrong"), 1, Event{}) }},
	{"expired", func(l *life) { l.now = noon.Add(time.Hour) }},
	{"revoked", func(l *life) { l.e.Revoke(l.now, "mdm") }},
}

// steps is everything that can happen to one.
var lifeSteps = []struct {
	name string
	do   func(l *life) error
}{
	{"a device claims it", func(l *life) error { return l.claim("another", "identity", "tx 2", false) }},
	{"its own device comes again, same transactionID", func(l *life) error { return l.own("identity", "tx") }},
	{"its own device comes again, another transactionID", func(l *life) error { return l.own("identity", "tx 3") }},
	{"its own device comes again with another identity", func(l *life) error { return l.own("other", "tx") }},
	{"its own device comes again after retry_window", func(l *life) error {
		l.now = l.now.Add(testWindow)
		return l.own("identity", "tx")
	}},
	{"its own device polls", func(l *life) error {
		if l.use.Generation == 0 {
			return errNotHappening
		}
		return l.claim("device", "", "tx", true)
	}},
	{"NDES: SUCCESS", func(l *life) error { return l.answer(OutcomeIssued) }},
	{"NDES: PENDING", func(l *life) error { return l.answer(OutcomePending) }},
	{"NDES: FAILURE, definite", func(l *life) error { return l.answer(OutcomeRefused) }},
	{"NDES: FAILURE, transient", func(l *life) error { return l.answer(OutcomeDeferred) }},
	{"no answer, or none that verifies", func(l *life) error { return l.answer(OutcomeUnknown) }},
	{"the forward never left", func(l *life) error { return l.answer(OutcomeUnsent) }},
	{"another wrong identity, below max_mismatches", func(l *life) error {
		l.e.Mismatch(l.now, []byte("wrong 2"), 9, Event{})
		return nil
	}},
	{"the last of max_mismatches", func(l *life) error {
		l.e.Mismatch(l.now, []byte("wrong 2"), 1, Event{})
		return nil
	}},
	{"DELETE", func(l *life) error {
		if !l.e.Revoke(l.now, "mdm") {
			return errNothing
		}
		return nil
	}},
	{"PATCH of expires_at", func(l *life) error { return l.e.Extend(l.now, noon.Add(2*time.Hour), "mdm") }},
	{"PUT by external id", func(l *life) error {
		if err := l.e.Replaceable(); err != nil || l.e.State.Live() && l.e.Supersede(l.now, "mdm") {
			return err
		}
		return errNothing
	}},
	{"release", func(l *life) error { return l.e.Release(l.now, noon, "ann") }},
	{"expires_at passes", func(l *life) error {
		l.now = noon.Add(time.Hour)
		_, _, _ = l.e.Sweep(l.now.Add(-time.Hour), noon) // not early
		l.e.Normalise(l.now)
		return nil
	}},
	{"in_doubt_release passes", func(l *life) error {
		l.now = l.now.Add(testRelease)
		l.e.Sweep(l.now, noon)
		return nil
	}},
}

var (
	errNotHappening = errors.New("does not happen")
	errNothing      = errors.New("no change")
)

// own is the claim of the device that holds it.
func (l *life) own(identity, transactionID string) error {
	if l.use.Generation == 0 {
		return errNotHappening
	}
	return l.claim("device", identity, transactionID, false)
}

// answer settles a forward: the one in flight, or the next one of its device,
// where it may send one.
func (l *life) answer(o Outcome) error {
	if l.use.Generation == 0 {
		return errNotHappening
	}
	if u := l.e.Use([]byte("device")); u == nil || u.inFlight() == 0 {
		if l.own("identity", "tx") != nil {
			return errNotHappening
		}
	}
	return l.settle(o)
}

// TestTheLifeIsWhatTheDocumentSays goes every way from every state, and
// compares with the table of docs/lifecycle.md, refusals included.
func TestTheLifeIsWhatTheDocumentSays(t *testing.T) {
	var rows []string
	moves := map[string]bool{}
	for _, from := range lifeStates {
		for _, step := range lifeSteps {
			t.Run(from.name+"/"+step.name, func(t *testing.T) {
				l := newLife()
				from.reach(l)
				l.e.Normalise(l.now)
				before := l.e.Clone()
				name, _, _ := strings.Cut(from.name, ",")
				if string(before.State) != name {
					t.Fatalf("state %s was not reached: %s", from.name, before.State)
				}
				err := step.do(l)
				if errors.Is(err, errNotHappening) {
					return
				}
				to := string(l.e.State)
				if l.e.State == Claimed && l.use.Generation != 0 {
					if u := l.e.Use([]byte("device")); u != nil && u.Doubtful > 0 && u.inFlight() == 0 {
						to = "claimed, in doubt"
					} else if u != nil && u.inFlight() == 0 {
						to = "claimed, deferred"
					}
				}
				switch {
				case err != nil && l.e.Generation != before.Generation:
					t.Errorf("refused with %v, and changed", err)
				case errors.Is(err, errNothing):
					to = "no change"
				case err != nil:
					to = "refused: " + err.Error()
				case to == from.name:
					to = "stays"
				}
				rows = append(rows, fmt.Sprintf("| %s | %s | %s |", from.name, step.name, to))
				if err == nil && to != "stays" {
					moves[string(before.State)+" --> "+string(l.e.State)] = before.State != l.e.State
				}
			})
		}
	}
	file := filepath.Join("..", "docs", "lifecycle.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| from | what happens | to |\n|---|---|---|\n"
	begin, rest, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatal("docs/lifecycle.md has no table")
	}
	old, end, _ := strings.Cut(rest, "\n\n")
	if got := strings.Join(rows, "\n"); got != old {
		if *update {
			if err := os.WriteFile(file, []byte(begin+head+got+"\n\n"+end), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Errorf("docs/lifecycle.md says otherwise; -update writes it. The code:\n%s", got)
		}
	}

	// The diagram above it has exactly the arrows that the table has.
	drawn := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\s*(\w+) --> (\w+) : `).FindAllStringSubmatch(string(text), -1) {
		drawn[m[1]+" --> "+m[2]] = true
	}
	for move, changes := range moves {
		if changes && !drawn[move] {
			t.Errorf("the diagram lacks %s", move)
		}
		delete(drawn, move)
	}
	var left []string
	for move := range drawn {
		left = append(left, move)
	}
	if slices.Sort(left); len(left) > 0 {
		t.Errorf("the diagram has arrows that the code does not have: %v", left)
	}
}
