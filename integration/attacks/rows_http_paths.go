package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
)

// rowsPaths: E23–E26. Nothing but the SCEP paths exists.
func rowsPaths() []vector {
	var list []vector
	for _, p := range []struct{ row, target string }{
		{"E23", "/certsrv/mscep_admin"},
		{"E23", "/certsrv/mscep_admin/"},
		{"E23", "/certsrv/mscep_admin/mscep.dll"},
		{"E23", "/CERTSRV/MSCEP_ADMIN/"},
		{"E23", "/certsrv/mscep/../mscep_admin/"},
		{"E23", "/certsrv/mscep/%2e%2e/mscep_admin/"},
		{"E23", "/certsrv/mscep/%252e%252e/mscep_admin/"},
		{"E23", "/certsrv/mscep/..%5cmscep_admin/"},
		{"E23", "/certsrv/mscep/..%2f..%2fmscep_admin"},
		{"E23", `/certsrv/mscep/..\mscep_admin/`},
		{"E23", `/certsrv\mscep_admin/`},
		{"E23", "/CERTSRV//MSCEP_ADMIN/"},
		{"E23", "//certsrv/mscep_admin/"},
		{"E23", "/certsrv/./mscep_admin/"},
		{"E23", "/certsrv/mscep_admin%20"},
		{"E23", "/certsrv/mscep_admin."},
		{"E23", "/certsrv/mscep_admin::$INDEX_ALLOCATION/"},
		{"E23", "/certsrv/mscep;/../mscep_admin/"},
		{"E23", "/certsrv/mscep/%c0%ae%c0%ae/mscep_admin/"},
		{"E23", "/certsrv/mscep%c0%afmscep_admin/"},
		{"E23", "/certsrv/mscep/mscep.dll/../../mscep_admin/"},
		{"E23", "/certsrv/mscep%5fadmin/"},
		{"E23", "/certsrv/%6dscep_admin/"},
		{"E23", "/certsrv/mscep_admin%00.dll"},
		{"E23", "/certsrv/mscep/%u002e%u002e/mscep_admin/"},
		{"E24", "/"},
		{"E24", "/certsrv"},
		{"E24", "/certsrv/"},
		{"E24", "/certsrv/certfnsh.asp"},
		{"E24", "/certsrv/certrqxt.asp"},
		{"E24", "/ADPolicyProvider_CEP_Kerberos/service.svc/CEP"},
		{"E24", "/CA_CES_Kerberos/service.svc/CES"},
		{"E24", "/CertEnroll/"},
		{"E24", "/_vti_bin/"},
		{"E24", "/ocsp"},
		{"E24", "/iisstart.htm"},
		{"E25", "/certsrv/mscep/mscep.dll/"},
		{"E25", "/certsrv/mscep/mscep.dll/anything/pkiclient.exe"},
		{"E25", "/certsrv/mscep/mscep.dll/pkiclient.exe/"},
		{"E25", "/certsrv/mscep/mscep.dll/pkiclient.exe/create-root"},
		{"E25", "/certsrv/mscep/pkiclient.exe"},
		{"E25", "/certsrv/mscep/mscep.dllx"},
		{"E25", "/certsrv/mscep/mscep.dll%00.html"},
		{"E25", "/certsrv/mscep/mscep.dll::$DATA"},
		{"E25", "/certsrv/mscep/mscep.dll."},
		{"E25", "/cgi-bin/pkiclient.exe"},
		{"E25", "/scep"},
		// Spellings of the right path that Caddy and IIS decode.
		{"E26", "/certsrv/mscep/mscep%2edll"},
		{"E26", "/certsrv/mscep/mscep%2Edll"},
		{"E26", "/certsrv%2fmscep/mscep.dll"},
		{"E26", "/%63ertsrv/mscep/mscep.dll"},
		{"E26", "/certsrv//mscep/mscep.dll"},
		{"E26", "/certsrv/mscep/./mscep.dll"},
		{"E26", "/certsrv/m\u017fcep/mscep.dll"},
	} {
		// mscep.dll is asked in each case for what would be answered at the right path.
		list = append(list, vector{row: p.row, variant: p.target, want: pre, anywhere: true, act: func(t *try) {
			for _, query := range []string{"", "?operation=GetCACaps"} {
				t.rawStatus(fmt.Sprintf("GET %s%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", p.target, query, t.host()), notThere(p.target))
			}
			t.rawStatus(strings.Replace(t.rawPost([]byte("0\x80"), "Content-Length: 2"), attack.Path, p.target, 1), notThere(p.target))
		}})
	}
	for _, p := range []string{"/certsrv/mscep", "/certsrv/mscep/", "/certsrv/mscep/mscep.dll", "/certsrv/mscep/mscep.dll/pkiclient.exe", "/CertSrv/MSCEP/MSCEP.DLL"} {
		list = append(list, vector{row: "E25", variant: p + " of a message: one of the four", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.issued(t.do(t.target(http.MethodPost, p+"?operation=PKIOperation", m)))
			t.decision("ok")
			for _, r := range t.messages() {
				t.demand(r.Path == attack.Path, "NDES was asked for %s", r.Path)
			}
			t.reached(m)
		}})
	}
	return append(list,
		vector{row: "E26", variant: "no route of the configuration reaches NDES around the gateway", want: cfg, act: func(t *try) {
			out, err := t.scepgate(nil, "adapt", "--config", t.caddyfile(t.Config), "--adapter", "caddyfile")
			var config struct {
				Apps struct {
					HTTP struct {
						Servers map[string]struct {
							Routes []any `json:"routes"`
						} `json:"servers"`
					} `json:"http"`
				} `json:"apps"`
			}
			start := strings.IndexByte(out, '{')
			if err == nil && start >= 0 {
				err = json.NewDecoder(strings.NewReader(out[start:])).Decode(&config)
			}
			t.demand(err == nil, "adapting: %v", err)
			proxies := 0
			for _, s := range config.Apps.HTTP.Servers {
				proxies += t.guarded(s.Routes, false)
			}
			t.demand(proxies >= len(profiles), "%d reverse proxies found", proxies)
			t.back = append(t.back, itoa(proxies)+" proxies, all behind scep_gateway")
		}},
	)
}

