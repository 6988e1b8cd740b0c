package main

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRelay: B41, ESC8 and ESC11 through the gateway.
func rowsRelay() []vector {
	const ntlm = "NTLM TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAKAGFKAAAADw=="
	credentials := map[string]string{
		"Authorization": ntlm, "Proxy-Authorization": ntlm, "Cookie": "ASPSESSIONID=1",
		"X-Original-URL": "/certsrv/mscep_admin/", "X-Rewrite-URL": "/certsrv/mscep_admin/", "X-Forwarded-User": "administrator",
	}
	// clean demands that nothing of them, and no other header of a device's
	// making, is in what reached NDES.
	clean := func(t *try) {
		t.demands++
		added := []string{"Content-Type", "Content-Length", "User-Agent", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Accept-Encoding"}
		for _, r := range t.requests() {
			for name := range r.Header {
				if !slices.Contains(added, name) {
					t.failf("NDES got the header %s", name)
				}
			}
			if r.Header.Get("User-Agent") != "scepgate" {
				t.failf("NDES got the User-Agent %q", r.Header.Get("User-Agent"))
			}
		}
	}
	with := func(req *http.Request) *http.Request {
		for name, value := range credentials {
			req.Header.Set(name, value)
		}
		return req
	}
	challenging := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Add("WWW-Authenticate", "NTLM")
		w.Header().Add("WWW-Authenticate", "Negotiate")
		w.Header().Set("Set-Cookie", "ASPSESSIONID=1")
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	// silent demands that an answer asks nobody for credentials.
	silent := func(t *try, header http.Header) {
		t.demands++
		for _, name := range []string{"Www-Authenticate", "Proxy-Authenticate", "Set-Cookie", "Location"} {
			if header.Get(name) != "" {
				t.failf("the device got %s", name)
			}
		}
	}
	admin := func(path string) vector {
		return vector{row: "B41", variant: "NTLM for " + path, want: asDescribed, unregistered: true, act: func(t *try) {
			a := t.do(with(t.httpRequest(http.MethodGet, path, nil)))
			t.status(a, http.StatusNotFound)
			silent(t, a.Header)
			t.reached()
			if len(t.requests()) > 0 {
				t.failf("something reached NDES")
			}
		}}
	}
	return []vector{
		{row: "B41", variant: "NTLM, a cookie and rewriting headers with an honest message", want: asDescribed, act: func(t *try) {
			message := t.M.Bytes()
			a := t.do(with(t.postRequest(message)))
			t.issued(a)
			clean(t)
			t.reached(message)
			t.decision("ok")
		}},
		// The catalogue's 503 is 502 in contract §3: NDES answers other than 200.
		{row: "B41", variant: "NDES answers a message with 401 and NTLM", want: asDescribed, act: func(t *try) {
			t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
				return r.URL.RawQuery == "operation=PKIOperation" && challenging(w, r)
			})
			message := t.M.Bytes()
			a := t.do(with(t.postRequest(message)))
			t.status(a, http.StatusBadGateway)
			silent(t, a.Header)
			clean(t)
			t.reached(message)
			t.decision("upstream_invalid")
			t.state(t.ID, "claimed")
		}},
		{row: "B41", variant: "NDES answers GetCACert with 401 and NTLM", want: asDescribed, unregistered: true, act: func(t *try) {
			t.cold(func() {
				t.Up.set(challenging)
				a := t.do(with(t.httpRequest(http.MethodGet, "?operation=GetCACert", nil)))
				t.status(a, http.StatusBadGateway)
				silent(t, a.Header)
				clean(t)
				t.decision("upstream_invalid")
			})
		}},
		admin("/certsrv/mscep_admin/"),
		admin("/certsrv/mscep_admin"),
		admin("/certsrv/mscep_admin/mscep.dll"),
		admin("/CertSrv/MSCEP_Admin/"),
		admin("/certsrv/mscep/../mscep_admin/"),
		admin("/certsrv/"),
		admin("/certsrv/certfnsh.asp"),
		admin("/ADPolicyProvider_CEP_Kerberos/service.svc/CEP"),
	}
}

// rowsWeakMapping: B42, the names that a directory maps by weakly.
func rowsWeakMapping() []vector {
	warned := func(variant string, e map[string]any, want bool) vector {
		return vector{row: "B42", variant: variant + ", registered", want: asDescribed, unregistered: true, act: func(t *try) {
			t.demands++
			var answer struct {
				ID       string   `json:"id"`
				Warnings []string `json:"warnings"`
			}
			if _, err := t.Call(context.Background(), t.Token, http.MethodPost, "/v1/profiles/wifi/expectations", over(t.honest(), e), &answer); err != nil {
				t.failf("registering: %v", err)
				return
			}
			t.back = append(t.back, "201")
			t.operator = append(t.operator, answer.Warnings...)
			if got := strings.Contains(strings.Join(answer.Warnings, "\n"), "UPN without a SID"); got != want {
				t.failf("warnings: %q", answer.Warnings)
			}
			t.revokes("wifi", answer.ID)
		}}
	}
	upn := sanOf("upn", "ann@corp.example")
	return []vector{
		warned("a UPN without a SID", upn, true),
		warned("a UPN with a SID", over(upn, map[string]any{"sid": ownSID}), false),
		{row: "B42", variant: "the registered UPN without the registered SID", want: rejStrike, reason: "sid_mismatch",
			expect: over(upn, map[string]any{"sid": ownSID}), message: askingFor(wire.SAN(wire.UPN("ann@corp.example")))},
	}
}
