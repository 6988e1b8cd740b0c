package caddymodule

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/wire"
	"github.com/scepgate/scepgate/store"
)

// token is the RA key behind a library that counts, and that can be told to
// behave as real ones do when they do not behave.
type token struct {
	*rsa.PrivateKey
	mu       sync.Mutex
	asked    []crypto.DecrypterOpts
	operands [][]byte
	signed   int
	decrypt  func(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error)
}

func (k *token) Decrypt(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	k.mu.Lock()
	k.asked = append(k.asked, opts)
	k.operands = append(k.operands, bytes.Clone(ciphertext))
	decrypt := k.decrypt
	k.mu.Unlock()
	if decrypt != nil {
		return decrypt(rand, ciphertext, opts)
	}
	return k.PrivateKey.Decrypt(rand, ciphertext, opts)
}

func (k *token) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	k.signed++
	k.mu.Unlock()
	return k.PrivateKey.Sign(rand, digest, opts)
}

// witness is a store that remembers what it was asked, in order.
type witness struct {
	store.Store
	mu      sync.Mutex
	calls   []string
	lookups []store.Lookup
}

func (s *witness) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *witness) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	s.note("find")
	s.mu.Lock()
	s.lookups = append(s.lookups, l)
	s.mu.Unlock()
	return s.Store.Find(ctx, l)
}

func (s *witness) Get(ctx context.Context, profile, id string) (store.Expectation, error) {
	s.note("get")
	return s.Store.Get(ctx, profile, id)
}

func (s *witness) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	s.note("claim")
	return s.Store.Claim(ctx, c)
}

func (s *witness) Settle(ctx context.Context, t store.Settlement) (store.Expectation, error) {
	s.note("settle")
	return s.Store.Settle(ctx, t)
}

func (s *witness) Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev store.Event) (store.Expectation, bool, error) {
	s.note("mismatch")
	return s.Store.Mismatch(ctx, profile, id, identity, max, ev)
}

// oracle is a world whose key and store are watched, in which the honest
// request is registered: whatever is opened after all is forwarded.
type oracle struct {
	*world
	token   *token
	store   *witness
	request []byte // the honest PKCS#10
	signer  []byte
}

func newOracle(t *testing.T) *oracle {
	o := &oracle{world: newWorld(t), token: &token{PrivateKey: siteRAKey()}}
	hasher := must(gate.NewHasher(make([]byte, 32)))
	opener := must(inspector.NewOpener([]inspector.RAKey{{Name: "ndes1", Certificate: o.ra, Key: o.token}}, hasher.SubstituteSecret()))
	o.files(func(f *profileFiles) {
		f.opener = opener
		f.refusal = &refusalIdentity{certificate: o.ra, key: o.token}
	})
	o.store = &witness{Store: o.house.store}
	o.house.store = o.store
	o.register()

	r := wire.Request{
		Key:        deviceKey(),
		Subject:    wire.Name(wire.RDN(wire.ATV(wire.OIDOrganization, wire.UTF8("Example Corp"))), wire.RDN(wire.ATV(wire.OIDCommonName, wire.UTF8("device")))),
		Challenge:  [][]byte{wire.ChallengePassword(wire.Printable(canaryChallenge))},
		Extensions: [][]byte{wire.KeyUsage(5, 0xa0)},
	}
	o.request = r.Bytes()
	o.signer = wire.SelfSigned("device", deviceKey())
	o.token.asked, o.token.operands, o.token.signed = nil, nil, 0 // the self-test's
	return o
}

// message is the honest one, its content or envelope changed, always of the same
// transaction and nonce: what then differs in the answers is for a reason.
func (o *oracle) message(plaintext []byte, change func(*wire.Envelope)) []byte {
	m := wire.Message{
		Plaintext: plaintext,
		Envelope:  wire.Envelope{To: o.ra, Cipher: wire.OIDAES128CBC},
		SignedData: wire.SignedData{Signer: wire.Signer{
			Key: deviceKey(), Certificate: o.signer, MessageType: "19",
			TransactionID: "0123456789ABCDEF", SenderNonce: bytes.Repeat([]byte{0x6e}, 16),
		}},
	}
	if change != nil {
		change(&m.Envelope)
	}
	return m.Bytes()
}

