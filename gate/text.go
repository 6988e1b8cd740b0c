package gate

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis ends text that was cut.
const ellipsis = "…"

// plainRune reports whether r shows as what it is. Controls, line separators,
// bidi and zero-width characters and unassigned code points do not (threat C34, B32).
func plainRune(r rune) bool {
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// plain reports whether s is UTF-8 of which every character shows as what it is.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !plainRune(r) {
			return false
		}
	}
	return true
}

// printableASCII reports whether s holds nothing but U+0020 to U+007E.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// safe makes s fit for a log line, an event or an answer: what does not show as
// what it is becomes \u{…}, a byte that is not UTF-8 \x…, and the result is at
// most max bytes long. What safe returns passes through it unchanged (threat D31).
func safe(s string, max int) string {
	return bounded(s, max, func(b *strings.Builder, r rune, raw string) {
		switch {
		case r == utf8.RuneError && len(raw) == 1:
			fmt.Fprintf(b, `\x%02X`, raw[0])
		case plainRune(r):
			b.WriteString(raw)
		default:
			fmt.Fprintf(b, `\u{%04X}`, r)
		}
	})
}

// bounded writes s through escape, one character at a time, and cuts between
// two characters when max bytes are full. Its work is bounded by max, not by s.
func bounded(s string, max int, escape func(b *strings.Builder, r rune, raw string)) string {
	var b, one strings.Builder
	cut := 0 // length up to which an ellipsis still fits
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		one.Reset()
		escape(&one, r, s[i:i+n])
		if b.Len()+one.Len() > max {
			out := b.String()[:cut]
			if len(ellipsis) <= max {
				out += ellipsis
			}
			return out
		}
		b.WriteString(one.String())
		if b.Len()+len(ellipsis) <= max {
			cut = b.Len()
		}
		i += n
	}
	return b.String()
}
