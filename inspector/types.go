package inspector

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Kind says at which stage of opening a message an error arose. The gate maps
// it to a reason; the zero value is the most general refusal.
type Kind int

// The stages, in the order in which they are reached.
const (
	KindMessage       Kind = iota // outer or enveloped structure: malformed_message
	KindSignature                 // outer signature: bad_signature
	KindUndecryptable             // recipient, key transport, cipher or padding: undecryptable
	KindRequest                   // PKCS#10 structure or signature: malformed_request
	KindAlgorithm                 // an algorithm that is never accepted: algorithm_refused
	KindKey                       // a key type or size that is never accepted: key_refused
)

// StageWalk is the ParseError.Stage of bytes that the bounded walk refuses: a
// limit, where every other stage is a judgement.
const StageWalk = "walk"

// ParseError tells where and why bytes were not accepted. Its text is for
// operators: it quotes no more than object identifiers and numbers.
type ParseError struct {
	Kind  Kind
	Stage string // e.g. "signedData", "pkcs10 attributes"
	Err   error
}

func (e *ParseError) Error() string { return fmt.Sprintf("%s: %v", e.Stage, e.Err) }

// Unwrap gives the cause.
func (e *ParseError) Unwrap() error { return e.Err }

// Operation is a SCEP operation that the gateway offers (RFC 8894 §4.1).
type Operation string

// The three operations, in their exact spelling.
const (
	GetCACaps    Operation = "GetCACaps"
	GetCACert    Operation = "GetCACert"
	PKIOperation Operation = "PKIOperation"
)

// Why a query was not accepted; the edge turns each into a status.
var (
	ErrMethod              = errors.New("method not allowed")
	ErrOperationNotOffered = errors.New("operation not offered") // GetNextCACert
	ErrQuery               = errors.New("query not acceptable")
	ErrQueryTooLong        = errors.New("query too long")
	ErrMessageTooLarge     = errors.New("message too large")
)

// Query is what method and raw query say. Message is set for a GET of
// PKIOperation only: the CMS bytes, base64 removed.
type Query struct {
	Operation Operation
	Message   []byte
}

// Message is an outer SignedData that has the exact SCEP profile and whose
// signature verifies under the key of the certificate it carries. That says
// nothing about who the signer is.
type Message struct {
	Raw           []byte // the bytes as received; what is forwarded
	MessageType   string // PrintableString as sent, 1..8 characters, e.g. "19"
	TransactionID string // 1..128 characters of [A-Za-z0-9+/=._:-]
	SenderNonce   []byte // 8..64 bytes
	Digest        string // "md5" "sha1" "sha256" "sha384" "sha512"; the floor is the gate's
	Signer        *Signer
	Certificates  int // certificates in the message, 1..4, the signer's among them

	content []byte // the OCTET STRING: a ContentInfo(envelopedData) still unread
}

// Signer is the certificate that signed the outer SignedData, read by a
// minimal parser of our own (Windows marks AKI critical in its self-signed
// certificate, which crypto/x509 refuses).
type Signer struct {
	Raw        []byte // certificate, DER
	Issuer     []byte // RDNSequence, DER
	Subject    []byte // RDNSequence, DER
	Serial     *big.Int
	SPKI       []byte // SubjectPublicKeyInfo, DER
	PublicKey  *rsa.PublicKey
	NotBefore  time.Time
	NotAfter   time.Time
	SelfSigned bool // the certificate's signature verifies under its own key

	certificate *certificate
}

// RAKey is one RA pair: the certificate that devices encrypt to, and its key.
type RAKey struct {
	Name        string
	Certificate *x509.Certificate
	Key         crypto.Decrypter
}

// Opened is what the private key revealed. If Err is nil, CSR is complete and
// its signature verifies, or Poll is if the message is a GetCertInitial. If Err
// is set, both are nil.
type Opened struct {
	RA           string // RAKey.Name of the recipient; "" if it names none of ours
	Cipher       string // "des" "des3" "aes128" "aes256"
	KeyTransport string // "pkcs1v15" "oaep_sha1"
	CSR          *CSR
	Poll         *IssuerAndSubject // of a GetCertInitial, in place of CSR
	Err          *ParseError
}

// IssuerAndSubject is what a GetCertInitial asks for (RFC 8894 §3.3.3).
type IssuerAndSubject struct {
	Issuer  []byte // RDNSequence, DER
	Subject []RDN
}

// Certified is what a CA has certified: the content of a certificate that signs
// a renewal, as far as a renewal must keep it.
type Certified struct {
	Subject                []RDN // decoded; the string types are the CA's own
	SAN                    []GeneralName
	SID                    string
	HasKeyUsage            bool
	KeyUsage               KeyUsage
	HasExtKeyUsage         bool
	ExtKeyUsage            []string
	HasApplicationPolicies bool
	ApplicationPolicies    []string
	TemplateName           string
	TemplateOID            string
	IsCA                   bool
}

// AttributeTypeAndValue is one name attribute as sent (RFC 5280 §4.1.2.4).
type AttributeTypeAndValue struct {
	Type  string // dotted OID
	Value string // decoded; UTF-8
	Tag   int    // ASN.1 string type: 12 UTF8String, 19 PrintableString, 22 IA5String
}

// RDN is one RelativeDistinguishedName: usually one attribute, more if
// multi-valued.
type RDN []AttributeTypeAndValue

// GeneralName is one entry of the subject alternative name.
type GeneralName struct {
	Type  string // "dns" "email" "uri" "ip" "upn", or "other" for any type that cannot be expected
	Value string // text; for ip the canonical text of 4 or 16 octets; for other the type's tag or OID
}

// KeyUsage holds the bits of the keyUsage extension; bit 0 is digitalSignature
// (RFC 5280 §4.2.1.3).
type KeyUsage uint16

// CSR is a PKCS#10 (RFC 2986) read as strict DER, with everything that
// crypto/x509 drops. Optional extensions are nil or have a Has flag: "absent"
// and "empty" differ.
type CSR struct {
	Raw             []byte
	Version         int // 0..2: Apple sends 2
	Subject         []RDN
	SPKI            []byte // DER
	PublicKey       *rsa.PublicKey
	SignatureDigest string // as Message.Digest

	HasChallenge bool
	Challenge    string // never logged

	SAN                    []GeneralName // nil: absent. An empty extension is malformed
	SID                    string        // extension 1.3.6.1.4.1.311.25.2, "" if absent
	HasKeyUsage            bool
	KeyUsage               KeyUsage
	HasExtKeyUsage         bool
	ExtKeyUsage            []string // dotted OIDs
	HasApplicationPolicies bool
	ApplicationPolicies    []string // 1.3.6.1.4.1.311.21.10, dotted OIDs
	TemplateName           string   // 1.3.6.1.4.1.311.20.2, "" if absent
	TemplateOID            string   // 1.3.6.1.4.1.311.21.7, "" if absent

	UnexpectedExtensions []string // OIDs outside of what the fields above hold and of SKI, in order; "critical:" prefixed where a known one is critical and must not be
	UnexpectedAttributes []string // OIDs outside of the allow-list, in order
}
