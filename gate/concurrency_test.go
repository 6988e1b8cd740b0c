package gate

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/badgerstore"
	"github.com/scepgate/scepgate/store/memstore"
)

// Many keys ask at once for what is promised to few (invariant 3), with every
// engine, again and again.

const contenders = 100

var contests = flag.Int("contests", 100, "how often a hundred keys compete for one use; a fifth of it for the other contests")

// rounds is how often a contest is held.
func rounds(share int) int {
	if testing.Short() {
		return 5
	}
	return max(1, *contests/share)
}

var contestEngines = []struct {
	name string
	open func(t *testing.T, now func() time.Time) store.Store
}{
	{"memory", func(_ *testing.T, now func() time.Time) store.Store { return memstore.New(now) }},
	{"badger", func(t *testing.T, now func() time.Time) store.Store {
		s, err := badgerstore.Open(badgerstore.Options{Path: filepath.Join(t.TempDir(), "data"), Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}},
}

// arena is a gate over an engine.
type arena struct {
	t     *testing.T
	clock *clock
	store store.Store
	gate  *Gate
}

// inEveryEngine runs f in an arena over each engine.
func inEveryEngine(t *testing.T, profile func(*Profile), f func(a *arena)) {
	for _, engine := range contestEngines {
		t.Run(engine.name, func(t *testing.T) {
			a := &arena{t: t, clock: &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
			a.store = engine.open(t, a.clock.now)
			t.Cleanup(func() {
				if err := a.store.Close(); err != nil {
					t.Error(err)
				}
			})
			p := judgeProfile(t)
			if profile != nil {
				profile(&p)
			}
			var err error
			if a.gate, err = New(p, judgeHasher(t), nil, a.clock.now); err != nil {
				t.Fatal(err)
			}
			f(a)
		})
	}
}

// register makes the expectation of one contest.
func (a *arena) register(n int, e store.Expectation) string {
	a.t.Helper()
	e.ID, e.Profile, e.Owner, e.Request = fmt.Sprintf("exp_%026d", n), "wifi", "jamf", []byte("{}")
	e.CreatedAt, e.ExpiresAt = a.clock.now(), a.clock.now().Add(24*time.Hour)
	stored, err := a.store.Register(a.t.Context(), e)
	if err != nil {
		a.t.Fatal(err)
	}
	return stored.ID
}

// compete judges all requests at the same moment.
func (a *arena) compete(requests []Request) []Decision {
	decisions := make([]Decision, len(requests))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() {
			<-start
			decisions[i] = a.gate.Judge(a.t.Context(), a.store, r)
		})
	}
	close(start)
	wg.Wait()
	return decisions
}

// winners checks what a contest for so many uses came to: that many are
// forwarded, the others refused for the reason, and theft is suspected of those
// who look like none of the winners: same(i, j) compares two contenders.
func (a *arena) winners(decisions []Decision, uses int, refused Reason, same func(i, j int) bool) (won []int) {
	a.t.Helper()
	reasons := map[Reason]int{}
	for i, d := range decisions {
		reasons[d.Reason]++
		if d.Forward {
			won = append(won, i)
		}
	}
	if diff := cmp.Diff(map[Reason]int{OK: uses, refused: len(decisions) - uses}, reasons); len(won) != uses || diff != "" {
		a.t.Fatalf("%d forwarded (-want +got):\n%s", len(won), diff)
	}
	for i, d := range decisions {
		alike := slices.ContainsFunc(won, func(w int) bool { return same(i, w) })
		if !d.Forward && d.TheftSuspected == alike {
			a.t.Fatalf("contender %d: theft suspected %t, looks like a winner %t", i, d.TheftSuspected, alike)
		}
	}
	return won
}

// held checks that the store knows of these keys and no others.
func (a *arena) held(id string, won []int, key func(i int) [32]byte) {
	a.t.Helper()
	e, err := a.store.Get(a.t.Context(), "wifi", id)
	if err != nil {
		a.t.Fatal(err)
	}
	var want, got [][]byte
	for _, i := range won {
		k := key(i)
		want = append(want, k[:])
	}
	for _, u := range e.Uses {
		if u.Forwards != 1 {
			a.t.Errorf("%d forwards of one use", u.Forwards)
		}
		got = append(got, u.Key)
	}
	for _, keys := range [][][]byte{want, got} {
		slices.SortFunc(keys, bytes.Compare)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		a.t.Fatalf("keys that hold it (-want +got):\n%s", diff)
	}
}

// disguise makes contenders differ in what tells a thief from the winner: one in
// eight each by address, agent and identity. Another identity is one that the
// expectation allows as well, so that it could win.
func disguise(i int, r *Request) {
	switch i % 8 {
	case 1:
		r.ClientIP = "198.51.100.7"
	case 2:
		r.UserAgent = "curl"
	case 3:
		r.Opened.CSR.HasExtKeyUsage, r.Opened.CSR.ExtKeyUsage = false, nil
	}
}

func disguisedAlike(i, j int) bool {
	look := func(i int) int {
		if i %= 8; i > 3 {
			return 0
		}
		return i
	}
	return look(i) == look(j)
}

func TestOfAHundredKeysWithOneChallengeAsManyAreForwardedAsItHasUses(t *testing.T) {
	for uses, share := range map[int]int{1: 1, 3: 5} {
		t.Run(fmt.Sprintf("max_uses %d", uses), func(t *testing.T) {
			inEveryEngine(t, nil, func(a *arena) {
				for n := range rounds(share) {
					challenge := fmt.Sprintf("%s-%d", judgeChallenge, n)
					id := a.register(n, store.Expectation{
						ChallengeHash: judgeHasher(t).Challenge("wifi", challenge), Content: judgeContent(), MaxUses: uses,
					})
					requests := make([]Request, contenders)
					for i := range requests {
						requests[i] = compliant(i)
						requests[i].Opened.CSR.Challenge = challenge
						requests[i].Message.TransactionID = fmt.Sprintf("TX-%d-%d", n, i)
						disguise(i, &requests[i])
					}
					decisions := a.compete(requests)
					won := a.winners(decisions, uses, ChallengeInUse, disguisedAlike)
					a.held(id, won, func(i int) [32]byte { return requests[i].Message.Signer.SPKISHA256() })

					// What became of it changes nothing for the others.
					for _, w := range won {
						if s := a.gate.Settle(t.Context(), a.store, decisions[w], Forwarded{Sent: true, Rep: rep("0")}); s.Err != nil {
							t.Fatal(s.Err)
						}
					}
					for i := range 8 {
						if d := a.gate.Judge(t.Context(), a.store, requests[i]); d.Forward != slices.Contains(won, i) {
							t.Fatalf("contender %d after issue: %s", i, d.Reason)
						}
					}
				}
			})
		})
	}
}

// renewalCA signs the certificates of this file.
var renewalCA = sync.OnceValues(func() (*x509.Certificate, error) {
	key := wireKeys()[0]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Renewal CA"}, KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
})

// certifiedSigner is what the inspector makes of a message that is signed with a
// certificate of renewalCA, valid for so long.
func (a *arena) certifiedSigner(serial int64, left time.Duration) *inspector.Signer {
	a.t.Helper()
	ca, err := renewalCA()
	if err != nil {
		a.t.Fatal(err)
	}
	keys := wireKeys()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "C02XK1 WIFI", Organization: []string{"Example Corp"}}, DNSNames: []string{"c02xk1.example.com"},
		NotBefore: a.clock.now().AddDate(-1, 0, 0), NotAfter: a.clock.now().Add(left),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, &keys[2].PublicKey, keys[0])
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := inspector.BuildPKIMessage(inspector.PKIMessage{MessageType: "17", Content: []byte("x"), Recipient: ca, SignerCert: der, SignerKey: keys[2]})
	if err != nil {
		a.t.Fatal(err)
	}
	m, err := inspector.ParseMessage(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return m.Signer
}

