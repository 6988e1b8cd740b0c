package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scepgate/scepgate/plugins"
)

const (
	maxCalls    = 16 // in the plugin at once
	maxWaiting  = 64 // for one of them to end
	maxMisses   = 5  // calls in a row without an answer make a plugin hung
	pingTimeout = time.Second
)

// Match asks the plugin. Every error means that nothing could be decided.
func (h *Host) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	defer h.secrets.hold(r.Challenge)()
	var a plugins.Answer
	err := h.call(ctx, aQuestion, func(ctx context.Context, p *instance) (err error) {
		a, err = p.plugin.Match(ctx, r)
		return err
	})
	if err != nil {
		return plugins.Answer{}, err
	}
	return a, nil
}

// Notified delivers an outcome.
func (h *Host) Notified(ctx context.Context, o plugins.Outcome) error {
	return h.call(ctx, anOutcome, func(ctx context.Context, p *instance) error { return p.plugin.Notified(ctx, o) })
}

// kind of a call.
type kind bool

const (
	aQuestion kind = true
	anOutcome kind = false // may be slow: it says nothing about how questions are answered
)

// call puts one question, within the configured time and the caller's.
func (h *Host) call(parent context.Context, what kind, ask func(context.Context, *instance) error) error {
	if err := parent.Err(); err != nil {
		return fmt.Errorf("plugin not asked: %w", err)
	}
	if err := h.Healthy(); err != nil {
		return err // no queue in front of what is down
	}
	ctx, cancel := context.WithTimeout(parent, h.cfg.Timeout)
	defer cancel()
	if err := h.enqueue(ctx); err != nil {
		return err
	}
	defer func() { <-h.slots }()
	p, err := h.ready(ctx)
	if err != nil {
		return err
	}
	if err := ask(ctx, p); err != nil {
		return h.blame(parent, ctx, p, what, err)
	}
	if what == aQuestion {
		p.misses.Store(0)
	}
	return nil
}

// enqueue takes one of maxCalls slots; slots is given back by the caller.
func (h *Host) enqueue(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > maxWaiting {
		h.waiting.Add(-1)
		return because(QueueFull, "", nil)
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return because(QueueFull, "", ctx.Err())
	case <-h.ctx.Done():
		return because(Closed, "", nil)
	}
}

// blame finds the cause of a failed call. Only silence counts against the
// plugin: an error that it returns itself shows that it lives, and one request
// that it cannot judge must not close the gateway to everybody.
func (h *Host) blame(parent, ctx context.Context, p *instance, what kind, err error) error {
	if errors.Is(parent.Err(), context.Canceled) {
		return fmt.Errorf("plugin not waited for: %w", parent.Err())
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) {
		return because(GarbageAnswer, err.Error(), err)
	}
	switch code := carrier.GRPCStatus().Code(); {
	case ctx.Err() != nil || code == codes.DeadlineExceeded && atDeadline(ctx):
		h.miss(p, what)
		return because(TimedOut, "", err)
	case code == codes.Unavailable || code == codes.Canceled:
		if endsSoon(ctx, p.done) {
			if why := p.why.Load(); why != nil {
				return because(why.Cause, why.Detail, err)
			}
			return because(Crashed, p.exit(), err)
		}
		h.miss(p, what)
		if ctx.Err() != nil || givenUp(err) && atDeadline(ctx) { // the other side's clock was the quicker one
			return because(TimedOut, "", err)
		}
		return because(Unreachable, said(err), err)
	case code == codes.ResourceExhausted || code == codes.Unimplemented || code == codes.Internal && !strings.HasPrefix(said(err), "matcher panicked"):
		return because(GarbageAnswer, said(err), err)
	}
	return because(PluginError, said(err), err)
}

// miss counts a call without an answer, and finds out whether the plugin lives:
// one that does not answer a ping, or maxMisses questions in a row, is killed.
func (h *Host) miss(p *instance, what kind) {
	if what == aQuestion && p.misses.Add(1) >= maxMisses {
		p.condemn(because(Hung, fmt.Sprintf("%d calls in a row without an answer", maxMisses), nil))
		return
	}
	h.mu.Lock() // Close waits for no task that begins later
	defer h.mu.Unlock()
	if h.phase == closed || !p.pinging.CompareAndSwap(false, true) {
		return
	}
	h.tasks.Go(func() {
		defer p.pinging.Store(false)
		ctx, cancel := context.WithTimeout(h.ctx, pingTimeout)
		defer cancel()
		if err := p.ping(ctx); err != nil && h.ctx.Err() == nil && !endsSoon(ctx, p.done) {
			p.condemn(because(Hung, "it does not answer a ping", err))
		}
	})
}

// condemn lets the supervisor kill p; the first reason counts.
func (p *instance) condemn(why *Error) {
	if p.why.CompareAndSwap(nil, why) {
		p.sick <- why
	}
}
