package view

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/scepgate/scepgate/plugins"
)

// decidable are the fields that a configuration can give to a matcher.
var decidable = []plugins.Field{
	plugins.Challenge, plugins.Subject, plugins.SAN, plugins.SID, plugins.KeyUsage, plugins.ExtKeyUsage,
}

// CheckDecides reports what is wrong with the fields that a matcher is given.
func CheckDecides(fields []plugins.Field) error {
	for i, f := range fields {
		if !slices.Contains(decidable, f) {
			return fmt.Errorf("decides %q: no field that a matcher can decide", f)
		}
		if slices.Contains(fields[:i], f) {
			return fmt.Errorf("decides %q twice", f)
		}
	}
	return nil
}

// Beyond returns the first field in asked that decides lacks, if any: nobody
// may answer for what the configuration did not give him.
func Beyond(decides, asked []plugins.Field) (plugins.Field, bool) {
	for _, f := range asked {
		if !slices.Contains(decides, f) {
			return f, true
		}
	}
	return "", false
}

// Code is the syntax of the word with which a matcher refuses.
var Code = regexp.MustCompile(`^[a-z0-9_]{1,48}$`)

// Asks reports whether f is a request at all: every request has a key. To an
// empty question nobody agrees.
func Asks(f *plugins.Facts) bool { return f.KeyBits > 0 && f.SPKISHA256 != "" }
