package caddymodule

import (
	"context"
	"sync/atomic"
	"time"
)

// The two pools of the gateway. A PKIOperation first takes a forward slot, then
// for each private-key operation a key slot. So everybody, whatever the message
// says, meets overload before the first private-key operation, and whoever may
// be forwarded never waits again between claim and forward.
const (
	queueDeadline = 2 * time.Second // a wait for a forward slot
	keyDeadline   = 5 * time.Second // a wait for a key slot: thousands of RSA operations
)

// slots is a bounded pool with a bounded queue in front of it.
type slots struct {
	taken    chan struct{}
	waiting  atomic.Int64
	queue    int64
	deadline time.Duration
}

func newSlots(size, queue int, deadline time.Duration) *slots {
	return &slots{taken: make(chan struct{}, size), queue: int64(queue), deadline: deadline}
}

// acquire takes a slot or says errBusy: because the queue is full, its deadline
// has passed, or the device has gone. The caller calls release exactly once.
func (s *slots) acquire(ctx context.Context) (release func(), err error) {
	select {
	case s.taken <- struct{}{}:
		return s.release, nil
	default:
	}
	if s.waiting.Add(1) > s.queue {
		s.waiting.Add(-1)
		return nil, errBusy
	}
	defer s.waiting.Add(-1)
	timer := time.NewTimer(s.deadline)
	defer timer.Stop()
	select {
	case s.taken <- struct{}{}:
		return s.release, nil
	case <-timer.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, errBusy
	}
}

func (s *slots) release() { <-s.taken }
