package inspector

import (
	"bytes"
	"errors"
	"fmt"
)

// Bounds of what a message may carry.
const (
	maxTransactionID = 128 // characters. threat D23
	maxCertificates  = 4   // signer and chain of a renewal. threat C67
	maxMessageType   = 8   // characters
	minSenderNonce   = 8   // bytes. quirk: Apple sends 8 where RFC 8894 §3.2.1.5 wants 16
	maxSenderNonce   = 64
)

// Signed attributes that may be there and are not interpreted. Everything
// else, extension requests under any identifier above all, is refused.
const (
	oidSMIMECapabilities      = "1.2.840.113549.1.9.15" // OpenSSL adds it unless told not to
	oidCMSAlgorithmProtection = "1.2.840.113549.1.9.52" // Bouncy Castle adds it, so do jscep clients (RFC 6211)
)

// ParseMessage reads a pkiMessage (RFC 8894 §3) and verifies its signature
// under the certificate that it carries. Nothing is decrypted. What does not
// have the exact profile is an error of type *ParseError; no answer can be
// made for it.
func ParseMessage(raw []byte) (*Message, error) {
	m, err := parseMessage(raw)
	if err != nil {
		var stage *ParseError
		if errors.As(err, &stage) {
			return nil, stage
		}
		return nil, &ParseError{Kind: KindMessage, Stage: "signedData", Err: err}
	}
	return m, nil
}

