package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

func init() { caddy.RegisterModule(new(Gateway)) }

// Gateway is the handler `scep_gateway`. It stands in front of a
// `reverse_proxy` to NDES and lets through what a profile of the app `scep`
// expects, and nothing else: every other URL, and every other request, gets its
// answer here.
//
// It makes these placeholders available:
//
// Placeholder | Description
// ------------|---------------
// `{http.scep_gateway.decision}` | forwarded, refused, failed or observed
// `{http.scep_gateway.reason}` | why; `ok` if there was nothing to refuse
// `{http.scep_gateway.transaction_id}` | SCEP's transactionID
// `{http.scep_gateway.message_type}` | pkcs_req, renewal_req, get_cert_initial, other or none
// `{http.scep_gateway.profile}` | the profile
// `{http.scep_gateway.expectation_id}` | the expectation that the request met
// `{http.scep_gateway.upstream}` | `upstream` of the RA that the message is encrypted to
//
// The access log has fields of the same names.
type Gateway struct {
	// The profile of the app `scep`. Required.
	Profile string `json:"profile,omitempty"`

	// The paths that are answered; exact, case-insensitive. Default:
	// `/certsrv/mscep`, `/certsrv/mscep/`, `/certsrv/mscep/mscep.dll`,
	// `/certsrv/mscep/mscep.dll/pkiclient.exe`. All are forwarded as the third.
	Paths []string `json:"paths,omitempty"`

	// The largest message in bytes. Default: 65536. At most 262144.
	MaxMessage int64 `json:"max_message,omitempty"`

	// How long NDES's answers to GetCACaps and GetCACert are kept. Default: 1m.
	CACache caddy.Duration `json:"ca_cache,omitempty"`

	// How long after the message was read a refusal is sent at the earliest, so
	// that its time tells nothing. Default: 250ms.
	RefusalFloor caddy.Duration `json:"refusal_floor,omitempty"`

	// How long NDES may take to answer. Default: 60s.
	UpstreamTimeout caddy.Duration `json:"upstream_timeout,omitempty"`

	// How many messages are judged and forwarded at once. As many more wait, two
	// seconds at most; the others get 503. Default: 64.
	MaxConcurrent int `json:"max_concurrent,omitempty"`

	// A path that answers 200 while messages can be judged, else 503. Default: none.
	Health string `json:"health,omitempty"`

	house    house
	profile  *running
	forwards *slots
	keys     *slots
	ca       caCache
	logger   *zap.Logger
	emit     func(name string, data map[string]any)
}

// house is what the handler needs of the app.
type house interface {
	lease() (storeLease, error)
	storeHealthy() bool
	storeFailed(err error)
	storeEngine() string
}

// CaddyModule returns the Caddy module information.
func (*Gateway) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.scep_gateway", New: func() caddy.Module { return new(Gateway) }}
}

// Provision checks the options and finds the profile.
func (g *Gateway) Provision(ctx caddy.Context) error {
	if err := g.normalize(); err != nil {
		return err
	}
	loaded, err := ctx.App("scep")
	if err != nil {
		return fmt.Errorf("scep_gateway: %w", err)
	}
	app, ok := loaded.(*App)
	if !ok {
		return fmt.Errorf("scep_gateway: app scep is %T", loaded)
	}
	if g.profile = app.profile(g.Profile); g.profile == nil {
		return fmt.Errorf("scep_gateway: no profile %q", g.Profile)
	}
	makeRoomForQueries(ctx)
	g.house = app
	g.logger = ctx.Logger(app)
	if floor := time.Duration(g.RefusalFloor); floor < lowFloor {
		g.logger.Warn("refusal_floor is shorter than judging may take: the time of a refusal tells devices more than they should know",
			zap.String("profile", g.Profile), zap.Duration("refusal_floor", floor))
	}
	if err := registerMetrics(ctx.GetMetricsRegistry(), app); err != nil {
		return fmt.Errorf("scep_gateway: metrics: %w", err)
	}
	if g.emit, err = emitter(ctx); err != nil {
		return err
	}
	app.emitBy(g.emit)
	expiry := newExpiryWatch(g.profile, g.emit)
	app.onFiles(func(r *running, _ *profileFiles) {
		if r == g.profile {
			expiry.wake(ctx)
		}
	})
	g.open()
	return nil
}

// leastHeaderBytes is what a server must read of a request's head, for a GET
// with the longest message to reach the handler, and a longer one to get its
// answer from it. Caddy's default is 16 KiB.
const leastHeaderBytes = 256 << 10

// makeRoomForQueries raises the server's limit for the head of a request. There
// is no other place: Caddy reads it before any handler runs.
func makeRoomForQueries(ctx caddy.Context) {
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.MaxHeaderBytes < leastHeaderBytes {
		server.MaxHeaderBytes = leastHeaderBytes
	}
}

