package gate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
)

// with renews by a new key, in a transaction of its own.
func (d *device) with(transactionID string) Decision {
	d.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.renew(func(p *inspector.CSRParams, m *inspector.PKIMessage) {
		m.Content, m.TransactionID = d.csr(*p, key), transactionID
	})
}

// Of an ECDSA signature (r, s) everybody can make (r, n-s), which verifies as
// well: the certificate is the same, its octets are not.
func TestACertificateWithItsSignatureRewrittenIsTheSameCertificate(t *testing.T) {
	w := newDevice(t, nil, nil)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "EC CA"}, KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p := w.profile
	p.CAs = append(p.CAs, ca)
	w.rebuild(p)
	csr, err := x509.ParseCertificateRequest(w.csr(wireCSR(), w.device))
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(78), NotBefore: w.clock.now().AddDate(0, 0, -80), NotAfter: w.clock.now().AddDate(0, 0, 20),
		RawSubject: csr.RawSubject, ExtraExtensions: csr.Extensions,
	}
	if w.certificate, err = x509.CreateCertificate(rand.Reader, leaf, ca, &w.device.PublicKey, caKey); err != nil {
		t.Fatal(err)
	}
	if d := w.with("T1"); !d.Forward {
		t.Fatalf("the first renewal: %s %+v", d.Reason, d.Findings)
	}

	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(w.certificate, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Signature.Bytes, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	signature, err := asn1.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	if w.certificate, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	if d := w.with("T2"); d.Forward || d.Reason != RenewalUsed {
		t.Errorf("the same certificate once more: forwarded %v, %s", d.Forward, d.Reason)
	}
}

// However often, and under whatever name, the MDM registers it.
func TestRegisteringARenewalAgainDoesNotRenewTwice(t *testing.T) {
	for _, required := range []bool{false, true} {
		w := newDevice(t, func(r *Renewal) { r.Registered = required }, nil)
		sum := sha256.Sum256(w.certificate)
		bySerial, byHash := `{"renews":{"serial":"`+serial+`"},"external_id":"x"}`, `{"renews":{"sha256":"`+hex.EncodeToString(sum[:])+`"}}`
		register := func(text string) {
			t.Helper()
			p, problems := w.gate.Prepare(registration(t, text), "jamf")
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			var err error
			if p.Expectation.ExternalID != "" {
				_, _, err = w.store.Replace(t.Context(), p.Expectation, nil)
			} else {
				_, err = w.store.Register(t.Context(), p.Expectation)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		register(bySerial)
		first := w.with("T1")
		if !first.Forward {
			t.Fatalf("the first renewal: %s %+v", first.Reason, first.Findings)
		}
		w.gate.Settle(t.Context(), w.store, first, Forwarded{Sent: true, Rep: &inspector.CertRep{PKIStatus: "0"}})
		for i, text := range []string{bySerial, byHash} {
			register(text)
			if d := w.with("T" + string(rune('2'+i))); d.Forward || d.Reason != RenewalUsed {
				t.Errorf("required %v, after %s: forwarded %v, %s", required, text, d.Forward, d.Reason)
			}
		}
	}
}

// NDES has no template for these.
func TestARenewalNeedsAKeyUsageThatNDESHasATemplateFor(t *testing.T) {
	for _, usage := range []inspector.KeyUsage{keyAgreement, digitalSignature | keyAgreement, nonRepudiation, dataEncipherment} {
		w := newDevice(t, nil, func(p *inspector.CSRParams, _ *x509.Certificate) { p.KeyUsage = usage })
		d := w.renew(func(p *inspector.CSRParams, _ *inspector.PKIMessage) { p.KeyUsage = usage })
		if d.Forward || d.Reason != RenewalSignerUntrusted {
			t.Errorf("%v: forwarded %v, %s", keyUsageNames(usage), d.Forward, d.Reason)
		}
	}
}
