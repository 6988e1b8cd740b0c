// Package storetest is what every engine must pass. It sees an engine only
// through package store, and time only through the clock that it hands out.
//
// The one call is [Run].
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/store"
)

// Engine makes stores.
type Engine struct {
	// Open makes an empty store on the given clock. It is closed by the suite.
	Open func(t *testing.T, now func() time.Time) store.Store
	// Reopen closes a store and opens it again, on the same clock. Nil: the
	// engine does not outlive its process.
	Reopen func(t *testing.T, old store.Store) store.Store
}

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	for _, c := range []struct {
		name string
		f    func(*fixture)
	}{
		{"registering makes a live expectation that all indexes find", registers},
		{"what cannot be told apart again is not registered", refusesNonsense},
		{"a challenge, identity or external id is held by one live expectation", holdsOnce},
		{"a claimed challenge stays a tombstone for the retention", tombstones},
		{"replace puts one in the place of another", replaces},
		{"replace never touches one that is in use", replaceInUse},
		{"replace keeps the same registration", replaceSame},
		{"names are compared as bytes and never mixed up", names},
		{"a claim binds a key for good", claims},
		{"a claim is refused where there is nothing to claim", claimRefused},
		{"a transactionID belongs to one key", transactions},
		{"a message found by identity belongs to one expectation", replays},
		{"an issued use comes again only with its transactionID, within the retry window", retriesAfterIssue},
		{"a poll claims only what is pending for its key, transactionID and subject", polls},
		{"a renewal is found by either of two hashes", findsRenewals},
		{"a claim makes the record that nobody registered, once", claimsNew},
		{"a certificate is renewed under one record", oneRecordPerCertificate},
		{"of a renewal's two records the one that stops it counts", decisive},
		{"of a renewal's two records the one in time counts", decisiveInTime},
		{"a record lasts at least as long as it must", retains},
		{"release gives back what is locked or in doubt, and nothing in flight", releases},
		{"sweep reports a claim in doubt once, and releases it when its time has come", doubts},
		{"each key has its own use and no more keys than max_uses", uses},
		{"one of a hundred keys wins", oneWinner},
		{"three of a hundred keys win three uses", threeWinners},
		{"parallel retries of one key are counted one by one", parallelRetries},
		{"a settlement moves the state as the life says", settles},
		{"a settlement of another generation changes only the history", lateSettlement},
		{"an answer after revocation does not revive", revokedMeanwhile},
		{"a claim for a challenge that nobody registered respects what was used", vouched},
		{"matchers are told of an outcome once it is known", tellsOutcomes},
		{"matchers are told everything about it", tellsEverything},
		{"what matchers are owed goes with the use", owes},
		{"what matchers are owed is bounded, and in the way of nothing", owesLittle},
		{"refusals are told to matchers", notifies},
		{"refusals are dropped while too many wait, outcomes never", dropsWhatIsTooMuch},
		{"deliveries come in order until they are delivered", delivers},
		{"deliveries that nobody takes are removed", forgetsDeliveries},
		{"time ends what is registered, exactly when it is up", expires},
		{"time does not end what is claimed or pending", claimedOutlivesTime},
		{"distinct wrong identities lock", mismatches},
		{"revoking ends whatever has not ended", revokes},
		{"extending moves the end of what is registered only", extends},
		{"history is bounded", historyBounded},
		{"list is newest first and pages without gaps", lists},
		{"list filters", listFilters},
		{"list pages hold still while others register", listWhileInserting},
		{"a page looks at a bounded number of records", listBounded},
		{"foreign cursors are refused", cursors},
		{"sweep removes what is past its retention and nothing else", sweeps},
		{"sweep makes no more changes than asked", sweepBounded},
		{"what is returned is the caller's own", copies},
		{"a cancelled call has no effect", cancelled},
		{"the challenge key is bound once", bindsKey},
		{"a closed store refuses everything", closed},
		{"close is safe beside calls", closeBesideCalls},
		{"any sequence of operations keeps the counts and the rules", random},
		{"everything is there after opening again", reopens},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, e)
			c.f(f)
		})
	}
}

const profile = "wifi"

// fixture is one store, its clock, and short words for what tests do.
type fixture struct {
	*testing.T
	engine Engine
	clock  *Clock
	s      store.Store
	ctx    context.Context
	n      int
}

