package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
)

// row is one attempt: what it was, what must happen, and what did.
type row struct {
	who, sent string

	wantReason string // of the decision line; "" where there is no decision, only an access-log line
	wantStatus int    // HTTP
	wantPKI    string // pkiStatus, "" where no CertRep may come
	wantIssue  bool   // behind the gateway
	again      *row   // what is sent is forwarded, and brings the certificate of that row once more

	cert, certAlone *x509.Certificate // what the device has now, from the gateway and from NDES alone

	back, operator, alone string
	problems              []string
}

func (r *row) must(ok bool, format string, args ...any) {
	if !ok {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	}
}

// expectation is what the MDM registers for each row unless it says otherwise.
func expectation(cn string) map[string]any {
	return map[string]any{
		"external_id": "demo:" + cn,
		"subject":     "CN=" + cn + ",OU=WiFi,O=Example Corp",
		"san":         map[string]any{"dns": []string{cn + ".example.com"}},
		"key_usage":   []string{"digitalSignature", "keyEncipherment"},
		"labels":      map[string]string{"device": cn},
	}
}

// compliant is the request that expectation describes.
func compliant(cn, challenge string) inspector.CSRParams {
	return inspector.CSRParams{
		Subject:   attack.Subject(attack.O, "Example Corp", attack.OU, "WiFi", attack.CN, cn),
		SAN:       []inspector.GeneralName{{Type: "dns", Value: cn + ".example.com"}},
		KeyUsage:  1<<0 | 1<<2, // digitalSignature, keyEncipherment
		Challenge: challenge,
	}
}

// register does what an MDM does, and returns the challenge for the payload.
func (s *stage) register(ctx context.Context, e map[string]any) (string, error) {
	var answer struct {
		Challenge string `json:"challenge"`
	}
	if err := s.Register(ctx, e, &answer); err != nil {
		return "", err
	}
	if answer.Challenge == "" {
		return "", fmt.Errorf("registration made no challenge")
	}
	return answer.Challenge, nil
}

// anew is an enrolment of d in a transaction of its own, where that of
// attack.Build goes by the key.
func anew(d *attack.Device, request inspector.CSRParams, recipient *x509.Certificate) ([]byte, error) {
	csr, err := inspector.BuildCSR(request, d.Key)
	if err != nil {
		return nil, err
	}
	return inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "19", TransactionID: rand.Text(), Content: csr, Recipient: recipient,
		SignerCert: d.SelfSigned, SignerKey: d.Key,
	})
}

func refused(who, sent, reason string) *row {
	return &row{who: who, sent: sent, wantReason: reason, wantStatus: http.StatusOK, wantPKI: "2"}
}