// class is one way to fail.
type class struct {
	name    string
	message []byte
}

// textbook is RSA without padding: the block is encrypted as it is.
func (o *oracle) textbook(block []byte) []byte {
	public := o.ra.PublicKey.(*rsa.PublicKey)
	c := new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(public.E)), public.N)
	return c.FillBytes(make([]byte, public.Size()))
}

// keyClasses fail in the key transport, over an intact content.
func (o *oracle) keyClasses() []class {
	public := o.ra.PublicKey.(*rsa.PublicKey)
	n, size := public.N, public.Size()
	key := bytes.Repeat([]byte{0x3d}, 16)
	number := func(i *big.Int) []byte { return i.FillBytes(make([]byte, size)) }
	plus := func(d int64) []byte { return number(new(big.Int).Add(n, big.NewInt(d))) }
	pkcs1 := func(change func(block []byte)) []byte {
		block := bytes.Repeat([]byte{0xa5}, size)
		block[0], block[1], block[size-17] = 0, 2, 0
		copy(block[size-16:], key)
		change(block)
		return o.textbook(block)
	}
	wrapped := func(to *rsa.PublicKey, key []byte) []byte { return must(rsa.EncryptPKCS1v15(rand.Reader, to, key)) }
	good := wrapped(public, key)
	// Bleichenbacher's step: what decrypts to the block times s.
	times := func(s int64) []byte {
		c := new(big.Int).SetBytes(o.textbook(big.NewInt(s).Bytes()))
		return number(c.Mul(c, new(big.Int).SetBytes(good)).Mod(c, n))
	}
	both := map[string][]byte{ // no decryption, or one that is nothing, under either padding
		"encrypted for another key":      wrapped(&strangerKey().PublicKey, key),
		"encryptedKey empty":             {},
		"encryptedKey of one byte":       {2},
		"encryptedKey shorter by one":    good[:size-1],
		"encryptedKey longer by one":     append(bytes.Clone(good), 0),
		"encryptedKey longer by a zero":  append([]byte{0}, good...),
		"encryptedKey twice as long":     append(bytes.Clone(good), good...),
		"encryptedKey = 0":               make([]byte, size),
		"encryptedKey = 1":               number(big.NewInt(1)),
		"encryptedKey = 2":               number(big.NewInt(2)),
		"encryptedKey = N-1":             plus(-1),
		"encryptedKey = N":               plus(0),
		"encryptedKey = N+1":             plus(1),
		"encryptedKey = 2^2048-1":        bytes.Repeat([]byte{0xff}, size),
		"encryptedKey junk":              append([]byte{0x42}, wire.Random(size-1)...)[:size],
		"multiplied by 2^e":              times(2),
		"multiplied by 3^e":              times(3),
		"multiplied by a large number^e": times(0x0123456789abcdef),
	}
	v15 := map[string][]byte{
		"00 01":                       pkcs1(func(b []byte) { b[1] = 1 }),
		"00 00":                       pkcs1(func(b []byte) { b[1] = 0 }),
		"01 02":                       pkcs1(func(b []byte) { b[0] = 1 }),
		"no separator":                pkcs1(func(b []byte) { b[size-17] = 0xa5 }),
		"no separator, no zero":       pkcs1(func(b []byte) { copy(b[2:], bytes.Repeat([]byte{0xa5}, size-2)) }),
		"no padding at all":           pkcs1(func(b []byte) { b[2] = 0 }),
		"padding of seven":            pkcs1(func(b []byte) { b[9] = 0 }),
		"padding of eight":            pkcs1(func(b []byte) { b[10] = 0 }), // right padding, a key of 245
		"key of no bytes":             wrapped(public, nil),
		"key of one byte":             wrapped(public, key[:1]),
		"key of 15":                   wrapped(public, key[:15]),
		"key of 17":                   wrapped(public, append(key[:16:16], 1)),
		"key of 24":                   wrapped(public, make([]byte, 24)),
		"key of 32":                   wrapped(public, make([]byte, 32)),
		"another key of 16":           wrapped(public, make([]byte, 16)),
		"OAEP under the name of v1.5": must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, key, nil)),
	}
	oaep := func(change func(em, db []byte)) []byte {
		em := make([]byte, size)
		seed, db := em[1:21], em[21:]
		copy(seed, wire.Random(len(seed)))
		label := sha1.Sum(nil)
		copy(db, label[:])
		db[len(db)-17] = 1
		copy(db[len(db)-16:], key)
		change(em, db)
		xorMGF1(db, seed)
		xorMGF1(seed, db)
		return o.textbook(em)
	}
	oaepClasses := map[string][]byte{
		"first byte not zero (Manger)": oaep(func(em, _ []byte) { em[0] = 1 }),
		"another label":                must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, key, []byte("x"))),
		"one bit of the label's hash":  oaep(func(_, db []byte) { db[19] ^= 1 }),
		"SHA-256":                      must(rsa.EncryptOAEP(sha256.New(), rand.Reader, public, key, nil)),
		"no separator":                 oaep(func(_, db []byte) { clear(db[20:]) }),
		"junk before the separator":    oaep(func(_, db []byte) { db[20] = 7 }),
		"key of no bytes":              must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, nil, nil)),
		"key of 15":                    must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, key[:15], nil)),
		"key of 24":                    must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, make([]byte, 24), nil)),
		"key of 32":                    must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, make([]byte, 32), nil)),
		"another key of 16":            must(rsa.EncryptOAEP(sha1.New(), rand.Reader, public, make([]byte, 16), nil)),
		"v1.5 under the name of OAEP":  good,
	}
	var out []class
	add := func(transport string, algorithm []byte, classes ...map[string][]byte) {
		for _, some := range classes {
			for name, encrypted := range some {
				out = append(out, class{transport + ": " + name, o.message(o.request, func(e *wire.Envelope) {
					e.Key = key
					e.Recipient = wire.Recipient{Algorithm: algorithm, EncryptedKey: encrypted}
				})})
			}
		}
	}
	add("PKCS#1 v1.5", nil, both, v15)
	add("OAEP", wire.Algorithm(wire.OIDRSAESOAEP, wire.Sequence()), both, oaepClasses)
	for oid, lengths := range map[string][]int{wire.OIDDES3CBC: {8, 16, 23, 25}, wire.OIDAES256CBC: {16, 24, 31, 33}} { // threat C50
		for _, l := range lengths {
			out = append(out, class{fmt.Sprintf("a key of %d for %s", l, oid), o.message(o.request, func(e *wire.Envelope) {
				e.Cipher = oid
				e.Recipient.EncryptedKey = wrapped(public, make([]byte, l))
			})})
		}
	}
	return out
}

