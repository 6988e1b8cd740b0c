package main

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsTransactions: D22–D24.
func rowsTransactions() []vector {
	list := []vector{
		{row: "D22", variant: "another device's transactionID, with a challenge of one's own", want: rej, act: func(t *try) {
			t.enrols(t.M.Bytes())
			id, challenge := t.oneMore(t.CN + "-b")
			d := t.other()
			m := wire.New(d.Key, d.SelfSigned, t.RA, t.CN+"-b", challenge)
			m.SignedData.Signer.TransactionID = t.M.SignedData.Signer.TransactionID
			t.refuses(m.Bytes(), "transaction_conflict")
			t.state(id, "registered")
		}},
		{row: "D22", variant: "a stranger was refused under the transactionID; its device then enrols", want: asDescribed, act: func(t *try) {
			d := t.other()
			m := wire.New(d.Key, d.SelfSigned, t.RA, "administrator", newChallenge())
			m.SignedData.Signer.TransactionID = t.M.SignedData.Signer.TransactionID
			t.refuses(m.Bytes(), "challenge_unknown")
			t.enrols(t.M.Bytes())
			t.state(t.ID, "issued")
		}},
		{row: "D24", variant: "senderNonce missing", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) { d.Signer.Replace(wire.OIDSenderNonce) })},
		{row: "D24", variant: "senderNonce twice", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) {
				d.Signer.Replace(wire.OIDSenderNonce, wire.Attribute(wire.OIDSenderNonce, wire.Octets(wire.Random(16))), wire.Attribute(wire.OIDSenderNonce, wire.Octets(wire.Random(16))))
			})},
		{row: "D24", variant: "the nonce of a message that was answered, in another transaction", want: rej, act: func(t *try) {
			t.enrols(t.M.Bytes())
			m := t.message(t.Device)
			m.SignedData.Signer.SenderNonce = t.M.SignedData.Signer.SenderNonce
			t.refuses(m.Bytes(), "challenge_used")
			t.state(t.ID, "issued")
		}},
	}
	for _, n := range []int{0, 7, 65, 4096} {
		list = append(list, vector{row: "D24", variant: "senderNonce of " + itoa(n) + " octets", want: pre, status: 400, reason: "malformed_message", message: nonce(n)})
	}
	for _, n := range []int{8, 64} { // quirk: Apple sends 8
		list = append(list, vector{row: "D24", variant: "senderNonce of " + itoa(n) + " octets", want: forwarded, reason: "ok", message: nonce(n)})
	}
	for _, id := range []struct{ variant, text string }{
		{"a NUL", "4711\x00"}, {"CR and LF", "4711\r\nmsg=forged"}, {"a quote", `4711"`}, {"an apostrophe", "4711' OR 1=1"},
		{"a backslash", `..\..\4711`}, {"markup", "<4711/>"}, {"a percent sign", "4711%00"}, {"a dollar and braces", "${jndi:ldap://x}"},
		{"a blank", "47 11"}, {"an underscore, which no PrintableString has", "47_11"}, {"a letter that is not ASCII", "4711é"}, {"no character", ""}, {"129 characters", strings.Repeat("a", 129)},
		{"10,000 characters", strings.Repeat("a", 10000)},
	} {
		list = append(list, vector{row: "D23", variant: "transactionID with " + id.variant, want: pre, status: 400, reason: "malformed_message", message: transactionID(wire.Printable(id.text))})
	}
	for _, id := range []struct {
		variant string
		value   []byte
	}{
		{"a BMPString", wire.BMP("4711")}, {"a UTF8String", wire.UTF8("4711")}, {"an OCTET STRING", wire.Octets([]byte("4711"))},
		{"an INTEGER", wire.Int(4711)}, {"a SEQUENCE", wire.Sequence(wire.Printable("4711"))},
	} {
		list = append(list, vector{row: "D23", variant: "transactionID as " + id.variant, want: pre, status: 400, reason: "malformed_message", message: transactionID(id.value)})
	}
	return append(list,
		vector{row: "D23", variant: "transactionID missing", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) { d.Signer.Replace(wire.OIDTransactionID) })},
		vector{row: "D23", variant: "transactionID with every character that it may have, 128 in all", want: forwarded, reason: "ok",
			message: func(t *try) {
				const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=.:-"
				t.M.SignedData.Signer.TransactionID = (alphabet + t.M.SignedData.Signer.TransactionID + strings.Repeat("a", 128))[:128]
			}},
	)
}

func nonce(n int) func(*try) {
	return func(t *try) { t.M.SignedData.Signer.SenderNonce = wire.Random(n) }
}

func transactionID(value []byte) func(*try) {
	return signed(func(_ *try, d *wire.SignedData) {
		d.Signer.Replace(wire.OIDTransactionID, wire.Attribute(wire.OIDTransactionID, value))
	})
}

