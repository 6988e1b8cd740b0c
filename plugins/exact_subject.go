package plugins

import "strings"

const maxAttributes = 64 // of a whole name, on either side

const oidCommonName = "2.5.4.3"

// subject compares names as multisets of RDNs, each a set of attributes. Order
// is free because the CA rebuilds it (architecture, C26); multiplicity is not.
// Patterns may fit more than one value, so it is a question of pairing off, not
// of finding each somewhere.
func (x *Exact) subject(want [][]ExpectedAttribute, got [][]NameAttribute) bool {
	if len(want) != len(got) {
		return false
	}
	names, asked, expected := 0, 0, 0
	for i := range got {
		if len(got[i]) == 0 || len(want[i]) == 0 {
			return false // threat C27
		}
		asked += len(got[i])
		expected += len(want[i])
		for _, a := range got[i] {
			if a.Type == oidCommonName {
				names++
			}
		}
	}
	if names > 1 {
		return false // threats B34, C24: readers differ in which one they take, so never, whatever is expected
	}
	if asked != expected || asked > maxAttributes {
		return false
	}
	fits := make([][]bool, len(got))
	for i := range got {
		fits[i] = make([]bool, len(want))
		for j := range want {
			fits[i][j] = x.rdn(want[j], got[i])
		}
	}
	return perfect(len(got), func(i, j int) bool { return fits[i][j] })
}

// rdn pairs the attributes of one RDN off (threat C25: its very form counts).
func (x *Exact) rdn(want []ExpectedAttribute, got []NameAttribute) bool {
	if len(want) != len(got) {
		return false
	}
	return perfect(len(got), func(i, j int) bool {
		w, g := &want[j], &got[i]
		return g.Type != "" && w.Type == g.Type && x.valueMatches(w.Match, w.Value, w.Values, g.Value, unchanged)
	})
}

// The texts are for operators: nothing is ever decided by comparing them (threat C43).

func subjectText(rdns [][]NameAttribute) string {
	var b strings.Builder
	for i, rdn := range rdns {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, a := range rdn {
			if j > 0 {
				b.WriteString(" + ")
			}
			b.WriteString(typeName(a.Type) + "=" + a.Value)
		}
	}
	return b.String()
}

func expectedSubjectText(rdns [][]ExpectedAttribute) string {
	var b strings.Builder
	for i, rdn := range rdns {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, a := range rdn {
			if j > 0 {
				b.WriteString(" + ")
			}
			b.WriteString(typeName(a.Type) + "=" + expectedText(a.Match, a.Value, a.Values))
		}
	}
	return b.String()
}

func expectedText(match, value string, values []string) string {
	switch match {
	case matchExact:
		return value
	case matchAny:
		return "(any)"
	case matchAnyOf:
		return "(any_of " + strings.Join(values, " | ") + ")"
	}
	return "(" + match + " " + value + ")"
}

func typeName(oid string) string {
	switch oid {
	case oidCommonName:
		return "CN"
	case "2.5.4.11":
		return "OU"
	case "2.5.4.10":
		return "O"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.6":
		return "C"
	case "2.5.4.5":
		return "serialNumber"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	}
	return oid
}
