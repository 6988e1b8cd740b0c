package gate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

func failure(code uint32) *inspector.CertRep {
	return &inspector.CertRep{PKIStatus: "2", FailInfo: "2", HasHRESULT: true, HRESULT: code}
}

func TestWhatAnAnswerMeansForTheExpectation(t *testing.T) {
	tests := []struct {
		name  string
		f     Forwarded
		state store.State
		doubt bool
	}{
		{"SUCCESS", Forwarded{Sent: true, Rep: rep("0")}, store.Issued, false},
		{"PENDING", Forwarded{Sent: true, Rep: rep("3")}, store.Pending, false},
		{"FAILURE", Forwarded{Sent: true, Rep: rep("2")}, store.Registered, false},
		{"FAILURE by policy", Forwarded{Sent: true, Rep: failure(0x80094811)}, store.Registered, false},
		{"FAILURE without a code", Forwarded{Sent: true, Rep: &inspector.CertRep{PKIStatus: "2", HRESULT: 0x800706ba}}, store.Registered, false},
		{"FAILURE with a code that cannot be read", Forwarded{Sent: true, Rep: &inspector.CertRep{PKIStatus: "2", HasError: true}}, store.Claimed, false},
		{"FAILURE with code zero", Forwarded{Sent: true, Rep: failure(0)}, store.Registered, false},
		{"FAILURE as the CA is unreachable", Forwarded{Sent: true, Rep: failure(0x800706ba)}, store.Claimed, false},
		{"first of the RPC codes", Forwarded{Sent: true, Rep: failure(0x80070600)}, store.Claimed, false},
		{"last of the RPC codes", Forwarded{Sent: true, Rep: failure(0x800706ff)}, store.Claimed, false},
		{"before the RPC codes", Forwarded{Sent: true, Rep: failure(0x800705ff)}, store.Registered, false},
		{"after the RPC codes", Forwarded{Sent: true, Rep: failure(0x80070700)}, store.Registered, false},
		{"revocation not checked", Forwarded{Sent: true, Rep: failure(0x80092012)}, store.Claimed, false},
		{"revocation offline", Forwarded{Sent: true, Rep: failure(0x80092013)}, store.Claimed, false},
		{"time-out", Forwarded{Sent: true, Rep: failure(0x800705b4)}, store.Claimed, false},
		{"the code of a success", Forwarded{Sent: true, Rep: &inspector.CertRep{PKIStatus: "0", HasHRESULT: true, HRESULT: 0x800706ba}}, store.Issued, false},
		{"no answer", Forwarded{Sent: true}, store.Claimed, true},
		{"nothing left", Forwarded{}, store.Registered, false},
		{"an answer to what was not sent", Forwarded{Rep: rep("0")}, store.Claimed, true},
		{"unknown status", Forwarded{Sent: true, Rep: rep("11")}, store.Claimed, true},
		{"no status", Forwarded{Sent: true, Rep: rep("")}, store.Claimed, true},
		{"D26 FAILURE with blank", Forwarded{Sent: true, Rep: rep("2 ")}, store.Claimed, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			s := h.gate.Settle(t.Context(), h.store, h.enrol(compliant(1)), tt.f)
			if s.Err != nil || s.State != tt.state || s.InDoubt != tt.doubt {
				t.Errorf("%+v", s)
			}
			if e := h.expectation(); e.State != tt.state {
				t.Errorf("expectation after: %s", e.State)
			}
			if len(h.store.settles) != 1 {
				t.Errorf("%d settlements", len(h.store.settles))
			}
		})
	}
}

func TestAFailureFreesOnlyWhenNoOtherForwardIsOpen(t *testing.T) {
	h := newHouse(t, nil, nil)
	first := h.enrol(compliant(1))
	second := h.enrol(compliant(1))
	if s := h.settle(first, rep("2")); s.State != store.Claimed {
		t.Errorf("one in flight: %+v", s)
	}
	if s := h.settle(second, rep("2")); s.State != store.Registered {
		t.Errorf("none in flight: %+v", s)
	}
}

func TestRevokedStaysRevoked(t *testing.T) {
	h := newHouse(t, nil, nil)
	d := h.enrol(compliant(1))
	if _, err := h.store.Revoke(t.Context(), "wifi", h.id, "jamf"); err != nil {
		t.Fatal(err)
	}
	if s := h.settle(d, rep("0")); s.State != store.Revoked {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsNotWrittenDownIsInDoubt(t *testing.T) {
	for name, f := range map[string]func(context.Context) error{
		"fails":  func(context.Context) error { return errors.New("disk full") },
		"panics": func(context.Context) error { panic("corrupt") },
	} {
		h := newHouse(t, nil, nil)
		d := h.enrol(compliant(1))
		h.store.onSettle = f
		s := h.gate.Settle(t.Context(), h.store, d, Forwarded{Sent: true, Rep: rep("0")})
		if s.Err == nil || !s.InDoubt || s.State != "" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestNothingIsSettledForARefusal(t *testing.T) {
	h := newHouse(t, nil, nil)
	for _, d := range []Decision{{}, h.judge(Request{})} {
		if s := h.gate.Settle(t.Context(), h.store, d, Forwarded{Sent: true, Rep: rep("0")}); s != (Settled{}) || len(h.store.settles) != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestTheTextOfAnAnswerIsExplainedAndBounded(t *testing.T) {
	tests := []struct {
		rep        *inspector.CertRep
		code, text string
	}{
		{rep("0"), "", ""},
		{failure(0x80070490), "0x80070490", "NDES does not know this password (expired, used or never made)"},
		{failure(0x12345678), "0x12345678", ""},
		{&inspector.CertRep{ServerMessage: "Denied by Policy Module\r\nx"}, "", `Denied by Policy Module\u{000D}\u{000A}x`},
		{&inspector.CertRep{HasHRESULT: true, HRESULT: 0x80094811, ServerMessage: "Denied"}, "0x80094811", "the key is too short for the template: Denied"},
	}
	for _, tt := range tests {
		code, text := hresult(tt.rep)
		if diff := cmp.Diff([]string{tt.code, tt.text}, []string{code, text}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if _, text := hresult(&inspector.CertRep{ServerMessage: strings.Repeat("x", 1<<20)}); len(text) > maxFieldText {
		t.Errorf("%d bytes", len(text))
	}
}
