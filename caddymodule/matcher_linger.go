package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/scepgate/scepgate/plugins/host"
)

// pooledHost is a plugin process that outlives configurations.
type pooledHost struct{ *host.Host }

// Destruct ends the process. Caddy calls it when the last configuration that
// uses it has gone, and lets the requests of that configuration finish in the
// background (invariant 9): the process is there for them a while longer. A
// reload does not wait for it.
func (p pooledHost) Destruct() error {
	if caddy.Exiting() { // no request is left
		return p.Close()
	}
	lingering.add(p.Host)
	return nil
}

// lingerers are plugin processes that no configuration uses any more.
type lingerers struct {
	mu    sync.Mutex
	hosts map[*host.Host]*time.Timer
}

var lingering = lingerers{hosts: make(map[*host.Host]*time.Timer)}

func init() { caddy.OnExit(func(context.Context) { lingering.end() }) }

func (l *lingerers) add(h *host.Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[h] = time.AfterFunc(drainTime, func() {
		_ = h.Close() // it has no error to give
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.hosts, h)
	})
}

// end ends those that are left, at once.
func (l *lingerers) end() {
	l.mu.Lock()
	hosts := l.hosts
	l.hosts = make(map[*host.Host]*time.Timer)
	l.mu.Unlock()
	var closing sync.WaitGroup
	for h, timer := range hosts {
		timer.Stop()
		closing.Go(func() { _ = h.Close() })
	}
	closing.Wait()
}

// Interface guard
var _ caddy.Destructor = pooledHost{}
