package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/breaker"
)

// revealing asks a server what it could put into an error: everything.
func revealing(t *testing.T, url string) *Matcher {
	return newMatcher(t, Config{URL: url, Reveal: true, Decides: both, Timeout: 5 * time.Second})
}

// undecided wants an error that says why and quotes nothing that was sent.
func undecided(t *testing.T, m *Matcher, want string) {
	t.Helper()
	a, err := m.Match(t.Context(), ordinary())
	if err == nil || a.Verdict != plugins.Refuse {
		t.Fatalf("Match = %+v, %v, want an error", a, err)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
	if strings.Contains(strings.ToUpper(err.Error()), challenge) || len(err.Error()) > 200 {
		t.Errorf("the error quotes what was sent: %.300q", err)
	}
}

const yes = `{"verdict":"agree"}`

func TestAnswersThatAreNoneDecideNothing(t *testing.T) {
	respond := func(change func(w http.ResponseWriter)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			change(w)
			io.WriteString(w, yes)
		}
	}
	status := func(code int) http.HandlerFunc {
		return respond(func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere?c="+challenge)
			w.WriteHeader(code)
		})
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"201":  {status(201), "status 201"},
		"202":  {status(202), "status 202"},
		"204":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, "status 204"},
		"206":  {status(206), "status 206"},
		"301":  {status(301), "redirects are not followed"},
		"302":  {status(302), "redirects are not followed"},
		"307":  {status(307), "redirects are not followed"},
		"400":  {status(400), "status 400"},
		"401":  {status(401), "status 401"},
		"429":  {status(429), "status 429"},
		"500":  {status(500), "status 500"},
		"503":  {status(503), "status 503"},
		"gzip": {respond(func(w http.ResponseWriter) { w.Header().Set("Content-Encoding", "gzip") }), "Content-Encoding"},
		"10 MiB": {func(w http.ResponseWriter, _ *http.Request) {
			says(`{"verdict":"agree","padding":"`+strings.Repeat(" ", 10<<20)+`"}`)(w, nil)
		}, "longer than"},
		"10 MiB, announced":  {respond(func(w http.ResponseWriter) { w.Header().Set("Content-Length", "10485760") }), "longer than"},
		"one byte too long":  {says(yes + strings.Repeat(" ", maxAnswer+1-len(yes))), "longer than"},
		"the connection cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "closed the connection"},
		"16 KiB of header":   {respond(func(w http.ResponseWriter) { w.Header().Set("X-Long", strings.Repeat(challenge, 4<<10)) }), "no HTTP answer"},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := listen(t, c.answer)
			undecided(t, revealing(t, url), c.want)
			if n := s.got(); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
	for name, text := range rubbish {
		t.Run("200 with "+name, func(t *testing.T) {
			_, url := listen(t, says(text))
			undecided(t, revealing(t, url), "the answer ")
		})
	}
	t.Run("64 KiB are not too long", func(t *testing.T) {
		_, url := listen(t, says(yes+strings.Repeat(" ", maxAnswer-len(yes))))
		if a, err := revealing(t, url).Match(t.Context(), ordinary()); err != nil || a.Verdict != plugins.Agree {
			t.Errorf("Match = %+v, %v, want agreement", a, err)
		}
	})
}

// speaks answers each connection with bytes, HTTP or not.
func speaks(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 64<<10))
			io.WriteString(c, text)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestServersThatSpeakNoHTTPDecideNothing(t *testing.T) {
	for name, text := range map[string]string{
		"an echo":            challenge,
		"a status line":      "HTTP/1.1 " + challenge + "\r\n\r\n",
		"a header":           "HTTP/1.1 200 OK\r\n" + challenge + "\r\n\r\n",
		"a length":           "HTTP/1.1 200 OK\r\nContent-Length: " + challenge + "\r\n\r\n",
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 19\r\nContent-Length: 20\r\n\r\n" + yes,
		"a transfer coding":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + challenge + "\r\n\r\n",
		"a chunk size":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + challenge + "\r\n",
		"a body cut short":   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + yes,
		"a switch":           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"hints for ever":     strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 2000),
		"a TLS alert":        "\x15\x03\x01\x00\x02\x02\x16",
		"nothing":            "",
		"another connection": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n" + yes,
	} {
		t.Run(name, func(t *testing.T) {
			undecided(t, revealing(t, speaks(t, text)), "webhook: ")
		})
	}
}

