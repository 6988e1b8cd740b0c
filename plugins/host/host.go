// Package host runs one plugin: a matcher in a process of its own, kept under
// supervision. [New] checks its binary and starts nothing; [Host.Start], or the
// first question, starts it; a [Host] is a [plugins.Matcher] from then on until
// [Host.Close].
//
// The operator is trusted, who names the binary and its checksum or its maker's
// key. The plugin is trusted to decide what it was given to decide, and runs as
// the gateway's user. It is not trusted to be alive, quick, orderly or brief:
// whatever it does, a call ends in time, with an answer or with an [Error], and
// an error is no agreement. It is told nothing that it was not asked about, and
// gets no environment but the one that is listed for it.
package host

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/plugins"
)

const defaultTimeout = 2 * time.Second

// Config says which plugin, and how it is run.
type Config struct {
	Path string   // of the binary, absolute
	Args []string // without the program's name

	// Exactly one of the two vouches for the binary. The signature is Ed25519 over
	// the bytes of the binary, and stands beside it in Path + ".sig": its 64 bytes
	// as they are, or in base64.
	SHA256   [sha256.Size]byte
	SignedBy ed25519.PublicKey

	Env     []string          // NAME=VALUE, all that the plugin gets
	Config  map[string]string // its own configuration
	Decides []plugins.Field   // what it must be able to decide
	Timeout time.Duration     // of one call, default 2 s
	Logger  *zap.Logger       // default none
}

// variable is what an entry of Env begins with.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// check looks at what needs no file.
func (c *Config) check() error {
	if !filepath.IsAbs(c.Path) || filepath.Clean(c.Path) != c.Path { // threat F20: no PATH, no folder of the moment
		return fmt.Errorf("plugin %q: must be an absolute path, written without detours", printable(c.Path, maxDetail))
	}
	switch pinned := c.SHA256 != [sha256.Size]byte{}; {
	case pinned == (c.SignedBy != nil):
		return errors.New("plugin: exactly one of checksum and signer must vouch for it")
	case c.SignedBy != nil && len(c.SignedBy) != ed25519.PublicKeySize:
		return fmt.Errorf("plugin: the signer's key has %d bytes, not %d", len(c.SignedBy), ed25519.PublicKeySize)
	}
	for _, e := range c.Env {
		name := variable.FindString(e)
		switch {
		case name == "" || strings.ContainsRune(e, 0):
			return errors.New("plugin: env: an entry is not NAME=VALUE")
		case strings.HasPrefix(name, "PLUGIN_") || name == plugins.Handshake.MagicCookieKey+"=":
			return fmt.Errorf("plugin: env: %s belongs to the gateway", strings.TrimSuffix(name, "="))
		}
	}
	for _, a := range append([]string{c.Path}, c.Args...) {
		if strings.ContainsRune(a, 0) {
			return errors.New("plugin: a NUL in the path or an argument")
		}
	}
	if c.Timeout < 0 {
		return errors.New("plugin: timeout is negative")
	}
	return nil
}

// Key tells two plugins apart that may not share a process: it is a digest of
// everything in c but the logger, and of the binary as it lies there now. A
// binary that was replaced gives another key.
func (c Config) Key() string {
	h := sha256.New()
	put := func(parts ...string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(parts)))
		h.Write(n[:])
		for _, p := range parts {
			binary.BigEndian.PutUint64(n[:], uint64(len(p)))
			h.Write(n[:])
			h.Write([]byte(p))
		}
	}
	file, sum, err := c.open()
	if err != nil {
		put("unusable", err.Error())
	} else {
		_ = file.Close()
		put(string(sum[:]))
	}
	put(c.Path, string(c.SHA256[:]), string(c.SignedBy), c.Timeout.String())
	put(c.Args...)
	put(c.Env...)
	for _, k := range slices.Sorted(maps.Keys(c.Config)) {
		put(k, c.Config[k])
	}
	put()
	for _, f := range c.Decides {
		put(string(f))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Host is one plugin under supervision. It is safe for concurrent use.
type Host struct {
	cfg     Config
	info    plugins.Info
	log     *zap.Logger
	secrets secrets

	launch func(context.Context) (*instance, error) // h.startProcess but in tests of the supervisor
	pause  func(deaths int) time.Duration           // backoff but in tests that kill a lot

	startTimeout time.Duration

	slots   chan struct{}
	waiting atomic.Int64
	wants   atomic.Bool

	ctx     context.Context // ends when the plugin shall
	cancel  context.CancelFunc
	begin   sync.Once
	closing sync.Once
	tasks   sync.WaitGroup // the supervisor, and pings

	mu      sync.Mutex
	phase   phase
	current *instance
	down    error         // why phase is down
	changed chan struct{} // closed and replaced when phase changes

	starts, failed, exits atomic.Uint64
	cause                 atomic.Pointer[Cause]
	described             atomic.Pointer[plugins.Info]
}

var (
	_ plugins.Matcher  = (*Host)(nil)
	_ plugins.Notified = (*Host)(nil)
)

// New checks c: the options, that the binary is there, that nobody else can
// change it, and that it is the one that the checksum or the signer vouches
// for. It starts nothing.
func New(c Config) (*Host, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	file, _, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", printable(c.Path, maxDetail), err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	// What the caller still holds may change under us.
	c.Args, c.Env, c.SignedBy = slices.Clone(c.Args), slices.Clone(c.Env), slices.Clone(c.SignedBy)
	c.Config, c.Decides = maps.Clone(c.Config), slices.Clone(c.Decides)
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	h := supervised(c)
	h.launch = h.startProcess
	return h, nil
}

func supervised(c Config) *Host {
	h := &Host{
		cfg:          c,
		info:         plugins.Info{Name: nameOf(c.Path), Decides: c.Decides},
		log:          c.Logger,
		pause:        backoff,
		startTimeout: startTimeout,
		slots:        make(chan struct{}, maxCalls),
		changed:      make(chan struct{}),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// nameOf makes a matcher's name of the binary's.
func nameOf(path string) string {
	base := strings.TrimSuffix(filepath.Base(path), ".exe")
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, base)
	return name[:min(len(name), 48)]
}

// Info names the plugin after its binary, and says what it was given to decide:
// it is the same whether the process runs or not.
func (h *Host) Info() plugins.Info {
	i := h.info
	i.Decides = slices.Clone(i.Decides)
	return i
}

// Described is what the plugin says of itself. It starts the plugin and waits
// until it runs, has failed to start, or ctx has ended.
func (h *Host) Described(ctx context.Context) (plugins.Info, error) {
	if _, err := h.ready(ctx); err != nil {
		return plugins.Info{}, err
	}
	i := *h.described.Load()
	i.Decides = slices.Clone(i.Decides)
	return i, nil
}

// WantsOutcomes reports whether the plugin has said, since this Host was made,
// that it wants to hear of outcomes.
func (h *Host) WantsOutcomes() bool { return h.wants.Load() }

// Stats is what has happened so far.
type Stats struct {
	Starts       uint64 // that led to a plugin ready to answer
	FailedStarts uint64
	Exits        uint64 // of plugins that were ready: died or were killed, but not by Close
	Up           bool
	Cause        Cause // of the last failed start or exit, "" if there was none
}

// Stats counts starts and exits, for metrics.
func (h *Host) Stats() Stats {
	s := Stats{Starts: h.starts.Load(), FailedStarts: h.failed.Load(), Exits: h.exits.Load()}
	if c := h.cause.Load(); c != nil {
		s.Cause = *c
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Up = h.phase == up
	return s
}
