// Command attacks is the gateway's conformance suite: every attack of the
// threat catalogue, sent to the real binary, with the answer that it must get.
//
//	go run ./integration/attacks                             all of them, against a gateway of its own
//	go run ./integration/attacks --row C44                   one row
//	go run ./integration/attacks --url http://scep.example:8080 --ra-cert ra.pem
//
// It prints what was sent, what came back and what the operator saw, and exits
// 0 only if everything went as it must. The second form needs nothing registered
// and sends what any gateway must refuse whatever it knows; what its operator
// saw stands in that gateway's log.
//
// Rows that no request can show are listed in docs/threat-model.md.
package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
)

func main() {
	url := flag.String("url", "", "base URL of a deployed gateway, e.g. http://scep.example.com:8080")
	ra := flag.String("ra-cert", "", "with --url: its RA encryption certificate, PEM or DER")
	row := flag.String("row", "", "only this row, or rows that begin with it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, os.Stdout, *url, *ra, *row)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, url, ra, row string) (ok bool, err error) {
	var s *stage
	if url != "" || ra != "" {
		cert, err := readCertificate(ra)
		if err != nil {
			return false, fmt.Errorf("--ra-cert: %w", err)
		}
		if s, err = newRemoteStage(url, cert); err != nil {
			return false, err
		}
	} else {
		dir, err := os.MkdirTemp("", "scepgate-attacks-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
		fmt.Fprintln(os.Stderr, "building scepgate …")
		binary, err := gateway.Build(dir)
		if err != nil {
			return false, err
		}
		start, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if s, err = newStage(start, binary, dir); err != nil {
			return false, err
		}
		defer s.close()
		if err := s.settle(); err != nil {
			return false, err
		}
	}
	r := report{out: out}
	r.head(s)
	n := 0
	for i, v := range vectors() {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if !strings.HasPrefix(v.row, row) || s.Remote && !v.remote() {
			continue
		}
		r.vector(s.play(&v, i))
		n++
	}
	if n == 0 {
		return false, fmt.Errorf("there is no row %q", row)
	}
	if !s.Remote {
		r.aftermath(s.aftermath(ctx))
	}
	return r.foot(), nil
}

func readCertificate(file string) (*x509.Certificate, error) {
	if file == "" {
		return nil, errors.New("--url and --ra-cert go together")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	return x509.ParseCertificate(b)
}
