package differential

import (
	"encoding/asn1"
	"fmt"
	"math/big"
)

// Identifiers of request attributes (RFC 2985 §5.4, MS-WCCE §2.2.2.7).
const (
	challengePassword   = "1.2.840.113549.1.9.7"
	extensionRequest    = "1.2.840.113549.1.9.14"
	microsoftExtensions = "1.3.6.1.4.1.311.2.1.14"
	microsoftOSVersion  = "1.3.6.1.4.1.311.13.2.3"
	microsoftCSP        = "1.3.6.1.4.1.311.13.2.2"
	microsoftClientInfo = "1.3.6.1.4.1.311.21.20"
	friendlyName        = "1.2.840.113549.1.9.20"
)

// taggedText is a string whose type is open.
type taggedText struct {
	tag   int
	value string
}

func (t taggedText) der() []byte { return writeText(t.tag, t.value) }

// cspProvider is MS-WCCE §2.2.2.7.2.
type cspProvider struct {
	keySpec   *big.Int
	name      string
	signature asn1.BitString
}

func (c cspProvider) der() []byte {
	return writeSequence(writeInteger(c.keySpec), writeWide(c.name), must(asn1.Marshal(c.signature)))
}

// clientInfo is MS-WCCE §2.2.2.7.4.
type clientInfo struct {
	id    *big.Int
	texts [3]string
}

func (c clientInfo) der() []byte {
	parts := [][]byte{writeInteger(c.id)}
	for _, s := range c.texts {
		parts = append(parts, writeText(asn1.TagUTF8String, s))
	}
	return writeSequence(parts...)
}

// extensionList is Extensions (RFC 5280 §4.1).
type extensionList []Extension

func (l extensionList) der() []byte {
	var items [][]byte
	for _, e := range l {
		parts := [][]byte{writeOID(e.ID)}
		if e.Critical {
			parts = append(parts, must(asn1.Marshal(true)))
		}
		items = append(items, writeSequence(append(parts, writeOctets(e.meaning.der()))...))
	}
	return writeSequence(items...)
}

func readAttribute(id string, v asn1.RawValue) (writable, error) {
	switch id {
	case challengePassword:
		value, err := text(v, asn1.TagPrintableString, asn1.TagUTF8String)
		return taggedText{v.Tag, value}, err
	case microsoftOSVersion:
		value, err := text(v, asn1.TagIA5String)
		return taggedText{v.Tag, value}, err
	case extensionRequest, microsoftExtensions:
		return readExtensions(v)
	case microsoftCSP:
		return readCSP(v)
	case microsoftClientInfo:
		return readClientInfo(v)
	case friendlyName:
		name, err := wide(v)
		return templateText(name), err
	}
	return readTree(v)
}

func readCSP(v asn1.RawValue) (c cspProvider, err error) {
	parts, err := sequence(v, 3, 3)
	if err != nil {
		return c, err
	}
	if c.keySpec, err = integer(parts[0]); err != nil {
		return c, err
	}
	if c.name, err = wide(parts[1]); err != nil {
		return c, err
	}
	c.signature, err = typed[asn1.BitString](parts[2])
	return c, err
}

func readClientInfo(v asn1.RawValue) (c clientInfo, err error) {
	parts, err := sequence(v, 4, 4)
	if err != nil {
		return c, err
	}
	if c.id, err = integer(parts[0]); err != nil {
		return c, err
	}
	for i := range c.texts {
		if c.texts[i], err = text(parts[i+1], asn1.TagUTF8String); err != nil {
			return c, err
		}
	}
	return c, nil
}

func readExtensions(v asn1.RawValue) (extensionList, error) {
	items, err := sequence(v, 1, -1)
	if err != nil {
		return nil, err
	}
	var list extensionList
	seen := map[string]bool{}
	for _, item := range items {
		e, err := readExtension(item)
		if err != nil {
			return nil, err
		}
		if seen[e.ID] {
			return nil, fmt.Errorf("extension %s has two values", e.ID)
		}
		seen[e.ID] = true
		list = append(list, e)
	}
	return list, nil
}

// readExtension reads Extension; critical, DEFAULT FALSE, is written only if it
// is true.
func readExtension(v asn1.RawValue) (e Extension, err error) {
	parts, err := sequence(v, 2, 3)
	if err != nil {
		return e, err
	}
	if e.ID, err = identifier(parts[0]); err != nil {
		return e, err
	}
	if len(parts) == 3 {
		if e.Critical, err = typed[bool](parts[1]); err != nil {
			return e, err
		}
		if !e.Critical {
			return e, fmt.Errorf("extension %s: default value written", e.ID)
		}
	}
	if e.Value, err = octets(parts[len(parts)-1]); err != nil {
		return e, err
	}
	if e.meaning, err = readExtensionValue(e.ID, e.Value); err != nil {
		return e, fmt.Errorf("extension %s: %w", e.ID, err)
	}
	return e, nil
}
