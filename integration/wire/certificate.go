package wire

import (
	"crypto"
	"crypto/rsa"
	"time"
)

// defaultDigest is what signs where nothing else is told.
const defaultDigest = crypto.SHA256

// RawCertificate is a self-signed certificate in pieces (RFC 5280 §4.1), for
// what x509.CreateCertificate will not make. A nil piece is written as an
// honest device writes it.
type RawCertificate struct {
	Key *rsa.PrivateKey

	Version        []byte // [0] with the INTEGER; empty: version 1
	Serial         []byte // INTEGER; default 1
	InnerAlgorithm []byte
	Issuer         []byte // Name; default: Subject
	Validity       []byte // default: from an hour ago for a day
	Subject        []byte // Name; default: one CN
	SPKI           []byte // default: Key's
	Extensions     [][]byte
	OuterAlgorithm []byte
	Sign           func(tbs []byte) []byte
	Tail           []byte // inside of Certificate, at its end
}

func (c *RawCertificate) names() (serial, issuer, subject []byte) {
	subject = or(c.Subject, CommonName("SCEP Protocol Certificate"))
	return or(c.Serial, Int(1)), or(c.Issuer, subject), subject
}

// ID is the issuerAndSerialNumber that names the certificate.
func (c *RawCertificate) ID() []byte {
	serial, issuer, _ := c.names()
	return Sequence(issuer, serial)
}

// Bytes is the certificate.
func (c *RawCertificate) Bytes() []byte {
	serial, issuer, subject := c.names()
	algorithm := Algorithm(OIDSHA256WithRSA)
	var extensions []byte
	if len(c.Extensions) > 0 {
		extensions = Explicit(3, Sequence(c.Extensions...))
	}
	now := time.Now()
	tbs := Sequence(
		or(c.Version, Explicit(0, Int(2))),
		serial,
		or(c.InnerAlgorithm, algorithm),
		issuer,
		or(c.Validity, Sequence(UTCTime(now.Add(-time.Hour)), UTCTime(now.Add(24*time.Hour)))),
		subject,
		or(c.SPKI, PublicKey(&c.Key.PublicKey)),
		extensions,
	)
	sign := c.Sign
	if sign == nil {
		sign = func(tbs []byte) []byte { return SignRSA(c.Key, defaultDigest, tbs) }
	}
	return Sequence(tbs, or(c.OuterAlgorithm, algorithm), Bits(sign(tbs)), c.Tail)
}

// UTCTime is a time as certificates before 2050 write it.
func UTCTime(t time.Time) []byte { return TLV(0x17, []byte(t.UTC().Format("060102150405Z"))) }
