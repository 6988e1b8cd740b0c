package inspector

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// typeGetCertInitial is the messageType of a poll (RFC 8894 §3.2.1.2).
const typeGetCertInitial = "20"

// parseContent reads what a message of this type must hold, and nothing else:
// the type, not the content, says which grammar it is. threat D20
func parseContent(messageType string, plaintext []byte) (*CSR, *IssuerAndSubject, error) {
	if messageType != typeGetCertInitial {
		csr, err := ParseCSR(plaintext)
		return csr, nil, err
	}
	poll, err := ParseIssuerAndSubject(plaintext)
	return nil, poll, err
}

// ParseIssuerAndSubject reads the content of a GetCertInitial (RFC 8894 §3.3.3)
// as DER: two names and nothing else. The subject is read like a request's, the
// issuer, which a CA wrote, only as far as it is a name. An error is a
// *ParseError of KindRequest. The result keeps no reference to der, which the
// caller may wipe.
func ParseIssuerAndSubject(der []byte) (*IssuerAndSubject, error) {
	poll, err := parseIssuerAndSubject(der)
	if err != nil {
		return nil, requestError("issuerAndSubject", err)
	}
	return poll, nil
}

func parseIssuerAndSubject(der []byte) (*IssuerAndSubject, error) {
	root, err := walk(der, modeDER)
	if err != nil {
		return nil, err
	}
	if err := root.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	f := root.fields()
	issuer, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err := checkName(issuer); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	subject, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	poll := &IssuerAndSubject{Issuer: bytes.Clone(issuer.raw)}
	if poll.Subject, err = parseName(subject); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	return poll, f.end()
}

// checkName checks the frame of an RDNSequence whose values may be of any type.
func checkName(n *node) error {
	if len(n.children) == 0 || len(n.children) > maxRDNs {
		return fmt.Errorf("%d RDNs", len(n.children))
	}
	for _, rdn := range n.children {
		if err := rdn.expect(classUniversal, tagSet); err != nil {
			return err
		}
		if len(rdn.children) == 0 || len(rdn.children) > maxRDNAttributes {
			return fmt.Errorf("%d attributes", len(rdn.children))
		}
		for _, attribute := range rdn.children {
			if err := attribute.expect(classUniversal, tagSequence); err != nil {
				return err
			}
			if len(attribute.children) != 2 {
				return errors.New("attribute without exactly one value")
			}
			if _, err := attribute.children[0].oid(); err != nil {
				return err
			}
		}
	}
	return nil
}

// BuildIssuerAndSubject makes the content of a GetCertInitial: the issuer's name
// as it stands in a certificate (RDNSequence, DER), and the subject asked for.
func BuildIssuerAndSubject(issuer []byte, subject []RDN) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(issuer)
		addName(b, subject)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("issuerAndSubject: %w", err)
	}
	return der, nil
}
