package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
)

// Matcher is one `matcher` of a profile: what has a say in who may enrol,
// besides `exact`, which always runs.
type Matcher struct {
	// A name of its own, for logs and metrics. Default: the module's.
	Name string `json:"name,omitempty"`

	// The fields that it takes over from `exact`: subject, san, sid, key_usage,
	// ext_key_usage, and challenge, with which it is a source for `challenge
	// matcher`. Without any it can only object.
	Decides []string `json:"decides,omitempty"`

	// How long one question may take. At most 5s. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// What it is shown besides the facts. The only word is `challenge`: the
	// challenge, and the request itself, which holds it.
	Reveal []string `json:"reveal,omitempty"`

	// What it is.
	MatcherRaw json.RawMessage `json:"matcher,omitempty" caddy:"namespace=scep.matchers inline_key=type"`
}

const (
	revealChallenge       = "challenge"
	defaultMatcherTimeout = 2 * time.Second
)

// matcherModule is a module of our own: it makes its matcher of itself and of
// what all matchers have in common. A module of somebody else's is a
// plugins.Matcher itself.
type matcherModule interface {
	build(common gate.Matcher, logger *zap.Logger) (plugins.Matcher, error)
}

// Optional faces of a matcher.
type (
	// faultyMatcher can be known to be down, which refuses every message before
	// any private-key operation.
	faultyMatcher interface{ Healthy() error }
	// startedMatcher does something that it must not do while it is only checked.
	startedMatcher interface{ start() error }
	// watchedMatcher has read files, and reads them again when they have changed.
	watchedMatcher interface {
		files() []string
		reload() error
	}
	// choosyMatcher tells only at work whether it wants to hear of outcomes.
	choosyMatcher interface{ WantsOutcomes() bool }
)

// normalizeMatchers fills in the defaults and checks everything that needs no module.
func (p *Profile) normalizeMatchers() error {
	seen := map[string]bool{"exact": true}
	source := false
	for _, m := range p.Matchers {
		if m == nil {
			return errors.New("matcher: is empty")
		}
		kind, err := m.kind()
		if err != nil {
			return err
		}
		if m.Name == "" && kind != "exact" {
			m.Name = kind
			for i := 2; seen[m.Name]; i++ {
				m.Name = kind + "_" + strconv.Itoa(i)
			}
		}
		if kind == "exact" {
			if m.Name != "" || len(m.Decides)+len(m.Reveal) > 0 || m.Timeout != 0 {
				return errors.New("matcher exact: always runs, and takes no options")
			}
			continue
		}
		if !namePattern.MatchString(m.Name) || seen[m.Name] {
			return fmt.Errorf("matcher %s: name %q: must be up to 64 letters, digits, '_', '.' or '-', and no other's", kind, m.Name)
		}
		seen[m.Name] = true
		option := "matcher " + m.Name
		for i, field := range m.Decides {
			if !slices.Contains(gate.Decidable, plugins.Field(field)) {
				return fmt.Errorf("%s: decides %q: a matcher can decide %s", option, field, fieldList(gate.Decidable))
			}
			if slices.Contains(m.Decides[:i], field) {
				return fmt.Errorf("%s: decides %s: stands twice", option, field)
			}
			source = source || field == string(plugins.Challenge)
		}
		for _, what := range m.Reveal {
			if what != revealChallenge {
				return fmt.Errorf("%s: reveal %q: the only word is %s", option, what, revealChallenge)
			}
		}
		if m.Timeout == 0 {
			m.Timeout = caddy.Duration(defaultMatcherTimeout)
		}
		if m.Timeout < 0 || time.Duration(m.Timeout) > gate.MaxMatcherTimeout {
			return fmt.Errorf("%s: timeout: must be positive and at most %s", option, gate.MaxMatcherTimeout)
		}
	}
	switch asked := p.Challenge.Source == string(gate.SourceMatcher); {
	case asked && !source:
		return errors.New("challenge matcher: no matcher decides challenge")
	case source && !asked:
		return errors.New("matcher: one that decides challenge is for `challenge matcher`")
	}
	return nil
}

// kind is the module's name.
func (m *Matcher) kind() (string, error) {
	var module struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(m.MatcherRaw, &module); err != nil || module.Type == "" {
		return "", errors.New("matcher: says not what it is")
	}
	return module.Type, nil
}

func fieldList(fields []plugins.Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = string(f)
	}
	return strings.Join(words, " ")
}

// provisionMatchers loads the modules of a profile. It starts nothing.
func (a *App) provisionMatchers(ctx caddy.Context, r *running) error {
	for _, m := range r.config.Matchers {
		module, err := ctx.LoadModule(m, "MatcherRaw")
		if err != nil {
			return fmt.Errorf("matcher: %w", err)
		}
		if _, ok := module.(*ExactMatcher); ok {
			continue // it is there
		}
		common := gate.Matcher{
			Name: m.Name, Timeout: time.Duration(m.Timeout), Reveal: slices.Contains(m.Reveal, revealChallenge),
		}
		for _, field := range m.Decides {
			common.Decides = append(common.Decides, plugins.Field(field))
		}
		logger := a.logger.Named("matcher").With(zap.String("profile", r.name), zap.String("matcher", m.Name))
		switch module := module.(type) {
		case matcherModule:
			if common.Matcher, err = module.build(common, logger); err != nil {
				return fmt.Errorf("matcher %s: %w", m.Name, err)
			}
		case plugins.Matcher:
			common.Matcher = module
		default:
			return fmt.Errorf("matcher %s: %T is not a matcher", m.Name, module)
		}
		if _, ok := common.Matcher.(plugins.Notified); ok {
			common.Notify = func() bool { return true }
			if choosy, ok := common.Matcher.(choosyMatcher); ok {
				common.Notify = choosy.WantsOutcomes
			}
		}
		if w, ok := common.Matcher.(watchedMatcher); ok && len(w.files()) > 0 {
			a.watch("matcher "+m.Name+" of profile "+r.name, w.files(), w.reload)
			if err := w.reload(); err != nil { // they may have changed since
				return fmt.Errorf("matcher %s: %w", m.Name, err)
			}
		}
		r.matchers = append(r.matchers, common)
	}
	return nil
}

// startMatchers starts what was only checked before.
func (r *running) startMatchers() error {
	for _, m := range r.matchers {
		if s, ok := m.Matcher.(startedMatcher); ok {
			if err := s.start(); err != nil {
				return fmt.Errorf("profile %s: matcher %s: %w", r.name, m.Name, err)
			}
		}
	}
	return nil
}

// matcherDown names a matcher that is known to be down.
func (r *running) matcherDown() (finding gate.Finding, down bool) {
	for _, m := range r.matchers {
		if f, ok := m.Matcher.(faultyMatcher); ok {
			if err := f.Healthy(); err != nil {
				return gate.FailedMatcher(m.Name, err), true
			}
		}
	}
	return gate.Finding{}, false
}

// ExactMatcher is `matcher exact`, which need not be written: it always runs.
// It compares what a request asks for with the expectation, field by field, and
// refuses what it does not expect.
type ExactMatcher struct{}

// CaddyModule returns the Caddy module information.
func (*ExactMatcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.matchers.exact", New: func() caddy.Module { return new(ExactMatcher) }}
}

// Info describes it.
func (*ExactMatcher) Info() plugins.Info { return new(plugins.Exact).Info() }

// Match is for whoever asks the module itself; the gateway has its own.
func (*ExactMatcher) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	return new(plugins.Exact).Match(ctx, r)
}
