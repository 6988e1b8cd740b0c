// Package caddymodule is everything that knows Caddy: the app, the handlers, the
// Caddyfile, the commands, and the life of what outlives a configuration.
//
// It decides nothing about requests: package inspector reads them, package gate
// judges them. It trusts its configuration and the files that it names, and
// nothing that comes over the network. Whatever goes wrong here refuses.
//
// # Modules
//
//	scep                        the app: store and profiles (global option scep)
//	scep.stores.badger          an embedded database
//	scep.stores.memory          nothing on disk
//	http.handlers.scep_gateway  devices; ordered after forward_auth
//	http.handlers.scep_api      MDMs
//
// # Life
//
// Caddy provisions a new configuration beside the running one, starts it, and
// then stops and cleans up the old one, while requests of the old one are still
// in flight. `validate` provisions and goes no further. Hence:
//
//   - Provision reads and checks; it creates, opens and locks nothing.
//   - Start, or a request that comes before it, opens the store, makes the
//     challenge key if there is neither a key nor data, and compiles the profiles.
//   - An open store is pooled by what it is, so that the next configuration finds
//     it open. Each request leases it; it is closed when no configuration uses it
//     and the leases have come back, or have had their time.
//   - Start also begins to fetch the CRLs that are at URLs, and Stop ends it. What
//     was fetched is pooled by its URL, as the store is.
//   - A profile's files are looked at every 30 seconds. New content is used if it
//     is valid as a whole; a request keeps what it began with.
//
// The one call for a handler is App.lease, then running.files.
package caddymodule
