package caddymodule

import (
	"crypto"
	"crypto/x509"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// running is one profile at work. The handlers hold it for the life of their
// configuration and load its current files once per request.
type running struct {
	name   string
	config *Profile // checked, with defaults filled in; read only

	matchers []gate.Matcher // but exact

	fetcher *crlFetcher // nil: no CRL is at a URL
	stale   bool        // a CRL was missing or past its nextUpdate when last looked at; the app's watcher's own

	refusals refusalLimits

	// files is nil until the app has opened its store, which App.lease and
	// App.ready do on first use. Nil refuses.
	files atomic.Pointer[profileFiles]
}

// profileFiles is everything of a profile that was read from files, and what
// was compiled from it. It is swapped as a whole when a file changes, and never
// modified: a request in flight keeps the one it began with. It exists only if
// every key in it passed its self-test.
type profileFiles struct {
	gate    *gate.Gate
	opener  *inspector.Opener
	cas     []*x509.Certificate // ca_certificate: issuing CAs and their chain
	ras     []raIdentity
	pins    []*x509.Certificate // ra_signing_certificate
	refusal *refusalIdentity    // nil: refusal http_403
	crls    *revocation         // nil: none is configured
}

// raIdentity is one `ra` block.
type raIdentity struct {
	name        string
	certificate *x509.Certificate
	key         crypto.Decrypter // file keys are *rsa.PrivateKey, which signs too
	upstream    string           // host:port, "" if not configured
}

// refusalIdentity signs refusals.
type refusalIdentity struct {
	certificate *x509.Certificate
	key         crypto.Signer
	secret      []byte // marks the nonces of refusals, see refusalNonce
}

// storeLease is a store that stays open until release is called, also over a
// reload that moves it.
type storeLease struct {
	store.Store
	release func()
}

// keysHealthy reports whether the profile has keys that passed their self-test.
func (r *running) keysHealthy() bool { return r != nil && r.files.Load() != nil }

// crlsFresh reports whether nothing is known to be wrong with the profile's CRLs.
func (r *running) crlsFresh() bool {
	files := r.files.Load()
	return files == nil || files.crls.fresh()
}

// observing reports whether refusals are only recorded at the time now.
func (r *running) observing(now time.Time) bool {
	until := r.config.observeUntil()
	return !until.IsZero() && now.Before(until)
}

// load reads the profile's files and swaps them in, as a whole or not at all.
func (a *App) load(r *running, h *gate.Hasher) (*material, error) {
	m, err := readMaterial(r.config, a.now())
	if err != nil {
		return nil, err
	}
	files, err := m.compile(r, h, a.constraintsOf, a.now)
	if err != nil {
		return nil, err
	}
	r.files.Store(files)
	r.fetcher.trust(files.cas)
	a.filesLoaded(r, files)
	return m, nil
}

// reload is load for files that changed while the profile is at work.
func (a *App) reload(r *running) error {
	a.mu.Lock()
	h := a.hasher
	a.mu.Unlock()
	if h == nil {
		return nil // not at work yet: ready reads the files as they are then
	}
	m, err := a.load(r, h)
	if err != nil {
		return err
	}
	a.logWarnings(r, m)
	return nil
}

func (a *App) logWarnings(r *running, m *material) {
	for _, warning := range m.warnings {
		a.logger.Warn(warning, zap.String("profile", r.name))
	}
}
