package chaos

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is a network and an NDES that cannot be relied on. While it is calm
// it does what the simulator does.
type upstream struct {
	ndes  http.Handler
	calm  atomic.Bool
	mu    sync.Mutex
	dice  *rand.Rand
	fault [faults]atomic.Int64
}

// The faults. Of every second one of them NDES has done its work before.
const (
	none = iota
	closes
	truncates
	garbage
	stalls
	faults
)

var faultNames = [faults]string{"answered", "closed", "truncated", "garbage", "stalled"}

func (u *upstream) roll(n int) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dice.IntN(n)
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u.calm.Load() || r.URL.RawQuery != "operation=PKIOperation" {
		u.ndes.ServeHTTP(w, r)
		return
	}
	fault := none
	if u.roll(3) == 0 {
		fault = 1 + u.roll(faults-1)
	}
	u.fault[fault].Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	done := httptest.NewRecorder()
	if fault == none || u.roll(2) == 0 { // the request was taken, whatever the answer becomes
		u.ndes.ServeHTTP(done, r)
	}
	switch fault {
	case closes:
		panic(http.ErrAbortHandler)
	case truncates:
		w.Header().Set("Content-Type", "application/x-pki-message")
		w.Header().Set("Content-Length", strconv.Itoa(done.Body.Len()+1000))
		w.Write(done.Body.Bytes()[:done.Body.Len()/2])
		panic(http.ErrAbortHandler)
	case garbage:
		w.Header().Set("Content-Type", "application/x-pki-message")
		w.Write([]byte("\x30\x82\x01\x00 this is no CertRep"))
	case stalls:
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second): // longer than upstream_timeout
		}
	default:
		for k, v := range done.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(done.Code)
		w.Write(done.Body.Bytes())
	}
}
