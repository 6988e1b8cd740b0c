package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/wire"
)

// try is one vector being played.
type try struct {
	*stage
	V *vector

	CN        string  // of the honest device
	Challenge string  // registered for it
	ID        string  // of its expectation; "" if there is none
	Device    *device // who sends
	M         *wire.Message

	mark, from int      // where log and upstream stood before
	read       []string // decisions looked at, by id
	demands    int
	sent       int      // requests that were answered
	back       []string // what came back
	operator   []string // what the operator saw
	problems   []string
}

// failf says that something did not go as it must.
func (t *try) failf(format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf(format, args...))
}

func (t *try) profile() string {
	if t.V.profile == "" {
		return "wifi"
	}
	return t.V.profile
}

// base is the URL that the vector's devices use.
func (t *try) base() string { return t.Devices[t.profile()] }

// honest is what the MDM registers for the honest device of this try.
func (t *try) honest() map[string]any {
	e := map[string]any{
		"external_id": "attacks:" + t.CN,
		"subject":     "CN=" + t.CN,
		"key_usage":   []string{"digitalSignature", "keyEncipherment"}, "ext_key_usage": []string{"clientAuth"},
		"challenge": t.Challenge,
	}
	if t.profile() == "static" {
		delete(e, "challenge")
	}
	return e
}

// over lays one object over another; nil removes.
func over(below, above map[string]any) map[string]any {
	e := maps.Clone(below)
	for k, v := range above {
		if e[k] = v; v == nil {
			delete(e, k)
		}
	}
	return e
}

// register registers e and returns its id, or the answer that refused it.
func (t *try) register(token, profile string, e map[string]any) (id string, status int, refusal string) {
	var answer struct {
		ID string `json:"id"`
	}
	status, err := t.Call(context.Background(), token, http.MethodPost, "/v1/profiles/"+profile+"/expectations", e, &answer)
	if err != nil {
		return "", status, err.Error()
	}
	return answer.ID, status, ""
}

// newChallenge is a challenge that nobody has registered.
func newChallenge() string { return canary + rand.Text() }

// message is an honest enrolment of d under t's name and challenge.
func (t *try) message(d *device) *wire.Message {
	return wire.New(d.Key, d.SelfSigned, t.RA, t.CN, t.Challenge)
}

// postRequest is the POST of a message.
func (t *try) postRequest(message []byte) *http.Request {
	return t.httpRequest(http.MethodPost, "?operation=PKIOperation", message)
}

// getRequest is the GET of a message, as RFC 8894 §4.1 escapes it.
func (t *try) getRequest(message []byte) *http.Request {
	return t.httpRequest(http.MethodGet, "?operation=PKIOperation&message="+url.QueryEscape(base64.StdEncoding.EncodeToString(message)), nil)
}

// httpRequest is a request for the SCEP path. tail is written as it is after
// the path, or in place of it if it begins with "/".
func (t *try) httpRequest(method, tail string, body []byte) *http.Request {
	path := attack.Path
	if strings.HasPrefix(tail, "/") {
		path = ""
	}
	req, err := http.NewRequest(method, t.base()+"/", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.URL.Opaque = "//" + req.URL.Host + path + tail
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/x-pki-message")
	} else {
		req.Body, req.ContentLength = nil, 0
	}
	return req
}

// do sends a request.
func (t *try) do(req *http.Request) attack.Answer {
	a, err := attack.Do(t.Client, req)
	if err != nil {
		t.failf("no answer: %v", err)
		return attack.Answer{}
	}
	t.sent++
	t.back = append(t.back, describe(a))
	return a
}

// post sends a message to the vector's profile.
func (t *try) post(message []byte) attack.Answer { return t.do(t.postRequest(message)) }

