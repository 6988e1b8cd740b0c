// Package ndes is a simulator of Microsoft's SCEP server, shaped after what
// public captures and documents say about it.
//
// It is credulous on purpose: like NDES it checks the challenge password and
// nothing else, so whatever name, extension or usage a request asks for it
// issues, in a real X.509 certificate. That makes it the witness of the tests:
// its issue log says what reached the CA. It is a test tool; it judges nothing
// and must never face a network.
//
// The one call is [New]; [Server.Handler] is the HTTP side.
package ndes

import (
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"sync"
	"time"
)

// PasswordMode says how the simulator checks challenges.
type PasswordMode int

// The modes of NDES: EnforcePassword=0, one-time passwords, UseSinglePassword=1.
const (
	PasswordOff PasswordMode = iota
	PasswordOneTime
	PasswordStatic
)

// Registry defaults of NDES.
const (
	passwordSlots    = 5
	passwordValidity = 60 * time.Minute
	retryCacheAge    = 20 * time.Minute
	maxQuery         = 65536
	maxBody          = 1 << 20
)

// DefaultCapabilities is what WS2012–2022 is believed to list; ModernCapabilities
// adds what strongSwan 5.9.8 insists on.
var (
	DefaultCapabilities = []string{"POSTPKIOperation", "Renewal", "SHA-512", "SHA-256", "SHA-1", "DES3"}
	ModernCapabilities  = []string{"POSTPKIOperation", "Renewal", "SHA-512", "SHA-384", "SHA-256", "SHA-1", "AES", "DES3", "SCEPStandard"}
)

// Config chooses the simulated server's settings. The zero value is a CA made
// now, EnforcePassword=0 and the default capability list.
type Config struct {
	Password       PasswordMode
	StaticPassword string
	Capabilities   []string // nil: DefaultCapabilities
	IncludeRoot    bool     // a two-tier PKI whose root stands in GetCACert as well
	OAEPReplies    bool     // key transport of replies to AES requests is RSAES-OAEP
	Pending        bool     // "CA manager approval": requests wait for Approve or Deny; Hold changes it
	Template       string   // the template's name that stands in certificates; empty: none does
	CADown         bool     // every submission fails with 0x800706ba
	PolicyModule   bool     // the bare page is 403 and NDESGenerateChallenge exists
	Now            func() time.Time
}

// Issue is one certificate that left the simulated CA.
type Issue struct {
	Certificate   *x509.Certificate
	SPKISHA256    [32]byte
	TransactionID string
	Template      string // signature encryption general_purpose
	Renewal       bool
}

// Request is one HTTP request as it arrived.
type Request struct {
	Method   string
	Path     string
	RawQuery string
	Header   http.Header
	Host     string
	Chunked  bool
	Body     []byte
}

// Server is one simulated NDES with its CA.
type Server struct {
	CA        *x509.Certificate // the issuing CA
	Root      *x509.Certificate // nil unless Config.IncludeRoot
	Exchange  *x509.Certificate // "CEP Encryption": what devices encrypt to
	Signing   *x509.Certificate // "Enrollment Agent": what signs CertReps
	caKey     *rsa.PrivateKey
	exchange  *rsa.PrivateKey
	signing   *rsa.PrivateKey
	now       func() time.Time
	config    Config
	passwords *passwordCache

	mu       sync.Mutex
	issued   []Issue
	requests []Request
	cache    map[string]cachedIssue  // retry cache by transactionID and key
	pending  map[string]*pendingCase // by transactionID
	hold     bool                    // requests that are new wait
	serial   int64
}

type cachedIssue struct {
	certificate *x509.Certificate
	at          time.Time
}

// New makes a server with fresh keys.
func New(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Capabilities == nil {
		c.Capabilities = DefaultCapabilities
	}
	s := &Server{now: c.Now, config: c, passwords: &passwordCache{now: c.Now}, cache: map[string]cachedIssue{}, pending: map[string]*pendingCase{}, hold: c.Pending, serial: 100}
	if err := s.makePKI(); err != nil {
		return nil, err
	}
	return s, nil
}

// Twin is a server with the same keys and settings and a state of its own: what
// the same message does when it is sent somewhere else.
func (s *Server) Twin() *Server {
	return &Server{CA: s.CA, Root: s.Root, Exchange: s.Exchange, Signing: s.Signing, caKey: s.caKey, exchange: s.exchange, signing: s.signing,
		now: s.now, config: s.config, passwords: &passwordCache{now: s.now}, cache: map[string]cachedIssue{}, pending: map[string]*pendingCase{}, hold: s.config.Pending, serial: 100}
}

// ExchangeKey is the private key of Exchange, which an operator exports for the gateway.
func (s *Server) ExchangeKey() *rsa.PrivateKey { return s.exchange }

// SigningKey is the private key of Signing. It never leaves a real NDES; tests forge with it.
func (s *Server) SigningKey() *rsa.PrivateKey { return s.signing }

// CAKey is the private key of CA. It never leaves a real CA; tests certify with it.
func (s *Server) CAKey() *rsa.PrivateKey { return s.caKey }

// Issued returns the issue log so far.
func (s *Server) Issued() []Issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Issue(nil), s.issued...)
}

// Requests returns every HTTP request so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// PKIOperations counts the requests so far that carried a message.
func (s *Server) PKIOperations() int {
	n := 0
	for _, r := range s.Requests() {
		if operation(r.RawQuery) == "PKIOperation" {
			n++
		}
	}
	return n
}

// NewPassword makes a one-time password as the admin page does; false if the
// cache is full.
func (s *Server) NewPassword() (string, bool) { return s.passwords.issue() }
