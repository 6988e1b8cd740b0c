package inspector

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestParseQueryReadsWhatClientsSend(t *testing.T) {
	// Its base64 has '+', '/' and padding.
	message := []byte{0xfb, 0xef, 0xbe, 0xff, 0xff, 0xff, 0x30, 0x80, 0x01, 0x02}
	b64 := base64.StdEncoding.EncodeToString(message)
	if !strings.Contains(b64, "+") || !strings.Contains(b64, "/") || !strings.HasSuffix(b64, "==") {
		t.Fatalf("%s does not show what it must", b64)
	}
	wrapped := b64[:5] + "\n" + b64[5:] + "\n"
	tests := []struct {
		name, method, query string
		operation           Operation
		message             []byte
	}{
		{"bare GetCACaps", "GET", "operation=GetCACaps", GetCACaps, nil},
		{"GetCACert of Windows", "GET", "operation=GetCACert&message=default", GetCACert, nil},
		{"GetCACert of iOS", "GET", "operation=GetCACert&message=SCEP%20Authority", GetCACert, nil},
		{"GetCACert with an empty message", "GET", "operation=GetCACert&message=", GetCACert, nil},
		{"HEAD of GetCACaps", "HEAD", "operation=GetCACaps", GetCACaps, nil},
		{"HEAD of GetCACert", "HEAD", "operation=GetCACert&message=0", GetCACert, nil},
		{"parameters the other way round", "GET", "message=ca&operation=GetCACaps", GetCACaps, nil},
		{"quirk: sscep's second question mark", "GET", "?operation=GetCACaps", GetCACaps, nil},
		{"POST", "POST", "operation=PKIOperation", PKIOperation, nil},
		{"POST with a second question mark", "POST", "?operation=PKIOperation", PKIOperation, nil},
		{"GET, all escaped", "GET", "operation=PKIOperation&message=" + url.QueryEscape(b64), PKIOperation, message},
		{"GET, lower-case escapes", "GET", "operation=PKIOperation&message=" + strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(b64), PKIOperation, message},
		{"quirk: iOS leaves + and / raw", "GET", "operation=PKIOperation&message=" + strings.ReplaceAll(b64, "=", "%3D"), PKIOperation, message},
		{"nothing escaped", "GET", "operation=PKIOperation&message=" + b64, PKIOperation, message},
		{"+ turned into a space", "GET", "operation=PKIOperation&message=" + strings.ReplaceAll(b64, "+", "%20"), PKIOperation, message},
		{"quirk: wrapped lines of sscep", "GET", "operation=PKIOperation&message=" + url.QueryEscape(wrapped), PKIOperation, message},
		{"quirk: wrapped lines of Cisco, CRLF", "GET", "operation=PKIOperation&message=" + url.QueryEscape(strings.ReplaceAll(wrapped, "\n", "\r\n")), PKIOperation, message},
		{"no padding", "GET", "operation=PKIOperation&message=" + strings.TrimRight(b64, "="), PKIOperation, message},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := ParseQuery(tt.method, tt.query, 1024)
			if err != nil {
				t.Fatal(err)
			}
			if q.Operation != tt.operation || !bytes.Equal(q.Message, tt.message) {
				t.Errorf("got %+v", q)
			}
		})
	}
}

