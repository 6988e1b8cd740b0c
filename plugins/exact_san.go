package plugins

import (
	"net/netip"
	"slices"
	"strings"
)

const maxNames = 64 // alternative names of a request, and rules of an expectation

// san compares alternative names as sets: every name in the request is allowed
// by one rule, every rule gets its number of names, and none serves two rules
// (threats A02-A04). A name twice, in whatever spelling, is refused (C42).
func (x *Exact) san(want []ExpectedAltNames, got []AltName) bool {
	if len(want) > maxNames || len(got) > maxNames {
		return false
	}
	seen := make(map[AltName]bool, len(got))
	for _, g := range got {
		canon := canonical(g.Type)
		if canon == nil {
			return false // threats B37, B38: a type that cannot be expected
		}
		k := AltName{Type: g.Type, Value: canon(g.Value)}
		if k.Value == "" || seen[k] {
			return false
		}
		seen[k] = true
	}
	var due []int // rule numbers, as often as the rule must be met
	for j, w := range want {
		if w.Min < 0 || w.Max < 1 || w.Min > w.Max || canonical(w.Type) == nil {
			return false
		}
		if len(due)+w.Min > len(got) {
			return false
		}
		for range w.Min {
			due = append(due, j)
		}
	}
	fits := make([][]bool, len(got))
	for i, g := range got {
		fits[i] = make([]bool, len(want))
		for j, w := range want {
			fits[i][j] = w.Type == g.Type && x.valueMatches(w.Match, w.Value, w.Values, g.Value, canonical(w.Type))
		}
	}
	// If all names find a rule and all due places find a name, one assignment
	// does both (Mendelsohn and Dulmage).
	return assign(len(got), len(want), func(j int) int { return want[j].Max }, func(i, j int) bool { return fits[i][j] }) &&
		assign(len(due), len(got), one, func(i, j int) bool { return fits[j][due[i]] })
}

// canonical returns how values of a type are compared, nil for a type that
// cannot be expected. It maps to "" what no value may be.
func canonical(nameType string) func(string) string {
	switch nameType {
	case "dns":
		return lowerASCII
	case "upn":
		return lower
	case "email":
		return lowerDomain
	case "uri":
		return unchanged // threat C40: raw bytes, never a parsed URL's rendering
	case "ip":
		return octets
	}
	return nil
}

// lowerDomain folds what follows the last @; the local part is case-sensitive.
func lowerDomain(s string) string {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s
	}
	return s[:i+1] + lowerASCII(s[i+1:])
}

// octets gives one text per address and length; v4-mapped forms are two
// spellings of one address and none of ours (threat C38).
func octets(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return ""
	}
	return a.String()
}

func sanText(names []AltName) string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = n.Type + ":" + n.Value
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

func expectedSANText(rules []ExpectedAltNames) string {
	s := make([]string, len(rules))
	for i, r := range rules {
		s[i] = r.Type + ":" + expectedText(r.Match, r.Value, r.Values)
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}
