package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/scepgate/scepgate/plugins/cases"
)

// adminBench is an admin endpoint, in front of one profile.
type adminBench struct {
	*httptest.Server
	wifi *running
	end  context.CancelFunc // of the configuration
}

// newAdminBench closes the endpoint, and proves that nothing of it is left.
func newAdminBench(t *testing.T) *adminBench {
	t.Helper()
	before := goleak.IgnoreCurrent()
	b := &adminBench{wifi: &running{name: "wifi"}}
	var life context.Context
	life, b.end = context.WithCancel(context.Background())
	app := &App{logger: zap.NewNop(), profiles: map[string]*running{"wifi": b.wifi}}
	a := &AdminAPI{active: func() (context.Context, *App, error) { return life, app, nil }}
	mux := http.NewServeMux()
	for _, route := range a.Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			var e caddy.APIError
			if err := route.Handler.ServeHTTP(w, r); errors.As(err, &e) {
				http.Error(w, e.Err.Error(), e.HTTPStatus)
			}
		})
	}
	b.Server = httptest.NewUnstartedServer(mux)
	// As Caddy's has one: it must not end a recording.
	b.Config.ReadTimeout = 100 * time.Millisecond
	b.Start()
	t.Cleanup(func() {
		b.end()
		b.Close()
		if len(recorders.now()) > 0 {
			t.Error("a recording has not ended")
		}
		goleak.VerifyNone(t, before)
	})
	return b
}

func (b *adminBench) get(t *testing.T, query string) *http.Response {
	t.Helper()
	res, err := b.Client().Get(b.URL + recordPath + "?" + query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// remaining reads to the end.
func remaining(t *testing.T, r io.Reader) []cases.Case {
	t.Helper()
	all, err := cases.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARecordingIsStreamedUntilItsLimit(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi&limit=3")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(res.StatusCode, res.Header)
	}
	lines := bufio.NewReader(res.Body)
	for range 2 { // each is there as soon as it is judged
		recorders.hand(b.wifi, judgedOK())
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"name":"dec_1: ok"`) {
			t.Fatal(line, err)
		}
	}
	for range 3 {
		recorders.hand(b.wifi, judgedOK())
	}
	if got := remaining(t, lines); len(got) != 1 {
		t.Errorf("%d cases beyond the limit of 3", len(got)-1)
	}
	if res.Trailer.Get(trailerEnded) != "limit" || res.Trailer.Get(trailerDropped) != "0" {
		t.Errorf("%v", res.Trailer)
	}
}

func TestARecordingEndsWithItsTimeAndNotWithTheServersReadTimeout(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi&for=500ms")
	if got := remaining(t, res.Body); len(got) != 0 || res.Trailer.Get(trailerEnded) != "time" {
		t.Errorf("%d cases, %v", len(got), res.Trailer)
	}
}

func TestARecordingEndsWithItsConfiguration(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi")
	b.end()
	if remaining(t, res.Body); res.Trailer.Get(trailerEnded) != "configuration" {
		t.Errorf("%v", res.Trailer)
	}
}

func TestARecordingEndsWhenItsReaderGoes(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi&for=24h")
	if len(recorders.now()) != 1 {
		t.Fatalf("%d recordings", len(recorders.now()))
	}
	res.Body.Close()
	closed := make(chan struct{})
	go func() {
		b.Close() // waits for what is served
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the recording goes on")
	}
}

func TestTheDroppedAreTold(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi&limit=1")
	recorders.now()[0].dropped.Add(5)
	recorders.hand(b.wifi, judgedOK())
	if remaining(t, res.Body); res.Trailer.Get(trailerDropped) != "5" {
		t.Errorf("%v", res.Trailer)
	}
}

func TestACaseThatCouldNotBeReadAgainIsDropped(t *testing.T) {
	b := newAdminBench(t)
	res := b.get(t, "profile=wifi&limit=1")
	large := judgedOK()
	large.ID = strings.Repeat("x", cases.MaxLine)
	recorders.hand(b.wifi, large)
	recorders.hand(b.wifi, judgedOK())
	if got := remaining(t, res.Body); len(got) != 1 || res.Trailer.Get(trailerDropped) != "1" {
		t.Errorf("%d cases, %v", len(got), res.Trailer)
	}
}

func TestOneRecordingTooManyIsTurnedAway(t *testing.T) {
	b := newAdminBench(t)
	for range maxRecordings {
		begin(t, b.wifi)
	}
	res := b.get(t, "profile=wifi")
	if res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	b := newAdminBench(t)
	for query, want := range map[string]int{
		"":                          400,
		"profile=":                  400,
		"profile=vpn":               404,
		"profile=wifi&profile=wifi": 400,
		"profile=wifi&limit=0":      400,
		"profile=wifi&limit=-1":     400,
		"profile=wifi&limit=10001":  400,
		"profile=wifi&limit=x":      400,
		"profile=wifi&for=0s":       400,
		"profile=wifi&for=25h":      400,
		"profile=wifi&for=x":        400,
		"profile=wifi&" + url.QueryEscape("\x1b[2J"): 400,
		"profile=wifi;limit=1":                       400,
	} {
		if res := b.get(t, query); res.StatusCode != want {
			t.Errorf("%q: %d, want %d", query, res.StatusCode, want)
		}
	}
	res, err := b.Client().Post(b.URL+recordPath+"?profile=wifi", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", res.StatusCode)
	}
}

func TestWithoutAConfigurationNothingCanBeRecorded(t *testing.T) {
	ownCaddy(t)
	if _, _, err := activeApp(); err == nil {
		t.Error("there is an app")
	}
}
