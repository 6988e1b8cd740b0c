package gate

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// renews is a renewal block in which everything is at its default but for change.
func renews(change func(r *Renewal)) *Renewal {
	r := &Renewal{WindowPercent: 33, ExtKeyUsage: []string{oidClientAuth}}
	if change != nil {
		change(r)
	}
	return r
}

// device is a device whose certificate is about to end: it has been valid for
// 80 days of 100.
type device struct {
	*wire
	certificate []byte
	newKey      *rsa.PrivateKey
}

const serial = "1badcafe"

// newDevice makes the certificate from a request, as a CA does, changed by cert.
func newDevice(t *testing.T, renewal func(r *Renewal), cert func(p *inspector.CSRParams, c *x509.Certificate)) *device {
	t.Helper()
	d := &device{wire: newWire(t)}
	d.newKey = d.thief
	p := d.profile
	p.Renewal = renews(renewal)
	d.rebuild(p)
	d.certificate = d.certify(cert)
	return d
}

func (d *device) certify(change func(p *inspector.CSRParams, c *x509.Certificate)) []byte {
	d.t.Helper()
	request := wireCSR()
	n, _ := new(big.Int).SetString(serial, 16)
	c := &x509.Certificate{
		SerialNumber: n, NotBefore: d.clock.now().AddDate(0, 0, -80), NotAfter: d.clock.now().AddDate(0, 0, 20),
	}
	if change != nil {
		change(&request, c)
	}
	csr, err := x509.ParseCertificateRequest(d.csr(request, d.device))
	if err != nil {
		d.t.Fatal(err)
	}
	c.RawSubject = csr.RawSubject
	c.ExtraExtensions = append(csr.Extensions, c.ExtraExtensions...)
	der, err := x509.CreateCertificate(rand.Reader, c, d.ca, &d.device.PublicKey, wireKeys()[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return der
}

// message is a compliant renewal to a new key, changed by change.
func (d *device) message(change func(p *inspector.CSRParams, m *inspector.PKIMessage)) inspector.PKIMessage {
	d.t.Helper()
	p := wireCSR()
	p.Challenge = ""
	m := inspector.PKIMessage{MessageType: "17", SignerCert: d.certificate, SignerKey: d.device, TransactionID: "R1"}
	if change != nil {
		change(&p, &m)
	}
	if m.Content == nil {
		m.Content = d.csr(p, d.newKey)
	}
	return m
}

func (d *device) renew(change func(p *inspector.CSRParams, m *inspector.PKIMessage)) Decision {
	d.t.Helper()
	return d.send(d.message(change))
}

// toKey is a renewal to another key, by another transaction.
func (d *device) toKey(key *rsa.PrivateKey) Decision {
	d.t.Helper()
	return d.renew(func(p *inspector.CSRParams, m *inspector.PKIMessage) {
		m.Content, m.TransactionID = d.csr(*p, key), "R2"
	})
}

// record is the renewal's record of the gateway's own.
func (d *device) record() *store.Expectation {
	d.t.Helper()
	sum := sha256.Sum256(d.certificate)
	hit, err := d.store.Store.Find(d.t.Context(), store.Lookup{Profile: "wifi", ChallengeHash: judgeHasher(d.t).Renewal("wifi", hex.EncodeToString(sum[:]))})
	if err != nil {
		d.t.Fatal(err)
	}
	return hit.Expectation
}

// register lets an MDM register the renewal.
func (d *device) register(text string) store.Expectation {
	d.t.Helper()
	prepared, problems := d.gate.Prepare(registration(d.t, text), "jamf")
	if len(problems) > 0 {
		d.t.Fatal(problems)
	}
	e, err := d.store.Register(d.t.Context(), prepared.Expectation)
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

func extensionOf(oid asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

var (
	oidTemplateOID  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 7}
	oidTemplateName = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2}
	oidPolicies     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 10}
)

func templateOID(oid ...int) pkix.Extension {
	return extensionOf(oidTemplateOID, false, []asn1.ObjectIdentifier{oid})
}

func templateName(name string) pkix.Extension {
	var text []byte
	for _, r := range name {
		text = append(text, byte(r>>8), byte(r))
	}
	return extensionOf(oidTemplateName, false, asn1.RawValue{Tag: asn1.TagBMPString, Bytes: text})
}

func policies(oids ...asn1.ObjectIdentifier) pkix.Extension {
	var list [][]asn1.ObjectIdentifier
	for _, oid := range oids {
		list = append(list, []asn1.ObjectIdentifier{oid})
	}
	return extensionOf(oidPolicies, false, list)
}

var (
	clientAuthOID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	agentOID      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}
	fittingOID    = []int{1, 3, 6, 1, 4, 1, 311, 21, 8, 1}
)

