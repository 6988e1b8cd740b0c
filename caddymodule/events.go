package caddymodule

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/scepgate/scepgate/inspector"
)

// The events, as contract §6 names them.
const (
	eventForwarded      = "enrollment.forwarded"
	eventRefused        = "enrollment.refused"
	eventFailed         = "enrollment.failed"
	eventIssued         = "enrollment.issued"
	eventInDoubt        = "enrollment.in_doubt"
	eventTheftSuspected = "challenge.theft_suspected"
	eventRAExpiring     = "ra.certificate_expiring"
	eventRAUnknown      = "ra.certificate_unknown"
)

type event struct {
	name string
	data map[string]any
}

// emitter gives Caddy's event app. A request may outlive its configuration;
// its events are still handled.
func emitter(ctx caddy.Context) (func(name string, data map[string]any), error) {
	loaded, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("scep_gateway: %w", err)
	}
	app, ok := loaded.(*caddyevents.App)
	if !ok {
		return nil, fmt.Errorf("scep_gateway: app events is %T", loaded)
	}
	ctx.Context = context.WithoutCancel(ctx.Context)
	return func(name string, data map[string]any) { app.Emit(ctx, name, data) }, nil
}

// later queues an event until the device has its answer: handlers of events run
// while we wait for them.
func (v *visit) later(name string, data map[string]any) {
	v.record.events = append(v.record.events, event{name, data})
}

// emitDecision emits what follows from the decision. Only PKIOperation is an
// enrolment.
func (v *visit) emitDecision(fields []field) {
	data := make(map[string]any, len(fields))
	for _, f := range fields {
		data[f.name] = f.value
	}
	if v.record.operation != inspector.PKIOperation {
		return
	}
	for _, name := range v.record.eventNames() {
		v.g.emit(name, maps.Clone(data))
	}
}

func (rec *record) eventNames() []string {
	var names []string
	switch rec.decision {
	case decisionForwarded, decisionObserved:
		names = append(names, eventForwarded)
	case decisionRefused:
		names = append(names, eventRefused)
	case decisionFailed:
		names = append(names, eventFailed)
	}
	if rec.issued {
		names = append(names, eventIssued)
	}
	if rec.TheftSuspected {
		names = append(names, eventTheftSuspected)
	}
	return names
}

// expiryThresholds are how long before its end a certificate is reported.
var expiryThresholds = []time.Duration{7 * day, 30 * day, 60 * day}

const day = 24 * time.Hour

// expiryWatch reports RA certificates that end soon, once for each threshold:
// when files were loaded, and daily.
type expiryWatch struct {
	profile  *running
	emit     func(name string, data map[string]any)
	start    sync.Once
	loaded   chan struct{}
	reported map[string]time.Duration // the threshold reported last, by RA and serial; owned by run
}

func newExpiryWatch(profile *running, emit func(name string, data map[string]any)) *expiryWatch {
	return &expiryWatch{profile: profile, emit: emit, loaded: make(chan struct{}, 1), reported: make(map[string]time.Duration)}
}

// wake tells that files were loaded. The first time it starts the watch, which
// ends with ctx: a configuration that is only validated loads none. It never
// waits, since handlers of events may need what its caller holds.
func (w *expiryWatch) wake(ctx context.Context) {
	w.start.Do(func() { go w.run(ctx) })
	select {
	case w.loaded <- struct{}{}:
	default:
	}
}

func (w *expiryWatch) run(ctx context.Context) {
	daily := time.NewTicker(day)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.loaded:
		case <-daily.C:
		}
		if files := w.profile.files.Load(); files != nil && ctx.Err() == nil {
			w.check(files, time.Now())
		}
	}
}

func (w *expiryWatch) check(files *profileFiles, now time.Time) {
	for _, ra := range files.ras {
		left := ra.certificate.NotAfter.Sub(now)
		i := slices.IndexFunc(expiryThresholds, func(t time.Duration) bool { return left <= t })
		key := ra.name + " " + ra.certificate.SerialNumber.Text(16)
		if i < 0 || w.reported[key] == expiryThresholds[i] {
			continue
		}
		w.reported[key] = expiryThresholds[i]
		w.emit(eventRAExpiring, map[string]any{
			"profile":   w.profile.name,
			"ra":        ra.name,
			"subject":   printable(ra.certificate.Subject.String(), maxErrorText),
			"not_after": ra.certificate.NotAfter.UTC().Format(time.RFC3339),
			"days_left": int(left / day),
		})
	}
}
