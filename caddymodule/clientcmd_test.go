package caddymodule

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// runClientAdd runs `scep client add` with args.
func runClientAdd(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	root := &cobra.Command{Use: "scep", SilenceErrors: true}
	for _, subcommand := range scepSubcommands {
		root.AddCommand(subcommand())
	}
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append([]string{"client", "add"}, args...))
	err = root.Execute()
	return out.String(), err
}

func TestClientAddPrintsATokenThatTheServerTakes(t *testing.T) {
	dir := t.TempDir()
	file, constraints := filepath.Join(dir, "clients.json"), filepath.Join(dir, "constraints.json")
	writeClients(t, constraints, `{"dns_suffixes":["example.com"]}`, 0o600)
	out, err := runClientAdd(t, "--file", file, "--name", "jamf", "--profile", "wifi", "--scope", "register", "--scope", "read",
		"--sees", "all", "--not-after", "2100-01-01T00:00:00Z", "--constraints", constraints)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSuffix(out, "\n")
	if !strings.HasPrefix(token, tokenPrefix) || len(token) != len(tokenPrefix)+43 {
		t.Fatalf("printed %q", out)
	}
	data, err := readClientsFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(token)) {
		t.Error("the token is in the file")
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	set, err := parseClients(data, onlyWifi)
	if err != nil {
		t.Fatal(err)
	}
	c := set.byToken(token, time.Now())
	if c == nil || c.name != "jamf" || !c.seesAll || !c.may(scopeRead) || c.may(scopeRevoke) || c.constraints == nil || c.notAfter.Year() != 2100 {
		t.Errorf("client is %+v", c)
	}

	other, err := runClientAdd(t, "--file", file, "--name", "other", "--profile", "wifi", "--scope", "read")
	if err != nil || other == out {
		t.Fatalf("second client: %q %v", other, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".clients*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestRotatingKeepsTheNewestTwoTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clients.json")
	var tokens []string
	for _, args := range [][]string{{"--profile", "wifi", "--scope", "read"}, {"--rotate"}, {"--rotate"}} {
		out, err := runClientAdd(t, append([]string{"--file", file, "--name", "jamf"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, strings.TrimSpace(out))
	}
	data, err := readClientsFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set, err := parseClients(data, onlyWifi)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, true} {
		if got := set.byToken(tokens[i], time.Now()) != nil; got != want {
			t.Errorf("token %d: %v", i, got)
		}
	}
}

func TestClientAddRefusesAndLeavesTheFileAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "clients.json")
	if _, err := runClientAdd(t, "--file", file, "--name", "jamf", "--profile", "wifi", "--scope", "read"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.json")
	writeClients(t, bad, `{"dns":[]}`, 0o600)
	for name, args := range map[string][]string{
		"a name that exists":          {"--name", "jamf", "--profile", "wifi", "--scope", "read"},
		"rotating nobody":             {"--name", "x", "--rotate"},
		"rotating with more":          {"--name", "jamf", "--rotate", "--scope", "read"},
		"a bad name":                  {"--name", "a b", "--profile", "wifi", "--scope", "read"},
		"no profile":                  {"--name", "x", "--scope", "read"},
		"no scope":                    {"--name", "x", "--profile", "wifi"},
		"an unknown scope":            {"--name", "x", "--profile", "wifi", "--scope", "admin"},
		"an unknown sees":             {"--name", "x", "--profile", "wifi", "--scope", "read", "--sees", "some"},
		"an end that is no time":      {"--name", "x", "--profile", "wifi", "--scope", "read", "--not-after", "soon"},
		"an end that has passed":      {"--name", "x", "--profile", "wifi", "--scope", "read", "--not-after", "2020-01-01T00:00:00Z"},
		"constraints that are absent": {"--name", "x", "--profile", "wifi", "--scope", "read", "--constraints", bad + "x"},
		"constraints that are wrong":  {"--name", "x", "--profile", "wifi", "--scope", "read", "--constraints", bad},
		"an argument":                 {"--name", "x", "--profile", "wifi", "--scope", "read", "more"},
		"no name":                     {"--profile", "wifi", "--scope", "read"},
	} {
		out, err := runClientAdd(t, append([]string{"--file", file}, args...)...)
		if err == nil || strings.Contains(out, tokenPrefix) {
			t.Errorf("%s: printed %q, %v", name, out, err)
		}
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file changed: %v", err)
	}
	writeClients(t, file+".lock", "", 0o600)
	if _, err := runClientAdd(t, "--file", file, "--name", "x", "--profile", "wifi", "--scope", "read"); err == nil {
		t.Error("wrote beside another command")
	}
	if err := os.Remove(file + ".lock"); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := runClientAdd(t, "--file", file, "--name", "x", "--profile", "wifi", "--scope", "read"); err == nil {
			t.Error("took a file that others can read")
		}
	}
}

func TestReplacingFollowsALink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege")
	}
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real.json"), filepath.Join(dir, "clients.json")
	if _, err := runClientAdd(t, "--file", real, "--name", "a", "--profile", "wifi", "--scope", "read"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := runClientAdd(t, "--file", link, "--name", "b", "--profile", "wifi", "--scope", "read"); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != real {
		t.Errorf("the link is %q, %v", target, err)
	}
	data, err := os.ReadFile(real)
	if err != nil || !bytes.Contains(data, []byte(`"b"`)) {
		t.Errorf("%s %v", data, err)
	}
}
