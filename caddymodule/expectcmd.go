package caddymodule

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func init() { scepSubcommands = append(scepSubcommands, expectCommand) }

// Bounds of what the API may answer to a command.
const (
	apiReply   = 1 << 20
	apiTimeout = 30 * time.Second
)

func expectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "expect",
		Short: "Works on expectations through the API",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(expectReleaseCommand())
	return cmd
}

func expectReleaseCommand() *cobra.Command {
	var c apiCaller
	cmd := &cobra.Command{
		Use:   "release --api <url> --token-file <file> --profile <name> [--ca-file <file>] <id>",
		Short: "Gives an expectation back to its device",
		Long: `
Gives an expectation back: one that is locked becomes registered again, and from
one that is claimed the keys are taken for which no answer of the CA came. Such a
key may have a certificate all the same: look at the CA first. The client whose
token it is needs the scope release. The history names it.

Exit status: 0 it was released, 1 anything else.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			ctx, cancel := context.WithTimeout(cmd.Context(), apiTimeout)
			defer cancel()
			return c.release(ctx, args[0], cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.api, "api", "", "URL of the API, for example https://scepgate.example.com:8443")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the bearer token (mode 0600), - for standard input")
	f.StringVar(&c.profile, "profile", "", "the profile")
	f.StringVar(&c.caFile, "ca-file", "", "PEM file with the CAs that the API's certificate may come from; default: the system's")
	c.in = cmd.InOrStdin
	for _, name := range []string{"api", "token-file", "profile"} {
		_ = cmd.MarkFlagRequired(name) // the flags are defined above
	}
	return cmd
}

// apiCaller calls the API as one of its clients.
type apiCaller struct {
	api, tokenFile, profile, caFile string
	in                              func() io.Reader
}

func (c *apiCaller) release(ctx context.Context, id string, out io.Writer) error {
	var e struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	path := "/v1/profiles/" + url.PathEscape(c.profile) + "/expectations/" + url.PathEscape(id) + "/release"
	if err := c.call(ctx, http.MethodPost, path, &e); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "released %s, now %s\n", printable(e.ID, maxErrorText), printable(e.State, maxErrorText))
	return err
}

// call sends one request without a body and reads the answer into v.
func (c *apiCaller) call(ctx context.Context, method, path string, v any) error {
	base, err := apiURL(c.api)
	if err != nil {
		return fmt.Errorf("--api: %w", err)
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "scepgate")
	res, err := client.Do(req)
	if err != nil {
		return err // names method and URL, which hold no secret
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, apiReply+1))
	switch {
	case err != nil:
		return err
	case len(body) > apiReply:
		return errors.New("the answer is too large")
	case res.StatusCode != http.StatusOK:
		return problemIn(res.StatusCode, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return errors.New("the answer is not the API's")
	}
	return nil
}

// apiURL gives the URL without a slash at its end. A token goes over TLS, or to
// this machine (contract §4.2).
func apiURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("must be an http or https URL without user and query")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", errors.New("a token is sent by https only, except to this machine")
	}
	return strings.TrimRight(text, "/"), nil
}

func (c *apiCaller) token() (string, error) {
	var raw []byte
	var err error
	if c.tokenFile == "-" {
		raw, err = io.ReadAll(io.LimitReader(c.in(), maxToken+3))
	} else {
		raw, _, err = readSecretFile("--token-file", c.tokenFile)
	}
	if err != nil {
		return "", err
	}
	token := string(trimLineEnd(raw))
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("--token-file: holds no token")
	}
	return token, nil
}

func (c *apiCaller) client() (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.caFile != "" {
		cas, err := readCertificates("--ca-file", c.caFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		for _, ca := range cas {
			pool.AddCert(ca)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Timeout: apiTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// problemIn says what the API answered (RFC 9457).
func problemIn(status int, body []byte) error {
	var p struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return fmt.Errorf("the server answered %d", status)
	}
	return fmt.Errorf("%d %s: %s", status, printable(p.Code, maxErrorText), printable(p.Detail, maxErrorText))
}
