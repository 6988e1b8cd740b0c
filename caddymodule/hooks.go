package caddymodule

import (
	"sync"

	"github.com/scepgate/scepgate/gate"
)

// hooks is what others of the same configuration have registered with the app.
type hooks struct {
	mu      sync.Mutex
	onFiles []func(*running, *profileFiles)
	emit    func(name string, data map[string]any)
}

// emitBy gives the app a way to emit events, which a gateway has. All of one
// configuration emit to the same.
func (a *App) emitBy(emit func(name string, data map[string]any)) {
	a.registry.mu.Lock()
	defer a.registry.mu.Unlock()
	a.registry.emit = emit
}

// emit emits an event, if there is a gateway.
func (a *App) emit(name string, data map[string]any) {
	a.registry.mu.Lock()
	emit := a.registry.emit
	a.registry.mu.Unlock()
	if emit != nil {
		emit(name, data)
	}
}

// onFiles registers f to be called with every set of files that a profile has
// loaded, those that are loaded already included. f must not call back into the
// app, which may hold its lock.
func (a *App) onFiles(f func(r *running, files *profileFiles)) {
	a.registry.mu.Lock()
	a.registry.onFiles = append(a.registry.onFiles, f)
	a.registry.mu.Unlock()
	for _, r := range a.profiles {
		if files := r.files.Load(); files != nil {
			f(r, files)
		}
	}
}

func (a *App) filesLoaded(r *running, files *profileFiles) {
	a.registry.mu.Lock()
	registered := a.registry.onFiles
	a.registry.mu.Unlock()
	for _, f := range registered {
		f(r, files)
	}
}

// watch calls reload when one of the files changes, with the rule of every
// configured file: valid as a whole, or the old stays. Call it while
// provisioning.
func (a *App) watch(name string, paths []string, reload func() error) {
	a.watcher.add(name, paths, reload)
}

// constraintsOf gives the gate its view of the API clients. Without an API there
// are none, and what an unknown client registered is honoured for nobody.
func (a *App) constraintsOf(owner string) (*gate.Constraints, bool) {
	return a.clients.constraintsOf(owner)
}
