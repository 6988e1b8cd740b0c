package interop

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/wire"
)

// shapeDevice is what a client knows when it makes its message.
type shapeDevice struct {
	key       *rsa.PrivateKey
	to        *x509.Certificate // the RA's encryption certificate
	challenge string
	upperID   bool // transactionID in upper-case hexadecimal
}

// transactionID is how nearly all clients make it: SHA-1 over the public key.
func (d shapeDevice) transactionID() string {
	sum := sha1.Sum(wire.PublicKey(&d.key.PublicKey))
	id := hex.EncodeToString(sum[:])
	if d.upperID {
		return strings.ToUpper(id)
	}
	return id
}

// identity is what a request asks for.
type identity struct {
	subject []byte // Name
	san     []byte // Extension, if any
}

// extensions puts the subject alternative name, if there is one, behind others.
func (who identity) extensions(others ...[]byte) [][]byte {
	if who.san != nil {
		others = append(others, who.san)
	}
	return others
}

// request is the PKCS#10 that most clients make: signed with the digest that the
// message is signed with, the challenge a PrintableString.
func (d shapeDevice) request(who identity, digest crypto.Hash, extensions ...[]byte) *wire.Request {
	r := &wire.Request{
		Key: d.key, Subject: who.subject, Extensions: who.extensions(extensions...),
		SignatureAlgorithm: wire.Algorithm(withRSA[digest]),
		Sign:               func(info []byte) []byte { return wire.SignRSA(d.key, digest, info) },
	}
	if d.challenge != "" {
		r.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(d.challenge))}
	}
	return r
}

var withRSA = map[crypto.Hash]string{
	crypto.MD5: wire.OIDMD5WithRSA, crypto.SHA1: wire.OIDSHA1WithRSA, crypto.SHA256: wire.OIDSHA256WithRSA, crypto.SHA512: wire.OIDSHA512WithRSA,
}

// selfSigned is a certificate of any shape for key, and what names it.
type selfSigned struct {
	v1         bool
	serial     []byte // the octets of the INTEGER
	name       []byte // issuer and subject
	digest     crypto.Hash
	extensions [][]byte
}

func (c selfSigned) der(key *rsa.PrivateKey) (certificate, id []byte) {
	var version, extensions []byte
	if !c.v1 {
		version = wire.Explicit(0, wire.Int(2))
	}
	if len(c.extensions) > 0 {
		extensions = wire.Explicit(3, wire.Sequence(c.extensions...))
	}
	utc := func(t time.Time) []byte { return wire.TLV(0x17, []byte(t.UTC().Format("060102150405Z"))) }
	algorithm := wire.Algorithm(withRSA[c.digest])
	serial := wire.TLV(0x02, c.serial)
	tbs := wire.Sequence(version, serial, algorithm, c.name,
		wire.Sequence(utc(time.Now().Add(-10*time.Minute)), utc(time.Now().AddDate(1, 0, 0))),
		c.name, wire.PublicKey(&key.PublicKey), extensions)
	return wire.Sequence(tbs, algorithm, wire.Bits(wire.SignRSA(key, c.digest, tbs))), wire.Sequence(c.name, serial)
}

// signed is a SignedData by the device's own certificate.
func (d shapeDevice) signed(c selfSigned, digest crypto.Hash, nonce int) *wire.SignedData {
	certificate, id := c.der(d.key)
	return &wire.SignedData{Certificates: [][]byte{certificate}, Signer: wire.Signer{
		// Package wire reads the signer's certificate with crypto/x509, which
		// refuses some of ours; ID and Certificates are what goes into the message.
		Certificate: wire.SelfSigned("not sent", d.key), ID: id,
		Key: d.key, Digest: digest,
		MessageType: "19", TransactionID: d.transactionID(), SenderNonce: wire.Random(nonce),
		Attributes: [][]byte{wire.Attribute(wire.OIDSigningTime, wire.TLV(0x17, []byte(time.Now().UTC().Format("060102150405Z"))))},
	}}
}

// enveloped encrypts for the RA with PKCS#1 v1.5.
func (d shapeDevice) enveloped(plaintext []byte, cipher string) []byte {
	e := wire.Envelope{To: d.to, Cipher: cipher}
	return e.Bytes(plaintext)
}

