package caddymodule

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

// newCRL makes a CRL of ca, valid for an hour from a minute ago; change alters it.
func newCRL(t testing.TB, ca *x509.Certificate, key *rsa.PrivateKey, now time.Time, change func(*x509.RevocationList), revoked ...*big.Int) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, serial := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now.Add(-time.Minute)})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func crlExtension(critical bool, value []byte, arcs ...int) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier(arcs), Critical: critical, Value: value}
}

func TestOnlyACompleteCRLOfAConfiguredCAIsTaken(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ca := newSiteCA(t)
	namesake := issueCertificate(t, &x509.Certificate{
		Subject: ca.Subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign,
	}, nil, strangerKey().Public(), strangerKey())
	renamed := issueCertificate(t, &x509.Certificate{
		Subject: commonName("Another CA"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: ca.SubjectKeyId,
	}, nil, siteCAKey().Public(), siteCAKey())
	good := newCRL(t, ca, siteCAKey(), now, nil, big.NewInt(7))
	with := func(extensions ...pkix.Extension) []byte {
		return newCRL(t, ca, siteCAKey(), now, func(l *x509.RevocationList) { l.ExtraExtensions = extensions })
	}
	point := func(fields ...byte) []byte { return append([]byte{0x30, byte(len(fields))}, fields...) }
	for name, test := range map[string]struct {
		raw  []byte
		want string // "" for taken
	}{
		"DER":                     {good, ""},
		"PEM":                     {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), ""},
		"of a namesake's key":     {newCRL(t, namesake, strangerKey(), now, nil), "is not signed by the key of a ca_certificate"},
		"of the key, other name":  {newCRL(t, renamed, siteCAKey(), now, nil), "is not a ca_certificate's"},
		"a signature that is cut": {append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), "is not signed"},
		"bytes after it":          {append(bytes.Clone(good), 0), "bytes follow it"},
		"nothing":                 {nil, "is not a CRL"},
		"a certificate":           {ca.Raw, "is not a CRL"},
		"a certificate in PEM":    {pemOf(ca), "holds no CRL"},
		"too much":                {make([]byte, maxCRLSize+1), "is larger"},
		"a delta":                 {with(crlExtension(true, []byte{2, 1, 1}, 2, 5, 29, 27)), "is a delta CRL"},
		"something critical":      {with(crlExtension(true, []byte{5, 0}, 1, 2, 3)), "critical extension 1.2.3"},
		"something else":          {with(crlExtension(false, []byte{5, 0}, 1, 2, 3)), ""},
		"of where it is":          {with(crlExtension(true, point(0xa0, 0), 2, 5, 29, 28)), ""},
		"of end entities":         {with(crlExtension(true, point(0x81, 1, 0xff), 2, 5, 29, 28)), ""},
		"of CAs":                  {with(crlExtension(true, point(0x82, 1, 0xff), 2, 5, 29, 28)), "covers only a part"},
		"of some reasons":         {with(crlExtension(true, point(0x83, 2, 6, 0x40), 2, 5, 29, 28)), "covers only a part"},
		"indirect":                {with(crlExtension(true, point(0x84, 1, 0xff), 2, 5, 29, 28)), "covers only a part"},
		"of a point cut short":    {with(crlExtension(true, []byte{0x30, 5, 0xa0}, 2, 5, 29, 28)), "cannot be read"},
		"of a point with a tail":  {with(crlExtension(true, append(point(), 0), 2, 5, 29, 28)), "cannot be read"},
		"of the future": {newCRL(t, ca, siteCAKey(), now, func(l *x509.RevocationList) {
			l.ThisUpdate = now.Add(crlSkew + time.Second)
		}), "is not valid before"},
		"of a clock that is fast": {newCRL(t, ca, siteCAKey(), now, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(crlSkew) }), ""},
		"with an entry's issuer": {newCRL(t, ca, siteCAKey(), now, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{crlExtension(true, []byte{0x30, 0}, 2, 5, 29, 29)}
		}, big.NewInt(7)), "critical extension 2.5.29.29"},
	} {
		l, err := parseCRL("x", test.raw, []*x509.Certificate{ca}, now)
		if test.want == "" {
			if err != nil || !l.ca.Equal(ca) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: want %q, got %v", name, test.want, err)
		}
	}
	if _, err := parseCRL("x", good, []*x509.Certificate{namesake, ca}, now); err != nil {
		t.Errorf("a CA behind its namesake: %v", err)
	}
	mute := issueCertificate(t, &x509.Certificate{
		Subject: ca.Subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, siteCAKey().Public(), siteCAKey())
	if _, err := parseCRL("x", good, []*x509.Certificate{mute}, now); err == nil {
		t.Error("a CRL of a CA that may not sign CRLs was taken")
	}
}

