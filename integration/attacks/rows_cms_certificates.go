package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"time"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSignerCertificates: C65 and C67, the certificates of the message.
func rowsSignerCertificates() []vector {
	// alike are two self-signed certificates of one issuer and serial number.
	alike := func(t *try) (own, decoy []byte) {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "SCEP Protocol Certificate"}, SerialNumber: big.NewInt(7)}
		return wire.Certificate(template, t.Device.Key, nil, nil), wire.Certificate(template, t.other().Key, nil, nil)
	}
	with := func(order func(own, decoy []byte) [][]byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			own, decoy := alike(t)
			d.Signer.Certificate, d.Certificates = own, order(own, decoy)
		}
	}
	all := table(unanswerable("C65"), signed, []changed[wire.SignedData]{
		{"two certificates of one issuer and serial number: the signer's first", with(func(own, decoy []byte) [][]byte { return [][]byte{own, decoy} })},
		{"two certificates of one issuer and serial number: the signer's last", with(func(own, decoy []byte) [][]byte { return [][]byte{decoy, own} })},
		{"the signer's certificate twice", with(func(own, _ []byte) [][]byte { return [][]byte{own, own} })},
		{"a signer that names no certificate of the message", func(t *try, d *wire.SignedData) { d.Certificates = [][]byte{t.other().SelfSigned} }},
	})
	decoyed := unanswerable("C65")
	decoyed.reason = "bad_signature"
	all = append(all, table(decoyed, signed, []changed[wire.SignedData]{
		{"the certificate of another key, of the signer's issuer and serial number", with(func(_, decoy []byte) [][]byte { return [][]byte{decoy} })},
	})...)
	inNameOf := func(name func(t *try) []byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			own := wire.RawCertificate{Key: t.Device.Key, Subject: name(t)}
			d.Certificates, d.Signer.ID = [][]byte{own.Bytes()}, own.ID()
		}
	}
	all = append(all, table(vector{row: "C65", want: rej, reason: "renewal_signer_untrusted"}, signed, []changed[wire.SignedData]{
		{"self-signed in the CA's name", inNameOf(func(t *try) []byte { return t.RA.RawIssuer })},
		{"the device's name, the CA's as issuer, signed by the device", func(t *try, d *wire.SignedData) {
			own := wire.RawCertificate{Key: t.Device.Key, Subject: wire.CommonName(t.CN), Issuer: t.RA.RawIssuer}
			d.Certificates, d.Signer.ID = [][]byte{own.Bytes()}, own.ID()
		}},
		{"the device's name, the CA's as issuer, signed by a stranger", func(t *try, d *wire.SignedData) {
			own := wire.RawCertificate{Key: t.Device.Key, Subject: wire.CommonName(t.CN), Issuer: t.RA.RawIssuer,
				Sign: func(tbs []byte) []byte { return wire.SignRSA(t.other().Key, crypto.SHA256, tbs) }}
			d.Certificates, d.Signer.ID = [][]byte{own.Bytes()}, own.ID()
		}},
	})...)

	more := func(certificates func(t *try) [][]byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			d.Certificates = append([][]byte{t.Device.SelfSigned}, certificates(t)...)
		}
	}
	one := func(certificate func(t *try) []byte) func(*try, *wire.SignedData) {
		return more(func(t *try) [][]byte { return [][]byte{certificate(t)} })
	}
	// An answer can be made for these, so they are refused.
	all = append(all, table(vector{row: "C67", want: rej, reason: "malformed_message", finding: "certificates"}, signed, []changed[wire.SignedData]{
		{"a second self-signed certificate", one(func(t *try) []byte { return t.other().SelfSigned })},
		{"the RA certificate beside the signer's", one(func(t *try) []byte { return t.RA.Raw })},
		{"a foreign CA certificate beside the signer's", one(func(t *try) []byte {
			return wire.Certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "Another CA"}, IsCA: true, BasicConstraintsValid: true}, t.other().Key, nil, nil)
		})},
	})...)
	many := func(n int) func(t *try) [][]byte {
		return func(t *try) (list [][]byte) {
			for i := range n {
				small := wire.RawCertificate{Key: t.other().Key, Serial: wire.Int(int64(i + 1))}
				list = append(list, small.Bytes())
			}
			return list
		}
	}
	all = append(all, table(unanswerable("C67"), signed, []changed[wire.SignedData]{
		{"five certificates", more(many(4))},
		{"61 certificates", more(many(60))},
		{"no certificate", func(_ *try, d *wire.SignedData) { d.Certificates = [][]byte{} }},
		{"no field of certificates", func(_ *try, d *wire.SignedData) { d.CertificatesField = []byte{} }},
		{"a field of certificates that is primitive", func(t *try, d *wire.SignedData) { d.CertificatesField = wire.Implicit(0, t.Device.SelfSigned) }},
		{"an attribute certificate [2] beside the signer's", one(func(*try) []byte { return wire.Explicit(2, wire.Sequence(wire.Int(1))) })},
		{"an extended certificate [0] beside the signer's", one(func(t *try) []byte { return wire.Explicit(0, wire.Value(t.Device.SelfSigned)) })},
		{"an INTEGER beside the signer's certificate", one(func(*try) []byte { return wire.Int(1) })},
		{"a CRL", func(t *try, d *wire.SignedData) {
			tbs := wire.Sequence(wire.Int(1), wire.Algorithm(wire.OIDSHA256WithRSA), wire.CommonName("Another CA"), wire.UTCTime(time.Now()))
			d.CRLs = wire.Explicit(1, wire.Sequence(tbs, wire.Algorithm(wire.OIDSHA256WithRSA), wire.Bits(wire.SignRSA(t.other().Key, crypto.SHA256, tbs))))
		}},
	})...)
	return append(all, vector{row: "C67", variant: "100 certificates of 790 octets", want: pre, status: http.StatusRequestEntityTooLarge, reason: "malformed_message",
		message: signed(more(func(t *try) [][]byte {
			var list [][]byte
			for range 100 {
				list = append(list, t.other().SelfSigned)
			}
			return list
		}))})
}

