package gate

import (
	"context"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

func derNameOf(name pkix.Name) []byte {
	raw, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		panic(err)
	}
	return raw
}

// polling is a GetCertInitial for what compliant(n) asked for.
func polling(n int) Request {
	r := compliant(n)
	r.Message.MessageType = typeGetCertInitial
	r.Message.SenderNonce = append([]byte("poll"), r.Message.SenderNonce...)
	r.Opened.Poll = &inspector.IssuerAndSubject{Issuer: derNameOf(pkix.Name{CommonName: "Example CA"}), Subject: r.Opened.CSR.Subject}
	r.Opened.CSR = nil
	return r
}

// pend brings the expectation of h to pending, for compliant(1).
func pend(h *house) { h.settle(h.enrol(compliant(1)), rep("3")) }

func TestAPollIsForwardedForWhatIsPendingForItsKey(t *testing.T) {
	h := newHouse(t, nil, nil)
	pend(h)
	h.clock.advance(5 * 24 * time.Hour) // days later, after its end
	finds := h.store.finds
	d := h.enrol(polling(1))
	want := Decision{
		ID: d.ID, Forward: true, Reason: OK, MessageType: "get_cert_initial", TransactionID: "TX1",
		RequestedSubject: "CN=C02XK1 WIFI,O=Example Corp", SPKISHA256: spkiText(compliant(1).Message.Signer.SPKISHA256()),
		ExpectationID: h.id, ExternalID: "jamf:4711", Labels: map[string]string{"device": "C02XK1"}, RA: "ndes1",
		claim: d.claim, nonces: d.nonces,
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(Decision{}, claimRef{})); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	// NDES may answer with the nonce of any of them.
	if diff := cmp.Diff([][]byte{compliant(1).Message.SenderNonce, polling(1).Message.SenderNonce}, d.SenderNonces()); diff != "" {
		t.Errorf("nonces (-want +got):\n%s", diff)
	}
	if h.store.finds != finds+1 {
		t.Errorf("%d finds", h.store.finds-finds)
	}
	if l := h.store.lookups[len(h.store.lookups)-1]; !l.Poll || len(l.ChallengeHash) != 32 || l.IdentityHash != nil || l.TransactionID != "TX1" {
		t.Errorf("lookup %+v", l)
	}
	if e := h.expectation(); e.State != store.Pending || e.History[len(e.History)-1].What != "polled" {
		t.Errorf("after the poll: %s %+v", e.State, e.History)
	}
}

func TestWhatTheAnswerToAPollMeans(t *testing.T) {
	for status, want := range map[string]store.State{"0": store.Issued, "2": store.Locked, "3": store.Pending} {
		h := newHouse(t, nil, nil)
		pend(h)
		if s := h.settle(h.enrol(polling(1)), rep(status)); s.State != want || s.InDoubt {
			t.Errorf("%s: %+v", status, s)
		}
	}
	t.Run("no answer", func(t *testing.T) {
		h := newHouse(t, nil, nil)
		pend(h)
		if s := h.settle(h.enrol(polling(1)), nil); s.State != store.Pending {
			t.Errorf("%+v", s)
		}
		h.enrol(polling(1))
	})
	t.Run("not one byte left", func(t *testing.T) {
		h := newHouse(t, nil, nil)
		pend(h)
		if s := h.gate.Settle(t.Context(), h.store, h.enrol(polling(1)), Forwarded{}); s.State != store.Pending || s.Err != nil {
			t.Errorf("%+v", s)
		}
	})
}

