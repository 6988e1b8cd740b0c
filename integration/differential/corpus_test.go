package differential

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/scepgate/scepgate/inspector"
)

// issueTime is when everything here was made.
var issueTime = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// request is an honest PKCS#10 to start from.
type request struct {
	name string
	der  []byte
	root *node
	hash crypto.Hash
	key  *rsa.PrivateKey
}

// message is an honest pkiMessage to start from, with what it takes to sign and
// to encrypt it again.
type message struct {
	name       string
	der        []byte
	root       *node
	hash       crypto.Hash
	key        *rsa.PrivateKey
	contentKey []byte
}

// world is all that mutations are made from. The same seed makes the same one.
type world struct {
	seed     uint64
	keys     []*rsa.PrivateKey // of devices
	spkis    [][]byte
	ra       []inspector.RAKey
	opener   *inspector.Opener
	requests []request
	messages []message
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	w := &world{seed: seed}
	for _, bits := range []int{1024, 1024, 2048} { // small: what is tried here is reading
		key := newKey(t, bits)
		w.keys, w.spkis = append(w.keys, key), append(w.spkis, writePublicKey(&key.PublicKey))
	}
	for i, name := range []string{"one", "two"} {
		key := newKey(t, 1024)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(0x7901 + i)), Subject: pkix.Name{CommonName: "NDES-MSCEP-RA"},
			NotBefore: issueTime, NotAfter: issueTime.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageKeyEncipherment,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		check(t, err)
		certificate, err := x509.ParseCertificate(der)
		check(t, err)
		w.ra = append(w.ra, inspector.RAKey{Name: name, Certificate: certificate, Key: key})
	}
	var err error
	w.opener, err = inspector.NewOpener(w.ra, make([]byte, 32))
	check(t, err)
	w.makeRequests(t)
	w.makeMessages(t)
	return w
}

func newKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	check(t, err)
	return key
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// subject makes single-valued RDNs of type and value in turn.
func subject(typesAndValues ...string) []inspector.RDN {
	var name []inspector.RDN
	for i := 0; i < len(typesAndValues); i += 2 {
		name = append(name, inspector.RDN{{Type: typesAndValues[i], Value: typesAndValues[i+1]}})
	}
	return name
}

func extension(dotted string, value writable) pkix.Extension {
	var oid asn1.ObjectIdentifier
	_, err := asn1.Unmarshal(writeOID(dotted), &oid)
	must(nil, err)
	return pkix.Extension{Id: oid, Value: value.der()}
}

func attribute(dotted string, value []byte) []byte {
	return writeSequence(writeOID(dotted), writeSet(value))
}

