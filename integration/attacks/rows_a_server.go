package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSigner: A12 and A13, whose signature is around the request.
func rowsSigner() []vector {
	// lift takes the victim's EnvelopedData as it is and signs it as somebody else.
	lift := func(t *try) (victim, thief []byte) {
		t.M.Content = t.M.Envelope.Bytes(t.M.Request.Bytes())
		lifted := t.message(t.other())
		lifted.Content = t.M.Content
		return t.M.Bytes(), lifted.Bytes()
	}
	signedBy := func(template func(t *try) *x509.Certificate) func(*try) {
		return func(t *try) {
			t.M.SignedData.Signer.Certificate = wire.Certificate(template(t), t.Device.Key, nil, nil)
		}
	}
	cn := func(of func(t *try) string) func(*try) {
		return signedBy(func(t *try) *x509.Certificate { return &x509.Certificate{Subject: pkix.Name{CommonName: of(t)}} })
	}
	return []vector{
		{row: "A12", variant: "a stranger's envelope in a signature of the attacker's own", want: rej, reason: "signer_mismatch",
			message: func(t *try) {
				_ = t.M.Request.Bytes()
				t.M.SignedData.Signer.Key, t.M.SignedData.Signer.Certificate = t.other().Key, t.other().SelfSigned
			}},
		{row: "A12", variant: "a victim's envelope, lifted and signed anew; then the victim", want: asDescribed, act: func(t *try) {
			victim, thief := lift(t)
			t.refuses(thief, "signer_mismatch")
			t.state(t.ID, "registered")
			t.enrols(victim)
		}},
		{row: "A12", variant: "the same with the victim's transactionID and nonce; then the victim", want: asDescribed, act: func(t *try) {
			victim, _ := lift(t)
			lifted := t.message(t.other())
			lifted.Content = t.M.Content
			lifted.SignedData.Signer.TransactionID = t.M.SignedData.Signer.TransactionID
			lifted.SignedData.Signer.SenderNonce = t.M.SignedData.Signer.SenderNonce
			t.refuses(lifted.Bytes(), "signer_mismatch")
			t.enrols(victim)
		}},
		{row: "A12", variant: "lifted after the victim was served", want: asDescribed, act: func(t *try) {
			victim, thief := lift(t)
			t.enrols(victim)
			t.refuses(thief, "signer_mismatch")
			t.state(t.ID, "issued")
		}},
		{row: "A12", variant: "the attacker's signature, the victim's certificate", want: pre, status: http.StatusBadRequest, reason: "bad_signature",
			message: func(t *try) { t.M.SignedData.Signer.Key = t.other().Key }},

		// A client's own certificate has any name (quirk: Cisco, sscep).
		{row: "A13", variant: "signer's subject is another, its key the request's", want: forwarded, reason: "ok", message: cn(func(*try) string { return "router.example.com" })},
		{row: "A13", variant: "signer's subject is the request's", want: forwarded, reason: "ok", message: cn(func(t *try) string { return t.CN })},
		{row: "A13", variant: "signer's subject is an administrator's, its key the request's", want: forwarded, reason: "ok", message: cn(func(*try) string { return "administrator" })},
		{row: "A13", variant: "signer's subject is the victim's, its key another", want: rej, reason: "signer_mismatch", message: func(t *try) {
			t.M.SignedData.Signer.Key = t.other().Key
			t.M.SignedData.Signer.Certificate = wire.SelfSigned(t.CN, t.other().Key)
		}},
		{row: "A13", variant: "self-signed in the CA's name", want: rej, reason: "renewal_signer_untrusted",
			message: signedBy(func(t *try) *x509.Certificate {
				return &x509.Certificate{RawSubject: t.NDES.CA.RawSubject}
			})},
		{row: "A13", variant: "signed by a CA of the attacker's own", want: rej, reason: "renewal_signer_untrusted", message: func(t *try) {
			ca, _ := foreignCA(t.other().Key, "Somebody's CA")
			t.M.SignedData.Signer.Certificate = wire.Certificate(&x509.Certificate{Subject: pkix.Name{CommonName: t.CN}}, t.Device.Key, ca, t.other().Key)
		}},
	}
}

// foreignCA is a CA of the attacker's own.
func foreignCA(key *rsa.PrivateKey, name string) (*x509.Certificate, []byte) {
	der := wire.Certificate(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, key, nil, nil)
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c, der
}

