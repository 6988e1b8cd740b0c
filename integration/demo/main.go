// Command demo shows the gateway at work: the NDES simulator, the real binary
// with Caddyfile.example, one honest device, and a row of attackers. It exits 0
// only if every row went as it must.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running until interrupted, and print what to try")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

// limit bounds the demonstration, the build of the binary included.
const limit = 15 * time.Minute

func run(ctx context.Context, out io.Writer, keep bool) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := setUp(bounded, out)
	if err != nil {
		return err
	}
	defer s.tearDown()
	rows, err := s.play(bounded)
	if err != nil {
		return err
	}
	failed := printTable(out, rows)
	if keep {
		s.explain(out)
		<-ctx.Done()
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d rows did not go as they must", failed, len(rows))
	}
	return nil
}
