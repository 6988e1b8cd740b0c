package pluginstest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

const (
	maxFindings  = 16 // beside one for each field that was asked about
	maxText      = 1 << 20
	maxErrorText = 4 << 10

	// A matcher that has not returned after this is held to hang.
	hangs = 30 * time.Second
)

var codeSyntax = regexp.MustCompile(`\A[a-z0-9_]{1,48}\z`)

type reply struct {
	answer plugins.Answer
	err    error
}

func (r reply) agrees() bool { return r.err == nil && r.answer.Verdict == plugins.Agree }

// same holds for two errors whatever they say.
func (r reply) same(o reply) bool {
	if r.err != nil || o.err != nil {
		return (r.err != nil) == (o.err != nil)
	}
	if len(r.answer.Findings) == 0 && len(o.answer.Findings) == 0 { // nil or empty
		return r.answer.Verdict == o.answer.Verdict && r.answer.Code == o.answer.Code
	}
	return reflect.DeepEqual(r.answer, o.answer)
}

func (r reply) String() string {
	if r.err != nil {
		return fmt.Sprintf("error %q", clip(r.err.Error()))
	}
	return clip(fmt.Sprintf("verdict %d, code %q, %d findings %q", r.answer.Verdict, r.answer.Code, len(r.answer.Findings), r.answer.Findings))
}

func clip(s string) string {
	if len(s) > 512 {
		return s[:512] + "…"
	}
	return s
}

// guarded runs f, and turns a panic and a hang into an error.
func guarded(f func()) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %s", clip(fmt.Sprint(p)))
			}
			close(done)
		}()
		f()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(hangs):
		return fmt.Errorf("did not return within %s", hangs)
	}
}

// ask puts one question. Its own error says that the matcher panicked or hangs.
func ask(ctx context.Context, m plugins.Matcher, r plugins.Request) (out reply, err error) {
	err = guarded(func() { out.answer, out.err = m.Match(ctx, r) })
	if err != nil {
		return reply{}, err
	}
	return out, nil
}