// xorMGF1 is MGF1 of SHA-1 (RFC 8017 §B.2.1).
func xorMGF1(out, seed []byte) {
	var stream []byte
	for counter := uint32(0); len(stream) < len(out); counter++ {
		block := sha1.Sum(binary.BigEndian.AppendUint32(bytes.Clone(seed), counter))
		stream = append(stream, block[:]...)
	}
	for i := range out {
		out[i] ^= stream[i]
	}
}

// contentClasses fail behind a right content key.
func (o *oracle) contentClasses() []class {
	var out []class
	for name, oid := range map[string]string{"AES-128": wire.OIDAES128CBC, "AES-256": wire.OIDAES256CBC, "3DES": wire.OIDDES3CBC} {
		block := 16
		if oid == wire.OIDDES3CBC {
			block = 8
		}
		add := func(what string, plaintext []byte, change func(*wire.Envelope)) {
			out = append(out, class{name + ": " + what, o.message(plaintext, func(e *wire.Envelope) {
				e.Cipher = oid
				change(e)
			})})
		}
		pad := block - len(o.request)%block
		for last := range 256 { // threats C53, C54, E05
			if last == pad || oid == wire.OIDAES256CBC && last > 20 {
				continue
			}
			add(fmt.Sprintf("last octet %d", last), o.request, func(e *wire.Envelope) {
				e.Pad = func(plaintext []byte, block int) []byte {
					padded := wire.PadPKCS7(plaintext, block)
					padded[len(padded)-1] = byte(last)
					return padded
				}
			})
		}
		for i := range pad - 1 {
			add(fmt.Sprintf("padding octet %d", i), o.request, func(e *wire.Envelope) {
				e.Pad = func(plaintext []byte, block int) []byte {
					padded := wire.PadPKCS7(plaintext, block)
					padded[len(plaintext)+i] ^= 0x80
					return padded
				}
			})
		}
		add("padding of nothing", o.request, func(e *wire.Envelope) {
			e.Pad = func(plaintext []byte, block int) []byte {
				return append(wire.PadPKCS7(plaintext, block), make([]byte, block)...)
			}
		})
		sealed := func(e *wire.Envelope) []byte { // what an honest device would have sent
			honest := *e
			honest.Ciphertext = nil
			content := honest.Bytes(o.request)
			e.Key, e.IV = honest.Key, honest.IV
			length := len(o.request) + pad
			return bytes.Clone(content[len(content)-length:])
		}
		for what, change := range map[string]func(ciphertext []byte) []byte{ // threat C52
			"ciphertext empty":          func([]byte) []byte { return []byte{} },
			"ciphertext of one byte":    func(c []byte) []byte { return c[:1] },
			"ciphertext of 3 bytes":     func(c []byte) []byte { return c[:3] },
			"ciphertext of one block":   func(c []byte) []byte { return c[:block] },
			"ciphertext of 17 bytes":    func(c []byte) []byte { return c[:17] },
			"one byte missing":          func(c []byte) []byte { return c[:len(c)-1] },
			"one byte more":             func(c []byte) []byte { return append(c, 0) },
			"last block missing":        func(c []byte) []byte { return c[:len(c)-block] },
			"a block more":              func(c []byte) []byte { return append(c, make([]byte, block)...) },
			"last block twice":          func(c []byte) []byte { return append(c, c[len(c)-block:]...) },
			"a bit of the last block":   func(c []byte) []byte { c[len(c)-1] ^= 1; return c },
			"a bit of the one before":   func(c []byte) []byte { c[len(c)-block-1] ^= 1; return c },
			"a bit of the first block":  func(c []byte) []byte { c[0] ^= 1; return c },
			"a bit in the middle":       func(c []byte) []byte { c[len(c)/2] ^= 1; return c },
			"all blocks but in reverse": func(c []byte) []byte { slices.Reverse(c); return c },
		} {
			add(what, o.request, func(e *wire.Envelope) { e.Ciphertext = change(sealed(e)) })
		}
		add("another IV", o.request, func(e *wire.Envelope) {
			e.Ciphertext = sealed(e)
			e.IV[1] ^= 1
		})
		unsigned := bytes.Clone(o.request)
		unsigned[len(unsigned)-1] ^= 1
		for what, plaintext := range map[string][]byte{
			"no plaintext":                 {},
			"junk":                         []byte("junk"),
			"blocks of junk":               wire.Random(640),
			"issuer and subject":           wire.Sequence(wire.CommonName("ca"), wire.CommonName("device")),
			"a signature that is not":      unsigned,
			"a byte after the request":     append(bytes.Clone(o.request), 0),
			"a block after the request":    append(bytes.Clone(o.request), make([]byte, 17)...),
			"half a request":               o.request[:len(o.request)/2],
			"a request without its last":   o.request[:len(o.request)-1],
			"a certificate, not a request": o.signer,
		} {
			add(what, plaintext, func(*wire.Envelope) {})
		}
	}
	return out
}

