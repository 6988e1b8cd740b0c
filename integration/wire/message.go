package wire

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// Message is a pkiMessage in pieces (RFC 8894 §3).
type Message struct {
	Request    Request
	Envelope   Envelope
	SignedData SignedData
	Plaintext  []byte // what is enveloped, in place of Request
	Content    []byte // what is signed, in place of Envelope
}

// New is the PKCSReq of an honest device: one CN, digitalSignature and
// keyEncipherment, clientAuth, the challenge, signed by its self-signed
// certificate, for the RA to.
func New(key *rsa.PrivateKey, selfSigned []byte, to *x509.Certificate, cn, challenge string) *Message {
	m := &Message{
		Request: Request{
			Key:        key,
			Subject:    CommonName(cn),
			Extensions: [][]byte{KeyUsage(5, 0xa0), ExtKeyUsage(EKUClientAuth)},
		},
		Envelope: Envelope{To: to},
		SignedData: SignedData{Signer: Signer{
			Key: key, Certificate: selfSigned,
			MessageType: "19", TransactionID: fmt.Sprintf("%X", Random(20)), SenderNonce: Random(16),
		}},
	}
	if challenge != "" {
		m.Request.Challenge = [][]byte{ChallengePassword(Printable(challenge))}
	}
	return m
}

// Bytes writes the message. Called again it writes the same request with a
// fresh signature over it.
func (m *Message) Bytes() []byte {
	content := m.Content
	if content == nil {
		plaintext := m.Plaintext
		if plaintext == nil {
			plaintext = m.Request.Bytes()
		}
		content = m.Envelope.Bytes(plaintext)
	}
	return m.SignedData.Bytes(content)
}

// Certificate makes a certificate for key, signed by parent's key, or by its
// own if parent is nil. Nothing in template but its names, times, usages and
// extensions is needed.
func Certificate(template *x509.Certificate, key *rsa.PrivateKey, parent *x509.Certificate, parentKey *rsa.PrivateKey) []byte {
	t := *template
	if t.SerialNumber == nil {
		t.SerialNumber = new(big.Int).SetBytes(append([]byte{1}, Random(14)...))
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-10 * time.Minute)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent, parentKey = &t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &t, parent, &key.PublicKey, parentKey)
	if err != nil {
		panic(err)
	}
	return der
}

// SelfSigned is the certificate that a client makes to sign its PKCSReq with
// (RFC 8894 §2.3).
func SelfSigned(cn string, key *rsa.PrivateKey) []byte {
	return Certificate(&x509.Certificate{Subject: pkix.Name{CommonName: cn}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}, key, nil, nil)
}
