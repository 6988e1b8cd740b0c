package caddymodule

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

func TestAnHonestDeviceGetsNDESsAnswerUnaltered(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	var sent []byte
	w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error {
		sent = w.success(m)
		rw.Header().Set("Content-Type", "Application/X-PKI-Message; charset=binary")
		rw.Header().Set("Set-Cookie", "a=b")
		_, err := rw.Write(sent)
		return err
	}
	rec := w.serve(post(w.message(device{})))
	if rec.Code != 200 || !bytes.Equal(rec.Body.Bytes(), sent) {
		t.Fatalf("got %d and %d bytes, want 200 and %d", rec.Code, rec.Body.Len(), len(sent))
	}
	want := http.Header{
		"Content-Type": {"Application/X-PKI-Message; charset=binary"}, "Content-Length": {fmt.Sprint(len(sent))},
		"Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
	}
	if diff := cmp.Diff(want, rec.Header()); diff != "" {
		t.Error(diff)
	}
	if got := w.expectation(e.ID).State; got != store.Issued {
		t.Errorf("state %s, want issued", got)
	}
	if got, want := w.eventNames(), []string{"enrollment.forwarded", "enrollment.issued"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestWhatIsForwardedIsExactlyTheJudgedMessageOnce(t *testing.T) {
	for _, tc := range []struct {
		name, caps string
		byGET      bool
		method     string
	}{
		{"by POST where NDES takes it", "POSTPKIOperation\n", false, http.MethodPost},
		{"by POST also if the device used GET", "POSTPKIOperation\r\nAES\r\n", true, http.MethodPost},
		{"by GET where NDES does not", "SHA-1\n", false, http.MethodGet},
		{"by GET where NDES has no capabilities", "", true, http.MethodGet},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.register()
			w.ndes.caps = tc.caps
			if tc.caps == "" {
				w.ndes.ca = func(rw http.ResponseWriter, r *http.Request) error {
					if strings.Contains(r.URL.RawQuery, "GetCACaps") {
						panic(http.ErrAbortHandler)
					}
					rw.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
					_, err := rw.Write(bundleOf(w.ndes.bundle...))
					return err
				}
			}
			message := w.message(device{})
			r := post(message)
			if tc.byGET {
				r = get("operation=PKIOperation&message=" + url.QueryEscape(base64.StdEncoding.EncodeToString(message)))
			} else { // chunked, with a trailer
				r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
				r.Trailer = http.Header{"X-Late": {"1"}}
			}
			for _, h := range []string{"X-Original-URL", "X-Forwarded-For", "Idempotency-Key", "X-Http-Method-Override", "Cookie", "Range"} {
				r.Header.Set(h, "/certsrv/mscep_admin")
			}
			if rec := w.serve(r); rec.Code != 200 {
				t.Fatalf("got %d: %v", rec.Code, w.decisions())
			}
			all := w.ndes.enrolments()
			if len(all) != 1 {
				t.Fatalf("NDES saw %d messages", len(all))
			}
			got := all[0]
			raw := got.body
			want := http.Header{"User-Agent": {"scepgate"}}
			if tc.method == http.MethodPost {
				want.Set("Content-Type", mediaPKIMessage)
				if got.query != "operation=PKIOperation" || got.length != int64(len(message)) {
					t.Errorf("query %q, length %d", got.query, got.length)
				}
			} else {
				text, ok := strings.CutPrefix(got.query, "operation=PKIOperation&message=")
				if !ok || strings.ContainsAny(text, "+/=") || got.length != 0 || len(got.body) != 0 {
					t.Errorf("query is not canonical, or there is a body of %d bytes", len(got.body))
				}
				raw = must(base64.StdEncoding.DecodeString(must(url.QueryUnescape(text))))
			}
			if hexSHA256(raw) != hexSHA256(message) {
				t.Error("other bytes than the judged ones were forwarded")
			}
			if diff := cmp.Diff(want, got.header); diff != "" {
				t.Error(diff)
			}
			if got.method != tc.method || got.path != scepPath || got.host != "" || got.getBody || len(got.transfer) != 0 || len(got.trailer) != 0 {
				t.Errorf("forwarded %+v", got)
			}
			for _, text := range []string{got.requestURI, got.original.RequestURI, got.original.URL.String()} {
				if strings.Contains(text, "message") {
					t.Errorf("%q carries the message", text)
				}
			}
		})
	}
}

