package ndes

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidAgentEKU     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}
	oidTemplateName = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2}
)

// makePKI makes an issuing CA (below a root if configured) and the two RA
// certificates with disjoint usage that NDES setup enrols.
func (s *Server) makePKI() error {
	var err error
	if s.caKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	now := s.now()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Example Issuing CA", Organization: []string{"Example Corp"}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	parent, parentKey := ca, s.caKey
	if s.config.IncludeRoot {
		rootKey, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		root := *ca
		root.Subject = pkix.Name{CommonName: "Example Root CA", Organization: []string{"Example Corp"}}
		if s.Root, err = create(&root, &root, &rootKey.PublicKey, rootKey); err != nil {
			return err
		}
		ca.SerialNumber = big.NewInt(2)
		parent, parentKey = s.Root, rootKey
	}
	if s.CA, err = create(ca, parent, &s.caKey.PublicKey, parentKey); err != nil {
		return err
	}
	// Signing first: its serial is the lower one, as setup enrols it.
	if s.Signing, s.signing, err = s.makeRA(0x10, x509.KeyUsageDigitalSignature, "EnrollmentAgentOffline"); err != nil {
		return err
	}
	s.Exchange, s.exchange, err = s.makeRA(0x11, x509.KeyUsageKeyEncipherment, "CEPEncryption")
	return err
}

func (s *Server) makeRA(serial int64, usage x509.KeyUsage, template string) (*x509.Certificate, *rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	cert, err := create(&x509.Certificate{
		SerialNumber:       big.NewInt(serial),
		Subject:            pkix.Name{Country: []string{"US"}, CommonName: "NDES01-MSCEP-RA"},
		NotBefore:          s.now().Add(-time.Hour),
		NotAfter:           s.now().AddDate(2, 0, 0),
		KeyUsage:           usage,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidAgentEKU},
		ExtraExtensions:    []pkix.Extension{{Id: oidTemplateName, Value: bmpString(template)}},
	}, s.CA, &key.PublicKey, s.caKey)
	return cert, key, err
}

func create(template, parent *x509.Certificate, pub *rsa.PublicKey, key *rsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("creating certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// bmpString is the DER of a BMPString, in which Microsoft writes template names.
func bmpString(text string) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.Tag(30), func(b *cryptobyte.Builder) {
		for _, u := range utf16.Encode([]rune(text)) {
			b.AddUint16(u)
		}
	})
	return b.BytesOrPanic()
}

// Names of the files that WriteFiles makes.
const (
	FileCA          = "ca.pem"
	FileExchange    = "ra-encryption.pem"
	FileExchangeKey = "ra-encryption.key"
	FileSigning     = "ra-signing.pem"
)

// WriteFiles writes what an operator of a gateway would export.
func (s *Server) WriteFiles(dir string) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(s.exchange)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		FileCA:          {Type: "CERTIFICATE", Bytes: s.CA.Raw},
		FileExchange:    {Type: "CERTIFICATE", Bytes: s.Exchange.Raw},
		FileSigning:     {Type: "CERTIFICATE", Bytes: s.Signing.Raw},
		FileExchangeKey: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