// pollRefusals are polls by the key of compliant(1), or by another, and what
// they find.
var pollRefusals = []struct {
	name   string
	before func(h *house)
	change func(r *Request)
	want   []Reason
	field  string // of the last finding
	heard  bool   // the history of what is pending hears of it
}{
	{"nothing was claimed", func(*house) {}, nil, []Reason{TransactionUnknown}, "transaction_id", false},
	{"D19 claimed and not answered", func(h *house) { h.enrol(compliant(1)) }, nil, []Reason{TransactionUnknown}, "state", true},
	{"issued", func(h *house) { h.settle(h.enrol(compliant(1)), rep("0")) }, nil, []Reason{TransactionUnknown}, "state", true},
	{"refused", func(h *house) { h.settle(h.enrol(compliant(1)), rep("2")) }, nil, []Reason{TransactionUnknown}, "transaction_id", false},
	{"denied by a manager", func(h *house) { pend(h); h.settle(h.enrol(polling(1)), rep("2")) }, nil, []Reason{TransactionUnknown}, "transaction_id", false},
	{"denied by a manager, while another forward is open", func(h *house) {
		pend(h)
		d := h.enrol(polling(1))
		h.enrol(polling(1))
		h.settle(d, rep("2"))
	}, nil, []Reason{TransactionUnknown}, "state", true},
	{"revoked", func(h *house) {
		pend(h)
		if _, err := h.store.Revoke(h.t.Context(), "wifi", h.id, "jamf"); err != nil {
			h.t.Fatal(err)
		}
	}, nil, []Reason{TransactionUnknown}, "state", true},
	{"D19 another key", pend, func(r *Request) { *r = polling(2); r.Message.TransactionID = "TX1" }, []Reason{TransactionUnknown}, "transaction_id", false},
	{"D19 another transactionID", pend, func(r *Request) { r.Message.TransactionID = "TX2" }, []Reason{TransactionUnknown}, "transaction_id", false},
	{"D19 the first transactionID, as another has it now", func(h *house) {
		pend(h)
		h.store.answer = func(f *store.Found) {
			if f.Holder != nil {
				f.Holder.Uses[0].TransactionIDs = []string{"TX2"}
			}
		}
	}, nil, []Reason{TransactionUnknown}, "transaction_id", true},
	{"D19 another subject", pend, func(r *Request) {
		r.Opened.Poll.Subject = []inspector.RDN{{{Type: oidCN, Value: "administrator"}}}
	}, []Reason{TransactionUnknown}, "subject", true},
	{"no subject", pend, func(r *Request) { r.Opened.Poll.Subject = nil }, []Reason{TransactionUnknown}, "subject", true},
	{"another issuer", pend, func(r *Request) { r.Opened.Poll.Issuer = derNameOf(pkix.Name{CommonName: "Another CA"}) }, []Reason{TransactionUnknown}, "issuer", true},
	{"an issuer that is no name", pend, func(r *Request) { r.Opened.Poll.Issuer = []byte{0x30} }, []Reason{TransactionUnknown}, "issuer", true},
	{"its client is gone", func(h *house) {
		pend(h)
		p := h.profile
		p.Constraints = func(string) (*Constraints, bool) { return nil, false }
		h.rebuild(p)
	}, nil, []Reason{TransactionUnknown}, "owner", true},
	{"C76 md5", pend, func(r *Request) { r.Message.Digest = "md5" }, []Reason{AlgorithmRefused}, "digest", true},
	{"C49 des", pend, func(r *Request) { r.Opened.Cipher = "des" }, []Reason{AlgorithmRefused}, "cipher", true},
	{"unknown key transport", pend, func(r *Request) { r.Opened.KeyTransport = "" }, []Reason{AlgorithmRefused}, "key_transport", true},
	{"C67 two certificates", pend, func(r *Request) { r.Message.Certificates = 2 }, []Reason{MalformedMessage}, "certificates", true},
	{"a signer that is not self-signed", pend, func(r *Request) { r.Message.Signer.SelfSigned = false }, []Reason{RenewalSignerUntrusted, TransactionUnknown}, "transaction_id", false},
	{"D13 a signer in the CA's name", pend, func(r *Request) { r.Message.Signer.Issuer = derNameOf(pkix.Name{CommonName: "Example CA"}) }, []Reason{RenewalSignerUntrusted}, "signer", true},
	{"everything at once, in order", pend, func(r *Request) {
		r.Message.Digest, r.Message.Certificates, r.Opened.Poll.Issuer, r.Opened.Poll.Subject = "md5", 4, nil, nil
	}, []Reason{MalformedMessage, AlgorithmRefused, TransactionUnknown, TransactionUnknown}, "issuer", true},
}

