package inspector

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha1" // rsa.OAEPOptions names it by registry
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

// substituteSecretSize is the length of the secret in NewOpener.
const substituteSecretSize = 32

// errUndecryptable is the one text for whatever went wrong behind the private
// key. RFC 3218: there is no second one to tell apart. threats E01, E02
var errUndecryptable = errors.New("content cannot be decrypted with the recipient's key")

// errPlaintext is for right padding around more than a request.
var errPlaintext = errors.New("plaintext is not one request")

// Opener opens envelopes with the RA keys. Nothing of it depends, in outcome
// or in the steps taken, on how a decryption failed. It is safe for concurrent
// use if the keys are.
type Opener struct {
	keys   []*recipientKey
	secret []byte
}

// recipientKey is one RA key with the way to ask it.
type recipientKey struct {
	RAKey
	public *rsa.PublicKey
	plain  bool   // the key refuses SessionKeyLen, as token libraries do. threat E04
	decoy  []byte // has a decryption, with wrong padding
}

// NewOpener takes the RA keys and a secret of 32 bytes that is derived from
// the challenge key. Every key must be RSA, belong to its certificate and
// pass the test of SelfTest; no two may be addressed alike.
func NewOpener(keys []RAKey, substituteSecret []byte) (*Opener, error) {
	if len(substituteSecret) != substituteSecretSize {
		return nil, fmt.Errorf("substitute secret has %d bytes, not %d", len(substituteSecret), substituteSecretSize)
	}
	if len(keys) == 0 {
		return nil, errors.New("no RA key")
	}
	o := &Opener{secret: bytes.Clone(substituteSecret)}
	for _, key := range keys {
		public, err := raPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("ra %s: %w", key.Name, err)
		}
		for _, other := range o.keys {
			if other.Name == key.Name {
				return nil, fmt.Errorf("ra %s: name given twice", key.Name)
			}
			if other.isRecipient(key.Certificate.RawIssuer, key.Certificate.SerialNumber) {
				return nil, fmt.Errorf("ra %s: issuer and serial number are those of ra %s", key.Name, other.Name)
			}
		}
		k := &recipientKey{RAKey: key, public: public, decoy: wrapKnown(public, nil)}
		if err := o.test(k); err != nil {
			k.plain = true
			if o.test(k) != nil {
				return nil, fmt.Errorf("ra %s: %w", key.Name, err)
			}
		}
		o.keys = append(o.keys, k)
	}
	return o, nil
}

// raPublicKey checks that key and certificate are a pair.
func raPublicKey(key RAKey) (*rsa.PublicKey, error) {
	if key.Certificate == nil || key.Key == nil {
		return nil, errors.New("certificate or key is missing")
	}
	public, ok := key.Certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errNotRSA
	}
	if err := checkRSAKey(public.N, big.NewInt(int64(public.E))); err != nil {
		return nil, err
	}
	if !public.Equal(key.Key.Public()) {
		return nil, errors.New("key does not belong to the certificate")
	}
	return public, nil
}

func (k *recipientKey) isRecipient(issuer []byte, serial *big.Int) bool {
	return bytes.Equal(k.Certificate.RawIssuer, issuer) && k.Certificate.SerialNumber.Cmp(serial) == 0
}

// Open decrypts what m holds and reads the request in it. If the recipient is
// one of the RA certificates it performs exactly one private-key operation;
// when that or the padding fails it goes on over the same path with a
// substitute. It never returns nil.
func (o *Opener) Open(m *Message) *Opened {
	opened := &Opened{}
	if o == nil || m == nil {
		opened.Err = &ParseError{Kind: KindMessage, Stage: "envelopedData", Err: errors.New("no message")}
		return opened
	}
	e, perr := parseEnvelope(m.content)
	if perr != nil {
		opened.Err = perr
		return opened
	}
	opened.Cipher, opened.KeyTransport = e.cipher.name, e.transport
	key := o.recipient(e)
	if key == nil { // threat C45
		opened.Err = &ParseError{Kind: KindUndecryptable, Stage: "recipient", Err: errors.New("names none of the RA certificates")}
		return opened
	}
	opened.RA = key.Name

	contentKey := o.contentKey(key, e)
	plaintext, buffer, ok := e.decrypt(contentKey)
	request := soleElement(buffer, e.cipher.blockSize())
	csr, poll, err := parseContent(m.MessageType, request) // also over the substitute's plaintext. threat E01
	clear(contentKey)
	clear(buffer) // the request holds a copy
	if err == nil && (csr == nil && poll == nil || len(request) != len(plaintext)) {
		err = errPlaintext
	}
	if err == nil && ok == 1 {
		opened.CSR, opened.Poll = csr, poll
		return opened
	}
	// Whatever failed, the same steps; only what the operator reads differs.
	undecryptable := &ParseError{Kind: KindUndecryptable, Stage: "content", Err: errUndecryptable}
	stage := &ParseError{Kind: KindRequest, Stage: "pkcs10", Err: err}
	errors.As(err, &stage)
	if opened.Err = stage; ok != 1 {
		opened.Err = undecryptable
	}
	return opened
}

