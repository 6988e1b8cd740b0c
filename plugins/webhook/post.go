package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// maxAnswer is the size of an answer in bytes.
const maxAnswer = 64 << 10

// post sends body and returns what came back with status 200.
func (m *Matcher) post(ctx context.Context, body []byte) ([]byte, error) {
	resp, err := m.send(ctx, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := acceptable(resp); err != nil {
		if resp.StatusCode >= http.StatusBadGateway && resp.StatusCode <= http.StatusGatewayTimeout {
			return nil, err // says itself that there is nobody
		}
		return nil, unusable{err}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, broken(ctx, errors.New("the answer breaks off"))
	case len(answer) > maxAnswer:
		return nil, unusable{errTooLong}
	}
	return answer, nil
}

// unusable is an answer in time of which nothing can be made. The server lives:
// one request that it stumbles over must not close the gateway to everybody.
type unusable struct{ error }

var errTooLong = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)

func (m *Matcher) send(ctx context.Context, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the url cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "scepgate")
	m.sign(req.Header, body)
	// The transport itself, so that nothing follows redirects or keeps cookies.
	resp, err := m.transport.RoundTrip(req)
	if err != nil {
		return nil, broken(ctx, err)
	}
	return resp, nil
}

// acceptable does not look at the type: simple servers give none, and what is
// not one JSON object is refused by its reader.
func acceptable(resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			return fmt.Errorf("status %d: redirects are not followed", resp.StatusCode)
		}
		return fmt.Errorf("status %d, want 200", resp.StatusCode)
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return errors.New("the answer has a Content-Encoding")
	}
	if resp.ContentLength > maxAnswer {
		return errTooLong
	}
	return nil
}

// broken says what went wrong in words of our own: errors of net/http quote
// what the server sent, which may be what it was sent.
func broken(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		if errors.Is(ended, context.DeadlineExceeded) {
			return fmt.Errorf("no answer in time: %w", ended)
		}
		return ended
	}
	var (
		dns    *net.DNSError
		op     *net.OpError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		host   x509.HostnameError
	)
	switch {
	case errors.As(err, &dns):
		return errors.New("the host name is not found")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such socket")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("no permission to connect")
	case errors.As(err, &host):
		return errors.New("the server's certificate is for another name")
	case errors.As(err, &cert):
		return errors.New("the server's certificate is not trusted")
	case errors.As(err, &record):
		return errors.New("the server speaks no TLS")
	case errors.As(err, &op) && op.Op == "dial":
		return errors.New("no connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("the server closed the connection without an answer")
	}
	return errors.New("no HTTP answer")
}
