package inspector

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asked is what a private key was asked.
type asked struct {
	ciphertext []byte
	options    crypto.DecrypterOpts
}

// recording is a key that remembers what it was asked.
func recording(key *rsa.PrivateKey) (*fakeKey, *[]asked) {
	var log []asked
	fake := &fakeKey{PrivateKey: key}
	fake.decrypt = func(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
		log = append(log, asked{bytes.Clone(ciphertext), opts})
		return key.Decrypt(rand, ciphertext, opts)
	}
	return fake, &log
}

// noDecryption are encrypted keys that are none for the public key.
func noDecryption(ra RAKey) map[string][]byte {
	n := ra.Certificate.PublicKey.(*rsa.PublicKey).N
	size := (n.BitLen() + 7) / 8
	valid := rawRSA(ra, append([]byte{0, 2}, bytes.Repeat([]byte{0xa5}, size-2)...))
	return map[string][]byte{
		"empty":                  {},
		"one byte":               {2},
		"shorter by one":         valid[:size-1],
		"shorter, with a zero":   append([]byte{0}, valid[:size-2]...),
		"longer by one":          append(bytes.Clone(valid), 0),
		"longer by a zero ahead": append([]byte{0}, valid...),
		"of twice the length":    append(bytes.Clone(valid), valid...),
		"the modulus":            n.Bytes(),
		"above the modulus":      new(big.Int).Add(n, big.NewInt(1)).Bytes(),
		"all ones":               bytes.Repeat([]byte{0xff}, size),
	}
}

// A key, or the token it is in, refuses what is no decryption early, or in a
// way of its own. So it is never asked for one, and still asked. threats E01, E04
func TestTheKeyIsAskedOnceForSomethingThatItCanDecrypt(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	fake, log := recording(ra.Key.(*rsa.PrivateKey))
	o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: fake})
	n := ra.Certificate.PublicKey.(*rsa.PublicKey).N
	for _, transport := range []string{"pkcs1v15", "oaep_sha1"} {
		want, bad := crypto.DecrypterOpts(&rsa.PKCS1v15DecryptOptions{SessionKeyLen: 16}), badKeys(t, ra)
		if transport == "oaep_sha1" {
			want = &rsa.OAEPOptions{Hash: crypto.SHA1}
			bad["OAEP"] = wrapPKCS1v15(t, ra, make([]byte, 16))
		}
		for _, class := range []map[string][]byte{noDecryption(ra), bad, badOAEP(ra), {
			"one": append(make([]byte, 255), 1), "the modulus less one": new(big.Int).Sub(n, big.NewInt(1)).Bytes(),
		}} {
			for name, encryptedKey := range class {
				s := sealed(t, ra, "aes128", csr)
				s.encryptedKey = derOctets(encryptedKey)
				if transport == "oaep_sha1" {
					s.transport = derSequence(derOID(oidRSAESOAEP), derSequence())
				}
				e, perr := parseEnvelope(s.message().content)
				if perr != nil {
					t.Fatal(perr)
				}
				before := len(*log)
				if opened := o.Open(s.message()); opened.CSR != nil || opened.Err == nil {
					t.Errorf("%s, %s: opened %+v", transport, name, opened)
				}
				calls := (*log)[before:]
				if len(calls) != 1 {
					t.Fatalf("%s, %s: asked %d times", transport, name, len(calls))
				}
				if len(calls[0].ciphertext) != 256 || new(big.Int).SetBytes(calls[0].ciphertext).Cmp(n) >= 0 {
					t.Errorf("%s, %s: asked for %d bytes, or above the modulus", transport, name, len(calls[0].ciphertext))
				}
				if diff := cmp.Diff(want, calls[0].options); diff != "" {
					t.Errorf("%s, %s: %s", transport, name, diff)
				}
				if !bytes.Equal(o.contentKey(o.keys[0], e), substitute(e)) {
					t.Errorf("%s, %s: the key gone on with is not the substitute", transport, name)
				}
			}
		}
	}
}

// badOAEP are blocks that OAEP must refuse, each for another cause, the first of
// them Manger's.
func badOAEP(ra RAKey) map[string][]byte {
	const h = sha1.Size
	size := ra.Certificate.PublicKey.(*rsa.PublicKey).Size()
	encoded := func(change func(em, db []byte)) []byte {
		em := make([]byte, size)
		seed, db := em[1:1+h], em[1+h:]
		copy(seed, bytes.Repeat([]byte{0x5a}, h))
		label := sha1.Sum(nil)
		copy(db, label[:])
		db[len(db)-17] = 1
		change(em, db)
		mask(db, seed)
		mask(seed, db)
		return rawRSA(ra, em)
	}
	return map[string][]byte{
		"first byte not zero": encoded(func(em, _ []byte) { em[0] = 1 }),
		"another label":       encoded(func(_, db []byte) { label := sha1.Sum([]byte("x")); copy(db, label[:]) }),
		"one bit of label":    encoded(func(_, db []byte) { db[h-1] ^= 1 }),
		"no separator":        encoded(func(_, db []byte) { clear(db[h:]) }),
		"junk before it":      encoded(func(_, db []byte) { db[h] = 7 }),
		"key of 15 bytes":     encoded(func(_, db []byte) { db[len(db)-17], db[len(db)-16] = 0, 1 }),
		"key of 17 bytes":     encoded(func(_, db []byte) { db[len(db)-17], db[len(db)-18] = 9, 1 }),
		"no key":              encoded(func(_, db []byte) { clear(db[h:]); db[len(db)-1] = 1 }),
	}
}

