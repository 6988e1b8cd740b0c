package inspector

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Limits of the walk. Real messages stay far below: an Apple or Windows
// request has about 200 elements, nests 12 deep and is 3 to 8 KiB.
const (
	maxInput    = 256 << 10 // bytes; a CertRep with a chain is under 16 KiB. threats C58, C60
	maxDepth    = 24        // nesting; bounds the recursion. threat C60
	maxElements = 4096      // elements of one input; bounds the memory. threat C61
	maxArcs     = 20        // arcs of an object identifier
	maxArc      = 1<<31 - 1 // value of one arc
)

// mode says which encodings the walk lets pass.
type mode int

// The zero value is the strict one.
const (
	modeDER mode = iota // definite lengths, primitive strings
	modeBER             // also indefinite lengths and constructed OCTET STRINGs: quirk: Apple sends them
)

// Tag classes.
const (
	classUniversal   = 0
	classApplication = 1
	classContext     = 2
	classPrivate     = 3
)

// Universal tag numbers that the profiles use.
const (
	tagBoolean         = 1
	tagInteger         = 2
	tagBitString       = 3
	tagOctetString     = 4
	tagNull            = 5
	tagOID             = 6
	tagUTF8String      = 12
	tagSequence        = 16
	tagSet             = 17
	tagPrintableString = 19
	tagIA5String       = 22
	tagUTCTime         = 23
	tagGeneralizedTime = 24
	tagBMPString       = 30
)

// node is one element of a walked input. Its slices alias the input.
type node struct {
	class       int
	tag         int
	constructed bool
	indefinite  bool
	raw         []byte  // the whole element as sent, with its end-of-contents octets
	content     []byte  // value octets, without end-of-contents
	children    []*node // of a constructed element
}

var (
	errTruncated = errors.New("element ends early")
	errTrailing  = errors.New("bytes after the element")
	errLength    = errors.New("length octets not minimal")
)

// walk reads raw as exactly one element with everything that is nested in it,
// in one pass, with bounded memory and recursion. Every parser of this package
// starts here: what walk has accepted can be read by any decoder in only one
// way. threats C56–C61
func walk(raw []byte, m mode) (*node, error) {
	if len(raw) > maxInput {
		return nil, fmt.Errorf("input has %d bytes, limit is %d", len(raw), maxInput)
	}
	w := walker{mode: m}
	n, rest, err := w.element(raw, 1)
	if err != nil {
		return nil, fmt.Errorf("element %d: %w", w.elements, err)
	}
	if len(rest) != 0 {
		return nil, errTrailing // threat C57
	}
	return n, nil
}

type walker struct {
	mode     mode
	elements int
	block    []node // unused nodes, allocated in blocks
}

func (w *walker) node() *node {
	if len(w.block) == 0 {
		w.block = make([]node, 64)
	}
	n := &w.block[0]
	w.block = w.block[1:]
	return n
}

// element reads the element at the head of b, which is what is left of its
// parent: a child can not reach beyond it. threat C56
func (w *walker) element(b []byte, depth int) (*node, []byte, error) {
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("nested deeper than %d", maxDepth) // threat C60
	}
	if w.elements++; w.elements > maxElements {
		return nil, nil, fmt.Errorf("more than %d elements", maxElements) // threat C61
	}
	if len(b) < 2 {
		return nil, nil, errTruncated
	}
	n := w.node()
	n.class, n.tag, n.constructed = int(b[0]>>6), int(b[0]&0x1f), b[0]&0x20 != 0
	if n.tag == 0x1f {
		return nil, nil, errors.New("high tag number") // threat C59
	}
	if n.class == classUniversal {
		if err := w.checkUniversal(n); err != nil {
			return nil, nil, err
		}
	}
	head, length, err := w.length(b)
	if err != nil {
		return nil, nil, err
	}
	if length < 0 {
		if !n.constructed {
			return nil, nil, errors.New("indefinite length of a primitive element")
		}
		n.indefinite = true
		return w.indefinite(n, b, head, depth)
	}
	if length > len(b)-head {
		return nil, nil, errTruncated
	}
	n.raw, n.content = b[:head+length:head+length], b[head:head+length:head+length]
	if n.constructed {
		for rest := n.content; len(rest) > 0; {
			var child *node
			if child, rest, err = w.element(rest, depth+1); err != nil {
				return nil, nil, err
			}
			n.children = append(n.children, child)
		}
	}
	return n, b[head+length:], nil
}

// indefinite reads children until the end-of-contents octets. No octet is
// looked at twice: the end is not searched for. threat C61
func (w *walker) indefinite(n *node, b []byte, head, depth int) (*node, []byte, error) {
	rest := b[head:]
	for len(rest) < 2 || rest[0] != 0 || rest[1] != 0 {
		child, r, err := w.element(rest, depth+1)
		if err != nil {
			return nil, nil, err
		}
		n.children, rest = append(n.children, child), r
	}
	end := len(b) - len(rest)
	n.content, n.raw = b[head:end:end], b[:end+2:end+2]
	return n, rest[2:], nil
}

