package main

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
)

// rowsHTTP: the private key as an oracle, and everything that HTTP allows.
func rowsHTTP() []vector {
	return inOrder(rowsOracle(), rowsBodies(), rowsConnections(), rowsQueries(), rowsBase64(), rowsPaths(), rowsHeaders(), rowsAnswers())
}

// rowsQueries: E17–E21.
func rowsQueries() []vector {
	var list []vector
	for _, q := range []struct {
		row, query string
	}{
		{"E17", "operation=GetCACaps&operation=PKIOperation"},
		{"E17", "operation=PKIOperation&operation=GetCACaps"},
		{"E17", "operation=GetCACert&operation=GetCACert"},
		{"E17", "operation=GetCACert&message=a&message=b"},
		{"E18", "Operation=GetCACert"},
		{"E18", "OPERATION=GetCACert"},
		{"E18", "op%65ration=GetCACert"},
		{"E18", "operation=PKIOperation%00&message=MAA="},
		{"E18", "operation=pkioperation&message=MAA="},
		{"E18", "operation=getcacert"},
		{"E18", "operation=%20PKIOperation&message=MAA="},
		{"E18", "operation=PKIOperation%20&message=MAA="},
		{"E18", "operation=PKIOperatio%6e&message=MAA="},
		{"E18", "operation=PKIOperation/&message=MAA="},
		{"E18", "operation[]=GetCACert"},
		{"E18", "+operation=GetCACert"},
		{"E18", "operation"},
		{"E18", "operation="},
		{"E18", "message=MAA="},
		{"E18", ""},
		{"E18", "??operation=GetCACert"},
		{"E18", "operation=GetCACert&"},
		{"E18", "operation=GetCACert&profile=vpn"},
		{"E19", "operation=GetCACert;operation=PKIOperation"},
		{"E19", "operation=GetCACert;"},
		{"E19", "operation=GetCACert&message=%zz"},
		{"E19", "operation=PKIOperation&message=MA%"},
		{"E19", "operation=PKIOperation&message=MA%3"},
		{"E19", "%zz=1&operation=GetCACert"},
		{"E20", "operation=NDESGenerateChallenge"},
		{"E20", "operation=NDESGenerateChallenge&message=x"},
		{"E20", "operation=NDESGetCACertThumbprint"},
		{"E20", "operation=ndesgeneratechallenge"},
		{"E20", "operation=GetCACertChain"},
	} {
		list = append(list, vector{row: q.row, variant: "?" + q.query, want: pre, status: 400, reason: "malformed_message", request: querying(q.query)})
	}
	return append(list,
		vector{row: "E17", variant: "POST with ?operation=PKIOperation&operation=GetCACert", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.target(http.MethodPost, attack.Path+"?operation=PKIOperation&operation=GetCACert", t.M.Bytes())
			}},
		// NDES does not have it (contract §3).
		vector{row: "E20", variant: "?operation=GetNextCACert", want: pre, status: 404, request: querying("operation=GetNextCACert")},
		vector{row: "E20", variant: "?operation=NDESGenerateChallenge on mscep_admin", want: pre, status: 404, request: visiting("/certsrv/mscep_admin/mscep.dll?operation=NDESGenerateChallenge")},
		vector{row: "E21", variant: "POST of one message with another in the query", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.target(http.MethodPost, attack.Path+"?operation=PKIOperation&message="+url.QueryEscape(base64.StdEncoding.EncodeToString(t.message(t.other()).Bytes())), t.M.Bytes())
			}},
		vector{row: "E21", variant: "POST with an empty message in the query", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.target(http.MethodPost, attack.Path+"?operation=PKIOperation&message=", t.M.Bytes())
			}},
		vector{row: "E21", variant: "GET of a message with another in the body", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				target := attack.Path + "?operation=PKIOperation&message=" + url.QueryEscape(base64.StdEncoding.EncodeToString(t.message(t.other()).Bytes()))
				return t.target(http.MethodGet, target, t.M.Bytes())
			}},
		vector{row: "E21", variant: "POST of GetCACert", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.target(http.MethodPost, attack.Path+"?operation=GetCACert", t.M.Bytes())
			}},
		vector{row: "E21", variant: "POST without a body", want: pre, status: 400, reason: "malformed_message",
			request: func(t *try) *http.Request {
				return t.target(http.MethodPost, attack.Path+"?operation=PKIOperation", nil)
			}},
		// quirk: sscep and Samba put a second '?' before the query (contract §3).
		vector{row: "E18", variant: "??operation=PKIOperation with a message, as sscep asks", want: forwarded, act: func(t *try) {
			t.gets(func(text string) string { return "?operation=PKIOperation&message=" + url.QueryEscape(text) })
		}},
	)
}

