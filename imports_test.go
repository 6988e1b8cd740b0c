package scepgate_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/scepgate/scepgate"

// allowed is the import table of the house: what a room may reach, through
// whatever path. A prefix ending in "/" allows everything below it; the
// standard library is always allowed.
var allowed = map[string][]string{
	"inspector":          {"golang.org/x/crypto/"},
	"store":              {},
	"store/storetest":    {module + "/store", "github.com/google/go-cmp/"},
	"store/memstore":     {module + "/store"},
	"store/badgerstore":  {module + "/store", "*third-party"},
	"plugins":            overGRPC(),
	"plugins/host":       overGRPC(module+"/plugins", "go.uber.org/", "golang.org/x/time/"),
	"plugins/webhook":    overGRPC(module+"/plugins", module+"/plugins/internal/", module+"/plugins/breaker"),
	"plugins/expression": overGRPC(module+"/plugins", module+"/plugins/internal/", "cel.dev/", "github.com/antlr4-go/", "golang.org/x/exp/", "golang.org/x/text/", "google.golang.org/genproto/", "go.yaml.in/"),
	"plugins/breaker":    {},
	"plugins/cases":      overGRPC(module + "/plugins"),
	"gate":               overGRPC(module+"/inspector", module+"/store", module+"/plugins", "golang.org/x/crypto/", "golang.org/x/text/"),
	"integration/ndes":   {module + "/inspector", "github.com/smallstep/pkcs7/", "golang.org/x/crypto/"},
}

// overGRPC adds what package plugins reaches, since a vendor serves a matcher with it.
func overGRPC(more ...string) []string {
	return append(more, module+"/plugins/proto/", "github.com/hashicorp/", "github.com/oklog/run", "google.golang.org/", "github.com/golang/protobuf/",
		"github.com/fatih/color", "github.com/mattn/", "golang.org/x/net/", "golang.org/x/sys/", "golang.org/x/text/")
}

// forbidden is what no room but caddymodule, root, cmd and integration may reach.
const caddy = "github.com/caddyserver/caddy/"

func TestEveryRoomImportsOnlyWhatItMay(t *testing.T) {
	for room, may := range allowed {
		t.Run(room, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+room).Output()
			if err != nil {
				t.Fatalf("go list ./%s: %v", room, err)
			}
			for dep := range strings.FieldsSeq(string(out)) {
				if dep != module+"/"+room && !permitted(dep, may) {
					t.Errorf("%s reaches %s, which the table in architecture does not allow", room, dep)
				}
			}
		})
	}
}

func permitted(dep string, may []string) bool {
	if strings.HasPrefix(dep, caddy) || strings.HasPrefix(dep, module+"/caddymodule") {
		return false
	}
	for _, m := range may {
		if dep == strings.TrimSuffix(m, "/") || strings.HasSuffix(m, "/") && strings.HasPrefix(dep, m) || m == "*third-party" && !strings.HasPrefix(dep, module) {
			return true
		}
	}
	return false
}

func TestOnlyCaddymoduleRootCmdAndIntegrationImportCaddy(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}} {{join .TestImports \" \"}} {{join .XTestImports \" \"}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	rooms := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		room := strings.TrimPrefix(strings.TrimPrefix(fields[0], module), "/")
		rooms[room] = true
		top, _, _ := strings.Cut(room, "/")
		for _, imp := range fields[1:] {
			if strings.HasPrefix(imp, caddy) && top != "" && top != "caddymodule" && top != "cmd" && top != "integration" {
				t.Errorf("%s imports %s", room, imp)
			}
			if strings.HasPrefix(imp, module+"/caddymodule") && room != "" && top != "caddymodule" {
				t.Errorf("%s imports %s: only the root may", room, imp)
			}
		}
	}
	for room := range allowed {
		if !rooms[room] {
			t.Errorf("the table names %s, which does not exist", room)
		}
	}
}

func TestNoRoomIsNamedAfterNothing(t *testing.T) {
	bad := regexp.MustCompile(`(^|/)(util|utils|common|helper|helpers|manager)(/|\.go$|_test\.go$|$)`)
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || path == ".git" {
			return filepath.SkipDir
		}
		if bad.MatchString(path) {
			t.Errorf("%s says nothing about its concern", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// xcaddyBuilder is the JSON of xcaddy's Builder, as far as a manifest may use it.
type xcaddyBuilder struct {
	CaddyVersion string `json:"caddy_version,omitempty"`
	Plugins      []struct {
		ModulePath string `json:"module_path,omitempty"`
		Version    string `json:"version,omitempty"`
	} `json:"plugins,omitempty"`
	Replacements []struct {
		Old string `json:"old,omitempty"`
		New string `json:"new,omitempty"`
	} `json:"replacements,omitempty"`
	BuildFlags string `json:"build_flags,omitempty"`
}

func TestXcaddyManifestIsStrictBuilderJSONAndAgreesWithGoMod(t *testing.T) {
	manifest, err := os.ReadFile("xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	var b xcaddyBuilder
	dec := json.NewDecoder(bytes.NewReader(manifest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		t.Fatalf("xcaddy.json: %v", err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/caddyserver/caddy/v2 " + b.CaddyVersion + "\n"; !bytes.Contains(mod, []byte(want)) {
		t.Errorf("xcaddy.json says Caddy %s, go.mod another version", b.CaddyVersion)
	}
	if len(b.Plugins) != 1 || b.Plugins[0].ModulePath != module {
		t.Errorf("xcaddy.json plugins = %v, want %s alone", b.Plugins, module)
	}
	if !bytes.HasPrefix(mod, []byte("module "+module+"\n")) {
		t.Errorf("go.mod does not begin with module %s", module)
	}
}
