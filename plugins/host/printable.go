package host

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable makes s fit for a line of a log: what does not show as what it is
// becomes \u{…} or \x…, and what is longer than max bytes is cut (threat D31).
func printable(s string, max int) string {
	const ellipsis = "…"
	var b strings.Builder
	cut := 0 // up to where an ellipsis still fits
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		text := s[i : i+n]
		switch {
		case r == utf8.RuneError && n == 1:
			text = fmt.Sprintf(`\x%02X`, s[i])
		case !unicode.IsPrint(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r):
			text = fmt.Sprintf(`\u{%04X}`, r)
		}
		if b.Len()+len(text) > max {
			return b.String()[:cut] + ellipsis
		}
		b.WriteString(text)
		if b.Len()+len(ellipsis) <= max {
			cut = b.Len()
		}
		i += n
	}
	return b.String()
}
