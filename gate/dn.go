package gate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/scepgate/scepgate/inspector"
)

// How long names may be in text for operators, and how many of them.
const (
	maxSubjectText = 512 // bytes
	maxSANText     = 256 // bytes, each
	maxSANTexts    = 16
)

// nameTypes are the attribute types that have a name. Where a type has two, the
// first is the one that is shown.
var nameTypes = [...]struct{ name, oid string }{
	{"CN", "2.5.4.3"},
	{"OU", "2.5.4.11"},
	{"O", "2.5.4.10"},
	{"L", "2.5.4.7"},
	{"ST", "2.5.4.8"},
	{"S", "2.5.4.8"}, // quirk: Windows and Intune write S for stateOrProvinceName
	{"C", "2.5.4.6"},
	{"DC", "0.9.2342.19200300.100.1.25"},
	{"STREET", "2.5.4.9"},
	{"emailAddress", "1.2.840.113549.1.9.1"},
	{"E", "1.2.840.113549.1.9.1"},
	{"serialNumber", "2.5.4.5"},
	{"UID", "0.9.2342.19200300.100.1.1"},
	{"T", "2.5.4.12"},
	{"GN", "2.5.4.42"},
	{"SN", "2.5.4.4"},
	{"unstructuredName", "1.2.840.113549.1.9.2"},
	{"unstructuredAddress", "1.2.840.113549.1.9.8"},
	{"dnQualifier", "2.5.4.46"},
}

// The attribute types that have rules of their own.
const (
	oidCN = "2.5.4.3"
	oidC  = "2.5.4.6"
	oidDC = "0.9.2342.19200300.100.1.25"
	oidE  = "1.2.840.113549.1.9.1"
)

// attributeOID turns the name or dotted OID of an attribute type into a dotted
// OID. RFC 4514 §3: names are case-insensitive.
func attributeOID(nameOrOID string) (string, bool) {
	for _, t := range nameTypes {
		if asciiLower(t.name) == asciiLower(nameOrOID) {
			return t.oid, true
		}
	}
	return nameOrOID, IsOID(nameOrOID)
}

// attributeName gives the name of an attribute type, or its OID.
func attributeName(oid string) string {
	for _, t := range nameTypes {
		if t.oid == oid {
			return t.name
		}
	}
	return oid
}

// errDN is what is wrong with a distinguished name as text.
var errDN = errors.New("not a distinguished name (RFC 4514)")

// parseDN reads RFC 4514 text into RDNs, in the order of the text. Values are
// decoded and not judged. A space before a type is let pass, as nearly everybody
// writes "CN=a, O=b"; the forms of older RFCs (quotes, semicolons) and #hex are not.
func parseDN(text string) ([][]attr, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var (
		rdns [][]attr
		rdn  []attr
		rest = text
	)
	for {
		rest = strings.TrimLeft(rest, " ")
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, fmt.Errorf("%w: %q has no '='", errDN, safe(rest, 64))
		}
		oid, ok := attributeOID(name)
		if !ok {
			return nil, fmt.Errorf("%w: attribute type %q is not known", errDN, safe(name, 64))
		}
		value, end, err := dnValue(after)
		if err != nil {
			return nil, fmt.Errorf("%w: value of %s: %v", errDN, attributeName(oid), err)
		}
		rdn = append(rdn, attr{oid, value})
		if end == len(after) {
			return append(rdns, rdn), nil
		}
		if after[end] == ',' {
			rdns, rdn = append(rdns, rdn), nil
		}
		rest = after[end+1:]
	}
}

// ParseSubject reads RFC 4514 text as a client would put it into a request: the
// last RDN of the text first (§2.1).
func ParseSubject(text string) ([]inspector.RDN, error) {
	parsed, err := parseDN(text)
	if err != nil {
		return nil, err
	}
	var subject []inspector.RDN
	for _, rdn := range slices.Backward(parsed) {
		var r inspector.RDN
		for _, a := range rdn {
			if a.Value == "" {
				return nil, fmt.Errorf("%w: %s has no value", errDN, attributeName(a.Type))
			}
			r = append(r, inspector.AttributeTypeAndValue{Type: a.Type, Value: a.Value})
		}
		subject = append(subject, r)
	}
	if len(subject) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errDN)
	}
	return subject, nil
}

