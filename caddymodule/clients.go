package caddymodule

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scepgate/scepgate/gate"
)

// What a client may do. A route names the one it needs.
const (
	scopeRegister = "register"
	scopeRead     = "read"
	scopeRevoke   = "revoke"
	scopeRelease  = "release"
)

var knownScopes = []string{scopeRegister, scopeRead, scopeRevoke, scopeRelease}

// Whose expectations a client sees.
const (
	seesOwn = "own"
	seesAll = "all"
)

const (
	maxToken = 512
	// maxClientHashes per list and client. Two are what a rotation needs.
	maxClientHashes = 8
	maxClientsFile  = maxFileSize // what the watcher of files reads
)

var clientNamePattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// clientRecord is one entry of the clients file.
type clientRecord struct {
	Name                  string            `json:"name"`
	TokenSHA256           []string          `json:"token_sha256"`
	CertificateSPKISHA256 []string          `json:"certificate_spki_sha256"`
	Profiles              []string          `json:"profiles"`
	Scopes                []string          `json:"scopes"`
	Sees                  *string           `json:"sees"`
	NotAfter              *time.Time        `json:"not_after"`
	Constraints           *gate.Constraints `json:"constraints"`
}

// client is one caller of the API as configured. It is never modified.
type client struct {
	name        string
	tokens      [][sha256.Size]byte
	spkis       [][sha256.Size]byte
	profiles    []string
	scopes      []string
	seesAll     bool
	notAfter    time.Time // zero: none
	constraints *gate.Constraints
}

func (c *client) may(scope string) bool       { return slices.Contains(c.scopes, scope) }
func (c *client) mayUse(profile string) bool  { return slices.Contains(c.profiles, profile) }
func (c *client) seesOwner(owner string) bool { return c.seesAll || owner == c.name }
func (c *client) expiredAt(now time.Time) bool {
	return !c.notAfter.IsZero() && !now.Before(c.notAfter)
}
func (c *client) violations(p gate.Prepared) []gate.Problem {
	if c.constraints == nil {
		return nil
	}
	return c.constraints.Violations(p.Expectation)
}

// clientSet is the content of one clients file. It is swapped as a whole.
type clientSet struct {
	clients []*client
	byName  map[string]*client
}

// byToken finds the client of a bearer token. It compares with every hash of
// every client, in constant time each and without an early exit, so that time
// says nothing about how close a guess was.
func (s *clientSet) byToken(token string, now time.Time) *client {
	if token == "" || len(token) > maxToken {
		return nil
	}
	return s.match(sha256.Sum256([]byte(token)), func(c *client) [][sha256.Size]byte { return c.tokens }, now)
}

// byCertificate finds the client of a verified TLS certificate by the SHA-256
// of its SubjectPublicKeyInfo.
func (s *clientSet) byCertificate(spki []byte, now time.Time) *client {
	return s.match(sha256.Sum256(spki), func(c *client) [][sha256.Size]byte { return c.spkis }, now)
}

func (s *clientSet) match(sum [sha256.Size]byte, hashes func(*client) [][sha256.Size]byte, now time.Time) *client {
	var found *client
	for _, c := range s.clients {
		for _, h := range hashes(c) {
			if subtle.ConstantTimeCompare(h[:], sum[:]) == 1 {
				found = c
			}
		}
	}
	if found != nil && found.expiredAt(now) {
		return nil
	}
	return found
}

// parseClients reads the content of a clients file. One error refuses it whole.
func parseClients(data []byte, profileExists func(string) bool) (*clientSet, error) {
	var records []clientRecord
	if problems := decodeStrict(data, &records); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %s", orRoot(problems[0].Pointer), problems[0].Detail)
	}
	if len(records) == 0 {
		// An API without authentication is not offered, and neither is one
		// that nobody can call: the second is the first one misspelt.
		return nil, errors.New("names no client: an API without authentication is refused")
	}
	set := &clientSet{byName: make(map[string]*client, len(records))}
	owners := make(map[[sha256.Size]byte]string)
	for i, record := range records {
		c, err := newClient(record, profileExists)
		if err != nil {
			if clientNamePattern.MatchString(record.Name) {
				return nil, fmt.Errorf("client %s: %w", record.Name, err)
			}
			return nil, fmt.Errorf("client %d: %w", i+1, err)
		}
		if set.byName[c.name] != nil {
			return nil, fmt.Errorf("client %s: is there twice", c.name)
		}
		for _, h := range slices.Concat(c.tokens, c.spkis) {
			if owner, taken := owners[h]; taken {
				return nil, fmt.Errorf("client %s: has a hash that client %s has", c.name, owner)
			}
			owners[h] = c.name
		}
		set.clients = append(set.clients, c)
		set.byName[c.name] = c
	}
	return set, nil
}

