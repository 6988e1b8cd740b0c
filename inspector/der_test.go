package inspector

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"strconv"
	"strings"
)

// The builders of this file write any bytes a test asks for, right or wrong:
// no encoder of a library stands between a test and what it sends.

// tlv is one element with a definite, minimal length.
func tlv(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	return append(append([]byte{tag}, derLength(len(content))...), content...)
}

// indefinite is one element with an indefinite length.
func indefinite(tag byte, parts ...[]byte) []byte {
	return append(append([]byte{tag, 0x80}, bytes.Join(parts, nil)...), 0, 0)
}

func derLength(n int) []byte {
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

func derSequence(parts ...[]byte) []byte { return tlv(0x30, parts...) }
func derSet(parts ...[]byte) []byte      { return tlv(0x31, parts...) }
func derOctets(value []byte) []byte      { return tlv(0x04, value) }
func derNull() []byte                    { return []byte{5, 0} }
func derPrintable(text string) []byte    { return tlv(0x13, []byte(text)) }
func derUTF8(text string) []byte         { return tlv(0x0c, []byte(text)) }
func derBits(value []byte) []byte        { return tlv(0x03, []byte{0}, value) }

func derInt(n int64) []byte { return derBigInt(big.NewInt(n)) }

func derBigInt(n *big.Int) []byte {
	der, err := asn1.Marshal(n)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return der
}

// derOID writes a dotted identifier.
func derOID(dotted string) []byte {
	var content []byte
	arcs := strings.Split(dotted, ".")
	for i := 1; i < len(arcs); i++ {
		arc, err := strconv.ParseUint(arcs[i], 10, 64)
		if err != nil {
			panic(err)
		}
		if i == 1 {
			top, _ := strconv.ParseUint(arcs[0], 10, 64)
			arc += 40 * top
		}
		octets := []byte{byte(arc & 0x7f)}
		for arc >>= 7; arc > 0; arc >>= 7 {
			octets = append([]byte{byte(arc&0x7f) | 0x80}, octets...)
		}
		content = append(content, octets...)
	}
	return tlv(0x06, content)
}

// derAlgorithm is an AlgorithmIdentifier with NULL parameters.
func derAlgorithm(dotted string) []byte { return derSequence(derOID(dotted), derNull()) }

// derAttribute is an Attribute with any number of values.
func derAttribute(dotted string, values ...[]byte) []byte {
	return derSequence(derOID(dotted), derSet(values...))
}

// derName is an RDNSequence of one common name.
func derName(cn string) []byte {
	return derSequence(derSet(derSequence(derOID("2.5.4.3"), derUTF8(cn))))
}
