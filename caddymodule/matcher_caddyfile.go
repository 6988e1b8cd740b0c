package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/scepgate/scepgate/gate"
)

// unmarshalMatcher parses what all matchers have in common, and leaves the rest
// of the block to the module. Syntax: see [App.UnmarshalCaddyfile].
func (p *Profile) unmarshalMatcher(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	kind := d.Val()
	id := "scep.matchers." + kind
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf("matcher: unknown matcher: %s", kind)
	}
	m := new(Matcher)
	first := d.Token()
	rest := []caddyfile.Token{first}
	for d.NextArg() {
		rest = append(rest, d.Token())
	}
	open := len(rest)
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		var err error
		switch option {
		case "name", "decides", "timeout", "reveal":
			if err := seen.option(d); err != nil {
				return err
			}
		}
		switch option {
		case "name":
			m.Name, err = oneArg(d)
		case "decides":
			m.Decides, err = someArgs(d)
		case "timeout":
			m.Timeout, err = duration(d, checkMatcherTimeout)
		case "reveal":
			m.Reveal, err = someArgs(d)
		default:
			if len(rest) == open {
				rest = append(rest, brace(first, "{"))
			}
			rest = append(rest, d.NextSegment()...)
			continue
		}
		if err != nil {
			return err
		}
		if err := noBlock(d); err != nil {
			return err
		}
	}
	if len(rest) > open {
		rest = append(rest, brace(rest[len(rest)-1], "}"))
	}
	segment := caddyfile.NewDispenser(rest)
	segment.Next() // its name
	module, err := caddyfile.UnmarshalModule(segment, id)
	if err != nil {
		return err
	}
	m.MatcherRaw = caddyconfig.JSONModuleObject(module, "type", kind, nil)
	p.Matchers = append(p.Matchers, m)
	return nil
}

// brace is one that stands after the line of t.
func brace(t caddyfile.Token, text string) caddyfile.Token {
	if text == "}" {
		t.Line++
	}
	t.Text = text
	return t
}

func checkMatcherTimeout(d time.Duration) error {
	if d <= 0 || d > gate.MaxMatcherTimeout {
		return fmt.Errorf("timeout: must be positive and at most %s", gate.MaxMatcherTimeout)
	}
	return nil
}

// UnmarshalCaddyfile takes no arguments and no options.
func (*ExactMatcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	if d.NextArg() {
		return d.ArgErr()
	}
	return noBlock(d)
}
