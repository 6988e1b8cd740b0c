package breaker_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins/breaker"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func start() (*breaker.Breaker, *clock) {
	c := &clock{time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	return breaker.New(c.now), c
}

func ask(t *testing.T, b *breaker.Breaker, r breaker.Result) {
	t.Helper()
	done, err := b.Allow()
	if err != nil {
		t.Fatalf("not allowed: %v", err)
	}
	done(r)
}

func open(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	for range breaker.Threshold {
		ask(t, b, breaker.Failed)
	}
	if err := b.Healthy(); !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("after %d failures Healthy = %v, want ErrOpen", breaker.Threshold, err)
	}
}

func TestOnlyFailuresInARowOpen(t *testing.T) {
	b, _ := start()
	for range 3 {
		for range breaker.Threshold - 1 {
			ask(t, b, breaker.Failed)
		}
		ask(t, b, breaker.Answered)
	}
	if err := b.Healthy(); err != nil {
		t.Fatalf("Healthy = %v although never %d in a row failed", err, breaker.Threshold)
	}
	open(t, b)
}

func TestWhoGoesAwayIsNoFailure(t *testing.T) {
	b, c := start()
	for range 2 * breaker.Threshold {
		ask(t, b, breaker.Abandoned)
	}
	if err := b.Healthy(); err != nil {
		t.Fatalf("Healthy = %v after abandoned questions", err)
	}
	open(t, b)
	c.advance(breaker.MinPause)
	ask(t, b, breaker.Abandoned)
	if err := b.Healthy(); err != nil {
		t.Fatalf("Healthy = %v: an abandoned probe must leave room for another", err)
	}
}

func TestThePauseDoublesUpToItsLimitAndAnAnswerEndsIt(t *testing.T) {
	b, c := start()
	open(t, b)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		pause *= time.Second
		c.advance(pause - time.Nanosecond)
		if _, err := b.Allow(); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("a nanosecond before the end of %s: Allow = %v, want ErrOpen", pause, err)
		}
		c.advance(time.Nanosecond)
		ask(t, b, breaker.Failed)
	}
	c.advance(breaker.MaxPause)
	ask(t, b, breaker.Answered)
	open(t, b) // closed again: it takes Threshold failures
	c.advance(breaker.MinPause)
	ask(t, b, breaker.Answered)
}

func TestAfterAPauseOneQuestionAtATime(t *testing.T) {
	b, c := start()
	open(t, b)
	c.advance(breaker.MinPause)
	done, err := b.Allow()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Healthy(); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("Healthy = %v while a question is on its way, want ErrOpen", err)
	}
	if _, err := b.Allow(); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("a second question was let through: %v", err)
	}
	done(breaker.Failed)
	done(breaker.Answered) // the second word does not count
	if err := b.Healthy(); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("Healthy = %v after the failed probe, want ErrOpen", err)
	}
}

func TestQuestionsFromBeforeThePauseDoNotLengthenIt(t *testing.T) {
	b, c := start()
	var old []func(breaker.Result)
	for range 10 {
		done, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, done)
	}
	open(t, b)
	for _, done := range old {
		done(breaker.Failed)
	}
	c.advance(breaker.MinPause)
	if err := b.Healthy(); err != nil {
		t.Fatalf("Healthy = %v after one pause", err)
	}
}

func TestAClockSetBackDoesNotKeepItOpen(t *testing.T) {
	b, c := start()
	open(t, b)
	c.advance(-24 * time.Hour)
	if err := b.Healthy(); !errors.Is(err, breaker.ErrOpen) {
		t.Fatalf("Healthy = %v, want ErrOpen", err)
	}
	c.advance(breaker.MinPause)
	if err := b.Healthy(); err != nil {
		t.Fatalf("Healthy = %v a pause after the clock was set back", err)
	}
}

func TestManyAtOnceLetOneProbeThrough(t *testing.T) {
	b, c := start()
	open(t, b)
	c.advance(breaker.MinPause)
	var wg sync.WaitGroup
	allowed := make(chan struct{}, 64)
	for range 64 {
		wg.Go(func() {
			if _, err := b.Allow(); err == nil {
				allowed <- struct{}{}
			}
			_ = b.Healthy()
		})
	}
	wg.Wait()
	if n := len(allowed); n != 1 {
		t.Fatalf("%d questions were let through, want 1", n)
	}
}
