package caddymodule

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/host"
)

func init() {
	caddy.RegisterModule(new(ExactMatcher))
	caddy.RegisterModule(new(ExecMatcher))
}

// hosts holds the plugin processes, by their binaries and all they are started
// with: one that a reload does not change goes on.
var hosts = caddy.NewUsagePool()

// ExecMatcher is a vendor's own matcher: a program that the gateway runs, and
// asks over a socket that nobody else can reach.
type ExecMatcher struct {
	// The program, an absolute path. Nobody but its owner may be able to write it.
	Path string `json:"path,omitempty"`

	// Its arguments.
	Args []string `json:"args,omitempty"`

	// The SHA-256 of the program, 64 hexadecimal digits.
	SHA256 string `json:"sha256,omitempty"`

	// Instead of that, the Ed25519 public key of who made it, in hexadecimal or
	// base64. The signature of the program stands beside it, with `.sig` behind
	// its name.
	SignedBy string `json:"signed_by,omitempty"`

	// Its own configuration. Placeholders such as {env.NAME} and {file.…} are
	// replaced.
	Config map[string]string `json:"config,omitempty"`

	// Its environment. It gets nothing of the gateway's own.
	Env map[string]string `json:"env,omitempty"`

	work *execMatcher
}

// CaddyModule returns the Caddy module information.
func (*ExecMatcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.matchers.exec", New: func() caddy.Module { return new(ExecMatcher) }}
}

// build checks that the program is there and is the right one. It starts nothing.
func (m *ExecMatcher) build(common gate.Matcher, logger *zap.Logger) (plugins.Matcher, error) {
	if err := expandPlaceholder("path", &m.Path); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(m.Path) {
		return nil, fmt.Errorf("%q is not an absolute path", m.Path)
	}
	c := host.Config{Path: filepath.Clean(m.Path), Decides: common.Decides, Timeout: common.Timeout, Logger: logger, Config: make(map[string]string)}
	var err error
	if c.Args, err = expanded("argument", m.Args); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(m.Config)) {
		value := m.Config[key]
		if err := replaced("config "+key, &value); err != nil {
			return nil, err
		}
		c.Config[key] = value
	}
	for _, name := range slices.Sorted(maps.Keys(m.Env)) {
		value := m.Env[name]
		if err := replaced("env "+name, &value); err != nil {
			return nil, err
		}
		c.Env = append(c.Env, name+"="+value)
	}
	if err := m.pin(&c); err != nil {
		return nil, err
	}
	if _, err := host.New(c); err != nil {
		return nil, err
	}
	m.work = &execMatcher{config: c, key: c.Key()}
	return m.work, nil
}

// pin says what vouches for the program.
func (m *ExecMatcher) pin(c *host.Config) error {
	if (m.SHA256 == "") == (m.SignedBy == "") {
		return errors.New("give either sha256 or signed_by")
	}
	if m.SHA256 != "" {
		if err := expandPlaceholder("sha256", &m.SHA256); err != nil {
			return err
		}
		sum, err := hex.DecodeString(m.SHA256)
		if err != nil || len(sum) != len(c.SHA256) || bytes.Equal(sum, c.SHA256[:]) { // 64 zeros are no checksum
			return errors.New("sha256: is not 64 hexadecimal digits of a checksum")
		}
		copy(c.SHA256[:], sum)
		return nil
	}
	if err := expandPlaceholder("signed_by", &m.SignedBy); err != nil {
		return err
	}
	key, err := hex.DecodeString(m.SignedBy)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(m.SignedBy)
	}
	if err != nil || len(key) != ed25519.PublicKeySize {
		return errors.New("signed_by: is not an Ed25519 public key: 32 bytes in hexadecimal or base64")
	}
	c.SignedBy = key
	return nil
}

// Cleanup gives the process back.
func (m *ExecMatcher) Cleanup() error {
	if m.work == nil {
		return nil
	}
	return m.work.release()
}

// execMatcher is the matcher at work.
type execMatcher struct {
	config host.Config
	key    string

	mu   sync.Mutex
	host *host.Host // nil before the first use; after release for requests that were in flight
	gone bool
}

// start is called on Start; a question that comes before does it too, since the
// HTTP app may start first.
func (m *execMatcher) start() error {
	_, err := m.running()
	return err
}

