package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsProtocol: the state of an enrolment.
func rowsProtocol() []vector {
	return inOrder(rowsReplay(), rowsTypes(), rowsRenewal(),
		rowsRenewalNames(), rowsRenewalSigner(), rowsRenewalLife(), rowsRenewalRegistered(), rowsPolls(), rowsTransactions(), rowsReplies(), rowsEnumeration(), rowsClock())
}

// inOrder puts lists of vectors into the catalogue's order.
func inOrder(lists ...[]vector) []vector {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b vector) int { return strings.Compare(a.row, b.row) })
	return all
}

// rowsReplay: D01–D05. What a crash leaves behind is TestRestartKeepsExpectationsAndClaims.
func rowsReplay() []vector {
	return []vector{
		// The answer may have been lost on the way: within retry_window the same
		// transaction of the same key is judged and forwarded again, once per send.
		{row: "D01", variant: "the same bytes again, after the certificate", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			first := t.certificate(t.Device, t.enrols(m))
			for range 3 {
				again := t.certificate(t.Device, t.enrols(m))
				t.demand(first != nil && again != nil && first.Equal(again), "a second certificate for the same bytes")
			}
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "the same transaction in new bytes, after the certificate", want: forwarded, act: func(t *try) {
			first := t.certificate(t.Device, t.enrols(t.M.Bytes()))
			again := t.certificate(t.Device, t.enrols(t.M.Bytes()))
			t.demand(first != nil && again != nil && first.Equal(again), "a second certificate for the same transaction")
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "the same key under another transactionID, after the certificate", want: rej, act: func(t *try) {
			m := t.M.Bytes()
			t.enrols(m)
			t.refuses(t.message(t.Device).Bytes(), "challenge_used")
			t.enrols(m) // the device's own retry still goes through
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "the same key and transactionID for another name, after the certificate", want: rej, act: func(t *try) {
			t.enrols(t.M.Bytes())
			t.M.Request.SetSubject("administrator")
			t.refuses(t.M.Bytes(), "challenge_used")
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "the same bytes again, after retry_window", want: rej, profile: "retry", act: func(t *try) { // of 0s
			m := t.M.Bytes()
			t.enrols(m)
			t.refuses(m, "challenge_used")
			t.refuses(t.M.Bytes(), "challenge_used")
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "the same bytes again, after the MDM revoked it", want: rej, act: func(t *try) {
			m := t.M.Bytes()
			t.enrols(m)
			t.revokes("wifi", t.ID)
			t.refuses(m, "challenge_revoked")
		}},
		// architecture, "The life of an expectation": a retry of the same key and
		// identity is judged and forwarded again while its outcome is open.
		{row: "D01", variant: "the same bytes again, when NDES had not answered", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			t.answering(hangUp)
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.state(t.ID, "claimed")
			t.Up.set(nil)
			t.issued(t.post(m))
			t.decision("ok")
			t.reached(m, m)
			t.state(t.ID, "issued")
		}},
		{row: "D01", variant: "an old message, when its device is registered anew by name", want: rej, profile: "static", act: func(t *try) {
			m := t.M.Bytes()
			t.issued(t.post(m))
			t.decision("ok")
			again := t.honest()
			delete(again, "external_id")
			id := t.also(again)
			t.refused(t.post(m))
			t.decision("challenge_used")
			t.reached(m)
			t.state(id, "registered")
		}},
		{row: "D02", variant: "four keys race for one challenge, five times", want: asDescribed, act: func(t *try) {
			for range 5 {
				t.race()
			}
		}},
		{row: "D03", variant: "a body that comes octet by octet, chunked", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			var body strings.Builder
			for _, octet := range m {
				body.WriteString("1\r\n" + string([]byte{octet}) + "\r\n")
			}
			for _, a := range t.raw(t.rawPost([]byte(body.String()+"0\r\n\r\n"), "Transfer-Encoding: chunked")) {
				t.issued(a)
			}
			t.decision("ok")
			for _, r := range t.messages() {
				t.demand(!r.Chunked && r.Method == http.MethodPost, "NDES was sent a chunked %s", r.Method)
			}
			t.reached(m)
		}},
		{row: "D03", variant: "a GET whose every octet is escaped", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			var escaped strings.Builder
			for _, c := range []byte(base64.StdEncoding.EncodeToString(m)) {
				fmt.Fprintf(&escaped, "%%%02X", c)
			}
			t.issued(t.do(querying("operation=PKIOperation&message=" + escaped.String())(t)))
			t.decision("ok")
			t.reached(m)
		}},
		{row: "D04", variant: "NDES hangs up when it has read the message", want: failed, act: func(t *try) {
			m := t.M.Bytes()
			t.answering(hangUp)
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.reached(m) // once
			t.state(t.ID, "claimed")
		}},
		{row: "D04", variant: "NDES hangs up in the middle of its answer", want: failed, act: func(t *try) {
			m := t.M.Bytes()
			t.answering(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-pki-message")
				w.Header().Set("Content-Length", "2000")
				w.Write([]byte("0\x80"))
				panic(http.ErrAbortHandler)
			})
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.reached(m)
			t.state(t.ID, "claimed")
		}},
		{row: "D05", variant: "the device hangs up while NDES works", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			asked, gone := make(chan struct{}), make(chan struct{})
			t.Up.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.RawQuery, "operation=PKIOperation") {
					close(asked)
					<-gone
				}
				return false
			})
			c, err := t.dial()
			if err != nil {
				t.failf("connecting: %v", err)
				return
			}
			c.Write([]byte(t.rawPost(m, "Content-Length: "+itoa(len(m)))))
			<-asked
			c.Close()
			close(gone)
			t.back = append(t.back, "nobody waits")
			t.decision("ok")
			t.reached(m)
			t.state(t.ID, "issued")
		}},
	}
}

