// Package scepgate makes SCEP safe in front of a Microsoft CA that nobody is
// allowed to touch.
//
// This root package holds nothing but imports: it registers the rooms that
// Caddy must know, so that a Caddy built with
// github.com/scepgate/scepgate has them. A reader starts at
// caddymodule/handler.go.
package scepgate

import (
	_ "github.com/scepgate/scepgate/caddymodule"
)
