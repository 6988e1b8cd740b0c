package caddymodule

import (
	"bytes"
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
)

// inDoubt registers an expectation as jamf and lets a key claim it without an answer.
func (b *apiBench) inDoubt() string {
	b.t.Helper()
	id := wantStatus(b.t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	use := b.claim(id)
	if _, err := b.store.Settle(context.Background(), store.Settlement{Profile: "wifi", ID: id, UseGeneration: use.Generation, TransactionID: "tx"}); err != nil {
		b.t.Fatal(err)
	}
	return id
}

func TestReleaseGivesAnExpectationBack(t *testing.T) {
	b := newAPIBench(t)
	id := b.inDoubt()
	if got := wantStatus(t, b.do("GET", wifi+"/"+id, ""), 200)["state"]; got != "claimed" {
		t.Fatalf("state %v", got)
	}
	got := wantStatus(t, b.do("POST", wifi+"/"+id+"/release", ""), 200)
	if got["state"] != "registered" || got["id"] != id || got["challenge"] != nil {
		t.Errorf("%v", got)
	}
	history := wantStatus(t, b.do("GET", wifi+"/"+id, ""), 200)["history"].([]any)
	last := history[len(history)-1].(map[string]any)
	if last["what"] != "released" || last["by"] != "jamf" {
		t.Errorf("history ends with %v", last)
	}
	line := b.logs.FilterMessage("api write").All()
	fields := line[len(line)-1].ContextMap()
	if fields["action"] != "release" || fields["expectation_id"] != id || fields["external_id"] != "jamf:1" || fields["client"] != "jamf" {
		t.Errorf("logged %v", fields)
	}
}

func TestReleaseIsRefusedWhereNothingIsInDoubt(t *testing.T) {
	b := newAPIBench(t)
	id := wantStatus(t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	wantProblem(t, b.do("POST", wifi+"/"+id+"/release", ""), 409, "expectation_not_releasable")
	wantProblem(t, b.do("POST", wifi+"/exp_none/release", ""), 404, "not_found")
	wantProblem(t, b.do("POST", wifi+"/"+id+"/release", "", as(tokenReader)), 403, "scope_missing")
	wantProblem(t, b.do("POST", wifi+"/"+id+"/release", "", as(tokenOther)), 404, "not_found")
	wantProblem(t, b.do("GET", wifi+"/"+id+"/release", ""), 405, "method_not_allowed")
	b.claim(id)
	wantProblem(t, b.do("POST", wifi+"/"+id+"/release", ""), 409, "expectation_in_use")
	if got := b.app.failed.Load(); got != 0 {
		t.Errorf("the store's answers count as %d failures", got)
	}
}

func TestOneThatIsLockedIsReleasedByWhoSeesAll(t *testing.T) {
	b := newAPIBench(t)
	id := wantStatus(t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	if _, locked, err := b.store.Mismatch(t.Context(), "wifi", id, []byte{9}, 1, store.Event{}); err != nil || !locked {
		t.Fatal(locked, err)
	}
	if got := wantStatus(t, b.do("POST", wifi+"/"+id+"/release", "", as(tokenAll)), 200); got["state"] != "registered" {
		t.Errorf("state %v", got["state"])
	}
}

func TestARenewalIsShownAsOne(t *testing.T) {
	b := newAPIBench(t)
	if got := wantStatus(t, b.do("POST", wifi, simpleBody), 201); got["renews"] != nil {
		t.Errorf("an enrolment renews %v", got["renews"])
	}
	e := must(b.store.Store.Register(t.Context(), store.Expectation{
		ID: "exp_renewal", Profile: "wifi", Owner: "jamf", ChallengeHash: bytes.Repeat([]byte{3}, 32), Request: []byte("{}"), Renews: &store.Renews{Serial: "1a2b"},
		MaxUses: 1, CreatedAt: b.now, ExpiresAt: b.now.Add(time.Hour),
	}))
	got := wantStatus(t, b.do("GET", wifi+"/"+e.ID, ""), 200)
	renews, _ := got["renews"].(map[string]any)
	if renews["serial"] != "1a2b" || renews["sha256"] != nil || got["challenge_fingerprint"] != nil {
		t.Errorf("%v", got)
	}
	for key, v := range got["effective"].(map[string]any) {
		if list, ok := v.([]any); ok && len(list) != 0 || v == nil && key != "sid" && key != "certificate_template" {
			t.Errorf("effective.%s is %v", key, v)
		}
	}
}

// apiServer puts the API behind TLS and gives its URL, and files with a token
// and with the CA.
func (b *apiBench) apiServer(t *testing.T, token string) (api, tokenFile, caFile string) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = b.h.ServeHTTP(w, r, nil)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	tokenFile, caFile = filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, content := range map[string][]byte{tokenFile: []byte(token + "\n"), caFile: ca} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return server.URL, tokenFile, caFile
}

func runExpect(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	cmd := expectCommand()
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(in))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExpectReleaseReleases(t *testing.T) {
	b := newAPIBench(t)
	api, token, ca := b.apiServer(t, tokenJamf)
	for name, test := range map[string]struct{ in, file string }{"a file": {"", token}, "standard input": {tokenJamf + "\n", "-"}} {
		b.store.Store = newAPIBench(t).store.Store
		id := b.inDoubt()
		out, err := runExpect(t, test.in, "release", "--api", api+"/", "--token-file", test.file, "--profile", "wifi", "--ca-file", ca, id)
		if err != nil || out != "released "+id+", now registered\n" {
			t.Errorf("by %s: %q, %v", name, out, err)
		}
	}
}

func TestExpectReleaseSaysWhyNot(t *testing.T) {
	b := newAPIBench(t)
	api, token, ca := b.apiServer(t, tokenJamf)
	id := wantStatus(t, b.do("POST", wifi, simpleBody), 201)["id"].(string)
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte(tokenJamf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"api": api, "token-file": token, "profile": "wifi", "ca-file": ca}
	for name, test := range map[string]struct {
		flag, value, in, id, want string
	}{
		"nothing in doubt":         {id: id, want: "409 expectation_not_releasable: "},
		"an id that is none":       {id: "../../x\x1b", want: "404 not_found"},
		"another profile":          {flag: "profile", value: "vpn", id: id, want: "403 profile_forbidden"},
		"a wrong token":            {flag: "token-file", value: "-", in: "scg_wrong", id: id, want: "401 unauthorized"},
		"no token":                 {flag: "token-file", value: "-", in: "\n", id: id, want: "holds no token"},
		"a token of two lines":     {flag: "token-file", value: "-", in: "a\nb", id: id, want: "holds no token"},
		"a token that all may see": {flag: "token-file", value: open, id: id, want: "open to everybody"},
		"a missing token file":     {flag: "token-file", value: open + "x", id: id, want: "no such file"},
		"a missing CA file":        {flag: "ca-file", value: open + "x", id: id, want: "no such file"},
		"a CA file that is none":   {flag: "ca-file", value: token, id: id, want: "--ca-file"},
		"no URL":                   {flag: "api", value: "localhost:1", id: id, want: "--api: "},
		"a query":                  {flag: "api", value: api + "?a=b", id: id, want: "--api: "},
		"a token in clear":         {flag: "api", value: "http://192.0.2.1", id: id, want: "by https only"},
		"a server that is another": {flag: "ca-file", value: "", id: id, want: "certificate"},
	} {
		var args []string
		for flag, value := range good {
			if flag == test.flag {
				value = test.value
			}
			if value != "" {
				args = append(args, "--"+flag, value)
			}
		}
		out, err := runExpect(t, test.in, append([]string{"release"}, append(args, test.id)...)...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: want %q, got %v", name, test.want, err)
		}
		if strings.Contains(out, tokenJamf) || strings.Contains(out, "\x1b") {
			t.Errorf("%s: said %q", name, out)
		}
	}
	for _, args := range [][]string{{"release"}, {"release", id}, {"release", "--api", api, "--token-file", token, id}, {"release", "--api", api, "--token-file", token, "--profile", "wifi"}} {
		if _, err := runExpect(t, "", args...); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestATokenIsNotSentOn(t *testing.T) {
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	_, err := runExpect(t, tokenJamf, "release", "--api", server.URL, "--token-file", "-", "--profile", "wifi", "exp_1")
	if err == nil || !strings.Contains(err.Error(), "the server answered 307") || len(elsewhere) != 0 {
		t.Errorf("%v; elsewhere saw %d requests", err, len(elsewhere))
	}
}
