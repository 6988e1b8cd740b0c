package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

// problem is an error answer of the API (RFC 9457, application/problem+json).
// Every problem carries at least one entry in Errors, so that a client can
// branch on errors[0].code alone. Nothing in it repeats a value that was sent:
// a value may be a challenge.
type problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Code   string         `json:"code"`
	Errors []gate.Problem `json:"errors"`

	retryAfter   time.Duration
	authenticate string
	allow        string
}

// maxProblemErrors bounds the errors of one answer.
const maxProblemErrors = 50

func newProblem(status int, code, detail string, errs ...gate.Problem) *problem {
	if len(errs) == 0 {
		errs = []gate.Problem{{Code: code, Detail: detail}}
	}
	if len(errs) > maxProblemErrors {
		errs = errs[:maxProblemErrors]
	}
	return &problem{
		Type:   "about:blank", // RFC 9457 §4.2.1: the title is the status, the code says which
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
		Code:   code,
		Errors: errs,
	}
}

// write answers with p.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.retryAfter > 0 {
		seconds := int64((p.retryAfter + time.Second - 1) / time.Second)
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if p.authenticate != "" {
		h.Set("WWW-Authenticate", p.authenticate)
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only: cannot happen, and must not answer 200
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// storeProblems is the one table from the store's sentinels to HTTP. What is
// not in it is a store that failed, which is 503 and never a success.
var storeProblems = []struct {
	err     error
	status  int
	code    string
	pointer string
}{
	{store.ErrNotFound, http.StatusNotFound, "not_found", ""},
	{store.ErrChallengeInUse, http.StatusConflict, "challenge_in_use", "/challenge"},
	{store.ErrChallengeUsed, http.StatusConflict, "challenge_used", "/challenge"},
	{store.ErrIdentityInUse, http.StatusConflict, "identity_in_use", "/subject"},
	{store.ErrExternalIDInUse, http.StatusConflict, "external_id_in_use", "/external_id"},
	{store.ErrExpectationInUse, http.StatusConflict, "expectation_in_use", ""},
	{store.ErrNotRegistered, http.StatusConflict, "not_registered", ""},
	{store.ErrNotReleasable, http.StatusConflict, "expectation_not_releasable", ""},
	{store.ErrCursor, http.StatusBadRequest, "invalid_cursor", ""},
}

func storeProblem(err error) *problem {
	for _, row := range storeProblems {
		if errors.Is(err, row.err) {
			detail := row.err.Error() // the sentinel's text: the wrapped one may name keys
			return newProblem(row.status, row.code, detail,
				gate.Problem{Pointer: row.pointer, Code: row.code, Detail: detail})
		}
	}
	return unavailable()
}

// The problems that more than one place answers with.

func unavailable() *problem {
	p := newProblem(http.StatusServiceUnavailable, "store_unavailable", "the store cannot be used now")
	p.retryAfter = 5 * time.Second
	return p
}

func busy() *problem {
	p := newProblem(http.StatusServiceUnavailable, "overloaded", "too many batches at once")
	p.retryAfter = 5 * time.Second
	return p
}

func notFound() *problem {
	return newProblem(http.StatusNotFound, "not_found", "there is nothing here")
}

func noSuchExpectation() *problem { return storeProblem(store.ErrNotFound) }

func internalError() *problem {
	return newProblem(http.StatusInternalServerError, "internal_error", "the request could not be processed")
}

// forbiddenProfile answers alike for a profile that does not exist and for one
// that the client may not use, so that names cannot be probed (contract §4.2).
func forbiddenProfile() *problem {
	return newProblem(http.StatusForbidden, "profile_forbidden", "this client may not use this profile")
}

func methodNotAllowed(allow string) *problem {
	p := newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "method not allowed here")
	p.allow = allow
	return p
}

func tooLarge(detail string) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "too_large", detail)
}

func invalidParameter(name, detail string) *problem {
	return newProblem(http.StatusBadRequest, "invalid_parameter", "query parameter "+name+": "+detail)
}

func invalidRegistration(problems []gate.Problem) *problem {
	return newProblem(http.StatusUnprocessableEntity, "invalid_expectation", "the expectation is not acceptable", problems...)
}
