package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsGateway: what the gateway itself adds to attack: its API, its files, its
// configuration.
func rowsGateway() []vector {
	return inOrder(rowsAPI(), rowsRegistration(), rowsSecrets(), rowsWitness(), rowsConfiguration(), rowsMatchers(), rowsReload())
}

// rowsAPI: F04, F06, F08, F09, F25, F26.
func rowsAPI() []vector {
	expectations := "/v1/profiles/wifi/expectations"
	list := []vector{
		{row: "F06", variant: "registering CN=admin with no token, a wrong one, a password", want: cfg, act: func(t *try) {
			e := over(t.honest(), map[string]any{"subject": "CN=admin"})
			for _, authorization := range []string{"", "Bearer " + strings.Repeat("x", 40), "Basic YWRtaW46YWRtaW4=", "Bearer"} {
				t.unauthorized(http.MethodPost, t.API+expectations, authorization, e)
			}
			t.unauthorized(http.MethodPost, t.API+expectations+"?token="+t.Token, "", e) // 400: no such parameter
			t.demandCall(t.Token, http.MethodGet, expectations+"?external_id=attacks:"+t.CN, nil, http.StatusOK, "items:[]")
		}},
		{row: "F06", variant: "registering from a page in somebody's browser", want: cfg, act: func(t *try) {
			req, _ := http.NewRequest(http.MethodOptions, t.API+expectations, nil)
			req.Header.Set("Origin", "https://evil.example")
			req.Header.Set("Access-Control-Request-Method", "POST")
			req.Header.Set("Access-Control-Request-Headers", "authorization")
			a := t.ofAPI(req)
			t.demand(a.Status >= 400 && a.Header.Get("Access-Control-Allow-Origin") == "", "%d, Access-Control-Allow-Origin %q", a.Status, a.Header.Get("Access-Control-Allow-Origin"))
		}},
		{row: "F06", variant: "the API's URLs on the device port", want: pre, status: 404, request: visiting("/v1/profiles/wifi/expectations")},
		{row: "F09", variant: "a tenant registers in another profile", want: cfg, act: func(t *try) {
			t.unregistrableBy(t.Tenant, "wifi", t.tenant(nil), http.StatusForbidden, "")
			t.unregistrableBy(t.Tenant, "nosuch", t.tenant(nil), http.StatusForbidden, "")
		}},
		{row: "F09", variant: "a tenant revokes without the scope", want: cfg, act: func(t *try) {
			id := t.registers("vpn", t.tenant(nil))
			t.demandCall(t.Tenant, http.MethodDelete, "/v1/profiles/vpn/expectations/"+id, nil, http.StatusForbidden, "")
			t.demandCall(t.Tenant, http.MethodPatch, "/v1/profiles/vpn/expectations/"+id, map[string]any{"expires_at": "2099-01-01T00:00:00Z"}, http.StatusForbidden, "")
		}},
		{row: "F09", variant: "a tenant within its constraints", want: forwarded, profile: "vpn", unregistered: true, act: func(t *try) {
			id, status, refusal := t.register(t.Tenant, "vpn", t.tenant(map[string]any{"san": map[string]any{"dns": []string{t.CN + ".tenant.example"}}}))
			t.demand(id != "", "%d %s", status, refusal)
			t.M.Request.Subject = wire.Name(rdn(wire.OIDOrganization, wire.UTF8("Tenant Ltd")), cn(wire.UTF8(t.CN)))
			t.M.Request.Extend(wire.SAN(wire.DNS(t.CN + ".tenant.example")))
			t.enrols(t.M.Bytes())
		}},
		{row: "F25", variant: "a tenant reads what another client registered", want: cfg, act: func(t *try) {
			id := t.registers("vpn", nil)
			t.demandCall(t.Tenant, http.MethodGet, "/v1/profiles/vpn/expectations/"+id, nil, http.StatusNotFound, "")
			t.demandCall(t.Tenant, http.MethodGet, "/v1/profiles/wifi/expectations", nil, http.StatusForbidden, "")
			_, text := t.call(t.Tenant, http.MethodGet, "/v1/profiles/vpn/expectations?limit=500", nil)
			t.demand(!strings.Contains(text, t.CN), "the list shows it")
			_, text = t.call(t.Tenant, http.MethodGet, "/v1/profiles/vpn/expectations?external_id=attacks:"+t.CN, nil)
			t.demand(!strings.Contains(text, t.CN), "the search shows it")
			t.demandCall(t.Token, http.MethodGet, "/v1/profiles/vpn/expectations/"+id, nil, http.StatusOK, "")
		}},
		{row: "F26", variant: "a device's name, looked for in the metrics", want: forwarded, act: func(t *try) {
			t.enrols(t.M.Bytes())
			text, err := t.fetch("/metrics")
			t.demand(err == nil && strings.Contains(text, "caddy_scep_decisions_total"), "no metrics: %v", err)
			for _, own := range []string{t.CN, t.ID, t.Challenge, t.M.SignedData.Signer.TransactionID} {
				t.demand(!strings.Contains(text, own), "the metrics have %q", own)
			}
		}},
		{row: "F26", variant: "what the API's health tells a stranger", want: asDescribed, act: func(t *try) {
			req, _ := http.NewRequest(http.MethodGet, t.API+"/healthz", nil)
			a := t.ofAPI(req)
			t.demand(a.Status == http.StatusOK && len(a.Body) < 32, "%d %q", a.Status, a.Body)
		}},
	}
	for _, f := range []struct {
		variant string
		own     map[string]any
	}{
		{"another organisation", map[string]any{"subject": "CN=x,O=Example Corp"}},
		{"its organisation and another", map[string]any{"subject": "CN=x,O=Tenant Ltd,O=Example Corp"}},
		{"its organisation in other letters", map[string]any{"subject": "CN=x,O=TENANT LTD"}},
		{"a DNS name of another", map[string]any{"san": map[string]any{"dns": []string{"x.example.com"}}}},
		{"a DNS name that ends alike", map[string]any{"san": map[string]any{"dns": []string{"x.eviltenant.example"}}}},
		{"a DNS name under its own, and another", map[string]any{"san": map[string]any{"dns": []string{"x.tenant.example", "dc01.example.com"}}}},
		{"a UPN", map[string]any{"san": map[string]any{"upn": []string{"x@tenant.example"}}}},
		{"an address", map[string]any{"san": map[string]any{"ip": []string{"10.0.0.1"}}}},
		{"a URI", map[string]any{"san": map[string]any{"uri": []string{"https://tenant.example/"}}}},
		{"a mail address", map[string]any{"san": map[string]any{"email": []string{"x@tenant.example"}}}},
		{"a SID", map[string]any{"sid": "S-1-5-21-1-2-3-1104"}},
		{"an extended key usage", map[string]any{"ext_key_usage": []string{"clientAuth", "serverAuth"}}},
		{"an application policy", map[string]any{"application_policies": []string{"1.3.6.1.5.5.7.3.2"}}},
	} {
		list = append(list, vector{row: "F09", variant: "a tenant registers " + f.variant, want: cfg, act: func(t *try) {
			t.unregistrableBy(t.Tenant, "vpn", t.tenant(f.own), http.StatusForbidden, "constraint_violated")
		}})
	}
	for _, p := range []string{"/debug/pprof/heap", "/debug/pprof/", "/debug/vars", "/debug/pprof/goroutine?debug=2"} {
		list = append(list, vector{row: "F04", variant: "GET " + p + " on the device port", want: pre, status: 404, request: visiting(p)})
	}
	for _, p := range []string{"/metrics", "/config/", "/load", "/stop", "/id/x", "/v1/profiles/wifi", "/openapi.json"} {
		list = append(list, vector{row: "F26", variant: "GET " + p + " on the device port", want: pre, status: 404, request: visiting(p)})
	}
	for _, h := range []struct{ variant, name, value string }{
		{"from a page of another origin", "Origin", "https://evil.example"},
		{"under another host's name", "Host", "evil.example"},
	} {
		list = append(list, vector{row: "F08", variant: "POST /load to the admin endpoint " + h.variant, want: cfg, act: func(t *try) {
			req, _ := http.NewRequest(http.MethodPost, "http://"+t.Admin+"/load", strings.NewReader(`{"admin":{"disabled":true}}`))
			req.Header.Set("Content-Type", "application/json")
			if h.name == "Host" {
				req.Host = h.value
			} else {
				req.Header.Set(h.name, h.value)
			}
			req.Close = true
			a := t.do(req)
			t.demand(a.Status == http.StatusForbidden, "%s instead of 403", describe(a))
			text, err := t.fetch("/config/")
			t.demand(err == nil && strings.Contains(text, "scep_gateway"), "the configuration is gone")
		}})
	}
	return list
}

