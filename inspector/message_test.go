package inspector

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// smallKey is an RSA-1024 key, made once per run.
var smallKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) })

// certificateSpec is an X.509 certificate in pieces, each of which a test may
// replace by anything.
type certificateSpec struct {
	version    []byte
	serial     []byte
	innerAlg   []byte
	outerAlg   []byte
	issuer     []byte
	validity   []byte
	subject    []byte
	spki       []byte
	extensions []byte
	tbsExtra   []byte
	extra      []byte
	key        crypto.Signer // signs
	digest     *digestAlgorithm
	signature  []byte // instead of a real one
}

func newCertificateSpec(cn string, serial int64, key *rsa.PrivateKey) certificateSpec {
	name := derName(cn)
	return certificateSpec{
		version:  tlv(0xa0, derInt(2)),
		serial:   derInt(serial),
		innerAlg: derAlgorithm(oidSHA256WithRSA),
		outerAlg: derAlgorithm(oidSHA256WithRSA),
		issuer:   name,
		validity: derSequence(tlv(0x17, []byte("260101000000Z")), tlv(0x17, []byte("270101000000Z"))),
		subject:  name,
		spki:     derSPKI(&key.PublicKey),
		key:      key,
		digest:   digestByOID(oidSHA256),
	}
}

// use switches the signature to another RSA digest.
func (s *certificateSpec) use(d *digestAlgorithm) {
	s.digest, s.innerAlg, s.outerAlg = d, derAlgorithm(d.withRSA), derAlgorithm(d.withRSA)
}

func (s *certificateSpec) build(t testing.TB) []byte {
	t.Helper()
	tbs := derSequence(s.version, s.serial, s.innerAlg, s.issuer, s.validity, s.subject, s.spki, s.extensions, s.tbsExtra)
	signature := s.signature
	if signature == nil {
		var err error
		if signature, err = s.key.Sign(rand.Reader, s.digest.sum(tbs), s.digest.hash); err != nil {
			t.Fatal(err)
		}
	}
	return derSequence(tbs, s.outerAlg, derBits(signature), s.extra)
}

func derSPKI(key *rsa.PublicKey) []byte {
	return derRSASPKI(key.N, big.NewInt(int64(key.E)))
}

func derRSASPKI(n, e *big.Int) []byte {
	return derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(derBigInt(n), derBigInt(e))))
}

// messageSpec is a pkiMessage in pieces. The zero of a piece is "absent".
type messageSpec struct {
	outer         func(tag byte, parts ...[]byte) []byte // tlv or indefinite
	outerType     []byte
	version       []byte
	digests       []byte
	eContentType  []byte
	eContent      []byte // the [0]
	certificates  []byte // the [0]
	crls          []byte
	signerInfos   []byte // the SET; nil: one SignerInfo of the following
	siVersion     []byte
	sid           []byte
	digestAlg     []byte
	attributes    [][]byte
	signedAttrs   []byte // the [0]; nil: the attributes, sorted unless unsorted
	unsorted      bool
	signUnsorted  bool
	noSignedAttrs bool
	signatureAlg  []byte
	signature     []byte // the OCTET STRING; nil: a real one
	unsigned      []byte
	siExtra       []byte
	extra         []byte // inside of SignedData
	outerExtra    []byte // inside of ContentInfo
	trailing      []byte

	key    *rsa.PrivateKey
	digest *digestAlgorithm
	signer certificateSpec
}

const (
	testTransactionID = "A13090761A30F66664F85D37433D2065E1112BA1"
	testSerial        = 77
)

var testNonce = []byte("0123456789abcdef")

// honest is what a well-behaved client sends around content.
func honest(t testing.TB, content []byte) *messageSpec {
	t.Helper()
	key := testKey(t, "client")
	signer := newCertificateSpec("device", testSerial, key)
	s := &messageSpec{
		outer:        tlv,
		outerType:    derOID(oidSignedData),
		version:      derInt(1),
		eContentType: derOID(oidData),
		eContent:     tlv(0xa0, derOctets(content)),
		certificates: tlv(0xa0, signer.build(t)),
		siVersion:    derInt(1),
		sid:          derSequence(signer.issuer, signer.serial),
		signatureAlg: derAlgorithm(oidRSAEncryption),
		key:          key,
		signer:       signer,
	}
	s.attributes = [][]byte{
		derAttribute(oidContentType, derOID(oidData)),
		nil, // messageDigest, by use
		derAttribute(oidMessageType, derPrintable("19")),
		derAttribute(oidTransactionID, derPrintable(testTransactionID)),
		derAttribute(oidSenderNonce, derOctets(testNonce)),
		derAttribute(oidSigningTime, tlv(0x17, []byte("260601000000Z"))),
	}
	s.use(digestByOID(oidSHA256), content)
	return s
}

// Positions in messageSpec.attributes.
const (
	atContentType = iota
	atMessageDigest
	atMessageType
	atTransactionID
	atSenderNonce
	atSigningTime
)

// use sets the digest everywhere.
func (s *messageSpec) use(d *digestAlgorithm, content []byte) {
	s.digest = d
	s.digests, s.digestAlg = derSet(derAlgorithm(d.oid)), derAlgorithm(d.oid)
	s.attributes[atMessageDigest] = derAttribute(oidMessageDigest, derOctets(d.sum(content)))
}

func (s *messageSpec) build(t testing.TB) []byte {
	t.Helper()
	signerInfos := s.signerInfos
	if signerInfos == nil {
		signerInfos = derSet(s.signerInfo(t))
	}
	signedData := s.outer(0x30, s.version, s.digests, s.outer(0x30, s.eContentType, s.eContent), s.certificates, s.crls, signerInfos, s.extra)
	return append(s.outer(0x30, s.outerType, s.outer(0xa0, signedData), s.outerExtra), s.trailing...)
}

