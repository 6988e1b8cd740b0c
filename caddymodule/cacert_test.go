package caddymodule

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/scepgate/scepgate/inspector"
)

func TestGetCACapsAndGetCACertArePassedOn(t *testing.T) {
	w := newWorld(t)
	rec := w.serve(get("operation=GetCACaps&message=whatever"))
	if rec.Code != 200 || rec.Body.String() != w.ndes.caps || rec.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("GetCACaps: %d %q %v", rec.Code, rec.Body, rec.Header())
	}
	rec = w.serve(get("operation=GetCACert"))
	if rec.Code != 200 || rec.Body.String() != string(bundleOf(w.ndes.bundle...)) || rec.Header().Get("Content-Type") != "application/x-x509-ca-ra-cert" {
		t.Errorf("GetCACert: %d %v", rec.Code, rec.Header())
	}
	head := w.serve(httptest.NewRequest(http.MethodHead, scepPath+"?operation=GetCACert", nil))
	if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != fmt.Sprint(rec.Body.Len()) {
		t.Errorf("HEAD: %d %d %v", head.Code, head.Body.Len(), head.Header())
	}
	for _, s := range w.ndes.seen {
		if s.method != http.MethodGet || strings.Contains(s.query, "message") || s.host != "" || len(s.header) != 1 {
			t.Errorf("NDES was asked %+v", s)
		}
	}
	if len(w.decisions()) != 0 {
		t.Error("there was nothing to decide")
	}
}

func TestAnswersAreKeptForCACacheWhateverTheDeviceAsks(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		for i := range 5 {
			w.serve(get(fmt.Sprintf("operation=GetCACaps&message=%d", i)))
		}
		if n := w.ndes.count("GetCACaps"); n != 1 {
			t.Errorf("NDES was asked %d times", n)
		}
		time.Sleep(time.Minute)
		w.serve(get("operation=GetCACaps"))
		if n := w.ndes.count("GetCACaps"); n != 2 {
			t.Errorf("after ca_cache NDES was asked %d times", n)
		}
	})
}

func TestOneFetchRunsForEverybody(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		go_ := make(chan struct{})
		w.ndes.ca = func(rw http.ResponseWriter, _ *http.Request) error {
			<-go_
			_, err := io.WriteString(rw, "AES\n")
			return err
		}
		var codes [20]int
		var all sync.WaitGroup
		for i := range codes {
			all.Go(func() { codes[i] = w.serveAlone(get("operation=GetCACaps")) })
		}
		synctest.Wait()
		close(go_)
		all.Wait()
		if n := w.ndes.count("GetCACaps"); n != 1 {
			t.Errorf("NDES was asked %d times", n)
		}
		for _, code := range codes {
			if code != 200 {
				t.Errorf("somebody got %d", code)
			}
		}
	})
}

// serveAlone is serve for concurrent use.
func (w *world) serveAlone(r *http.Request) int {
	rec := httptest.NewRecorder()
	if err := w.g.ServeHTTP(rec, prepared(r, rec), w.ndes); err != nil {
		return -1
	}
	return rec.Code
}

func TestTheLastGoodAnswerIsGivenWhileNDESCannotBeReached(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		if rec := w.serve(get("operation=GetCACaps")); rec.Code != 200 {
			t.Fatal(rec.Code)
		}
		w.ndes.ca = func(http.ResponseWriter, *http.Request) error { return errBroken }
		time.Sleep(2 * time.Minute)
		if rec := w.serve(get("operation=GetCACaps")); rec.Code != 200 {
			t.Errorf("two minutes later: %d", rec.Code)
		}
		time.Sleep(time.Hour)
		if rec := w.serve(get("operation=GetCACaps")); rec.Code != 502 {
			t.Errorf("an hour later: %d", rec.Code)
		}
		asked := w.ndes.count("GetCACaps")
		w.serve(get("operation=GetCACaps"))
		if n := w.ndes.count("GetCACaps"); n != asked {
			t.Error("a failed fetch was repeated at once")
		}
		w.ndes.ca = nil
		time.Sleep(caPause)
		if rec := w.serve(get("operation=GetCACaps")); rec.Code != 200 {
			t.Errorf("when NDES is back: %d", rec.Code)
		}
	})
}

