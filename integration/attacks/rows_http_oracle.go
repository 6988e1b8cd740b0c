package main

import (
	"crypto/rsa"
	"math/big"
	"sync"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// unopened is a vector whose message must be refused because it cannot be
// opened. Uniform answers are what is demanded here; equal times are measured
// by integration/bench, and one code path is caddymodule's oracle test.
func unopened(row, variant string, change func(t *try, e *wire.Envelope)) vector {
	return vector{row: row, variant: variant, want: rej, anywhere: true, act: func(t *try) {
		change(t, &t.M.Envelope)
		t.refused(t.post(t.M.Bytes()))
		t.undecryptable()
		t.reached()
		t.state(t.ID, "registered")
	}}
}

// rowsOracle: E01–E10.
func rowsOracle() []vector {
	list := []vector{
		unopened("E01", "a captured encryptedKey times 2^e", func(t *try, e *wire.Envelope) {
			n, exponent := modulusOf(t)
			c := new(big.Int).SetBytes(wire.EncryptKey(e.To, e.ContentKey()))
			c.Mul(c, new(big.Int).Exp(big.NewInt(2), exponent, n)).Mod(c, n)
			e.Recipient.EncryptedKey = c.FillBytes(make([]byte, 256))
		}),
		unopened("E02", "an encryptedKey at random", func(t *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = wire.Random(256)
			e.Recipient.EncryptedKey[0] = 0
		}),
		unopened("E02", "an encryptedKey above the modulus", func(t *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = filled(256, 0xff)
		}),
		unopened("E02", "an encryptedKey of zero", func(t *try, e *wire.Envelope) { e.Recipient.EncryptedKey = make([]byte, 256) }),
		unopened("E02", "an encryptedKey one octet short", func(t *try, e *wire.Envelope) { e.Recipient.EncryptedKey = wire.Random(255) }),
		unopened("E02", "an encryptedKey one octet long", func(t *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = append([]byte{0}, wire.EncryptKey(e.To, e.ContentKey())...)
		}),
		unopened("E02", "an empty encryptedKey", func(t *try, e *wire.Envelope) { e.Recipient.EncryptedKey = []byte{} }),
		unopened("E02", "a ciphertext with a partial block", func(t *try, e *wire.Envelope) { e.Ciphertext = wire.Random(33) }),
		unopened("E02", "a ciphertext of no octets", func(t *try, e *wire.Envelope) { e.Ciphertext = []byte{} }),
		unopened("E02", "a ciphertext of one octet", func(t *try, e *wire.Envelope) { e.Ciphertext = []byte{0x5c} }),
		unopened("E02", "OAEP that is no OAEP", func(t *try, e *wire.Envelope) {
			e.Recipient.Algorithm = wire.Algorithm(wire.OIDRSAESOAEP, wire.Sequence())
		}),
		{row: "E03", variant: "the same bad encryptedKey twice", want: rej, anywhere: true, act: func(t *try) {
			e := &t.M.Envelope
			e.Recipient.EncryptedKey = wire.Random(256)
			e.Recipient.EncryptedKey[0] = 0
			t.M.Content = e.Bytes(t.M.Request.Bytes())
			var reasons [4]string
			for i := range reasons {
				t.refused(t.post(t.M.Bytes()))
				reasons[i] = t.undecryptable()
				t.demand(reasons[i] == reasons[0], "once %s, once %s", reasons[0], reasons[i])
			}
			t.reached()
		}},
		{row: "E05", variant: "an initialisation vector with one bit flipped", want: rej, reason: "malformed_request",
			message: envelope(func(t *try, e *wire.Envelope) {
				e.IV = make([]byte, 16)
				e.CipherField = wire.Algorithm(wire.OIDAES128CBC, wire.Octets(append([]byte{0x40}, make([]byte, 15)...)))
			})},
		{row: "E06", variant: "a good and a bad encryptedKey, one after the other", want: rej, anywhere: true, act: func(t *try) {
			for i := range 4 {
				m := t.message(t.Device)
				m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(newChallenge()))}
				if i%2 == 1 {
					m.Envelope.Recipient.EncryptedKey = append([]byte{0}, wire.Random(255)...)
				}
				t.refused(t.post(m.Bytes()))
				if i%2 == 1 {
					t.undecryptable()
				} else {
					t.decision("challenge_unknown")
				}
			}
			t.reached()
		}},
		{row: "E07", variant: "an envelope that opens, with rubbish in it", want: rej, reason: "malformed_request",
			message: func(t *try) { t.M.Plaintext = wire.Random(900) }},
		{row: "E07", variant: "an envelope that opens, with nothing in it", want: rej, reason: "malformed_request",
			message: func(t *try) { t.M.Plaintext = []byte{} }},
		{row: "E08", variant: "a recorded envelope, signed by somebody else", want: rej, act: func(t *try) {
			recorded := t.M.Envelope.Bytes(t.M.Request.Bytes())
			d := t.other()
			m := wire.New(d.Key, d.SelfSigned, t.RA, "", "")
			m.Content = recorded
			t.refuses(m.Bytes(), "signer_mismatch")
			t.state(t.ID, "registered")
			t.M.Content = recorded
			t.enrols(t.M.Bytes())
		}},
		// How many at once are served at all is integration/floods.
		{row: "E09", variant: "an enrolment beside sixteen envelopes with random keys", want: asDescribed, act: func(t *try) { t.burst(16) }},
		{row: "E10", variant: "a signer's key of 16,384 bits", want: pre, status: 400, reason: "bad_signature", message: hugeSigner(16384, big.NewInt(65537))},
		{row: "E10", variant: "a signer's key of 65,536 bits", want: pre, status: 400, reason: "bad_signature", message: hugeSigner(65536, big.NewInt(65537))},
		{row: "E10", variant: "a signer's key with the exponent 2^31-1", want: pre, status: 400, reason: "bad_signature", message: hugeSigner(2048, big.NewInt(1<<31-1))},
		{row: "E10", variant: "a signer's key with the exponent 1", want: pre, status: 400, reason: "bad_signature", message: hugeSigner(2048, big.NewInt(1))},
	}
	// What RFC 8017 §7.2.2 calls decryption errors, and keys of a wrong length.
	for _, b := range []struct {
		variant string
		block   func(key []byte) []byte
	}{
		{"00 01 in place of 00 02", func(key []byte) []byte { return pkcs1Block(0, 1, filled(256-3-len(key), 0xa5), 0, key) }},
		{"01 02 in place of 00 02", func(key []byte) []byte { return pkcs1Block(1, 2, filled(256-3-len(key), 0xa5), 0, key) }},
		{"no 00 before the key", func(key []byte) []byte { return pkcs1Block(0, 2, filled(256-3-len(key), 0xa5), 0xa5, key) }},
		{"seven octets of padding", func(key []byte) []byte {
			return pkcs1Block(0, 2, append(filled(7, 0xa5), append([]byte{0}, filled(256-11-len(key), 0xa5)...)...), 0, key)
		}},
		{"the 00 one octet early", func(key []byte) []byte {
			return pkcs1Block(0, 2, append(filled(256-4-len(key), 0xa5), 0), 0xa5, key)
		}},
		{"the 00 at the end", func(key []byte) []byte { return pkcs1Block(0, 2, filled(256-3, 0xa5), 0, nil) }},
	} {
		list = append(list, unopened("E01", "key transport with "+b.variant, func(t *try, e *wire.Envelope) {
			n, exponent := modulusOf(t)
			c := new(big.Int).Exp(new(big.Int).SetBytes(b.block(e.ContentKey())), exponent, n)
			e.Recipient.EncryptedKey = c.FillBytes(make([]byte, 256))
		}))
	}
	for _, n := range []int{1, 5, 15, 17, 24, 32, 64} {
		list = append(list, unopened("E01", "a content key of "+itoa(n)+" octets for AES-128", func(t *try, e *wire.Envelope) {
			e.Recipient.EncryptedKey = wire.EncryptKey(e.To, wire.Random(n))
		}))
	}
	for _, n := range []byte{0, 17, 32, 127, 128, 255} {
		list = append(list, badPadding("that says "+itoa(int(n)), func(p []byte) []byte {
			p[len(p)-1] = n
			return p
		}))
	}
	return append(list,
		badPadding("with one octet that differs", func(p []byte) []byte {
			p = append(p, filled(16, 16)...)
			p[len(p)-16] ^= 1
			return p
		}),
		badPadding("of two octets, 01 02", func(p []byte) []byte {
			p[len(p)-2], p[len(p)-1] = 1, 2
			return p
		}),
	)
}

