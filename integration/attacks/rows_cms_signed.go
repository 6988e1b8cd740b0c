package main

import (
	"bytes"
	"crypto"
	"crypto/sha256"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSignedContent: C74 and C75, what is signed.
func rowsSignedContent() []vector {
	element := func(write func(content []byte) []byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) { d.Content = write(t.settleContent()) }
	}
	all := table(unanswerable("C74"), signed, []changed[wire.SignedData]{
		{"eContent UTF8String 0C 01 78", element(func([]byte) []byte { return wire.UTF8("x") })},
		{"eContent UTF8String around the envelope", element(func(c []byte) []byte { return wire.TLV(0x0c, c) })},
		{"eContent BIT STRING around the envelope", element(wire.Bits)},
		{"eContent is the envelope's SEQUENCE itself, as in PKCS #7 1.5", func(t *try, d *wire.SignedData) {
			d.Content = t.settleContent()
			sum := sha256.Sum256(wire.Value(d.Content)) // as there: without tag and length
			d.Signer.Replace(wire.OIDMessageDigest, wire.Attribute(wire.OIDMessageDigest, wire.Octets(sum[:])))
		}},
		{"eContent primitive, tag 80", func(t *try, d *wire.SignedData) { d.ContentField = wire.Implicit(0, t.settleContent()) }},
		{"two eContents, the first honest", element(func(c []byte) []byte { return append(wire.Octets(c), wire.Octets([]byte("x"))...) })},
		{"eContent in pieces that are in pieces", element(func(c []byte) []byte {
			return wire.TLV(0x24, wire.TLV(0x24, wire.Octets(c[:100]), wire.Octets(c[100:])))
		})},
		{"eContent in pieces, one of them a UTF8String", element(func(c []byte) []byte {
			return wire.TLV(0x24, wire.TLV(0x0c, c[:100]), wire.Octets(c[100:]))
		})},
		{"eContent in pieces, with a NULL between", element(func(c []byte) []byte {
			return wire.TLV(0x24, wire.Octets(c[:100]), wire.Null(), wire.Octets(c[100:]))
		})},
	})
	all = append(all, vector{row: "C74", variant: "eContent in two pieces, as Apple sends it", want: forwarded, reason: "ok",
		message: signed(element(func(c []byte) []byte { return wire.TLV(0x24, wire.Octets(c[:100]), wire.Octets(c[100:])) }))})

	all = append(all, table(unanswerable("C75"), signed, []changed[wire.SignedData]{
		{"no eContent, a digest of the envelope", func(_ *try, d *wire.SignedData) { d.ContentField = []byte{} }},
		{"no eContent, a digest of nothing", func(t *try, d *wire.SignedData) { t.M.Content, d.ContentField = []byte{}, []byte{} }},
		{"[0] without eContent", func(_ *try, d *wire.SignedData) { d.ContentField = wire.Explicit(0) }},
		{"the envelope behind the message", func(t *try, d *wire.SignedData) { d.After, d.ContentField = t.settleContent(), []byte{} }},
	})...)
	return append(all, vector{row: "C75", variant: "eContent of no octets, a digest of nothing", want: rej, reason: "malformed_message",
		message: func(t *try) { t.M.Content = []byte{} }})
}

