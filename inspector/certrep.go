package inspector

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
)

// Values of SCEP attributes (RFC 8894 §3.2.1.2 to 3.2.1.4).
const (
	messageTypeCertRep = "3"
	statusSuccess      = "0"
	statusFailure      = "2"
	statusPending      = "3"
	failInfoBadRequest = "2"
)

// Bounds of what an answer may carry.
const (
	maxReplyCertificates = 8
	maxFailInfo          = 4    // characters
	maxServerMessage     = 4096 // bytes; a longer text is dropped
)

// CertRep is NDES's signed answer (RFC 8894 §3.2, §3.3.2) before its signer is
// trusted: until VerifySigner has named the signer, every field is hearsay.
type CertRep struct {
	TransactionID  string
	PKIStatus      string // "0" SUCCESS, "2" FAILURE, "3" PENDING
	FailInfo       string // "" if absent
	SenderNonce    []byte // nil if absent: some servers leave it out
	RecipientNonce []byte
	HasError       bool // 1.3.6.1.4.1.311.21.33 is there, as in every FAILURE of NDES
	HasHRESULT     bool // and can be read
	HRESULT        uint32
	ServerMessage  string // 1.3.6.1.4.1.311.21.38, as sent: escape before logging
	SignerIssuer   []byte // RDNSequence, DER
	SignerSerial   []byte // INTEGER content octets

	content   []byte // the OCTET STRING: for SUCCESS a ContentInfo(envelopedData) still unread
	digest    *digestAlgorithm
	signed    []byte // what the signature covers
	signature []byte
}

// ParseCertRep reads a CertRep. It checks structure, messageDigest and that
// status, failInfo and content fit each other; the signature is VerifySigner's.
// Certificates in the answer are ignored: the verifier comes from elsewhere.
func ParseCertRep(raw []byte) (*CertRep, error) {
	c, err := parseCertRep(raw)
	if err != nil {
		return nil, fmt.Errorf("certRep: %w", err)
	}
	return c, nil
}

func parseCertRep(raw []byte) (*CertRep, error) {
	root, err := walk(raw, modeBER)
	if err != nil {
		return nil, err
	}
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
	encap, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, err
	}
	if certificates := f.optional(classContext, 0); certificates != nil {
		if !certificates.constructed || len(certificates.children) > maxReplyCertificates {
			return nil, fmt.Errorf("%d certificates", len(certificates.children))
		}
	}
	signerInfos, err := f.next(classUniversal, tagSet)
	if err != nil {
		return nil, fmt.Errorf("signerInfos: %w", err)
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	info, err := signerInfos.only(classUniversal, tagSequence)
	if err != nil {
		return nil, fmt.Errorf("signerInfos: %w", err)
	}
	c := &CertRep{}
	if c.content, err = replyContent(encap); err != nil {
		return nil, fmt.Errorf("encapContentInfo: %w", err)
	}
	if err := c.readSignerInfo(info, digests); err != nil {
		return nil, err
	}
	return c, c.checkStatus()
}

// replyContent gives the octets, nil where the content is absent: without an
// envelope NDES sends one byte 00, other servers nothing at all.
func replyContent(encap *node) ([]byte, error) {
	if len(encap.children) != 1 {
		return encapsulated(encap)
	}
	f := encap.fields()
	return nil, expectOID(&f, oidData)
}

