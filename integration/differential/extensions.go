package differential

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Identifiers of extensions (RFC 5280 §4.2.1, MS-WCCE §2.2.2.7.7).
const (
	subjectKeyIdentifier = "2.5.29.14"
	keyUsage             = "2.5.29.15"
	subjectAltName       = "2.5.29.17"
	basicConstraints     = "2.5.29.19"
	extKeyUsage          = "2.5.29.37"
	templateName         = "1.3.6.1.4.1.311.20.2"
	templateIdentifier   = "1.3.6.1.4.1.311.21.7"
	applicationPolicies  = "1.3.6.1.4.1.311.21.10"
	ntdsSecurity         = "1.3.6.1.4.1.311.25.2"
	ntdsObjectSID        = "1.3.6.1.4.1.311.25.2.1"
	userPrincipalName    = "1.3.6.1.4.1.311.20.2.3"
)

// The decoded values of the extensions that are known.
type (
	keyUsageBits  []int // numbers of the bits that are set
	purposeList   []string
	policyList    []string
	objectSID     string
	templateText  string
	templateValue struct {
		id       string
		versions []*big.Int
	}
	keyIdentifier []byte
	opaque        []byte // of an extension that is not known: its octets
	nameList      []generalName
	generalName   struct {
		tag    int
		octets []byte // of a primitive one
		typ    string // otherName: its type; registeredID: the identifier
		value  tree   // otherName: its value; any other constructed one: itself
	}
)

func (o opaque) der() []byte        { return o }
func (s templateText) der() []byte  { return writeWide(string(s)) }
func (k keyIdentifier) der() []byte { return writeOctets(k) }

// der writes a named bit list: no bit after the last that is set (X.690 §11.2.2).
func (u keyUsageBits) der() []byte {
	bits := asn1.BitString{}
	for _, number := range u {
		for len(bits.Bytes) <= number/8 {
			bits.Bytes = append(bits.Bytes, 0)
		}
		bits.Bytes[number/8] |= 0x80 >> (number % 8)
		bits.BitLength = number + 1
	}
	return must(asn1.Marshal(bits))
}

func (l purposeList) der() []byte {
	var parts [][]byte
	for _, oid := range l {
		parts = append(parts, writeOID(oid))
	}
	return writeSequence(parts...)
}

func (l policyList) der() []byte {
	var parts [][]byte
	for _, oid := range l {
		parts = append(parts, writeSequence(writeOID(oid)))
	}
	return writeSequence(parts...)
}

func (s objectSID) der() []byte {
	return writeSequence(writeExplicit(0, writeOID(ntdsObjectSID), writeExplicit(0, writeOctets([]byte(s)))))
}

func (t templateValue) der() []byte {
	parts := [][]byte{writeOID(t.id)}
	for _, v := range t.versions {
		parts = append(parts, writeInteger(v))
	}
	return writeSequence(parts...)
}

func (l nameList) der() []byte {
	var parts [][]byte
	for _, n := range l {
		parts = append(parts, n.der())
	}
	return writeSequence(parts...)
}

func (n generalName) der() []byte {
	switch n.tag {
	case 0:
		return writeExplicit(0, writeOID(n.typ), writeExplicit(0, n.value.der()))
	case 3, 4, 5:
		return n.value.der()
	case 8:
		written, err := single(writeOID(n.typ))
		must(nil, err)
		return element(asn1.ClassContextSpecific, 8, false, written.Bytes)
	}
	return element(asn1.ClassContextSpecific, n.tag, false, n.octets)
}

func readExtensionValue(id string, value []byte) (writable, error) {
	switch id {
	case subjectKeyIdentifier, keyUsage, subjectAltName, extKeyUsage, templateName, templateIdentifier, applicationPolicies, ntdsSecurity:
	default:
		return opaque(value), nil
	}
	v, err := single(value)
	if err != nil {
		return nil, err
	}
	switch id {
	case subjectKeyIdentifier:
		id, err := octets(v)
		return keyIdentifier(id), err
	case keyUsage:
		return readKeyUsage(v)
	case subjectAltName:
		return readGeneralNames(v)
	case extKeyUsage:
		return readPurposes(v)
	case templateName:
		name, err := wide(v)
		return templateText(name), err
	case templateIdentifier:
		return readTemplate(v)
	case applicationPolicies:
		return readPolicies(v)
	}
	return readSID(v)
}

