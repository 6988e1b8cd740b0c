package caddymodule

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scepgate/scepgate/inspector"
)

var errUnknownSigner = errors.New("signed by a certificate that is not trusted")

// checkForm checks what can be said about any answer to a PKIOperation: status,
// type, encoding, length. threats E30, D25
func checkForm(rep *reply) error {
	if rep.code != http.StatusOK {
		return fmt.Errorf("status %d", rep.code)
	}
	media, _, err := mime.ParseMediaType(rep.header.Get("Content-Type"))
	if err != nil || !strings.EqualFold(media, mediaPKIMessage) {
		return errors.New("content type is not " + mediaPKIMessage)
	}
	return checkWhole(rep)
}

// checkWhole refuses an encoded answer and one of another length than announced.
func checkWhole(rep *reply) error {
	if e := rep.header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return errors.New("content encoding")
	}
	if l := rep.header.Get("Content-Length"); l != "" && l != strconv.Itoa(len(rep.body)) {
		return errors.New("content length")
	}
	if len(rep.body) == 0 {
		return errors.New("empty body")
	}
	return nil
}

// checkAnswer reads NDES's answer to a message and believes it only if a
// trusted key signed it for this transaction (contract §3.2). nonces are the
// senderNonces forwarded for the transaction and key: NDES may answer a retry
// from its cache.
func (v *visit) checkAnswer(rep *reply, m *inspector.Message, nonces [][]byte, files *profileFiles, upstream string) (*inspector.CertRep, error) {
	if err := checkForm(rep); err != nil {
		return nil, err
	}
	certRep, err := inspector.ParseCertRep(rep.body)
	if err != nil {
		return nil, err
	}
	// RFC 8894 §3.2.1.1, §3.2.1.5
	if certRep.TransactionID != m.TransactionID {
		return nil, errors.New("transactionID of another transaction")
	}
	if !slices.ContainsFunc(nonces, func(n []byte) bool { return bytes.Equal(n, certRep.RecipientNonce) }) {
		return nil, errors.New("recipientNonce was not forwarded for this transaction")
	}
	if err := v.checkSigner(certRep, files, upstream); err != nil {
		return nil, err
	}
	if files.refusal != nil && ownRefusal(files.refusal.secret, certRep) {
		return nil, errors.New("a refusal of our own")
	}
	return certRep, nil
}

// checkSigner tries the signers that are known and, once, those that NDES
// publishes now.
func (v *visit) checkSigner(certRep *inspector.CertRep, files *profileFiles, upstream string) error {
	if _, err := certRep.VerifySigner(v.signers(files, upstream)); err == nil {
		return nil
	} else if len(files.pins) > 0 {
		return fmt.Errorf("%w: %v", errUnknownSigner, err)
	}
	if _, err := v.caAnswer(inspector.GetCACert, upstream, files, signerRefresh); err != nil {
		return fmt.Errorf("%w; GetCACert: %v", errUnknownSigner, err)
	}
	if _, err := certRep.VerifySigner(v.signers(files, upstream)); err != nil {
		return fmt.Errorf("%w: %v", errUnknownSigner, err)
	}
	return nil
}

// signers lists who may sign NDES's answers: the pins alone if there are any.
func (v *visit) signers(files *profileFiles, upstream string) []*x509.Certificate {
	if len(files.pins) > 0 {
		return files.pins
	}
	trusted := slices.Clone(files.cas)
	add := func(c *x509.Certificate) {
		if !slices.ContainsFunc(trusted, c.Equal) {
			trusted = append(trusted, c)
		}
	}
	for _, ra := range files.ras {
		if ra.certificate.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
			add(ra.certificate)
		}
	}
	now := time.Now()
	for _, c := range v.g.ca.certificates(upstream, files) {
		if maySign(c, files.cas, now) {
			add(c)
		}
	}
	return trusted
}

// maySign reports whether c, as NDES published it, is an enrollment agent that
// one of the CAs issued itself: NDES's signing RA certificate.
func maySign(c *x509.Certificate, cas []*x509.Certificate, now time.Time) bool {
	return !c.IsCA &&
		!now.Before(c.NotBefore) && !now.After(c.NotAfter) &&
		c.KeyUsage&x509.KeyUsageDigitalSignature != 0 &&
		slices.ContainsFunc(c.UnknownExtKeyUsage, oidEnrollmentAgent.Equal) &&
		slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return signedWith(ca, c) })
}

// signedWith reports whether ca's key signed c. Old CAs sign with SHA-1, which
// Certificate.CheckSignatureFrom refuses and contract §3.2 accepts.
func signedWith(ca, c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, ca.RawSubject) &&
		ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
