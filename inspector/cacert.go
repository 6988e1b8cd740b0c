package inspector

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// maxCACertificates bounds a GetCACert answer: two RA certificates, the CA,
// its chain, each twice while they roll over.
const maxCACertificates = 16

// ParseCACert reads a GetCACert answer: a degenerate SignedData (RFC 8894
// §4.2.1.2), or one bare certificate (§4.2.1.1). Nothing about the certificates
// is verified; the order is the answer's.
func ParseCACert(body []byte) ([]*x509.Certificate, error) {
	certificates, err := parseCACert(body)
	if err != nil {
		return nil, fmt.Errorf("caCert: %w", err)
	}
	return certificates, nil
}

func parseCACert(body []byte) ([]*x509.Certificate, error) {
	root, err := walk(body, modeBER)
	if err != nil {
		return nil, err
	}
	// A ContentInfo begins with an object identifier, a certificate with its
	// TBSCertificate.
	if len(root.children) > 0 && root.children[0].is(classUniversal, tagOID) {
		return degenerate(root)
	}
	certificate, err := parseCertificate(root)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{certificate}, nil
}

// degenerate reads a certs-only SignedData: no content, no signer.
func degenerate(root *node) ([]*x509.Certificate, error) {
	signedData, err := contentInfo(root, oidSignedData)
	if err != nil {
		return nil, err
	}
	f := signedData.fields()
	version, err := f.any()
	if err != nil {
		return nil, err
	}
	if err := version.version(1); err != nil {
		return nil, err
	}
	digests, err := f.next(classUniversal, tagSet)
	if err != nil {
		return nil, err
	}
	if len(digests.children) != 0 {
		return nil, errors.New("certs-only message names a digest")
	}
	encap, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, err
	}
	// Content that nothing signs has no meaning; some servers write an empty
	// string. What is not read here may not be there: it would be passed on.
	inner := encap.fields()
	if err := expectOID(&inner, oidData); err != nil {
		return nil, err
	}
	if content := inner.optional(classContext, 0); content != nil {
		octets, err := content.only(classUniversal, tagOctetString)
		if err != nil {
			return nil, fmt.Errorf("content: %w", err)
		}
		if len(octets.children) != 0 || !octets.constructed && len(octets.content) != 0 {
			return nil, errors.New("certs-only message has a content")
		}
	}
	if err := inner.end(); err != nil {
		return nil, err
	}
	set, err := f.next(classContext, 0)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if crls := f.optional(classContext, 1); crls != nil && (!crls.constructed || len(crls.children) != 0) {
		return nil, errors.New("certs-only message has CRLs")
	}
	signerInfos, err := f.next(classUniversal, tagSet)
	if err != nil {
		return nil, fmt.Errorf("signerInfos: %w", err)
	}
	if len(signerInfos.children) != 0 {
		return nil, errors.New("certs-only message has a signer")
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	if !set.constructed || len(set.children) < 1 || len(set.children) > maxCACertificates {
		return nil, fmt.Errorf("%d certificates where 1 to %d must be", len(set.children), maxCACertificates)
	}
	certificates := make([]*x509.Certificate, 0, len(set.children))
	for i, n := range set.children {
		certificate, err := parseCertificate(n)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// parseCertificate reads one certificate, strict DER as everywhere.
func parseCertificate(n *node) (*x509.Certificate, error) {
	if _, err := walk(n.raw, modeDER); err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(n.raw)
	if err != nil {
		return nil, errors.New("certificate malformed") // the cause may quote it
	}
	return certificate, nil
}
