package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/plugins"
)

func request() plugins.Request {
	return plugins.Request{
		Profile: "wifi",
		Facts: plugins.Facts{
			Subject: [][]plugins.NameAttribute{{{Type: "2.5.4.3", Value: "C02XK1 <&> ü\u2028\n"}}},
			SAN:     []plugins.AltName{{Type: "dns", Value: "c02xk1.example.com"}},
			SPKI:    []byte{0x30, 0xff}, KeyBits: 2048,
		},
		Expectation: plugins.Expectation{ID: "exp_1", Labels: map[string]string{"Device": "C02XK1", "device": "c02xk1"}},
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	all := []Case{
		{Name: "agreed", Request: request(), Want: Want{Verdict: plugins.Agree}},
		{Name: "refused", Request: plugins.Request{Decides: []plugins.Field{}}, Want: Want{Code: "not_in_inventory"}},
		{Name: "not mine", Request: plugins.Request{Decides: []plugins.Field{plugins.SAN}}, Want: Want{Verdict: plugins.NotMine}},
	}
	var file []byte
	for _, c := range all {
		var err error
		if file, err = Append(file, c); err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Count(string(file), "\n"); lines != len(all) {
		t.Errorf("%d lines:\n%s", lines, file)
	}
	got, err := Read(strings.NewReader(string(file)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyLinesAreSkippedAndCasesWithoutANameAreNamedAfterTheirLine(t *testing.T) {
	got, err := Read(strings.NewReader("\n  \r\n" + `{"request":{},"want":{"verdict":"agree"}}` + "\r\n\n" + `{"request":{},"want":{"verdict":"refuse"}}`))
	if err != nil || len(got) != 2 || got[0].Name != "line 3" || got[1].Name != "line 5" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhatACaseDoesNotSayForCertainIsAnError(t *testing.T) {
	for name, test := range map[string]struct{ line, says string }{
		"no JSON":                  {`agree`, "line 1: "},
		"no object":                {`[]`, "cannot unmarshal"},
		"null":                     {`null`, "want.verdict"},
		"cut":                      {`{"request":{},"want":{"verdict":"agree"}`, "no end"},
		"two objects":              {`{"request":{},"want":{"verdict":"agree"}}{}`, "more than one object"},
		"rubbish behind":           {`{"request":{},"want":{"verdict":"agree"}} x`, ""},
		"no request":               {`{"want":{"verdict":"agree"}}`, "no request"},
		"a request of null":        {`{"request":null,"want":{"verdict":"agree"}}`, "no request"},
		"no want":                  {`{"request":{}}`, `want.verdict ""`},
		"no verdict":               {`{"request":{},"want":{"code":"x"}}`, `want.verdict ""`},
		"a verdict of tomorrow":    {`{"request":{},"want":{"verdict":"maybe"}}`, `"maybe"`},
		"a verdict in capitals":    {`{"request":{},"want":{"verdict":"Agree"}}`, `"Agree"`},
		"a verdict that is no":     {`{"request":{},"want":{"verdict":1}}`, "cannot unmarshal"},
		"a code that is none":      {`{"request":{},"want":{"verdict":"refuse","code":"Not in inventory"}}`, "want.code"},
		"an unknown field":         {`{"request":{},"want":{"verdict":"agree"},"wnat":1}`, "wnat"},
		"an unknown fact":          {`{"request":{"facts":{"subjct":[]}},"want":{"verdict":"agree"}}`, "subjct"},
		"a key in another case":    {`{"request":{"Profile":"x"},"want":{"verdict":"agree"}}`, `"Profile"`},
		"a key twice":              {`{"request":{"profile":"a","profile":"b"},"want":{"verdict":"agree"}}`, `"profile" stands twice`},
		"a label twice":            {`{"request":{"expectation":{"labels":{"A":"a","A":"b"}}},"want":{"verdict":"agree"}}`, `"A" stands twice`},
		"not UTF-8":                {"{\"name\":\"\xff\",\"request\":{},\"want\":{\"verdict\":\"agree\"}}", "UTF-8"},
		"nested a thousand levels": {`{"request":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "nested"},
		"a name without end":       {`{"name":"` + strings.Repeat("n", maxName+1) + `","request":{},"want":{"verdict":"agree"}}`, "name"},
		"a line without end":       {`{"name":"` + strings.Repeat("n", MaxLine), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(strings.NewReader(test.line))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, %v", got, err)
			}
			if len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAFileIsBounded(t *testing.T) {
	const line = `{"request":{},"want":{"verdict":"agree"}}` + "\n"
	if _, err := Read(strings.NewReader(strings.Repeat(line, MaxCases))); err != nil {
		t.Errorf("a file with as many cases as there may be: %v", err)
	}
	if _, err := Read(strings.NewReader(strings.Repeat(line, MaxCases+1))); err == nil {
		t.Error("more cases than there may be")
	}
	blank := strings.Repeat(" ", MaxLine-1) + "\n"
	if _, err := Read(strings.NewReader(strings.Repeat(blank, MaxFile/len(blank)+1) + line)); err == nil {
		t.Error("more bytes than there may be")
	}
	if _, err := Append(nil, Case{Name: strings.Repeat("n", MaxLine)}); err == nil {
		t.Error("a line that could not be read is written")
	}
}

// matcher answers as it is told to.
type matcher struct {
	answer plugins.Answer
	err    error
	asked  *plugins.Request
}

func (m matcher) Info() plugins.Info {
	return plugins.Info{Name: "test", Decides: []plugins.Field{plugins.Subject, plugins.SAN}}
}

func (m matcher) Match(_ context.Context, r plugins.Request) (plugins.Answer, error) {
	if m.asked != nil {
		*m.asked = r
	}
	return m.answer, m.err
}

func TestACaseChecksVerdictAndCode(t *testing.T) {
	finding := []plugins.Finding{{Field: plugins.SAN, Expected: "a", Got: "b"}}
	for name, test := range map[string]struct {
		want   Want
		answer plugins.Answer
		err    error
		says   string // "": as wanted
	}{
		"agreed":                   {Want{Verdict: plugins.Agree}, plugins.Answer{Verdict: plugins.Agree}, nil, ""},
		"refused, by any code":     {Want{}, plugins.Answer{Code: "x"}, nil, ""},
		"refused, by its code":     {Want{Code: "x"}, plugins.Answer{Code: "x"}, nil, ""},
		"not mine":                 {Want{Verdict: plugins.NotMine}, plugins.Answer{Verdict: plugins.NotMine}, nil, ""},
		"an unknown verdict":       {Want{}, plugins.Answer{Verdict: 7}, nil, ""},
		"agreed with findings":     {Want{}, plugins.Answer{Verdict: plugins.Agree, Findings: finding}, nil, ""},
		"refused instead":          {Want{Verdict: plugins.Agree}, plugins.Answer{Code: "x", Findings: finding}, nil, `wanted agree, got refuse x ("san": expected "a", got "b")`},
		"agreed instead":           {Want{}, plugins.Answer{Verdict: plugins.Agree}, nil, "wanted refuse, got agree"},
		"not mine instead":         {Want{}, plugins.Answer{Verdict: plugins.NotMine}, nil, "wanted refuse, got not_mine"},
		"another code":             {Want{Code: "x"}, plugins.Answer{Code: "y"}, nil, "wanted refuse x, got refuse y"},
		"agreed, findings and all": {Want{Verdict: plugins.Agree}, plugins.Answer{Verdict: plugins.Agree, Findings: finding}, nil, "got refuse"},
		"an error is no refusal":   {Want{}, plugins.Answer{}, errors.New("down"), "nothing was decided: down"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Case{Request: request(), Want: test.want}.Check(t.Context(), matcher{answer: test.answer, err: test.err})
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestACaseAsksForAllThatTheMatcherDecidesUnlessItSaysOtherwise(t *testing.T) {
	for _, test := range []struct{ decides, want []plugins.Field }{
		{nil, []plugins.Field{plugins.Subject, plugins.SAN}},
		{[]plugins.Field{}, []plugins.Field{}},
		{[]plugins.Field{plugins.SID}, []plugins.Field{plugins.SID}},
	} {
		var asked plugins.Request
		r := request()
		r.Decides = test.decides
		_ = Case{Request: r}.Check(t.Context(), matcher{asked: &asked})
		if diff := cmp.Diff(test.want, asked.Decides); diff != "" {
			t.Errorf("%v: %s", test.decides, diff)
		}
	}
}

func FuzzWhatIsReadIsWrittenAndReadAlike(f *testing.F) {
	line, err := Append(nil, Case{Name: "x", Request: request(), Want: Want{Code: "y"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"request":{"decides":[],"facts":{"subject_rdns":[[],null]}},"want":{"verdict":"not_mine"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Append(nil, c)
		if err != nil {
			t.Skip(err) // escaping makes it longer
		}
		got, err := Parse(again)
		if err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", got)); diff != "" {
			t.Error(diff)
		}
	})
}
