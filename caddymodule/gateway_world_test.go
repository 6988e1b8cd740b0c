package caddymodule

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/smallstep/pkcs7"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

// canaryChallenge must never be seen outside of a message.
const canaryChallenge = "CANARY8CE317021F690069"

const scepPath = "/certsrv/mscep/mscep.dll"

func init() { pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES128CBC }

var (
	agentKey  = sync.OnceValue(newSiteRSA)
	deviceKey = sync.OnceValue(newSiteRSA)
)

// world is a gateway with a gate, a store and an NDES of its own, without Caddy
// around it.
type world struct {
	t      *testing.T
	ca     *x509.Certificate
	ra     *x509.Certificate // encryption
	agent  *x509.Certificate // signing
	g      *Gateway
	gate   *gate.Gate
	ndes   *fakeNDES
	house  *fakeHouse
	logs   *observer.ObservedLogs
	mu     sync.Mutex
	events []event
}

// fakeHouse is an app whose store can be made to fail.
type fakeHouse struct {
	mu       sync.Mutex
	store    store.Store
	down     bool
	leaseErr error
	failed   []error
	open     int // leases
}

func (h *fakeHouse) lease() (storeLease, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaseErr != nil {
		return storeLease{}, h.leaseErr
	}
	h.open++
	return storeLease{Store: h.store, release: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.open--
	}}, nil
}

func (h *fakeHouse) storeHealthy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.down
}

func (h *fakeHouse) storeFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = append(h.failed, err)
}

func (h *fakeHouse) storeEngine() string { return "memory" }

func (h *fakeHouse) leases() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// faultyStore fails where it is told to.
type faultyStore struct {
	store.Store
	find, claim, settle error
	onFind              func()
}

func (s *faultyStore) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	if s.onFind != nil {
		s.onFind()
	}
	if s.find != nil {
		return store.Found{}, s.find
	}
	return s.Store.Find(ctx, l)
}

func (s *faultyStore) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	if s.claim != nil {
		return store.Expectation{}, store.Use{}, s.claim
	}
	return s.Store.Claim(ctx, c)
}

func (s *faultyStore) Settle(ctx context.Context, t store.Settlement) (store.Expectation, error) {
	if s.settle != nil {
		return store.Expectation{}, s.settle
	}
	return s.Store.Settle(ctx, t)
}

// newWorld builds a world; change may alter the profile before it is compiled.
func newWorld(t *testing.T, change ...func(*gate.Profile)) *world {
	t.Helper()
	w := &world{t: t, ca: newSiteCA(t)}
	w.ra = newSiteRA(t, w.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	w.agent = issueCertificate(t, &x509.Certificate{
		Subject: commonName("Test agent"), KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEnrollmentAgent},
	}, w.ca, agentKey().Public(), siteCAKey())

	p := gate.Profile{
		Name: "wifi", Source: gate.SourceGateway, DefaultTTL: time.Hour,
		CAs: []*x509.Certificate{w.ca}, RAs: []*x509.Certificate{w.ra},
		KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
		Digests: []string{"sha1", "sha256"}, Ciphers: []string{"des3", "aes128", "aes256"},
		MinRSABits: 2048, MaxMismatches: 3,
		Constraints: func(string) (*gate.Constraints, bool) { return nil, true },
	}
	for _, f := range change {
		f(&p)
	}
	hasher := must(gate.NewHasher(make([]byte, 32)))
	w.gate = must(gate.New(p, hasher, nil, time.Now))
	opener := must(inspector.NewOpener([]inspector.RAKey{{Name: "ndes1", Certificate: w.ra, Key: siteRAKey()}}, hasher.SubstituteSecret()))

	core, logs := observer.New(zapcore.DebugLevel)
	w.logs = logs
	w.house = &fakeHouse{store: memstore.New(time.Now)}
	w.g = &Gateway{Profile: "wifi", RefusalFloor: caddy.Duration(time.Millisecond), Health: "/healthz"}
	if err := w.g.normalize(); err != nil {
		t.Fatal(err)
	}
	w.g.house = w.house
	config := &Profile{Mode: &Mode{Kind: modeEnforce}}
	if !p.ObserveUntil.IsZero() {
		config.Mode = &Mode{Kind: modeObserve, Until: p.ObserveUntil.Format(time.RFC3339)}
	}
	w.g.profile = &running{name: "wifi", config: config}
	w.g.profile.files.Store(&profileFiles{
		gate: w.gate, opener: opener, cas: p.CAs,
		ras:     []raIdentity{{name: "ndes1", certificate: w.ra, key: siteRAKey()}},
		refusal: &refusalIdentity{certificate: w.ra, key: siteRAKey()},
	})
	w.g.logger = zap.New(core)
	w.g.emit = func(name string, data map[string]any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, event{name, data})
	}
	w.g.open()
	w.ndes = &fakeNDES{w: w, caps: "POSTPKIOperation\nSHA-1\nSHA-256\nAES\n", bundle: []*x509.Certificate{w.agent, w.ra, w.ca}}
	return w
}

