// Package floods sends the gateway more than it can use: deep nesting, many
// elements, dear keys, long names, slow, endless and compressed bodies, idle
// connections. Beside each flood an honest device must still enrol, GetCACaps
// and GetCACert must still be answered, and memory must stay bounded.
//
// The messages are the dearest that the limits leave room for.
package floods

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"

	"github.com/scepgate/scepgate/integration/wire"
)

// limit is max_message.
const limit = 64 << 10

// flood is one kind of message.
type flood struct {
	name string
	body []byte
}

// messages are built once: a flood repeats itself.
func messages(key *rsa.PrivateKey, selfSigned []byte, ra *x509.Certificate) []flood {
	honest := func() *wire.Message { return wire.New(key, selfSigned, ra, "flood", "no-such-challenge") }

	dear := honest()
	modulus := dearModulus()
	certificate := certificateFor(modulus, 1<<31-1)
	dear.SignedData.Certificates = [][]byte{certificate}
	dear.SignedData.Signer.ID = wire.Sequence(wire.CommonName("flood"), wire.Int(1))
	dear.SignedData.Signer.Sign = func([]byte) []byte { return modulus.Bytes()[:len(modulus.Bytes())-1] }

	huge := honest()
	huge.SignedData.Certificates = [][]byte{certificateFor(new(big.Int).SetBit(new(big.Int).Lsh(modulus, 32768), 0, 1), 65537)}
	huge.SignedData.Signer.ID = wire.Sequence(wire.CommonName("flood"), wire.Int(1))

	rdns := honest()
	rdns.Request.Subject = wire.Name(many(2000, wire.RDN(wire.ATV(wire.OIDOrgUnit, wire.UTF8("x"))))...)

	sans := honest()
	sans.Request.Extend(wire.SAN(many(4000, wire.DNS("a.example"))...))

	recipients := honest()
	recipients.Envelope.Recipients = many(100, recipients.Envelope.RecipientInfo(wire.Recipient{}))

	attributes := honest()
	attributes.SignedData.Signer.Attributes = many(1000, wire.Attribute("1.2.3.4.5", wire.Null()))

	return []flood{
		{"nesting of indefinite lengths", bytes.Repeat([]byte{0x30, 0x80}, limit/2)},
		{"nesting of definite lengths", nested()},
		{"tiny elements in an indefinite sequence", append(append([]byte{0x30, 0x80}, bytes.Repeat([]byte{5, 0}, limit/2-2)...), 0, 0)},
		{"tiny elements in a sequence", wire.Sequence(bytes.Repeat([]byte{2, 1, 1}, limit/3-2))},
		{"one string of the largest size", wire.Octets(make([]byte, limit-8))},
		{"signer with RSA-8192 and the largest exponent", dear.Bytes()},
		{"signer with RSA-40960", huge.Bytes()},
		{"1,000 signed attributes", attributes.Bytes()},
		{"100 recipients", recipients.Bytes()},
		{"2,000 RDNs", rdns.Bytes()},
		{"4,000 SAN entries", sans.Bytes()},
		{"well-formed, unknown challenge", honest().Bytes()},
	}
}

func many(n int, element []byte) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = element
	}
	return list
}

// nested is as many sequences within each other as fit.
func nested() []byte {
	b := wire.Null()
	for len(b) < limit-8 {
		b = wire.Sequence(b)
	}
	return b
}

// dearModulus is odd, of 8192 bits, and nobody's: a verification under it costs
// what one under a real key costs.
func dearModulus() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 8191))
	if err != nil {
		panic(err)
	}
	return n.SetBit(n.SetBit(n, 8191, 1), 0, 1)
}

// certificateFor is a certificate with a public key that nobody has the private
// key of; its signature is as long as a real one.
func certificateFor(n *big.Int, e int64) []byte {
	spki := wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption), wire.Bits(wire.Sequence(wire.BigInt(n), wire.Int(e))))
	tbs := wire.Sequence(
		wire.Explicit(0, wire.Int(2)), wire.Int(1), wire.Algorithm(wire.OIDSHA256WithRSA),
		wire.CommonName("flood"),
		wire.Sequence(wire.TLV(0x17, []byte("200101000000Z")), wire.TLV(0x17, []byte("400101000000Z"))),
		wire.CommonName("flood"), spki,
	)
	signature := append([]byte{0}, n.Bytes()[1:]...)
	return wire.Sequence(tbs, wire.Algorithm(wire.OIDSHA256WithRSA), wire.Bits(signature))
}
