package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/scepgate/scepgate/plugins"
)

const version = "1.0.0"

// intune is the matcher.
type intune struct {
	now    func() time.Time // nil: the clock
	logger hclog.Logger     // nil: to standard error, where the gateway reads it

	mu     sync.Mutex
	client *client
}

// Intune looks at all of a request but the SID: one that a user brought himself
// it does not check, so a SID is never decided here.
var decides = []plugins.Field{plugins.Challenge, plugins.KeyUsage, plugins.ExtKeyUsage}

func (*intune) Info() plugins.Info {
	return plugins.Info{Name: "intune", Version: version, Decides: slices.Clone(decides)}
}

// Configure takes the `config` block. It asks nobody.
func (i *intune) Configure(_ context.Context, config map[string]string) error {
	s, err := readSettings(config)
	if err != nil {
		return err
	}
	now := i.now
	if now == nil {
		now = time.Now
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.client != nil {
		i.client.close()
	}
	i.client = newClient(s, now)
	if i.logger == nil {
		i.logger = hclog.New(&hclog.LoggerOptions{Name: "intune", Level: hclog.Info, Output: os.Stderr, JSONFormat: true})
	}
	return nil
}

func (i *intune) configured() (*client, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.client == nil {
		return nil, errors.New("not configured")
	}
	return i.client, nil
}

type validation struct {
	Request struct {
		TransactionID      string `json:"transactionId"`
		CertificateRequest []byte `json:"certificateRequest"`
		CallerInfo         string `json:"callerInfo"`
	} `json:"request"`
}

// Match asks Intune about the whole request.
func (i *intune) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Answer{}, err
	}
	client, err := i.configured()
	if err != nil {
		return plugins.Answer{}, err
	}
	for _, field := range r.Decides {
		if !slices.Contains(decides, field) {
			return plugins.Answer{Verdict: plugins.Refuse, Code: "not_decided_here", Findings: []plugins.Finding{{Field: field}}}, nil
		}
	}
	if len(r.PKCS10) == 0 {
		return plugins.Answer{}, errors.New("the request is not shown to it: the configuration must say `reveal challenge`")
	}
	var v validation
	v.Request.TransactionID, v.Request.CertificateRequest, v.Request.CallerInfo = r.TransactionID, r.PKCS10, callerInfo
	answer, err := client.act(ctx, "validateRequest", v)
	switch {
	case err != nil:
		return plugins.Answer{}, err
	case answer.code == success:
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	code := word(answer.code)
	i.logger.Info("Intune refuses", "code", code, "said", bounded(strconv.QuoteToASCII(answer.code), 64), "transaction_id", r.TransactionID, "client_request_id", answer.requestID)
	refusal := plugins.Answer{Verdict: plugins.Refuse, Code: code}
	if field := refusals[answer.code]; field != "" {
		refusal.Findings = []plugins.Finding{{Field: field}} // what Intune describes may quote the request
	}
	return refusal, nil
}

type failure struct {
	Notification struct {
		TransactionID      string `json:"transactionId"`
		CertificateRequest []byte `json:"certificateRequest"`
		HResult            int64  `json:"hResult"`
		ErrorDescription   string `json:"errorDescription"`
		CallerInfo         string `json:"callerInfo"`
	} `json:"notification"`
}

const (
	accessDenied   = 0x80070005 // E_ACCESSDENIED, for a refusal that has no HRESULT of NDES's
	maxDescription = 255        // the API's limit
)

// Notified tells Intune what did not become a certificate, for its console. What
// did become one cannot be told: successNotification wants the certificate's
// thumbprint, serial number and end, and NDES encrypts that to the device.
func (i *intune) Notified(ctx context.Context, o plugins.Outcome) error {
	client, err := i.configured()
	if err != nil {
		return err
	}
	if o.Result != plugins.Failed && o.Result != plugins.Refused {
		return nil
	}
	// Somebody else came with the challenge. The device that has it is not the one that failed.
	if o.Reason == "challenge_in_use" || o.Reason == "challenge_used" {
		return nil
	}
	if len(o.PKCS10) == 0 || o.TransactionID == "" {
		i.logger.Warn("Intune is not told of a failure: the request is not there any more", "outcome_id", o.ID, "reason", o.Reason)
		return nil // nor will it be the next time
	}
	var f failure
	f.Notification.TransactionID, f.Notification.CertificateRequest, f.Notification.CallerInfo = o.TransactionID, o.PKCS10, callerInfo
	f.Notification.HResult = accessDenied
	if n, err := strconv.ParseUint(strings.TrimPrefix(o.HRESULT, "0x"), 16, 32); err == nil {
		f.Notification.HResult = int64(n)
	}
	said := "refused by scepgate: " + o.Reason
	if o.Result == plugins.Failed {
		said = "refused by the CA: " + o.Text
	}
	f.Notification.ErrorDescription = bounded(said, maxDescription)
	answer, err := client.act(ctx, "failureNotification", f)
	if err != nil {
		return err
	}
	switch _, final := refusals[answer.code]; {
	case answer.code == success:
		return nil
	case final && answer.code != unknown: // it is about the request, which stays what it is
		i.logger.Warn("Intune does not take a failure", "code", word(answer.code), "outcome_id", o.ID, "client_request_id", answer.requestID)
		return nil
	}
	return fmt.Errorf("failureNotification (client-request-id %s): Intune answers %s", answer.requestID, bounded(strconv.QuoteToASCII(answer.code), 64))
}

// bounded cuts s to n bytes, between characters.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
