package differential

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Envelope is an EnvelopedData for one recipient, still closed.
type Envelope struct {
	Issuer       []byte // of the recipient, DER
	Serial       *big.Int
	KeyTransport string // "pkcs1v15" "oaep_sha1"
	EncryptedKey []byte
	CipherOID    string
	IV           []byte
	Ciphertext   []byte
}

// Cipher is the cipher's name.
func (e *Envelope) Cipher() string { return ciphers[e.CipherOID].name }

// Envelope reads the EnvelopedData (RFC 5652 §6) that m carries, in DER.
func (m *Message) Envelope() (*Envelope, error) {
	parts, err := contentInfo(m.Content, idEnvelopedData)
	if err != nil {
		return nil, err
	}
	if len(parts) != 3 { // version, recipientInfos, encryptedContentInfo
		return nil, fmt.Errorf("envelopedData of %d fields", len(parts))
	}
	if err := isVersion(parts[0], 0); err != nil {
		return nil, err
	}
	recipients, err := counted(parts[1], asn1.ClassUniversal, asn1.TagSet, 1, 1)
	if err != nil {
		return nil, err
	}
	e := &Envelope{}
	if err := e.readRecipient(recipients[0]); err != nil {
		return nil, fmt.Errorf("recipientInfo: %w", err)
	}
	if err := e.readContent(parts[2]); err != nil {
		return nil, fmt.Errorf("encryptedContentInfo: %w", err)
	}
	return e, nil
}

// readRecipient reads KeyTransRecipientInfo (RFC 5652 §6.2.1).
func (e *Envelope) readRecipient(v asn1.RawValue) error {
	parts, err := sequence(v, 4, 4)
	if err != nil {
		return err
	}
	if err := isVersion(parts[0], 0); err != nil {
		return err
	}
	if e.Issuer, e.Serial, err = issuerAndSerial(parts[1]); err != nil {
		return err
	}
	oid, parameters, err := algorithm(parts[2])
	if err != nil {
		return err
	}
	switch oid {
	case rsaEncryption:
		e.KeyTransport = "pkcs1v15"
		if parameters != nil {
			if err := null(*parameters); err != nil {
				return err
			}
		}
	case "1.2.840.113549.1.1.7": // RFC 8017 appendix A.2.1: all defaults is SHA-1
		e.KeyTransport = "oaep_sha1"
		if parameters == nil {
			return errors.New("OAEP without parameters")
		}
		if _, err := sequence(*parameters, 0, 0); err != nil {
			return err
		}
	default:
		return fmt.Errorf("key transport %s", oid)
	}
	e.EncryptedKey, err = octets(parts[3])
	return err
}

// readContent reads EncryptedContentInfo (RFC 5652 §6.1).
func (e *Envelope) readContent(v asn1.RawValue) error {
	parts, err := sequence(v, 3, 3)
	if err != nil {
		return err
	}
	if err := isContentType(parts[0], idData); err != nil {
		return err
	}
	oid, parameters, err := algorithm(parts[1])
	if err != nil {
		return err
	}
	if parameters == nil {
		return errors.New("cipher without initialisation vector")
	}
	e.CipherOID = oid
	if e.IV, err = octets(*parameters); err != nil {
		return err
	}
	content := parts[2]
	if content.Class != asn1.ClassContextSpecific || content.Tag != 0 || content.IsCompound {
		return errors.New("encrypted content is not one string")
	}
	e.Ciphertext = content.Bytes
	return nil
}
