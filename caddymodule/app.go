package caddymodule

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
)

// App is the Caddy app `scep`.
type App struct {
	StoreRaw         json.RawMessage     `json:"store,omitempty" caddy:"namespace=scep.stores inline_key=engine"`
	ChallengeKeyFile string              `json:"challenge_key_file,omitempty"`
	Profiles         map[string]*Profile `json:"profiles,omitempty"`
}

// Profile is one `profile` block.
type Profile struct{}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep", New: func() caddy.Module { return new(App) }}
}

// lease gives the store for one request. It opens the store on first use.
func (a *App) lease() (storeLease, error) { panic("unwritten") }

// profile returns the named profile, or nil.
func (a *App) profile(name string) *running { panic("unwritten") }
