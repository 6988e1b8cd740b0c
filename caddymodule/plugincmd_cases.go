package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/cases"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

// Bounds of one property of the conformance suite, and of one case.
const (
	propertyTimeout = 5 * time.Minute
	caseTimeout     = 30 * time.Second
)

func pluginTestCommand() *cobra.Command {
	var t pluginTrial
	cmd := &cobra.Command{
		Use:   "test [--cases <file>] [--conformance] [--config <key>=<value>]... <binary>",
		Short: "Puts cases to a plugin",
		Long: `
Starts a plugin as the gateway would and puts cases to it: a file with one JSON
object a line, {"name", "request", "want": {"verdict", "code"}}. verdict is agree,
refuse or not_mine; without a code any will do. A request without "decides" is
asked about everything that the plugin can decide. ` + "`plugin record`" + ` makes such a
file of real requests.

--conformance asks besides what must hold for every matcher, whatever it decides.

Exit status: 0 all went as wanted, 1 anything else.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			return t.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.cases, "cases", "", "the file with the cases")
	f.BoolVar(&t.conformance, "conformance", false, "also ask what must hold for every matcher")
	f.StringArrayVar(&t.config, "config", nil, "what it would find in its `config` block (repeatable)")
	return cmd
}

// pluginTrial is what `plugin test` was asked for.
type pluginTrial struct {
	cases       string
	conformance bool
	config      []string
}

func (t *pluginTrial) run(ctx context.Context, binary string, out, log io.Writer) (err error) {
	if t.cases == "" && !t.conformance {
		return errors.New("nothing to test: give --cases, --conformance or both")
	}
	var all []cases.Case
	if t.cases != "" {
		if all, err = readCases(t.cases); err != nil {
			return fmt.Errorf("--cases %s: %w", t.cases, err)
		}
	}
	p, err := try(ctx, binary, t.config, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	s := score{out: out}
	for _, c := range all {
		s.line(c.Name, bounded(ctx, caseTimeout, func(ctx context.Context) error { return c.Check(ctx, p) }))
	}
	if t.conformance {
		agreed := agreed(all, p)
		for _, property := range pluginstest.Properties() {
			s.line("conformance: "+property.Name, bounded(ctx, propertyTimeout, func(ctx context.Context) error {
				return property.Check(ctx, p, agreed)
			}))
		}
	}
	return s.sum()
}

func bounded(ctx context.Context, most time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return f(ctx)
}

func readCases(path string) ([]cases.Case, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := cases.Read(f)
	if err == nil && len(all) == 0 {
		err = errors.New("holds no case")
	}
	return all, err
}

// maxAgreed bounds how many requests sharpen the conformance suite, which asks
// many questions about each.
const maxAgreed = 20

// agreed are requests that the cases want to be agreed to.
func agreed(all []cases.Case, p *tried) []plugins.Request {
	var requests []plugins.Request
	for _, c := range all {
		if c.Want.Verdict != plugins.Agree || len(requests) == maxAgreed {
			continue
		}
		if c.Request.Decides == nil {
			c.Request.Decides = p.Info().Decides
		}
		requests = append(requests, c.Request)
	}
	return requests
}

// score prints a line for everything that was tried, and counts.
type score struct {
	out        io.Writer
	ok, failed int
	err        error // of out
}

func (s *score) line(name string, err error) {
	name = printable(name, maxErrorText)
	text := "ok    " + name
	if err != nil {
		s.failed++
		text = "FAIL  " + name + ": " + printable(err.Error(), 4*maxErrorText)
	} else {
		s.ok++
	}
	if _, err := fmt.Fprintln(s.out, text); s.err == nil {
		s.err = err
	}
}

func (s *score) sum() error {
	if _, err := fmt.Fprintf(s.out, "%d ok, %d failed\n", s.ok, s.failed); s.err == nil {
		s.err = err
	}
	if s.failed > 0 {
		return fmt.Errorf("%d of %d failed", s.failed, s.ok+s.failed)
	}
	return s.err
}
