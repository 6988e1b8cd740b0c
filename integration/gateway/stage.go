package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/ndes"
)

// Stage is a simulator, a gateway in front of it and an MDM's token.
type Stage struct {
	*Gateway
	NDES    *ndes.Server
	NDESURL string
	Token   string
	Profile string

	server *http.Server
}

// SetUp puts a stage into c.Dir: the simulator's files, a client with every
// scope for profile, and the gateway, which knows c.Env and ExampleEnv.
func SetUp(ctx context.Context, c Config, server *ndes.Server, profile string) (_ *Stage, err error) {
	s := &Stage{NDES: server, Profile: profile}
	if s.server, s.NDESURL, err = Serve(server); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.server.Close()
		}
	}()
	if err := server.WriteFiles(c.Dir); err != nil {
		return nil, err
	}
	clients := filepath.Join(c.Dir, "clients.json")
	if s.Token, err = addClient(ctx, c.Binary, clients, profile); err != nil {
		return nil, err
	}
	env := ExampleEnv(c.Dir, s.NDESURL, clients)
	for k, v := range c.Env {
		env[k] = v
	}
	c.Env = env
	s.Gateway, err = Start(ctx, c)
	return s, err
}

// Serve puts a simulator on a free loopback port.
func Serve(s *ndes.Server) (*http.Server, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go h.Serve(l)
	return h, "http://" + l.Addr().String(), nil
}

// addClient makes the MDM's token, as an operator does.
func addClient(ctx context.Context, binary, file, profile string) (string, error) {
	token, err := exec.CommandContext(ctx, binary, "scep", "client", "add", "--file", file, "--name", "mdm",
		"--profile", profile, "--scope", "register", "--scope", "read", "--scope", "revoke").Output()
	if err != nil {
		return "", fmt.Errorf("scepgate scep client add: %w", err)
	}
	return strings.TrimSpace(string(token)), nil
}

// Register posts an expectation and decodes the answer into out, if not nil.
func (s *Stage) Register(ctx context.Context, expectation, out any) error {
	_, err := s.Call(ctx, s.Token, http.MethodPost, "/v1/profiles/"+s.Profile+"/expectations", expectation, out)
	return err
}

// Close ends the gateway and the simulator.
func (s *Stage) Close() error {
	err := s.Stop(30 * time.Second)
	s.server.Close()
	return err
}
