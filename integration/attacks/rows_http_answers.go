package main

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsAnswers: E30–E35.
func rowsAnswers() []vector {
	list := []vector{
		{row: "E30", variant: "NDES's certificate with cookies and headers of its own", want: forwarded, act: func(t *try) {
			answer := []byte(nil)
			m := t.M.Bytes()
			t.answering(func(w http.ResponseWriter, _ *http.Request) {
				for _, name := range []string{"Set-Cookie", "WWW-Authenticate", "Location", "Server", "X-Powered-By", "Refresh", "Access-Control-Allow-Origin"} {
					w.Header().Set(name, "evil")
				}
				answer = t.certRep("0", nil)
				t.writeRep(w, answer)
			})
			a := t.post(m)
			t.issued(a)
			t.decision("ok")
			t.demand(!strings.Contains(fmt.Sprint(a.Header), "evil"), "the device got %v", a.Header)
			t.reached(m)
			t.state(t.ID, "issued")
		}},
		{row: "E31", variant: "a signer's certificate whose AIA, CRL and OCSP URLs lead inside", want: asDescribed, act: func(t *try) { t.ssrf() }},
		{row: "E31", variant: "registering with a URL to be called back", want: cfg, act: func(t *try) {
			t.unregistrable(over(t.honest(), map[string]any{"webhook_url": "http://169.254.169.254/"}), http.StatusBadRequest, "unknown_field")
		}},
		{row: "E31", variant: "an upstream that is a URL", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("ra ndes1 {", "ra ndes1 {\n\t\t\t\tupstream http://169.254.169.254/"), "upstream")
		}},
		// The cache is cold for this: what was seen once is kept for ca_cache.
		{row: "E32", variant: "somebody between publishes an encryption certificate of his own", want: asDescribed, act: func(t *try) {
			own := wire.Certificate(&x509.Certificate{
				RawSubject: t.NDES.Exchange.RawSubject, KeyUsage: x509.KeyUsageKeyEncipherment,
			}, t.other().Key, &x509.Certificate{RawSubject: t.NDES.CA.RawSubject}, t.other().Key)
			for _, bundle := range [][][]byte{{t.NDES.Signing.Raw, own, t.NDES.CA.Raw}, {t.NDES.Exchange.Raw, own, t.NDES.CA.Raw}, {own}} {
				t.published(certsOnly(bundle...))
			}
		}},
		{row: "E33", variant: "a certificate and a refusal, which nobody may keep", want: asDescribed, act: func(t *try) {
			t.uncached(t.post(t.M.Bytes()))
			t.decision("ok")
			t.uncached(t.do(t.getRequest(t.message(t.Device).Bytes())))
			t.decision("challenge_used")
			t.uncached(t.post([]byte("rubbish")))
			t.decision("malformed_message")
		}},
		{row: "E34", variant: "the message of a GET, looked for in the logs", want: forwarded, act: func(t *try) {
			m := t.M.Bytes()
			t.issued(t.do(t.getRequest(m)))
			t.decision("ok")
			t.reached(m)
			t.logged("REDACTED")
			text := base64.StdEncoding.EncodeToString(m)
			for _, part := range []string{text[:60], text[600:640], fmt.Sprintf("%x", m[:20])} {
				t.demand(!strings.Contains(t.Log(), part), "the log has %q", part)
			}
		}},
		{row: "E34", variant: "the message of a GET that is refused, looked for in the logs", want: rej, act: func(t *try) {
			t.M.Request.SetSubject("administrator")
			m := t.M.Bytes()
			t.refused(t.do(t.getRequest(m)))
			t.decision("subject_mismatch")
			t.logged("REDACTED")
			t.demand(!strings.Contains(t.Log(), base64.StdEncoding.EncodeToString(m)[:60]), "the log has the message")
			t.reached()
		}},
		{row: "E35", variant: "an outer layer nested 20,000 times", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request { return t.postRequest([]byte(strings.Repeat("0\x80", 20000))) }},
		{row: "E35", variant: "an envelope nested 10,000 times", want: rej, reason: "malformed_message",
			message: func(t *try) { t.M.Content = []byte(strings.Repeat("0\x80", 10000)) }},
		{row: "E35", variant: "a request nested 10,000 times", want: rej, reason: "malformed_request",
			message: func(t *try) { t.M.Plaintext = []byte(strings.Repeat("0\x80", 10000)) }},
		{row: "E35", variant: "60,000 empty elements", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.postRequest(wire.Sequence([]byte(strings.Repeat("\x05\x00", 30000))))
			}},
		{row: "E35", variant: "a length of 2^63", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.postRequest([]byte("0\x88\x80\x00\x00\x00\x00\x00\x00\x00"))
			}},
	}
	for _, r := range []struct {
		variant string
		answer  func(t *try, w http.ResponseWriter)
	}{
		{"a redirect to somewhere else", func(_ *try, w http.ResponseWriter) {
			w.Header().Set("Location", "http://evil.example/")
			w.WriteHeader(http.StatusFound)
		}},
		{"307 to mscep_admin", func(_ *try, w http.ResponseWriter) {
			w.Header().Set("Location", "/certsrv/mscep_admin/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{"401 with NTLM", func(_ *try, w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", "NTLM")
			w.WriteHeader(http.StatusUnauthorized)
		}},
		{"500 around a real certificate", func(t *try, w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-pki-message")
			w.WriteHeader(http.StatusInternalServerError)
			w.Write(t.certRep("0", nil))
		}},
		{"a real certificate of the wrong type", func(t *try, w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.Write(t.certRep("0", nil))
		}},
		{"a real certificate, encoded", func(t *try, w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-pki-message")
			w.Header().Set("Content-Encoding", "br")
			w.Write(t.certRep("0", nil))
		}},
		{"nothing", func(_ *try, w http.ResponseWriter) { w.Header().Set("Content-Type", "application/x-pki-message") }},
		{"a real certificate and rubbish behind it", func(t *try, w http.ResponseWriter) { t.writeRep(w, append(t.certRep("0", nil), 0)) }},
	} {
		list = append(list, vector{row: "E30", variant: "NDES answers " + r.variant, want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { r.answer(t, w) })
		}})
	}
	return append(list, vector{row: "E30", variant: "NDES answers 8 MiB", want: failed, act: func(t *try) {
		m := t.M.Bytes()
		t.answering(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-pki-message")
			for range 8 {
				w.Write(make([]byte, 1<<20))
			}
		})
		t.status(t.post(m), http.StatusBadGateway)
		l := t.decision("")
		t.demand(strings.HasPrefix(l.String("reason"), "upstream_"), "the operator reads %q", l.String("reason"))
		t.reached(m)
		t.state(t.ID, "claimed")
	}})
}

