// Package store keeps expectations: what the MDM said a certificate may
// contain, and what has become of it; and the queue of what matchers are still to
// be told of that.
//
// It speaks the domain, not keys and values, so that every rule that must be
// atomic is one method. It decides nothing about requests: the gate judges, and
// hands a judgement to Claim. It trusts its caller to have validated an
// Expectation, and never sees a challenge: only its keyed hash.
//
// The one call that matters is [Store.Claim]. Engines are in the folders below;
// each passes storetest.Run.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// State is where an expectation is in its life.
type State string

// The states. Live ones hold their challenge.
const (
	Registered State = "registered" // live
	Claimed    State = "claimed"    // live: a key holds it, the CA's answer is not known
	Pending    State = "pending"    // live: NDES said PENDING
	Locked     State = "locked"     // live: too many wrong identities
	Issued     State = "issued"
	Expired    State = "expired"
	Revoked    State = "revoked"
)

// Live reports whether the state holds the challenge against another registration.
func (s State) Live() bool {
	return s == Registered || s == Claimed || s == Pending || s == Locked
}

// Retention is how long an expectation that was ever claimed is kept after its
// last change, and so how long its challenge cannot be registered again.
const Retention = 90 * 24 * time.Hour

// EndedRetention is how long one that was never claimed is kept after it
// expired or was revoked, so that a late device gets its exact reason.
const EndedRetention = 24 * time.Hour

// MaxHistory bounds Expectation.History; the oldest entries go first.
const MaxHistory = 50

// MaxForwards bounds the transactionIDs and the nonces kept per use; the oldest go first.
const MaxForwards = 16

// Sentinels. Engines wrap them with context; callers use errors.Is.
var (
	ErrNotFound            = errors.New("no such expectation")
	ErrChallengeInUse      = errors.New("a live expectation has this challenge")
	ErrChallengeUsed       = errors.New("this challenge was claimed before")
	ErrIdentityInUse       = errors.New("a live expectation has this identity")
	ErrExternalIDInUse     = errors.New("a live expectation has this external id")
	ErrExpectationInUse    = errors.New("expectation is claimed or pending")
	ErrNotRegistered       = errors.New("expectation is not in state registered")
	ErrGeneration          = errors.New("expectation changed since it was read")
	ErrTransactionConflict = errors.New("transactionID is in use by another key")
	ErrKeyConflict         = errors.New("another key holds the expectation")
	ErrUsed                = errors.New("the use by this key has ended")
	ErrNotReleasable       = errors.New("expectation is neither locked nor claimed in doubt")
	ErrClosed              = errors.New("store is closed")
	ErrSchema              = errors.New("store was written by a newer version")
	ErrChallengeKey        = errors.New("store belongs to another challenge key")
)

// Value is one attribute of a name as expected. Type is a dotted OID.
type Value struct {
	Type   string   `json:"type"`
	Value  string   `json:"value,omitempty"`
	Match  string   `json:"match"`
	Values []string `json:"values,omitempty"`
}

// SANRule expects between Min and Max names of one type. For match "exact" both are 1.
type SANRule struct {
	Type   string   `json:"type"` // dns email uri ip upn
	Match  string   `json:"match"`
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
	Min    int      `json:"min"`
	Max    int      `json:"max"`
}

// KeyRule is what the key must be.
type KeyRule struct {
	MinBits    int    `json:"min_bits,omitempty"`
	SPKISHA256 string `json:"spki_sha256,omitempty"` // lower-case hex, "" for any key
}

// Content is what the certificate may contain, after variables and defaults:
// nothing in it is left to be filled in.
type Content struct {
	Subject             [][]Value `json:"subject_rdns"` // RDNs; the inner list is one (multi-valued) RDN
	SAN                 []SANRule `json:"san_rules"`
	SID                 string    `json:"sid,omitempty"`
	CertificateTemplate string    `json:"certificate_template,omitempty"`
	KeyUsage            []string  `json:"key_usage"`
	ExtKeyUsage         []string  `json:"ext_key_usage"` // dotted OIDs
	ApplicationPolicies []string  `json:"application_policies"`
	Key                 KeyRule   `json:"key"`
}

