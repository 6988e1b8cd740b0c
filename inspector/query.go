package inspector

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// maxQuery bounds the raw query: 64 KiB of message in base64, percent-escaped
// where clients escape, and room for line breaks.
const maxQuery = 96 << 10

// getNextCACert is the operation of RFC 8894 §4.7, which NDES does not have.
const getNextCACert = "GetNextCACert"

// ParseQuery reads method and raw query of a SCEP request (RFC 8894 §4.1). It
// knows the two parameters `operation` and `message`, spelled literally and at
// most once, so that there is no second reading of the same query. A message
// that decodes to more than maxMessage bytes is refused, never cut. threats
// E17–E22
func ParseQuery(method, rawQuery string, maxMessage int) (Query, error) {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodHead:
	default:
		return Query{}, ErrMethod
	}
	if len(rawQuery) > maxQuery {
		return Query{}, ErrQueryTooLong
	}
	operation, message, hasMessage, err := parameters(rawQuery)
	if err != nil {
		return Query{}, err
	}
	switch operation {
	case string(GetCACaps), string(GetCACert):
		if method == http.MethodPost {
			return Query{}, fmt.Errorf("%w: POST of %s", ErrQuery, operation)
		}
		// The value names a CA and NDES ignores it; so do we. It must be well-formed.
		if _, err := unescape(message); err != nil {
			return Query{}, err
		}
		return Query{Operation: Operation(operation)}, nil
	case string(PKIOperation):
	case getNextCACert:
		return Query{}, ErrOperationNotOffered
	default: // threats E18, E20: NDESGenerateChallenge among them
		return Query{}, fmt.Errorf("%w: unknown operation", ErrQuery)
	}
	switch method {
	case http.MethodHead:
		return Query{}, ErrMethod
	case http.MethodPost:
		if hasMessage { // threat E21
			return Query{}, fmt.Errorf("%w: POST with message", ErrQuery)
		}
		return Query{Operation: PKIOperation}, nil
	}
	decoded, err := decodeMessage(message, maxMessage)
	if err != nil {
		return Query{}, err
	}
	return Query{Operation: PKIOperation, Message: decoded}, nil
}

// parameters splits the query. Values are as sent.
func parameters(rawQuery string) (operation, message string, hasMessage bool, err error) {
	// quirk: sscep and Samba put a second '?' before the query. Before the
	// operation only: a log filter that hides `message` would not know `?message`.
	if strings.HasPrefix(rawQuery, "?operation=") { // threat E34
		rawQuery = rawQuery[1:]
	}
	if strings.IndexByte(rawQuery, ';') >= 0 { // threat E19
		return "", "", false, fmt.Errorf("%w: semicolon", ErrQuery)
	}
	hasOperation := false
	for pair := range strings.SplitSeq(rawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		switch {
		case name == "operation" && !hasOperation: // threats E17, E18: an escaped letter is another name
			operation, hasOperation = value, true
		case name == "message" && !hasMessage:
			message, hasMessage = value, true
		default:
			return "", "", false, fmt.Errorf("%w: parameter unknown or given twice", ErrQuery)
		}
	}
	return operation, message, hasMessage, nil
}

// unescape undoes percent-encoding once. '+' is itself: quirk: iOS and jscep
// send base64 without escaping it.
func unescape(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if len(s)-i < 3 {
			return nil, fmt.Errorf("%w: escape", ErrQuery)
		}
		high, low := hexDigit(s[i+1]), hexDigit(s[i+2])
		if high < 0 || low < 0 {
			return nil, fmt.Errorf("%w: escape", ErrQuery)
		}
		b = append(b, byte(high<<4|low))
		i += 2
	}
	return b, nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// decodeMessage decodes base64 of the standard alphabet, once unescaped.
//
// quirk: a proxy or client that takes '+' for a space is undone, sscep and
// Cisco wrap lines, some leave the padding away. Nothing else is forgiven:
// what is left after that has one reading. threat E22
func decodeMessage(value string, maxMessage int) ([]byte, error) {
	text, err := unescape(value)
	if err != nil {
		return nil, err
	}
	kept := text[:0]
	for _, c := range text {
		switch c {
		case '\r', '\n':
			continue
		case ' ':
			c = '+'
		}
		kept = append(kept, c)
	}
	digits, padding := kept, 0
	for padding < 2 && len(digits) > 0 && digits[len(digits)-1] == '=' {
		digits = digits[:len(digits)-1]
		padding++
	}
	if len(digits) == 0 || padding > 0 && len(kept)%4 != 0 {
		return nil, fmt.Errorf("%w: base64 length", ErrQuery)
	}
	if base64.RawStdEncoding.DecodedLen(len(digits)) > maxMessage {
		return nil, ErrMessageTooLarge
	}
	message := make([]byte, base64.RawStdEncoding.DecodedLen(len(digits)))
	n, err := base64.RawStdEncoding.Strict().Decode(message, digits)
	if err != nil {
		return nil, fmt.Errorf("%w: base64", ErrQuery)
	}
	return message[:n], nil
}
