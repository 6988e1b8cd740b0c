package caddymodule

import (
	"crypto"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// running is one profile at work. The handlers hold it for the life of their
// configuration and load its current files once per request.
type running struct {
	name   string
	config *Profile // as configured; read only
	files  atomic.Pointer[profileFiles]
}

// profileFiles is everything of a profile that was read from files, and what
// was compiled from it. It is swapped as a whole when a file changes, and never
// modified: a request in flight keeps the one it began with.
type profileFiles struct {
	gate    *gate.Gate
	opener  *inspector.Opener
	cas     []*x509.Certificate // ca_certificate: issuing CAs and their chain
	ras     []raIdentity
	pins    []*x509.Certificate // ra_signing_certificate
	refusal *refusalIdentity    // nil: refusal http_403
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
}

// storeLease is a store that stays open until release is called, also over a
// reload that moves it.
type storeLease struct {
	store.Store
	release func()
}

var _ = time.Now
