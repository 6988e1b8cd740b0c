// Package gate decides. It compares what the inspector read with what the store
// expects, with the matchers' help, and keeps the life of an enrolment: claim
// before forwarding, settle after the answer.
//
// It knows neither HTTP nor Caddy. It trusts the inspector's facts to be what
// the bytes say, and the store's atomicity. Everything it returns for logs is
// escaped and bounded.
//
// The two calls: [Gate.Judge] before anything is forwarded, [Gate.Settle] after.
package gate

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// Source says who owns the challenge.
type Source string

// The challenge sources.
const (
	SourceGateway     Source = "gateway"
	SourceNDESOneTime Source = "ndes_one_time"
	SourceNDESStatic  Source = "ndes_static"
)

// Template is one entry of `templates`. OID is "" if not configured.
type Template struct {
	Name string
	OID  string
}

// Templates is what NDES picks from the request's key usage. A nil entry is not configured.
type Templates struct {
	Signature      *Template
	Encryption     *Template
	GeneralPurpose *Template
}

// Profile is one compiled `profile`. It does not change while it is in use.
type Profile struct {
	Name           string
	Source         Source
	DefaultTTL     time.Duration
	StaticPassword string              // SourceNDESStatic only
	CAs            []*x509.Certificate // ca_certificate, all of them
	RAs            []*x509.Certificate
	Templates      Templates
	KeyUsage       []string // defaults
	ExtKeyUsage    []string // defaults, dotted OIDs
	Digests        []string
	Ciphers        []string
	MinRSABits     int
	AllowPatterns  bool
	MaxMismatches  int
	ObserveUntil   time.Time // zero: enforce
	// Constraints gives what the named API client may register now; false if
	// there is no such client any more, which refuses.
	Constraints func(owner string) (*Constraints, bool)
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
	TheftSuspected       bool
	Locked               bool // this request locked the expectation
	RA                   string

	claim *claimRef
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
}

// Gate judges the requests of one profile.
type Gate struct{}

// New makes the gate of p. hasher keys the challenge hashes.
func New(p Profile, h *Hasher, matchers []plugins.Matcher, now func() time.Time) (*Gate, error) {
	panic("unwritten")
}

// Judge decides and, if it is to be forwarded, claims. It asks s exactly one
// Find in every case. A Forward decision must be followed by exactly one Settle.
func (g *Gate) Judge(ctx context.Context, s store.Store, r Request) Decision { panic("unwritten") }

// Forwarded says how a forward ended.
type Forwarded struct {
	Sent bool               // false: not one byte left
	Rep  *inspector.CertRep // the verified answer; nil if there was none
}

// Settlement is what became of it. For the log line and events.
type Settled struct {
	State   store.State // of the expectation, after
	InDoubt bool
	HRESULT string // "0x80070490", "" if none
	Text    string // escaped, bounded
	Err     error
}

// Settle reports the outcome of a Forward decision.
func (g *Gate) Settle(ctx context.Context, s store.Store, d Decision, f Forwarded) Settled {
	panic("unwritten")
}

// SenderNonces gives the nonces forwarded for this decision's transaction and key, by which an answer may be recognised.
func (d *Decision) SenderNonces() [][]byte { panic("unwritten") }

// Verdict is the answer of a dry run.
type Verdict struct {
	Verdict  string    `json:"verdict"` // accept refuse
	Reason   Reason    `json:"reason"`
	Findings []Finding `json:"findings"`
}

// Check judges a PKCS#10 against an expectation without side effects. The
// challenge is compared only if compareChallenge.
func (g *Gate) Check(ctx context.Context, csrDER []byte, e store.Expectation, compareChallenge bool) Verdict {
	panic("unwritten")
}
