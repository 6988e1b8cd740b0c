package interop

import (
	"bytes"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
)

// upstreams are started in this order, which is that of the table's columns.
var upstreams = []struct {
	name  string
	start func(*testing.T) *upstream
}{
	{"ndes simulator", startNDES},
	{"micromdm scepserver", func(t *testing.T) *upstream { return startScepserver(t, upstreamSecret) }},
	{"step-ca plain", startStepCA("plain")},
	{"step-ca ra", startStepCA("ra")},
}

// TestOtherUpstreams sends the same requests straight to each server, and
// through the gateway with the server behind it. What came back is the table of
// docs/comparison.md.
func TestOtherUpstreams(t *testing.T) {
	bin, _ := binary(t)
	devices := make([]*attack.Device, len(escalations)+3)
	for i := range devices {
		var err error
		if devices[i], err = attack.NewDevice(); err != nil {
			t.Fatal(err)
		}
	}
	table := newComparison()
	for _, server := range upstreams {
		t.Run(server.name, func(t *testing.T) {
			u := server.start(t)
			s := newUpstreamSite(t, u, bin, sharedSecret(t))
			s.publishes(t)
			honest := s.enrols(t, devices[0], table)
			s.issuesDirectly(t, devices[1], table)
			for i, e := range escalations {
				s.refuses(t, e, fmt.Sprintf("device%d", i+1), devices[i+2], honest, table)
			}
			s.passesRefusals(t, devices[len(devices)-1])
			table.columns = append(table.columns, u.name)
		})
	}
	if len(table.columns) > 0 && !t.Failed() {
		table.compare(t, filepath.Join("..", "..", "docs", "comparison.md"))
	}
}

// A server that asks for no challenge, which whoever reaches it can use, gets
// the gateway's: made for one device, good for one key.
func TestGatewayOwnsTheChallengesOfAServerWithoutAny(t *testing.T) {
	bin, _ := binary(t)
	u := startScepserver(t, "")
	s := newUpstreamSite(t, u, bin, "gateway")
	challenge := s.register(t, ownName("honest"))
	request := func(cn, challenge string) attack.Message {
		p := ownRequest(cn)
		p.Challenge = challenge
		return attack.Message{Request: p}
	}
	var devices [3]*attack.Device
	for i := range devices {
		var err error
		if devices[i], err = attack.NewDevice(); err != nil {
			t.Fatal(err)
		}
	}
	device, thief, stranger := devices[0], devices[1], devices[2]
	enrolment := s.build(t, device, request("honest", challenge))
	stolen := s.build(t, thief, request("honest", challenge))
	for _, try := range []struct {
		what    string
		message []byte
		reason  string
	}{
		{"another name", s.build(t, thief, request("administrator", challenge)), "subject_mismatch"},
		{"no challenge", s.build(t, stranger, request("honest", "")), "challenge_missing"},
		{"the honest device", enrolment, "ok"},
		{"a replay", enrolment, "challenge_used"},
		{"another key", stolen, "challenge_in_use"},
	} {
		answer, reason := s.through(t, try.message)
		if reason != try.reason {
			t.Errorf("%s: reason %s, not %s", try.what, reason, try.reason)
		}
		if issued := describeUpstream(answer) == "issued"; issued != (try.reason == "ok") {
			t.Errorf("%s: %s", try.what, describeUpstream(answer))
		}
	}
	if n := len(s.seen.operations()); n != 1 {
		t.Errorf("the server saw %d messages, not 1", n)
	}
	if got := describeUpstream(s.post(t, s.build(t, stranger, request("administrator", "")))); got != "issued" {
		t.Errorf("the server alone asks for more than it is told to: %s", got)
	}
}

// publishes: GetCACaps and GetCACert come through as the server gave them, also
// CRLF-separated capabilities and a bare certificate.
func (s *upstreamSite) publishes(t *testing.T) {
	t.Helper()
	for _, operation := range []string{"GetCACaps", "GetCACert"} {
		get := func(u string) attack.Answer {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u+"?operation="+operation, nil)
			if err != nil {
				t.Fatal(err)
			}
			a, err := attack.Do(http.DefaultClient, req)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		direct, through := get(s.base+s.path), get(s.Devices+attack.Path)
		if direct.Status != http.StatusOK || through.Status != http.StatusOK {
			t.Fatalf("%s: %d directly, %d through the gateway: %s", operation, direct.Status, through.Status, through.Body)
		}
		if !bytes.Equal(direct.Body, through.Body) {
			t.Errorf("%s: the gateway changed %q to %q", operation, direct.Body, through.Body)
		}
		if direct.ContentType != through.ContentType {
			t.Errorf("%s: content type %q became %q", operation, direct.ContentType, through.ContentType)
		}
		if operation == "GetCACert" && direct.ContentType != s.caCertType {
			t.Errorf("GetCACert is %s, not %s", direct.ContentType, s.caCertType)
		}
		if operation == "GetCACaps" && bytes.Contains(direct.Body, []byte("\r\n")) != (s.lineEnd == "\r\n") {
			t.Errorf("capabilities %q do not end in %q", direct.Body, s.lineEnd)
		}
	}
}

