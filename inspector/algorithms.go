package inspector

import (
	"crypto"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"math/big"
)

// Object identifiers of algorithms (RFC 8017, RFC 3370, RFC 3565, RFC 5754).
const (
	oidRSAEncryption = "1.2.840.113549.1.1.1"
	oidRSAESOAEP     = "1.2.840.113549.1.1.7"

	oidMD5    = "1.2.840.113549.2.5"
	oidSHA1   = "1.3.14.3.2.26"
	oidSHA256 = "2.16.840.1.101.3.4.2.1"
	oidSHA384 = "2.16.840.1.101.3.4.2.2"
	oidSHA512 = "2.16.840.1.101.3.4.2.3"

	oidMD5WithRSA    = "1.2.840.113549.1.1.4"
	oidSHA1WithRSA   = "1.2.840.113549.1.1.5"
	oidSHA256WithRSA = "1.2.840.113549.1.1.11"
	oidSHA384WithRSA = "1.2.840.113549.1.1.12"
	oidSHA512WithRSA = "1.2.840.113549.1.1.13"

	oidECDSAWithSHA256 = "1.2.840.10045.4.3.2"
	oidECDSAWithSHA384 = "1.2.840.10045.4.3.3"
	oidECDSAWithSHA512 = "1.2.840.10045.4.3.4"

	oidDESCBC    = "1.3.14.3.2.7"
	oidDES3CBC   = "1.2.840.113549.3.7"
	oidAES128CBC = "2.16.840.1.101.3.4.1.2"
	oidAES256CBC = "2.16.840.1.101.3.4.1.42"
)

// digestAlgorithm is a digest that can be verified here. Which of them is
// good enough is the gate's to say; md5 is among them so that its refusal can
// be a signed one.
type digestAlgorithm struct {
	name    string // as Message.Digest
	oid     string
	withRSA string // OID of <digest>WithRSAEncryption
	hash    crypto.Hash
	new     func() hash.Hash // called directly: what is linked in is not left to a registry
}

var digestAlgorithms = []digestAlgorithm{
	{"md5", oidMD5, oidMD5WithRSA, crypto.MD5, md5.New},
	{"sha1", oidSHA1, oidSHA1WithRSA, crypto.SHA1, sha1.New},
	{"sha256", oidSHA256, oidSHA256WithRSA, crypto.SHA256, sha256.New},
	{"sha384", oidSHA384, oidSHA384WithRSA, crypto.SHA384, sha512.New384},
	{"sha512", oidSHA512, oidSHA512WithRSA, crypto.SHA512, sha512.New},
}

// sum hashes data.
func (d *digestAlgorithm) sum(data []byte) []byte {
	h := d.new()
	h.Write(data)
	return h.Sum(nil)
}

// digestByOID finds a digest by its own identifier, nil if unknown.
func digestByOID(oid string) *digestAlgorithm {
	for i := range digestAlgorithms {
		if digestAlgorithms[i].oid == oid {
			return &digestAlgorithms[i]
		}
	}
	return nil
}

// digestByRSASignature finds the digest of <digest>WithRSAEncryption, nil if
// the identifier is none of these.
func digestByRSASignature(oid string) *digestAlgorithm {
	for i := range digestAlgorithms {
		if digestAlgorithms[i].withRSA == oid {
			return &digestAlgorithms[i]
		}
	}
	return nil
}

// algorithm reads an AlgorithmIdentifier; parameters is nil where absent.
func (n *node) algorithm() (oid string, parameters *node, err error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return "", nil, err
	}
	if len(n.children) < 1 || len(n.children) > 2 {
		return "", nil, errors.New("algorithm identifier malformed")
	}
	if oid, err = n.children[0].oid(); err != nil {
		return "", nil, err
	}
	if len(n.children) == 2 {
		parameters = n.children[1]
	}
	return oid, parameters, nil
}

// algorithmNull reads an AlgorithmIdentifier whose parameters are NULL or
// absent, as all digests and PKCS#1 v1.5 algorithms have them. threat C18
func (n *node) algorithmNull() (string, error) {
	oid, parameters, err := n.algorithm()
	if err != nil || parameters == nil {
		return oid, err
	}
	if err := parameters.null(); err != nil {
		return "", fmt.Errorf("parameters of %s: %w", oid, err)
	}
	return oid, nil
}

// Bounds of every RSA key that is used for verifying, checked before: what a
// verification costs is decided by whoever chose the key. threats C19, E10
const (
	minRSABits = 1024
	maxRSABits = 8192
)

var (
	minRSAExponent = big.NewInt(65537)
	maxRSAExponent = big.NewInt(1<<31 - 1)
)

// errNotRSA is the refusal of a key of another type.
var errNotRSA = errors.New("public key is not RSA")

// parseRSAKey reads a SubjectPublicKeyInfo that must hold an RSA key within
// the bounds (RFC 3279 §2.3.1).
func parseRSAKey(spki *node) (*rsa.PublicKey, error) {
	if err := spki.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	if len(spki.children) != 2 {
		return nil, errors.New("public key info malformed")
	}
	oid, parameters, err := spki.children[0].algorithm()
	if err != nil {
		return nil, err
	}
	if oid != oidRSAEncryption {
		return nil, errNotRSA
	}
	if parameters == nil {
		return nil, errors.New("public key without parameters")
	}
	if err := parameters.null(); err != nil {
		return nil, err
	}
	der, err := spki.children[1].wholeOctets()
	if err != nil {
		return nil, err
	}
	key, err := walk(der, modeDER)
	if err != nil {
		return nil, err
	}
	if err := key.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	if len(key.children) != 2 {
		return nil, errors.New("RSA public key malformed")
	}
	n, err := key.children[0].integer()
	if err != nil {
		return nil, err
	}
	e, err := key.children[1].integer()
	if err != nil {
		return nil, err
	}
	if err := checkRSAKey(n, e); err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// checkRSAKey applies the bounds.
func checkRSAKey(n, e *big.Int) error {
	switch bits := n.BitLen(); {
	case n.Sign() <= 0:
		return errors.New("RSA modulus is not positive")
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("RSA modulus of %d bits", bits)
	case n.Bit(0) == 0:
		return errors.New("RSA modulus is even")
	case e.Cmp(minRSAExponent) < 0 || e.Cmp(maxRSAExponent) > 0 || e.Bit(0) == 0:
		return errors.New("RSA exponent out of bounds")
	}
	return nil
}

// verifyRSA checks a PKCS#1 v1.5 signature over message. The key is within the
// bounds.
func verifyRSA(key *rsa.PublicKey, d *digestAlgorithm, message, signature []byte) error {
	return rsa.VerifyPKCS1v15(key, d.hash, d.sum(message), signature)
}
