package gate

import (
	"net/url"
	"strings"
)

const maxVariableName = 64

// variableName reports whether s can stand in a placeholder.
func variableName(s string) bool {
	return s != "" && len(s) <= maxVariableName && !digit(s[0]) && nameLength(s, ".-") == len(s)
}

// nameLength is the length of the name at the start of s: letters, digits,
// underscores and the characters of more.
func nameLength(s, more string) int {
	for i := range len(s) {
		if !letter(s[i]) && !digit(s[i]) && strings.IndexByte(more, s[i]) < 0 {
			return i
		}
	}
	return len(s)
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// placeholder finds the placeholder at the start of s, in one of the forms
// %Name% {{Name}} ${NAME} $NAME, and its length; 0 if there is none.
func placeholder(s string) (name string, length int) {
	for _, form := range [...]struct{ open, end, more string }{
		{"%", "%", ".-"}, {"{{", "}}", ".-"}, {"${", "}", ".-"}, {"$", "", ""},
	} {
		rest, ok := strings.CutPrefix(s, form.open)
		if !ok {
			continue
		}
		n := nameLength(rest, form.more)
		if variableName(rest[:n]) && strings.HasPrefix(rest[n:], form.end) {
			return rest[:n], len(form.open) + n + len(form.end)
		}
	}
	return "", 0
}

// expand puts values in the place of their placeholders, once: a value is not
// looked into again, and quote keeps it a value where the text has a grammar.
// Placeholders without a value stay; unresolved finds them.
func expand(s string, values map[string]string, quote func(string) string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if name, n := placeholder(s[i:]); n > 0 && values[name] != "" {
			b.WriteString(quote(values[name]))
			i += n
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

// verbatim quotes for text without a grammar.
func verbatim(s string) string { return s }

// wholePlaceholder reports whether s is nothing but a placeholder. A bare $NAME
// counts only in capitals: a password may begin with a dollar.
func wholePlaceholder(s string) bool {
	name, n := placeholder(s)
	return n > 0 && n == len(s) && (len(s) > len("$")+len(name) || name == strings.ToUpper(name))
}

// unresolved reports whether anything in s looks like a placeholder of any
// system, whether or not it could have been expanded (threat A16).
func unresolved(s string) bool {
	if unresolvedPattern(s) || strings.Contains(s, "}}") {
		return true
	}
	for i := range len(s) {
		if s[i] != '{' {
			continue
		}
		if n := nameLength(s[i+1:], ".-"); n > 0 && strings.HasPrefix(s[i+1+n:], "}") {
			return true
		}
	}
	return false
}

// unresolvedPattern is unresolved for a regular expression, where braces mean
// something else.
func unresolvedPattern(s string) bool {
	for i := range len(s) {
		if _, n := placeholder(s[i:]); n > 0 {
			return true
		}
	}
	return strings.Contains(s, "{{") || strings.Contains(s, "${")
}

// unresolvedURI is unresolved for a URI, where a percent sign starts an escape:
// "%c3%bc" is no placeholder. Where one is, there the escapes are not well-formed.
func unresolvedURI(s string) bool {
	if _, err := url.PathUnescape(s); err == nil {
		s = strings.ReplaceAll(s, "%", "")
	}
	return unresolved(s)
}
