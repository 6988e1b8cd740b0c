// Package wire writes SCEP messages byte by byte.
//
// No encoder of a library stands between a test and what it sends: every
// element of the PKCS#10, the EnvelopedData and the SignedData is a piece that
// can be replaced by any bytes, and what covers it (digest, signature,
// encryption) is made over the bytes as they then are. New gives a message that
// an honest device would send; Message.Bytes writes it.
//
// It is the attackers' side. Nothing that judges a message imports it, and it
// panics where its caller asks for something that cannot be made.
package wire

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// TLV is one element with a definite, minimal length.
func TLV(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	return append(append([]byte{tag}, length(len(content))...), content...)
}

// Indefinite is one element of indefinite length (X.690 §8.1.3.6).
func Indefinite(tag byte, parts ...[]byte) []byte {
	return append(append([]byte{tag, 0x80}, bytes.Join(parts, nil)...), 0, 0)
}

// LongForm is one element whose length takes one octet more than it needs.
func LongForm(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	l := length(len(content))
	if len(l) == 1 {
		l = []byte{0x81, l[0]}
	} else {
		l = append([]byte{l[0] + 1, 0}, l[1:]...)
	}
	return append(append([]byte{tag}, l...), content...)
}

func length(n int) []byte {
	switch {
	case n < 0x80:
		return []byte{byte(n)}
	case n < 0x100:
		return []byte{0x81, byte(n)}
	case n < 0x10000:
		return []byte{0x82, byte(n >> 8), byte(n)}
	}
	return []byte{0x83, byte(n >> 16), byte(n >> 8), byte(n)}
}

// The universal types, by their value.
func Sequence(parts ...[]byte) []byte { return TLV(0x30, parts...) }
func Set(parts ...[]byte) []byte      { return TLV(0x31, parts...) } // in the order given
func Octets(value []byte) []byte      { return TLV(0x04, value) }
func Null() []byte                    { return []byte{5, 0} }
func Bits(value []byte) []byte        { return TLV(0x03, []byte{0}, value) }
func Printable(text string) []byte    { return TLV(0x13, []byte(text)) }
func UTF8(text string) []byte         { return TLV(0x0c, []byte(text)) }
func IA5(text string) []byte          { return TLV(0x16, []byte(text)) }
func T61(text string) []byte          { return TLV(0x14, []byte(text)) }
func Int(n int64) []byte              { return BigInt(big.NewInt(n)) }

// BMP is a BMPString; runes outside of the plane are cut.
func BMP(text string) []byte {
	var b []byte
	for _, r := range text {
		b = append(b, byte(r>>8), byte(r))
	}
	return TLV(0x1e, b)
}

// Universal is a UniversalString.
func Universal(text string) []byte {
	var b []byte
	for _, r := range text {
		b = append(b, byte(r>>24), byte(r>>16), byte(r>>8), byte(r))
	}
	return TLV(0x1c, b)
}

// Explicit is the constructed context-specific tag n.
func Explicit(n byte, parts ...[]byte) []byte { return TLV(0xa0|n, parts...) }

// Implicit is the primitive context-specific tag n.
func Implicit(n byte, value []byte) []byte { return TLV(0x80|n, value) }

// BigInt is an INTEGER.
func BigInt(n *big.Int) []byte {
	der, err := asn1.Marshal(n)
	if err != nil {
		panic(err)
	}
	return der
}

// OID is an OBJECT IDENTIFIER in dotted form.
func OID(dotted string) []byte {
	var content []byte
	arcs := strings.Split(dotted, ".")
	for i := 1; i < len(arcs); i++ {
		arc, err := strconv.ParseUint(arcs[i], 10, 64)
		if err != nil {
			panic(err)
		}
		if i == 1 {
			top, err := strconv.ParseUint(arcs[0], 10, 64)
			if err != nil {
				panic(err)
			}
			arc += 40 * top
		}
		octets := []byte{byte(arc & 0x7f)}
		for arc >>= 7; arc > 0; arc >>= 7 {
			octets = append([]byte{byte(arc&0x7f) | 0x80}, octets...)
		}
		content = append(content, octets...)
	}
	return TLV(0x06, content)
}

// Algorithm is an AlgorithmIdentifier; without parameters it has NULL.
func Algorithm(oid string, parameters ...[]byte) []byte {
	if parameters == nil {
		parameters = [][]byte{Null()}
	}
	return Sequence(append([][]byte{OID(oid)}, parameters...)...)
}

// Attribute is an Attribute with any number of values (RFC 2986 §4.1).
func Attribute(oid string, values ...[]byte) []byte { return Sequence(OID(oid), Set(values...)) }

// Extension is an Extension (RFC 5280 §4.1); value is what the OCTET STRING holds.
func Extension(oid string, critical bool, value []byte) []byte {
	if critical {
		return Sequence(OID(oid), []byte{1, 1, 0xff}, Octets(value))
	}
	return Sequence(OID(oid), Octets(value))
}

// ATV is one AttributeTypeAndValue.
func ATV(oid string, value []byte) []byte { return Sequence(OID(oid), value) }

// RDN is a RelativeDistinguishedName of these attributes, in the order given.
func RDN(attributes ...[]byte) []byte { return Set(attributes...) }

// Name is an RDNSequence.
func Name(rdns ...[]byte) []byte { return Sequence(rdns...) }

// CommonName is the name of one CN.
func CommonName(cn string) []byte { return Name(RDN(ATV(OIDCommonName, UTF8(cn)))) }

// sorted is the order of a DER SET OF (X.690 §11.6).
func sorted(elements [][]byte) [][]byte {
	elements = slices.Clone(elements)
	slices.SortFunc(elements, bytes.Compare)
	return elements
}

// or is the piece itself, or what stands in its place by default.
func or(piece, otherwise []byte) []byte {
	if piece != nil {
		return piece
	}
	return otherwise
}
