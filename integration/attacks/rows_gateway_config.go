package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsWitness: F05, F27, F34. What the gateway says to devices and MDMs.
func rowsWitness() []vector {
	return []vector{
		{row: "F05", variant: "a message for an RA certificate that the gateway does not have", want: rej, reason: "undecryptable",
			message: envelope(func(t *try, e *wire.Envelope) {
				e.To = mustParse(wire.Certificate(&x509.Certificate{RawSubject: t.RA.RawSubject, KeyUsage: x509.KeyUsageKeyEncipherment}, t.other().Key, nil, nil))
			})},
		{row: "F05", variant: "the serial number of a pair that is not there, the key of the one that is", want: rej, reason: "undecryptable",
			message: envelope(func(t *try, e *wire.Envelope) {
				e.Recipient.ID = wire.Sequence(t.RA.RawIssuer, wire.Int(4711))
			})},
		{row: "F05", variant: "two pairs while they roll over: messages for the old and for the new one", want: forwarded, act: func(t *try) { t.rollover() }},
		{row: "F27", variant: "who signs a refusal, and what it can say", want: rej, act: func(t *try) {
			t.M.Request.SetSubject("administrator")
			a := t.post(t.M.Bytes())
			t.refused(a)
			t.decision("subject_mismatch")
			t.reached()
			if a.Rep == nil {
				return
			}
			_, err := a.Rep.VerifySigner([]*x509.Certificate{t.NDES.Exchange})
			t.demand(err == nil, "not signed by the configured identity: %v", err)
			_, err = a.Rep.VerifySigner([]*x509.Certificate{t.NDES.Signing, t.NDES.CA})
			t.demand(err != nil, "signed by what the gateway must not have")
			t.demand(len(a.Rep.ServerMessage) == 0 && !a.Rep.HasError, "it says more than that it failed")
		}},
		{row: "F27", variant: "SUCCESS that somebody with the stolen RA key signed", want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) {
				t.writeRep(w, t.certRep("0", func(d *wire.SignedData) {
					d.Signer.Key, d.Signer.Certificate = t.NDES.ExchangeKey(), t.NDES.Exchange.Raw
				}))
			})
		}},
		{row: "F34", variant: "200 and a page: what the MDM reads", want: failed, act: func(t *try) {
			t.invalidAnswer(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>Issued</html>") })
			t.demandCall(t.Token, http.MethodGet, "/v1/profiles/wifi/expectations/"+t.ID, nil, http.StatusOK, "in_doubt")
		}},
		{row: "F34", variant: "200 and FAILURE: what the MDM reads", want: forwarded, act: func(t *try) {
			t.validAnswer("2", hresult("-2146877420"), "registered")
			t.demandCall(t.Token, http.MethodGet, "/v1/profiles/wifi/expectations/"+t.ID, nil, http.StatusOK, "0x80094014")
		}},
		{row: "F34", variant: "200 and PENDING: what the MDM reads", want: forwarded, act: func(t *try) { t.validAnswer("3", nil, "pending") }},
	}
}

// rollover loads a second pair beside the first and sends a message for each.
// The simulator knows the first alone, so its answers are written here.
func (t *try) rollover() {
	d := t.other()
	cert := wire.Certificate(&x509.Certificate{RawSubject: t.RA.RawSubject, KeyUsage: x509.KeyUsageKeyEncipherment}, d.Key, nil, nil)
	key, err := x509.MarshalPKCS8PrivateKey(d.Key)
	certFile, keyFile := filepath.Join(t.Dir, "ra2.pem"), filepath.Join(t.Dir, "ra2.key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err == nil {
			err = os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
		}
	}
	if err != nil {
		t.failf("%v", err)
		return
	}
	before := t.RA
	defer func() { t.RA = before }()
	t.under(t.changed("ca_certificate {$SCEPGATE_CA_CERT}", "ra ndes2 {\n\t\t\t\tcertificate "+certFile+"\n\t\t\t\tkey "+keyFile+"\n\t\t\t}\n\t\t\tca_certificate {$SCEPGATE_CA_CERT}"), func() {
		t.validAnswer("0", nil, "issued")
		t.RA = mustParse(cert)
		cn := t.CN + "-new"
		id, challenge := t.oneMore(cn)
		t.M, t.ID = wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, cn, challenge), id
		t.validAnswer("0", nil, "issued")
	})
}

