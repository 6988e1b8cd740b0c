package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/md5" // for crypto.MD5
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"

	"github.com/scepgate/scepgate/integration/wire"
)

func signPSS(key *rsa.PrivateKey, message []byte) []byte {
	sum := sha256.Sum256(message)
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 32})
	if err != nil {
		panic(err)
	}
	return signature
}

// rsaKey is an SPKI of any two numbers.
func rsaKey(n, e *big.Int) []byte {
	return wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption), wire.Bits(wire.Sequence(wire.BigInt(n), wire.BigInt(e))))
}

// modulus is an odd number of so many bits. It is nobody's key: what must be
// refused for its size is refused before anybody could notice.
func modulus(bits int) *big.Int {
	n := new(big.Int).SetBytes(wire.Random((bits + 7) / 8))
	n.SetBit(n.Rsh(n, uint((8-bits%8)%8)), bits-1, 1)
	return n.SetBit(n, 0, 1)
}

var f4 = big.NewInt(65537)

// curvePoint is an SPKI on a curve that has no more than a name here.
func curvePoint(parameters []byte, point ...byte) []byte {
	return wire.Sequence(wire.Sequence(wire.OID("1.2.840.10045.2.1"), parameters), wire.Bits(point))
}

// uncompressed is the encoding of some point of so many octets a coordinate.
func uncompressed(octets int) []byte { return append([]byte{4}, wire.Random(2*octets)...) }

