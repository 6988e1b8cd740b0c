package host

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"

	"github.com/scepgate/scepgate/plugins"
)

// slowToHear answers questions, and takes no outcome in time.
type slowToHear struct{ *fake }

func (slowToHear) Notified(ctx context.Context, _ plugins.Outcome) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

func TestAPluginThatIsSlowToHearOutcomesIsNotKilledForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := 0
		h := supervisedFake(func(context.Context) (*instance, error) {
			starts++
			f := new(fake)
			i := f.instance()
			i.plugin = slowToHear{f}
			return i, nil
		})
		h.Start()
		synctest.Wait()
		for n := range 4 * maxMisses {
			if err := h.Notified(t.Context(), plugins.Outcome{ID: "x"}); err == nil {
				t.Error("it heard")
			}
			synctest.Wait()
			if err := h.Healthy(); err != nil {
				t.Errorf("after %d outcomes: %v", n+1, err)
			}
			time.Sleep(2 * time.Second)
		}
		if starts != 1 {
			t.Errorf("%d starts", starts)
		}
		h.Close()
	})
}
