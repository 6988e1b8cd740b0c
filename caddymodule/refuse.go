package caddymodule

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/inspector"
)

// refusal is the answer to a message that could be read but may not pass: the
// same for every reason but for nonces, transactionID and signature (invariant
// 6). identity is nil for `refusal http_403`. Its signature takes a key slot; if
// it cannot be had the device is told to come back, whatever the reason was.
func (v *visit) refusal(m *inspector.Message, identity *refusalIdentity) response {
	res := response{code: http.StatusOK, contentType: mediaPKIMessage}
	if identity == nil {
		res = status(errForbidden)
	} else if body, err := v.signRefusal(m, identity); err == nil {
		res.body = body
	} else {
		v.g.logger.Error("a refusal was not signed", zap.String("profile", v.g.Profile), zap.String("error", printable(err.Error(), maxErrorText)))
		res = status(errDown)
	}
	res.floor = true
	return res
}

func (v *visit) signRefusal(m *inspector.Message, identity *refusalIdentity) ([]byte, error) {
	release, err := v.g.keys.acquire(v.r.Context())
	if err != nil {
		return nil, fmt.Errorf("signing a refusal: %w", err)
	}
	defer release()
	body, err := inspector.BuildFailure(inspector.Failure{
		TransactionID:  m.TransactionID,
		RecipientNonce: m.SenderNonce,
		SenderNonce:    refusalNonce(identity.secret, m.TransactionID, m.SenderNonce),
	}, identity.certificate, identity.key)
	if err != nil {
		return nil, fmt.Errorf("signing a refusal: %w", err)
	}
	return body, nil
}

// refusalNonce makes the senderNonce of a refusal: eight random bytes, and eight
// that only we can have made of them. Where refusals are signed with a key that
// may sign for NDES too, one of ours, kept by somebody on the way to NDES and
// given back, would otherwise pass for a definite FAILURE and free the expectation.
func refusalNonce(secret []byte, transactionID string, recipientNonce []byte) []byte {
	nonce := make([]byte, 8, 16)
	rand.Read(nonce) // never fails (crypto/rand)
	return append(nonce, refusalMark(secret, transactionID, recipientNonce, nonce)...)
}

// ownRefusal reports whether refusalNonce made the senderNonce of c.
func ownRefusal(secret []byte, c *inspector.CertRep) bool {
	n := c.SenderNonce
	return len(n) == 16 && hmac.Equal(n[8:], refusalMark(secret, c.TransactionID, c.RecipientNonce, n[:8]))
}

func refusalMark(secret []byte, transactionID string, recipientNonce, random []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(random) // of fixed length
	mac.Write([]byte(transactionID))
	mac.Write([]byte{0}) // in no transactionID
	mac.Write(recipientNonce)
	return mac.Sum(nil)[:8]
}

// lowFloor is what refusal_floor should not be below: a few judgements, each
// with a write that waits for the disk.
const lowFloor = 100 * time.Millisecond

// waitFloor waits until refusal_floor has passed since the message was read, so
// that an early refusal takes as long as a late one; one that comes later still,
// under load, waits for the next multiple of it (threat D29). The caller holds
// nothing by then.
func waitFloor(ctx context.Context, readAt time.Time, floor time.Duration) {
	if floor <= 0 {
		return
	}
	timer := time.NewTimer(floor - time.Since(readAt)%floor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
