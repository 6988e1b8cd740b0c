package interop

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// upstreamSecret is the one challenge that all devices of a server share.
const upstreamSecret = "one secret for all devices"

// serverProgram is a SCEP server that `go install` builds.
type serverProgram struct {
	name, pkg, version string
	env                []string

	once   sync.Once
	binary string
	err    error
}

var (
	scepserver = &serverProgram{name: "scepserver", pkg: "github.com/micromdm/scep/v2/cmd/scepserver", version: "v2.3.0"}
	// With cgo it wants libpcsclite.
	stepCA = &serverProgram{name: "step-ca", pkg: "github.com/smallstep/certificates/cmd/step-ca", version: "v0.30.2", env: []string{"CGO_ENABLED=0"}}
)

// buildTimeout bounds one build. step-ca takes two to four minutes on two cores
// with nothing cached, and `go test` gives a package ten.
const buildTimeout = 5 * time.Minute

// build skips the test where the server cannot be built.
func (p *serverProgram) build(t *testing.T) string {
	t.Helper()
	p.once.Do(func() {
		bound := buildTimeout
		if deadline, ok := t.Deadline(); ok { // and time left for the tests
			bound = min(bound, time.Until(deadline)-2*time.Minute)
		}
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		p.binary, p.err = p.install(ctx)
	})
	if p.err != nil {
		t.Skipf("needs a Go module proxy, and time: %v", p.err)
	}
	return p.binary
}

// install puts the program into the user's cache folder, once for all runs.
func (p *serverProgram) install(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "scepgate-test")
	dir := filepath.Join(parent, p.name+"-"+p.version)
	binary := filepath.Join(dir, p.name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	// Built beside it and renamed, so that a run that is ended leaves no half of it.
	work, err := os.MkdirTemp(parent, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, "go", "install", p.pkg+"@"+p.version)
	cmd.Dir = work
	cmd.Env = append(append(os.Environ(), "GOBIN="+work, "GOFLAGS="), p.env...)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s@%s: %w\n%s", p.pkg, p.version, errors.Join(err, ctx.Err()), out[max(0, len(out)-1000):])
	}
	// Another run may have been faster; its build is as good.
	if err := os.Rename(work, dir); err != nil {
		if _, statErr := os.Stat(binary); statErr != nil {
			return "", err
		}
	}
	return binary, nil
}

// upstream is a running SCEP server as an operator of the gateway knows it.
type upstream struct {
	name      string
	base      string            // scheme and address
	path      string            // of the SCEP endpoint
	recipient *x509.Certificate // what devices encrypt to
	issuer    *x509.Certificate // whose key signs certificates

	raCertificate, raKey, caCertificate string // files

	// How it differs from NDES; each is checked, so that the answer checks of the
	// gateway are known to have met it.
	lineEnd     string                // of its capabilities
	caCertType  string                // content type of GetCACert
	replyDigest asn1.ObjectIdentifier // in its CertRep
	replyCipher asn1.ObjectIdentifier

	// A request that the gateway lets through and the server refuses.
	refusable expectedRequest
}

// expectedRequest is a registration and the request that it describes.
type expectedRequest struct {
	expectation map[string]any
	request     inspector.CSRParams
}

const (
	typeCACert   = "application/x-x509-ca-cert"    // a bare certificate
	typeCARACert = "application/x-x509-ca-ra-cert" // a degenerate SignedData
)

var (
	oidSHA1      = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidDESCBC    = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 7}
	oidAES128CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// post sends a message straight to the server.
