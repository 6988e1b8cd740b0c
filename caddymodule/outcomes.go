package caddymodule

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

const (
	tellEvery   = 2 * time.Second
	tellBatch   = 50
	firstAgain  = 10 * time.Second // before an outcome that a matcher did not take is delivered again
	latestAgain = time.Hour
)

// outcomes delivers what the store keeps for matchers: at least once, and in no
// certain order. While a reload replaces a configuration there may be two, which
// costs a second delivery at worst.
type outcomes struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// startOutcomes begins to deliver, if any matcher could want it.
func (a *App) startOutcomes() {
	wanted := false
	for _, r := range a.profiles {
		for _, m := range r.matchers {
			wanted = wanted || m.Notify != nil
		}
	}
	if !wanted {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.outcomes = &outcomes{cancel: cancel, done: make(chan struct{})}
	go func(done chan struct{}) {
		defer close(done)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.tellOutcomes(ctx)
			}
		}
	}(a.outcomes.done)
}

// stopOutcomes ends it and waits for the delivery that is under way.
func (a *App) stopOutcomes() {
	if o := a.outcomes; o != nil {
		a.outcomes = nil
		o.cancel()
		<-o.done
	}
}

// tellOutcomes delivers what is due. A matcher that fails is left alone for the
// rest of it.
func (a *App) tellOutcomes(ctx context.Context) {
	if !a.storeHealthy() {
		return
	}
	lease, err := a.lease()
	if err != nil {
		return
	}
	defer lease.release()
	due, err := lease.Deliveries(ctx, tellBatch)
	if err != nil {
		a.outcomesFailed(ctx, err)
		return
	}
	failed := make(map[[2]string]bool)
	for _, d := range due {
		if ctx.Err() != nil {
			return
		}
		who := [2]string{d.Profile, d.Matcher}
		err := errors.New("failed before")
		if !failed[who] {
			err = a.tell(ctx, d)
		}
		if err == nil {
			err = lease.Delivered(ctx, d.ID)
		} else {
			if ctx.Err() != nil {
				return
			}
			if !failed[who] {
				failed[who] = true
				a.logger.Warn("matcher did not take an outcome; it is delivered again later", zap.String("profile", d.Profile), zap.String("matcher", d.Matcher),
					zap.String("outcome_id", d.ID), zap.Int("attempts", d.Attempts+1), zap.String("error", printable(err.Error(), maxUserAgent)))
			}
			err = lease.Postpone(ctx, d.ID, a.now().Add(again(d.Attempts)))
		}
		if err != nil {
			a.outcomesFailed(ctx, err)
			return
		}
	}
}

func (a *App) outcomesFailed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.logger.Error("delivering outcomes to matchers", zap.Error(err))
		a.storeFailed(err)
	}
}

// again is how long to wait after so many attempts.
func again(attempts int) time.Duration {
	return min(firstAgain<<min(attempts, 16), latestAgain)
}

// tell gives one outcome to its matcher.
func (a *App) tell(ctx context.Context, d store.Delivery) error {
	r := a.profiles[d.Profile]
	if r == nil {
		return gate.ErrNoMatcher
	}
	files := r.files.Load()
	if files == nil {
		return errDown
	}
	return files.gate.Tell(ctx, d)
}
