package inspector

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testSecret = bytes.Repeat([]byte{7}, 32)

// raPair is an RA certificate with its key.
func raPair(t testing.TB, name string) RAKey {
	t.Helper()
	key := testKey(t, "ra "+name)
	return RAKey{Name: name, Certificate: newCA(t, "RA "+name, key), Key: key}
}

func newTestOpener(t testing.TB, keys ...RAKey) *Opener {
	t.Helper()
	o, err := NewOpener(keys, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// testCSR is a PKCS#10 that ParseCSR accepts.
func testCSR(t testing.TB) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"device.example.com"}}, testKey(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// envelopeSpec is an EnvelopedData in pieces. The zero of a piece is "absent".
type envelopeSpec struct {
	outer        func(tag byte, parts ...[]byte) []byte
	outerType    []byte
	version      []byte
	originator   []byte
	recipients   []byte // the SET; nil: one recipient of the following
	riVersion    []byte
	rid          []byte
	transport    []byte
	encryptedKey []byte // the OCTET STRING
	riExtra      []byte
	contentType  []byte
	algorithm    []byte
	encrypted    []byte // the [0]
	eciExtra     []byte
	unprotected  []byte
	trailing     []byte

	cipher *contentCipher
	key    []byte
	iv     []byte
}

func cipherNamed(t testing.TB, name string) *contentCipher {
	t.Helper()
	for i := range contentCiphers {
		if contentCiphers[i].name == name {
			return &contentCiphers[i]
		}
	}
	t.Fatalf("no cipher %s", name)
	return nil
}

// sealed is what a well-behaved client makes of plaintext.
func sealed(t testing.TB, ra RAKey, cipherName string, plaintext []byte) *envelopeSpec {
	t.Helper()
	c := cipherNamed(t, cipherName)
	s := &envelopeSpec{
		outer:       tlv,
		outerType:   derOID(oidEnvelopedData),
		version:     derInt(0),
		riVersion:   derInt(0),
		rid:         derSequence(ra.Certificate.RawIssuer, derBigInt(ra.Certificate.SerialNumber)),
		transport:   derAlgorithm(oidRSAEncryption),
		contentType: derOID(oidData),
		cipher:      c,
		key:         bytes.Repeat([]byte{0x3d}, c.size),
		iv:          bytes.Repeat([]byte{0x17}, c.blockSize()),
	}
	s.algorithm = derSequence(derOID(c.oid), derOctets(s.iv))
	s.encryptedKey = derOctets(wrapPKCS1v15(t, ra, s.key))
	pad := c.blockSize() - len(plaintext)%c.blockSize()
	s.encrypted = tlv(0x80, s.encrypt(t, append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(pad)}, pad)...)))
	return s
}

// encrypt does CBC over whole blocks, whatever their padding.
func (s *envelopeSpec) encrypt(t testing.TB, padded []byte) []byte {
	t.Helper()
	block, err := s.cipher.block(s.key)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, s.iv).CryptBlocks(out, padded)
	return out
}

func (s *envelopeSpec) useOAEP(t testing.TB, ra RAKey) {
	t.Helper()
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, ra.Certificate.PublicKey.(*rsa.PublicKey), s.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.encryptedKey, s.transport = derOctets(wrapped), derSequence(derOID(oidRSAESOAEP), derSequence())
}

func (s *envelopeSpec) recipient() []byte {
	return derSequence(s.riVersion, s.rid, s.transport, s.encryptedKey, s.riExtra)
}

func (s *envelopeSpec) message() *Message {
	recipients := s.recipients
	if recipients == nil {
		recipients = derSet(s.recipient())
	}
	eci := s.outer(0x30, s.contentType, s.algorithm, s.encrypted, s.eciExtra)
	content := s.outer(0x30, s.outerType, s.outer(0xa0, s.outer(0x30, s.version, s.originator, recipients, eci, s.unprotected)))
	return &Message{content: append(content, s.trailing...)}
}

// substitute is the content key that an opener must go on with for e.
func substitute(e *envelope) []byte {
	mac := hmac.New(sha256.New, testSecret)
	mac.Write(e.encryptedKey)
	return mac.Sum(nil)[:e.cipher.size]
}

