package host

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/scepgate/scepgate/plugins"
)

// fake is a plugin without a process.
type fake struct {
	match   func(context.Context, plugins.Request) (plugins.Answer, error)
	pinged  func(context.Context) error
	stopped atomic.Int64
	died    chan struct{}
}

func (f *fake) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if f.match != nil {
		return f.match(ctx, r)
	}
	return plugins.Answer{Verdict: plugins.Agree}, nil
}

func (f *fake) Notified(context.Context, plugins.Outcome) error { return nil }

func (f *fake) instance() *instance {
	f.died = make(chan struct{})
	died := f.died
	return &instance{
		plugin: f, done: died, exit: func() string { return "exit status 1" }, sick: make(chan error, 1),
		ping: func(ctx context.Context) error {
			if f.pinged != nil {
				return f.pinged(ctx)
			}
			return nil
		},
		stop: func(bool) {
			f.stopped.Add(1)
			select {
			case <-died:
			default:
				close(died)
			}
		},
	}
}

func supervisedFake(launch func(context.Context) (*instance, error)) *Host {
	h := supervised(Config{Path: "/opt/acme/Inventory-1.4.exe", Timeout: 2 * time.Second, Logger: zap.NewNop()})
	h.launch = launch
	return h
}

func TestTheDeadRestartAtOnceThenLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		var starts []time.Duration
		began := time.Now()
		h := supervisedFake(func(context.Context) (*instance, error) {
			starts = append(starts, time.Since(began))
			return f.instance(), nil
		})
		h.Start()
		var healthy []bool
		for range 9 {
			synctest.Wait()
			close(f.died)
			synctest.Wait()
			healthy = append(healthy, h.Healthy() == nil)
			time.Sleep(maxPause)
		}
		synctest.Wait()
		var pauses []time.Duration
		for i, at := range starts {
			pauses = append(pauses, at-time.Duration(max(i-1, 0))*maxPause)
		}
		s := 500 * time.Millisecond
		// The first restart is at once, and the others begin a pause after the
		// death that this test makes every maxPause.
		if diff := cmp.Diff([]time.Duration{0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, maxPause, maxPause}, pauses); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]bool{true, false, false, false, false, false, false, false, false}, healthy); diff != "" {
			t.Error("healthy after each death:", diff)
		}
		h.Close()
	})
}

func TestAStableMinuteForgivesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		h.Start()
		for range 4 {
			synctest.Wait()
			close(f.died)
			time.Sleep(maxPause)
		}
		synctest.Wait()
		time.Sleep(stable)
		close(f.died)
		synctest.Wait()
		if err := h.Healthy(); err != nil {
			t.Error("not restarted at once:", err)
		}
		h.Close()
	})
}

func TestWhatDoesNotStartIsTriedAgainButNotAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		f := new(fake)
		h := supervisedFake(func(context.Context) (*instance, error) {
			if works.Load() {
				return f.instance(), nil
			}
			return nil, because(WrongChecksum, "of now", nil)
		})
		h.Start()
		synctest.Wait()
		if err := h.Healthy(); CauseOf(err) != WrongChecksum {
			t.Errorf("healthy: %v", err)
		}
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != WrongChecksum {
			t.Errorf("match: %v", err)
		}
		works.Store(true)
		synctest.Wait()
		if h.Healthy() == nil {
			t.Error("healthy before the next start")
		}
		time.Sleep(firstPause)
		synctest.Wait()
		if err := h.Healthy(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(Stats{Starts: 1, FailedStarts: 1, Up: true, Cause: WrongChecksum}, h.Stats()); diff != "" {
			t.Error(diff)
		}
		h.Close()
	})
}