// checkUniversal refuses the forms that no profile has: end-of-contents where
// none is due, a primitive SEQUENCE or SET, constructed strings other than the
// OCTET STRING of BER. threats C55, C59
func (w *walker) checkUniversal(n *node) error {
	switch {
	case n.tag == 0:
		return errors.New("end-of-contents octets out of place")
	case n.tag == tagSequence || n.tag == tagSet:
		if !n.constructed {
			return fmt.Errorf("primitive element with tag %d", n.tag)
		}
	case n.constructed && (n.tag != tagOctetString || w.mode != modeBER):
		return fmt.Errorf("constructed element with tag %d", n.tag)
	}
	return nil
}

// length reads the length octets after the identifier octet. It returns the
// size of identifier and length, and the length, -1 for indefinite.
func (w *walker) length(b []byte) (head, length int, err error) {
	first := b[1]
	if first < 0x80 {
		return 2, int(first), nil
	}
	if first == 0x80 {
		if w.mode != modeBER {
			return 0, 0, errors.New("indefinite length")
		}
		return 2, -1, nil
	}
	octets := int(first & 0x7f)
	if octets > 3 { // maxInput needs three at most
		return 0, 0, errors.New("length beyond the input")
	}
	if len(b) < 2+octets {
		return 0, 0, errTruncated
	}
	for _, o := range b[2 : 2+octets] {
		length = length<<8 | int(o)
	}
	if length < 0x80 || length>>(8*(octets-1)) == 0 {
		return 0, 0, errLength // threat C59
	}
	return 2 + octets, length, nil
}

// der reports that an element of a BER walk has something that a DER walk would
// have refused. It spares walking twice.
func (n *node) der() error {
	if n.indefinite {
		return errors.New("indefinite length")
	}
	if n.constructed && n.is(classUniversal, tagOctetString) {
		return fmt.Errorf("constructed element with tag %d", n.tag)
	}
	for _, c := range n.children {
		if err := c.der(); err != nil {
			return err
		}
	}
	return nil
}

// is reports class and tag.
func (n *node) is(class, tag int) bool { return n.class == class && n.tag == tag }

// describe names an element in an error text.
func (n *node) describe() string { return fmt.Sprintf("element of class %d tag %d", n.class, n.tag) }

// fields hands out the children of one element in their order.
type fields struct{ rest []*node }

func (n *node) fields() fields { return fields{n.children} }

// next takes the next child, which must have this class and tag.
func (f *fields) next(class, tag int) (*node, error) {
	if len(f.rest) == 0 {
		return nil, fmt.Errorf("element of class %d tag %d is missing", class, tag)
	}
	n := f.rest[0]
	if !n.is(class, tag) {
		return nil, fmt.Errorf("%s where class %d tag %d must be", n.describe(), class, tag)
	}
	f.rest = f.rest[1:]
	return n, nil
}

// optional takes the next child if it has this class and tag, and is nil
// otherwise.
func (f *fields) optional(class, tag int) *node {
	if len(f.rest) == 0 || !f.rest[0].is(class, tag) {
		return nil
	}
	n := f.rest[0]
	f.rest = f.rest[1:]
	return n
}

// any takes the next child whatever it is.
func (f *fields) any() (*node, error) {
	if len(f.rest) == 0 {
		return nil, errors.New("an element is missing")
	}
	n := f.rest[0]
	f.rest = f.rest[1:]
	return n, nil
}

// end says whether all children were taken.
func (f *fields) end() error {
	if len(f.rest) != 0 {
		return fmt.Errorf("%s not expected", f.rest[0].describe())
	}
	return nil
}

// expect checks class and tag of one element.
func (n *node) expect(class, tag int) error {
	if !n.is(class, tag) {
		return fmt.Errorf("%s where class %d tag %d must be", n.describe(), class, tag)
	}
	return nil
}

// only gives the one child of an element that must have exactly one, of this
// class and tag: an EXPLICIT tag, or a SET with one value.
func (n *node) only(class, tag int) (*node, error) {
	if len(n.children) != 1 {
		return nil, fmt.Errorf("%d elements where one must be", len(n.children))
	}
	if err := n.children[0].expect(class, tag); err != nil {
		return nil, err
	}
	return n.children[0], nil
}

// integer reads an INTEGER of at most 16384 bits, minimally encoded.
func (n *node) integer() (*big.Int, error) {
	if err := n.expect(classUniversal, tagInteger); err != nil {
		return nil, err
	}
	c := n.content
	if len(c) == 0 || len(c) > 2048 {
		return nil, fmt.Errorf("integer of %d bytes", len(c))
	}
	if len(c) > 1 && (c[0] == 0 && c[1] < 0x80 || c[0] == 0xff && c[1] >= 0x80) {
		return nil, errors.New("integer not minimal")
	}
	i := new(big.Int).SetBytes(c)
	if c[0] >= 0x80 {
		i.Sub(i, new(big.Int).Lsh(big.NewInt(1), uint(len(c))*8))
	}
	return i, nil
}

// version reads an INTEGER that must be one small number.
func (n *node) version(want int) error {
	i, err := n.integer()
	if err != nil {
		return err
	}
	if i.Cmp(big.NewInt(int64(want))) != 0 {
		return fmt.Errorf("version is not %d", want)
	}
	return nil
}