// openClasses are refused for what everybody can read in the envelope.
func (o *oracle) openClasses() []class {
	stranger := issueCertificate(o.t, newSiteRATemplate(), nil, strangerKey().Public(), strangerKey())
	iv := func(n int) func(*wire.Envelope) {
		return func(e *wire.Envelope) {
			e.CipherField = wire.Algorithm(wire.OIDAES128CBC, wire.Octets(make([]byte, n)))
		}
	}
	oaep := func(parameters ...[]byte) func(*wire.Envelope) {
		return func(e *wire.Envelope) { e.Recipient.Algorithm = wire.Algorithm(wire.OIDRSAESOAEP, parameters...) }
	}
	var out []class
	for name, change := range map[string]func(*wire.Envelope){
		"another recipient": func(e *wire.Envelope) { e.To = stranger },
		"another serial":    func(e *wire.Envelope) { e.Recipient.ID = wire.Sequence(o.ra.RawIssuer, wire.Int(9)) },
		"two recipients":    func(e *wire.Envelope) { r := e.RecipientInfo(wire.Recipient{}); e.Recipients = [][]byte{r, r} },
		"no recipient":      func(e *wire.Envelope) { e.Recipients = [][]byte{} },
		"IV empty":          iv(0),
		"IV of 8":           iv(8),
		"IV of 15":          iv(15),
		"IV of 17":          iv(17),
		"no IV":             func(e *wire.Envelope) { e.CipherField = wire.Algorithm(wire.OIDAES128CBC) },
		"RC2":               func(e *wire.Envelope) { e.CipherField = wire.Algorithm(wire.OIDRC2CBC, wire.Octets(make([]byte, 8))) },
		"AES-192": func(e *wire.Envelope) {
			e.CipherField = wire.Algorithm(wire.OIDAES192CBC, wire.Octets(make([]byte, 16)))
		},
		"AES-128-GCM": func(e *wire.Envelope) {
			e.CipherField = wire.Algorithm(wire.OIDAES128GCM, wire.Octets(make([]byte, 12)))
		},
		"OAEP with SHA-256":       oaep(wire.Sequence(wire.Explicit(0, wire.Algorithm(wire.OIDSHA256)))),
		"OAEP without parameters": oaep([]byte{}),
		"OAEP with a label":       oaep(wire.Sequence(wire.Explicit(2, wire.Algorithm(wire.OIDPSpecified, wire.Octets([]byte("x")))))),
		"no content":              func(e *wire.Envelope) { e.ContentField = []byte{} },
		"a chunk that is none":    func(e *wire.Envelope) { e.ContentField = wire.Explicit(0, wire.Octets(make([]byte, 16)), wire.Int(5)) },
		"trailing bytes":          func(e *wire.Envelope) { e.After = []byte{0, 0} },
	} {
		out = append(out, class{name, o.message(o.request, change)})
	}
	return out
}

