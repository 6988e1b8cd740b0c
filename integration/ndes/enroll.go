package ndes

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/smallstep/pkcs7"
)

// SCEP attributes (RFC 8894 §3.2.1).
var (
	oidMessageType    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 2}
	oidPKIStatus      = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 3}
	oidFailInfo       = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 4}
	oidSenderNonce    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 5}
	oidRecipientNonce = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 6}
	oidTransactionID  = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 7}
	oidSCEPError      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 33}
	oidServerMessage  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 38}
)

// exchange is one PKIOperation at work.
type exchange struct {
	messageType   string
	transactionID string
	senderNonce   []byte
	signer        *x509.Certificate
	envelope      []byte
	plain         []byte
}

type pendingCase struct {
	exchange *exchange
	csr      *csr
	renewal  bool
	denied   bool
	approved bool
}

var errUndecodable = errors.New("message cannot be decoded")

// pkiOperation follows the order that NDES's events show: decode, read the
// attributes, decrypt (an error up to here is an HTTP error), then password,
// then the CA (an error from here on is a signed FAILURE).
func (s *Server) pkiOperation(message []byte) ([]byte, error) {
	x, err := s.decode(message)
	if err != nil {
		return nil, err
	}
	if x.messageType == "20" {
		return s.poll(x)
	}
	if x.messageType != "17" && x.messageType != "18" && x.messageType != "19" {
		return s.failure(x, hresultInvalidParam, "")
	}
	request, err := readCSR(x.plain)
	if err != nil {
		return s.failure(x, hresultInvalidParam, "")
	}
	// A repeated request of the same key gets the certificate it already has.
	if cert := s.cached(x, request); cert != nil {
		return s.success(x, cert)
	}
	renewal := x.signer.CheckSignatureFrom(s.CA) == nil
	if renewal {
		// NDES asks that the subject stays; it asks nothing of the rest.
		var signer pkix.RDNSequence
		if _, err := asn1.Unmarshal(x.signer.RawSubject, &signer); err != nil || signer.String() != s.rebuilt(request) {
			return s.failure(x, hresultBadSubject, "Renewal subject does not match")
		}
	} else if code := s.checkPassword(request.challenge); code != 0 {
		return s.failure(x, code, "")
	}
	if s.config.CADown {
		return s.failure(x, hresultRPC, "The RPC server is unavailable.")
	}
	s.mu.Lock()
	waiting := s.hold
	if p := s.pending[x.transactionID]; p != nil && bytes.Equal(p.csr.spki, request.spki) {
		switch {
		case p.denied:
			s.mu.Unlock()
			return s.failure(x, hresultDenied, "Denied by Policy Module")
		case p.approved:
			waiting = false
		}
	} else if waiting {
		s.pending[x.transactionID] = &pendingCase{exchange: x, csr: request, renewal: renewal}
	}
	s.mu.Unlock()
	if waiting {
		return s.pendingReply(x)
	}
	return s.issue(x, request, renewal)
}

func (s *Server) rebuilt(c *csr) string {
	der, err := c.rebuiltSubject()
	if err != nil {
		return ""
	}
	var seq pkix.RDNSequence
	asn1.Unmarshal(der, &seq)
	return seq.String()
}

func (s *Server) issue(x *exchange, request *csr, renewal bool) ([]byte, error) {
	cert, err := s.certify(request)
	if err != nil {
		return s.failure(x, hresultBadSubject, "Error Constructing or Publishing Certificate")
	}
	if !renewal && s.config.Password == PasswordOneTime {
		s.passwords.consume(request.challenge)
	}
	s.mu.Lock()
	s.issued = append(s.issued, Issue{Certificate: cert, SPKISHA256: sha256.Sum256(request.spki), TransactionID: x.transactionID, Template: request.template(), Renewal: renewal})
	s.cache[cacheKey(x.transactionID, request.spki)] = cachedIssue{cert, s.now()}
	delete(s.pending, x.transactionID)
	s.mu.Unlock()
	return s.success(x, cert)
}

