package inspector

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
)

var errUnwritten = errors.New("unwritten")

func ParseQuery(method, rawQuery string, maxMessage int) (Query, error) { return Query{}, errUnwritten }

func ParseMessage(raw []byte) (*Message, error) { return nil, errUnwritten }

// SignedBy reports whether the signer's certificate was signed by ca's key,
// whatever names the two carry.
func (s *Signer) SignedBy(ca *x509.Certificate) bool { return false }

// SPKISHA256 ... of the signer and CSR.
func (s *Signer) SPKISHA256() [32]byte { return [32]byte{} }
func (c *CSR) SPKISHA256() [32]byte    { return [32]byte{} }

type Opener struct{}

// NewOpener: substituteSecret is 32 bytes derived from the challenge key.
func NewOpener(keys []RAKey, substituteSecret []byte) (*Opener, error) { return nil, errUnwritten }

// Open performs exactly one private-key operation when the recipient is ours.
func (o *Opener) Open(m *Message) *Opened { return nil }

// SelfTest decrypts a known-good and a known-bad blob with every key.
func (o *Opener) SelfTest() error { return errUnwritten }

func ParseCSR(der []byte) (*CSR, error) { return nil, errUnwritten }

// CertRep is NDES's signed answer (RFC 8894 §3.2, §3.3.2) before its signer is trusted.
type CertRep struct {
	TransactionID  string
	PKIStatus      string // "0" SUCCESS, "2" FAILURE, "3" PENDING
	FailInfo       string // "" if absent
	SenderNonce    []byte
	RecipientNonce []byte
	HasHRESULT     bool
	HRESULT        uint32 // 1.3.6.1.4.1.311.21.33
	ServerMessage  string // 1.3.6.1.4.1.311.21.38, as sent: escape before logging
	SignerIssuer   []byte // RDNSequence, DER
	SignerSerial   []byte // INTEGER content octets
}

func ParseCertRep(raw []byte) (*CertRep, error) { return nil, errUnwritten }

// VerifySigner returns the one candidate that the SignerInfo names and whose key made the signature.
func (c *CertRep) VerifySigner(candidates []*x509.Certificate) (*x509.Certificate, error) {
	return nil, errUnwritten
}

// Failure describes a CertRep FAILURE, failInfo badRequest, shaped as NDES shapes it.
type Failure struct {
	TransactionID  string
	RecipientNonce []byte
	SenderNonce    []byte // 16 fresh random bytes, given by the caller: this package has no randomness of its own
}

func BuildFailure(f Failure, cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	return nil, errUnwritten
}

// ParseCACert reads a GetCACert answer: a degenerate SignedData, or one bare certificate.
func ParseCACert(body []byte) ([]*x509.Certificate, error) { return nil, errUnwritten }

// Capabilities are the keywords of GetCACaps (RFC 8894 §3.5.2).
type Capabilities map[string]bool

func ParseCACaps(body []byte) Capabilities { return nil }

// PKIMessage describes a message that a client sends. Used by `enroll`, the demo and tests.
type PKIMessage struct {
	MessageType   string
	TransactionID string // default: upper-case hex SHA-1 of the signer's SPKI
	SenderNonce   []byte // default: 16 random bytes
	Content       []byte // plaintext to envelope, normally the PKCS#10
	Recipient     *x509.Certificate
	SignerCert    []byte // DER
	SignerKey     *rsa.PrivateKey
	Digest        string // default sha256
	Cipher        string // default aes128
	OAEP          bool
}

func BuildPKIMessage(m PKIMessage) ([]byte, error) { return nil, errUnwritten }

// OpenCertRep decrypts a SUCCESS with the client's key and returns its certificates.
func OpenCertRep(raw []byte, key *rsa.PrivateKey) ([]*x509.Certificate, error) {
	return nil, errUnwritten
}