func TestParseQueryRefuses(t *testing.T) {
	tests := []struct {
		name, method, query string
		want                error
	}{
		{"E14: PUT", "PUT", "operation=PKIOperation", ErrMethod},
		{"E14: OPTIONS", "OPTIONS", "operation=GetCACaps", ErrMethod},
		{"E14: lower-case method", "get", "operation=GetCACaps", ErrMethod},
		{"no method", "", "operation=GetCACaps", ErrMethod},
		{"HEAD of PKIOperation", "HEAD", "operation=PKIOperation&message=AAAA", ErrMethod},
		{"POST of GetCACaps", "POST", "operation=GetCACaps", ErrQuery},
		{"POST of GetCACert", "POST", "operation=GetCACert", ErrQuery},
		{"query over the limit", "GET", "operation=PKIOperation&message=" + strings.Repeat("A", maxQuery), ErrQueryTooLong},
		{"query one over the limit", "GET", "operation=GetCACert&message=" + strings.Repeat("A", maxQuery-27), ErrQueryTooLong},
		{"no query", "GET", "", ErrQuery},
		{"question mark alone", "GET", "?", ErrQuery},
		{"two stray question marks", "GET", "??operation=GetCACaps", ErrQuery},
		{"E34: a stray question mark before message", "GET", "?message=AAAA&operation=PKIOperation", ErrQuery},
		{"no operation", "GET", "message=AAAA", ErrQuery},
		{"empty operation", "GET", "operation=", ErrQuery},
		{"E17: operation twice", "GET", "operation=GetCACaps&operation=PKIOperation", ErrQuery},
		{"E17: operation twice, equal", "GET", "operation=GetCACaps&operation=GetCACaps", ErrQuery},
		{"E17: operation twice, first empty", "GET", "operation=&operation=GetCACaps", ErrQuery},
		{"E17: message twice", "GET", "operation=PKIOperation&message=AAAA&message=AAAA", ErrQuery},
		{"unknown parameter", "GET", "operation=GetCACaps&x=1", ErrQuery},
		{"empty pair", "GET", "operation=GetCACaps&", ErrQuery},
		{"name without value", "GET", "operation", ErrQuery},
		{"E18: name in capitals", "GET", "Operation=GetCACaps", ErrQuery},
		{"E18: escaped letter in a name", "GET", "op%65ration=GetCACaps", ErrQuery},
		{"E18: escaped letter in an operation", "GET", "operation=G%65tCACaps", ErrQuery},
		{"E18: operation in lower case", "GET", "operation=pkioperation&message=AAAA", ErrQuery},
		{"E18: NUL after the operation", "GET", "operation=PKIOperation%00&message=AAAA", ErrQuery},
		{"E18: space before the operation", "GET", "operation=%20PKIOperation&message=AAAA", ErrQuery},
		{"E18: plus before the operation", "GET", "operation=+PKIOperation&message=AAAA", ErrQuery},
		{"E19: semicolon", "GET", "operation=GetCACert;operation=PKIOperation", ErrQuery},
		{"E19: semicolon in a message", "GET", "operation=GetCACert&message=a;b", ErrQuery},
		{"E19: bad escape", "GET", "operation=GetCACert&message=%zz", ErrQuery},
		{"E19: escape cut", "GET", "operation=GetCACert&message=a%4", ErrQuery},
		{"E19: escape of nothing", "GET", "operation=GetCACert&message=%", ErrQuery},
		{"E20: NDESGenerateChallenge", "GET", "operation=NDESGenerateChallenge", ErrQuery},
		{"E20: NDESGetCACertThumbprint", "GET", "operation=NDESGetCACertThumbprint", ErrQuery},
		{"GetNextCACert", "GET", "operation=GetNextCACert&message=ca", ErrOperationNotOffered},
		{"GetNextCACert by POST", "POST", "operation=GetNextCACert", ErrOperationNotOffered},
		{"GetCACertChain", "GET", "operation=GetCACertChain", ErrQuery},
		{"E21: POST with message", "POST", "operation=PKIOperation&message=AAAA", ErrQuery},
		{"E21: POST with an empty message", "POST", "operation=PKIOperation&message=", ErrQuery},
		{"GET without message", "GET", "operation=PKIOperation", ErrQuery},
		{"GET with an empty message", "GET", "operation=PKIOperation&message=", ErrQuery},
		{"E22: padding alone", "GET", "operation=PKIOperation&message===", ErrQuery},
		{"E22: only line breaks", "GET", "operation=PKIOperation&message=%0A%0D", ErrQuery},
		{"E22: URL alphabet", "GET", "operation=PKIOperation&message=-_AA", ErrQuery},
		{"E22: escaped twice", "GET", "operation=PKIOperation&message=AA%252B", ErrQuery},
		{"E22: junk after padding", "GET", "operation=PKIOperation&message=AA%3D%3DAA", ErrQuery},
		{"E22: bits after the end", "GET", "operation=PKIOperation&message=AB%3D%3D", ErrQuery},
		{"E22: bits after the end, no padding", "GET", "operation=PKIOperation&message=AAB", ErrQuery},
		{"E22: impossible length", "GET", "operation=PKIOperation&message=AAAAA", ErrQuery},
		{"E22: too much padding", "GET", "operation=PKIOperation&message=AAA%3D%3D", ErrQuery},
		{"E22: padding of a whole group", "GET", "operation=PKIOperation&message=AAAA%3D%3D%3D%3D", ErrQuery},
		{"E22: tab", "GET", "operation=PKIOperation&message=AA%09AA", ErrQuery},
		{"E22: NUL", "GET", "operation=PKIOperation&message=AAAA%00", ErrQuery},
		{"message over the limit", "GET", "operation=PKIOperation&message=" + base64.RawStdEncoding.EncodeToString(make([]byte, 1025)), ErrMessageTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := ParseQuery(tt.method, tt.query, 1024)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if q.Operation != "" || q.Message != nil {
				t.Errorf("result with the error: %+v", q)
			}
		})
	}
	if _, err := ParseQuery("GET", "operation=PKIOperation&message="+base64.RawStdEncoding.EncodeToString(make([]byte, 1024)), 1024); err != nil {
		t.Errorf("message of the limit: %v", err)
	}
	if _, err := ParseQuery("GET", "operation=GetCACert&message="+strings.Repeat("A", maxQuery-28), 1024); err != nil {
		t.Errorf("query of the limit: %v", err)
	}
}

// FuzzQuery holds that an accepted query has the reading that net/url gives it,
// as far as net/url can, and that its message is within the limit.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"operation=GetCACaps", "?operation=GetCACert&message=SCEP%20Authority", "operation=PKIOperation&message=AA+/%3D%0A",
		"operation=PKIOperation&message=MIIB%2BAA%3D%3D%0A", "operation=GetCACert;operation=PKIOperation", "op%65ration=GetCACaps", "operation=PKIOperation&message=AA%252B",
	} {
		f.Add("GET", seed)
		f.Add("POST", seed)
	}
	f.Fuzz(func(t *testing.T, method, query string) {
		const limit = 4096
		q, err := ParseQuery(method, query, limit)
		if err != nil {
			if q.Operation != "" || q.Message != nil {
				t.Fatal("result with an error")
			}
			return
		}
		values, err := url.ParseQuery(strings.TrimPrefix(query, "?"))
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", query, err)
		}
		if len(values["operation"]) != 1 || values.Get("operation") != string(q.Operation) {
			t.Fatalf("net/url reads operation %q, not %q", values["operation"], q.Operation)
		}
		if len(q.Message) > limit {
			t.Fatalf("message of %d bytes", len(q.Message))
		}
		if (q.Message != nil) != (method == "GET" && q.Operation == PKIOperation) {
			t.Fatal("message out of place")
		}
		if q.Message != nil {
			text := strings.NewReplacer(" ", "+", "\r", "", "\n", "").Replace(values.Get("message"))
			if strings.TrimRight(text, "=") != base64.RawStdEncoding.EncodeToString(q.Message) {
				t.Fatalf("%q is not the canonical base64 of the message", text)
			}
		}
	})
}