// Clock is a clock that stands until it is moved.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock makes one that stands at a fixed time.
func NewClock() *Clock { return &Clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newFixture(t *testing.T, e Engine) *fixture {
	f := &fixture{T: t, engine: e, clock: NewClock(), ctx: context.Background()}
	f.s = e.Open(t, f.clock.Now)
	t.Cleanup(func() {
		if err := f.s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

func hash(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// ID makes an id that sorts by n.
func ID(n int) string { return fmt.Sprintf("exp_%026d", n) }

// New makes a registration as the gate would, good for one hour.
func (f *fixture) New(challenge string) store.Expectation {
	f.n++
	return Example(f.n, profile, challenge, f.clock.Now())
}

// Example makes the n-th registration of a profile, good for one hour.
func Example(n int, profile, challenge string, now time.Time) store.Expectation {
	name := func(typ, v string) []store.Value { return []store.Value{{Type: typ, Value: v, Match: "exact"}} }
	cn := fmt.Sprintf("dev%d", n)
	return store.Expectation{
		ID: ID(n), Profile: profile, Owner: "jamf",
		ChallengeHash: hash(profile + "\x00" + challenge),
		Request: json.RawMessage(fmt.Sprintf(
			`{"subject":"CN=%s,OU=WiFi,O=Example Corp","san":{"dns":["%s.example.com"]},"max_uses":1}`, cn, cn)),
		Content: store.Content{
			Subject:             [][]store.Value{name("2.5.4.3", cn), name("2.5.4.11", "WiFi"), name("2.5.4.10", "Example Corp")},
			SAN:                 []store.SANRule{{Type: "dns", Match: "exact", Value: cn + ".example.com", Min: 1, Max: 1}},
			CertificateTemplate: "WiFiClient",
			KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2"},
			Key:                 store.KeyRule{MinBits: 2048},
		},
		Labels:    map[string]string{"device": cn},
		MaxUses:   1,
		CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
}

func (f *fixture) register(e store.Expectation) store.Expectation {
	f.Helper()
	out, err := f.s.Register(f.ctx, e)
	if err != nil {
		f.Fatalf("register: %v", err)
	}
	return out
}

// fresh registers an example under a challenge.
func (f *fixture) fresh(challenge string) store.Expectation {
	f.Helper()
	return f.register(f.New(challenge))
}

func (f *fixture) get(id string) store.Expectation {
	f.Helper()
	e, err := f.s.Get(f.ctx, profile, id)
	if err != nil {
		f.Fatalf("get %s: %v", id, err)
	}
	return e
}

// claimOf is the claim that device makes on e as it is.
func claimOf(e store.Expectation, device string) store.Claim {
	return store.Claim{
		Profile: e.Profile, ID: e.ID, Generation: e.Generation,
		Key: hash("key " + device), Identity: hash("identity of " + e.ID),
		TransactionID: "tx " + device, SenderNonce: hash("nonce " + device)[:16],
		ClientIP: "192.0.2.1", UserAgent: "agent",
	}
}

func (f *fixture) claim(id, device string) (store.Expectation, store.Use) {
	f.Helper()
	e, u, err := f.s.Claim(f.ctx, claimOf(f.get(id), device))
	if err != nil {
		f.Fatalf("claim by %s: %v", device, err)
	}
	return e, u
}

func (f *fixture) settle(id string, generation uint64, o store.Outcome) store.Expectation {
	f.Helper()
	e, err := f.s.Settle(f.ctx, store.Settlement{
		Profile: profile, ID: id, UseGeneration: generation, Outcome: o, TransactionID: "tx", HRESULT: "0x80070490",
	})
	if err != nil {
		f.Fatalf("settle: %v", err)
	}
	return e
}

func (f *fixture) want(what string, got, want error) {
	f.Helper()
	if !errors.Is(got, want) || (want == nil) != (got == nil) {
		f.Fatalf("%s: error %v, want %v", what, got, want)
	}
}

func (f *fixture) state(e store.Expectation, want store.State) {
	f.Helper()
	if e.State != want {
		f.Fatalf("state is %s, want %s\nhistory: %+v", e.State, want, e.History)
	}
}

func (f *fixture) equal(what string, got, want any) {
	f.Helper()
	if d := cmp.Diff(want, got); d != "" {
		f.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func (f *fixture) find(challenge string) *store.Expectation {
	f.Helper()
	found, err := f.s.Find(f.ctx, store.Lookup{
		Profile: profile, ChallengeHash: hash(profile + "\x00" + challenge), TransactionID: "tx",
	})
	if err != nil {
		f.Fatalf("find: %v", err)
	}
	return found.Expectation
}

func (f *fixture) sweep() int {
	f.Helper()
	total := 0
	for {
		n, err := f.s.Sweep(f.ctx, 1000)
		if err != nil {
			f.Fatalf("sweep: %v", err)
		}
		if total += n.Changes; n.Changes == 0 {
			return total
		}
	}
}

// all lists everything of a profile in small pages.
func (f *fixture) all(q store.Query) []store.Expectation {
	f.Helper()
	var out []store.Expectation
	for {
		p, err := f.s.List(f.ctx, q)
		if err != nil {
			f.Fatalf("list: %v", err)
		}
		if q.Limit > 0 && len(p.Items) > q.Limit {
			f.Fatalf("page of %d, limit %d", len(p.Items), q.Limit)
		}
		out = append(out, p.Items...)
		if q.Cursor = p.Next; p.Next == "" {
			return out
		}
	}
}

// counted compares the counts with a full listing.
func (f *fixture) counted(profiles ...string) {
	f.Helper()
	f.sweep() // expiry is counted when it is marked
	want := map[store.CountKey]int{}
	for _, p := range profiles {
		for _, e := range f.all(store.Query{Profile: p, Limit: 7}) {
			want[store.CountKey{Profile: p, State: e.State}]++
		}
	}
	got, err := f.s.Counts(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.equal("counts", got, want)
}
