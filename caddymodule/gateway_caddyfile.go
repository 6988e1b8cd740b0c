package caddymodule

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("scep_gateway", parseGateway)
	// With the gates, not next to reverse_proxy: a handler ordered there is
	// skipped where the site has a `handle` block.
	httpcaddyfile.RegisterDirectiveOrder("scep_gateway", httpcaddyfile.After, "forward_auth")
}

// defaultPaths are the URLs by which devices reach NDES.
var defaultPaths = []string{
	"/certsrv/mscep",
	"/certsrv/mscep/",
	"/certsrv/mscep/mscep.dll",
	"/certsrv/mscep/mscep.dll/pkiclient.exe",
}

// Bounds of the options.
const (
	defaultMaxMessage = 64 << 10
	minMaxMessage     = 4 << 10
	maxMaxMessage     = 256 << 10 // threat E11
	maxMaxConcurrent  = 4096
)

func parseGateway(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	g := new(Gateway)
	if err := g.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return g, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	scep_gateway <profile> {
//		path             <path>...
//		max_message      <size>
//		ca_cache         <duration>
//		refusal_floor    <duration>
//		upstream_timeout <duration>
//		max_concurrent   <number>
//		health           <path>
//	}
func (g *Gateway) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if !d.AllArgs(&g.Profile) {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		if seen[option] {
			return d.Errf("%s stands twice", option)
		}
		seen[option] = true
		args := d.RemainingArgs()
		if len(args) == 0 || len(args) > 1 && option != "path" {
			return d.ArgErr()
		}
		if err := g.setOption(option, args); err != nil {
			return d.Errf("%s: %v", option, err)
		}
	}
	if err := g.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (g *Gateway) setOption(option string, args []string) error {
	switch option {
	case "path":
		g.Paths = args
	case "health":
		g.Health = args[0]
	case "max_message":
		size, err := humanize.ParseBytes(args[0])
		if err != nil {
			return err
		}
		if size == 0 || size > math.MaxInt32 {
			return fmt.Errorf("%s is out of bounds", args[0])
		}
		g.MaxMessage = int64(size)
	case "max_concurrent":
		n, err := strconv.Atoi(args[0])
		if err != nil || n <= 0 {
			return fmt.Errorf("%q is not a positive number", args[0])
		}
		g.MaxConcurrent = n
	case "ca_cache":
		return setDuration(&g.CACache, args[0])
	case "refusal_floor":
		return setDuration(&g.RefusalFloor, args[0])
	case "upstream_timeout":
		return setDuration(&g.UpstreamTimeout, args[0])
	default:
		return errors.New("unrecognized option")
	}
	return nil
}

func setDuration(to *caddy.Duration, text string) error {
	d, err := caddy.ParseDuration(text)
	if err != nil {
		return err
	}
	if d <= 0 {
		return fmt.Errorf("%s is not positive", text)
	}
	*to = caddy.Duration(d)
	return nil
}

// normalize checks the options and fills in the defaults.
func (g *Gateway) normalize() error {
	if err := g.check(); err != nil {
		return fmt.Errorf("scep_gateway: %w", err)
	}
	if len(g.Paths) == 0 {
		g.Paths = slices.Clone(defaultPaths)
	}
	if g.MaxMessage == 0 {
		g.MaxMessage = defaultMaxMessage
	}
	if g.MaxConcurrent == 0 {
		g.MaxConcurrent = 64
	}
	for _, d := range g.durations() {
		if *d.value == 0 {
			*d.value = caddy.Duration(d.byDefault)
		}
	}
	return nil
}

type gatewayDuration struct {
	name                string
	value               *caddy.Duration
	byDefault, min, max time.Duration
}

func (g *Gateway) durations() []gatewayDuration {
	return []gatewayDuration{
		{"ca_cache", &g.CACache, time.Minute, time.Second, 24 * time.Hour},
		{"refusal_floor", &g.RefusalFloor, 250 * time.Millisecond, time.Millisecond, 10 * time.Second},
		{"upstream_timeout", &g.UpstreamTimeout, time.Minute, time.Second, 10 * time.Minute},
	}
}

// check reports the first option that cannot be. A zero option has its default.
func (g *Gateway) check() error {
	if g.Profile == "" {
		return errors.New("a profile is required")
	}
	for i, path := range g.Paths {
		if !plainPath(path) {
			return fmt.Errorf("path: %q is not a path that could be asked for", path)
		}
		if slices.ContainsFunc(g.Paths[:i], func(p string) bool { return sameFold(p, path) }) {
			return fmt.Errorf("path: %q stands twice", path)
		}
	}
	if g.Health != "" && !plainPath(g.Health) {
		return fmt.Errorf("health: %q is not a path that could be asked for", g.Health)
	}
	paths := g.Paths
	if len(paths) == 0 {
		paths = defaultPaths
	}
	if slices.ContainsFunc(paths, func(p string) bool { return sameFold(p, g.Health) }) {
		return fmt.Errorf("health: %q is one of path", g.Health)
	}
	if g.MaxMessage != 0 && (g.MaxMessage < minMaxMessage || g.MaxMessage > maxMaxMessage) {
		return fmt.Errorf("max_message: %d is not between %d and %d bytes", g.MaxMessage, minMaxMessage, maxMaxMessage)
	}
	if g.MaxConcurrent < 0 || g.MaxConcurrent > maxMaxConcurrent {
		return fmt.Errorf("max_concurrent: %d is not between 1 and %d", g.MaxConcurrent, maxMaxConcurrent)
	}
	for _, d := range g.durations() {
		if v := time.Duration(*d.value); v != 0 && (v < d.min || v > d.max) {
			return fmt.Errorf("%s: %s is not between %s and %s", d.name, v, d.min, d.max)
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Gateway)(nil)