// rowsOddCertificates: C79, signer certificates that devices make of themselves.
func rowsOddCertificates() []vector {
	keyID := wire.Sequence(wire.Implicit(0, wire.Random(20)))
	hour := func(from, to int) []byte {
		at := func(h int) []byte { return wire.UTCTime(time.Now().Add(time.Duration(h) * time.Hour)) }
		return wire.Sequence(at(from), at(to))
	}
	var all []vector
	for _, c := range []struct {
		variant string
		change  func(c *wire.RawCertificate)
	}{
		{"critical authorityKeyIdentifier, as Windows makes it", func(c *wire.RawCertificate) {
			c.Extensions = [][]byte{wire.Extension("2.5.29.35", true, keyID)}
		}},
		{"a critical extension that nobody knows", func(c *wire.RawCertificate) {
			c.Extensions = [][]byte{wire.Extension("1.3.6.1.4.1.99999.10", true, wire.Null())}
		}},
		{"serial number 0", func(c *wire.RawCertificate) { c.Serial = wire.Int(0) }},
		{"serial number negative", func(c *wire.RawCertificate) { c.Serial = wire.Int(-4711) }},
		{"serial number of 33 octets, as sscep makes it", func(c *wire.RawCertificate) {
			c.Serial = wire.BigInt(new(big.Int).SetBytes(append([]byte{1}, wire.Random(32)...)))
		}},
		{"version 1", func(c *wire.RawCertificate) { c.Version = []byte{} }},
		{"a name without an RDN", func(c *wire.RawCertificate) { c.Subject = wire.Name() }},
		{"a name in a TeletexString", func(c *wire.RawCertificate) { c.Subject = wire.Name(cn(wire.T61("ger\xe4t"))) }},
		{"expired", func(c *wire.RawCertificate) { c.Validity = hour(-48, -24) }},
		{"not valid yet", func(c *wire.RawCertificate) { c.Validity = hour(24, 48) }},
		{"signed with SHA-1", func(c *wire.RawCertificate) {
			c.InnerAlgorithm, c.OuterAlgorithm = wire.Algorithm(wire.OIDSHA1WithRSA), wire.Algorithm(wire.OIDSHA1WithRSA)
			c.Sign = func(tbs []byte) []byte { return wire.SignRSA(c.Key, crypto.SHA1, tbs) }
		}},
	} {
		all = append(all, vector{row: "C79", variant: c.variant, want: forwarded, act: func(t *try) { t.passesWith(c.change) }})
	}
	odd := func(v vector, list []changed[wire.RawCertificate]) {
		for _, c := range list {
			v.variant = c.variant
			v.message = signed(func(t *try, d *wire.SignedData) {
				own := wire.RawCertificate{Key: t.Device.Key}
				c.change(t, &own)
				d.Certificates, d.Signer.ID = [][]byte{own.Bytes()}, own.ID()
			})
			all = append(all, v)
		}
	}
	odd(unanswerable("C79"), []changed[wire.RawCertificate]{
		{"serial number of 65 octets", func(_ *try, c *wire.RawCertificate) {
			c.Serial = wire.BigInt(new(big.Int).SetBytes(append([]byte{1}, wire.Random(64)...)))
		}},
		{"serial number not minimal", func(_ *try, c *wire.RawCertificate) { c.Serial = []byte{2, 2, 0, 1} }},
		{"serial number of no octets", func(_ *try, c *wire.RawCertificate) { c.Serial = []byte{2, 0} }},
		{"version 4", func(_ *try, c *wire.RawCertificate) { c.Version = wire.Explicit(0, wire.Int(3)) }},
		{"two signature algorithms", func(_ *try, c *wire.RawCertificate) { c.InnerAlgorithm = wire.Algorithm(wire.OIDSHA1WithRSA) }},
		{"one element more in the certificate", func(_ *try, c *wire.RawCertificate) { c.Tail = wire.Null() }},
		{"a name in pieces", func(_ *try, c *wire.RawCertificate) { c.Subject = wire.Name(cn(wire.TLV(0x2c, wire.UTF8("x")))) }},
	})
	// The reasons' table says so: the key is of a kind or size that is never accepted.
	unusable := unanswerable("C79")
	unusable.reason = "bad_signature"
	odd(unusable, []changed[wire.RawCertificate]{
		{"a key on P-256", func(_ *try, c *wire.RawCertificate) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				panic(err)
			}
			c.SPKI = wire.PublicKey(&key.PublicKey)
		}},
		{"an RSA key of 512 bits", func(_ *try, c *wire.RawCertificate) { c.SPKI = rsaKey(modulus(512), f4) }},
		{"an RSA key of 16384 bits", func(_ *try, c *wire.RawCertificate) { c.SPKI = rsaKey(modulus(16384), f4) }},
		{"an RSA key of exponent 3", func(_ *try, c *wire.RawCertificate) { c.SPKI = rsaKey(c.Key.N, big.NewInt(3)) }},
		{"another RSA key", func(t *try, c *wire.RawCertificate) { c.SPKI = rsaKey(t.other().Key.N, f4) }},
	})
	odd(vector{row: "C79", want: rej, reason: "renewal_signer_untrusted"}, []changed[wire.RawCertificate]{
		{"one bit of the certificate's signature flipped", func(_ *try, c *wire.RawCertificate) {
			key := c.Key
			c.Sign = func(tbs []byte) []byte { s := wire.SignRSA(key, crypto.SHA256, tbs); s[9] ^= 1; return s }
		}},
		{"an issuer of another name, and nobody's signature", func(_ *try, c *wire.RawCertificate) {
			c.Issuer = wire.CommonName("Another CA")
			c.Sign = func([]byte) []byte { return wire.Random(256) }
		}},
	})
	return all
}

// passesWith demands that a message passes whatever its signer's certificate
// looks like. NDES's answer is the simulator's to the same message with a plain
// certificate: what it reads of certificates is not what is tried here.
func (t *try) passesWith(change func(c *wire.RawCertificate)) {
	plain := t.M.Bytes()
	own := wire.RawCertificate{Key: t.Device.Key}
	change(&own)
	t.M.SignedData.Certificates, t.M.SignedData.Signer.ID = [][]byte{own.Bytes()}, own.ID()
	t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		answer, err := t.NDES.Answer(plain)
		if err != nil {
			return false
		}
		w.Header().Set("Content-Type", "application/x-pki-message")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		w.Write(answer)
		return true
	})
	t.passes(t.M.Bytes())
}
