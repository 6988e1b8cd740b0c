package plugins

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The match kinds of an expected value. An unknown or empty one never matches.
const (
	matchExact           = "exact"
	matchExactIgnoreCase = "exact_ignore_case"
	matchAnyOf           = "any_of"
	matchPrefix          = "prefix"
	matchAny             = "any"
	matchRegex           = "regex"
)

const (
	maxPattern  = 1024 // characters of a regular expression
	maxCompiled = 256  // expressions kept; over it all are dropped and compiled anew
)

// valueMatches compares one value. Values are compared byte for byte; canon is
// applied to both sides first (the identity for names, folding for alternative
// names), and an expression sees the canonical form. An empty value matches
// nothing.
func (x *Exact) valueMatches(match, want string, wants []string, got string, canon func(string) string) bool {
	if got = canon(got); got == "" {
		return false
	}
	switch match {
	case matchExact:
		return got == canon(want)
	case matchExactIgnoreCase:
		return lower(got) == lower(canon(want))
	case matchAnyOf:
		return slices.ContainsFunc(wants, func(w string) bool { return got == canon(w) })
	case matchPrefix:
		// An empty prefix would be "any" under another name.
		w := canon(want)
		return w != "" && strings.HasPrefix(got, w)
	case matchAny:
		return true
	case matchRegex:
		re := x.expression(want)
		return re != nil && re.MatchString(got)
	}
	return false
}

// lower ignores case, but turns no other letter into an ASCII one: the Kelvin
// sign U+212A is not a k (threat C34).
func lower(s string) string {
	if !utf8.ValidString(s) {
		return s // replacement characters would make different bytes equal
	}
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); r < utf8.RuneSelf || l >= utf8.RuneSelf {
			return l
		}
		return r
	}, s)
}

// lowerASCII folds A-Z only.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}

func unchanged(s string) string { return s }

// patterns keeps compiled expressions. RE2 has no backtracking, and the length
// of both pattern and text is bounded.
type patterns struct {
	mu sync.Mutex
	m  map[string]*regexp.Regexp
}

// expression returns the anchored expression, or nil if it is none.
func (x *Exact) expression(pattern string) *regexp.Regexp {
	if pattern == "" || len(pattern) > maxPattern {
		return nil
	}
	p := &x.patterns
	p.mu.Lock()
	defer p.mu.Unlock()
	if re, ok := p.m[pattern]; ok {
		return re
	}
	// By itself first: "a)|(b" compiles only inside the anchors, and escapes them.
	var re *regexp.Regexp
	if _, err := regexp.Compile(pattern); err == nil {
		re, _ = regexp.Compile(`\A(?:` + pattern + `)\z`)
	}
	if p.m == nil || len(p.m) >= maxCompiled {
		p.m = make(map[string]*regexp.Regexp)
	}
	p.m[pattern] = re
	return re
}
