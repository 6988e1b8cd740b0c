package inspector

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
)

// Failure describes a CertRep FAILURE, failInfo badRequest, shaped as NDES
// shapes it.
type Failure struct {
	TransactionID  string // of the request, as Message.TransactionID
	RecipientNonce []byte // the request's senderNonce
	SenderNonce    []byte // 16 fresh random bytes, given by the caller: the gateway's side of this package has no randomness
}

// failureNonce is the length of our own nonce. RFC 8894 §3.2.1.5
const failureNonce = 16

// BuildFailure signs the one refusal there is: messageType 3, pkiStatus 2,
// failInfo 2, no text. Status and reason are constants, so that this key can
// not be made to sign a SUCCESS (threat F27), and the length depends on
// nothing but the transactionID, the nonces and the signer (invariant 6). The
// digest is SHA-256 whatever the request used: nothing that an attacker
// influences is signed with SHA-1.
func BuildFailure(f Failure, cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	if cert == nil || key == nil {
		return nil, errors.New("failure without certificate or key")
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("failure key is not the RSA key of the certificate")
	}
	if !isTransactionID(f.TransactionID) {
		return nil, errors.New("failure for an unusable transactionID")
	}
	if len(f.SenderNonce) != failureNonce || len(f.RecipientNonce) == 0 || len(f.RecipientNonce) > maxSenderNonce {
		return nil, fmt.Errorf("failure with nonces of %d and %d bytes", len(f.SenderNonce), len(f.RecipientNonce))
	}
	der, err := composeSignedData(signedDataSpec{
		content: []byte{0}, // quirk: NDES puts one byte there, and clients have learned to read it
		issuer:  cert.RawIssuer,
		serial:  cert.SerialNumber,
		digest:  digestByOID(oidSHA256),
		attributes: []attributeSpec{
			printableAttribute(oidMessageType, messageTypeCertRep),
			printableAttribute(oidPKIStatus, statusFailure),
			printableAttribute(oidFailInfo, failInfoBadRequest),
			octetsAttribute(oidSenderNonce, f.SenderNonce),
			octetsAttribute(oidRecipientNonce, f.RecipientNonce),
			printableAttribute(oidTransactionID, f.TransactionID),
		},
		key: key,
	})
	if err != nil {
		return nil, fmt.Errorf("failure: %w", err)
	}
	return der, nil
}