func TestNetHTTPLogsNothingThatWasAnswered(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	url := speaks(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n"+yes+challenge)
	if a, err := revealing(t, url).Match(t.Context(), ordinary()); err != nil || a.Verdict != plugins.Agree {
		t.Fatalf("Match = %+v, %v", a, err)
	}
	if logged.Len() > 0 {
		t.Errorf("logged %q", logged.String())
	}
}

func TestServersThatAreNotThereDecideNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	tls := httptest.NewTLSServer(http.HandlerFunc(says(yes)))
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(tls.Close)
	_, plain := listen(t, says(yes))
	for name, c := range map[string]struct{ url, want string }{
		"no port":             {"http://" + free, "connection refused"},
		"no socket":           {"unix/" + t.TempDir() + "/none.sock", "no such socket"},
		"unknown certificate": {tls.URL, "not trusted"},
		"no TLS":              {"https" + strings.TrimPrefix(plain, "http"), "speaks no TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			undecided(t, revealing(t, c.url), c.want)
		})
	}
}

func TestSlowServersDecideNothing(t *testing.T) {
	for name, slow := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"verdict":`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, url := listen(t, slow)
			m := newMatcher(t, Config{URL: url, Reveal: true, Decides: both, Timeout: 20 * time.Millisecond})
			_, err := m.Match(t.Context(), ordinary())
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") {
				t.Errorf("Match = %v, want DeadlineExceeded", err)
			}
		})
	}
}

func TestAQuestionIsNotRepeatedOnAConnectionThatDies(t *testing.T) {
	var asked atomic.Int32
	_, url := listen(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 2 { // on the connection of the first, which net/http would repeat for a GET
			panic(http.ErrAbortHandler)
		}
		says(yes)(w, r)
	})
	m := newMatcher(t, Config{URL: url, Decides: both, Timeout: 5 * time.Second})
	if a, err := m.Match(t.Context(), ordinary()); err != nil || a.Verdict != plugins.Agree {
		t.Fatalf("Match = %+v, %v", a, err)
	}
	undecided(t, m, "closed the connection")
	if n := asked.Load(); n != 2 {
		t.Errorf("the server was asked %d times, want 2", n)
	}
}

func TestNamesThatAreNotFoundAndTheEnvironmentsProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://proxy.example.com:3128")
	}
	m := revealing(t, "https://matcher.example.com/scep")
	var dialled string
	m.transport.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: "matcher.example.com", IsNotFound: true}}
	}
	undecided(t, m, "host name is not found")
	if want := "matcher.example.com:443"; dialled != want {
		t.Errorf("dialled %s, want %s: no proxy", dialled, want)
	}
}

func TestFailuresInARowStopQuestionsAndAnAnswerStartsThemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status, asked := 503, 0
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, `{"verdict":"refuse"}`)
		})}
		m := newMatcher(t, Config{URL: "http://localhost", Decides: both, Now: time.Now})
		m.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go server.Serve(&oneConn{conn: theirs})
			return ours, nil
		}
		for range breaker.Threshold {
			if err := m.Healthy(); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Match(t.Context(), ordinary()); err == nil {
				t.Fatal("no error")
			}
		}
		if err := m.Healthy(); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("Healthy = %v, want ErrOpen", err)
		}
		if _, err := m.Match(t.Context(), ordinary()); !errors.Is(err, breaker.ErrOpen) || asked != breaker.Threshold {
			t.Errorf("Match = %v after %d questions, want ErrOpen after %d", err, asked, breaker.Threshold)
		}
		time.Sleep(breaker.MinPause)
		status = 200
		for range 2 * breaker.Threshold { // refusals are no failures
			if a, err := m.Match(t.Context(), ordinary()); err != nil || a.Code != CodeRefused {
				t.Errorf("Match = %+v, %v", a, err)
			}
		}
		if err := m.Healthy(); err != nil {
			t.Errorf("Healthy = %v", err)
		}
		m.Close()
		server.Close()
	})
}

func TestWhatAServerStumblesOverStopsNoQuestions(t *testing.T) {
	answers := []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "rubbish") },
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "rubbish")
		},
	}
	for i, answer := range answers {
		server := httptest.NewServer(answer)
		m := newMatcher(t, Config{URL: server.URL, Decides: both})
		for range 2 * breaker.Threshold {
			if a, err := m.Match(t.Context(), ordinary()); err == nil || errors.Is(err, breaker.ErrOpen) || a.Verdict == plugins.Agree {
				t.Errorf("answer %d: %+v, %v", i, a, err)
			}
		}
		if err := m.Healthy(); err != nil {
			t.Errorf("answer %d: %v", i, err)
		}
		m.Close()
		server.Close()
	}
}

// oneConn is a listener of one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	c := l.conn
	l.conn = nil
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.IPAddr{} }
