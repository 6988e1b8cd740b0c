// Package webhook is a matcher that asks an HTTP server of the operator's: one
// POST of JSON for each question, and JSON for the answer. The server is
// trusted to decide what it was given to decide, and nothing else: its answers
// are bounded, and what is not understood is no agreement. The one call is [New].
package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/breaker"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

// Format is what is spoken with the server.
type Format string

// The formats.
const (
	Scepgate Format = "scepgate" // the one of this package, and the default
	StepCA   Format = "step_ca"  // the SCEPCHALLENGE webhook of step-ca
)

// The codes with which this package itself refuses.
const (
	CodeRefused = "webhook_refused" // the answer has no code of its own

	codeVerdict  = "verdict_unknown"
	codeFindings = "agreement_with_findings"
	codeUTF8     = "not_utf8"
	codeField    = "field_not_decided"
	codeEmpty    = "request_empty"
	codeParse    = "request_unreadable"
	codeSubject  = "subject_not_shown"
	codeSAN      = "san_not_shown"
	codeSID      = "sid_not_shown"
)

// DefaultTimeout is that of one question.
const DefaultTimeout = 2 * time.Second

// Config configures a matcher.
type Config struct {
	URL     string // http, https, or unix//path
	Secret  []byte // of the signature, as ParseSecret returns it; nil: unsigned
	Format  Format // Scepgate if empty
	ID      string // StepCA: the X-Smallstep-Webhook-ID
	Decides []plugins.Field
	Timeout time.Duration // of one question; DefaultTimeout if 0
	Reveal  bool          // the body has the challenge and the PKCS#10
	Notify  bool          // outcomes are posted too; Scepgate only

	Now func() time.Time // the clock; time.Now if nil
}

// Matcher asks one server.
type Matcher struct {
	config    Config
	endpoint  string
	transport *http.Transport
	breaker   *breaker.Breaker
}

// New checks a configuration. It connects to nothing.
func New(c Config) (*Matcher, error) {
	if c.Format == "" {
		c.Format = Scepgate
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Decides, c.Secret = slices.Clone(c.Decides), slices.Clone(c.Secret)
	at, err := parseURL(c.URL)
	if err == nil {
		err = c.check(at)
	}
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Matcher{config: c, endpoint: at.url, transport: at.transport(c.Reveal), breaker: breaker.New(c.Now)}, nil
}

func (c *Config) check(at *address) error {
	if err := view.CheckDecides(c.Decides); err != nil {
		return err
	}
	if c.Timeout < 0 {
		return errors.New("timeout is negative")
	}
	if c.Secret != nil && len(c.Secret) < minSecret {
		return fmt.Errorf("the secret is shorter than %d bytes", minSecret)
	}
	// Whoever is on the way could read the challenge, or agree in the server's place.
	if at.exposed && (c.Reveal || len(c.Decides) > 0) {
		return errors.New("plain http to another host; use https where anything is decided or revealed")
	}
	switch c.Format {
	case Scepgate:
		if c.ID != "" {
			return errors.New("an id goes with format step_ca")
		}
	case StepCA:
		return c.checkStepCA()
	default:
		return fmt.Errorf("unknown format %q", c.Format)
	}
	return nil
}

// Info names the fields that the server was given.
func (m *Matcher) Info() plugins.Info {
	return plugins.Info{Name: "webhook", Version: "1", Decides: slices.Clone(m.config.Decides)}
}

// Healthy is an error while the server is not asked, after failures in a row.
func (m *Matcher) Healthy() error {
	if err := m.breaker.Healthy(); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}

// Close closes idle connections. Questions in flight go on.
func (m *Matcher) Close() error {
	m.transport.CloseIdleConnections()
	return nil
}

// Match asks the server. An error says that nothing could be decided, and never
// holds what was sent or answered.
func (m *Matcher) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Answer{}, fmt.Errorf("webhook: %w", err)
	}
	if a, refused := m.unaskable(&r); refused {
		return a, nil
	}
	as, hidden := m.stepCA(&r)
	if m.config.Format == StepCA && hidden != nil {
		return *hidden, nil
	}
	body, err := m.body(&r, as)
	if err != nil {
		return plugins.Answer{}, errors.New("webhook: the question cannot be written down")
	}
	answer, allowed, err := m.ask(ctx, body)
	if err != nil {
		return plugins.Answer{}, fmt.Errorf("webhook: %w", err)
	}
	if allowed && hidden != nil { // who speaks step-ca's words has read step-ca's words
		return *hidden, nil
	}
	return m.presentable(answer, &r), nil
}

// unaskable refuses what must not reach the server, or would reach it as
// something else.
func (m *Matcher) unaskable(r *plugins.Request) (plugins.Answer, bool) {
	if field, beyond := view.Beyond(m.config.Decides, r.Decides); beyond {
		return plugins.Answer{Code: codeField, Findings: []plugins.Finding{{Field: field}}}, true
	}
	if !view.Asks(&r.Facts) {
		return plugins.Answer{Code: codeEmpty}, true
	}
	if !utf8Throughout(&r.Facts) { // JSON has replacement characters where the certificate would have bytes
		return plugins.Answer{Code: codeUTF8}, true
	}
	return plugins.Answer{}, false
}

// ask posts one question, unless the breaker is open, and reads the answer. For
// the breaker only counts whether the server answers in time.
func (m *Matcher) ask(ctx context.Context, body []byte) (answer plugins.Answer, allowed bool, err error) {
	done, err := m.breaker.Allow()
	if err != nil {
		return plugins.Answer{}, false, err
	}
	result := breaker.Failed
	defer func() { done(result) }()

	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	text, err := m.post(ctx, body)
	if err != nil {
		if heard := (unusable{}); errors.As(err, &heard) {
			result = breaker.Answered
		}
		if errors.Is(ctx.Err(), context.Canceled) { // by the asker: cancel was not called yet
			result = breaker.Abandoned
		}
		return plugins.Answer{}, false, err
	}
	parse := parseAnswer
	if m.config.Format == StepCA {
		parse = parseStepCAAnswer
	}
	result = breaker.Answered
	return parse(text)
}

func utf8Throughout(f *plugins.Facts) bool {
	for _, rdn := range f.Subject {
		for _, a := range rdn {
			if !utf8.ValidString(a.Type) || !utf8.ValidString(a.Value) {
				return false
			}
		}
	}
	for _, n := range f.SAN {
		if !utf8.ValidString(n.Type) || !utf8.ValidString(n.Value) {
			return false
		}
	}
	for _, list := range [][]string{f.SIDs, f.KeyUsage, f.ExtKeyUsage, f.ApplicationPolicies, {f.Template, f.RequestTemplateName, f.RequestTemplateOID}} {
		if !slices.ContainsFunc(list, func(s string) bool { return !utf8.ValidString(s) }) {
			continue
		}
		return false
	}
	return true
}
