package inspector

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"
)

var testECKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

// newCA is a CA certificate of crypto/x509.
func newCA(t testing.TB, cn string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Unix(1, 0), NotAfter: time.Unix(1<<32, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func ecCA(t testing.TB) *x509.Certificate {
	t.Helper()
	return newCA(t, "EC CA", ecdsaKey(t))
}

// readSigner reads a certificate as that of a signer.
func readSigner(t testing.TB, spec certificateSpec) *Signer {
	t.Helper()
	c, err := readLoneCertificate(spec.build(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.signer()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSelfSignedIsByKeyNotByName(t *testing.T) {
	key, other := testKey(t, "client"), testKey(t, "other")
	tests := []struct {
		name   string
		change func(c *certificateSpec)
		want   bool
	}{
		{"own key", func(*certificateSpec) {}, true},
		{"own key, issuer of another name", func(c *certificateSpec) { c.issuer = derName("Issuing CA") }, true},
		{"own key, sha1", func(c *certificateSpec) { c.use(digestByOID(oidSHA1)) }, true},
		{"own key, md5", func(c *certificateSpec) { c.use(digestByOID(oidMD5)) }, true},
		{"own key, sha512", func(c *certificateSpec) { c.use(digestByOID(oidSHA512)) }, true},
		{"other key, own name as issuer", func(c *certificateSpec) { c.key = other }, false},
		{"signature of zeros", func(c *certificateSpec) { c.signature = make([]byte, 256) }, false},
		{"signature by another digest than named", func(c *certificateSpec) { c.digest = digestByOID(oidSHA512) }, false},
		{"unknown algorithm", func(c *certificateSpec) {
			c.innerAlg, c.outerAlg = derAlgorithm("1.2.840.113549.1.1.14"), derAlgorithm("1.2.840.113549.1.1.14")
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := newCertificateSpec("device", 1, key)
			tt.change(&spec)
			if got := readSigner(t, spec).SelfSigned; got != tt.want {
				t.Errorf("self-signed %v", got)
			}
		})
	}
}

func TestSignedByIsByKeyNotByName(t *testing.T) {
	key, caKey := testKey(t, "client"), testKey(t, "other")
	rsaCA := newCA(t, "Issuing CA", caKey)
	ec := ecCA(t)
	ecAlg := derSequence(derOID(oidECDSAWithSHA256))
	tests := []struct {
		name   string
		ca     *x509.Certificate
		change func(c *certificateSpec)
		want   bool
	}{
		{"RSA CA", rsaCA, func(c *certificateSpec) { c.key, c.issuer = caKey, rsaCA.RawSubject }, true},
		{"RSA CA, issuer of another name", rsaCA, func(c *certificateSpec) { c.key = caKey }, true},
		{"RSA CA, sha1", rsaCA, func(c *certificateSpec) { c.key = caKey; c.use(digestByOID(oidSHA1)) }, true},
		{"RSA CA, md5", rsaCA, func(c *certificateSpec) { c.key = caKey; c.use(digestByOID(oidMD5)) }, false},
		{"EC CA", ec, func(c *certificateSpec) { c.key, c.innerAlg, c.outerAlg = ecdsaKey(t), ecAlg, ecAlg }, true},
		{"EC CA, certificate of the RSA CA", ec, func(c *certificateSpec) { c.key = caKey }, false},
		{"RSA CA, certificate of the EC CA", rsaCA, func(c *certificateSpec) { c.key, c.innerAlg, c.outerAlg = ecdsaKey(t), ecAlg, ecAlg }, false},
		{"D09: self-signed that names the CA", rsaCA, func(c *certificateSpec) { c.issuer = rsaCA.RawSubject }, false},
		{"D13: CA of the same name, other key", newCA(t, "Issuing CA", key), func(c *certificateSpec) { c.key, c.issuer = caKey, rsaCA.RawSubject }, false},
		{"RSA CA, signature of zeros", rsaCA, func(c *certificateSpec) { c.signature = make([]byte, 256) }, false},
		{"no CA", nil, func(c *certificateSpec) { c.key = caKey }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := newCertificateSpec("device", 1, key)
			tt.change(&spec)
			if got := readSigner(t, spec).SignedBy(tt.ca); got != tt.want {
				t.Errorf("signed by the CA: %v", got)
			}
		})
	}
	if (&Signer{}).SignedBy(rsaCA) || (*Signer)(nil).SignedBy(rsaCA) {
		t.Error("a zero signer is signed by a CA")
	}
}

func TestSPKISHA256IsThatOfTheWholeKeyInfo(t *testing.T) {
	key := testKey(t, "client")
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if readSigner(t, newCertificateSpec("device", 1, key)).SPKISHA256() != sha256.Sum256(der) {
		t.Error("another hash than that of crypto/x509's encoding")
	}
}
