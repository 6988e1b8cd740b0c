package wire

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
)

// Request is a PKCS#10 in pieces (RFC 2986 §4). A nil piece is written as an
// honest device writes it.
type Request struct {
	Key *rsa.PrivateKey // what SPKI and Sign are made of by default

	Version            []byte   // INTEGER; default 0
	Subject            []byte   // Name
	SPKI               []byte   // default: Key's
	Challenge          [][]byte // whole challengePassword Attributes
	ExtensionsOID      string   // default: PKCS#9 extensionRequest
	Extensions         [][]byte // whole Extensions; none: no such attribute
	Attributes         [][]byte // whole further Attributes
	AttributesField    []byte   // in place of [0] with all of the above
	InfoTail           []byte   // inside of CertificationRequestInfo, at its end
	SignatureAlgorithm []byte   // default sha256WithRSAEncryption
	Sign               func(info []byte) []byte
	SignatureField     []byte // in place of the signature's BIT STRING
	Tail               []byte // inside of CertificationRequest, at its end
	After              []byte // after it
}

// ChallengePassword is the Attribute that NDES looks for, with any values.
func ChallengePassword(values ...[]byte) []byte { return Attribute(OIDChallengePassword, values...) }

// SetSubject makes the subject one CN.
func (r *Request) SetSubject(cn string) { r.Subject = CommonName(cn) }

// Extend adds extensions.
func (r *Request) Extend(extensions ...[]byte) { r.Extensions = append(r.Extensions, extensions...) }

// AllAttributes is what the attributes field holds, in the order of a DER SET OF.
func (r *Request) AllAttributes() [][]byte {
	all := append(append([][]byte(nil), r.Challenge...), r.Attributes...)
	if len(r.Extensions) > 0 {
		oid := r.ExtensionsOID
		if oid == "" {
			oid = OIDExtensionRequest
		}
		all = append(all, Attribute(oid, Sequence(r.Extensions...)))
	}
	return sorted(all)
}

// Info is the CertificationRequestInfo.
func (r *Request) Info() []byte {
	return Sequence(
		or(r.Version, Int(0)),
		r.Subject,
		or(r.SPKI, PublicKey(&r.Key.PublicKey)),
		or(r.AttributesField, Explicit(0, r.AllAttributes()...)),
		r.InfoTail,
	)
}

// Bytes is the signed PKCS#10.
func (r *Request) Bytes() []byte {
	info := r.Info()
	signature := r.SignatureField
	if signature == nil {
		sign := r.Sign
		if sign == nil {
			sign = func(info []byte) []byte { return SignRSA(r.Key, crypto.SHA256, info) }
		}
		signature = Bits(sign(info))
	}
	return append(Sequence(info, or(r.SignatureAlgorithm, Algorithm(OIDSHA256WithRSA)), signature, r.Tail), r.After...)
}

// PublicKey is a SubjectPublicKeyInfo.
func PublicKey(public any) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	return der
}

// SignRSA is the PKCS#1 v1.5 signature over the digest of message.
func SignRSA(key *rsa.PrivateKey, hash crypto.Hash, message []byte) []byte {
	h := hash.New()
	h.Write(message)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, hash, h.Sum(nil))
	if err != nil {
		panic(err)
	}
	return signature
}

// KeyUsage is the extension with these octets of a BIT STRING: the count of
// unused bits, then the bits. Octets 5, 0xa0 are digitalSignature and keyEncipherment.
func KeyUsage(octets ...byte) []byte { return Extension(OIDKeyUsage, true, TLV(0x03, octets)) }

// ExtKeyUsage is the extension with these purposes.
func ExtKeyUsage(oids ...string) []byte {
	var list [][]byte
	for _, oid := range oids {
		list = append(list, OID(oid))
	}
	return Extension(OIDExtKeyUsage, false, Sequence(list...))
}

// ApplicationPolicies is the extension that Windows prefers over ExtKeyUsage.
func ApplicationPolicies(oids ...string) []byte {
	var list [][]byte
	for _, oid := range oids {
		list = append(list, Sequence(OID(oid)))
	}
	return Extension(OIDMSAppPolicies, false, Sequence(list...))
}

// SAN is the subject alternative name with these GeneralNames.
func SAN(names ...[]byte) []byte { return Extension(OIDSubjectAltName, false, Sequence(names...)) }

// The GeneralNames (RFC 5280 §4.2.1.6).
func DNS(name string) []byte                { return Implicit(2, []byte(name)) }
func Email(address string) []byte           { return Implicit(1, []byte(address)) }
func URI(uri string) []byte                 { return Implicit(6, []byte(uri)) }
func IP(octets ...byte) []byte              { return Implicit(7, octets) }
func RegisteredID(oid string) []byte        { return Implicit(8, OID(oid)[2:]) }
func DirectoryName(name []byte) []byte      { return Explicit(4, name) }
func UPN(upn string) []byte                 { return OtherName(OIDMSUPN, UTF8(upn)) }
func OtherName(oid string, v []byte) []byte { return Explicit(0, OID(oid), Explicit(0, v)) }

// SID is the security extension of KB5014754 for this SID.
func SID(sid string) []byte {
	return Extension(OIDMSSID, false, Sequence(Explicit(0, OID(OIDMSSIDValue), Explicit(0, Octets([]byte(sid))))))
}

// SubjectKeyIDOf is the key identifier of RFC 5280 §4.2.1.2 cut from a SHA-256.
func SubjectKeyIDOf(key *rsa.PublicKey) []byte {
	sum := sha256.Sum256(PublicKey(key))
	return sum[:20]
}
