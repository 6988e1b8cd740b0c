package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

// maxFile is some hundred thousand devices.
const maxFile = 32 << 20

// inventory is the matcher.
type inventory struct {
	exact plugins.Exact // compares as the gateway itself does

	mu     sync.Mutex
	file   string
	state  os.FileInfo // of the file as it was read last
	rows   table
	broken error // what was wrong with it
}

var decides = []plugins.Field{plugins.Subject, plugins.SAN}

func (*inventory) Info() plugins.Info {
	return plugins.Info{Name: "inventory", Version: "1.0.0", Decides: slices.Clone(decides)}
}

// Configure takes the file's name, and reads it for the first time.
func (i *inventory) Configure(_ context.Context, config map[string]string) error {
	for key := range config {
		if key != "file" {
			return fmt.Errorf("unknown option %q: the only one is file", key)
		}
	}
	file := config["file"]
	if !filepath.IsAbs(file) {
		return errors.New("file: an absolute path is needed")
	}
	i.mu.Lock()
	i.file, i.state = file, nil
	i.mu.Unlock()
	_, err := i.table()
	return err
}

// Match finds the device by the common name that is asked for, and compares.
func (i *inventory) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Answer{}, err
	}
	rows, err := i.table()
	if err != nil {
		return plugins.Answer{}, err
	}
	asked := r.Decides
	if len(asked) == 0 {
		asked = decides // it may only object, and it does so to any wrong name
	}
	for _, field := range asked {
		if !slices.Contains(decides, field) {
			return refuse("not_decided_here", plugins.Finding{Field: field})
		}
	}
	name, ok := commonName(r.Facts.Subject)
	if !ok {
		return refuse("no_common_name", plugins.Finding{Field: plugins.Subject, Expected: "one CN"})
	}
	device, ok := rows[name]
	switch {
	case !ok:
		return refuse("not_in_inventory", plugins.Finding{Field: plugins.Subject, Got: name})
	case device.status == "retired":
		return refuse("device_retired", plugins.Finding{Field: plugins.Subject, Got: name})
	case device.status != "active":
		return refuse("device_not_active", plugins.Finding{Field: plugins.Subject, Got: name})
	}
	same, err := i.exact.Match(ctx, plugins.Request{Decides: asked, Facts: r.Facts, Expectation: device.names})
	if err != nil {
		return plugins.Answer{}, err
	}
	if same.Verdict != plugins.Agree {
		return refuse("name_mismatch", same.Findings...)
	}
	return plugins.Answer{Verdict: plugins.Agree}, nil
}

func refuse(code string, findings ...plugins.Finding) (plugins.Answer, error) {
	return plugins.Answer{Verdict: plugins.Refuse, Code: code, Findings: findings}, nil
}

// commonName is the only one in a subject.
func commonName(subject [][]plugins.NameAttribute) (name string, ok bool) {
	n := 0
	for _, rdn := range subject {
		for _, a := range rdn {
			if a.Type == columns["cn"] {
				name = a.Value
				n++
			}
		}
	}
	return name, n == 1 && name != ""
}

// table is the file as it stands, read again if it is not what was read last.
// A file that is broken stays so until it changes.
func (i *inventory) table() (table, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file == "" {
		return nil, errors.New("not configured")
	}
	now, err := os.Stat(i.file)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	if i.state != nil && unchanged(i.state, now) {
		return i.rows, i.broken
	}
	i.rows, i.broken = nil, nil
	text, state, err := read(i.file)
	if err != nil {
		i.state = nil // perhaps it can be read the next time
		return nil, fmt.Errorf("inventory: %w", err)
	}
	if i.rows, err = parse(text); err != nil {
		i.rows, i.broken = nil, fmt.Errorf("inventory: %s: %w", i.file, err)
	}
	i.state = state
	if age := time.Since(state.ModTime()); age >= 0 && age < settles {
		i.state = nil // it may change again within the same tick of the file system's clock
	}
	return i.rows, i.broken
}

// settles is longer than the ticks of file systems' clocks.
const settles = 50 * time.Millisecond

// read reads the file, and notices if somebody is writing it meanwhile. Write
// another file and rename it: then nobody ever sees half of it.
func read(file string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() || before.Size() > maxFile {
		return nil, nil, fmt.Errorf("%s: must be a regular file of at most %d bytes", file, maxFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !unchanged(before, after) || int64(len(text)) != after.Size() {
		return nil, nil, fmt.Errorf("%s: is being written", file)
	}
	return text, after, nil
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
