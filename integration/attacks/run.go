package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
)

// play plays one vector. Whatever happens in it is its own problem.
func (s *stage) play(v *vector, n int) (t *try) {
	t = &try{stage: s, V: v, CN: fmt.Sprintf("dev-%s-%d", strings.ToLower(v.row), n), Challenge: newChallenge(), Device: s.Keys[n%len(s.Keys)]}
	defer func() {
		if p := recover(); p != nil {
			t.failf("the vector itself panicked: %v", p)
		}
		if !s.Remote {
			s.Up.set(nil)
			s.quiet(t)
		}
	}()
	if t.profile() == "static" {
		t.Challenge = staticPassword
	}
	t.M = t.message(t.Device)
	if !s.Remote {
		if !v.unregistered && v.want != cfg {
			id, status, refusal := t.register(s.Token, t.profile(), over(t.honest(), v.expect))
			if id == "" {
				t.failf("registering: %d %s", status, refusal)
				return t
			}
			t.ID = id
		}
		t.mark, t.from = s.Mark(), s.Up.count()
	}
	if v.act != nil {
		v.act(t)
		if t.demands == 0 {
			t.failf("the vector demands nothing")
		}
		return t
	}
	if v.message != nil {
		v.message(t)
	}
	message := t.M.Bytes()
	req := t.postRequest(message)
	if v.request != nil {
		req = v.request(t)
	}
	a := t.do(req)
	switch v.want {
	case pre, failed:
		t.status(a, v.status)
		t.reached()
	case rej, rejStrike:
		t.refused(a)
		t.reached()
	case forwarded:
		t.issued(a)
		t.reached(message)
	default:
		t.failf("a vector of kind %q needs act", v.want)
		return t
	}
	if s.Remote {
		return t
	}
	if v.reason != "" {
		if l := t.decision(v.reason); v.finding != "" && !strings.Contains(fmt.Sprint(l["findings"]), v.finding) {
			t.failf("no finding names %q: %v", v.finding, l["findings"])
		}
	}
	switch v.want {
	case forwarded:
		t.state(t.ID, "issued")
	case rejStrike:
		if e := t.state(t.ID, "registered"); e != nil && !strings.Contains(fmt.Sprint(e["history"]), "mismatch") {
			t.failf("no strike on the expectation: %v", e["history"])
		}
	default:
		t.state(t.ID, "registered") // never consumed
	}
	return t
}

// quiet waits until everything that t sent is in the access log: the line comes
// last, so that no decision of t is read for the next one's.
func (s *stage) quiet(t *try) {
	if t.sent == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond) // not every answer is logged
	defer cancel()
	handled := 0
	s.Find(ctx, t.mark, func(l gateway.Line) bool {
		if l.String("msg") == "handled request" {
			handled++
		}
		return handled >= t.sent
	})
}

// settle takes the measure of an idle process, after the ways that every vector
// goes have been gone once.
func (s *stage) settle() error {
	for i, profile := range profiles {
		t := s.play(&vector{row: "A00", variant: "honest device", want: forwarded, reason: "ok", profile: profile}, i)
		if len(t.problems) > 0 {
			return fmt.Errorf("an honest device of profile %s: %s", profile, strings.Join(t.problems, "; "))
		}
	}
	var err error
	s.baseline, err = s.goroutines()
	return err
}

var stack = regexp.MustCompile(`(?m)^(\d+) @.*\n((?:#.*\n)+)`)

// goroutines counts the process's goroutines by where in the gateway they are.
func (s *stage) goroutines() (map[string]int, error) {
	text, err := s.fetch("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, m := range stack.FindAllStringSubmatch(text, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && strings.Contains(m[2], "scepgate") {
			counts[where(m[2])] += n
		}
	}
	return counts, nil
}

// where is the innermost function of ours on a stack.
func where(stack string) string {
	for line := range strings.Lines(stack) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.Contains(fields[2], "scepgate") {
			name, _, _ := strings.Cut(fields[2], "+")
			return name
		}
	}
	return stack
}

func (s *stage) fetch(path string) (string, error) {
	resp, err := http.Get("http://" + s.Admin + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return string(text), err
}

// aftermath looks for what must not be left after all vectors: a goroutine, a
// panic, and the canary wherever the process may have put it (invariant 8). It
// ends the process.
func (s *stage) aftermath(ctx context.Context) (problems []string) {
	failf := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	s.Client.CloseIdleConnections()
	if err := s.noGoroutineLeft(ctx); err != nil {
		failf("%v", err)
	}
	var seen bytes.Buffer
	for _, path := range []string{"/metrics", "/config/"} {
		text, err := s.fetch(path)
		if err != nil {
			failf("%s: %v", path, err)
		}
		seen.WriteString(text)
	}
	for _, profile := range profiles {
		var list any
		if _, err := s.Call(ctx, s.Token, http.MethodGet, "/v1/profiles/"+profile+"/expectations?limit=500", nil, &list); err != nil {
			failf("%v", err)
		}
		fmt.Fprint(&seen, list)
	}
	if err := s.close(); err != nil {
		failf("stopping: %v", err)
	}
	log := s.Log()
	seen.WriteString(log)
	if i := strings.Index(seen.String(), canary); i >= 0 {
		failf("a challenge was seen: …%s…", seen.String()[max(0, i-200):i])
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "panic") || strings.HasPrefix(line, "goroutine ") {
			failf("a panic in the log: %.300s", line)
		}
	}
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(path) == "static.password" {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(canary)) {
			failf("%s holds a challenge", path)
		}
		return err
	})
	if err != nil {
		failf("%v", err)
	}
	return problems
}

// noGoroutineLeft waits until no place in the gateway has more goroutines than
// the idle process had.
func (s *stage) noGoroutineLeft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		now, err := s.goroutines()
		if err != nil {
			return err
		}
		var left []string
		for place, n := range now {
			if n > s.baseline[place] {
				left = append(left, fmt.Sprintf("%d at %s (%d before)", n, place, s.baseline[place]))
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("goroutines are left: %s", strings.Join(left, ", "))
		case <-time.After(200 * time.Millisecond): // another process is polled
		}
	}
}
