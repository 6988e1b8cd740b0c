package gate

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
)

const (
	judgeChallenge = "8CE317021F690069"
	judgeSID       = "S-1-5-21-1-2-3-1104"
	oidClientAuth  = "1.3.6.1.5.5.7.3.2"
)

// clock is a clock that only moves when it is told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// spy counts what the gate asks of the store, and breaks it where it is told to.
type spy struct {
	store.Store
	mu                     sync.Mutex
	finds, gets            int
	claims, mismatches     int
	settles                []store.Settlement
	lookups                []store.Lookup
	onFind, onClaim, onGet func(context.Context) error
	onMismatch, onSettle   func(context.Context) error
	answer                 func(*store.Found)
}

func (s *spy) hook(ctx context.Context, n *int, f func(context.Context) error) error {
	s.mu.Lock()
	*n++
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx)
}

func (s *spy) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	s.mu.Lock()
	s.lookups = append(s.lookups, l)
	s.mu.Unlock()
	if err := s.hook(ctx, &s.finds, s.onFind); err != nil {
		return store.Found{}, err
	}
	f, err := s.Store.Find(ctx, l)
	if s.answer != nil {
		s.answer(&f)
	}
	return f, err
}

func (s *spy) Get(ctx context.Context, profile, id string) (store.Expectation, error) {
	if err := s.hook(ctx, &s.gets, s.onGet); err != nil {
		return store.Expectation{}, err
	}
	return s.Store.Get(ctx, profile, id)
}

func (s *spy) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	if err := s.hook(ctx, &s.claims, s.onClaim); err != nil {
		return store.Expectation{}, store.Use{}, err
	}
	return s.Store.Claim(ctx, c)
}

func (s *spy) Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev store.Event) (store.Expectation, bool, error) {
	if err := s.hook(ctx, &s.mismatches, s.onMismatch); err != nil {
		return store.Expectation{}, false, err
	}
	return s.Store.Mismatch(ctx, profile, id, identity, max, ev)
}

func (s *spy) Settle(ctx context.Context, st store.Settlement) (store.Expectation, error) {
	s.mu.Lock()
	s.settles = append(s.settles, st)
	s.mu.Unlock()
	var n int
	if err := s.hook(ctx, &n, s.onSettle); err != nil {
		return store.Expectation{}, err
	}
	return s.Store.Settle(ctx, st)
}

// house is a gate with its store, in which one expectation is registered.
type house struct {
	t       *testing.T
	clock   *clock
	store   *spy
	gate    *Gate
	profile Profile
	id      string
}