// under runs act while the process has another configuration.
func (t *try) under(config string, act func()) {
	load := func(text string) bool {
		out, err := t.reload(text)
		t.demand(err == nil, "reloading: %s", lastLines(out))
		t.fresh()
		return err == nil
	}
	if load(config) {
		act()
		t.Up.set(nil)
		load(t.Config)
	}
}

// fresh forgets the connections to servers of a configuration before.
func (t *try) fresh() {
	t.Client.CloseIdleConnections()
	if c, err := t.Gateway.Client(); err == nil {
		c.CloseIdleConnections()
	}
}

// rowsConfiguration: F07, F16, F28, F29. What has not been built is an
// error, never ignored (contract).
func rowsConfiguration() []vector {
	return []vector{
		{row: "F07", variant: "mutual TLS whose file of CAs is not there", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("tls internal", mutualTLS(filepath.Join(t.Dir, "absent.pem"))), "absent.pem")
		}},
		{row: "F07", variant: "mutual TLS whose file of CAs holds none: nobody passes", want: asDescribed, act: func(t *try) {
			file := filepath.Join(t.Dir, "none.pem")
			if err := os.WriteFile(file, []byte("no certificate\n"), 0o600); err != nil {
				t.failf("%v", err)
			}
			t.under(t.changed("tls internal", mutualTLS(file)), t.noHandshake)
		}},
		{row: "F07", variant: "a clients file that names nobody", want: cfg, act: func(t *try) {
			file := filepath.Join(t.Dir, "nobody.json")
			if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
				t.failf("%v", err)
			}
			t.unloadable(t.Config, "names no client", "SCEPGATE_CLIENTS="+file)
		}},
		{row: "F07", variant: "a certificate that nobody verified, in place of a token", want: cfg, act: func(t *try) {
			t.unauthorized(http.MethodGet, t.API+"/v1/profiles/wifi", "", nil)
		}},
		{row: "F16", variant: "a configuration with store etcd", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("store badger {", "store etcd {"), "not available in this version")
		}},
		{row: "F16", variant: "a second process on the same store", want: cfg, act: func(t *try) { t.secondProcess() }},
		{row: "F28", variant: "mode observe without an end", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("renewal off", "renewal off\n\t\t\tmode observe"), "needs an end")
		}},
		{row: "F28", variant: "mode observe until a day that nobody can read", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("renewal off", "renewal off\n\t\t\tmode observe until never"), "mode observe until")
		}},
		{row: "F28", variant: "mode observe whose day has passed", want: rej, act: func(t *try) {
			t.under(t.changed("renewal off", "renewal off\n\t\t\tmode observe until 2020-01-01"), func() {
				t.M.Request.SetSubject("administrator")
				t.refuses(t.M.Bytes(), "subject_mismatch")
				t.logged("decisions are enforced")
			})
		}},
		{row: "F28", variant: "a profile without a word about renewal", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("renewal off", ""), "renewal")
		}},
		{row: "F28", variant: "a site whose profile does not exist", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("import site wifi", "import site nosuch"), "no profile")
		}},
		{row: "F28", variant: "a mode that nobody knows", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("renewal off", "renewal off\n\t\t\tmode audit"), "unknown mode")
		}},
		{row: "F29", variant: "templates that lack the one that the defaults select", want: cfg, act: func(t *try) {
			t.unloadable(t.changed("general_purpose WiFiClient", "# "), "general_purpose")
		}},
		{row: "F29", variant: "registering a template that the key usage does not select", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"certificate_template": "WiFiSignature"}, "template_mismatch")
			t.unprocessable(map[string]any{"certificate_template": "DomainController"}, "template_mismatch")
		}},
		{row: "F29", variant: "a request that names a template of the registry as it was before", want: rej, reason: "template_mismatch",
			expect: map[string]any{"certificate_template": "WiFiClient"},
			message: csr(func(_ *try, r *wire.Request) {
				r.Extend(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("IPSECIntermediateOffline")))
			})},
	}
}

func mutualTLS(file string) string {
	return "tls internal {\n\t\tclient_auth {\n\t\t\tmode require_and_verify\n\t\t\ttrust_pool file " + file + "\n\t\t}\n\t}"
}