// mask is XOR with MGF1 of SHA-1 (RFC 8017 §B.2.1).
func mask(out, seed []byte) {
	for i, counter := 0, uint32(0); i < len(out); counter++ {
		block := sha1.Sum(binary.BigEndian.AppendUint32(bytes.Clone(seed), counter))
		for _, b := range block {
			if i == len(out) {
				break
			}
			out[i] ^= b
			i++
		}
	}
}

func TestTheTestsOwnOAEPIsOAEP(t *testing.T) {
	em := make([]byte, 256)
	label := sha1.Sum(nil)
	copy(em[21:], label[:])
	em[256-17] = 1
	mask(em[21:], em[1:21])
	mask(em[1:21], em[21:])
	ra := raPair(t, "one")
	if key, err := ra.Key.Decrypt(nil, rawRSA(ra, em), &rsa.OAEPOptions{Hash: crypto.SHA1}); err != nil || len(key) != 16 {
		t.Errorf("%x, %v", key, err)
	}
}

// threats E05, E06: what is parsed does not depend on the padding. Whether it
// was right is then no matter of how far parsing came, nor of the request's
// signature having been verified, which takes longer than all the rest.
func TestRightPaddingTakesNoOtherStepsThanWrongPadding(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	broken := bytes.Clone(csr)
	broken[len(broken)-1] ^= 1 // what an attacker's change before the last block does to the signature
	for _, cipherName := range []string{"des3", "aes128", "aes256"} {
		size := cipherNamed(t, cipherName).blockSize()
		pad := size - len(broken)%size
		fake := &fakeKey{PrivateKey: ra.Key.(*rsa.PrivateKey)}
		o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: fake})
		s := sealed(t, ra, cipherName, broken)
		fake.decrypt = func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return bytes.Clone(s.key), nil }

		steps := func(m *Message) float64 { return testing.AllocsPerRun(3, func() { o.Open(m) }) }
		right := s.message()
		if opened := o.Open(right); opened.Err == nil || opened.Err.Kind != KindRequest || opened.Err.Stage != "pkcs10 signature" {
			t.Fatalf("%s: opened %+v", cipherName, opened)
		}
		want := steps(right)
		for last := range 256 {
			padded := append(bytes.Clone(broken), bytes.Repeat([]byte{byte(pad)}, pad)...)
			if last == pad {
				continue
			}
			padded[len(padded)-1] = byte(last)
			s.encrypted = tlv(0x80, s.encrypt(t, padded))
			m := s.message()
			if opened := o.Open(m); opened.CSR != nil || opened.Err == nil {
				t.Errorf("%s, last octet %d: opened %+v", cipherName, last, opened)
			}
			if got := steps(m); got != want {
				t.Errorf("%s, last octet %d: %v allocations, right padding has %v", cipherName, last, got, want)
			}
		}
	}
}

// The end that the element tells and the end that the padding tells must be the
// same one.
func TestTheRequestMustEndWhereThePaddingBegins(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	o := newTestOpener(t, ra)
	open := func(padded []byte) *Opened {
		s := sealed(t, ra, "aes128", nil)
		s.encrypted = tlv(0x80, s.encrypt(t, padded))
		return o.Open(s.message())
	}
	whole := func(plaintext []byte) []byte {
		pad := 16 - len(plaintext)%16
		return append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(pad)}, pad)...)
	}
	if opened := open(whole(csr)); opened.Err != nil || !bytes.Equal(opened.CSR.Raw, csr) {
		t.Fatalf("the honest one: %+v", opened)
	}
	for n := 1; n <= 40; n++ {
		for _, filler := range []byte{0, 1, 0x30} {
			opened := open(whole(append(bytes.Clone(csr), bytes.Repeat([]byte{filler}, n)...)))
			if opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
				t.Errorf("%d bytes of %#x after the request: %+v", n, filler, opened)
			}
		}
	}
	padded := whole(csr)
	if pad := int(padded[len(padded)-1]); pad > 1 { // right padding, but of one octet only
		padded[len(padded)-1] = 1
		if opened := open(padded); opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
			t.Errorf("padding shorter than the gap: %+v", opened)
		}
	}
	if opened := open(bytes.Repeat(whole(csr), 2)); opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
		t.Errorf("two requests: %+v", opened)
	}
	if opened := open(whole(csr[:len(csr)-1])); opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
		t.Errorf("the last octet of the request is one of the padding: %+v", opened)
	}
}

func TestSoleElement(t *testing.T) {
	element := derSequence(bytes.Repeat([]byte{5, 0}, 70))
	for extra := range 40 {
		buffer := append(bytes.Clone(element), make([]byte, extra)...)
		want := len(buffer)
		if extra >= 1 && extra <= 16 {
			want = len(element)
		}
		if got := len(soleElement(buffer, 16)); got != want {
			t.Errorf("%d bytes follow: %d of %d bytes", extra, got, len(buffer))
		}
	}
	for _, junk := range [][]byte{nil, {}, {0x30}, {0x30, 0x80, 0, 0}, {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, {0x30, 0x81, 1, 0, 0}, {0x1f, 0x81, 1, 0}, bytes.Repeat([]byte{16}, 16), bytes.Repeat([]byte{0xff}, 32)} {
		t.Run(fmt.Sprintf("%x", junk), func(t *testing.T) {
			if got := soleElement(junk, 16); !bytes.Equal(got, junk) {
				t.Errorf("%x", got)
			}
		})
	}
}