// boolean reads a BOOLEAN in its DER form.
func (n *node) boolean() (bool, error) {
	if err := n.expect(classUniversal, tagBoolean); err != nil {
		return false, err
	}
	if len(n.content) != 1 || n.content[0] != 0 && n.content[0] != 0xff {
		return false, errors.New("boolean not 00 or ff")
	}
	return n.content[0] == 0xff, nil
}

// null checks a NULL.
func (n *node) null() error {
	if err := n.expect(classUniversal, tagNull); err != nil {
		return err
	}
	if len(n.content) != 0 {
		return errors.New("null with content")
	}
	return nil
}

// oid reads an OBJECT IDENTIFIER in dotted form.
func (n *node) oid() (string, error) {
	if err := n.expect(classUniversal, tagOID); err != nil {
		return "", err
	}
	return parseOID(n.content)
}

func parseOID(content []byte) (string, error) {
	if len(content) == 0 || content[len(content)-1] >= 0x80 {
		return "", errors.New("object identifier incomplete")
	}
	var (
		text  strings.Builder
		arcs  int
		arc   int64
		first = true // first octet of an arc
	)
	for _, o := range content {
		if first && o == 0x80 {
			return "", errors.New("object identifier arc not minimal")
		}
		if arc = arc<<7 | int64(o&0x7f); arc > maxArc {
			return "", errors.New("object identifier arc too large")
		}
		if first = o < 0x80; !first {
			continue
		}
		if arcs == 0 { // the first octets hold two arcs: X.690 §8.19.4
			top := min(arc/40, 2)
			text.WriteString(strconv.FormatInt(top, 10))
			arc, arcs = arc-40*top, 1
		}
		text.WriteByte('.')
		text.WriteString(strconv.FormatInt(arc, 10))
		if arcs++; arcs > maxArcs {
			return "", errors.New("object identifier too long")
		}
		arc = 0
	}
	return text.String(), nil
}

// octets reads an OCTET STRING. A constructed one (BER only) must consist of
// primitive OCTET STRINGs and nothing else; the result is then a copy.
func (n *node) octets() ([]byte, error) {
	if err := n.expect(classUniversal, tagOctetString); err != nil {
		return nil, err
	}
	return n.chunks()
}

// chunks joins the value of a string whose own tag was checked by the caller
// (an IMPLICIT tag). threat C55: no chunk is dropped, none is nested.
func (n *node) chunks() ([]byte, error) {
	if !n.constructed {
		return n.content, nil
	}
	size := 0
	for _, c := range n.children {
		if !c.is(classUniversal, tagOctetString) || c.constructed {
			return nil, errors.New("string chunk is not a primitive octet string")
		}
		size += len(c.content)
	}
	joined := make([]byte, 0, size)
	for _, c := range n.children {
		joined = append(joined, c.content...)
	}
	return joined, nil
}

// bitString reads a BIT STRING in its DER form: unused bits are zero.
func (n *node) bitString() (bits []byte, unused int, err error) {
	if err := n.expect(classUniversal, tagBitString); err != nil {
		return nil, 0, err
	}
	c := n.content
	if len(c) == 0 || c[0] > 7 || len(c) == 1 && c[0] != 0 || c[len(c)-1]&(1<<c[0]-1) != 0 && len(c) > 1 {
		return nil, 0, errors.New("bit string malformed")
	}
	return c[1:], int(c[0]), nil
}

// wholeOctets reads a BIT STRING without unused bits: a key or a signature.
func (n *node) wholeOctets() ([]byte, error) {
	bits, unused, err := n.bitString()
	if err != nil {
		return nil, err
	}
	if unused != 0 {
		return nil, errors.New("bit string with unused bits")
	}
	return bits, nil
}

// printable reads a PrintableString.
func (n *node) printable() (string, error) {
	if err := n.expect(classUniversal, tagPrintableString); err != nil {
		return "", err
	}
	if !isPrintable(n.content) {
		return "", errors.New("character outside of PrintableString")
	}
	return string(n.content), nil
}

// isPrintable reports whether s has only characters of PrintableString
// (X.680 §41.4).
func isPrintable(s []byte) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(" '()+,-./:=?", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// isIA5 reports whether s has only ASCII.
func isIA5(s []byte) bool {
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// time reads a UTCTime or GeneralizedTime in the form of RFC 5280 §4.1.2.5:
// seconds, no fraction, Z.
func (n *node) time() (time.Time, error) {
	layout := "060102150405Z"
	if n.is(classUniversal, tagGeneralizedTime) {
		layout = "20060102150405Z"
	} else if err := n.expect(classUniversal, tagUTCTime); err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(layout, string(n.content))
	if err != nil || len(n.content) != len(layout) {
		return time.Time{}, errors.New("time malformed")
	}
	if len(layout) == 13 && t.Year() >= 2050 { // two digits: 50 to 99 are 19xx, RFC 5280 §4.1.2.5.1
		t = t.AddDate(-100, 0, 0)
	}
	return t, nil
}
