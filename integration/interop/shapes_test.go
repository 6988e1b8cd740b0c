package interop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/smallstep/pkcs7"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/integration/wire"
)

// shape is what one client sends, byte by byte: it cannot run here, so its
// messages are built from what captures and documents say of it.
type shape struct {
	name      string
	expect    map[string]any // what the MDM registers
	challenge string         // brought by the MDM; "": the gateway makes it
	upperID   bool
	right     identity // what was registered
	wrong     identity // what was not
	reason    string   // why wrong is refused
	message   func(t *testing.T, d shapeDevice, who identity) []byte
	send      sender
}

// setShapes runs the gateway and the simulator for all shapes.
func setShapes(t *testing.T, c ndes.Config) *gateway.Stage {
	t.Helper()
	bin, _ := binary(t)
	caddyfile, err := filepath.Abs(filepath.Join("testdata", "shapes.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := ndes.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := gateway.SetUp(ctx, gateway.Config{Binary: bin, Dir: t.TempDir(), Caddyfile: caddyfile}, server, "shapes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.Log())
		}
	})
	// NDES reads what crypto/x509 does not: the simulator, which runs in this
	// process, is told to. The gateway is another process and knows neither.
	pkcs7.SetFallbackLegacyX509CertificateParserEnabled(true)
	t.Cleanup(func() { pkcs7.SetFallbackLegacyX509CertificateParserEnabled(false) })
	t.Setenv("GODEBUG", "x509negativeserial=1")
	return s
}

// One gateway meets all of them.
func TestShapes(t *testing.T) {
	s := setShapes(t, ndes.Config{})
	// Every client gets its certificate for what was registered, and nothing for
	// anything else.
	for _, c := range slices.Concat(appleShapes(), windowsShapes(), jscepShapes(), sscepShapes(), ciscoShapes(), transportShapes()) {
		t.Run(c.name, func(t *testing.T) { c.play(t, s) })
	}
	t.Run("what no served client needs", func(t *testing.T) { refusedShapes(t, s) })
	t.Run("GetCACert and GetCACaps", func(t *testing.T) { caQueries(t, s) })
}

// An NDES that does not list POSTPKIOperation gets every message by GET, and
// still the very same bytes.
func TestShapesAreForwardedByGETToAnOldNDES(t *testing.T) {
	s := setShapes(t, ndes.Config{Capabilities: []string{"Renewal", "SHA-1", "DES3"}})
	for _, c := range []shape{appleShapes()[0], windowsShapes()[0], jscepShapes()[0], ciscoShapes()[0]} {
		t.Run(c.name, func(t *testing.T) { c.play(t, s) })
	}
}

func (c *shape) play(t *testing.T, s *gateway.Stage) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	expectation := map[string]any{}
	for k, v := range c.expect {
		expectation[k] = v
	}
	if c.challenge != "" {
		expectation["challenge"] = c.challenge
	}
	var registered struct {
		Challenge string `json:"challenge"`
	}
	if err := s.Register(t.Context(), expectation, &registered); err != nil {
		t.Fatal(err)
	}
	d := shapeDevice{key: key, to: s.NDES.Exchange, challenge: c.challenge + registered.Challenge, upperID: c.upperID}

	seen, mark := s.NDES.PKIOperations(), s.Mark()
	refused := c.send(t, s.Devices, c.message(t, d, c.wrong))
	if refused.Status != http.StatusOK || refused.Rep == nil || refused.Rep.PKIStatus != "2" || refused.Rep.FailInfo != "2" {
		t.Errorf("another identity: %d %q", refused.Status, refused.Body[:min(len(refused.Body), 80)])
	}
	told(t, s, mark, "enrollment refused", c.reason)
	if s.NDES.PKIOperations() != seen {
		t.Error("another identity reached NDES")
	}

	issued, mark := len(s.NDES.Issued()), s.Mark()
	message := c.message(t, d, c.right)
	a := c.send(t, s.Devices, message)
	if a.Status != http.StatusOK || a.Rep == nil || a.Rep.PKIStatus != "0" {
		t.Fatalf("what was registered: %d %q", a.Status, a.Body[:min(len(a.Body), 80)])
	}
	told(t, s, mark, "enrollment forwarded", "ok")
	if got := forwarded(t, s.NDES); len(got) != seen+1 || !bytes.Equal(got[len(got)-1], message) {
		t.Errorf("NDES saw %d messages instead of %d, or not the device's bytes", len(got), seen+1)
	}
	log := s.NDES.Issued()
	if len(log) != issued+1 {
		t.Fatalf("%d certificates were issued", len(log)-issued)
	}
	last := log[issued]
	if last.SPKISHA256 != sha256.Sum256(wire.PublicKey(&key.PublicKey)) {
		t.Error("the certificate is for another key")
	}
	if diff := cmp.Diff(attributesOf(t, c.right.subject), attributesOf(t, last.Certificate.RawSubject)); diff != "" {
		t.Error(diff)
	}
	// The device opens the reply with its own key.
	cert, err := (&attack.Device{Key: key}).Certificate(a)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.Equal(last.Certificate) {
		t.Error("the device got another certificate than was issued")
	}
}

