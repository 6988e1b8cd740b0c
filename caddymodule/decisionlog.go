package caddymodule

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

// What was decided about a message, or why there was nothing to decide.
const (
	decisionForwarded = "forwarded"
	decisionRefused   = "refused"
	decisionFailed    = "failed"
	decisionObserved  = "observed"
)

// How NDES answered, in logs and metrics.
const (
	upstreamSuccess     = "success"
	upstreamFailure     = "failure"
	upstreamPending     = "pending"
	upstreamInvalid     = "invalid"
	upstreamUnavailable = "unavailable"
)

// Bounds, in bytes, of text that comes from outside.
const (
	maxUserAgent = 200
	maxErrorText = 300
)

// record is what an operator will learn about a request. It never holds the
// challenge: gate and inspector do not put it into what is copied here.
type record struct {
	gate.Decision
	operation inspector.Operation
	decision  string // "": there was nothing to decide, and nothing is logged

	upstream        string // the node of NDES it went to, where that is configured
	upstreamStatus  string
	upstreamHRESULT string
	upstreamText    string
	issued          bool

	events []event // beside those that follow from the decision
}

// judged takes over what the gate decided. A gate that says nothing has refused.
func (rec *record) judged(d gate.Decision) {
	rec.Decision = d
	if d.Reason == "" {
		rec.Reason = gate.MalformedMessage
	}
}

// settled takes over what the gate made of NDES's answer.
func (rec *record) settled(s gate.Settled, answer *inspector.CertRep) {
	rec.upstreamHRESULT, rec.upstreamText = s.HRESULT, s.Text
	if answer == nil {
		return
	}
	switch answer.PKIStatus { // RFC 8894 §3.2.1.3
	case "0":
		rec.upstreamStatus, rec.issued = upstreamSuccess, true
	case "2":
		rec.upstreamStatus = upstreamFailure
	case "3":
		rec.upstreamStatus = upstreamPending
	default:
		rec.upstreamStatus = upstreamInvalid
	}
}

// refuse records a refusal at the edge, where there is no decision of the gate.
func (v *visit) refuse(reason gate.Reason, err error) {
	v.record.decision = decisionRefused
	v.record.Reason = reason
	v.record.Findings = []gate.Finding{{Reason: reason, Got: printable(err.Error(), maxErrorText)}}
}

// fail records that something on our side did not work, and gives the answer.
func (v *visit) fail(reason gate.Reason, err error) response {
	v.record.decision = decisionFailed
	v.record.Reason = reason
	v.record.Forward, v.record.Observed, v.record.Unjudged = false, false, false
	switch {
	case errors.Is(err, errInternal), errors.Is(err, errUpstream):
		return status(err)
	case reason == gate.Overloaded:
		return status(errBusy)
	}
	return status(errDown)
}

// failUpstream records that NDES gave no answer that may be passed on.
func (v *visit) failUpstream(err error) response {
	reason, how := gate.UpstreamInvalid, upstreamInvalid
	if errors.Is(err, errNoReply) {
		reason, how = gate.UpstreamUnavailable, upstreamUnavailable
	}
	v.record.upstreamStatus = how
	v.record.upstreamText = printable(err.Error(), maxErrorText)
	if errors.Is(err, errInternal) {
		v.g.logger.Error("a message was not forwarded", zap.String("error", v.record.upstreamText))
		return v.fail(reason, errInternal)
	}
	return v.fail(reason, errUpstream)
}

// set sets a placeholder.
func (v *visit) set(name, value string) {
	if repl, ok := v.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.scep_gateway."+name, value)
	}
}

// conclude completes the record and sets placeholders and access-log fields,
// before the answer is written: its headers may want them.
func (v *visit) conclude() {
	rec := &v.record
	v.set("profile", v.g.Profile)
	if rec.decision == "" {
		return
	}
	if rec.ID == "" {
		rec.ID = "dec_" + strings.ToLower(rand.Text())
	}
	if rec.MessageType == "" {
		rec.MessageType = "none"
	}
	if rec.Findings == nil { // an array in every line
		rec.Findings = []gate.Finding{}
	}
	if rec.RequestedSAN == nil {
		rec.RequestedSAN = []string{}
	}
	v.placeholders()
}

