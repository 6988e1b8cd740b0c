package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/integration/wire"
)

// More of what an act can do and demand around enrolments.

// other is a device that is not the honest one.
func (t *try) other() *device {
	for i, d := range t.Keys {
		if d == t.Device {
			return t.Keys[(i+1)%len(t.Keys)]
		}
	}
	return t.Keys[0]
}

// enrols sends a message that must be forwarded and answered with a certificate.
func (t *try) enrols(message []byte) attack.Answer {
	a := t.post(message)
	t.issued(a)
	t.decision("ok")
	t.reached(message)
	return a
}

// refuses sends a message that must be refused for this reason.
func (t *try) refuses(message []byte, reason string) gateway.Line {
	return t.refusesAt(t.profile(), message, reason)
}

// refusesAt sends it to the devices' URL of another profile.
func (t *try) refusesAt(profile string, message []byte, reason string) gateway.Line {
	a, err := attack.Post(t.Client, t.Devices[profile], message)
	if err != nil {
		t.failf("no answer: %v", err)
		return nil
	}
	t.back = append(t.back, describe(a))
	t.refused(a)
	l := t.decision(reason)
	t.reached()
	return l
}

// registers registers e laid over what the honest device has, which must go,
// and gives its id.
func (t *try) registers(profile string, e map[string]any) string {
	id, status, refusal := t.register(t.Token, profile, over(t.honest(), e))
	if id == "" {
		t.failf("registering in %s: %d %s", profile, status, refusal)
	}
	return id
}

// conflicts demands that e, laid over the honest device's, is refused as 409.
func (t *try) conflicts(profile string, e map[string]any, code string) {
	t.unregistrableBy(t.Token, profile, over(t.honest(), e), http.StatusConflict, code)
}

// unprocessable demands that e, laid over the honest device's, is refused as 422.
func (t *try) unprocessable(e map[string]any, code string) {
	t.unregistrable(over(t.honest(), e), http.StatusUnprocessableEntity, code)
}

// struck demands that an expectation is as it was but for remembering a
// request with another identity.
func (t *try) struck(id string) {
	if e := t.state(id, "registered"); e != nil && !strings.Contains(fmt.Sprint(e["history"]), "mismatch") {
		t.failf("no strike on the expectation: %v", e["history"])
	}
}

// untouched demands that an expectation is as it was, and remembers nothing.
func (t *try) untouched(profile, id string) {
	t.demands++
	var e struct {
		State   string `json:"state"`
		History []struct {
			What string `json:"what"`
		} `json:"history"`
	}
	if _, err := t.Call(context.Background(), t.Token, http.MethodGet, "/v1/profiles/"+profile+"/expectations/"+id, nil, &e); err != nil {
		t.failf("reading the expectation: %v", err)
		return
	}
	if e.State != "registered" {
		t.failf("the expectation is %s, not registered", e.State)
	}
	for _, h := range e.History {
		if h.What == "mismatch" || h.What == "refused" {
			t.failf("the expectation remembers %q", h.What)
		}
	}
}

// revokes ends an expectation of a profile.
func (t *try) revokes(profile, id string) {
	if _, err := t.Call(context.Background(), t.Token, http.MethodDelete, "/v1/profiles/"+profile+"/expectations/"+id, nil, nil); err != nil {
		t.failf("revoking: %v", err)
	}
}

// asItIs changes nothing: what is wrong is what was registered, or that nothing was.
func asItIs(*try) {}

// certificate opens a SUCCESS with a device's key.
func (t *try) certificate(d *device, a attack.Answer) *x509.Certificate {
	list, err := inspector.OpenCertRep(a.Body, d.Key)
	if err != nil || len(list) == 0 {
		t.failf("no certificate in the answer: %v", err)
		return nil
	}
	return list[0]
}

// requests gives what reached NDES since the last demand, without consuming it.
func (t *try) requests() []ndes.Request { return t.Up.since(t.from) }

// logged demands a line of the operator's log that contains text.
func (t *try) logged(text string) {
	t.demands++
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := t.Find(ctx, t.mark, func(l gateway.Line) bool { return strings.Contains(fmt.Sprint(map[string]any(l)), text) }); err != nil {
		t.failf("the log does not say %q: %v", text, err)
	}
}

// cold loads the configuration anew, so that nothing of NDES's answers is
// remembered, and after act once more. The store stays open meanwhile.
func (t *try) cold(act func()) {
	reload := func() bool {
		req, err := http.NewRequest(http.MethodPost, "http://"+t.Admin+"/load", strings.NewReader(t.Config))
		if err != nil {
			t.failf("%v", err)
			return false
		}
		req.Header.Set("Content-Type", "text/caddyfile")
		req.Header.Set("Cache-Control", "must-revalidate") // load it although nothing changed
		req.Close = true
		resp, err := t.Client.Do(req)
		if err != nil {
			t.failf("reloading: %v", err)
			return false
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.failf("reloading: status %d", resp.StatusCode)
			return false
		}
		// The servers of the configuration before close what is idle.
		t.Client.CloseIdleConnections()
		if c, err := t.Gateway.Client(); err == nil {
			c.CloseIdleConnections()
		}
		return true
	}
	if reload() {
		act()
		t.Up.set(nil)
		reload()
	}
}

// asks sends GetCACert or GetCACaps to a profile.
func (t *try) asks(profile, operation string) attack.Answer {
	req, err := http.NewRequest(http.MethodGet, t.Devices[profile]+attack.Path+"?operation="+operation, nil)
	if err != nil {
		t.failf("%v", err)
		return attack.Answer{}
	}
	return t.do(req)
}

// certsOnly is a GetCACert answer with these certificates (RFC 8894 §4.2.1.2).
func certsOnly(certificates ...[]byte) []byte {
	d := wire.SignedData{DigestAlgorithms: wire.Set(), ContentField: []byte{}, Certificates: certificates, SignersField: wire.Set()}
	return d.Bytes(nil)
}

// askingFor changes a message's request by adding extensions to it.
func askingFor(extensions ...[]byte) func(*try) {
	return csr(func(_ *try, r *wire.Request) { r.Extend(extensions...) })
}

// askingOnlyFor gives a request these extensions and no others.
func askingOnlyFor(extensions ...[]byte) func(*try) {
	return csr(func(_ *try, r *wire.Request) { r.Extensions = extensions })
}

// bringing changes a message's request by adding attributes to it.
func bringing(attributes ...[]byte) func(*try) {
	return csr(func(_ *try, r *wire.Request) { r.Attributes = append(r.Attributes, attributes...) })
}

// named gives a request this subject.
func named(rdns ...[]byte) func(*try) {
	return csr(func(_ *try, r *wire.Request) { r.Subject = wire.Name(rdns...) })
}

// single is an RDN of one UTF8String.
func single(oid, value string) []byte { return wire.RDN(wire.ATV(oid, wire.UTF8(value))) }