func (u *upstream) post(t *testing.T, message []byte) attack.Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.base+u.path+"?operation=PKIOperation", bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-pki-message")
	a, err := attack.Do(http.DefaultClient, req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// startNDES is the simulator with UseSinglePassword=1: the same setting as the
// others have.
func startNDES(t *testing.T) *upstream {
	server, err := ndes.New(ndes.Config{Password: ndes.PasswordStatic, StaticPassword: upstreamSecret})
	if err != nil {
		t.Fatal(err)
	}
	h, base, err := gateway.Serve(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	dir := t.TempDir()
	if err := server.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	return &upstream{
		name: "NDES simulator", base: base, path: attack.Path, recipient: server.Exchange, issuer: server.CA,
		raCertificate: filepath.Join(dir, ndes.FileExchange), raKey: filepath.Join(dir, ndes.FileExchangeKey), caCertificate: filepath.Join(dir, ndes.FileCA),
		lineEnd: "\n", caCertType: typeCARACert, replyDigest: oidSHA1, replyCipher: oidAES128CBC,
		// The CA's subject template keeps no street, so no name is left.
		refusable: expectedRequest{
			map[string]any{"subject": "STREET=Main Street 1", "key_usage": []string{"digitalSignature", "keyEncipherment"}},
			inspector.CSRParams{Subject: attack.Subject("2.5.4.9", "Main Street 1"), KeyUsage: 1<<0 | 1<<2, Challenge: upstreamSecret},
		},
	}
}

// startScepserver runs micromdm's server with its defaults and a challenge, if
// not empty. Its GetCACert is a bare certificate: the CA is the RA.
func startScepserver(t *testing.T, challenge string) *upstream {
	binary := scepserver.build(t)
	dir := t.TempDir()
	ca := newOwnRA(t, "micromdm CA", 1, nil)
	u := &upstream{
		name: "micromdm scepserver " + scepserver.version, path: "/scep", recipient: ca.Certificate, issuer: ca.Certificate,
		raCertificate: writeUpstreamFile(t, filepath.Join(dir, "ca.pem"), ca.certificatePEM()),
		raKey:         writeUpstreamFile(t, filepath.Join(dir, "ca.key"), ca.keyPEM()),
		lineEnd:       "\n", caCertType: typeCACert, replyDigest: oidSHA1, replyCipher: oidDESCBC,
		// Unless -allowrenew says otherwise, no CN twice.
		refusable: expectedRequest{ownName("direct"), ownRequest("direct")},
	}
	u.caCertificate = u.raCertificate
	address := freeAddress(t)
	u.base = "http://" + address
	runServer(t, dir, u, binary, "-depot", dir, "-http-addr", address, "-challenge", challenge)
	return u
}

// startStepCA runs step-ca with one SCEP provisioner and no template of
// its own. `plain`: the intermediate decrypts and signs; GetCACert is it and
// the root; replies are DES-CBC, the default. `ra`: a certificate of its own
// does; GetCACert is it and the intermediate; replies are AES-256-CBC.
func startStepCA(provisioner string) func(t *testing.T) *upstream {
	return func(t *testing.T) *upstream {
		binary := stepCA.build(t)
		dir := t.TempDir()
		root := newAuthority(t, "step Root CA", 1, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil)
		intermediate := newOwnRA(t, "step Intermediate CA", 2, root)
		write := func(name string, content []byte) string {
			return writeUpstreamFile(t, filepath.Join(dir, name), content)
		}
		u := &upstream{
			name: "step-ca " + stepCA.version + " " + provisioner, path: "/scep/" + provisioner, recipient: intermediate.Certificate, issuer: intermediate.Certificate,
			raCertificate: write("intermediate.crt", intermediate.certificatePEM()),
			raKey:         write("intermediate.key", intermediate.keyPEM()),
			lineEnd:       "\r\n", caCertType: typeCARACert, replyDigest: oidSHA1, replyCipher: oidDESCBC,
			refusable: expectedRequest{ownName("denied"), ownRequest("denied")},
		}
		u.caCertificate = u.raCertificate
		settings := map[string]any{"type": "SCEP", "name": provisioner, "challenge": upstreamSecret}
		if provisioner == "plain" {
			settings["includeRoot"] = true
		} else {
			ra := newAuthority(t, "step SCEP RA", 3, false, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, intermediate)
			u.recipient = ra.Certificate
			u.raCertificate, u.raKey = write("ra.crt", ra.certificatePEM()), write("ra.key", ra.keyPEM())
			settings["decrypterCertificate"], settings["decrypterKeyPEM"] = ra.certificatePEM(), ra.keyPEM() // []byte: base64
			settings["encryptionAlgorithmIdentifier"], u.replyCipher = 2, oidAES256CBC
		}
		address := freeAddress(t)
		u.base = "http://" + address
		config, err := json.Marshal(map[string]any{
			"root": write("root.crt", root.certificatePEM()), "crt": filepath.Join(dir, "intermediate.crt"), "key": filepath.Join(dir, "intermediate.key"),
			"address": freeAddress(t), "insecureAddress": address, "dnsNames": []string{"localhost"},
			"logger": map[string]any{"format": "text"},
			"authority": map[string]any{
				"provisioners": []any{settings},
				// One name that no row uses, so that the CA has something to refuse.
				"policy": map[string]any{"x509": map[string]any{"deny": map[string]any{"dns": []string{"denied.example.com"}}}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		runServer(t, dir, u, binary, write("ca.json", config))
		return u
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// lockedBuffer is written by a process while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runServer starts a server, waits until it answers GetCACaps, and ends it by
// its process id when the test is over.
func runServer(t *testing.T, dir string, u *upstream, binary string, args ...string) {
	t.Helper()
	log := new(lockedBuffer)
	cmd := exec.Command(binary, args...)
	// None of the variables that configure these servers.
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "STEPPATH=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if t.Failed() {
			text := log.String()
			t.Logf("the log of %s ends:\n%s", u.name, text[max(0, len(text)-8192):])
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.base+u.path+"?operation=GetCACaps", nil)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := attack.Do(http.DefaultClient, req); err == nil && a.Status == http.StatusOK {
			return
		}
		select {
		case <-done:
			t.Fatalf("%s ended:\n%s", u.name, log)
		case <-ctx.Done():
			t.Fatalf("%s does not answer:\n%s", u.name, log)
		case <-tick.C:
		}
	}
}

// describeUpstream says in a few words what came back.
func describeUpstream(a attack.Answer) string {
	if a.Rep == nil {
		return fmt.Sprintf("refused (HTTP %d)", a.Status)
	}
	switch a.Rep.PKIStatus {
	case "0":
		return "issued"
	case "2":
		return "refused"
	default:
		return "pkiStatus " + strings.TrimSpace(a.Rep.PKIStatus)
	}
}
