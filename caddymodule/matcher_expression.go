package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/expression"
)

func init() { caddy.RegisterModule(new(ExpressionMatcher)) }

// ExpressionMatcher is a condition in CEL, the Common Expression Language. It is
// compiled, and its types are checked, when the configuration is loaded.
type ExpressionMatcher struct {
	// The condition. It must be true for a request to be agreed to.
	Expression string `json:"expression,omitempty"`

	// The word that says why a request is refused when it is not. Default:
	// expression_false.
	Code string `json:"code,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*ExpressionMatcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.matchers.expression", New: func() caddy.Module { return new(ExpressionMatcher) }}
}

// build compiles it. Placeholders are not replaced: braces are CEL's own.
func (m *ExpressionMatcher) build(common gate.Matcher, _ *zap.Logger) (plugins.Matcher, error) {
	return expression.New(expression.Config{Expression: m.Expression, Code: m.Code, Decides: common.Decides, Reveal: common.Reveal})
}

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax, beside
// what all matchers have:
//
//	matcher expression <CEL> {
//		code <word>
//	}
func (m *ExpressionMatcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()                        // its name
	if d.CountRemainingArgs() > 1 { // not quoted as a whole: its own quotes count
		m.Expression = strings.Join(d.RemainingArgsRaw(), " ")
	} else if d.NextArg() {
		m.Expression = d.Val()
	}
	if m.Expression == "" {
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
		case "code":
			m.Code, err = oneArg(d)
		default:
			err = d.Errf("matcher expression: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	// Here it has a line. Whether the challenge is revealed to it is not known yet.
	if _, err := expression.New(expression.Config{Expression: m.Expression, Code: m.Code, Reveal: true}); err != nil {
		return d.Errf("matcher %v", err)
	}
	return nil
}

// Interface guard
var _ matcherModule = (*ExpressionMatcher)(nil)
