package inspector

// The client's side: what a device does. It is used by the enroll command, the
// demo and tests, never by the gateway on messages that it judges. Nothing else
// in the package has randomness of its own (crypto/rand).

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// SelfSignedCertificate makes the certificate that a client signs its PKCSReq
// with (RFC 8894 §2.3): subject and issuer equal, valid from ten minutes before
// now for a year.
func SelfSignedCertificate(subject []RDN, now time.Time, key *rsa.PrivateKey) ([]byte, error) {
	var name cryptobyte.Builder
	addName(&name, subject)
	raw, err := name.Bytes()
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		RawSubject:         raw,
		SerialNumber:       serial.Add(serial, big.NewInt(1)),
		NotBefore:          now.UTC().Add(-10 * time.Minute),
		NotAfter:           now.UTC().AddDate(1, 0, 0),
		KeyUsage:           x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		SignatureAlgorithm: x509.SHA256WithRSA,
	}
	return x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
}

// PKIMessage describes a message that a client sends.
type PKIMessage struct {
	MessageType   string            // e.g. "19" PKCSReq
	TransactionID string            // default: upper-case hex SHA-1 of the signer's SPKI
	SenderNonce   []byte            // default: 16 random bytes
	Content       []byte            // plaintext to envelope: the PKCS#10, or what BuildIssuerAndSubject makes
	Recipient     *x509.Certificate // the RA's encryption certificate
	SignerCert    []byte            // DER; carried in the message
	Chain         [][]byte          // DER; certificates carried beside it, as some clients do in a renewal
	SignerKey     *rsa.PrivateKey
	Digest        string // default sha256
	Cipher        string // "des" "des3" "aes128" "aes256"; default aes128
	OAEP          bool   // RSAES-OAEP with empty parameters, as Windows sends it; default PKCS#1 v1.5
}

// BuildPKIMessage makes a client's pkiMessage (RFC 8894 §3): a SignedData over
// an EnvelopedData.
func BuildPKIMessage(m PKIMessage) ([]byte, error) {
	digest, err := digestNamed(m.Digest)
	if err != nil {
		return nil, err
	}
	if m.SignerKey == nil || m.Recipient == nil {
		return nil, errors.New("message without signer key or recipient")
	}
	if m.TransactionID == "" {
		spki, err := x509.MarshalPKIXPublicKey(&m.SignerKey.PublicKey)
		if err != nil {
			return nil, err
		}
		m.TransactionID = fmt.Sprintf("%X", sha1.Sum(spki))
	}
	if m.SenderNonce == nil {
		if m.SenderNonce, err = randomBytes(16); err != nil {
			return nil, err
		}
	}
	// Not crypto/x509: it refuses the self-signed certificates that Windows makes.
	signer, err := readLoneCertificate(m.SignerCert)
	if err != nil {
		return nil, fmt.Errorf("signer certificate: %w", err)
	}
	content, err := composeEnvelopedData(m)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return composeSignedData(signedDataSpec{
		content:      content,
		certificates: append([][]byte{m.SignerCert}, m.Chain...),
		issuer:       signer.issuer,
		serial:       signer.serial,
		digest:       digest,
		attributes: []attributeSpec{
			printableAttribute(oidMessageType, m.MessageType),
			octetsAttribute(oidSenderNonce, m.SenderNonce),
			printableAttribute(oidTransactionID, m.TransactionID),
		},
		key: m.SignerKey,
	})
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}

// contentCipher is a cipher in CBC mode that this package can write and read.
type contentCipher struct {
	name  string // as Opened.Cipher
	oid   string
	size  int // of the key
	block func(key []byte) (cipher.Block, error)
}

var contentCiphers = []contentCipher{
	{"des", oidDESCBC, 8, des.NewCipher},
	{"des3", oidDES3CBC, 24, des.NewTripleDESCipher},
	{"aes128", oidAES128CBC, 16, aes.NewCipher},
	{"aes256", oidAES256CBC, 32, aes.NewCipher},
}