func TestAPollForAnythingElseIsRefused(t *testing.T) {
	for _, tt := range pollRefusals {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			tt.before(h)
			r := polling(1)
			if tt.change != nil {
				tt.change(&r)
			}
			before := h.expectation()
			claims, finds := h.store.claims, h.store.finds
			d := h.judge(r)
			if d.Forward || d.Failed || d.claim != nil || d.TheftSuspected || d.Locked {
				t.Fatalf("%+v", d)
			}
			if diff := cmp.Diff(tt.want, reasonsOf(d.Findings)); diff != "" || d.Reason != tt.want[0] {
				t.Errorf("findings (-want +got):\n%s%+v", diff, d.Findings)
			}
			if f := d.Findings[len(d.Findings)-1]; f.Field != tt.field {
				t.Errorf("the last finding is about %q: %+v", f.Field, f)
			}
			if h.store.finds != finds+1 || h.store.claims != claims || h.store.gets != 0 {
				t.Errorf("%d finds, %d claims, %d gets", h.store.finds-finds, h.store.claims-claims, h.store.gets)
			}
			after := h.expectation()
			if heard := len(after.History) > len(before.History); heard != tt.heard || (d.ExpectationID != "") != tt.heard {
				t.Errorf("heard %v, decision names %q", heard, d.ExpectationID)
			}
			after.History = before.History
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("expectation (-before +after):\n%s", diff)
			}
		})
	}
}

// quirk: strongSwan and sscep name the RA whose certificate they were given.
func TestAPollMayNameTheCAOrTheRA(t *testing.T) {
	for _, issuer := range [][]byte{
		derNameOf(pkix.Name{CommonName: "Example CA"}),
		derNameOf(pkix.Name{CommonName: "EXAMPLE  ca"}),
		derNameOf(pkix.Name{CommonName: "NDES1-MSCEP-RA"}),
	} {
		h := newHouse(t, nil, nil)
		pend(h)
		r := polling(1)
		r.Opened.Poll.Issuer = issuer
		slices.Reverse(r.Opened.Poll.Subject) // a multiset
		for i := range r.Opened.Poll.Subject {
			r.Opened.Poll.Subject[i] = slices.Clone(r.Opened.Poll.Subject[i])
			r.Opened.Poll.Subject[i][0].Tag = 19
		}
		h.enrol(r)
	}
}

func TestAPollWithAStaticPassword(t *testing.T) {
	h := newHouse(t, func(p *Profile) { p.Source, p.StaticPassword = SourceNDESStatic, judgeChallenge }, nil)
	pend(h)
	h.enrol(polling(1))
	if l := h.store.lookups[1]; len(l.IdentityHash) != 32 || l.ChallengeHash != nil || !l.Poll {
		t.Errorf("lookup %+v", l)
	}
}

func TestAResentRequestServesAsAPollAtAnyAge(t *testing.T) {
	h := newHouse(t, nil, nil)
	pend(h)
	h.clock.advance(30 * 24 * time.Hour)
	if s := h.settle(h.enrol(compliant(1)), rep("0")); s.State != store.Issued {
		t.Errorf("%+v", s)
	}
}

func TestAPollThatLosesARaceIsJudgedAnew(t *testing.T) {
	h := newHouse(t, nil, nil)
	pend(h)
	h.store.onClaim = func(ctx context.Context) error {
		h.store.onClaim = nil
		_, err := h.store.Store.Revoke(ctx, "wifi", h.id, "jamf")
		return err
	}
	if d := h.judge(polling(1)); d.Forward || d.Reason != TransactionUnknown || h.store.gets != 1 {
		t.Errorf("%+v", d)
	}
	for _, err := range []error{store.ErrUsed, store.ErrTransactionConflict, store.ErrKeyConflict} {
		h := newHouse(t, nil, nil)
		pend(h)
		h.store.onClaim = func(context.Context) error { return err }
		if d := h.judge(polling(1)); d.Forward || d.Reason != TransactionUnknown {
			t.Errorf("%v: %+v", err, d)
		}
	}
}

func TestAHolderThatWasNotAskedForIsNoAnswer(t *testing.T) {
	for name, answer := range map[string]func(*store.Found){
		"other profile":  func(f *store.Found) { f.Holder.Profile = "vpn" },
		"no id":          func(f *store.Found) { f.Holder.ID = "" },
		"unknown state":  func(f *store.Found) { f.Holder.State = "odd" },
		"an expectation": func(f *store.Found) { f.Expectation = f.Holder },
	} {
		h := newHouse(t, nil, nil)
		pend(h)
		h.store.answer = answer
		if d := h.judge(polling(1)); d.Forward || !d.Failed || d.Reason != StoreUnavailable {
			t.Errorf("%s: %+v", name, d)
		}
	}
	h := newHouse(t, nil, nil)
	pend(h)
	e := h.expectation()
	h.store.answer = func(f *store.Found) { f.Holder = &e }
	if d := h.judge(compliant(1)); d.Forward || d.Reason != StoreUnavailable {
		t.Errorf("a holder for what is no poll: %+v", d)
	}
}
