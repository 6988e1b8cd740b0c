package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func onlyWifi(name string) bool { return name == "wifi" }

const validClient = `{"name":"jamf","token_sha256":["%s"],"profiles":["wifi"],"scopes":["register"]}`

func TestClientsFilesThatAreRefused(t *testing.T) {
	one, two := hashOf("one"), hashOf("two")
	client := func(fields string) string { return "[{" + fields + "}]" }
	base := `"name":"jamf","token_sha256":["` + one + `"],"profiles":["wifi"]`
	for name, test := range map[string]struct{ data, want string }{
		"no client":             {`[]`, "without authentication"},
		"null":                  {`null`, "must be a list"},
		"not JSON":              {`[{]`, "not one JSON document"},
		"an object":             {`{}`, "must be a list"},
		"an unknown field":      {client(base + `,"scopes":["read"],"scope":[]`), "/0/scope: is not a known field"},
		"a duplicate field":     {client(base + `,"scopes":["read"],"name":"x"`), "/0/name: appears more than once"},
		"no name":               {client(`"token_sha256":["` + one + `"],"profiles":["wifi"],"scopes":["read"]`), "name"},
		"a long name":           {client(`"name":"` + strings.Repeat("a", 65) + `","token_sha256":["` + one + `"],"profiles":["wifi"],"scopes":["read"]`), "name"},
		"a name with a space":   {client(`"name":"a b","token_sha256":["` + one + `"],"profiles":["wifi"],"scopes":["read"]`), "name"},
		"nobody":                {client(`"name":"jamf","profiles":["wifi"],"scopes":["read"]`), "nobody could be it"},
		"empty hashes":          {client(`"name":"jamf","token_sha256":[],"profiles":["wifi"],"scopes":["read"]`), "nobody could be it"},
		"a token as hash":       {client(`"name":"jamf","token_sha256":["scg_secret"],"profiles":["wifi"],"scopes":["read"]`), "64 hex digits"},
		"a short hash":          {client(`"name":"jamf","token_sha256":["` + one[:62] + `"],"profiles":["wifi"],"scopes":["read"]`), "64 hex digits"},
		"a hash twice":          {client(`"name":"jamf","token_sha256":["` + one + `","` + one + `"],"profiles":["wifi"],"scopes":["read"]`), "twice"},
		"too many hashes":       {client(`"name":"jamf","token_sha256":[` + strings.TrimSuffix(strings.Repeat(`"`+one+`",`, 9), ",") + `],"profiles":["wifi"],"scopes":["read"]`), "more than 8"},
		"no scopes":             {client(base), "scopes: is empty"},
		"an unknown scope":      {client(base + `,"scopes":["admin"]`), "scopes"},
		"no profiles":           {client(`"name":"jamf","token_sha256":["` + one + `"],"scopes":["read"]`), "profiles: is empty"},
		"an unknown profile":    {client(`"name":"jamf","token_sha256":["` + one + `"],"profiles":["*"],"scopes":["read"]`), "no profile"},
		"an unknown sees":       {client(base + `,"scopes":["read"],"sees":"everything"`), "sees"},
		"a bad time":            {client(base + `,"scopes":["read"],"not_after":"tomorrow"`), "RFC 3339"},
		"an unknown constraint": {client(base + `,"scopes":["read"],"constraints":{"cn":[]}`), "/0/constraints/cn"},
		"a bad CIDR":            {client(base + `,"scopes":["read"],"constraints":{"ip_cidrs":["10.0.0.0/99"]}`), "constraints"},
		"a name twice":          {"[" + fmt.Sprintf(validClient, one) + "," + fmt.Sprintf(validClient, two) + "]", "is there twice"},
		"a hash of two clients": {"[" + fmt.Sprintf(validClient, one) + "," + strings.Replace(fmt.Sprintf(validClient, strings.ToUpper(one)), "jamf", "other", 1) + "]", "has a hash that client jamf has"},
	} {
		set, err := parseClients([]byte(test.data), onlyWifi)
		if err == nil || set != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
			continue
		}
		if strings.Contains(err.Error(), "scg_secret") {
			t.Errorf("%s: the error tells a token: %v", name, err)
		}
	}
}

