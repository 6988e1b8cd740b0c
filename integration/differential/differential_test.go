package differential

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	mutations    = flag.Uint64("mutations", 10_000, "how many inputs the two readers are compared on")
	openSSLCount = flag.Int("openssl", 100, "how many accepted inputs OpenSSL reads as well")
	seed         = flag.Uint64("seed", 1, "of the inputs")
)

// Shares of changed inputs that must be accepted at least, lest the comparison
// compares nothing.
const (
	minAcceptedRequests = 0.10
	minAcceptedMessages = 0.10
	minOpenedMessages   = 0.05
)

func TestHonestInputsAreAcceptedAndMeanTheSameToBothReaders(t *testing.T) {
	w := newWorld(t, *seed)
	for _, r := range w.requests {
		if accepted, problem := compareRequest(r.der); !accepted || problem != "" {
			t.Errorf("request %q: accepted %t, %s", r.name, accepted, problem)
		}
	}
	for _, m := range w.messages {
		f, problem := w.compareMessage(m.der)
		if f == nil || f.Request == "" || problem != "" {
			t.Errorf("message %q: %+v, %s", m.name, f, problem)
		}
	}
}

type tally struct{ made, unchanged, accepted, opened int }

// threats C01–C79, as facts: what is accepted has one meaning.
func TestAcceptedInputsMeanTheSameToBothReaders(t *testing.T) {
	w := newWorld(t, *seed)
	t.Logf("seed %d, %d mutations", *seed, *mutations)
	var (
		mu       sync.Mutex
		wait     sync.WaitGroup
		next     uint64
		problems int
		kinds    = map[string]*tally{"request": {}, "message": {}}
		single   = map[string]*tally{} // of samples with one change, by operator
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				mu.Lock()
				i, stop := next, next >= *mutations || problems >= 5
				next++
				mu.Unlock()
				if stop {
					return
				}
				s := w.sample(i)
				v := w.judge(s)
				mu.Lock()
				counts := []*tally{kinds[s.kind]}
				if len(s.done) == 1 && s.kind == "request" {
					if single[s.done[0]] == nil {
						single[s.done[0]] = &tally{}
					}
					counts = append(counts, single[s.done[0]])
				}
				for _, c := range counts {
					c.count(s, v)
				}
				if v.problem != "" {
					problems++
					t.Errorf("seed %d, input %d, %s %q, %s: %s\n%x", *seed, i, s.kind, s.base, strings.Join(s.done, ", "), v.problem, v.culprit)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if problems > 0 {
		return
	}
	requests, messages := kinds["request"], kinds["message"]
	t.Logf("requests: %s", requests)
	t.Logf("messages: %s, opened %.1f%%", messages, 100*messages.share(messages.opened))
	var names []string
	for name := range single {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Logf("  requests with %q alone: %s", name, single[name])
	}
	if *mutations < 1000 {
		return
	}
	if requests.share(requests.accepted) < minAcceptedRequests || messages.share(messages.accepted) < minAcceptedMessages ||
		messages.share(messages.opened) < minOpenedMessages {
		t.Error("too few of the changed inputs are accepted: the comparison says little")
	}
	for _, o := range operators {
		if single[o.name] == nil {
			t.Errorf("no request was changed by %q alone", o.name)
		}
	}
}

func (c *tally) count(s sample, v verdict) {
	c.made++
	switch {
	case !s.changed:
		c.unchanged++
	case v.accepted:
		c.accepted++
		if v.opened {
			c.opened++
		}
	}
}

// share is of the inputs that are really changed.
func (c *tally) share(n int) float64 { return float64(n) / float64(max(1, c.made-c.unchanged)) }

func (c *tally) String() string {
	return fmt.Sprintf("%d made, %d of them unchanged, %d accepted (%.1f%% of the changed)", c.made, c.unchanged, c.accepted, 100*c.share(c.accepted))
}
