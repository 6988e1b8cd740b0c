package caddymodule

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/store"
)

func init() { caddy.RegisterModule(new(API)) }

// Limits of one request to the API.
const (
	maxAPIBody       = 1 << 20 // one JSON document, and one line of a batch
	apiReadTimeout   = 10 * time.Second
	apiStoreTimeout  = 10 * time.Second
	maxAPIQuery      = 8 << 10
	maxLogText       = 128
	defaultListLimit = 50
	maxListLimit     = 500
)

// API lets an MDM register what a certificate may contain, before a device asks
// for it. It answers every request that reaches it, and has no default access:
// without a clients file the configuration is refused.
//
// A bearer token is taken over TLS only, except from the machine itself.
type API struct {
	// The file that says who may call: a JSON list of clients, mode 0600. It is
	// looked at every 30 seconds. Placeholders are supported. Required.
	Clients string `json:"clients,omitempty"`

	// The URL at which devices reach the gateway, for `scep_url` in
	// `GET /v1/profiles/{profile}`. Placeholders are supported. Default: none.
	PublicURL string `json:"public_url,omitempty"`

	app      apiApp
	clients  *clientsFile
	failures *failureLimiter
	health   healthCache
	batches  chan struct{} // one element per batch at work
	now      func() time.Time
	log      *zap.Logger
}

// apiApp is what the API needs of the app.
type apiApp interface {
	lease() (storeLease, error)
	storeFailed(err error)
	profile(name string) *running
	profileNames() []string
}

// CaddyModule returns the Caddy module information.
func (*API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.scep_api", New: func() caddy.Module { return new(API) }}
}

// Provision reads the clients file. It opens nothing and starts nothing.
func (h *API) Provision(ctx caddy.Context) error {
	module, err := ctx.AppIfConfigured("scep")
	if err != nil {
		return fmt.Errorf("scep_api: there is no scep app (global option scep): %w", err)
	}
	app, ok := module.(*App)
	if !ok {
		return errors.New("scep_api: app scep is of another kind")
	}
	h.setUp(provisionedApp{app}, ctx.Logger(app).Named("api"), time.Now)
	return h.openClients(app)
}

// setUp fills in everything but the clients.
func (h *API) setUp(app apiApp, log *zap.Logger, now func() time.Time) {
	h.app, h.log, h.now = app, log, now
	h.failures = newFailureLimiter(now)
	h.batches = make(chan struct{}, maxBatches)
}

func (h *API) openClients(app *App) error {
	if strings.TrimSpace(h.Clients) == "" {
		return errors.New("scep_api: clients: no file is named: an API without authentication is refused")
	}
	if err := expandPlaceholder("scep_api: clients", &h.Clients); err != nil {
		return err
	}
	path, err := filepath.Abs(h.Clients)
	if err != nil {
		return fmt.Errorf("scep_api: clients %s: %w", h.Clients, err)
	}
	app.watch("scep_api clients", []string{path}, func() error {
		return app.clients.reload(h.clients, h.profileExists)
	})
	if h.clients, err = app.clients.open(path, h.profileExists); err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // the path is named already
		}
		return fmt.Errorf("scep_api: clients %s: %w", path, err)
	}
	if h.PublicURL != "" {
		if err := expandPlaceholder("scep_api: public_url", &h.PublicURL); err != nil {
			return err
		}
		u, err := url.Parse(h.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return fmt.Errorf("scep_api: public_url: %q is not an http or https URL without query", h.PublicURL)
		}
	}
	return nil
}

func (h *API) profileExists(name string) bool { return h.app.profile(name) != nil }

// provisionedApp is an App as the API sees it.
type provisionedApp struct{ *App }

func (a provisionedApp) profileNames() []string {
	return slices.Sorted(maps.Keys(a.Profiles))
}

// A route is one method of one path. The table below is what openapi.json
// describes; a test compares the two.
type route struct {
	method string
	path   string
	scope  string // "" for any client
	open   bool   // needs no client
	write  string // what is logged of it; "" for what changes nothing
	query  []string
	serve  func(*API, *call) (answer, *problem)
	stream func(*API, *call) *problem // instead of serve
}

