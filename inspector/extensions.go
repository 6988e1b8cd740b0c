package inspector

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"regexp"
)

// Limits of extensions.
const (
	maxExtensions = 64
	maxPurposes   = 32  // EKUs or application policies
	maxSID        = 184 // "S-1-", an authority and fifteen sub-authorities of ten digits: MS-DTYP §2.4.2.1
)

// sidSyntax is the string form of a SID, upper-case S only. threat B05
var sidSyntax = regexp.MustCompile(`^S-1-[0-9]+(-[0-9]+)+$`)

// extensions fills the facts of an Extensions value. Extensions outside of the
// known ones are facts too; a known one that is malformed is an error.
func (c *CSR) extensions(n *node, keyBits []byte) error {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return err
	}
	// RFC 5280 §4.1.2.9: SEQUENCE SIZE (1..MAX)
	if len(n.children) == 0 || len(n.children) > maxExtensions {
		return fmt.Errorf("%d extensions", len(n.children))
	}
	seen := make(map[string]bool, len(n.children))
	for i, child := range n.children {
		oid, critical, value, err := parseExtension(child)
		if err != nil {
			return fmt.Errorf("extension %d: %w", i, err)
		}
		if seen[oid] { // threat C09
			return fmt.Errorf("extension %s twice", oid)
		}
		seen[oid] = true
		known, err := c.extension(oid, value, keyBits)
		if err != nil {
			return fmt.Errorf("extension %s: %w", oid, err)
		}
		switch {
		case !known: // threats B13–B15, B39
			c.UnexpectedExtensions = append(c.UnexpectedExtensions, oid)
		case critical && !mayBeCritical(oid): // threat B40
			c.UnexpectedExtensions = append(c.UnexpectedExtensions, "critical:"+oid)
		}
	}
	return nil
}

// mayBeCritical names the extensions that honest clients mark critical (quirk:
// Apple does so with keyUsage, certmonger with basicConstraints). A critical SID, template or policy is what an
// issuer would have to understand, and no client sends it.
func mayBeCritical(oid string) bool {
	switch oid {
	case oidSubjectAltName, oidKeyUsage, oidExtKeyUsage, oidBasicConstraints:
		return true
	}
	return false
}

// parseExtension reads Extension{extnID, critical DEFAULT FALSE, extnValue}.
func parseExtension(n *node) (oid string, critical bool, value []byte, err error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", false, nil, err
	}
	f := n.fields()
	id, err := f.next(classUniversal, tagOID)
	if err != nil {
		return "", false, nil, err
	}
	if oid, err = id.oid(); err != nil {
		return "", false, nil, err
	}
	if flag := f.optional(classUniversal, tagBoolean); flag != nil {
		if critical, err = flag.boolean(); err != nil {
			return "", false, nil, err
		}
		if !critical { // X.690 §11.5: a default is not encoded. threat B40
			return "", false, nil, errors.New("critical is false and written")
		}
	}
	octets, err := f.next(classUniversal, tagOctetString)
	if err != nil {
		return "", false, nil, err
	}
	return oid, critical, octets.content, f.end() // threat C07
}

// extension reads one value wholly (threat C08); known is false for an
// extension that no field of CSR can hold.
func (c *CSR) extension(oid string, value, keyBits []byte) (known bool, err error) {
	switch oid {
	case oidSubjectAltName, oidKeyUsage, oidExtKeyUsage, oidMSApplicationPolicies,
		oidMSSID, oidMSTemplateName, oidMSTemplateOID, oidSubjectKeyIdentifier, oidBasicConstraints:
	default:
		return false, nil
	}
	n, err := walk(value, modeDER)
	if err != nil {
		return false, err
	}
	known = true
	switch oid {
	case oidSubjectAltName:
		c.SAN, err = parseGeneralNames(n)
	case oidKeyUsage:
		c.HasKeyUsage = true
		c.KeyUsage, err = parseKeyUsage(n)
	case oidExtKeyUsage:
		c.HasExtKeyUsage = true
		c.ExtKeyUsage, err = parsePurposes(n, (*node).oid)
	case oidMSApplicationPolicies:
		c.HasApplicationPolicies = true
		c.ApplicationPolicies, err = parsePurposes(n, policyOID)
	case oidMSSID:
		c.SID, err = parseSID(n)
	case oidMSTemplateName:
		c.TemplateName, err = parseTemplateName(n)
	case oidMSTemplateOID:
		c.TemplateOID, err = parseTemplateOID(n)
	case oidSubjectKeyIdentifier:
		known, err = isKeyIdentifier(n, c.SPKI, keyBits)
	case oidBasicConstraints:
		// quirk: certmonger says that it asks for no CA, by an empty SEQUENCE.
		// Anything in it is refused. threat B13
		known = n.is(classUniversal, tagSequence) && len(n.children) == 0
	}
	return known, err
}