// play goes through the rows in order.
func (s *stage) play(ctx context.Context) ([]*row, error) {
	var rows []*row

	// The honest device, and whoever has read its traffic or its profile.
	device, err := attack.NewDevice()
	if err != nil {
		return nil, err
	}
	challenge, err := s.register(ctx, expectation("c02xk1"))
	if err != nil {
		return nil, err
	}
	enrolment, err := device.Build(attack.Message{Request: compliant("c02xk1", challenge)}, s.NDES.Exchange)
	if err != nil {
		return nil, err
	}
	honest := &row{who: "honest device", sent: "what was registered", wantReason: "ok", wantStatus: http.StatusOK, wantPKI: "0", wantIssue: true}
	if err := s.try(ctx, honest, device, enrolment); err != nil {
		return nil, err
	}
	rows = append(rows, honest)

	retry := &row{who: "lost answer", sent: "the same bytes again", wantReason: "ok", wantStatus: http.StatusOK, wantPKI: "0", again: honest}
	if err := s.try(ctx, retry, device, enrolment); err != nil {
		return nil, err
	}
	rows = append(rows, retry)

	second, err := anew(device, compliant("c02xk1", challenge), s.NDES.Exchange)
	if err != nil {
		return nil, err
	}
	reuse := refused("used challenge", "the same request, a new transaction", "challenge_used")
	if err := s.try(ctx, reuse, device, second); err != nil {
		return nil, err
	}
	rows = append(rows, reuse)

	thief, err := attack.NewDevice()
	if err != nil {
		return nil, err
	}
	stolen, err := thief.Build(attack.Message{Request: compliant("c02xk1", challenge)}, s.NDES.Exchange)
	if err != nil {
		return nil, err
	}
	theft := refused("stolen challenge", "right names, another key", "challenge_in_use")
	if err := s.try(ctx, theft, thief, stolen); err != nil {
		return nil, err
	}
	rows = append(rows, theft)

	// Holders of a valid challenge who ask for more.
	for i, a := range escalations {
		r := refused(a.who, a.sent, a.reason)
		cn := fmt.Sprintf("device%d", i+1)
		challenge, err := s.register(ctx, expectation(cn))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.who, err)
		}
		d, err := attack.NewDevice()
		if err != nil {
			return nil, err
		}
		m := attack.Message{Request: compliant(cn, challenge)}
		if err := a.change(&m); err != nil {
			return nil, fmt.Errorf("%s: %w", a.who, err)
		}
		message, err := d.Build(m, s.NDES.Exchange)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.who, err)
		}
		if m.SignerKey != nil {
			d.Key = m.SignerKey // the reply comes to the signer's key
		}
		if err := s.try(ctx, r, d, message); err != nil {
			return nil, fmt.Errorf("%s: %w", a.who, err)
		}
		rows = append(rows, r)
	}

	for _, p := range []struct{ who, sent, path string }{
		{"mscep_admin", "GET /certsrv/mscep_admin/", "/certsrv/mscep_admin/"},
		{"NDESGenerateChallenge", "?operation=NDESGenerateChallenge", attack.Path + "?operation=NDESGenerateChallenge"},
	} {
		r, err := s.probe(ctx, p.who, p.sent, p.path)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

var escalations = []struct {
	who, sent, reason string
	change            func(*attack.Message) error
}{
	{"subject swap", "CN=administrator", "subject_mismatch", func(m *attack.Message) error {
		m.Request.Subject = attack.Subject(attack.O, "Example Corp", attack.OU, "WiFi", attack.CN, "administrator")
		return nil
	}},
	{"SAN added", "a second DNS name, dc01's", "san_mismatch", func(m *attack.Message) error {
		m.Request.SAN = append(m.Request.SAN, inspector.GeneralName{Type: "dns", Value: "dc01.example.com"})
		return nil
	}},
	{"administrator UPN", "UPN administrator@example.com", "san_mismatch", func(m *attack.Message) error {
		m.Request.SAN = append(m.Request.SAN, inspector.GeneralName{Type: "upn", Value: "administrator@example.com"})
		return nil
	}},
	{"SID extension", "the administrator's SID, …-500", "sid_mismatch", func(m *attack.Message) error {
		m.Request.SID = "S-1-5-21-1-2-3-500"
		return nil
	}},
	{"ESC15", "application policy enrollment agent", "application_policies_mismatch", func(m *attack.Message) error {
		e, err := attack.ApplicationPolicies(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1})
		m.Request.ExtraExtensions = append(m.Request.ExtraExtensions, e)
		return err
	}},
	{"key usage swap", "keyEncipherment: another template", "key_usage_mismatch", func(m *attack.Message) error {
		m.Request.KeyUsage = 1 << 2
		return nil
	}},
	{"hidden SAN", "SAN in Microsoft's attribute only", "san_mismatch", func(m *attack.Message) error {
		m.Request.MicrosoftExtensions = true
		m.Request.SAN = []inspector.GeneralName{{Type: "upn", Value: "administrator@example.com"}}
		return nil
	}},
	{"messageType 18", "no challenge, CN=administrator", "message_type_refused", func(m *attack.Message) error {
		m.MessageType, m.Request.Challenge = "18", ""
		m.Request.Subject = attack.Name("administrator")
		return nil
	}},
	{"foreign renewal", "RenewalReq, another CA's signature", "renewal_signer_untrusted", func(m *attack.Message) error {
		cert, key, err := attack.ForeignCertificate("administrator")
		m.MessageType, m.Request.Challenge = "17", ""
		m.Request.Subject = attack.Name("administrator")
		m.SignerCert, m.SignerKey = cert, key
		return err
	}},
}