// answer is a success. A nil body is an empty answer.
type answer struct {
	status int
	body   any
}

const expectationsPath = "/v1/profiles/{profile}/expectations"

// routes is searched in order by path, so a literal path stands before one
// that has a parameter in the same place.
var routes = []route{
	{method: http.MethodGet, path: "/healthz", open: true, serve: (*API).getHealth},
	{method: http.MethodHead, path: "/healthz", open: true, serve: (*API).getHealth},
	{method: http.MethodGet, path: "/openapi.json", open: true, serve: (*API).getOpenAPI},
	{method: http.MethodGet, path: "/v1/profiles/{profile}", serve: (*API).getProfile},
	{method: http.MethodPost, path: "/v1/profiles/{profile}/check", scope: scopeRegister, serve: (*API).check},
	{method: http.MethodPost, path: expectationsPath + "/batch", scope: scopeRegister, query: []string{"mode", "dry_run"}, stream: (*API).batch},
	{method: http.MethodPut, path: expectationsPath + "/by-external-id/{external_id}", scope: scopeRegister, write: "upsert", serve: (*API).putExpectation},
	{method: http.MethodPost, path: expectationsPath, scope: scopeRegister, write: "create", serve: (*API).postExpectation},
	{method: http.MethodGet, path: expectationsPath, scope: scopeRead, query: []string{"state", "label", "external_id", "limit", "cursor"}, serve: (*API).listExpectations},
	{method: http.MethodGet, path: expectationsPath + "/{id}", scope: scopeRead, serve: (*API).getExpectation},
	{method: http.MethodPatch, path: expectationsPath + "/{id}", scope: scopeRevoke, write: "extend", serve: (*API).patchExpectation},
	{method: http.MethodDelete, path: expectationsPath + "/{id}", scope: scopeRevoke, write: "revoke", serve: (*API).deleteExpectation},
	{method: http.MethodPost, path: expectationsPath + "/{id}/release", scope: scopeRelease, write: "release", serve: (*API).releaseExpectation},
}

// call is one request at work.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	now     time.Time
	client  *client // nil on an open route
	profile *running
	files   *profileFiles
	params  map[string]string
	query   map[string]string
	started bool // the answer has begun: no problem can be answered any more

	// For the log line.
	expectationID string
	externalID    string
}

// ServeHTTP answers every request itself; next is never called.
func (h *API) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	c := &call{w: w, r: r, now: h.now().UTC()}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v)
		}
		// The value is not logged: it may hold what was sent.
		h.log.Error("panic in the API", zap.String("type", fmt.Sprintf("%T", v)), zap.ByteString("stack", debug.Stack()))
		if c.started {
			panic(http.ErrAbortHandler) // an answer cut short must not look complete
		}
		internalError().write(w)
	}()
	h.handle(c)
	return nil
}

func (h *API) handle(c *call) {
	rt, p := h.route(c)
	if p == nil && !rt.open {
		p = h.admit(c, rt)
	}
	if p == nil {
		p = h.serve(c, rt)
	}
	if p != nil {
		p.write(c.w)
	}
}

func (h *API) serve(c *call, rt *route) *problem {
	if rt.stream != nil {
		return rt.stream(h, c)
	}
	a, p := rt.serve(h, c)
	if rt.write != "" {
		status, code := a.status, ""
		if p != nil {
			status, code = p.Status, p.Code
		}
		h.logWrite(c, rt.write, status, code)
	}
	if p != nil {
		return p
	}
	return writeAnswer(c.w, a)
}

