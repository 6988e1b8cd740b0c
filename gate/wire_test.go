package gate

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// Real keys, certificates and messages: what the inspector makes of bytes is
// what the gate judges.

var wireKeys = sync.OnceValue(func() (keys [4]*rsa.PrivateKey) { // CA, RA, device, thief
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

type wire struct {
	*house
	ca, ra        *x509.Certificate
	opener        *inspector.Opener
	device, thief *rsa.PrivateKey
}

func certificate(t *testing.T, cn string, usage x509.KeyUsage, isCA bool, key *rsa.PrivateKey, parent *x509.Certificate, by *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, KeyUsage: usage,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: isCA,
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWire(t *testing.T) *wire {
	keys := wireKeys()
	w := &wire{device: keys[2], thief: keys[3]}
	w.ca = certificate(t, "Wire CA", x509.KeyUsageCertSign, true, keys[0], nil, keys[0])
	w.ra = certificate(t, "Wire RA", x509.KeyUsageKeyEncipherment, false, keys[1], w.ca, keys[0])
	w.house = newHouse(t, func(p *Profile) {
		p.CAs, p.RAs = []*x509.Certificate{w.ca}, []*x509.Certificate{w.ra}
	}, nil)
	var err error
	w.opener, err = inspector.NewOpener([]inspector.RAKey{{Name: "ndes1", Certificate: w.ra, Key: keys[1]}}, judgeHasher(t).SubstituteSecret())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wireCSR() inspector.CSRParams {
	c := compliant(1).Opened.CSR
	subject := slices.Clone(c.Subject)
	return inspector.CSRParams{
		Subject: subject, SAN: c.SAN, SID: c.SID, KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage, Challenge: c.Challenge,
	}
}

func (w *wire) csr(p inspector.CSRParams, key *rsa.PrivateKey) []byte {
	w.t.Helper()
	der, err := inspector.BuildCSR(p, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (w *wire) selfSigned(key *rsa.PrivateKey) []byte {
	w.t.Helper()
	der, err := inspector.SelfSignedCertificate([]inspector.RDN{{{Type: "2.5.4.3", Value: "SCEP SIGNER"}}}, time.Now(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// poll is what a GetCertInitial holds.
func (w *wire) poll() []byte {
	w.t.Helper()
	der, err := inspector.BuildIssuerAndSubject(w.ca.RawSubject, wireCSR().Subject)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// send builds, parses, opens and judges.
func (w *wire) send(m inspector.PKIMessage) Decision {
	w.t.Helper()
	return w.sendFrom("192.0.2.1", m)
}

func (w *wire) sendFrom(address string, m inspector.PKIMessage) Decision {
	w.t.Helper()
	msg, opened := w.open(m)
	return w.judge(Request{Message: msg, Opened: opened, ClientIP: address, UserAgent: "test"})
}

func (w *wire) open(m inspector.PKIMessage) (*inspector.Message, *inspector.Opened) {
	w.t.Helper()
	if m.MessageType == "" {
		m.MessageType = "19"
	}
	m.Recipient = w.ra
	raw, err := inspector.BuildPKIMessage(m)
	if err != nil {
		w.t.Fatal(err)
	}
	msg, err := inspector.ParseMessage(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return msg, w.opener.Open(msg)
}

func TestRealMessages(t *testing.T) {
	tests := []struct {
		name string
		make func(w *wire) inspector.PKIMessage
		want Reason
	}{
		{"compliant", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, OK},
		{"compliant, by OAEP, SHA-1 and extensions under Microsoft's identifier", func(w *wire) inspector.PKIMessage {
			p := wireCSR()
			p.MicrosoftExtensions, p.Version = true, 2
			return inspector.PKIMessage{Content: w.csr(p, w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device, OAEP: true, Digest: "sha1"}
		}, OK},
		{"A01 administrator", func(w *wire) inspector.PKIMessage {
			p := wireCSR()
			p.Subject = []inspector.RDN{{{Type: "2.5.4.3", Value: "administrator"}}}
			return inspector.PKIMessage{Content: w.csr(p, w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, SubjectMismatch},
		{"A12 envelope lifted by a thief", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.thief), SignerKey: w.thief}
		}, SignerMismatch},
		{"D10 PKCSReq signed by a certificate of the CA, with the challenge", func(w *wire) inspector.PKIMessage {
			c := certificate(w.t, "dev1", x509.KeyUsageDigitalSignature, false, w.device, w.ca, wireKeys()[0])
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: c.Raw, SignerKey: w.device}
		}, RenewalDisabled},
		{"D11 RenewalReq signed by a certificate of the CA", func(w *wire) inspector.PKIMessage {
			c := certificate(w.t, "dev1", x509.KeyUsageDigitalSignature, false, w.device, w.ca, wireKeys()[0])
			return inspector.PKIMessage{MessageType: "17", Content: w.csr(wireCSR(), w.thief), SignerCert: c.Raw, SignerKey: w.device}
		}, RenewalDisabled},
		{"D13 signed by a CA of the same name", func(w *wire) inspector.PKIMessage {
			evil := certificate(w.t, "Wire CA", x509.KeyUsageCertSign, true, w.thief, nil, w.thief)
			c := certificate(w.t, "dev1", x509.KeyUsageDigitalSignature, false, w.device, evil, w.thief)
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: c.Raw, SignerKey: w.device}
		}, RenewalSignerUntrusted},
		{"D13 self-signed in the name of the CA", func(w *wire) inspector.PKIMessage {
			c := certificate(w.t, "Wire CA", x509.KeyUsageDigitalSignature, false, w.device, nil, w.device)
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: c.Raw, SignerKey: w.device}
		}, RenewalSignerUntrusted},
		{"C49 des", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device, Cipher: "des"}
		}, AlgorithmRefused},
		{"C76 md5", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device, Digest: "md5"}
		}, AlgorithmRefused},
		{"B13 basicConstraints", func(w *wire) inspector.PKIMessage {
			p := wireCSR()
			p.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
			return inspector.PKIMessage{Content: w.csr(p, w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, UnexpectedExtension},
		{"no PKCS#10", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: []byte("hello"), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, MalformedRequest},
		{"D19 GetCertInitial", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{MessageType: "20", Content: w.poll(), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, TransactionUnknown},
		{"D20 GetCertInitial with a PKCS#10 in it", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{MessageType: "20", Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, MalformedRequest},
		{"D20 PKCSReq with two names in it", func(w *wire) inspector.PKIMessage {
			return inspector.PKIMessage{Content: w.poll(), SignerCert: w.selfSigned(w.device), SignerKey: w.device}
		}, MalformedRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t)
			d := w.send(tt.make(w))
			if d.Reason != tt.want || d.Forward != (tt.want == OK) {
				t.Errorf("%+v", d)
			}
			if w.store.finds != 1 || w.expectation().EverClaimed != d.Forward {
				t.Errorf("%d finds, claimed %v", w.store.finds, w.expectation().EverClaimed)
			}
		})
	}
}

func TestADryRunJudgesAsTheRealThing(t *testing.T) {
	tests := []struct {
		name   string
		change func(p *inspector.CSRParams)
		stored bool // as by expectation_id: with the challenge
		want   []Reason
	}{
		{"compliant", func(*inspector.CSRParams) {}, true, nil},
		{"without an expectation_id the challenge does not count", func(p *inspector.CSRParams) { p.Challenge = "" }, false, nil},
		{"no challenge", func(p *inspector.CSRParams) { p.Challenge = "" }, true, []Reason{ChallengeMissing}},
		{"other challenge", func(p *inspector.CSRParams) { p.Challenge = "0000000000000000" }, true, []Reason{ChallengeUnknown}},
		{"other subject and SAN", func(p *inspector.CSRParams) { p.Subject, p.SAN = p.Subject[:1], nil }, false, []Reason{SubjectMismatch, SANMismatch}},
		{"key usage", func(p *inspector.CSRParams) { p.KeyUsage = digitalSignature }, true, []Reason{KeyUsageMismatch, TemplateMismatch}},
		{"an extension", func(p *inspector.CSRParams) {
			p.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		}, true, []Reason{UnexpectedExtension}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t)
			p := wireCSR()
			tt.change(&p)
			der := w.csr(p, w.device)
			v := w.gate.Check(t.Context(), der, w.expectation(), tt.stored)
			if diff := cmp.Diff(tt.want, reasonsOf(v.Findings)); diff != "" || (v.Verdict == "accept") != (tt.want == nil) || v.Findings == nil {
				t.Errorf("%+v (-want +got):\n%s", v, diff)
			}
			if e := w.expectation(); len(e.History) != 1 {
				t.Error("the dry run left something behind")
			}
			d := w.send(inspector.PKIMessage{Content: der, SignerCert: w.selfSigned(w.device), SignerKey: w.device})
			if tt.stored && (d.Reason != v.Reason) {
				t.Errorf("dry run %s, real thing %s", v.Reason, d.Reason)
			}
		})
	}
	t.Run("bytes that are no PKCS#10", func(t *testing.T) {
		w := newWire(t)
		for _, der := range [][]byte{nil, {0x30}, []byte("-----BEGIN CERTIFICATE REQUEST-----")} {
			if v := w.gate.Check(t.Context(), der, w.expectation(), false); v.Verdict != "refuse" || v.Reason != MalformedRequest {
				t.Errorf("%+v", v)
			}
		}
	})
	t.Run("a zero expectation", func(t *testing.T) {
		w := newWire(t)
		for _, stored := range []bool{false, true} {
			if v := w.gate.Check(t.Context(), w.csr(wireCSR(), w.device), store.Expectation{}, stored); v.Verdict != "refuse" || v.Reason == OK {
				t.Errorf("%+v", v)
			}
		}
	})
	t.Run("one that another key holds", func(t *testing.T) {
		w := newWire(t)
		w.send(inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device})
		if v := w.gate.Check(t.Context(), w.csr(wireCSR(), w.thief), w.expectation(), true); v.Reason != ChallengeInUse {
			t.Errorf("%+v", v)
		}
	})
	t.Run("below the floor, and the client gone", func(t *testing.T) {
		w := newWire(t)
		p := w.profile
		p.Digests, p.MinRSABits = []string{"sha512"}, 4096
		p.Constraints = func(string) (*Constraints, bool) { return nil, false }
		w.rebuild(p)
		v := w.gate.Check(t.Context(), w.csr(wireCSR(), w.device), w.expectation(), false)
		if diff := cmp.Diff([]Reason{AlgorithmRefused, KeyRefused, ChallengeRevoked}, reasonsOf(v.Findings)); diff != "" || v.Verdict != "refuse" {
			t.Errorf("%+v (-want +got):\n%s", v, diff)
		}
	})
	t.Run("static", func(t *testing.T) {
		w := newWire(t)
		p := w.profile
		p.Source, p.StaticPassword = SourceNDESStatic, judgeChallenge
		w.rebuild(p)
		e := w.expectation()
		e.ChallengeHash = nil
		if v := w.gate.Check(t.Context(), w.csr(wireCSR(), w.device), e, true); v.Verdict != "accept" {
			t.Errorf("%+v", v)
		}
		c := wireCSR()
		c.Challenge = "0000000000000000"
		if v := w.gate.Check(t.Context(), w.csr(c, w.device), e, true); v.Reason != ChallengeUnknown {
			t.Errorf("%+v", v)
		}
	})
}