// notThere is what a path gets: the server itself does not take what is no URL.
func notThere(target string) int {
	if _, err := url.ParseRequestURI(target); err != nil {
		return http.StatusBadRequest
	}
	return http.StatusNotFound
}

// guarded counts the reverse proxies in a list of routes, and demands that the
// gateway stands before each.
func (t *try) guarded(routes []any, behind bool) (proxies int) {
	for _, r := range routes {
		route, _ := r.(map[string]any)
		handlers, _ := route["handle"].([]any)
		here := behind
		for _, h := range handlers {
			handler, _ := h.(map[string]any)
			switch handler["handler"] {
			case "scep_gateway":
				here = true
				behind = behind || route["match"] == nil // for the routes after this one as well
			case "reverse_proxy":
				proxies++
				t.demand(here, "a reverse_proxy that no scep_gateway stands before")
			case "subroute":
				inner, _ := handler["routes"].([]any)
				proxies += t.guarded(inner, here)
			}
		}
	}
	return proxies
}

// rowsHeaders: E27–E29. What a device says beside its message goes nowhere.
func rowsHeaders() []vector {
	list := []vector{
		{row: "E27", variant: "HTTP/1.0 without Host, as Cisco asks", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			target := attack.Path + "?operation=PKIOperation&message=" + url.QueryEscape(base64.StdEncoding.EncodeToString(m))
			t.carried("GET "+target+" HTTP/1.0\r\n\r\n", m)
		}},
		{row: "E27", variant: "an absolute URL for another host", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.carried(strings.Replace(t.rawPost(m, "Content-Length: "+itoa(len(m))), "POST /", "POST http://dc01.example.com/", 1), m)
		}},
		{row: "E27", variant: "an absolute URL for mscep_admin", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("GET http://dc01.example.com/certsrv/mscep_admin/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", http.StatusNotFound)
		}},
		{row: "E27", variant: "HTTP/1.1 without Host", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("GET "+attack.Path+"?operation=GetCACaps HTTP/1.1\r\nConnection: close\r\n\r\n", http.StatusBadRequest)
		}},
		{row: "E27", variant: "two Host lines", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("GET "+attack.Path+"?operation=GetCACaps HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", http.StatusBadRequest)
		}},
		{row: "E27", variant: "a Host with a blank in it", want: pre, anywhere: true, act: func(t *try) {
			t.rawStatus("GET "+attack.Path+"?operation=GetCACaps HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", http.StatusBadRequest)
		}},
		{row: "E29", variant: "X-Forwarded-For, Forwarded and X-Real-IP of somebody else", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			req := t.postRequest(m)
			for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip"} {
				req.Header.Set(name, "10.0.0.1")
			}
			req.Header.Set("Forwarded", "for=10.0.0.1;host=evil.example;proto=https")
			req.Header.Set("X-Forwarded-Host", "evil.example")
			req.Header.Set("X-Forwarded-Proto", "https")
			t.issued(t.do(req))
			l := t.decision("ok")
			t.demand(l.String("client_ip") == "127.0.0.1", "the operator reads the address %q", l.String("client_ip"))
			t.onlyOurs()
			t.reached(m)
		}},
	}
	for _, host := range []string{"dc01.example.com", "localhost:2019", "ndes.internal:80", "user:password@x", "x:99999", "[::1]"} {
		list = append(list, vector{row: "E27", variant: "Host: " + host, want: asDescribed, act: func(t *try) {
			m := t.M.Bytes()
			octets := strings.Replace(t.rawPost(m, "Content-Length: "+itoa(len(m))), "Host: "+t.host(), "Host: "+host, 1)
			t.smuggled(octets, m)
		}})
	}
	for _, h := range [][2]string{
		{"X-Original-URL", "/certsrv/mscep_admin/"}, {"X-Rewrite-URL", "/certsrv/mscep_admin/"}, {"X-HTTP-Method-Override", "DELETE"},
		{"X-HTTP-Method", "DELETE"}, {"Translate", "f"}, {"Range", "bytes=0-1"}, {"If-None-Match", "*"}, {"If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT"},
		{"X-ARR-SSL", "1"}, {"X-ARR-ClientCert", "MIIB"}, {"X-MS-Forwarded-Client-IP", "10.0.0.1"}, {"X-ProxyUser-Ip", "10.0.0.1"},
		{"Authorization", "Basic YWRtaW46YWRtaW4="}, {"Cookie", "ASPSESSIONID=1"}, {"Accept-Encoding", "gzip"}, {"TE", "trailers"},
		{"Connection", "Content-Length"}, {"Proxy-Authorization", "Basic YQ=="}, {"Via", "1.1 evil"},
	} {
		list = append(list, vector{row: "E28", variant: h[0] + ": " + h[1], want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			req := t.postRequest(m)
			req.Header.Set(h[0], h[1])
			t.issued(t.do(req))
			t.decision("ok")
			t.onlyOurs()
			t.reached(m)
		}})
	}
	return list
}

