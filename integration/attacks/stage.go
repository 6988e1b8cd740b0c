package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/integration/wire"
)

// canary stands in every challenge of the suite and must never be seen again.
const canary = "CANARY"

// StaticPassword is the NDES password of profile static.
const staticPassword = canary + "-static-4711"

// device is a key, and the certificate that it signs with.
type device struct {
	Key        *rsa.PrivateKey
	SelfSigned []byte
}

// stage is the real binary, with a profile for each kind of challenge, in front
// of an upstream that records.
type stage struct {
	*gateway.Gateway
	NDES     *ndes.Server
	Up       *upstream
	Devices  map[string]string // base URLs, by profile
	Token    string            // may do everything, everywhere
	Tenant   string            // vpn and renewreg only, with constraints
	RA       *x509.Certificate // what honest devices encrypt to
	Keys     []*device         // used in turn: making one costs more than most vectors
	Dir      string
	Binary   string
	Config   string // the Caddyfile's text
	Client   *http.Client
	Remote   bool // a deployed gateway: nothing can be registered or seen
	baseline map[string]int

	reference []byte // the first refusal, without what may differ
	server    *http.Server
}

var profiles = []string{"wifi", "vpn", "onetime", "static", "patterns", "renew", "renewreg", "early", "retry"}

// staleProfile has a CRL that has ended: nobody enrols there.
const staleProfile = "stale"

// revokedSerial is the one certificate that the CRL of profile renew lists.
const revokedSerial = 0xdead

// newStage starts everything in dir with the given binary.
func newStage(ctx context.Context, binary, dir string) (_ *stage, err error) {
	s := &stage{Dir: dir, Binary: binary, Devices: map[string]string{}, Client: newClient()}
	if s.NDES, err = ndes.New(ndes.Config{}); err != nil {
		return nil, err
	}
	s.RA = s.NDES.Exchange
	s.Up = &upstream{ndes: s.NDES.Handler()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.server = &http.Server{Handler: s.Up, ReadHeaderTimeout: 10 * time.Second}
	go s.server.Serve(l)
	defer func() {
		if err != nil {
			s.server.Close()
		}
	}()
	if err := s.NDES.WriteFiles(dir); err != nil {
		return nil, err
	}
	clients := filepath.Join(dir, "clients.json")
	if err := s.writeClients(clients); err != nil {
		return nil, err
	}
	password := filepath.Join(dir, "static.password")
	if err := os.WriteFile(password, []byte(staticPassword), 0o600); err != nil {
		return nil, err
	}
	env := gateway.ExampleEnv(dir, "http://"+l.Addr().String(), clients)
	env["STATIC_PASSWORD"] = password
	if env["RENEW_CRL"], err = s.writeCRL(dir, "renew.crl", time.Now().Add(24*time.Hour)); err != nil {
		return nil, err
	}
	if env["STALE_CRL"], err = s.writeCRL(dir, "stale.crl", time.Now().Add(-time.Hour)); err != nil {
		return nil, err
	}
	for _, profile := range append(profiles[1:len(profiles):len(profiles)], staleProfile) {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(address)
		env[strings.ToUpper(profile)+"_PORT"] = port
		s.Devices[profile] = "http://" + address
	}
	root, err := gateway.Root()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(root, "integration", "attacks", "testdata", "attacks.Caddyfile")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s.Config = string(text)
	if s.Gateway, err = gateway.Start(ctx, gateway.Config{Binary: binary, Dir: dir, Caddyfile: file, Env: env}); err != nil {
		return nil, err
	}
	s.Devices["wifi"] = s.Gateway.Devices
	if err := s.makeKeys(4); err != nil {
		return nil, err
	}
	return s, nil
}

// newRemoteStage aims at a gateway that somebody else runs.
func newRemoteStage(base string, ra *x509.Certificate) (*stage, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("--url %q is no base URL such as http://scep.example.com:8080", base)
	}
	s := &stage{Remote: true, RA: ra, Client: newClient(), Devices: map[string]string{"wifi": u.Scheme + "://" + u.Host}}
	return s, s.makeKeys(2)
}

func newClient() *http.Client {
	return &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2},
	}
}

func (s *stage) makeKeys(n int) error {
	for range n {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		s.Keys = append(s.Keys, &device{key, wire.SelfSigned("SCEP Protocol Certificate", key)})
	}
	return nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// writeCRL lets the CA revoke one certificate, until the next update.
func (s *stage) writeCRL(dir, name string, nextUpdate time.Time) (file string, err error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: nextUpdate.Add(-48 * time.Hour), NextUpdate: nextUpdate,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(revokedSerial), RevocationTime: nextUpdate.Add(-49 * time.Hour)}},
	}, s.NDES.CA, s.NDES.CAKey())
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, name)
	return file, os.WriteFile(file, der, 0o600)
}

// writeClients makes an MDM that may do everything, and a tenant that may not.
func (s *stage) writeClients(file string) error {
	s.Token, s.Tenant = "scg_"+rand.Text()+rand.Text(), "scg_"+rand.Text()+rand.Text()
	hash := func(token string) []string {
		sum := sha256.Sum256([]byte(token))
		return []string{hex.EncodeToString(sum[:])}
	}
	text, err := json.Marshal([]map[string]any{
		{"name": "mdm", "token_sha256": hash(s.Token), "profiles": append(profiles[:len(profiles):len(profiles)], staleProfile), "scopes": []string{"register", "read", "revoke", "release"}, "sees": "all"},
		{
			"name": "tenant", "token_sha256": hash(s.Tenant), "profiles": []string{"vpn", "renewreg"}, "scopes": []string{"register", "read"},
			"constraints": map[string]any{"subject": map[string]any{"O": []string{"Tenant Ltd"}}, "dns_suffixes": []string{"tenant.example"}},
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func (s *stage) close() error {
	if s.Remote {
		return nil
	}
	err := s.Stop(30 * time.Second)
	s.server.Close()
	return err
}
