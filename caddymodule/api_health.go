package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	healthLifetime = time.Second // an answer serves everybody for as long
	healthTimeout  = 2 * time.Second
)

var errKeys = errors.New("a profile has no working keys")

// healthCache keeps the last answer: anybody may ask, and each question writes
// to the store.
type healthCache struct {
	mu     sync.Mutex // held while asking: one question at a time
	asked  time.Time
	answer error
}

// getHealth answers without a body: who is not known learns nothing but yes or no.
func (h *API) getHealth(*call) (answer, *problem) {
	if h.healthy() != nil {
		return answer{status: http.StatusServiceUnavailable}, nil
	}
	return answer{status: http.StatusOK}, nil
}

func (h *API) healthy() error {
	h.health.mu.Lock()
	defer h.health.mu.Unlock()
	now := h.now()
	if age := now.Sub(h.health.asked); h.health.asked.IsZero() || age < 0 || age >= healthLifetime {
		h.health.answer = h.checkHealth()
		h.health.asked = now
	}
	return h.health.answer
}

// checkHealth asks the store for a durable write. The keys passed their
// self-test if a profile has files at all (profileFiles).
func (h *API) checkHealth() error {
	lease, err := h.app.lease()
	if err != nil {
		return err
	}
	defer lease.release()
	for _, name := range h.app.profileNames() {
		if !h.app.profile(name).keysHealthy() {
			return errKeys
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	err = lease.Check(ctx)
	h.app.storeFailed(err)
	return err
}
