package caddymodule

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Limits on failed authentication, per source.
const (
	failureBurst   = 10              // failures that a source has at once
	failureRefill  = 6 * time.Second // time until it has one more: ten a minute
	failureSources = 10_000          // sources remembered; the least recent goes first
)

// failureLimiter is a token bucket per source of failed authentications
// (contract §4.2): it bounds what failures cost in log and attention.
type failureLimiter struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[string]*list.Element // of *failureEntry
	recent  list.List                // most recent first
}

type failureEntry struct {
	source string
	// fullAt is when the bucket is full again, from which its
	// content follows: one value to keep instead of a count and a time.
	fullAt time.Time
}

func newFailureLimiter(now func() time.Time) *failureLimiter {
	return &failureLimiter{now: now, entries: make(map[string]*list.Element)}
}

// wait returns how long source must wait before its next attempt; zero if it
// may try now.
func (l *failureLimiter) wait(source string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[source]
	if e == nil {
		return 0
	}
	left := e.Value.(*failureEntry).fullAt.Sub(l.now())
	return max(0, left-(failureBurst-1)*failureRefill)
}

// fail counts one failure of source.
func (l *failureLimiter) fail(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	e := l.entries[source]
	if e == nil {
		if len(l.entries) >= failureSources {
			oldest := l.recent.Back()
			delete(l.entries, oldest.Value.(*failureEntry).source)
			l.recent.Remove(oldest)
		}
		e = l.recent.PushFront(&failureEntry{source: source})
		l.entries[source] = e
	}
	l.recent.MoveToFront(e)
	entry := e.Value.(*failureEntry)
	if entry.fullAt.Before(now) {
		entry.fullAt = now
	}
	entry.fullAt = entry.fullAt.Add(failureRefill)
	if most := now.Add(failureBurst * failureRefill); entry.fullAt.After(most) {
		entry.fullAt = most
	}
}

// failureSource is what a client address counts as: one IPv4 address, or one
// IPv6 /64, which is what a single host is given.
func failureSource(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return "unknown" // all of them share one bucket
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}
