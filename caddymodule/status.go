package caddymodule

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/scepgate/scepgate/inspector"
)

// retryAfterSeconds is what a 503 asks for: long enough for a store or NDES to
// come back, short enough for a person who watches a device.
const retryAfterSeconds = 10

// Why the edge itself turned a request away. The rest of the table are the
// sentinels of package inspector.
var (
	errPath        = errors.New("path not listed")
	errBody        = errors.New("request body not acceptable")
	errBodyTimeout = errors.New("request body was too slow")
	errUnusable    = errors.New("message not usable")
	errForbidden   = errors.New("refused")
	errDown        = errors.New("a dependency is down")
	errBusy        = errors.New("overloaded")
	errUpstream    = errors.New("no valid answer from the upstream")
	errInternal    = errors.New("internal error")
)

// statusOf is the one table from error to HTTP status. What it does not know is 500.
func statusOf(err error) int {
	for _, row := range statusTable {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return http.StatusInternalServerError
}

var statusTable = []struct {
	err  error
	code int
}{
	{errPath, http.StatusNotFound},
	{inspector.ErrOperationNotOffered, http.StatusNotFound},
	{inspector.ErrMethod, http.StatusMethodNotAllowed},
	{inspector.ErrQuery, http.StatusBadRequest},
	{inspector.ErrQueryTooLong, http.StatusRequestURITooLong},
	{inspector.ErrMessageTooLarge, http.StatusRequestEntityTooLarge},
	{errBody, http.StatusBadRequest},
	{errBodyTimeout, http.StatusRequestTimeout},
	{errUnusable, http.StatusBadRequest},
	{errForbidden, http.StatusForbidden},
	{errDown, http.StatusServiceUnavailable},
	{errBusy, http.StatusServiceUnavailable},
	{errUpstream, http.StatusBadGateway},
	{errInternal, http.StatusInternalServerError},
}

// response is what a device gets. Nothing is written to the device but a
// response, and only after everything that led to it is settled and released.
type response struct {
	code        int
	contentType string
	body        []byte
	allow       string // for 405
	floor       bool   // not before refusal_floor after the message was read
	err         error  // if set: a handler before this one has decided; it is passed on
}

// status is the response to err: a fixed body that says nothing but the status.
func status(err error) response {
	code := statusOf(err)
	res := response{
		code:        code,
		contentType: "text/plain; charset=utf-8",
		body:        []byte(strconv.Itoa(code) + " " + strings.ToLower(http.StatusText(code)) + "\n"),
	}
	if code == http.StatusMethodNotAllowed {
		res.allow = "GET, POST"
	}
	return res
}

// write sends the response. It is the only place that writes to a device.
func (res response) write(w http.ResponseWriter, head bool) error {
	h := w.Header()
	h.Set("Content-Type", res.contentType)
	h.Set("Content-Length", strconv.Itoa(len(res.body)))
	h.Set("Cache-Control", "no-store") // threat E33
	h.Set("X-Content-Type-Options", "nosniff")
	if res.allow != "" {
		h.Set("Allow", res.allow)
	}
	if res.code == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	}
	w.WriteHeader(res.code)
	if head {
		return nil
	}
	_, err := w.Write(res.body)
	return err
}