func TestACertificateIsRenewedOnceItIsClaimed(t *testing.T) {
	w := newDevice(t, nil, nil)
	d := w.renew(nil)
	sum, spki := sha256.Sum256(w.certificate), mustSPKI(t, w.newKey)
	e := w.record()
	if e == nil {
		t.Fatalf("no record: %+v", d)
	}
	want := Decision{
		ID: d.ID, Forward: true, Reason: OK, MessageType: "renewal_req", TransactionID: "R1",
		RequestedSubject: "CN=C02XK1 WIFI,O=Example Corp",
		RequestedSAN:     []string{"dns:C02XK1.example.com", "upn:ann@example.com", "sid:" + judgeSID},
		SPKISHA256:       hex.EncodeToString(spki), ExpectationID: e.ID, RA: "ndes1",
		MatcherCalls: []MatcherCall{{"exact", "agree"}},
		claim:        d.claim, nonces: d.nonces,
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(Decision{}, claimRef{})); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	end := w.clock.now().AddDate(0, 0, 20)
	content := judgeContent()
	content.Subject[0], content.Subject[1] = content.Subject[1], content.Subject[0]
	content.Key = store.KeyRule{}
	wantRecord := store.Expectation{
		ID: e.ID, Profile: "wifi", ChallengeHash: e.ChallengeHash, Request: []byte("{}"), Content: content,
		Renews: &store.Renews{SHA256: hex.EncodeToString(sum[:])}, RetainUntil: end, ExpiresAt: end, MaxUses: 1,
		CreatedAt: w.clock.now(), ChangedAt: w.clock.now(), EverClaimed: true, State: store.Claimed, Generation: 2,
		Uses: e.Uses, History: e.History,
	}
	if diff := cmp.Diff(wantRecord, *e); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if u := e.Use(spki); u == nil || !u.DoubtAt.Equal(w.clock.now().Add(20*time.Minute)) || !u.ReleaseAt.IsZero() {
		t.Errorf("uses %+v", e.Uses)
	}
	if w.store.finds != 1 || w.store.claims != 1 || w.store.gets != 0 {
		t.Errorf("%d finds, %d claims, %d gets", w.store.finds, w.store.claims, w.store.gets)
	}
	l := w.store.lookups[0]
	if diff := cmp.Diff(store.Lookup{
		Profile: "wifi", ChallengeHash: e.ChallengeHash, IdentityHash: judgeHasher(t).RenewalSerial("wifi", serial), TransactionID: "R1",
	}, l); diff != "" {
		t.Errorf("lookup (-want +got):\n%s", diff)
	}
	if s := w.settle(d, rep("0")); s.State != store.Issued {
		t.Errorf("%+v", s)
	}
	if w.expectation().EverClaimed {
		t.Error("the challenge's expectation was claimed")
	}
}

func mustSPKI(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

func TestWhatARenewalMayDoDifferently(t *testing.T) {
	type request = func(p *inspector.CSRParams, m *inspector.PKIMessage)
	type cert = func(p *inspector.CSRParams, c *x509.Certificate)
	tests := []struct {
		name    string
		renewal func(*Renewal)
		cert    cert
		request request
	}{
		{"type 19", nil, nil, func(_ *inspector.CSRParams, m *inspector.PKIMessage) { m.MessageType = "19" }},
		{"a challenge, which is ignored", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.Challenge = "nobody knows this one" }},
		{"the same key", nil, nil, nil}, // see below
		{"order and case of names", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.Subject[0], p.Subject[1] = p.Subject[1], p.Subject[0]
			p.SAN = []inspector.GeneralName{{Type: "upn", Value: "ANN@example.com"}, {Type: "dns", Value: "c02xk1.EXAMPLE.com"}}
		}},
		{"string types", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.Subject[1][0].Tag = 22 }, nil},
		{"the SID in the other carrier", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.SID, p.SAN = "", append(p.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
		}},
		{"the SID in both carriers of the certificate", nil, func(p *inspector.CSRParams, _ *x509.Certificate) {
			p.SAN = append(p.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
		}, nil},
		{"no key usage", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = 0 }},
		{"another key usage of the same class", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.KeyUsage |= nonRepudiation | dataEncipherment
		}},
		{"no EKU", nil, nil, func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }},
		{"application policies left out", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{policies(clientAuthOID)}
		}, nil},
		{"application policies of the certificate", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{policies(clientAuthOID)}
		}, func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.ExtraExtensions = []pkix.Extension{policies(clientAuthOID)}
		}},
		{"template extensions that fit", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{templateOID(fittingOID...), templateName("WiFiClient")}
		}, func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.ExtraExtensions = []pkix.Extension{templateOID(fittingOID...), templateName("WiFiClient")}
		}},
		{"a type that the CA drops", func(r *Renewal) { r.CADrops = []string{"1.2.840.113549.1.9.2", "2.5.4.5"} }, nil,
			func(p *inspector.CSRParams, _ *inspector.PKIMessage) {
				p.Subject = append(p.Subject, inspector.RDN{{Type: "1.2.840.113549.1.9.2", Value: "router"}})
				p.Subject[0] = append(p.Subject[0], inspector.AttributeTypeAndValue{Type: "2.5.4.5", Value: "4711"})
			}},
		{"a signature of the CA by SHA-1", nil, func(_ *inspector.CSRParams, c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }, nil},
		{"the end of its last day", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
			c.NotAfter = c.NotBefore.AddDate(0, 0, 80).Add(time.Second)
		}, nil},
		{"the first second", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
			c.NotBefore = c.NotBefore.AddDate(0, 0, 80)
		}, nil}, // see below
		{"a window as a duration", func(r *Renewal) { r.WindowPercent, r.Window = 0, 20*24*time.Hour }, nil, nil},
		{"several purposes", func(r *Renewal) { r.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.1", oidClientAuth} }, func(p *inspector.CSRParams, _ *x509.Certificate) {
			p.ExtKeyUsage = []string{oidClientAuth, "1.3.6.1.5.5.7.3.1"}
		}, func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }},
		{"not on the CRL", func(r *Renewal) { r.Revoked = func(*inspector.Signer) (bool, bool) { return false, true } }, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			renewal := tt.renewal
			if tt.name == "the first second" {
				renewal = func(r *Renewal) { r.WindowPercent = 100 }
			}
			w := newDevice(t, renewal, tt.cert)
			if tt.name == "the same key" {
				w.newKey = w.device
			}
			if d := w.renew(tt.request); !d.Forward || d.Reason != OK {
				t.Errorf("%s: %+v", d.Reason, d.Findings)
			}
		})
	}
	t.Run("a chain", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		d := w.renew(func(_ *inspector.CSRParams, m *inspector.PKIMessage) {
			m.Chain = [][]byte{w.ca.Raw, w.ra.Raw, w.selfSigned(w.thief)}
		})
		if !d.Forward {
			t.Errorf("%s: %+v", d.Reason, d.Findings)
		}
	})
	t.Run("a profile with a static password", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		p := w.profile
		p.Source, p.StaticPassword = SourceNDESStatic, judgeChallenge
		w.rebuild(p)
		if d := w.renew(nil); !d.Forward {
			t.Errorf("%s: %+v", d.Reason, d.Findings)
		}
		if d := w.toKey(w.device); d.Forward || d.Reason != RenewalUsed {
			t.Errorf("%s: %+v", d.Reason, d.Findings)
		}
	})
}

