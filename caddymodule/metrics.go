package caddymodule

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// scrapeTimeout bounds what a scrape may ask of the store.
const scrapeTimeout = 2 * time.Second

// The counters live as long as the process: a reload brings a new registry, and
// they are registered there again with their values. Every label has a bounded
// set of values; nothing that a device sends is one.
var (
	decisionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "scep", Name: "decisions_total",
		Help: "Decisions about SCEP messages.",
	}, []string{"profile", "message_type", "decision", "reason"})

	decisionDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "scep", Name: "decision_duration_seconds",
		Help:    "Time from the arrival of a request to its answer, without the wait for refusal_floor.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})

	storeOperationsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "scep", Name: "store_operations_total",
		Help: "Operations of the store; result is ok, rejected (the store answered no) or error.",
	}, []string{"engine", "operation", "result"})

	matcherCallsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "scep", Name: "matcher_calls_total",
		Help: "Calls of matchers; result is agree, refuse, not_mine or failed.",
	}, []string{"matcher", "result"})

	upstreamRepliesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "scep", Name: "upstream_replies_total",
		Help: "How NDES answered forwarded messages: success, failure, pending, invalid or unavailable.",
	}, []string{"profile", "status"})

	expectationsDesc = prometheus.NewDesc("caddy_scep_expectations",
		"Expectations by state.", []string{"profile", "state"}, nil)

	raExpiryDesc = prometheus.NewDesc("caddy_scep_ra_certificate_expiry_timestamp_seconds",
		"When an RA certificate expires.", []string{"profile", "ra"}, nil)

	matcherUpDesc = prometheus.NewDesc("caddy_scep_matcher_up",
		"Whether the process of a plugin is ready to answer.", []string{"profile", "matcher"}, nil)

	matcherStartsDesc = prometheus.NewDesc("caddy_scep_matcher_starts_total",
		"Starts of a plugin's process; result is ready or failed.", []string{"profile", "matcher", "result"}, nil)

	matcherExitsDesc = prometheus.NewDesc("caddy_scep_matcher_exits_total",
		"How often the process of a plugin ended by itself, or was killed because it did not answer.", []string{"profile", "matcher"}, nil)
)

// registerMetrics adds the collectors to the registry of a configuration, which
// several handlers share.
func registerMetrics(registry *prometheus.Registry, app *App) error {
	for _, c := range []prometheus.Collector{
		decisionsTotal, decisionDuration, storeOperationsTotal, matcherCallsTotal, upstreamRepliesTotal,
		appCollector{app},
	} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// count counts one decision.
func (v *visit) count() {
	rec := &v.record
	decisionsTotal.WithLabelValues(v.g.Profile, rec.MessageType, rec.decision, string(rec.Reason)).Inc()
	decisionDuration.Observe(v.took.Seconds())
	if rec.upstreamStatus != "" && rec.operation == inspector.PKIOperation {
		upstreamRepliesTotal.WithLabelValues(v.g.Profile, rec.upstreamStatus).Inc()
	}
}

// appCollector reports what the app of one configuration knows at the scrape.
type appCollector struct{ app *App }

// Describe implements prometheus.Collector.
func (c appCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- expectationsDesc
	ch <- raExpiryDesc
	ch <- matcherUpDesc
	ch <- matcherStartsDesc
	ch <- matcherExitsDesc
}

// Collect implements prometheus.Collector. The store keeps its counts; nothing
// is scanned. A store that cannot answer leaves the series out.
func (c appCollector) Collect(ch chan<- prometheus.Metric) {
	for _, name := range slices.Sorted(maps.Keys(c.app.Profiles)) {
		r := c.app.profile(name)
		if r == nil {
			continue
		}
		if files := r.files.Load(); files != nil {
			for _, ra := range files.ras {
				ch <- prometheus.MustNewConstMetric(raExpiryDesc, prometheus.GaugeValue,
					float64(ra.certificate.NotAfter.Unix()), name, ra.name)
			}
		}
		collectPlugins(ch, r)
	}
	counts, err := c.counts()
	if err != nil {
		return
	}
	for key, n := range counts {
		if _, configured := c.app.Profiles[key.Profile]; configured {
			ch <- prometheus.MustNewConstMetric(expectationsDesc, prometheus.GaugeValue, float64(n), key.Profile, string(key.State))
		}
	}
}

// collectPlugins gives what the processes of a profile's plugins have been through.
func collectPlugins(ch chan<- prometheus.Metric, r *running) {
	for _, m := range r.matchers {
		x, ok := m.Matcher.(*execMatcher)
		if !ok {
			continue
		}
		h := x.used()
		if h == nil {
			continue
		}
		stats := h.Stats()
		up := 0.0
		if stats.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(matcherUpDesc, prometheus.GaugeValue, up, r.name, m.Name)
		ch <- prometheus.MustNewConstMetric(matcherStartsDesc, prometheus.CounterValue, float64(stats.Starts), r.name, m.Name, "ready")
		ch <- prometheus.MustNewConstMetric(matcherStartsDesc, prometheus.CounterValue, float64(stats.FailedStarts), r.name, m.Name, "failed")
		ch <- prometheus.MustNewConstMetric(matcherExitsDesc, prometheus.CounterValue, float64(stats.Exits), r.name, m.Name)
	}
}

func (c appCollector) counts() (map[store.CountKey]int, error) {
	lease, err := c.app.lease()
	if err != nil {
		return nil, err
	}
	defer lease.release()
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	return lease.Counts(ctx)
}

// meteredStore counts the operations that a decision takes, and tells the app
// about those that failed, so that the next request meets 503 at the door. The
// methods that no decision uses are the store's own.
type meteredStore struct {
	store.Store
	engine string
	failed func(error)
}

func (s meteredStore) done(operation string, err error) {
	result := "ok"
	switch {
	case err == nil:
	case isAnswer(err):
		result = "rejected"
	default:
		result = "error"
		s.failed(err)
	}
	storeOperationsTotal.WithLabelValues(s.engine, operation, result).Inc()
}

// Find implements store.Store.
func (s meteredStore) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	found, err := s.Store.Find(ctx, l)
	s.done("find", err)
	return found, err
}

// Get implements store.Store.
func (s meteredStore) Get(ctx context.Context, profile, id string) (store.Expectation, error) {
	e, err := s.Store.Get(ctx, profile, id)
	s.done("get", err)
	return e, err
}

// Claim implements store.Store.
func (s meteredStore) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	e, u, err := s.Store.Claim(ctx, c)
	s.done("claim", err)
	return e, u, err
}

// Settle implements store.Store.
func (s meteredStore) Settle(ctx context.Context, t store.Settlement) (store.Expectation, error) {
	e, err := s.Store.Settle(ctx, t)
	s.done("settle", err)
	return e, err
}

// Mismatch implements store.Store.
func (s meteredStore) Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev store.Event) (store.Expectation, bool, error) {
	e, locked, err := s.Store.Mismatch(ctx, profile, id, identity, max, ev)
	s.done("mismatch", err)
	return e, locked, err
}

// Notify implements store.Store.
func (s meteredStore) Notify(ctx context.Context, list []store.Delivery) (int, error) {
	dropped, err := s.Store.Notify(ctx, list)
	s.done("notify", err)
	return dropped, err
}

// countMatchers counts what the matchers were asked for one decision.
func countMatchers(d gate.Decision) {
	for _, c := range d.MatcherCalls {
		matcherCallsTotal.WithLabelValues(c.Matcher, c.Result).Inc()
	}
}
