package caddymodule

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// server puts the world behind a listener.
func (w *world) server() *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = w.g.ServeHTTP(rw, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rw, nil), w.ndes)
	}))
	w.t.Cleanup(s.Close)
	return s
}

func runEnroll(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := enrollCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func TestEnrollGetsACertificateThroughTheGateway(t *testing.T) {
	for name, caps := range map[string]string{"by POST": "POSTPKIOperation\nAES\n", "by GET": "AES\n"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.register()
			w.ndes.caps = caps
			dir := t.TempDir()
			file := func(name string) string { return filepath.Join(dir, name) }
			if err := os.WriteFile(file("challenge"), []byte(canaryChallenge+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := runEnroll(t, "--url", w.server().URL+scepPath, "--subject", "CN=device,O=Example Corp",
				"--challenge-file", file("challenge"), "--key", file("key.pem"), "--cert", file("cert.pem"))
			if err != nil {
				_, reason := w.lastReason()
				t.Fatalf("%v (%s)", err, reason)
			}
			if !strings.HasPrefix(out, "issued ") {
				t.Errorf("said %q", out)
			}
			if _, err := tls.LoadX509KeyPair(file("cert.pem"), file("key.pem")); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(file("key.pem")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info, err)
			}
			if strings.Contains(out, canaryChallenge) {
				t.Error("the challenge was printed")
			}
			// Refused: used up. Nothing is written, and the challenge is not told.
			_, err = runEnroll(t, "--url", w.server().URL+scepPath, "--subject", "CN=device,O=Example Corp",
				"--challenge-file", file("challenge"), "--key", file("key2.pem"), "--cert", file("cert2.pem"))
			if err == nil || !strings.Contains(err.Error(), "refused: failInfo 2") || strings.Contains(err.Error(), canaryChallenge) {
				t.Errorf("a second enrolment: %v", err)
			}
			if _, err := os.Stat(file("key2.pem")); err == nil {
				t.Error("a key without a certificate was written")
			}
		})
	}
}

func TestEnrollWithoutFilesPrintsTheCertificate(t *testing.T) {
	w := newWorld(t)
	w.register()
	challenge := filepath.Join(t.TempDir(), "challenge")
	if err := os.WriteFile(challenge, []byte(canaryChallenge), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runEnroll(t, "--url", w.server().URL+scepPath, "--subject", "CN=device,O=Example Corp", "--challenge-file", challenge)
	if err != nil || !strings.HasPrefix(out, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("%v: %q", err, out)
	}
}

func TestEnrollRefusesWhatItCannotDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"url": "http://127.0.0.1:1/", "subject": "CN=x", "challenge-file": file, "key": file + ".key", "cert": file + ".crt"}
	for name, change := range map[string][2]string{
		"no url": {"url", ""}, "a url with a query": {"url", "http://x/?a=b"}, "another scheme": {"url", "ftp://x/"}, "no subject": {"subject", ""},
		"a bad subject": {"subject", "CN"}, "an existing key": {"key", file}, "tiny key": {"bits", "512"},
		"no such challenge": {"challenge-file", file + ".missing"},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			for k, v := range good {
				if k != change[0] {
					args = append(args, "--"+k, v)
				}
			}
			if _, err := runEnroll(t, append(args, "--"+change[0], change[1])...); err == nil {
				t.Error("no error")
			}
		})
	}
}
