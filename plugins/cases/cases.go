// Package cases holds what a matcher must answer: requests, each with the
// verdict that it must get, one JSON object a line. `scepgate scep plugin
// record` writes such files, `scepgate scep plugin test` reads them, and so does
// a matcher's own test:
//
//	all, err := cases.Read(file)
//	for _, c := range all {
//		err := c.Check(ctx, matcher)
//	}
//
// A file is its author's: it is bounded and read strictly, so that a case never
// says less than it seems to.
package cases

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/scepgate/scepgate/plugins"
)

// Bounds of a file.
const (
	MaxLine  = 1 << 20 // bytes
	MaxFile  = 32 << 20
	MaxCases = 10_000

	maxName = 200
)

// Case is a request and what it must get. Without Request.Decides it is put to
// a matcher with everything that this one can decide; an empty list, which asks
// only whether it objects, stays empty.
type Case struct {
	Name    string          `json:"name"`
	Request plugins.Request `json:"request"`
	Want    Want            `json:"want"`
}

// Want is the wanted answer. Any code will do where Code is empty.
type Want struct {
	Verdict plugins.Verdict `json:"verdict"`
	Code    string          `json:"code,omitempty"`
}

var codeSyntax = regexp.MustCompile(`\A[a-z0-9_]{1,48}\z`)

// Read reads a file of cases. Empty lines are skipped.
func Read(r io.Reader) ([]Case, error) {
	limited := &io.LimitedReader{R: r, N: MaxFile + 1}
	scanner := bufio.NewScanner(limited)
	scanner.Buffer(nil, MaxLine+1)
	var all []Case
	for line := 1; scanner.Scan(); line++ {
		text := bytes.TrimSpace(scanner.Bytes())
		if len(text) == 0 {
			continue
		}
		if len(all) == MaxCases {
			return nil, fmt.Errorf("line %d: more than %d cases", line, MaxCases)
		}
		c, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if c.Name == "" {
			c.Name = fmt.Sprintf("line %d", line)
		}
		all = append(all, c)
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("a line is longer than %d bytes", MaxLine)
	case err != nil:
		return nil, err
	case limited.N == 0:
		return nil, fmt.Errorf("longer than %d bytes", MaxFile)
	}
	return all, nil
}

// Parse reads one line. Everything that it says must be known, and be said once.
func Parse(line []byte) (Case, error) {
	if len(line) > MaxLine {
		return Case{}, fmt.Errorf("longer than %d bytes", MaxLine)
	}
	if !utf8.Valid(line) {
		return Case{}, errors.New("not UTF-8")
	}
	switch err := unambiguous(line); {
	case errors.Is(err, io.EOF):
		return Case{}, errors.New("the object has no end")
	case err != nil:
		return Case{}, err
	}
	var read struct {
		Name    string           `json:"name"`
		Request *plugins.Request `json:"request"`
		Want    struct {
			Verdict string `json:"verdict"`
			Code    string `json:"code"`
		} `json:"want"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&read); err != nil {
		return Case{}, err
	}
	c := Case{Name: read.Name, Want: Want{Code: read.Want.Code}}
	switch read.Want.Verdict { // not by UnmarshalText: there an unknown word is a refusal
	case "agree":
		c.Want.Verdict = plugins.Agree
	case "refuse":
		c.Want.Verdict = plugins.Refuse
	case "not_mine":
		c.Want.Verdict = plugins.NotMine
	default:
		return Case{}, fmt.Errorf("want.verdict %q is not agree, refuse or not_mine", clip(read.Want.Verdict))
	}
	switch {
	case read.Request == nil:
		return Case{}, errors.New("no request")
	case len(c.Name) > maxName:
		return Case{}, fmt.Errorf("the name is longer than %d bytes", maxName)
	case c.Want.Code != "" && !codeSyntax.MatchString(c.Want.Code):
		return Case{}, fmt.Errorf("want.code %q is not [a-z0-9_]{1,48}", clip(c.Want.Code))
	}
	c.Request = *read.Request
	return c, nil
}

// Append adds the line of c to b.
func Append(b []byte, c Case) ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line) // ends the line
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	if line.Len() > MaxLine {
		return nil, fmt.Errorf("longer than %d bytes", MaxLine)
	}
	return append(b, line.Bytes()...), nil
}

// Check puts the request to m and returns how the answer differs from the
// wanted one. As for the gateway, a verdict that is not known and an agreement
// that comes with findings are refusals.
func (c Case) Check(ctx context.Context, m plugins.Matcher) error {
	r := c.Request
	if r.Decides == nil {
		r.Decides = slices.Clone(m.Info().Decides)
	}
	a, err := m.Match(ctx, r)
	if err != nil {
		return fmt.Errorf("wanted %s, but nothing was decided: %w", c.Want, err)
	}
	got := Want{Verdict: a.Verdict, Code: a.Code}
	if a.Verdict != plugins.Agree && a.Verdict != plugins.NotMine || len(a.Findings) > 0 {
		got.Verdict = plugins.Refuse
	}
	if got.Verdict == c.Want.Verdict && (c.Want.Code == "" || c.Want.Code == got.Code) {
		return nil
	}
	if len(a.Findings) == 0 {
		return fmt.Errorf("wanted %s, got %s", c.Want, got)
	}
	f := a.Findings[0]
	return fmt.Errorf("wanted %s, got %s (%q: expected %q, got %q)", c.Want, got, clip(string(f.Field)), clip(f.Expected), clip(f.Got))
}

// String is the verdict and the code.
func (w Want) String() string {
	verdict, _ := w.Verdict.MarshalText() // never fails
	return strings.TrimSpace(string(verdict) + " " + clip(w.Code))
}

func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