func (s *messageSpec) signerInfo(t testing.TB) []byte {
	t.Helper()
	sent, signed := slices.Clone(s.attributes), slices.Clone(s.attributes)
	if !s.unsorted {
		slices.SortFunc(sent, bytes.Compare)
	}
	if !s.signUnsorted {
		slices.SortFunc(signed, bytes.Compare)
	}
	attributes := s.signedAttrs
	if attributes == nil && !s.noSignedAttrs {
		attributes = tlv(0xa0, sent...)
	}
	signature := s.signature
	if signature == nil {
		covered := derSet(signed...)
		if s.signedAttrs != nil {
			covered = slices.Clone(s.signedAttrs)
			covered[0] = 0x31
		}
		if s.noSignedAttrs {
			covered = mustWalk(t, s.eContent, modeBER).children[0].content
		}
		raw, err := rsa.SignPKCS1v15(nil, s.key, s.digest.hash, s.digest.sum(covered))
		if err != nil {
			t.Fatal(err)
		}
		signature = derOctets(raw)
	}
	return derSequence(s.siVersion, s.sid, s.digestAlg, attributes, s.signatureAlg, signature, s.unsigned, s.siExtra)
}

func TestParseMessageGivesTheFacts(t *testing.T) {
	content := []byte("an envelope")
	s := honest(t, content)
	raw := s.build(t)
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	if &m.Raw[0] != &raw[0] || len(m.Raw) != len(raw) {
		t.Error("Raw is not the slice that was given: what is judged would not be what is forwarded")
	}
	if m.MessageType != "19" || m.TransactionID != testTransactionID || !bytes.Equal(m.SenderNonce, testNonce) || m.Digest != "sha256" || m.Certificates != 1 || !bytes.Equal(m.content, content) {
		t.Errorf("facts %+v", m)
	}
	signer := m.Signer
	if !signer.SelfSigned || signer.Serial.Int64() != testSerial || !signer.PublicKey.Equal(&s.key.PublicKey) ||
		!bytes.Equal(signer.Issuer, s.signer.issuer) || !bytes.Equal(signer.Subject, s.signer.subject) || !bytes.Equal(signer.SPKI, s.signer.spki) {
		t.Errorf("signer %+v", signer)
	}
	if signer.NotBefore.Format("2006-01-02") != "2026-01-01" || signer.NotAfter.Format("2006-01-02") != "2027-01-01" {
		t.Errorf("validity %v to %v", signer.NotBefore, signer.NotAfter)
	}
}