func readKeyUsage(v asn1.RawValue) (keyUsageBits, error) {
	bits, err := typed[asn1.BitString](v)
	if err != nil {
		return nil, err
	}
	var set keyUsageBits
	for i := range bits.BitLength {
		if bits.At(i) == 1 {
			set = append(set, i)
		}
	}
	return set, nil
}

func readPurposes(v asn1.RawValue) (purposeList, error) {
	items, err := sequence(v, 1, -1)
	if err != nil {
		return nil, err
	}
	var list purposeList
	for _, item := range items {
		oid, err := identifier(item)
		if err != nil {
			return nil, err
		}
		list = append(list, oid)
	}
	return list, nil
}

func readPolicies(v asn1.RawValue) (policyList, error) {
	items, err := sequence(v, 1, -1)
	if err != nil {
		return nil, err
	}
	var list policyList
	for _, item := range items {
		parts, err := sequence(item, 1, 1)
		if err != nil {
			return nil, err
		}
		oid, err := identifier(parts[0])
		if err != nil {
			return nil, err
		}
		list = append(list, oid)
	}
	return list, nil
}

// readSID reads the object SID, an otherName in a sequence of its own.
func readSID(v asn1.RawValue) (objectSID, error) {
	names, err := sequence(v, 1, 1)
	if err != nil {
		return "", err
	}
	parts, err := counted(names[0], asn1.ClassContextSpecific, 0, 2, 2)
	if err != nil {
		return "", err
	}
	oid, err := identifier(parts[0])
	if err != nil || oid != ntdsObjectSID {
		return "", errors.Join(err, fmt.Errorf("type %s", oid))
	}
	value, err := explicit(parts[1], 0)
	if err != nil {
		return "", err
	}
	sid, err := octets(value)
	return objectSID(sid), err
}

func readTemplate(v asn1.RawValue) (t templateValue, err error) {
	parts, err := sequence(v, 1, 3)
	if err != nil {
		return t, err
	}
	if t.id, err = identifier(parts[0]); err != nil {
		return t, err
	}
	for _, part := range parts[1:] {
		version, err := integer(part)
		if err != nil {
			return t, err
		}
		t.versions = append(t.versions, version)
	}
	return t, nil
}

// readGeneralNames reads GeneralNames (RFC 5280 §4.2.1.6).
func readGeneralNames(v asn1.RawValue) (nameList, error) {
	items, err := sequence(v, 1, -1)
	if err != nil {
		return nil, err
	}
	var list nameList
	for _, item := range items {
		name, err := readGeneralName(item)
		if err != nil {
			return nil, err
		}
		list = append(list, name)
	}
	return list, nil
}

func readGeneralName(v asn1.RawValue) (n generalName, err error) {
	n.tag = v.Tag
	if v.Class != asn1.ClassContextSpecific || v.Tag > 8 {
		return n, fmt.Errorf("tag %d/%d is no name", v.Class, v.Tag)
	}
	switch v.Tag {
	case 0:
		parts, err := counted(v, asn1.ClassContextSpecific, 0, 2, 2)
		if err != nil {
			return n, err
		}
		if n.typ, err = identifier(parts[0]); err != nil {
			return n, err
		}
		value, err := explicit(parts[1], 0)
		if err != nil {
			return n, err
		}
		if n.typ == userPrincipalName {
			if _, err := text(value, asn1.TagUTF8String); err != nil {
				return n, err
			}
		}
		n.value, err = readTree(value)
		return n, err
	case 3, 4, 5:
		if !v.IsCompound {
			return n, fmt.Errorf("name %d is primitive", v.Tag)
		}
		n.value, err = readTree(v)
		return n, err
	}
	if v.IsCompound {
		return n, fmt.Errorf("name %d is constructed", v.Tag)
	}
	if n.octets = v.Bytes; v.Tag == 8 { // IMPLICIT OBJECT IDENTIFIER
		oid, err := single(element(asn1.ClassUniversal, asn1.TagOID, false, v.Bytes))
		if err != nil {
			return n, err
		}
		n.typ, err = identifier(oid)
		return n, err
	}
	return n, nil
}