// enrols: the honest device gets its certificate through the gateway, which
// forwards its very bytes once.
func (s *upstreamSite) enrols(t *testing.T, d *attack.Device, table *comparison) *enrolled {
	t.Helper()
	s.register(t, ownName("honest"))
	honest := &enrolled{device: d, message: s.build(t, d, attack.Message{Request: ownRequest("honest")})}
	answer, reason := s.through(t, honest.message)
	var err error
	if honest.certificate, err = d.Certificate(answer); err != nil {
		t.Fatalf("the honest device got HTTP %d, reason %s, and no certificate: %v", answer.Status, reason, err)
	}
	if err := honest.certificate.CheckSignatureFrom(s.issuer); err != nil {
		t.Errorf("the certificate is not the server's: %v", err)
	}
	if honest.certificate.Subject.CommonName != "honest" || !d.Key.PublicKey.Equal(honest.certificate.PublicKey) {
		t.Errorf("the certificate is another's: %s", honest.certificate.Subject)
	}
	for _, oid := range []asn1.ObjectIdentifier{s.replyDigest, s.replyCipher} {
		der, err := asn1.Marshal(oid)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(answer.Body, der) {
			t.Errorf("the reply does not use %s", oid)
		}
	}
	forwarded := s.seen.operations()
	if len(forwarded) != 1 {
		t.Fatalf("the server saw %d messages, not 1", len(forwarded))
	}
	if f := forwarded[0]; f.method != http.MethodPost || f.path != s.path || !bytes.Equal(f.body, honest.message) {
		t.Errorf("forwarded as %s %s with other bytes than judged", f.method, f.path)
	}
	if reason != "ok" {
		t.Errorf("reason %s, not ok", reason)
	}
	table.set(honestRow, throughColumn, describeUpstream(answer))
	return honest
}

// issuesDirectly: the server serves an honest request, so its refusals mean something.
func (s *upstreamSite) issuesDirectly(t *testing.T, d *attack.Device, table *comparison) {
	t.Helper()
	answer := s.post(t, s.build(t, d, attack.Message{Request: ownRequest("direct")}))
	if _, err := d.Certificate(answer); err != nil {
		t.Fatalf("directly: %v", err)
	}
	table.set(honestRow, s.name, describeUpstream(answer))
}

// refuses: an attack ends at the gateway, and the same bytes are then sent
// straight to the server.
func (s *upstreamSite) refuses(t *testing.T, e escalation, cn string, d *attack.Device, honest *enrolled, table *comparison) {
	t.Helper()
	row := "**" + e.who + "**: " + e.sent
	s.register(t, ownName(cn))
	message, key := honest.message, honest.device.Key
	if !e.replay {
		m := attack.Message{Request: ownRequest(cn)}
		if err := e.change(&m, honest); err != nil {
			t.Fatalf("%s: %v", row, err)
		}
		message, key = s.build(t, d, m), answerKey(d, &m)
	}
	seen := len(s.seen.all())
	answer, reason := s.through(t, message)
	if answer.Status != http.StatusOK || answer.Rep == nil || answer.Rep.PKIStatus != "2" || answer.Rep.FailInfo != "2" {
		t.Errorf("%s: not refused through the gateway: HTTP %d, %s", row, answer.Status, describeUpstream(answer))
	}
	if got := s.seen.all()[seen:]; len(got) > 0 {
		t.Errorf("%s: reached the server: %d requests, first %s %s", row, len(got), got[0].method, got[0].query)
	}
	table.set(row, throughColumn, "refused: `"+reason+"`")
	table.set(row, s.name, e.outcome(t, s.post(t, message), key, honest))
}

// outcome says what a server did when it was asked directly.
func (e escalation) outcome(t *testing.T, a attack.Answer, key *rsa.PrivateKey, honest *enrolled) string {
	t.Helper()
	if a.Rep == nil || a.Rep.PKIStatus != "0" {
		return describeUpstream(a)
	}
	certs, err := inspector.OpenCertRep(a.Body, key)
	if err != nil || len(certs) != 1 {
		t.Fatalf("%s: %d certificates, %v", e.who, len(certs), err)
	}
	with, without := "**as asked**", "without it"
	if e.with != "" {
		with, without = "**"+e.with+"**", e.without
	}
	if e.carried == nil || e.carried(certs[0], honest) {
		return "issued " + with
	}
	return "issued " + without
}

// passesRefusals: what the server refuses of its own will comes to the device
// as the server's answer.
func (s *upstreamSite) passesRefusals(t *testing.T, d *attack.Device) {
	t.Helper()
	s.register(t, s.refusable.expectation)
	message := s.build(t, d, attack.Message{Request: s.refusable.request})
	seen := len(s.seen.operations())
	answer, reason := s.through(t, message)
	if reason != "ok" || len(s.seen.operations()) != seen+1 {
		t.Fatalf("not forwarded: %s", reason)
	}
	if answer.Status != http.StatusOK || answer.Rep == nil || answer.Rep.PKIStatus != "2" {
		t.Errorf("HTTP %d, %s: not the server's own refusal", answer.Status, describeUpstream(answer))
	}
}