func contentCipherNamed(name string) (*contentCipher, error) {
	if name == "" {
		name = "aes128"
	}
	for i := range contentCiphers {
		if contentCiphers[i].name == name {
			return &contentCiphers[i], nil
		}
	}
	return nil, fmt.Errorf("cipher %q is not known", name)
}

// composeEnvelopedData makes ContentInfo{EnvelopedData} for one recipient
// (RFC 5652 §6.1, version 0).
func composeEnvelopedData(m PKIMessage) ([]byte, error) {
	c, err := contentCipherNamed(m.Cipher)
	if err != nil {
		return nil, err
	}
	public, ok := m.Recipient.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("recipient's key is not RSA")
	}
	key, err := randomBytes(c.size)
	if err != nil {
		return nil, err
	}
	block, err := c.block(key)
	if err != nil {
		return nil, err
	}
	iv, err := randomBytes(block.BlockSize())
	if err != nil {
		return nil, err
	}
	pad := block.BlockSize() - len(m.Content)%block.BlockSize() // RFC 5652 §6.3
	ciphertext := append(append([]byte(nil), m.Content...), strings.Repeat(string(rune(pad)), pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, ciphertext)

	var encryptedKey []byte
	if m.OAEP {
		encryptedKey, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public, key, nil)
	} else {
		encryptedKey, err = rsa.EncryptPKCS1v15(rand.Reader, public, key)
	}
	if err != nil {
		return nil, err
	}

	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, oidEnvelopedData)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(0)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(0)
						addIssuerAndSerial(b, m.Recipient.RawIssuer, m.Recipient.SerialNumber)
						if m.OAEP {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								addOID(b, oidRSAESOAEP)
								b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {})
							})
						} else {
							addAlgorithm(b, oidRSAEncryption)
						}
						b.AddASN1OctetString(encryptedKey)
					})
				})
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addOID(b, oidData)
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						addOID(b, c.oid)
						b.AddASN1OctetString(iv)
					})
					b.AddASN1(implicit(0), func(b *cryptobyte.Builder) { b.AddBytes(ciphertext) })
				})
			})
		})
	})
	return b.Bytes()
}

// OpenCertRep decrypts a SUCCESS with the client's key and returns its
// certificates, the issued one among them. It is the client's part that comes
// after ParseCertRep and VerifySigner: it verifies nothing itself.
func OpenCertRep(raw []byte, key *rsa.PrivateKey) ([]*x509.Certificate, error) {
	c, err := ParseCertRep(raw)
	if err != nil {
		return nil, err
	}
	if c.PKIStatus != statusSuccess {
		return nil, fmt.Errorf("certRep: pkiStatus is %s, failInfo %q", c.PKIStatus, c.FailInfo)
	}
	if key == nil {
		return nil, errors.New("certRep: no key to open it with")
	}
	e, stage := parseEnvelope(c.content)
	if stage != nil {
		return nil, fmt.Errorf("certRep: %w", stage)
	}
	var contentKey []byte
	if e.transport == transportOAEP {
		contentKey, err = rsa.DecryptOAEP(sha1.New(), nil, key, e.encryptedKey, nil)
	} else {
		contentKey, err = rsa.DecryptPKCS1v15(nil, key, e.encryptedKey)
	}
	if err != nil || len(contentKey) != e.cipher.size {
		return nil, errors.New("certRep: content key can not be decrypted")
	}
	plaintext, _, ok := e.decrypt(contentKey)
	if ok != 1 {
		return nil, errors.New("certRep: content can not be decrypted")
	}
	root, err := walk(plaintext, modeBER)
	if err != nil {
		return nil, fmt.Errorf("certRep: content: %w", err)
	}
	certificates, err := degenerate(root)
	if err != nil {
		return nil, fmt.Errorf("certRep: content: %w", err)
	}
	return certificates, nil
}