func TestAStartAfterAPauseHasToSucceedBeforeItIsTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		starts := 0
		h := supervisedFake(func(ctx context.Context) (*instance, error) {
			if starts++; starts > 2 {
				select { // it takes its time
				case <-time.After(5 * time.Second):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return f.instance(), nil
		})
		h.Start()
		synctest.Wait()
		close(f.died)
		synctest.Wait()
		close(f.died)
		time.Sleep(firstPause + time.Second)
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != Crashed || h.Healthy() == nil {
			t.Errorf("%v while it is starting again", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := h.Match(t.Context(), plugins.Request{}); err != nil || h.Healthy() != nil {
			t.Error(err, h.Healthy())
		}
		h.Close()
	})
}

func TestCallsWaitForTheFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		h := supervisedFake(func(context.Context) (*instance, error) {
			time.Sleep(time.Second)
			return f.instance(), nil
		})
		if err := h.Healthy(); err != nil { // nobody knows anything against it
			t.Error(err)
		}
		a, err := h.Match(t.Context(), plugins.Request{}) // which also starts it
		if err != nil || a.Verdict != plugins.Agree {
			t.Error(a, err)
		}
		h.Close()
	})
}

func TestAStartThatTakesTooLongIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := supervisedFake(func(ctx context.Context) (*instance, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		began := time.Now()
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != TimedOut || time.Since(began) != 2*time.Second {
			t.Error(err, time.Since(began))
		}
		h.Close()
	})
}

// silent waits for the end of the call.
func silent(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
	<-ctx.Done()
	return plugins.Answer{}, statusOf(ctx.Err())
}

func TestAPluginThatAnswersNoPingIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{match: silent, pinged: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != TimedOut {
			t.Error(err)
		}
		time.Sleep(pingTimeout + aMoment)
		synctest.Wait()
		if s := h.Stats(); s.Exits != 1 || s.Starts != 2 || s.Cause != Hung || f.stopped.Load() != 1 {
			t.Errorf("%+v", s)
		}
		h.Close()
	})
}

func TestAPluginThatOnlyAnswersPingsIsKilledAfterFiveCallsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{match: func(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
			if r.TransactionID == "answer" {
				return plugins.Answer{Verdict: plugins.Agree}, nil
			}
			return silent(ctx, r)
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		ask := func(what string, n int) {
			for range n {
				h.Match(t.Context(), plugins.Request{TransactionID: what})
			}
			synctest.Wait()
		}
		ask("", maxMisses-1)
		ask("answer", 1)
		ask("", maxMisses-1)
		if s := h.Stats(); s.Exits != 0 {
			t.Errorf("killed too early: %+v", s)
		}
		ask("", 1)
		if s := h.Stats(); s.Exits != 1 || s.Cause != Hung {
			t.Errorf("not killed: %+v", s)
		}
		h.Close()
	})
}

func TestErrorsOfItsOwnAreNotHeldAgainstAPlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{match: func(context.Context, plugins.Request) (plugins.Answer, error) {
			return plugins.Answer{}, statusOf(errors.New("cannot say"))
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		for range 10 * maxMisses {
			if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != PluginError {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if s := h.Stats(); s.Exits != 0 || h.Healthy() != nil {
			t.Errorf("%+v", s)
		}
		h.Close()
	})
}

func TestACallerThatGivesUpIsNotHeldAgainstAPlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{match: silent}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		h.Start()
		for range 10 * maxMisses {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			if _, err := h.Match(ctx, plugins.Request{}); !errors.Is(err, context.Canceled) || CauseOf(err) != "" {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if s := h.Stats(); s.Exits != 0 {
			t.Errorf("%+v", s)
		}
		h.Close()
	})
}

func TestNoMoreThanSixteenCallsAreInAPluginAndTheQueueHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in, most atomic.Int64
		release := make(chan struct{})
		f := &fake{match: func(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
			most.Store(max(most.Load(), in.Add(1)))
			defer in.Add(-1)
			<-release
			return plugins.Answer{Verdict: plugins.Agree}, nil
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		results := make(chan error, 200)
		for range maxCalls + maxWaiting {
			go func() { _, err := h.Match(t.Context(), plugins.Request{}); results <- err }()
		}
		synctest.Wait()
		if in.Load() != maxCalls {
			t.Errorf("%d calls are in", in.Load())
		}
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != QueueFull { // at once
			t.Error(err)
		}
		close(release)
		for range maxCalls + maxWaiting {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != maxCalls {
			t.Errorf("%d at once", most.Load())
		}
		h.Close()
	})
}