// rowsRequestKey: C19 and C20. The contract has RSA only: a CertRep cannot be
// enveloped to another key, so curves that the catalogue allows are refused too.
func rowsRequestKey() []vector {
	refused := vector{row: "C19", want: rej, reason: "key_refused"}
	var all []vector
	for _, bits := range []int{512, 1023, 1024, 2047, 8193, 16384, 65536} {
		all = append(all, table(refused, csr, []changed[wire.Request]{{fmt.Sprintf("RSA modulus of %d bits", bits), func(t *try, r *wire.Request) {
			if bits == 1024 || bits == 2047 { // whole, with signatures that verify
				key, err := rsa.GenerateKey(rand.Reader, bits)
				if err != nil {
					panic(err)
				}
				t.M.SignedData.Signer.Key, t.M.SignedData.Signer.Certificate = key, wire.SelfSigned("SCEP Protocol Certificate", key)
				r.Key = key
				return
			}
			r.SPKI = rsaKey(modulus(bits), f4)
		}}})...)
	}
	two64 := new(big.Int).Lsh(big.NewInt(1), 64)
	for _, e := range []struct {
		name string
		e    *big.Int
	}{
		{"1", big.NewInt(1)}, {"2", big.NewInt(2)}, {"3", big.NewInt(3)}, {"65535", big.NewInt(65535)}, {"65538", big.NewInt(65538)},
		{"2³¹+1", big.NewInt(1<<31 + 1)}, {"2⁶⁴+1", two64.Add(two64, big.NewInt(1))}, {"−65537", big.NewInt(-65537)}, {"0", big.NewInt(0)},
	} {
		all = append(all, table(refused, csr, []changed[wire.Request]{
			{"RSA exponent " + e.name, func(_ *try, r *wire.Request) { r.SPKI = rsaKey(r.Key.N, e.e) }},
		})...)
	}
	number := func(change func(n *big.Int) *big.Int) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.SPKI = rsaKey(change(new(big.Int).Set(r.Key.N)), f4) }
	}
	all = append(all, table(refused, csr, []changed[wire.Request]{
		{"RSA modulus even", number(func(n *big.Int) *big.Int { return n.SetBit(n, 0, 0) })},
		{"RSA modulus negative", number(func(n *big.Int) *big.Int { return n.Neg(n) })},
		{"RSA modulus zero", number(func(*big.Int) *big.Int { return new(big.Int) })},
		{"RSA modulus with a leading zero octet", func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption),
				wire.Bits(wire.Sequence(wire.TLV(2, []byte{0, 0}, r.Key.N.Bytes()), wire.BigInt(f4))))
		}},
		{"RSA key with a third number", func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption),
				wire.Bits(wire.Sequence(wire.BigInt(r.Key.N), wire.BigInt(f4), wire.Int(1))))
		}},
		{"RSA key with octets behind it", func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption),
				wire.Bits(append(wire.Sequence(wire.BigInt(r.Key.N), wire.BigInt(f4)), 0)))
		}},
	})...)
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		all = append(all, table(refused, csr, []changed[wire.Request]{{"key on " + curve.Params().Name, func(_ *try, r *wire.Request) {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				panic(err)
			}
			r.SPKI, r.SignatureAlgorithm = wire.PublicKey(&key.PublicKey), wire.Sequence(wire.OID("1.2.840.10045.4.3.2"))
			r.Sign = func(info []byte) []byte {
				sum := sha256.Sum256(info)
				signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
				if err != nil {
					panic(err)
				}
				return signature
			}
		}}})...)
	}
	spki := func(der []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.SPKI = der }
	}
	prime256v1 := wire.OID("1.2.840.10045.3.1.7")
	explicit := wire.Sequence(wire.Int(1), wire.Sequence(wire.OID("1.2.840.10045.1.1"), wire.BigInt(modulus(256))),
		wire.Sequence(wire.Octets(wire.Random(32)), wire.Octets(wire.Random(32))), wire.Octets(uncompressed(32)), wire.BigInt(modulus(256)))
	seed := make([]byte, ed25519.SeedSize)
	all = append(all, table(refused, csr, []changed[wire.Request]{
		{"key on P-192", spki(curvePoint(wire.OID("1.2.840.10045.3.1.1"), uncompressed(24)...))},
		{"key on brainpoolP256r1", spki(curvePoint(wire.OID("1.3.36.3.3.2.8.1.1.7"), uncompressed(32)...))},
		{"key on secp256k1", spki(curvePoint(wire.OID("1.3.132.0.10"), uncompressed(32)...))},
		{"key on a curve of explicit parameters", spki(curvePoint(explicit, uncompressed(32)...))},
		{"key on P-256, compressed", spki(curvePoint(prime256v1, append([]byte{2}, wire.Random(32)...)...))},
		{"key on P-256, the point at infinity", spki(curvePoint(prime256v1, 0))},
		{"key on a curve of implicit parameters", spki(curvePoint(wire.Null(), uncompressed(32)...))},
		{"Ed25519 key", spki(wire.PublicKey(ed25519.NewKeyFromSeed(seed).Public()))},
		{"Ed448 key", spki(wire.Sequence(wire.Sequence(wire.OID("1.3.101.113")), wire.Bits(wire.Random(57))))},
		{"X25519 key", spki(wire.Sequence(wire.Sequence(wire.OID("1.3.101.110")), wire.Bits(wire.Random(32))))},
		{"DSA key", spki(wire.Sequence(wire.Sequence(wire.OID("1.2.840.10040.4.1"),
			wire.Sequence(wire.BigInt(modulus(1024)), wire.BigInt(modulus(160)), wire.Int(2))), wire.Bits(wire.BigInt(modulus(1024)))))},
	})...)

	// What the catalogue calls optional, lists of weak and published keys, the
	// contract does not have. A device's key may serve it again: it enrols anew
	// with the key that it has.
	return append(all,
		vector{row: "C20", variant: "the RA's own key asks for a certificate", want: rej, act: func(t *try) {
			d := &device{t.NDES.ExchangeKey(), wire.SelfSigned("SCEP Protocol Certificate", t.NDES.ExchangeKey())}
			t.turnedAway(t.message(d).Bytes(), "key_refused")
		}},
		vector{row: "C20", variant: "the RA's own key signs a device's request", want: rej, act: func(t *try) {
			t.M.SignedData.Signer.Key = t.NDES.ExchangeKey()
			t.M.SignedData.Signer.Certificate = wire.SelfSigned("SCEP Protocol Certificate", t.NDES.ExchangeKey())
			t.turnedAway(t.M.Bytes(), "key_refused")
		}},
	)
}