func TestWhatNDESPublishesIsPassedOnOnlyIfItIsAsConfigured(t *testing.T) {
	w := newWorld(t)
	other := issueCertificate(t, &x509.Certificate{Subject: commonName("Other CA"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, strangerKey().Public(), strangerKey())
	root := issueCertificate(t, &x509.Certificate{Subject: commonName("Root"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, strangerKey().Public(), strangerKey())
	sub := issueCertificate(t, &x509.Certificate{Subject: commonName("Test CA"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, root, siteCAKey().Public(), strangerKey())
	stranger := issueCertificate(t, newSiteRATemplate(), other, strangerKey().Public(), strangerKey())
	agentOf := func(ca *x509.Certificate, change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{Subject: commonName("Agent"), KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEnrollmentAgent}}
		if change != nil {
			change(c)
		}
		key := siteCAKey()
		if ca == other {
			key = strangerKey()
		}
		return issueCertificate(t, c, ca, agentKey().Public(), key)
	}
	rollover := newSiteRA(t, w.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	for _, tc := range []struct {
		name   string
		bundle []*x509.Certificate
		code   int
		event  bool
	}{
		{"CA, RA and NDES's signer", []*x509.Certificate{w.agent, w.ra, w.ca}, 200, false},
		{"without the signer", []*x509.Certificate{w.ra, w.ca}, 200, false},
		{"no CA", []*x509.Certificate{w.agent, w.ra}, 502, false},
		{"no RA", []*x509.Certificate{w.agent, w.ca}, 502, false},
		{"a foreign CA", []*x509.Certificate{w.agent, w.ra, w.ca, other}, 502, false},
		{"an RA of a foreign CA", []*x509.Certificate{w.agent, w.ra, w.ca, stranger}, 502, true},
		{"an RA that we hold no key for", []*x509.Certificate{w.agent, w.ra, w.ca, rollover}, 502, true},
		{"a signer of a foreign CA", []*x509.Certificate{agentOf(other, nil), w.ra, w.ca}, 502, false},
		{"an expired signer", []*x509.Certificate{agentOf(w.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), w.ra, w.ca}, 502, false},
		{"a signer without the agent's usage", []*x509.Certificate{agentOf(w.ca, func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), w.ra, w.ca}, 502, false},
		{"a signer without digitalSignature", []*x509.Certificate{agentOf(w.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }), w.ra, w.ca}, 502, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.g.ca, w.events = caCache{}, nil
			w.ndes.bundle = tc.bundle
			rec := w.serve(get("operation=GetCACert"))
			if rec.Code != tc.code {
				t.Errorf("got %d, want %d: %v", rec.Code, tc.code, w.logs.All()[len(w.logs.All())-1].ContextMap())
			}
			if got := slices.Contains(w.eventNames(), "ra.certificate_unknown"); got != tc.event {
				t.Errorf("events %v", w.eventNames())
			}
		})
	}
	t.Run("with the chain up to the root", func(t *testing.T) {
		w.g.ca = caCache{}
		w.files(func(f *profileFiles) { f.cas = []*x509.Certificate{sub} })
		w.ndes.bundle = []*x509.Certificate{root, w.ra, sub}
		if rec := w.serve(get("operation=GetCACert")); rec.Code != 200 {
			t.Errorf("got %d", rec.Code)
		}
	})
	t.Run("a bare certificate where the RA is the CA", func(t *testing.T) {
		w.g.ca = caCache{}
		w.files(func(f *profileFiles) {
			f.cas, f.ras = []*x509.Certificate{w.ca}, []raIdentity{{name: "ca", certificate: w.ca}}
		})
		w.ndes.ca = func(rw http.ResponseWriter, _ *http.Request) error {
			rw.Header().Set("Content-Type", "application/x-x509-ca-cert")
			_, err := rw.Write(w.ca.Raw)
			return err
		}
		if rec := w.serve(get("operation=GetCACert")); rec.Code != 200 || rec.Header().Get("Content-Type") != "application/x-x509-ca-cert" {
			t.Errorf("got %d", rec.Code)
		}
	})
}

func TestAnUnknownRAIsNotHiddenByTheCache(t *testing.T) {
	w := newWorld(t)
	if rec := w.serve(get("operation=GetCACert")); rec.Code != 200 {
		t.Fatal(rec.Code)
	}
	w.ndes.bundle = append(w.ndes.bundle, newSiteRA(t, w.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }))
	w.g.CACache = 1
	if rec := w.serve(get("operation=GetCACert")); rec.Code != 502 {
		t.Errorf("got %d", rec.Code)
	}
}

func TestAnswersThatAreNotCapabilitiesAreNotPassedOn(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"a page": func(rw http.ResponseWriter) {
			rw.Header().Set("Content-Type", "text/html")
			io.WriteString(rw, "<html>")
		},
		"binary":      func(rw http.ResponseWriter) { rw.Write([]byte{0, 1}) },
		"too much":    func(rw http.ResponseWriter) { io.WriteString(rw, strings.Repeat("A", maxCaps+1)) },
		"a redirect":  func(rw http.ResponseWriter) { rw.WriteHeader(301) },
		"nothing":     func(rw http.ResponseWriter) { rw.WriteHeader(200) },
		"compressed":  func(rw http.ResponseWriter) { rw.Header().Set("Content-Encoding", "gzip"); io.WriteString(rw, "AES") },
		"cut short":   func(rw http.ResponseWriter) { rw.Header().Set("Content-Length", "99"); io.WriteString(rw, "AES") },
		"unavailable": func(rw http.ResponseWriter) { rw.WriteHeader(503) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ndes.ca = func(rw http.ResponseWriter, _ *http.Request) error { answer(rw); return nil }
			if rec := w.serve(get("operation=GetCACaps")); rec.Code != 502 {
				t.Errorf("got %d", rec.Code)
			}
			if line, _ := w.lastReason(); line != "enrollment failed" {
				t.Errorf("recorded %q", line)
			}
		})
	}
}

func TestASignerIsFoundAfterNDESRenewedItAndAskedForOnce(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.ndes.bundle = []*x509.Certificate{w.ra, w.ca}
	if rec := w.serve(get("operation=GetCACert")); rec.Code != 200 {
		t.Fatal(rec.Code)
	}
	// Known for less than ten seconds: not asked again.
	if rec := w.serve(post(w.message(device{}))); rec.Code != 502 || w.ndes.count("GetCACert") != 1 {
		t.Errorf("%d after asking %d times", rec.Code, w.ndes.count("GetCACert"))
	}
	w.ndes.bundle = []*x509.Certificate{w.agent, w.ra, w.ca}
	w.g.ca.entry(caKey{operation: inspector.GetCACert}).good.at = time.Now().Add(-signerPause)
	if rec := w.serve(post(w.message(device{}))); rec.Code != 200 || w.ndes.count("GetCACert") != 2 {
		t.Errorf("%d after asking %d times", rec.Code, w.ndes.count("GetCACert"))
	}
}

func TestWhoMaySignForNDES(t *testing.T) {
	for _, tc := range []struct {
		name  string
		setup func(w *world) (signer *x509.Certificate)
		code  int
	}{
		{"the CA", func(w *world) *x509.Certificate { return w.ca }, 200},
		{"the agent that NDES publishes", func(w *world) *x509.Certificate { return w.agent }, 200},
		{"an RA with digitalSignature", func(w *world) *x509.Certificate {
			both := newSiteRA(w.t, w.ca, nil)
			w.files(func(f *profileFiles) {
				f.ras = append(slices.Clone(f.ras), raIdentity{name: "both", certificate: both, key: siteRAKey()})
			})
			return both
		}, 200},
		{"a pinned one", func(w *world) *x509.Certificate {
			w.files(func(f *profileFiles) { f.pins = []*x509.Certificate{w.agent} })
			return w.agent
		}, 200},
		{"the CA beside a pin", func(w *world) *x509.Certificate {
			w.files(func(f *profileFiles) { f.pins = []*x509.Certificate{w.agent} })
			return w.ca
		}, 502},
		{"an agent that NDES does not publish", func(w *world) *x509.Certificate {
			w.ndes.bundle = []*x509.Certificate{w.ra, w.ca}
			return w.agent
		}, 502},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.register()
			signer := tc.setup(w)
			key := siteCAKey()
			switch {
			case signer.Equal(w.agent):
				key = agentKey()
			case !signer.Equal(w.ca):
				key = siteRAKey()
			}
			w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error {
				return writeCertRep(rw, w.successBy(m, signer, key))
			}
			if rec := w.serve(post(w.message(device{}))); rec.Code != tc.code {
				_, reason := w.lastReason()
				t.Errorf("got %d (%s), want %d", rec.Code, reason, tc.code)
			}
		})
	}
}

