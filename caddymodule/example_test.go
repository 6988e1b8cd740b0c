package caddymodule

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

const exampleFile = "../Caddyfile.example"

func example(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// setExample sets the environment of Caddyfile.example: everything on loopback,
// every file in the site's folder.
func (s *site) setExample(t *testing.T) {
	t.Helper()
	clients := `[{"name":"mdm","token_sha256":["` + strings.Repeat("ab", 32) + `"],"profiles":["wifi"],"scopes":["register"]}]`
	for name, value := range map[string]string{
		"SCEPGATE_ADMIN": freeLoopback(t), "SCEPGATE_BIND": "127.0.0.1", "SCEPGATE_PORT": strings.TrimPrefix(freeLoopback(t), "127.0.0.1:"),
		"SCEPGATE_API": freeLoopback(t), "SCEPGATE_DATA": s.path("data"), "SCEPGATE_RA_CERT": s.path("ra.crt"), "SCEPGATE_RA_KEY": s.path("ra.key"),
		"SCEPGATE_CA_CERT": s.path("ca.crt"), "SCEPGATE_CLIENTS": s.write(t, "clients.json", []byte(clients), 0o600), "NDES_UPSTREAM": "127.0.0.1:9",
		"XDG_DATA_HOME": s.dir, "XDG_CONFIG_HOME": s.dir,
	} {
		t.Setenv(name, value)
	}
}

func freeLoopback(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func adaptExample(t *testing.T) ([]byte, error) {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(example(t), map[string]any{"filename": "Caddyfile.example"})
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	return config, err
}

func TestTheExampleIsFormatted(t *testing.T) {
	if raw := example(t); !bytes.Equal(raw, caddyfile.Format(raw)) {
		t.Error("scepgate fmt would change it")
	}
}

func TestTheExampleAdaptsOnceNDESIsNamed(t *testing.T) {
	t.Setenv("NDES_UPSTREAM", "127.0.0.1:9")
	config, err := adaptExample(t)
	if err != nil {
		t.Fatal(err)
	}
	// The access log and the default logger both redact.
	if n := bytes.Count(config, []byte(`"parameter":"message"`)); n != 2 {
		t.Errorf("%d loggers redact the message", n)
	}
}

func TestTheExampleLoadsOnceItsVariablesAreSet(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	s.setExample(t)
	config, err := adaptExample(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(config); err != nil {
		t.Fatal(err)
	}
}

func TestTheExampleDoesNotLoadWithAnEmptyVariable(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	for name, want := range map[string]string{
		"SCEPGATE_DATA":    "path: has no value, at Caddyfile.example:",
		"SCEPGATE_RA_CERT": "certificate: has no value, at Caddyfile.example:",
		"SCEPGATE_RA_KEY":  "key: has no value, at Caddyfile.example:",
		"SCEPGATE_CA_CERT": "ca_certificate: has no value, at Caddyfile.example:",
		"SCEPGATE_CLIENTS": "clients",
		"NDES_UPSTREAM":    "upstream: has no value, at Caddyfile.example:",
	} {
		s.setExample(t)
		t.Setenv(name, "")
		config, err := adaptExample(t)
		if err == nil {
			err = validate(config)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", name, want, err)
		}
	}
}

func TestTheReadmesConfigurationAdapts(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(readme, []byte("```caddyfile\n"))
	block, _, ok := bytes.Cut(rest, []byte("```"))
	if !ok {
		t.Fatal("the README has no Caddyfile")
	}
	if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(block, map[string]any{"filename": "README.md"}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(block, caddyfile.Format(block)) {
		t.Error("scepgate fmt would change it")
	}
}