// readSignerInfo reads the one SignerInfo (RFC 5652 §5.3) and checks that its
// messageDigest is the content's.
func (c *CertRep) readSignerInfo(info, digests *node) error {
	if err := info.der(); err != nil { // the signature covers DER
		return fmt.Errorf("signerInfo: %w", err)
	}
	f := info.fields()
	version, err := f.any()
	if err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	if err := version.version(1); err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	sid, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("signer identifier: %w", err)
	}
	issuer, serial, err := issuerAndSerial(sid)
	if err != nil {
		return fmt.Errorf("signer identifier: %w", err)
	}
	c.SignerIssuer, c.SignerSerial = issuer.raw, serial.content
	digestAlg, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	attributes, err := f.next(classContext, 0)
	if err != nil {
		return fmt.Errorf("signed attributes: %w", err)
	}
	signatureAlg, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	signature, err := f.next(classUniversal, tagOctetString)
	if err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	if err := f.end(); err != nil { // unsigned attributes have no place. threat C73
		return fmt.Errorf("signerInfo: %w", err)
	}
	if c.digest, err = agreedDigest(digests, digestAlg, signatureAlg); err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	if c.digest.oid == oidMD5 {
		return errors.New("signerInfo: md5 is not accepted")
	}
	messageDigest, err := c.readAttributes(attributes)
	if err != nil {
		return fmt.Errorf("signed attributes: %w", err)
	}
	if !bytes.Equal(messageDigest, c.digest.sum(c.content)) {
		return errors.New("messageDigest is not the content's")
	}
	c.signed, c.signature = signedBytes(attributes), signature.content
	return nil
}

// readAttributes reads the signed attributes: those of SCEP once and with one
// value. Others are the server's affair, but the attributes that only inform
// must not be there twice either.
func (c *CertRep) readAttributes(attributes *node) (messageDigest []byte, err error) {
	if !attributes.constructed {
		return nil, errors.New("not a set")
	}
	seen := make(map[string]bool, len(attributes.children))
	for _, child := range attributes.children {
		oid, value, err := replyAttribute(child)
		if err != nil {
			return nil, err
		}
		if !isReplyAttribute(oid) {
			continue
		}
		if seen[oid] {
			return nil, fmt.Errorf("%s is there twice", oid)
		}
		seen[oid] = true
		if value == nil {
			return nil, fmt.Errorf("%s has not one value", oid)
		}
		if oid == oidMessageDigest {
			messageDigest, err = value.octets()
		} else {
			err = c.readAttribute(oid, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", oid, err)
		}
	}
	// RFC 8894 §3.2.1. senderNonce is left to the server: older micromdm
	// servers leave it out, and nothing is decided by it.
	for _, oid := range []string{oidContentType, oidMessageDigest, oidMessageType, oidPKIStatus, oidTransactionID, oidRecipientNonce} {
		if !seen[oid] {
			return nil, fmt.Errorf("%s is missing", oid)
		}
	}
	return messageDigest, nil
}

// isReplyAttribute names the attributes that are read.
func isReplyAttribute(oid string) bool {
	switch oid {
	case oidContentType, oidMessageDigest, oidMessageType, oidPKIStatus, oidFailInfo,
		oidTransactionID, oidSenderNonce, oidRecipientNonce, oidSCEPError, oidSCEPServerMessage:
		return true
	}
	return false
}

// replyAttribute reads an Attribute; value is nil if there is not exactly one.
func replyAttribute(n *node) (oid string, value *node, err error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", nil, err
	}
	f := n.fields()
	typ, err := f.next(classUniversal, tagOID)
	if err != nil {
		return "", nil, err
	}
	if oid, err = typ.oid(); err != nil {
		return "", nil, err
	}
	set, err := f.next(classUniversal, tagSet)
	if err != nil {
		return "", nil, err
	}
	if len(set.children) == 1 {
		value = set.children[0]
	}
	return oid, value, f.end()
}

