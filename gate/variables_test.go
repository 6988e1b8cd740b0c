package gate

import (
	"regexp"
	"testing"
)

func TestVariablesAreExpandedInEveryForm(t *testing.T) {
	values := map[string]string{"Name": "v", "A": "a", "AB": "ab", "X.Y-1": "xy", "P": "%Name%", "S": `a,b+c=d\*`}
	for in, want := range map[string]string{
		"%Name%":             "v",
		"{{Name}}":           "v",
		"${Name}":            "v",
		"$Name":              "v",
		"x%Name%y%Name%z":    "xvyvz",
		"%X.Y-1%":            "xy",
		"$AB-$A":             "ab-a",
		"$ABC":               "$ABC", // the longest name counts, and it has no value
		"%name%":             "%name%",
		"%Other%":            "%Other%",
		"%P%":                "%Name%", // once: a value is not looked into
		"50% of %A%":         "50% of a",
		"%A%A%A%":            "aAa", // left to right, no overlap
		"%Other%Name%":       "%Otherv",
		"%S%":                `a,b+c=d\*`,
		"$":                  "$",
		"HOST$@corp.example": "HOST$@corp.example",
		"":                   "",
	} {
		if got := expand(in, values, verbatim); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
	if got := expand("^%S%$", values, regexp.QuoteMeta); got != `^a,b\+c=d\\\*$` {
		t.Errorf("in a pattern a value's characters must mean themselves: %q", got)
	}
}

func TestWhatLooksLikeAPlaceholderIsFound(t *testing.T) {
	for _, s := range []string{
		"%SerialNumber%", "CN %a%", "{{device}}", "{{ device }}", "{{", "}}", "${x}", "${", "$SERIAL", "$a", "a$_b", "{DeviceUid}", "x{a.b}y",
		"%Other%Name%", "$DEVICE_UUID$",
	} {
		if !unresolved(s) {
			t.Errorf("%q passes", s)
		}
	}
	for _, s := range []string{"", "a", "100%", "50% of 100%", "HOST$", "$", "$5", "{", "}", "{}", "{a b}", "a{b", "%20", "%1a%", "a%%b"} {
		if unresolved(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{`^[a-z]{2}$`, `\p{Greek}+`, `a$|b`, `x{2,3}`} {
		if unresolvedPattern(s) {
			t.Errorf("pattern %q is refused", s)
		}
	}
	for _, s := range []string{`%Name%-[0-9]+`, `{{Name}}`, `${Name}`, `$Name`} {
		if !unresolvedPattern(s) {
			t.Errorf("pattern %q passes", s)
		}
	}
	for s, want := range map[string]bool{
		"https://x/a%20b%20c": false, "https://x/%c3%bc": false, "https://x/%Serial%": true, "https://x/{id}": true, "https://x/$ID": true,
	} {
		if got := unresolvedURI(s); got != want {
			t.Errorf("unresolvedURI(%q) = %v", s, got)
		}
	}
	for s, want := range map[string]bool{
		"%Challenge%": true, "{{challenge}}": true, "${CHALLENGE}": true, "$CHALLENGE": true, "$ecretPassw0rd": false, "x$CHALLENGE": false, "8CE317021F690069": false,
	} {
		if got := wholePlaceholder(s); got != want {
			t.Errorf("wholePlaceholder(%q) = %v", s, got)
		}
	}
}