// outcome is what came of one request, outside and inside.
type outcome struct {
	Code    int
	Header  map[string][]string
	Body    []byte // without nonce and signature
	Log     string
	Reason  string
	Finding []gate.Finding
	Store   []string
	Asked   []crypto.DecrypterOpts
	Signed  int
}

// outside is what the device can see of it.
func (a outcome) outside() outcome { return outcome{Code: a.Code, Header: a.Header, Body: a.Body} }

func (o *oracle) try(message []byte) outcome {
	o.t.Helper()
	calls, lookups, asked, operands, signed := len(o.store.calls), len(o.store.lookups), len(o.token.asked), len(o.token.operands), o.token.signed
	rec := o.serve(post(message))
	decisions := o.decisions()
	last := decisions[len(decisions)-1]
	a := outcome{
		Code: rec.Code, Header: rec.Header(), Body: withoutWhatMayDiffer(o.t, rec),
		Log: last.Message, Reason: last.ContextMap()["reason"].(string),
		Store: o.store.calls[calls:], Asked: o.token.asked[asked:], Signed: o.token.signed - signed,
	}
	for _, f := range last.Context {
		if f.Key == "findings" {
			a.Finding = f.Interface.([]gate.Finding)
		}
	}
	for _, l := range o.store.lookups[lookups:] {
		if l.Profile != "wifi" || len(l.ChallengeHash) != 32 || l.IdentityHash != nil || l.TransactionID == "" {
			o.t.Errorf("the store was asked %+v", l)
		}
		for _, before := range o.store.lookups[:lookups] {
			if bytes.Equal(l.ChallengeHash, before.ChallengeHash) {
				o.t.Error("the store was asked for the same key twice")
			}
		}
	}
	for _, c := range o.token.operands[operands:] {
		if len(c) != o.token.Size() || new(big.Int).SetBytes(c).Cmp(o.token.N) >= 0 {
			o.t.Errorf("the key was asked for what has no decryption, %d bytes", len(c))
		}
	}
	return a
}