// renewalRefusals is one renewal, at least, for every reason that the gate has
// for it.
var renewalRefusals = []struct {
	name    string
	renewal func(*Renewal)
	cert    func(p *inspector.CSRParams, c *x509.Certificate)
	request func(w *device, p *inspector.CSRParams, m *inspector.PKIMessage)
	want    []Reason
	field   string // of the first finding
}{
	{"D14 expired", nil, func(_ *inspector.CSRParams, c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(0, 0, 80) }, nil,
		[]Reason{RenewalSignerExpired}, "signer"},
	{"not yet valid", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.NotBefore = c.NotBefore.AddDate(0, 0, 80).Add(time.Second)
	}, nil,
		[]Reason{RenewalSignerExpired, RenewalTooEarly}, "signer"},
	{"D15 on a CRL", func(r *Renewal) { r.Revoked = func(*inspector.Signer) (bool, bool) { return true, true } }, nil, nil,
		[]Reason{RenewalSignerRevoked}, "signer"},
	{"D16 a CA's", nil, func(_ *inspector.CSRParams, c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, nil,
		[]Reason{RenewalSignerUntrusted}, "signer_key_usage"},
	{"D16 one that signs certificates", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.KeyUsage |= keyCertSign }, nil,
		[]Reason{RenewalSignerUntrusted, RenewalIdentityChanged}, "signer_key_usage"},
	{"D16 one that signs CRLs", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.KeyUsage |= cRLSign }, nil,
		[]Reason{RenewalSignerUntrusted, RenewalIdentityChanged}, "signer_key_usage"},
	{"D16 an enrollment agent's", nil, func(p *inspector.CSRParams, _ *x509.Certificate) {
		p.ExtKeyUsage = append(p.ExtKeyUsage, "1.3.6.1.4.1.311.20.2.1")
	}, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }, []Reason{RenewalSignerUntrusted}, "signer_ext_key_usage"},
	{"D16 one for any purpose", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.ExtKeyUsage = []string{"2.5.29.37.0"} },
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }, []Reason{RenewalSignerUntrusted}, "signer_ext_key_usage"},
	{"D16 a server's", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.ExtKeyUsage = []string{"1.3.6.1.5.5.7.3.1"} },
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }, []Reason{RenewalSignerUntrusted}, "signer_ext_key_usage"},
	{"one without a purpose", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.ExtKeyUsage = nil },
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil }, []Reason{RenewalSignerUntrusted}, "signer_ext_key_usage"},
	{"one with a purpose less than is wanted", func(r *Renewal) { r.ExtKeyUsage = append(r.ExtKeyUsage, "1.3.6.1.5.5.7.3.1") }, nil, nil,
		[]Reason{RenewalSignerUntrusted}, "signer_ext_key_usage"},
	{"B09 an agent by application policy", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{policies(clientAuthOID, agentOID)}
	}, nil, []Reason{RenewalSignerUntrusted}, "signer_application_policies"},
	{"an extension twice", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{templateOID(fittingOID...), templateOID(fittingOID...)}
	}, nil, []Reason{RenewalSignerUntrusted}, "signer"},
	{"a critical extension that nobody knows", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{extensionOf(asn1.ObjectIdentifier{1, 2, 3}, true, 1)}
	}, nil, []Reason{RenewalSignerUntrusted}, "signer"},
	{"a name as T61String", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.Subject[0][0].Tag = 20 }, nil, []Reason{RenewalSignerUntrusted}, "signer"},
	{"another template's OID", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{templateOID(1, 2, 3)}
	}, nil, []Reason{RenewalSignerUntrusted}, "signer_template"},
	{"another template's name", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{templateName("User")}
	}, nil, []Reason{RenewalSignerUntrusted}, "signer_template"},
	{"a template whose OID is not configured", nil, func(p *inspector.CSRParams, c *x509.Certificate) {
		p.KeyUsage, c.ExtraExtensions = digitalSignature, []pkix.Extension{templateOID(fittingOID...)}
	}, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = digitalSignature }, []Reason{RenewalSignerUntrusted}, "signer_template"},
	{"a template that is not configured", nil, func(p *inspector.CSRParams, c *x509.Certificate) {
		p.KeyUsage, c.ExtraExtensions = keyEncipherment, []pkix.Extension{templateName("WiFiClient")}
	}, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = keyEncipherment }, []Reason{RenewalSignerUntrusted}, "signer_template"},
	{"B07 two SIDs", nil, func(p *inspector.CSRParams, _ *x509.Certificate) {
		p.SAN = append(p.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + "S-1-5-21-1-2-3-1105"})
	}, nil, []Reason{RenewalSignerUntrusted}, "sid"},
	{"B06 a SID in another spelling", nil, func(p *inspector.CSRParams, _ *x509.Certificate) {
		p.SID, p.SAN = "", append(p.SAN, inspector.GeneralName{Type: "uri", Value: strings.ToUpper(sidTag) + judgeSID})
	}, nil, []Reason{RenewalSignerUntrusted}, "sid"},
	{"F35 an administrator's", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.Subject[1][0].Value = "Administrator" },
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.Subject[1][0].Value = "Administrator"
		}, []Reason{RenewalSignerUntrusted}, "subject"},

	{"D17 too early by a share", func(r *Renewal) { r.WindowPercent = 19 }, nil, nil, []Reason{RenewalTooEarly}, "signer"},
	{"D17 too early by a duration", func(r *Renewal) { r.WindowPercent, r.Window = 0, 20*24*time.Hour-time.Second }, nil, nil, []Reason{RenewalTooEarly}, "signer"},
	{"D17 too early in a very long life", nil, func(_ *inspector.CSRParams, c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(90, 0, 0) }, nil,
		[]Reason{RenewalTooEarly}, "signer"},
	{"D18 the same key", func(r *Renewal) { r.RequireNewKey = true }, nil, func(w *device, p *inspector.CSRParams, m *inspector.PKIMessage) {
		m.Content = w.csr(*p, w.device)
	}, []Reason{RenewalKeyReused}, "key"},

	{"D11 subject", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.Subject[1][0].Value = "administrator"
	},
		[]Reason{RenewalIdentityChanged}, "subject"},
	{"D11 an RDN less", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.Subject = p.Subject[1:] },
		[]Reason{RenewalIdentityChanged}, "subject"},
	{"D11 an RDN twice", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.Subject = append(p.Subject, p.Subject[0])
	}, []Reason{RenewalIdentityChanged}, "subject"},
	{"D11 an RDN of a type that the CA keeps", func(r *Renewal) { r.CADrops = []string{"2.5.4.5"} }, nil,
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
			p.Subject = append(p.Subject, inspector.RDN{{Type: "2.5.4.11", Value: "Domain Admins"}})
		}, []Reason{RenewalIdentityChanged}, "subject"},
	{"a type that the CA is said to drop and did not", func(r *Renewal) { r.CADrops = []string{"2.5.4.10"} }, nil, nil, []Reason{RenewalIdentityChanged}, "subject"},
	{"D12 a SAN more", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.SAN = append(p.SAN, inspector.GeneralName{Type: "dns", Value: "dc01.example.com"})
	}, []Reason{RenewalIdentityChanged}, "san"},
	{"a SAN less", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SAN = p.SAN[:1] }, []Reason{RenewalIdentityChanged}, "san"},
	{"another UPN", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SAN[1].Value = "bob@example.com" },
		[]Reason{RenewalIdentityChanged}, "san"},
	{"D12 a SID", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.SID = "" }, nil, []Reason{RenewalIdentityChanged}, "sid"},
	{"another SID", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SID = "S-1-5-21-1-2-3-1105" },
		[]Reason{RenewalIdentityChanged}, "sid"},
	{"no SID", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SID = "" }, []Reason{RenewalIdentityChanged}, "sid"},
	{"B07 the SID in both carriers", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.SAN = append(p.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
	}, []Reason{RenewalIdentityChanged}, "sid"},
	{"A05 key usage of another class", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = digitalSignature },
		[]Reason{RenewalIdentityChanged, RenewalIdentityChanged}, "key_usage"},
	{"A05 key usage of no class", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage |= keyAgreement },
		[]Reason{RenewalIdentityChanged, RenewalIdentityChanged}, "key_usage"},
	{"key usage of the same class that the certificate lacks", nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.KeyUsage = digitalSignature },
		func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = 0 }, []Reason{RenewalIdentityChanged, RenewalIdentityChanged}, "key_usage"},
	{"A07 a purpose more", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtKeyUsage = append(p.ExtKeyUsage, "1.3.6.1.4.1.311.20.2.1")
	}, []Reason{RenewalIdentityChanged}, "ext_key_usage"},
	{"D12 B08 application policies", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraExtensions = []pkix.Extension{policies(clientAuthOID)}
	}, []Reason{RenewalIdentityChanged}, "application_policies"},
	{"B09 an application policy more", nil, func(_ *inspector.CSRParams, c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{policies(clientAuthOID)}
	}, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraExtensions = []pkix.Extension{policies(clientAuthOID, agentOID)}
	}, []Reason{RenewalIdentityChanged}, "application_policies"},
	{"B21 another template", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraExtensions = []pkix.Extension{templateName("SubCA")}
	}, []Reason{RenewalIdentityChanged}, "certificate_template"},
	{"B22 another template's OID", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraExtensions = []pkix.Extension{templateOID(1, 2, 3)}
	}, []Reason{RenewalIdentityChanged}, "certificate_template"},
	{"B14 an extension", nil, nil, func(_ *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraExtensions = []pkix.Extension{extensionOf(asn1.ObjectIdentifier{1, 2, 3}, false, 1)}
	}, []Reason{UnexpectedExtension}, "extension"},
	{"B27 the attribute by which Microsoft renews", nil, nil, func(w *device, p *inspector.CSRParams, _ *inspector.PKIMessage) {
		p.ExtraAttributes = [][]byte{attributeOf(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 13, 1}, w.certificate)}
	}, []Reason{UnexpectedAttribute}, "attribute"},

	{"C76 md5", nil, nil, func(_ *device, _ *inspector.CSRParams, m *inspector.PKIMessage) { m.Digest = "md5" }, []Reason{AlgorithmRefused}, "digest"},
	{"C49 des", nil, nil, func(_ *device, _ *inspector.CSRParams, m *inspector.PKIMessage) { m.Cipher = "des" }, []Reason{AlgorithmRefused}, "cipher"},
	{"everything at once, in order", func(r *Renewal) {
		r.RequireNewKey, r.WindowPercent = true, 1
		r.Revoked = func(*inspector.Signer) (bool, bool) { return true, true }
	}, func(p *inspector.CSRParams, c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.NotBefore = true, true, c.NotBefore.AddDate(0, 0, 90)
	}, func(w *device, p *inspector.CSRParams, m *inspector.PKIMessage) {
		p.SAN, p.ExtraExtensions, m.Digest = nil, []pkix.Extension{extensionOf(asn1.ObjectIdentifier{1, 2, 3}, false, 1)}, "md5"
		m.Content = w.csr(*p, w.device)
	}, []Reason{AlgorithmRefused, UnexpectedExtension, RenewalSignerUntrusted, RenewalSignerExpired, RenewalSignerRevoked,
		RenewalIdentityChanged, RenewalTooEarly, RenewalKeyReused}, "digest"},
}

