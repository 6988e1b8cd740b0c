package caddymodule

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/inspector"
)

// subjectTypes are the names of attribute types, in lower case (contract §4.1).
var subjectTypes = map[string]string{
	"cn": "2.5.4.3", "sn": "2.5.4.4", "serialnumber": "2.5.4.5", "c": "2.5.4.6", "l": "2.5.4.7",
	"st": "2.5.4.8", "s": "2.5.4.8", "street": "2.5.4.9", "o": "2.5.4.10", "ou": "2.5.4.11",
	"t": "2.5.4.12", "gn": "2.5.4.42", "dnqualifier": "2.5.4.46",
	"uid": "0.9.2342.19200300.100.1.1", "dc": "0.9.2342.19200300.100.1.25",
	"e": "1.2.840.113549.1.9.1", "emailaddress": "1.2.840.113549.1.9.1",
	"unstructuredname": "1.2.840.113549.1.9.2", "unstructuredaddress": "1.2.840.113549.1.9.8",
}

var dottedOID = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9})){1,20}$`)

// parseSubject reads a distinguished name as RFC 4514 writes it. The last RDN of
// the text is the first of the name (§2.1).
func parseSubject(text string) ([]inspector.RDN, error) {
	var subject []inspector.RDN
	rdn := inspector.RDN{}
	for rest := text; ; {
		attribute, separator, after, err := parseAttribute(rest)
		if err != nil {
			return nil, err
		}
		rdn = append(rdn, attribute)
		if separator != '+' {
			subject = append(subject, rdn)
			rdn = inspector.RDN{}
		}
		if separator == 0 {
			slices.Reverse(subject)
			return subject, nil
		}
		rest = after
	}
}

// parseAttribute reads `type=value` up to an unescaped , or + or the end.
func parseAttribute(text string) (a inspector.AttributeTypeAndValue, separator byte, rest string, err error) {
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimSpace(name)
	if !ok {
		return a, 0, "", fmt.Errorf("%q is not type=value", printable(text, 60))
	}
	if a.Type, ok = subjectTypes[strings.ToLower(name)]; !ok {
		if !dottedOID.MatchString(name) {
			return a, 0, "", fmt.Errorf("attribute type %q is not known", printable(name, 60))
		}
		a.Type = name
	}
	value = strings.TrimLeft(value, " ")
	if strings.HasPrefix(value, "#") {
		return a, 0, "", errors.New("values in hexadecimal form are not accepted")
	}
	var b strings.Builder
	keep := 0 // trailing spaces count only if they are escaped
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == ',' || c == '+':
			separator, rest = c, value[i+1:]
			a.Value = b.String()[:keep]
			return a, separator, rest, nonEmpty(a)
		case c == '\\' && isHex(value[i+1:min(i+3, len(value))]):
			octet, _ := hex.DecodeString(value[i+1 : i+3])
			b.WriteByte(octet[0])
			i += 2
			keep = b.Len()
		case c == '\\' && i+1 < len(value):
			b.WriteByte(value[i+1])
			i++
			keep = b.Len()
		case c == '\\':
			return a, 0, "", errors.New("a backslash ends the value")
		default:
			b.WriteByte(c)
			if c != ' ' {
				keep = b.Len()
			}
		}
	}
	a.Value = b.String()[:keep]
	return a, 0, "", nonEmpty(a)
}

func nonEmpty(a inspector.AttributeTypeAndValue) error {
	if a.Value == "" {
		return fmt.Errorf("attribute %s is empty", a.Type)
	}
	return nil
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return len(s) == 2 && err == nil
}
