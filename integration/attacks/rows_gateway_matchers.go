package main

import (
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// webhook is the server of a matcher. It answers as it is told, and keeps what it was asked.
type webhook struct {
	*http.Server
	url   string
	heard atomic.Pointer[string]
}

func (t *try) webhook(answer func(http.ResponseWriter, *http.Request)) *webhook {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.failf("%v", err)
		return &webhook{Server: new(http.Server)}
	}
	w := &webhook{url: "http://" + l.Addr().String() + "/"}
	w.Server = &http.Server{ReadHeaderTimeout: rawPatience, Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		heard := string(body)
		w.heard.Store(&heard)
		answer(out, r)
	})}
	go w.Serve(l)
	return w
}

func says(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
}

// asking has a webhook in the profile, and runs act under it.
func (t *try) asking(options string, answer func(http.ResponseWriter, *http.Request), act func(*webhook)) {
	w := t.webhook(answer)
	defer w.Close()
	t.under(t.withMatcher("webhook "+w.url, options), func() { act(w) })
}

func (t *try) withMatcher(what, options string) string {
	return t.changed("renewal off", "renewal off\n\t\t\tmatcher "+what+" {\n\t\t\t\t"+strings.ReplaceAll(options, "\n", "\n\t\t\t\t")+"\n\t\t\t}")
}

// undecided demands 503 for a message of which nothing could be decided, and
// that nothing is held against the device.
func (t *try) undecided() {
	t.status(t.post(t.M.Bytes()), http.StatusServiceUnavailable)
	t.reached()
	t.decision("matcher_failed")
	t.state(t.ID, "registered")
}

// rowsMatchers: F18–F21. A matcher is asked about requests that nothing else
// refuses, and only its agreement lets one pass.
func rowsMatchers() []vector {
	list := []vector{
		{row: "F18", variant: "a webhook that hangs", want: asDescribed, act: func(t *try) {
			t.asking("timeout 200ms", func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-time.After(rawPatience):
				}
			}, func(*webhook) { t.undecided() })
		}},
		{row: "F18", variant: "a webhook that is not there", want: asDescribed, act: func(t *try) {
			t.under(t.withMatcher("webhook unix/"+filepath.Join(t.Dir, "nobody.sock"), "decides subject"), t.undecided)
		}},
		{row: "F18", variant: "a webhook that hangs up", want: asDescribed, act: func(t *try) {
			t.asking("decides subject", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(*webhook) { t.undecided() })
		}},
		{row: "F19", variant: "an expression that is true, and decides nothing", want: asDescribed, act: func(t *try) {
			t.under(t.withMatcher("expression true", "name everybody"), func() {
				t.M.Request.SetSubject("somebody else")
				t.refuses(t.M.Bytes(), "subject_mismatch")
			})
		}},
		{row: "F19", variant: "an expression that is true and decides the subject, about an administrator", want: asDescribed, act: func(t *try) {
			t.under(t.withMatcher("expression true", "decides subject san sid key_usage ext_key_usage"), func() {
				t.M.Request.SetSubject("administrator")
				t.refuses(t.M.Bytes(), "subject_mismatch")
			})
		}},
		{row: "F20", variant: "a plugin swapped after its checksum was written down", want: cfg, act: func(t *try) {
			program := filepath.Join(t.Dir, "plugin")
			if err := os.WriteFile(program, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
				t.failf("%v", err)
			}
			t.unloadable(t.withMatcher("exec "+program, "sha256 "+strings.Repeat("ab", 32)), "checksum")
		}},
		{row: "F20", variant: "a plugin that everybody may write", want: cfg, act: func(t *try) {
			program := filepath.Join(t.Dir, "writable")
			err := os.WriteFile(program, []byte("#!/bin/sh\nexit 0\n"), 0o700)
			if err == nil {
				err = os.Chmod(program, 0o777)
			}
			if err != nil {
				t.failf("%v", err)
			}
			t.unloadable(t.withMatcher("exec "+program, "sha256 "+strings.Repeat("ab", 32)), "writ")
		}},
		{row: "F20", variant: "a plugin looked for in PATH", want: cfg, act: func(t *try) {
			t.unloadable(t.withMatcher("exec true", "sha256 "+strings.Repeat("ab", 32)), "absolute path")
		}},
		{row: "F20", variant: "a plugin that nobody vouches for", want: cfg, act: func(t *try) {
			t.unloadable(t.withMatcher("exec /bin/true", "decides subject"), "sha256 or signed_by")
		}},
		{row: "F21", variant: "what a webhook is shown that nothing is revealed to", want: asDescribed, act: func(t *try) {
			t.asking("decides subject", says(`{"verdict":"agree"}`), func(w *webhook) {
				t.enrols(t.M.Bytes())
				heard := w.heard.Load()
				t.demand(heard != nil && strings.Contains(*heard, t.CN), "the webhook was not asked")
				t.demand(heard != nil && !strings.Contains(*heard, t.Challenge), "the webhook was shown the challenge")
			})
		}},
		{row: "F21", variant: "a challenge revealed in clear text to another host", want: cfg, act: func(t *try) {
			t.unloadable(t.withMatcher("webhook http://192.0.2.1/", "reveal challenge"), "https")
		}},
	}
	answers := map[string]string{
		"an unknown verdict": `{"verdict":"maybe"}`, "no verdict": `{}`, "an agreement with a difference": `{"verdict":"agree","findings":[{"field":"subject"}]}`,
		"step-ca's no": `{"allow":false}`, "yes and no": `{"allow":true,"verdict":"refuse"}`, "a yes that is text": `{"allow":"true"}`,
	}
	for _, variant := range slices.Sorted(maps.Keys(answers)) {
		list = append(list, vector{row: "F19", variant: "a webhook that answers with " + variant, want: asDescribed, act: func(t *try) {
			t.asking("decides subject", says(answers[variant]), func(*webhook) { t.refuses(t.M.Bytes(), "matcher_refused") })
		}})
	}
	faults := map[string]func(http.ResponseWriter, *http.Request){
		"nothing":           says(""),
		"rubbish":           says("agree"),
		"two answers":       says(`{"verdict":"refuse"}{"verdict":"agree"}`),
		"the verdict twice": says(`{"verdict":"refuse","verdict":"agree"}`),
		"10 MiB":            says(`{"verdict":"agree","code":"` + strings.Repeat("a", 10<<20) + `"}`),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/agree", http.StatusMovedPermanently)
		},
		"an agreement, 500": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); says(`{"verdict":"agree"}`)(w, r) },
		"an agreement, 202": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202); says(`{"verdict":"agree"}`)(w, r) },
	}
	for _, variant := range slices.Sorted(maps.Keys(faults)) {
		list = append(list, vector{row: "F19", variant: "a webhook that answers with " + variant, want: asDescribed, act: func(t *try) {
			t.asking("decides subject", faults[variant], func(*webhook) { t.undecided() })
		}})
	}
	return list
}