// spoil sees to it that the content has wrong padding under the substitute:
// one in 256 has the right one by chance, and is then refused as no request.
func (s *envelopeSpec) spoil(t testing.TB) {
	t.Helper()
	e, perr := parseEnvelope(s.message().content)
	if perr != nil {
		t.Fatal(perr)
	}
	if _, _, ok := e.decrypt(substitute(e)); ok == 1 {
		// CBC: this bit of the block before the last is that of the last octet.
		changed := bytes.Clone(e.ciphertext)
		changed[len(changed)-s.cipher.blockSize()-1] ^= 0x80
		s.encrypted = tlv(0x80, changed)
	}
}

func wrapPKCS1v15(t testing.TB, ra RAKey, key []byte) []byte {
	t.Helper()
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, ra.Certificate.PublicKey.(*rsa.PublicKey), key)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// rawRSA encrypts a padded block of the tester's choice.
func rawRSA(ra RAKey, padded []byte) []byte {
	public := ra.Certificate.PublicKey.(*rsa.PublicKey)
	c := new(big.Int).Exp(new(big.Int).SetBytes(padded), big.NewInt(int64(public.E)), public.N)
	return c.FillBytes(make([]byte, public.Size()))
}

func TestOpenReadsEveryCipherAndTransport(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	o := newTestOpener(t, raPair(t, "two"), ra)
	for _, cipherName := range []string{"des", "des3", "aes128", "aes256"} {
		for _, transport := range []string{"pkcs1v15", "oaep_sha1"} {
			for name, outer := range map[string]func(byte, ...[]byte) []byte{"definite": tlv, "indefinite": indefinite} {
				t.Run(cipherName+" "+transport+" "+name, func(t *testing.T) {
					s := sealed(t, ra, cipherName, csr)
					s.outer = outer
					if transport == "oaep_sha1" {
						s.useOAEP(t, ra)
					}
					if name == "indefinite" { // quirk: Apple sends the content in pieces
						ciphertext := mustWalk(t, s.encrypted, modeDER).content
						s.encrypted = indefinite(0xa0, derOctets(ciphertext[:13]), derOctets(ciphertext[13:]))
					}
					opened := o.Open(s.message())
					if opened.Err != nil {
						t.Fatal(opened.Err)
					}
					if opened.RA != "one" || opened.Cipher != cipherName || opened.KeyTransport != transport || !bytes.Equal(opened.CSR.Raw, csr) {
						t.Errorf("opened %+v", opened)
					}
				})
			}
		}
	}
}

func TestOpenedRequestOutlivesTheCleaning(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	opened := newTestOpener(t, ra).Open(sealed(t, ra, "aes128", csr).message())
	if opened.Err != nil {
		t.Fatal(opened.Err)
	}
	again, err := ParseCSR(bytes.Clone(csr))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, opened.CSR, cmp.Comparer(func(a, b *rsa.PublicKey) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("request read from the envelope differs:\n%s", diff)
	}
}

