package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Notice is what one matcher is owed about a claim. It becomes a Delivery when
// the outcome is known. If nobody ever learns it, since the claim was released
// or never left, the matcher hears nothing.
type Notice struct {
	Matcher string `json:"matcher"`
	Sealed  []byte `json:"sealed,omitempty"` // opaque here; the caller keeps its secrets from whoever reads the store
}

// Delivery tells one matcher what became of a request. It waits in the store
// until it was delivered or DeliveryRetention is over.
type Delivery struct {
	ID            string    `json:"id"` // the store's, unique
	At            time.Time `json:"at"`
	Profile       string    `json:"profile"`
	Matcher       string    `json:"matcher"`
	Result        string    `json:"result"`
	Reason        string    `json:"reason,omitempty"`  // of the gateway; "" if NDES answered
	HRESULT       string    `json:"hresult,omitempty"` // NDES's, "0x80070490"
	Text          string    `json:"text,omitempty"`    // NDES's, escaped by whoever settled
	TransactionID string    `json:"transaction_id,omitempty"`
	ExpectationID string    `json:"expectation_id,omitempty"`
	ExternalID    string    `json:"external_id,omitempty"`
	SPKISHA256    string    `json:"spki_sha256,omitempty"`
	Sealed        []byte    `json:"sealed,omitempty"` // of the Notice
	Attempts      int       `json:"-"`                // how often it was postponed
	Due           time.Time `json:"-"`                // engines keep both apart: they change
}

// The results of a Delivery.
const (
	ResultIssued  = "issued"  // NDES returned a certificate
	ResultRefused = "refused" // by the gateway; there was no claim
	ResultFailed  = "failed"  // by NDES, for good
)

// Bounds of what waits for matchers.
const (
	MaxNotices        = 8        // per claim, and per call of Notify
	MaxSealed         = 16 << 10 // a longer Sealed is left out, and the notice stays
	MaxDeliveries     = 10_000   // as many may wait before Notify drops what is new
	MaxDue            = 100      // as many are given by one call of Deliveries
	DeliveryRetention = 7 * 24 * time.Hour
)

// owed makes what a claim brings fit to be kept.
func owed(notices []Notice) ([]Notice, error) {
	if len(notices) > MaxNotices {
		return nil, fmt.Errorf("more than %d notices", MaxNotices)
	}
	var kept []Notice
	for _, n := range notices {
		if !valid(n.Matcher, maxField) {
			return nil, errors.New("a notice names no matcher")
		}
		kept = append(kept, Notice{Matcher: n.Matcher, Sealed: sealed(n.Sealed)})
	}
	return kept, nil
}

// sealed copies what is not too long to be kept. That depends on what a device
// sent, so it is no reason to refuse its claim.
func sealed(b []byte) []byte {
	if len(b) == 0 || len(b) > MaxSealed {
		return nil
	}
	return bytes.Clone(b)
}

func valid(name string, max int) bool {
	return name != "" && len(name) <= max && utf8.ValidString(name)
}

// fit gives up what matchers are owed before the record grows too large to be
// written: first what is sealed, then the notices, of the oldest use first. What
// the life needs is never given up for it.
func (e *Expectation) fit() {
	size := e.useBytes()
	for i := range e.Uses {
		size += e.Uses[i].noticeBytes()
	}
	for _, give := range []func(*Use){
		func(u *Use) {
			for i := range u.Notices {
				u.Notices[i].Sealed = nil
			}
		},
		func(u *Use) { u.Notices = nil },
	} {
		for i := range e.Uses {
			if size <= maxUseBytes {
				return
			}
			u := &e.Uses[i]
			size -= u.noticeBytes()
			give(u)
			size += u.noticeBytes()
		}
	}
}

// noticeBytes estimates what the notices take when encoded.
func (u *Use) noticeBytes() int {
	n := 0
	for _, o := range u.Notices {
		n += 64 + len(o.Matcher) + 4*len(o.Sealed)/3
	}
	return n
}

