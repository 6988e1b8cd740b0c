package caddymodule

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// A refusal that took longer than the floor waits for the next multiple of it.
func TestALateRefusalIsAsLateAsOthersOfItsKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]time.Duration{
			0: 3, time.Second: 3, 3*time.Second - 1: 3, 3*time.Second + 1: 6, 5 * time.Second: 6, 11 * time.Second: 12,
		} {
			readAt := time.Now()
			time.Sleep(took)
			waitFloor(t.Context(), readAt, 3*time.Second)
			if got := time.Since(readAt); got != want*time.Second {
				t.Errorf("after %s: answered at %s, want %s", took, got, want*time.Second)
			}
		}
		begun := time.Now()
		waitFloor(t.Context(), begun, 0)
		if time.Since(begun) != 0 {
			t.Error("waited without a floor")
		}
	})
}

// What an event handler does with a reason must not show in the answer's time.
func TestTheAnswerLeavesBeforeItsEvents(t *testing.T) {
	w := newWorld(t)
	w.g.RefusalFloor = caddy.Duration(time.Millisecond)
	told, answered := make(chan struct{}), make(chan struct{})
	w.g.emit = func(string, map[string]any) {
		close(told)
		<-answered
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.g.ServeHTTP(rw, r, w.ndes); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	message := w.message(device{challenge: "another challenge"})
	resp, err := http.Post(server.URL+scepPath+"?operation=PKIOperation", mediaPKIMessage, bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK || int64(body.Len()) != resp.ContentLength {
		t.Errorf("%d, %d octets of %d, %v", resp.StatusCode, body.Len(), resp.ContentLength, err)
	}
	<-told
	close(answered)
}

// threat F03
func TestAKeyInPlaceOfItsFileIsNotQuoted(t *testing.T) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ", 8)
	for _, path := range []string{key, "/" + key, "./" + strings.ReplaceAll(key, "I", "/")} {
		_, err := readFile("ra ndes1 key", path)
		if err == nil || strings.Contains(err.Error(), "BADANB") || !strings.Contains(err.Error(), "ra ndes1 key") {
			t.Errorf("%v", err)
		}
	}
	if _, err := readFile("ra ndes1 key", "missing.pem"); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("the name of a missing file is not told: %v", err)
	}
	deep := filepath.Join(t.TempDir(), strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(filepath.Dir(deep), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(deep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile("option", deep); err != nil {
		t.Errorf("a file with a long name is not read: %v", err)
	}
}
