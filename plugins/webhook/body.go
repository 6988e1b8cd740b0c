package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

// question is the body that asks.
type question struct {
	Type          string            `json:"type"`
	Version       int               `json:"version"`
	Timestamp     time.Time         `json:"timestamp"`
	Profile       string            `json:"profile"`
	Decides       []plugins.Field   `json:"decides"`
	MessageType   string            `json:"message_type"`
	Renewal       bool              `json:"renewal"`
	TransactionID string            `json:"transaction_id"`
	ClientIP      string            `json:"client_ip"`
	UserAgent     string            `json:"user_agent"`
	Query         string            `json:"query"`
	Request       view.Facts        `json:"request"`
	Expectation   *view.Expectation `json:"expectation"` // null: nobody registered one

	Challenge string `json:"challenge,omitempty"` // only if revealed
	PKCS10    []byte `json:"pkcs10,omitempty"`

	stepCAQuestion // the same once more, for receivers that know step-ca's words
}

const version = 1

// body writes the question. as is what step-ca would ask.
func (m *Matcher) body(r *plugins.Request, as stepCAQuestion) ([]byte, error) {
	if m.config.Format == StepCA {
		return json.Marshal(as)
	}
	q := question{
		stepCAQuestion: as,

		Type: "match", Version: version, Timestamp: m.config.Now().UTC(),
		Profile: r.Profile, Decides: r.Decides,
		MessageType: r.MessageType, Renewal: r.Renewal, TransactionID: r.TransactionID,
		ClientIP: r.ClientIP, UserAgent: r.UserAgent, Query: r.Query,
		Request: view.Of(&r.Facts),
	}
	if q.Decides == nil {
		q.Decides = []plugins.Field{}
	}
	if r.Expectation.ID != "" {
		e := view.Expected(&r.Expectation)
		q.Expectation = &e
	}
	if m.config.Reveal {
		q.Challenge, q.PKCS10 = r.Challenge, r.PKCS10
	}
	return json.Marshal(q)
}

// told is the body that tells an outcome.
type told struct {
	Type      string    `json:"type"`
	Version   int       `json:"version"`
	Timestamp time.Time `json:"timestamp"`
	Profile   string    `json:"profile"`
	Outcome   outcome   `json:"outcome"`
}

type outcome struct {
	ID            string         `json:"id"`
	Time          time.Time      `json:"time"`
	Result        plugins.Result `json:"result"`
	Reason        string         `json:"reason"`
	HRESULT       string         `json:"hresult"`
	Text          string         `json:"text"`
	TransactionID string         `json:"transaction_id"`
	ExpectationID string         `json:"expectation_id"`
	ExternalID    string         `json:"external_id"`
	SPKISHA256    string         `json:"spki_sha256"`
	RequestSHA256 string         `json:"request_sha256"`

	PKCS10 []byte `json:"pkcs10,omitempty"` // only if revealed
}

// Notified posts an outcome, if the configuration wants that; any status 2xx says
// that it was taken. It does not count for the breaker: a server that takes no
// outcomes can still be asked.
func (m *Matcher) Notified(ctx context.Context, o plugins.Outcome) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if !m.config.Notify {
		return nil
	}
	t := told{
		Type: "outcome", Version: version, Timestamp: m.config.Now().UTC(), Profile: o.Profile,
		Outcome: outcome{
			ID: o.ID, Time: o.Time.UTC(), Result: o.Result, Reason: o.Reason, HRESULT: o.HRESULT, Text: o.Text,
			TransactionID: o.TransactionID, ExpectationID: o.ExpectationID, ExternalID: o.ExternalID,
			SPKISHA256: o.SPKISHA256, RequestSHA256: o.RequestSHA256,
		},
	}
	if m.config.Reveal {
		t.Outcome.PKCS10 = o.PKCS10
	}
	body, err := json.Marshal(t)
	if err != nil {
		return errors.New("webhook: the outcome cannot be written down")
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	resp, err := m.send(ctx, body)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("webhook: status %d to an outcome, want 2xx", resp.StatusCode)
	}
	return nil
}
