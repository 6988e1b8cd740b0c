package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

const (
	maxFindings = 16
	maxDepth    = 16
	maxCode     = 48
	maxField    = 64
	maxText     = 1024 // bytes of expected and got
)

// presentable bounds a refusal's words, and keeps a server from putting the
// challenge where operators read (invariant 8).
func (m *Matcher) presentable(a plugins.Answer, r *plugins.Request) plugins.Answer {
	secret := ""
	if m.config.Reveal {
		secret = strings.ToLower(r.Challenge)
	}
	words := func(s, instead string, most int) string {
		if secret != "" && strings.Contains(strings.ToLower(s), secret) {
			return instead
		}
		return cut(s, most)
	}
	if a.Verdict == plugins.Refuse {
		a.Code = codeOr(words(a.Code, "", len(a.Code)))
	}
	for i, f := range a.Findings {
		a.Findings[i] = plugins.Finding{
			Field:    plugins.Field(words(string(f.Field), "", maxField)),
			Expected: words(f.Expected, heldChallenge, maxText),
			Got:      words(f.Got, heldChallenge, maxText),
		}
	}
	return a
}

const heldChallenge = "(held the challenge)"

// parseAnswer reads {"verdict","code","findings"}, as long as they come. What is not one JSON object,
// or says something twice, is an error: nobody knows what was meant. An object
// that does not clearly agree refuses. Unknown keys are free for what comes. One
// without a verdict may answer in step-ca's words; allowed says that it agreed so.
func parseAnswer(text []byte) (a plugins.Answer, allowed bool, err error) {
	object, err := strictObject(text)
	if err != nil {
		return plugins.Answer{}, false, err
	}
	_, verdict := object["verdict"]
	_, allow := object["allow"]
	switch {
	case allow && !verdict:
		a = stepCAAnswer(object)
		return a, a.Verdict == plugins.Agree, nil
	case allow:
		return plugins.Answer{Code: codeVerdict}, false, nil // two answers in one
	}
	return verdictOf(object), false, nil
}

func verdictOf(object map[string]any) plugins.Answer {
	findings := findingsOf(object["findings"])
	switch object["verdict"] {
	case "agree", "not_mine":
		if object["findings"] != nil && !emptyList(object["findings"]) {
			return plugins.Answer{Code: codeFindings, Findings: findings}
		}
		if object["verdict"] == "agree" {
			return plugins.Answer{Verdict: plugins.Agree}
		}
		return plugins.Answer{Verdict: plugins.NotMine}
	case "refuse":
		code, _ := object["code"].(string)
		return plugins.Answer{Code: code, Findings: findings}
	}
	return plugins.Answer{Code: codeVerdict, Findings: findings} // threat F19
}

func emptyList(v any) bool {
	list, ok := v.([]any)
	return ok && len(list) == 0
}

func findingsOf(v any) []plugins.Finding {
	list, _ := v.([]any)
	var out []plugins.Finding
	for _, item := range list[:min(len(list), maxFindings)] {
		object, ok := item.(map[string]any)
		if !ok {
			continue
		}
		word := func(key string) string {
			s, _ := object[key].(string)
			return s
		}
		out = append(out, plugins.Finding{Field: plugins.Field(word("field")), Expected: word("expected"), Got: word("got")})
	}
	return out
}

// codeOr is the server's code in our syntax, CodeRefused if nothing is left of it.
func codeOr(code string) string {
	if code = codeOf(code); view.Code.MatchString(code) {
		return code
	}
	return CodeRefused
}

// codeOf makes a word of [a-z0-9_] out of anything: "Not Found" is not_found.
func codeOf(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < maxCode; i++ {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z':
			b.WriteByte(c + ('a' - 'A'))
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteByte(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "_"):
			b.WriteByte('_')
		}
	}
	return strings.Trim(b.String(), "_")
}

// cut keeps at most n bytes, and no half character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

var (
	errNoObject = errors.New("the answer is not one JSON object")
	errTwice    = errors.New("the answer has a key twice")
	errDeep     = errors.New("the answer is nested too deep")
)

// strictObject reads exactly one JSON object. encoding/json alone would take
// keys in any case, the last of two that are the same, and bytes that are no
// UTF-8. Errors quote nothing of the answer.
func strictObject(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, errNoObject
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errNoObject
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNoObject
	}
	return object, nil
}

func value(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, errNoObject
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			key, ok := name.(string)
			if err != nil || !ok {
				return nil, errNoObject
			}
			if _, twice := object[key]; twice {
				return nil, errTwice
			}
			if object[key], err = value(d, depth+1); err != nil {
				return nil, err
			}
		}
		return object, closed(d)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			item, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		return list, closed(d)
	}
	return token, nil
}

func closed(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errNoObject
	}
	return nil
}