// report tells the operator, when the device has its answer: decision log,
// metrics, and last the events, whose handlers may take their time.
func (v *visit) report() {
	rec := &v.record
	if rec.decision != "" {
		fields := v.fields()
		v.g.logger.Info("enrollment "+rec.decision, zapFields(fields)...)
		v.count()
		v.emitDecision(fields)
	}
	for _, e := range rec.events {
		v.g.emit(e.name, e.data)
	}
}

// placeholders sets the placeholders and the access log's fields.
func (v *visit) placeholders() {
	rec := &v.record
	extra, _ := v.r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	for _, p := range [][2]string{
		{"decision", rec.decision},
		{"reason", string(rec.Reason)},
		{"transaction_id", rec.TransactionID},
		{"message_type", rec.MessageType},
		{"profile", v.g.Profile},
		{"expectation_id", rec.ExpectationID},
		{"upstream", rec.upstream},
	} {
		v.set(p[0], p[1])
		if extra != nil {
			extra.Set(zap.String("http.scep_gateway."+p[0], p[1]))
		}
	}
}

// field is one name and value of a decision's line and event.
type field struct {
	name  string
	value any
}

// fields lists what is told about a decision (contract §6), in this order.
func (v *visit) fields() []field {
	rec := &v.record
	fields := []field{
		{"decision_id", rec.ID},
		{"profile", v.g.Profile},
		{"operation", string(rec.operation)},
		{"message_type", rec.MessageType},
		{"transaction_id", rec.TransactionID},
		{"reason", string(rec.Reason)},
		{"findings", rec.Findings},
		{"requested_subject", rec.RequestedSubject},
		{"requested_san", rec.RequestedSAN},
		{"expectation_id", rec.ExpectationID},
		{"external_id", rec.ExternalID},
		{"labels", rec.Labels},
		{"challenge_fingerprint", rec.ChallengeFingerprint},
		{"spki_sha256", rec.SPKISHA256},
		{"client_ip", printable(clientIP(v.r), maxUserAgent)},
		{"user_agent", v.userAgent()},
		{"upstream_status", rec.upstreamStatus},
		{"upstream_hresult", rec.upstreamHRESULT},
		{"upstream_text", rec.upstreamText},
		{"duration_ms", float64(v.took) / float64(time.Millisecond)},
	}
	if rec.Unjudged { // contract §3.3: it could not be opened, or a dependency was down
		fields = append(fields, field{"unjudged", true})
	}
	return fields
}

func zapFields(fields []field) []zap.Field {
	out := make([]zap.Field, len(fields))
	for i, f := range fields {
		out[i] = zap.Any(f.name, f.value)
	}
	return out
}

func (v *visit) userAgent() string { return printable(v.r.UserAgent(), maxUserAgent) }

// reasonOf gives the reason of an error of package inspector.
func reasonOf(err error) gate.Reason {
	var parse *inspector.ParseError
	if errors.As(err, &parse) {
		return gate.ReasonOf(parse.Kind)
	}
	return gate.MalformedMessage
}

// messageType names a messageType for logs and metrics (RFC 8894 §3.2.1.2).
func messageType(value string) string {
	switch value {
	case "19":
		return "pkcs_req"
	case "17":
		return "renewal_req"
	case "20":
		return "get_cert_initial"
	}
	return "other"
}

// printable makes s fit for a line of a log: what does not show as what it is
// becomes \u{…} or \x…, and what is longer than max is cut. threat D31
func printable(s string, max int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		text := s[i : i+n]
		switch {
		case r == utf8.RuneError && n == 1:
			text = fmt.Sprintf(`\x%02X`, s[i])
		case !unicode.IsPrint(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r):
			text = fmt.Sprintf(`\u{%04X}`, r)
		}
		if b.Len()+len(text) > max {
			return b.String() + "…"
		}
		b.WriteString(text)
		i += n
	}
	return b.String()
}