// told waits for the operator's next line.
func told(t *testing.T, s *gateway.Stage, mark int, message, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	line, err := s.Find(ctx, mark, func(l gateway.Line) bool { return strings.HasPrefix(l.String("msg"), "enrollment ") })
	if err != nil {
		t.Fatal(err)
	}
	if line.String("msg") != message || line.String("reason") != reason {
		t.Errorf("%s: %s, want %s: %s; findings %v", line.String("msg"), line.String("reason"), message, reason, line["findings"])
	}
}

// forwarded is every message that NDES got.
func forwarded(t *testing.T, server *ndes.Server) (messages [][]byte) {
	t.Helper()
	for _, r := range server.Requests() {
		if !strings.Contains(r.RawQuery, "operation=PKIOperation") {
			continue
		}
		if r.Method == http.MethodPost {
			messages = append(messages, r.Body)
			continue
		}
		_, value, _ := strings.Cut(r.RawQuery, "message=")
		text := strings.NewReplacer("%2B", "+", "%2F", "/", "%3D", "=").Replace(value)
		message, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Errorf("NDES got base64 that is not canonical: %v", err)
		}
		messages = append(messages, message)
	}
	return messages
}

// attributesOf lists a name's attributes without their order and grouping,
// which the CA makes anew.
func attributesOf(t *testing.T, name []byte) (list []string) {
	t.Helper()
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(name, &rdns); err != nil || len(rest) > 0 {
		t.Fatalf("name: %v", err)
	}
	for _, rdn := range rdns {
		for _, a := range rdn {
			list = append(list, fmt.Sprintf("%s=%v", a.Type, a.Value))
		}
	}
	slices.Sort(list)
	return list
}

// plain is a client without any peculiarity: what differs is how it is sent. Its
// length is one that base64 has to pad.
func plain(_ *testing.T, d shapeDevice, who identity) []byte {
	request := d.request(who, crypto.SHA256, wire.KeyUsage(5, 0xa0)).Bytes()
	certificate := selfSigned{serial: []byte{1}, name: wire.CommonName("device"), digest: crypto.SHA256}
	content := d.enveloped(request, wire.OIDAES128CBC)
	for nonce := 16; ; nonce++ {
		if message := d.signed(certificate, crypto.SHA256, nonce).Bytes(content); len(message)%3 != 0 {
			return message
		}
	}
}

// transportShapes are ways of sending that belong to no one client.
func transportShapes() (list []shape) {
	for _, c := range []struct {
		name string
		send sender
	}{
		{"POST without Content-Type", post(dll, "")},
		{"POST as octet-stream", post(dll, "application/octet-stream")},
		{"POST as a form, which it is not", post(dll, "application/x-www-form-urlencoded")},
		{"POST of unannounced length", postChunked(dll)},
		{"POST by HTTP 1.0 without Host", postHTTP10(dll)},
		{"POST to the short URL", post("/certsrv/mscep", "application/x-pki-message")},
		{"POST to the short URL with a slash", post("/certsrv/mscep/", "application/x-pki-message")},
		{"POST in another case", post("/CertSrv/MSCEP/mscep.DLL", "application/x-pki-message")},
		{"GET escaped", get(dll, pkiOperation, "", escaped)},
		{"GET escaping nothing", get(dll, pkiOperation, "", bare)},
		{"GET unpadded", get(dll, pkiOperation, "", unpadded)},
		{"GET with spaces for plus", get(dll, pkiOperation, "", spaced)},
		{"GET with message first", get(dll, "?", "", func(m []byte) string { return "message=" + escaped(m) + "&operation=PKIOperation" })},
	} {
		cn := strings.ToLower(strings.NewReplacer(" ", "-", ",", "", ".", "").Replace(c.name)) + ".example.com"
		list = append(list, shape{
			name: c.name, expect: map[string]any{"subject": "CN=" + cn},
			right: identity{subject: wire.CommonName(cn)}, wrong: identity{subject: wire.CommonName("administrator-" + cn)}, reason: "subject_mismatch",
			message: plain, send: c.send,
		})
	}
	return list
}
