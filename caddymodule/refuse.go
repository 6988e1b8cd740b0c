package caddymodule

import (
	"context"
	"crypto/rand"
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
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails (crypto/rand)
	body, err := inspector.BuildFailure(inspector.Failure{
		TransactionID:  m.TransactionID,
		RecipientNonce: m.SenderNonce,
		SenderNonce:    nonce,
	}, identity.certificate, identity.key)
	if err != nil {
		return nil, fmt.Errorf("signing a refusal: %w", err)
	}
	return body, nil
}

// waitFloor waits until refusal_floor has passed since the message was read, so
// that an early refusal takes as long as a late one. The caller holds nothing by then.
func waitFloor(ctx context.Context, readAt time.Time, floor time.Duration) {
	left := time.Until(readAt.Add(floor))
	if left <= 0 {
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
