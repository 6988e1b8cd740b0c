// Package clients runs real SCEP clients through the real gateway binary to the
// simulator: each enrols when it asks for what was registered, and is refused
// when it does not.
package clients

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// scepclientVersion is the micromdm client that facts and tests speak of.
const scepclientVersion = "github.com/micromdm/scep/v2/cmd/scepclient@v2.3.0"

var build struct {
	once      sync.Once
	dir       string
	binary    string
	err       error
	client    string
	clientErr error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
	os.Exit(code)
}

// binaries builds the gateway, and scepclient from the Go module proxy, once.
func binaries(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	build.once.Do(func() {
		if build.dir, build.err = os.MkdirTemp("", "scepgate-clients-"); build.err != nil {
			return
		}
		if build.binary, build.err = gateway.Build(build.dir); build.err != nil {
			return
		}
		cmd := exec.Command("go", "install", scepclientVersion)
		cmd.Env = append(os.Environ(), "GOBIN="+build.dir, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.clientErr = errors.New(string(out))
		}
		build.client = filepath.Join(build.dir, "scepclient")
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
}

// stage is a gateway whose profile admits DES.
type stage struct {
	*testing.T
	*gateway.Stage
}

func set(t *testing.T) *stage {
	t.Helper()
	binaries(t)
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	caddyfile, err := filepath.Abs(filepath.Join("testdata", "legacy.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := gateway.SetUp(ctx, gateway.Config{Binary: build.binary, Dir: t.TempDir(), Caddyfile: caddyfile}, server, "legacy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.Log())
		}
	})
	return &stage{t, s}
}

const path = "/certsrv/mscep/mscep.dll"

// register expects cn with one DNS name, and returns the challenge.
func (s *stage) register(cn string) string {
	s.Helper()
	var answer struct {
		Challenge string `json:"challenge"`
	}
	e := map[string]any{"subject": "CN=" + cn, "san": map[string]any{"dns": []string{cn}}}
	if err := s.Stage.Register(s.Context(), e, &answer); err != nil {
		s.Fatal(err)
	}
	return answer.Challenge
}

// issued reads a certificate file and checks that the simulated CA signed it for cn.
func (s *stage) issued(file, cn string) {
	s.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		s.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		s.Fatalf("%s is not PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(s.NDES.CA); err != nil {
		s.Error(err)
	}
	if cert.Subject.CommonName != cn {
		s.Errorf("certificate for %q, want %q", cert.Subject.CommonName, cn)
	}
}

// refusedAs waits for the operator's line.
func (s *stage) refusedAs(mark int, reason string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	line, err := s.Stage.Find(ctx, mark, func(l gateway.Line) bool { return l.String("msg") == "enrollment refused" })
	if err != nil {
		s.Fatal(err)
	}
	if line.String("reason") != reason {
		s.Errorf("reason %q, want %q", line.String("reason"), reason)
	}
}

func need(t *testing.T, packages ...string) {
	t.Helper()
	for _, p := range packages {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs the Debian package %s", p)
		}
	}
}

func run(t *testing.T, name string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestOpensslClientEnrolsAndIsRefused(t *testing.T) {
	need(t, "openssl", "curl", "bash")
	s := set(t)
	for _, options := range [][]string{{"-cipher", "aes-128-cbc"}, {"-cipher", "aes-256-cbc", "-get"}, {"-cipher", "des-ede3-cbc"}} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			cn := "openssl.example.com"
			challenge := s.register(cn)
			dir := t.TempDir()
			args := append([]string{"scep.sh", s.Devices + path, challenge, "/CN=administrator", dir, "-san", cn}, options...)
			mark, seen := s.Mark(), s.NDES.PKIOperations()
			if out, code := run(t, "bash", args...); code != 2 || !strings.Contains(out, "pkiStatus=2 failInfo=2") {
				t.Errorf("another name: exit %d\n%s", code, out)
			}
			s.refusedAs(mark, "subject_mismatch")
			if s.NDES.PKIOperations() != seen {
				t.Error("the refused request reached NDES")
			}
			args[3], args[4] = "/CN="+cn, t.TempDir()
			if out, code := run(t, "bash", args...); code != 0 {
				t.Fatalf("what was registered: exit %d\n%s", code, out)
			}
			s.issued(filepath.Join(args[4], "cert.pem"), cn)
		})
	}
}

func TestScepclientEnrolsAndIsRefused(t *testing.T) {
	s := set(t)
	if build.clientErr != nil {
		t.Skipf("needs %s from the Go module proxy: %v", scepclientVersion, build.clientErr)
	}
	const cn = "micromdm.example.com"
	challenge := s.register(cn)
	args := func(cn string) []string {
		dir := t.TempDir()
		return []string{"-private-key", filepath.Join(dir, "client.key"), "-server-url=" + s.Devices + path, "-challenge=" + challenge, "-cn", cn, "-dnsname", "micromdm.example.com",
			"-organization", "", "-country", "", "-ou", "", "-certificate", filepath.Join(dir, "client.pem"), "-key-encipherment-selector"}
	}
	mark, seen := s.Mark(), s.NDES.PKIOperations()
	out, code := run(t, build.client, args("administrator")...)
	if code == 0 || !strings.Contains(out, "badRequest (2)") {
		t.Errorf("another name: exit %d\n%s", code, out)
	}
	s.refusedAs(mark, "subject_mismatch")

	// Without a selector it addresses every certificate of the bundle at once:
	// two recipients mean two possible plaintexts.
	three := args(cn)
	mark = s.Mark()
	if out, code := run(t, build.client, three[:len(three)-1]...); code == 0 {
		t.Errorf("three recipients: exit %d\n%s", code, out)
	}
	s.refusedAs(mark, "malformed_message")
	if s.NDES.PKIOperations() != seen {
		t.Error("a refused request reached NDES")
	}

	a := args(cn)
	if out, code := run(t, build.client, a...); code != 0 {
		t.Fatalf("what was registered: exit %d\n%s", code, out)
	}
	s.issued(filepath.Join(filepath.Dir(a[1]), "client.pem"), cn)
}
