package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
)

// Envelope is a ContentInfo of EnvelopedData in pieces (RFC 5652 §6). A nil
// piece is written as an honest device writes it.
type Envelope struct {
	To *x509.Certificate // what the recipient's pieces are made of by default

	ContentType []byte // OID of the ContentInfo; default envelopedData
	Version     []byte // INTEGER; default 0
	Originator  []byte // before the recipients
	Recipient   Recipient
	Recipients  [][]byte // whole RecipientInfos, in place of Recipient
	InnerType   []byte   // OID; default data

	Cipher       string // OID; default AES-128-CBC
	Key          []byte // content key; default random, of the cipher's length
	IV           []byte // default random
	CipherField  []byte // in place of the content's AlgorithmIdentifier
	Pad          func(plaintext []byte, block int) []byte
	Ciphertext   []byte // octets, in place of the encryption
	ContentField []byte // in place of [0] with the ciphertext
	InnerTail    []byte // inside of EncryptedContentInfo, at its end

	Unprotected []byte // after EncryptedContentInfo
	Tail        []byte // inside of EnvelopedData, at its end
	ContentTail []byte // inside of the ContentInfo's [0], after EnvelopedData
	After       []byte // after the ContentInfo
}

// Recipient is a KeyTransRecipientInfo in pieces.
type Recipient struct {
	Version      []byte // INTEGER; default 0
	ID           []byte // default: issuer and serial of Envelope.To
	Algorithm    []byte // default rsaEncryption
	EncryptedKey []byte // octets; default: the content key for Envelope.To
	Tail         []byte
}

// ContentKey is the key that the content is encrypted under, made on first use.
func (e *Envelope) ContentKey() []byte {
	if e.Key == nil {
		e.Key = Random(map[string]int{OIDDESCBC: 8, OIDDES3CBC: 24, OIDAES192CBC: 24, OIDAES256CBC: 32}[e.Cipher])
		if len(e.Key) == 0 {
			e.Key = Random(16)
		}
	}
	return e.Key
}

// RecipientInfo is r for the content key of e.
func (e *Envelope) RecipientInfo(r Recipient) []byte {
	encrypted := r.EncryptedKey
	if encrypted == nil {
		encrypted = EncryptKey(e.To, e.ContentKey())
	}
	return Sequence(
		or(r.Version, Int(0)),
		or(r.ID, IssuerAndSerial(e.To)),
		or(r.Algorithm, Algorithm(OIDRSAEncryption)),
		Octets(encrypted),
		r.Tail,
	)
}

// Bytes is the ContentInfo around plaintext.
func (e *Envelope) Bytes(plaintext []byte) []byte {
	if e.Cipher == "" {
		e.Cipher = OIDAES128CBC
	}
	content := e.ContentField
	if content == nil {
		content = Implicit(0, e.encrypt(plaintext))
	}
	algorithm := e.CipherField
	if algorithm == nil {
		algorithm = Algorithm(e.Cipher, Octets(e.iv()))
	}
	recipients := e.Recipients
	if recipients == nil {
		recipients = [][]byte{e.RecipientInfo(e.Recipient)}
	}
	enveloped := Sequence(
		or(e.Version, Int(0)),
		e.Originator,
		Set(recipients...),
		Sequence(or(e.InnerType, OID(OIDData)), algorithm, content, e.InnerTail),
		e.Unprotected,
		e.Tail,
	)
	return append(Sequence(or(e.ContentType, OID(OIDEnvelopedData)), Explicit(0, enveloped, e.ContentTail)), e.After...)
}

func (e *Envelope) iv() []byte {
	if e.IV == nil {
		e.IV = Random(e.block().BlockSize())
	}
	return e.IV
}

// block is the cipher that the content key's length and the OID ask for; an
// OID that is none of CBC's writes AES under another name.
func (e *Envelope) block() cipher.Block {
	var b cipher.Block
	var err error
	switch key := e.ContentKey(); e.Cipher {
	case OIDDESCBC:
		b, err = des.NewCipher(key)
	case OIDDES3CBC:
		b, err = des.NewTripleDESCipher(key)
	default:
		b, err = aes.NewCipher(key)
	}
	if err != nil {
		panic(err)
	}
	return b
}

func (e *Envelope) encrypt(plaintext []byte) []byte {
	if e.Ciphertext != nil {
		return e.Ciphertext
	}
	block := e.block()
	pad := e.Pad
	if pad == nil {
		pad = PadPKCS7
	}
	padded := pad(plaintext, block.BlockSize())
	out := make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, e.iv()).CryptBlocks(out, padded)
	return out
}

// PadPKCS7 is the padding of RFC 5652 §6.3.
func PadPKCS7(plaintext []byte, block int) []byte {
	n := block - len(plaintext)%block
	out := append([]byte(nil), plaintext...)
	for range n {
		out = append(out, byte(n))
	}
	return out
}

// EncryptKey is key for the holder of to's private key (PKCS#1 v1.5).
func EncryptKey(to *x509.Certificate, key []byte) []byte {
	encrypted, err := rsa.EncryptPKCS1v15(rand.Reader, to.PublicKey.(*rsa.PublicKey), key)
	if err != nil {
		panic(err)
	}
	return encrypted
}

// IssuerAndSerial names a certificate (RFC 5652 §10.2.4).
func IssuerAndSerial(c *x509.Certificate) []byte {
	return Sequence(c.RawIssuer, BigInt(c.SerialNumber))
}

// Random is n random octets.
func Random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