// badPadding is a vector whose plaintext is whole blocks with an end of its own.
func badPadding(variant string, end func(padded []byte) []byte) vector {
	return vector{row: "E05", variant: "padding " + variant, want: rej, reason: "undecryptable",
		message: envelope(func(_ *try, e *wire.Envelope) {
			e.Pad = func(plaintext []byte, block int) []byte { return end(wire.PadPKCS7(plaintext, block)) }
		})}
}

func modulusOf(t *try) (n, e *big.Int) {
	public := t.RA.PublicKey.(*rsa.PublicKey)
	return public.N, big.NewInt(int64(public.E))
}

func filled(n int, octet byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = octet
	}
	return b
}

// pkcs1Block is the block of RFC 8017 §7.2.1 for a modulus of 256 octets.
func pkcs1Block(first, second byte, padding []byte, separator byte, key []byte) []byte {
	return append(append(append([]byte{first, second}, padding...), separator), key...)
}

// hugeSigner signs with a certificate whose key is anything. Nobody has its
// private half; verifying would be the attack.
func hugeSigner(bits int, exponent *big.Int) func(*try) {
	return func(t *try) {
		n := new(big.Int).SetBytes(wire.Random(bits / 8))
		n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
		spki := wire.Sequence(wire.Algorithm(wire.OIDRSAEncryption), wire.Bits(wire.Sequence(wire.BigInt(n), wire.BigInt(exponent))))
		name := wire.CommonName("SCEP Protocol Certificate")
		serial := wire.Int(4711)
		tbs := wire.Sequence(
			wire.Explicit(0, wire.Int(2)), serial, wire.Algorithm(wire.OIDSHA256WithRSA), name,
			wire.Sequence(wire.TLV(0x17, []byte("260101000000Z")), wire.TLV(0x17, []byte("490101000000Z"))), name, spki,
		)
		s := &t.M.SignedData.Signer
		s.Certificate = wire.Sequence(tbs, wire.Algorithm(wire.OIDSHA256WithRSA), wire.Bits(wire.Random(bits/8)))
		s.ID = wire.Sequence(name, serial)
		s.Sign = func([]byte) []byte { return append([]byte{0}, wire.Random(bits/8-1)...) }
	}
}

// burst sends n messages with random keys at once, and an honest one among them.
func (t *try) burst(n int) {
	var bad [][]byte
	for range n {
		m := t.message(t.other())
		m.Envelope.Recipient.EncryptedKey = append([]byte{0}, wire.Random(255)...)
		bad = append(bad, m.Bytes())
	}
	answers := make([]attack.Answer, n)
	var wg sync.WaitGroup
	for i := range bad {
		wg.Go(func() { answers[i], _ = attack.Do(t.Client, t.postRequest(bad[i])) })
	}
	honest := t.M.Bytes()
	t.issued(t.post(honest))
	wg.Wait()
	for _, a := range answers {
		t.back = append(t.back, describe(a))
		t.refused(a)
	}
	ok := 0
	for range n + 1 {
		switch reason := t.decision("").String("reason"); reason {
		case "ok":
			ok++
		case "undecryptable", "malformed_request": // see undecryptable
		default:
			t.failf("the operator reads %q", reason)
		}
	}
	t.demand(ok == 1, "%d messages were forwarded", ok)
	t.reached(honest)
	t.state(t.ID, "issued")
}
