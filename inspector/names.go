package inspector

import (
	"bytes"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits of names. They are wider than the upper bounds of RFC 5280 appendix
// A.1 (64 for a common name), which devices exceed, and than what AD CS keeps.
// threat C21
const (
	maxRDNs          = 64  // RDNs of a subject
	maxRDNAttributes = 8   // attributes of a multi-valued RDN
	maxNameValue     = 256 // bytes of one attribute value, UPN or template name
)

var errText = errors.New("character that is a control, a format or no character")

// checkText refuses what can hide, reorder or split text: controls (NDES hands
// the CA line-oriented text), line and paragraph separators, bidirectional and
// zero-width characters, private and unassigned code points. threats B32, C33,
// C34, D31
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("text is not UTF-8")
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return errText
		}
	}
	return nil
}

// isVisibleASCII reports whether s has only graphic ASCII and spaces.
func isVisibleASCII(s []byte) bool {
	for _, c := range s {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// parseName reads an RDNSequence and keeps its structure, which pkix.Name
// loses. threats C24–C33
func parseName(n *node) ([]RDN, error) { return parseNameAs(n, nameText) }

// parseNameAs is parseName with another reading of values.
func parseNameAs(n *node, text func(oid string, n *node) (string, error)) ([]RDN, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	if len(n.children) > maxRDNs {
		return nil, fmt.Errorf("%d RDNs, limit is %d", len(n.children), maxRDNs)
	}
	name := make([]RDN, 0, len(n.children))
	for i, child := range n.children {
		rdn, err := parseRDN(child, text)
		if err != nil {
			return nil, fmt.Errorf("RDN %d: %w", i, err)
		}
		name = append(name, rdn)
	}
	return name, nil
}

func parseRDN(n *node, text func(oid string, n *node) (string, error)) (RDN, error) {
	if err := n.expect(classUniversal, tagSet); err != nil {
		return nil, err
	}
	// RFC 5280 appendix A.1: SET SIZE (1..MAX). threat C27
	if len(n.children) == 0 || len(n.children) > maxRDNAttributes {
		return nil, fmt.Errorf("%d attributes", len(n.children))
	}
	rdn := make(RDN, 0, len(n.children))
	for i, child := range n.children {
		// X.690 §11.6; equal elements are refused with the unsorted. threat C25
		if i > 0 && bytes.Compare(n.children[i-1].raw, child.raw) >= 0 {
			return nil, errors.New("attributes not in DER order")
		}
		attribute, err := parseNameAttribute(child, text)
		if err != nil {
			return nil, err
		}
		rdn = append(rdn, attribute)
	}
	return rdn, nil
}

func parseNameAttribute(n *node, text func(oid string, n *node) (string, error)) (AttributeTypeAndValue, error) {
	none := AttributeTypeAndValue{}
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return none, err
	}
	f := n.fields()
	typ, err := f.next(classUniversal, tagOID)
	if err != nil {
		return none, err
	}
	oid, err := typ.oid()
	if err != nil {
		return none, err
	}
	value, err := f.any()
	if err != nil {
		return none, err
	}
	if err := f.end(); err != nil { // threat C07
		return none, err
	}
	decoded, err := text(oid, value)
	if err != nil {
		return none, fmt.Errorf("attribute %s: %w", oid, err)
	}
	return AttributeTypeAndValue{Type: oid, Value: decoded, Tag: value.tag}, nil
}

// nameText decodes the value of a name attribute. Only string types that every
// reader decodes alike are let in. threats C28, C30–C33, B36
func nameText(oid string, n *node) (string, error) {
	if len(n.content) == 0 || len(n.content) > maxNameValue {
		return "", fmt.Errorf("value of %d bytes", len(n.content))
	}
	switch {
	case n.is(classUniversal, tagPrintableString):
		return n.printable()
	case n.is(classUniversal, tagUTF8String):
		return n.utf8Text(maxNameValue)
	case n.is(classUniversal, tagIA5String) && isIA5Attribute(oid):
		if !isVisibleASCII(n.content) {
			return "", errText
		}
		return string(n.content), nil
	}
	return "", fmt.Errorf("%s is not an accepted string type", n.describe())
}

// isIA5Attribute names the attributes that may be IA5String: the two that RFC
// 5280 appendix A.1 defines so, and unstructuredName, which should be (RFC 2985
// §5.2.2). quirk: Cisco IOS and ASA write it so, but unstructuredAddress as
// PrintableString.
func isIA5Attribute(oid string) bool {
	switch oid {
	case oidEmailAddress, oidDomainComponent, oidUnstructuredName:
		return true
	}
	return false
}

// utf8Text reads a UTF8String of at most max bytes that passes checkText.
func (n *node) utf8Text(max int) (string, error) {
	if err := n.expect(classUniversal, tagUTF8String); err != nil {
		return "", err
	}
	if len(n.content) > max {
		return "", fmt.Errorf("value of %d bytes", len(n.content))
	}
	if err := checkText(string(n.content)); err != nil {
		return "", err
	}
	return string(n.content), nil
}

// bmpText reads a BMPString of at most max characters that passes checkText.
// Unpaired surrogates and a trailing NUL, which other readers cut off, are
// refused. threat C30
func (n *node) bmpText(max int) (string, error) {
	if err := n.expect(classUniversal, tagBMPString); err != nil {
		return "", err
	}
	if len(n.content)%2 != 0 || len(n.content) > 2*max {
		return "", fmt.Errorf("value of %d bytes", len(n.content))
	}
	units := make([]uint16, 0, len(n.content)/2)
	for i := 0; i < len(n.content); i += 2 {
		unit := uint16(n.content[i])<<8 | uint16(n.content[i+1])
		if utf16.IsSurrogate(rune(unit)) { // BMP has none: X.680 §41.15
			return "", errText
		}
		units = append(units, unit)
	}
	text := string(utf16.Decode(units))
	return text, checkText(text)
}

// CommonName is the subject of one attribute that most devices send.
func CommonName(value string) []RDN {
	return []RDN{{{Type: oidCommonName, Value: value}}}
}

// addName writes an RDNSequence. A Tag of 0 chooses the string type:
// IA5String where isIA5Attribute allows it, PrintableString where the alphabet
// does, UTF8String otherwise.
func addName(b *cryptobyte.Builder, name []RDN) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range name {
			attributes := make([][]byte, 0, len(rdn))
			for _, attribute := range rdn {
				der, err := encodeNameAttribute(attribute)
				if err != nil {
					b.SetError(err)
					return
				}
				attributes = append(attributes, der)
			}
			b.AddASN1(cbasn1.SET, addAll(sortSetOf(attributes)))
		}
	})
}

func encodeNameAttribute(a AttributeTypeAndValue) ([]byte, error) {
	tag := a.Tag
	switch {
	case tag < 0 || tag > 30:
		return nil, fmt.Errorf("string tag %d", tag)
	case tag != 0:
	case isIA5Attribute(a.Type) && isIA5([]byte(a.Value)):
		tag = tagIA5String
	case isPrintable([]byte(a.Value)):
		tag = tagPrintableString
	default:
		tag = tagUTF8String
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, a.Type)
		addString(b, cbasn1.Tag(tag), a.Value)
	})
	return b.Bytes()
}
