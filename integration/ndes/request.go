package ndes

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"sort"
)

var (
	oidChallengePassword  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidExtensionRequest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidMSExtensionRequest = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
	oidKeyUsage           = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage        = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSAN                = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSID                = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 25, 2}
	oidAppPolicies        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 10}
)

// csr is what the CA takes from a PKCS#10: all of it.
type csr struct {
	subject    pkix.RDNSequence
	publicKey  any
	spki       []byte
	challenge  string
	extensions []pkix.Extension
}

type rawCSR struct {
	TBS struct {
		Raw        asn1.RawContent
		Version    int
		Subject    pkix.RDNSequence
		PublicKey  asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0"`
	}
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type rawAttribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// readCSR reads a PKCS#10 as loosely as MS-WCCE describes: extensions under
// either attribute, later ones added to earlier ones.
func readCSR(der []byte) (*csr, error) {
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, err
	}
	var raw rawCSR
	if _, err := asn1.Unmarshal(der, &raw); err != nil {
		return nil, err
	}
	c := &csr{subject: raw.TBS.Subject, publicKey: parsed.PublicKey, spki: parsed.RawSubjectPublicKeyInfo}
	for _, a := range raw.TBS.Attributes {
		var attr rawAttribute
		if _, err := asn1.Unmarshal(a.FullBytes, &attr); err != nil || len(attr.Values) == 0 {
			continue
		}
		switch {
		case attr.Type.Equal(oidChallengePassword):
			if c.challenge == "" {
				c.challenge = string(attr.Values[0].Bytes)
			}
		case attr.Type.Equal(oidExtensionRequest), attr.Type.Equal(oidMSExtensionRequest):
			var list []pkix.Extension
			if _, err := asn1.Unmarshal(attr.Values[0].FullBytes, &list); err != nil {
				return nil, err
			}
			c.extensions = append(c.extensions, list...)
		}
	}
	return c, nil
}

func (c *csr) extension(oid asn1.ObjectIdentifier) *pkix.Extension {
	for i := range c.extensions {
		if c.extensions[i].Id.Equal(oid) {
			return &c.extensions[i]
		}
	}
	return nil
}

// template is what NDES picks from the request's key usage.
func (c *csr) template() string {
	e := c.extension(oidKeyUsage)
	if e == nil {
		return "general_purpose"
	}
	var bits asn1.BitString
	if _, err := asn1.Unmarshal(e.Value, &bits); err != nil {
		return "general_purpose"
	}
	switch {
	case bits.At(0) == 1 && bits.At(2) == 0:
		return "signature"
	case bits.At(0) == 0 && bits.At(2) == 1:
		return "encryption"
	default:
		return "general_purpose"
	}
}

// subjectTemplate is the CA's order of RDN types, with the three that NDES
// setup adds; a type that is not in it is dropped from the certificate.
var subjectTemplate = []asn1.ObjectIdentifier{
	{1, 2, 840, 113549, 1, 9, 1}, {2, 5, 4, 3}, {2, 5, 4, 11}, {2, 5, 4, 10}, {2, 5, 4, 7}, {2, 5, 4, 8},
	{0, 9, 2342, 19200300, 100, 1, 25}, {2, 5, 4, 6},
	{1, 2, 840, 113549, 1, 9, 2}, {1, 2, 840, 113549, 1, 9, 8}, {2, 5, 4, 5},
}

var errNoSubject = errors.New("the request has no subject")

// rebuiltSubject orders and filters the subject as the CA does.
func (c *csr) rebuiltSubject() ([]byte, error) {
	type entry struct {
		place int
		rdn   pkix.RelativeDistinguishedNameSET
	}
	var kept []entry
	for _, rdn := range c.subject {
		for _, a := range rdn {
			for place, oid := range subjectTemplate {
				if a.Type.Equal(oid) {
					kept = append(kept, entry{place, pkix.RelativeDistinguishedNameSET{a}})
				}
			}
		}
	}
	if len(kept) == 0 && c.extension(oidSAN) == nil {
		return nil, errNoSubject
	}
	sort.SliceStable(kept, func(i, j int) bool { return kept[i].place > kept[j].place })
	var out pkix.RDNSequence
	for _, e := range kept {
		out = append(out, e.rdn)
	}
	return asn1.Marshal(out)
}
