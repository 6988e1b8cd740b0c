package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/plugins/cases"
)

func init() { caddy.RegisterModule(newAdminAPI()) }

const (
	recordPath = "/scep/record"

	defaultRecordLimit = 1000
	defaultRecordTime  = 10 * time.Minute
	maxRecordTime      = 24 * time.Hour

	// recordPatience is how long a reader may take for one case.
	recordPatience = 5 * time.Second
)

// What the end of a recording tells, as trailers.
const (
	trailerEnded   = "Scep-Ended"   // limit, time or configuration; absent if it broke off
	trailerDropped = "Scep-Dropped" // how many cases were lost, because they were not read in time
)

// AdminAPI is the gateway's part of Caddy's admin endpoint.
//
// `GET /scep/record?profile=<name>` answers with what the profile judges from
// then on, one JSON object a line: the request and the expectation as a matcher
// is shown them to which nothing is revealed, and what the gateway decided. It
// ends after `limit` cases (default 1000), after the time `for` (default 10m),
// when the client goes, and with the configuration.
type AdminAPI struct {
	active func() (context.Context, *App, error)
}

func newAdminAPI() *AdminAPI { return &AdminAPI{active: activeApp} }

// CaddyModule returns the Caddy module information.
func (*AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.scep", New: func() caddy.Module { return newAdminAPI() }}
}

// Routes returns the routes.
func (a *AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: recordPath, Handler: caddy.AdminHandlerFunc(a.record)}}
}

// activeApp is the app at work, and what ends with it. It is asked for anew each
// time: the admin endpoint of a configuration that failed to load stays.
func activeApp() (context.Context, *App, error) {
	ctx := caddy.ActiveContext()
	loaded, err := ctx.AppIfConfigured("scep")
	if err != nil {
		return nil, nil, err
	}
	app, ok := loaded.(*App)
	if !ok {
		return nil, nil, fmt.Errorf("app scep is %T", loaded)
	}
	return ctx, app, nil
}

// recordOptions is what the query says.
type recordOptions struct {
	profile string
	limit   int
	time    time.Duration
}

func readRecordOptions(query string) (recordOptions, error) {
	o := recordOptions{limit: defaultRecordLimit, time: defaultRecordTime}
	values, err := url.ParseQuery(query)
	if err != nil {
		return o, errors.New("the query cannot be read")
	}
	for name, given := range values {
		if len(given) != 1 {
			return o, fmt.Errorf("%s: stands twice", printable(name, maxUserAgent))
		}
		switch name {
		case "profile":
			o.profile = given[0]
		case "limit":
			if o.limit, err = strconv.Atoi(given[0]); err != nil {
				return o, errors.New("limit: is not a number")
			}
		case "for":
			if o.time, err = time.ParseDuration(given[0]); err != nil {
				return o, errors.New("for: is not a duration")
			}
		default:
			return o, fmt.Errorf("%s: unknown parameter", printable(name, maxUserAgent))
		}
	}
	return o, o.check()
}

func (o recordOptions) check() error {
	switch {
	case o.profile == "":
		return errors.New("profile: is missing")
	case o.limit < 1 || o.limit > cases.MaxCases:
		return fmt.Errorf("limit: must be from 1 to %d", cases.MaxCases)
	case o.time <= 0 || o.time > maxRecordTime:
		return fmt.Errorf("for: must be positive and at most %s", maxRecordTime)
	}
	return nil
}

func (a *AdminAPI) record(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("method not allowed")}
	}
	o, err := readRecordOptions(r.URL.RawQuery)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	life, app, err := a.active()
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
	}
	profile := app.profile(o.profile)
	if profile == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no such profile")}
	}
	rec, err := recorders.begin(profile)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusTooManyRequests, Err: err}
	}
	defer recorders.end(rec)
	app.logger.Info("recording what is judged", zap.String("profile", profile.name), zap.Int("limit", o.limit), zap.Duration("for", o.time))
	sent, ended := rec.stream(w, r, o, life)
	app.logger.Info("recording has ended", zap.String("profile", profile.name), zap.Int("cases", sent),
		zap.Int64("dropped", rec.dropped.Load()), zap.String("ended", ended))
	return nil
}

// stream writes cases as they come, and says how many, and why it ended.
func (rec *recording) stream(w http.ResponseWriter, r *http.Request, o recordOptions, life context.Context) (sent int, ended string) {
	const gone = "reader"
	control := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close") // the write deadlines are this answer's
	h.Set("Trailer", trailerEnded+", "+trailerDropped)
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return 0, gone
	}
	timer := time.NewTimer(o.time)
	defer timer.Stop()
	var line []byte
	for ended = "limit"; sent < o.limit; {
		var c cases.Case
		select {
		case <-r.Context().Done():
			return sent, gone
		case <-life.Done():
			ended = "configuration"
		case <-timer.C:
			ended = "time"
		case c = <-rec.cases:
		}
		if ended != "limit" {
			break
		}
		var err error
		if line, err = cases.Append(line[:0], c); err != nil {
			rec.dropped.Add(1) // too large to be read again
			continue
		}
		_ = control.SetWriteDeadline(time.Now().Add(recordPatience))
		if _, err := w.Write(line); err != nil || control.Flush() != nil {
			return sent, gone
		}
		sent++
	}
	h.Set(trailerEnded, ended)
	h.Set(trailerDropped, strconv.FormatInt(rec.dropped.Load(), 10))
	_ = control.SetWriteDeadline(time.Now().Add(recordPatience))
	return sent, ended
}

// Interface guards
var (
	_ caddy.Module      = (*AdminAPI)(nil)
	_ caddy.AdminRouter = (*AdminAPI)(nil)
)
