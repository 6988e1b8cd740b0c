package caddymodule

import (
	"context"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/webhook"
)

func init() { caddy.RegisterModule(new(WebhookMatcher)) }

// WebhookMatcher asks an HTTP server of the operator's. It is the advised way
// for matchers in Python, .NET or Java.
type WebhookMatcher struct {
	// Where it is: http, https, or `unix//path` for a socket.
	URL string `json:"url,omitempty"`

	// What is spoken with it: `scepgate`, or `step_ca` for receivers of step-ca's
	// SCEPCHALLENGE webhook. Default: scepgate.
	Format string `json:"format,omitempty"`

	// The X-Smallstep-Webhook-ID of format step_ca.
	ID string `json:"id,omitempty"`

	// The file with the secret of the signature; base64 for format step_ca. Must
	// not be readable by everybody. Default: questions are not signed.
	SecretFile string `json:"secret_file,omitempty"`

	// Whether it is told what became of requests; not with format step_ca.
	Notify bool `json:"notify,omitempty"`

	work *webhookMatcher
}

// CaddyModule returns the Caddy module information.
func (*WebhookMatcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.matchers.webhook", New: func() caddy.Module { return new(WebhookMatcher) }}
}

// build checks the options and reads the secret. It connects to nothing.
func (m *WebhookMatcher) build(common gate.Matcher, logger *zap.Logger) (plugins.Matcher, error) {
	if err := expandPlaceholder("url", &m.URL); err != nil {
		return nil, err
	}
	if m.SecretFile != "" {
		if err := expandPlaceholder("secret_file", &m.SecretFile); err != nil {
			return nil, err
		}
	}
	w := &webhookMatcher{secretFile: m.SecretFile, logger: logger, config: webhook.Config{
		URL: m.URL, Format: webhook.Format(m.Format), ID: m.ID, Notify: m.Notify,
		Decides: common.Decides, Timeout: common.Timeout, Reveal: common.Reveal,
	}}
	if err := w.reload(); err != nil {
		return nil, err
	}
	m.work = w
	return w, nil
}

// Cleanup closes idle connections.
func (m *WebhookMatcher) Cleanup() error {
	if m.work == nil {
		return nil
	}
	return m.work.current.Load().Close()
}

// webhookMatcher is the matcher at work, with the secret as its file has it now.
type webhookMatcher struct {
	config     webhook.Config
	secretFile string
	logger     *zap.Logger
	current    atomic.Pointer[webhook.Matcher]
}

func (w *webhookMatcher) files() []string {
	if w.secretFile == "" {
		return nil
	}
	return []string{w.secretFile}
}

func (w *webhookMatcher) reload() error {
	c := w.config
	if w.secretFile != "" {
		raw, warning, err := readSecretFile("secret_file", w.secretFile)
		if err != nil {
			return err
		}
		if warning != "" {
			w.logger.Warn(warning)
		}
		if c.Secret, err = webhook.ParseSecret(c.Format, raw); err != nil {
			return err
		}
	}
	m, err := webhook.New(c)
	if err != nil {
		return err
	}
	if old := w.current.Swap(m); old != nil {
		return old.Close()
	}
	return nil
}

// Info describes it.
func (w *webhookMatcher) Info() plugins.Info { return w.current.Load().Info() }

// Match asks the server.
func (w *webhookMatcher) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	return w.current.Load().Match(ctx, r)
}

// Notified tells the server of an outcome.
func (w *webhookMatcher) Notified(ctx context.Context, o plugins.Outcome) error {
	return w.current.Load().Notified(ctx, o)
}

// WantsOutcomes reports whether the configuration says so.
func (w *webhookMatcher) WantsOutcomes() bool { return w.config.Notify }

// Healthy reports whether the server is not known to be down.
func (w *webhookMatcher) Healthy() error { return w.current.Load().Healthy() }

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax, beside
// what all matchers have:
//
//	matcher webhook <url>|unix/<path> {
//		format      scepgate|step_ca
//		id          <id>
//		secret_file <file>
//		notify
//	}
func (m *WebhookMatcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	if !d.NextArg() {
		return d.ArgErr()
	}
	if m.URL = d.Val(); m.URL == "" {
		return d.Err("matcher webhook: the url is empty")
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var err error
		switch option {
		case "format":
			if m.Format, err = oneArg(d); err == nil && m.Format != string(webhook.Scepgate) && m.Format != string(webhook.StepCA) {
				err = d.Errf("format: %q is neither %s nor %s", m.Format, webhook.Scepgate, webhook.StepCA)
			}
		case "id":
			m.ID, err = oneArg(d)
		case "secret_file":
			m.SecretFile, err = oneArg(d)
		case "notify":
			if d.NextArg() {
				return d.ArgErr()
			}
			m.Notify = true
		default:
			err = d.Errf("matcher webhook: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ matcherModule      = (*WebhookMatcher)(nil)
	_ caddy.CleanerUpper = (*WebhookMatcher)(nil)
	_ watchedMatcher     = (*webhookMatcher)(nil)
	_ faultyMatcher      = (*webhookMatcher)(nil)
	_ choosyMatcher      = (*webhookMatcher)(nil)
	_ plugins.Notified   = (*webhookMatcher)(nil)
)