func (c *CertRep) readAttribute(oid string, value *node) (err error) {
	switch oid {
	case oidContentType:
		var contentType string
		if contentType, err = value.oid(); err == nil && contentType != oidData {
			err = errors.New("not the encapsulated type")
		}
	case oidMessageType:
		var messageType string
		if messageType, err = value.printable(); err == nil && messageType != messageTypeCertRep { // threat D25
			err = errors.New("not CertRep")
		}
	case oidPKIStatus:
		c.PKIStatus, err = value.printable()
	case oidFailInfo:
		if c.FailInfo, err = value.printable(); err == nil && (c.FailInfo == "" || len(c.FailInfo) > maxFailInfo) {
			err = fmt.Errorf("%d characters", len(c.FailInfo))
		}
	case oidTransactionID:
		if c.TransactionID, err = value.printable(); err == nil && !isTransactionID(c.TransactionID) {
			err = errors.New("length or character not acceptable")
		}
	case oidSenderNonce:
		c.SenderNonce, err = replyNonce(value)
	case oidRecipientNonce:
		c.RecipientNonce, err = replyNonce(value)
	case oidSCEPError:
		c.readHRESULT(value)
	case oidSCEPServerMessage:
		if value.is(classUniversal, tagUTF8String) && len(value.content) <= maxServerMessage && utf8.Valid(value.content) {
			c.ServerMessage = string(value.content)
		}
	}
	return err
}

func replyNonce(n *node) ([]byte, error) {
	nonce, err := n.octets()
	if err != nil {
		return nil, err
	}
	if len(nonce) == 0 || len(nonce) > maxSenderNonce {
		return nil, fmt.Errorf("%d bytes", len(nonce))
	}
	return nonce, nil
}

// readHRESULT reads a decimal, signed as NDES writes it or not. What cannot be
// read is no error: that it is there says enough.
func (c *CertRep) readHRESULT(n *node) {
	c.HasError = true
	text, err := n.printable()
	if err != nil {
		return
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < math.MinInt32 || number > math.MaxUint32 {
		return
	}
	c.HasHRESULT, c.HRESULT = true, uint32(number)
}

// checkStatus refuses an answer that says two things. threat D26
func (c *CertRep) checkStatus() error {
	switch c.PKIStatus {
	case statusSuccess:
		if c.FailInfo != "" {
			return errors.New("success with failInfo")
		}
		if err := c.checkEnvelope(); err != nil {
			return fmt.Errorf("success without envelope: %w", err)
		}
		return nil
	case statusPending:
		if c.FailInfo != "" {
			return errors.New("pending with failInfo")
		}
	case statusFailure:
	default:
		return errors.New("pkiStatus is not 0, 2 or 3")
	}
	// An envelope may hold a certificate, whatever the status says: what it means
	// nobody can tell, and a claim must not be given back for it.
	if len(c.content) == 0 || len(c.content) == 1 && c.content[0] == 0 {
		return nil
	}
	return errors.New("content without success")
}

// checkEnvelope looks whether the content is ContentInfo{envelopedData}.
func (c *CertRep) checkEnvelope() error {
	root, err := walk(c.content, modeBER)
	if err != nil {
		return err
	}
	_, err = contentInfo(root, oidEnvelopedData)
	return err
}

// VerifySigner returns the one candidate that the SignerInfo names and whose
// key made the signature. It does not ask whether the candidate is to be
// trusted: give it none that is not. threat D25
func (c *CertRep) VerifySigner(candidates []*x509.Certificate) (*x509.Certificate, error) {
	if c == nil || c.digest == nil {
		return nil, errors.New("certRep was not parsed")
	}
	for _, candidate := range candidates {
		if candidate == nil || !bytes.Equal(candidate.RawIssuer, c.SignerIssuer) || !c.isSerial(candidate) {
			continue
		}
		key, ok := candidate.PublicKey.(*rsa.PublicKey)
		if !ok || key.N.BitLen() < minRSABits || key.N.BitLen() > maxRSABits {
			continue
		}
		if verifyRSA(key, c.digest, c.signed, c.signature) == nil {
			return candidate, nil
		}
	}
	return nil, errors.New("certRep signer is none of the candidates")
}

// isSerial compares the INTEGERs as encoded.
func (c *CertRep) isSerial(candidate *x509.Certificate) bool {
	if candidate.SerialNumber == nil {
		return false
	}
	var b cryptobyte.Builder
	b.AddASN1BigInt(candidate.SerialNumber)
	der, err := b.Bytes()
	if err != nil {
		return false
	}
	n, err := walk(der, modeDER)
	return err == nil && bytes.Equal(n.content, c.SignerSerial)
}