func rawName(t testing.TB, cn string) []byte {
	t.Helper()
	raw, err := asn1.Marshal(pkix.Name{CommonName: cn}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// publicKey is some key of 2048 bits, another for every n. Nothing in this
// package computes with it.
func publicKey(n int) *rsa.PublicKey {
	m := new(big.Int).Lsh(big.NewInt(1), 2047)
	return &rsa.PublicKey{N: m.Add(m, big.NewInt(int64(2*n+1))), E: 65537}
}

func spkiOf(n int) []byte { return binary.BigEndian.AppendUint32([]byte("spki"), uint32(n)) }

const (
	caKeyNumber = 1_000_000 + iota
	raKeyNumber
)

func judgeProfile(t testing.TB) Profile {
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Example CA"}, RawSubject: rawName(t, "Example CA"),
		PublicKey: publicKey(caKeyNumber), PublicKeyAlgorithm: x509.RSA,
	}
	ra := &x509.Certificate{
		Subject: pkix.Name{CommonName: "NDES1-MSCEP-RA"}, RawSubject: rawName(t, "NDES1-MSCEP-RA"),
		PublicKey: publicKey(raKeyNumber), PublicKeyAlgorithm: x509.RSA,
	}
	return Profile{
		Name: "wifi", Source: SourceGateway, DefaultTTL: 24 * time.Hour,
		CAs: []*x509.Certificate{ca}, RAs: []*x509.Certificate{ra},
		Templates: Templates{
			Signature:      &Template{Name: "WiFiSign"},
			GeneralPurpose: &Template{Name: "WiFiClient", OID: "1.3.6.1.4.1.311.21.8.1"},
		},
		KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{oidClientAuth},
		Digests: []string{"sha1", "sha256", "sha384", "sha512"}, Ciphers: []string{"des3", "aes128", "aes256"},
		MinRSABits: 2048, AllowPatterns: true, MaxMismatches: 3, RetryWindow: 20 * time.Minute,
		Constraints: func(owner string) (*Constraints, bool) { return nil, owner == "jamf" },
	}
}

func judgeHasher(t testing.TB) *Hasher {
	t.Helper()
	h, err := NewHasher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func judgeContent() store.Content {
	return store.Content{
		Subject: [][]store.Value{
			{{Type: "2.5.4.3", Match: "exact", Value: "C02XK1 WIFI"}},
			{{Type: "2.5.4.10", Match: "exact", Value: "Example Corp"}},
		},
		SAN: []store.SANRule{
			{Type: "dns", Match: "exact", Value: "c02xk1.example.com", Min: 1, Max: 1},
			{Type: "upn", Match: "exact", Value: "ann@example.com", Min: 1, Max: 1},
		},
		SID:                 judgeSID,
		CertificateTemplate: "WiFiClient",
		KeyUsage:            []string{"digitalSignature", "keyEncipherment"},
		ExtKeyUsage:         []string{oidClientAuth},
		Key:                 store.KeyRule{MinBits: 2048},
	}
}

// newHouse registers one expectation, changed by change.
func newHouse(t *testing.T, profile func(*Profile), change func(*store.Expectation)) *house {
	t.Helper()
	h := &house{t: t, clock: &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, profile: judgeProfile(t)}
	if profile != nil {
		profile(&h.profile)
	}
	mem := memstore.New(h.clock.now)
	t.Cleanup(func() { _ = mem.Close() })
	h.store = &spy{Store: mem}
	h.rebuild(h.profile)

	e := store.Expectation{
		ID: "exp_00000000000000000000000001", Profile: h.profile.Name, ExternalID: "jamf:4711", Owner: "jamf",
		Request: []byte("{}"), Content: judgeContent(), Labels: map[string]string{"device": "C02XK1"},
		MaxUses: 1, CreatedAt: h.clock.now(), ExpiresAt: h.clock.now().Add(24 * time.Hour),
	}
	if change != nil {
		change(&e)
	}
	hasher := judgeHasher(t)
	if h.profile.Source == SourceNDESStatic {
		id, ok := expectedIdentity(e.Content)
		if !ok {
			t.Fatal("not exact")
		}
		e.IdentityHash = hasher.Identity(h.profile.Name, id.canonical())
	} else {
		e.ChallengeHash = hasher.Challenge(h.profile.Name, judgeChallenge)
	}
	stored, err := mem.Register(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	h.id = stored.ID
	return h
}

func (h *house) rebuild(p Profile, matchers ...Matcher) {
	h.t.Helper()
	g, err := New(p, judgeHasher(h.t), matchers, h.clock.now)
	if err != nil {
		h.t.Fatal(err)
	}
	h.gate, h.profile = g, p
}

func (h *house) judge(r Request) Decision {
	h.t.Helper()
	return h.gate.Judge(h.t.Context(), h.store, r)
}

func (h *house) expectation() store.Expectation {
	h.t.Helper()
	e, err := h.store.Store.Get(h.t.Context(), h.profile.Name, h.id)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// enrol lets a compliant device through.
func (h *house) enrol(r Request) Decision {
	h.t.Helper()
	d := h.judge(r)
	if !d.Forward || d.Reason != OK {
		h.t.Fatalf("compliant request refused: %+v", d)
	}
	return d
}

func (h *house) settle(d Decision, rep *inspector.CertRep) Settled {
	h.t.Helper()
	s := h.gate.Settle(h.t.Context(), h.store, d, Forwarded{Sent: true, Rep: rep})
	if s.Err != nil {
		h.t.Fatal(s.Err)
	}
	return s
}

func rep(status string) *inspector.CertRep { return &inspector.CertRep{PKIStatus: status} }

// compliant is a request that agrees with judgeContent in everything, by key n.
func compliant(n int) Request {
	nonce := binary.BigEndian.AppendUint64([]byte("nonce678"), uint64(n))
	return Request{
		Message: &inspector.Message{
			Raw: []byte("cms"), MessageType: "19", TransactionID: "TX" + big.NewInt(int64(n)).String(), SenderNonce: nonce,
			Digest: "sha256", Certificates: 1,
			Signer: &inspector.Signer{SPKI: spkiOf(n), PublicKey: publicKey(n), SelfSigned: true, Issuer: []byte{0x30, 0}, Subject: []byte{0x30, 0}},
		},
		Opened: &inspector.Opened{
			RA: "ndes1", Cipher: "aes128", KeyTransport: "pkcs1v15",
			CSR: &inspector.CSR{
				Subject: []inspector.RDN{
					{{Type: "2.5.4.10", Value: "Example Corp", Tag: 12}},
					{{Type: "2.5.4.3", Value: "C02XK1 WIFI", Tag: 12}},
				},
				SPKI: spkiOf(n), PublicKey: publicKey(n), SignatureDigest: "sha256",
				HasChallenge: true, Challenge: judgeChallenge,
				SAN: []inspector.GeneralName{{Type: "dns", Value: "C02XK1.example.com"}, {Type: "upn", Value: "ann@example.com"}},
				SID: judgeSID, HasKeyUsage: true, KeyUsage: digitalSignature | keyEncipherment,
				HasExtKeyUsage: true, ExtKeyUsage: []string{oidClientAuth},
			},
		},
		ClientIP: "192.0.2.1", UserAgent: "profiled/1.0",
	}
}

// with changes a compliant request of key n.
func with(n int, change func(m *inspector.Message, o *inspector.Opened, c *inspector.CSR)) Request {
	r := compliant(n)
	change(r.Message, r.Opened, r.Opened.CSR)
	return r
}

func reasonsOf(findings []Finding) []Reason {
	var out []Reason
	for _, f := range findings {
		out = append(out, f.Reason)
	}
	return slices.Clip(out)
}
