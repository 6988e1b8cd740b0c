package caddymodule

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits on refusals that cost a private-key operation and a signature. What is
// refused before is cheap, and an enrolment that is let through is not limited
// here, so that a site whose devices all come through one address is not either.
const (
	sourceRefusals      rate.Limit = 100 // a second
	sourceRefusalBurst             = 20_000
	profileRefusals     rate.Limit = 500
	profileRefusalBurst            = 100_000
	refusalSources                 = 10_000          // sources remembered; the least recently refused goes first
	refusalMemory                  = 5 * time.Minute // how long a source that was refused is one
)

// refusalLimits stops those who make the gateway refuse too much, before the
// private key is used for them: a source that has used up its own bucket, and, while the
// profile's is used up, every source that was refused of late. A source is what
// refusalSource says. The zero value is ready.
type refusalLimits struct {
	mu      sync.Mutex
	profile *rate.Limiter
	sources map[string]*list.Element // of *refusedSource
	recent  list.List                // most recently refused first
}

type refusedSource struct {
	name   string
	bucket *rate.Limiter
	last   time.Time
}

// stops reports whether nothing is to be done for source now.
func (l *refusalLimits) stops(source string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.sources[source]
	if e == nil {
		return false
	}
	s := e.Value.(*refusedSource)
	return empty(s.bucket, now) || now.Sub(s.last) < refusalMemory && empty(l.profile, now)
}

// refusalSource is one IPv4 address, or one IPv6 /48: who has a /48 has 65,536
// times a /64.
func refusalSource(ip string) string {
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Unmap().Is6() {
		if p, err := addr.WithZone("").Prefix(48); err == nil {
			return p.String()
		}
	}
	return failureSource(ip)
}

func empty(bucket *rate.Limiter, now time.Time) bool { return bucket.TokensAt(now) < 1 }

// count counts one refusal of source.
func (l *refusalLimits) count(source string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sources == nil {
		l.sources = make(map[string]*list.Element)
		l.profile = rate.NewLimiter(profileRefusals, profileRefusalBurst)
	}
	e := l.sources[source]
	if e == nil {
		if len(l.sources) >= refusalSources {
			oldest := l.recent.Back()
			delete(l.sources, oldest.Value.(*refusedSource).name)
			l.recent.Remove(oldest)
		}
		e = l.recent.PushFront(&refusedSource{name: source, bucket: rate.NewLimiter(sourceRefusals, sourceRefusalBurst)})
		l.sources[source] = e
	}
	l.recent.MoveToFront(e)
	s := e.Value.(*refusedSource)
	s.last = now
	// What is over a bucket's content is not owed: requests that were judged at
	// the same time may all be refused.
	s.bucket.AllowN(now, 1)
	l.profile.AllowN(now, 1)
}
