package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

func init() { caddy.RegisterModule(new(App)) }

// App is the app `scep`: the store of expectations, and the profiles that
// `scep_gateway` and `scep_api` work with.
type App struct {
	// Where expectations are kept. Required.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=scep.stores inline_key=engine"`

	// The file with the key of the challenge hashes: 64 hex digits, or 32 bytes.
	// Default: next to the store's folder, its name with `.challenge.key`
	// appended. It is made on start if there is neither a key nor data. Keep a
	// copy apart from the store's backup; without it the store is worthless.
	ChallengeKeyFile string `json:"challenge_key_file,omitempty"`

	// The profiles, by name.
	Profiles map[string]*Profile `json:"profiles,omitempty"`

	logger   *zap.Logger
	now      func() time.Time
	engine   storeModule
	poolKey  string // of the store
	keyPath  string // of the challenge key; "" if the store carries its own
	profiles map[string]*running
	watcher  fileWatcher
	outcomes *outcomes // nil: no matcher wants to hear of any
	nagged   time.Time // when the warning about observing was last logged

	clients  clientRegistry // of every scep_api of this configuration
	registry hooks

	current atomic.Pointer[pooledStore] // set once, when everything stands

	mu     sync.Mutex // guards held, deaf, gone and hasher
	held   bool       // this instance counts in the pool, and must be taken out once
	deaf   func()     // ends what is told of claims in doubt; nil: nothing is
	gone   bool       // Cleanup has run: nothing is opened any more
	hasher *gate.Hasher
}

// openTimeout bounds what opening the store asks of it.
const openTimeout = 30 * time.Second

// nagEvery is how often the log tells that a profile only observes.
const nagEvery = time.Hour

var errCleanedUp = errors.New("scep: configuration is no longer in use")

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep", New: func() caddy.Module { return new(App) }}
}

// Provision checks everything that can be checked without creating, opening or
// locking anything, so that `validate` works beside a running server.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	if a.now == nil {
		a.now = time.Now
	}
	if err := a.provisionStore(ctx); err != nil {
		return err
	}
	// The real key may not exist before Start. With any other key a profile
	// compiles, or does not, for the same reasons.
	throwaway, err := gate.NewHasher(make([]byte, challengeKeySize))
	if err != nil {
		return err
	}
	a.profiles = make(map[string]*running, len(a.Profiles))
	for _, name := range slices.Sorted(maps.Keys(a.Profiles)) {
		if err := a.provisionProfile(ctx, name, a.Profiles[name], throwaway); err != nil {
			return fmt.Errorf("profile %s: %w", name, err)
		}
	}
	return nil
}

func (a *App) provisionStore(ctx caddy.Context) error {
	if len(a.StoreRaw) == 0 || string(a.StoreRaw) == "null" {
		return errors.New("scep: no store is configured")
	}
	module, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	engine, ok := module.(storeModule)
	if !ok {
		return fmt.Errorf("store: %T is not a store", module)
	}
	a.engine = engine
	if a.poolKey, err = engine.poolKey(); err != nil {
		return fmt.Errorf("store %s: %w", engine.name(), err)
	}
	if a.ChallengeKeyFile != "" {
		if err := expandPlaceholder("challenge_key_file", &a.ChallengeKeyFile); err != nil {
			return err
		}
	}
	if a.keyPath, err = challengeKeyPath(a.ChallengeKeyFile, engine.folder()); err != nil {
		return err
	}
	_, warning, err := checkChallengeKey(a.keyPath, engine.folder())
	if err == nil && warning != "" {
		a.logger.Warn(warning)
	}
	return err
}