func describe(a attack.Answer) string {
	if a.Rep != nil {
		switch a.Rep.PKIStatus {
		case "0":
			return "CertRep SUCCESS"
		case "2":
			return "CertRep FAILURE, failInfo " + a.Rep.FailInfo
		case "3":
			return "CertRep PENDING"
		}
	}
	return fmt.Sprintf("%d %s", a.Status, strings.ToLower(http.StatusText(a.Status)))
}

// decision waits for the next decision line of this try and demands its reason.
func (t *try) decision(reason string) gateway.Line {
	t.demands++
	if t.Remote {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := t.Find(ctx, t.mark, func(l gateway.Line) bool {
		return strings.HasPrefix(l.String("msg"), "enrollment ") && !slices.Contains(t.read, l.String("decision_id"))
	})
	if err != nil {
		t.failf("no decision line: %v", err)
		return nil
	}
	t.read = append(t.read, l.String("decision_id"))
	got := l.String("reason")
	t.operator = append(t.operator, got)
	if reason != "" && got != reason {
		t.failf("the operator reads %q, not %q (findings %v)", got, reason, l["findings"])
	}
	return l
}

// refused demands the uniform refusal.
func (t *try) refused(a attack.Answer) {
	t.demands++
	if a.Status != http.StatusOK || a.Rep == nil || a.Rep.PKIStatus != "2" || a.Rep.FailInfo != "2" {
		t.failf("%s instead of the uniform refusal", describe(a))
		return
	}
	if err := t.alike(a); err != nil {
		t.failf("a refusal that can be told from others: %v", err)
	}
}

// status demands a bare HTTP answer that is no CertRep.
func (t *try) status(a attack.Answer, status int) {
	t.demands++
	if a.Status != status || a.Rep != nil {
		t.failf("%s instead of %d", describe(a), status)
	}
	if status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		t.failf("503 without Retry-After")
	}
}

// issued demands a certificate.
func (t *try) issued(a attack.Answer) {
	t.demands++
	if a.Rep == nil || a.Rep.PKIStatus != "0" {
		t.failf("%s instead of a certificate", describe(a))
	}
}

// reached demands that exactly these messages have arrived upstream since the
// last call, byte for byte and in any order.
func (t *try) reached(messages ...[]byte) {
	t.demands++
	if t.Remote {
		return
	}
	requests := t.Up.since(t.from)
	t.from += len(requests)
	var got [][]byte
	for _, r := range requests {
		if m := messageOf(r); m != nil {
			got = append(got, m)
		}
	}
	if len(got) != len(messages) {
		t.failf("%d messages reached NDES, not %d", len(got), len(messages))
		return
	}
	for _, m := range messages {
		found := false
		for i := range got {
			if bytes.Equal(got[i], m) {
				got = append(got[:i], got[i+1:]...)
				found = true
				break
			}
		}
		if !found {
			t.failf("NDES got other bytes than those that were judged")
		}
	}
}

// state demands the state of an expectation and returns what the MDM sees.
func (t *try) state(id, state string) map[string]any {
	t.demands++
	if t.Remote || id == "" {
		return nil
	}
	var e map[string]any
	if _, err := t.Call(context.Background(), t.Token, http.MethodGet, "/v1/profiles/"+t.profile()+"/expectations/"+id, nil, &e); err != nil {
		t.failf("reading the expectation: %v", err)
		return nil
	}
	if e["state"] != state {
		t.failf("the expectation is %v, not %s", e["state"], state)
	}
	return e
}

// unregistrable demands that the API refuses e with a status and a code.
func (t *try) unregistrable(e map[string]any, status int, code string) {
	t.unregistrableBy(t.Token, t.profile(), e, status, code)
}

func (t *try) unregistrableBy(token, profile string, e map[string]any, status int, code string) {
	t.demands++
	id, got, refusal := t.register(token, profile, e)
	t.back = append(t.back, fmt.Sprint(got))
	if id != "" || got != status || !strings.Contains(refusal, code) {
		t.failf("registering %v: %d %s %s, not %d %s", e, got, id, refusal, status, code)
		return
	}
	t.operator = append(t.operator, code)
}
