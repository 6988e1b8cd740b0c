package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	const here = "http://127.0.0.1:9"
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"no url":                             {Config{}, "url"},
		"another scheme":                     {Config{URL: "ftp://host/"}, "url"},
		"no host":                            {Config{URL: "http:///path"}, "url"},
		"a host alone":                       {Config{URL: "localhost:8000"}, "url"},
		"user and password":                  {Config{URL: "https://a:s3cr3t@host/"}, "user or password"},
		"a fragment":                         {Config{URL: "https://host/#x"}, "fragment"},
		"control characters":                 {Config{URL: "https://host/\n"}, "url"},
		"a relative socket":                  {Config{URL: "unix/run/x"}, "absolute"},
		"a socket with dots":                 {Config{URL: "unix//run/../x"}, "absolute"},
		"no socket":                          {Config{URL: "unix//"}, "absolute"},
		"plain http that reveals":            {Config{URL: "http://matcher.example.com", Reveal: true}, "plain http"},
		"plain http that decides":            {Config{URL: "http://192.0.2.1", Decides: both}, "plain http"},
		"plain http that looks like home":    {Config{URL: "http://127.0.0.1.example.com", Reveal: true}, "plain http"},
		"an unknown format":                  {Config{URL: here, Format: "xml"}, "format"},
		"a field that is never a matcher's":  {Config{URL: here, Decides: []plugins.Field{plugins.Key}}, "decides"},
		"a field twice":                      {Config{URL: here, Decides: []plugins.Field{"san", "san"}}, "twice"},
		"a short secret":                     {Config{URL: here, Secret: []byte("short")}, "secret"},
		"an empty secret":                    {Config{URL: here, Secret: []byte{}}, "secret"},
		"a negative timeout":                 {Config{URL: here, Timeout: -time.Second}, "timeout"},
		"an id of ours":                      {Config{URL: here, ID: "x"}, "step_ca"},
		"step_ca unsigned":                   {Config{URL: here, Format: StepCA}, "secret"},
		"step_ca with outcomes":              {Config{URL: here, Format: StepCA, Secret: secret, Notify: true}, "outcomes"},
		"step_ca that vouches in the dark":   {Config{URL: here, Format: StepCA, Secret: secret, Decides: []plugins.Field{plugins.Challenge}}, "reveal"},
		"step_ca that decides a SID":         {Config{URL: here, Format: StepCA, Secret: secret, Decides: []plugins.Field{plugins.SID}}, "sid"},
		"step_ca with a line break in an id": {Config{URL: here, Format: StepCA, Secret: secret, ID: "a\r\nb"}, "id"},
	} {
		_, err := New(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error quotes the url: %v", name, err)
		}
	}
}

func TestConfigurationsThatAreAccepted(t *testing.T) {
	for _, c := range []Config{
		{URL: "https://matcher.example.com/scep?token=x", Reveal: true, Decides: both},
		{URL: "http://localhost:8000", Reveal: true, Decides: both},
		{URL: "http://[::1]:8000/x", Reveal: true},
		{URL: "http://127.8.8.8", Reveal: true},
		{URL: "http://matcher.example.com"}, // can only object
		{URL: "unix//run/matcher.sock", Reveal: true, Decides: both, Notify: true},
		{URL: "https://host", Format: StepCA, Secret: secret, ID: "9f5f…"[:4], Decides: []plugins.Field{plugins.Challenge}, Reveal: true},
	} {
		m, err := New(c)
		if err != nil {
			t.Errorf("%s: %v", c.URL, err)
			continue
		}
		if err := m.Info().Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestSecretsAreReadAsTheirMakersWriteThem(t *testing.T) {
	for name, c := range map[string]struct {
		format Format
		file   string
		want   string // "" is an error
	}{
		"ours":              {Scepgate, "0123456789abcdef\n", "0123456789abcdef"},
		"ours, with spaces": {Scepgate, "a secret of the webhook\r\n", "a secret of the webhook"},
		"ours, short":       {Scepgate, "0123456789abcde\n", ""},
		"ours, two lines":   {Scepgate, "0123456789abcdef\n0123456789abcdef\n", ""},
		"ours, binary":      {Scepgate, "0123456789abcdef\x00", ""},
		"ours, empty":       {Scepgate, "", ""},
		"step-ca's":         {StepCA, "MDEyMzQ1Njc4OWFiY2RlZg==\n", "0123456789abcdef"},
		"step-ca's, broken": {StepCA, "MDEyMzQ1Njc4OWFiY2RlZg", ""},
		"step-ca's, short":  {StepCA, "MDEy\n", ""},
	} {
		got, err := ParseSecret(c.format, []byte(c.file))
		if (err != nil) != (c.want == "") || string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123") {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}

func TestWhatAReceiverWouldNotSeeIsNotAsked(t *testing.T) {
	s, url := listen(t, says(`{"verdict":"agree","allow":true}`))
	change := func(f func(r *plugins.Request)) plugins.Request {
		r := ordinary()
		f(&r)
		return r
	}
	stepCA := Config{Format: StepCA, Secret: secret, Decides: both}
	for name, c := range map[string]struct {
		config  Config
		request plugins.Request
		code    string
	}{
		"a UPN": {stepCA, change(func(r *plugins.Request) {
			r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "upn", Value: "administrator@example.com"})
		}), codeSAN},
		"a strange name":   {stepCA, change(func(r *plugins.Request) { r.Facts.SAN[0].Type = "other" }), codeSAN},
		"two common names": {stepCA, change(func(r *plugins.Request) { r.Facts.Subject[1][0].Type = "2.5.4.3" }), codeSubject},
		"two serial numbers": {stepCA, change(func(r *plugins.Request) {
			r.Facts.Subject[1][0].Type = "2.5.4.5"
		}), codeSubject},
		"no PKCS#10": {Config{Format: StepCA, Secret: secret, Decides: both, Reveal: true}, change(func(r *plugins.Request) { r.PKCS10 = r.PKCS10[1:] }), codeParse},
		"no UTF-8":   {Config{Decides: both}, change(func(r *plugins.Request) { r.Facts.Subject[0][0].Value = "C02XK1\xff" }), codeUTF8},
		"a field that it was not given": {Config{Decides: both}, change(func(r *plugins.Request) {
			r.Decides = append(r.Decides, plugins.SID)
		}), codeField},
		"nothing": {Config{Decides: both}, plugins.Request{}, codeEmpty},
	} {
		c.config.URL = url
		a, err := newMatcher(t, c.config).Match(t.Context(), c.request)
		if err != nil || a.Verdict != plugins.Refuse || a.Code != c.code {
			t.Errorf("%s: %+v, %v, want refusal %s", name, a, err, c.code)
		}
	}
	if n := s.got(); n != 0 {
		t.Errorf("the server was asked %d times, want never", n)
	}
	// Who only objects is shown what there is.
	r := ordinary()
	r.Decides = nil
	r.Facts.SAN[0].Type = "upn"
	if a, err := newMatcher(t, Config{URL: url, Format: StepCA, Secret: secret}).Match(t.Context(), r); err != nil || a.Verdict != plugins.Agree {
		t.Errorf("an objector: %+v, %v, want agreement", a, err)
	}
}
