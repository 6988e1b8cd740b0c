package gate

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
)

// MatcherCall is one call of a matcher and what came of it: agree, refuse,
// not_mine or failed.
type MatcherCall struct {
	Matcher string
	Result  string
}

// Decision is the verdict on one PKIOperation. The zero value refuses.
type Decision struct {
	ID       string
	Forward  bool // the bytes may go upstream, once
	Observed bool // Forward although Findings say otherwise: mode observe
	Unjudged bool // Observed, and it could not even be opened
	Failed   bool // a dependency failed: 503, whatever the request was
	Reason   Reason
	Findings []Finding

	MessageType          string // pkcs_req renewal_req get_cert_initial other
	TransactionID        string
	RequestedSubject     string // escaped, bounded
	RequestedSAN         []string
	SPKISHA256           string
	ChallengeFingerprint string
	ExpectationID        string
	ExternalID           string
	Labels               map[string]string
	MatcherCalls         []MatcherCall // every one, in order
	TheftSuspected       bool
	Locked               bool // this request locked the expectation
	RA                   string

	// Question is what a matcher that nothing is revealed to is shown of the
	// request and the expectation that it met. Nil unless Request.Record asks for
	// it, and where there is no request to compare, or nothing to compare it with.
	Question *plugins.Request

	claim  *claimRef
	nonces [][]byte
}

type claimRef struct {
	id         string
	generation uint64
}

// Request is one PKIOperation as the gate sees it.
type Request struct {
	Message   *inspector.Message
	Opened    *inspector.Opened
	ClientIP  string
	UserAgent string
	Query     string // of the URL, without the message
	Record    bool   // somebody wants Decision.Question
}

// Bounds of what a decision and the store's history carry, in bytes.
const (
	maxFieldText = 256
	maxFindings  = 64
)

// newDecision starts as a refusal and describes r as far as it could be read.
func newDecision(r Request) Decision {
	d := Decision{
		ID:          "dec_" + strings.ToLower(rand.Text()),
		Reason:      MalformedMessage,
		MessageType: "other",
	}
	if m := r.Message; m != nil {
		switch m.MessageType {
		case typePKCSReq:
			d.MessageType = "pkcs_req"
		case typeRenewalReq:
			d.MessageType = "renewal_req"
		case typeGetCertInitial:
			d.MessageType = "get_cert_initial"
		}
		d.TransactionID = safe(m.TransactionID, maxFieldText)
		if m.Signer != nil {
			spki := m.Signer.SPKISHA256()
			d.SPKISHA256 = hex.EncodeToString(spki[:])
		}
	}
	if o := r.Opened; o != nil {
		d.RA = safe(o.RA, maxFieldText)
		if o.Err == nil && o.Poll != nil {
			d.RequestedSubject = subjectText(o.Poll.Subject)
		}
		if o.Err == nil && o.CSR != nil {
			d.RequestedSubject = subjectText(o.CSR.Subject)
			d.RequestedSAN = sanText(o.CSR.SAN)
			if o.CSR.SID != "" {
				d.RequestedSAN = append(d.RequestedSAN, safe("sid:"+o.CSR.SID, maxSANText))
			}
		}
	}
	return d
}

// refuse makes d a refusal for these findings. Without one it stays the
// refusal it was.
func (d *Decision) refuse(findings []Finding) {
	d.Forward, d.Observed, d.Unjudged, d.Failed, d.claim = false, false, false, false, nil
	if len(findings) == 0 {
		return
	}
	d.Findings = sorted(findings)
	d.Reason = d.Findings[0].Reason
}

// fail makes d the answer of a gate that could not ask.
func (d *Decision) fail(r Reason) {
	d.refuse([]Finding{{Reason: r}})
	d.Failed = true
}

// undecided makes d the answer of a gate whose matchers could not say.
func (d *Decision) undecided(findings []Finding) {
	d.refuse(findings)
	d.Failed = true
}

// undecided reports whether a matcher's failure is all that is wrong: then the
// device may come again, and nothing is held against it.
func undecided(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.Reason != MatcherFailed })
}

// SenderNonces gives the nonces forwarded for this decision's transaction and
// key, by which an answer may be recognised: NDES may answer a retry with what
// it answered before. Nil unless the message is to be forwarded.
func (d *Decision) SenderNonces() [][]byte {
	if !d.Forward {
		return nil
	}
	return slices.Clone(d.nonces)
}

// withNonce adds own to the nonces of the claimed use, if it is not there.
func withNonce(nonces [][]byte, own []byte) [][]byte {
	if slices.ContainsFunc(nonces, func(n []byte) bool { return bytes.Equal(n, own) }) {
		return nonces
	}
	return append(slices.Clip(nonces), own)
}
