package caddymodule

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// RSA keys are slow to make: three serve the whole test binary.
var (
	siteCAKey   = sync.OnceValue(newSiteRSA)
	siteRAKey   = sync.OnceValue(newSiteRSA)
	strangerKey = sync.OnceValue(newSiteRSA)
	curveKey    = sync.OnceValue(func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return key
	})
)

func newSiteRSA() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

var siteSerial = big.NewInt(1000)

// issueCertificate makes a certificate for public, signed by signer under parent (nil: itself).
func issueCertificate(t testing.TB, c *x509.Certificate, parent *x509.Certificate, public any, signer *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	siteSerial = new(big.Int).Add(siteSerial, big.NewInt(1))
	c.SerialNumber = siteSerial
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func commonName(cn string) pkix.Name { return pkix.Name{CommonName: cn} }

func newSiteCA(t testing.TB) *x509.Certificate {
	return issueCertificate(t, &x509.Certificate{
		Subject: commonName("Test CA"), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, siteCAKey().Public(), siteCAKey())
}

// newSiteRA makes an RA certificate for siteRAKey; change alters the template.
func newSiteRA(t testing.TB, ca *x509.Certificate, change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		Subject:  commonName("Test RA"),
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(c)
	}
	return issueCertificate(t, c, ca, siteRAKey().Public(), siteCAKey())
}

// site is a folder with the files of one valid profile.
type site struct {
	dir    string
	ca, ra *x509.Certificate
}

func newSite(t testing.TB) *site {
	s := &site{dir: t.TempDir(), ca: newSiteCA(t)}
	s.ra = newSiteRA(t, s.ca, nil)
	s.write(t, "ca.crt", pemOf(s.ca), 0o644)
	s.write(t, "ra.crt", pemOf(s.ra), 0o644)
	s.write(t, "ra.key", pemOfKey(t, siteRAKey()), 0o600)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t testing.TB, name string, content []byte, mode os.FileMode) string {
	t.Helper()
	path := s.path(name)
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// profile gives a fresh configuration that loads.
func (s *site) profile() *Profile {
	return &Profile{
		Challenge:     &Challenge{Source: "gateway"},
		RA:            []*RA{{Name: "ndes1", Certificate: s.path("ra.crt"), Key: s.path("ra.key")}},
		CACertificate: []string{s.path("ca.crt")},
		Renewal:       &Renewal{Mode: "off"},
		Mode:          &Mode{Kind: "enforce"},
	}
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pemOfKey(t testing.TB, key any) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8Of(t, key)})
}

func pkcs8Of(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func enrollmentAgent(c *x509.Certificate) {
	c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidEnrollmentAgent}
}
