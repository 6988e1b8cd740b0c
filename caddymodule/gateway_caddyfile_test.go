package caddymodule

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func parsedGateway(text string) (*Gateway, error) {
	g := new(Gateway)
	return g, g.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
}

func TestTheGatewayBlockIsRead(t *testing.T) {
	got, err := parsedGateway(`scep_gateway wifi {
		path /a /b/
		max_message 32KiB
		ca_cache 2m
		refusal_floor 100ms
		upstream_timeout 30s
		max_concurrent 8
		health /healthz
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Gateway{
		Profile: "wifi", Paths: []string{"/a", "/b/"}, MaxMessage: 32 << 10, CACache: caddy.Duration(2 * time.Minute),
		RefusalFloor: caddy.Duration(100 * time.Millisecond), UpstreamTimeout: caddy.Duration(30 * time.Second), MaxConcurrent: 8, Health: "/healthz",
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Gateway{})); diff != "" {
		t.Error(diff)
	}
}

func TestTheDefaultsAreTheContracts(t *testing.T) {
	g, err := parsedGateway("scep_gateway wifi")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.normalize(); err != nil {
		t.Fatal(err)
	}
	want := &Gateway{
		Profile: "wifi", Paths: defaultPaths, MaxMessage: 64 << 10, CACache: caddy.Duration(time.Minute),
		RefusalFloor: caddy.Duration(250 * time.Millisecond), UpstreamTimeout: caddy.Duration(time.Minute), MaxConcurrent: 64,
	}
	if diff := cmp.Diff(want, g, cmpopts.IgnoreUnexported(Gateway{})); diff != "" {
		t.Error(diff)
	}
}

func TestOptionsThatCannotBeAreErrors(t *testing.T) {
	for _, text := range []string{
		"scep_gateway", "scep_gateway a b", "scep_gateway wifi {\n unknown x\n}", "scep_gateway wifi {\n path\n}",
		"scep_gateway wifi {\n path relative\n}", "scep_gateway wifi {\n path /a/../b\n}", "scep_gateway wifi {\n path /a%20b\n}",
		"scep_gateway wifi {\n path /a /A\n}", "scep_gateway wifi {\n health /certsrv/MSCEP\n}", "scep_gateway wifi {\n health x\n}",
		"scep_gateway wifi {\n max_message 1\n}", "scep_gateway wifi {\n max_message 1MiB\n}", "scep_gateway wifi {\n max_message x\n}", "scep_gateway wifi {\n max_message 0\n}",
		"scep_gateway wifi {\n max_concurrent 0\n}", "scep_gateway wifi {\n max_concurrent -1\n}", "scep_gateway wifi {\n max_concurrent 99999\n}",
		"scep_gateway wifi {\n refusal_floor 0\n}", "scep_gateway wifi {\n refusal_floor 1h\n}", "scep_gateway wifi {\n ca_cache -1s\n}",
		"scep_gateway wifi {\n upstream_timeout 1ms\n}", "scep_gateway wifi {\n health /a\n health /b\n}", "scep_gateway wifi {\n ca_cache 1m 2m\n}",
	} {
		if g, err := parsedGateway(text); err == nil {
			t.Errorf("%q: no error, %+v", text, g)
		}
	}
	for _, g := range []*Gateway{{}, {Profile: "x", MaxMessage: -1}, {Profile: "x", MaxConcurrent: -1}, {Profile: "x", RefusalFloor: -1}} {
		if err := g.normalize(); err == nil {
			t.Errorf("%+v: no error", g)
		}
	}
}

func TestTheHandlerIsOrderedWithTheGates(t *testing.T) {
	// Adapted, not looked up: the order matters, not how it is registered.
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	config, _, err := adapter.Adapt([]byte(":8080 {\n reverse_proxy 127.0.0.1:1\n handle /x {\n respond x\n }\n scep_gateway wifi\n forward_auth 127.0.0.1:2 {\n uri /\n }\n}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	at := func(what string) int { return strings.Index(text, what) }
	order := []int{at("127.0.0.1:2"), at(`"scep_gateway"`), at(`"static_response"`), at("127.0.0.1:1")}
	if !slices.IsSorted(order) || order[0] < 0 {
		t.Errorf("order %v in %s", order, text)
	}
}

func TestWhatIsLoggedShowsAsWhatItIs(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü": "plain ü", "a\r\nb": `a\u{000D}\u{000A}b`, "\xff": `\xFF`, "\u202e": `\u{202E}`, "\u200b": `\u{200B}`, "\x1b[1m": `\u{001B}[1m`,
	} {
		if got := printable(in, 100); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := printable(strings.Repeat("a", 1000), 10); got != "aaaaaaaaaa…" {
		t.Errorf("%q", got)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x00\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s, 50)
		if len(got) > 50+len("…") || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x1b\x00\u202e") {
			t.Errorf("%q", got)
		}
	})
}