func TestTwoTokensAreOneClientAndTheEndIsTheEnd(t *testing.T) {
	first, second := strings.Repeat("a", 32), strings.Repeat("b", 32)
	set, err := parseClients([]byte(`[{"name":"jamf","token_sha256":["`+hashOf(first)+`","`+hashOf(second)+`"],"certificate_spki_sha256":null,
		"profiles":["wifi"],"scopes":["register"],"sees":null,"not_after":"2026-06-01T02:00:00+02:00","constraints":null}]`), onlyWifi)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, token := range []string{first, second} {
		if c := set.byToken(token, end.Add(-time.Second)); c == nil || c.name != "jamf" || c.seesAll {
			t.Errorf("client is %+v", c)
		}
		if set.byToken(token, end) != nil {
			t.Error("taken after its end")
		}
	}
	long := strings.Repeat("a", maxToken+1)
	for _, token := range []string{"", long} {
		if set, err = parseClients([]byte("["+fmt.Sprintf(validClient, hashOf(token))+"]"), onlyWifi); err != nil {
			t.Fatal(err)
		}
		if set.byToken(token, end.Add(-time.Second)) != nil {
			t.Errorf("a token of %d characters is taken", len(token))
		}
	}
}

func writeClients(t testing.TB, path, data string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestAClientsFileMustBePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("has no file modes")
	}
	path := filepath.Join(t.TempDir(), "clients.json")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o666: false} {
		writeClients(t, path, "[]", mode)
		if _, err := readClientsFile(path); (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	for name, path := range map[string]string{"absent": path + "x", "a folder": filepath.Dir(path)} {
		if _, err := readClientsFile(path); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	writeClients(t, path, "", 0o600)
	if _, err := readClientsFile(path); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty file: %v", err)
	}
	writeClients(t, path, strings.Repeat(" ", maxClientsFile+1), 0o600)
	if _, err := readClientsFile(path); err == nil {
		t.Error("a huge file is read")
	}
}

func TestTheRegistryKnowsWhoIsAClientNow(t *testing.T) {
	dir := t.TempDir()
	path, second := filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")
	constrained := strings.Replace(fmt.Sprintf(validClient, hashOf("one")), "}", `,"constraints":{"dns_suffixes":["example.com"]}}`, 1)
	writeClients(t, path, "["+constrained+"]", 0o600)
	var r clientRegistry
	if _, ok := r.constraintsOf("jamf"); ok {
		t.Fatal("an empty registry knows somebody")
	}
	f, err := r.open(path, onlyWifi)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.open(path, onlyWifi); err != nil || again != f {
		t.Errorf("the same file is another one: %v", err)
	}
	if c, ok := r.constraintsOf("jamf"); !ok || c == nil || len(c.DNSSuffixes) != 1 {
		t.Errorf("constraints %+v %v", c, ok)
	}
	if _, ok := r.constraintsOf(""); ok {
		t.Error("nobody is a client")
	}

	writeClients(t, second, "["+fmt.Sprintf(validClient, hashOf("two"))+"]", 0o600)
	if _, err := r.open(second, onlyWifi); err == nil || !strings.Contains(err.Error(), "is also in "+path) {
		t.Errorf("a name in two files: %v", err)
	}

	old := f.set.Load()
	writeClients(t, path, "[]", 0o600)
	if err := r.reload(f, onlyWifi); err == nil || f.set.Load() != old {
		t.Errorf("content that is not valid was taken: %v", err)
	}
	writeClients(t, path, "["+strings.Replace(fmt.Sprintf(validClient, hashOf("one")), "jamf", "other", 1)+"]", 0o600)
	if err := r.reload(f, onlyWifi); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.constraintsOf("jamf"); ok {
		t.Error("a client that was taken out is still one")
	}
	if c, ok := r.constraintsOf("other"); !ok || c != nil {
		t.Errorf("the new client: %+v %v", c, ok)
	}
}