func TestEveryRowOfTheStatusTable(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	honest := w.message(device{})
	b64 := url.QueryEscape(base64.StdEncoding.EncodeToString(honest))
	request := func(method, target string, body io.Reader) *http.Request {
		return httptest.NewRequest(method, target, body)
	}
	atPath := func(path string) *http.Request {
		r := get("operation=GetCACaps")
		u, err := url.ParseRequestURI(path)
		if err != nil {
			u = &url.URL{Path: path}
		}
		u.RawQuery = "operation=GetCACaps"
		r.URL = u
		return r
	}
	for _, tc := range []struct {
		name string
		r    *http.Request
		code int
	}{
		{"the admin page", atPath("/certsrv/mscep_admin/"), 404},
		{"escaped dots", atPath("/certsrv/mscep/%2e%2e/mscep_admin/"), 404},
		{"an escaped letter", atPath("/certsrv/msce%70"), 404},
		{"a backslash", atPath(`/certsrv\mscep`), 404},
		{"a semicolon", atPath("/certsrv/mscep;x"), 404},
		{"two slashes", atPath("//certsrv/mscep"), 404},
		{"dots", atPath("/certsrv/mscep/../mscep"), 404},
		{"a suffix", atPath("/certsrv/mscep/mscep.dll/x"), 404},
		{"a long s that folds to s", atPath("/cert\u017frv/mscep"), 404},
		{"another case", atPath("/CertSrv/MSCEP/mscep.DLL"), 200},
		{"the application's root", atPath("/certsrv/mscep"), 200},
		{"with pkiclient", atPath("/certsrv/mscep/mscep.dll/pkiclient.exe"), 200},
		{"PUT", request(http.MethodPut, scepPath+"?operation=PKIOperation", nil), 405},
		{"OPTIONS", request(http.MethodOptions, scepPath, nil), 405},
		{"HEAD of PKIOperation", request(http.MethodHead, scepPath+"?operation=PKIOperation&message="+b64, nil), 405},
		{"HEAD of GetCACaps", request(http.MethodHead, scepPath+"?operation=GetCACaps", nil), 200},
		{"HEAD of GetCACert", request(http.MethodHead, scepPath+"?operation=GetCACert&message=x", nil), 200},
		{"GetNextCACert", get("operation=GetNextCACert"), 404},
		{"NDESGenerateChallenge", get("operation=NDESGenerateChallenge"), 400},
		{"another spelling", get("operation=getcacaps"), 400},
		{"operation twice", get("operation=GetCACaps&operation=PKIOperation"), 400},
		{"an unknown parameter", get("operation=GetCACaps&x=1"), 400},
		{"a bad escape", get("operation=GetCACaps&message=%zz"), 400},
		{"a semicolon in the query", get("operation=GetCACaps;operation=PKIOperation"), 400},
		{"one stray question mark", get("?operation=GetCACaps"), 200},
		{"POST with message", request(http.MethodPost, scepPath+"?operation=PKIOperation&message="+b64, bytes.NewReader(honest)), 400},
		{"GET with a body", request(http.MethodGet, scepPath+"?operation=GetCACaps", strings.NewReader("x")), 400},
		{"bad base64", get("operation=PKIOperation&message=%21%21"), 400},
		{"a query that is too long", get("operation=PKIOperation&message=" + strings.Repeat("A", 97<<10)), 414},
		{"a message that is too large", post(make([]byte, 64<<10+1)), 413},
		{"an empty body", post(nil), 400},
		{"rubbish", post([]byte("rubbish")), 400},
		{"trailing bytes", post(append(bytes.Clone(honest), 0)), 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := w.serve(tc.r)
			if rec.Code != tc.code {
				t.Fatalf("got %d, want %d", rec.Code, tc.code)
			}
			if got := rec.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			if tc.r.Method == http.MethodHead && rec.Body.Len() != 0 {
				t.Error("HEAD with a body")
			}
			if tc.code == 405 && rec.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if tc.code >= 400 && tc.r.Method != http.MethodHead {
				want := fmt.Sprintf("%d %s\n", tc.code, strings.ToLower(http.StatusText(tc.code)))
				if rec.Body.String() != want || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain") {
					t.Errorf("body %q of type %q, want %q", rec.Body, rec.Header().Get("Content-Type"), want)
				}
			}
		})
	}
	encoded := post(honest)
	encoded.Header.Set("Content-Encoding", "gzip")
	if rec := w.serve(encoded); rec.Code != 400 {
		t.Errorf("Content-Encoding: got %d", rec.Code)
	}
	chunked := post(make([]byte, 64<<10+1))
	chunked.ContentLength = -1
	if rec := w.serve(chunked); rec.Code != 413 {
		t.Errorf("unknown length over the limit: got %d", rec.Code)
	}
	if n := len(w.ndes.enrolments()); n != 0 {
		t.Errorf("%d of them were forwarded", n)
	}
	if got := w.expectation(e.ID).State; got != store.Registered {
		t.Errorf("state %s", got)
	}
}