// withoutWhatMayDiffer gives a CertRep with senderNonce and signature zeroed.
func withoutWhatMayDiffer(t *testing.T, rec *httptest.ResponseRecorder) []byte {
	t.Helper()
	body := bytes.Clone(rec.Body.Bytes())
	rep, err := inspector.ParseCertRep(body)
	if err != nil || len(body) < 256 {
		t.Fatalf("%d, no CertRep: %v", rec.Code, err)
	}
	clear(body[len(body)-256:])
	return bytes.Replace(body, rep.SenderNonce, make([]byte, len(rep.SenderNonce)), 1)
}

// The control for all the tests of this file: the same builder, nothing changed.
func TestTheOraclesHonestMessageIsForwarded(t *testing.T) {
	o := newOracle(t)
	rec := o.serve(post(o.message(o.request, nil)))
	if _, reason := o.lastReason(); rec.Code != 200 || reason != "ok" || len(o.ndes.enrolments()) != 1 {
		t.Errorf("%d, %s: %v", rec.Code, reason, o.decisions())
	}
}

// threats C49–C55, C78, D28, E01–E05: a message that cannot be opened gets the
// same answer byte for byte, whatever is wrong with it, and whenever it is asked
// again. Each of them costs one decryption and one signature, and asks the store
// once. What is refused for what stands on the envelope, for everybody to read,
// costs no decryption, and gets the same answer too.
func TestNobodyCanTellHowAMessageFailedToOpen(t *testing.T) {
	o := newOracle(t)
	wrongChallenge := wire.Request{Key: deviceKey(), Subject: wire.CommonName("device"), Challenge: [][]byte{wire.ChallengePassword(wire.Printable("another challenge"))}}
	want := o.try(o.message(wrongChallenge.Bytes(), nil)).outside()

	check := func(c class, operations, times int) {
		t.Helper()
		var first outcome
		for i := range times {
			got := o.try(c.message)
			if diff := cmp.Diff(want, got.outside()); diff != "" {
				t.Errorf("%s: the answer differs from that to an unknown challenge:\n%s", c.name, diff)
			}
			if got.Log != "enrollment refused" || got.Reason == "ok" || got.Reason == "challenge_unknown" || len(got.Finding) == 0 {
				t.Errorf("%s: %s, %s, %v", c.name, got.Log, got.Reason, got.Finding)
			}
			if !slices.Equal(got.Store, []string{"find"}) {
				t.Errorf("%s: the store was asked %v", c.name, got.Store)
			}
			if len(got.Asked) != operations || got.Signed != 1 {
				t.Errorf("%s: %d decryptions and %d signatures", c.name, len(got.Asked), got.Signed)
			}
			for _, options := range got.Asked {
				switch opts := options.(type) {
				case *rsa.PKCS1v15DecryptOptions:
					if !slices.Contains([]int{16, 24, 32}, opts.SessionKeyLen) {
						t.Errorf("%s: the key was asked without a length", c.name)
					}
				case *rsa.OAEPOptions:
					if opts.Hash != crypto.SHA1 || len(opts.Label) != 0 {
						t.Errorf("%s: %+v", c.name, opts)
					}
				default:
					t.Errorf("%s: the key was asked with %T", c.name, options)
				}
			}
			if i == 0 {
				first = got
			} else if diff := cmp.Diff(first, got); diff != "" { // threat E03
				t.Errorf("%s: another outcome the second time:\n%s", c.name, diff)
			}
		}
	}
	for _, c := range o.keyClasses() {
		check(c, 1, 2)
	}
	for _, c := range o.contentClasses() {
		check(c, 1, 1)
	}
	for _, c := range o.openClasses() {
		check(c, 0, 1)
	}
	if n := len(o.ndes.seen); n != 0 {
		t.Errorf("NDES was asked %d times", n)
	}
	e := must(o.store.List(t.Context(), store.Query{Profile: "wifi", Limit: 10})).Items
	if len(e) != 1 || e[0].State != store.Registered {
		t.Errorf("the expectation was touched: %+v", e)
	}
}

