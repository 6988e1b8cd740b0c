package caddymodule

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/scepgate/scepgate/gate"
)

func init() { scepSubcommands = append(scepSubcommands, clientCommand) }

// tokenPrefix lets secret scanners recognise a token.
const tokenPrefix = "scg_"

// rotatedHashes is how many tokens a client has while it rotates: the one in
// use and the next one.
const rotatedHashes = 2

func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Manages who may call the API",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(clientAddCommand())
	return cmd
}

// clientAddition is what `client add` was asked for.
type clientAddition struct {
	file        string
	name        string
	profiles    []string
	scopes      []string
	sees        string
	notAfter    string
	constraints string
	rotate      bool
}

func clientAddCommand() *cobra.Command {
	var a clientAddition
	cmd := &cobra.Command{
		Use:   "add --file <file> --name <name> --profile <profile>... --scope <scope>... [--sees own|all] [--not-after <time>] [--constraints <file>] | --file <file> --name <name> --rotate",
		Short: "Adds a client of the API and prints its token once",
		Long: `
Adds a client to the clients file of scep_api, which is made if it does not
exist, and prints the client's bearer token. Only its SHA-256 is kept: the token
is never shown again. A running server takes the file up within 30 seconds.

With --rotate a client that exists gets a second token. Both are valid; when
there are two already, the older one is dropped.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			var given []string
			for _, flag := range []string{"profile", "scope", "sees", "not-after", "constraints"} {
				if cmd.Flags().Changed(flag) {
					given = append(given, flag)
				}
			}
			if a.rotate && len(given) > 0 {
				return fmt.Errorf("--rotate changes nothing but the token: leave out --%s", given[0])
			}
			token, err := a.run(time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&a.file, "file", "", "the clients file")
	f.StringVar(&a.name, "name", "", "name of the client: letters, digits, '_', '.', '-'")
	f.StringArrayVar(&a.profiles, "profile", nil, "profile that it may use (repeatable)")
	f.StringArrayVar(&a.scopes, "scope", nil, "register, read, revoke or release (repeatable)")
	f.StringVar(&a.sees, "sees", seesOwn, "whose expectations it sees: own or all")
	f.StringVar(&a.notAfter, "not-after", "", "when it ends, RFC 3339")
	f.StringVar(&a.constraints, "constraints", "", "JSON file with what it may register")
	f.BoolVar(&a.rotate, "rotate", false, "give a client that exists another token")
	_ = cmd.MarkFlagRequired("file") // the flags are defined above
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

// run writes the clients file and returns the new token.
func (a *clientAddition) run(now time.Time) (token string, err error) {
	// The file behind a link is replaced, not the link.
	path, err := filepath.EvalSymlinks(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		path, err = a.file, nil
	}
	if err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	unlock, err := lockClientsFile(path)
	if err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	defer unlock()
	records, err := readClientRecords(path)
	if err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	token, hash := newToken()
	if records, err = a.apply(records, hash, now); err != nil {
		return "", err
	}
	data, err := encodeClientRecords(records)
	if err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	// What the server would refuse is not written. Which profiles exist is known
	// to the configuration only.
	if _, err := parseClients(data, func(string) bool { return true }); err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	if err := replaceFile(path, data); err != nil {
		return "", fmt.Errorf("clients file %s: %w", a.file, err)
	}
	return token, nil
}

// apply adds the client, or the hash to a client that exists.
func (a *clientAddition) apply(records []clientRecord, hash string, now time.Time) ([]clientRecord, error) {
	for i := range records {
		if records[i].Name != a.name {
			continue
		}
		if !a.rotate {
			return nil, fmt.Errorf("client %s exists; with --rotate it gets another token", logText(a.name))
		}
		hashes := append(records[i].TokenSHA256, hash)
		records[i].TokenSHA256 = hashes[max(0, len(hashes)-rotatedHashes):]
		return records, nil
	}
	if a.rotate {
		return nil, fmt.Errorf("there is no client %s to rotate", logText(a.name))
	}
	r := clientRecord{
		Name: a.name, TokenSHA256: []string{hash}, CertificateSPKISHA256: []string{},
		Profiles: a.profiles, Scopes: a.scopes, Sees: &a.sees,
	}
	if a.notAfter != "" {
		t, err := time.Parse(time.RFC3339, a.notAfter)
		if err != nil {
			return nil, fmt.Errorf("--not-after: %q is not a time in RFC 3339", logText(a.notAfter))
		}
		if !t.After(now) {
			return nil, errors.New("--not-after: has passed")
		}
		t = t.UTC()
		r.NotAfter = &t
	}
	if a.constraints != "" {
		data, err := os.ReadFile(a.constraints)
		if err != nil {
			return nil, fmt.Errorf("--constraints: %w", err)
		}
		r.Constraints = new(gate.Constraints)
		if problems := decodeStrict(data, r.Constraints); len(problems) > 0 {
			return nil, fmt.Errorf("--constraints %s: %s: %s", a.constraints, orRoot(problems[0].Pointer), problems[0].Detail)
		}
	}
	return append(records, r), nil
}

func newToken() (token, hash string) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails (crypto/rand)
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}

// readClientRecords reads the file with the rules of the server; a file that is
// not there holds no client.
func readClientRecords(path string) ([]clientRecord, error) {
	data, err := readClientsFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []clientRecord
	if problems := decodeStrict(data, &records); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %s", orRoot(problems[0].Pointer), problems[0].Detail)
	}
	return records, nil
}

func encodeClientRecords(records []clientRecord) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(records); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// lockClientsFile keeps two commands from overwriting each other's client.
func lockClientsFile(path string) (unlock func(), err error) {
	lock := path + ".lock"
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("another command is at work; if none is, remove %s", lock)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		f.Close()
		os.Remove(lock)
	}, nil
}

// replaceFile puts data in the place of path, whole or not at all, readable by
// its owner only from the first byte on. An existing file keeps its owner where
// the system lets it.
func replaceFile(path string, data []byte) (err error) {
	old, statErr := os.Stat(path)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if statErr == nil {
		if err := keepOwner(f, old); err != nil {
			return err
		}
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
