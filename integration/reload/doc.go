// Package reload changes the configuration of the real gateway binary while it
// works, and ends it while it works: the same store again, a broken
// configuration, another store, another RA pair, validate beside it, SIGTERM.
// Devices enrol all the while and none may notice; a store that stays is never
// closed, opened again or locked by another, which its lock file shows.
//
//	go test -v ./integration/reload -long
package reload
