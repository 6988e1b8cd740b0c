package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsChallenge: A08 and A09, a challenge again and elsewhere.
func rowsChallenge() []vector {
	again := func(t *try) {
		t.enrols(t.M.Bytes())
		// Another key holds it now, whatever name it is used under.
		t.refuses(t.message(t.other()).Bytes(), "challenge_in_use")
		m := t.message(t.other())
		m.Request.SetSubject("administrator")
		t.refuses(m.Bytes(), "challenge_in_use")
		// And its own key has had its certificate.
		m = t.message(t.Device)
		t.refuses(m.Bytes(), "challenge_used")
		m = t.message(t.Device)
		m.Request.SetSubject("administrator")
		t.refuses(m.Bytes(), "challenge_used")
		t.state(t.ID, "issued")
	}
	return []vector{
		{row: "A08", variant: "after success: another key, another name, the same key, in gateway", want: asDescribed, act: again},
		{row: "A08", variant: "after success: another key, another name, the same key, in ndes_one_time", want: asDescribed, profile: "onetime", act: again},
		{row: "A08", variant: "after success: another key under the static password", want: asDescribed, profile: "static", act: func(t *try) {
			t.enrols(t.M.Bytes())
			t.refuses(t.message(t.other()).Bytes(), "challenge_in_use")
			t.state(t.ID, "issued")
		}},
		{row: "A08", variant: "a one-time challenge that was used, registered again", want: asDescribed, profile: "onetime", act: func(t *try) {
			t.enrols(t.M.Bytes())
			t.conflicts("onetime", map[string]any{"external_id": "attacks:again:" + t.CN}, "challenge_used")
		}},

		// REJ# in the catalogue: the challenge is not known under this profile, so
		// there is no expectation to strike.
		{row: "A09", variant: "challenge of wifi sent to the URL of vpn", want: asDescribed, act: func(t *try) {
			t.refusesAt("vpn", t.M.Bytes(), "challenge_unknown")
			t.untouched("wifi", t.ID)
			t.enrols(t.M.Bytes())
		}},
		{row: "A09", variant: "challenge of wifi sent to a profile of one-time passwords", want: asDescribed, act: func(t *try) {
			t.refusesAt("onetime", t.M.Bytes(), "challenge_unknown")
			t.untouched("wifi", t.ID)
		}},
		{row: "A09", variant: "challenge of wifi sent to a profile with a static password", want: asDescribed, act: func(t *try) {
			t.refusesAt("static", t.M.Bytes(), "challenge_unknown")
			t.untouched("wifi", t.ID)
		}},
		{row: "A09", variant: "the same challenge in two profiles, each for its own device", want: asDescribed, act: func(t *try) {
			vpn := t.registers("vpn", map[string]any{"subject": "CN=" + t.CN + "-vpn"})
			t.refusesAt("vpn", t.M.Bytes(), "subject_mismatch")
			t.untouched("wifi", t.ID)
			m := t.message(t.Device)
			m.Request.SetSubject(t.CN + "-vpn")
			t.refuses(m.Bytes(), "subject_mismatch")
			t.struck(t.ID)
			t.revokes("vpn", vpn)
		}},
		{row: "A09", variant: "registered in vpn by a tenant for its own, used at wifi", want: asDescribed, unregistered: true, act: func(t *try) {
			id, status, refusal := t.register(t.Tenant, "vpn", over(t.honest(), map[string]any{"subject": "CN=" + t.CN + ",O=Tenant Ltd", "ext_key_usage": nil}))
			if id == "" {
				t.failf("the tenant registering: %d %s", status, refusal)
			}
			t.refuses(t.M.Bytes(), "challenge_unknown")
			t.untouched("vpn", id)
		}},
	}
}