func attributeOf(oid asn1.ObjectIdentifier, value []byte) []byte {
	der, err := asn1.Marshal(struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}{oid, []asn1.RawValue{{FullBytes: value}}})
	if err != nil {
		panic(err)
	}
	return der
}

func TestWhateverIsNotInTheCertificateIsRefused(t *testing.T) {
	for _, tt := range renewalRefusals {
		t.Run(tt.name, func(t *testing.T) {
			w := newDevice(t, tt.renewal, tt.cert)
			for _, messageType := range []string{"17", "19"} { // invariant 4
				*w.store = spy{Store: w.store.Store}
				d := w.renew(func(p *inspector.CSRParams, m *inspector.PKIMessage) {
					m.MessageType = messageType
					p.Challenge = judgeChallenge // a valid challenge does not help. threat D10
					if tt.request != nil {
						tt.request(w, p, m)
					}
				})
				if d.Forward || d.Failed || d.claim != nil || d.TheftSuspected || d.ChallengeFingerprint != "" || d.ExpectationID != "" {
					t.Errorf("%+v", d)
				}
				if diff := cmp.Diff(tt.want, reasonsOf(d.Findings)); diff != "" || d.Reason != tt.want[0] {
					t.Errorf("findings (-want +got):\n%s%+v", diff, d.Findings)
				}
				if len(d.Findings) > 0 && d.Findings[0].Field != tt.field {
					t.Errorf("the first finding is about %q: %+v", d.Findings[0].Field, d.Findings)
				}
				if w.store.finds != 1 || w.store.claims != 0 || w.store.gets != 0 || w.store.mismatches != 0 {
					t.Errorf("%d finds, %d claims, %d gets, %d mismatches", w.store.finds, w.store.claims, w.store.gets, w.store.mismatches)
				}
			}
			if w.record() != nil {
				t.Error("a refused renewal left a record")
			}
			if e := w.expectation(); len(e.History) != 1 {
				t.Errorf("the challenge's expectation heard of it: %+v", e.History)
			}
		})
	}
}