func TestOpenRefusesOtherProfiles(t *testing.T) {
	ra, two := raPair(t, "one"), raPair(t, "two")
	o := newTestOpener(t, ra)
	csr := testCSR(t)
	oaep := func(parameters ...[]byte) func(s *envelopeSpec) {
		return func(s *envelopeSpec) {
			s.useOAEP(t, ra)
			s.transport = derSequence(append([][]byte{derOID(oidRSAESOAEP)}, parameters...)...)
		}
	}
	sha256OAEP := derSequence(tlv(0xa0, derAlgorithm(oidSHA256)))
	cipherIs := func(dotted string, parameters ...[]byte) func(s *envelopeSpec) {
		return func(s *envelopeSpec) { s.algorithm = derSequence(append([][]byte{derOID(dotted)}, parameters...)...) }
	}
	tests := []struct {
		name   string
		kind   Kind
		change func(s *envelopeSpec)
	}{
		{"C44: two recipients, both ours", KindMessage, func(s *envelopeSpec) { s.recipients = derSet(s.recipient(), s.recipient()) }},
		{"C44: foreign recipient first", KindMessage, func(s *envelopeSpec) {
			s.recipients = derSet(sealed(t, two, "aes128", csr).recipient(), s.recipient())
		}},
		{"C44: foreign recipient last", KindMessage, func(s *envelopeSpec) {
			s.recipients = derSet(s.recipient(), sealed(t, two, "aes128", csr).recipient())
		}},
		{"no recipient", KindMessage, func(s *envelopeSpec) { s.recipients = derSet() }},
		{"recipients in a SEQUENCE", KindMessage, func(s *envelopeSpec) { s.recipients = derSequence(s.recipient()) }},
		{"C45: the other RA certificate", KindUndecryptable, func(s *envelopeSpec) {
			s.rid = derSequence(two.Certificate.RawIssuer, derBigInt(two.Certificate.SerialNumber))
		}},
		{"C45: our issuer, another serial", KindUndecryptable, func(s *envelopeSpec) { s.rid = derSequence(ra.Certificate.RawIssuer, derInt(9)) }},
		{"C45: our serial, another issuer", KindUndecryptable, func(s *envelopeSpec) {
			s.rid = derSequence(derName("x"), derBigInt(ra.Certificate.SerialNumber))
		}},
		{"C46: recipient by key identifier", KindMessage, func(s *envelopeSpec) { s.riVersion, s.rid = derInt(2), tlv(0x80, make([]byte, 20)) }},
		{"C46: key agreement", KindMessage, func(s *envelopeSpec) { s.recipients = derSet(tlv(0xa1, derInt(3))) }},
		{"C46: key encryption key", KindMessage, func(s *envelopeSpec) { s.recipients = derSet(tlv(0xa2, derInt(4))) }},
		{"C46: password", KindMessage, func(s *envelopeSpec) { s.recipients = derSet(tlv(0xa3, derInt(0))) }},
		{"C46: other recipient", KindMessage, func(s *envelopeSpec) { s.recipients = derSet(tlv(0xa4, derOID("1.2.3"))) }},
		{"C47: version 2", KindMessage, func(s *envelopeSpec) { s.version = derInt(2) }},
		{"C47: version 99", KindMessage, func(s *envelopeSpec) { s.version = derInt(99) }},
		{"C47: version missing", KindMessage, func(s *envelopeSpec) { s.version = nil }},
		{"C47: originatorInfo", KindMessage, func(s *envelopeSpec) { s.originator = tlv(0xa0) }},
		{"C47: unprotected attributes", KindMessage, func(s *envelopeSpec) { s.unprotected = tlv(0xa1, derAttribute("1.2.3", derNull())) }},
		{"C47: recipient version 7", KindMessage, func(s *envelopeSpec) { s.riVersion = derInt(7) }},
		{"C47: a field after the encrypted key", KindMessage, func(s *envelopeSpec) { s.riExtra = derNull() }},
		{"C47: a field after the encrypted content", KindMessage, func(s *envelopeSpec) { s.eciExtra = derNull() }},
		{"C47: a second EnvelopedData", KindMessage, func(s *envelopeSpec) {
			one := mustWalk(t, s.message().content, modeDER).children[1].content
			s.outer = func(tag byte, parts ...[]byte) []byte {
				if tag == 0xa0 {
					return tlv(tag, one, one)
				}
				return tlv(tag, parts...)
			}
		}},
		{"C47: trailing bytes", KindMessage, func(s *envelopeSpec) { s.trailing = []byte{0, 0} }},
		{"C47: content type signedData", KindMessage, func(s *envelopeSpec) { s.contentType = derOID(oidSignedData) }},
		{"C47: content type encryptedData", KindMessage, func(s *envelopeSpec) { s.contentType = derOID("1.2.840.113549.1.7.6") }},
		{"C48: signedData inside", KindMessage, func(s *envelopeSpec) { s.outerType = derOID(oidSignedData) }},
		{"C48: authEnvelopedData", KindMessage, func(s *envelopeSpec) { s.outerType = derOID("1.2.840.113549.1.9.16.1.23") }},
		{"C48: encryptedData", KindMessage, func(s *envelopeSpec) { s.outerType = derOID("1.2.840.113549.1.7.6") }},
		{"C49: rc2", KindAlgorithm, cipherIs("1.2.840.113549.3.2", derSequence(derInt(58), derOctets(make([]byte, 8))))},
		{"C49: rc4", KindAlgorithm, cipherIs("1.2.840.113549.3.4", derNull())},
		{"C49: aes192", KindAlgorithm, cipherIs("2.16.840.1.101.3.4.1.22", derOctets(make([]byte, 16)))},
		{"C49: aes128-gcm", KindAlgorithm, cipherIs("2.16.840.1.101.3.4.1.6", derSequence(derOctets(make([]byte, 12))))},
		{"C49: aes128-cfb", KindAlgorithm, cipherIs("2.16.840.1.101.3.4.1.4", derOctets(make([]byte, 16)))},
		{"C49: aes128-ecb", KindAlgorithm, cipherIs("2.16.840.1.101.3.4.1.1", derOctets(make([]byte, 16)))},
		{"C49: null cipher", KindAlgorithm, cipherIs("1.2.3.4", derNull())},
		{"C51: no IV", KindMessage, cipherIs(oidAES128CBC)},
		{"C51: IV is NULL", KindMessage, cipherIs(oidAES128CBC, derNull())},
		{"C51: IV of 8 bytes", KindMessage, cipherIs(oidAES128CBC, derOctets(make([]byte, 8)))},
		{"C51: IV of 17 bytes", KindMessage, cipherIs(oidAES128CBC, derOctets(make([]byte, 17)))},
		{"C51: IV in pieces", KindMessage, cipherIs(oidAES128CBC, tlv(0x24, derOctets(make([]byte, 16))))},
		{"C51: IV of 16 bytes for des3", KindMessage, cipherIs(oidDES3CBC, derOctets(make([]byte, 16)))},
		{"C55: INTEGER between chunks", KindMessage, func(s *envelopeSpec) {
			s.encrypted = tlv(0xa0, derOctets(make([]byte, 16)), derInt(5), derOctets(make([]byte, 16)))
		}},
		{"C55: nested chunks", KindMessage, func(s *envelopeSpec) { s.encrypted = tlv(0xa0, tlv(0x24, derOctets(make([]byte, 16)))) }},
		{"no encrypted content", KindMessage, func(s *envelopeSpec) { s.encrypted = nil }},
		{"encrypted key in pieces", KindMessage, func(s *envelopeSpec) { s.encryptedKey = tlv(0x24, s.encryptedKey) }},
		{"recipient in BER", KindMessage, func(s *envelopeSpec) {
			s.recipients = derSet(indefinite(0x30, mustWalk(t, s.recipient(), modeDER).content))
		}},
		{"C78: OAEP without parameters", KindAlgorithm, oaep()},
		{"C78: OAEP with NULL", KindAlgorithm, oaep(derNull())},
		{"C78: OAEP with SHA-256", KindAlgorithm, oaep(sha256OAEP)},
		{"C78: OAEP with a label", KindAlgorithm, oaep(derSequence(tlv(0xa2, derSequence(derOID("1.2.840.113549.1.1.9"), derOctets([]byte("x"))))))},
		{"PKCS#1 v1.5 with parameters", KindAlgorithm, func(s *envelopeSpec) { s.transport = derSequence(derOID(oidRSAEncryption), derSequence()) }},
		{"unknown key transport", KindAlgorithm, func(s *envelopeSpec) { s.transport = derAlgorithm("1.2.3") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := sealed(t, ra, "aes128", csr)
			tt.change(s)
			opened := o.Open(s.message())
			if opened.CSR != nil || opened.Err == nil {
				t.Fatalf("opened %+v", opened)
			}
			if opened.Err.Kind != tt.kind {
				t.Errorf("kind %d, want %d: %v", opened.Err.Kind, tt.kind, opened.Err)
			}
		})
	}
	for name, m := range map[string]*Message{"no message": nil, "no content": {}, "content is no element": {content: []byte{0x30}}} {
		if opened := o.Open(m); opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindMessage {
			t.Errorf("%s: %+v", name, opened)
		}
	}
	if opened := (*Opener)(nil).Open(sealed(t, ra, "aes128", csr).message()); opened.Err == nil {
		t.Error("no opener opened")
	}
	if opened := (&Opener{}).Open(sealed(t, ra, "aes128", csr).message()); opened.Err == nil || opened.Err.Kind != KindUndecryptable {
		t.Error("an opener without keys opened")
	}
}

