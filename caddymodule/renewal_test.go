package caddymodule

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// renewingWorld renews certificates for which revoked is false.
func renewingWorld(t *testing.T, change ...func(*gate.Profile)) *world {
	t.Helper()
	rev := &revocation{now: time.Now}
	w := newWorld(t, append(change, func(p *gate.Profile) {
		rev.cas = p.CAs
		p.RetryWindow = 20 * time.Minute
		p.Renewal = must((&Renewal{Mode: "on", Window: "33%", ExtKeyUsage: []string{"clientAuth"}, Registration: "none"}).compile(rev))
	})...)
	rev.read = []*crl{w.crl(nil)}
	w.files(func(f *profileFiles) { f.crls = rev })
	return w
}

func (w *world) crl(change func(*x509.RevocationList), revoked ...*big.Int) *crl {
	w.t.Helper()
	return must(parseCRL("x", newCRL(w.t, w.ca, siteCAKey(), time.Now(), change, revoked...), []*x509.Certificate{w.ca}, time.Now()))
}

// issued is a certificate that device has and may renew.
func (w *world) issued() *x509.Certificate {
	w.t.Helper()
	return issueCertificate(w.t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "device", Organization: []string{"Example Corp"}},
		KeyUsage:  x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, w.ca, deviceKey().Public(), siteCAKey())
}

// renewal asks for a certificate with the same names and a new key, signed with old.
func (w *world) renewal(old *x509.Certificate, cn string) []byte {
	w.t.Helper()
	subject := []inspector.RDN{{{Type: "2.5.4.10", Value: "Example Corp"}}, {{Type: "2.5.4.3", Value: cn}}}
	csr := must(inspector.BuildCSR(inspector.CSRParams{Subject: subject, KeyUsage: 1<<0 | 1<<2}, strangerKey()))
	return must(inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "17", Content: csr, Recipient: w.ra, SignerCert: old.Raw, SignerKey: deviceKey(),
	}))
}

func TestACertificateIsRenewedThroughTheHandler(t *testing.T) {
	w := renewingWorld(t)
	old := w.issued()
	if rec := w.serve(post(w.renewal(old, "device"))); rec.Code != 200 || len(w.ndes.enrolments()) != 1 {
		t.Fatalf("got %d, %d forwarded: %v", rec.Code, len(w.ndes.enrolments()), w.decisions())
	}
	page := must(w.house.store.List(t.Context(), store.Query{Profile: "wifi", Limit: 10}))
	if len(page.Items) != 1 || page.Items[0].State != store.Issued || page.Items[0].Renews == nil {
		t.Errorf("kept %+v", page.Items)
	}
	if got := w.eventNames(); !slices.Equal(got, []string{"enrollment.forwarded", "enrollment.issued"}) {
		t.Errorf("events %v", got)
	}
}

func TestARevokedCertificateIsNotRenewed(t *testing.T) {
	w := renewingWorld(t)
	old := w.issued()
	w.g.profile.files.Load().crls.read = []*crl{w.crl(nil, old.SerialNumber)}
	rec := w.serve(post(w.renewal(old, "device")))
	if _, reason := w.lastReason(); reason != "renewal_signer_revoked" || !isRefusal(rec) || len(w.ndes.enrolments()) != 0 {
		t.Errorf("%s, %d forwarded", reason, len(w.ndes.enrolments()))
	}
}

func TestObservingForwardsAndRecordsRenewals(t *testing.T) {
	w := renewingWorld(t, func(p *gate.Profile) { p.ObserveUntil = time.Now().Add(time.Hour) })
	old := w.issued()
	for cn, want := range map[string]string{"device": "enrollment forwarded ok", "admin": "enrollment observed renewal_identity_changed"} {
		rec := w.serve(post(w.renewal(old, cn)))
		if line, reason := w.lastReason(); rec.Code != 200 || isRefusal(rec) || line+" "+reason != want {
			t.Errorf("%s: %d, %s %s", cn, rec.Code, line, reason)
		}
	}
	w.g.profile.files.Load().crls.read = []*crl{w.crl(func(l *x509.RevocationList) { l.NextUpdate = time.Now() })}
	if rec := w.serve(post(w.renewal(old, "device"))); rec.Code != 200 || len(w.ndes.enrolments()) != 3 {
		t.Errorf("without a CRL: %d, %d forwarded", rec.Code, len(w.ndes.enrolments()))
	}
	if line, reason := w.lastReason(); line != "enrollment observed" || reason != "upstream_unavailable" {
		t.Errorf("recorded %s %s", line, reason)
	}
}
