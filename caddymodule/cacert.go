package caddymodule

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

const (
	// caTimeout bounds one GetCACaps or GetCACert of our own.
	caTimeout = 10 * time.Second

	// maxCaps bounds what GetCACaps may answer: a dozen words.
	maxCaps = 4 << 10

	// staleFor is how long the last good answer is given while NDES cannot be reached.
	staleFor = time.Hour

	// caPause is how long a failed fetch is not repeated; signerPause the same
	// where an unknown signer makes us look again (contract §3.2).
	caPause     = time.Second
	signerPause = 10 * time.Second

	// signerRefresh as a maximum age: what was fetched within the last
	// signerPause need not be fetched again.
	signerRefresh = signerPause
)

var (
	// errNoReply: NDES gave no answer that could be judged.
	errNoReply = errors.New("not reachable")
	// errUnknownRA: NDES publishes an encryption certificate that we hold no key for.
	errUnknownRA = errors.New("encryption certificate without a configured ra")
)

// caAnswer is an answer of NDES to GetCACaps or GetCACert that may be passed on.
type caAnswer struct {
	files        *profileFiles // it was checked against these
	contentType  string
	body         []byte
	caps         inspector.Capabilities
	certificates []*x509.Certificate
	at           time.Time
}

// caKey: the operation alone, not what a device adds to it, and the node of NDES.
type caKey struct {
	operation inspector.Operation
	upstream  string // configured, or "" for the one that there is
}

// caCache keeps NDES's answers. One fetch per key runs at a time; everybody
// else waits for it or gets what is known.
type caCache struct {
	mu      sync.Mutex
	entries map[caKey]*caEntry
}

type caEntry struct {
	good    *caAnswer
	tried   time.Time
	err     error         // of the last fetch
	running chan struct{} // closed when the fetch that runs has ended
}

func (c *caCache) entry(key caKey) *caEntry {
	if c.entries == nil {
		c.entries = make(map[caKey]*caEntry)
	}
	e := c.entries[key]
	if e == nil {
		e = new(caEntry)
		c.entries[key] = e
	}
	return e
}

// known gives an answer no older than maxAge.
func (e *caEntry) known(files *profileFiles, maxAge time.Duration, now time.Time) *caAnswer {
	if e.good == nil || e.good.files != files || now.Sub(e.good.at) >= maxAge {
		return nil
	}
	return e.good
}

// settled gives what there is after a failed fetch: the last good answer if
// NDES could not be reached. An answer that was there but wrong is an error.
func (e *caEntry) settled(files *profileFiles, now time.Time) (*caAnswer, error) {
	if e.err == nil || errors.Is(e.err, errNoReply) {
		if known := e.known(files, staleFor, now); known != nil {
			return known, nil
		}
	}
	if e.err == nil {
		return nil, errNoReply
	}
	return nil, e.err
}

// get gives the answer of key, no older than maxAge if NDES can be reached. A
// failed fetch is repeated after pause at the earliest.
func (c *caCache) get(ctx context.Context, key caKey, files *profileFiles, maxAge, pause time.Duration, fetch func() (*caAnswer, error)) (*caAnswer, error) {
	c.mu.Lock()
	e := c.entry(key)
	now := time.Now()
	if known := e.known(files, maxAge, now); known != nil {
		c.mu.Unlock()
		return known, nil
	}
	if e.err != nil && now.Sub(e.tried) < pause {
		defer c.mu.Unlock()
		return e.settled(files, now)
	}
	if running := e.running; running != nil {
		c.mu.Unlock()
		timer := time.NewTimer(caTimeout)
		defer timer.Stop()
		select {
		case <-running:
		case <-timer.C:
			return nil, errNoReply
		case <-ctx.Done():
			return nil, errNoReply
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return e.settled(files, time.Now())
	}
	done := make(chan struct{})
	e.running = done
	c.mu.Unlock()

	good, err := (*caAnswer)(nil), errInternal
	defer func() { // also if fetch panics
		c.mu.Lock()
		defer c.mu.Unlock()
		e.running, e.err, e.tried = nil, err, time.Now()
		if good != nil {
			e.good = good
		}
		close(done)
	}()
	if good, err = fetch(); err == nil {
		return good, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, errNoReply) {
		if known := e.known(files, staleFor, time.Now()); known != nil {
			return known, nil
		}
	}
	return nil, err
}

// certificates gives what NDES published last.
func (c *caCache) certificates(upstream string, files *profileFiles) []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(caKey{inspector.GetCACert, upstream})
	if e.good == nil || e.good.files != files {
		return nil
	}
	return e.good.certificates
}

// serveCA answers GetCACaps and GetCACert.
func (v *visit) serveCA(operation inspector.Operation) response {
	files := v.g.profile.files.Load()
	if files == nil {
		return v.fail(gate.KeyUnavailable, errDown)
	}
	answer, err := v.caAnswer(operation, files.upstream(""), files, time.Duration(v.g.CACache))
	if err != nil {
		return v.failUpstream(err)
	}
	return response{code: http.StatusOK, contentType: answer.contentType, body: answer.body}
}

