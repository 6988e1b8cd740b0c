package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

func refuse(code string, findings ...plugins.Finding) plugins.Answer {
	return plugins.Answer{Code: code, Findings: findings}
}

func TestOnlyAClearAgreementAgrees(t *testing.T) {
	finding := plugins.Finding{Field: "subject", Expected: "CN=a", Got: "CN=b"}
	agree, notMine := plugins.Answer{Verdict: plugins.Agree}, plugins.Answer{Verdict: plugins.NotMine}
	for _, c := range []struct {
		text string
		want plugins.Answer
	}{
		{`{"verdict":"agree"}`, agree},
		{` {"verdict":"agree","code":"fine","findings":[],"note":{"a":[1,null]}} `, agree},
		{`{"verdict":"agree","findings":null}`, agree},
		{`{"verdict":"not_mine"}`, notMine},
		{`{"verdict":"refuse"}`, refuse(CodeRefused)},
		{`{"verdict":"refuse","code":"no_such_device"}`, refuse("no_such_device")},
		{`{"verdict":"refuse","code":" Not in the CMDB! "}`, refuse("not_in_the_cmdb")},
		{`{"verdict":"refuse","code":"` + strings.Repeat("ab", 40) + `"}`, refuse(strings.Repeat("ab", 24))},
		{`{"verdict":"refuse","code":"…"}`, refuse(CodeRefused)},
		{`{"verdict":"refuse","code":7}`, refuse(CodeRefused)},
		{`{"verdict":"refuse","findings":[{"field":"subject","expected":"CN=a","got":"CN=b"},7,{"field":["x"]}]}`, refuse(CodeRefused, finding, plugins.Finding{})},
		{`{"verdict":"refuse","findings":"CN"}`, refuse(CodeRefused)},
		{`{"verdict":"agree","findings":[{"field":"subject","expected":"CN=a","got":"CN=b"}]}`, refuse(codeFindings, finding)},
		{`{"verdict":"agree","findings":"none"}`, refuse(codeFindings)},
		{`{"verdict":"agree","findings":{}}`, refuse(codeFindings)},
		{`{"verdict":"not_mine","findings":[{}]}`, refuse(codeFindings, plugins.Finding{})},
		{`{}`, refuse(codeVerdict)},
		{`{"verdict":null}`, refuse(codeVerdict)},
		{`{"verdict":true}`, refuse(codeVerdict)},
		{`{"verdict":1}`, refuse(codeVerdict)},
		{`{"verdict":["agree"]}`, refuse(codeVerdict)},
		{`{"verdict":"AGREE"}`, refuse(codeVerdict)},
		{`{"verdict":"agree "}`, refuse(codeVerdict)},
		{`{"verdict":"agreed"}`, refuse(codeVerdict)},
		{`{"Verdict":"agree"}`, refuse(codeVerdict)},
		{`{"verdict":"agree\u0000"}`, refuse(codeVerdict)},
		{`{"allow":true}`, plugins.Answer{Verdict: plugins.Agree}},
		{`{"allow":true,"data":{"x":1}}`, plugins.Answer{Verdict: plugins.Agree}},
		{`{"allow":false,"error":{"code":"unknown","message":"no such device"}}`, refuse("unknown", plugins.Finding{Got: "no such device"})},
		{`{"allow":false}`, refuse(CodeRefused)},
		{`{"allow":"true"}`, refuse(CodeRefused)},
		{`{"allow":1}`, refuse(CodeRefused)},
		{`{"Allow":true}`, refuse(codeVerdict)},
		{`{"allow":true,"verdict":"agree"}`, refuse(codeVerdict)},
		{`{"allow":true,"verdict":"refuse"}`, refuse(codeVerdict)},
		{`{"allow":true,"verdict":null}`, refuse(codeVerdict)},
		{`{"answer":{"verdict":"agree"}}`, refuse(codeVerdict)},
	} {
		a, _, err := parseAnswer([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if d := cmp.Diff(c.want, new(Matcher).presentable(a, &plugins.Request{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, d)
		}
	}
}

func TestOnlyAllowTrueIsStepCAsAgreement(t *testing.T) {
	for text, want := range map[string]plugins.Answer{
		`{"allow":true}`:                       {Verdict: plugins.Agree},
		`{"allow":true,"data":{"role":"eng"}}`: {Verdict: plugins.Agree},
		`{"allow":false}`:                      refuse(CodeRefused),
		`{}`:                                   refuse(CodeRefused),
		`{"allow":"true"}`:                     refuse(CodeRefused),
		`{"allow":1}`:                          refuse(CodeRefused),
		`{"allow":null}`:                       refuse(CodeRefused),
		`{"Allow":true}`:                       refuse(CodeRefused),
		`{"verdict":"agree"}`:                  refuse(CodeRefused),
		`{"allow":false,"error":{"code":"Not Found"}}`:    refuse("not_found"),
		`{"error":{"code":"expired","message":"it is"}}`:  refuse("expired", plugins.Finding{Got: "it is"}),
		`{"allow":false,"error":"expired"}`:               refuse(CodeRefused),
		`{"allow":false,"error":{"code":7,"message":[]}}`: refuse(CodeRefused),
	} {
		a, _, err := parseStepCAAnswer([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, new(Matcher).presentable(a, &plugins.Request{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}

// rubbish decides nothing, whoever reads it.
var rubbish = map[string]string{
	"nothing":          ``,
	"space":            " \n",
	"text":             `agree`,
	"a string":         `"agree"`,
	"a list":           `[{"verdict":"agree","allow":true}]`,
	"null":             `null`,
	"HTML":             `<html>agree</html>`,
	"cut":              `{"verdict":"agree","allow":true`,
	"two objects":      `{"verdict":"agree","allow":true}{"verdict":"refuse","allow":false}`,
	"text behind":      `{"verdict":"agree","allow":true} x`,
	"a key twice":      `{"verdict":"refuse","allow":false,"verdict":"agree","allow":true}`,
	"the same twice":   `{"verdict":"agree","allow":true,"verdict":"agree","allow":true}`,
	"an escaped twin":  `{"verdict":"agree","\u0076erdict":"refuse","allow":true,"\u0061llow":false}`,
	"a key twice deep": `{"verdict":"agree","allow":true,"data":{"a":[{"b":1,"b":2}]}}`,
	"no UTF-8":         "{\"verdict\":\"agree\",\"allow\":true,\"code\":\"\xff\"}",
	"a mark of order":  "\xef\xbb\xbf{\"verdict\":\"agree\",\"allow\":true}",
	"NaN":              `{"verdict":"agree","allow":true,"data":NaN}`,
	"a comment":        `{"verdict":"agree","allow":true /* x */}`,
	"a comma":          `{"verdict":"agree","allow":true,}`,
	"deep":             `{"verdict":"agree","allow":true,"data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
	"very deep":        strings.Repeat(`{"a":`, 12000) + `1` + strings.Repeat(`}`, 12000),
}

func TestRubbishDecidesNothing(t *testing.T) {
	for name, text := range rubbish {
		if a, _, err := parseAnswer([]byte(text)); err == nil {
			t.Errorf("%s: %+v, want an error", name, a)
		}
		if a, _, err := parseStepCAAnswer([]byte(text)); err == nil {
			t.Errorf("step_ca, %s: %+v, want an error", name, a)
		}
	}
}

func TestWordsAreBoundedAndNeverHoldTheChallenge(t *testing.T) {
	long := strings.Repeat("é", 2000)
	echo := "x" + strings.Repeat("y", 1000) + "8ce317021f690069cafe"
	var findings []string
	for range 40 {
		findings = append(findings, fmt.Sprintf(`{"field":%q,"expected":%q,"got":%q}`, long, long, echo))
	}
	a, _, err := parseAnswer([]byte(`{"verdict":"refuse","code":"see_8CE317021F690069CAFE","findings":[` + strings.Join(findings, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := &Matcher{config: Config{Reveal: true}}
	a = m.presentable(a, &plugins.Request{Challenge: challenge})
	if a.Code != CodeRefused {
		t.Errorf("code = %q, want %q", a.Code, CodeRefused)
	}
	if len(a.Findings) != maxFindings {
		t.Fatalf("%d findings, want %d", len(a.Findings), maxFindings)
	}
	for _, f := range a.Findings {
		if len(f.Field) > maxField || len(f.Expected) > maxText || !utf8.ValidString(f.Expected) || f.Got != heldChallenge {
			t.Fatalf("finding = %d, %d bytes, %.60q", len(f.Field), len(f.Expected), f.Got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range rubbish {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"verdict":"agree"}`))
	f.Add([]byte(`{"verdict":"refuse","code":"8CE317021F690069CAFE","findings":[{"field":"san","expected":"a","got":"8ce317021f690069cafe"}]}`))
	f.Add([]byte(`{"allow":true,"error":{"code":"A b","message":"c"}}`))
	m := &Matcher{config: Config{Reveal: true}}
	asked := &plugins.Request{Challenge: challenge}
	f.Fuzz(func(t *testing.T, text []byte) {
		var plain struct {
			Verdict string `json:"verdict"`
			Allow   any    `json:"allow"`
		}
		readable := json.Unmarshal(text, &plain) == nil
		for name, parse := range map[string]func([]byte) (plugins.Answer, bool, error){"scepgate": parseAnswer, "step_ca": parseStepCAAnswer} {
			a, allowed, err := parse(text)
			if err != nil {
				if a.Verdict != plugins.Refuse || len(a.Findings) > 0 {
					t.Fatalf("%s: %+v beside %v", name, a, err)
				}
				continue
			}
			a = m.presentable(a, asked)
			switch a.Verdict {
			case plugins.Agree, plugins.NotMine:
				if !readable || len(a.Findings) > 0 {
					t.Fatalf("%s: %+v of %q", name, a, text)
				}
				if allowed != (a.Verdict == plugins.Agree && plain.Allow == true) && name == "step_ca" {
					t.Fatalf("allowed %v of %q", allowed, text)
				}
				if name == "scepgate" && a.Verdict == plugins.Agree && !allowed && !strings.EqualFold(plain.Verdict, "agree") && !strings.Contains(string(text), `erdict"`) {
					t.Fatalf("agreed to %q", text)
				}
			case plugins.Refuse:
				if !view.Code.MatchString(a.Code) || len(a.Findings) > maxFindings {
					t.Fatalf("%s: %+v", name, a)
				}
			default:
				t.Fatalf("%s: verdict %d", name, a.Verdict)
			}
			if said := strings.ToUpper(fmt.Sprint(a)); strings.Contains(said, challenge) {
				t.Fatalf("%s says the challenge: %s", name, said)
			}
		}
	})
}