func TestALimitBeforeTheGatewaySurfacesAsItsOwnError(t *testing.T) {
	w := newWorld(t)
	r := post(make([]byte, 1000))
	before := caddyhttp.Error(http.StatusRequestEntityTooLarge, errBroken)
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 10)), failingReader{before}))
	_, err := w.serveThrough(r, w.ndes)
	var he caddyhttp.HandlerError
	if !errors.As(err, &he) || he.StatusCode != 413 || he.ID != before.ID {
		t.Errorf("got %v", err)
	}
}

func TestABrokenBodyIsNotTakenForAMessage(t *testing.T) {
	w := newWorld(t)
	for err, code := range map[error]int{io.ErrUnexpectedEOF: 400, context.DeadlineExceeded: 408} {
		r := post(make([]byte, 1000))
		r.Body = io.NopCloser(failingReader{err})
		if rec := w.serve(r); rec.Code != code {
			t.Errorf("%v: got %d, want %d", err, rec.Code, code)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// refusals are requests that could be read but may not pass.
func refusals(w *world) map[gate.Reason][]byte {
	stranger := issueCertificate(w.t, newSiteRATemplate(), nil, strangerKey().Public(), strangerKey())
	return map[gate.Reason][]byte{
		gate.ChallengeUnknown:   w.message(device{challenge: "another challenge"}),
		gate.SubjectMismatch:    w.message(device{cn: "admin"}),
		gate.MessageTypeRefused: w.message(device{messageType: "18"}),
		gate.TransactionUnknown: w.message(device{messageType: "20"}),
		gate.AlgorithmRefused:   w.message(device{cipher: "des"}),
		gate.Undecryptable:      w.message(device{recipient: stranger}),
	}
}

func TestARefusalTellsNothingButThatItIsOne(t *testing.T) {
	w := newWorld(t)
	w.register()
	var first *httptest.ResponseRecorder
	for reason, message := range refusals(w) {
		rec := w.serve(post(message))
		if _, got := w.lastReason(); got != string(reason) {
			t.Errorf("recorded %s, want %s", got, reason)
		}
		m := must(inspector.ParseMessage(message))
		rep, err := inspector.ParseCertRep(rec.Body.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", reason, err)
		}
		if rep.PKIStatus != "2" || rep.FailInfo != "2" || rep.HasHRESULT || rep.ServerMessage != "" ||
			rep.TransactionID != m.TransactionID || !bytes.Equal(rep.RecipientNonce, m.SenderNonce) {
			t.Errorf("%s: %+v", reason, rep)
		}
		if len(rep.SenderNonce) != 16 || bytes.Equal(rep.SenderNonce, m.SenderNonce) {
			t.Errorf("%s: senderNonce is not ours", reason)
		}
		if first == nil {
			first = rec
		}
		if rec.Code != 200 || rec.Body.Len() != first.Body.Len() {
			t.Errorf("%s: %d and %d bytes, another reason had %d", reason, rec.Code, rec.Body.Len(), first.Body.Len())
		}
		if diff := cmp.Diff(first.Header(), rec.Header()); diff != "" {
			t.Errorf("%s: %s", reason, diff)
		}
		// Byte for byte but for the two nonces and the signature.
		if diff := differing(first.Body.Bytes(), rec.Body.Bytes()); diff > 16+16+32+256 {
			t.Errorf("%s: %d bytes differ", reason, diff)
		}
	}
	if n := len(w.ndes.enrolments()); n != 0 {
		t.Errorf("%d were forwarded", n)
	}
}

func differing(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func TestRefusalHTTP403IsTheSameForEveryReason(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.files(func(f *profileFiles) { f.refusal = nil })
	for reason, message := range refusals(w) {
		if rec := w.serve(post(message)); rec.Code != 403 || rec.Body.String() != "403 forbidden\n" {
			t.Errorf("%s: %d %q", reason, rec.Code, rec.Body)
		}
	}
}

func TestARefusalWaitsOutTheFloorHoldingNothing(t *testing.T) {
	w := newWorld(t)
	w.g.RefusalFloor = caddy.Duration(3 * time.Second)
	message := w.message(device{challenge: "another challenge"})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var took time.Duration
		go func() {
			w.serve(post(message))
			took = time.Since(begun)
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		if took != 0 {
			t.Error("answered before the floor")
		}
		if n := w.house.leases() + len(w.g.forwards.taken) + len(w.g.keys.taken); n != 0 {
			t.Errorf("holds %d leases and slots while it waits", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if took != 3*time.Second {
			t.Errorf("took %s, want the floor", took)
		}
	})
}

func TestADeviceThatHangsUpEndsTheWaitForTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		waitFloor(ctx, time.Now(), time.Hour)
		if time.Since(begun) != 0 {
			t.Error("waited for nobody")
		}
	})
}

func TestKnownTroubleIs503ForEverybodyBeforeAnyPrivateKeyOperation(t *testing.T) {
	w := newWorld(t)
	w.register()
	for _, tc := range []struct {
		name   string
		break_ func()
		reason gate.Reason
	}{
		{"the store is down", func() { w.house.down = true }, gate.StoreUnavailable},
		{"no lease", func() { w.house.down, w.house.leaseErr = false, errBroken }, gate.StoreUnavailable},
		{"no keys", func() { w.house.leaseErr = nil; w.g.profile.files.Store(nil) }, gate.KeyUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			messages := refusals(w)
			messages[gate.OK] = w.message(device{})
			tc.break_()
			for reason, message := range messages {
				rec := w.serve(post(message))
				if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
					t.Errorf("%s: %d %v", reason, rec.Code, rec.Header())
				}
				if line, got := w.lastReason(); line != "enrollment failed" || got != string(tc.reason) {
					t.Errorf("recorded %q %s", line, got)
				}
			}
			if rec := w.serve(httptest.NewRequest(http.MethodGet, "/healthz", nil)); rec.Code != 503 && tc.name != "no lease" {
				t.Errorf("health %d", rec.Code)
			}
		})
	}
	if n := len(w.ndes.enrolments()); n != 0 {
		t.Errorf("%d were forwarded", n)
	}
}

