package expression_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/expression"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const challenge = "8CE317021F690069CAFE"

var both = []plugins.Field{plugins.Subject, plugins.SAN}

func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func ordinary() plugins.Request {
	return plugins.Request{
		Profile: "wifi",
		Decides: both,
		Facts: plugins.Facts{
			Subject: [][]plugins.NameAttribute{
				{{Type: "2.5.4.3", Value: "C02XK1"}}, {{Type: "2.5.4.11", Value: "WiFi"}, {Type: "2.5.4.5", Value: "4711"}}, {{Type: "2.5.4.10", Value: "Example Corp"}},
			},
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
			ID: "exp_0123456789", ExternalID: "mdm:4711",
			Subject: [][]plugins.ExpectedAttribute{{{Type: "2.5.4.3", Match: "prefix", Value: "C02"}}},
			SAN:     []plugins.ExpectedAltNames{{Type: "dns", Match: "any_of", Values: []string{"a", "b"}, Min: 1, Max: 1}},
			SID:     "S-1-5-21-1-2-3-1104", CertificateTemplate: "WiFiClient", MinKeyBits: 2048,
			Labels: map[string]string{"device": "C02XK1", "until": "2026-12-01T00:00:00Z"},
		},
		MessageType: "pkcs_req", TransactionID: "9F2C11D0",
		ClientIP: "10.1.2.3", UserAgent: "CFNetwork/1.0 Darwin/23.0", Query: "operation=PKIOperation&mdm=jamf",
		Challenge: challenge, PKCS10: []byte("DER with " + challenge),
	}
}

