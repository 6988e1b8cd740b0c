package caddymodule

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

// maxCheckedCSR bounds the PKCS#10 of a dry run, in bytes: what a device's
// message could hold.
const maxCheckedCSR = 64 << 10

// checkRequest is the body of check. Exactly one of Expectation and
// ExpectationID is given.
type checkRequest struct {
	CSR           *string            `json:"csr"`
	Expectation   *gate.Registration `json:"expectation"`
	ExpectationID *string            `json:"expectation_id"`
}

type checkAnswer struct {
	Verdict  string          `json:"verdict"`
	Reason   gate.Reason     `json:"reason"`
	Findings []findingAnswer `json:"findings"`
}

type findingAnswer struct {
	Reason   gate.Reason `json:"reason"`
	Field    *string     `json:"field"`
	Expected *string     `json:"expected"`
	Got      *string     `json:"got"`
	Matcher  *string     `json:"matcher"`
	Code     *string     `json:"code"`
}

// check is a dry run: it claims nothing, registers nothing, counts nothing.
func (h *API) check(c *call) (answer, *problem) {
	var body checkRequest
	if p := c.readJSON(&body); p != nil {
		return answer{}, p
	}
	if body.CSR == nil {
		return answer{}, invalidCheck("/csr", "required", "is required")
	}
	if (body.Expectation == nil) == (body.ExpectationID == nil) {
		return answer{}, invalidCheck("", "expectation_or_id", "needs either expectation or expectation_id")
	}
	der, ok := decodeCSR(*body.CSR)
	if !ok {
		return answer{}, invalidCheck("/csr", "invalid_csr", "must be a PKCS#10 in PEM, or in base64 of DER, of at most 64 KiB")
	}
	if body.Expectation != nil {
		e, p := c.prepareCheck(*body.Expectation)
		if p != nil {
			return answer{}, p
		}
		return checked(c.files.gate.Check(c.r.Context(), der, e, false)), nil
	}
	var e store.Expectation
	p := h.withStore(c, func(ctx context.Context, s store.Store) (p *problem) {
		e, p = h.visible(ctx, s, c, *body.ExpectationID)
		return p
	})
	if p != nil {
		return answer{}, p
	}
	return checked(c.files.gate.Check(c.r.Context(), der, e, true)), nil
}

func invalidCheck(pointer, code, detail string) *problem {
	return newProblem(http.StatusUnprocessableEntity, "invalid_check", "the check is not acceptable",
		gate.Problem{Pointer: pointer, Code: code, Detail: detail})
}

func checked(v gate.Verdict) answer {
	a := checkAnswer{Verdict: v.Verdict, Reason: v.Reason, Findings: make([]findingAnswer, 0, len(v.Findings))}
	for _, f := range v.Findings {
		a.Findings = append(a.Findings, findingAnswer{Reason: f.Reason, Field: orNull(f.Field), Expected: orNull(f.Expected), Got: orNull(f.Got), Matcher: orNull(f.Matcher), Code: orNull(f.Code)})
	}
	return answer{http.StatusOK, a}
}

// prepareCheck is prepare for an expectation that is never registered. Its
// challenge is not compared, so one that is missing where NDES would have made
// it is no problem here.
func (c *call) prepareCheck(r gate.Registration) (store.Expectation, *problem) {
	prepared, p := c.prepare(r)
	if p != nil && r.Challenge == nil && onlyAbout(p.Errors, "/challenge") {
		stand := rand.Text()
		r.Challenge = &stand
		prepared, p = c.prepare(r)
	}
	if p != nil {
		for i := range p.Errors {
			p.Errors[i].Pointer = boundPointer("/expectation" + p.Errors[i].Pointer)
		}
		return store.Expectation{}, p
	}
	return prepared.Expectation, nil
}

func onlyAbout(problems []gate.Problem, pointer string) bool {
	for _, p := range problems {
		if p.Pointer != pointer {
			return false
		}
	}
	return true
}

// decodeCSR reads PEM, or base64 with or without line breaks.
func decodeCSR(text string) ([]byte, bool) {
	if strings.Contains(text, "-----BEGIN ") {
		block, rest := pem.Decode([]byte(text))
		if block == nil || strings.TrimSpace(string(rest)) != "" {
			return nil, false
		}
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return nil, false
		}
		return block.Bytes, len(block.Bytes) > 0 && len(block.Bytes) <= maxCheckedCSR
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	return der, err == nil && len(der) > 0 && len(der) <= maxCheckedCSR
}
