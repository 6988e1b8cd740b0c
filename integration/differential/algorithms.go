package differential

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	_ "crypto/md5" // the five digests are found by registry
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// digests by the two identifiers that name each (RFC 8017 appendix A.2.4, C).
var digests = []struct {
	name, oid, signature string
	hash                 crypto.Hash
}{
	{"md5", "1.2.840.113549.2.5", "1.2.840.113549.1.1.4", crypto.MD5},
	{"sha1", "1.3.14.3.2.26", "1.2.840.113549.1.1.5", crypto.SHA1},
	{"sha256", "2.16.840.1.101.3.4.2.1", "1.2.840.113549.1.1.11", crypto.SHA256},
	{"sha384", "2.16.840.1.101.3.4.2.2", "1.2.840.113549.1.1.12", crypto.SHA384},
	{"sha512", "2.16.840.1.101.3.4.2.3", "1.2.840.113549.1.1.13", crypto.SHA512},
}

// signatureDigest finds the digest of <digest>WithRSAEncryption.
func signatureDigest(oid string) (name string, hash crypto.Hash, err error) {
	for _, d := range digests {
		if d.signature == oid {
			return d.name, d.hash, nil
		}
	}
	return "", 0, fmt.Errorf("signature algorithm %s", oid)
}

func sum(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}

const rsaEncryption = "1.2.840.113549.1.1.1"

// publicKey reads a SubjectPublicKeyInfo with an RSA key (RFC 3279 §2.3.1).
func publicKey(v asn1.RawValue) (*rsa.PublicKey, error) {
	list, err := sequence(v, 2, 2)
	if err != nil {
		return nil, err
	}
	oid, err := plainAlgorithm(list[0], false)
	if err != nil {
		return nil, err
	}
	if oid != rsaEncryption {
		return nil, fmt.Errorf("key of type %s", oid)
	}
	bits, err := wholeBits(list[1])
	if err != nil {
		return nil, err
	}
	inner, err := single(bits)
	if err != nil {
		return nil, err
	}
	numbers, err := sequence(inner, 2, 2)
	if err != nil {
		return nil, err
	}
	n, err := integer(numbers[0])
	if err != nil {
		return nil, err
	}
	e, err := integer(numbers[1])
	if err != nil {
		return nil, err
	}
	if n.Sign() <= 0 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, errors.New("key out of range")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func writePublicKey(k *rsa.PublicKey) []byte {
	return writeSequence(writeAlgorithm(rsaEncryption),
		writeBits(writeSequence(writeInteger(k.N), writeInteger(big.NewInt(int64(k.E))))))
}

// ciphers in CBC mode by identifier (RFC 3370 §5.1, RFC 3565 §4.1).
var ciphers = map[string]struct {
	name string
	key  int // bytes
	make func([]byte) (cipher.Block, error)
}{
	"1.3.14.3.2.7":            {"des", 8, des.NewCipher},
	"1.2.840.113549.3.7":      {"des3", 24, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2":  {"aes128", 16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {"aes256", 32, aes.NewCipher},
}

// Open decrypts the content with the recipient's key.
func (e *Envelope) Open(key *rsa.PrivateKey) ([]byte, error) {
	c, ok := ciphers[e.CipherOID]
	if !ok {
		return nil, fmt.Errorf("cipher %s", e.CipherOID)
	}
	var contentKey []byte
	var err error
	switch e.KeyTransport {
	case "pkcs1v15":
		contentKey, err = rsa.DecryptPKCS1v15(nil, key, e.EncryptedKey)
	case "oaep_sha1":
		contentKey, err = rsa.DecryptOAEP(crypto.SHA1.New(), nil, key, e.EncryptedKey, nil)
	default:
		return nil, fmt.Errorf("key transport %s", e.KeyTransport)
	}
	if err != nil {
		return nil, err
	}
	if len(contentKey) != c.key {
		return nil, fmt.Errorf("key of %d bytes", len(contentKey))
	}
	block, err := c.make(contentKey)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(e.IV) != size || len(e.Ciphertext) == 0 || len(e.Ciphertext)%size != 0 {
		return nil, errors.New("initialisation vector or ciphertext has the wrong size")
	}
	plain := make([]byte, len(e.Ciphertext))
	cipher.NewCBCDecrypter(block, e.IV).CryptBlocks(plain, e.Ciphertext)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > size || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) { // RFC 5652 §6.3
		return nil, errors.New("padding")
	}
	return plain[:len(plain)-pad], nil
}
