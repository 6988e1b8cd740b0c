package gate

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// What the clock does to what was claimed, with the hashes that the gate makes.
// The rules themselves are tested with the store (store/storetest).

// sweep lets the sweeper do all it finds to do.
func (a *arena) sweep() {
	a.t.Helper()
	for {
		swept, err := a.store.Sweep(a.t.Context(), 1000)
		if err != nil {
			a.t.Fatal(err)
		}
		if swept.Changes == 0 {
			return
		}
	}
}

// promise makes an expectation with a challenge of its own.
func promise(t *testing.T, name string) store.Expectation {
	return store.Expectation{ChallengeHash: judgeHasher(t).Challenge("wifi", "challenge of "+name), Content: judgeContent(), MaxUses: 1}
}

// asking is the compliant request of key n with that challenge.
func asking(n int, name string) Request {
	r := compliant(n)
	r.Opened.CSR.Challenge = "challenge of " + name
	r.Message.TransactionID = fmt.Sprintf("TX-%s-%d", name, n)
	return r
}

func (a *arena) forward(r Request) Decision {
	a.t.Helper()
	d := a.gate.Judge(a.t.Context(), a.store, r)
	if !d.Forward {
		a.t.Fatalf("refused: %s %v", d.Reason, d.Findings)
	}
	return d
}

func (a *arena) settle(d Decision, f Forwarded) {
	a.t.Helper()
	if s := a.gate.Settle(a.t.Context(), a.store, d, f); s.Err != nil {
		a.t.Fatal(s.Err)
	}
}

func TestAChallengeThatWasClaimedCannotBeRegisteredAgainFor90Days(t *testing.T) {
	inEveryEngine(t, nil, func(a *arena) {
		n := 0
		register := func(name string) error {
			n++
			e := promise(t, name)
			e.ID, e.Profile, e.Owner, e.Request = fmt.Sprintf("exp_%026d", n), "wifi", "jamf", []byte("{}")
			e.CreatedAt, e.ExpiresAt = a.clock.now(), a.clock.now().Add(24*time.Hour)
			_, err := a.store.Register(t.Context(), e)
			return err
		}
		// How it ends; the 90 days begin when it does.
		ends := map[string]func(id string, d Decision){
			"issued":  func(_ string, d Decision) { a.settle(d, Forwarded{Sent: true, Rep: rep("0")}) },
			"revoked": func(id string, _ Decision) { a.revoke(id) },
			"issued, then revoked": func(id string, d Decision) {
				a.settle(d, Forwarded{Sent: true, Rep: rep("0")})
				a.revoke(id)
			},
			"refused by the CA, then expired": func(_ string, d Decision) {
				a.settle(d, Forwarded{Sent: true, Rep: rep("2")})
				a.clock.advance(24 * time.Hour)
			},
			"never sent, then expired": func(_ string, d Decision) {
				a.settle(d, Forwarded{})
				a.clock.advance(24 * time.Hour)
			},
		}
		for name, end := range ends {
			if err := register(name); err != nil {
				t.Fatal(err)
			}
			end(fmt.Sprintf("exp_%026d", n), a.forward(asking(1, name)))
			for _, day := range []int{0, 1, 30, 89} {
				a.sweep()
				if err := register(name); !errors.Is(err, store.ErrChallengeUsed) {
					t.Errorf("%s, day %d: registered again: %v", name, day, err)
				}
				if d := a.gate.Judge(t.Context(), a.store, asking(2, name)); d.Forward {
					t.Errorf("%s, day %d: another key was let through", name, day)
				}
				a.clock.advance(map[int]time.Duration{0: 1, 1: 29, 30: 59, 89: 1}[day]*24*time.Hour - time.Nanosecond)
			}
			a.clock.advance(4 * time.Nanosecond)
			a.sweep()
			if d := a.gate.Judge(t.Context(), a.store, asking(1, name)); d.Reason != ChallengeUnknown {
				t.Errorf("%s, after 90 days: %s", name, d.Reason)
			}
			if err := register(name); err != nil {
				t.Errorf("%s, after 90 days: %v", name, err)
			}
		}
	})
}

