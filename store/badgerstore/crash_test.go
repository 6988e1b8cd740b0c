//go:build unix

package badgerstore

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

const childEnv = "SCEPGATE_STORE_CHILD"

// inChild makes this binary the process that is killed: it claims from many
// goroutines, settles every other claim, and writes a line after each that
// returned.
func inChild() bool {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return false
	}
	s, err := Open(Options{Path: dir})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	ctx := context.Background()
	for g := range 16 {
		go func() {
			for i := 0; ; i++ {
				n := i*16 + g
				e, err := s.Register(ctx, storetest.Example(n, "wifi", fmt.Sprint(n), time.Now()))
				var u store.Use
				if err == nil {
					_, u, err = s.Claim(ctx, claimFor(e))
				}
				if err == nil && i%2 == 1 {
					e, err = s.Settle(ctx, store.Settlement{Profile: "wifi", ID: e.ID, UseGeneration: u.Generation, Outcome: store.OutcomeIssued})
				}
				if err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				// One write each: a line is whole or absent.
				_, _ = fmt.Fprintf(os.Stdout, "%s %v\n", e.ID, e.State == store.Issued)
			}
		}()
	}
	select {}
}

// deliveries counts what matchers are told of each expectation.
func deliveries(t *testing.T, s *Store) map[string]int {
	t.Helper()
	told := map[string]int{}
	for {
		list, err := s.Deliveries(context.Background(), store.MaxDue)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return told
		}
		for _, d := range list {
			told[d.ExpectationID]++
			if err := s.Delivered(context.Background(), d.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEveryClaimThatReturnedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	claimed := map[string]bool{} // by id: also settled
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s/%d", childEnv, dir, round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		clear(claimed)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			line := lines.Text()
			if strings.HasPrefix(line, "error:") {
				t.Error(line)
				break
			}
			id, settled, _ := strings.Cut(line, " ")
			claimed[id] = settled == "true"
			if len(claimed) == 200 {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		}
		_ = cmd.Wait()
		if len(claimed) < 200 {
			t.Fatalf("only %d claims before the end", len(claimed))
		}

		s, err := Open(Options{Path: fmt.Sprintf("%s/%d", dir, round)})
		if err != nil {
			t.Fatal(err)
		}
		for id, settled := range claimed {
			e, err := s.Get(ctx, "wifi", id)
			if err != nil || e.State != store.Issued && (settled || e.State != store.Claimed) || len(e.Uses) != 1 || e.Uses[0].Forwards != 1 {
				t.Errorf("%s after the kill: %s, %d uses, %v", id, e.State, len(e.Uses), err)
			}
		}
		listed, told := map[store.CountKey]int{}, deliveries(t, s)
		q := store.Query{Profile: "wifi", Limit: 100}
		for more := true; more; more = q.Cursor != "" {
			p, err := s.List(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Items {
				listed[store.CountKey{Profile: "wifi", State: e.State}]++
				want := 0
				if e.State == store.Issued { // settled and told in one step, or neither
					want = 1
				}
				if n := told[e.ID]; n != want {
					t.Errorf("%s is %s, and %d are told of it", e.ID, e.State, n)
				}
			}
			q.Cursor = p.Next
		}
		counts, err := s.Counts(ctx)
		if err != nil || fmt.Sprint(counts) != fmt.Sprint(listed) {
			t.Errorf("counts %v, listed %v, %v", counts, listed, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