func TestParseMessageAcceptsWhatRealClientsSend(t *testing.T) {
	content := []byte("an envelope in two pieces")
	chunks := indefinite(0xa0, indefinite(0x24, derOctets(content[:7]), derOctets(content[7:])))
	tests := []struct {
		name   string
		digest string
		change func(s *messageSpec)
	}{
		{"quirk: Apple's indefinite outer layers and content in pieces", "sha256", func(s *messageSpec) { s.outer, s.eContent = indefinite, chunks }},
		{"indefinite certificates and signerInfos", "sha256", func(s *messageSpec) {
			s.certificates = indefinite(0xa0, s.signer.build(t))
			s.signerInfos = indefinite(0x31, s.signerInfo(t))
		}},
		{"md5, for the gate to refuse", "md5", func(s *messageSpec) { s.use(digestByOID(oidMD5), content) }},
		{"C76: sha1 of Windows", "sha1", func(s *messageSpec) { s.use(digestByOID(oidSHA1), content) }},
		{"sha384", "sha384", func(s *messageSpec) { s.use(digestByOID(oidSHA384), content) }},
		{"sha512 of jscep", "sha512", func(s *messageSpec) { s.use(digestByOID(oidSHA512), content) }},
		{"sha256WithRSA as signature algorithm", "sha256", func(s *messageSpec) { s.signatureAlg = derAlgorithm(oidSHA256WithRSA) }},
		{"digest parameters absent", "sha256", func(s *messageSpec) { s.digestAlg = derSequence(derOID(oidSHA256)) }},
		{"digestAlgorithms parameters absent", "sha256", func(s *messageSpec) { s.digests = derSet(derSequence(derOID(oidSHA256))) }},
		{"signature algorithm parameters absent", "sha256", func(s *messageSpec) { s.signatureAlg = derSequence(derOID(oidRSAEncryption)) }},
		{"no signingTime", "sha256", func(s *messageSpec) { s.attributes = s.attributes[:atSigningTime] }},
		{"signingTime as GeneralizedTime", "sha256", func(s *messageSpec) {
			s.attributes[atSigningTime] = derAttribute(oidSigningTime, tlv(0x18, []byte("20500101000000Z")))
		}},
		{"D14: signingTime long ago", "sha256", func(s *messageSpec) {
			s.attributes[atSigningTime] = derAttribute(oidSigningTime, tlv(0x17, []byte("990101000000Z")))
		}},
		{"S/MIME capabilities of OpenSSL", "sha256", func(s *messageSpec) {
			s.attributes = append(s.attributes, derAttribute(oidSMIMECapabilities, derSequence()))
		}},
		{"algorithm protection of Bouncy Castle", "sha256", func(s *messageSpec) {
			s.attributes = append(s.attributes, derAttribute(oidCMSAlgorithmProtection, derSequence(derAlgorithm(oidSHA256))))
		}},
		{"quirk: attributes sent and signed unsorted", "sha256", func(s *messageSpec) { s.unsorted, s.signUnsorted = true, true }},
		{"D24: nonce of 8 bytes, of Apple", "sha256", func(s *messageSpec) {
			s.attributes[atSenderNonce] = derAttribute(oidSenderNonce, derOctets(testNonce[:8]))
		}},
		{"D24: nonce of 64 bytes", "sha256", func(s *messageSpec) {
			s.attributes[atSenderNonce] = derAttribute(oidSenderNonce, derOctets(make([]byte, 64)))
		}},
		{"D23: transactionID of base64", "sha256", func(s *messageSpec) {
			s.attributes[atTransactionID] = derAttribute(oidTransactionID, derPrintable("HVvzN0228V+AW/dUuDe8OPyDXD0="))
		}},
		{"D23: transactionID of one character", "sha256", func(s *messageSpec) {
			s.attributes[atTransactionID] = derAttribute(oidTransactionID, derPrintable("a"))
		}},
		{"D23: transactionID of 128 characters", "sha256", func(s *messageSpec) {
			s.attributes[atTransactionID] = derAttribute(oidTransactionID, derPrintable(strings.Repeat("-", 128)))
		}},
		{"C79: critical extensions in the signer certificate", "sha256", func(s *messageSpec) {
			s.signer.extensions = tlv(0xa3, derSequence(derSequence(derOID("2.5.29.35"), []byte{1, 1, 0xff}, derOctets(derSequence()))))
			s.certificates = tlv(0xa0, s.signer.build(t))
		}},
		{"signer certificate of version 1, written out", "sha256", func(s *messageSpec) { // quirk: certmonger with NSS
			s.signer.version = tlv(0xa0, derInt(0))
			s.signer.extensions = nil
		}},
		{"signer certificate of version 1", "sha256", func(s *messageSpec) {
			s.signer.version = nil
			s.certificates = tlv(0xa0, s.signer.build(t))
		}},
		{"C79: serial number of 33 bytes, of sscep", "sha256", func(s *messageSpec) {
			s.signer.serial = tlv(2, bytes.Repeat([]byte{0x41}, 33))
			s.certificates, s.sid = tlv(0xa0, s.signer.build(t)), derSequence(s.signer.issuer, s.signer.serial)
		}},
		{"C79: negative serial number", "sha256", func(s *messageSpec) {
			s.signer.serial = derInt(-5)
			s.certificates, s.sid = tlv(0xa0, s.signer.build(t)), derSequence(s.signer.issuer, s.signer.serial)
		}},
		{"signer with a 1024-bit key, for the gate to refuse", "sha256", func(s *messageSpec) {
			var err error
			if s.key, err = smallKey(); err != nil {
				t.Fatal(err)
			}
			s.signer = newCertificateSpec("small", testSerial, s.key)
			s.certificates, s.sid = tlv(0xa0, s.signer.build(t)), derSequence(s.signer.issuer, s.signer.serial)
		}},
		{"empty content, for the opener to refuse", "sha256", func(s *messageSpec) {
			s.eContent = tlv(0xa0, derOctets(nil))
			s.use(digestByOID(oidSHA256), nil)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := honest(t, content)
			tt.change(s)
			m, err := ParseMessage(s.build(t))
			if err != nil {
				t.Fatal(err)
			}
			if m.Digest != tt.digest || m.MessageType != "19" || !m.Signer.SelfSigned {
				t.Errorf("digest %s, type %s, self-signed %v", m.Digest, m.MessageType, m.Signer.SelfSigned)
			}
		})
	}
}

