package main

import (
	"bytes"
	"compress/zlib"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"

	"github.com/scepgate/scepgate/integration/wire"
)

func deflated(content []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write(content) // to memory
	w.Close()
	return b.Bytes()
}

// rowsContentCipher: C49–C51, cipher, key length and initialisation vector.
func rowsContentCipher() []vector {
	named := func(oid string) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) { e.Cipher = oid }
	}
	field := func(algorithm []byte, ciphertext func(t *try) []byte) func(*try, *wire.Envelope) {
		return func(t *try, e *wire.Envelope) { e.CipherField, e.Ciphertext = algorithm, ciphertext(t) }
	}
	random := func(*try) []byte { return wire.Random(1024) }
	// Contract over catalogue: 3DES passes by default, Android and others know nothing better.
	all := table(vector{row: "C49", want: forwarded, reason: "ok"}, envelope, []changed[wire.Envelope]{
		{"3DES", named(wire.OIDDES3CBC)}, {"AES-128-CBC", named(wire.OIDAES128CBC)}, {"AES-256-CBC", named(wire.OIDAES256CBC)},
	})
	all = append(all, table(vector{row: "C49", want: rej, reason: "algorithm_refused"}, envelope, []changed[wire.Envelope]{
		{"DES", named(wire.OIDDESCBC)},
		{"AES-192-CBC", named(wire.OIDAES192CBC)},
		{"AES-128-CFB", named(wire.OIDAES128CFB)},
		{"AES-128-ECB", field(wire.Sequence(wire.OID("2.16.840.1.101.3.4.1.1")), random)},
		{"RC2", field(wire.Sequence(wire.OID(wire.OIDRC2CBC), wire.Sequence(wire.Int(160), wire.Octets(wire.Random(8)))), random)},
		{"RC4", field(wire.Algorithm(wire.OIDRC4), random)},
		{"AES-128-GCM in EnvelopedData", field(wire.Sequence(wire.OID(wire.OIDAES128GCM), wire.Sequence(wire.Octets(wire.Random(12)), wire.Int(16))), random)},
		{"no cipher: the PKCS#10 itself, under an OID that nobody knows", field(wire.Algorithm("1.3.6.1.4.1.99999.6"), func(t *try) []byte { return t.settleRequest() })},
		{"no cipher: the PKCS#10 itself, under the OID of data", field(wire.Algorithm(wire.OIDData), func(t *try) []byte { return t.settleRequest() })},
	})...)

	key := func(oid string, n int) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) { e.Cipher, e.Key = oid, wire.Random(n) }
	}
	all = append(all, substituted("C50", []changed[wire.Envelope]{
		{"the name of AES-256, a key and a content of AES-128", key(wire.OIDAES256CBC, 16)},
		{"the name of AES-256, a key and a content of AES-192", key(wire.OIDAES256CBC, 24)},
		{"the name of AES-128, a key and a content of AES-256", key(wire.OIDAES128CBC, 32)},
		{"3DES with a key of two parts", func(_ *try, e *wire.Envelope) {
			two := wire.Random(16)
			e.Cipher, e.Key = wire.OIDDES3CBC, append(slices.Clone(two), two[:8]...)
			e.Recipient.EncryptedKey = wire.EncryptKey(e.To, two)
		}},
		{"a content key with an octet more", func(_ *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = wire.EncryptKey(e.To, append(slices.Clone(e.ContentKey()), 0))
		}},
		{"a content key with an octet less", func(_ *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = wire.EncryptKey(e.To, e.ContentKey()[:15])
		}},
		{"a content key of no octets", func(_ *try, e *wire.Envelope) { e.Recipient.EncryptedKey = wire.EncryptKey(e.To, nil) }},
	})...)

	iv := func(parameters ...[]byte) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) {
			e.CipherField = wire.Sequence(append([][]byte{wire.OID(wire.OIDAES128CBC)}, parameters...)...)
		}
	}
	for _, n := range []int{0, 8, 15, 17, 32} {
		all = append(all, table(envelopeRefused("C51"), envelope, []changed[wire.Envelope]{
			{fmt.Sprintf("initialisation vector of %d octets", n), iv(wire.Octets(make([]byte, n)))},
		})...)
	}
	return append(all, table(envelopeRefused("C51"), envelope, []changed[wire.Envelope]{
		{"no initialisation vector", iv()},
		{"NULL in place of the initialisation vector", iv(wire.Null())},
		{"initialisation vector in pieces", iv(wire.TLV(0x24, wire.Octets(make([]byte, 8)), wire.Octets(make([]byte, 8))))},
		{"initialisation vector as BIT STRING", iv(wire.TLV(3, make([]byte, 16)))},
		{"two initialisation vectors", iv(wire.Octets(make([]byte, 16)), wire.Octets(make([]byte, 16)))},
		{"the initialisation vector of AES under 3DES", func(_ *try, e *wire.Envelope) {
			e.CipherField = wire.Algorithm(wire.OIDDES3CBC, wire.Octets(make([]byte, 16)))
		}},
	})...)
}

