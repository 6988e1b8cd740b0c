package interop

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// built is the gateway, compiled once for all tests of this package.
var built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binary is the gateway, and a folder that outlives the test.
func binary(t *testing.T) (path, dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "scepgate-interop-"); built.err == nil {
			built.binary, built.err = gateway.Build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.binary, built.dir
}

// The profiles of clients.Caddyfile. The first three are named after what signs
// their refusals.
const (
	encipherment   = "encipherment" // the first ra: keyEncipherment alone, the default
	signature      = "signature"    // a certificate with digitalSignature
	http403        = "http_403"     // nothing
	defaultProfile = "default"      // as the first, with the default algorithms
	lifeProfile    = "life"         // as the first, and it renews
)

// stage is a simulator, and a gateway with those profiles in front of it.
type stage struct {
	*testing.T
	*gateway.Stage
	config gateway.Config
}

func set(t *testing.T, c ndes.Config) *stage {
	t.Helper()
	bin, _ := binary(t)
	server, err := ndes.New(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	signingKey, err := x509.MarshalPKCS8PrivateKey(server.SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	signing := filepath.Join(dir, "ra-signing.key")
	if err := os.WriteFile(signing, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: signingKey}), 0o600); err != nil {
		t.Fatal(err)
	}
	caddyfile, err := filepath.Abs(filepath.Join("testdata", "clients.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	clients := filepath.Join(dir, "every-profile.json")
	token, err := exec.CommandContext(ctx, bin, "scep", "client", "add", "--file", clients, "--name", "tests", "--scope", "register", "--scope", "read",
		"--profile", encipherment, "--profile", signature, "--profile", http403, "--profile", defaultProfile, "--profile", lifeProfile).Output()
	if err != nil {
		t.Fatal(err)
	}
	config := gateway.Config{Binary: bin, Dir: dir, Caddyfile: caddyfile, Env: map[string]string{
		"SCEPGATE_CLIENTS":      clients,
		"SCEPGATE_SIGNING_CERT": filepath.Join(dir, ndes.FileSigning),
		"SCEPGATE_SIGNING_KEY":  signing,
	}}
	s, err := gateway.SetUp(ctx, config, server, encipherment)
	if err != nil {
		t.Fatal(err)
	}
	s.Token = strings.TrimSpace(string(token))
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.Log())
		}
	})
	return &stage{t, s, config}
}

// restart kills the gateway, as a crash does, and starts it again on its data,
// at other addresses.
func (s *stage) restart(t *testing.T) {
	t.Helper()
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config := s.config
	config.Env = gateway.ExampleEnv(config.Dir, s.NDESURL, "")
	maps.Copy(config.Env, s.config.Env)
	g, err := gateway.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	s.Gateway = g
}

// url is where the devices of a profile send everything.
func (s *stage) url(profile string) string {
	return s.Devices + "/" + profile + "/certsrv/mscep/mscep.dll"
}

// expect registers name as common name and DNS name, and returns the challenge.
func (s *stage) expect(t *testing.T, profile, name string) string {
	t.Helper()
	_, challenge := s.register(t, profile, name)
	return challenge
}

func (s *stage) register(t *testing.T, profile, name string) (id, challenge string) {
	t.Helper()
	var answer struct {
		ID        string `json:"id"`
		Challenge string `json:"challenge"`
	}
	e := map[string]any{"subject": "CN=" + name, "san": map[string]any{"dns": []string{name}}}
	if _, err := s.Call(t.Context(), s.Token, http.MethodPost, "/v1/profiles/"+profile+"/expectations", e, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.ID, answer.Challenge
}

// line waits for a line of the gateway's log after mark.
func (s *stage) line(t *testing.T, mark int, match func(gateway.Line) bool) gateway.Line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := s.Find(ctx, mark, match)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// refused checks that the first decision after mark is a refusal for reason.
func (s *stage) refused(t *testing.T, mark int, reason string) {
	t.Helper()
	l := s.line(t, mark, func(l gateway.Line) bool { return strings.HasPrefix(l.String("msg"), "enrollment ") })
	if l.String("msg") != "enrollment refused" || l.String("reason") != reason {
		t.Errorf("%s: %s, want it refused: %s\nfindings: %v", l.String("msg"), l.String("reason"), reason, l["findings"])
	}
}

// certificate reads the first of a PEM file.
func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM:\n%s", file, text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issued checks that the last certificate that left the CA is name's, and that
// the client wrote that very certificate into file.
func (s *stage) issued(t *testing.T, file, name string) {
	t.Helper()
	cert := certificate(t, file)
	if err := cert.CheckSignatureFrom(s.NDES.CA); err != nil {
		t.Error(err)
	}
	issued := s.NDES.Issued()
	if len(issued) == 0 || !issued[len(issued)-1].Certificate.Equal(cert) {
		t.Errorf("%s is not the last of the %d certificates that were issued", file, len(issued))
	}
	if cert.Subject.CommonName != name {
		t.Errorf("certificate for %q, want %q", cert.Subject.CommonName, name)
	}
	if err := cert.VerifyHostname(name); err != nil {
		t.Error(err)
	}
}

// sent says how the last message that reached the CA came, and what it is made of.
func (s *stage) sent(t *testing.T, mark int) string {
	t.Helper()
	l := s.line(t, mark, func(l gateway.Line) bool {
		uri, _ := accessed(l)["uri"].(string)
		return strings.Contains(uri, "operation=PKIOperation")
	})
	method, _ := accessed(l)["method"].(string)
	requests := s.NDES.Requests()
	m, err := inspector.ParseMessage(requests[len(requests)-1].Body)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := inspector.NewOpener([]inspector.RAKey{{Name: "ndes1", Certificate: s.NDES.Exchange, Key: s.NDES.ExchangeKey()}}, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	opened := opener.Open(m)
	if opened.Err != nil {
		t.Fatal(opened.Err)
	}
	return method + ", digest " + m.Digest + ", cipher " + opened.Cipher
}

// accessed is the request of an access log's line, or nil.
func accessed(l gateway.Line) map[string]any {
	request, _ := l["request"].(map[string]any)
	return request
}