// newSiteRATemplate is the template of somebody else's RA.
func newSiteRATemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject:  commonName("Test stranger"),
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// files changes the files of the profile.
func (w *world) files(change func(*profileFiles)) {
	files := *w.g.profile.files.Load()
	change(&files)
	w.g.profile.files.Store(&files)
}

// register makes an expectation that device meets.
func (w *world) register() store.Expectation {
	w.t.Helper()
	challenge, subject := canaryChallenge, "CN=device,O=Example Corp"
	prepared, problems := w.gate.Prepare(gate.Registration{Challenge: &challenge, Subject: &subject, Labels: map[string]string{"device": "d1"}}, "mdm")
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	return must(w.house.store.Register(w.t.Context(), prepared.Expectation))
}

func (w *world) expectation(id string) store.Expectation {
	w.t.Helper()
	return must(w.house.store.Get(w.t.Context(), "wifi", id))
}

// device describes a request; the zero value is the honest one.
type device struct {
	key         *rsa.PrivateKey
	challenge   string
	cn          string
	messageType string
	cipher      string
	recipient   *x509.Certificate
	nonce       []byte
}

func (w *world) message(d device) []byte {
	w.t.Helper()
	if d.key == nil {
		d.key = deviceKey()
	}
	if d.challenge == "" {
		d.challenge = canaryChallenge
	}
	if d.cn == "" {
		d.cn = "device"
	}
	if d.messageType == "" {
		d.messageType = "19"
	}
	if d.recipient == nil {
		d.recipient = w.ra
	}
	subject := []inspector.RDN{{{Type: "2.5.4.10", Value: "Example Corp"}}, {{Type: "2.5.4.3", Value: d.cn}}}
	content := must(inspector.BuildCSR(inspector.CSRParams{Subject: subject, KeyUsage: 1<<0 | 1<<2, Challenge: d.challenge}, d.key))
	if d.messageType == "20" {
		content = must(inspector.BuildIssuerAndSubject(w.ca.RawSubject, subject))
	}
	signer := must(inspector.SelfSignedCertificate(subject, time.Now(), d.key))
	return must(inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: d.messageType, SenderNonce: d.nonce, Content: content, Recipient: d.recipient,
		SignerCert: signer, SignerKey: d.key, Cipher: d.cipher,
	}))
}

func post(message []byte) *http.Request {
	return httptest.NewRequest(http.MethodPost, scepPath+"?operation=PKIOperation", bytes.NewReader(message))
}

func get(query string) *http.Request {
	return httptest.NewRequest(http.MethodGet, scepPath+"?"+query, nil)
}

// serve sends r through the gateway in front of NDES.
func (w *world) serve(r *http.Request) *httptest.ResponseRecorder {
	w.t.Helper()
	rec, err := w.serveThrough(r, w.ndes)
	if err != nil {
		w.t.Fatalf("the handler returned %v", err)
	}
	return rec
}

func (w *world) serveThrough(r *http.Request, next caddyhttp.Handler) (*httptest.ResponseRecorder, error) {
	w.t.Helper()
	rec := httptest.NewRecorder()
	err := w.g.ServeHTTP(rec, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, nil), next)
	if n := w.house.leases(); n != 0 {
		w.t.Errorf("%d leases were not released", n)
	}
	if n := len(w.g.forwards.taken) + len(w.g.keys.taken); n != 0 {
		w.t.Errorf("%d slots were not released", n)
	}
	return rec, err
}

// decisions gives the decision lines of the log.
func (w *world) decisions() []observer.LoggedEntry {
	return w.logs.Filter(func(e observer.LoggedEntry) bool { return len(e.Message) > 11 && e.Message[:11] == "enrollment " }).All()
}

// lastReason gives message and reason of the last decision.
func (w *world) lastReason() (string, string) {
	all := w.decisions()
	if len(all) == 0 {
		return "", ""
	}
	last := all[len(all)-1]
	return last.Message, last.ContextMap()["reason"].(string)
}

func (w *world) eventNames() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, e := range w.events {
		names = append(names, e.name)
	}
	return names
}

// seen is a request as NDES saw it.
type seen struct {
	method, path, query, requestURI, host string
	header                                http.Header
	length                                int64
	transfer                              []string
	trailer                               http.Header
	getBody                               bool
	body                                  []byte
	original                              http.Request
	upstream                              string
}