// substituted makes vectors whose content key does not come out of the private
// key, so that the gateway goes on with a substitute.
func substituted(row string, list []changed[wire.Envelope]) (all []vector) {
	for _, c := range list {
		all = append(all, unopened(row, c.variant, c.change))
	}
	return all
}

// rowsPadding: C52–C55, the ciphertext and how it ends.
func rowsPadding() []vector {
	undecryptable := func(row string) vector { return vector{row: row, want: rej, reason: "undecryptable"} }
	ciphertext := func(c func(honest []byte) []byte) func(*try, *wire.Envelope) {
		return func(t *try, e *wire.Envelope) { e.Ciphertext = c(e.Encrypted(t.settleRequest())) }
	}
	var all []vector
	for _, n := range []int{0, 1, 15, 17, 31} {
		all = append(all, table(undecryptable("C52"), envelope, []changed[wire.Envelope]{
			{fmt.Sprintf("ciphertext of %d octets", n), func(_ *try, e *wire.Envelope) { e.Ciphertext = wire.Random(n) }},
		})...)
	}
	all = append(all, table(undecryptable("C52"), envelope, []changed[wire.Envelope]{
		{"an octet behind the ciphertext", ciphertext(func(c []byte) []byte { return append(slices.Clone(c), 0) })},
		{"the ciphertext without its last octet", ciphertext(func(c []byte) []byte { return c[:len(c)-1] })},
		{"3DES, an octet behind the ciphertext", func(t *try, e *wire.Envelope) {
			e.Cipher = wire.OIDDES3CBC
			e.Ciphertext = append(e.Encrypted(t.settleRequest()), 0)
		}},
	})...)

	pad := func(p func(plaintext []byte, block int) []byte) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) { e.Pad = p }
	}
	// one is a single block that ends in this octet.
	one := func(last byte) func(*try, *wire.Envelope) {
		return pad(func([]byte, int) []byte { return append(make([]byte, 15), last) })
	}
	all = append(all, table(undecryptable("C53"), envelope, []changed[wire.Envelope]{
		{"one block that ends in FF", one(0xff)},
		{"one block that ends in 11", one(0x11)},
		{"one block of 11", pad(func([]byte, int) []byte { return bytes.Repeat([]byte{0x11}, 16) })},
		{"another content key than the one that encrypts", func(t *try, e *wire.Envelope) {
			e.Ciphertext = e.Encrypted(t.settleRequest())
			e.Recipient.EncryptedKey = wire.EncryptKey(e.To, wrongKey(e))
		}},
	})...)

	ends := func(tail ...byte) func(*try, *wire.Envelope) {
		return pad(func(p []byte, block int) []byte {
			p = slices.Clone(p)
			for (len(p)+len(tail))%block != 0 {
				p = append(p, 0)
			}
			return append(p, tail...)
		})
	}
	all = append(all, table(undecryptable("C54"), envelope, []changed[wire.Envelope]{
		{"padding 00", ends(0)},
		{"a block of 00", ends(make([]byte, 16)...)},
		{"padding of 17 octets 11", ends(bytes.Repeat([]byte{17}, 17)...)},
		{"padding of 32 octets 20", ends(bytes.Repeat([]byte{32}, 32)...)},
		{"padding of 4 octets, the first of them another", ends(5, 4, 4, 4)},
		{"padding of 4 octets, the second of them another", ends(4, 3, 4, 4)},
		{"padding as ISO 10126 has it: random, then the count", ends(0xa5, 0x5a, 3)},
		{"padding as ISO 7816 has it: 80, then 00", ends(0x80, 0, 0)},
		{"3DES, padding of 9 octets 09", func(_ *try, e *wire.Envelope) {
			e.Cipher = wire.OIDDES3CBC
			ends(bytes.Repeat([]byte{9}, 9)...)(nil, e)
		}},
	})...)
	all = append(all, vector{row: "C54", variant: "padding of a whole block, as RFC 5652 has it", want: forwarded, reason: "ok", message: func(t *try) {
		for n := 1; n <= 40; n++ { // a length that takes an octet more can step over one
			t.M.Request.Attributes = [][]byte{osVersion(fmt.Sprintf("%0*d", n, 1))}
			if t.M.Plaintext = t.M.Request.Bytes(); len(t.M.Plaintext)%16 == 0 {
				return
			}
		}
		t.failf("no request fills its last block")
	}})

	chunked := func(field func(c []byte) []byte) func(*try, *wire.Envelope) {
		return func(t *try, e *wire.Envelope) { e.ContentField = field(e.Encrypted(t.settleRequest())) }
	}
	all = append(all, table(envelopeRefused("C55"), envelope, []changed[wire.Envelope]{
		{"an INTEGER between two pieces of the content", chunked(func(c []byte) []byte {
			return wire.Explicit(0, wire.Octets(c[:32]), wire.Int(5), wire.Octets(c[32:]))
		})},
		{"an INTEGER behind the pieces of the content", chunked(func(c []byte) []byte {
			return wire.Explicit(0, wire.Octets(c[:32]), wire.Octets(c[32:]), wire.Int(5))
		})},
		{"a NULL before the pieces of the content", chunked(func(c []byte) []byte { return wire.Explicit(0, wire.Null(), wire.Octets(c)) })},
		{"a piece of the content in pieces", chunked(func(c []byte) []byte {
			return wire.Explicit(0, wire.TLV(0x24, wire.Octets(c[:32]), wire.Octets(c[32:])))
		})},
		{"pieces of the content tagged [0]", chunked(func(c []byte) []byte { return wire.Explicit(0, wire.Implicit(0, c)) })},
		{"a piece of the content that is cut short", chunked(func(c []byte) []byte {
			return wire.Explicit(0, wire.Octets(c[:32]), append([]byte{4, 0x82, 0x7f, 0xff}, c[32:]...))
		})},
		{"a piece of the content that is a BIT STRING", chunked(func(c []byte) []byte { return wire.Explicit(0, wire.Bits(c)) })},
	})...)
	return append(all, table(vector{row: "C55", want: forwarded, reason: "ok"}, envelope, []changed[wire.Envelope]{
		{"the content in two pieces", chunked(func(c []byte) []byte { return wire.Explicit(0, wire.Octets(c[:32]), wire.Octets(c[32:])) })},
		{"the content in pieces of 100 octets, of indefinite length", chunked(func(c []byte) []byte { return wire.Chunks(0xa0, c, 100) })},
	})...)
}