func newMatcher(t *testing.T, c expression.Config) *expression.Matcher {
	t.Helper()
	c.Now = noon
	m, err := expression.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExpressionConforms(t *testing.T) {
	for name, c := range map[string]struct {
		expression string
		reveal     bool
	}{
		"always":   {`true`, false},
		"negated":  {`!(request.cn == "administrator") && !("clientAuth2" in request.ext_key_usage)`, false},
		"revealed": {`request.challenge != "" && !(request.challenge in expectation.labels) && request.cn == "C02XK1"`, true},
		"quoting":  {`request.cn == "C02XK1" || expectation.labels[request.challenge] == ""`, true},
	} {
		t.Run(name, func(t *testing.T) {
			pluginstest.Run(t, func(t *testing.T) plugins.Matcher {
				return newMatcher(t, expression.Config{Expression: c.expression, Decides: both, Reveal: c.reveal})
			}, ordinary())
		})
	}
}

func TestWhatIsTrueAgreesAndWhatIsFalseRefuses(t *testing.T) {
	for _, c := range []struct {
		expression string
		want       bool
	}{
		{`request.cn == "C02XK1"`, true},
		{`request.cn == "c02xk1"`, false},
		{`request.subject.CN == ["C02XK1"] && request.subject.types == ["CN", "OU", "serialNumber", "O"]`, true},
		{`request.subject.types == ["CN"]`, false},
		{`request.subject.serialNumber == ["4711"] && request.subject.DC == []`, true},
		{`request.subject_rdns.size() == 3 && request.subject_rdns[1].size() == 2 && request.subject_rdns[1][0].type == "OU"`, true},
		{`request.san.dns == ["c02xk1.example.com"] && request.san.upn == ["ann@example.com"] && request.san.ip == []`, true},
		{`sets.equivalent(request.san.dns, ["c02xk1.example.com"])`, true},
		{`request.san.dns.all(d, d.endsWith(".example.com"))`, true},
		{`request.san.dns.exists(d, d.startsWith("dc"))`, false},
		{`request.sids == [expectation.sid]`, true},
		{`sets.equivalent(request.key_usage, ["keyEncipherment", "digitalSignature"])`, true},
		{`request.has_ext_key_usage && request.ext_key_usage == ["clientAuth"]`, true},
		{`!request.has_application_policies && request.application_policies == []`, true},
		{`request.certificate_template == expectation.certificate_template`, true},
		{`request.certificate_template_oid + request.request_template_name + request.request_template_oid == ""`, true},
		{`request.key.bits >= expectation.key.min_bits && request.key.spki_sha256.startsWith("abab") && request.key.spki == b"\x30\x00"`, true},
		{`request.sha256.size() == 64 && request.transaction_id == "9F2C11D0"`, true},
		{`request.message_type == "pkcs_req" && !request.renewal`, true},
		{`profile == "wifi" && query.contains("mdm=jamf") && user_agent.startsWith("CFNetwork/")`, true},
		{`expectation.registered && expectation.id.startsWith("exp_") && expectation.external_id == "mdm:4711"`, true},
		{`expectation.labels.device == request.cn && expectation.labels["device"] == request.cn`, true},
		{`"owner" in expectation.labels`, false},
		{`expectation.labels[?"owner"].orValue("nobody") == "nobody"`, true},
		{`expectation.subject_rdns[0][0].match == "prefix" && expectation.san_rules[0].values == ["a", "b"]`, true},
		{`now < timestamp(expectation.labels.until) && now.getHours("Europe/Berlin") == 13`, true},
		{`in_cidr(client_ip, "10.0.0.0/8")`, true},
		{`in_cidr(client_ip, "10.1.2.0/28") && !in_cidr(client_ip, "192.168.0.0/16")`, true},
		{`in_cidr("::ffff:10.1.2.3", "10.0.0.0/8") && in_cidr("fe80::1%eth0", "fe80::/10")`, true},
		{`request.cn.matches("^C02[A-Z0-9]{3}$")`, true},
		{`"" == "x"`, false},
	} {
		a, err := newMatcher(t, expression.Config{Expression: c.expression, Decides: both}).Match(t.Context(), ordinary())
		want := plugins.Answer{Code: expression.CodeFalse}
		if c.want {
			want = plugins.Answer{Verdict: plugins.Agree}
		}
		if err != nil || a.Verdict != want.Verdict || a.Code != want.Code {
			t.Errorf("%s: %+v, %v, want %+v", c.expression, a, err, want)
		}
	}
}

func TestTheCodeOfFalseIsTheConfiguredOne(t *testing.T) {
	m := newMatcher(t, expression.Config{Expression: `request.cn == "x"`, Code: "not_in_office", Decides: both})
	if a, err := m.Match(t.Context(), ordinary()); err != nil || a.Verdict != plugins.Refuse || a.Code != "not_in_office" {
		t.Errorf("Match = %+v, %v", a, err)
	}
}

func TestMistakesAreFoundWhereTheyStand(t *testing.T) {
	for _, c := range []struct{ expression, want string }{
		{"", "empty"},
		{" \n", "empty"},
		{`request.sbject == []`, "1:8: undefined field 'sbject'"},
		{`request.subject.cn == []`, "1:16: undefined field 'cn'"},
		{"request.cn == \"a\" &&\n\texpectation.label.a == \"b\"", "2:13: undefined field 'label'"},
		{`reqest.cn == "a"`, "1:1: undeclared reference to 'reqest'"},
		{`request.subject.CN == "a"`, "1:20: found no matching overload"},
		{`request.key.bits >= "2048"`, "1:18: found no matching overload"},
		{`request.cn`, "type string, not bool"},
		{`dyn(true)`, "not bool"},
		{`request.cn == "a`, "1:"},
		{`request.cn == `, "1:15: Syntax error"},
		{`request.cn.matches("(")`, "1:20: matches: error parsing regexp: missing closing )"},
		{`request.cn.matches(user_agent)`, "1:20: matches: the pattern is not a literal"},
		{`matches(request.cn, "^" + request.cn)`, "1:25: matches: the pattern is not a literal"},
		{`request.cn.matches("` + strings.Repeat("a", 1025) + `")`, "1:20: matches: the pattern is longer"},
		{`now < timestamp("tomorrow")`, "1:17: invalid timestamp argument"},
		{`in_cidr(client_ip, "10.0.0.0/33")`, "1:20: in_cidr"},
		{`in_cidr(client_ip, "10.0.0.1")`, "1:20: in_cidr"},
		{`in_cidr(client_ip, "::ffff:10.0.0.0/104")`, "write"},
		{`in_cidr(client_ip)`, "1:8: found no matching overload"},
		{`request.challenge == "x"`, "1:8: undefined field 'challenge'"},
		{`request.pkcs10 == b""`, "1:8: undefined field 'pkcs10'"},
		{`[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))`, "nesting"},
		{strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300), "recursion"},
		{strings.Repeat("true && ", 4000) + "true", "size"},
		{`a && b && c && d && e`, "…"},
	} {
		_, err := expression.New(expression.Config{Expression: c.expression})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
			t.Errorf("%.60q: %v, want one line with %q", c.expression, err, c.want)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for name, c := range map[string]expression.Config{
		"a code in capitals":      {Expression: "true", Code: "Refused"},
		"a long code":             {Expression: "true", Code: strings.Repeat("a", 49)},
		"a field that is exact's": {Expression: "true", Decides: []plugins.Field{plugins.Key}},
		"a field twice":           {Expression: "true", Decides: []plugins.Field{plugins.SAN, plugins.SAN}},
	} {
		if m, err := expression.New(c); err == nil {
			t.Errorf("%s: made %+v", name, m.Info())
		}
	}
}

// A device must not be able to make the gateway say that it is out of order.
func TestWhatARequestDoesToAnExpressionIsARefusal(t *testing.T) {
	change := func(f func(r *plugins.Request)) plugins.Request {
		r := ordinary()
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		expression string
		request    plugins.Request
		code, got  string
	}{
		"a label that is not there": {`expectation.labels.owner == "x"`, ordinary(), expression.CodeError, "1:19: no such key: owner"},
		"a list that is too short":  {`request.san.dns[3] == "x"`, ordinary(), expression.CodeError, "1:16: index out of bounds"},
		"no address": {"request.cn != \"\" &&\n!in_cidr(client_ip, \"10.0.0.0/8\")",
			change(func(r *plugins.Request) { r.ClientIP = "" }), expression.CodeError, "2:9: in_cidr: no address"},
		"no time":   {`now < timestamp(user_agent)`, ordinary(), expression.CodeError, "1:16: "},
		"no number": {`int(request.cn) > 0`, ordinary(), expression.CodeError, "1:4: "},
		"names by names": {`request.san.dns.all(a, request.san.dns.all(b, a != b || a == b))`, change(func(r *plugins.Request) {
			for range 10000 {
				r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: "dns", Value: "a"})
			}
		}), expression.CodeCost, "cost"},
		"an empty request":    {`true`, plugins.Request{}, "request_empty", ""},
		"a field not given":   {`true`, change(func(r *plugins.Request) { r.Decides = []plugins.Field{plugins.SID} }), "field_not_decided", ""},
		"a field of tomorrow": {`true`, change(func(r *plugins.Request) { r.Decides = append(r.Decides, "colour") }), "field_not_decided", ""},
	} {
		a, err := newMatcher(t, expression.Config{Expression: c.expression, Decides: both}).Match(t.Context(), c.request)
		if err != nil || a.Verdict != plugins.Refuse || a.Code != c.code {
			t.Errorf("%s: %+v, %v, want refusal %s", name, a, err, c.code)
			continue
		}
		if c.got != "" && (len(a.Findings) != 1 || !strings.Contains(a.Findings[0].Got, c.got)) {
			t.Errorf("%s: findings %+v, want %q", name, a.Findings, c.got)
		}
	}
}