// Use is one key's hold on an expectation.
type Use struct {
	Generation     uint64    `json:"generation"`            // of the claim that made it; Settle names it
	State          State     `json:"state"`                 // Claimed, Pending or Issued
	Key            []byte    `json:"key"`                   // SHA-256 of the SubjectPublicKeyInfo
	Identity       []byte    `json:"identity"`              // identity digest as judged
	Certificate    []byte    `json:"certificate,omitempty"` // as Claim.Certificate
	Subject        []byte    `json:"subject,omitempty"`     // digest of the subject as judged, by which a poll is known
	TransactionIDs []string  `json:"transaction_ids"`
	SenderNonces   [][]byte  `json:"sender_nonces"`
	Forwards       int       `json:"forwards"`          // started
	Refused        bool      `json:"refused,omitempty"` // one of them was a definite FAILURE
	Verified       int       `json:"verified"`          // ended with a verified answer; less than Forwards: in flight or in doubt
	ClaimedAt      time.Time `json:"claimed_at"`
	ForwardedAt    time.Time `json:"forwarded_at,omitzero"` // when the newest forward was claimed
	Doubtful       int       `json:"doubtful,omitempty"`    // forwards that ended without a verified answer
	DoubtAt        time.Time `json:"doubt_at,omitzero"`     // when a claim still open is reported as in doubt; zero: it was, or never is
	ReleaseAt      time.Time `json:"release_at,omitzero"`   // when a claim still open is released by itself; zero: never
	SettledAt      time.Time `json:"settled_at,omitzero"`
	ClientIP       string    `json:"client_ip,omitempty"`
	UserAgent      string    `json:"user_agent,omitempty"`
	Notices        []Notice  `json:"notices,omitempty"` // owed once the outcome is known
	Told           bool      `json:"told,omitempty"`    // they were told that it failed: that it was issued would be news
}

