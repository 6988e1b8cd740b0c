// Package gate decides. It compares what the inspector read with what the store
// expects, with the matchers' help, and keeps the life of an enrolment: claim
// before forwarding, settle after the answer.
//
// It knows neither HTTP nor Caddy. It trusts the inspector's facts to be what
// the bytes say, and the store's atomicity. Everything it returns for logs is
// escaped and bounded.
//
// The two calls: [Gate.Judge] before anything is forwarded, [Gate.Settle] after.
package gate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

// Source says who owns the challenge.
type Source string

// The challenge sources.
const (
	SourceGateway     Source = "gateway"
	SourceNDESOneTime Source = "ndes_one_time"
	SourceNDESStatic  Source = "ndes_static"
	SourceMatcher     Source = "matcher" // nobody registers; a matcher that decides challenge vouches
)

// Template is one entry of `templates`. OID is "" if not configured.
type Template struct {
	Name string
	OID  string
}

// Templates is what NDES picks from the request's key usage. A nil entry is not configured.
type Templates struct {
	Signature      *Template
	Encryption     *Template
	GeneralPurpose *Template
}

// Profile is one compiled `profile`. It does not change while it is in use.
type Profile struct {
	Name           string
	Source         Source
	DefaultTTL     time.Duration
	StaticPassword string              // SourceNDESStatic only
	CAs            []*x509.Certificate // ca_certificate, all of them
	RAs            []*x509.Certificate
	Templates      Templates
	KeyUsage       []string // defaults
	ExtKeyUsage    []string // defaults, dotted OIDs
	Digests        []string
	Ciphers        []string
	MinRSABits     int
	AllowPatterns  bool
	MaxMismatches  int
	ObserveUntil   time.Time // zero: enforce

	// RetryWindow is how long after it was issued a certificate may be asked for
	// again by the same key and transaction, and how long a claim may be open
	// before it is reported as in doubt. InDoubtRelease is how long before it is
	// released by itself; zero: never.
	RetryWindow    time.Duration
	InDoubtRelease time.Duration
	Renewal        *Renewal // nil: off

	// Constraints gives what the named API client may register now; false if
	// there is no such client any more, which refuses.
	Constraints func(owner string) (*Constraints, bool)
}

// What a profile may name. md5 is not among the digests, nor rc2 and rc4 among
// the ciphers (contract §2).
var (
	knownDigests = []string{"sha1", "sha256", "sha384", "sha512"}
	knownCiphers = []string{"des", "des3", "aes128", "aes256"}
)

// Bounds of what a profile may say about time (contract §2).
const (
	maxRetryWindow      = 24 * time.Hour
	leastInDoubtRelease = 5 * time.Minute
)

// leastRSABits is the least that `algorithms` can name.
const leastRSABits = 1024

// Gate judges the requests of one profile. It is safe for concurrent use.
type Gate struct {
	profile  Profile
	hasher   *Hasher
	now      func() time.Time
	always   plugins.Exact
	matchers []Matcher       // all others
	caNames  map[string]bool // names of the CAs, see nameText
}

// New makes the gate of p. hasher keys the challenge hashes. [plugins.Exact]
// always runs and is not among matchers; another matcher takes over the fields
// that it decides, unless it says that a request is not its own, and if several
// decide one, all who have something to say must agree.
func New(p Profile, h *Hasher, matchers []Matcher, now func() time.Time) (*Gate, error) {
	if h == nil || now == nil {
		return nil, errors.New("gate without a hasher or a clock")
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("profile %q: %w", p.Name, err)
	}
	g := &Gate{profile: p, hasher: h, now: now, caNames: make(map[string]bool)}
	for _, ca := range p.CAs {
		g.caNames[nameText(ca.RawSubject)] = true
	}
	if err := g.chain(matchers); err != nil {
		return nil, fmt.Errorf("profile %q: %w", p.Name, err)
	}
	return g, nil
}

func (p *Profile) validate() error {
	if p.Name == "" {
		return errors.New("no name")
	}
	switch p.Source {
	case SourceGateway, SourceNDESOneTime, SourceMatcher:
		if p.StaticPassword != "" {
			return fmt.Errorf("challenge %s takes no password", p.Source)
		}
	case SourceNDESStatic:
		if p.StaticPassword == "" {
			return errors.New("challenge ndes_static without a password")
		}
	default:
		return fmt.Errorf("challenge source %q is not known", p.Source)
	}
	if len(p.CAs) == 0 || slices.Contains(p.CAs, nil) {
		return errors.New("no ca_certificate")
	}
	if len(p.RAs) == 0 || slices.Contains(p.RAs, nil) {
		return errors.New("no ra certificate")
	}
	if err := within("digest", p.Digests, knownDigests); err != nil {
		return err
	}
	if err := within("cipher", p.Ciphers, knownCiphers); err != nil {
		return err
	}
	if p.MinRSABits < leastRSABits {
		return fmt.Errorf("min_rsa_bits below %d", leastRSABits)
	}
	if p.MaxMismatches < 1 && p.Source != SourceNDESStatic {
		return errors.New("max_mismatches below 1")
	}
	if p.Constraints == nil {
		return errors.New("no client constraints")
	}
	if p.RetryWindow < 0 || p.RetryWindow > maxRetryWindow {
		return fmt.Errorf("retry_window is not within 0 and %s", maxRetryWindow)
	}
	if p.InDoubtRelease != 0 && p.InDoubtRelease < leastInDoubtRelease {
		return fmt.Errorf("in_doubt_release below %s", leastInDoubtRelease)
	}
	if p.Renewal != nil {
		return p.Renewal.validate()
	}
	return nil
}

func within(what string, names, known []string) error {
	if len(names) == 0 {
		return fmt.Errorf("no %s allowed", what)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return fmt.Errorf("%s %q is not one of %v", what, n, known)
		}
	}
	return nil
}

// observing reports whether mode observe is on. Its end needs no reload.
func (g *Gate) observing() bool { return g.now().Before(g.profile.ObserveUntil) }
