// Command scepgate is Caddy with its standard modules and the rooms of this
// project.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/scepgate/scepgate"
)

func main() { caddycmd.Main() }
