package inspector

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// maxSerial bounds a certificate's serial number. RFC 5280 §4.1.2.2 allows 20
// octets. quirk: sscep makes one of 33.
const maxSerial = 64

// certificate is what the minimal reader takes from an X.509 certificate. It
// interprets no extension: quirk: Windows marks authorityKeyIdentifier
// critical in the self-signed certificate that it signs with. threat C79
type certificate struct {
	raw          []byte
	tbs          []byte // TBSCertificate, what the signature covers
	issuer       []byte // RDNSequence, DER
	subject      []byte // RDNSequence, DER
	serial       *big.Int
	serialOctets []byte
	validity     *node
	spki         *node
	algorithm    string // OID of the signature algorithm
	signature    []byte
}

// readLoneCertificate reads a certificate that stands alone.
func readLoneCertificate(raw []byte) (*certificate, error) {
	root, err := walk(raw, modeDER)
	if err != nil {
		return nil, err
	}
	return readCertificate(root)
}

// readCertificate reads the frame of an X.509 certificate (RFC 5280 §4.1) as
// strict DER.
func readCertificate(root *node) (*certificate, error) {
	if err := root.der(); err != nil {
		return nil, err
	}
	if err := root.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	f := root.fields()
	tbs, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, err
	}
	outer, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, err
	}
	bits, err := f.next(classUniversal, tagBitString)
	if err != nil {
		return nil, err
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	c := &certificate{raw: root.raw, tbs: tbs.raw}
	if c.algorithm, err = outer.algorithmNull(); err != nil {
		return nil, err
	}
	if c.signature, err = bits.wholeOctets(); err != nil {
		return nil, err
	}
	if err := c.readTBS(tbs, outer); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) readTBS(tbs, outer *node) error {
	f := tbs.fields()
	if v := f.optional(classContext, 0); v != nil {
		n, err := v.only(classUniversal, tagInteger)
		if err != nil {
			return err
		}
		// quirk: certmonger with NSS writes out the default, v1, which DER leaves away.
		if len(n.content) != 1 || n.content[0] > 2 {
			return errors.New("certificate version")
		}
	}
	serial, err := f.next(classUniversal, tagInteger)
	if err != nil {
		return err
	}
	if len(serial.content) > maxSerial {
		return fmt.Errorf("serial number of %d bytes", len(serial.content))
	}
	if c.serial, err = serial.integer(); err != nil {
		return err
	}
	inner, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return err
	}
	if !bytes.Equal(inner.raw, outer.raw) { // RFC 5280 §4.1.1.2
		return errors.New("certificate names two signature algorithms")
	}
	issuer, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return err
	}
	if c.validity, err = f.next(classUniversal, tagSequence); err != nil {
		return err
	}
	subject, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return err
	}
	if c.spki, err = f.next(classUniversal, tagSequence); err != nil {
		return err
	}
	f.optional(classContext, 1) // issuerUniqueID
	f.optional(classContext, 2) // subjectUniqueID
	f.optional(classContext, 3) // extensions
	c.issuer, c.subject, c.serialOctets = issuer.raw, subject.raw, serial.content
	return f.end()
}

// signer completes the certificate that the SignerInfo names. Its key must be
// RSA and within the bounds.
func (c *certificate) signer() (*Signer, error) {
	s := &Signer{Issuer: c.issuer, Subject: c.subject, Serial: c.serial, Raw: c.raw, SPKI: c.spki.raw, certificate: c}
	f := c.validity.fields()
	for _, to := range []*time.Time{&s.NotBefore, &s.NotAfter} {
		n, err := f.any()
		if err != nil {
			return nil, fmt.Errorf("validity: %w", err)
		}
		if *to, err = n.time(); err != nil {
			return nil, fmt.Errorf("validity: %w", err)
		}
	}
	if err := f.end(); err != nil {
		return nil, fmt.Errorf("validity: %w", err)
	}
	var err error
	if s.PublicKey, err = parseRSAKey(c.spki); err != nil {
		return nil, err
	}
	// md5 counts here: a client that signs with it must get its refusal, and
	// being self-signed gives no rights, it only names the way to judge.
	if d := digestByRSASignature(c.algorithm); d != nil {
		s.SelfSigned = verifyRSA(s.PublicKey, d, c.tbs, c.signature) == nil
	}
	return s, nil
}

// caAlgorithms are the algorithms with which a CA may have signed a client's
// certificate. Not among them: md5, whose collisions forge certificates.
var caAlgorithms = map[string]x509.SignatureAlgorithm{
	oidSHA1WithRSA:     x509.SHA1WithRSA,
	oidSHA256WithRSA:   x509.SHA256WithRSA,
	oidSHA384WithRSA:   x509.SHA384WithRSA,
	oidSHA512WithRSA:   x509.SHA512WithRSA,
	oidECDSAWithSHA256: x509.ECDSAWithSHA256,
	oidECDSAWithSHA384: x509.ECDSAWithSHA384,
	oidECDSAWithSHA512: x509.ECDSAWithSHA512,
}

// SignedBy reports whether the signer's certificate was signed by ca's key,
// whatever names the two carry. It says nothing about validity, revocation or
// what ca may do.
func (s *Signer) SignedBy(ca *x509.Certificate) bool {
	if s == nil || ca == nil || s.certificate == nil {
		return false
	}
	algorithm, ok := caAlgorithms[s.certificate.algorithm]
	if !ok {
		return false
	}
	return ca.CheckSignature(algorithm, s.certificate.tbs, s.certificate.signature) == nil
}

// TBSSHA256 identifies what the issuer has signed: the certificate without its
// signature, which some algorithms let anybody rewrite. Nil if there is none.
func (s *Signer) TBSSHA256() []byte {
	if s == nil || s.certificate == nil {
		return nil
	}
	sum := sha256.Sum256(s.certificate.tbs)
	return sum[:]
}

// SPKISHA256 identifies the signer's key.
func (s *Signer) SPKISHA256() [32]byte { return sha256.Sum256(s.SPKI) }