// open makes what the options size.
func (g *Gateway) open() {
	g.forwards = newSlots(g.MaxConcurrent, g.MaxConcurrent, queueDeadline)
	// Whoever waits for a key slot holds a forward slot, so this queue is never full.
	g.keys = newSlots(max(2, runtime.GOMAXPROCS(0)), g.MaxConcurrent, keyDeadline)
}

// ServeHTTP answers every request that reaches it. What it does not forward and
// does not know is refused; next is called only by callNext, with a request and
// a writer of our own.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	head := r.Method == http.MethodHead
	switch {
	case g.Health != "" && listed(r.URL, g.Health):
		return g.health(r).write(w, head)
	case !listed(r.URL, g.Paths...):
		return status(errPath).write(w, head)
	}
	v := &visit{g: g, w: w, r: r, next: next, groups: routeGroups(r), start: time.Now()}
	res := v.respond()
	v.took = time.Since(v.start)
	if res.err != nil {
		return res.err
	}
	if res.floor {
		waitFloor(r.Context(), v.readAt, time.Duration(g.RefusalFloor))
	}
	v.conclude()
	_ = res.write(w, head) // the device may have gone; what was decided stands
	// Now, not when this function ends: what reporting takes may depend on the
	// reason (threat D29), and events come after the answer (contract §6).
	_ = http.NewResponseController(w).Flush()
	v.report()
	return nil
}

// health tells load balancers whether messages can be judged, and nothing else.
func (g *Gateway) health(r *http.Request) response {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		res := status(inspector.ErrMethod)
		res.allow = "GET, HEAD"
		return res
	}
	if _, down := g.down(); down {
		return status(errDown)
	}
	return response{code: http.StatusOK, contentType: "text/plain; charset=utf-8", body: []byte("200 ok\n")}
}

// down names what is known not to work.
func (g *Gateway) down() (what gate.Finding, down bool) {
	switch {
	case !g.house.storeHealthy():
		return gate.Finding{Reason: gate.StoreUnavailable}, true
	case !g.profile.keysHealthy():
		return gate.Finding{Reason: gate.KeyUnavailable}, true
	case !g.profile.crlsFresh():
		return gate.Finding{Reason: gate.UpstreamUnavailable, Field: "crl"}, true
	}
	return g.profile.matcherDown()
}

// visit is one request on its way through the house.
type visit struct {
	g      *Gateway
	w      http.ResponseWriter
	r      *http.Request
	next   caddyhttp.Handler
	groups map[string]struct{} // Caddy's route groups when the request arrived

	start  time.Time
	readAt time.Time // when the message had been read
	took   time.Duration
	record record
}

// respond decides. When it returns, everything it took is given back. A panic
// anywhere in it forwards nothing more and refuses (threat E35).
func (v *visit) respond() (res response) {
	defer func() {
		if p := recover(); p != nil {
			// Neither the value nor arguments are logged: they may quote the request.
			v.g.logger.Error("panic while deciding; refused", zap.String("panic", fmt.Sprintf("%T", p)), zap.Stack("stack"))
			res = v.fail(gate.MalformedMessage, errInternal)
		}
	}()
	operation, message, err := v.g.readRequest(v.w, v.r)
	v.readAt = time.Now()
	v.record.operation = operation
	switch {
	case err != nil:
		return v.unread(err)
	case operation == inspector.PKIOperation:
		return v.enroll(message)
	default:
		return v.serveCA(operation)
	}
}

// unread is the answer to a request that has no message to judge.
func (v *visit) unread(err error) response {
	var before caddyhttp.HandlerError
	switch {
	case errors.As(err, &before):
		return response{err: err}
	case errors.Is(err, inspector.ErrMethod):
		res := status(err)
		if op, e := inspector.ParseQuery(http.MethodHead, v.r.URL.RawQuery, 0); e == nil && op.Operation != inspector.PKIOperation {
			res.allow = "GET, HEAD"
		}
		return res
	case errors.Is(err, inspector.ErrOperationNotOffered):
		return status(err)
	}
	v.refuse(gate.MalformedMessage, err)
	return status(err)
}

