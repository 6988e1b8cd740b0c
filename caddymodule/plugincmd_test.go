package caddymodule

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/google/go-cmp/cmp"
)

// runPlugin runs `plugin …` in this process; what it starts are real ones.
func runPlugin(t *testing.T, args ...string) (out, log string, err error) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	cmd := pluginCommand()
	var stdout bytes.Buffer
	var stderr lockedBuffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SilenceErrors = true
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	goleak.VerifyNone(t, before)
	return stdout.String(), stderr.String(), err
}

// lockedBuffer takes what several goroutines write.
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

// goTool runs the go command in a module of somebody else's. What is not in the
// module cache it fetches, if it can.
func goTool(t *testing.T, dir string, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	for _, offline := range []string{"dial tcp", "GOPROXY=off"} {
		if err != nil && strings.Contains(string(out), offline) {
			t.Skipf("needs a module proxy: %s", out)
		}
	}
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// agreeable is testdata/plugincmd, built.
func agreeable(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	binary := filepath.Join(t.TempDir(), "agree able")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./testdata/plugincmd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func checkout(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// fromTemplate is the template in a folder of that name, ready to be built.
func fromTemplate(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	var out bytes.Buffer
	m := pluginModule{Module: ownModule, Version: "v0.0.0", Go: "1.26", Development: true, Checkout: checkout(t)}
	if err := initPlugin(dir, m, &out); err != nil {
		t.Fatal(err)
	}
	if want := "matcher " + matcherName(name) + " is in " + dir + ". Next:\n"; !strings.HasPrefix(out.String(), want) {
		t.Error(out.String())
	}
	// What `go mod tidy` would fetch.
	sums, err := os.ReadFile(filepath.Join(checkout(t), "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheTemplateCompilesPassesItsTestsAndEveryTest(t *testing.T) {
	dir := fromTemplate(t, "Acme Inventory")
	goTool(t, dir, "vet", "./...")
	goTool(t, dir, "test", "./...")
	goTool(t, dir, "build", "-o", "acme-inventory", ".")
	binary := filepath.Join(dir, "acme-inventory")

	said, log, err := runPlugin(t, "test", "--cases", filepath.Join(dir, "cases.ndjson"), "--conformance", binary)
	if err != nil || !strings.HasPrefix(said, "ok    the registered device\nok    another name\n") || !strings.HasSuffix(said, " ok, 0 failed\n") || strings.Contains(said, "FAIL") {
		t.Errorf("%v\n%s\n%s", err, said, log)
	}
	if strings.Count(said, "\n") < 4+10+1 {
		t.Errorf("conformance is missing:\n%s", said)
	}
	if said, _, err := runPlugin(t, "info", binary); err != nil || !strings.HasPrefix(said, "name      acme-inventory\nversion   0.1.0\ndecides   subject\noutcomes  no\n") {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestTheTemplateIsFormattedGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme")
	if err := initPlugin(dir, pluginModule{Module: ownModule, Version: "v1.2.3", Go: "1.26"}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	out, err := exec.CommandContext(t.Context(), "gofmt", append([]string{"-l"}, files...)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs gofmt")
	}
	if err != nil || len(out) > 0 {
		t.Errorf("%v %s", err, out)
	}
}

func TestInitWritesOnlyIntoAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "README.md")
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, mine} {
		if out, _, err := runPlugin(t, "init", path); err == nil || out != "" {
			t.Errorf("%s: %q, %v", path, out, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	empty := t.TempDir()
	if _, _, err := runPlugin(t, "init", empty); err != nil {
		t.Error(err)
	}
}

func TestTheTemplateSaysWhereScepgateComesFrom(t *testing.T) {
	for name, test := range map[string]struct {
		module    pluginModule
		mod, next string
		never     string
	}{
		"a release": {pluginModule{Module: ownModule, Version: "v1.2.3", Go: "1.26"},
			"\nrequire " + ownModule + " v1.2.3\n", "\tgo mod tidy\n", "replace"},
		"a checkout": {pluginModule{Module: ownModule, Version: "v0.0.0", Go: "1.26", Development: true, Checkout: "/src/scepgate"},
			"\nreplace " + ownModule + " => /src/scepgate\n", "\tgo mod tidy\n", "// replace"},
		"a build that came from somewhere": {pluginModule{Module: ownModule, Version: "v0.0.0", Go: "1.26", Development: true},
			"\n// replace " + ownModule + " => /path/to/scepgate\n", "\tgo mod edit -replace " + ownModule + "=/path/to/scepgate", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "acme")
			var out bytes.Buffer
			if err := initPlugin(dir, test.module, &out); err != nil {
				t.Fatal(err)
			}
			mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(mod), "module example.com/acme\n\ngo 1.26\n") || !strings.Contains(string(mod), test.mod) ||
				test.never != "" && strings.Contains(string(mod), test.never) {
				t.Errorf("go.mod:\n%s", mod)
			}
			if !strings.Contains(out.String(), test.next) {
				t.Error(out.String())
			}
		})
	}
}

func TestAVersionIsReleasedIfItCanBeHadByItsName(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.2.3": true, "v0.9.0-rc.1": true,
		"(devel)": false, "": false, "v1.2.3+dirty": false, "v0.0.0-20261122210436-abcdefabcdef": false,
		"v1.2.4-0.20261122210436-abcdefabcdef": false, "v1.2.3\nreplace": false,
	} {
		if released(version) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

func TestAFoldersNameBecomesAMatchersName(t *testing.T) {
	for base, want := range map[string]string{
		"acme": "acme", "Acme Inventory": "acme-inventory", "..": "matcher", "/": "matcher", "-x-": "x", "ä": "matcher",
		strings.Repeat("n", 60): strings.Repeat("n", 48), "a`\n\"b": "a-b",
	} {
		if got := matcherName(base); got != want {
			t.Errorf("%q: %q, want %q", base, got, want)
		}
	}
}

func TestInfoPrintsLinesThatTheCaddyfileTakes(t *testing.T) {
	binary := agreeable(t)
	out, log, err := runPlugin(t, "info", "--config", `url=https://cmdb.example.com/?q="{x}" #1`, binary)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	head, block, ok := strings.Cut(out, "\nFor a profile in the Caddyfile:\n\n")
	want := "name      agreeable\nversion   1.4.0\ndecides   challenge subject key\noutcomes  yes\nsha256    " + hex.EncodeToString(sum[:]) + "\n"
	if !ok || head != want {
		t.Errorf("(-want +got)\n%s", cmp.Diff(want, head))
	}
	adapted := adaptCaddyfile(t, "{\n\tscep {\n\t\tstore memory\n\t\tprofile wifi {\n\t\t\tra ndes1 {\n\t\t\t\tcertificate x\n\t\t\t\tkey y\n\t\t\t}\n\t\t\tca_certificate z\n\t\t\trenewal off\n\t\t\tmode enforce\n"+
		block+"\t\t}\n\t}\n}\n")
	var config struct {
		Apps struct {
			SCEP struct {
				Profiles map[string]Profile `json:"profiles"`
			} `json:"scep"`
		} `json:"apps"`
	}
	if err := json.Unmarshal([]byte(adapted), &config); err != nil {
		t.Fatalf("%v\n%s\n%s", err, block, adapted)
	}
	p := config.Apps.SCEP.Profiles["wifi"]
	if p.Challenge == nil || p.Challenge.Source != "matcher" || len(p.Matchers) != 1 {
		t.Fatalf("%+v\n%s", p, block)
	}
	m := p.Matchers[0]
	var exec ExecMatcher
	if err := json.Unmarshal(m.MatcherRaw, &exec); err != nil {
		t.Fatal(err)
	}
	// key is a floor: no configuration can give it away.
	if m.Name != "agreeable" || !slices.Equal(m.Decides, []string{"challenge", "subject"}) || !slices.Equal(m.Reveal, []string{"challenge"}) ||
		exec.Path != binary || exec.SHA256 != hex.EncodeToString(sum[:]) || exec.Config["url"] != `https://cmdb.example.com/?q="{x}" #1` {
		t.Errorf("%+v %+v", m, exec)
	}
}

func TestAFailedCaseFailsTheTest(t *testing.T) {
	binary := agreeable(t)
	file := filepath.Join(t.TempDir(), "cases.ndjson")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const agree = `{"name":"agreed","request":{"transaction_id":"speak"},"want":{"verdict":"agree"}}`
	write(agree, `{"name":"\u001b[2Jrefused","request":{},"want":{"verdict":"refuse","code":"not_in_inventory"}}`)
	out, log, err := runPlugin(t, "test", "--cases", file, "--config", "url=x", binary)
	want := "ok    agreed\nFAIL  \\u{001B}[2Jrefused: wanted refuse not_in_inventory, got agree\n1 ok, 1 failed\n"
	if out != want || err == nil || err.Error() != "1 of 2 failed" {
		t.Errorf("%v\n%s", err, cmp.Diff(want, out))
	}
	if !strings.Contains(log, "asked to speak") {
		t.Errorf("what it says is not told: %q", log)
	}

	write(`{"name":"died","request":{"transaction_id":"crash"},"want":{"verdict":"refuse"}}`)
	out, _, err = runPlugin(t, "test", "--cases", file, "--config", "url=x", binary)
	if err == nil || !strings.HasPrefix(out, "FAIL  died: wanted refuse, but nothing was decided: crashed") {
		t.Errorf("%v\n%s", err, out)
	}

	write(agree)
	out, _, err = runPlugin(t, "test", "--cases", file, "--conformance", "--config", "url=x", binary)
	if err == nil || !strings.Contains(out, "FAIL  conformance: an empty request is not agreed to") || !strings.Contains(out, "ok    conformance: an unknown configuration key is an error") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWhatCannotBeTriedIsSaidAndNothingIsLeft(t *testing.T) {
	binary := agreeable(t)
	dir := filepath.Dir(binary)
	file := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := file("open", "#!/bin/sh\n", 0o777)
	quits := file("quits", "#!/bin/sh\nexit 3\n", 0o755)
	text := file("text", "text", 0o644)
	bad := file("bad.ndjson", "{\"request\":{},\"want\":{\"verdict\":\"maybe\"}}\n", 0o644)
	empty := file("empty.ndjson", "\n\n", 0o644)
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no such file":          {[]string{"info", binary + "x"}, "no such file"},
		"a folder":              {[]string{"info", dir}, "not a regular file"},
		"not executable":        {[]string{"info", text}, "not executable"},
		"others may write it":   {[]string{"info", open}, "writable"},
		"ends at once":          {[]string{"info", quits}, "exited at start"},
		"configured wrongly":    {[]string{"info", "--config", "url=x", "--config", "color=red", binary}, `unknown key "color"`},
		"not configured":        {[]string{"info", binary}, "url is missing"},
		"no key":                {[]string{"info", "--config", "=x", binary}, "--config"},
		"no value":              {[]string{"info", "--config", "url", binary}, "--config"},
		"a key twice":           {[]string{"info", "--config", "url=x", "--config", "url=y", binary}, "each key once"},
		"nothing to test":       {[]string{"test", "--config", "url=x", binary}, "nothing to test"},
		"no such cases":         {[]string{"test", "--cases", bad + "x", binary}, "no such file"},
		"cases that are none":   {[]string{"test", "--cases", bad, binary}, `line 1: want.verdict "maybe"`},
		"no case":               {[]string{"test", "--cases", empty, binary}, "holds no case"},
		"cases, but no plugin":  {[]string{"test", "--conformance", quits}, "exited at start"},
		"two plugins":           {[]string{"test", "--conformance", binary, binary}, "accepts 1 arg"},
		"not a plugin, to test": {[]string{"test", "--conformance", text}, "not executable"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := runPlugin(t, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(out, "ok") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