// envelopedOAEP encrypts as Windows does: OAEP with empty parameters, AES-128.
func (d shapeDevice) envelopedOAEP(t *testing.T, plaintext []byte) []byte {
	t.Helper()
	e := wire.Envelope{To: d.to, Cipher: wire.OIDAES128CBC}
	encrypted, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, d.to.PublicKey.(*rsa.PublicKey), e.ContentKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Recipient.Algorithm = wire.Algorithm(wire.OIDRSAESOAEP, wire.Sequence())
	e.Recipient.EncryptedKey = encrypted
	return e.Bytes(plaintext)
}

// Streaming encoders do not know a length when they write it: they leave it
// indefinite down to the content, and write the content in pieces. What the
// signature covers stays the same.

// berSignedData writes a SignedData as such an encoder does.
func berSignedData(t *testing.T, der []byte, piece int) []byte {
	t.Helper()
	info := elements(t, der)
	data := elements(t, elements(t, info[1].raw)[0].raw)
	if len(data) != 5 {
		t.Fatalf("SignedData of %d fields", len(data))
	}
	encap := elements(t, data[2].raw)
	content := elements(t, encap[1].raw)[0].content
	return wire.Indefinite(0x30, info[0].raw, wire.Indefinite(0xa0, wire.Indefinite(0x30,
		data[0].raw, data[1].raw,
		wire.Indefinite(0x30, encap[0].raw, wire.Indefinite(0xa0, wire.Indefinite(0x24, pieces(content, piece)...))),
		wire.Indefinite(0xa0, data[3].content),
		wire.Indefinite(0x31, data[4].content),
	)))
}

// berEnvelope writes an EnvelopedData as such an encoder does.
func berEnvelope(t *testing.T, der []byte, piece int) []byte {
	t.Helper()
	info := elements(t, der)
	data := elements(t, elements(t, info[1].raw)[0].raw)
	if len(data) != 3 {
		t.Fatalf("EnvelopedData of %d fields", len(data))
	}
	content := elements(t, data[2].raw)
	return wire.Indefinite(0x30, info[0].raw, wire.Indefinite(0xa0, wire.Indefinite(0x30,
		data[0].raw, wire.Indefinite(0x31, data[1].content),
		wire.Indefinite(0x30, content[0].raw, content[1].raw, wire.Indefinite(0xa0, pieces(content[2].content, piece)...)),
	)))
}

func pieces(content []byte, size int) (list [][]byte) {
	for len(content) > size {
		list, content = append(list, wire.Octets(content[:size])), content[size:]
	}
	return append(list, wire.Octets(content))
}

type element struct{ raw, content []byte }

// elements splits what a DER element holds. It reads what this test wrote.
func elements(t *testing.T, der []byte) (list []element) {
	t.Helper()
	for rest := split(t, der).content; len(rest) > 0; {
		e := split(t, rest)
		list, rest = append(list, e), rest[len(e.raw):]
	}
	return list
}

func split(t *testing.T, der []byte) element {
	t.Helper()
	length, head := int(der[1]), 2
	if length >= 0x80 {
		octets := length & 0x7f
		length, head = 0, 2+octets
		for _, o := range der[2:head] {
			length = length<<8 | int(o)
		}
	}
	if head+length > len(der) {
		t.Fatal("element ends early")
	}
	return element{der[:head+length], der[head : head+length]}
}

func TestStreamingEncodersChangeOnlyTheEncoding(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	d := shapeDevice{key: key}
	content := wire.Random(2500)
	der := d.signed(selfSigned{serial: []byte{1}, name: wire.CommonName("x"), digest: crypto.SHA256}, crypto.SHA256, 16).Bytes(content)
	ber := berSignedData(t, der, 1000)
	if bytes.Count(ber, content[1000:2000]) != 1 || bytes.Contains(ber, content) {
		t.Error("the content is not in pieces of 1000 octets")
	}
	if !bytes.HasPrefix(ber, []byte{0x30, 0x80}) || !bytes.HasSuffix(ber, make([]byte, 6)) {
		t.Errorf("outer layers % x … % x", ber[:4], ber[len(ber)-8:])
	}
}
