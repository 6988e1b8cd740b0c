package differential

import (
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// NameAttribute is one AttributeTypeAndValue as sent.
type NameAttribute struct {
	Type  string // dotted
	Tag   int    // of the string type
	Value string // octets
}

// Extension is one Extension as sent, with its value both raw and read.
type Extension struct {
	ID       string
	Critical bool
	Value    []byte
	meaning  writable
}

// Attribute is one request attribute as sent, with its value both raw and read.
type Attribute struct {
	ID      string
	Value   []byte // the one value, whole
	meaning writable
}

// writable is a decoded value that can be encoded again.
type writable interface{ der() []byte }

// Request is a PKCS#10 (RFC 2986 §4).
type Request struct {
	Version    *big.Int
	Subject    [][]NameAttribute
	SPKI       []byte
	Key        *rsa.PublicKey
	Attributes []Attribute
	Digest     string
	Algorithm  string // of the signature, dotted
	Signature  []byte
}

// DecodeRequest reads a PKCS#10 and verifies its signature.
func DecodeRequest(der []byte) (*Request, error) {
	root, err := single(der)
	if err != nil {
		return nil, err
	}
	parts, err := sequence(root, 3, 3)
	if err != nil {
		return nil, err
	}
	r := &Request{}
	if err := r.readInfo(parts[0]); err != nil {
		return nil, err
	}
	if r.Algorithm, err = plainAlgorithm(parts[1], false); err != nil {
		return nil, fmt.Errorf("signature algorithm: %w", err)
	}
	if r.Signature, err = wholeBits(parts[2]); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	name, hash, err := signatureDigest(r.Algorithm)
	if err != nil {
		return nil, err
	}
	r.Digest = name
	return r, rsa.VerifyPKCS1v15(r.Key, hash, sum(hash, parts[0].FullBytes), r.Signature)
}

// readInfo reads CertificationRequestInfo.
func (r *Request) readInfo(info asn1.RawValue) error {
	parts, err := sequence(info, 4, 4)
	if err != nil {
		return err
	}
	if r.Version, err = integer(parts[0]); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if r.Subject, err = readName(parts[1]); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	r.SPKI = parts[2].FullBytes
	if r.Key, err = publicKey(parts[2]); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	list, err := inside(parts[3], asn1.ClassContextSpecific, 0)
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	seen := map[string]bool{}
	for _, item := range list {
		a := Attribute{}
		var value asn1.RawValue
		if a.ID, value, err = oneValue(item); err != nil {
			return fmt.Errorf("attribute: %w", err)
		}
		if seen[a.ID] {
			return fmt.Errorf("attribute %s has two values", a.ID)
		}
		seen[a.ID] = true
		a.Value = value.FullBytes
		if a.meaning, err = readAttribute(a.ID, value); err != nil {
			return fmt.Errorf("attribute %s: %w", a.ID, err)
		}
		r.Attributes = append(r.Attributes, a)
	}
	if seen[extensionRequest] && seen[microsoftExtensions] {
		return errors.New("two lists of extensions")
	}
	return nil
}

// readName reads a Name, an RDNSequence (RFC 5280 §4.1.2.4).
func readName(v asn1.RawValue) ([][]NameAttribute, error) {
	rdns, err := sequence(v, 0, -1)
	if err != nil {
		return nil, err
	}
	name := [][]NameAttribute{}
	for _, set := range rdns {
		items, err := counted(set, asn1.ClassUniversal, asn1.TagSet, 1, -1)
		if err != nil {
			return nil, err
		}
		var rdn []NameAttribute
		for _, item := range items {
			pair, err := sequence(item, 2, 2)
			if err != nil {
				return nil, err
			}
			oid, err := identifier(pair[0])
			if err != nil {
				return nil, err
			}
			value, err := text(pair[1], asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String)
			if err != nil {
				return nil, err
			}
			rdn = append(rdn, NameAttribute{oid, pair[1].Tag, value})
		}
		name = append(name, rdn)
	}
	return name, nil
}

func writeName(name [][]NameAttribute) []byte {
	var rdns [][]byte
	for _, rdn := range name {
		var items [][]byte
		for _, a := range rdn {
			items = append(items, writeSequence(writeOID(a.Type), writeText(a.Tag, a.Value)))
		}
		rdns = append(rdns, writeSet(items...))
	}
	return writeSequence(rdns...)
}

// DER writes the request from what was read of it. Only the order of the
// attributes is taken as it was.
func (r *Request) DER() []byte {
	var attributes [][]byte
	for _, a := range r.Attributes {
		attributes = append(attributes, writeSequence(writeOID(a.ID), writeSet(a.meaning.der())))
	}
	return writeSequence(
		writeSequence(writeInteger(r.Version), writeName(r.Subject), writePublicKey(r.Key), writeExplicit(0, attributes...)),
		writeAlgorithm(r.Algorithm),
		writeBits(r.Signature))
}
