// Package intunefake plays what a SCEP server sees of Microsoft: the token
// endpoint, Microsoft Graph's list of services, and Intune's SCEP validation
// API. It is for tests, on loopback, and trusts everybody who can reach it.
//
// The one call is [New]. A challenge is good for what [Server.Promise] said.
package intunefake

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What a client must bring.
const (
	Tenant       = "contoso.onmicrosoft.com"
	ClientID     = "11111111-2222-3333-4444-555555555555"
	ClientSecret = "the secret of the app registration"
)

const (
	graphScope  = "/.default" // behind the server's own address
	intuneScope = "https://api.manage.microsoft.com//.default"
)

// Server is a Microsoft of its own.
type Server struct {
	*httptest.Server

	mu        sync.Mutex
	promised  map[string]promise
	calls     []Call
	tokens    map[string]string // scope by token
	granted   int
	listed    int
	instead   func(w http.ResponseWriter, r *http.Request) bool
	revisions int // of the service's address
}

type promise struct {
	code, cn string
	dns      []string
}

// Call is one that reached an action of the service.
type Call struct {
	Action           string // validateRequest, failureNotification
	TransactionID    string `json:"transactionId"`
	Request          []byte `json:"certificateRequest"`
	HResult          int64  `json:"hResult"`
	ErrorDescription string `json:"errorDescription"`
	CallerInfo       string `json:"callerInfo"`
	RequestID        string `json:"-"`
	Code             string `json:"-"` // what was answered
}

// New starts a server, and ends it with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{promised: make(map[string]promise), tokens: make(map[string]string)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /"+Tenant+"/oauth2/v2.0/token", s.token)
	mux.HandleFunc("GET /v1.0/servicePrincipals/{app}/endpoints", s.endpoints)
	mux.HandleFunc("POST /{revision}/ScepActions/{action}", s.act)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		instead := s.instead
		s.mu.Unlock()
		if instead == nil || !instead(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// Config is the matcher's `config` block for this server.
func (s *Server) Config() map[string]string {
	return map[string]string{
		"tenant": Tenant, "client_id": ClientID, "client_secret": ClientSecret,
		"login_url": s.URL, "graph_url": s.URL,
	}
}

// Promise makes challenge good for this common name and these DNS names.
func (s *Server) Promise(challenge, cn string, dns ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised[challenge] = promise{"Success", cn, dns}
}

// Refuse makes challenge be answered with code, whatever is asked for.
func (s *Server) Refuse(challenge, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised[challenge] = promise{code: code}
}

// Instead lets f answer what it returns true for; nil ends that.
func (s *Server) Instead(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = f
}

// Move gives the service another address, and forgets the old one.
func (s *Server) Move() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revisions++
}

// Revoke ends all tokens.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Calls are those of an action so far.
func (s *Server) Calls(action string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.calls), func(c Call) bool { return c.Action != action })
}

// Lookups counts the tokens that were granted, and how often the list of
// services was read.
func (s *Server) Lookups() (tokens, lists int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.granted, s.listed
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	scope := r.PostFormValue("scope")
	if r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("client_id") != ClientID || r.PostFormValue("client_secret") != ClientSecret {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
		return
	}
	if scope != intuneScope && scope != s.URL+graphScope {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_scope"}`)
		return
	}
	s.granted++
	token := fmt.Sprintf("token-%d", s.granted)
	s.tokens[token] = scope
	answer(w, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": token})
}

func (s *Server) endpoints(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holds(r, s.URL+graphScope) {
		http.Error(w, "{}", http.StatusUnauthorized)
		return
	}
	if r.PathValue("app") != "appId=0000000a-0000-0000-c000-000000000000" {
		http.NotFound(w, r)
		return
	}
	s.listed++
	answer(w, map[string]any{"value": []map[string]string{
		{"providerName": "PkiConnectorFEService", "uri": "https://example.invalid/other"},
		{"providerName": "ScepRequestValidationFEService", "uri": fmt.Sprintf("%s/%s", s.URL, s.revision())},
	}})
}

func (s *Server) revision() string { return fmt.Sprintf("service-%d", s.revisions) }

func (s *Server) holds(r *http.Request, scope string) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && s.tokens[token] == scope
}

func (s *Server) act(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	action := r.PathValue("action")
	switch {
	case r.PathValue("revision") != s.revision():
		http.NotFound(w, r)
		return
	case !s.holds(r, intuneScope):
		http.Error(w, "{}", http.StatusUnauthorized)
		return
	case r.Header.Get("api-version") != "2018-02-20" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("client-request-id") == "":
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return
	}
	var call struct{ Request, Notification *Call }
	if json.Unmarshal(body, &call) != nil || (call.Request == nil) == (call.Notification == nil) {
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	var c Call
	switch {
	case action == "validateRequest" && call.Request != nil:
		c = *call.Request
		c.Code = s.judge(c.Request)
	case action == "failureNotification" && call.Notification != nil:
		c = *call.Notification
		c.Code = "Success"
	default:
		http.NotFound(w, r)
		return
	}
	c.Action, c.RequestID = action, r.Header.Get("client-request-id")
	s.calls = append(s.calls, c)
	answer(w, map[string]string{"code": c.Code, "errorDescription": "as the fake says"})
}

// judge finds the challenge by its bytes.
func (s *Server) judge(request []byte) string {
	for challenge, p := range s.promised {
		if !bytes.Contains(request, []byte(challenge)) {
			continue
		}
		if p.code != "Success" {
			return p.code
		}
		csr, err := x509.ParseCertificateRequest(request)
		switch {
		case err != nil:
			return "CertificateRequestDecodingFailed"
		case csr.Subject.CommonName != p.cn:
			return "SubjectNameMismatch"
		case !slices.Equal(csr.DNSNames, p.dns):
			return "SubjectAltNameMismatch"
		}
		return p.code
	}
	return "ChallengeDecryptionError"
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}
