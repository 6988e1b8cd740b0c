package gate

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
)

func recorded(r Request) Request {
	r.Record = true
	return r
}

func TestTheQuestionIsTheOneThatAMatcherWithoutRevealIsAsked(t *testing.T) {
	var shown plugins.Request
	matcher := deciding("shut", func(_ context.Context, r plugins.Request) (plugins.Answer, error) {
		shown = r
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}, plugins.SAN)
	h := newHouse(t, nil, nil)
	h.rebuild(h.profile, matcher)
	d := h.enrol(recorded(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.Raw = []byte("pkcs10 with " + judgeChallenge)
	})))
	if d.Question == nil {
		t.Fatal("no question")
	}
	shown.Decides = nil
	if diff := cmp.Diff(shown, *d.Question); diff != "" {
		t.Error(diff)
	}
	if text := fmt.Sprintf("%+v", *d.Question); strings.Contains(text, judgeChallenge) || d.Question.PKCS10 != nil {
		t.Errorf("the question holds the challenge: %s", text)
	}
}

func TestARefusedRequestHasItsQuestionToo(t *testing.T) {
	h := newHouse(t, nil, nil)
	d := h.judge(recorded(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.Subject[1][0].Value = "administrator"
	})))
	if d.Forward || d.Question == nil || d.Question.Facts.Subject[1][0].Value != "administrator" || d.Question.Expectation.ID != h.id {
		t.Errorf("%+v", d)
	}
}

func TestWhatNobodyVouchedForHasAQuestionWithoutAnExpectation(t *testing.T) {
	h := sourceHouse(t, deciding("source", says(plugins.Answer{}), plugins.Challenge))
	d := h.judge(recorded(vouchable(1, nil)))
	if d.Forward || d.Question == nil || !reflect.DeepEqual(d.Question.Expectation, plugins.Expectation{}) {
		t.Errorf("%+v", d)
	}
}

func TestThereIsNoQuestion(t *testing.T) {
	for name, r := range map[string]Request{
		"unless it is asked for": compliant(1),
		"where nobody registered": recorded(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.Challenge = "somebody else's"
		})),
		"where nothing could be opened": recorded(with(1, func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) {
			o.CSR, o.Err = nil, &inspector.ParseError{}
		})),
		"in a poll": recorded(polling(1)),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			if name == "in a poll" {
				pend(h)
			}
			if d := h.judge(r); d.Question != nil {
				t.Errorf("%+v", d.Question)
			}
		})
	}
}
