package caddymodule

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"go.uber.org/zap"
)

// apiConfig is a configuration with the app and an API on address.
func (s *site) apiConfig(t testing.TB, address string, handlers ...map[string]any) []byte {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal(s.config(t), &config); err != nil {
		t.Fatal(err)
	}
	var routes []any
	for _, h := range handlers {
		h["handler"] = "scep_api"
		routes = append(routes, map[string]any{"handle": []any{h}})
	}
	config["apps"].(map[string]any)["http"] = map[string]any{"servers": map[string]any{"api": map[string]any{
		"listen": []string{address}, "routes": routes, "automatic_https": map[string]any{"disable": true},
	}}}
	// Nothing outside of the test's folder, and no goroutine that outlives it.
	config["storage"] = map[string]any{"module": "file_system", "root": s.path("caddy")}
	config["apps"].(map[string]any)["tls"] = map[string]any{"disable_storage_check": true, "disable_storage_clean": true}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAnAPIInCaddyFollowsItsClientsFile(t *testing.T) {
	s := newSite(t) // before ownCaddy: its folder must outlive the store
	ownCaddy(t)
	address, file := freeAddress(t), s.path("clients.json")
	first, second := strings.Repeat("a", 32), strings.Repeat("b", 32)
	writeClients(t, file, "["+fmt.Sprintf(validClient, hashOf(first))+"]", 0o600)
	app := load(t, s.apiConfig(t, address, map[string]any{"clients": file}, map[string]any{"clients": file}))

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(token string) int {
		t.Helper()
		r, err := http.NewRequest("POST", "http://"+address+wifi, strings.NewReader(`{"subject":"CN=a"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	if got := ask(first); got != 201 {
		t.Fatalf("status %d", got)
	}
	if _, ok := app.constraintsOf("jamf"); !ok {
		t.Error("the app does not know the client")
	}
	res, err := client.Get("http://" + address + "/healthz")
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("health: %v %v", res, err)
	}
	res.Body.Close()

	writeClients(t, file, "[]", 0o600)
	app.watcher.check(zap.NewNop())
	if got := ask(first); got != 201 {
		t.Errorf("a file that is not valid took the clients away: %d", got)
	}
	writeClients(t, file, "["+strings.Replace(fmt.Sprintf(validClient, hashOf(second)), "jamf", "other", 1)+"]", 0o600)
	app.watcher.check(zap.NewNop())
	if one, two := ask(first), ask(second); one != 401 || two != 201 {
		t.Errorf("after the change: %d, %d", one, two)
	}
	if _, ok := app.constraintsOf("jamf"); ok {
		t.Error("the app still knows the client that was taken out")
	}
}

func TestAnAPIThatNobodyIsAuthenticatedForDoesNotLoad(t *testing.T) {
	s := newSite(t) // before ownCaddy: its folder must outlive the store
	ownCaddy(t)
	valid := "[" + fmt.Sprintf(validClient, hashOf("a")) + "]"
	write := func(name, data string, mode os.FileMode) string {
		writeClients(t, s.path(name), data, mode)
		return s.path(name)
	}
	good := write("good.json", valid, 0o600)
	for name, test := range map[string]struct {
		handlers []map[string]any
		want     []string
	}{
		"no file named":             {[]map[string]any{{}}, []string{"clients", "without authentication"}},
		"a blank name":              {[]map[string]any{{"clients": " "}}, []string{"clients", "without authentication"}},
		"an unset variable":         {[]map[string]any{{"clients": "{env.SCEPGATE_TEST_UNSET}"}}, []string{"scep_api: clients"}},
		"an absent file":            {[]map[string]any{{"clients": s.path("absent.json")}}, []string{"scep_api: clients", s.path("absent.json"), "no such file"}},
		"an empty file":             {[]map[string]any{{"clients": write("empty.json", "", 0o600)}}, []string{"scep_api: clients", s.path("empty.json"), "is empty"}},
		"no clients":                {[]map[string]any{{"clients": write("none.json", "[]", 0o600)}}, []string{"scep_api: clients", "names no client"}},
		"a file that others read":   {[]map[string]any{{"clients": write("open.json", valid, 0o644)}}, []string{"scep_api: clients", "0644", "0600"}},
		"an unknown profile":        {[]map[string]any{{"clients": write("profile.json", strings.ReplaceAll(valid, "wifi", "vpn"), 0o600)}}, []string{"client jamf", "vpn"}},
		"a name in two files":       {[]map[string]any{{"clients": good}, {"clients": write("again.json", "["+fmt.Sprintf(validClient, hashOf("b"))+"]", 0o600)}}, []string{"is also in " + good}},
		"a public URL without host": {[]map[string]any{{"clients": good, "public_url": "scep"}}, []string{"public_url"}},
		"a public URL with a query": {[]map[string]any{{"clients": good, "public_url": "http://a/?b"}}, []string{"public_url"}},
	} {
		err := validate(s.apiConfig(t, "127.0.0.1:0", test.handlers...))
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
	if err := validate(s.apiConfig(t, "127.0.0.1:0", map[string]any{"clients": good})); err != nil {
		t.Error(err)
	}
	var config map[string]any
	if err := json.Unmarshal(s.apiConfig(t, "127.0.0.1:0", map[string]any{"clients": good}), &config); err != nil {
		t.Fatal(err)
	}
	delete(config["apps"].(map[string]any), "scep")
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(raw); err == nil || !strings.Contains(err.Error(), "there is no scep app") {
		t.Errorf("without the app: %v", err)
	}
}

func TestBatchesOverRealConnections(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			b := newAPIBench(t)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = b.h.ServeHTTP(w, r, nil)
			}))
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			server.Client().Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS12
			const lines = 2*batchWindow + 5
			// Everything is sent before anything is read: the answers must wait.
			var body bytes.Buffer
			for i := range lines {
				fmt.Fprintf(&body, `{"external_id":"x%d","subject":"CN=d%d","labels":{"a":%q}}`+"\n", i, i, strings.Repeat("a", 256))
			}
			for round := range 2 { // the second one finds the connection as the first left it
				r, err := http.NewRequest("POST", server.URL+batchPath+"?mode=upsert", bytes.NewReader(body.Bytes()))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+tokenJamf)
				res, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				if res.Proto != protocol || res.StatusCode != 200 {
					t.Errorf("%s, status %d", res.Proto, res.StatusCode)
				}
				got := 0
				scanner := bufio.NewScanner(res.Body)
				scanner.Buffer(nil, 1<<20)
				for scanner.Scan() {
					got++
					want := fmt.Sprintf(`{"line":%d,"status":%d,"expectation"`, got, 201-round)
					if !strings.HasPrefix(scanner.Text(), want) {
						t.Fatalf("line %d: %.100s", got, scanner.Text())
					}
				}
				res.Body.Close()
				if got != lines || scanner.Err() != nil {
					t.Errorf("%d lines, %v", got, scanner.Err())
				}
			}
		})
	}
}

func TestTheCommandsAreKnownToCaddy(t *testing.T) {
	command, ok := caddycmd.Commands()["scep"]
	if !ok || command.CobraFunc == nil {
		t.Fatal("no command scep")
	}
	if _, err := caddy.GetModule("http.handlers.scep_api"); err != nil {
		t.Error(err)
	}
}
