package pluginstest

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/scepgate/scepgate/plugins"
)

type question struct {
	name    string
	request plugins.Request
}

// questions is what every property is tried with: ordinary requests for each
// way of asking m, and those it is said to agree to.
func questions(m plugins.Matcher, agreed []plugins.Request) []question {
	info := m.Info()
	out := []question{
		{"zero request", plugins.Request{}},
		{"as expected, only to object", ordinary()},
	}
	decide := func(name string, r plugins.Request, fields ...plugins.Field) {
		r.Decides = fields
		out = append(out, question{name, r})
	}
	decide("as expected", ordinary(), info.Decides...)
	for _, f := range info.Decides {
		decide("as expected, deciding "+string(f), ordinary(), f)
	}

	other := ordinary()
	other.Facts.Subject[0][0].Value, other.Facts.SAN[1].Value = "administrator", "administrator@example.com"
	other.Facts.SIDs = []string{"S-1-5-21-1-2-3-500"}
	decide("another's identity", other, info.Decides...)

	nobody := ordinary()
	nobody.Expectation = plugins.Expectation{}
	decide("nothing registered", nobody, info.Decides...)

	empty := ordinary()
	empty.Facts = plugins.Facts{}
	decide("nothing asked for", empty, info.Decides...)

	renewal := ordinary()
	renewal.Renewal, renewal.MessageType = true, "renewal_req"
	decide("a renewal", renewal)

	for i, r := range agreed {
		out = append(out, question{fmt.Sprintf("agreed request %d", i), clone(r)})
	}
	return out
}

func ordinary() plugins.Request {
	return plugins.Request{
		Profile: "wifi",
		Facts: plugins.Facts{
			Subject:        [][]plugins.NameAttribute{{{Type: "2.5.4.3", Value: "C02XK1"}}, {{Type: "2.5.4.10", Value: "Example Corp"}}},
			SAN:            []plugins.AltName{{Type: "dns", Value: "c02xk1.example.com"}, {Type: "upn", Value: "ann@example.com"}},
			SIDs:           []string{"S-1-5-21-1-2-3-1104"},
			KeyUsage:       []string{"digitalSignature", "keyEncipherment"},
			HasExtKeyUsage: true,
			ExtKeyUsage:    []string{"1.3.6.1.5.5.7.3.2"},
			Template:       "WiFiClient",
			KeyBits:        2048,
			SPKI:           []byte{0x30, 0x00},
			SPKISHA256:     strings.Repeat("ab", 32),
			RequestSHA256:  strings.Repeat("cd", 32),
		},
		Expectation: plugins.Expectation{
			ID:         "exp_0123456789",
			ExternalID: "mdm:4711",
			Subject: [][]plugins.ExpectedAttribute{
				{{Type: "2.5.4.3", Match: "exact", Value: "C02XK1"}}, {{Type: "2.5.4.10", Match: "exact", Value: "Example Corp"}},
			},
			SAN: []plugins.ExpectedAltNames{
				{Type: "dns", Match: "exact", Value: "c02xk1.example.com", Min: 1, Max: 1},
				{Type: "upn", Match: "exact", Value: "ann@example.com", Min: 1, Max: 1},
			},
			SID:                 "S-1-5-21-1-2-3-1104",
			CertificateTemplate: "WiFiClient",
			KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2"},
			MinKeyBits:          2048,
			Labels:              map[string]string{"device": "C02XK1"},
		},
		MessageType:   "pkcs_req",
		TransactionID: "9F2C11D0",
		ClientIP:      "192.0.2.7",
		UserAgent:     "CFNetwork/1.0 Darwin/23.0",
		Query:         "operation=PKIOperation",
	}
}