// noHandshake demands that the API's TLS refuses a certificate that is as good as
// any, and the lack of one.
func (t *try) noHandshake() {
	mine := tls.Certificate{Certificate: [][]byte{t.Device.SelfSigned}, PrivateKey: t.Device.Key}
	for _, certificates := range [][]tls.Certificate{{mine}, nil} {
		c := &http.Client{Timeout: rawPatience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, Certificates: certificates, // whom we speak to is not in question here
		}}}
		resp, err := c.Get(t.API + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		t.demand(err != nil, "a stranger was answered")
		t.back = append(t.back, "no TLS")
	}
}

// secondProcess starts the same configuration on other ports.
func (t *try) secondProcess() {
	t.demands++
	var env []string
	for _, line := range t.Env {
		name, _, _ := strings.Cut(line, "=")
		address, err := freeAddress()
		if err != nil {
			t.failf("%v", err)
			return
		}
		_, port, _ := net.SplitHostPort(address)
		switch {
		case name == "SCEPGATE_ADMIN":
			env = append(env, name+"="+address)
		case name == "SCEPGATE_API":
			env = append(env, name+"=localhost:"+port)
		case strings.HasSuffix(name, "_PORT"):
			env = append(env, name+"="+port)
		}
	}
	out, err := t.scepgate(env, "run", "--config", t.caddyfile(t.Config), "--adapter", "caddyfile")
	if err == nil || !strings.Contains(out, "nother process is using") {
		t.failf("the second process: %v %s", err, lastLines(out))
	}
	t.back = append(t.back, "start refused")
	t.operator = append(t.operator, "another process is using it")
	id, challenge := t.oneMore(t.CN)
	t.enrols(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, challenge).Bytes())
	t.state(id, "issued")
}

// rowsReload: F30.
func rowsReload() []vector {
	return []vector{
		{row: "F30", variant: "a broken configuration, loaded into the running process", want: cfg, act: func(t *try) {
			id, challenge := t.oneMore(t.CN)
			for _, text := range []string{t.changed("renewal off", ""), t.changed("key {$SCEPGATE_RA_KEY}", "key /nonexistent"), "{\n\tscep {\n"} {
				out, err := t.reload(text)
				t.demand(err != nil, "it loads: %s", lastLines(out))
			}
			t.back = append(t.back, "load refused")
			t.fresh()
			t.enrols(wire.New(t.Device.Key, t.Device.SelfSigned, t.RA, t.CN, challenge).Bytes())
			t.state(id, "issued")
		}},
		{row: "F30", variant: "a reload while a message is at NDES; another key asks meanwhile", want: asDescribed, act: func(t *try) { t.reloadInFlight() }},
	}
}

// reloadInFlight reloads while NDES holds a message, and lets another key ask
// before, during and after.
func (t *try) reloadInFlight() {
	m := t.M.Bytes()
	asked, release := make(chan struct{}), make(chan struct{})
	t.answering(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		t.writeRep(w, t.certRep("0", nil))
	})
	var first attack.Answer
	var firstErr error
	enrolled, reloaded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(enrolled)
		first, firstErr = attack.Do(newClient(), t.postRequest(m))
	}()
	select {
	case <-asked:
	case <-time.After(rawPatience):
		t.failf("the message did not reach NDES")
		close(release)
		return
	}
	t.refused(t.post(t.message(t.other()).Bytes()))
	t.decision("challenge_in_use")
	var out string
	var err error
	go func() {
		defer close(reloaded)
		out, err = t.reload(t.changed("upstream_timeout 5s", "upstream_timeout 6s"))
	}()
	t.fresh()
	t.refused(t.post(t.message(t.other()).Bytes()))
	t.decision("challenge_in_use")
	close(release)
	<-enrolled
	<-reloaded
	t.demand(err == nil, "reloading: %s", lastLines(out))
	t.demand(firstErr == nil && first.Rep != nil && first.Rep.PKIStatus == "0", "%s, %v to the one in flight", describe(first), firstErr)
	t.back = append(t.back, describe(first))
	t.decision("ok")
	t.fresh()
	t.Up.set(nil)
	t.refused(t.post(t.message(t.other()).Bytes()))
	t.decision("challenge_in_use")
	t.reached(m)
	t.state(t.ID, "issued")
	out, err = t.reload(t.Config)
	t.demand(err == nil, "reloading: %s", lastLines(out))
	t.fresh()
}