func parseMessage(raw []byte) (*Message, error) {
	root, err := walk(raw, modeBER)
	if err != nil {
		return nil, &ParseError{Kind: KindMessage, Stage: StageWalk, Err: err}
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
	if err := version.version(1); err != nil { // RFC 5652 §5.1: data, X.509, issuerAndSerialNumber
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
	certificates, err := f.next(classContext, 0)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	signerInfos, err := f.next(classUniversal, tagSet) // crls [1] has no place. threat C67
	if err != nil {
		return nil, fmt.Errorf("signerInfos: %w", err)
	}
	if err := f.end(); err != nil {
		return nil, err
	}

	m := &Message{Raw: raw}
	if m.content, err = encapsulated(encap); err != nil {
		return nil, fmt.Errorf("encapContentInfo: %w", err)
	}
	candidates, err := readCertificates(certificates)
	if err != nil {
		return nil, err
	}
	m.Certificates = len(candidates)
	info, err := signerInfos.only(classUniversal, tagSequence) // threats C62–C64
	if err != nil {
		return nil, fmt.Errorf("signerInfos: %w", err)
	}
	if err := m.readSignerInfo(info, digests, candidates); err != nil {
		return nil, err
	}
	return m, nil
}

// contentInfo opens a ContentInfo of the one type that may be there and gives
// its content, a SEQUENCE. threat C48
func contentInfo(root *node, contentType string) (*node, error) {
	if err := root.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	f := root.fields()
	if err := expectOID(&f, contentType); err != nil {
		return nil, err
	}
	explicit, err := f.next(classContext, 0)
	if err != nil {
		return nil, err
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	return explicit.only(classUniversal, tagSequence)
}

// expectOID takes the next field, which must be this object identifier.
func expectOID(f *fields, want string) error {
	n, err := f.any()
	if err != nil {
		return err
	}
	got, err := n.oid()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s where %s must be", got, want)
	}
	return nil
}

// encapsulated gives the octets of an EncapsulatedContentInfo of type id-data.
// threats C69, C74, C75
func encapsulated(encap *node) ([]byte, error) {
	f := encap.fields()
	if err := expectOID(&f, oidData); err != nil {
		return nil, err
	}
	explicit, err := f.next(classContext, 0)
	if err != nil {
		return nil, err
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	content, err := explicit.only(classUniversal, tagOctetString)
	if err != nil {
		return nil, err
	}
	return content.octets()
}

// readCertificates reads the certificates that the message carries, of which
// all must be X.509. threat C67
func readCertificates(set *node) ([]*certificate, error) {
	if !set.constructed || len(set.children) < 1 || len(set.children) > maxCertificates {
		return nil, fmt.Errorf("certificates: %d where 1 to %d must be", len(set.children), maxCertificates)
	}
	list := make([]*certificate, 0, len(set.children))
	for i, n := range set.children {
		c, err := readCertificate(n)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// readSignerInfo reads and verifies the one SignerInfo (RFC 5652 §5.3).
func (m *Message) readSignerInfo(info, digests *node, candidates []*certificate) error {
	// No client streams inside of it, and its attributes must be DER.
	if err := info.der(); err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	f := info.fields()
	version, err := f.any()
	if err != nil {
		return err
	}
	if err := version.version(1); err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	sid, err := f.next(classUniversal, tagSequence) // threat C66
	if err != nil {
		return fmt.Errorf("signer identifier: %w", err)
	}
	digestAlg, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("signerInfo: %w", err)
	}
	attributes, err := f.next(classContext, 0) // threat C68
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
	if err := f.end(); err != nil { // unsigned attributes [1]. threat C73
		return fmt.Errorf("signerInfo: %w", err)
	}

	digest, err := agreedDigest(digests, digestAlg, signatureAlg)
	if err != nil {
		return &ParseError{Kind: KindAlgorithm, Stage: "signerInfo algorithms", Err: err}
	}
	m.Digest = digest.name
	chosen, err := chooseCertificate(sid, candidates)
	if err != nil {
		return err
	}
	messageDigest, err := m.readSignedAttributes(attributes)
	if err != nil {
		return fmt.Errorf("signed attributes: %w", err)
	}
	if !bytes.Equal(messageDigest, digest.sum(m.content)) {
		return &ParseError{Kind: KindSignature, Stage: "signed attributes", Err: errors.New("messageDigest is not the content's")}
	}
	if m.Signer, err = chosen.signer(); err != nil {
		return &ParseError{Kind: KindSignature, Stage: "signer certificate", Err: err}
	}
	if err := verifyRSA(m.Signer.PublicKey, digest, signedBytes(attributes), signature.content); err != nil {
		return &ParseError{Kind: KindSignature, Stage: "signature", Err: errors.New("does not verify under the signer's key")}
	}
	return nil
}

// signedBytes is what the signature covers: the attributes as they were sent,
// with the tag of a SET OF (RFC 5652 §5.4). They are DER but for their order:
// quirk: some older clients sign them unsorted, as they send them. NDES and
// OpenSSL read these bytes as well; every attribute being there at most once,
// order carries no meaning.
func signedBytes(attributes *node) []byte {
	b := bytes.Clone(attributes.raw)
	b[0] = 0x31
	return b
}

// agreedDigest finds the digest that all three places of the message must
// agree on. threats C76, C77
func agreedDigest(digests, digestAlg, signatureAlg *node) (*digestAlgorithm, error) {
	oid, err := digestAlg.algorithmNull()
	if err != nil {
		return nil, err
	}
	digest := digestByOID(oid)
	if digest == nil {
		return nil, fmt.Errorf("digest %s", oid)
	}
	announced, err := digests.only(classUniversal, tagSequence)
	if err != nil {
		return nil, fmt.Errorf("digestAlgorithms: %w", err)
	}
	if oid, err = announced.algorithmNull(); err != nil {
		return nil, err
	}
	if oid != digest.oid {
		return nil, errors.New("digestAlgorithms does not name the signer's digest")
	}
	if oid, err = signatureAlg.algorithmNull(); err != nil {
		return nil, err
	}
	if oid != oidRSAEncryption && oid != digest.withRSA {
		return nil, fmt.Errorf("signature algorithm %s with digest %s", oid, digest.name)
	}
	return digest, nil
}

// chooseCertificate finds the certificate that the signer identifier names;
// two that fit are a refusal. threat C65
func chooseCertificate(sid *node, candidates []*certificate) (*certificate, error) {
	issuer, serial, err := issuerAndSerial(sid)
	if err != nil {
		return nil, fmt.Errorf("signer identifier: %w", err)
	}
	var chosen *certificate
	for _, c := range candidates {
		if !bytes.Equal(c.issuer, issuer.raw) || !bytes.Equal(c.serialOctets, serial.content) {
			continue
		}
		if chosen != nil {
			return nil, errors.New("signer identifier names two certificates")
		}
		chosen = c
	}
	if chosen == nil {
		return nil, errors.New("signer identifier names no certificate of the message")
	}
	return chosen, nil
}

// issuerAndSerial reads an IssuerAndSerialNumber (RFC 5652 §10.2.4).
func issuerAndSerial(n *node) (issuer, serial *node, err error) {
	f := n.fields()
	if issuer, err = f.next(classUniversal, tagSequence); err != nil {
		return nil, nil, err
	}
	if serial, err = f.next(classUniversal, tagInteger); err != nil {
		return nil, nil, err
	}
	if len(serial.content) > maxSerial {
		return nil, nil, fmt.Errorf("serial number of %d bytes", len(serial.content))
	}
	if _, err := serial.integer(); err != nil {
		return nil, nil, err
	}
	if err := f.end(); err != nil {
		return nil, nil, err
	}
	return issuer, serial, nil
}

// readSignedAttributes reads the signed attributes (RFC 8894 §3.2.1), each
// there exactly once with exactly one value, and gives messageDigest. threats
// C69–C72
func (m *Message) readSignedAttributes(attributes *node) (messageDigest []byte, err error) {
	if !attributes.constructed {
		return nil, errors.New("not a set")
	}
	seen := make(map[string]bool, len(attributes.children))
	for _, a := range attributes.children {
		oid, value, err := singleAttribute(a)
		if err != nil {
			return nil, err
		}
		if seen[oid] {
			return nil, fmt.Errorf("%s is there twice", oid)
		}
		seen[oid] = true
		switch oid {
		case oidContentType:
			var contentType string
			if contentType, err = value.oid(); err == nil && contentType != oidData {
				err = errors.New("not the encapsulated type")
			}
		case oidMessageDigest:
			messageDigest, err = value.octets()
		case oidMessageType:
			if m.MessageType, err = value.printable(); err == nil && (len(m.MessageType) == 0 || len(m.MessageType) > maxMessageType) {
				err = fmt.Errorf("%d characters", len(m.MessageType))
			}
		case oidTransactionID:
			if m.TransactionID, err = value.printable(); err == nil && !isTransactionID(m.TransactionID) {
				err = errors.New("length or character not acceptable")
			}
		case oidSenderNonce:
			if m.SenderNonce, err = value.octets(); err == nil && (len(m.SenderNonce) < minSenderNonce || len(m.SenderNonce) > maxSenderNonce) {
				err = fmt.Errorf("%d bytes", len(m.SenderNonce)) // threat D24
			}
		case oidSigningTime: // of no weight: the signer's own word. threat D14
			_, err = value.time()
		case oidSMIMECapabilities, oidCMSAlgorithmProtection:
		default:
			err = errors.New("not expected")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", oid, err)
		}
	}
	for _, oid := range []string{oidContentType, oidMessageDigest, oidMessageType, oidTransactionID, oidSenderNonce} {
		if !seen[oid] {
			return nil, fmt.Errorf("%s is missing", oid)
		}
	}
	return messageDigest, nil
}

// singleAttribute reads an Attribute that has one value.
func singleAttribute(n *node) (oid string, value *node, err error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", nil, err
	}
	f := n.fields()
	name, err := f.any()
	if err != nil {
		return "", nil, err
	}
	if oid, err = name.oid(); err != nil {
		return "", nil, err
	}
	set, err := f.next(classUniversal, tagSet)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", oid, err)
	}
	if err := f.end(); err != nil {
		return "", nil, fmt.Errorf("%s: %w", oid, err)
	}
	if len(set.children) != 1 {
		return "", nil, fmt.Errorf("%s: %d values", oid, len(set.children))
	}
	return oid, set.children[0], nil
}

// isTransactionID checks length and alphabet of a transactionID, which goes
// into logs and store keys. threat D23
func isTransactionID(s string) bool {
	if len(s) == 0 || len(s) > maxTransactionID {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '+', c == '/', c == '=', c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}