func (a *arena) revoke(id string) {
	a.t.Helper()
	if _, err := a.store.Revoke(a.t.Context(), "wifi", id, "jamf"); err != nil {
		a.t.Fatal(err)
	}
}

func TestTheSweeperTakesWhatHasExpiredAndNeverWhatIsClaimedOrPending(t *testing.T) {
	inEveryEngine(t, nil, func(a *arena) {
		unclaimed := a.register(1, promise(t, "unclaimed"))
		claimed, pending := a.register(2, promise(t, "claimed")), a.register(3, promise(t, "pending"))
		a.settle(a.forward(asking(1, "claimed")), Forwarded{Sent: true}) // in doubt
		a.settle(a.forward(asking(2, "pending")), Forwarded{Sent: true, Rep: rep("3")})
		for _, years := range []int{0, 1, 5} { // long after all ends and tombstones
			a.clock.advance(time.Duration(years) * 365 * 24 * time.Hour)
			a.sweep()
			_, err := a.store.Get(t.Context(), "wifi", unclaimed)
			if gone := errors.Is(err, store.ErrNotFound); gone != (years > 0) {
				t.Errorf("year %d: what nobody claimed: %v", years, err)
			}
			for name, key := range map[string]int{"claimed": 1, "pending": 2} {
				if d := a.gate.Judge(t.Context(), a.store, asking(3, name)); d.Reason != ChallengeInUse {
					t.Errorf("year %d: another key for what is %s: %s", years, name, d.Reason)
				}
				// Whoever holds it still does, and may ask again.
				a.settle(a.forward(asking(key, name)), Forwarded{Sent: true})
			}
		}
		for id, want := range map[string]store.State{claimed: store.Claimed, pending: store.Pending} {
			if e, err := a.store.Get(t.Context(), "wifi", id); err != nil || e.State != want {
				t.Errorf("%s: %s, %v; want %s", id, e.State, err, want)
			}
		}
	})
}

func TestACertificateThatWasRenewedIsRememberedUntilItExpires(t *testing.T) {
	inEveryEngine(t, withRenewal(t, false), func(a *arena) {
		// Valid for longer than a tombstone stands: the window is wide.
		signer := a.certifiedSigner(7, 200*24*time.Hour)
		ask := func(n int) Request { return renewing(n, signer, fmt.Sprintf("TX-%d", n)) }
		a.settle(a.forward(ask(1)), Forwarded{Sent: true, Rep: rep("0")})
		for _, day := range []int{1, 89, 91, 199} {
			a.clock.advance(signer.NotAfter.Add(time.Duration(day-200) * 24 * time.Hour).Sub(a.clock.now()))
			a.sweep()
			if d := a.gate.Judge(t.Context(), a.store, ask(2)); d.Forward || d.Reason != RenewalUsed {
				t.Errorf("day %d: another key: %s", day, d.Reason)
			}
		}
		a.clock.advance(48 * time.Hour)
		if d := a.gate.Judge(t.Context(), a.store, ask(2)); d.Forward || reasonsOf(d.Findings)[0] != RenewalSignerExpired {
			t.Errorf("after its end: %v", reasonsOf(d.Findings))
		}
	})
}

// withRenewal makes a profile that renews what renewalCA has signed.
func withRenewal(t *testing.T, required bool) func(*Profile) {
	return func(p *Profile) {
		ca, err := renewalCA()
		if err != nil {
			t.Fatal(err)
		}
		p.CAs[0] = ca
		p.Renewal = &Renewal{WindowPercent: 100, RequireNewKey: true, ExtKeyUsage: []string{oidClientAuth}, Registered: required}
	}
}

// renewing asks for a certificate for key n with signer's.
func renewing(n int, signer *inspector.Signer, transactionID string) Request {
	r := compliant(n)
	r.Message.MessageType, r.Message.TransactionID, r.Message.Signer = "17", transactionID, signer
	r.Opened.CSR.SAN = []inspector.GeneralName{{Type: "dns", Value: "c02xk1.example.com"}}
	r.Opened.CSR.SID, r.Opened.CSR.HasChallenge, r.Opened.CSR.Challenge = "", false, ""
	return r
}
