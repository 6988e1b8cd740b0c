// Package breaker stops asking what does not answer. After [Threshold] failures
// in a row nothing is asked for a second, then one question is let through; if
// it fails too, the pause doubles, up to [MaxPause]. It trusts its callers to
// call what [Breaker.Allow] returns. The one call is New.
package breaker

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// The measures of every breaker.
const (
	Threshold = 5
	MinPause  = time.Second
	MaxPause  = 30 * time.Second
)

// ErrOpen is what errors of [Breaker.Allow] and [Breaker.Healthy] are.
var ErrOpen = errors.New("not asked after failures in a row")

// Result says how a question ended.
type Result int

// The results. The zero value is a failure.
const (
	Failed    Result = iota
	Answered         // whatever the answer was
	Abandoned        // the asker went away: nothing is known
)

// Breaker counts failures in a row. It is safe for concurrent use, and holds
// no goroutine and no timer.
type Breaker struct {
	now func() time.Time

	mu       sync.Mutex
	failures int           // in a row
	pause    time.Duration // 0: closed
	until    time.Time     // the end of the pause
	probing  bool          // after a pause one question is on its way
}

// New makes a closed breaker. now is the clock; time.Now if nil.
func New(now func() time.Time) *Breaker {
	if now == nil {
		now = time.Now
	}
	return &Breaker{now: now}
}

// Healthy is an error while nothing would be let through. It reserves nothing.
func (b *Breaker) Healthy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.healthy()
}

func (b *Breaker) healthy() error {
	if b.pause == 0 {
		return nil
	}
	if left := b.until.Sub(b.now()); left > 0 {
		// A clock that was set back must not make the pause longer.
		if left > b.pause {
			b.until = b.now().Add(b.pause)
			left = b.pause
		}
		return fmt.Errorf("%w: %d, for another %s", ErrOpen, b.failures, left.Round(time.Millisecond))
	}
	if b.probing {
		return fmt.Errorf("%w: %d, one question is on its way", ErrOpen, b.failures)
	}
	return nil
}

// Allow lets one question through, or says why not. Whoever may ask calls done
// once, also after a panic.
func (b *Breaker) Allow() (done func(Result), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.healthy(); err != nil {
		return nil, err
	}
	probe := b.pause > 0
	if probe {
		b.probing = true
	}
	var once sync.Once
	return func(r Result) { once.Do(func() { b.done(r, probe) }) }, nil
}

func (b *Breaker) done(r Result, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch r {
	case Answered:
		b.failures, b.pause = 0, 0
	case Abandoned:
	default:
		b.failures++
		switch {
		case probe:
			b.pause = min(2*b.pause, MaxPause)
		case b.pause > 0 || b.failures < Threshold:
			return // a question from before the pause says nothing new
		default:
			b.pause = MinPause
		}
		b.until = b.now().Add(b.pause)
	}
}