// wrongKey is a content key under which the ciphertext of e has no padding: one
// key of 256 has, and there the request would be what is wrong.
func wrongKey(e *wire.Envelope) []byte {
	for {
		key := wire.Random(16)
		block, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		last := make([]byte, 16)
		n := len(e.Ciphertext)
		cipher.NewCBCDecrypter(block, e.Ciphertext[n-32:n-16]).CryptBlocks(last, e.Ciphertext[n-16:])
		if last[15] == 0 || last[15] > 16 {
			return key
		}
	}
}

// rowsKeyTransport: C78. Contract over catalogue: OAEP as Windows sends it, with
// SHA-1 and all parameters left out, and no other.
func rowsKeyTransport() []vector {
	oaep := func(h func() hash.Hash, label []byte, parameters ...[]byte) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) {
			encrypted, err := rsa.EncryptOAEP(h(), rand.Reader, e.To.PublicKey.(*rsa.PublicKey), e.ContentKey(), label)
			if err != nil {
				panic(err)
			}
			e.Recipient.EncryptedKey = encrypted
			e.Recipient.Algorithm = wire.Sequence(append([][]byte{wire.OID(wire.OIDRSAESOAEP)}, parameters...)...)
		}
	}
	digest := func(oid string) []byte { return wire.Explicit(0, wire.Algorithm(oid)) }
	mask := func(oid string) []byte {
		return wire.Explicit(1, wire.Sequence(wire.OID(wire.OIDMGF1), wire.Algorithm(oid)))
	}
	source := func(label string) []byte {
		return wire.Explicit(2, wire.Sequence(wire.OID(wire.OIDPSpecified), wire.Octets([]byte(label))))
	}
	all := []vector{{row: "C78", variant: "OAEP with SHA-1, no parameter written, as Windows sends it", want: forwarded, reason: "ok",
		message: envelope(oaep(sha1.New, nil, wire.Sequence()))}}
	all = append(all, table(vector{row: "C78", want: rej, reason: "algorithm_refused"}, envelope, []changed[wire.Envelope]{
		{"OAEP with SHA-256 and a mask of SHA-256", oaep(sha256.New, nil, wire.Sequence(digest(wire.OIDSHA256), mask(wire.OIDSHA256)))},
		{"OAEP with SHA-256 and a mask of SHA-1", oaep(sha256.New, nil, wire.Sequence(digest(wire.OIDSHA256), mask(wire.OIDSHA1)))},
		{"OAEP with SHA-1 and a mask of SHA-256", oaep(sha1.New, nil, wire.Sequence(mask(wire.OIDSHA256)))},
		{"OAEP with a label", oaep(sha1.New, []byte("label"), wire.Sequence(source("label")))},
		{"OAEP without the label that it names", oaep(sha1.New, nil, wire.Sequence(source("label")))},
		{"OAEP with SHA-1 written out", oaep(sha1.New, nil, wire.Sequence(digest(wire.OIDSHA1), mask(wire.OIDSHA1), source("")))},
		{"OAEP without parameters", oaep(sha1.New, nil)},
		{"OAEP with NULL", oaep(sha1.New, nil, wire.Null())},
		{"PKCS#1 v1.5 with an INTEGER", func(_ *try, e *wire.Envelope) {
			e.Recipient.Algorithm = wire.Sequence(wire.OID(wire.OIDRSAEncryption), wire.Int(1))
		}},
		{"RSA-KEM", func(_ *try, e *wire.Envelope) {
			e.Recipient.Algorithm = wire.Sequence(wire.OID("1.2.840.113549.1.9.16.3.14"))
		}},
		{"the name of a signature algorithm", func(_ *try, e *wire.Envelope) { e.Recipient.Algorithm = wire.Algorithm(wire.OIDSHA256WithRSA) }},
	})...)
	return append(all, substituted("C78", []changed[wire.Envelope]{
		{"OAEP with SHA-256, in the name of SHA-1", oaep(sha256.New, nil, wire.Sequence())},
		{"OAEP with a label that it does not name", oaep(sha1.New, []byte("label"), wire.Sequence())},
		{"OAEP in the name of PKCS#1 v1.5", func(t *try, e *wire.Envelope) {
			oaep(sha1.New, nil)(t, e)
			e.Recipient.Algorithm = nil
		}},
		{"PKCS#1 v1.5 in the name of OAEP", func(_ *try, e *wire.Envelope) {
			e.Recipient.Algorithm = wire.Sequence(wire.OID(wire.OIDRSAESOAEP), wire.Sequence())
		}},
	})...)
}
