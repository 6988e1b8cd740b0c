package main

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"strconv"
	"time"

	"github.com/scepgate/scepgate/integration/wire"
)

func itoa(n int) string { return strconv.Itoa(n) }

// enrolled lets the try's honest device enrol, and gives its certificate.
func (t *try) enrolled() []byte {
	if c := t.certificate(t.Device, t.enrols(t.M.Bytes())); c != nil {
		return c.Raw
	}
	return t.Device.SelfSigned
}

// oneMore registers one more device of the profile, and gives its challenge.
func (t *try) oneMore(cn string) (id, challenge string) {
	challenge = newChallenge()
	e := over(t.honest(), map[string]any{"external_id": nil, "subject": "CN=" + cn, "challenge": challenge})
	return t.also(e), challenge
}

// signedBy is a request for cn that somebody else than its own key signs.
func (t *try) signedBy(cert []byte, key *rsa.PrivateKey, messageType, cn, challenge string) *wire.Message {
	m := wire.New(t.Device.Key, cert, t.RA, cn, challenge)
	m.SignedData.Signer.Key, m.SignedData.Signer.MessageType = key, messageType
	return m
}

// renewal is a vector in which a device that holds a certificate of the CA signs
// what build makes. With renewals off every one is refused, whatever it says.
func renewal(row, variant string, build func(t *try, cert []byte) *wire.Message) vector {
	return vector{row: row, variant: variant, want: rej, act: func(t *try) {
		m := build(t, t.enrolled())
		t.refused(t.post(m.Bytes()))
		t.decision("renewal_disabled")
		t.reached()
	}}
}

// foreign is a vector in which somebody signs whom the CA does not know, of a
// profile without renewals and one that has them.
func foreign(row, variant string, signer func(t *try) (cert []byte, key *rsa.PrivateKey)) []vector {
	v := vector{row: row, variant: variant, want: rej, act: func(t *try) {
		cert, key := signer(t)
		for _, messageType := range []string{"17", "19"} {
			t.refused(t.post(t.signedBy(cert, key, messageType, t.CN, t.Challenge).Bytes()))
			t.decision("renewal_signer_untrusted")
		}
		t.reached()
		t.state(t.ID, "registered")
		t.enrols(t.M.Bytes())
	}}
	renews := v
	renews.variant, renews.profile = variant+", renewals allowed", "renew"
	return []vector{v, renews}
}