// tell makes the deliveries of a use whose outcome is known. What is issued
// after it was told to have failed is told again.
func (e *Expectation) tell(u *Use, now time.Time, result string, answer Event) []Delivery {
	if result == ResultFailed && u.Told {
		return nil
	}
	var list []Delivery
	for _, n := range u.Notices {
		d := Delivery{
			At: now, Profile: e.Profile, Matcher: n.Matcher, Result: result,
			HRESULT: answer.HRESULT, Text: answer.Text, TransactionID: answer.TransactionID,
			ExpectationID: e.ID, ExternalID: e.ExternalID, SPKISHA256: hex.EncodeToString(u.Key), Sealed: n.Sealed,
		}
		d.enter(now)
		list = append(list, d)
	}
	u.Told = result == ResultFailed && len(list) > 0
	return list
}

// failure is what NDES last said to the key of u when it refused.
func (e *Expectation) failure(u *Use) Event {
	key := hex.EncodeToString(u.Key)
	for i := len(e.History) - 1; i >= 0; i-- {
		if ev := e.History[i]; ev.What == "failed" && ev.SPKISHA256 == key {
			return ev
		}
	}
	return Event{}
}

// Enter makes of each an entry of the queue, due now: a copy with an ID, and
// nothing longer than it may be. For engines.
func Enter(now time.Time, list []Delivery) ([]Delivery, error) {
	if len(list) > MaxNotices {
		return nil, fmt.Errorf("more than %d deliveries", MaxNotices)
	}
	var out []Delivery
	for _, d := range list {
		if !valid(d.Matcher, maxField) || !valid(d.Profile, maxName) {
			return nil, errors.New("a delivery names no matcher or no profile")
		}
		switch d.Result {
		case ResultIssued, ResultRefused, ResultFailed:
		default:
			return nil, fmt.Errorf("result %.32q is unknown", d.Result)
		}
		d.enter(now)
		out = append(out, d)
	}
	return out, nil
}

func (d *Delivery) enter(now time.Time) {
	d.ID = deliveryID(now)
	if d.At.IsZero() || d.At.After(now) {
		d.At = now
	}
	d.At, d.Due, d.Attempts = utc(d.At), utc(now), 0
	d.Reason, d.HRESULT, d.Text = bound(d.Reason, maxField), bound(d.HRESULT, maxField), bound(d.Text, maxText)
	d.TransactionID, d.SPKISHA256 = bound(d.TransactionID, maxName), bound(d.SPKISHA256, maxField)
	d.ExpectationID, d.ExternalID = bound(d.ExpectationID, maxName), bound(d.ExternalID, maxName)
	d.Sealed = sealed(d.Sealed)
}

// deliveryName begins the id of each. The milliseconds since 1970 follow, so ids
// sort by when they were made.
const deliveryName = "dlv_"

func deliveryID(now time.Time) string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	return deliveryTime(now) + hex.EncodeToString(b[:])
}

func deliveryTime(t time.Time) string {
	var b [8]byte
	if ms := t.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(b[:], uint64(ms))
	}
	return deliveryName + hex.EncodeToString(b[2:])
}

// FirstDelivery is not above the id of any delivery that is still to be kept at
// now, and above those whose retention is over.
func FirstDelivery(now time.Time) string {
	return deliveryTime(now.Add(time.Millisecond - DeliveryRetention))
}

// Encode is the stored form, but for Attempts and Due.
func (d *Delivery) Encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding delivery: %w", err)
	}
	return b, nil
}

// DecodeDelivery reads what Encode wrote.
func DecodeDelivery(b []byte) (Delivery, error) {
	var d Delivery
	if err := json.Unmarshal(b, &d); err != nil {
		return Delivery{}, fmt.Errorf("decoding delivery: %w", err)
	}
	if d.ID == "" || d.Matcher == "" {
		return Delivery{}, errors.New("decoding delivery: no id or no matcher")
	}
	return d, nil
}