// enroll judges a message and forwards it if it may pass: ParseMessage, known
// trouble, the limits on refusals, a forward slot, the private key, the gate,
// next, the gate again.
func (v *visit) enroll(message []byte) response {
	judged := sha256.Sum256(message)
	m, err := inspector.ParseMessage(message)
	if err != nil {
		v.refuse(reasonOf(err), err)
		if v.observing() && !boundedWalk(err) {
			return v.forwardUnjudged(message, judged)
		}
		return status(errUnusable)
	}
	v.record.TransactionID, v.record.MessageType = m.TransactionID, messageType(m.MessageType)

	// Whatever the message says, and before any private-key operation (invariant 6).
	if what, down := v.g.down(); down {
		v.record.Findings = []gate.Finding{what}
		return v.unjudged(what.Reason, message, judged)
	}
	source := refusalSource(clientIP(v.r))
	if v.g.profile.refusals.stops(source, v.start) {
		return v.fail(gate.Overloaded, errBusy)
	}
	release, err := v.g.forwards.acquire(v.r.Context())
	if err != nil {
		return v.fail(gate.Overloaded, err)
	}
	defer release()
	lease, err := v.g.house.lease()
	if err != nil {
		v.g.house.storeFailed(err)
		return v.unjudgedHoldingSlot(gate.StoreUnavailable, message, judged)
	}
	defer lease.release()
	files := v.g.profile.files.Load()
	if files == nil {
		return v.unjudgedHoldingSlot(gate.KeyUnavailable, message, judged)
	}

	opened, err := v.openMessage(files, m)
	if err != nil {
		return v.fail(gate.Overloaded, err)
	}
	if v.r.Context().Err() != nil {
		return v.fail(gate.Overloaded, errBusy) // the device has gone, and nothing is claimed yet
	}

	s := meteredStore{Store: lease.Store, engine: v.g.house.storeEngine(), failed: v.g.house.storeFailed}
	// From here on the device cannot cancel: a claim is always followed by a
	// forward. The gate bounds its own waits.
	d := files.gate.Judge(context.WithoutCancel(v.r.Context()), s, gate.Request{
		Message: m, Opened: opened, ClientIP: clientIP(v.r), UserAgent: v.userAgent(), Query: queryWithoutMessage(v.r.URL.RawQuery),
		Record: recorders.want(v.g.profile),
	})
	v.record.judged(d)
	countMatchers(d)
	recorders.hand(v.g.profile, d)
	switch {
	case d.Forward:
		return v.forward(s, files, m, d, judged)
	case d.Failed:
		if d.Reason == gate.MatcherFailed { // who makes matchers fail is limited like who is refused
			v.g.profile.refusals.count(source, v.start)
		}
		res := v.fail(d.Reason, errDown)
		res.floor = true
		return res
	}
	// What was decided stands, and is told, also where its signature cannot be had.
	v.record.decision = decisionRefused
	v.g.profile.refusals.count(source, v.start)
	return v.refusal(m, files.refusal)
}

// openMessage performs the private-key operation, in the pool.
func (v *visit) openMessage(files *profileFiles, m *inspector.Message) (*inspector.Opened, error) {
	release, err := v.g.keys.acquire(v.r.Context())
	if err != nil {
		return nil, err
	}
	defer release()
	return files.opener.Open(m), nil
}

// acceptsPOST reports whether NDES takes a message by POST (RFC 8894 §3.5.2).
// Without an answer it is asked by GET, which every version takes.
func (v *visit) acceptsPOST(files *profileFiles, upstream string) bool {
	answer, err := v.caAnswer(inspector.GetCACaps, upstream, files, time.Duration(v.g.CACache))
	return err == nil && answer.caps["POSTPKIOperation"]
}

// forward sends a message that the gate let pass, and settles what became of it.
// NDES is asked for nothing before: strangers cannot make the gateway wait for it.
func (v *visit) forward(s meteredStore, files *profileFiles, m *inspector.Message, d gate.Decision, judged [sha256.Size]byte) response {
	upstream := v.toUpstream(files, d.RA)
	rep, sent, err := v.send(m.Raw, judged, v.acceptsPOST(files, upstream))
	var certRep *inspector.CertRep
	if err != nil {
		err = fmt.Errorf("%w: %w", errNoReply, err)
	} else if d.Unjudged { // nothing to compare the answer with
		err = checkForm(rep)
	} else {
		certRep, err = v.checkAnswer(rep, m, d.SenderNonces(), files, upstream)
	}
	settled := files.gate.Settle(context.WithoutCancel(v.r.Context()), s, d, gate.Forwarded{Sent: sent, Rep: certRep})
	v.record.settled(settled, certRep)
	if settled.Err != nil {
		// The claim stands, so no other key can use the expectation.
		v.g.logger.Error("settling a forwarded message", zap.String("decision_id", d.ID), zap.String("error", printable(settled.Err.Error(), maxErrorText)))
	}
	if err != nil {
		return v.failUpstream(err)
	}
	return v.passed(rep)
}

// toUpstream tells the proxy which node of NDES has the RA pair.
func (v *visit) toUpstream(files *profileFiles, ra string) string {
	v.record.upstream = files.upstream(ra)
	v.set("upstream", v.record.upstream)
	return v.record.upstream
}

// passed gives NDES's answer to the device as it is.
func (v *visit) passed(rep *reply) response {
	v.record.decision = decisionForwarded
	if v.record.Observed || v.record.Unjudged {
		v.record.decision = decisionObserved
	}
	return response{code: http.StatusOK, contentType: rep.header.Get("Content-Type"), body: rep.body}
}

func (v *visit) observing() bool { return v.g.profile.observing(time.Now()) }

// Interface guards
var (
	_ caddy.Provisioner           = (*Gateway)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gateway)(nil)
	_ house                       = (*App)(nil)
)
