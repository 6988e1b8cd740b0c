package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// stage is everything that runs: the gateway with NDES behind it, and NDES's
// twin with the same keys, which is reached directly.
type stage struct {
	*gateway.Stage
	dir    string
	direct string // base URL of the twin
	close  []func()
}

func setUp(ctx context.Context, out io.Writer) (_ *stage, err error) {
	s := &stage{}
	if s.dir, err = os.MkdirTemp("", "scepgate-demo-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.tearDown()
		}
	}()
	s.close = append(s.close, func() { os.RemoveAll(s.dir) })
	// EnforcePassword=0 and a policy module: the worst NDES to have behind you.
	behind, err := ndes.New(ndes.Config{PolicyModule: true})
	if err != nil {
		return nil, err
	}
	twin, direct, err := gateway.Serve(behind.Twin())
	if err != nil {
		return nil, err
	}
	s.direct = direct
	s.close = append(s.close, func() { twin.Close() })

	fmt.Fprintln(out, "building scepgate …")
	binary, err := gateway.Build(s.dir)
	if err != nil {
		return nil, err
	}
	if s.Stage, err = gateway.SetUp(ctx, gateway.Config{Binary: binary, Dir: s.dir}, behind, "wifi"); err != nil {
		return nil, err
	}
	s.close = append(s.close, func() {
		if err := s.Stage.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "demo: stopping the gateway:", err)
		}
	})
	fmt.Fprintf(out, "NDES simulator %s, gateway %s (devices) and %s (MDMs)\n\n", s.NDESURL, s.Devices, s.API)
	return s, nil
}

// tearDown ends in the reverse order what was begun.
func (s *stage) tearDown() {
	for _, f := range slices.Backward(s.close) {
		f()
	}
}

// explain prints what to try next.
func (s *stage) explain(out io.Writer) {
	root := filepath.Join(s.dir, "caddy", "pki", "authorities", "local", "root.crt")
	fmt.Fprintf(out, `
Everything stays up until you interrupt.
  devices   %[1]s/certsrv/mscep/mscep.dll
  MDMs      %[2]s  (CA certificate %[3]s)
  NDES      %[4]s/certsrv/mscep/mscep.dll  (reached directly, as nobody should)
  token     %[5]s
  folder    %[6]s

Register a device:
  curl --cacert %[3]s -H 'Authorization: Bearer %[5]s' -H 'Content-Type: application/json' \
    %[2]s/v1/profiles/wifi/expectations -d '{"subject":"CN=printer1,O=Example Corp"}'

Enrol it with the challenge from the answer:
  printf %%s CHALLENGE > %[6]s/challenge
  %[6]s/scepgate enroll --url %[1]s/certsrv/mscep/mscep.dll --subject 'CN=printer1,O=Example Corp' --challenge-file %[6]s/challenge

Then with another name, another key, or twice.
`, s.Devices, s.API, root, s.NDESURL, s.Token, s.dir)
}
