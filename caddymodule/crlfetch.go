package caddymodule

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	crlFetchTimeout = 10 * time.Second
	crlFetchEvery   = time.Hour        // at the latest: a revocation is known that soon after it was published
	crlFetchAtLeast = time.Minute      // between two fetches, however short a list lives
	crlRetryFirst   = 15 * time.Second // after a failure; then twice as long each time
	crlRetryMost    = 10 * time.Minute
)

// crlSlots holds what was fetched, by URL. It outlives configurations: a reload
// must not turn devices away until a list has been fetched again.
var crlSlots = caddy.NewUsagePool()

// Destruct implements caddy.Destructor.
func (*crlSlot) Destruct() error { return nil }

// crlFetcher keeps the CRLs of one profile that are at URLs. Only the
// configuration names URLs; none is taken from a certificate.
type crlFetcher struct {
	slots  []*crlSlot
	wake   []chan struct{} // one per slot
	client *http.Client
	now    func() time.Time
	logger *zap.Logger

	mu     sync.Mutex // guards cas and cancel
	cas    []*x509.Certificate
	cancel context.CancelFunc // nil while not running
	work   sync.WaitGroup
	free   func()
}

// newCRLFetcher makes a fetcher that fetches nothing yet, nil if there is
// nothing to fetch. close must be called.
func newCRLFetcher(urls []string, logger *zap.Logger, now func() time.Time) *crlFetcher {
	if len(urls) == 0 {
		return nil
	}
	f := &crlFetcher{now: now, logger: logger, client: &http.Client{
		Timeout:       crlFetchTimeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, u := range urls {
		value, _, _ := crlSlots.LoadOrNew(u, func() (caddy.Destructor, error) { return &crlSlot{url: u}, nil })
		f.slots = append(f.slots, value.(*crlSlot))
		f.wake = append(f.wake, make(chan struct{}, 1))
	}
	f.free = sync.OnceFunc(func() {
		for _, u := range urls {
			_, _ = crlSlots.Delete(u) // Destruct does not fail
		}
	})
	return f
}

// fetched gives what is fetched; of nil, nothing.
func (f *crlFetcher) fetched() []*crlSlot {
	if f == nil {
		return nil
	}
	return f.slots
}

// trust tells whose CRLs to believe, and that all are to be fetched again. It
// never waits.
func (f *crlFetcher) trust(cas []*x509.Certificate) {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.cas = cas
	f.mu.Unlock()
	for _, wake := range f.wake {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// start begins to fetch, until halt.
func (f *crlFetcher) start() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	for i, slot := range f.slots {
		f.work.Go(func() { f.keep(ctx, slot, f.wake[i]) })
	}
}

// halt ends what start began. It may be called more than once, and on nil.
func (f *crlFetcher) halt() {
	if f == nil {
		return
	}
	f.mu.Lock()
	cancel := f.cancel
	f.mu.Unlock()
	if cancel != nil {
		cancel()
		f.work.Wait()
	}
}

// close ends all of it.
func (f *crlFetcher) close() {
	if f == nil {
		return
	}
	f.halt()
	f.free()
}

// keep fetches one list again and again.
func (f *crlFetcher) keep(ctx context.Context, slot *crlSlot, wake <-chan struct{}) {
	retry := crlRetryFirst
	for ctx.Err() == nil {
		select {
		case <-wake: // what it tells is done now
		default:
		}
		l, err := f.fetch(ctx, slot)
		var wait time.Duration
		if err == nil {
			retry, wait = crlRetryFirst, nextFetch(l, f.now())
		} else {
			wait, retry = retry, min(2*retry, crlRetryMost)
			if ctx.Err() == nil {
				f.logger.Warn("CRL could not be fetched", zap.String("crl", slot.url), zap.String("error", printable(err.Error(), maxErrorText)), zap.Duration("next_attempt_in", wait))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-wake:
			retry = crlRetryFirst
		case <-timer.C:
		}
		timer.Stop()
	}
}

// nextFetch is half of the time that is left, within bounds, so that several
// failures fit in before the list has ended.
func nextFetch(l *crl, now time.Time) time.Duration {
	return min(max(l.nextUpdate.Sub(now)/2, crlFetchAtLeast), crlFetchEvery)
}

// fetch puts the newest list into the slot. On an error what was there stays:
// it is good until its own end.
func (f *crlFetcher) fetch(ctx context.Context, slot *crlSlot) (*crl, error) {
	raw, err := f.get(ctx, slot.url)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	cas := f.cas
	f.mu.Unlock()
	now := f.now()
	l, err := parseCRL(slot.url, raw, cas, now)
	if err != nil {
		return nil, err
	}
	if !l.current(now) {
		return nil, fmt.Errorf("expired %s", l.nextUpdate.UTC().Format(time.RFC3339))
	}
	held := slot.held.Load()
	// Whoever stands between us and an http URL may have kept one from before
	// the device was lost.
	if held != nil && held.ca.Equal(l.ca) && l.thisUpdate.Before(held.thisUpdate) {
		return nil, fmt.Errorf("is of %s, older than the one in use", l.thisUpdate.UTC().Format(time.RFC3339))
	}
	slot.held.Store(l)
	if held == nil || !held.thisUpdate.Equal(l.thisUpdate) {
		f.logger.Info("CRL fetched", zap.String("crl", slot.url), zap.Int("entries", len(l.serials)), zap.Time("next_update", l.nextUpdate))
	}
	return l, nil
}

func (f *crlFetcher) get(ctx context.Context, place string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "scepgate")
	res, err := f.client.Do(req)
	if err != nil {
		var withURL *url.Error // the caller names the URL
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %d", res.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxCRLSize+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxCRLSize {
		return nil, fmt.Errorf("is larger than %d bytes", maxCRLSize)
	}
	return raw, nil
}

// Interface guard
var _ caddy.Destructor = (*crlSlot)(nil)