// rowsNoChallenge: A11.
func rowsNoChallenge() []vector {
	with := func(values ...[]byte) func(*try) {
		return csr(func(_ *try, r *wire.Request) { r.Challenge = [][]byte{wire.ChallengePassword(values...)} })
	}
	without := csr(func(_ *try, r *wire.Request) { r.Challenge = nil })
	return []vector{
		{row: "A11", variant: "no challengePassword", want: rej, reason: "challenge_missing", message: without},
		{row: "A11", variant: "no attribute at all", want: rej, reason: "challenge_missing",
			message: csr(func(_ *try, r *wire.Request) { r.Challenge, r.Extensions = nil, nil })},
		{row: "A11", variant: "an empty PrintableString: 13 00", want: rej, reason: "challenge_missing", message: with(wire.Printable(""))},
		{row: "A11", variant: "an empty UTF8String: 0c 00", want: rej, reason: "challenge_missing", message: with(wire.UTF8(""))},
		{row: "A11", variant: "one space", want: rej, reason: "challenge_missing", message: with(wire.Printable(" "))},
		{row: "A11", variant: "eight spaces", want: rej, reason: "challenge_missing", message: with(wire.UTF8("        "))},
		{row: "A11", variant: "a tab", want: rej, reason: "malformed_request", message: with(wire.UTF8("\t"))},
		{row: "A11", variant: "the attribute without a value", want: rej, reason: "malformed_request", message: with()},
		{row: "A11", variant: "NULL as the value", want: rej, reason: "malformed_request", message: with(wire.Null())},
		{row: "A11", variant: "no challengePassword, nothing registered", want: rej, reason: "challenge_missing", unregistered: true, message: without},
		{row: "A11", variant: "a challenge, nothing registered", want: rej, reason: "challenge_unknown", unregistered: true, message: asItIs},
		{row: "A11", variant: "an empty one to a profile with a static password", want: rej, reason: "challenge_missing", profile: "static",
			message: with(wire.Printable(""))},
		{row: "A11", variant: "an empty one to a profile of one-time passwords", want: rej, reason: "challenge_missing", profile: "onetime",
			message: with(wire.Printable(""))},
		{row: "A11", variant: "an empty challenge, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": ""}, "challenge_syntax")
			t.unprocessable(map[string]any{"challenge": "        "}, "challenge_syntax")
			t.unprocessable(map[string]any{"challenge": "1234567"}, "challenge_syntax")
		}},
		{row: "A11", variant: "a one-time profile without a challenge, registered", want: cfg, profile: "onetime", act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": nil}, "challenge_required")
		}},
	}
}

// rowsStolenChallenge: A14 and A15.
func rowsStolenChallenge() []vector {
	pin := func(d *device) map[string]any {
		sum := sha256.Sum256(wire.PublicKey(&d.Key.PublicKey))
		return map[string]any{"key": map[string]any{"spki_sha256": hex.EncodeToString(sum[:])}}
	}
	race := func(t *try) {
		var messages [][]byte
		for _, d := range t.Keys {
			messages = append(messages, t.message(d).Bytes())
		}
		t.oneWins(messages, "challenge_in_use")
		t.state(t.ID, "issued")
	}
	return []vector{
		{row: "A14", variant: "four keys under one challenge at the same moment", want: asDescribed, act: race},
		{row: "A14", variant: "four keys under one one-time challenge at the same moment", want: asDescribed, profile: "onetime", act: race},
		{row: "A14", variant: "four keys for one identity under the static password at once", want: asDescribed, profile: "static", act: race},
		{row: "A14", variant: "a second key while the first's answer is lost", want: asDescribed, act: func(t *try) {
			t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.RawQuery != "operation=PKIOperation" {
					return false
				}
				w.WriteHeader(http.StatusInternalServerError)
				return true
			})
			first := t.M.Bytes()
			t.status(t.post(first), http.StatusBadGateway)
			t.decision("upstream_invalid")
			t.reached(first)
			t.state(t.ID, "claimed")
			t.Up.set(nil)
			t.refuses(t.message(t.other()).Bytes(), "challenge_in_use")
			t.enrols(t.M.Bytes())
		}},
		{row: "A14", variant: "another key than the registered one", want: asDescribed, unregistered: true, act: func(t *try) {
			t.ID = t.registers("wifi", pin(t.Device))
			t.refuses(t.message(t.other()).Bytes(), "key_mismatch")
			t.struck(t.ID)
			t.enrols(t.M.Bytes())
		}},

		// That the rightful device's attempt raises challenge.theft_suspected is
		// shown in package caddymodule: no handler of events is configured here.
		{row: "A15", variant: "the thief enrols first, with the right identity; then the device", want: asDescribed, act: func(t *try) {
			t.enrols(t.message(t.other()).Bytes())
			t.refuses(t.M.Bytes(), "challenge_in_use")
		}},
		{row: "A15", variant: "a challenge that was revoked when its loss was noticed", want: asDescribed, act: func(t *try) {
			t.revokes("wifi", t.ID)
			t.refuses(t.message(t.other()).Bytes(), "challenge_revoked")
			t.state(t.ID, "revoked")
		}},
		{row: "A15", variant: "a lifetime of more than 30 days, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"ttl_seconds": 30*24*3600 + 1}, "ttl_range")
			t.unprocessable(map[string]any{"expires_at": "2099-01-01T00:00:00Z"}, "ttl_range")
			t.unprocessable(map[string]any{"ttl_seconds": 0}, "ttl_range")
		}},
	}
}

