package inspector

import (
	"errors"
	"fmt"
)

// Extensions of a certificate that a request does not have.
const (
	oidIssuerAltName          = "2.5.29.18"
	oidCRLDistributionPoints  = "2.5.29.31"
	oidCertificatePolicies    = "2.5.29.32"
	oidAuthorityKeyIdentifier = "2.5.29.35"
	oidFreshestCRL            = "2.5.29.46"
	oidAuthorityInfoAccess    = "1.3.6.1.5.5.7.1.1"
)

// Certified reads what the signer's certificate certifies, as strictly as a
// request is read, but for what a CA writes in its own way: string types of
// names, and which extensions are critical. An error means that the content
// cannot be told for certain, so that nothing can be held to it. It says nothing
// about who signed the certificate: that is SignedBy's. threats C79, D12, D16
func (s *Signer) Certified() (*Certified, error) {
	if s == nil {
		return nil, errors.New("certified: no certificate")
	}
	c, err := readCertified(s.Raw)
	if err != nil {
		return nil, fmt.Errorf("certified: %w", err)
	}
	return c, nil
}

func readCertified(raw []byte) (*Certified, error) {
	root, err := walk(raw, modeDER)
	if err != nil {
		return nil, err
	}
	if _, err := readCertificate(root); err != nil { // the frame, in its order
		return nil, err
	}
	f := root.children[0].fields()
	v3 := false
	if version := f.optional(classContext, 0); version != nil {
		v3 = version.children[0].content[0] == 2
	}
	for range 4 { // serial number, algorithm, issuer, validity
		if _, err := f.any(); err != nil {
			return nil, err
		}
	}
	subject, err := f.any()
	if err != nil {
		return nil, err
	}
	c := &Certified{}
	if c.Subject, err = parseNameAs(subject, certifiedText); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if _, err := f.any(); err != nil { // key
		return nil, err
	}
	explicit := f.optional(classContext, 3)
	if err := f.end(); err != nil { // RFC 5280 §4.1.2.8: no unique identifiers
		return nil, err
	}
	if explicit == nil {
		return c, nil
	}
	if !v3 { // RFC 5280 §4.1.2.9
		return nil, errors.New("extensions in a certificate that is not version 3")
	}
	extensions, err := explicit.only(classUniversal, tagSequence)
	if err != nil {
		return nil, fmt.Errorf("extensions: %w", err)
	}
	return c, c.extensions(extensions)
}

// certifiedText decodes a value of a name that a CA wrote: by the string types
// that every reader decodes alike, whatever the attribute. BMPString and T61
// have more than one reading.
func certifiedText(_ string, n *node) (string, error) {
	if n.is(classUniversal, tagIA5String) {
		return nameText(oidEmailAddress, n)
	}
	return nameText("", n)
}

func (c *Certified) extensions(n *node) error {
	if len(n.children) == 0 || len(n.children) > maxExtensions {
		return fmt.Errorf("%d extensions", len(n.children))
	}
	seen := make(map[string]bool, len(n.children))
	for i, child := range n.children {
		oid, critical, value, err := parseExtension(child)
		if err != nil {
			return fmt.Errorf("extension %d: %w", i, err)
		}
		if seen[oid] { // RFC 5280 §4.2. threat C09
			return fmt.Errorf("extension %s twice", oid)
		}
		seen[oid] = true
		known, err := c.extension(oid, value)
		if err != nil {
			return fmt.Errorf("extension %s: %w", oid, err)
		}
		if critical && !known { // RFC 5280 §4.2: whoever does not know it must refuse
			return fmt.Errorf("extension %s is critical and not known", oid)
		}
	}
	return nil
}

// extension reads one value wholly if a field of Certified holds it. known also
// for those that say nothing about whom or what the certificate is for.
func (c *Certified) extension(oid string, value []byte) (known bool, err error) {
	switch oid {
	case oidSubjectAltName, oidKeyUsage, oidExtKeyUsage, oidMSApplicationPolicies,
		oidMSSID, oidMSTemplateName, oidMSTemplateOID, oidBasicConstraints:
	case oidSubjectKeyIdentifier, oidAuthorityKeyIdentifier, oidCRLDistributionPoints, oidFreshestCRL,
		oidAuthorityInfoAccess, oidCertificatePolicies, oidIssuerAltName:
		return true, nil
	default:
		return false, nil
	}
	n, err := walk(value, modeDER)
	if err != nil {
		return false, err
	}
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
	case oidBasicConstraints:
		c.IsCA, err = parseBasicConstraints(n)
	}
	return true, err
}

// parseBasicConstraints reads BasicConstraints{ cA DEFAULT FALSE,
// pathLenConstraint OPTIONAL }. quirk: many CAs write the default.
func parseBasicConstraints(n *node) (isCA bool, err error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return false, err
	}
	f := n.fields()
	if flag := f.optional(classUniversal, tagBoolean); flag != nil {
		if isCA, err = flag.boolean(); err != nil {
			return false, err
		}
	}
	if length := f.optional(classUniversal, tagInteger); length != nil {
		if !isCA { // RFC 5280 §4.2.1.9
			return false, errors.New("path length of a certificate that is no CA's")
		}
		if err := checkSmall(length); err != nil {
			return false, err
		}
	}
	return isCA, f.end()
}