func TestTheLifeOfARenewal(t *testing.T) {
	again := func(w *device) Decision { return w.renew(nil) }
	second := func(w *device) Decision { return w.toKey(w.device) }
	mustRenew := func(w *device) Decision {
		w.t.Helper()
		d := w.renew(nil)
		if !d.Forward {
			w.t.Fatalf("compliant renewal refused: %+v", d)
		}
		return d
	}
	claim := func(w *device) { mustRenew(w) }
	issue := func(w *device) { w.settle(mustRenew(w), rep("0")) }
	pend := func(w *device) { w.settle(mustRenew(w), rep("3")) }
	revoke := func(w *device) {
		if _, err := w.store.Revoke(w.t.Context(), "wifi", w.record().ID, "jamf"); err != nil {
			w.t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		before func(w *device)
		ask    func(w *device) Decision
		want   Reason
	}{
		{"the first", func(*device) {}, again, OK},
		{"a retry", claim, again, OK},
		{"a retry by another transactionID", claim, func(w *device) Decision {
			return w.renew(func(_ *inspector.CSRParams, m *inspector.PKIMessage) { m.TransactionID = "R3" })
		}, OK},
		{"a retry that asks for less", claim, func(w *device) Decision {
			return w.renew(func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.ExtKeyUsage = nil })
		}, RenewalUsed},
		{"a second key", claim, second, RenewalUsed},
		{"a second key while pending", pend, second, RenewalUsed},
		{"a retry while pending", pend, again, OK},
		{"a second key after issue", issue, second, RenewalUsed},
		{"the answer was lost", issue, again, OK},
		{"after the window", func(w *device) { issue(w); w.clock.advance(20 * time.Minute) }, again, RenewalUsed},
		{"another transactionID after issue", issue, func(w *device) Decision {
			return w.renew(func(_ *inspector.CSRParams, m *inspector.PKIMessage) { m.TransactionID = "R3" })
		}, RenewalUsed},
		{"another key after a definite failure", func(w *device) { w.settle(mustRenew(w), rep("2")) }, second, OK},
		{"another key after no answer", func(w *device) { w.settle(mustRenew(w), nil) }, second, RenewalUsed},
		{"another key after a forward that never left", func(w *device) {
			w.gate.Settle(w.t.Context(), w.store, mustRenew(w), Forwarded{})
		}, second, OK},
		{"denied by a manager", func(w *device) { pend(w); w.settle(mustRenew(w), rep("2")) }, again, ChallengeLocked},
		{"revoked", func(w *device) { claim(w); revoke(w) }, again, RenewalNotRegistered},
		{"revoked, for another key", func(w *device) { claim(w); revoke(w) }, second, RenewalNotRegistered},
		{"a transactionID of another key", func(w *device) {
			w.settle(mustRenew(w), rep("2"))
		}, func(w *device) Decision {
			return w.renew(func(p *inspector.CSRParams, m *inspector.PKIMessage) { m.Content = w.csr(*p, w.device) })
		}, TransactionConflict},
		{"90 days after issue", func(w *device) {
			w.certificate = w.certify(func(_ *inspector.CSRParams, c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(5, 0, 0) })
			p := w.profile
			p.Renewal = renews(func(r *Renewal) { r.WindowPercent = 100 })
			w.rebuild(p)
			issue(w)
			w.clock.advance(store.Retention + time.Hour)
			if _, err := w.store.Sweep(w.t.Context(), 1000); err != nil {
				w.t.Fatal(err)
			}
		}, second, RenewalUsed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newDevice(t, nil, nil)
			tt.before(w)
			finds := w.store.finds
			d := tt.ask(w)
			if d.Reason != tt.want || d.Forward != (tt.want == OK) || d.Failed {
				t.Errorf("%+v", d)
			}
			if w.store.finds != finds+1 {
				t.Errorf("%d finds", w.store.finds-finds)
			}
			if e := w.record(); e == nil || len(e.Uses) > 1 || d.ExpectationID != e.ID {
				t.Errorf("record after: %+v", e)
			}
		})
	}
	t.Run("two certificates of one device", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		claim(w)
		w.certificate = w.certify(func(_ *inspector.CSRParams, c *x509.Certificate) { c.SerialNumber = big.NewInt(4712) })
		if d := second(w); !d.Forward {
			t.Errorf("%+v", d)
		}
	})
	t.Run("somebody else with the same certificate", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		claim(w)
		m := w.message(func(p *inspector.CSRParams, m *inspector.PKIMessage) {
			m.Content, m.TransactionID = w.csr(*p, w.device), "R2"
		})
		if d := w.sendFrom("198.51.100.7", m); d.Forward || d.Reason != RenewalUsed || !d.TheftSuspected {
			t.Errorf("%+v", d)
		}
		if d := second(w); d.Reason != RenewalUsed || d.TheftSuspected {
			t.Errorf("the same client: %+v", d)
		}
	})
}

