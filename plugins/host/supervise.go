package host

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// phase is what calls have to expect.
type phase int

const (
	idle     phase = iota // nobody has asked for it yet
	starting              // for the first time, or at once after it ended: calls wait
	up
	down   // known not to work: calls fail at once, until a start has succeeded
	closed // for good
)

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
	stable     = time.Minute // a plugin that ran for so long has a clean slate
)

// backoff is how long to wait before the next start. The first time it is not
// waited at all.
func backoff(deaths int) time.Duration {
	if deaths <= 0 {
		return 0
	}
	return min(firstPause<<min(deaths-1, 10), maxPause)
}

// Start starts the plugin in the background. To call it again, or on a Host
// that is closed, does nothing.
func (h *Host) Start() {
	h.begin.Do(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.phase == closed {
			return
		}
		h.enter(starting, nil, nil)
		h.tasks.Go(h.supervise)
	})
}

// supervise keeps the plugin running until Close.
func (h *Host) supervise() {
	deaths := 0
	for h.ctx.Err() == nil {
		p, err := h.launch(h.ctx)
		if err != nil {
			if h.ctx.Err() != nil {
				return
			}
			h.failed.Add(1)
			deaths = max(deaths, 1) // what does not start does not start at once either
		} else {
			h.starts.Add(1)
			began := time.Now()
			h.move(up, p, nil)
			err = h.watch(p)
			if h.ctx.Err() != nil {
				p.stop(true)
				return
			}
			h.exits.Add(1)
			if time.Since(began) >= stable {
				deaths = 0
			}
		}
		cause := CauseOf(err)
		h.cause.Store(&cause)
		pause := h.pause(deaths)
		deaths++
		if pause > 0 {
			h.move(down, nil, err)
		} else {
			h.move(starting, nil, nil)
		}
		if p != nil {
			p.stop(false)
		}
		h.log.Error("plugin does not run", zap.String("cause", string(cause)), zap.String("error", err.Error()), zap.Duration("next_start_in", pause))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-h.ctx.Done():
			timer.Stop()
		}
	}
}

// watch returns when p has ended or must, or when the Host is closed.
func (h *Host) watch(p *instance) error {
	select {
	case <-h.ctx.Done():
		return h.ctx.Err()
	case err := <-p.sick:
		return err
	case <-p.done:
		return because(Crashed, p.exit(), nil)
	}
}

// move enters a phase, unless the Host is closed.
func (h *Host) move(to phase, p *instance, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase != closed {
		h.enter(to, p, why)
	}
}

// enter is under the lock.
func (h *Host) enter(to phase, p *instance, why error) {
	h.phase, h.current, h.down = to, p, why
	close(h.changed)
	h.changed = make(chan struct{})
}

// ready is the plugin to ask. It waits for one that is starting for the first
// time or once more, and for nothing if it is known to be down.
func (h *Host) ready(ctx context.Context) (*instance, error) {
	h.Start()
	for {
		h.mu.Lock()
		at, p, why, changed := h.phase, h.current, h.down, h.changed
		h.mu.Unlock()
		switch at {
		case up:
			if !p.finished() {
				return p, nil
			} // the supervisor is about to notice
		case down:
			return nil, notRunning(why)
		case closed:
			return nil, because(Closed, "", nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, because(TimedOut, "it is starting", ctx.Err())
		}
	}
}

func notRunning(why error) error {
	detail := ""
	if e := (*Error)(nil); errors.As(why, &e) {
		detail = e.Detail
	}
	return because(CauseOf(why), "not running: "+detail, why)
}

// Healthy is nil unless the plugin is known not to be able to answer: it has
// failed and waits for its next start, or has not come back from it yet. It
// says nothing about a plugin that was never started.
func (h *Host) Healthy() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.phase {
	case down:
		return notRunning(h.down)
	case closed:
		return because(Closed, "", nil)
	}
	return nil
}

// Close ends the plugin. Calls in flight have two seconds to finish, the
// process another two to end by itself; then it is killed. When Close returns,
// nothing of the plugin is left.
func (h *Host) Close() error {
	h.closing.Do(func() {
		h.mu.Lock()
		h.enter(closed, nil, nil)
		h.mu.Unlock()
		patience := time.NewTimer(grace)
		defer patience.Stop()
	drain:
		for range cap(h.slots) {
			select {
			case h.slots <- struct{}{}: // nobody else gets it any more
			case <-patience.C:
				break drain
			}
		}
		h.cancel()
	})
	h.tasks.Wait()
	return nil
}
