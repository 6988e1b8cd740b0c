package wire

import (
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1"   // for crypto.Hash
	_ "crypto/sha256" //
	_ "crypto/sha512" //
	"crypto/x509"
	"slices"
)

// SignedData is a ContentInfo of SignedData in pieces (RFC 5652 §5). A nil
// piece is written as an honest device writes it.
type SignedData struct {
	ContentType       []byte   // OID of the ContentInfo; default signedData
	Version           []byte   // INTEGER; default 1
	DigestAlgorithms  []byte   // SET; default: the signer's
	InnerType         []byte   // OID; default data
	Content           []byte   // element in [0]; default: OCTET STRING
	ContentField      []byte   // in place of [0] with the content; empty: detached
	Certificates      [][]byte // default: the signer's
	CertificatesField []byte   // in place of [0] with the certificates
	CRLs              []byte   // after the certificates
	Signer            Signer
	Signers           [][]byte // whole SignerInfos, in place of Signer
	SignersField      []byte   // in place of the SET of SignerInfos
	Tail              []byte   // inside of SignedData, at its end
	ContentTail       []byte   // inside of the ContentInfo's [0], after SignedData
	After             []byte   // after the ContentInfo
}

// Signer is a SignerInfo in pieces.
type Signer struct {
	Key         *rsa.PrivateKey
	Certificate []byte      // DER
	Digest      crypto.Hash // default SHA-256

	MessageType   string // default "19"
	TransactionID string // default: random, 40 hex digits
	SenderNonce   []byte // default: 16 random octets

	Version            []byte              // INTEGER; default 1
	ID                 []byte              // default: issuer and serial of Certificate
	DigestAlgorithm    []byte              // default: Digest's
	Replaced           map[string][][]byte // by OID: whole Attributes in place of the honest one; none: left out
	Attributes         [][]byte            // whole further signed Attributes
	AttributesField    []byte              // in place of [0] with all signed attributes; empty: there are none
	SignatureAlgorithm []byte              // default rsaEncryption
	Sign               func(signed []byte) []byte
	Unsigned           []byte // after the signature
}

// Replace puts whole Attributes in the place of the honest one; with none it is left out.
func (s *Signer) Replace(oid string, attributes ...[]byte) {
	if s.Replaced == nil {
		s.Replaced = map[string][][]byte{}
	}
	s.Replaced[oid] = attributes
}

// Info is the SignerInfo over content.
func (s *Signer) Info(content []byte) []byte {
	hash := s.Digest
	if hash == 0 {
		hash = crypto.SHA256
	}
	field := s.AttributesField
	signed := content
	if field == nil {
		attributes := s.attributes(hash, content)
		field = Explicit(0, attributes...)
		signed = Set(attributes...) // RFC 5652 §5.4
	} else if len(field) > 0 {
		signed = append([]byte{0x31}, field[1:]...)
	}
	sign := s.Sign
	if sign == nil {
		sign = func(signed []byte) []byte { return SignRSA(s.Key, hash, signed) }
	}
	id := s.ID
	if id == nil {
		id = signerID(s.Certificate) // not before it is needed: crypto/x509 does not read every certificate
	}
	return Sequence(
		or(s.Version, Int(1)),
		id,
		or(s.DigestAlgorithm, Algorithm(digestOID(hash))),
		field,
		or(s.SignatureAlgorithm, Algorithm(OIDRSAEncryption)),
		Octets(sign(signed)),
		s.Unsigned,
	)
}

func (s *Signer) attributes(hash crypto.Hash, content []byte) [][]byte {
	h := hash.New()
	h.Write(content)
	honest := []struct {
		oid   string
		value []byte
	}{
		{OIDContentType, OID(OIDData)},
		{OIDMessageDigest, Octets(h.Sum(nil))},
		{OIDMessageType, Printable(s.MessageType)},
		{OIDTransactionID, Printable(s.TransactionID)},
		{OIDSenderNonce, Octets(s.SenderNonce)},
	}
	all := slices.Clone(s.Attributes)
	for _, a := range honest {
		if replaced, ok := s.Replaced[a.oid]; ok {
			all = append(all, replaced...)
			continue
		}
		all = append(all, Attribute(a.oid, a.value))
	}
	return sorted(all)
}

// Bytes is the ContentInfo around content, which the message digest covers.
func (d *SignedData) Bytes(content []byte) []byte {
	hash := d.Signer.Digest
	if hash == 0 {
		hash = crypto.SHA256
	}
	field := d.ContentField
	if field == nil {
		field = Explicit(0, or(d.Content, Octets(content)))
	}
	certificates := d.CertificatesField
	if certificates == nil {
		list := d.Certificates
		if list == nil {
			list = [][]byte{d.Signer.Certificate}
		}
		certificates = Explicit(0, list...)
	}
	signers := d.SignersField
	if signers == nil {
		list := d.Signers
		if list == nil {
			list = [][]byte{d.Signer.Info(content)}
		}
		signers = Set(list...)
	}
	signedData := Sequence(
		or(d.Version, Int(1)),
		or(d.DigestAlgorithms, Set(Algorithm(digestOID(hash)))),
		Sequence(or(d.InnerType, OID(OIDData)), field),
		certificates,
		d.CRLs,
		signers,
		d.Tail,
	)
	return append(Sequence(or(d.ContentType, OID(OIDSignedData)), Explicit(0, signedData, d.ContentTail)), d.After...)
}

func signerID(der []byte) []byte {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return IssuerAndSerial(c)
}

func digestOID(h crypto.Hash) string {
	return map[crypto.Hash]string{
		crypto.MD5: OIDMD5, crypto.SHA1: OIDSHA1, crypto.SHA256: OIDSHA256, crypto.SHA384: OIDSHA384, crypto.SHA512: OIDSHA512,
	}[h]
}
