package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Claim gives a key a use, or counts one more forward of the use it has. On an
// error nothing has changed.
func (e *Expectation) Claim(now time.Time, c Claim) (Use, error) {
	if len(c.Key) == 0 || len(c.Identity) == 0 && !c.Poll || c.TransactionID == "" || len(c.TransactionID) > maxName {
		return Use{}, errors.New("claim without key, identity or transactionID")
	}
	e.Normalise(now)
	if len(c.SenderNonce) > maxField {
		return Use{}, fmt.Errorf("senderNonce is longer than %d bytes", maxField)
	}
	notices, err := owed(c.Notices)
	if err != nil {
		return Use{}, err
	}
	if c.Generation != e.Generation {
		return Use{}, ErrGeneration // the judgement was made on something else (threats D02, D03)
	}
	switch e.State {
	case Registered, Claimed, Pending, Issued:
	default:
		return Use{}, ErrNotRegistered
	}

	what := "claimed"
	u := e.Use(c.Key)
	switch {
	case c.Poll:
		if u == nil || u.State != Pending || !slices.Contains(u.TransactionIDs, c.TransactionID) || !bytes.Equal(u.Subject, c.Subject) {
			return Use{}, ErrUsed // threat D19
		}
		what = "polled"
	case u != nil && !bytes.Equal(u.Identity, c.Identity):
		return Use{}, ErrUsed
	case u != nil && u.State == Issued:
		// The answer was lost on its way: NDES gives the same certificate again.
		if !slices.Contains(u.TransactionIDs, c.TransactionID) || !now.Before(u.SettledAt.Add(c.RetryWindow)) {
			return Use{}, ErrUsed
		}
		what = "retried"
	case u != nil:
		what = "retried"
	case len(e.Uses) >= e.MaxUses:
		return Use{}, ErrKeyConflict // never more than MaxUses keys
	case e.State != Registered:
		return Use{}, ErrNotRegistered // uses are left, but the time is up
	case e.useBytes() > maxUseBytes:
		return Use{}, ErrKeyConflict // no use is left that could be kept
	default:
		e.Uses = append(e.Uses, Use{
			Generation:  e.Generation + 1,
			State:       Claimed,
			Key:         bytes.Clone(c.Key),
			Identity:    bytes.Clone(c.Identity),
			Subject:     bytes.Clone(c.Subject),
			Certificate: bytes.Clone(c.Certificate),
			ClaimedAt:   utc(now),
			ClientIP:    bound(c.ClientIP, maxField),
			UserAgent:   bound(c.UserAgent, maxText),
		})
		u = &e.Uses[len(e.Uses)-1]
		if c.RetryWindow > 0 {
			u.DoubtAt = utc(now.Add(c.RetryWindow))
		}
		e.EverClaimed = true // and for good, also if the forward turns out never to have left
	}
	if !c.Poll && u.State != Issued {
		u.Notices, u.Told = notices, false
	}
	u.Forwards++
	u.ForwardedAt = utc(now)
	e.RetainUntil = utc(later(e.RetainUntil, c.RetainUntil))
	if u.State == Claimed && c.ReleaseAfter > 0 {
		u.ReleaseAt = utc(now.Add(c.ReleaseAfter))
	}
	if n := len(u.TransactionIDs); n == 0 || u.TransactionIDs[n-1] != c.TransactionID {
		u.TransactionIDs = last(append(u.TransactionIDs, c.TransactionID), MaxForwards)
	}
	if !slices.ContainsFunc(u.SenderNonces, func(n []byte) bool { return bytes.Equal(n, c.SenderNonce) }) {
		if len(u.SenderNonces) == MaxForwards { // NDES may answer with the first for as long as it likes
			u.SenderNonces = slices.Delete(u.SenderNonces, 1, 2)
		}
		u.SenderNonces = append(u.SenderNonces, bytes.Clone(c.SenderNonce))
	}
	e.fit()
	e.derive(now)
	e.change(now, Event{
		What: what, TransactionID: c.TransactionID, ClientIP: c.ClientIP,
		SPKISHA256: hex.EncodeToString(c.Key),
	})
	return u.clone(), nil
}

// MessageID identifies the message that c claims for, for engines.
func (c Claim) MessageID() []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.TransactionID), c.Key, c.SenderNonce} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// useBytes estimates what the uses take when encoded, without their notices.
func (e *Expectation) useBytes() int {
	n := 0
	for i := range e.Uses {
		u := &e.Uses[i]
		n += 1024 + len(u.UserAgent)
		for _, id := range u.TransactionIDs {
			n += len(id) + 8
		}
		for _, nonce := range u.SenderNonces {
			n += 2*len(nonce) + 8
		}
	}
	return n
}