// Event is one line of an expectation's history. It holds no secret and only
// escaped, bounded text.
type Event struct {
	At            time.Time `json:"at"`
	What          string    `json:"what"` // registered extended revoked replaced expired claimed retried polled unsent issued pending failed in_doubt refused mismatch locked released
	By            string    `json:"by,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	TransactionID string    `json:"transaction_id,omitempty"`
	SPKISHA256    string    `json:"spki_sha256,omitempty"`
	ClientIP      string    `json:"client_ip,omitempty"`
	HRESULT       string    `json:"hresult,omitempty"` // "0x80070490"
	Text          string    `json:"text,omitempty"`
}

// Renews names the certificate whose renewal an expectation is about: one that
// the MDM registered for it, or one that the gateway keeps to hold a
// certificate to one renewal.
type Renews struct {
	SHA256 string `json:"sha256,omitempty"` // of the certificate, lower-case hex
	Serial string `json:"serial,omitempty"` // lower-case hex without leading zeros
}

// Expectation is one registration and its life.
type Expectation struct {
	ID            string            `json:"id"` // "exp_" and 26 characters that sort by creation
	Profile       string            `json:"profile"`
	ExternalID    string            `json:"external_id,omitempty"`
	Owner         string            `json:"owner"` // name of the client that registered it
	ChallengeHash []byte            `json:"challenge_hash,omitempty"`
	IdentityHash  []byte            `json:"identity_hash,omitempty"` // set instead where one static challenge serves all
	Request       json.RawMessage   `json:"request"`                 // as registered, without the challenge; opaque here
	Content       Content           `json:"content"`
	Labels        map[string]string `json:"labels,omitempty"`
	Renews        *Renews           `json:"renews,omitempty"`      // nil: an enrolment
	RetainUntil   time.Time         `json:"retain_until,omitzero"` // kept at least until then once claimed
	MaxUses       int               `json:"max_uses"`
	CreatedAt     time.Time         `json:"created_at"`
	ExpiresAt     time.Time         `json:"expires_at"`
	ChangedAt     time.Time         `json:"changed_at"`
	EverClaimed   bool              `json:"ever_claimed,omitempty"`
	State         State             `json:"state"` // on read: Expired where ExpiresAt has passed while Registered
	Generation    uint64            `json:"generation"`
	Uses          []Use             `json:"uses,omitempty"`
	Mismatches    [][]byte          `json:"mismatches,omitempty"` // distinct wrong identity digests
	History       []Event           `json:"history,omitempty"`
}

// Use returns the hold of key, or nil.
func (e *Expectation) Use(key []byte) *Use {
	for i := range e.Uses {
		if string(e.Uses[i].Key) == string(key) {
			return &e.Uses[i]
		}
	}
	return nil
}

// InUse reports whether any key's outcome is open.
func (e *Expectation) InUse() bool {
	for i := range e.Uses {
		if e.Uses[i].State != Issued {
			return true
		}
	}
	return false
}

// Lookup asks for everything that a decision needs, in one read. Exactly one of
// ChallengeHash and IdentityHash is set, but for a renewal, which may be
// registered under either of two: then both are, and Decisive says which counts.
type Lookup struct {
	Profile       string
	ChallengeHash []byte
	IdentityHash  []byte
	TransactionID string
	Poll          bool // Holder is asked for as well
}

// Found answers a Lookup.
type Found struct {
	Expectation    *Expectation // nil: none has this challenge or identity
	TransactionKey []byte       // SHA-256 of the key that uses this transactionID; nil: none
	Holder         *Expectation // of a Poll: what the transactionID was last claimed for; nil: nothing that is kept
}

// Claim binds one use of an expectation to a key.
type Claim struct {
	Profile       string
	ID            string
	Generation    uint64 // as read; ErrGeneration if it has changed
	Key           []byte
	Identity      []byte
	TransactionID string
	SenderNonce   []byte
	ClientIP      string
	UserAgent     string // escaped and bounded by the caller
	Subject       []byte // digest of the subject, by which a poll is known

	// RetryWindow is how long after it was issued a use may be claimed again by
	// the same key, identity and transactionID, and how long a claim may be open
	// before it is reported as in doubt. ReleaseAfter is how long before it is
	// released by itself; zero: never.
	RetryWindow  time.Duration
	ReleaseAfter time.Duration

	// RetainUntil is how long the record must last at least: a renewal's, while its
	// certificate could sign another.
	RetainUntil time.Time

	// Certificate identifies the certificate that is renewed, whatever profile and
	// record it is renewed under. While a record has a use for it, and until
	// RetainUntil, no other record gets one: ErrKeyConflict. A use that is given
	// back gives it back.
	Certificate []byte

	// Poll claims one more forward of a Pending use for a GetCertInitial; it
	// never makes a use, and Identity is not compared.
	Poll bool

	// Notices is what matchers are owed about this claim, at most MaxNotices. They
	// are kept with the use, in place of those of the forward before. Ignored for
	// a Poll and for a use that is Issued.
	Notices []Notice

	// New is registered in the same transaction if nothing is kept under its
	// hash: the record of a renewal that nobody registers, or of a challenge that
	// a matcher vouches for. Generation and ID are then New's. If something is
	// kept: ErrChallengeUsed where it was claimed within Retention and has ended
	// since, but for a renewal; else ErrGeneration, and Find gives what it is,
	// whatever its state.
	New *Expectation
}

// Outcome is how one forward ended.
type Outcome int

// The outcomes. The zero value changes nothing but the history.
const (
	OutcomeUnknown  Outcome = iota // no answer, or none that verified: the use stays claimed, in doubt
	OutcomeUnsent                  // not one byte left the gateway: the forward never was
	OutcomeIssued                  // SUCCESS
	OutcomePending                 // PENDING
	OutcomeRefused                 // FAILURE that is definite: back to registered if no other forward of this use is open
	OutcomeDeferred                // FAILURE that says nothing lasting (CA unreachable): stays claimed
)

// Settlement reports how one forward of a use ended.
type Settlement struct {
	Profile       string
	ID            string
	UseGeneration uint64 // Use.Generation; a settlement for another one is ignored
	Outcome       Outcome
	TransactionID string
	HRESULT       string
	Text          string // escaped and bounded by the caller
}

// Swept is what one Sweep did.
type Swept struct {
	Changes     int           // records and deliveries changed or removed
	InDoubt     []Expectation // those with a claim that was found to be in doubt, as they are now
	Undelivered int           // deliveries removed because nobody took them within DeliveryRetention
}

// Query selects expectations, newest first.
type Query struct {
	Profile    string
	Owner      string // "" for all
	State      State  // "" for all
	ExternalID string
	LabelKey   string
	LabelValue string
	Limit      int
	Cursor     string // Page.Next of the page before; another string is ErrCursor
}

// ErrCursor says that a cursor is not one that List made.
var ErrCursor = errors.New("cursor not understood")

// Page is one answer of List. Next is "" at the end. A page may be short of
// Limit and still have a Next: a scan is bounded.
type Page struct {
	Items []Expectation
	Next  string
}

// CountKey labels a count.
type CountKey struct {
	Profile string
	State   State
}

// Store keeps expectations. All methods are safe for concurrent use, and each
// is atomic: another caller sees all of it or nothing. A method that returns nil
// has its effect on disk where the engine has one. Returned expectations are the
// caller's own copies. Every method returns ErrClosed after Close.
type Store interface {
	// Register adds e, whose ID, times, hashes, content and owner are set; it
	// sets State, Generation, ChangedAt and the first history entry.
	// ErrChallengeInUse, ErrChallengeUsed (claimed within Retention, or held by
	// a record of the same challenge that was), ErrIdentityInUse,
	// ErrExternalIDInUse.
	Register(ctx context.Context, e Expectation) (Expectation, error)

	// Replace registers e under its external id in place of the live
	// expectation that has it: the old one becomes revoked and its challenge
	// dies in the same transaction. If the old one is registered and same(old)
	// reports true it stays, with e's ExpiresAt, and is returned.
	// replaced is false only if there was no live one. ErrExpectationInUse while
	// the old one is claimed or pending, and the sentinels of Register. The old
	// one's own challenge or identity is not in the way of e.
	Replace(ctx context.Context, e Expectation, same func(old Expectation) bool) (stored Expectation, replaced bool, err error)

	// Get returns one by id. ErrNotFound.
	Get(ctx context.Context, profile, id string) (Expectation, error)

	// Find answers a Lookup in one read transaction, at the same cost whether
	// or not there is anything to find, and however many there are.
	Find(ctx context.Context, l Lookup) (Found, error)

	// Claim gives the key a use, or counts one more forward of the use it has,
	// by compare-and-set on Generation. It is durable when it returns: nothing
	// may go upstream before.
	//   - the expectation is Registered (or has uses left) and this key has no
	//     use: a use is added. Never more than MaxUses keys.
	//   - this key has a use that is Claimed or Pending and Identity is equal: a
	//     retry; Forwards rises.
	//   - otherwise: ErrUsed (its own use is Issued, or the identity differs),
	//     ErrKeyConflict (no use left), ErrNotRegistered (locked, expired,
	//     revoked).
	// The transactionID is bound to the key in the same transaction:
	// ErrTransactionConflict. Where expectations are found by identity, the
	// message is bound to the expectation as well, for Retention: an old message
	// does not claim what was registered anew for its device. ErrUsed.
	Claim(ctx context.Context, c Claim) (Expectation, Use, error)

	// Settle ends one forward. Unknown generations are ignored: the expectation
	// is returned unchanged but for its history.
	//   Issued: the use is Issued for good. Pending: Claimed becomes Pending.
	//   Refused: from Claimed the use ends and the expectation is Registered
	//   again, but only if Verified has reached Forwards; from Pending the
	//   expectation is Locked. Unsent: as if the forward had never been claimed;
	//   the use ends if it was the only one. Revoked stays Revoked, Issued stays
	//   Issued, whatever comes late; the history gets it.
	// In the same transaction the notices of the use become deliveries, however
	// many wait: "issued" with Issued; "failed" with the Refused that ends the use
	// or finds it Pending, or with the Unsent that leaves nothing but refusals. All
	// other outcomes leave them as they are. They go with the use.
	Settle(ctx context.Context, s Settlement) (Expectation, error)

	// Mismatch records a refused attempt by someone who knew the challenge. If
	// identity is not empty it is counted among the distinct wrong identities,
	// and the max-th (0: never) locks a Registered expectation. ev goes to the history.
	Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev Event) (e Expectation, locked bool, err error)

	// Revoke ends an expectation. Already ended: no error, no change, except
	// that Issued becomes Revoked.
	Revoke(ctx context.Context, profile, id, by string) (Expectation, error)

	// Extend sets ExpiresAt of one that is Registered: ErrNotRegistered else.
	Extend(ctx context.Context, profile, id string, expiresAt time.Time, by string) (Expectation, error)

	// List pages through expectations, newest first, without history and notices.
	List(ctx context.Context, q Query) (Page, error)

	// Release makes a Locked expectation Registered again, its mismatches
	// forgotten, or takes the uses that are Claimed and in doubt from one that
	// has any. The history names by. ErrNotReleasable for everything else;
	// ErrExpectationInUse while a forward of such a use is in flight, which is
	// one that this process claimed and has not settled.
	Release(ctx context.Context, profile, id, by string) (Expectation, error)

	// Notify adds deliveries about requests that have no claim, at most MaxNotices
	// of them, due now. While MaxDeliveries wait it drops them, and says how many.
	Notify(ctx context.Context, list []Delivery) (dropped int, err error)

	// Deliveries returns those that are due, the oldest Due first, at most max and
	// at most MaxDue. They stay until Delivered, so that each arrives at least once.
	Deliveries(ctx context.Context, max int) ([]Delivery, error)

	// Delivered removes one. An unknown id is no error.
	Delivered(ctx context.Context, id string) error

	// Postpone makes one due later, and counts the attempt. An unknown id is no error.
	Postpone(ctx context.Context, id string, due time.Time) error

	// Sweep marks what has expired, reports claims that have become doubtful,
	// releases those whose time for it has come, and removes what is past its
	// retention: at most max changes. It never removes an expectation that is
	// claimed or pending.
	Sweep(ctx context.Context, max int) (Swept, error)

	// Counts is kept, never scanned for.
	Counts(ctx context.Context) (map[CountKey]int, error)

	// BindChallengeKey compares check, a value derived from the challenge key,
	// with the one kept; keeps it if the store is empty. ErrChallengeKey.
	BindChallengeKey(ctx context.Context, check []byte) error

	// Check proves that the store can read and write durably now.
	Check(ctx context.Context) error

	// Close waits for nothing: leases are the caller's. Further calls: ErrClosed.
	Close() error
}