// rowsMisplacedChallenge: A18. Its challenges stand where a gateway logs what it
// reads, so they are none of the canaries.
func rowsMisplacedChallenge() []vector {
	elsewhere := func(variant, challenge string, v vector) vector {
		v.row, v.variant, v.expect = "A18", variant, map[string]any{"challenge": challenge}
		if v.want == "" {
			v.want, v.reason = rej, "challenge_missing"
		}
		return v
	}
	move := func(change func(t *try, m *wire.Message)) func(*try) {
		return func(t *try) {
			t.M.Request.Challenge = nil
			change(t, t.M)
		}
	}
	header := func(name, value string) vector {
		return vector{request: func(t *try) *http.Request {
			t.M.Request.Challenge = nil
			req := t.postRequest(t.M.Bytes())
			req.Header.Set(name, value)
			return req
		}}
	}
	return []vector{
		elsewhere("in unstructuredName", "A18-UNSTRUCTURED-NAME", vector{message: move(func(_ *try, m *wire.Message) {
			m.Request.Attributes = [][]byte{wire.Attribute(wire.OIDUnstructuredName, wire.Printable("A18-UNSTRUCTURED-NAME"))}
		})}),
		elsewhere("as the transactionID", "A18-AS-THE-TRANSACTION-OF-THE-MESSAGE-01", vector{message: move(func(_ *try, m *wire.Message) {
			m.SignedData.Signer.TransactionID = "A18-AS-THE-TRANSACTION-OF-THE-MESSAGE-01"
		})}),
		elsewhere("as senderNonce", "A18-SENDER-NONCE", vector{message: move(func(_ *try, m *wire.Message) {
			m.SignedData.Signer.SenderNonce = []byte("A18-SENDER-NONCE")
		})}),
		elsewhere("in a dNSName", "A18-ALTERNATIVE-NAME", vector{message: move(func(_ *try, m *wire.Message) {
			m.Request.Extend(wire.SAN(wire.DNS("A18-ALTERNATIVE-NAME")))
		})}),
		elsewhere("as a unstructuredName of the subject", "A18-SUBJECT", vector{message: move(func(t *try, m *wire.Message) {
			m.Request.Subject = wire.Name(single(wire.OIDCommonName, t.CN), single(wire.OIDUnstructuredName, "A18-SUBJECT"))
		})}),
		elsewhere("in an ENROLLMENT_NAME_VALUE_PAIR", "A18-PAIR-CHALLENGE", vector{message: move(func(_ *try, m *wire.Message) {
			m.Request.Attributes = [][]byte{namePair("challenge", "A18-PAIR-CHALLENGE")}
		})}),
		elsewhere("as an extension under the attribute's OID", "A18-EXTENSION", vector{message: move(func(_ *try, m *wire.Message) {
			m.Request.Extend(wire.Extension(wire.OIDChallengePassword, false, wire.Printable("A18-EXTENSION")))
		})}),
		// A signed attribute that the profile does not have is no CertRep's business: 400.
		elsewhere("as a signed attribute of the message", "A18-SIGNED-ATTRIBUTE", vector{want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			message: move(func(_ *try, m *wire.Message) {
				m.SignedData.Signer.Attributes = [][]byte{wire.ChallengePassword(wire.Printable("A18-SIGNED-ATTRIBUTE"))}
			})}),
		elsewhere("in a header X-Challenge", "A18-HEADER-PLAIN", header("X-Challenge", "A18-HEADER-PLAIN")),
		elsewhere("in a header Authorization", "A18-HEADER-BEARER", header("Authorization", "Bearer A18-HEADER-BEARER")),
		elsewhere("as a parameter of the query", "A18-PARAMETER", vector{want: pre, status: http.StatusBadRequest, request: func(t *try) *http.Request {
			t.M.Request.Challenge = nil
			return t.httpRequest(http.MethodPost, "?operation=PKIOperation&challenge=A18-PARAMETER", t.M.Bytes())
		}}),
	}
}