// caAnswer gives NDES's answer from the cache, or through next. The gateway has
// no upstream of its own: it sends a request of its own through the next of
// whichever request needs the answer.
func (v *visit) caAnswer(operation inspector.Operation, upstream string, files *profileFiles, maxAge time.Duration) (*caAnswer, error) {
	pause := caPause
	if maxAge == signerRefresh {
		pause = signerPause
	}
	// A device that hangs up does not take the answer from the message it sent.
	return v.g.ca.get(context.WithoutCancel(v.r.Context()), caKey{operation, upstream}, files, maxAge, pause, func() (*caAnswer, error) {
		answer, err := v.fetchCA(operation, upstream, files)
		switch {
		case errors.Is(err, errUnknownRA):
			v.later(eventRAUnknown, map[string]any{"profile": v.g.Profile})
			fallthrough
		case err != nil:
			v.g.logger.Error("asking NDES", zap.String("profile", v.g.Profile), zap.String("operation", string(operation)), zap.String("error", printable(err.Error(), maxErrorText)))
		}
		return answer, err
	})
}

func (v *visit) fetchCA(operation inspector.Operation, upstream string, files *profileFiles) (*caAnswer, error) {
	ctx, cancel := detached(v.r, v.groups, min(caTimeout, time.Duration(v.g.UpstreamTimeout)))
	defer cancel()
	v.set("upstream", upstream)
	rep, _, err := callNext(upstreamRequest(ctx, v.r, http.MethodGet, operation, nil), v.next)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %v", operation, errNoReply, err)
	}
	if rep.code >= 500 { // the application pool is down, or the proxy answered for it
		return nil, fmt.Errorf("%s: %w: status %d", operation, errNoReply, rep.code)
	}
	answer, err := readCAReply(operation, rep, files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	return answer, nil
}

// readCAReply checks an answer as contract §3.2 wants it.
func readCAReply(operation inspector.Operation, rep *reply, files *profileFiles) (*caAnswer, error) {
	if rep.code != http.StatusOK {
		return nil, fmt.Errorf("status %d", rep.code)
	}
	if err := checkWhole(rep); err != nil {
		return nil, err
	}
	contentType := rep.header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(contentType)
	answer := &caAnswer{files: files, contentType: contentType, body: rep.body, at: time.Now()}
	if operation == inspector.GetCACaps {
		// NDES sends no type, or any (RFC 8894 §3.5.2 tells clients to ignore it),
		// but a page of HTML is not it.
		if err != nil || !strings.HasPrefix(media, "text/") {
			answer.contentType = "text/plain"
		}
		if media == "text/html" || len(rep.body) > maxCaps || !plainText(rep.body) {
			return nil, errors.New("not a list of capabilities")
		}
		answer.caps = inspector.ParseCACaps(rep.body)
		return answer, nil
	}
	if err != nil || media != "application/x-x509-ca-ra-cert" && media != "application/x-x509-ca-cert" {
		return nil, errors.New("content type is not that of GetCACert")
	}
	if answer.certificates, err = inspector.ParseCACert(rep.body); err != nil {
		return nil, err
	}
	if err := checkBundle(answer.certificates, files, time.Now()); err != nil {
		return nil, err
	}
	return answer, nil
}

func plainText(b []byte) bool {
	for _, c := range b {
		if (c < 0x20 || c > 0x7e) && c != '\r' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// checkBundle accepts what NDES publishes only if devices can trust it with
// what they encrypt to it (threat A19): a configured CA and a configured RA (one
// certificate where they are the same), and beside them only their chain and
// NDES's own signing certificate.
func checkBundle(certificates []*x509.Certificate, files *profileFiles, now time.Time) error {
	var hasCA, hasRA bool
	var rest []*x509.Certificate
	for _, c := range certificates {
		isCA := slices.ContainsFunc(files.cas, c.Equal)
		isRA := slices.ContainsFunc(files.ras, func(ra raIdentity) bool { return ra.certificate.Equal(c) })
		hasCA, hasRA = hasCA || isCA, hasRA || isRA
		switch {
		case isCA, isRA:
		case !c.IsCA && c.KeyUsage&x509.KeyUsageKeyEncipherment != 0:
			return errUnknownRA
		case maySign(c, files.cas, now):
		default:
			rest = append(rest, c)
		}
	}
	if !hasCA || !hasRA {
		return errors.New("lacks the configured ca_certificate or ra")
	}
	// What is left must be the chain of a configured CA: a root whose key signed
	// one. Nothing is climbed by a certificate that is only in the bundle: with the
	// CA's key in it, anybody's root could stand above.
	for _, c := range rest {
		if !c.IsCA || !signedWith(c, c) || !slices.ContainsFunc(files.cas, func(k *x509.Certificate) bool { return signedWith(c, k) }) {
			return errors.New("holds a certificate that is neither of the chain nor NDES's own")
		}
	}
	return nil
}

// upstream is the node of NDES that has the named RA pair; the first that is
// configured where the RA is unknown.
func (f *profileFiles) upstream(ra string) string {
	if f == nil {
		return ""
	}
	first := ""
	for _, r := range f.ras {
		if r.name == ra {
			return r.upstream
		}
		if first == "" {
			first = r.upstream
		}
	}
	return first
}