// rowsRenewal: D10–D18 where the profile says `renewal off`, so that what differs
// between these rows differs in vain.
func rowsRenewal() []vector {
	return inOrder([]vector{
		renewal("D10", "19 signed with a certificate of the CA, CN=administrator, no challenge", func(t *try, cert []byte) *wire.Message {
			return t.signedBy(cert, t.Device.Key, "19", "administrator", "")
		}),
		renewal("D10", "19 signed with a certificate of the CA, CN=administrator, any challenge", func(t *try, cert []byte) *wire.Message {
			return t.signedBy(cert, t.Device.Key, "19", "administrator", newChallenge())
		}),
		{row: "D10", variant: "19 signed with a certificate of the CA, another device's valid challenge", want: rej, act: func(t *try) {
			cert := t.enrolled()
			id, challenge := t.oneMore(t.CN + "-b")
			t.refused(t.post(t.signedBy(cert, t.Device.Key, "19", t.CN+"-b", challenge).Bytes()))
			t.decision("renewal_disabled")
			t.reached()
			t.state(id, "registered")
		}},
		renewal("D11", "17 signed with a certificate of the CA, CN=administrator", func(t *try, cert []byte) *wire.Message {
			return t.signedBy(cert, t.Device.Key, "17", "administrator", "")
		}),
		// No expectation is asked for, so that there is none to get a strike.
		renewal("D12", "17, the same subject, a SAN added", func(t *try, cert []byte) *wire.Message {
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, "")
			m.Request.Extend(wire.SAN(wire.DNS("dc01.example.com")))
			return m
		}),
		renewal("D12", "17, the same subject, a SID added", func(t *try, cert []byte) *wire.Message {
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, "")
			m.Request.Extend(wire.SID("S-1-5-21-1-2-3-500"))
			return m
		}),
		renewal("D12", "17, the same subject, an application policy added", func(t *try, cert []byte) *wire.Message {
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, "")
			m.Request.Extend(wire.ApplicationPolicies(wire.EKUEnrollmentAgent))
			return m
		}),
		{row: "D13", variant: "self-signed in the CA's name, with a valid challenge", want: rej, act: func(t *try) {
			cert := wire.Certificate(&x509.Certificate{RawSubject: t.NDES.CA.RawSubject}, t.Device.Key, nil, nil)
			t.refused(t.post(t.signedBy(cert, t.Device.Key, "19", t.CN, t.Challenge).Bytes()))
			t.decision("renewal_signer_untrusted")
			t.reached()
			t.state(t.ID, "registered")
		}},
		renewal("D14", "17 signed with a certificate of the CA, signingTime of 2020", func(t *try, cert []byte) *wire.Message {
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, "")
			m.SignedData.Signer.Attributes = [][]byte{signingTime("200101000000Z")}
			return m
		}),
		{row: "D14", variant: "an expired certificate in the CA's name, signingTime within its days", want: rej, act: func(t *try) {
			cert := wire.Certificate(&x509.Certificate{
				Subject: pkix.Name{CommonName: t.CN}, NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC),
			}, t.Device.Key, &x509.Certificate{RawSubject: t.NDES.CA.RawSubject}, t.other().Key)
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, t.Challenge)
			m.SignedData.Signer.Attributes = [][]byte{signingTime("200601000000Z")}
			t.refused(t.post(m.Bytes()))
			t.decision("renewal_signer_untrusted")
			t.reached()
		}},
		// There is no revocation to get wrong: no certificate renews anything.
		renewal("D15", "17 signed with a certificate of the CA that names no revocation list", func(t *try, cert []byte) *wire.Message {
			return t.signedBy(cert, t.Device.Key, "17", t.CN, "")
		}),
		{row: "D16", variant: "17 signed with NDES's enrollment-agent certificate", want: rej, act: func(t *try) {
			t.refused(t.post(t.signedBy(t.NDES.Signing.Raw, t.NDES.SigningKey(), "17", t.CN, t.Challenge).Bytes()))
			t.decision("renewal_disabled")
			t.reached()
			t.state(t.ID, "registered")
		}},
		{row: "D16", variant: "19 signed with NDES's encryption certificate, whose key was stolen", want: rej, act: func(t *try) {
			t.refused(t.post(t.signedBy(t.NDES.Exchange.Raw, t.NDES.ExchangeKey(), "19", t.CN, t.Challenge).Bytes()))
			t.decision("key_refused")
			t.reached()
			t.state(t.ID, "registered")
		}},
		{row: "D16", variant: "the key of NDES's encryption certificate asks for a certificate of its own", want: rej, act: func(t *try) {
			cert := wire.SelfSigned(t.CN, t.NDES.ExchangeKey())
			t.refused(t.post(wire.New(t.NDES.ExchangeKey(), cert, t.RA, t.CN, t.Challenge).Bytes()))
			t.decision("key_refused")
			t.reached()
			t.state(t.ID, "registered")
		}},
		{row: "D17", variant: "ten renewals of one certificate", want: rej, act: func(t *try) {
			cert := t.enrolled()
			for range 10 {
				t.refused(t.post(t.signedBy(cert, t.Device.Key, "17", t.CN, "").Bytes()))
				t.decision("renewal_disabled")
			}
			t.reached()
		}},
		renewal("D18", "a stolen certificate and key renew to a new key", func(t *try, cert []byte) *wire.Message {
			m := t.signedBy(cert, t.Device.Key, "17", t.CN, "")
			m.Request.Key = t.other().Key
			return m
		}),
	},
		foreign("D13", "signed with a certificate of somebody else's CA", func(t *try) ([]byte, *rsa.PrivateKey) {
			return t.leafOf(&x509.Certificate{Subject: pkix.Name{CommonName: "Somebody Else's CA"}}), t.Device.Key
		}),
		foreign("D13", "signed with a certificate of a CA that has the CA's name, and another key", func(t *try) ([]byte, *rsa.PrivateKey) {
			return t.leafOf(&x509.Certificate{RawSubject: t.NDES.CA.RawSubject}), t.Device.Key
		}),
	)
}

// leafOf is a certificate for the try's device by a CA whose key is a stranger's.
func (t *try) leafOf(ca *x509.Certificate) []byte {
	return wire.Certificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: t.CN}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, t.Device.Key, ca, t.other().Key)
}

// signingTime is the attribute with a UTCTime.
func signingTime(text string) []byte {
	return wire.Attribute(wire.OIDSigningTime, wire.TLV(0x17, []byte(text)))
}