func TestHealthSaysOneWord(t *testing.T) {
	w := newWorld(t)
	if rec := w.serve(httptest.NewRequest(http.MethodGet, "/healthz", nil)); rec.Code != 200 || rec.Body.String() != "200 ok\n" {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
	if rec := w.serve(httptest.NewRequest(http.MethodHead, "/healthz", nil)); rec.Code != 200 || rec.Body.Len() != 0 {
		t.Errorf("HEAD: %d %q", rec.Code, rec.Body)
	}
	if rec := w.serve(httptest.NewRequest(http.MethodPost, "/healthz", nil)); rec.Code != 405 || rec.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", rec.Code)
	}
}

func TestNothingIsForwardedIfTheStoreFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault faultyStore
	}{
		{"when asked", faultyStore{find: errBroken}},
		{"when claiming", faultyStore{claim: errBroken}},
		{"by a panic", faultyStore{onFind: func() { panic("store") }}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.register()
			fault := tc.fault
			fault.Store = w.house.store
			w.house.store = &fault
			rec := w.serve(post(w.message(device{})))
			if rec.Code == 200 && !isRefusal(rec) || len(w.ndes.enrolments()) != 0 {
				t.Errorf("%d, %d forwarded", rec.Code, len(w.ndes.enrolments()))
			}
			if tc.fault.onFind == nil && (rec.Code != 503 || len(w.house.failed) == 0) {
				t.Errorf("%d; the app was told of %v", rec.Code, w.house.failed)
			}
		})
	}
}