// hangUp closes the connection in place of an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// race lets every key of the suite ask at once for what one of them may have.
func (t *try) race() {
	e := t.honest()
	e["external_id"], e["challenge"] = nil, newChallenge()
	id := t.also(e)
	var messages [][]byte
	for _, d := range t.Keys {
		messages = append(messages, wire.New(d.Key, d.SelfSigned, t.RA, t.CN, e["challenge"].(string)).Bytes())
	}
	t.oneWins(messages, "challenge_in_use")
	t.state(id, "issued")
}

// rowsTypes: D07–D09, D21.
func rowsTypes() []vector {
	list := []vector{
		{row: "D07", variant: "UpdateReq 18 without a challenge, CN=administrator", want: rej, reason: "message_type_refused", message: func(t *try) {
			t.M.SignedData.Signer.MessageType = "18"
			t.M.Request.Challenge = nil
			t.M.Request.SetSubject("administrator")
		}},
		{row: "D07", variant: "UpdateReq 18, otherwise as registered", want: rej, reason: "message_type_refused", message: messageType("18")},
		{row: "D08", variant: "messageType missing", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) { d.Signer.Replace(wire.OIDMessageType) })},
		{row: "D08", variant: "messageType twice, 19 and 18", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) {
				d.Signer.Replace(wire.OIDMessageType, wire.Attribute(wire.OIDMessageType, wire.Printable("19")), wire.Attribute(wire.OIDMessageType, wire.Printable("18")))
			})},
		{row: "D08", variant: "messageType with two values, 19 and 18", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) {
				d.Signer.Replace(wire.OIDMessageType, wire.Attribute(wire.OIDMessageType, wire.Printable("18"), wire.Printable("19")))
			})},
		{row: "D08", variant: "messageType 19 as an INTEGER", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) {
				d.Signer.Replace(wire.OIDMessageType, wire.Attribute(wire.OIDMessageType, wire.Int(19)))
			})},
		{row: "D08", variant: "messageType 19 as a UTF8String", want: pre, status: 400, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) {
				d.Signer.Replace(wire.OIDMessageType, wire.Attribute(wire.OIDMessageType, wire.UTF8("19")))
			})},
		{row: "D08", variant: "messageType of no characters", want: pre, status: 400, reason: "malformed_message", message: messageType("")},
		{row: "D08", variant: "messageType of 2,000 characters", want: pre, status: 400, reason: "malformed_message", message: messageType(strings.Repeat("19", 1000))},
		{row: "D09", variant: "RenewalReq 17, self-signed, no challenge", want: rej, reason: "challenge_missing", message: func(t *try) {
			t.M.SignedData.Signer.MessageType = "17"
			t.M.Request.Challenge = nil
		}},
		{row: "D09", variant: "RenewalReq 17, self-signed, CN=administrator, any challenge", want: rej, reason: "challenge_unknown", message: func(t *try) {
			t.M = wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, "administrator", newChallenge())
			t.M.SignedData.Signer.MessageType = "17"
		}},
		// architecture, invariant 4: the signer decides, not which of the two it says.
		{row: "D09", variant: "RenewalReq 17, self-signed, with the challenge of its device", want: forwarded, reason: "ok", message: messageType("17")},
		{row: "D21", variant: "GetCert 21 for any serial number", want: rej, reason: "message_type_refused", message: func(t *try) {
			t.M.SignedData.Signer.MessageType = "21"
			t.M.Plaintext = wire.Sequence(t.RA.RawIssuer, wire.Int(1))
		}},
		{row: "D21", variant: "GetCRL 22", want: rej, reason: "message_type_refused", message: func(t *try) {
			t.M.SignedData.Signer.MessageType = "22"
			t.M.Plaintext = wire.Sequence(t.RA.RawIssuer, wire.Int(1))
		}},
		{row: "D21", variant: "GetCRL 22 around a PKCS#10 with its challenge", want: rej, reason: "message_type_refused", message: messageType("22")},
	}
	for _, text := range []string{"3", "0", "1", "23", "999", "19 ", " 19", "019", "+19", "19.0"} {
		list = append(list, vector{row: "D08", variant: "messageType \"" + text + "\"", want: rej, reason: "message_type_refused", message: messageType(text)})
	}
	// '\x00' is no character of a PrintableString.
	return append(list, vector{row: "D08", variant: "messageType 19 and a NUL", want: pre, status: 400, reason: "malformed_message", message: messageType("19\x00")})
}

func messageType(text string) func(*try) {
	return func(t *try) { t.M.SignedData.Signer.MessageType = text }
}