func TestTheChallengeIsSeenOnlyIfRevealedAndNeverSaid(t *testing.T) {
	m := newMatcher(t, expression.Config{Expression: `request.challenge == "` + challenge + `" && request.pkcs10.size() > 0`, Decides: both, Reveal: true})
	if a, err := m.Match(t.Context(), ordinary()); err != nil || a.Verdict != plugins.Agree {
		t.Fatalf("Match = %+v, %v, want agreement", a, err)
	}
	for _, e := range []string{
		`expectation.labels[request.challenge] == "x"`,
		`timestamp(request.challenge) < now`,
		`int(request.challenge) > 0`,
		`request.challenge.substring(900) == ""`,
	} {
		a, err := newMatcher(t, expression.Config{Expression: e, Reveal: true, Decides: both}).Match(t.Context(), ordinary())
		if err != nil || a.Code != expression.CodeError || len(a.Findings) != 1 || !strings.HasPrefix(a.Findings[0].Got, "1:") {
			t.Errorf("%s: %+v, %v, want a refusal that names the position", e, a, err)
		}
		for _, f := range a.Findings {
			if strings.Contains(f.Expected+f.Got, challenge) {
				t.Errorf("%s: the finding says the challenge: %+v", e, f)
			}
		}
	}
}

func TestOnlyTheEndOfTheQuestionIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gone"))
	if a, err := newMatcher(t, expression.Config{Expression: "true", Decides: both}).Match(ctx, ordinary()); !errors.Is(err, context.Canceled) || a.Verdict != plugins.Refuse {
		t.Errorf("Match = %+v, %v, want Canceled", a, err)
	}
}

func BenchmarkMatch(b *testing.B) {
	m, err := expression.New(expression.Config{Expression: `request.cn == expectation.labels.device && request.san.dns.all(d, d.endsWith(".example.com")) && in_cidr(client_ip, "10.0.0.0/8")`, Decides: both})
	if err != nil {
		b.Fatal(err)
	}
	r := ordinary()
	b.ReportAllocs()
	for b.Loop() {
		if a, err := m.Match(b.Context(), r); err != nil || a.Verdict != plugins.Agree {
			b.Fatal(a, err)
		}
	}
}