func TestOpenTellsWhereTheRequestFails(t *testing.T) {
	ra := raPair(t, "one")
	o := newTestOpener(t, ra)
	for name, plaintext := range map[string][]byte{
		"D20: IssuerAndSubject": derSequence(derName("a"), derName("b")),
		"junk":                  []byte("junk"),
		"nothing":               {},
		"trailing byte":         append(testCSR(t), 0),
	} {
		opened := o.Open(sealed(t, ra, "aes128", plaintext).message())
		if opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
			t.Errorf("%s: %+v", name, opened)
		}
	}
}

// badKeys are encrypted keys that do not unwrap to an AES-128 key.
func badKeys(t *testing.T, ra RAKey) map[string][]byte {
	size := ra.Certificate.PublicKey.(*rsa.PublicKey).Size()
	padded := func(change func(b []byte)) []byte {
		b := bytes.Repeat([]byte{0xa5}, size)
		b[0], b[1], b[size-17] = 0, 2, 0
		change(b)
		return rawRSA(ra, b)
	}
	good := wrapPKCS1v15(t, ra, make([]byte, 16))
	return map[string][]byte{
		"block type 1":           padded(func(b []byte) { b[1] = 1 }),
		"first byte 1":           padded(func(b []byte) { b[0] = 1 }),
		"no separator":           padded(func(b []byte) { b[size-17] = 1 }),
		"short padding":          padded(func(b []byte) { b[4] = 0 }),
		"key of 15 bytes":        wrapPKCS1v15(t, ra, make([]byte, 15)),
		"C50: key of 32 bytes":   wrapPKCS1v15(t, ra, make([]byte, 32)),
		"key of no bytes":        wrapPKCS1v15(t, ra, nil),
		"zero":                   make([]byte, size),
		"not below the modulus":  bytes.Repeat([]byte{0xff}, size),
		"ciphertext empty":       {},
		"ciphertext of one byte": {1},
		"ciphertext cut":         good[:size-1],
		"ciphertext extended":    append(bytes.Clone(good), 0),
		"ciphertext with a zero": append([]byte{0}, good...),
		"OAEP":                   oaepWrapped(t, ra),
		"random":                 bytes.Repeat([]byte{0x42}, size),
	}
}