// dnValue decodes the attribute value at the start of s and tells where it
// ends: at ',', '+' or the end (RFC 4514 §3).
func dnValue(s string) (value string, end int, err error) {
	if strings.HasPrefix(s, "#") {
		return "", 0, errors.New("#hex is not accepted, write the value as text")
	}
	if strings.HasPrefix(s, " ") {
		return "", 0, errors.New("a space at the start must be escaped")
	}
	var b strings.Builder
	bare := false // the last character is a space that was not escaped
	i := 0
	for ; i < len(s) && s[i] != ',' && s[i] != '+'; i++ {
		bare = s[i] == ' '
		switch s[i] {
		case '"', ';', '<', '>', 0:
			return "", 0, fmt.Errorf("%q must be escaped", s[i])
		case '\\':
			c, n, err := dnEscape(s[i+1:])
			if err != nil {
				return "", 0, err
			}
			b.WriteByte(c)
			i += n
		default:
			b.WriteByte(s[i])
		}
	}
	if bare {
		return "", 0, errors.New("a space at the end must be escaped")
	}
	if !utf8.ValidString(b.String()) {
		return "", 0, errors.New("is not UTF-8")
	}
	return b.String(), i, nil
}

// dnEscape decodes what follows a backslash: one special character, or one
// octet as two hexadecimal digits.
func dnEscape(s string) (c byte, n int, err error) {
	if s == "" {
		return 0, 0, errors.New("ends in a backslash")
	}
	if strings.IndexByte(`"+,;<> #=\`, s[0]) >= 0 {
		return s[0], 1, nil
	}
	if len(s) >= 2 {
		if v, err := strconv.ParseUint(s[:2], 16, 8); err == nil {
			return byte(v), 2, nil
		}
	}
	return 0, 0, errors.New("holds a backslash that escapes nothing")
}

// subjectText renders a request's subject for operators: RFC 4514, last RDN
// first (§2.1), at most 512 bytes, and nothing in it but what shows as what it is.
func subjectText(rdns []inspector.RDN) string {
	var b strings.Builder
	for i := len(rdns) - 1; i >= 0; i-- {
		if b.Len() > maxSubjectText {
			break
		}
		if i < len(rdns)-1 {
			b.WriteByte(',')
		}
		for j, a := range rdns[i] {
			if j > 0 {
				b.WriteByte('+')
			}
			b.WriteString(safe(attributeName(a.Type), maxSubjectText))
			b.WriteByte('=')
			b.WriteString(dnText(a.Value))
		}
	}
	return safe(b.String(), maxSubjectText)
}

// dnText escapes a value as RFC 4514 §2.4 does, and as hexadecimal pairs
// whatever does not show as what it is. A longer value than is shown is cut.
func dnText(value string) string {
	first := true
	out := bounded(value, maxSubjectText, func(b *strings.Builder, r rune, raw string) {
		switch {
		case r == utf8.RuneError && len(raw) == 1, !plainRune(r):
			for k := range len(raw) {
				fmt.Fprintf(b, `\%02X`, raw[k])
			}
		case strings.ContainsRune(`"+,;<>\`, r), first && (r == '#' || r == ' '):
			b.WriteByte('\\')
			b.WriteString(raw)
		default:
			b.WriteString(raw)
		}
		first = false
	})
	if strings.HasSuffix(out, " ") && len(value) > 1 {
		out = out[:len(out)-1] + `\ `
	}
	return out
}

// sanText renders alternative names for operators as type:value, each and their
// number bounded.
func sanText(names []inspector.GeneralName) []string {
	out := []string{}
	for i, n := range names {
		if i == maxSANTexts {
			return append(out, fmt.Sprintf("%s %d more", ellipsis, len(names)-i))
		}
		out = append(out, safe(n.Type+":"+n.Value, maxSANText))
	}
	return out
}
