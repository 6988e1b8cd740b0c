package inspector

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CSRParams describes a PKCS#10 to build. Zero fields are left out.
type CSRParams struct {
	Version     int   // 0 is right; Apple sends 2
	Subject     []RDN // types as dotted OIDs; Tag 0 chooses the string type
	SAN         []GeneralName
	SID         string // extension 1.3.6.1.4.1.311.25.2
	KeyUsage    KeyUsage
	ExtKeyUsage []string // dotted OIDs
	Challenge   string
	Digest      string // as Message.Digest; default sha256

	ExtraExtensions     []pkix.Extension
	ExtraAttributes     [][]byte // each a whole Attribute, DER
	MicrosoftExtensions bool     // extensions under 1.3.6.1.4.1.311.2.1.14
}

// BuildCSR makes and signs a PKCS#10 in DER. It writes what it is told to,
// also what ParseCSR refuses.
func BuildCSR(p CSRParams, key *rsa.PrivateKey) ([]byte, error) {
	digest, err := digestNamed(p.Digest)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	attributes, err := p.attributes()
	if err != nil {
		return nil, err
	}
	var info cryptobyte.Builder
	info.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(p.Version))
		addName(b, p.Subject)
		b.AddBytes(spki)
		b.AddASN1(explicit(0), addAll(sortSetOf(attributes)))
	})
	tbs, err := info.Bytes()
	if err != nil {
		return nil, fmt.Errorf("request info: %w", err)
	}
	signature, err := rsa.SignPKCS1v15(nil, key, digest.hash, digest.sum(tbs))
	if err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addAlgorithm(b, digest.withRSA)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

func (p *CSRParams) attributes() ([][]byte, error) {
	attributes := append([][]byte(nil), p.ExtraAttributes...)
	if p.Challenge != "" {
		tag := cbasn1.PrintableString
		if !isPrintable([]byte(p.Challenge)) {
			tag = cbasn1.UTF8String
		}
		attribute, err := composeAttribute(oidChallengePassword, func(b *cryptobyte.Builder) { addString(b, tag, p.Challenge) })
		if err != nil {
			return nil, fmt.Errorf("challenge attribute: %w", err)
		}
		attributes = append(attributes, attribute)
	}
	extensions, err := p.extensions()
	if err != nil {
		return nil, err
	}
	if len(extensions) > 0 {
		oid := oidExtensionRequest
		if p.MicrosoftExtensions {
			oid = oidMSCertExtensions
		}
		attribute, err := composeAttribute(oid, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, addAll(extensions)) })
		if err != nil {
			return nil, fmt.Errorf("extension attribute: %w", err)
		}
		attributes = append(attributes, attribute)
	}
	return attributes, nil
}

func (p *CSRParams) extensions() ([][]byte, error) {
	var extensions [][]byte
	add := func(oid string, critical bool, value func(b *cryptobyte.Builder)) error {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addOID(b, oid)
			if critical {
				b.AddASN1Boolean(true)
			}
			b.AddASN1(cbasn1.OCTET_STRING, value)
		})
		der, err := b.Bytes()
		if err != nil {
			return fmt.Errorf("extension %s: %w", oid, err)
		}
		extensions = append(extensions, der)
		return nil
	}
	var err error
	if p.KeyUsage != 0 {
		err = errors.Join(err, add(oidKeyUsage, true, func(b *cryptobyte.Builder) { addKeyUsage(b, p.KeyUsage) }))
	}
	if len(p.ExtKeyUsage) > 0 {
		err = errors.Join(err, add(oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, oid := range p.ExtKeyUsage {
					addOID(b, oid)
				}
			})
		}))
	}
	if len(p.SAN) > 0 {
		err = errors.Join(err, add(oidSubjectAltName, false, func(b *cryptobyte.Builder) { addGeneralNames(b, p.SAN) }))
	}
	if p.SID != "" {
		err = errors.Join(err, add(oidMSSID, false, func(b *cryptobyte.Builder) { addSID(b, p.SID) }))
	}
	for _, extra := range p.ExtraExtensions {
		err = errors.Join(err, add(extra.Id.String(), extra.Critical, func(b *cryptobyte.Builder) { b.AddBytes(extra.Value) }))
	}
	return extensions, err
}

// addKeyUsage writes the NamedBitList in its DER form.
func addKeyUsage(b *cryptobyte.Builder, usage KeyUsage) {
	octets := []byte{bits.Reverse8(uint8(usage))}
	if usage&(1<<8) != 0 {
		octets = append(octets, 0x80)
	}
	unused := bits.TrailingZeros8(octets[len(octets)-1])
	b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(unused))
		b.AddBytes(octets)
	})
}

func addSID(b *cryptobyte.Builder, sid string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			addOID(b, oidMSSIDValue)
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString([]byte(sid)) })
		})
	})
}

// digestNamed finds a digest; "" is sha256.
func digestNamed(name string) (*digestAlgorithm, error) {
	if name == "" {
		name = "sha256"
	}
	for i := range digestAlgorithms {
		if digestAlgorithms[i].name == name {
			return &digestAlgorithms[i], nil
		}
	}
	return nil, fmt.Errorf("digest %q is not known", name)
}