func writeAnswer(w http.ResponseWriter, a answer) *problem {
	if a.body == nil {
		w.WriteHeader(a.status)
		return nil
	}
	body, ok := a.body.(json.RawMessage)
	if !ok {
		var err error
		if body, err = json.Marshal(a.body); err != nil {
			return internalError()
		}
		body = append(body, '\n')
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
	return nil
}

// route finds the route and reads path and query. Nothing is logged or known
// about the caller yet, so these problems tell only what openapi.json tells.
func (h *API) route(c *call) (*route, *problem) {
	segments := strings.Split(c.r.URL.EscapedPath(), "/")
	var allow []string
	for i := range routes {
		rt := &routes[i]
		params, ok := matchPath(rt.path, segments)
		if !ok {
			continue
		}
		if len(allow) > 0 && routes[i].path != routes[i-1].path {
			break // a later pattern that also fits is another resource
		}
		if rt.method != c.r.Method {
			allow = append(allow, rt.method)
			continue
		}
		c.params = params
		return rt, c.readQuery(rt.query)
	}
	if len(allow) > 0 {
		return nil, methodNotAllowed(strings.Join(allow, ", "))
	}
	return nil, notFound()
}

// matchPath compares segment by segment on the escaped path, so that an
// external id may hold an escaped slash. Literal segments are compared as sent:
// an escaped letter in them is another path.
func matchPath(pattern string, segments []string) (map[string]string, bool) {
	want := strings.Split(pattern, "/")
	if len(want) != len(segments) {
		return nil, false
	}
	params := make(map[string]string)
	for i, w := range want {
		if !strings.HasPrefix(w, "{") {
			if w != segments[i] {
				return nil, false
			}
			continue
		}
		value, err := url.PathUnescape(segments[i])
		if err != nil || value == "" || strings.ContainsRune(value, utf8.RuneError) {
			return nil, false
		}
		params[strings.Trim(w, "{}")] = value
	}
	return params, true
}

// readQuery takes each known parameter at most once.
func (c *call) readQuery(known []string) *problem {
	if len(c.r.URL.RawQuery) > maxAPIQuery {
		return newProblem(http.StatusRequestURITooLong, "query_too_long", "the query is too long")
	}
	// ParseQuery, because URL.Query drops what it cannot parse (threat E19).
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return newProblem(http.StatusBadRequest, "invalid_query", "the query cannot be parsed")
	}
	c.query = make(map[string]string, len(values))
	for name, v := range values {
		switch {
		case !slices.Contains(known, name):
			return invalidParameter(strconv.QuoteToASCII(logText(name)), "is not known here")
		case len(v) != 1:
			return invalidParameter(name, "appears more than once")
		case strings.ContainsRune(v[0], utf8.RuneError):
			return invalidParameter(name, "is not valid Unicode text")
		}
		c.query[name] = v[0]
	}
	return nil
}

// admit decides whether the caller may use the route, before a byte of the
// body is read.
func (h *API) admit(c *call, rt *route) *problem {
	var p *problem
	if c.client, p = h.authenticate(c); p != nil {
		return p
	}
	name := c.params["profile"]
	if c.profile = h.app.profile(name); c.profile == nil || !c.client.mayUse(name) {
		return forbiddenProfile()
	}
	if rt.scope != "" && !c.client.may(rt.scope) {
		return newProblem(http.StatusForbidden, "scope_missing", "this client lacks the scope "+rt.scope)
	}
	return h.loadFiles(c)
}

// loadFiles takes the profile's files for the whole request. They exist once
// the store is open, which the first lease sees to.
func (h *API) loadFiles(c *call) *problem {
	if c.files = c.profile.files.Load(); c.files == nil {
		lease, err := h.app.lease()
		if err != nil {
			h.log.Error("store cannot be used", zap.Error(err))
			return unavailable()
		}
		lease.release()
		c.files = c.profile.files.Load()
	}
	if c.files == nil || c.files.gate == nil {
		return unavailable()
	}
	return nil
}

