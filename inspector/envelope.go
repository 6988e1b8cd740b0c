package inspector

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
)

// blockSize is what the identifier fixes beside the key's length.
func (c *contentCipher) blockSize() int {
	if c.oid == oidDESCBC || c.oid == oidDES3CBC {
		return des.BlockSize
	}
	return aes.BlockSize
}

// Names of key transports, as Opened.KeyTransport.
const (
	transportPKCS1v15 = "pkcs1v15"
	transportOAEP     = "oaep_sha1"
)

// envelope is an EnvelopedData of the exact profile, still closed.
type envelope struct {
	issuer       []byte // recipient, RDNSequence, DER
	serial       *big.Int
	transport    string
	encryptedKey []byte
	cipher       *contentCipher
	iv           []byte
	ciphertext   []byte
}

// parseEnvelope reads ContentInfo(EnvelopedData) (RFC 8894 §3.1, RFC 5652 §6)
// with one recipient by key transport and nothing optional. Two readers of an
// accepted envelope can only find the same key and the same ciphertext.
func parseEnvelope(content []byte) (*envelope, *ParseError) {
	e, err := readEnvelope(content)
	if err != nil {
		var stage *ParseError
		if errors.As(err, &stage) {
			return nil, stage
		}
		return nil, &ParseError{Kind: KindMessage, Stage: "envelopedData", Err: err}
	}
	return e, nil
}

func readEnvelope(content []byte) (*envelope, error) {
	root, err := walk(content, modeBER)
	if err != nil {
		return nil, err
	}
	envelopedData, err := contentInfo(root, oidEnvelopedData)
	if err != nil {
		return nil, err
	}
	f := envelopedData.fields()
	version, err := f.any()
	if err != nil {
		return nil, err
	}
	if err := version.version(0); err != nil { // threat C47
		return nil, err
	}
	recipients, err := f.next(classUniversal, tagSet) // originatorInfo [0] has no place
	if err != nil {
		return nil, err
	}
	encrypted, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return nil, err
	}
	if err := f.end(); err != nil { // nor have unprotectedAttrs [1]
		return nil, err
	}
	recipient, err := recipients.only(classUniversal, tagSequence) // threats C44, C46
	if err != nil {
		return nil, fmt.Errorf("recipientInfos: %w", err)
	}
	e := &envelope{}
	if err := e.readRecipient(recipient); err != nil {
		return nil, err
	}
	if err := e.readContent(encrypted); err != nil {
		return nil, err
	}
	return e, nil
}

// readRecipient reads a KeyTransRecipientInfo by issuer and serial (RFC 5652
// §6.2.1).
func (e *envelope) readRecipient(info *node) error {
	if err := info.der(); err != nil {
		return fmt.Errorf("recipientInfo: %w", err)
	}
	f := info.fields()
	version, err := f.any()
	if err != nil {
		return err
	}
	if err := version.version(0); err != nil {
		return fmt.Errorf("recipientInfo: %w", err)
	}
	rid, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("recipient identifier: %w", err)
	}
	issuer, serial, err := issuerAndSerial(rid)
	if err != nil {
		return fmt.Errorf("recipient identifier: %w", err)
	}
	e.issuer = issuer.raw
	if e.serial, err = serial.integer(); err != nil {
		return err
	}
	algorithm, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("recipientInfo: %w", err)
	}
	key, err := f.next(classUniversal, tagOctetString)
	if err != nil {
		return fmt.Errorf("recipientInfo: %w", err)
	}
	e.encryptedKey = key.content
	if err := f.end(); err != nil {
		return fmt.Errorf("recipientInfo: %w", err)
	}
	oid, parameters, err := algorithm.algorithm()
	if err != nil {
		return fmt.Errorf("key transport: %w", err)
	}
	switch {
	case oid == oidRSAEncryption && (parameters == nil || parameters.null() == nil):
		e.transport = transportPKCS1v15
	// quirk: Windows sends OAEP with an empty sequence, that is SHA-1, MGF1 with
	// SHA-1, no label. Parameters spelled out are refused. threat C78
	case oid == oidRSAESOAEP && parameters != nil && parameters.is(classUniversal, tagSequence) && len(parameters.children) == 0:
		e.transport = transportOAEP
	default:
		return &ParseError{Kind: KindAlgorithm, Stage: "key transport", Err: fmt.Errorf("%s or its parameters", oid)}
	}
	return nil
}

