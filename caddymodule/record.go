package caddymodule

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/cases"
)

const (
	maxRecordings = 4
	// recordBuffer is how many cases wait for somebody who reads slowly.
	recordBuffer = 64
)

var errRecordings = errors.New("as many recordings as there may be are running")

// recordings are those that run now: who wants to have what a profile judges,
// as cases for `plugin test`. Without any they cost a message one atomic load.
type recordings struct {
	mu  sync.Mutex // guards changes
	all atomic.Pointer[[]*recording]
}

// recorders are all of this process.
var recorders recordings

// recording is one of them.
type recording struct {
	profile *running
	cases   chan cases.Case
	dropped atomic.Int64
}

// begin adds a recording of r. It must be ended.
func (s *recordings) begin(r *running) (*recording, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(now) >= maxRecordings {
		return nil, errRecordings
	}
	rec := &recording{profile: r, cases: make(chan cases.Case, recordBuffer)}
	all := append(slices.Clone(now), rec)
	s.all.Store(&all)
	return rec, nil
}

func (s *recordings) end(rec *recording) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(s.now()), func(other *recording) bool { return other == rec })
	s.all.Store(&all)
}

func (s *recordings) now() []*recording {
	if all := s.all.Load(); all != nil {
		return *all
	}
	return nil
}

// want reports whether somebody records r.
func (s *recordings) want(r *running) bool {
	return slices.ContainsFunc(s.now(), func(rec *recording) bool { return rec.profile == r })
}

// hand gives d to those who record r. It never waits: what does not fit any
// more is dropped, and counted.
func (s *recordings) hand(r *running, d gate.Decision) {
	c, ok := caseOf(d)
	if !ok {
		return
	}
	for _, rec := range s.now() {
		if rec.profile != r {
			continue
		}
		select {
		case rec.cases <- c:
		default:
			rec.dropped.Add(1)
		}
	}
}

// caseOf is d as a case; false if nothing was judged. Where a matcher refused,
// the code is the matcher's; otherwise it is the reason.
func caseOf(d gate.Decision) (cases.Case, bool) {
	if d.Question == nil || d.Failed || d.Unjudged {
		return cases.Case{}, false
	}
	c := cases.Case{Name: d.ID + ": " + string(d.Reason), Request: *d.Question}
	if c.Request.Renewal {
		c.Request.Decides = []plugins.Field{} // nobody decides anything about one
	}
	if d.Forward && !d.Observed {
		c.Want.Verdict = plugins.Agree
		return c, true
	}
	c.Want = cases.Want{Verdict: plugins.Refuse, Code: string(d.Reason)}
	if d.Reason == gate.MatcherRefused {
		c.Want.Code = ""
		if len(d.Findings) > 0 {
			c.Want.Code = d.Findings[0].Code
		}
	}
	return c, true
}