func isRefusal(rec *httptest.ResponseRecorder) bool {
	rep, err := inspector.ParseCertRep(rec.Body.Bytes())
	return err == nil && rep.PKIStatus == "2"
}

func TestAStoreThatFailsAfterTheAnswerDoesNotKeepItFromTheDevice(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	w.house.store = &faultyStore{Store: w.house.store, settle: errBroken}
	if rec := w.serve(post(w.message(device{}))); rec.Code != 200 {
		t.Errorf("got %d", rec.Code)
	}
	if got := w.expectation(e.ID).State; got != store.Claimed {
		t.Errorf("state %s, want claimed: nobody else may have it", got)
	}
	if len(w.house.failed) == 0 {
		t.Error("the app was not told")
	}
}

func TestAPanicRefuses(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.files(func(f *profileFiles) { f.opener = nil })
	rec := w.serve(post(w.message(device{})))
	if rec.Code == 200 && !isRefusal(rec) || len(w.ndes.enrolments()) != 0 {
		t.Errorf("%d, %d forwarded", rec.Code, len(w.ndes.enrolments()))
	}
}

func TestNDESsTroubleIs502(t *testing.T) {
	header := func(code int, contentType string, body []byte) func(w *world, rw http.ResponseWriter, m *inspector.Message) error {
		return func(w *world, rw http.ResponseWriter, m *inspector.Message) error {
			rw.Header().Set("Content-Type", contentType)
			rw.WriteHeader(code)
			_, err := rw.Write(body)
			return err
		}
	}
	signed := func(change func(w *world, c *certRep)) func(*world, http.ResponseWriter, *inspector.Message) error {
		return func(w *world, rw http.ResponseWriter, m *inspector.Message) error {
			c := certRep{status: "2", failInfo: "2", transactionID: m.TransactionID, nonce: m.SenderNonce, content: []byte{0}, signer: w.agent, key: agentKey()}
			change(w, &c)
			return writeCertRep(rw, c.sign())
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(*world, http.ResponseWriter, *inspector.Message) error
		reason gate.Reason
	}{
		{"an error of next", func(*world, http.ResponseWriter, *inspector.Message) error { return errBroken }, gate.UpstreamUnavailable},
		{"no answer", func(*world, http.ResponseWriter, *inspector.Message) error { return nil }, gate.UpstreamUnavailable},
		{"an answer cut short", func(_ *world, rw http.ResponseWriter, _ *inspector.Message) error {
			rw.Header().Set("Content-Type", mediaPKIMessage)
			rw.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		}, gate.UpstreamUnavailable},
		{"another panic", func(*world, http.ResponseWriter, *inspector.Message) error { panic("x") }, gate.UpstreamUnavailable},
		{"too much", func(_ *world, rw http.ResponseWriter, _ *inspector.Message) error {
			rw.Header().Set("Content-Type", mediaPKIMessage)
			_, err := rw.Write(make([]byte, maxReply+1))
			return err
		}, gate.UpstreamUnavailable},
		{"401", header(401, "text/html", []byte("x")), gate.UpstreamInvalid},
		{"a redirect", header(302, "text/html", []byte("x")), gate.UpstreamInvalid},
		{"101", header(101, mediaPKIMessage, nil), gate.UpstreamInvalid},
		{"500", header(500, "text/html", []byte("x")), gate.UpstreamInvalid},
		{"a page", header(200, "text/html", []byte("<html>")), gate.UpstreamInvalid},
		{"rubbish of the right type", header(200, mediaPKIMessage, []byte("x")), gate.UpstreamInvalid},
		{"another transaction", signed(func(_ *world, c *certRep) { c.transactionID = "other" }), gate.UpstreamInvalid},
		{"another nonce", signed(func(_ *world, c *certRep) { c.nonce = make([]byte, 16) }), gate.UpstreamInvalid},
		{"a stranger's signature", signed(func(w *world, c *certRep) {
			c.key = strangerKey()
			c.signer = issueCertificate(w.t, newSiteRATemplate(), nil, strangerKey().Public(), strangerKey())
		}), gate.UpstreamInvalid},
		{"the encryption certificate's signature", signed(func(w *world, c *certRep) { c.key, c.signer = siteRAKey(), w.ra }), gate.UpstreamInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			e := w.register()
			w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error { return tc.answer(w, rw, m) }
			rec := w.serve(post(w.message(device{})))
			if rec.Code != 502 || rec.Body.String() != "502 bad gateway\n" {
				t.Errorf("got %d %q", rec.Code, rec.Body)
			}
			if line, got := w.lastReason(); line != "enrollment failed" || got != string(tc.reason) {
				t.Errorf("recorded %q %s, want %s", line, got, tc.reason)
			}
			if got := w.expectation(e.ID).State; got != store.Claimed {
				t.Errorf("state %s, want claimed: NDES may have issued", got)
			}
			if got := w.eventNames(); !slices.Equal(got, []string{"enrollment.failed"}) { // it is in doubt when retry_window has passed
				t.Errorf("events %v", got)
			}
		})
	}
}