// readContent reads the EncryptedContentInfo.
func (e *envelope) readContent(info *node) error {
	f := info.fields()
	if err := expectOID(&f, oidData); err != nil {
		return fmt.Errorf("encryptedContentInfo: %w", err)
	}
	algorithm, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return fmt.Errorf("encryptedContentInfo: %w", err)
	}
	encrypted, err := f.next(classContext, 0)
	if err != nil {
		return fmt.Errorf("encryptedContentInfo: %w", err)
	}
	if err := f.end(); err != nil {
		return fmt.Errorf("encryptedContentInfo: %w", err)
	}
	if e.ciphertext, err = encrypted.chunks(); err != nil { // threat C55
		return fmt.Errorf("encryptedContent: %w", err)
	}
	oid, parameters, err := algorithm.algorithm()
	if err != nil {
		return fmt.Errorf("content cipher: %w", err)
	}
	for i := range contentCiphers { // threats C49, C50: the identifier fixes the key's length
		if contentCiphers[i].oid == oid {
			e.cipher = &contentCiphers[i]
		}
	}
	if e.cipher == nil {
		return &ParseError{Kind: KindAlgorithm, Stage: "content cipher", Err: errors.New(oid)}
	}
	if parameters == nil || !parameters.is(classUniversal, tagOctetString) || parameters.constructed || len(parameters.content) != e.cipher.blockSize() {
		return errors.New("initialisation vector malformed") // threat C51
	}
	e.iv = parameters.content
	return nil
}

// decrypt undoes CBC and padding with a key of the cipher's length. The work
// is the same whatever the key and the padding are. ok is 1 if the padding was
// right and 0 otherwise; plaintext is buffer without it, all of buffer if it was
// wrong. buffer is what the caller has to wipe. threats C52–C54, E05
func (e *envelope) decrypt(key []byte) (plaintext, buffer []byte, ok int) {
	block, err := e.cipher.block(key)
	if err != nil || block.BlockSize() != len(e.iv) {
		return nil, nil, 0 // not reached: the key has the cipher's length
	}
	whole := len(e.ciphertext) - len(e.ciphertext)%block.BlockSize()
	if whole == 0 {
		return nil, nil, 0
	}
	buffer = make([]byte, whole)
	cipher.NewCBCDecrypter(block, e.iv).CryptBlocks(buffer, e.ciphertext[:whole])
	length, ok := unpad(buffer, block.BlockSize())
	ok &= subtle.ConstantTimeEq(int32(whole), int32(len(e.ciphertext)))
	return buffer[:length], buffer, ok
}

// unpad finds where the plaintext ends (RFC 5652 §6.3): 1 to block octets,
// each the number of them. Every octet of the last block is looked at whatever
// the others say; with wrong padding the length is that of the input. The
// input is one block or more.
func unpad(padded []byte, block int) (length, ok int) {
	last := padded[len(padded)-1]
	count := int(last)
	ok = subtle.ConstantTimeLessOrEq(1, count) & subtle.ConstantTimeLessOrEq(count, block)
	for i := 1; i <= block; i++ {
		inside := subtle.ConstantTimeLessOrEq(i, count)
		equal := subtle.ConstantTimeByteEq(padded[len(padded)-i], last)
		ok &= equal | (1 ^ inside)
	}
	return len(padded) - subtle.ConstantTimeSelect(ok, count, 0), ok
}
