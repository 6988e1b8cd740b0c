package inspector

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// NameSkeleton reduces a name (RDNSequence, DER) to its types and to the letters
// and digits of its values, whatever string types, case, blanks and punctuation
// they are written with. Two names that anybody could take for one have the same
// skeleton; so may two that differ. It is for refusing. What cannot be read
// gives "".
func NameSkeleton(rdnSequence []byte) string {
	root, err := walk(rdnSequence, modeDER)
	if err != nil || root.expect(classUniversal, tagSequence) != nil {
		return ""
	}
	var b strings.Builder
	for _, rdn := range root.children {
		for _, attribute := range rdn.children {
			if len(attribute.children) != 2 {
				return ""
			}
			oid, err := attribute.children[0].oid()
			if err != nil {
				return ""
			}
			b.WriteString("/" + oid + "=")
			for _, r := range loose(attribute.children[1]) {
				if unicode.IsLetter(r) || unicode.IsDigit(r) {
					b.WriteRune(unicode.ToLower(r))
				}
			}
		}
	}
	return b.String()
}

// loose decodes a string of any type.
func loose(n *node) []rune {
	var runes []rune
	width := 0
	switch n.tag {
	case 28: // UniversalString
		width = 4
	case tagBMPString:
		width = 2
	default:
		if utf8.Valid(n.content) {
			return []rune(string(n.content))
		}
		width = 1 // TeletexString as everybody reads it: Latin-1
	}
	for c := n.content; len(c) >= width; c = c[width:] {
		r := rune(0)
		for _, o := range c[:width] {
			r = r<<8 | rune(o)
		}
		runes = append(runes, r)
	}
	return runes
}