// onlyOurs demands that what reached NDES since the last demand has the headers
// that the gateway writes and those that reverse_proxy adds (contract §3.1),
// and nothing of the device's.
func (t *try) onlyOurs() {
	upstream := ""
	for _, line := range t.Env {
		if value, ok := strings.CutPrefix(line, "NDES_UPSTREAM="); ok {
			upstream = value
		}
	}
	for _, r := range t.Up.since(t.from) {
		t.demand(r.Host == upstream, "NDES was called %q", r.Host)
		t.demand(!r.Chunked, "NDES was sent a chunked body")
		for name, values := range r.Header {
			text := strings.Join(values, ", ")
			ok := false
			switch name {
			case "Content-Type":
				ok = text == "application/x-pki-message"
			case "Content-Length":
				ok = text == itoa(len(r.Body))
			case "User-Agent":
				ok = text == "scepgate"
			case "Accept-Encoding": // the transport's own
				ok = text == "gzip"
			case "Via":
				ok = text == "1.1 Caddy"
			case "X-Forwarded-For":
				ok = text == "127.0.0.1"
			case "X-Forwarded-Proto":
				ok = text == "http"
			case "X-Forwarded-Host":
				ok = text == ""
			}
			t.demand(ok, "NDES was sent %s: %s", name, text)
		}
	}
}
