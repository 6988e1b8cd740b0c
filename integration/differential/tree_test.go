package differential

import (
	"encoding/asn1"
	"math/rand/v2"
	"slices"
)

// node is an element that can be changed and written again, also wrongly.
type node struct {
	id     byte
	prefix []byte  // of a BIT STRING that holds DER: its unused-bits octet
	leaf   []byte  // content, if there are no kids
	kids   []*node // inside of a constructed element, or DER inside of a string
	inner  bool    // kids are the content

	raw        []byte // stands for the whole element
	extra      int    // superfluous length octets
	lie        int    // added to the length
	indefinite bool   // BER
	chunks     []int  // BER: sizes of the pieces of a constructed string
}

// parseNodes reads der, elements one after the other; nil if it is not that.
func parseNodes(der []byte) []*node {
	var list []*node
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil || v.Tag >= 31 {
			return nil
		}
		n := &node{id: v.FullBytes[0], leaf: v.Bytes}
		switch {
		case v.IsCompound:
			n.kids, n.inner = parseNodes(v.Bytes), true
			if n.kids == nil && len(v.Bytes) > 0 {
				return nil
			}
		case n.id == 0x04:
			n.nest(0)
		case n.id == 0x03:
			n.nest(1)
		}
		list, der = append(list, n), rest
	}
	return list
}

// nest opens a string that holds one element of DER.
func (n *node) nest(prefix int) {
	if len(n.leaf) < prefix+2 || !slices.Contains([]byte{0x30, 0x03, 0x04, 0x1e}, n.leaf[prefix]) {
		return
	}
	if kids := parseNodes(n.leaf[prefix:]); len(kids) == 1 {
		n.prefix, n.kids, n.inner = n.leaf[:prefix], kids, true
	}
}

func (n *node) clone() *node {
	c := *n
	c.kids = make([]*node, len(n.kids))
	for i, kid := range n.kids {
		c.kids[i] = kid.clone()
	}
	return &c
}

func (n *node) content() []byte {
	if !n.inner {
		return n.leaf
	}
	b := slices.Clone(n.prefix)
	for _, kid := range n.kids {
		b = append(b, kid.bytes()...)
	}
	return b
}

// bytes writes the element.
func (n *node) bytes() []byte {
	if n.raw != nil {
		return n.raw
	}
	content := n.content()
	if n.chunks != nil {
		content = cut(content, n.chunks)
	}
	if n.indefinite {
		return append(append([]byte{n.id | 0x20, 0x80}, content...), 0, 0)
	}
	return append(header(n.id, max(0, len(content)+n.lie), n.extra), content...)
}

// header writes identifier and length, with superfluous zero octets.
func header(id byte, length, extra int) []byte {
	if length < 0x80 && extra == 0 {
		return []byte{id, byte(length)}
	}
	var octets []byte
	for l := length; l > 0; l >>= 8 {
		octets = slices.Insert(octets, 0, byte(l))
	}
	if length >= 0x80 {
		octets = append(make([]byte, extra), octets...)
	} else { // the long form of a short length
		octets = append(make([]byte, extra-1), byte(length))
	}
	return append([]byte{id, 0x80 | byte(len(octets))}, octets...)
}

// cut writes b as primitive OCTET STRINGs of these sizes and the rest.
func cut(b []byte, sizes []int) []byte {
	var out []byte
	for _, size := range sizes {
		size = min(size, len(b))
		out = append(append(out, header(0x04, size, 0)...), b[:size]...)
		b = b[size:]
	}
	return append(append(out, header(0x04, len(b), 0)...), b...)
}

// place is where a node hangs; parent is nil for the top.
type place struct {
	parent *node
	index  int
	n      *node
}

// places lists n and all below that fit.
func (n *node) places(fit func(*node) bool) []place {
	var list []place
	var visit func(parent *node, index int, n *node)
	visit = func(parent *node, index int, n *node) {
		if fit == nil || fit(n) {
			list = append(list, place{parent, index, n})
		}
		for i, kid := range n.kids {
			visit(n, i, kid)
		}
	}
	visit(nil, 0, n)
	return list
}

// holds says whether all of these are still written by n.
func (n *node) holds(these ...*node) bool {
	return n.count(these) == len(these)
}

func (n *node) count(these []*node) int {
	if n.raw != nil {
		return 0
	}
	found := 0
	if slices.Contains(these, n) {
		found++
	}
	for _, kid := range n.kids {
		found += kid.count(these)
	}
	return found
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func isLeaf(n *node) bool { return !n.inner }
func isOID(n *node) bool  { return n.id == 0x06 && len(n.leaf) > 0 }
func isSet(n *node) bool  { return (n.id == 0x31 || n.id == 0xa0) && len(n.kids) > 1 }

var stringIDs = []byte{0x0c, 0x13, 0x16, 0x1e, 0x14, 0x1c, 0x1a, 0x12}

func isText(n *node) bool {
	return !n.inner && (slices.Contains(stringIDs, n.id) || n.id == 0x81 || n.id == 0x82 || n.id == 0x86)
}

// isExtension: SEQUENCE { OID, BOOLEAN OPTIONAL, OCTET STRING }.
func isExtension(n *node) bool {
	return n.id == 0x30 && (len(n.kids) == 2 || len(n.kids) == 3 && n.kids[1].id == 0x01) && isOID(n.kids[0]) && n.kids[len(n.kids)-1].id == 0x04
}

// isExtensions: SEQUENCE OF such.
func isExtensions(n *node) bool { return n.id == 0x30 && len(n.kids) > 0 && isExtension(n.kids[0]) }