// parseKeyUsage reads a NamedBitList in its one DER form (X.690 §11.2.2), not
// empty (RFC 5280 §4.2.1.3). threat A06
func parseKeyUsage(n *node) (KeyUsage, error) {
	octets, unused, err := n.bitString()
	if err != nil {
		return 0, err
	}
	if len(octets) == 0 || len(octets) > 2 || len(octets) == 2 && unused != 7 { // nine bits are named
		return 0, errors.New("key usage has no bit or too many")
	}
	if bits.TrailingZeros8(octets[len(octets)-1]) != unused {
		return 0, errors.New("key usage with trailing zero bits")
	}
	usage := KeyUsage(bits.Reverse8(octets[0]))
	if len(octets) == 2 {
		usage |= 1 << 8
	}
	return usage, nil
}

// parsePurposes reads a SEQUENCE of 1..32 different purposes. threats B10, A07
func parsePurposes(n *node, purpose func(*node) (string, error)) ([]string, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	if len(n.children) == 0 || len(n.children) > maxPurposes {
		return nil, fmt.Errorf("%d purposes", len(n.children))
	}
	purposes := make([]string, 0, len(n.children))
	seen := make(map[string]bool, len(n.children))
	for _, child := range n.children {
		oid, err := purpose(child)
		if err != nil {
			return nil, err
		}
		if seen[oid] {
			return nil, fmt.Errorf("purpose %s twice", oid)
		}
		seen[oid] = true
		purposes = append(purposes, oid)
	}
	return purposes, nil
}

// policyOID reads PolicyInformation without qualifiers. threat B08
func policyOID(n *node) (string, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", err
	}
	id, err := n.only(classUniversal, tagOID)
	if err != nil {
		return "", err
	}
	return id.oid()
}

// parseSID reads SEQUENCE{ [0]{ szOID_NTDS_OBJECTSID, [0]{ OCTET STRING } } }.
// The CA copies it into the certificate as it is. threat B05
func parseSID(n *node) (string, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", err
	}
	other, err := n.only(classContext, 0)
	if err != nil {
		return "", err
	}
	f := other.fields()
	typ, err := f.next(classUniversal, tagOID)
	if err != nil {
		return "", err
	}
	oid, err := typ.oid()
	if err != nil {
		return "", err
	}
	if oid != oidMSSIDValue {
		return "", fmt.Errorf("type %s is not an object SID", oid)
	}
	wrapped, err := f.next(classContext, 0)
	if err != nil {
		return "", err
	}
	if err := f.end(); err != nil {
		return "", err
	}
	value, err := wrapped.only(classUniversal, tagOctetString)
	if err != nil {
		return "", err
	}
	if len(value.content) > maxSID || !sidSyntax.Match(value.content) {
		return "", errors.New("SID malformed")
	}
	return string(value.content), nil
}

// parseTemplateName reads the name of a version 1 template: BMPString and
// nothing else. threat B21
func parseTemplateName(n *node) (string, error) {
	name, err := n.bmpText(maxNameValue)
	if err == nil && name == "" {
		err = errors.New("template name is empty")
	}
	return name, err
}

// parseTemplateOID reads CertificateTemplate{ templateID, majorVersion
// OPTIONAL, minorVersion OPTIONAL } (MS-WCCE §2.2.2.7.7.2). threat B22
func parseTemplateOID(n *node) (string, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", err
	}
	f := n.fields()
	id, err := f.next(classUniversal, tagOID)
	if err != nil {
		return "", err
	}
	for range 2 {
		version := f.optional(classUniversal, tagInteger)
		if version == nil {
			break
		}
		number, err := version.integer()
		if err != nil {
			return "", err
		}
		if number.Sign() < 0 || number.BitLen() > 32 {
			return "", errors.New("template version out of range")
		}
	}
	if err := f.end(); err != nil {
		return "", err
	}
	return id.oid()
}

// isKeyIdentifier reports whether a subject key identifier is a hash of the
// request's own key, in one of the forms in use: RFC 5280 §4.2.1.2 methods 1
// and 2, SHA-1 over the whole SubjectPublicKeyInfo, SHA-256 over the key bits
// whole or cut to 160 bits (RFC 7093 §2 method 1). Another value would name
// another key. threat B14
func isKeyIdentifier(n *node, spki, keyBits []byte) (bool, error) {
	id, err := n.octets()
	if err != nil {
		return false, err
	}
	method1, whole, long := sha1.Sum(keyBits), sha1.Sum(spki), sha256.Sum256(keyBits)
	method2 := bytes.Clone(method1[12:])
	method2[0] = method2[0]&0x0f | 0x40
	for _, candidate := range [][]byte{method1[:], method2, whole[:], long[:], long[:20]} {
		if bytes.Equal(id, candidate) {
			return true, nil
		}
	}
	return false, nil
}
