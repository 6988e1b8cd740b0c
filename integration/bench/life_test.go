package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/badgerstore"
)

// entries is how many come and go beside the enrolments of BenchmarkLife.
var entries = flag.Int("entries", 20_000, "expectations that are registered, listed and swept in BenchmarkLife")

const (
	lifeSamples = 200 // enrolments that are timed beside each kind of work, and as many while it pauses
	lifeTurns   = 20
	lifeWindow  = 32  // registrations that the API's batch has in the air
	lifePage    = 500 // the longest page of the API
	lifeSweep   = 32  // changes in one batch of the sweeper
	lifeRests   = 1   // see chore: of the batch and the sweeper
	mostSlower  = 2.0 // times the latency without all that
	outlasts    = 20 * 24 * time.Hour
)

// patient makes what is registered outlive the benchmark's days.
type patient struct{ store.Store }

func (p patient) Register(ctx context.Context, e store.Expectation) (store.Expectation, error) {
	e.ExpiresAt = e.ExpiresAt.Add(outlasts)
	return p.Store.Register(ctx, e)
}

// BenchmarkLife times enrolments, one device at a time, while many expectations
// are registered in a batch, listed page by page, found to be expired and
// removed; in turns with enrolments while that work pauses, since the machine is
// not equally fast all the time. It fails if the work more than doubles the
// median, or if the number of entries does.
func BenchmarkLife(b *testing.B) {
	for range b.N {
		life(b, *entries)
	}
}

// chore is work that goes on beside enrolments.
type chore struct {
	name  string
	of    int64 // steps, at least
	run   func(c *chore) error
	rests int // after each part, times as long as that took

	turn   sync.Mutex // held while a part of the work is done, or while it pauses
	steps  atomic.Int64
	ended  atomic.Bool
	enough atomic.Bool // whoever measures has measured
}

// part does so much of the work as is never interrupted.
func (c *chore) part(f func() (steps int, err error)) error {
	c.turn.Lock()
	start := time.Now()
	n, err := f()
	took := time.Since(start)
	c.steps.Add(int64(n))
	c.turn.Unlock()
	time.Sleep(time.Duration(c.rests) * took)
	return err
}

func life(b *testing.B, n int) {
	b.StopTimer()
	defer b.StartTimer()
	var ahead atomic.Int64 // of the clock that the store sees
	engine, err := badgerstore.Open(badgerstore.Options{
		Path: filepath.Join(b.TempDir(), "data"), Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { engine.Close() })
	s := set(b)
	s.store = patient{engine}
	chores := []*chore{
		{name: "registering", of: int64(n), rests: lifeRests, run: func(c *chore) error { return c.register(s.gate, engine, n) }},
		{name: "listing", of: int64(n), rests: 1, run: func(c *chore) error { return c.list(engine) }},
		{name: "expiring", of: int64(n), rests: lifeRests, run: func(c *chore) error {
			ahead.Add(int64(25 * time.Hour)) // they had a day
			return c.sweep(engine)
		}},
		{name: "removing", of: int64(n), rests: lifeRests, run: func(c *chore) error {
			ahead.Add(int64(store.EndedRetention))
			return c.sweep(engine)
		}},
	}
	traffic := s.prepare(b, (2*len(chores)+1)*lifeSamples, false)
	enrol := func() time.Duration {
		t := traffic[0]
		traffic = traffic[1:]
		start := time.Now()
		if err := s.enrol(t); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	runtime.GC()
	var alone []time.Duration
	for range lifeSamples {
		alone = append(alone, enrol())
	}
	b.ReportMetric(float64(centile(alone, 50).Microseconds()), "p50-µs-alone")
	ratio := func(name string, of, to []time.Duration) {
		p50 := float64(centile(of, 50)) / float64(centile(to, 50))
		p99 := float64(centile(of, 99)) / float64(centile(to, 99))
		b.ReportMetric(p50, "p50-"+name)
		b.ReportMetric(p99, "p99-"+name)
		b.Logf("%s: p50 %.2f (%s to %s), p99 %.2f", name, p50, centile(of, 50), centile(to, 50), p99)
		if p50 > mostSlower {
			b.Errorf("%s: an enrolment takes %.1f times as long", name, p50)
		}
	}
	for i, c := range chores {
		var work sync.WaitGroup
		start := time.Now()
		work.Go(func() {
			defer c.ended.Store(true)
			if err := c.run(c); err != nil {
				b.Errorf("%s: %v", c.name, err)
			}
		})
		beside, paused := c.turns(enrol)
		c.enough.Store(true)
		work.Wait()
		if got := c.steps.Load(); got < c.of || len(beside) < lifeSamples/10 {
			b.Fatalf("%s: %d of %d, with %d enrolments beside", c.name, got, c.of, len(beside))
		}
		b.Logf("%s: %d in %s", c.name, c.steps.Load(), time.Since(start).Round(time.Millisecond))
		ratio(c.name+"/paused", beside, paused)
		if i == 1 { // all are there
			ratio("many/few", paused, alone)
		}
	}
}

// turns times enrolments beside the work and while it pauses, spread over the
// whole of the work.
func (c *chore) turns(enrol func() time.Duration) (beside, paused []time.Duration) {
	const each = lifeSamples / lifeTurns
	for turn := range int64(lifeTurns) {
		for c.steps.Load() < c.of*turn/lifeTurns && !c.ended.Load() {
			time.Sleep(time.Millisecond)
		}
		for range each {
			if !c.ended.Load() { // else there is nothing to be beside of
				beside = append(beside, enrol())
			}
		}
		c.turn.Lock() // as soon as the part that is being done is
		for range each {
			paused = append(paused, enrol())
		}
		c.turn.Unlock()
	}
	return beside, paused
}

func centile(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)*percent/100]
}

// register registers as the API's batch does: prepared one after the other,
// written in windows.
func (c *chore) register(g *gate.Gate, s store.Store, n int) error {
	for from := 0; from < n; from += lifeWindow {
		err := c.part(func() (int, error) {
			var window []store.Expectation
			for i := from; i < min(n, from+lifeWindow); i++ {
				subject := fmt.Sprintf("CN=bulk%07d,OU=WiFi,O=Example Corp", i)
				p, problems := g.Prepare(gate.Registration{Subject: &subject, SAN: &gate.SAN{DNS: []string{fmt.Sprintf("bulk%07d.example.com", i)}}}, "mdm")
				if len(problems) > 0 {
					return 0, fmt.Errorf("%v", problems)
				}
				window = append(window, p.Expectation)
			}
			errs := make([]error, len(window))
			each(len(window), len(window), func(i int) { _, errs[i] = s.Register(context.Background(), window[i]) })
			return len(window), errors.Join(errs...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// list reads everything, as an MDM does that compares, again and again;
// reading a page takes it as long as making it took the store.
func (c *chore) list(s store.Store) error {
	q := store.Query{Profile: "wifi", Limit: lifePage}
	for more := true; more; {
		err := c.part(func() (int, error) {
			page, err := s.List(context.Background(), q)
			q.Cursor, more = page.Next, page.Next != "" || !c.enough.Load()
			return len(page.Items), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep sweeps as the sweeper does when much has come together.
func (c *chore) sweep(s store.Store) error {
	for more := true; more; {
		err := c.part(func() (int, error) {
			swept, err := s.Sweep(context.Background(), lifeSweep)
			more = swept.Changes >= lifeSweep
			return swept.Changes, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