func oaepWrapped(t *testing.T, ra RAKey) []byte {
	t.Helper()
	s := &envelopeSpec{key: make([]byte, 16)}
	s.useOAEP(t, ra)
	return mustWalk(t, s.encryptedKey, modeDER).content
}

// threats E01–E03: every failure of the key transport looks the same, and the
// same again when asked again.
func TestFailedKeyTransportsCannotBeToldApart(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	for _, transport := range []string{"pkcs1v15", "oaep_sha1"} {
		counting := &fakeKey{PrivateKey: ra.Key.(*rsa.PrivateKey)}
		o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: counting})
		bad := badKeys(t, ra)
		if transport == "oaep_sha1" {
			delete(bad, "OAEP")
			bad["PKCS#1 v1.5"] = wrapPKCS1v15(t, ra, make([]byte, 16))
		}
		for name, encryptedKey := range bad {
			t.Run(transport+" "+name, func(t *testing.T) {
				s := sealed(t, ra, "aes128", csr)
				s.encryptedKey = derOctets(encryptedKey)
				if transport == "oaep_sha1" {
					s.transport = derSequence(derOID(oidRSAESOAEP), derSequence())
				}
				s.spoil(t)
				want := &Opened{RA: "one", Cipher: "aes128", KeyTransport: transport, Err: &ParseError{Kind: KindUndecryptable, Stage: "content", Err: errUndecryptable}}
				e, perr := parseEnvelope(s.message().content)
				if perr != nil {
					t.Fatal(perr)
				}
				for range 2 {
					before := counting.calls.Load()
					if diff := cmp.Diff(want, o.Open(s.message()), cmp.Comparer(func(a, b error) bool { return a.Error() == b.Error() })); diff != "" {
						t.Errorf("outcome differs:\n%s", diff)
					}
					if n := counting.calls.Load() - before; n != 1 {
						t.Errorf("%d private-key operations", n)
					}
					if !bytes.Equal(o.contentKey(o.keys[0], e), substitute(e)) {
						t.Error("the key gone on with is not the substitute")
					}
				}
			})
		}
	}
}

// Right padding under the substitute, by chance, must not let anything through.
func TestRightPaddingUnderTheSubstituteIsNoRequest(t *testing.T) {
	ra := raPair(t, "one")
	s := sealed(t, ra, "aes128", nil)
	bad := bytes.Repeat([]byte{0x42}, 256)
	s.encryptedKey = derOctets(bad)
	s.key = substitute(&envelope{encryptedKey: bad, cipher: s.cipher})
	s.encrypted = tlv(0x80, s.encrypt(t, append([]byte("no request"), 6, 6, 6, 6, 6, 6)))
	opened := newTestOpener(t, ra).Open(s.message())
	if opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindRequest {
		t.Errorf("opened %+v", opened)
	}
}

func TestSubstitutesDifferBySecretAndCiphertext(t *testing.T) {
	ra := raPair(t, "one")
	other, err := NewOpener([]RAKey{ra}, bytes.Repeat([]byte{8}, 32))
	if err != nil {
		t.Fatal(err)
	}
	o := newTestOpener(t, ra)
	for _, c := range contentCiphers {
		e := &envelope{transport: transportPKCS1v15, cipher: &c, encryptedKey: []byte("a")}
		f := &envelope{transport: transportPKCS1v15, cipher: &c, encryptedKey: []byte("b")}
		a := o.contentKey(o.keys[0], e)
		if len(a) != c.size {
			t.Errorf("%s: substitute of %d bytes", c.name, len(a))
		}
		if bytes.Equal(a, o.contentKey(o.keys[0], f)) || bytes.Equal(a, other.contentKey(other.keys[0], e)) {
			t.Errorf("%s: substitute does not depend on what it must", c.name)
		}
	}
}