func TestADeviceThatHangsUpDoesNotStopItsEnrolment(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	r := post(w.message(device{}))
	ctx, hangUp := context.WithCancel(r.Context())
	w.ndes.answer = func(rw http.ResponseWriter, r *http.Request, m *inspector.Message) error {
		hangUp()
		if err := r.Context().Err(); err != nil {
			t.Errorf("the forward was cancelled: %v", err)
		}
		return writeCertRep(rw, w.success(m))
	}
	w.serve(r.WithContext(ctx))
	if got := w.expectation(e.ID).State; got != store.Issued {
		t.Errorf("state %s, want issued", got)
	}
}

func TestADeviceThatHasGoneBeforeTheClaimLeavesNone(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	r := post(w.message(device{}))
	ctx, hangUp := context.WithCancel(r.Context())
	hangUp()
	w.serve(r.WithContext(ctx))
	if got := w.expectation(e.ID).State; got != store.Registered || len(w.ndes.enrolments()) != 0 {
		t.Errorf("state %s, %d forwarded", got, len(w.ndes.enrolments()))
	}
}

func TestNDESThatDoesNotAnswerInTimeIs502(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	message := w.message(device{})
	w.ndes.answer = func(_ http.ResponseWriter, r *http.Request, _ *inspector.Message) error {
		<-r.Context().Done()
		return r.Context().Err()
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if rec := w.serve(post(message)); rec.Code != 502 {
			t.Errorf("got %d", rec.Code)
		}
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("took %s, want upstream_timeout", took)
		}
	})
	if got := w.expectation(e.ID).State; got != store.Claimed {
		t.Errorf("state %s", got)
	}
}