func newClient(r clientRecord, profileExists func(string) bool) (*client, error) {
	if !clientNamePattern.MatchString(r.Name) {
		return nil, errors.New("name: must be 1 to 64 letters, digits, '_', '.' or '-'")
	}
	c := &client{name: r.Name, profiles: r.Profiles, scopes: r.Scopes, constraints: r.Constraints}
	var err error
	if c.tokens, err = parseHashes(r.TokenSHA256); err != nil {
		return nil, fmt.Errorf("token_sha256: %w", err)
	}
	if c.spkis, err = parseHashes(r.CertificateSPKISHA256); err != nil {
		return nil, fmt.Errorf("certificate_spki_sha256: %w", err)
	}
	if len(c.tokens)+len(c.spkis) == 0 {
		return nil, errors.New("has neither token_sha256 nor certificate_spki_sha256: nobody could be it")
	}
	if len(r.Profiles) == 0 {
		return nil, errors.New("profiles: is empty")
	}
	for _, name := range r.Profiles {
		if !profileExists(name) {
			return nil, fmt.Errorf("profiles: there is no profile %q", logText(name))
		}
	}
	if len(r.Scopes) == 0 {
		return nil, errors.New("scopes: is empty")
	}
	for _, scope := range r.Scopes {
		if !slices.Contains(knownScopes, scope) {
			return nil, fmt.Errorf("scopes: %q is not one of register, read, revoke, release", logText(scope))
		}
	}
	if r.Sees != nil {
		switch *r.Sees {
		case seesOwn:
		case seesAll:
			c.seesAll = true
		default:
			return nil, errors.New("sees: must be own or all")
		}
	}
	if r.NotAfter != nil {
		c.notAfter = r.NotAfter.UTC()
	}
	if r.Constraints != nil {
		if err := r.Constraints.Validate(); err != nil {
			return nil, fmt.Errorf("constraints: %w", err)
		}
	}
	return c, nil
}

func parseHashes(texts []string) ([][sha256.Size]byte, error) {
	if len(texts) > maxClientHashes {
		return nil, fmt.Errorf("more than %d", maxClientHashes)
	}
	var hashes [][sha256.Size]byte
	for _, text := range texts {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != sha256.Size {
			return nil, errors.New("must be SHA-256 in 64 hex digits") // not quoted: it may be the token itself
		}
		h := [sha256.Size]byte(b)
		if slices.Contains(hashes, h) {
			return nil, errors.New("has a hash twice")
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

func orRoot(pointer string) string {
	if pointer == "" {
		return "content"
	}
	return pointer
}

// readClientsFile reads a clients file, which holds what opens the API: it must
// be a regular file that nobody but its owner can read or write (contract §4.2:
// 0600). The opened file is judged, not the name. Windows has no such mode.
func readClientsFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("mode is %04o, must be 0600: others can read or write it", perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxClientsFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxClientsFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxClientsFile)
	}
	if len(data) == 0 {
		return nil, errors.New("is empty: an API without authentication is refused")
	}
	return data, nil
}

// clientsFile is one clients file at work. Handlers that name the same file share it.
type clientsFile struct {
	path string
	set  atomic.Pointer[clientSet]
}

// clientRegistry holds the clients files of one configuration. The zero value
// knows nobody, which refuses.
type clientRegistry struct {
	mu    sync.Mutex
	files []*clientsFile
}

// open reads the file at path and adds it; if it is there already, that one is
// returned. Client names are unique over all files: a name is what an
// expectation's owner is.
func (r *clientRegistry) open(path string, profileExists func(string) bool) (*clientsFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		if f.path == path {
			return f, nil
		}
	}
	set, err := loadClients(path, profileExists)
	if err != nil {
		return nil, err
	}
	f := &clientsFile{path: path}
	if err := r.swap(f, set); err != nil {
		return nil, err
	}
	r.files = append(r.files, f)
	return f, nil
}

// reload swaps in the file's new content if it is valid as a whole; otherwise
// the old content stays in force.
func (r *clientRegistry) reload(f *clientsFile, profileExists func(string) bool) error {
	set, err := loadClients(f.path, profileExists) // not under mu: a slow disk must not stop decisions
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.swap(f, set)
}

func loadClients(path string, profileExists func(string) bool) (*clientSet, error) {
	data, err := readClientsFile(path)
	if err != nil {
		return nil, err
	}
	return parseClients(data, profileExists)
}

// swap is called with mu held.
func (r *clientRegistry) swap(f *clientsFile, set *clientSet) error {
	for _, other := range r.files {
		if other == f {
			continue
		}
		for _, c := range other.set.Load().clients {
			if set.byName[c.name] != nil {
				return fmt.Errorf("client %s: is also in %s", c.name, other.path)
			}
		}
	}
	f.set.Store(set)
	return nil
}

// constraintsOf gives what the named client may register now. False means that
// there is no such client any more: what it registered is honoured no longer
// (contract §4.2).
func (r *clientRegistry) constraintsOf(owner string) (*gate.Constraints, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		if c := f.set.Load().byName[owner]; c != nil {
			return c.constraints, true
		}
	}
	return nil, false
}