// crypto/rsa must take the key for wrong padding from rand; were that to
// change, the substitute would be another at each try. threat E03
func TestStandardLibraryTakesTheSubstituteFromRand(t *testing.T) {
	ra := raPair(t, "one")
	fill := bytes.Repeat([]byte{9}, 16)
	for name, encryptedKey := range badKeys(t, ra) {
		if len(encryptedKey) != 256 || name == "not below the modulus" {
			continue // an error, for which contentKey substitutes
		}
		got, err := ra.Key.Decrypt(bytes.NewReader(fill), encryptedKey, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 16})
		if err != nil || !bytes.Equal(got, fill) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

// threats C52–C54, E05: only the one right padding opens, and all others look
// the same, also a ciphertext of part of a block.
func TestWrongPaddingsCannotBeToldApart(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	for _, cipherName := range []string{"des3", "aes128"} {
		size := cipherNamed(t, cipherName).blockSize()
		counting := &fakeKey{PrivateKey: ra.Key.(*rsa.PrivateKey)}
		o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: counting})
		pad := size - len(csr)%size
		padded := append(bytes.Clone(csr), bytes.Repeat([]byte{byte(pad)}, pad)...)
		want := &Opened{RA: "one", Cipher: cipherName, KeyTransport: "pkcs1v15", Err: &ParseError{Kind: KindUndecryptable, Stage: "content", Err: errUndecryptable}}
		check := func(name string, s *envelopeSpec) {
			t.Helper()
			before := counting.calls.Load()
			if diff := cmp.Diff(want, o.Open(s.message()), cmp.Comparer(func(a, b error) bool { return a.Error() == b.Error() })); diff != "" {
				t.Errorf("%s %s differs:\n%s", cipherName, name, diff)
			}
			if n := counting.calls.Load() - before; n != 1 {
				t.Errorf("%s %s: %d private-key operations", cipherName, name, n)
			}
		}
		for last := range 256 {
			s := sealed(t, ra, cipherName, csr)
			whole := bytes.Clone(padded)
			if last == int(whole[len(whole)-1]) {
				continue
			}
			whole[len(whole)-1] = byte(last)
			if last == 1 { // right padding of one octet, then junk behind the request
				s.encrypted = tlv(0x80, s.encrypt(t, whole))
				if pad > 1 {
					if opened := o.Open(s.message()); opened.Err == nil || opened.Err.Kind != KindRequest {
						t.Errorf("padding 1: %+v", opened)
					}
				}
				continue
			}
			s.encrypted = tlv(0x80, s.encrypt(t, whole))
			check(fmt.Sprintf("last octet %d", last), s)
		}
		for i := len(padded) - pad; i < len(padded)-1; i++ {
			s := sealed(t, ra, cipherName, csr)
			whole := bytes.Clone(padded)
			whole[i] ^= 0x80
			s.encrypted = tlv(0x80, s.encrypt(t, whole))
			check(fmt.Sprintf("padding octet %d", i), s)
		}
		s := sealed(t, ra, cipherName, csr)
		ciphertext := mustWalk(t, s.encrypted, modeDER).content
		for name, cut := range map[string][]byte{
			"C52: one byte missing":  ciphertext[:len(ciphertext)-1],
			"C52: one byte more":     append(bytes.Clone(ciphertext), 0),
			"C52: 17 bytes":          ciphertext[:17],
			"C52: less than a block": ciphertext[:3],
			"C52: nothing":           {},
		} {
			s := sealed(t, ra, cipherName, csr)
			s.encrypted = tlv(0x80, cut)
			check(name, s)
		}
	}
}

func TestUnpad(t *testing.T) {
	for count := range 256 {
		padded := append(bytes.Repeat([]byte{0xee}, 16), bytes.Repeat([]byte{byte(count)}, 16)...)
		length, ok := unpad(padded, 16)
		if want := count >= 1 && count <= 16; (ok == 1) != want || ok == 1 && length != 32-count || ok != 1 && length != 32 {
			t.Errorf("padding of %d: length %d, ok %d", count, length, ok)
		}
		if count < 2 || count > 16 {
			continue
		}
		for i := 32 - count; i < 31; i++ {
			wrong := bytes.Clone(padded)
			wrong[i]++
			if length, ok := unpad(wrong, 16); ok != 0 || length != 32 {
				t.Errorf("padding of %d with octet %d wrong: length %d, ok %d", count, i, length, ok)
			}
		}
	}
	if length, ok := unpad(bytes.Repeat([]byte{16}, 16), 16); ok != 1 || length != 0 {
		t.Errorf("a block of padding: length %d, ok %d", length, ok)
	}
}

