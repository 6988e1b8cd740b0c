package plugins

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

const (
	maxDecides = 16
	maxVersion = 64
)

var nameSyntax = regexp.MustCompile(`\A[a-z0-9_-]{1,48}\z`)

// check bounds what a matcher says of itself. A field that it does not know is
// none of its business: it can be asked for by nobody.
func (i Info) check() error {
	if !nameSyntax.MatchString(i.Name) {
		return errors.New("the matcher's name must be 1 to 48 of a-z, 0-9, _ and -")
	}
	if len(i.Version) > maxVersion || !printable(i.Version) {
		return fmt.Errorf("matcher %s: the version must be at most %d printable ASCII characters", i.Name, maxVersion)
	}
	if len(i.Decides) > maxDecides {
		return fmt.Errorf("matcher %s: it decides more than %d fields", i.Name, maxDecides)
	}
	for _, f := range i.Decides {
		if len(f) == 0 || len(f) > maxWord || !printable(string(f)) {
			return fmt.Errorf("matcher %s: it decides a field that is none", i.Name)
		}
	}
	return nil
}

// Validate checks what a matcher says of itself: the syntax, and that every
// field is one that this version knows, named once.
func (i Info) Validate() error {
	if err := i.check(); err != nil {
		return err
	}
	for n, f := range i.Decides {
		if !slices.Contains(fields, f) {
			return fmt.Errorf("matcher %s: unknown field %q in Decides", i.Name, f)
		}
		if slices.Contains(i.Decides[:n], f) {
			return fmt.Errorf("matcher %s: field %q twice in Decides", i.Name, f)
		}
	}
	return nil
}

var fields = append([]Field{Challenge}, exactFields...)

func (i Info) clone() Info {
	i.Decides = slices.Clone(i.Decides)
	return i
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