// tenant is what the tenant may register, with something of its own over it.
func (t *try) tenant(own map[string]any) map[string]any {
	return over(map[string]any{
		"subject": "CN=" + t.CN + ",O=Tenant Ltd", "key_usage": []string{"digitalSignature", "keyEncipherment"}, "challenge": t.Challenge,
	}, own)
}

// ofAPI sends a request to the API as it is.
func (t *try) ofAPI(req *http.Request) attack.Answer {
	c, err := t.Gateway.Client()
	if err == nil {
		var resp *http.Response
		if resp, err = c.Do(req); err == nil {
			defer resp.Body.Close()
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			a := attack.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
			t.back = append(t.back, describe(a))
			return a
		}
	}
	t.failf("no answer: %v", err)
	return attack.Answer{Header: http.Header{}}
}

// unauthorized demands that the API takes nothing from a caller: 401, or 429
// where too many strangers came from this address before, or 400.
func (t *try) unauthorized(method, url, authorization string, body any) {
	text, _ := json.Marshal(body)
	req, err := http.NewRequest(method, url, bytes.NewReader(text))
	if err != nil {
		t.failf("%v", err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	a := t.ofAPI(req)
	known := a.Status != http.StatusUnauthorized && a.Status != http.StatusTooManyRequests && a.Status != http.StatusBadRequest
	t.demand(!known, "%s instead of 401", describe(a))
}

// rowsSecrets: F02, F03, F22–F24. The whole suite's aftermath looks for the
// canary as well, wherever the process wrote.
func rowsSecrets() []vector {
	return []vector{
		{row: "F02", variant: "an RA certificate that may enrol for others, at start", want: cfg, act: func(t *try) {
			t.loadable(t.Config, "enrollment agent")
			t.demand(strings.Contains(t.Log(), "is an enrollment agent's"), "the running gateway does not warn")
		}},
		{row: "F03", variant: "an RA key that everybody may read", want: cfg, act: func(t *try) {
			t.unloadable(t.Config, "open to everybody", "SCEPGATE_RA_KEY="+t.exposedKey())
		}},
		// The key is a stranger's: what is refused here stands in what the command prints.
		{row: "F03", variant: "an RA key in PEM in place of its file's name", want: cfg, act: func(t *try) {
			der, err := x509.MarshalPKCS8PrivateKey(t.other().Key)
			t.demand(err == nil, "%v", err)
			key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
			t.unloadable(t.Config, "wrong argument count", "SCEPGATE_RA_KEY="+strings.ReplaceAll(key, "\n", ""))
		}},
		{row: "F03", variant: "an RA key in base64 in place of its file's name", want: cfg, act: func(t *try) {
			der, err := x509.MarshalPKCS8PrivateKey(t.other().Key)
			t.demand(err == nil, "%v", err)
			key := base64.RawURLEncoding.EncodeToString(der)
			t.unloadable(t.Config, "ra ndes1 key", "SCEPGATE_RA_KEY="+key)
			out, _ := t.validated(t.Config, "SCEPGATE_RA_KEY="+key)
			t.demand(!strings.Contains(out, key[200:260]), "the error prints the key")
		}},
		{row: "F03", variant: "keys, looked for in the configuration that the admin endpoint shows", want: asDescribed, act: func(t *try) {
			text, err := t.fetch("/config/")
			t.demand(err == nil && strings.Contains(text, "scep_gateway"), "no configuration: %v", err)
			t.demand(!strings.Contains(text, "PRIVATE KEY") && !strings.Contains(text, staticPassword), "a secret is shown")
		}},
		{row: "F22", variant: "challenges in requests that are wrong", want: asDescribed, act: func(t *try) {
			for _, e := range []any{
				over(t.honest(), map[string]any{"subject": "rubbish"}),
				over(t.honest(), map[string]any{"challenge": t.Challenge + "\u0001"}),
				over(t.honest(), map[string]any{"challenge": []string{t.Challenge}}),
				over(t.honest(), map[string]any{"challenge": map[string]string{t.Challenge: t.Challenge}}),
				over(t.honest(), map[string]any{"ttl_seconds": t.Challenge}),
			} {
				status, text := t.call(t.Token, http.MethodPost, "/v1/profiles/wifi/expectations", e)
				t.back = append(t.back, itoa(status))
				t.demand(status >= 400 && !strings.Contains(text, canary), "%d %s", status, text)
			}
			t.refuses(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, "administrator", t.Challenge).Bytes(), "subject_mismatch")
			t.refuses(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, newChallenge()).Bytes(), "challenge_unknown")
			t.demand(!strings.Contains(t.Log(), canary), "the log has a challenge")
		}},
		{row: "F22", variant: "a decision names its challenge by fingerprint alone", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.issued(t.post(m))
			l := t.decision("ok")
			_, err := hex.DecodeString(l.String("challenge_fingerprint"))
			t.demand(err == nil && len(l.String("challenge_fingerprint")) == 8, "fingerprint %q", l.String("challenge_fingerprint"))
			t.demand(!strings.Contains(fmt.Sprint(l), canary), "the line has the challenge")
			t.reached(m)
		}},
		{row: "F23", variant: "a challenge, looked for in every file of the store", want: asDescribed, act: func(t *try) {
			t.enrols(t.M.Bytes())
			t.notStored([]byte(t.Challenge))
		}},
		{row: "F24", variant: "plain hashes of a challenge, looked for in every file of the store", want: asDescribed, act: func(t *try) {
			var forms [][]byte
			for _, text := range []string{t.Challenge, "wifi" + t.Challenge, "wifi\x00" + t.Challenge, "wifi:" + t.Challenge, "wifi/" + t.Challenge} {
				sum := sha256.Sum256([]byte(text))
				forms = append(forms, sum[:], []byte(hex.EncodeToString(sum[:])), []byte(base64.StdEncoding.EncodeToString(sum[:])))
			}
			t.notStored(forms...)
			_, err := os.Stat(filepath.Join(t.Dir, "data.challenge.key"))
			t.demand(err == nil, "the key of the hashes is not beside the store: %v", err)
		}},
	}
}

// exposedKey is a copy of the RA key that everybody may read.
func (t *try) exposedKey() string {
	key, err := os.ReadFile(filepath.Join(t.Dir, "ra-encryption.key"))
	file := filepath.Join(t.Dir, "exposed.key")
	if err == nil {
		if err = os.WriteFile(file, key, 0o600); err == nil {
			err = os.Chmod(file, 0o644)
		}
	}
	if err != nil {
		t.failf("%v", err)
	}
	return file
}

// notStored demands that no file of the store holds any of these; that the
// device's name is there proves that the search finds what is.
func (t *try) notStored(parts ...[]byte) {
	found := false
	err := filepath.WalkDir(filepath.Join(t.Dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(t.CN))
		if anyOf(content, parts...) {
			t.failf("%s has it", filepath.Base(path))
		}
		return err
	})
	t.demand(err == nil && found, "the search finds nothing at all: %v", err)
}