// rowsDigests: C76 and C77. Contract over catalogue: SHA-1 passes by default,
// Windows and others sign with it.
func rowsDigests() []vector {
	digest := func(h crypto.Hash) func(*try, *wire.SignedData) {
		return func(_ *try, d *wire.SignedData) { d.Signer.Digest = h }
	}
	named := func(h crypto.Hash, algorithm []byte) func(*try, *wire.SignedData) {
		return func(_ *try, d *wire.SignedData) { d.Signer.Digest, d.Signer.SignatureAlgorithm = h, algorithm }
	}
	all := table(vector{row: "C76", want: forwarded, reason: "ok"}, signed, []changed[wire.SignedData]{
		{"SHA-1", digest(crypto.SHA1)}, {"SHA-384", digest(crypto.SHA384)}, {"SHA-512", digest(crypto.SHA512)},
		{"SHA-256 with sha256WithRSA", named(crypto.SHA256, wire.Algorithm(wire.OIDSHA256WithRSA))},
	})
	all = append(all, vector{row: "C76", variant: "MD5", want: rej, reason: "algorithm_refused", message: signed(digest(crypto.MD5))})
	unanswered := unanswerable("C76")
	unanswered.reason = "algorithm_refused"
	all = append(all, table(unanswered, signed, []changed[wire.SignedData]{
		{"digest SHA-1, signature sha512WithRSA", named(crypto.SHA1, wire.Algorithm(wire.OIDSHA512WithRSA))},
		{"digest SHA-1, signature sha256WithRSA", named(crypto.SHA1, wire.Algorithm(wire.OIDSHA256WithRSA))},
		{"digest SHA-256, signature sha1WithRSA", named(crypto.SHA256, wire.Algorithm(wire.OIDSHA1WithRSA))},
		{"digest SHA-256, signature by PSS", func(_ *try, d *wire.SignedData) {
			key := d.Signer.Key
			d.Signer.SignatureAlgorithm = wire.Sequence(wire.OID(wire.OIDRSASSAPSS), wire.Sequence())
			d.Signer.Sign = func(b []byte) []byte { return signPSS(key, b) }
		}},
		{"digest SHA-256, signature by ECDSA", named(crypto.SHA256, wire.Sequence(wire.OID("1.2.840.10045.4.3.2")))},
		{"digest SHA-256, signature algorithm that nobody knows", named(crypto.SHA256, wire.Algorithm("1.3.6.1.4.1.99999.9"))},
		{"digest SHA-224", func(_ *try, d *wire.SignedData) {
			sha224 := wire.Algorithm("2.16.840.1.101.3.4.2.4")
			d.Signer.DigestAlgorithm, d.DigestAlgorithms = sha224, wire.Set(sha224)
		}},
		{"digest SHA-256 with an INTEGER", func(_ *try, d *wire.SignedData) {
			d.Signer.DigestAlgorithm = wire.Algorithm(wire.OIDSHA256, wire.Int(1))
		}},
		{"rsaEncryption with an INTEGER", named(crypto.SHA256, wire.Algorithm(wire.OIDRSAEncryption, wire.Int(1)))},
	})...)
	listed := func(h crypto.Hash, oids ...string) func(*try, *wire.SignedData) {
		return func(_ *try, d *wire.SignedData) {
			var list [][]byte
			for _, oid := range oids {
				list = append(list, wire.Algorithm(oid))
			}
			d.Signer.Digest, d.DigestAlgorithms = h, wire.Set(bytes.Join(list, nil))
		}
	}
	unanswered.row = "C77"
	all = append(all, table(unanswered, signed, []changed[wire.SignedData]{
		{"SHA-256 listed, SHA-1 used", listed(crypto.SHA1, wire.OIDSHA256)},
		{"SHA-1 listed, SHA-256 used", listed(crypto.SHA256, wire.OIDSHA1)},
		{"SHA-256 and SHA-1 listed, SHA-1 used", listed(crypto.SHA1, wire.OIDSHA256, wire.OIDSHA1)},
		{"SHA-1 and SHA-256 listed, SHA-256 used", listed(crypto.SHA256, wire.OIDSHA1, wire.OIDSHA256)},
		{"nothing listed", listed(crypto.SHA256)},
		{"SHA-256 listed twice", listed(crypto.SHA256, wire.OIDSHA256, wire.OIDSHA256)},
	})...)
	return append(all, table(unanswerable("C77"), signed, []changed[wire.SignedData]{
		{"digests listed in a SEQUENCE", func(_ *try, d *wire.SignedData) {
			d.DigestAlgorithms = wire.Sequence(wire.Algorithm(wire.OIDSHA256))
		}},
		{"no list of digests", func(_ *try, d *wire.SignedData) { d.DigestAlgorithms = []byte{} }},
	})...)
}