func TestEveryNodeOfNDESIsAskedForItself(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.files(func(f *profileFiles) {
		f.ras = []raIdentity{{name: "node0", certificate: w.ca, upstream: "node0:80"}, {name: "ndes1", certificate: w.ra, key: siteRAKey(), upstream: "node1:80"}}
	})
	if rec := w.serve(post(w.message(device{}))); rec.Code != 200 {
		t.Fatal(rec.Code)
	}
	for _, s := range w.ndes.seen {
		if s.upstream != "node1:80" {
			t.Errorf("%s went to %q", s.query[:20], s.upstream)
		}
	}
	w.serve(get("operation=GetCACaps"))
	if last := w.ndes.seen[len(w.ndes.seen)-1]; last.upstream != "node0:80" {
		t.Errorf("a device's GetCACaps went to %q", last.upstream)
	}
}

func TestExpiringCertificatesAreReportedOncePerThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ra := &x509.Certificate{NotAfter: time.Now().Add(61 * day), SerialNumber: siteSerial}
		r := &running{name: "wifi"}
		var at []int
		watch := newExpiryWatch(r, func(name string, data map[string]any) {
			if name != "ra.certificate_expiring" || data["profile"] != "wifi" || data["ra"] != "ndes1" {
				t.Errorf("%s %v", name, data)
			}
			at = append(at, data["days_left"].(int))
		})
		ctx, cancel := context.WithCancel(t.Context())
		r.files.Store(&profileFiles{ras: []raIdentity{{name: "ndes1", certificate: ra}}})
		watch.wake(ctx)
		watch.wake(ctx)
		for range 61 {
			time.Sleep(day)
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if want := []int{60, 30, 7}; !slices.Equal(at, want) {
			t.Errorf("reported at %v days, want %v", at, want)
		}
	})
}

func TestAFloodIsCutByTheQueueNotByMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 2, time.Hour)
		release, err := s.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				if _, err := s.acquire(ctx); err == nil {
					t.Error("a slot out of nothing")
				}
			})
		}
		synctest.Wait()
		if _, err := s.acquire(ctx); err == nil {
			t.Error("a third may wait")
		}
		cancel()
		wait.Wait()
		release()
		if release, err = s.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		release()
	})
}

func prepared(r *http.Request, rec *httptest.ResponseRecorder) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, nil)
}