func TestWhoWaitsInTheQueueWaitsNoLongerThanACallMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fake{match: func(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
			<-release // ignores ctx
			return plugins.Answer{}, nil
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		for range maxCalls {
			go h.Match(t.Context(), plugins.Request{})
		}
		synctest.Wait()
		began := time.Now()
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != QueueFull || time.Since(began) != 2*time.Second {
			t.Error(err, time.Since(began))
		}
		close(release)
		synctest.Wait()
		h.Close()
	})
}

func TestCloseLetsCallsFinishAndRefusesNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{match: func(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
			time.Sleep(time.Second)
			return plugins.Answer{Verdict: plugins.Agree}, nil
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		flying := make(chan error)
		go func() { _, err := h.Match(t.Context(), plugins.Request{}); flying <- err }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { h.Close(); close(closed) }()
		synctest.Wait()
		if _, err := h.Match(t.Context(), plugins.Request{}); CauseOf(err) != Closed {
			t.Error(err)
		}
		if CauseOf(h.Healthy()) != Closed {
			t.Error(h.Healthy())
		}
		if err := <-flying; err != nil {
			t.Error("cut off:", err)
		}
		<-closed
		h.Close() // again
		h.Start()
		if s := h.Stats(); s.Up || s.Starts != 1 || s.Exits != 0 || f.stopped.Load() != 1 {
			t.Errorf("%+v, stopped %d times", s, f.stopped.Load())
		}
	})
}

func TestCloseDoesNotWaitForeverForACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fake{match: func(context.Context, plugins.Request) (plugins.Answer, error) {
			<-release
			return plugins.Answer{}, statusOf(context.Canceled)
		}}
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		go h.Match(t.Context(), plugins.Request{})
		synctest.Wait()
		began := time.Now()
		h.Close()
		if time.Since(began) != grace {
			t.Error("took", time.Since(began))
		}
		close(release)
		synctest.Wait()
	})
}

func TestCloseEndsAStartThatIsUnderWayAndOneThatWaits(t *testing.T) {
	for _, under := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := supervisedFake(func(ctx context.Context) (*instance, error) {
				if under {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return nil, because(MissingFile, "", nil)
			})
			h.Start()
			synctest.Wait()
			began := time.Now()
			h.Close()
			if time.Since(began) != 0 || CauseOf(h.Healthy()) != Closed {
				t.Error(time.Since(began), h.Healthy())
			}
		})
	}
}

func TestInfoIsConstantAndValidWhateverTheFileIsCalled(t *testing.T) {
	for path, name := range map[string]string{
		"/opt/acme/inventory-1.4.0":        "inventory-1_4_0",
		"/opt/acme/Inventory.exe":          "inventory",
		"/opt/Größe":                       "gr__e",
		"/opt/" + string(make([]byte, 90)): "________________________________________________",
	} {
		h := supervised(Config{Path: path, Decides: []plugins.Field{plugins.SAN}})
		want := plugins.Info{Name: name, Decides: []plugins.Field{plugins.SAN}}
		i := h.Info()
		if diff := cmp.Diff(want, i); diff != "" {
			t.Error(diff)
		}
		if err := i.Validate(); err != nil {
			t.Error(err)
		}
		i.Decides[0] = plugins.SID
		if diff := cmp.Diff(want, h.Info()); diff != "" {
			t.Error("a caller changed it:", diff)
		}
	}
}

// statusOf is err as it comes over the wire.
func statusOf(err error) error { return status.FromContextError(err).Err() }

// eventually waits for what another process or goroutine is about to do.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestACallAfterTheEndGoesToTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		h := supervisedFake(func(context.Context) (*instance, error) { return f.instance(), nil })
		h.pause = func(int) time.Duration { return 0 }
		f.match = func(context.Context, plugins.Request) (plugins.Answer, error) {
			select {
			case <-f.died:
				return plugins.Answer{}, statusOf(errors.New("the dead was asked"))
			default:
				return plugins.Answer{Verdict: plugins.Agree}, nil
			}
		}
		h.Start()
		for range 1000 {
			synctest.Wait()
			close(f.died)
			if _, err := h.Match(t.Context(), plugins.Request{}); err != nil { // before anybody has noticed
				t.Fatal(err)
			}
		}
		h.Close()
	})
}
