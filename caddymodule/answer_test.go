package caddymodule

import (
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// Invariant 3: what the gateway signed itself frees no expectation.
func TestARefusalOfOurOwnIsNoAnswerOfNDES(t *testing.T) {
	var agentCertificate *x509.Certificate
	secret := []byte("secret of the refusals")
	failure := func(nonce func(m *inspector.Message) []byte) func(*world, *inspector.Message) []byte {
		return func(_ *world, m *inspector.Message) []byte {
			return must(inspector.BuildFailure(inspector.Failure{TransactionID: m.TransactionID, RecipientNonce: m.SenderNonce, SenderNonce: nonce(m)}, agentCertificate, agentKey()))
		}
	}
	for _, tc := range []struct {
		name  string
		build func(*world, *inspector.Message) []byte
		code  int
		state store.State
	}{
		{"NDES's own failure", func(w *world, m *inspector.Message) []byte { return w.failure(m, "-2147024809") }, 200, store.Registered},
		{"one like ours of a server that is the CA", failure(func(*inspector.Message) []byte { return make([]byte, 16) }), 200, store.Registered},
		{"our refusal of the same message", failure(func(m *inspector.Message) []byte { return refusalNonce(secret, m.TransactionID, m.SenderNonce) }), 502, store.Claimed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			agentCertificate = w.agent
			e := w.register()
			// Refusals are signed with a certificate that may sign for NDES as well.
			w.files(func(f *profileFiles) {
				f.refusal = &refusalIdentity{certificate: w.agent, key: agentKey(), secret: secret}
			})
			w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error {
				return writeCertRep(rw, tc.build(w, m))
			}
			if rec := w.serve(post(w.message(device{}))); rec.Code != tc.code {
				t.Errorf("status %d, want %d", rec.Code, tc.code)
			}
			if got := w.expectation(e.ID); got.State != tc.state {
				t.Errorf("expectation is %s, want %s", got.State, tc.state)
			}
		})
	}
}

// threat A19: whoever stands between gateway and NDES cannot put a root of his
// own above the CA, with a certificate for the CA's key.
func TestNobodysRootIsPassedOnAboveTheCA(t *testing.T) {
	w := newWorld(t)
	ca := func(name string, parent *x509.Certificate, public any, key *rsa.PrivateKey) *x509.Certificate {
		return issueCertificate(t, &x509.Certificate{Subject: commonName(name), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, parent, public, key)
	}
	evil := ca("Evil Root", nil, strangerKey().Public(), strangerKey())
	cross := ca(w.ca.Subject.CommonName, evil, siteCAKey().Public(), strangerKey())
	for name, bundle := range map[string][]*x509.Certificate{
		"the root and a cross certificate": {w.agent, w.ra, w.ca, cross, evil},
		"the cross certificate alone":      {w.agent, w.ra, w.ca, cross},
		"the root alone":                   {w.agent, w.ra, w.ca, evil},
	} {
		w.g.ca = caCache{}
		w.ndes.bundle = bundle
		if rec := w.serve(get("operation=GetCACert")); rec.Code != http.StatusBadGateway {
			t.Errorf("%s: status %d", name, rec.Code)
		}
	}
}

func TestNDESIsAskedForNothingBeforeAMessageWasJudged(t *testing.T) {
	w := newWorld(t)
	w.register()
	if rec := w.serve(post(w.message(device{cn: "administrator"}))); rec.Code != http.StatusOK {
		t.Fatal(rec.Code)
	}
	if n := len(w.ndes.seen); n != 0 {
		t.Errorf("NDES was asked %d times for a message that was refused", n)
	}
}

func TestEveryRefusalIsKnownAgain(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.files(func(f *profileFiles) { f.refusal.secret = []byte("ours") })
	rep, err := inspector.ParseCertRep(w.serve(post(w.message(device{cn: "administrator"}))).Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !ownRefusal([]byte("ours"), rep) {
		t.Error("not known again")
	}
	if ownRefusal([]byte("another gateway's"), rep) {
		t.Error("known to another gateway")
	}
	rep.TransactionID += "x"
	if ownRefusal([]byte("ours"), rep) {
		t.Error("known for another transaction")
	}
}