// leftPending lets the honest device's request wait for the CA's manager.
func (t *try) leftPending() (transactionID string) {
	m := t.M.Bytes()
	t.answering(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, t.certRep("3", nil)) })
	a := t.post(m)
	t.demand(a.Rep != nil && a.Rep.PKIStatus == "3", "%s instead of PENDING", describe(a))
	t.decision("ok")
	t.reached(m)
	t.state(t.ID, "pending")
	return t.M.SignedData.Signer.TransactionID
}

// certRep is NDES's own answer to t.M, with any status, and then changed.
func (t *try) certRep(status string, change func(d *wire.SignedData)) []byte {
	asked := t.M.SignedData.Signer
	d := wire.SignedData{Signer: wire.Signer{
		Key: t.NDES.SigningKey(), Certificate: t.NDES.Signing.Raw,
		MessageType: "3", TransactionID: asked.TransactionID, SenderNonce: wire.Random(16),
		Attributes: [][]byte{
			wire.Attribute(wire.OIDPKIStatus, wire.Printable(status)),
			wire.Attribute(wire.OIDRecipientNonce, wire.Octets(asked.SenderNonce)),
		},
	}}
	content := []byte{0} // where there is no envelope
	switch status {
	case "0":
		content = t.issueTo()
	case "2":
		d.Signer.Attributes = append(d.Signer.Attributes, wire.Attribute(wire.OIDFailInfo, wire.Printable("2")))
	}
	if change != nil {
		change(&d)
	}
	return d.Bytes(content)
}

// issueTo is the envelope of a SUCCESS: the device's certificate by the CA does
// not matter to anybody but the device.
func (t *try) issueTo() []byte {
	e := wire.Envelope{To: mustParse(t.Device.SelfSigned)}
	return e.Bytes(certsOnly(t.Device.SelfSigned))
}

func (t *try) writeRep(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/x-pki-message")
	w.Header().Set("Content-Length", itoa(len(body)))
	w.Write(body)
}

