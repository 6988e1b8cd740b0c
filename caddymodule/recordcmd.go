package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/scepgate/scepgate/plugins/cases"
)

func pluginRecordCommand() *cobra.Command {
	c := recordClient{}
	cmd := &cobra.Command{
		Use:   "record --out <file> [--address <admin>] [--limit <n>] [--for <duration>] <profile>",
		Short: "Records what a running gateway judges, as cases for `plugin test`",
		Long: `
Asks a running gateway, through Caddy's admin endpoint, for everything that a
profile judges from now on: each request that met an expectation, the
expectation, and what the gateway decided. Neither challenges nor PKCS#10 are in
it; names, addresses and labels are, so the file is made for its owner only. It
must not exist.

A recorded refusal wants the gateway's reason as its code, or the matcher's code
where a matcher refused. Reasons that are no matcher's business, challenge_in_use
say, stand in the case's name: take out what the plugin is not to judge.

Ends after --limit cases, after --for, or with an interrupt.

Exit status: 0 it ended as it was told to, 1 anything else.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			c.profile = args[0]
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return c.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.out, "out", "", "the file to write (made 0600; must not exist)")
	f.StringVar(&c.address, "address", "", "address of the admin endpoint; default: Caddy's")
	f.IntVar(&c.limit, "limit", defaultRecordLimit, "how many cases at most")
	f.DurationVar(&c.time, "for", defaultRecordTime, "how long at most")
	_ = cmd.MarkFlagRequired("out") // the flag is defined above
	return cmd
}

// recordClient is what `plugin record` was asked for.
type recordClient struct {
	recordOptions
	out     string
	address string
}

func (c *recordClient) run(ctx context.Context, out, progress io.Writer) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	file, err := os.OpenFile(c.out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	count := 0
	defer func() {
		err = errors.Join(err, file.Close())
		if count == 0 {
			err = errors.Join(err, os.Remove(c.out))
		}
	}()
	res, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// What is read ends with ctx.
	defer context.AfterFunc(ctx, func() { res.Body.Close() })()
	fmt.Fprintf(progress, "recording %s into %s: at most %d cases and %s, an interrupt ends it\n", c.profile, c.out, c.limit, c.time)

	count, full, err := copyCases(file, res.Body, c.limit)
	ended := "interrupt"
	var written *fs.PathError
	switch interrupted := ctx.Err() != nil; {
	case errors.As(err, &written), err != nil && !interrupted:
		return err
	case full:
		ended = "size"
	case !interrupted:
		ended = res.Trailer.Get(trailerEnded)
	}
	what := fmt.Sprintf("%d cases in %s", count, c.out)
	if count == 0 {
		what = "no case, and no file"
	}
	if _, err := fmt.Fprintf(out, "%s; ended by %s%s\n", what, printable(orUnknown(ended), 32), lost(res.Trailer)); err != nil {
		return err
	}
	switch ended {
	case "limit", "time", "interrupt":
		return nil
	}
	return errors.New("the recording ended before it was told to")
}

// lost says how many cases the gateway could not hand over.
func lost(trailer http.Header) string {
	n, err := strconv.ParseInt(trailer.Get(trailerDropped), 10, 64)
	if err != nil || n <= 0 {
		return ""
	}
	return fmt.Sprintf("; %d were lost on the way", n)
}

func orUnknown(ended string) string {
	if ended == "" {
		return "the gateway, which does not say why"
	}
	return ended
}

// open asks the admin endpoint. Caddy's client knows no context.
func (c *recordClient) open(ctx context.Context) (*http.Response, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(c.address, nil, "", "")
	if err != nil {
		return nil, err
	}
	query := url.Values{"profile": {c.profile}, "limit": {strconv.Itoa(c.limit)}, "for": {c.time.String()}}
	type answer struct {
		res *http.Response
		err error
	}
	got := make(chan answer, 1)
	go func() {
		res, err := caddycmd.AdminAPIRequest(address, http.MethodGet, recordPath+"?"+query.Encode(), nil, nil)
		got <- answer{res, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return nil, fmt.Errorf("admin endpoint %s: %s", printable(address, maxUserAgent), printable(a.err.Error(), maxErrorText))
		}
		return a.res, nil
	case <-ctx.Done():
		go func() {
			if a := <-got; a.err == nil {
				a.res.Body.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// copyCases writes whole lines, each of which can be read again. full: no
// further case fits into a file that can be read again.
func copyCases(file io.Writer, from io.Reader, limit int) (count int, full bool, err error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, cases.MaxLine+1)
	var line []byte
	size := 0
	for count < limit && lines.Scan() {
		if _, err := cases.Parse(lines.Bytes()); err != nil {
			if torn := lines.Err(); torn != nil {
				return count, false, torn
			}
			return count, false, fmt.Errorf("what the admin endpoint sends is no case: %w", err)
		}
		line = append(append(line[:0], lines.Bytes()...), '\n')
		if size += len(line); size > cases.MaxFile {
			return count, true, nil
		}
		if _, err := file.Write(line); err != nil {
			return count, false, err
		}
		count++
	}
	// The trailers come after the end of the body.
	if lines.Err() == nil && count == limit {
		_, err = io.Copy(io.Discard, io.LimitReader(from, cases.MaxLine))
		return count, false, err
	}
	return count, false, lines.Err()
}