func (a *App) provisionProfile(ctx caddy.Context, name string, p *Profile, throwaway *gate.Hasher) error {
	if !namePattern.MatchString(name) {
		return errors.New("name must be up to 64 letters, digits, '_', '.' or '-'")
	}
	warnings, err := p.normalize(expandPlaceholder, a.now())
	if err != nil {
		return err
	}
	for _, warning := range warnings {
		a.logger.Warn(warning, zap.String("profile", name))
	}
	r := &running{name: name, config: p, fetcher: newCRLFetcher(p.Renewal.crlURLs(), a.logger.With(zap.String("profile", name)), a.now)}
	a.profiles[name] = r // also if what follows fails: Cleanup closes it
	if err := a.provisionMatchers(ctx, r); err != nil {
		return err
	}
	// Before the files are read: a change while they are must be noticed.
	a.watch("profile "+name, p.paths(), func() error { return a.reload(r) })
	m, err := readMaterial(p, a.now())
	if err != nil {
		return err
	}
	a.logWarnings(r, m)
	_, err = m.compile(r, throwaway, a.constraintsOf, a.now)
	return err
}

// Start opens the store and begins to watch files. An error rolls the load back.
func (a *App) Start() error {
	if err := a.ready(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a.profiles)) {
		if err := a.profiles[name].startMatchers(); err != nil {
			return err
		}
	}
	a.nag()
	for _, r := range a.profiles {
		r.fetcher.start()
	}
	a.startOutcomes()
	a.watcher.start(a.logger, func() {
		a.nag()
		a.lookAtCRLs()
	})
	return nil
}

// Stop ends the watching and fetching. Requests of this configuration may still
// be in flight.
func (a *App) Stop() error {
	a.watcher.halt()
	a.stopOutcomes()
	for _, r := range a.profiles {
		r.fetcher.halt()
	}
	return nil
}

// Cleanup gives the store back. Caddy calls it also on an app whose Provision
// failed, and while requests of this configuration are in flight.
func (a *App) Cleanup() error {
	a.watcher.halt()
	a.stopOutcomes()
	for _, r := range a.profiles {
		r.fetcher.close()
	}
	a.mu.Lock()
	a.gone = true
	held, deaf := a.held, a.deaf
	a.held, a.deaf = false, nil
	a.mu.Unlock()
	if deaf != nil {
		deaf()
	}
	if !held {
		return nil // never another instance's reference
	}
	_, err := stores.Delete(a.poolKey)
	return err
}

// ready opens the store and compiles the profiles, once. Start calls it; a
// request that comes before Start, since the HTTP app may start first, does so too.
func (a *App) ready() error {
	if a.current.Load() != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.Load() != nil {
		return nil
	}
	if a.gone || a.engine == nil {
		return errCleanedUp
	}
	p, err := a.acquireStore()
	if err != nil {
		return fmt.Errorf("store %s: %w", a.engine.name(), err)
	}
	if err := a.compileProfiles(); err != nil {
		a.held = false
		_, closeErr := stores.Delete(a.poolKey)
		return errors.Join(err, closeErr)
	}
	a.deaf = p.listen(a.inDoubt)
	a.current.Store(p)
	return nil
}

// acquireStore counts this instance in the pool. Caller holds mu.
func (a *App) acquireStore() (*pooledStore, error) {
	// The challenge key comes first: a store must never come to hold data whose
	// key was lost.
	key, err := a.challengeKey()
	if err != nil {
		return nil, err
	}
	settings, err := a.engine.settings()
	if err != nil {
		return nil, err
	}
	value, loaded, err := stores.LoadOrNew(a.poolKey, func() (caddy.Destructor, error) {
		s, err := a.engine.open()
		if err != nil {
			return nil, err
		}
		return newPooledStore(s, settings), nil
	})
	if err != nil {
		return nil, err
	}
	a.held = true
	p := value.(*pooledStore)
	if loaded && p.settings != settings {
		a.logger.Warn("the store stays open with the options it was opened with; restart to change them", zap.String("engine", a.engine.name()))
	}
	if key == nil {
		key = p.ownKey[:]
	}
	if err := a.bindChallengeKey(p, key); err != nil {
		a.held = false
		_, closeErr := stores.Delete(a.poolKey)
		return nil, errors.Join(err, closeErr)
	}
	return p, nil
}