// rowsReplies: D25, D26. An answer that is not what it says changes nothing but
// that nobody knows how the request ended.
func rowsReplies() []vector {
	type d = wire.SignedData
	var list []vector
	for _, r := range []struct {
		row, variant, status string
		change               func(t *try, s *d)
	}{
		{"D25", "NDES's SUCCESS for another transactionID", "0", func(_ *try, s *d) { s.Signer.TransactionID = "4711" }},
		{"D25", "NDES's SUCCESS for another nonce", "0", func(_ *try, s *d) {
			s.Signer.Attributes = [][]byte{wire.Attribute(wire.OIDPKIStatus, wire.Printable("0")), wire.Attribute(wire.OIDRecipientNonce, wire.Octets(wire.Random(16)))}
		}},
		{"D25", "NDES's SUCCESS without a recipientNonce", "0", func(_ *try, s *d) {
			s.Signer.Attributes = [][]byte{wire.Attribute(wire.OIDPKIStatus, wire.Printable("0"))}
		}},
		{"D25", "SUCCESS signed by a stranger", "0", func(t *try, s *d) { s.Signer.Key, s.Signer.Certificate = t.other().Key, t.other().SelfSigned }},
		{"D25", "SUCCESS signed by a stranger in the name of NDES's signer", "0", func(t *try, s *d) { s.Signer.Key = t.other().Key }},
		{"D25", "SUCCESS signed by the device itself", "0", func(t *try, s *d) { s.Signer.Key, s.Signer.Certificate = t.Device.Key, t.Device.SelfSigned }},
		{"D25", "FAILURE signed by a stranger", "2", func(t *try, s *d) { s.Signer.Key = t.other().Key }},
		{"D25", "PENDING signed by a stranger", "3", func(t *try, s *d) { s.Signer.Key = t.other().Key }},
		{"D25", "SUCCESS of messageType 19", "0", func(_ *try, s *d) { s.Signer.MessageType = "19" }},
		{"D25", "SUCCESS of two signers", "0", func(t *try, s *d) {
			content := t.issueTo()
			other := s.Signer
			other.Key, other.Certificate = t.other().Key, t.other().SelfSigned
			s.Signers = [][]byte{s.Signer.Info(content), other.Info(content)}
		}},
		{"D26", "SUCCESS with failInfo", "0", func(_ *try, s *d) {
			s.Signer.Attributes = append(s.Signer.Attributes, wire.Attribute(wire.OIDFailInfo, wire.Printable("2")))
		}},
		{"D26", "PENDING with failInfo", "3", func(_ *try, s *d) {
			s.Signer.Attributes = append(s.Signer.Attributes, wire.Attribute(wire.OIDFailInfo, wire.Printable("2")))
		}},
		{"D26", "SUCCESS without an envelope", "0", func(_ *try, s *d) {
			s.Content = wire.Octets([]byte{0})
			s.Signer.Replace(wire.OIDMessageDigest, digestOf([]byte{0}))
		}},
		{"D26", "pkiStatus 1", "1", nil},
		{"D26", "pkiStatus 00", "00", nil},
		{"D26", "two pkiStatus, FAILURE and SUCCESS", "0", func(_ *try, s *d) {
			s.Signer.Attributes = append(s.Signer.Attributes, wire.Attribute(wire.OIDPKIStatus, wire.Printable("2")))
		}},
	} {
		list = append(list, vector{row: r.row, variant: r.variant, want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) {
				t.writeRep(w, t.certRep(r.status, func(s *wire.SignedData) {
					if r.change != nil {
						r.change(t, s)
					}
				}))
			})
		}})
	}
	return append(list,
		vector{row: "D25", variant: "the answer to somebody else's enrolment", want: failed, act: func(t *try) {
			t.enrols(t.M.Bytes())
			before := t.certRep("0", nil)
			id, challenge := t.oneMore(t.CN + "-b")
			t.M, t.ID = wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN+"-b", challenge), id
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, before) })
		}},
		vector{row: "D25", variant: "a refusal that the gateway made itself", want: failed, act: func(t *try) {
			wrong := t.message(t.Device)
			wrong.Request.SetSubject("administrator")
			wrong.SignedData.Signer.TransactionID, wrong.SignedData.Signer.SenderNonce = t.M.SignedData.Signer.TransactionID, t.M.SignedData.Signer.SenderNonce
			refusal := t.post(wrong.Bytes())
			t.refused(refusal)
			t.decision("subject_mismatch")
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, refusal.Body) })
		}},
		vector{row: "D25", variant: "a page of HTML", want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.Write([]byte("<html>welcome</html>"))
			})
		}},
		vector{row: "D25", variant: "rubbish of the right type", want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, bytes.Repeat([]byte{0x30, 0x80}, 500)) })
		}},
		// The control: the same builder, with nothing wrong.
		vector{row: "D26", variant: "SUCCESS", want: forwarded, act: func(t *try) { t.validAnswer("0", nil, "issued") }},
		vector{row: "D26", variant: "PENDING", want: forwarded, act: func(t *try) { t.validAnswer("3", nil, "pending") }},
		vector{row: "D26", variant: "FAILURE that is definite", want: forwarded, act: func(t *try) {
			t.validAnswer("2", hresult("-2146877420"), "registered") // 0x80094014
			t.Up.set(nil)
			t.enrols(t.M.Bytes())
		}},
		vector{row: "D26", variant: "FAILURE because the CA cannot be reached", want: forwarded, act: func(t *try) {
			t.validAnswer("2", hresult("-2147023174"), "claimed") // 0x800706ba
			m := t.message(t.other())
			t.refuses(m.Bytes(), "challenge_in_use")
		}},
		vector{row: "D26", variant: "FAILURE after PENDING: a manager's no", want: forwarded, act: func(t *try) {
			t.leftPending()
			t.validAnswer("2", hresult("-2146877420"), "locked")
			t.refuses(t.M.Bytes(), "challenge_locked")
		}},
		vector{row: "D26", variant: "FAILURE after an answer that nobody could read", want: forwarded, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, []byte{0x30, 0}) })
			t.validAnswer("2", hresult("-2146877420"), "claimed")
		}},
	)
}

// invalidAnswer demands that the honest device's message goes out once, that an
// answer is not passed on, and that the claim stands.
func (t *try) invalidAnswer(answer http.HandlerFunc) {
	m := t.M.Bytes()
	t.answering(answer)
	t.status(t.post(m), http.StatusBadGateway)
	t.decision("upstream_invalid")
	t.reached(m)
	t.state(t.ID, "claimed")
}

// validAnswer demands that NDES's answer to the honest device is passed on as
// it is, and leaves the expectation in a state.
func (t *try) validAnswer(status string, change func(*wire.SignedData), state string) {
	t.answered(t.M, t.certRep(status, change), state)
}

// answered demands that a message is forwarded, that this answer of NDES is
// passed on as it is, and leaves the expectation in a state.
func (t *try) answered(m *wire.Message, answer []byte, state string) {
	message := m.Bytes()
	t.answering(func(w http.ResponseWriter, _ *http.Request) { t.writeRep(w, answer) })
	a := t.post(message)
	t.demand(a.Status == http.StatusOK && bytes.Equal(a.Body, answer), "%s is not NDES's answer as it was", describe(a))
	t.decision("ok")
	t.reached(message)
	t.state(t.ID, state)
}

// hresult adds what NDES says of a FAILURE.
func hresult(number string) func(*wire.SignedData) {
	return func(d *wire.SignedData) {
		d.Signer.Attributes = append(d.Signer.Attributes, wire.Attribute("1.3.6.1.4.1.311.21.33", wire.Printable(number)))
	}
}