func TestOverloadIs503BeforeAnyPrivateKeyOperation(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.g.MaxConcurrent = 1
	w.files(func(f *profileFiles) { f.pins = []*x509.Certificate{w.agent} }) // the bubble's clock is before its validity
	message := w.message(device{})
	opened := make(chan struct{}, 10)
	synctest.Test(t, func(t *testing.T) {
		w.g.open()
		w.house.store = &faultyStore{Store: w.house.store, onFind: func() { opened <- struct{}{} }}
		finish := make(chan struct{})
		w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, m *inspector.Message) error {
			<-finish
			return writeCertRep(rw, w.success(m))
		}
		serve := func() int {
			rec := httptest.NewRecorder()
			r := post(message)
			_ = w.g.ServeHTTP(rec, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, nil), w.ndes)
			return rec.Code
		}
		codes := make([]int, 3)
		var done sync.WaitGroup
		for i := range codes {
			done.Go(func() { codes[i] = serve() })
			synctest.Wait()
		}
		if codes[2] != 503 {
			t.Errorf("with the queue full: %d", codes[2])
		}
		time.Sleep(queueDeadline)
		synctest.Wait()
		if codes[1] != 503 {
			t.Errorf("after the queue's deadline: %d", codes[1])
		}
		close(finish)
		done.Wait()
		if codes[0] != 200 || len(opened) != 1 {
			t.Errorf("the first got %d; %d were opened", codes[0], len(opened))
		}
	})
}

func TestObserveForwardsAndRecordsWhatEnforceWouldRefuse(t *testing.T) {
	w := newWorld(t, func(p *gate.Profile) { p.ObserveUntil = time.Now().Add(time.Hour) })
	w.register()
	for reason, message := range map[gate.Reason][]byte{
		gate.ChallengeUnknown: w.message(device{challenge: "another challenge"}),
		gate.SubjectMismatch:  w.message(device{cn: "admin"}),
		gate.AlgorithmRefused: w.message(device{cipher: "des"}),
	} {
		rec := w.serve(post(message))
		line, got := w.lastReason()
		if rec.Code != 200 || isRefusal(rec) || line != "enrollment observed" || got != string(reason) {
			t.Errorf("%s: %d %q %s", reason, rec.Code, line, got)
		}
	}
	if n := len(w.ndes.enrolments()); n != 3 {
		t.Errorf("%d were forwarded", n)
	}
}

func TestObserveForwardsUnjudgedWhatItCannotRead(t *testing.T) {
	w := newWorld(t, func(p *gate.Profile) { p.ObserveUntil = time.Now().Add(time.Hour) })
	w.register()
	w.ndes.answer = func(rw http.ResponseWriter, _ *http.Request, _ *inspector.Message) error {
		return writeCertRep(rw, []byte("whatever NDES says"))
	}
	forged := w.message(device{})
	forged[len(forged)-1] ^= 1 // the signature
	if rec := w.serve(post(forged)); rec.Code != 200 || rec.Body.String() != "whatever NDES says" {
		t.Errorf("a bad signature: %d", rec.Code)
	}
	w.house.down = true
	if rec := w.serve(post(w.message(device{}))); rec.Code != 200 {
		t.Errorf("the store down: %d", rec.Code)
	}
	for _, d := range w.decisions() {
		if d.Message != "enrollment observed" || d.ContextMap()["unjudged"] != true {
			t.Errorf("%s %v", d.Message, d.ContextMap())
		}
	}
	if n := len(w.ndes.enrolments()); n != 2 {
		t.Fatalf("%d were forwarded", n)
	}
	// Limits are as in enforce.
	for _, message := range [][]byte{[]byte("rubbish"), append(w.message(device{}), 0), bytes.Repeat([]byte{0x30, 0x80}, 100)} {
		if rec := w.serve(post(message)); rec.Code != 400 {
			t.Errorf("beyond the walk: %d", rec.Code)
		}
	}
	if n := len(w.ndes.enrolments()); n != 2 {
		t.Errorf("%d were forwarded", n)
	}
}

