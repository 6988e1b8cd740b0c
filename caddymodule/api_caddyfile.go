package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("scep_api", parseAPI)
	// With the authentication family, like scep_gateway: a handler that knows its
	// callers must not stand behind a handle or reverse_proxy that would hide it.
	httpcaddyfile.RegisterDirectiveOrder("scep_api", httpcaddyfile.After, "forward_auth")
}

func parseAPI(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(API)
	if err := h.UnmarshalCaddyfile(helper.Dispenser); err != nil {
		return nil, err
	}
	return h, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	scep_api {
//		clients    <file>
//		public_url <url>
//	}
func (h *API) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return d.Errf("scep_api: %s: stands twice", option)
		}
		seen[option] = true
		var target *string
		switch option {
		case "clients":
			target = &h.Clients
		case "public_url":
			target = &h.PublicURL
		default:
			return d.Errf("scep_api: unrecognized option: %s", option)
		}
		// An environment variable that is not set leaves no argument at all.
		if !d.NextArg() || strings.TrimSpace(d.Val()) == "" {
			return d.Errf("scep_api: %s: is empty", option)
		}
		*target = d.Val()
		if d.NextArg() || d.NextBlock(d.Nesting()) {
			return d.ArgErr()
		}
	}
	if h.Clients == "" {
		return d.Err("scep_api: clients: no file is named: an API without authentication is refused")
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*API)(nil)