// The message type is judged later, by the gate: what is a PrintableString of
// 1 to 8 characters gets a signed answer.
func TestMessageTypesAreReadAsSent(t *testing.T) {
	for _, messageType := range []string{"19", "17", "18", "20", "3", "0", "999", "019", "19 ", " 19", "12345678"} { // threats D07, D08
		s := honest(t, []byte("x"))
		s.attributes[atMessageType] = derAttribute(oidMessageType, derPrintable(messageType))
		m, err := ParseMessage(s.build(t))
		if err != nil || m.MessageType != messageType {
			t.Errorf("%q: %v", messageType, err)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	content := []byte("an envelope")
	attribute := func(at int, replacement ...[]byte) func(s *messageSpec) {
		return func(s *messageSpec) { s.attributes = slices.Replace(s.attributes, at, at+1, replacement...) }
	}
	typeIs := func(value []byte) func(s *messageSpec) {
		return attribute(atMessageType, derAttribute(oidMessageType, value))
	}
	idIs := func(value []byte) func(s *messageSpec) {
		return attribute(atTransactionID, derAttribute(oidTransactionID, value))
	}
	nonceIs := func(value []byte) func(s *messageSpec) {
		return attribute(atSenderNonce, derAttribute(oidSenderNonce, value))
	}
	add := func(a []byte) func(s *messageSpec) {
		return func(s *messageSpec) { s.attributes = append(s.attributes, a) }
	}
	certificate := func(change func(c *certificateSpec)) func(s *messageSpec) {
		return func(s *messageSpec) {
			change(&s.signer)
			s.certificates, s.sid = tlv(0xa0, s.signer.build(t)), derSequence(s.signer.issuer, s.signer.serial)
		}
	}
	key := &testKey(t, "client").PublicKey
	e := big.NewInt(65537)
	spkiIs := func(spki []byte) func(s *messageSpec) { return certificate(func(c *certificateSpec) { c.spki = spki }) }
	ecKey := ecdsaKey(t)
	ecSPKI, err := x509.MarshalPKIXPublicKey(&ecKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name   string
		kind   Kind
		change func(s *messageSpec)
	}{
		{"C57: trailing bytes", KindMessage, func(s *messageSpec) { s.trailing = []byte{0} }},
		{"C57: trailing bytes after an indefinite message", KindMessage, func(s *messageSpec) { s.outer, s.trailing = indefinite, []byte{0, 0} }},
		{"C48: envelopedData outside", KindMessage, func(s *messageSpec) { s.outerType = derOID(oidEnvelopedData) }},
		{"C48: data outside", KindMessage, func(s *messageSpec) { s.outerType = derOID(oidData) }},
		{"C48: compressedData outside", KindMessage, func(s *messageSpec) { s.outerType = derOID("1.2.840.113549.1.9.16.1.9") }},
		{"a third field of ContentInfo", KindMessage, func(s *messageSpec) { s.outerExtra = derNull() }},
		{"version 0", KindMessage, func(s *messageSpec) { s.version = derInt(0) }},
		{"version 3", KindMessage, func(s *messageSpec) { s.version = derInt(3) }},
		{"version 257", KindMessage, func(s *messageSpec) { s.version = derInt(257) }},
		{"version missing", KindMessage, func(s *messageSpec) { s.version = nil }},
		{"a field after signerInfos", KindMessage, func(s *messageSpec) { s.extra = derSet() }},

		{"C77: digestAlgorithms names another digest", KindAlgorithm, func(s *messageSpec) { s.digests = derSet(derAlgorithm(oidSHA1)) }},
		{"C77: digestAlgorithms names two", KindAlgorithm, func(s *messageSpec) { s.digests = derSet(derAlgorithm(oidSHA1), derAlgorithm(oidSHA256)) }},
		{"C77: digestAlgorithms is empty", KindAlgorithm, func(s *messageSpec) { s.digests = derSet() }},
		{"C77: digestAlgorithms is a SEQUENCE", KindMessage, func(s *messageSpec) { s.digests = derSequence(derAlgorithm(oidSHA256)) }},
		{"C76: sha512WithRSA with sha256", KindAlgorithm, func(s *messageSpec) { s.signatureAlg = derAlgorithm(oidSHA512WithRSA) }},
		{"C76: sha1WithRSA with sha256", KindAlgorithm, func(s *messageSpec) { s.signatureAlg = derAlgorithm(oidSHA1WithRSA) }},
		{"C76: signature algorithm PSS", KindAlgorithm, func(s *messageSpec) { s.signatureAlg = derSequence(derOID("1.2.840.113549.1.1.10"), derSequence()) }},
		{"C76: signature algorithm ECDSA", KindAlgorithm, func(s *messageSpec) { s.signatureAlg = derSequence(derOID(oidECDSAWithSHA256)) }},
		{"signature algorithm is a digest", KindAlgorithm, func(s *messageSpec) { s.signatureAlg = derAlgorithm(oidSHA256) }},
		{"digest with parameters", KindAlgorithm, func(s *messageSpec) { s.digestAlg = derSequence(derOID(oidSHA256), derInt(1)) }},
		{"digest with three fields", KindAlgorithm, func(s *messageSpec) { s.digestAlg = derSequence(derOID(oidSHA256), derNull(), derNull()) }},
		{"unknown digest", KindAlgorithm, func(s *messageSpec) {
			s.digestAlg, s.digests = derAlgorithm("2.16.840.1.101.3.4.2.4"), derSet(derAlgorithm("2.16.840.1.101.3.4.2.4"))
		}},

		{"C69: eContentType is envelopedData", KindMessage, func(s *messageSpec) { s.eContentType = derOID(oidEnvelopedData) }},
		{"C69: eContentType and its attribute are envelopedData", KindMessage, func(s *messageSpec) {
			s.eContentType = derOID(oidEnvelopedData)
			s.attributes[atContentType] = derAttribute(oidContentType, derOID(oidEnvelopedData))
		}},
		{"C69: contentType attribute is another", KindMessage, attribute(atContentType, derAttribute(oidContentType, derOID(oidEnvelopedData)))},
		{"C69: contentType attribute missing", KindMessage, attribute(atContentType)},
		{"C69: contentType attribute twice", KindMessage, add(derAttribute(oidContentType, derOID(oidData)))},
		{"C74: content is a UTF8String", KindMessage, func(s *messageSpec) { s.eContent = tlv(0xa0, derUTF8(string(content))) }},
		{"C74: content is a SEQUENCE", KindMessage, func(s *messageSpec) { s.eContent = tlv(0xa0, derSequence(derOctets(content))) }},
		{"C74: content has a bad chunk", KindMessage, func(s *messageSpec) {
			s.eContent = tlv(0xa0, tlv(0x24, derOctets(content[:4]), derInt(5), derOctets(content[4:])))
		}},
		{"C74: content by IMPLICIT tag", KindMessage, func(s *messageSpec) { s.eContent = tlv(0x80, content) }},
		{"two contents", KindMessage, func(s *messageSpec) { s.eContent = tlv(0xa0, derOctets(content), derOctets(content)) }},
		{"C75: detached", KindMessage, func(s *messageSpec) { s.eContent = nil }},
		{"C75: detached, digest of nothing", KindMessage, func(s *messageSpec) {
			s.eContent = nil
			s.use(digestByOID(oidSHA256), nil)
		}},
		{"C75: content of no element", KindMessage, func(s *messageSpec) { s.eContent = tlv(0xa0) }},

		{"no certificates", KindMessage, func(s *messageSpec) { s.certificates = nil }},
		{"empty certificates", KindMessage, func(s *messageSpec) { s.certificates = tlv(0xa0) }},
		{"primitive certificates", KindMessage, func(s *messageSpec) { s.certificates = tlv(0x80, []byte("x")) }},
		{"C67: five certificates", KindMessage, func(s *messageSpec) {
			s.certificates = tlv(0xa0, s.signer.build(t), foreign(t, 1), foreign(t, 2), foreign(t, 3), foreign(t, 4))
		}},
		{"C67: attribute certificate", KindMessage, func(s *messageSpec) { s.certificates = tlv(0xa0, s.signer.build(t), tlv(0xa1, derNull())) }},
		{"C67: crls", KindMessage, func(s *messageSpec) { s.crls = tlv(0xa1, derSequence()) }},
		{"second certificate is not one", KindMessage, func(s *messageSpec) { s.certificates = tlv(0xa0, s.signer.build(t), derSequence()) }},
		{"certificate in BER", KindMessage, func(s *messageSpec) {
			raw := s.signer.build(t)
			s.certificates = tlv(0xa0, indefinite(0x30, mustWalk(t, raw, modeDER).content))
		}},

		{"C62: no signer", KindMessage, func(s *messageSpec) { s.signerInfos = derSet() }},
		{"C62: signerInfos missing", KindMessage, func(s *messageSpec) { s.signerInfos = []byte{} }},
		{"C63: signerInfos of an INTEGER", KindMessage, func(s *messageSpec) { s.signerInfos = derSet(derInt(1)) }},
		{"C63: signerInfos is a SEQUENCE", KindMessage, func(s *messageSpec) { s.signerInfos = derSequence(s.signerInfo(t)) }},
		{"C64: the same signer twice", KindMessage, func(s *messageSpec) { s.signerInfos = derSet(s.signerInfo(t), s.signerInfo(t)) }},
		{"signerInfo in BER", KindMessage, func(s *messageSpec) {
			s.signerInfos = derSet(indefinite(0x30, mustWalk(t, s.signerInfo(t), modeDER).content))
		}},
		{"signed attributes in BER", KindMessage, func(s *messageSpec) {
			s.signedAttrs = indefinite(0xa0, s.attributes...)
			s.signature = derOctets(make([]byte, 256))
		}},
		{"signature in pieces", KindMessage, func(s *messageSpec) { s.signature = tlv(0x24, derOctets(make([]byte, 256))) }},
		{"signerInfo version 3", KindMessage, func(s *messageSpec) { s.siVersion = derInt(3) }},
		{"signerInfo version missing", KindMessage, func(s *messageSpec) { s.siVersion = nil }},
		{"C66: signer by key identifier", KindMessage, func(s *messageSpec) { s.sid = tlv(0x80, make([]byte, 20)) }},
		{"C66: signer by key identifier, version 3", KindMessage, func(s *messageSpec) { s.siVersion, s.sid = derInt(3), tlv(0x80, make([]byte, 20)) }},
		{"signer names no certificate, by serial", KindMessage, func(s *messageSpec) { s.sid = derSequence(s.signer.issuer, derInt(testSerial+1)) }},
		{"signer names no certificate, by issuer", KindMessage, func(s *messageSpec) { s.sid = derSequence(derName("other"), s.signer.serial) }},
		{"signer's serial not minimal", KindMessage, func(s *messageSpec) { s.sid = derSequence(s.signer.issuer, tlv(2, []byte{0, testSerial})) }},
		{"signer identifier with a third field", KindMessage, func(s *messageSpec) { s.sid = derSequence(s.signer.issuer, s.signer.serial, derNull()) }},
		{"C65: two certificates of one name and serial", KindMessage, func(s *messageSpec) {
			s.certificates = tlv(0xa0, s.signer.build(t), twin(t, s))
		}},
		{"C65: two certificates of one name and serial, decoy first", KindMessage, func(s *messageSpec) {
			s.certificates = tlv(0xa0, twin(t, s), s.signer.build(t))
		}},
		{"C65: the same certificate twice", KindMessage, func(s *messageSpec) { s.certificates = tlv(0xa0, s.signer.build(t), s.signer.build(t)) }},
		{"C68: no signed attributes", KindMessage, func(s *messageSpec) { s.noSignedAttrs = true }},
		{"C68: empty signed attributes", KindMessage, func(s *messageSpec) { s.attributes = nil }},
		{"C68: primitive signed attributes", KindMessage, func(s *messageSpec) { s.signedAttrs = tlv(0x80, bytes.Join(s.attributes, nil)) }},
		{"C73: unsigned attributes", KindMessage, func(s *messageSpec) {
			s.unsigned = tlv(0xa1, derAttribute(oidMessageType, derPrintable("17")))
		}},
		{"C73: empty unsigned attributes", KindMessage, func(s *messageSpec) { s.unsigned = tlv(0xa1) }},
		{"a field after the signature", KindMessage, func(s *messageSpec) { s.siExtra = derNull() }},

		{"C70: messageDigest missing", KindMessage, attribute(atMessageDigest)},
		{"C70: messageDigest twice", KindMessage, func(s *messageSpec) { s.attributes = append(s.attributes, s.attributes[atMessageDigest]) }},
		{"C70: messageDigest of two values", KindMessage, attribute(atMessageDigest, derAttribute(oidMessageDigest, derOctets(digestByOID(oidSHA256).sum(content)), derOctets(make([]byte, 32))))},
		{"C70: messageDigest of no value", KindMessage, attribute(atMessageDigest, derAttribute(oidMessageDigest))},
		{"C70: messageDigest cut", KindSignature, attribute(atMessageDigest, derAttribute(oidMessageDigest, derOctets(digestByOID(oidSHA256).sum(content)[:31])))},
		{"C70: messageDigest empty", KindSignature, attribute(atMessageDigest, derAttribute(oidMessageDigest, derOctets(nil)))},
		{"C70: messageDigest of other content", KindSignature, func(s *messageSpec) { s.eContent = tlv(0xa0, derOctets([]byte("other"))) }},
		{"C71: messageType twice", KindMessage, add(derAttribute(oidMessageType, derPrintable("17")))},
		{"C71: messageType twice, equal", KindMessage, add(derAttribute(oidMessageType, derPrintable("19")))},
		{"C71: messageType of two values", KindMessage, attribute(atMessageType, derAttribute(oidMessageType, derPrintable("17"), derPrintable("19")))},
		{"C71: transactionID twice", KindMessage, add(derAttribute(oidTransactionID, derPrintable("B")))},
		{"C71: senderNonce twice", KindMessage, add(derAttribute(oidSenderNonce, derOctets(testNonce)))},
		{"C71: signingTime twice", KindMessage, add(derAttribute(oidSigningTime, tlv(0x17, []byte("260601000000Z"))))},
		{"C71: harmless attribute twice", KindMessage, func(s *messageSpec) {
			s.attributes = append(s.attributes, derAttribute(oidSMIMECapabilities, derSequence()), derAttribute(oidSMIMECapabilities, derSequence()))
		}},
		{"C72: messageType as UTF8String", KindMessage, typeIs(derUTF8("19"))},
		{"C72: messageType as IA5String", KindMessage, typeIs(tlv(0x16, []byte("19")))},
		{"C72: messageType as INTEGER", KindMessage, typeIs(derInt(19))},
		{"C72: messageType with NUL", KindMessage, typeIs(derPrintable("19\x00"))},
		{"C72: values in a SEQUENCE", KindMessage, attribute(atMessageType, derSequence(derOID(oidMessageType), derSequence(derPrintable("19"))))},
		{"C72: attribute with a third field", KindMessage, attribute(atMessageType, derSequence(derOID(oidMessageType), derSet(derPrintable("19")), derNull()))},
		{"C72: attribute is a SET", KindMessage, attribute(atMessageType, derSet(derOID(oidMessageType), derSet(derPrintable("19"))))},
		{"D08: messageType missing", KindMessage, attribute(atMessageType)},
		{"D08: messageType empty", KindMessage, typeIs(derPrintable(""))},
		{"D08: messageType of nine characters", KindMessage, typeIs(derPrintable("123456789"))},
		{"D23: transactionID missing", KindMessage, attribute(atTransactionID)},
		{"D23: transactionID empty", KindMessage, idIs(derPrintable(""))},
		{"D23: transactionID with NUL", KindMessage, idIs(derPrintable("a\x00"))},
		{"D23: transactionID with CRLF", KindMessage, idIs(derPrintable("a\r\nb"))},
		{"D23: transactionID with a space", KindMessage, idIs(derPrintable("a b"))},
		{"D23: transactionID with a quote", KindMessage, idIs(derPrintable("a'b"))},
		{"D23: transactionID with parentheses", KindMessage, idIs(derPrintable("(a)"))},
		{"D23: transactionID of 129 characters", KindMessage, idIs(derPrintable(strings.Repeat("a", 129)))},
		{"D23: transactionID of 10 kB", KindMessage, idIs(derPrintable(strings.Repeat("a", 10000)))},
		{"D23: transactionID as UTF8String", KindMessage, idIs(derUTF8("a"))},
		{"D23: transactionID as BMPString", KindMessage, idIs(tlv(0x1e, []byte{0, 'a'}))},
		{"D24: senderNonce missing", KindMessage, attribute(atSenderNonce)},
		{"D24: senderNonce empty", KindMessage, nonceIs(derOctets(nil))},
		{"D24: senderNonce of 7 bytes", KindMessage, nonceIs(derOctets(make([]byte, 7)))},
		{"D24: senderNonce of 65 bytes", KindMessage, nonceIs(derOctets(make([]byte, 65)))},
		{"D24: senderNonce of 4096 bytes", KindMessage, nonceIs(derOctets(make([]byte, 4096)))},
		{"D24: senderNonce as PrintableString", KindMessage, nonceIs(derPrintable("0123456789abcdef"))},
		{"signingTime malformed", KindMessage, attribute(atSigningTime, derAttribute(oidSigningTime, derPrintable("now")))},
		{"extension request as signed attribute", KindMessage, add(derAttribute(oidExtensionRequest, derSequence()))},
		{"SCEP's own extension request", KindMessage, add(derAttribute("2.16.840.1.113733.1.9.8", derSequence()))},
		{"challengePassword as signed attribute", KindMessage, add(derAttribute(oidChallengePassword, derPrintable("x")))},
		{"pkiStatus in a request", KindMessage, add(derAttribute(oidPKIStatus, derPrintable("0")))},
		{"recipientNonce in a request", KindMessage, add(derAttribute(oidRecipientNonce, derOctets(testNonce)))},

		{"signature of zeros", KindSignature, func(s *messageSpec) { s.signature = derOctets(make([]byte, 256)) }},
		{"signature empty", KindSignature, func(s *messageSpec) { s.signature = derOctets(nil) }},
		{"signature by another key", KindSignature, func(s *messageSpec) { s.key = testKey(t, "other") }},
		{"signature over the attributes in another order", KindSignature, func(s *messageSpec) { s.unsorted = true }},
		{"signature over the content", KindSignature, func(s *messageSpec) {
			raw, err := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, digestByOID(oidSHA256).sum(content))
			if err != nil {
				t.Fatal(err)
			}
			s.signature = derOctets(raw)
		}},

		{"certificate version 4", KindMessage, certificate(func(c *certificateSpec) { c.version = tlv(0xa0, derInt(3)) })},
		{"certificate of two algorithms", KindMessage, certificate(func(c *certificateSpec) { c.innerAlg = derAlgorithm(oidSHA1WithRSA) })},
		{"certificate with a field too many", KindMessage, certificate(func(c *certificateSpec) { c.extra = derNull() })},
		{"certificate with a TBS field too many", KindMessage, certificate(func(c *certificateSpec) { c.tbsExtra = derNull() })},
		{"certificate serial of 65 bytes", KindMessage, certificate(func(c *certificateSpec) { c.serial = tlv(2, bytes.Repeat([]byte{0x41}, 65)) })},
		{"certificate serial empty", KindMessage, certificate(func(c *certificateSpec) { c.serial = tlv(2) })},
		{"certificate serial not minimal", KindMessage, certificate(func(c *certificateSpec) { c.serial = tlv(2, []byte{0, 1}) })},
		{"certificate without subject", KindMessage, certificate(func(c *certificateSpec) { c.subject = nil })},
		{"certificate validity of one time", KindSignature, certificate(func(c *certificateSpec) { c.validity = derSequence(tlv(0x17, []byte("260101000000Z"))) })},
		{"certificate validity of three times", KindSignature, certificate(func(c *certificateSpec) {
			one := tlv(0x17, []byte("260101000000Z"))
			c.validity = derSequence(one, one, one)
		})},
		{"certificate validity malformed", KindSignature, certificate(func(c *certificateSpec) {
			c.validity = derSequence(tlv(0x17, []byte("26")), tlv(0x17, []byte("270101000000Z")))
		})},

		{"C19: EC key", KindSignature, spkiIs(ecSPKI)},
		{"C19: modulus of 1023 bits", KindSignature, spkiIs(derRSASPKI(odd(1023), e))},
		{"E10: modulus of 8193 bits", KindSignature, spkiIs(derRSASPKI(odd(8193), e))},
		{"E10: modulus of 16384 bits", KindSignature, spkiIs(derRSASPKI(odd(16384), e))},
		{"C19: even modulus", KindSignature, spkiIs(derRSASPKI(new(big.Int).Lsh(big.NewInt(1), 2047), e))},
		{"C19: negative modulus", KindSignature, spkiIs(derRSASPKI(new(big.Int).Neg(key.N), e))},
		{"C19: modulus zero", KindSignature, spkiIs(derRSASPKI(new(big.Int), e))},
		{"C19: exponent 1", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(1)))},
		{"C19: exponent 3", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(3)))},
		{"C19: exponent 65536", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(65536)))},
		{"C19: exponent 65538", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(65538)))},
		{"C19: exponent negative", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(-65537)))},
		{"C19: exponent 2^31+1", KindSignature, spkiIs(derRSASPKI(key.N, big.NewInt(1<<31+1)))},
		{"C19: exponent 2^64+1", KindSignature, spkiIs(derRSASPKI(key.N, new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(1))))},
		{"C18: key without NULL", KindSignature, spkiIs(derSequence(derSequence(derOID(oidRSAEncryption)), derBits(derSequence(derBigInt(key.N), derBigInt(e)))))},
		{"C18: key with other parameters", KindSignature, spkiIs(derSequence(derSequence(derOID(oidRSAEncryption), derInt(1)), derBits(derSequence(derBigInt(key.N), derBigInt(e)))))},
		{"key of three numbers", KindSignature, spkiIs(derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(derBigInt(key.N), derBigInt(e), derInt(1)))))},
		{"key with trailing bytes", KindSignature, spkiIs(derSequence(derAlgorithm(oidRSAEncryption), derBits(append(derSequence(derBigInt(key.N), derBigInt(e)), 0))))},
		{"key info with a field too many", KindSignature, spkiIs(derSequence(derAlgorithm(oidRSAEncryption), derBits(derSequence(derBigInt(key.N), derBigInt(e))), derNull()))},
		{"key with unused bits", KindSignature, spkiIs(derSequence(derAlgorithm(oidRSAEncryption), tlv(3, []byte{1}, []byte{0x30, 0})))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := honest(t, content)
			tt.change(s)
			m, err := ParseMessage(s.build(t))
			if m != nil {
				t.Error("message accepted")
			}
			var perr *ParseError
			if !errors.As(err, &perr) {
				t.Fatalf("error %v", err)
			}
			if perr.Kind != tt.kind {
				t.Errorf("kind %d, want %d: %v", perr.Kind, tt.kind, err)
			}
		})
	}
	for _, raw := range [][]byte{nil, {}, {0x30}, derNull(), derSequence(), derSequence(derOID(oidSignedData)), derSequence(derOID(oidSignedData), tlv(0x80))} {
		if m, err := ParseMessage(raw); err == nil || m != nil {
			t.Errorf("%x accepted", raw)
		}
	}
}