func (m *execMatcher) running() (*host.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host != nil {
		return m.host, nil
	}
	if m.gone {
		return nil, errCleanedUp
	}
	value, _, err := hosts.LoadOrNew(m.key, func() (caddy.Destructor, error) {
		h, err := host.New(m.config)
		if err != nil {
			return nil, err
		}
		h.Start()
		return pooledHost{h}, nil
	})
	if err != nil {
		return nil, err
	}
	m.host = value.(pooledHost).Host
	return m.host, nil
}

func (m *execMatcher) release() error {
	m.mu.Lock()
	held := m.host != nil && !m.gone
	m.gone = true
	m.mu.Unlock()
	if !held {
		return nil
	}
	_, err := hosts.Delete(m.key)
	return err
}

// Info describes the plugin as far as it is known.
func (m *execMatcher) Info() plugins.Info {
	if h := m.used(); h != nil {
		return h.Info()
	}
	return plugins.Info{Name: "exec", Decides: m.config.Decides}
}

// Match asks the plugin.
func (m *execMatcher) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	h, err := m.running()
	if err != nil {
		return plugins.Answer{}, err
	}
	return h.Match(ctx, r)
}

// Notified tells the plugin of an outcome.
func (m *execMatcher) Notified(ctx context.Context, o plugins.Outcome) error {
	h, err := m.running()
	if err != nil {
		return err
	}
	return h.Notified(ctx, o)
}

// WantsOutcomes reports whether the plugin has said that it wants to hear of them.
func (m *execMatcher) WantsOutcomes() bool {
	h := m.used()
	return h != nil && h.WantsOutcomes()
}

// Healthy reports what is known to be wrong with it. Before its first start
// nothing is.
func (m *execMatcher) Healthy() error {
	if h := m.used(); h != nil {
		return h.Healthy()
	}
	return nil
}

func (m *execMatcher) used() *host.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.host
}

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax, beside
// what all matchers have:
//
//	matcher exec <path> [<args>...] {
//		sha256    <hex>
//		signed_by <key>
//		config {
//			<key> <value>
//		}
//		env <name> <value>
//	}
func (m *ExecMatcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	m.Path, m.Args = args[0], args[1:]
	if m.Path == "" {
		return d.Err("matcher exec: the path is empty")
	}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if option != "env" {
			if err := seen.option(d); err != nil {
				return err
			}
		}
		var err error
		switch option {
		case "sha256":
			m.SHA256, err = oneArg(d)
		case "signed_by":
			m.SignedBy, err = oneArg(d)
		case "config":
			if d.NextArg() {
				return d.ArgErr()
			}
			m.Config = make(map[string]string)
			for inner := d.Nesting(); d.NextBlock(inner); {
				if err := pair(d, m.Config, d.Val()); err != nil {
					return err
				}
			}
		case "env":
			if m.Env == nil {
				m.Env = make(map[string]string)
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			err = pair(d, m.Env, d.Val())
		default:
			err = d.Errf("matcher exec: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pair reads the value of a key that the dispenser stands on.
func pair(d *caddyfile.Dispenser, into map[string]string, key string) error {
	if _, twice := into[key]; twice {
		return d.Errf("%s: stands twice", key)
	}
	if !d.NextArg() {
		return d.Errf("%s: has no value", key)
	}
	into[key] = d.Val()
	if d.NextArg() {
		return d.Errf("%s: has more than one value; quote it", key)
	}
	return nil
}

// expanded replaces placeholders in each of values.
func expanded(option string, values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		if err := replaced(option, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// replaced is expandPlaceholder for a value that may be empty.
func replaced(option string, value *string) error {
	if strings.TrimSpace(*value) == "" {
		return nil
	}
	return expandPlaceholder(option, value)
}

// Interface guards
var (
	_ matcherModule      = (*ExecMatcher)(nil)
	_ caddy.CleanerUpper = (*ExecMatcher)(nil)
	_ startedMatcher     = (*execMatcher)(nil)
	_ faultyMatcher      = (*execMatcher)(nil)
	_ choosyMatcher      = (*execMatcher)(nil)
	_ plugins.Notified   = (*execMatcher)(nil)
)