// signerOf gives c as the inspector reads it from a message that it signs.
func signerOf(t testing.TB, c *x509.Certificate, key *rsa.PrivateKey) *inspector.Signer {
	t.Helper()
	subject := []inspector.RDN{{{Type: "2.5.4.3", Value: "x"}}}
	csr := must(inspector.BuildCSR(inspector.CSRParams{Subject: subject}, key))
	recipient := newSiteRA(t, newSiteCA(t), nil)
	raw := must(inspector.BuildPKIMessage(inspector.PKIMessage{MessageType: "17", Content: csr, Recipient: recipient, SignerCert: c.Raw, SignerKey: key}))
	return must(inspector.ParseMessage(raw)).Signer
}

func TestRevokedIsWhatAListOfTheSigningKeySays(t *testing.T) {
	now := time.Now()
	ca := newSiteCA(t)
	other := issueCertificate(t, &x509.Certificate{
		Subject: ca.Subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, strangerKey().Public(), strangerKey()) // a new key of the same CA
	cas := []*x509.Certificate{ca, other}
	old := issueCertificate(t, &x509.Certificate{Subject: commonName("device")}, ca, deviceKey().Public(), siteCAKey())
	s := signerOf(t, old, deviceKey())
	list := func(of *x509.Certificate, key *rsa.PrivateKey, change func(*x509.RevocationList), revoked ...*big.Int) *crl {
		return must(parseCRL("x", newCRL(t, of, key, now, change, revoked...), cas, now))
	}
	clean, listed := list(ca, siteCAKey(), nil, big.NewInt(1)), list(ca, siteCAKey(), nil, big.NewInt(1), old.SerialNumber)
	others := list(other, strangerKey(), nil, old.SerialNumber)
	ended := list(ca, siteCAKey(), func(l *x509.RevocationList) { l.NextUpdate = now }, old.SerialNumber)
	for name, test := range map[string]struct {
		read           []*crl
		fetched        *crl
		cas            []*x509.Certificate
		revoked, fresh bool
	}{
		"listed":                        {read: []*crl{listed}, cas: cas, revoked: true, fresh: true},
		"not listed":                    {read: []*crl{clean}, cas: cas, fresh: true},
		"listed by another key":         {read: []*crl{clean, others}, cas: cas, fresh: true},
		"only another key's list":       {read: []*crl{others}, cas: cas},
		"in one that has ended":         {read: []*crl{ended}, cas: cas, revoked: true},
		"beside one that has ended":     {read: []*crl{listed, ended}, cas: cas, revoked: true},
		"fetched":                       {fetched: listed, cas: cas, revoked: true, fresh: true},
		"fetched, of a CA that is gone": {fetched: listed, cas: cas[1:]},
		"none":                          {cas: cas},
	} {
		slot := new(crlSlot)
		r := &revocation{cas: test.cas, read: test.read, now: func() time.Time { return now }}
		if test.fetched != nil {
			slot.held.Store(test.fetched)
			r.fetched = []*crlSlot{slot}
		}
		if revoked, fresh := r.revoked(s); revoked != test.revoked || fresh != test.fresh {
			t.Errorf("%s: revoked %v, fresh %v", name, revoked, fresh)
		}
	}
	r := &revocation{cas: cas, read: []*crl{clean}, fetched: []*crlSlot{{url: "http://a/b"}}, now: func() time.Time { return now }}
	if revoked, fresh := r.revoked(s); revoked || fresh || r.fresh() {
		t.Error("fresh although one was never fetched")
	}
	if diff := cmp.Diff([]string{"http://a/b"}, r.stale()); diff != "" {
		t.Error(diff)
	}
	if revoked, fresh := r.revoked(nil); revoked || fresh {
		t.Error("a signer that is none")
	}
	if r = nil; !r.fresh() || r.stale() != nil {
		t.Error("nothing is configured, and it is stale")
	}
}

// renewing is a profile of s that renews by these CRLs.
func (s *site) renewing(crls ...string) *Profile {
	p := s.profile()
	p.Renewal = &Renewal{Mode: "on", CRL: crls}
	return p
}

func TestACRLFileThatIsNotTheCAsFailsTheLoad(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	stranger := issueCertificate(t, &x509.Certificate{
		Subject: commonName("Stranger"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign,
	}, nil, strangerKey().Public(), strangerKey())
	crl := newCRL(t, s.ca, siteCAKey(), time.Now(), nil)
	for name, content := range map[string][]byte{
		"missing": nil, "empty": {}, "rubbish": []byte("rubbish"), "cut": crl[:len(crl)-1],
		"a stranger's": newCRL(t, stranger, strangerKey(), time.Now(), nil),
	} {
		path := s.path("a.crl")
		os.Remove(path)
		if content != nil {
			s.write(t, "a.crl", content, 0o644)
		}
		config := caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{"wifi": s.renewing(path)})
		if err := validate(config); err == nil || !strings.Contains(err.Error(), "profile wifi: renewal crl: "+path) && !strings.Contains(err.Error(), "renewal crl: stat "+path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.write(t, "a.crl", crl, 0o644)
	if err := validate(caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{"wifi": s.renewing(s.path("a.crl"))})); err != nil {
		t.Error(err)
	}
}

func TestACRLFileIsFollowedAndItsEndIsTold(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	core, logs := observer.New(zapcore.DebugLevel)
	s := newSite(t)
	path := s.write(t, "a.crl", newCRL(t, s.ca, siteCAKey(), now, nil), 0o644)
	a := &App{logger: zap.New(core), now: func() time.Time { return now }, profiles: make(map[string]*running)}
	hasher := must(gate.NewHasher(make([]byte, 32)))
	if err := a.provisionProfile(caddy.Context{}, "wifi", s.renewing(path), hasher); err != nil {
		t.Fatal(err)
	}
	a.hasher = hasher
	r := a.profile("wifi")
	if _, err := a.load(r, hasher); err != nil {
		t.Fatal(err)
	}
	messages := func() (out []string) {
		for _, e := range logs.TakeAll() {
			if strings.HasPrefix(e.Message, "CRLs ") || strings.HasPrefix(e.Message, "changed files ") {
				out = append(out, e.Message)
			}
		}
		return out
	}
	step := func(what string, fresh bool, want ...string) {
		t.Helper()
		a.watcher.check(a.logger)
		a.lookAtCRLs()
		if r.crlsFresh() != fresh {
			t.Errorf("%s: fresh %v", what, !fresh)
		}
		if diff := cmp.Diff(want, messages()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	const ended, again = "CRLs are missing or past their nextUpdate; messages are answered with 503", "CRLs are current again"
	step("at first", true)
	now = now.Add(time.Hour)
	step("at nextUpdate", false, ended)
	step("later", false)
	s.write(t, "a.crl", []byte("rubbish"), 0o644)
	step("with rubbish", false, "changed files are not usable; keeping what was loaded")
	s.write(t, "a.crl", newCRL(t, s.ca, siteCAKey(), now, nil, big.NewInt(9)), 0o644)
	step("with a new one", true, "changed files loaded", again)
	os.Remove(path)
	step("without a file", true, "changed files are not usable; keeping what was loaded")
}

func TestAStaleCRLIs503ForEveryMessageBeforeThePrivateKeyIsUsed(t *testing.T) {
	w := newWorld(t)
	w.register()
	slot := new(crlSlot)
	fresh := must(parseCRL("x", newCRL(t, w.ca, siteCAKey(), time.Now(), nil), []*x509.Certificate{w.ca}, time.Now()))
	opener := w.g.profile.files.Load().opener
	w.files(func(f *profileFiles) {
		f.crls = &revocation{cas: f.cas, fetched: []*crlSlot{slot}, now: time.Now}
		f.opener = nil // whoever uses it panics, which would be 500
	})
	messages := map[string][]byte{"honest": w.message(device{}), "wrong": w.message(device{cn: "admin"}), "undecryptable": w.message(device{recipient: w.agent})}
	for name, message := range messages {
		rec := w.serve(post(message))
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: got %d", name, rec.Code)
		}
		if line, reason := w.lastReason(); line != "enrollment failed" || reason != "upstream_unavailable" {
			t.Errorf("%s: recorded %q %s", name, line, reason)
		}
		all := w.decisions()
		findings := all[len(all)-1].ContextMap()["findings"]
		if diff := cmp.Diff([]gate.Finding{{Reason: gate.UpstreamUnavailable, Field: "crl"}}, findings); diff != "" {
			t.Error(diff)
		}
	}
	health := func() int { return w.serve(must(http.NewRequest(http.MethodGet, "/healthz", nil))).Code }
	if got := health(); got != 503 {
		t.Errorf("health is %d", got)
	}
	slot.held.Store(fresh)
	w.files(func(f *profileFiles) { f.opener = opener })
	if rec := w.serve(post(messages["honest"])); rec.Code != 200 || health() != 200 {
		t.Errorf("got %d", rec.Code)
	}
}

func TestACRLOfTenMegabytesIsReadAndFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.crl")
	big := make([]byte, maxFileSize+1)
	if err := os.WriteFile(path, big, 0o644); err != nil {
		t.Fatal(err)
	}
	before := digestFiles([]string{path})
	big[0] = 1
	if err := os.WriteFile(path, big, 0o644); err != nil {
		t.Fatal(err)
	}
	if digestFiles([]string{path}) == before {
		t.Error("a change was not noticed")
	}
	if _, _, err := readUpTo(maxCRLSize, "x", path); err != nil {
		t.Error(err)
	}
	if _, _, err := readBounded("x", path); err == nil {
		t.Error("another file may be as large")
	}
}

func TestRenewalCompilesToWhatTheGateAsks(t *testing.T) {
	p := smallProfile()
	p.Renewal = &Renewal{Mode: "on", Window: "30d", RequireNewKey: true, ExtKeyUsage: []string{"clientAuth", "1.3.6.1.4.1.311.20.2.2"}, CADrops: []string{"E", "serialNumber", "2.5.4.5.1"}, Registration: "required"}
	if _, err := p.normalize(expandPlaceholder, configTime); err != nil {
		t.Fatal(err)
	}
	got := must(p.Renewal.compile(nil))
	want := &gate.Renewal{
		Window: 30 * day, RequireNewKey: true, Registered: true,
		ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"},
		CADrops:     []string{"1.2.840.113549.1.9.1", "2.5.4.5", "2.5.4.5.1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	p = smallProfile()
	p.Defaults = &Defaults{ExtKeyUsage: []string{"serverAuth"}}
	p.Renewal = &Renewal{Mode: "on"}
	if _, err := p.normalize(expandPlaceholder, configTime); err != nil {
		t.Fatal(err)
	}
	got = must(p.Renewal.compile(&revocation{now: time.Now}))
	if got.WindowPercent != 33 || got.Window != 0 || got.Registered || got.RequireNewKey || got.Revoked == nil || !slices.Equal(got.ExtKeyUsage, []string{"1.3.6.1.5.5.7.3.1"}) {
		t.Errorf("%+v", got)
	}
	for _, off := range []*Renewal{nil, {}, {Mode: "off"}, {Mode: "On"}} {
		if got, err := off.compile(nil); got != nil || err != nil {
			t.Errorf("%+v compiles to %+v, %v", off, got, err)
		}
	}
}

func FuzzParseCRL(f *testing.F) {
	ca, now := newSiteCA(f), time.Now()
	point := crlExtension(true, []byte{0x30, 3, 0x81, 1, 0xff}, 2, 5, 29, 28)
	f.Add(newCRL(f, ca, siteCAKey(), now, nil, big.NewInt(7)), point.Value)
	f.Add(newCRL(f, ca, siteCAKey(), now, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{point} }), []byte{0x30, 2, 0xa0, 0})
	f.Fuzz(func(t *testing.T, raw, idp []byte) {
		if l, err := parseCRL("x", raw, []*x509.Certificate{ca}, now); err == nil {
			if l.ca != ca || l.nextUpdate.IsZero() || l.serials == nil {
				t.Errorf("taken: %+v", l)
			}
		}
		if checkDistributionPoint(idp) == nil && len(idp) > 2 && idp[2] != 0xa0 && idp[2] != 0x81 {
			t.Errorf("taken: %x", idp)
		}
	})
}