// fakeKey is a private key behind a token library of some temper. threat E04
type fakeKey struct {
	*rsa.PrivateKey
	calls   atomic.Int64
	decrypt func(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error)
}

func (k *fakeKey) Decrypt(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	k.calls.Add(1)
	if k.decrypt != nil {
		return k.decrypt(rand, ciphertext, opts)
	}
	return k.PrivateKey.Decrypt(rand, ciphertext, opts)
}

var errToken = errors.New("CKR_GENERAL_ERROR")

// refusesSessionKeyLen behaves as PKCS#11 wrappers do.
func refusesSessionKeyLen(key *rsa.PrivateKey) func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
	return func(r io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
		if o, ok := opts.(*rsa.PKCS1v15DecryptOptions); ok && o.SessionKeyLen != 0 {
			return nil, errors.New("unsupported options")
		}
		return key.Decrypt(r, ciphertext, opts)
	}
}

// ignoresSessionKeyLen gives an error for wrong padding whatever it was asked.
func ignoresSessionKeyLen(key *rsa.PrivateKey) func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
	return func(r io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
		if _, ok := opts.(*rsa.PKCS1v15DecryptOptions); ok {
			opts = &rsa.PKCS1v15DecryptOptions{}
		}
		return key.Decrypt(r, ciphertext, opts)
	}
}

// ignoresRand fills the key for wrong padding from randomness of its own.
func ignoresRand(key *rsa.PrivateKey) func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
	return func(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
		return key.Decrypt(rand.Reader, ciphertext, opts)
	}
}

func TestKeysBehindTokensOpenAndSubstitute(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	real := ra.Key.(*rsa.PrivateKey)
	for name, decrypt := range map[string]func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error){
		"refuses SessionKeyLen": refusesSessionKeyLen(real),
		"ignores SessionKeyLen": ignoresSessionKeyLen(real),
		"ignores rand":          ignoresRand(real),
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeKey{PrivateKey: real, decrypt: decrypt}
			o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: fake})
			if err := o.SelfTest(); err != nil {
				t.Fatal(err)
			}
			before := fake.calls.Load()
			if opened := o.Open(sealed(t, ra, "aes128", csr).message()); opened.Err != nil {
				t.Error(opened.Err)
			}
			if n := fake.calls.Load() - before; n != 1 {
				t.Errorf("%d private-key operations", n)
			}
			for bad, encryptedKey := range badKeys(t, ra) {
				s := sealed(t, ra, "aes128", csr)
				s.encryptedKey = derOctets(encryptedKey)
				e, perr := parseEnvelope(s.message().content)
				if perr != nil {
					t.Fatal(perr)
				}
				if !bytes.Equal(o.contentKey(o.keys[0], e), substitute(e)) {
					t.Errorf("%s: the key gone on with is not the substitute", bad)
				}
			}
		})
	}
}

func TestBrokenKeysSubstituteAndFailTheSelfTest(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	for name, decrypt := range map[string]func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error){
		"error":              func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return nil, errToken },
		"error with a key":   func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return make([]byte, 16), errToken },
		"panic":              func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { panic("token gone") },
		"panic of nil error": func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { panic(error(nil)) },
		"nothing":            func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return nil, nil },
		"short key":          func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return make([]byte, 15), nil },
		"long key":           func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return make([]byte, 17), nil },
		"very long key":      func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return make([]byte, 1<<20), nil },
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeKey{PrivateKey: ra.Key.(*rsa.PrivateKey)}
			o := newTestOpener(t, RAKey{Name: "one", Certificate: ra.Certificate, Key: fake})
			fake.decrypt = decrypt
			for _, oaep := range []bool{false, true} {
				s := sealed(t, ra, "aes128", csr)
				if oaep {
					s.useOAEP(t, ra)
				}
				s.spoil(t)
				opened := o.Open(s.message())
				if opened.CSR != nil || opened.Err == nil || opened.Err.Kind != KindUndecryptable || opened.Err.Error() != "content: "+errUndecryptable.Error() {
					t.Errorf("opened %+v", opened)
				}
			}
			if err := o.SelfTest(); err == nil || !strings.Contains(err.Error(), "ra one") {
				t.Errorf("self-test of a broken key: %v", err)
			}
			if _, err := NewOpener([]RAKey{{Name: "one", Certificate: ra.Certificate, Key: fake}}, testSecret); err == nil {
				t.Error("opener made of a broken key")
			}
			fake.decrypt = nil
			if err := o.SelfTest(); err != nil {
				t.Errorf("self-test after recovery: %v", err)
			}
		})
	}
}

