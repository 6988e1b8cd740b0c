package gate

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Hasher turns secrets into what may be stored and logged. Its key never leaves it.
type Hasher struct{ key []byte }

// NewHasher takes the challenge key: 32 bytes.
func NewHasher(key []byte) (*Hasher, error) {
	if len(key) != 32 {
		return nil, errors.New("challenge key is not 32 bytes")
	}
	return &Hasher{key: append([]byte(nil), key...)}, nil
}

func (h *Hasher) mac(use string, parts ...string) []byte {
	m := hmac.New(sha256.New, h.key)
	// Every part is preceded by its length, so that no two lists of parts collide.
	for _, p := range append([]string{use}, parts...) {
		var n [4]byte
		n[0], n[1], n[2], n[3] = byte(len(p)>>24), byte(len(p)>>16), byte(len(p)>>8), byte(len(p))
		m.Write(n[:])
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

// Challenge is the lookup key of a challenge: HMAC-SHA-256 over profile and challenge.
func (h *Hasher) Challenge(profile, challenge string) []byte {
	return h.mac("challenge", profile, challenge)
}

// Renewal is the lookup key of a renewal by the SHA-256 of the certificate that
// signs it, in lower-case hexadecimal. It equals no challenge's.
func (h *Hasher) Renewal(profile, sha256 string) []byte {
	return h.mac("renewal", profile, sha256)
}

// RenewalSerial is the lookup key of a renewal by the serial number of the
// certificate that signs it, in lower-case hexadecimal without leading zeros. It
// equals no identity's.
func (h *Hasher) RenewalSerial(profile, serial string) []byte {
	return h.mac("renewal serial", profile, serial)
}

// Fingerprint is what both sides may compare: 8 hex digits of the challenge's hash.
func Fingerprint(challengeHash []byte) string {
	if len(challengeHash) < 4 {
		return ""
	}
	return hex.EncodeToString(challengeHash[:4])
}

// CheckValue identifies the key without revealing it; the store keeps it.
func (h *Hasher) CheckValue() []byte { return h.mac("check") }

// SubstituteSecret is the key under which failed decryptions go on.
func (h *Hasher) SubstituteSecret() []byte { return h.mac("substitute") }

// RefusalSecret is the key by which the gateway knows its own refusals again.
func (h *Hasher) RefusalSecret() []byte { return h.mac("refusal") }

// seal keeps text from whoever reads the store without the key: AES-256-GCM
// with a random nonce before it. It opens only where it was sealed for.
func (h *Hasher) seal(text []byte, profile, matcher string) []byte {
	aead, err := h.aead()
	if err != nil {
		return nil
	}
	return aead.Seal(nil, nil, text, place(profile, matcher))
}

func (h *Hasher) open(sealed []byte, profile, matcher string) ([]byte, error) {
	aead, err := h.aead()
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, place(profile, matcher))
}

func (h *Hasher) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(h.mac("outcome"))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func place(profile, matcher string) []byte { return []byte(encode(profile, matcher)) }
