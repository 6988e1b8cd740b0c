//go:build !windows

package plugins

import (
	"testing"
	"time"
)

func TestAParentIsWatchedUntilItIsAnother(t *testing.T) {
	tick := make(chan time.Time)
	parents := make(chan int, 1)
	ended := make(chan struct{})
	parents <- 7
	go func() {
		defer close(ended)
		watch(func() int { return <-parents }, tick)
	}()
	for range 3 {
		tick <- time.Time{}
		parents <- 7
	}
	select {
	case <-ended:
		t.Error("ended while the parent lives")
	default:
	}
	tick <- time.Time{}
	parents <- 1
	<-ended
}