// hostile is what a device may put into a request, and more.
func hostile(m plugins.Matcher) []question {
	fields := m.Info().Decides
	var out []question
	with := func(name string, change func(r *plugins.Request)) {
		r := ordinary()
		r.Decides = fields
		change(&r)
		out = append(out, question{name, r})
	}
	long := strings.Repeat("A", 64<<10)
	for name, s := range map[string]string{
		"64 KiB":             long,
		"not UTF-8":          "a\xff\xfe\xc0\x80b",
		"NUL":                "C02XK1\x00.example.com",
		"control characters": "\x1b[2J\r\nlevel=error\t\x7f",
		"right to left":      "\u202ecod.exe",
		"formats":            "%s%n%[2]*d {{.}} ${jndi:x} $(id) '; drop table devices; --",
		"names":              "CN=a,O=b+OU=c/CN=administrator",
		"paths":              "../../../../etc/passwd",
		"numbers":            "=1+1",
	} {
		with(name, func(r *plugins.Request) {
			r.TransactionID, r.UserAgent, r.Query, r.ClientIP, r.MessageType = s, s, s, s, s
			r.Facts.Subject[0][0].Value = s
			r.Facts.SAN[0].Value = s
			r.Facts.SIDs = []string{s}
			r.Facts.ExtKeyUsage = []string{s}
			r.Facts.RequestTemplateName = s
		})
		with(name+", as type", func(r *plugins.Request) {
			r.Facts.Subject[0][0].Type = s
			r.Facts.SAN[0].Type = s
			r.Facts.KeyUsage = []string{s}
		})
		with(name+", expected as well", func(r *plugins.Request) {
			r.Facts.Subject[0][0].Value, r.Expectation.Subject[0][0].Value = s, s
			r.Facts.SAN[0].Value, r.Expectation.SAN[0].Value = s, s
		})
		with(name+", as a pattern", func(r *plugins.Request) {
			r.Expectation.Subject[0][0].Match, r.Expectation.Subject[0][0].Value = "regex", s
			r.Expectation.SAN[0].Match = s
		})
	}
	with("4,000 RDNs", func(r *plugins.Request) {
		r.Facts.Subject = nil
		for i := range 4000 {
			r.Facts.Subject = append(r.Facts.Subject, []plugins.NameAttribute{{Type: "2.5.4.11", Value: fmt.Sprint(i)}})
		}
	})
	with("4,000 attributes in one RDN", func(r *plugins.Request) {
		r.Facts.Subject = [][]plugins.NameAttribute{nil}
		for i := range 4000 {
			r.Facts.Subject[0] = append(r.Facts.Subject[0], plugins.NameAttribute{Type: "2.5.4.11", Value: fmt.Sprint(i)})
		}
	})
	with("4,000 names", func(r *plugins.Request) {
		for i := range 4000 {
			r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "dns", Value: fmt.Sprintf("h%d.example.com", i)})
		}
	})
	with("4,000 of everything else", func(r *plugins.Request) {
		for i := range 4000 {
			s := fmt.Sprint(i)
			r.Facts.SIDs = append(r.Facts.SIDs, s)
			r.Facts.KeyUsage = append(r.Facts.KeyUsage, s)
			r.Facts.ExtKeyUsage = append(r.Facts.ExtKeyUsage, s)
			r.Facts.ApplicationPolicies = append(r.Facts.ApplicationPolicies, s)
		}
	})
	with("empty RDNs and names", func(r *plugins.Request) {
		r.Facts.Subject = [][]plugins.NameAttribute{nil, {}, {{}}, {{}, {}}}
		r.Facts.SAN = []plugins.AltName{{}, {}}
		r.Facts.SIDs, r.Facts.KeyUsage, r.Facts.ExtKeyUsage = []string{""}, []string{""}, []string{""}
	})
	with("numbers out of range", func(r *plugins.Request) {
		r.Facts.KeyBits, r.Expectation.MinKeyBits = -1, -1
		r.Expectation.SAN[0].Min, r.Expectation.SAN[0].Max = -1, 1<<31-1
		r.Expectation.SAN[1].Min, r.Expectation.SAN[1].Max = 1<<31-1, 0
	})
	with("a thousand fields to decide", func(r *plugins.Request) {
		r.Decides = nil
		for i := range 1000 {
			r.Decides = append(r.Decides, plugins.Field(fmt.Sprintf("field_%d", i)))
		}
	})
	with("a megabyte of DER", func(r *plugins.Request) {
		r.Facts.SPKI, r.PKCS10 = make([]byte, 1<<20), make([]byte, 1<<20)
	})
	return out
}

// clone copies a request in depth, nil and empty slices as they are.
func clone(r plugins.Request) plugins.Request {
	return cloned(reflect.ValueOf(r)).Interface().(plugins.Request)
}

func cloned(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(cloned(v.Field(i)))
		}
	case reflect.Slice:
		if v.IsNil() {
			return out
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			reflect.Copy(out, v)
			return out
		}
		for i := range v.Len() {
			out.Index(i).Set(cloned(v.Index(i)))
		}
	case reflect.Map:
		if v.IsNil() {
			return out
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for key, value := range v.Seq2() {
			out.SetMapIndex(key, cloned(value))
		}
	default:
		out.Set(v)
	}
	return out
}
