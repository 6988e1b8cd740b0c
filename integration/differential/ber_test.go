package differential

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// indefinitely lets these nodes be written as Apple writes them: with indefinite
// lengths, strings in pieces. Nodes that are already wrong stay as they are.
func indefinitely(r *rand.Rand, nodes []*node) {
	for _, n := range nodes {
		switch {
		case n.raw != nil || n.extra != 0 || n.lie != 0 || n.id&0x1f == 0x1f:
		case n.id == 0x04 || n.id == 0x80:
			n.indefinite, n.chunks = true, []int{}
			for range r.IntN(4) {
				n.chunks = append(n.chunks, r.IntN(400))
			}
		case n.id&0x20 != 0:
			n.indefinite = true
		}
	}
}

// definite writes one BER element in DER's lengths: indefinite ones become
// definite, a constructed OCTET STRING becomes primitive. encoding/asn1 can read
// the result.
func definite(ber []byte) ([]byte, error) {
	der, rest, err := definiteElement(ber, 0)
	if err == nil && len(rest) != 0 {
		err = errTrailing
	}
	return der, err
}

func definiteElement(b []byte, depth int) (der, rest []byte, err error) {
	if depth > 100 || len(b) < 2 {
		return nil, nil, errors.New("no element")
	}
	id, length, head := b[0], int(b[1]), 2
	if length > 0x80 {
		head += length & 0x7f
		if head > 5 || head > len(b) {
			return nil, nil, errors.New("length")
		}
		length = 0
		for _, o := range b[2:head] {
			length = length<<8 | int(o)
		}
	}
	endless := b[1] == 0x80
	if endless {
		length = 0
		rest = b[head:]
	} else {
		if length > len(b)-head {
			return nil, nil, errors.New("element ends early")
		}
		rest = b[head+length:]
		if id&0x20 == 0 {
			return b[:head+length], rest, nil
		}
	}
	inside := b[head : head+length]
	if endless {
		inside = rest
	}
	var content []byte
	for len(inside) > 0 {
		if endless && len(inside) >= 2 && inside[0] == 0 && inside[1] == 0 {
			break
		}
		var child []byte
		if child, inside, err = definiteElement(inside, depth+1); err != nil {
			return nil, nil, err
		}
		if id == 0x24 {
			if child, err = piece(child); err != nil {
				return nil, nil, err
			}
		}
		content = append(content, child...)
	}
	if endless {
		if len(inside) < 2 {
			return nil, nil, errors.New("end is missing")
		}
		rest = inside[2:]
	}
	if id == 0x24 {
		id = 0x04
	}
	return append(header(id, len(content), 0), content...), rest, nil
}

func piece(child []byte) ([]byte, error) {
	v, err := single(child)
	if err != nil {
		return nil, err
	}
	return octets(v)
}

// definiteEnvelope does the same to an EnvelopedData, whose encryptedContent is
// a string by implicit tag: only its place says so.
func definiteEnvelope(ber []byte) ([]byte, error) {
	der, err := definite(ber)
	if err != nil {
		return nil, err
	}
	roots := parseNodes(der)
	if len(roots) != 1 {
		return nil, errors.New("not one element")
	}
	at := roots[0]
	for _, i := range []int{1, 0, 2, 2} {
		if len(at.kids) <= i {
			return nil, fmt.Errorf("no envelope")
		}
		at = at.kids[i]
	}
	if at.id == 0xa0 {
		var joined []byte
		for _, kid := range at.kids {
			if kid.id != 0x04 {
				return nil, errors.New("piece is not an octet string")
			}
			joined = append(joined, kid.content()...)
		}
		at.id, at.leaf, at.kids, at.inner = 0x80, joined, nil, false
	}
	return slices.Clone(roots[0].bytes()), nil
}
