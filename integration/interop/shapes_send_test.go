package interop

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
)

// The URLs that clients are given.
const (
	dll       = "/certsrv/mscep/mscep.dll"
	pkiclient = "/certsrv/mscep/mscep.dll/pkiclient.exe"
)

// sender carries a message to the gateway at base.
type sender func(t *testing.T, base string, message []byte) attack.Answer

func ask(t *testing.T, method, url string, body io.Reader, header ...string) attack.Answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := attack.Do(http.DefaultClient, r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// post sends to path; a Content-Type of "" is left out.
func post(path, contentType string) sender {
	return func(t *testing.T, base string, message []byte) attack.Answer {
		t.Helper()
		var header []string
		if contentType != "" {
			header = []string{"Content-Type", contentType}
		}
		return ask(t, http.MethodPost, base+path+"?operation=PKIOperation", bytes.NewReader(message), header...)
	}
}

// postChunked does not announce the length.
func postChunked(path string) sender {
	return func(t *testing.T, base string, message []byte) attack.Answer {
		t.Helper()
		return ask(t, http.MethodPost, base+path+"?operation=PKIOperation", io.MultiReader(bytes.NewReader(message)), "Content-Type", "application/x-pki-message")
	}
}

// get sends the message in the query, in one of the spellings below. query is
// everything before the value.
func get(path, query, userAgent string, spell func([]byte) string) sender {
	return func(t *testing.T, base string, message []byte) attack.Answer {
		t.Helper()
		return ask(t, http.MethodGet, base+path+query+spell(message), nil, "User-Agent", userAgent)
	}
}

const pkiOperation = "?operation=PKIOperation&message="

// escaped is what a URL library makes of it.
func escaped(message []byte) string {
	return url.QueryEscape(base64.StdEncoding.EncodeToString(message))
}

// halfEscaped is Apple's: only '=' is escaped.
func halfEscaped(message []byte) string {
	return strings.ReplaceAll(base64.StdEncoding.EncodeToString(message), "=", "%3D")
}

// bare escapes nothing.
func bare(message []byte) string { return base64.StdEncoding.EncodeToString(message) }

// unpadded leaves '=' away.
func unpadded(message []byte) string { return base64.RawStdEncoding.EncodeToString(message) }

// spaced went through something that takes '+' for a space.
func spaced(message []byte) string {
	return strings.NewReplacer("+", "%20", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(message))
}

// wrapped has lines of 64 characters, the last one ended too.
func wrapped(message []byte) string {
	text := base64.StdEncoding.EncodeToString(message)
	var lines strings.Builder
	for len(text) > 64 {
		lines.WriteString(text[:64] + "\n")
		text = text[64:]
	}
	return lines.String() + text + "\n"
}

// sscepWrapped escapes what sscep escapes.
func sscepWrapped(message []byte) string {
	return strings.NewReplacer("+", "%2B", "-", "%2D", "=", "%3D", "\n", "%0A").Replace(wrapped(message))
}

// ciscoWrapped escapes all of it.
func ciscoWrapped(message []byte) string { return url.QueryEscape(wrapped(message)) }

// getHTTP10 speaks HTTP/1.0 over a bare connection, with these header lines and
// no Host.
func getHTTP10(path string, spell func([]byte) string, lines ...string) sender {
	return func(t *testing.T, base string, message []byte) attack.Answer {
		t.Helper()
		return http10(t, base, "GET "+path+pkiOperation+spell(message), lines, nil)
	}
}

// postHTTP10 does so with a body.
func postHTTP10(path string, lines ...string) sender {
	return func(t *testing.T, base string, message []byte) attack.Answer {
		t.Helper()
		return http10(t, base, "POST "+path+"?operation=PKIOperation", append(lines, fmt.Sprintf("Content-Length: %d", len(message))), message)
	}
}

func http10(t *testing.T, base, requestLine string, lines []string, body []byte) attack.Answer {
	t.Helper()
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(base, "http://"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	head := strings.Join(append([]string{requestLine + " HTTP/1.0"}, lines...), "\r\n") + "\r\n\r\n"
	if _, err := c.Write(append([]byte(head), body...)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if resp.ContentLength != int64(len(answer)) || len(resp.TransferEncoding) != 0 {
		t.Errorf("HTTP/1.0 answer: Content-Length %d of %d bytes, transfer encoding %v", resp.ContentLength, len(answer), resp.TransferEncoding)
	}
	a := attack.Answer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Header: resp.Header, Body: answer}
	if rep, err := inspector.ParseCertRep(answer); err == nil {
		a.Rep = rep
	}
	return a
}