func TestKeyThatAcceptsAnyPaddingFailsTheSelfTest(t *testing.T) {
	ra := raPair(t, "one")
	fake := &fakeKey{PrivateKey: ra.Key.(*rsa.PrivateKey)}
	fake.decrypt = func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) {
		return bytes.Repeat([]byte{0x5c}, 16), nil
	}
	if _, err := NewOpener([]RAKey{{Name: "one", Certificate: ra.Certificate, Key: fake}}, testSecret); err == nil {
		t.Error("accepted")
	}
}

func TestNewOpenerRefuses(t *testing.T) {
	one, two := raPair(t, "one"), raPair(t, "two")
	small, err := smallKey()
	if err != nil {
		t.Fatal(err)
	}
	ecName := RAKey{Name: "ec", Certificate: ecCA(t), Key: one.Key}
	tests := []struct {
		name   string
		keys   []RAKey
		secret []byte
		ok     bool
	}{
		{"one key", []RAKey{one}, testSecret, true},
		{"two keys", []RAKey{one, two}, testSecret, true},
		{"a key of 1024 bits", []RAKey{{"small", newCA(t, "small", small), small}}, testSecret, true},
		{"no key", nil, testSecret, false},
		{"no secret", []RAKey{one}, nil, false},
		{"secret of 31 bytes", []RAKey{one}, testSecret[:31], false},
		{"certificate missing", []RAKey{{"one", nil, one.Key}}, testSecret, false},
		{"key missing", []RAKey{{"one", one.Certificate, nil}}, testSecret, false},
		{"key of another certificate", []RAKey{{"one", one.Certificate, two.Key}}, testSecret, false},
		{"EC certificate", []RAKey{ecName}, testSecret, false},
		{"the same certificate twice", []RAKey{one, {"again", one.Certificate, one.Key}}, testSecret, false},
		{"one name twice", []RAKey{one, {"one", two.Certificate, two.Key}}, testSecret, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := NewOpener(tt.keys, tt.secret)
			if (err == nil) != tt.ok || (o != nil) != tt.ok {
				t.Errorf("opener %v, error %v", o, err)
			}
		})
	}
	if (&Opener{}).SelfTest() == nil || (*Opener)(nil).SelfTest() == nil {
		t.Error("an opener without keys passes its self-test")
	}
}

func TestOpenIsSafeForConcurrentUse(t *testing.T) {
	ra, csr := raPair(t, "one"), testCSR(t)
	o := newTestOpener(t, ra)
	m := sealed(t, ra, "aes256", csr).message()
	bad := sealed(t, ra, "aes256", csr)
	bad.encryptedKey = derOctets(make([]byte, 256))
	badMessage := bad.message()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				if opened := o.Open(m); opened.Err != nil {
					t.Error(opened.Err)
				}
				if opened := o.Open(badMessage); opened.Err == nil {
					t.Error("opened")
				}
			}
		})
	}
	wg.Wait()
}

func TestCapturedAppleRequestIsForNobodyHere(t *testing.T) {
	m, err := ParseMessage(vector(t, "PKCSReq.der"))
	if err != nil {
		t.Fatal(err)
	}
	opened := newTestOpener(t, raPair(t, "one")).Open(m)
	if opened.Err == nil || opened.Err.Kind != KindUndecryptable || opened.RA != "" || opened.Cipher != "des3" || opened.KeyTransport != "pkcs1v15" {
		t.Errorf("opened %+v", opened)
	}
}

func BenchmarkOpen(b *testing.B) {
	ra, csr := raPair(b, "one"), testCSR(b)
	o := newTestOpener(b, ra)
	good := sealed(b, ra, "aes128", csr)
	bad := sealed(b, ra, "aes128", csr)
	bad.encryptedKey = derOctets(bytes.Repeat([]byte{0x42}, 256))
	for name, m := range map[string]*Message{"good": good.message(), "substitute": bad.message()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o.Open(m)
			}
		})
	}
}