// readBody reads a whole body of at most limit bytes. Nothing is cut short.
func (c *call) readBody(limit int64, timeout time.Duration, mediaTypes ...string) ([]byte, *problem) {
	if len(c.r.Header.Values("Authorization")) > 0 {
		// curl says this unless told otherwise. From a browser it would need no
		// permission to be sent across sites, with the user's certificate; but a
		// browser does not add the bearer token.
		mediaTypes = append(mediaTypes, "application/x-www-form-urlencoded")
	}
	if p := checkMediaType(c.r.Header, mediaTypes); p != nil {
		return nil, p
	}
	if c.r.ContentLength > limit {
		return nil, tooLarge(fmt.Sprintf("the body is larger than %d bytes", limit))
	}
	controller := http.NewResponseController(c.w)
	_ = controller.SetReadDeadline(time.Now().Add(timeout)) // not every writer can
	// Left standing, it would expire during the work and cancel the request.
	defer func() { _ = controller.SetReadDeadline(time.Time{}) }()
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	if err == nil {
		return data, nil
	}
	var tooMany *http.MaxBytesError
	var handlerError caddyhttp.HandlerError // of a request_body before us
	switch {
	case errors.As(err, &tooMany), errors.As(err, &handlerError) && handlerError.StatusCode == http.StatusRequestEntityTooLarge:
		return nil, tooLarge(fmt.Sprintf("the body is larger than %d bytes", limit))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, newProblem(http.StatusRequestTimeout, "body_timeout", "the body did not arrive in time")
	}
	return nil, newProblem(http.StatusBadRequest, "body_unreadable", "the body could not be read")
}

// checkMediaType accepts an absent Content-Type, and refuses every
// Content-Encoding (threat E13).
func checkMediaType(header http.Header, accepted []string) *problem {
	unsupported := newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must be "+strings.Join(accepted, " or ")+", without Content-Encoding")
	for _, encoding := range header.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(encoding), "identity") {
			return unsupported
		}
	}
	values := header.Values("Content-Type")
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil || len(values) > 1 || !slices.Contains(accepted, mediaType) {
		return unsupported
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported
	}
	return nil
}

// readJSON reads the body as one strict JSON document.
func (c *call) readJSON(v any) *problem {
	data, p := c.readBody(maxAPIBody, apiReadTimeout, "application/json")
	if p != nil {
		return p
	}
	return parseJSON(data, v)
}

func parseJSON(data []byte, v any) *problem {
	if problems := decodeStrict(data, v); len(problems) > 0 {
		return newProblem(http.StatusBadRequest, "invalid_json", "the body is not acceptable as JSON", problems...)
	}
	return nil
}

// withStore leases the store for f. The caller hanging up does not cancel what
// was begun: the answer in the log is then still what happened.
func (h *API) withStore(c *call, f func(ctx context.Context, s store.Store) *problem) *problem {
	lease, err := h.app.lease()
	if err != nil {
		h.log.Error("store cannot be used", zap.Error(err))
		return unavailable()
	}
	defer lease.release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), apiStoreTimeout)
	defer cancel()
	return f(ctx, lease.Store)
}

// failed turns an error of the store into a problem, and logs what is not one
// of its answers.
func (h *API) failed(err error) *problem {
	p := storeProblem(err)
	if p.Status == http.StatusServiceUnavailable {
		h.app.storeFailed(err)
		h.log.Error("store failed", zap.Error(err))
	}
	return p
}

// logWrite is the one line of a write.
func (h *API) logWrite(c *call, action string, status int, code string) {
	h.logLine(c, action, status, code, c.expectationID, c.externalID)
}

func (h *API) logLine(c *call, action string, status int, code, expectationID, externalID string) {
	level := zap.InfoLevel
	if status >= http.StatusBadRequest {
		level = zap.WarnLevel
	}
	h.log.Log(level, "api write",
		zap.String("client", c.client.name),
		zap.String("action", action),
		zap.String("profile", c.profile.name),
		zap.String("expectation_id", logText(expectationID)),
		zap.String("external_id", logText(externalID)),
		zap.Int("status", status),
		zap.String("code", code),
		zap.String("client_ip", logText(clientIP(c.r))))
}

// logText makes text from outside fit for a log line: ASCII, escaped, bounded
// (threat D31).
func logText(s string) string {
	cut := len(s) > maxLogText
	if cut {
		s = s[:maxLogText]
	}
	quoted := strconv.QuoteToASCII(s)
	if s = quoted[1 : len(quoted)-1]; cut {
		s += "..."
	}
	return s
}

//go:embed openapi.json
var openAPI []byte

func (h *API) getOpenAPI(*call) (answer, *problem) {
	return answer{http.StatusOK, json.RawMessage(openAPI)}, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
)
