package main

import (
	"crypto/x509"
	"net/http"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsPolls: D19, D20: GetCertInitial. It is answered to whoever holds what is
// pending, and forwarded as often as it is sent.
func rowsPolls() []vector {
	stranger := func(variant string, want string, change func(t *try, m *wire.Message)) vector {
		return vector{row: "D19", variant: variant, want: rej, act: func(t *try) {
			t.leftPending()
			m := t.polling()
			change(t, m)
			t.refuses(m.Bytes(), want)
			t.state(t.ID, "pending")
			t.polls(t.polling(), "0", "issued") // the device's own goes through
		}}
	}
	content := func(variant, messageType string, plaintext func(t *try) []byte) vector {
		return vector{row: "D20", variant: variant, want: rej, act: func(t *try) {
			t.leftPending()
			m := t.polling()
			m.SignedData.Signer.MessageType, m.Plaintext = messageType, plaintext(t)
			t.refuses(m.Bytes(), "malformed_request")
			t.state(t.ID, "pending")
			t.polls(t.polling(), "0", "issued")
		}}
	}
	list := []vector{
		{row: "D19", variant: "a poll for a transactionID that nobody used", want: rej, reason: "transaction_unknown", message: poll},
		stranger("a stranger polls for a pending request", "transaction_unknown", func(t *try, m *wire.Message) {
			m.SignedData.Signer.Key, m.SignedData.Signer.Certificate = t.other().Key, t.other().SelfSigned
		}),
		stranger("a stranger polls in a certificate with the device's names and serial number", "transaction_unknown", func(t *try, m *wire.Message) {
			c := mustParse(t.Device.SelfSigned)
			twin := &x509.Certificate{SerialNumber: c.SerialNumber, Subject: c.Subject, KeyUsage: c.KeyUsage}
			m.SignedData.Signer.Key, m.SignedData.Signer.Certificate = t.other().Key, wire.Certificate(twin, t.other().Key, nil, nil)
		}),
		stranger("a holder of a certificate of the CA polls for a pending request, no renewals", "renewal_disabled", func(t *try, m *wire.Message) {
			m.SignedData.Signer.Certificate = t.certified(nil)
		}),
		stranger("its own device polls for another subject", "transaction_unknown", func(t *try, m *wire.Message) {
			m.Plaintext = wire.Sequence(t.NDES.CA.RawSubject, wire.CommonName("administrator"))
		}),
		stranger("its own device polls in the name of another CA", "transaction_unknown", func(t *try, m *wire.Message) {
			m.Plaintext = wire.Sequence(wire.CommonName("Somebody Else's CA"), wire.CommonName(t.CN))
		}),
		stranger("its own device polls under another transactionID", "transaction_unknown", func(_ *try, m *wire.Message) {
			m.SignedData.Signer.TransactionID += "1"
		}),
		{row: "D19", variant: "the device polls: still pending, still pending, issued, once more", want: forwarded, act: func(t *try) {
			t.leftPending()
			t.polls(t.polling(), "3", "pending")
			t.polls(t.polling(), "3", "pending")
			t.polls(t.polling(), "0", "issued")
			t.refuses(t.polling().Bytes(), "transaction_unknown")
		}},
		{row: "D19", variant: "the device sends its pending request again", want: forwarded, act: func(t *try) {
			t.leftPending()
			t.Up.set(nil)
			t.enrols(t.M.Bytes())
			t.state(t.ID, "issued")
		}},
		{row: "D19", variant: "the device polls, and the CA's manager says no; it polls and asks again", want: asDescribed, act: func(t *try) {
			m := t.M
			t.leftPending()
			t.polls(t.polling(), "2", "locked")
			t.refuses(t.polling().Bytes(), "transaction_unknown")
			t.refuses(m.Bytes(), "challenge_locked")
		}},
		{row: "D19", variant: "the device polls for what the MDM has revoked", want: rej, act: func(t *try) {
			t.leftPending()
			t.revokes("wifi", t.ID)
			t.refuses(t.polling().Bytes(), "transaction_unknown")
			t.state(t.ID, "revoked")
		}},
		{row: "D19", variant: "the device polls for what has its certificate", want: rej, act: func(t *try) {
			t.enrols(t.M.Bytes())
			t.refuses(t.polling().Bytes(), "transaction_unknown")
			t.state(t.ID, "issued")
		}},
		{row: "D19", variant: "the device polls for what NDES never answered", want: rej, act: func(t *try) {
			m := t.M.Bytes()
			t.answering(hangUp)
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.reached(m)
			t.refuses(t.polling().Bytes(), "transaction_unknown")
			t.state(t.ID, "claimed")
		}},
		{row: "D19", variant: "a pending renewal: others poll for it, then its own certificate", want: asDescribed, profile: "renew", unregistered: true, act: func(t *try) {
			cert := t.certified(nil)
			t.M = t.renewing(cert)
			t.ID = t.renewalLeftPending()
			as := func(cert []byte, d *device) *wire.Message {
				p := t.polling()
				p.SignedData.Signer.Key, p.SignedData.Signer.Certificate = d.Key, cert
				return p
			}
			c := mustParse(cert)
			twin := wire.Certificate(&x509.Certificate{SerialNumber: c.SerialNumber, Subject: c.Subject, KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage},
				t.third().Key, &x509.Certificate{RawSubject: c.RawIssuer}, t.other().Key)
			t.refuses(as(t.certified(nil), t.Device).Bytes(), "transaction_unknown")      // another certificate of the same names and key
			t.refuses(as(t.other().SelfSigned, t.other()).Bytes(), "transaction_unknown") // the key that it is for, which holds nothing yet
			t.refuses(as(t.Device.SelfSigned, t.Device).Bytes(), "transaction_unknown")   // the old key without its certificate
			t.refuses(as(twin, t.third()).Bytes(), "renewal_signer_untrusted")            // a stranger's with its issuer and serial number
			t.state(t.ID, "pending")
			t.polls(as(cert, t.Device), "3", "pending")
			t.polls(as(cert, t.Device), "0", "issued")
		}},

		content("CertPoll 20 that carries a PKCS#10", "20", func(t *try) []byte { return t.M.Request.Bytes() }),
		content("CertPoll 20 that carries issuer and serial number", "20", func(t *try) []byte {
			return wire.Sequence(t.NDES.CA.RawSubject, wire.Int(1))
		}),
		content("CertPoll 20 with something after the subject", "20", func(t *try) []byte {
			return wire.Sequence(t.NDES.CA.RawSubject, wire.CommonName(t.CN), wire.Null())
		}),
		content("CertPoll 20 with something after it", "20", func(t *try) []byte {
			return append(wire.Sequence(t.NDES.CA.RawSubject, wire.CommonName(t.CN)), wire.Null()...)
		}),
		content("CertPoll 20 without an issuer", "20", func(t *try) []byte { return wire.Sequence(wire.CommonName(t.CN)) }),
		content("CertPoll 20 in indefinite lengths", "20", func(t *try) []byte {
			return wire.Indefinite(0x30, t.NDES.CA.RawSubject, wire.CommonName(t.CN))
		}),
		content("RenewalReq 17 that carries issuer and subject", "17", issuerAndSubject),
		content("PKCSReq 19 that carries issuer and subject", "19", issuerAndSubject),
	}
	return list
}

// issuerAndSubject is what a poll carries (RFC 8894 §3.3.3).
func issuerAndSubject(t *try) []byte {
	return wire.Sequence(t.NDES.CA.RawSubject, wire.CommonName(t.CN))
}

func poll(t *try) {
	t.M.SignedData.Signer.MessageType = "20"
	t.M.Plaintext = issuerAndSubject(t)
}

// polling is an honest poll for t.M, whatever that is by now, with a nonce of its own.
func (t *try) polling() *wire.Message {
	m := *t.M
	m.Plaintext = issuerAndSubject(t)
	m.SignedData.Signer.MessageType, m.SignedData.Signer.SenderNonce = "20", wire.Random(16)
	return &m
}

// polls demands that a poll goes to NDES, and its answer of this pkiStatus back,
// which leaves the expectation in a state.
func (t *try) polls(m *wire.Message, status, state string) {
	asked := t.M
	t.M = m
	answer := t.certRep(status, nil)
	t.M = asked
	t.answered(m, answer, state)
}

// renewalLeftPending lets t.M, a renewal, wait for the CA's manager, and gives
// the id under which it is kept.
func (t *try) renewalLeftPending() (id string) {
	message := t.M.Bytes()
	t.answering(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, t.certRep("3", nil)) })
	a := t.post(message)
	t.demand(a.Rep != nil && a.Rep.PKIStatus == "3", "%s instead of PENDING", describe(a))
	id = t.decision("ok").String("expectation_id")
	t.reached(message)
	t.state(id, "pending")
	return id
}