// odd is an odd number of that many bits.
func odd(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return n.Add(n, big.NewInt(1))
}

// foreign is a certificate of another name.
func foreign(t testing.TB, serial int64) []byte {
	t.Helper()
	c := newCertificateSpec("foreign", serial, testKey(t, "other"))
	return c.build(t)
}

// twin is a certificate of the signer's issuer and serial with another key.
func twin(t testing.TB, s *messageSpec) []byte {
	t.Helper()
	c := newCertificateSpec("device", testSerial, testKey(t, "other"))
	return c.build(t)
}

func TestCertificatesAreCounted(t *testing.T) {
	s := honest(t, []byte("x"))
	s.certificates = tlv(0xa0, foreign(t, 1), foreign(t, 2), s.signer.build(t), foreign(t, 3))
	m, err := ParseMessage(s.build(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.Certificates != 4 || m.Signer.Serial.Int64() != testSerial {
		t.Errorf("%d certificates, signer %v", m.Certificates, m.Signer.Serial)
	}
}

// Chain certificates need not be RSA: only the signer's key is used.
func TestChainMayHoldAnECCertificate(t *testing.T) {
	s := honest(t, []byte("x"))
	ca := ecCA(t)
	s.certificates = tlv(0xa0, s.signer.build(t), ca.Raw)
	m, err := ParseMessage(s.build(t))
	if err != nil || m.Certificates != 2 {
		t.Errorf("%v", err)
	}
}

func TestErrorTextsQuoteNothing(t *testing.T) {
	s := honest(t, []byte("x"))
	s.attributes[atTransactionID] = derAttribute(oidTransactionID, derUTF8("evil\x1b[31m"))
	s.attributes[atMessageType] = derAttribute(oidMessageType, derUTF8("evil\x1b[31m"))
	_, err := ParseMessage(s.build(t))
	if err == nil || strings.Contains(err.Error(), "evil") {
		t.Errorf("error %q", err)
	}
}

func TestCapturedAppleRequest(t *testing.T) {
	raw := vector(t, "PKCSReq.der")
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.MessageType != "19" || m.TransactionID != testTransactionID || hex.EncodeToString(m.SenderNonce) != "ae7fe8816cc6bedd" || m.Digest != "sha1" || m.Certificates != 1 {
		t.Errorf("facts %+v", m)
	}
	if m.Signer.Serial.Int64() != 1 || !m.Signer.SelfSigned {
		t.Errorf("signer %+v", m.Signer)
	}
	e, perr := parseEnvelope(m.content)
	if perr != nil {
		t.Fatal(perr)
	}
	if e.cipher.name != "des3" || e.transport != transportPKCS1v15 || len(e.encryptedKey) == 0 || len(e.ciphertext)%8 != 0 {
		t.Errorf("envelope %+v", e)
	}
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 0x40
		if m, err := ParseMessage(flipped); err == nil && m.Signer.SelfSigned {
			t.Errorf("bit flip at byte %d accepted", i)
		}
	}
}

// The Windows request is a test of a library that this module depends on; it
// is read from there.
func TestCapturedWindowsRequest(t *testing.T) {
	folder, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/smallstep/pkcs7").Output()
	if err != nil {
		t.Skipf("module folder not found: %v", err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(folder)), "parse_test.go"))
	if err != nil {
		t.Skipf("captured message not there: %v", err)
	}
	match := regexp.MustCompile("b64 := `([^`]+)`").FindSubmatch(source)
	if match == nil {
		t.Skip("captured message not there")
	}
	raw, err := base64.StdEncoding.DecodeString(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.MessageType != "19" || m.Digest != "sha1" || m.TransactionID != "252e27f890ea721a5a5790225ce6b42a02d14fbf" || len(m.SenderNonce) != 16 {
		t.Errorf("facts %+v", m)
	}
	e, perr := parseEnvelope(m.content)
	if perr != nil {
		t.Fatal(perr)
	}
	if e.cipher.name != "aes128" || e.transport != transportOAEP {
		t.Errorf("cipher %s, transport %s", e.cipher.name, e.transport)
	}
	if !m.Signer.SelfSigned { // quirk: its critical AKI names another key identifier than its SKI
		t.Error("not self-signed")
	}
}

// FuzzMessage starts from two messages of one key that was thrown away: what
// is accepted under that key must be one of them, byte for byte where it counts.
func FuzzMessage(f *testing.F) {
	var known *Message
	for _, name := range []string{"message.der", "message.ber"} {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		if known, err = ParseMessage(raw); err != nil {
			f.Fatal(err)
		}
	}
	f.Add([]byte{0x30, 0x80, 0x06, 0x09})
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		m, err := ParseMessage(raw)
		if !bytes.Equal(before, raw) {
			t.Fatal("input changed")
		}
		var perr *ParseError
		if err != nil {
			if m != nil || !errors.As(err, &perr) {
				t.Fatalf("message %v with error %v", m, err)
			}
			return
		}
		if !bytes.Equal(m.Raw, raw) || len(m.MessageType) == 0 || len(m.MessageType) > 8 || !isTransactionID(m.TransactionID) ||
			len(m.SenderNonce) < 8 || len(m.SenderNonce) > 64 || m.Certificates < 1 || m.Certificates > 4 || m.Signer == nil {
			t.Fatalf("accepted %+v", m)
		}
		if m.Signer.PublicKey.Equal(known.Signer.PublicKey) && (!bytes.Equal(m.content, known.content) || m.MessageType != known.MessageType ||
			m.TransactionID != known.TransactionID || !bytes.Equal(m.SenderNonce, known.SenderNonce)) {
			t.Fatalf("forged %+v", m)
		}
	})
}