// published is one answer that NDES is made to give to everybody.
type published struct {
	what, operation, contentType string
	body                         func(t *try) []byte
	status                       int
}

// publishing asks for each answer through another profile, because nothing of
// NDES's answers may be remembered there, and demands the status.
func publishing(variant string, list ...published) vector {
	return vector{row: "A19", variant: variant, want: asDescribed, unregistered: true, act: func(t *try) {
		t.cold(func() {
			for i, p := range list {
				body := p.body(t)
				t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.RawQuery != "operation="+p.operation {
						return false
					}
					w.Header().Set("Content-Type", p.contentType)
					w.Write(body)
					return true
				})
				a := t.asks(profiles[i], p.operation)
				if a.Status != p.status {
					t.failf("%s: %d, not %d", p.what, a.Status, p.status)
				}
				if bytes.Contains(a.Body, body) != (p.status == http.StatusOK) {
					t.failf("%s: %d octets came back", p.what, len(a.Body))
				}
				if p.status != http.StatusOK {
					t.decision("upstream_invalid")
				}
			}
			t.reached()
		})
	}}
}

// rowsDowngrade: A19, what NDES is made to publish. What somebody changes on
// the way to the device only TLS can keep him from.
func rowsDowngrade() []vector {
	const bundle, bare, ok = "application/x-x509-ca-ra-cert", "application/x-x509-ca-cert", http.StatusOK
	foreignRA := func(t *try) (ra, ca []byte) {
		issuer, ca := foreignCA(t.other().Key, t.NDES.CA.Subject.CommonName)
		return wire.Certificate(&x509.Certificate{RawSubject: t.RA.RawSubject, KeyUsage: x509.KeyUsageKeyEncipherment,
			UnknownExtKeyUsage: t.RA.UnknownExtKeyUsage}, t.Device.Key, issuer, t.other().Key), ca
	}
	certificates := func(what string, of func(t *try, ra, ca []byte) []byte) published {
		return published{what, "GetCACert", bundle, func(t *try) []byte {
			ra, ca := foreignRA(t)
			return of(t, ra, ca)
		}, http.StatusBadGateway}
	}
	genuine := func(t *try) []byte { return certsOnly(t.NDES.Signing.Raw, t.NDES.Exchange.Raw, t.NDES.CA.Raw) }
	text := func(body string) func(*try) []byte { return func(*try) []byte { return []byte(body) } }
	unknown := publishing("GetCACert with an RA of the same name: instead, beside the RA, alone",
		certificates("in its place", func(t *try, ra, _ []byte) []byte { return certsOnly(t.NDES.Signing.Raw, ra, t.NDES.CA.Raw) }),
		certificates("beside it", func(t *try, ra, _ []byte) []byte {
			return certsOnly(ra, t.NDES.Signing.Raw, t.NDES.Exchange.Raw, t.NDES.CA.Raw)
		}),
		published{"alone", "GetCACert", bare, func(t *try) []byte { ra, _ := foreignRA(t); return ra }, http.StatusBadGateway},
	)
	swapped := unknown.act
	unknown.act = func(t *try) {
		swapped(t)
		t.logged("encryption certificate without a configured ra")
	}
	return []vector{
		unknown,
		publishing("GetCACert with another CA: instead, with its RA, beside; no RA; genuine",
			certificates("in its place", func(t *try, _, ca []byte) []byte { return certsOnly(t.NDES.Signing.Raw, t.NDES.Exchange.Raw, ca) }),
			certificates("with its own RA", func(_ *try, ra, ca []byte) []byte { return certsOnly(ra, ca) }),
			certificates("beside it", func(t *try, _, ca []byte) []byte {
				return certsOnly(t.NDES.Signing.Raw, t.NDES.Exchange.Raw, t.NDES.CA.Raw, ca)
			}),
			certificates("without the RA", func(t *try, _, _ []byte) []byte { return certsOnly(t.NDES.Signing.Raw, t.NDES.CA.Raw) }),
			published{"as NDES publishes it", "GetCACert", bundle, genuine, ok}),
		publishing("GetCACaps: a page of HTML, no text, 5 KiB of text; a list",
			published{"HTML", "GetCACaps", "text/html", text("<html>POSTPKIOperation SHA-1 DES3</html>"), http.StatusBadGateway},
			published{"no text", "GetCACaps", "text/plain", text("SHA-1\x00DES3\n"), http.StatusBadGateway},
			published{"5 KiB", "GetCACaps", "text/plain", text(strings.Repeat("DES3\n", 1024)), http.StatusBadGateway},
			published{"a list", "GetCACaps", "text/plain", text("POSTPKIOperation\nSHA-256\nAES\n"), ok}),
	}
}

