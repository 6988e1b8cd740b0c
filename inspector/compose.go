package inspector

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// addOID writes a dotted identifier; a malformed one fails the whole build.
func addOID(b *cryptobyte.Builder, dotted string) {
	arcs := strings.Split(dotted, ".")
	oid := make(asn1.ObjectIdentifier, len(arcs))
	for i, arc := range arcs {
		n, err := strconv.ParseInt(arc, 10, 32)
		if err != nil || n < 0 {
			b.SetError(errors.New("object identifier is not dotted decimal"))
			return
		}
		oid[i] = int(n)
	}
	b.AddASN1ObjectIdentifier(oid)
}

// addAlgorithm writes AlgorithmIdentifier{oid, NULL}.
func addAlgorithm(b *cryptobyte.Builder, dotted string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, dotted)
		b.AddASN1NULL()
	})
}

// addString writes a string of any primitive type as its bytes are.
func addString(b *cryptobyte.Builder, tag cbasn1.Tag, value string) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
}

// composeAttribute makes Attribute{oid, SET{value}}.
func composeAttribute(dotted string, value func(b *cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, dotted)
		b.AddASN1(cbasn1.SET, value)
	})
	return b.Bytes()
}

// sortSetOf puts the encodings into the order of a DER SET OF (X.690 §11.6).
func sortSetOf(elements [][]byte) [][]byte {
	sorted := slices.Clone(elements)
	slices.SortFunc(sorted, bytes.Compare)
	return sorted
}

// attributeSpec is one signed attribute to be written.
type attributeSpec struct {
	oid   string
	value func(b *cryptobyte.Builder)
}

func printableAttribute(oid, value string) attributeSpec {
	return attributeSpec{oid, func(b *cryptobyte.Builder) { addString(b, cbasn1.PrintableString, value) }}
}

func octetsAttribute(oid string, value []byte) attributeSpec {
	return attributeSpec{oid, func(b *cryptobyte.Builder) { b.AddASN1OctetString(value) }}
}

// signedDataSpec describes the one shape of SignedData that this package
// writes: one signer by issuer and serial, signed attributes, RSA PKCS#1 v1.5.
type signedDataSpec struct {
	content      []byte
	certificates [][]byte // DER; none: the field is left out
	issuer       []byte   // RDNSequence, DER
	serial       *big.Int
	digest       *digestAlgorithm
	attributes   []attributeSpec // beside contentType and messageDigest
	key          crypto.Signer
}

// composeSignedData makes ContentInfo{SignedData} in DER.
func composeSignedData(s signedDataSpec) ([]byte, error) {
	if _, ok := s.key.Public().(*rsa.PublicKey); !ok {
		return nil, errors.New("signing key is not RSA")
	}
	specs := append(slices.Clone(s.attributes),
		attributeSpec{oidContentType, func(b *cryptobyte.Builder) { addOID(b, oidData) }},
		octetsAttribute(oidMessageDigest, s.digest.sum(s.content)))
	attributes := make([][]byte, 0, len(specs))
	for _, spec := range specs {
		attribute, err := composeAttribute(spec.oid, spec.value)
		if err != nil {
			return nil, fmt.Errorf("signed attribute %s: %w", spec.oid, err)
		}
		attributes = append(attributes, attribute)
	}
	attributes = sortSetOf(attributes)

	// RFC 5652 §5.4: the signature covers the attributes as an explicit SET OF.
	var set cryptobyte.Builder
	set.AddASN1(cbasn1.SET, addAll(attributes))
	signed, err := set.Bytes()
	if err != nil {
		return nil, err
	}
	// PKCS#1 v1.5 signatures take no randomness; some token libraries refuse a nil reader.
	signature, err := s.key.Sign(rand.Reader, s.digest.sum(signed), s.digest.hash)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}

	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, oidSignedData)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, s.digest.oid) })
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addOID(b, oidData)
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(s.content) })
				})
				if len(s.certificates) > 0 {
					b.AddASN1(explicit(0), addAll(sortSetOf(s.certificates)))
				}
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(1)
						addIssuerAndSerial(b, s.issuer, s.serial)
						addAlgorithm(b, s.digest.oid)
						b.AddASN1(explicit(0), addAll(attributes))
						// quirk: strongSwan 5.9.8 reads only the bare rsaEncryption here.
						addAlgorithm(b, oidRSAEncryption)
						b.AddASN1OctetString(signature)
					})
				})
			})
		})
	})
	return b.Bytes()
}

// explicit is the constructed context-specific tag n.
func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

func addAll(elements [][]byte) func(b *cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		for _, element := range elements {
			b.AddBytes(element)
		}
	}
}

func addIssuerAndSerial(b *cryptobyte.Builder, issuer []byte, serial *big.Int) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(issuer)
		b.AddASN1BigInt(serial)
	})
}