// requestShapes are requests as clients make them, and every alternative that
// the readers know.
func requestShapes(keyID []byte) map[string]inspector.CSRParams {
	const cn, o, ou, c, dc, email, serial = "2.5.4.3", "2.5.4.10", "2.5.4.11", "2.5.4.6", "0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1", "2.5.4.5"
	windows := [][]byte{
		attribute(microsoftOSVersion, writeText(asn1.TagIA5String, "10.0.19045.2")),
		attribute(microsoftCSP, cspProvider{big.NewInt(1), "Microsoft Software Key Storage Provider", asn1.BitString{Bytes: []byte{0}, BitLength: 8}}.der()),
		attribute(microsoftClientInfo, clientInfo{big.NewInt(5), [3]string{"pc.example.com", `EXAMPLE\ann`, "certreq"}}.der()),
	}
	return map[string]inspector.CSRParams{
		"plain":    {Subject: subject(cn, "device-1"), Challenge: "8CE317021F690069"},
		"bare":     {Subject: subject(cn, "device-1")},
		"nameless": {Challenge: "8CE317021F690069", SAN: []inspector.GeneralName{{Type: "dns", Value: "only.example.com"}}},
		"windows": {
			Subject: subject(cn, "PC-1", ou, "WiFi", o, "Example Corp"), Challenge: "8CE317021F690069", KeyUsage: 5, MicrosoftExtensions: true,
			ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"}, SID: "S-1-5-21-1-2-3-1104", ExtraAttributes: windows,
			SAN: []inspector.GeneralName{{Type: "upn", Value: "ann@example.com"}},
			ExtraExtensions: []pkix.Extension{
				extension(templateName, templateText("WiFiClient")),
				extension(applicationPolicies, policyList{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"}),
				extension(subjectKeyIdentifier, keyIdentifier(keyID)),
			},
		},
		"apple": {
			Version: 2, Subject: subject(c, "US", o, "Example Corp", cn, "C02XK1 WIFI"), Challenge: "pass phrase+/=_@", KeyUsage: 1 << 0,
			SAN: []inspector.GeneralName{{Type: "email", Value: "ann@example.com"}, {Type: "dns", Value: "c02xk1.example.com"}, {Type: "uri", Value: "urn:uuid:1"}},
		},
		"names": {
			Subject: subject(cn, "many"), Challenge: "X", Digest: "sha512",
			SAN: []inspector.GeneralName{
				{Type: "dns", Value: "a.example.com"}, {Type: "dns", Value: "b.example.com"}, {Type: "ip", Value: "10.1.2.3"}, {Type: "ip", Value: "2001:db8::1"},
				{Type: "uri", Value: "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104"}, {Type: "email", Value: "bob@example.com"}, {Type: "upn", Value: "bøb@example.com"},
			},
		},
		"foreign names": {
			Subject: subject(cn, "foreign"), Challenge: "12345678",
			ExtraExtensions: []pkix.Extension{extension(subjectAltName, nameList{
				{tag: 8, typ: "1.2.3.4"},
				{tag: 0, typ: "1.3.6.1.4.1.311.25.1", value: tree{tag: asn1.TagOctetString, content: []byte("0123456789abcdef")}},
				{tag: 4, value: tree{class: 2, tag: 4, compound: true, children: []tree{{tag: asn1.TagSequence, compound: true}}}},
				{tag: 2, octets: []byte("foreign.example.com")},
			})},
		},
		"router": {
			Subject:   []inspector.RDN{{{Type: "1.2.840.113549.1.9.2", Value: "rtr.example.com"}, {Type: serial, Value: "FTX1"}, {Type: cn, Value: "rtr"}}, {{Type: o, Value: "Example"}}},
			Challenge: "8CE317021F690069", Digest: "sha1", KeyUsage: 5,
		},
		"directory": {
			Subject:   subject(dc, "com", dc, "example", ou, "Geräte", cn, "Zoë", email, "zoe@example.com"),
			Challenge: "blank then text", Digest: "sha384", KeyUsage: 1<<4 | 1<<8,
		},
		"template": {
			Subject: subject(cn, "t", "2.5.4.42", "Ann", "2.5.4.4", "Example"), Challenge: "8CE317021F690069", ExtKeyUsage: []string{"2.5.29.37.0"},
			ExtraExtensions: []pkix.Extension{
				extension(templateIdentifier, templateValue{"1.3.6.1.4.1.311.21.8.1.2.3", []*big.Int{big.NewInt(100), big.NewInt(4)}}),
				extension("2.5.29.19", opaque(writeSequence())),
				{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Critical: true, Value: []byte("what is this")},
			},
			ExtraAttributes: [][]byte{attribute("1.2.840.113549.1.9.2", writeText(asn1.TagIA5String, "unstructured")), attribute("1.2.3.4", writeSequence(writeNull(), writeOctets([]byte{1})))},
		},
		"blank challenge": {Subject: subject(cn, "d"), Challenge: "   ", KeyUsage: 1 << 2},
	}
}

func (w *world) makeRequests(t *testing.T) {
	t.Helper()
	shapes := requestShapes(nil)
	var names []string
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		key := w.keys[[]int{0, 1, 0, 1, 2}[i%5]] // fewer of the large one, which signs slowly
		info, err := single(writePublicKey(&key.PublicKey))
		check(t, err)
		parts, err := children(info)
		check(t, err)
		bits, err := wholeBits(parts[1])
		check(t, err)
		p := requestShapes(sum(crypto.SHA1, bits))[name]
		der, err := inspector.BuildCSR(p, key)
		check(t, err)
		hash := crypto.SHA256
		for _, d := range digests {
			if d.name == p.Digest {
				hash = d.hash
			}
		}
		w.requests = append(w.requests, request{name, der, parseNodes(der)[0], hash, key})
	}
}

func (w *world) makeMessages(t *testing.T) {
	t.Helper()
	for i, m := range []struct {
		name    string
		message inspector.PKIMessage
	}{
		{"defaults", inspector.PKIMessage{}},
		{"Windows", inspector.PKIMessage{Digest: "sha1", OAEP: true, TransactionID: "abc"}},
		{"Android", inspector.PKIMessage{Digest: "sha512", Cipher: "des3"}},
		{"scepclient", inspector.PKIMessage{Digest: "sha1", Cipher: "des", TransactionID: "HVvzN0228V+AW+dUuDe8OPyDXD0="}},
		{"Apple", inspector.PKIMessage{Digest: "sha384", Cipher: "aes256", SenderNonce: []byte("8 octets")}},
		{"renewal", inspector.PKIMessage{MessageType: "17"}},
	} {
		request := w.requests[i%len(w.requests)]
		key := w.keys[i%2]
		certificate, err := inspector.SelfSignedCertificate(subject("2.5.4.3", "SCEP Protocol Certificate", "2.5.4.10", m.name), issueTime, key)
		check(t, err)
		p := m.message
		if p.MessageType == "" {
			p.MessageType = "19"
		}
		p.Content, p.Recipient, p.SignerCert, p.SignerKey = request.der, w.ra[i%2].Certificate, certificate, key
		der, err := inspector.BuildPKIMessage(p)
		check(t, err)
		decoded, err := DecodeMessage(der)
		check(t, err)
		envelope, err := decoded.Envelope()
		check(t, err)
		ra := w.ra[i%2].Key.(*rsa.PrivateKey)
		var contentKey []byte
		if p.OAEP {
			contentKey, err = rsa.DecryptOAEP(crypto.SHA1.New(), nil, ra, envelope.EncryptedKey, nil)
		} else {
			contentKey, err = rsa.DecryptPKCS1v15(nil, ra, envelope.EncryptedKey)
		}
		check(t, err)
		base := message{name: m.name, der: der, root: parseNodes(der)[0], key: key, contentKey: contentKey}
		for _, d := range digests {
			if d.name == decoded.Digest {
				base.hash = d.hash
			}
		}
		w.messages = append(w.messages, base)
	}
}

// sample is one input that was made from an honest one.
type sample struct {
	kind    string // "request" or "message"
	base    string
	done    []string
	der     []byte
	twins   map[string][]byte // of a message: the same in BER
	changed bool
}

// sample makes the i-th input. It depends on the seed and on i alone.
func (w *world) sample(i uint64) sample {
	r := mathrand.New(mathrand.NewPCG(w.seed, i))
	if i%5 == 4 {
		return w.sampleMessage(r)
	}
	return w.sampleRequest(r)
}

// sampleRequest changes a request's info and signs it again, so that the
// signature is not what refuses it. Some are changed after that as well.
func (w *world) sampleRequest(r *mathrand.Rand) sample {
	base, donor := pick(r, w.requests), pick(r, w.requests)
	root := base.root.clone()
	info, algorithm, signature := root.kids[0], root.kids[1], root.kids[2]
	s := sample{kind: "request", base: base.name, done: mutate(r, info, donor.root.kids[0])}
	hash := base.hash
	if r.IntN(20) == 0 {
		d := pick(r, digests)
		hash, algorithm.kids = d.hash, parseNodes(writeOID(d.signature))
		algorithm.kids = append(algorithm.kids, parseNodes(writeNull())...)
		s.done = append(s.done, "digest")
	}
	tbs := info.bytes()
	key := base.key
	for i, spki := range w.spkis {
		if bytes.Contains(tbs, spki) {
			key = w.keys[i]
			break
		}
	}
	if signed, err := rsa.SignPKCS1v15(nil, key, hash, sum(hash, tbs)); err == nil {
		signature.leaf, signature.inner = append([]byte{0}, signed...), false
	}
	if r.IntN(12) == 0 {
		s.done = append(s.done, mutate(r, root, donor.root)...)
	}
	s.der = root.bytes()
	if r.IntN(50) == 0 {
		s.der, s.done = append(s.der, donor.der[:1+r.IntN(len(donor.der))]...), append(s.done, "trailing")
	}
	s.changed = !bytes.Equal(s.der, base.der)
	return s
}

// messageParts are the parts of a message's tree that a change must be followed
// up in, and those that BER may write otherwise.
type messageParts struct {
	content, certificates, signerInfo, sid, attributes, digest, signature, ciphertext, iv *node
	outer, inner                                                                          []*node
}

func partsOf(root *node) messageParts {
	sd := root.kids[1].kids[0]
	si := sd.kids[4].kids[0]
	p := messageParts{
		content: sd.kids[2].kids[1].kids[0], certificates: sd.kids[3],
		signerInfo: si, sid: si.kids[1], attributes: si.kids[3], signature: si.kids[5],
	}
	envelope := p.content.kids[0]
	ed := envelope.kids[1].kids[0]
	encrypted := ed.kids[2]
	p.ciphertext, p.iv = encrypted.kids[2], encrypted.kids[1].kids[1]
	p.outer = []*node{root, root.kids[1], sd, sd.kids[1], sd.kids[1].kids[0], sd.kids[2], sd.kids[2].kids[1], p.content, p.certificates, sd.kids[4]}
	p.inner = []*node{envelope, envelope.kids[1], ed, ed.kids[1], encrypted, encrypted.kids[1], p.ciphertext}
	oid := parseNodes(writeOID(attrDigest))[0].leaf
	for _, a := range p.attributes.kids {
		if bytes.Equal(a.kids[0].leaf, oid) {
			p.digest = a.kids[1].kids[0]
		}
	}
	return p
}

// sign makes messageDigest and signature right for what p has become.
func (p messageParts) sign(m message) {
	p.digest.leaf, p.digest.inner = sum(m.hash, p.content.content()), false
	covered := slices.Clone(p.attributes.bytes())
	covered[0] = 0x31
	if signed, err := rsa.SignPKCS1v15(nil, m.key, m.hash, sum(m.hash, covered)); err == nil {
		p.signature.leaf, p.signature.inner = signed, false
	}
}

// signedAttributePool is what a message may get besides.
var signedAttributePool = [][]byte{
	attribute("1.2.840.113549.1.9.5", []byte("\x17\x0d260601000000Z")),
	attribute("1.2.840.113549.1.9.15", writeSequence(writeSequence(writeOID("1.2.840.113549.3.7")))),
	attribute("1.2.840.113549.1.9.52", writeSequence(writeAlgorithm("2.16.840.1.101.3.4.2.1"))),
	attribute(attrMessageType, writeText(asn1.TagPrintableString, "17")),
	attribute(attrTransaction, writeText(asn1.TagPrintableString, "another")),
	attribute("1.2.3.4", writeNull()),
}

// sampleMessage changes a message in one of its parts and mends what depends on
// it: a new request is encrypted, messageDigest and signature are made again.
func (w *world) sampleMessage(r *mathrand.Rand) sample {
	base, donor := pick(r, w.messages), pick(r, w.messages)
	root := base.root.clone()
	p, other := partsOf(root), partsOf(donor.root)
	s := sample{kind: "message", base: base.name}
	mend := r.IntN(12) > 0
	switch r.IntN(9) {
	case 0:
		inner := w.sampleRequest(r)
		p.ciphertext.leaf, s.done = encrypt(base.contentKey, p.iv.leaf, inner.der), append(inner.done, "request inside")
	case 1:
		s.done = mutate(r, p.content.kids[0], other.content.kids[0])
	case 2, 3:
		s.done = mutate(r, p.attributes, other.attributes)
		mend = true
	case 4:
		a := parseNodes(pick(r, signedAttributePool))[0]
		p.attributes.kids = slices.Insert(p.attributes.kids, r.IntN(len(p.attributes.kids)+1), a)
		s.done = []string{"signed attribute"}
	case 5: // a certificate that the signer identifier still names
		c := p.certificates.kids[0]
		s.done = append(mutate(r, c.kids[0], other.certificates.kids[0].kids[0]), "certificate")
		if tbs := c.kids[0]; len(tbs.kids) > 3 {
			p.sid.kids = []*node{tbs.kids[3].clone(), tbs.kids[1].clone()}
			if r.IntN(2) == 0 {
				signed, err := rsa.SignPKCS1v15(nil, base.key, crypto.SHA256, sum(crypto.SHA256, tbs.bytes()))
				must(signed, err)
				c.kids[2].leaf = append([]byte{0}, signed...)
			}
		}
	case 6: // certificates besides
		kids := &p.certificates.kids
		*kids = slices.Insert(*kids, r.IntN(2), other.certificates.kids[0].clone())
		s.done = []string{"another certificate"}
	case 7:
		s.done = mutate(r, p.signerInfo, other.signerInfo)
	default:
		s.done = mutate(r, root, donor.root)
	}
	if mend {
		p.sign(base)
	}
	s.der = root.bytes()
	s.changed = !bytes.Equal(s.der, base.der)
	// The same in BER. The envelope is under messageDigest: signed again.
	indefinitely(r, p.outer)
	s.twins = map[string][]byte{"outer layer": root.bytes()}
	if mend && root.holds(p.content, p.attributes, p.digest, p.signature) {
		indefinitely(r, p.inner)
		p.sign(base)
		s.twins["both layers"] = root.bytes()
	}
	return s
}

func encrypt(key, iv, plain []byte) []byte {
	for _, c := range ciphers {
		if c.key != len(key) {
			continue
		}
		block, err := c.make(key)
		must(nil, err)
		size := block.BlockSize()
		fill := size - len(plain)%size
		out := append(slices.Clone(plain), bytes.Repeat([]byte{byte(fill)}, fill)...)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
		return out
	}
	panic("no cipher has such a key")
}