// try sends one message through the gateway, looks at what the operator saw
// and at what reached NDES, and sends the same bytes straight to the twin.
func (s *stage) try(ctx context.Context, r *row, d *attack.Device, message []byte) error {
	m, err := inspector.ParseMessage(message)
	if err != nil {
		return fmt.Errorf("%s: own message: %w", r.who, err)
	}
	seen, issued := s.NDES.PKIOperations(), len(s.NDES.Issued())
	mark := s.Mark()
	answer, err := attack.Post(http.DefaultClient, s.Devices, message)
	if err != nil {
		return fmt.Errorf("%s: %w", r.who, err)
	}
	r.back, r.cert = describe(answer, d, s.NDES.CA)
	r.must(answer.Status == r.wantStatus, "HTTP %d, not %d", answer.Status, r.wantStatus)
	status := ""
	if answer.Rep != nil {
		status = answer.Rep.PKIStatus
	}
	r.must(status == r.wantPKI, "pkiStatus %q, not %q", status, r.wantPKI)
	wantSeen, wantIssued := seen, issued
	if r.wantPKI == "0" {
		r.must(r.cert != nil, "no certificate that the CA made")
		wantSeen = seen + 1
	}
	if r.wantIssue {
		wantIssued = issued + 1
	}
	r.must(s.NDES.PKIOperations() == wantSeen, "NDES saw %d messages more, not %d", s.NDES.PKIOperations()-seen, wantSeen-seen)
	r.must(len(s.NDES.Issued()) == wantIssued, "NDES issued %d more, not %d", len(s.NDES.Issued())-issued, wantIssued-issued)

	line, err := s.find(ctx, mark, func(l gateway.Line) bool {
		return strings.HasPrefix(l.String("msg"), "enrollment ") && l.String("transaction_id") == m.TransactionID
	})
	if err != nil {
		return fmt.Errorf("%s: the operator's log: %w", r.who, err)
	}
	r.operator = strings.TrimPrefix(line.String("msg"), "enrollment ") + ": " + line.String("reason")
	r.must(line.String("reason") == r.wantReason, "reason %q, not %q", line.String("reason"), r.wantReason)

	alone, err := attack.Post(http.DefaultClient, s.direct, message)
	if err != nil {
		return fmt.Errorf("%s: straight to NDES: %w", r.who, err)
	}
	r.alone, r.certAlone = describe(alone, d, s.NDES.CA)
	r.must(alone.Rep != nil && alone.Rep.PKIStatus == "0", "NDES alone did not issue")
	if r.again != nil {
		r.back, r.alone = "the same certificate", "the same certificate"
		r.must(r.cert.Equal(r.again.cert), "another certificate than before")
		r.must(r.certAlone.Equal(r.again.certAlone), "NDES alone issued another certificate than before")
	}
	return nil
}

// probe asks for a URL that no device needs.
func (s *stage) probe(ctx context.Context, who, sent, path string) (*row, error) {
	r := &row{who: who, sent: sent}
	seen := len(s.NDES.Requests())
	mark := s.Mark()
	get := func(base string) (attack.Answer, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			return attack.Answer{}, err
		}
		return attack.Do(http.DefaultClient, req)
	}
	answer, err := get(s.Devices)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", who, err)
	}
	r.back = fmt.Sprintf("HTTP %d", answer.Status)
	r.must(answer.Status == http.StatusNotFound || answer.Status == http.StatusBadRequest, "HTTP %d", answer.Status)
	r.must(len(s.NDES.Requests()) == seen, "it reached NDES")
	line, err := s.find(ctx, mark, func(l gateway.Line) bool { return l.String("msg") == "handled request" })
	if err != nil {
		return nil, fmt.Errorf("%s: the access log: %w", who, err)
	}
	r.operator = fmt.Sprintf("access log: %v", line["status"])
	alone, err := get(s.direct)
	if err != nil {
		return nil, fmt.Errorf("%s: straight to NDES: %w", who, err)
	}
	r.alone = fmt.Sprintf("HTTP %d", alone.Status)
	if alone.Status == http.StatusOK {
		r.alone = "hands out a challenge"
	}
	r.must(alone.Status == http.StatusOK, "NDES alone answered %d", alone.Status)
	return r, nil
}

func (s *stage) find(ctx context.Context, mark int, match func(gateway.Line) bool) (gateway.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return s.Find(ctx, mark, match)
}

// describe says in a few words what came back, and gives the certificate in it,
// if it is one that the CA made.
func describe(a attack.Answer, d *attack.Device, ca *x509.Certificate) (string, *x509.Certificate) {
	if a.Rep == nil {
		return fmt.Sprintf("HTTP %d", a.Status), nil
	}
	switch a.Rep.PKIStatus {
	case "0":
		cert, err := d.Certificate(a)
		if err != nil || cert.CheckSignatureFrom(ca) != nil {
			return "SUCCESS, unreadable", nil
		}
		return "issued CN=" + cert.Subject.CommonName, cert
	case "2":
		return "FAILURE badRequest", nil
	default:
		return "pkiStatus " + a.Rep.PKIStatus, nil
	}
}
