package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/badgerstore"
	"github.com/scepgate/scepgate/store/memstore"
)

func init() {
	caddy.RegisterModule(new(BadgerStore))
	caddy.RegisterModule(new(MemoryStore))
}

// storeModule is what the modules in the namespace `scep.stores` are. Nothing
// but open may create, lock or open anything.
type storeModule interface {
	// name is the engine's, for logs and metrics.
	name() string
	// folder is where the data lies, resolved; "" if nothing is kept on disk.
	folder() string
	// poolKey identifies the store in this process, whatever its options are.
	poolKey() (string, error)
	// settings is a digest of the options that matter only when it is opened.
	settings() (string, error)
	open() (store.Store, error)
}

// BadgerStore keeps expectations in an embedded Badger database: a folder that
// belongs to one process.
type BadgerStore struct {
	// The folder. Default: `./data`. It is made if need be, with mode 0700.
	Path string `json:"path,omitempty"`

	// The file with the key that encrypts the database: 32 bytes, or 64 hex
	// digits. Must not be readable by everybody. Default: not encrypted; the
	// store never holds a challenge.
	EncryptionKeyFile string `json:"encryption_key_file,omitempty"`

	resolved string
}

// defaultStorePath is where Badger keeps its data if nothing else is said.
const defaultStorePath = "./data"

// CaddyModule returns the Caddy module information.
func (*BadgerStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.stores.badger", New: func() caddy.Module { return new(BadgerStore) }}
}

// Provision resolves and checks the paths.
func (b *BadgerStore) Provision(ctx caddy.Context) error {
	if b.Path == "" {
		b.Path = defaultStorePath
	}
	if err := expandPlaceholder("path", &b.Path); err != nil {
		return err
	}
	var err error
	if b.resolved, err = resolvePath(b.Path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if info, err := os.Stat(b.resolved); err == nil && !info.IsDir() {
		return fmt.Errorf("path: %s is not a folder", b.resolved)
	}
	if b.EncryptionKeyFile == "" {
		return nil
	}
	if err := expandPlaceholder("encryption_key_file", &b.EncryptionKeyFile); err != nil {
		return err
	}
	_, warning, err := readKey32("encryption_key_file", b.EncryptionKeyFile)
	if err == nil && warning != "" {
		ctx.Logger().Warn(warning)
	}
	return err
}

func (*BadgerStore) name() string { return "badger" }

func (b *BadgerStore) folder() string { return b.resolved }

func (b *BadgerStore) poolKey() (string, error) {
	if b.resolved == "" {
		return "", errors.New("path: is empty")
	}
	return "badger:" + b.resolved, nil
}

func (b *BadgerStore) settings() (string, error) {
	key, err := b.encryptionKey()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:]), nil
}

func (b *BadgerStore) encryptionKey() ([]byte, error) {
	if b.EncryptionKeyFile == "" {
		return nil, nil
	}
	key, _, err := readKey32("encryption_key_file", b.EncryptionKeyFile)
	return key, err
}

func (b *BadgerStore) open() (store.Store, error) {
	key, err := b.encryptionKey()
	if err != nil {
		return nil, err
	}
	return badgerstore.Open(badgerstore.Options{
		Path: b.resolved, EncryptionKey: key, Now: time.Now, Logger: slog.New(storeLog{}),
	})
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store badger {
//		path                <folder>
//		encryption_key_file <file>
//	}
func (b *BadgerStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // engine name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var err error
		switch option {
		case "path":
			b.Path, err = oneArg(d)
		case "encryption_key_file":
			b.EncryptionKeyFile, err = oneArg(d)
		default:
			err = d.Errf("store badger: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// MemoryStore keeps expectations in memory, over reloads but not over restarts:
// for trying out and tests.
type MemoryStore struct{}

// CaddyModule returns the Caddy module information.
func (*MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "scep.stores.memory", New: func() caddy.Module { return new(MemoryStore) }}
}

func (*MemoryStore) name() string              { return "memory" }
func (*MemoryStore) folder() string            { return "" }
func (*MemoryStore) poolKey() (string, error)  { return "memory", nil }
func (*MemoryStore) settings() (string, error) { return "", nil }

func (*MemoryStore) open() (store.Store, error) { return memstore.New(time.Now), nil }

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store memory
func (*MemoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // engine name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(d.Nesting()) {
		return d.Errf("store memory: unrecognized option: %s", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ storeModule           = (*BadgerStore)(nil)
	_ storeModule           = (*MemoryStore)(nil)
	_ caddy.Provisioner     = (*BadgerStore)(nil)
	_ caddyfile.Unmarshaler = (*BadgerStore)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStore)(nil)
)