func TestAnEndedObserveEnforces(t *testing.T) {
	w := newWorld(t, func(p *gate.Profile) { p.ObserveUntil = time.Now().Add(-time.Hour) })
	w.register()
	if rec := w.serve(post(w.message(device{cn: "admin"}))); !isRefusal(rec) || len(w.ndes.enrolments()) != 0 {
		t.Errorf("%d, %d forwarded", rec.Code, len(w.ndes.enrolments()))
	}
}

func TestTheOperatorLearnsEverythingButTheChallenge(t *testing.T) {
	w := newWorld(t)
	e := w.register()
	good := w.message(device{})
	r := post(good)
	r.Header.Set("User-Agent", "evil\x1b[31m\r\n\u202euser")
	repl := caddy.NewReplacer()
	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, repl, rec, nil)
	if err := w.g.ServeHTTP(rec, r, w.ndes); err != nil {
		t.Fatal(err)
	}
	for _, message := range refusals(w) {
		w.serve(post(message))
	}
	w.serve(post(w.message(device{key: strangerKey()})))
	fields := w.decisions()[0].ContextMap()
	for _, name := range []string{
		"decision_id", "profile", "operation", "message_type", "transaction_id", "reason", "findings", "requested_subject",
		"requested_san", "expectation_id", "external_id", "labels", "challenge_fingerprint", "spki_sha256", "client_ip",
		"user_agent", "upstream_status", "upstream_hresult", "upstream_text", "duration_ms",
	} {
		if _, ok := fields[name]; !ok {
			t.Errorf("the decision's line lacks %s", name)
		}
	}
	if len(fields) != 20 || fields["expectation_id"] != e.ID || fields["upstream_status"] != "success" {
		t.Errorf("%v", fields)
	}
	if got := fields["user_agent"]; got != `evil\u{001B}[31m\u{000D}\u{000A}\u{202E}user` {
		t.Errorf("user_agent %q", got)
	}
	for name, want := range map[string]string{
		"decision": "forwarded", "reason": "ok", "message_type": "pkcs_req", "profile": "wifi", "expectation_id": e.ID,
		"transaction_id": must(inspector.ParseMessage(good)).TransactionID, "upstream": "",
	} {
		if got, _ := repl.GetString("http.scep_gateway." + name); got != want {
			t.Errorf("placeholder %s is %q, want %q", name, got, want)
		}
	}
	if line, reason := w.lastReason(); line != "enrollment refused" || reason != string(gate.ChallengeUsed) && reason != string(gate.ChallengeInUse) {
		t.Errorf("another key: %q %s", line, reason)
	}

	// The canary.
	registry := prometheus.NewRegistry()
	registry.MustRegister(decisionsTotal, upstreamRepliesTotal, storeOperationsTotal)
	var everything strings.Builder
	for _, entry := range w.logs.All() {
		fmt.Fprintf(&everything, "%s %v %+v\n", entry.Message, entry.ContextMap(), entry.Context)
	}
	for _, event := range w.events {
		fmt.Fprintf(&everything, "%s %+v\n", event.name, event.data)
	}
	for _, family := range must(registry.Gather()) {
		everything.WriteString(family.String())
	}
	if strings.Contains(everything.String(), canaryChallenge) || strings.Contains(everything.String(), "another challenge") {
		t.Error("a challenge was told")
	}
	if !strings.Contains(everything.String(), "caddy_scep_decisions_total") {
		t.Error("nothing was counted")
	}
}

func TestTheAccessLogGetsTheFields(t *testing.T) {
	w := newWorld(t)
	w.register()
	rec := httptest.NewRecorder()
	r := caddyhttp.PrepareRequest(post(w.message(device{})), caddy.NewReplacer(), rec, nil)
	if err := w.g.ServeHTTP(rec, r, w.ndes); err != nil {
		t.Fatal(err)
	}
	extra := fmt.Sprintf("%+v", r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey))
	for _, name := range []string{"decision", "reason", "transaction_id", "message_type", "profile", "expectation_id", "upstream"} {
		if !strings.Contains(extra, "http.scep_gateway."+name) {
			t.Errorf("no field %s in %s", name, extra)
		}
	}
}