func TestARegisteredRenewal(t *testing.T) {
	required := func(r *Renewal) { r.Registered = true }
	bySerial := func(w *device) string {
		return `{"renews":{"serial":"00` + strings.ToUpper(serial) + `"},"external_id":"jamf:4712"}`
	}
	byHash := func(w *device) string {
		sum := sha256.Sum256(w.certificate)
		return `{"renews":{"sha256":"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"}}`
	}
	owner := func(c *Constraints, ok bool) func(w *device) {
		return func(w *device) {
			p := w.profile
			p.Constraints = func(string) (*Constraints, bool) { return c, ok }
			w.rebuild(p)
		}
	}
	tests := []struct {
		name    string
		renewal func(*Renewal)
		text    func(w *device) string
		after   func(w *device) // the registration
		want    []Reason
		field   string
	}{
		{"by serial number", required, bySerial, nil, nil, ""},
		{"by hash", required, byHash, nil, nil, ""},
		{"by serial number, though nobody must", nil, bySerial, nil, nil, ""},
		{"by hash, though nobody must", nil, byHash, nil, nil, ""},
		{"not at all", required, nil, nil, []Reason{RenewalNotRegistered}, "renewal"},
		{"not at all, and too early", func(r *Renewal) { r.Registered, r.WindowPercent = true, 1 }, nil, nil, []Reason{RenewalTooEarly, RenewalNotRegistered}, "signer"},
		{"another serial number", required, func(*device) string { return `{"renews":{"serial":"1badcafe0"}}` }, nil, []Reason{RenewalNotRegistered}, "renewal"},
		{"expired", required, bySerial, func(w *device) { w.clock.advance(24 * time.Hour) }, []Reason{RenewalNotRegistered}, "renewal"},
		{"expired, though nobody must", nil, bySerial, func(w *device) { w.clock.advance(24 * time.Hour) }, []Reason{RenewalNotRegistered}, "renewal"},
		{"its client is gone", required, bySerial, owner(nil, false), []Reason{RenewalNotRegistered}, "owner"},
		{"its client may not have this", required, byHash, owner(&Constraints{
			Subject: map[string][]string{"O": {"Example Corp"}}, DNSSuffixes: []string{"example.com"}, UPNSuffixes: []string{"example.com"},
			SIDPrefixes: []string{"S-1-5-21-9"}, CertificateTemplates: []string{"WiFiClient"}, ExtKeyUsage: []string{"clientAuth"},
		}, true), []Reason{RenewalNotRegistered}, "sid"},
		{"its client may have this", required, byHash, owner(&Constraints{
			Subject: map[string][]string{"O": {"Example Corp"}}, DNSSuffixes: []string{"example.com"}, UPNSuffixes: []string{"example.com"},
			SIDPrefixes: []string{"S-1-5-21-1-2-3"}, CertificateTemplates: []string{"WiFiClient"}, ExtKeyUsage: []string{"clientAuth"},
		}, true), nil, ""},
		{"its client may have nothing", nil, byHash, owner(&Constraints{}, true),
			[]Reason{RenewalNotRegistered, RenewalNotRegistered, RenewalNotRegistered, RenewalNotRegistered, RenewalNotRegistered}, "subject_rdns/0/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newDevice(t, tt.renewal, nil)
			id := ""
			if tt.text != nil {
				id = w.register(tt.text(w)).ID
			}
			if tt.after != nil {
				tt.after(w)
			}
			d := w.renew(nil)
			if diff := cmp.Diff(tt.want, reasonsOf(d.Findings)); diff != "" || d.Forward != (tt.want == nil) {
				t.Errorf("%+v (-want +got):\n%s", d, diff)
			}
			if tt.want != nil && d.Findings[0].Field != tt.field {
				t.Errorf("the first finding is about %q: %+v", d.Findings[0].Field, d.Findings)
			}
			if w.store.finds != 1 {
				t.Errorf("%d finds", w.store.finds)
			}
			if !d.Forward {
				return
			}
			if d.ExpectationID != id {
				t.Errorf("decision names %q, not %q", d.ExpectationID, id)
			}
			if d := w.toKey(w.device); d.Forward || d.Reason != RenewalUsed {
				t.Errorf("second key: %+v", d)
			}
		})
	}
	t.Run("revoked, though nobody must", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		if _, err := w.store.Revoke(t.Context(), "wifi", w.register(bySerial(w)).ID, "jamf"); err != nil {
			t.Fatal(err)
		}
		if d := w.renew(nil); d.Forward || d.Reason != RenewalNotRegistered {
			t.Errorf("%+v", d)
		}
		if w.record() != nil {
			t.Error("the gateway made one of its own")
		}
	})
	t.Run("what the gateway made does not count once it must be", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		if d := w.renew(nil); !d.Forward {
			t.Fatalf("%+v", d)
		}
		p := w.profile
		p.Renewal = renews(required)
		w.rebuild(p)
		if d := w.renew(nil); d.Forward || d.Reason != RenewalNotRegistered {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a refusal is in its history", func(t *testing.T) {
		w := newDevice(t, required, nil)
		id := w.register(bySerial(w)).ID
		for range 5 {
			d := w.renew(func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SID = "" })
			if d.Reason != RenewalIdentityChanged || d.ExpectationID != id || d.ExternalID != "jamf:4712" || d.Locked {
				t.Errorf("%+v", d)
			}
		}
		e, err := w.store.Get(t.Context(), "wifi", id)
		if err != nil || e.State != store.Registered || len(e.Mismatches) != 0 || e.History[5].Reason != string(RenewalIdentityChanged) {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestWithoutFreshCRLsNothingIsRenewed(t *testing.T) {
	for name, revoked := range map[string]func(*inspector.Signer) (bool, bool){
		"stale":  func(*inspector.Signer) (bool, bool) { return false, false },
		"both":   func(*inspector.Signer) (bool, bool) { return true, false },
		"panics": func(*inspector.Signer) (bool, bool) { panic("no CRL") },
	} {
		w := newDevice(t, func(r *Renewal) { r.Revoked = revoked }, nil)
		d := w.renew(nil)
		if d.Forward || !d.Failed || d.Reason != UpstreamUnavailable || d.Findings[0].Field != "crl" || w.store.finds != 1 || w.store.claims != 0 {
			t.Errorf("%s: %+v", name, d)
		}
		if d := w.send(inspector.PKIMessage{Content: w.csr(wireCSR(), w.device), SignerCert: w.selfSigned(w.device), SignerKey: w.device}); !d.Forward {
			t.Errorf("%s: an enrolment: %+v", name, d)
		}
	}
}

func TestTheCRLsAreAskedForTheSigner(t *testing.T) {
	var asked []*inspector.Signer
	w := newDevice(t, func(r *Renewal) {
		r.Revoked = func(s *inspector.Signer) (bool, bool) { asked = append(asked, s); return false, true }
	}, nil)
	w.renew(nil)
	if len(asked) != 1 || asked[0].Serial.Text(16) != serial || !asked[0].SignedBy(w.ca) {
		t.Errorf("%+v", asked)
	}
}

func TestOneCertificateForAHundredKeysAtOnce(t *testing.T) {
	w := newDevice(t, nil, nil)
	msg, opened := w.open(w.message(nil))
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		reasons = map[Reason]int{}
	)
	start := make(chan struct{})
	for i := range 100 {
		m, o, csr := *msg, *opened, *opened.CSR
		m.TransactionID = "T" + big.NewInt(int64(i)).String()
		csr.SPKI, csr.PublicKey = spkiOf(i), publicKey(i)
		o.CSR = &csr
		wg.Go(func() {
			<-start
			d := w.gate.Judge(t.Context(), w.store, Request{Message: &m, Opened: &o, ClientIP: "192.0.2.1"})
			mu.Lock()
			defer mu.Unlock()
			reasons[d.Reason]++
			if d.Forward != (d.Reason == OK) {
				t.Errorf("%+v", d)
			}
		})
	}
	close(start)
	wg.Wait()
	if diff := cmp.Diff(map[Reason]int{OK: 1, RenewalUsed: 99}, reasons); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e := w.record(); len(e.Uses) != 1 {
		t.Errorf("%d uses", len(e.Uses))
	}
}

func TestALostRaceForARenewalIsJudgedAnew(t *testing.T) {
	w := newDevice(t, nil, nil)
	w.store.onClaim = func(ctx context.Context) error {
		w.store.onClaim = nil
		if d := w.toKey(w.device); !d.Forward {
			t.Errorf("the faster one: %+v", d)
		}
		return store.ErrGeneration // as the store says now
	}
	finds := w.store.finds
	if d := w.renew(nil); d.Forward || d.Reason != RenewalUsed || d.ExpectationID != w.record().ID {
		t.Errorf("%+v", d)
	}
	if w.store.finds != finds+3 || w.store.gets != 0 { // the faster one asked once
		t.Errorf("%d finds, %d gets", w.store.finds-finds, w.store.gets)
	}
	t.Run("and its transactionID is another key's", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		w.store.onClaim = func(context.Context) error { return store.ErrTransactionConflict }
		if d := w.renew(nil); d.Forward || d.Reason != TransactionConflict || d.ExpectationID != "" || w.store.mismatches != 0 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("and the other is gone", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		w.store.onClaim = func(context.Context) error { w.store.onClaim = nil; return store.ErrGeneration }
		if d := w.renew(nil); !d.Forward || w.record().ID != d.ExpectationID {
			t.Errorf("%+v", d)
		}
	})
	t.Run("and the store fails then", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		w.store.onClaim = func(context.Context) error {
			w.store.onFind = func(context.Context) error { return errors.New("disk full") }
			return store.ErrGeneration
		}
		if d := w.renew(nil); d.Forward || !d.Failed || d.Reason != StoreUnavailable {
			t.Errorf("%+v", d)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		w := newDevice(t, nil, nil)
		w.store.onClaim = func(context.Context) error { return store.ErrGeneration }
		if d := w.renew(nil); d.Forward || !d.Failed || d.Reason != StoreUnavailable {
			t.Errorf("%+v", d)
		}
	})
}

func TestARecordOfAnotherKindIsNoAnswer(t *testing.T) {
	for name, answer := range map[string]func(f *store.Found, enrolment store.Expectation){
		"an enrolment": func(f *store.Found, e store.Expectation) { f.Expectation = &e },
		"an enrolment under its key": func(f *store.Found, e store.Expectation) {
			e.ChallengeHash = f.Expectation.ChallengeHash
			f.Expectation = &e
		},
		"another certificate's": func(f *store.Found, _ store.Expectation) { f.Expectation.ChallengeHash[0]++ },
		"both keys":             func(f *store.Found, _ store.Expectation) { f.Expectation.IdentityHash = []byte{1} },
		"a holder":              func(f *store.Found, e store.Expectation) { f.Holder = &e },
	} {
		w := newDevice(t, nil, nil)
		w.renew(nil)
		e := w.expectation()
		w.store.answer = func(f *store.Found) { answer(f, e) }
		if d := w.renew(nil); d.Forward || d.Reason != StoreUnavailable {
			t.Errorf("%s: %+v", name, d)
		}
	}
	h := newHouse(t, nil, nil)
	h.store.answer = func(f *store.Found) { f.Expectation.Renews = &store.Renews{Serial: "1"} }
	if d := h.judge(compliant(1)); d.Forward || d.Reason != StoreUnavailable {
		t.Errorf("a renewal for an enrolment: %+v", d)
	}
}

func TestAPollForARenewalIsSignedByItsCertificate(t *testing.T) {
	poll := func(w *device, change func(m *inspector.PKIMessage)) Decision {
		t.Helper()
		m := inspector.PKIMessage{MessageType: "20", Content: w.poll(), SignerCert: w.certificate, SignerKey: w.device, TransactionID: "R1"}
		if change != nil {
			change(&m)
		}
		return w.send(m)
	}
	pending := func(t *testing.T, register string) *device {
		w := newDevice(t, nil, nil)
		if register != "" {
			w.register(register)
		}
		w.settle(w.renew(nil), rep("3"))
		return w
	}
	for name, register := range map[string]string{"made here": "", "registered": `{"renews":{"serial":"` + serial + `"}}`} {
		t.Run(name, func(t *testing.T) {
			w := pending(t, register)
			d := poll(w, nil)
			if !d.Forward || d.SPKISHA256 != hex.EncodeToString(mustSPKI(t, w.newKey)) || len(d.SenderNonces()) != 2 {
				t.Fatalf("%+v", d)
			}
			if s := w.settle(d, rep("0")); s.State != store.Issued {
				t.Errorf("%+v", s)
			}
		})
	}
	refusals := []struct {
		name   string
		before func(w *device)
		change func(w *device, m *inspector.PKIMessage)
		want   Reason
	}{
		{"by the new key", nil, func(w *device, m *inspector.PKIMessage) { m.SignerCert, m.SignerKey = w.selfSigned(w.newKey), w.newKey }, TransactionUnknown},
		{"by the old key, self-signed", nil, func(w *device, m *inspector.PKIMessage) { m.SignerCert = w.selfSigned(w.device) }, TransactionUnknown},
		{"by another certificate of the CA", nil, func(w *device, m *inspector.PKIMessage) {
			m.SignerCert = w.certify(func(_ *inspector.CSRParams, c *x509.Certificate) { c.SerialNumber = big.NewInt(4712) })
		}, TransactionUnknown},
		{"another transactionID", nil, func(_ *device, m *inspector.PKIMessage) { m.TransactionID = "R9" }, TransactionUnknown},
		{"after it has expired", func(w *device) { w.clock.advance(20 * 24 * time.Hour) }, nil, RenewalSignerExpired},
		{"after it was revoked", func(w *device) {
			p := w.profile
			p.Renewal = renews(func(r *Renewal) { r.Revoked = func(*inspector.Signer) (bool, bool) { return true, true } })
			w.rebuild(p)
		}, nil, RenewalSignerRevoked},
		{"after renewals were switched off", func(w *device) {
			p := w.profile
			p.Renewal = nil
			w.rebuild(p)
		}, nil, RenewalDisabled},
		{"once it must be registered", func(w *device) {
			p := w.profile
			p.Renewal = renews(func(r *Renewal) { r.Registered = true })
			w.rebuild(p)
		}, nil, TransactionUnknown},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			w := pending(t, "")
			if tt.before != nil {
				tt.before(w)
			}
			d := poll(w, func(m *inspector.PKIMessage) {
				if tt.change != nil {
					tt.change(w, m)
				}
			})
			if d.Forward || d.Failed || d.Reason != tt.want {
				t.Errorf("%+v", d)
			}
		})
	}
	t.Run("without fresh CRLs", func(t *testing.T) {
		w := pending(t, "")
		p := w.profile
		p.Renewal = renews(func(r *Renewal) { r.Revoked = func(*inspector.Signer) (bool, bool) { return false, false } })
		w.rebuild(p)
		if d := poll(w, nil); d.Forward || !d.Failed || d.Reason != UpstreamUnavailable {
			t.Errorf("%+v", d)
		}
	})
	t.Run("its client is gone", func(t *testing.T) {
		w := pending(t, `{"renews":{"serial":"`+serial+`"}}`)
		p := w.profile
		p.Constraints = func(string) (*Constraints, bool) { return nil, false }
		w.rebuild(p)
		if d := poll(w, nil); d.Forward || d.Reason != TransactionUnknown || d.Findings[0].Field != "owner" {
			t.Errorf("%+v", d)
		}
	})
}

func TestARenewalIsNotCheckedWithoutItsSigner(t *testing.T) {
	w := newDevice(t, nil, nil)
	e := w.register(`{"renews":{"serial":"` + serial + `"}}`)
	for _, stored := range []bool{false, true} {
		v := w.gate.Check(t.Context(), w.csr(wireCSR(), w.newKey), e, stored)
		if v.Verdict != "refuse" || v.Reason != RenewalSignerUntrusted || len(v.Findings) != 1 {
			t.Errorf("%+v", v)
		}
	}
}

func TestObserveForwardsARefusedRenewalWithoutAClaim(t *testing.T) {
	w := newDevice(t, nil, nil)
	p := w.profile
	p.ObserveUntil = w.clock.now().Add(time.Hour)
	w.rebuild(p)
	d := w.renew(func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.SID = "" })
	if !d.Forward || !d.Observed || d.Unjudged || d.claim != nil || d.Reason != RenewalIdentityChanged || w.record() != nil {
		t.Errorf("%+v", d)
	}
	if d := w.renew(nil); !d.Forward || d.Observed || d.claim == nil {
		t.Errorf("a compliant one: %+v", d)
	}
}