// fakeNDES is next: it answers like NDES, or as a test says.
type fakeNDES struct {
	w      *world
	caps   string
	bundle []*x509.Certificate
	answer func(http.ResponseWriter, *http.Request, *inspector.Message) error // nil: a certificate
	ca     func(http.ResponseWriter, *http.Request) error                     // nil: caps and bundle

	mu   sync.Mutex
	seen []seen
}

func (n *fakeNDES) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	s := seen{
		method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, requestURI: r.RequestURI, host: r.Host,
		header: r.Header.Clone(), length: r.ContentLength, transfer: r.TransferEncoding, trailer: r.Trailer, getBody: r.GetBody != nil,
	}
	s.body, _ = io.ReadAll(r.Body)
	s.original, _ = r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		s.upstream, _ = repl.GetString("http.scep_gateway.upstream")
	}
	n.mu.Lock()
	n.seen = append(n.seen, s)
	n.mu.Unlock()
	q := must(url.ParseQuery(r.URL.RawQuery))
	if q.Get("operation") != "PKIOperation" {
		if n.ca != nil {
			return n.ca(w, r)
		}
		if q.Get("operation") == "GetCACaps" {
			_, err := io.WriteString(w, n.caps)
			return err
		}
		w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
		_, err := w.Write(bundleOf(n.bundle...))
		return err
	}
	raw := s.body
	if r.Method == http.MethodGet {
		raw = must(base64.StdEncoding.DecodeString(q.Get("message")))
	}
	m, err := inspector.ParseMessage(raw)
	if n.answer != nil {
		return n.answer(w, r, m)
	}
	if err != nil {
		return err
	}
	return writeCertRep(w, n.w.success(m))
}

// enrolments gives the PKIOperations that NDES saw.
func (n *fakeNDES) enrolments() []seen {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []seen
	for _, s := range n.seen {
		if must(url.ParseQuery(s.query)).Get("operation") == "PKIOperation" {
			out = append(out, s)
		}
	}
	return out
}

func (n *fakeNDES) count(operation string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, s := range n.seen {
		if must(url.ParseQuery(s.query)).Get("operation") == operation {
			count++
		}
	}
	return count
}

func writeCertRep(w http.ResponseWriter, raw []byte) error {
	w.Header().Set("Content-Type", mediaPKIMessage)
	_, err := w.Write(raw)
	return err
}

func bundleOf(certificates ...*x509.Certificate) []byte {
	var raw []byte
	for _, c := range certificates {
		raw = append(raw, c.Raw...)
	}
	return must(pkcs7.DegenerateCertificate(raw))
}

// certRep is an answer to be signed.
type certRep struct {
	status, failInfo string
	transactionID    string
	nonce            []byte
	content          []byte
	signer           *x509.Certificate
	key              *rsa.PrivateKey
	hresult          string
}

func (c certRep) sign() []byte {
	sd := must(pkcs7.NewSignedData(c.content))
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	oid := func(last int) asn1.ObjectIdentifier {
		return asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, last}
	}
	attributes := []pkcs7.Attribute{
		{Type: oid(2), Value: "3"}, {Type: oid(3), Value: c.status}, {Type: oid(7), Value: c.transactionID},
		{Type: oid(5), Value: make([]byte, 16)}, {Type: oid(6), Value: c.nonce},
	}
	if c.failInfo != "" {
		attributes = append(attributes, pkcs7.Attribute{Type: oid(4), Value: c.failInfo})
	}
	if c.hresult != "" {
		attributes = append(attributes, pkcs7.Attribute{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 33}, Value: c.hresult})
	}
	if err := sd.AddSigner(c.signer, c.key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: attributes}); err != nil {
		panic(err)
	}
	return must(sd.Finish())
}

// success is a SUCCESS with a certificate for the message's key.
func (w *world) success(m *inspector.Message) []byte {
	return w.successBy(m, w.agent, agentKey())
}

func (w *world) successBy(m *inspector.Message, signer *x509.Certificate, key *rsa.PrivateKey) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: commonName("device"),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der := must(x509.CreateCertificate(rand.Reader, template, w.ca, m.Signer.PublicKey, siteCAKey()))
	device := must(x509.ParseCertificate(m.Signer.Raw))
	content := must(pkcs7.Encrypt(must(pkcs7.DegenerateCertificate(der)), []*x509.Certificate{device}))
	return certRep{status: "0", transactionID: m.TransactionID, nonce: m.SenderNonce, content: content, signer: signer, key: key}.sign()
}

func (w *world) failure(m *inspector.Message, hresult string) []byte {
	return certRep{status: "2", failInfo: "2", transactionID: m.TransactionID, nonce: m.SenderNonce, content: []byte{0}, signer: w.agent, key: agentKey(), hresult: hresult}.sign()
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

var errBroken = errors.New("broken")