// threats E04, E35: nor by what the key, or the token it is in, makes of it.
func TestNobodyCanTellWhatTheTokenDid(t *testing.T) {
	o := newOracle(t)
	wrong := o.message(o.request, func(e *wire.Envelope) { e.Recipient.EncryptedKey = make([]byte, 256) })
	want := o.try(wrong)
	messages := []class{
		{"honest", o.message(o.request, nil)},
		{"honest, OAEP", o.message(o.request, func(e *wire.Envelope) {
			e.Recipient = wire.Recipient{
				Algorithm:    wire.Algorithm(wire.OIDRSAESOAEP, wire.Sequence()),
				EncryptedKey: must(rsa.EncryptOAEP(sha1.New(), rand.Reader, o.ra.PublicKey.(*rsa.PublicKey), e.ContentKey(), nil)),
			}
		})},
		{"no decryption", o.message(o.request, func(e *wire.Envelope) { e.Recipient.EncryptedKey = bytes.Repeat([]byte{0xff}, 256) })},
		{"encryptedKey empty", o.message(o.request, func(e *wire.Envelope) { e.Recipient.EncryptedKey = []byte{} })},
		{"encryptedKey = 0", wrong},
	}
	type decrypt = func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error)
	gives := func(n int, err error) decrypt {
		return func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return make([]byte, n), err }
	}
	for name, behaviour := range map[string]decrypt{
		"error":             gives(0, errBroken),
		"error with a key":  gives(16, errBroken),
		"nothing":           func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { return nil, nil },
		"another key":       gives(16, nil),
		"key of 15":         gives(15, nil),
		"key of 17":         gives(17, nil),
		"key of a megabyte": gives(1<<20, nil),
		"panic":             func(io.Reader, []byte, crypto.DecrypterOpts) ([]byte, error) { panic("CKR_DEVICE_REMOVED") },
		"panic with an error": func(_ io.Reader, c []byte, _ crypto.DecrypterOpts) ([]byte, error) {
			return nil, fmt.Errorf("%d", c[len(c)]) // index out of range
		},
		"rand read to its end, then an error": func(r io.Reader, _ []byte, _ crypto.DecrypterOpts) ([]byte, error) {
			_, err := io.Copy(io.Discard, r)
			return nil, err
		},
	} {
		o.token.decrypt = behaviour
		for _, m := range messages {
			for range 2 {
				got := o.try(m.message)
				if diff := cmp.Diff(want.outside(), got.outside()); diff != "" {
					t.Errorf("%s, %s: the answer differs:\n%s", name, m.name, diff)
				}
				if got.Log != "enrollment refused" || !slices.Equal(got.Store, []string{"find"}) || len(got.Asked) != 1 || got.Signed != 1 {
					t.Errorf("%s, %s: %+v", name, m.name, got)
				}
			}
		}
	}
	if n := len(o.ndes.seen); n != 0 {
		t.Errorf("NDES was asked %d times", n)
	}
	o.token.decrypt = nil
	if rec := o.serve(post(messages[0].message)); rec.Code != 200 || isRefusal(rec) {
		t.Error("the honest message is refused after the token recovered")
	}
}

// threats D29, E04, E06: a token that takes longer for some failures than for
// others is hidden by the floor.
func TestASlowTokenIsHiddenByTheFloor(t *testing.T) {
	o := newOracle(t)
	o.g.RefusalFloor = caddy.Duration(3 * time.Second)
	messages := []class{
		{"wrong padding", o.message(o.request, func(e *wire.Envelope) { e.Recipient.EncryptedKey = make([]byte, 256) })},
		{"wrong content", o.message([]byte("junk"), nil)},
		{"another recipient", o.message(o.request, func(e *wire.Envelope) {
			e.To = &x509.Certificate{RawIssuer: o.ra.RawSubject, SerialNumber: big.NewInt(1), PublicKey: o.ra.PublicKey}
		})},
	}
	for _, slow := range []time.Duration{0, time.Millisecond, time.Second, 2900 * time.Millisecond} {
		o.token.decrypt = func(rand io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
			time.Sleep(slow)
			return o.token.PrivateKey.Decrypt(rand, ciphertext, opts)
		}
		for _, m := range messages {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				o.serve(post(m.message))
				if took := time.Since(begun); took != 3*time.Second {
					t.Errorf("%s, the token took %s: answered after %s", m.name, slow, took)
				}
			})
		}
	}
}
