package differential

import (
	"bytes"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Identifiers of CMS (RFC 5652) and SCEP (RFC 8894 §3.2.1).
const (
	idData          = "1.2.840.113549.1.7.1"
	idSignedData    = "1.2.840.113549.1.7.2"
	idEnvelopedData = "1.2.840.113549.1.7.3"
	attrContentType = "1.2.840.113549.1.9.3"
	attrDigest      = "1.2.840.113549.1.9.4"
	attrMessageType = "2.16.840.1.113733.1.9.2"
	attrSenderNonce = "2.16.840.1.113733.1.9.5"
	attrTransaction = "2.16.840.1.113733.1.9.7"
)

// Certificate is the frame of a certificate that a message carries.
type Certificate struct {
	Raw                 []byte
	Issuer, Subject     []byte // DER
	Serial              *big.Int
	SPKI                []byte // DER
	NotBefore, NotAfter time.Time
	SelfSigned          bool // its signature verifies under its own key

	key       asn1.RawValue
	validity  asn1.RawValue
	tbs       []byte
	algorithm string
	signature []byte
}

// Message is a pkiMessage whose signature verifies.
type Message struct {
	Content       []byte
	Digest        string
	Certificates  int
	Signer        *Certificate
	Attributes    map[string][]byte // every signed attribute, its one value whole
	MessageType   string
	TransactionID string
	SenderNonce   []byte
}

// contentInfo opens a ContentInfo (RFC 5652 §3) and gives the fields of its
// content.
func contentInfo(der []byte, contentType string) ([]asn1.RawValue, error) {
	root, err := single(der)
	if err != nil {
		return nil, err
	}
	parts, err := sequence(root, 2, 2)
	if err != nil {
		return nil, err
	}
	if err := isContentType(parts[0], contentType); err != nil {
		return nil, err
	}
	content, err := explicit(parts[1], 0)
	if err != nil {
		return nil, err
	}
	return sequence(content, 3, -1)
}

func isContentType(v asn1.RawValue, want string) error {
	oid, err := identifier(v)
	if err == nil && oid != want {
		err = fmt.Errorf("content type %s", oid)
	}
	return err
}

func isVersion(v asn1.RawValue, want int64) error {
	i, err := integer(v)
	if err == nil && (!i.IsInt64() || i.Int64() != want) {
		err = fmt.Errorf("version %s", i)
	}
	return err
}

// DecodeMessage reads a pkiMessage in DER and verifies its signature.
func DecodeMessage(der []byte) (*Message, error) {
	parts, err := contentInfo(der, idSignedData)
	if err != nil {
		return nil, err
	}
	if len(parts) != 5 { // version, digestAlgorithms, encapContentInfo, certificates, signerInfos
		return nil, fmt.Errorf("signedData of %d fields", len(parts))
	}
	if err := isVersion(parts[0], 1); err != nil {
		return nil, err
	}
	encap, err := sequence(parts[2], 2, 2)
	if err != nil {
		return nil, err
	}
	if err := isContentType(encap[0], idData); err != nil {
		return nil, err
	}
	content, err := explicit(encap[1], 0)
	if err != nil {
		return nil, err
	}
	m := &Message{Attributes: map[string][]byte{}}
	if m.Content, err = octets(content); err != nil {
		return nil, err
	}
	certificates, err := readCertificates(parts[3])
	if err != nil {
		return nil, err
	}
	m.Certificates = len(certificates)
	announced, err := counted(parts[1], asn1.ClassUniversal, asn1.TagSet, 1, 1)
	if err != nil {
		return nil, err
	}
	infos, err := counted(parts[4], asn1.ClassUniversal, asn1.TagSet, 1, 1)
	if err != nil {
		return nil, err
	}
	if err := m.readSignerInfo(infos[0], announced[0], certificates); err != nil {
		return nil, fmt.Errorf("signerInfo: %w", err)
	}
	return m, nil
}

// readSignerInfo reads and verifies SignerInfo (RFC 5652 §5.3, §5.4, §5.6).
func (m *Message) readSignerInfo(v, announced asn1.RawValue, certificates []*Certificate) error {
	parts, err := sequence(v, 6, 6)
	if err != nil {
		return err
	}
	if err := isVersion(parts[0], 1); err != nil {
		return err
	}
	issuer, serial, err := issuerAndSerial(parts[1])
	if err != nil {
		return err
	}
	for _, c := range certificates {
		if bytes.Equal(c.Issuer, issuer) && c.Serial.Cmp(serial) == 0 {
			if m.Signer != nil {
				return errors.New("two certificates are the signer's")
			}
			m.Signer = c
		}
	}
	if m.Signer == nil {
		return errors.New("no certificate is the signer's")
	}
	key, err := m.Signer.complete()
	if err != nil {
		return err
	}
	digest, err := plainAlgorithm(parts[2], true)
	if err != nil {
		return err
	}
	if outer, err := plainAlgorithm(announced, true); err != nil || outer != digest {
		return errors.Join(err, errors.New("digestAlgorithms differ"))
	}
	signature, err := plainAlgorithm(parts[4], true)
	if err != nil {
		return err
	}
	signed, err := octets(parts[5])
	if err != nil {
		return err
	}
	if err := m.readAttributes(parts[3]); err != nil {
		return err
	}
	for _, d := range digests {
		if d.oid != digest || signature != rsaEncryption && signature != d.signature {
			continue
		}
		m.Digest = d.name
		if got, err := m.octets(attrDigest); err != nil || !bytes.Equal(got, sum(d.hash, m.Content)) {
			return errors.Join(err, errors.New("messageDigest"))
		}
		// RFC 5652 §5.4: what is signed has the tag of SET OF instead of [0]. The
		// order stays as sent, which is what clients that do not sort have signed.
		covered := element(asn1.ClassUniversal, asn1.TagSet, true, parts[3].Bytes)
		return rsa.VerifyPKCS1v15(key, d.hash, sum(d.hash, covered), signed)
	}
	return fmt.Errorf("digest %s with signature %s", digest, signature)
}

func (m *Message) readAttributes(v asn1.RawValue) error {
	list, err := inside(v, asn1.ClassContextSpecific, 0)
	if err != nil {
		return err
	}
	for _, item := range list {
		oid, value, err := oneValue(item)
		if err != nil {
			return err
		}
		if m.Attributes[oid] != nil {
			return fmt.Errorf("attribute %s has two values", oid)
		}
		m.Attributes[oid] = value.FullBytes
	}
	if m.MessageType, err = m.printable(attrMessageType); err != nil {
		return err
	}
	if m.TransactionID, err = m.printable(attrTransaction); err != nil {
		return err
	}
	if m.SenderNonce, err = m.octets(attrSenderNonce); err != nil {
		return err
	}
	contentType, err := single(m.Attributes[attrContentType])
	if err != nil {
		return err
	}
	return isContentType(contentType, idData)
}

func (m *Message) printable(oid string) (string, error) {
	v, err := single(m.Attributes[oid])
	if err != nil {
		return "", err
	}
	return text(v, asn1.TagPrintableString)
}

func (m *Message) octets(oid string) ([]byte, error) {
	v, err := single(m.Attributes[oid])
	if err != nil {
		return nil, err
	}
	return octets(v)
}

// issuerAndSerial reads IssuerAndSerialNumber (RFC 5652 §10.2.4).
func issuerAndSerial(v asn1.RawValue) (issuer []byte, serial *big.Int, err error) {
	parts, err := sequence(v, 2, 2)
	if err != nil {
		return nil, nil, err
	}
	if _, err := sequence(parts[0], 0, -1); err != nil {
		return nil, nil, err
	}
	serial, err = integer(parts[1])
	return parts[0].FullBytes, serial, err
}

func readCertificates(v asn1.RawValue) ([]*Certificate, error) {
	list, err := counted(v, asn1.ClassContextSpecific, 0, 1, -1)
	if err != nil {
		return nil, err
	}
	var certificates []*Certificate
	for _, item := range list {
		c, err := readCertificate(item)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		certificates = append(certificates, c)
	}
	return certificates, nil
}

// readCertificate reads the frame of a certificate (RFC 5280 §4.1), leaving key
// and validity for the signer's.
func readCertificate(v asn1.RawValue) (*Certificate, error) {
	parts, err := sequence(v, 3, 3)
	if err != nil {
		return nil, err
	}
	fields, err := sequence(parts[0], 6, 10)
	if err != nil {
		return nil, err
	}
	c := &Certificate{Raw: v.FullBytes, tbs: parts[0].FullBytes}
	if fields[0].Class == asn1.ClassContextSpecific { // version, DEFAULT v1
		if _, err := explicit(fields[0], 0); err != nil {
			return nil, err
		}
		fields = fields[1:]
	}
	if len(fields) < 6 {
		return nil, errors.New("certificate is not whole")
	}
	if c.Serial, err = integer(fields[0]); err != nil {
		return nil, err
	}
	if !bytes.Equal(fields[1].FullBytes, parts[1].FullBytes) {
		return nil, errors.New("two signature algorithms")
	}
	if c.algorithm, err = plainAlgorithm(parts[1], true); err != nil {
		return nil, err
	}
	for i, to := range map[int]*[]byte{2: &c.Issuer, 4: &c.Subject, 5: &c.SPKI} {
		if _, err := sequence(fields[i], 0, -1); err != nil {
			return nil, err
		}
		*to = fields[i].FullBytes
	}
	c.validity, c.key = fields[3], fields[5]
	c.signature, err = wholeBits(parts[2])
	return c, err
}

// complete reads what only the signer's certificate must have.
func (c *Certificate) complete() (*rsa.PublicKey, error) {
	period, err := sequence(c.validity, 2, 2)
	if err != nil {
		return nil, err
	}
	if c.NotBefore, err = instant(period[0]); err != nil {
		return nil, err
	}
	if c.NotAfter, err = instant(period[1]); err != nil {
		return nil, err
	}
	key, err := publicKey(c.key)
	if err != nil {
		return nil, err
	}
	if _, hash, err := signatureDigest(c.algorithm); err == nil {
		c.SelfSigned = rsa.VerifyPKCS1v15(key, hash, sum(hash, c.tbs), c.signature) == nil
	}
	return key, nil
}