// each puts a question for every request, and fails with the first that is not as it should be.
func each(ctx context.Context, m plugins.Matcher, questions []question, check func(r reply) error) error {
	for _, q := range questions {
		r, err := ask(ctx, m, q.request)
		if err == nil {
			err = check(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	return nil
}

func notAgreed(r reply) error {
	if r.agrees() {
		return fmt.Errorf("agreed: %s", r)
	}
	return nil
}

func infoIsConstant(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) (err error) {
	var first, second, third plugins.Info
	err = guarded(func() {
		first, second = m.Info(), m.Info()
	})
	if err != nil {
		return err
	}
	if err := first.Validate(); err != nil {
		return err
	}
	if !reflect.DeepEqual(first, second) {
		return fmt.Errorf("first %v, then %v", first, second)
	}
	first.Decides = slices.Clone(first.Decides)
	for i := range second.Decides {
		second.Decides[i] = "changed by the caller"
	}
	for _, q := range questions(m, agreed) {
		if _, err := ask(ctx, m, q.request); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	if err := guarded(func() { third = m.Info() }); err != nil {
		return err
	}
	if !reflect.DeepEqual(first, third) {
		return fmt.Errorf("first %v, after requests and a caller's change %v", first, third)
	}
	return nil
}

func agreesToAgreed(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	for i, a := range agreed {
		r, err := ask(ctx, m, clone(a))
		if err != nil {
			return err
		}
		if !r.agrees() {
			return fmt.Errorf("request %d: %s", i, r)
		}
	}
	return nil
}

func answersAreWellFormed(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	return eachWellFormed(ctx, m, questions(m, agreed))
}

func eachWellFormed(ctx context.Context, m plugins.Matcher, questions []question) error {
	for _, q := range questions {
		fields := len(q.request.Decides)
		if err := each(ctx, m, []question{q}, func(r reply) error { return wellFormed(r, fields) }); err != nil {
			return err
		}
	}
	return nil
}

func wellFormed(r reply, fields int) error {
	if r.err != nil {
		if n := len(r.err.Error()); n > maxErrorText {
			return fmt.Errorf("an error of %d bytes, more than %d", n, maxErrorText)
		}
		return nil
	}
	a := r.answer
	switch a.Verdict {
	case plugins.Agree, plugins.NotMine:
		if len(a.Findings) > 0 {
			return fmt.Errorf("only a refusal has findings: %s", r)
		}
		if a.Code != "" && !codeSyntax.MatchString(a.Code) {
			return fmt.Errorf("the code is not [a-z0-9_]{1,48}: %s", r)
		}
	case plugins.Refuse:
		if !codeSyntax.MatchString(a.Code) {
			return fmt.Errorf("the code of a refusal is not [a-z0-9_]{1,48}: %s", r)
		}
	default:
		return fmt.Errorf("no verdict: %s", r)
	}
	// The gateway cuts and escapes what it shows; here it must end somewhere.
	if len(a.Findings) > maxFindings+fields {
		return fmt.Errorf("%d findings about %d fields: %s", len(a.Findings), fields, r)
	}
	size := 0
	for _, f := range a.Findings {
		size += len(f.Field) + len(f.Expected) + len(f.Got)
	}
	if size > maxText {
		return fmt.Errorf("findings of %d bytes, more than %d", size, maxText)
	}
	return nil
}

func endedIsNotAnswered(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	late, cancel := context.WithDeadline(ctx, time.Unix(0, 0))
	defer cancel()
	for _, ended := range []context.Context{canceled, late} {
		err := each(ended, m, questions(m, agreed), func(r reply) error {
			if r.err == nil {
				return fmt.Errorf("answered although %w: %s", ended.Err(), r)
			}
			if r.answer.Verdict == plugins.Agree {
				return errors.New("agreed beside its error")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func emptyIsNotAgreed(ctx context.Context, m plugins.Matcher, _ []plugins.Request) error {
	return each(ctx, m, []question{
		{"zero request", plugins.Request{}},
		{"zero request, asked to decide", plugins.Request{Decides: m.Info().Decides}},
	}, notAgreed)
}

func unknownFieldIsNotAgreed(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	var odd []question
	for _, q := range questions(m, agreed) {
		for _, f := range []plugins.Field{"x_unknown", "", "SUBJECT", "subject ", "subject\x00"} {
			r := clone(q.request)
			r.Decides = append(r.Decides, f)
			odd = append(odd, question{fmt.Sprintf("%s, deciding %q as well", q.name, f), r})
			r = clone(q.request)
			r.Decides = []plugins.Field{f}
			odd = append(odd, question{fmt.Sprintf("%s, deciding %q alone", q.name, f), r})
		}
	}
	return each(ctx, m, odd, notAgreed)
}

func sameAnswer(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	for range 3 {
		for _, q := range questions(m, agreed) {
			first, err := ask(ctx, m, q.request)
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			again, err := ask(ctx, m, clone(q.request))
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			if !first.same(again) {
				return fmt.Errorf("%s: first %s, then %s", q.name, first, again)
			}
		}
	}
	return nil
}

func sameAnswerConcurrently(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	asked := questions(m, agreed)
	alone := make([]reply, len(asked))
	for i, q := range asked {
		var err error
		if alone[i], err = ask(ctx, m, q.request); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	const at, rounds = 8, 4
	failures := make(chan error, at)
	var wg sync.WaitGroup
	for g := range at {
		wg.Go(func() {
			for n := range rounds * len(asked) {
				i := (g + n) % len(asked)
				// The very same request for all: to change it is a race.
				r, err := ask(ctx, m, asked[i].request)
				if err == nil && !r.same(alone[i]) {
					err = fmt.Errorf("alone %s, among others %s", alone[i], r)
				}
				if err != nil {
					failures <- fmt.Errorf("%s: %w", asked[i].name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(failures)
	return <-failures
}

func argumentsStay(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	for _, q := range append(questions(m, agreed), hostile(m)...) {
		before := clone(q.request)
		if _, err := ask(ctx, m, q.request); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if !reflect.DeepEqual(before, q.request) {
			return fmt.Errorf("%s: the request was changed", q.name)
		}
	}
	return nil
}

func hostileIsSurvived(ctx context.Context, m plugins.Matcher, _ []plugins.Request) error {
	return eachWellFormed(ctx, m, hostile(m))
}

const canary = "4F7A0C91D2E83B6655AA0910CAFE7777"

func challengeStays(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error {
	var revealed []question
	for _, q := range append(questions(m, agreed), hostile(m)...) {
		r := clone(q.request)
		r.Challenge, r.PKCS10 = canary, []byte("DER with "+canary+" in it")
		revealed = append(revealed, question{q.name, r})
	}
	return each(ctx, m, revealed, func(r reply) error {
		said := fmt.Sprint(r.answer.Code, r.answer.Findings, r.err)
		if strings.Contains(strings.ToUpper(said), canary) {
			return errors.New("the challenge is in the answer or in its error")
		}
		return nil
	})
}

func unknownKeyIsAnError(ctx context.Context, m plugins.Matcher, _ []plugins.Request) error {
	c, ok := m.(plugins.Configurer)
	if !ok {
		return nil
	}
	var err error
	if broken := guarded(func() { err = c.Configure(ctx, map[string]string{"x_no_such_key": "x"}) }); broken != nil {
		return broken
	}
	if err == nil {
		return errors.New("configured with x_no_such_key")
	}
	return nil
}

func outcomesMayRepeat(ctx context.Context, m plugins.Matcher, _ []plugins.Request) error {
	n, ok := m.(plugins.Notified)
	if !ok {
		return nil
	}
	for _, o := range []plugins.Outcome{
		{},
		{ID: "out_1", Time: time.Unix(1e9, 0).UTC(), Profile: "wifi", Result: plugins.Failed, Reason: "ok", HRESULT: "0x80094001", RequestSHA256: strings.Repeat("0a", 32)},
		{ID: "out_2", Result: "a result of tomorrow"},
	} {
		var first, again error
		if err := guarded(func() { first, again = n.Notified(ctx, o), n.Notified(ctx, o) }); err != nil {
			return fmt.Errorf("outcome %q: %w", o.ID, err)
		}
		if first == nil && again != nil {
			return fmt.Errorf("outcome %q again: %w", o.ID, again)
		}
	}
	return nil
}