// challengeKey reads the key, or makes it if there is neither a key nor data;
// nil if the store carries its own.
func (a *App) challengeKey() ([]byte, error) {
	missing, _, err := checkChallengeKey(a.keyPath, a.engine.folder())
	if err != nil || a.keyPath == "" {
		return nil, err
	}
	if missing {
		a.logger.Info("making a new challenge key; keep a copy apart from the store's backup", zap.String("file", a.keyPath))
		return createKey32(a.keyPath)
	}
	key, _, err := readKey32("challenge_key_file", a.keyPath)
	return key, err
}

// bindChallengeKey refuses a key that is not the one whose hashes the store
// holds: with it no challenge would be found, and used ones would be forgotten.
func (a *App) bindChallengeKey(p *pooledStore, key []byte) error {
	hasher, err := gate.NewHasher(key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if err := p.store.BindChallengeKey(ctx, hasher.CheckValue()); err != nil {
		if errors.Is(err, store.ErrChallengeKey) {
			return fmt.Errorf("challenge_key_file %s: %w", a.keyPath, err)
		}
		return err
	}
	a.hasher = hasher
	return nil
}

func (a *App) compileProfiles() error {
	for _, name := range slices.Sorted(maps.Keys(a.profiles)) {
		if _, err := a.load(a.profiles[name], a.hasher); err != nil {
			return fmt.Errorf("profile %s: %w", name, err)
		}
	}
	return nil
}

// lease gives the store for one request. It opens the store on first use. After
// Cleanup nothing is opened any more, but a request that was in flight is still
// served if the next configuration keeps the same store open.
func (a *App) lease() (storeLease, error) {
	if err := a.ready(); err != nil {
		return storeLease{}, err
	}
	p := a.current.Load()
	release, err := p.acquire()
	if err != nil {
		return storeLease{}, err
	}
	return storeLease{Store: p.store, release: release}, nil
}

// profile returns the named profile, or nil.
func (a *App) profile(name string) *running { return a.profiles[name] }

// storeHealthy reports whether the store is not known to be down. It is cheap.
func (a *App) storeHealthy() bool {
	return a.ready() == nil && a.current.Load().healthy()
}

// storeFailed tells that an operation on a leased store failed. Errors by which
// a working store answers are ignored.
func (a *App) storeFailed(err error) {
	if p := a.current.Load(); p != nil {
		p.reportError(err)
	}
}

// storeEngine names the engine, for metrics.
func (a *App) storeEngine() string {
	if a.engine == nil {
		return ""
	}
	return a.engine.name()
}

// nag warns about profiles that only observe, hourly (contract §3.3).
func (a *App) nag() {
	now := a.now()
	if !a.nagged.IsZero() && now.Sub(a.nagged) < nagEvery {
		return
	}
	a.nagged = now
	for _, name := range slices.Sorted(maps.Keys(a.profiles)) {
		if r := a.profiles[name]; r.observing(now) {
			a.logger.Warn("mode observe: requests that would be refused are forwarded", zap.String("profile", name), zap.Time("until", r.config.observeUntil()))
		}
	}
}

// lookAtCRLs logs when the CRLs of a profile stop to be current, and when they
// are again.
func (a *App) lookAtCRLs() {
	for _, name := range slices.Sorted(maps.Keys(a.profiles)) {
		r := a.profiles[name]
		files := r.files.Load()
		if files == nil {
			continue
		}
		places := files.crls.stale()
		if stale := len(places) > 0; stale != r.stale {
			r.stale = stale
			if stale {
				a.logger.Error("CRLs are missing or past their nextUpdate; messages are answered with 503", zap.String("profile", name), zap.Strings("crls", places))
			} else {
				a.logger.Info("CRLs are current again", zap.String("profile", name))
			}
		}
	}
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Module       = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
