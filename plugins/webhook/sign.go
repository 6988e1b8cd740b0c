package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
)

const minSecret = 16 // bytes

// ParseSecret reads a secret file: for [StepCA] the base64 that step-ca gave
// out, for [Scepgate] the text itself, printable and without the end of line.
func ParseSecret(f Format, file []byte) ([]byte, error) {
	secret := bytes.TrimSpace(file)
	if f == StepCA {
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(secret)))
		n, err := base64.StdEncoding.Decode(decoded, secret)
		if err != nil {
			return nil, errors.New("webhook: the secret is not base64, as step-ca writes it")
		}
		secret = decoded[:n]
	} else if bytes.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, errors.New("webhook: the secret is not one line of printable ASCII")
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("webhook: the secret is shorter than %d bytes", minSecret)
	}
	return bytes.Clone(secret), nil
}

// sign proves to the server who asks, and when: the timestamp is inside the body.
func (m *Matcher) sign(h http.Header, body []byte) {
	if m.config.Secret == nil {
		return
	}
	mac := hmac.New(sha256.New, m.config.Secret)
	mac.Write(body)
	sum := hex.EncodeToString(mac.Sum(nil))
	if m.config.Format == StepCA {
		h.Set("X-Smallstep-Signature", sum)
		h.Set("X-Smallstep-Webhook-ID", m.config.ID)
		return
	}
	h.Set("X-Scepgate-Signature", "sha256="+sum)
}