func TestOfAHundredNewKeysForOneCertificateOneIsForwarded(t *testing.T) {
	for name, required := range map[string]bool{"nobody registers": false, "the MDM registers": true} {
		t.Run(name, func(t *testing.T) {
			inEveryEngine(t, withRenewal(t, required), func(a *arena) {
				for n := range rounds(5) {
					signer := a.certifiedSigner(int64(1000+n), 10*24*time.Hour)
					old := a.gate.renewed(signer)
					if required {
						a.register(n, store.Expectation{ChallengeHash: old.byHash, Renews: &store.Renews{SHA256: old.sha256}, MaxUses: 1})
					}
					requests := make([]Request, contenders)
					for i := range requests {
						r := renewing(i, signer, fmt.Sprintf("TX-%d-%d", n, i))
						disguise(i, &r)
						requests[i] = r
					}
					won := a.winners(a.compete(requests), 1, RenewalUsed, disguisedAlike)
					found, err := a.store.Find(t.Context(), store.Lookup{Profile: "wifi", ChallengeHash: old.byHash, IdentityHash: old.bySerial, TransactionID: "none"})
					if err != nil || found.Expectation == nil {
						t.Fatalf("no record of the renewal: %v", err)
					}
					a.held(found.Expectation.ID, won, func(i int) [32]byte { return requests[i].Opened.CSR.SPKISHA256() })
				}
				counts, err := a.store.Counts(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(map[store.CountKey]int{{Profile: "wifi", State: store.Claimed}: rounds(5)}, counts); diff != "" {
					t.Errorf("one record for each certificate (-want +got):\n%s", diff)
				}
			})
		})
	}
}
