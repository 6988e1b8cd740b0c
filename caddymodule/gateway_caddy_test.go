package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func TestTheHandlerRunsInCaddyAndOverReloads(t *testing.T) {
	s := newSite(t) // before ownCaddy: its folder must outlive the store
	ownCaddy(t)
	address := freeAddress(t)
	load := func(floor string) {
		t.Helper()
		config := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	storage file_system %s
	storage_clean_interval off
	scep {
		store memory
		profile wifi {
			challenge gateway
			ra ndes1 {
				certificate %s
				key %s
			}
			ca_certificate %s
			renewal off
		}
	}
}
http://%s {
	handle /certsrv/* {
		scep_gateway wifi {
			refusal_floor %s
		}
		reverse_proxy 127.0.0.1:1
	}
	handle {
		scep_gateway wifi {
			health /healthz
		}
		reverse_proxy 127.0.0.1:1
	}
}
`, s.path("caddy"), s.path("ra.crt"), s.path("ra.key"), s.path("ca.crt"), address, floor)
		adapted, _, err := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}.Adapt([]byte(config), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(adapted, true); err != nil {
			t.Fatal(err)
		}
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(path string) int {
		t.Helper()
		res, err := client.Get("http://" + address + path)
		for range 5 { // a reload may reset what the old listener had not accepted
			if err == nil {
				break
			}
			res, err = client.Get("http://" + address + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	for _, floor := range []string{"100ms", "200ms"} {
		load(floor)
		for path, want := range map[string]int{
			"/healthz": 200, "/": 404, "/certsrv/mscep_admin/": 404, "/certsrv/mscep/?operation=x": 400,
			"/certsrv/mscep/mscep.dll?operation=GetCACaps": 502, // nobody listens there
			// The longest message by GET reaches the handler, and so does what is too long for it.
			scepPath + "?operation=PKIOperation&message=" + strings.Repeat("A", 64<<10):  400,
			scepPath + "?operation=PKIOperation&message=" + strings.Repeat("A", 95<<10):  413,
			scepPath + "?operation=PKIOperation&message=" + strings.Repeat("A", 100<<10): 414,
		} {
			if got := status(path); got != want {
				t.Errorf("%s: %d, want %d", path, got, want)
			}
		}
	}
}

func TestMetricsAreNamedAndLabelledAsTheContractSays(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.serve(post(w.message(device{})))
	registry := prometheus.NewPedanticRegistry()
	app := &App{Profiles: map[string]*Profile{"wifi": {}}, profiles: map[string]*running{"wifi": w.g.profile}}
	for range 2 { // two handlers of one configuration
		if err := registerMetrics(registry, app); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		got[f.GetName()] = labels(f)
	}
	for name, want := range map[string]string{
		"caddy_scep_decisions_total":                         "decision,message_type,profile,reason,",
		"caddy_scep_decision_duration_seconds":               "",
		"caddy_scep_store_operations_total":                  "engine,operation,result,",
		"caddy_scep_matcher_calls_total":                     "matcher,result,",
		"caddy_scep_upstream_replies_total":                  "profile,status,",
		"caddy_scep_ra_certificate_expiry_timestamp_seconds": "profile,ra,",
	} {
		if labels, ok := got[name]; !ok || labels != want {
			t.Errorf("%s{%s}, want {%s}", name, labels, want)
		}
	}
}

func labels(f *dto.MetricFamily) (names string) {
	for _, l := range f.GetMetric()[0].GetLabel() {
		names += l.GetName() + ","
	}
	return names
}
