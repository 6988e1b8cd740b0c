// Package attack builds what devices and attackers send: one honest enrolment
// and the ways in which a request can ask for more than was promised.
//
// It uses inspector's client side and makes real, well-formed messages: the
// hostility is in what they ask for. Malformed bytes are the business of the
// parsers' own tests.
package attack

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"time"

	"github.com/scepgate/scepgate/inspector"
)

// Path is where devices send everything.
const Path = "/certsrv/mscep/mscep.dll"

// Dotted OIDs of the name attributes used here.
const (
	CN = "2.5.4.3"
	O  = "2.5.4.10"
	OU = "2.5.4.11"
)

// Device is a key and the self-signed certificate that it signs messages with.
type Device struct {
	Key        *rsa.PrivateKey
	SelfSigned []byte
}

// NewDevice makes a device with a fresh RSA-2048 key.
func NewDevice() (*Device, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	cert, err := inspector.SelfSignedCertificate(Name("SCEP Protocol Certificate"), time.Now(), key)
	if err != nil {
		return nil, err
	}
	return &Device{key, cert}, nil
}

// Name is a subject of one CN.
func Name(cn string) []inspector.RDN { return Subject(CN, cn) }

// Subject makes single-valued RDNs of type and value in turn.
func Subject(typesAndValues ...string) []inspector.RDN {
	var rdns []inspector.RDN
	for i := 0; i+1 < len(typesAndValues); i += 2 {
		rdns = append(rdns, inspector.RDN{{Type: typesAndValues[i], Value: typesAndValues[i+1]}})
	}
	return rdns
}

// Message is one PKIOperation to be built. The zero MessageType is PKCSReq.
type Message struct {
	MessageType string
	Request     inspector.CSRParams
	SignerCert  []byte          // default: the device's self-signed certificate
	SignerKey   *rsa.PrivateKey // default: the device's key
	Digest      string
	Cipher      string
	OAEP        bool
}

// Build makes the CMS bytes that d sends to the holder of recipient's key.
func (d *Device) Build(m Message, recipient *x509.Certificate) ([]byte, error) {
	csr, err := inspector.BuildCSR(m.Request, d.Key)
	if err != nil {
		return nil, fmt.Errorf("PKCS#10: %w", err)
	}
	if m.MessageType == "" {
		m.MessageType = "19"
	}
	if m.SignerKey == nil {
		m.SignerKey, m.SignerCert = d.Key, d.SelfSigned
	}
	return inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: m.MessageType, Content: csr, Recipient: recipient,
		SignerCert: m.SignerCert, SignerKey: m.SignerKey,
		Digest: m.Digest, Cipher: m.Cipher, OAEP: m.OAEP,
	})
}

// Answer is what came back over HTTP.
type Answer struct {
	Status      int
	ContentType string
	Header      http.Header
	Body        []byte
	Rep         *inspector.CertRep // nil if the body is none
}

// Post sends message to the SCEP server at base, e.g. "http://127.0.0.1:8080".
func Post(c *http.Client, base string, message []byte) (Answer, error) {
	req, err := http.NewRequest(http.MethodPost, base+Path+"?operation=PKIOperation", bytes.NewReader(message))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-pki-message")
	return Do(c, req)
}

// Do sends any request and reads the answer.
func Do(c *http.Client, req *http.Request) (Answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Header: resp.Header, Body: body}
	if rep, err := inspector.ParseCertRep(body); err == nil {
		a.Rep = rep
	}
	return a, nil
}

// Certificate opens a SUCCESS with the device's key.
func (d *Device) Certificate(a Answer) (*x509.Certificate, error) {
	certs, err := inspector.OpenCertRep(a.Body, d.Key)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%d certificates in the reply, not 1", len(certs))
	}
	return certs[0], nil
}

// ApplicationPolicies is the extension of ESC15: Windows prefers it over the
// extended key usage, and version-1 templates let a request bring it.
func ApplicationPolicies(oids ...asn1.ObjectIdentifier) (pkix.Extension, error) {
	type policy struct{ OID asn1.ObjectIdentifier }
	var list []policy
	for _, oid := range oids {
		list = append(list, policy{oid})
	}
	value, err := asn1.Marshal(list)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 10}, Value: value}, err
}

// ForeignCertificate is a certificate for subject from a CA of the attacker's own.
func ForeignCertificate(subject string) ([]byte, *rsa.PrivateKey, error) {
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Somebody Else's CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	return der, key, err
}
