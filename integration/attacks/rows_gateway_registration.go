package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRegistration: F10–F13, F35.
func rowsRegistration() []vector {
	byID := "/v1/profiles/wifi/expectations/by-external-id/"
	list := []vector{
		{row: "F10", variant: "one challenge in two profiles", want: asDescribed, act: func(t *try) {
			id := t.registers("vpn", map[string]any{"subject": "CN=" + t.CN + "-vpn"})
			vpn := func() []byte {
				return wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN+"-vpn", t.Challenge).Bytes()
			}
			t.refuses(vpn(), "subject_mismatch")
			t.refusesAt("vpn", t.M.Bytes(), "subject_mismatch")
			t.enrols(t.M.Bytes())
			t.state(t.ID, "issued")
			m := vpn()
			req := t.postRequest(m)
			req.URL.Opaque = strings.Replace(req.URL.Opaque, t.host(), strings.TrimPrefix(t.Devices["vpn"], "http://"), 1)
			req.URL.Host, req.Host = strings.TrimPrefix(t.Devices["vpn"], "http://"), ""
			t.issued(t.do(req))
			t.decision("ok")
			t.reached(m)
			t.demandCall(t.Token, http.MethodGet, "/v1/profiles/vpn/expectations/"+id, nil, http.StatusOK, "state:issued")
		}},
		{row: "F11", variant: "replacing an expectation between claim and answer", want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			t.answering(hangUp)
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			e := over(t.honest(), map[string]any{"subject": "CN=admin-pc"})
			t.demandCall(t.Token, http.MethodPut, byID+"attacks:"+t.CN, e, http.StatusConflict, "expectation_in_use")
			t.demandCall(t.Token, http.MethodPut, byID+"attacks:"+t.CN, over(e, map[string]any{"challenge": newChallenge()}), http.StatusConflict, "expectation_in_use")
			t.conflicts("wifi", map[string]any{"external_id": nil, "subject": "CN=admin-pc"}, "challenge_in_use")
			t.Up.set(nil)
			t.issued(t.post(m))
			t.decision("ok")
			t.reached(m, m)
		}},
		{row: "F11", variant: "replacing one that nobody used: the old challenge dies", want: asDescribed, act: func(t *try) {
			challenge := newChallenge()
			t.demandCall(t.Token, http.MethodPut, byID+"attacks:"+t.CN, over(t.honest(), map[string]any{"challenge": challenge, "subject": "CN=" + t.CN + "-b"}), http.StatusOK, "")
			t.refuses(t.M.Bytes(), "challenge_revoked")
			t.refuses(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, challenge).Bytes(), "subject_mismatch")
			t.enrols(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN+"-b", challenge).Bytes())
		}},
		{row: "F11", variant: "registering a challenge that lives, for another name", want: cfg, act: func(t *try) {
			t.registers("wifi", nil)
			t.conflicts("wifi", map[string]any{"external_id": nil, "subject": "CN=admin-pc"}, "challenge_in_use")
		}},
		{row: "F12", variant: "the registration of a challenge that was used, again", want: cfg, act: func(t *try) {
			t.ID = t.registers("wifi", nil)
			t.enrols(t.M.Bytes())
			t.conflicts("wifi", nil, "challenge_used")
			t.demandCall(t.Token, http.MethodPut, byID+"attacks:"+t.CN, t.honest(), http.StatusConflict, "challenge_used")
			t.revokes("wifi", t.ID)
			t.conflicts("wifi", nil, "challenge_used")
			t.refuses(t.M.Bytes(), "challenge_revoked")
		}},
		{row: "F12", variant: "the registration of a one-time password that was claimed, again", want: cfg, profile: "onetime", act: func(t *try) {
			t.ID = t.registers("onetime", nil)
			t.answering(hangUp)
			m := t.M.Bytes()
			t.status(t.post(m), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.reached(m)
			t.revokes("onetime", t.ID)
			t.conflicts("onetime", nil, "challenge_used")
		}},
		{row: "F13", variant: "a challenge in the profile whose password NDES has", want: cfg, profile: "static", act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": newChallenge()}, "challenge_not_allowed")
		}},
		{row: "F13", variant: "no challenge where NDES makes them", want: cfg, profile: "onetime", act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": nil}, "challenge_required")
		}},
		{row: "F13", variant: "two challenges that the gateway makes", want: asDescribed, unregistered: true, act: func(t *try) {
			var made [2]struct {
				Challenge string `json:"challenge"`
			}
			for i := range made {
				e := over(t.honest(), map[string]any{"challenge": nil, "external_id": nil})
				t.madeBy(e, &made[i])
				t.demand(len(made[i].Challenge) == 32 && strings.Trim(made[i].Challenge, "0123456789ABCDEF") == "", "%d characters, or others than hex", len(made[i].Challenge))
			}
			t.demand(made[0].Challenge != made[1].Challenge, "both are the same")
			t.enrols(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, made[0].Challenge).Bytes())
		}},
	}
	for _, c := range []struct{ variant, challenge, code string }{
		{"of seven characters", "CANARY1", "challenge_syntax"},
		{"of no characters", "", "challenge_syntax"},
		{"of 8,193 characters", strings.Repeat("CANARY--", 1024) + "-", "challenge_syntax"},
		{"with a blank at its end", "CANARY-4711-4711 ", "challenge_syntax"},
		{"with a letter that is not ASCII", "CANARY-4711-471\u00e9", "challenge_syntax"},
		{"with a NUL", "CANARY-4711-\x00-471", "challenge_syntax"},
		{"that is a placeholder, %Challenge%", "%Challenge%", "placeholder_unresolved"},
		{"that is a placeholder, $PROFILE_IDENTIFIER", "$PROFILE_IDENTIFIER", "placeholder_unresolved"},
		{"that is a placeholder, {{SCEPChallenge}}", "{{SCEPChallenge}}", "placeholder_unresolved"},
	} {
		list = append(list, vector{row: "F13", variant: "a challenge " + c.variant, want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": c.challenge}, c.code)
		}})
	}
	for _, i := range []struct {
		variant string
		e       map[string]any
	}{
		{"CN=Administrator", map[string]any{"subject": "CN=Administrator"}},
		{"CN=krbtgt", map[string]any{"subject": "CN=krbtgt"}},
		{"CN=EXAMPLE\\administrator", map[string]any{"subject": `CN=EXAMPLE\\administrator`}},
		{"CN=administrator with Cyrillic or wide letters", map[string]any{"subject": "CN=\uff41dministrator"}},
		{"the CA's CN", map[string]any{"subject": "CN=Example Issuing CA"}},
		{"the CA's CN in other letters", map[string]any{"subject": "CN=EXAMPLE issuing ca"}},
		{"the RA's CN", map[string]any{"subject": "CN=NDES01-MSCEP-RA"}},
		{"the RA's subject as it is", map[string]any{"subject": "CN=NDES01-MSCEP-RA,C=US"}},
		{"UPN administrator@example.com", map[string]any{"san": map[string]any{"upn": []string{"administrator@example.com"}}}},
		{"UPN Krbtgt@example.com", map[string]any{"san": map[string]any{"upn": []string{"Krbtgt@example.com"}}}},
	} {
		list = append(list, vector{row: "F35", variant: "registering " + i.variant, want: cfg, act: func(t *try) {
			t.unprocessable(i.e, "identity_forbidden")
		}})
	}
	for _, rid := range []string{"500", "502", "512", "516", "518", "519"} {
		list = append(list, vector{row: "F35", variant: "registering the SID …-" + rid, want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"sid": "S-1-5-21-1-2-3-" + rid}, "identity_forbidden")
		}})
	}
	// What no registration names, a pattern might let in.
	return append(list, vector{row: "F35", variant: "CN=administrator under a pattern that lets it in", want: rej, profile: "patterns", reason: "subject_mismatch",
		expect:  map[string]any{"subject": nil, "subject_rdns": [][]map[string]any{{{"type": "CN", "match": "regex", "value": "[a-z]+[-a-z0-9]*"}}}},
		message: csr(func(_ *try, r *wire.Request) { r.SetSubject("administrator") })})
}

// madeBy registers e and reads what the API answers.
func (t *try) madeBy(e map[string]any, out any) {
	if _, err := t.Call(context.Background(), t.Token, http.MethodPost, "/v1/profiles/"+t.profile()+"/expectations", e, out); err != nil {
		t.failf("registering: %v", err)
	}
}