// soleElement gives the element at the head of a decrypted buffer if the
// padding, of 1 to block octets, can be all that follows it, and otherwise the
// whole buffer. Where the request ends is told by its own length: what is
// parsed, and verified with it, is then the same whatever the padding is, so
// that time does not tell a right one from a wrong one. threats E05, E06
func soleElement(buffer []byte, block int) []byte {
	rest := cryptobyte.String(buffer)
	var element cryptobyte.String
	if rest.ReadAnyASN1Element(&element, nil) && len(rest) >= 1 && len(rest) <= block {
		return element
	}
	return buffer
}

func (o *Opener) recipient(e *envelope) *recipientKey {
	for _, k := range o.keys {
		if k.isRecipient(e.issuer, e.serial) {
			return k
		}
	}
	return nil
}

// contentKey unwraps the content key, or gives the substitute for this
// encryptedKey: the same for the same, so that asking twice reveals nothing.
// The key is asked once in every case. threats E01–E04
func (o *Opener) contentKey(k *recipientKey, e *envelope) []byte {
	mac := hmac.New(sha256.New, o.secret)
	mac.Write(e.encryptedKey)
	substitute := mac.Sum(nil)[:e.cipher.size] // the longest key has the 32 bytes of the MAC

	var options crypto.DecrypterOpts
	switch {
	case e.transport == transportOAEP:
		options = &rsa.OAEPOptions{Hash: crypto.SHA1}
	case k.plain:
		options = &rsa.PKCS1v15DecryptOptions{}
	default:
		options = &rsa.PKCS1v15DecryptOptions{SessionKeyLen: e.cipher.size}
	}
	ciphertext, defined := k.operand(e.encryptedKey)
	unwrapped := k.unwrap(ciphertext, substitute, options)

	// One length decides, in the same steps for every failure.
	good := subtle.ConstantTimeEq(int32(len(unwrapped)), int32(e.cipher.size)) & defined
	candidate := make([]byte, e.cipher.size)
	copy(candidate, unwrapped)
	subtle.ConstantTimeCopy(good, substitute, candidate)
	clear(candidate)
	clear(unwrapped)
	return substitute
}

// operand is what the key is asked to decrypt, and 1, or 0 if encryptedKey has
// no decryption: it is not as long as the modulus, or not below it (RFC 8017
// §7.2.2). Anybody can see that; still the key works then, on a decoy, because
// it would refuse such a ciphertext early or in an error of its own.
func (k *recipientKey) operand(encryptedKey []byte) (ciphertext []byte, defined int) {
	if len(encryptedKey) != k.public.Size() || new(big.Int).SetBytes(encryptedKey).Cmp(k.public.N) >= 0 {
		return k.decoy, 0
	}
	return encryptedKey, 1
}

// unwrap is the private-key operation. A panic or an error of the key gives
// nil. threat E04
func (k *recipientKey) unwrap(encryptedKey, substitute []byte, options crypto.DecrypterOpts) (unwrapped []byte) {
	defer func() {
		if recover() != nil {
			unwrapped = nil
		}
	}()
	// With SessionKeyLen crypto/rsa takes the key for the case of wrong padding
	// from rand, and selects in constant time.
	unwrapped, err := k.Key.Decrypt(bytes.NewReader(substitute), encryptedKey, options)
	if err != nil {
		return nil
	}
	return unwrapped
}

// SelfTest lets every key unwrap a known-good and a known-bad content key. An
// error means that a key does not answer as it must; until it does, nothing
// that devices send can be judged. threat E04
func (o *Opener) SelfTest() error {
	if o == nil || len(o.keys) == 0 {
		return errors.New("no RA key")
	}
	for _, k := range o.keys {
		if err := o.test(k); err != nil {
			return fmt.Errorf("ra %s: %w", k.Name, err)
		}
	}
	return nil
}

func (o *Opener) test(k *recipientKey) error {
	aes128 := &contentCiphers[2]
	known := bytes.Repeat([]byte{0x5c}, aes128.size)

	good := &envelope{transport: transportPKCS1v15, cipher: aes128, encryptedKey: wrapKnown(k.public, known)}
	if !bytes.Equal(o.contentKey(k, good), known) {
		return errors.New("key does not decrypt what its certificate encrypts")
	}
	bad := &envelope{transport: transportPKCS1v15, cipher: aes128, encryptedKey: wrapKnown(k.public, nil)}
	mac := hmac.New(sha256.New, o.secret)
	mac.Write(bad.encryptedKey)
	if !bytes.Equal(o.contentKey(k, bad), mac.Sum(nil)[:aes128.size]) {
		return errors.New("key accepts wrong padding")
	}
	return nil
}

// wrapKnown encrypts a test value with PKCS#1 v1.5 padding (RFC 8017 §7.2.1)
// that is fixed, not random: nothing secret is in it. Without a value the
// separator is missing too, and the padding is wrong.
func wrapKnown(public *rsa.PublicKey, value []byte) []byte {
	padded := bytes.Repeat([]byte{0xa5}, public.Size())
	padded[0], padded[1] = 0, 2
	if len(value) > 0 {
		padded[len(padded)-len(value)-1] = 0
		copy(padded[len(padded)-len(value):], value)
	}
	c := new(big.Int).Exp(new(big.Int).SetBytes(padded), big.NewInt(int64(public.E)), public.N)
	return c.FillBytes(make([]byte, public.Size()))
}
