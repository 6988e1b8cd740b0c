package caddymodule

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/cases"
)

func judgedOK() gate.Decision {
	return gate.Decision{ID: "dec_1", Forward: true, Reason: gate.OK, Question: &plugins.Request{Profile: "wifi"}}
}

func begin(t *testing.T, r *running) *recording {
	t.Helper()
	rec, err := recorders.begin(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { recorders.end(rec) })
	return rec
}

func TestADecisionBecomesTheCaseThatTheGatewayDecided(t *testing.T) {
	question := &plugins.Request{Profile: "wifi", TransactionID: "TX1"}
	renewal := &plugins.Request{Profile: "wifi", Renewal: true}
	asked := *renewal
	asked.Decides = []plugins.Field{}
	refused := func(r gate.Reason) cases.Case {
		return cases.Case{Name: "dec_1: " + string(r), Request: *question, Want: cases.Want{Code: string(r)}}
	}
	theirs := refused(gate.MatcherRefused)
	theirs.Want.Code = "not_in_inventory"
	for name, test := range map[string]struct {
		decision gate.Decision
		want     cases.Case // the zero case: none
	}{
		"forwarded": {gate.Decision{Forward: true, Reason: gate.OK, Question: question},
			cases.Case{Name: "dec_1: ok", Request: *question, Want: cases.Want{Verdict: plugins.Agree}}},
		"a renewal, about which nobody decides anything": {gate.Decision{Forward: true, Reason: gate.OK, Question: renewal},
			cases.Case{Name: "dec_1: ok", Request: asked, Want: cases.Want{Verdict: plugins.Agree}}},
		"refused": {gate.Decision{Reason: gate.SubjectMismatch, Question: question}, refused(gate.SubjectMismatch)},
		"refused by a matcher": {gate.Decision{Reason: gate.MatcherRefused, Question: question,
			Findings: []gate.Finding{{Reason: gate.MatcherRefused, Code: "not_in_inventory"}}}, theirs},
		"forwarded in mode observe only": {gate.Decision{Forward: true, Observed: true, Reason: gate.SubjectMismatch, Question: question},
			refused(gate.SubjectMismatch)},
		"not judged":     {gate.Decision{Forward: true, Observed: true, Unjudged: true, Reason: gate.StoreUnavailable, Question: question}, cases.Case{}},
		"nobody decided": {gate.Decision{Failed: true, Reason: gate.MatcherFailed, Question: question}, cases.Case{}},
		"no question":    {gate.Decision{Forward: true, Reason: gate.OK}, cases.Case{}},
	} {
		t.Run(name, func(t *testing.T) {
			test.decision.ID = "dec_1"
			got, ok := caseOf(test.decision)
			if diff := cmp.Diff(test.want, got); diff != "" || ok != (test.want.Name != "") {
				t.Errorf("%v %s", ok, diff)
			}
			if !ok {
				return
			}
			line, err := cases.Append(nil, got)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := cases.Parse(line); err != nil || again.Want != got.Want {
				t.Errorf("%v, %v", again, err)
			}
		})
	}
}

func TestARecordingGetsWhatItsOwnProfileJudgesWhileItRuns(t *testing.T) {
	wifi, vpn := new(running), new(running)
	if recorders.want(wifi) {
		t.Fatal("somebody records before anybody began")
	}
	recorders.hand(wifi, judgedOK())
	first, second := begin(t, wifi), begin(t, wifi)
	if !recorders.want(wifi) || recorders.want(vpn) {
		t.Errorf("wifi %v, vpn %v", recorders.want(wifi), recorders.want(vpn))
	}
	recorders.hand(wifi, judgedOK())
	recorders.hand(vpn, judgedOK())
	recorders.end(first)
	recorders.hand(wifi, judgedOK())
	recorders.end(second)
	recorders.hand(wifi, judgedOK())
	if len(first.cases) != 1 || len(second.cases) != 2 || recorders.want(wifi) {
		t.Errorf("%d and %d cases", len(first.cases), len(second.cases))
	}
}

func TestWhoReadsSlowlyLosesCasesAndDelaysNobody(t *testing.T) {
	wifi := new(running)
	slow, quick := begin(t, wifi), begin(t, wifi)
	for range recordBuffer + 7 { // would hang if hand waited
		recorders.hand(wifi, judgedOK())
		<-quick.cases
	}
	if got := slow.dropped.Load(); got != 7 || len(slow.cases) != recordBuffer || quick.dropped.Load() != 0 {
		t.Errorf("%d dropped and %d kept; of the other %d dropped", got, len(slow.cases), quick.dropped.Load())
	}
}

func TestThereAreOnlySoManyRecordings(t *testing.T) {
	var last *recording
	for range maxRecordings {
		last = begin(t, new(running))
	}
	if _, err := recorders.begin(new(running)); !errors.Is(err, errRecordings) {
		t.Errorf("one more: %v", err)
	}
	recorders.end(last)
	recorders.end(last) // a second time takes nobody else's place
	begin(t, new(running))
	if _, err := recorders.begin(new(running)); !errors.Is(err, errRecordings) {
		t.Errorf("one more after one had ended: %v", err)
	}
}

// invariant 8
func TestWhatIsRecordedHoldsNoChallenge(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	rec := begin(t, w.g.profile)
	w.serve(post(w.message(device{cn: "administrator"})))
	w.serve(post(w.message(device{})))
	w.serve(post(w.message(device{challenge: "nobody registered it"})))
	if len(rec.cases) != 2 {
		t.Fatalf("%d cases", len(rec.cases))
	}
	refused, agreed := <-rec.cases, <-rec.cases
	if refused.Want != (cases.Want{Code: "subject_mismatch"}) || refused.Request.Facts.Subject[1][0].Value != "administrator" {
		t.Errorf("the wrong name: %+v", refused)
	}
	if agreed.Want != (cases.Want{Verdict: plugins.Agree}) || agreed.Request.Expectation.ID != e.ID || agreed.Request.Expectation.Labels["device"] != "d1" {
		t.Errorf("the right one: %+v", agreed)
	}
	for _, c := range []cases.Case{refused, agreed} {
		line, err := cases.Append(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(line), canaryChallenge) || strings.Contains(string(line), `"pkcs10"`) || strings.Contains(string(line), `"challenge"`) {
			t.Errorf("it holds a secret: %s", line)
		}
	}
	// What was recorded can be put to a matcher: exact decides as the gateway did.
	for _, c := range []cases.Case{refused, agreed} {
		c.Want.Code = ""
		if err := c.Check(t.Context(), new(plugins.Exact)); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}
