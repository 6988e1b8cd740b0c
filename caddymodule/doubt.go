package caddymodule

import (
	"encoding/hex"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

// inDoubt tells of an expectation with a claim for which no answer came within
// retry_window: nobody knows whether its key has a certificate. The store
// reports a claim once.
func (a *App) inDoubt(e store.Expectation) {
	fields := doubtFields(e)
	a.logger.Warn("enrollment in doubt", zapFields(fields)...)
	data := make(map[string]any, len(fields))
	for _, f := range fields {
		data[f.name] = f.value
	}
	a.emit(eventInDoubt, data)
}

// doubtFields says whose claim it is, in the words of a decision's line. Of
// several in doubt it is the newest.
func doubtFields(e store.Expectation) []field {
	var u store.Use
	for i := range e.Uses {
		if c := &e.Uses[i]; c.State == store.Claimed && c.DoubtAt.IsZero() && c.ClaimedAt.After(u.ClaimedAt) {
			u = *c
		}
	}
	transactionID, claimedAt, fingerprint := "", "", ""
	if e.Renews == nil { // a renewal has no challenge
		fingerprint = gate.Fingerprint(e.ChallengeHash)
	}
	if n := len(u.TransactionIDs); n > 0 {
		transactionID = u.TransactionIDs[n-1]
	}
	if !u.ClaimedAt.IsZero() { // it is, if the same sweep released it
		claimedAt = u.ClaimedAt.UTC().Format(time.RFC3339)
	}
	return []field{
		{"profile", e.Profile},
		{"expectation_id", e.ID},
		{"external_id", e.ExternalID},
		{"labels", e.Labels},
		{"state", string(e.State)},
		{"challenge_fingerprint", fingerprint},
		{"transaction_id", transactionID},
		{"spki_sha256", hex.EncodeToString(u.Key)},
		{"claimed_at", claimedAt},
		{"client_ip", printable(u.ClientIP, maxUserAgent)},
		{"user_agent", printable(u.UserAgent, maxUserAgent)},
	}
}
