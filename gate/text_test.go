package gate

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSafeShowsWhatIsThere(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"plain Müller 日本":      "plain Müller 日本",
		"a\r\nb":               `a\u{000D}\u{000A}b`,
		"\x1b[31m":             `\u{001B}[31m`,
		"a\u202eb":             `a\u{202E}b`,
		"a\u200bb":             `a\u{200B}b`,
		"a\u2028b":             `a\u{2028}b`,
		"a\u00a0b":             `a\u{00A0}b`,
		"a\u3164b":             `a\u{3164}b`,
		"a\ufe0fb":             `a\u{FE0F}b`,
		"a\xffb":               `a\xFFb`,
		"a\ufffdb":             "a\ufffdb",
		"${jndi:ldap://x/y}":   "${jndi:ldap://x/y}",
		string(rune(0x10ffff)): `\u{10FFFF}`,
	} {
		if got := safe(in, 200); got != want {
			t.Errorf("safe(%q) = %s, want %s", in, got, want)
		}
		if got := safe(want, 200); got != want {
			t.Errorf("safe is not idempotent on %s: %s", want, got)
		}
	}
}

func TestSafeNeverExceedsItsBound(t *testing.T) {
	for _, in := range []string{strings.Repeat("a", 50), strings.Repeat("ü", 50), strings.Repeat("\n", 50), strings.Repeat("\xff", 50)} {
		for n := range 40 {
			got := safe(in, n)
			if len(got) > n || !utf8.ValidString(got) {
				t.Errorf("safe(%q, %d) = %q", in, n, got)
			}
			if n >= len(ellipsis) && !strings.HasSuffix(got, ellipsis) {
				t.Errorf("safe(%q, %d) = %q does not say that it was cut", in, n, got)
			}
		}
	}
	if got := safe("abc", 3); got != "abc" {
		t.Errorf("what fits is not cut: %q", got)
	}
}

func TestPlainTextIsUTF8ThatShowsAsItIs(t *testing.T) {
	for s, want := range map[string]bool{"": true, "a b": true, "日本": true, "a\xff": false, "a\n": false, "\u200e": false, "\ue000": false} {
		if plain(s) != want {
			t.Errorf("plain(%q) is not %v", s, want)
		}
	}
}