// uncached demands that an answer may not be kept.
func (t *try) uncached(a attack.Answer) {
	t.demand(a.Header.Get("Cache-Control") == "no-store", "%s with Cache-Control %q", describe(a), a.Header.Get("Cache-Control"))
}

// published demands that no device gets this GetCACert answer of NDES.
func (t *try) published(body []byte) {
	t.cold(func() {
		t.Up.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.RawQuery != "operation=GetCACert" {
				return false
			}
			w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
			w.Write(body)
			return true
		})
		t.status(t.do(querying("operation=GetCACert")(t)), http.StatusBadGateway)
		t.reached()
	})
}

// ssrf enrols with a signer's certificate full of URLs, and demands that nobody
// comes to where they lead.
func (t *try) ssrf() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.failf("%v", err)
		return
	}
	var visits atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			visits.Add(1)
			c.Close()
		}
	}()
	u := "http://" + l.Addr().String()
	urls := x509.Certificate{
		RawSubject: wire.CommonName("SCEP Protocol Certificate"), CRLDistributionPoints: []string{u + "/crl"},
		IssuingCertificateURL: []string{u + "/ca"}, OCSPServer: []string{u + "/ocsp"},
	}
	m := t.message(t.Device)
	m.SignedData.Signer.Certificate = wire.Certificate(&urls, t.Device.Key, &x509.Certificate{RawSubject: wire.CommonName("Somebody")}, t.other().Key)
	t.refuses(m.Bytes(), "renewal_signer_untrusted")
	t.M.SignedData.Signer.Certificate = wire.Certificate(&urls, t.Device.Key, nil, nil)
	t.enrols(t.M.Bytes())
	l.Close()
	<-done
	t.demand(visits.Load() == 0, "%d visits to an address from a certificate", visits.Load())
}