// gets demands that the honest device enrols by a GET with this raw query.
func (t *try) gets(query func(base64 string) string) {
	m := t.M.Bytes()
	t.issued(t.do(querying(query(base64.StdEncoding.EncodeToString(m)))(t)))
	t.decision("ok")
	t.reached(m)
	t.state(t.ID, "issued")
}

// rowsBase64: E22. What clients send is taken (architecture, "Opening a
// message"), what has two readings is not.
func rowsBase64() []vector {
	var list []vector
	for _, v := range []struct {
		variant string
		write   func(text string) string
	}{
		{"escaped as RFC 8894 has it", url.QueryEscape},
		{"with + / = as they are, as iOS sends", func(s string) string { return s }},
		{"with + turned into %20 by a proxy", func(s string) string { return strings.ReplaceAll(s, "+", "%20") }},
		{"wrapped at 64 characters, as sscep sends", func(s string) string { return wrapped(s, "%0A") }},
		{"wrapped with CR and LF", func(s string) string { return wrapped(s, "%0D%0A") }},
		{"without padding", func(s string) string { return url.QueryEscape(strings.TrimRight(s, "=")) }},
	} {
		list = append(list, vector{row: "E22", variant: "base64 " + v.variant, want: forwarded, act: func(t *try) {
			t.paddedMessage()
			t.gets(func(text string) string { return "operation=PKIOperation&message=" + v.write(text) })
		}})
	}
	for _, v := range []struct {
		variant string
		write   func(text string) string
	}{
		{"of the alphabet for URLs", func(s string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(s + "-_") }},
		{"with rubbish behind it", func(s string) string { return url.QueryEscape(s + "!") }},
		{"with more base64 behind its padding", func(s string) string { return url.QueryEscape(strings.TrimRight(s, "=") + "=MAA=") }},
		{"escaped twice", func(s string) string { return url.QueryEscape(url.QueryEscape(s)) }},
		{"with a NUL in it", func(s string) string { return url.QueryEscape(s[:40]) + "%00" + url.QueryEscape(s[40:]) }},
		{"with a tab in it", func(s string) string { return url.QueryEscape(s[:40]) + "%09" + url.QueryEscape(s[40:]) }},
		{"with one sign of padding too many", func(s string) string { return url.QueryEscape(strings.TrimRight(s, "=") + "===") }},
		{"whose last character has bits to spare", func(s string) string {
			s = strings.TrimRight(s, "=")
			return url.QueryEscape(s[:len(s)-1] + spare(s[len(s)-1]) + "=")
		}},
		{"that is empty", func(string) string { return "" }},
		{"that is default", func(string) string { return "default" }},
	} {
		list = append(list, vector{row: "E22", variant: "base64 " + v.variant, want: pre, status: 400, reason: "malformed_message", request: func(t *try) *http.Request {
			return querying("operation=PKIOperation&message=" + v.write(base64.StdEncoding.EncodeToString(t.paddedMessage())))(t)
		}})
	}
	return list
}

// paddedMessage is t.M at a length that base64 pads with one sign: a longer
// transactionID makes a longer message.
func (t *try) paddedMessage() []byte {
	for {
		m := t.M.Bytes()
		if len(m)%3 == 2 {
			return m
		}
		t.M.SignedData.Signer.TransactionID += "A"
	}
}

// spare is the character after c in base64, for a c that ends with zeroes.
func spare(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

func wrapped(s, end string) string {
	var b strings.Builder
	for len(s) > 64 {
		b.WriteString(strings.ReplaceAll(s[:64], "+", "%2B") + end)
		s = s[64:]
	}
	return b.String() + strings.ReplaceAll(s, "+", "%2B") + end
}
