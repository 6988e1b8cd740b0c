package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/scepgate/scepgate/integration/attack"
)

// rowsHTTP2: E16. The device port takes HTTP/2 from a client that begins with it,
// and is the same gateway then. Bounds of streams, headers and resets are
// those of Go's server.
func rowsHTTP2() []vector {
	return []vector{
		{row: "E16", variant: "an enrolment by HTTP/2", want: forwarded, act: func(t *try) {
			t.overHTTP2(func(c *http.Client) {
				m := t.M.Bytes()
				t.issued(t.by(c, t.h2(http.MethodPost, attack.Path+"?operation=PKIOperation", m)))
				t.decision("ok")
				t.onlyOurs()
				t.reached(m)
				t.state(t.ID, "issued")
			})
		}},
		{row: "E16", variant: "mscep_admin by HTTP/2", want: pre, act: func(t *try) {
			t.overHTTP2(func(c *http.Client) {
				for _, target := range []string{"/certsrv/mscep_admin/", "/certsrv/mscep/%2e%2e/mscep_admin/"} {
					t.status(t.by(c, t.h2(http.MethodGet, target, nil)), http.StatusNotFound)
				}
				t.reached()
			})
		}},
		{row: "E16", variant: "300 streams that are reset at once, then an enrolment", want: asDescribed, act: func(t *try) {
			t.overHTTP2(func(c *http.Client) {
				var wg sync.WaitGroup
				ctx, cancel := context.WithCancel(context.Background())
				for range 300 {
					req := t.h2(http.MethodGet, attack.Path+"?operation=GetCACaps", nil).WithContext(ctx)
					wg.Go(func() {
						if resp, err := c.Do(req); err == nil {
							resp.Body.Close()
						}
					})
				}
				cancel()
				wg.Wait()
			})
			t.enrols(t.M.Bytes())
			t.state(t.ID, "issued")
		}},
	}
}

// overHTTP2 gives act a client that speaks HTTP/2 from its first octet.
func (t *try) overHTTP2(act func(c *http.Client)) {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.Protocols.SetHTTP2(true)
	defer tr.CloseIdleConnections()
	act(&http.Client{Transport: tr, Timeout: rawPatience})
}

// h2 is a request for exactly this target; HTTP/2 has no other form.
func (t *try) h2(method, target string, body []byte) *http.Request {
	req := t.target(method, target, body)
	u, err := req.URL.Parse(target)
	if err != nil {
		t.failf("%v", err)
		return req
	}
	req.URL, req.URL.Opaque = u, ""
	req.URL.Host = t.host()
	return req
}

// by sends a request with a client of the vector's own.
func (t *try) by(c *http.Client, req *http.Request) attack.Answer {
	a, err := attack.Do(c, req)
	if err != nil {
		t.failf("no answer: %v", err)
		return attack.Answer{}
	}
	t.back = append(t.back, describe(a))
	return a
}