// poll goes by the transactionID alone: whether NDES asks for more is not known,
// and the gateway must not rely on it.
func (s *Server) poll(x *exchange) ([]byte, error) {
	s.mu.Lock()
	p := s.pending[x.transactionID]
	var done *x509.Certificate
	for _, i := range s.issued {
		if i.TransactionID == x.transactionID {
			done = i.Certificate
		}
	}
	s.mu.Unlock()
	switch {
	case p == nil && done != nil:
		return s.success(x, done)
	case p == nil:
		return s.failure(x, hresultNotFound, "")
	case p.denied:
		return s.failure(x, hresultDenied, "Denied by Policy Module")
	case p.approved:
		return s.issue(x, p.csr, p.renewal)
	default:
		return s.pendingReply(x)
	}
}

// Hold switches "CA manager approval" on or off for requests that are new.
func (s *Server) Hold(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = on
}

// Waiting lists the transactionIDs that nobody has decided about, sorted.
func (s *Server) Waiting() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, p := range s.pending {
		if !p.approved && !p.denied {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Approve lets a pended request be issued at its next poll; Deny refuses it.
func (s *Server) Approve(transactionID string) bool { return s.decide(transactionID, false) }

// Deny is the CA manager's no.
func (s *Server) Deny(transactionID string) bool { return s.decide(transactionID, true) }

func (s *Server) decide(transactionID string, deny bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[transactionID]
	if p == nil {
		return false
	}
	p.denied, p.approved = deny, !deny
	return true
}

func cacheKey(transactionID string, spki []byte) string {
	sum := sha256.Sum256(spki)
	return transactionID + " " + hex.EncodeToString(sum[:])
}

func (s *Server) cached(x *exchange, c *csr) *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	hit, ok := s.cache[cacheKey(x.transactionID, c.spki)]
	if !ok || s.now().Sub(hit.at) > retryCacheAge {
		return nil
	}
	return hit.certificate
}

func (s *Server) decode(message []byte) (*exchange, error) {
	p7, err := pkcs7.Parse(message)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errUndecodable, err)
	}
	if err := p7.Verify(); err != nil {
		return nil, fmt.Errorf("%w: %v", errUndecodable, err)
	}
	x := &exchange{signer: p7.GetOnlySigner(), envelope: p7.Content}
	if x.signer == nil {
		return nil, errUndecodable
	}
	for oid, to := range map[*asn1.ObjectIdentifier]any{&oidMessageType: &x.messageType, &oidTransactionID: &x.transactionID, &oidSenderNonce: &x.senderNonce} {
		if err := p7.UnmarshalSignedAttribute(*oid, to); err != nil {
			return nil, fmt.Errorf("%w: %v", errUndecodable, err)
		}
	}
	inner, err := pkcs7.Parse(p7.Content)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errUndecodable, err)
	}
	if x.plain, err = inner.Decrypt(s.Exchange, s.exchange); err != nil {
		return nil, fmt.Errorf("%w: %v", errUndecodable, err)
	}
	return x, nil
}

// certify issues what was asked for: names, SAN, SID, application policies and
// extended key usage as they stand in the request.
func (s *Server) certify(c *csr) (*x509.Certificate, error) {
	pub, ok := c.publicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	subject, err := c.rebuiltSubject()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.serial++
	serial := s.serial
	s.mu.Unlock()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		RawSubject:   subject,
		NotBefore:    s.now().Add(-10 * time.Minute),
		NotAfter:     s.now().AddDate(1, 0, 0),
	}
	switch c.template() {
	case "signature":
		template.KeyUsage = x509.KeyUsageDigitalSignature
	case "encryption":
		template.KeyUsage = x509.KeyUsageKeyEncipherment
	default:
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	for _, oid := range []asn1.ObjectIdentifier{oidSAN, oidSID, oidAppPolicies, oidExtKeyUsage} {
		if e := c.extension(oid); e != nil {
			template.ExtraExtensions = append(template.ExtraExtensions, *e)
		}
	}
	if s.config.Template != "" {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oidTemplateName, Value: bmpString(s.config.Template)})
	}
	if c.extension(oidExtKeyUsage) == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.CA, pub, s.caKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Answer is what PKIOperation answers to message, without HTTP.
func (s *Server) Answer(message []byte) ([]byte, error) { return s.pkiOperation(message) }
