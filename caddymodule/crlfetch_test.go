package caddymodule

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// roundTrip is a server in the test's own goroutines.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func httpReply(status int, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"http://elsewhere/"}}, Body: io.NopCloser(bytes.NewReader(body))}
}

func TestACRLIsFetchedAtOnceAndAgainBeforeItEnds(t *testing.T) {
	ca := newSiteCA(t)
	siteCAKey()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		f := newCRLFetcher([]string{"http://ca/a.crl"}, zap.New(core), time.Now)
		defer f.close()
		var count atomic.Int32
		var broken atomic.Bool
		f.client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			count.Add(1)
			if broken.Load() {
				return nil, errors.New("connection refused")
			}
			return httpReply(200, newCRL(t, ca, siteCAKey(), time.Now(), func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(40 * time.Minute) })), nil
		})
		rev := &revocation{cas: []*x509.Certificate{ca}, fetched: f.fetched(), now: time.Now}
		after := func(d time.Duration, want int, fresh bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if asked := int(count.Load()); asked != want || rev.fresh() != fresh {
				t.Errorf("asked %d times, want %d; fresh %v", asked, want, rev.fresh())
			}
		}
		f.trust(rev.cas)
		after(time.Hour, 0, false) // nothing is fetched before start
		f.start()
		f.start()
		after(0, 1, true)
		after(20*time.Minute-1, 1, true)
		after(1, 2, true) // half of its time is over
		broken.Store(true)
		after(20*time.Minute, 3, true)
		after(crlRetryFirst, 4, true)
		after(2*crlRetryFirst, 5, true)
		// From here on it has ended.
		after(20*time.Minute, 9, false)
		before := int(count.Load())
		after(time.Hour, before+6, false) // bounded
		if n := logs.FilterMessage("CRL could not be fetched").Len(); n != before+4 {
			t.Errorf("%d of %d failures are logged", n, before+4)
		}
		broken.Store(false)
		after(crlRetryMost, before+7, true)
		f.trust(rev.cas) // files were loaded
		after(0, before+8, true)
		f.halt()
		f.halt()
		after(time.Hour, before+8, false)
	})
}

func TestWhatIsNotACurrentCRLChangesNothing(t *testing.T) {
	ca, now := newSiteCA(t), time.Now()
	held := must(parseCRL("x", newCRL(t, ca, siteCAKey(), now, nil, big.NewInt(7)), []*x509.Certificate{ca}, now))
	older := newCRL(t, ca, siteCAKey(), now.Add(-10*time.Minute), nil)
	for name, test := range map[string]struct {
		res  *http.Response
		want string
	}{
		"not found":      {httpReply(404, newCRL(t, ca, siteCAKey(), now, nil)), "the server answered 404"},
		"a redirect":     {httpReply(302, nil), "the server answered 302"},
		"a page":         {httpReply(200, []byte("<html>")), "is not a CRL"},
		"too much":       {httpReply(200, make([]byte, maxCRLSize+1)), "is larger"},
		"one that ended": {httpReply(200, newCRL(t, ca, siteCAKey(), now.Add(-time.Hour), nil)), "expired"},
		"an older one":   {httpReply(200, older), "older than the one in use"},
	} {
		f := newCRLFetcher([]string{"http://ca/" + name}, zap.NewNop(), func() time.Time { return now })
		f.trust([]*x509.Certificate{ca})
		asked := 0
		f.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			test.res.Request = r
			return test.res, nil
		})
		f.slots[0].held.Store(held)
		if _, err := f.fetch(t.Context(), f.slots[0]); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "html") {
			t.Errorf("%s: want %q, got %v", name, test.want, err)
		}
		if f.slots[0].held.Load() != held || asked != 1 {
			t.Errorf("%s: the list in use was replaced, or %d requests were made", name, asked)
		}
		f.close()
	}
}

func TestAURLThatDoesNotAnswerDoesNotFailTheLoad(t *testing.T) {
	var asked atomic.Int32
	var answer atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if body := answer.Load(); body != nil {
			w.Write(*body)
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	ownCaddy(t)
	s := newSite(t)
	config := caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{"wifi": s.renewing(server.URL + "/a.crl")})
	if err := validate(config); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 0 {
		t.Fatalf("validate fetched %d times", n)
	}
	app := load(t, config)
	wait(t, func() bool { return asked.Load() > 0 })
	if app.profile("wifi").crlsFresh() {
		t.Error("fresh without a CRL")
	}
	crl := newCRL(t, s.ca, siteCAKey(), time.Now(), nil)
	answer.Store(&crl)
	app.profile("wifi").fetcher.trust([]*x509.Certificate{s.ca}) // as a file that changed does
	wait(t, app.profile("wifi").crlsFresh)

	// A reload does not begin without what is there already.
	answer.Store(nil)
	p := s.renewing(server.URL + "/a.crl")
	p.Allow = []string{"patterns"}
	second := load(t, caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{"wifi": p}))
	if second == app || !second.profile("wifi").crlsFresh() {
		t.Error("the reload forgot the CRL")
	}
	if n, _ := crlSlots.References(server.URL + "/a.crl"); n != 1 {
		t.Errorf("%d references", n)
	}
}

// wait waits until something happens that another goroutine does.
func wait(t testing.TB, happened func() bool) {
	t.Helper()
	for range 1000 {
		if happened() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen")
}

func TestAFetcherLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	f := newCRLFetcher([]string{server.URL + "/a", server.URL + "/b"}, zap.NewNop(), time.Now)
	f.start()
	f.close() // in the middle of a fetch
	close(hang)
	server.Close()
	goleak.VerifyNone(t, before)
	if _, ok := crlSlots.References(server.URL + "/a"); ok {
		t.Error("a slot was left in the pool")
	}
	var none *crlFetcher
	none.start()
	none.trust(nil)
	none.close()
	if none.fetched() != nil {
		t.Error("nothing fetches something")
	}
}
