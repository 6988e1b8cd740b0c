package differential

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The writer takes decoded values only: that what it writes equals what was
// read shows that nothing of it had a second spelling. Values come from the
// reader and can always be written; must says so.

func must(der []byte, err error) []byte {
	if err != nil {
		panic("differential: a value that was read can not be written: " + err.Error())
	}
	return der
}

func element(class, tag int, compound bool, parts ...[]byte) []byte {
	return must(asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: compound, Bytes: bytes.Join(parts, nil)}))
}

func writeSequence(parts ...[]byte) []byte {
	return element(asn1.ClassUniversal, asn1.TagSequence, true, parts...)
}

// writeSet writes a SET OF in the order of DER (X.690 §11.6).
func writeSet(parts ...[]byte) []byte {
	parts = slices.Clone(parts)
	slices.SortFunc(parts, bytes.Compare)
	return element(asn1.ClassUniversal, asn1.TagSet, true, parts...)
}

func writeExplicit(number int, parts ...[]byte) []byte {
	return element(asn1.ClassContextSpecific, number, true, parts...)
}

func writeOID(dotted string) []byte {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.Atoi(arc)
		must(nil, err)
		oid = append(oid, n)
	}
	return must(asn1.Marshal(oid))
}

func writeInteger(i *big.Int) []byte { return must(asn1.Marshal(i)) }

func writeOctets(b []byte) []byte {
	return element(asn1.ClassUniversal, asn1.TagOctetString, false, b)
}

func writeBits(b []byte) []byte {
	return must(asn1.Marshal(asn1.BitString{Bytes: b, BitLength: 8 * len(b)}))
}

func writeText(tag int, s string) []byte {
	return element(asn1.ClassUniversal, tag, false, []byte(s))
}

func writeWide(s string) []byte {
	var b []byte
	for _, r := range s { // the basic plane only: the reader saw no surrogates
		b = append(b, byte(r>>8), byte(r))
	}
	return element(asn1.ClassUniversal, asn1.TagBMPString, false, b)
}

func writeNull() []byte { return element(asn1.ClassUniversal, asn1.TagNull, false) }

func writeAlgorithm(dotted string) []byte { return writeSequence(writeOID(dotted), writeNull()) }

// tree is an element whose meaning is not known: its frames are read, and can
// be written again.
type tree struct {
	class, tag int
	compound   bool
	content    []byte
	children   []tree
}

func readTree(v asn1.RawValue) (tree, error) {
	t := tree{class: v.Class, tag: v.Tag, compound: v.IsCompound, content: v.Bytes}
	if !t.compound {
		return t, nil
	}
	list, err := children(v)
	if err != nil {
		return t, err
	}
	for _, child := range list {
		sub, err := readTree(child)
		if err != nil {
			return t, err
		}
		t.children = append(t.children, sub)
	}
	return t, nil
}

func (t tree) der() []byte {
	if !t.compound {
		return element(t.class, t.tag, false, t.content)
	}
	var parts [][]byte
	for _, child := range t.children {
		parts = append(parts, child.der())
	}
	return element(t.class, t.tag, true, parts...)
}