// rowsRenewalEscalation: A20, a certificate of the CA signs for other names.
func rowsRenewalEscalation() []vector {
	// renewal is a message that the holder of a genuine certificate signs.
	renewal := func(variant, messageType string, change func(t *try, m *wire.Message)) vector {
		return vector{row: "A20", variant: variant, want: asDescribed, act: func(t *try) {
			certificate := t.certificate(t.Device, t.enrols(t.M.Bytes()))
			if certificate == nil {
				return
			}
			m := t.message(t.other())
			m.Request.Challenge = nil
			m.SignedData.Signer.Key, m.SignedData.Signer.Certificate = t.Device.Key, certificate.Raw
			m.SignedData.Signer.MessageType = messageType
			change(t, m)
			t.refuses(m.Bytes(), "renewal_disabled")
		}}
	}
	victim := func(t *try, m *wire.Message) {
		challenge := newChallenge()
		id := t.registers("wifi", map[string]any{"external_id": "attacks:victim:" + t.CN, "subject": "CN=" + t.CN + "-victim", "challenge": challenge})
		m.Request.SetSubject(t.CN + "-victim")
		m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(challenge))}
		t.ID = id
	}
	rows := []vector{}
	for _, typ := range []struct{ name, value string }{{"RenewalReq", "17"}, {"PKCSReq", "19"}} {
		rows = append(rows,
			renewal(typ.name+" signed by a genuine certificate, for an administrator", typ.value, func(_ *try, m *wire.Message) { m.Request.SetSubject("administrator") }),
			renewal(typ.name+" signed by a genuine certificate, for its own name and a UPN", typ.value, func(_ *try, m *wire.Message) {
				m.Request.Extend(wire.SAN(wire.UPN("administrator@example.com")))
			}),
			renewal(typ.name+" signed by a genuine certificate, for its own name", typ.value, func(*try, *wire.Message) {}),
			renewal(typ.name+" signed by a genuine certificate, for its own key and name", typ.value, func(t *try, m *wire.Message) { m.Request.Key = t.Device.Key }),
			renewal(typ.name+" signed by a genuine certificate, with a victim's challenge and name", typ.value, victim))
	}
	// The same where renewals are allowed; D10–D18 have the rest.
	rows = append(rows, hostileRenewals(
		hostile{"A20", "a genuine certificate signs for an administrator, renewals allowed", "renewal_identity_changed", "subject", nil, func(_ *try, m *wire.Message) {
			m.Request.SetSubject("administrator")
		}},
		hostile{"A20", "a genuine certificate signs for its name and a UPN, renewals allowed", "renewal_identity_changed", "san", nil, func(t *try, m *wire.Message) {
			m.Request.Extensions[atSAN] = wire.SAN(wire.DNS(t.dns()), wire.UPN("administrator@example.com"))
		}},
		hostile{"A20", "a genuine certificate signs with a victim's challenge, renewals allowed", "renewal_identity_changed", "subject", nil, func(t *try, m *wire.Message) {
			challenge := newChallenge()
			t.registers("renew", map[string]any{"external_id": nil, "subject": "CN=" + t.CN + "-victim", "challenge": challenge})
			m.Request.SetSubject(t.CN + "-victim")
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(challenge))}
		}})...)
	rows = append(rows, honestRenewals(hostile{"A20", "a genuine certificate signs for its own names and a new key, renewals allowed", "", "", nil, nil})...)
	return append(rows,
		vector{row: "A20", variant: "RenewalReq that is self-signed, with the challenge and name", want: forwarded, reason: "ok",
			message: signed(func(_ *try, d *wire.SignedData) { d.Signer.MessageType = "17" })},
		vector{row: "A20", variant: "RenewalReq that is self-signed, for an administrator", want: rejStrike, reason: "subject_mismatch", message: func(t *try) {
			t.M.SignedData.Signer.MessageType = "17"
			t.M.Request.SetSubject("administrator")
		}})
}