// FuzzEnvelope holds that what parses can be decrypted with any key without a
// panic, and that the plaintext lies inside of the buffer that is wiped.
func FuzzEnvelope(f *testing.F) {
	for _, outer := range []func(byte, ...[]byte) []byte{tlv, indefinite} {
		recipient := derSequence(derInt(0), derSequence(derName("ca"), derInt(5)), derAlgorithm(oidRSAEncryption), derOctets(make([]byte, 16)))
		for _, encrypted := range [][]byte{tlv(0x80, make([]byte, 32)), outer(0xa0, derOctets(make([]byte, 5)), derOctets(make([]byte, 12)))} {
			eci := outer(0x30, derOID(oidData), derSequence(derOID(oidAES128CBC), derOctets(make([]byte, 16))), encrypted)
			f.Add(outer(0x30, derOID(oidEnvelopedData), outer(0xa0, outer(0x30, derInt(0), derSet(recipient), eci))))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, perr := parseEnvelope(raw)
		if (e == nil) == (perr == nil) {
			t.Fatalf("envelope %v with error %v", e, perr)
		}
		if e == nil {
			return
		}
		if len(e.iv) != e.cipher.blockSize() {
			t.Fatal("initialisation vector of another length")
		}
		plaintext, buffer, ok := e.decrypt(make([]byte, e.cipher.size))
		if len(plaintext) > len(buffer) || ok != 0 && len(plaintext) == len(buffer) {
			t.Fatalf("plaintext of %d bytes in a buffer of %d, ok %d", len(plaintext), len(buffer), ok)
		}
	})
}

func BenchmarkParseMessage(b *testing.B) {
	raw := honest(b, make([]byte, 2000)).build(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMessage(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := testECKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
