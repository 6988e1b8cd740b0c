package caddymodule

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// challengeKeySize is the size of the key of the challenge hashes, and of the
// key that a store may be encrypted with.
const challengeKeySize = 32

// readKey32 reads a file that holds a 32-byte key, raw or as 64 hex digits and
// at most one line end.
func readKey32(option, path string) (key []byte, warning string, err error) {
	raw, warning, err := readSecretFile(option, path)
	if err != nil {
		return nil, "", err
	}
	if len(raw) == challengeKeySize {
		return raw, warning, nil
	}
	key, err = hex.DecodeString(string(trimLineEnd(raw)))
	if err != nil || len(key) != challengeKeySize {
		return nil, "", fmt.Errorf("%s: %s: neither 32 bytes nor 64 hex digits", option, path)
	}
	return key, warning, nil
}

// createKey32 makes a new key file. It never touches one that is there: two
// processes that start together do not get different keys.
func createKey32(path string) ([]byte, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating challenge key: %w", err)
	}
	key := make([]byte, challengeKeySize)
	rand.Read(key) // never fails (crypto/rand)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating challenge key: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		// The name must survive a power cut as well: hashes made with a lost
		// key can never be matched again.
		err = syncDir(dir)
	}
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("creating challenge key: %w", err)
	}
	return key, nil
}

// challengeKeyPath says where the challenge key lives: what is configured, or
// else next to the store's folder. "" is a store that keeps nothing on disk and
// carries its own key.
func challengeKeyPath(configured, folder string) (string, error) {
	if configured == "" && folder == "" {
		return "", nil
	}
	if configured == "" {
		return folder + ".challenge.key", nil
	}
	path, err := resolvePath(configured)
	if err != nil {
		return "", fmt.Errorf("challenge_key_file: %w", err)
	}
	// threat F23, F24: whoever takes the folder, or its backup, must not have
	// taken the key with it.
	if folder != "" && (path == folder || strings.HasPrefix(path, folder+string(filepath.Separator))) {
		return "", fmt.Errorf("challenge_key_file: %s lies in the store's folder %s; keep it elsewhere", path, folder)
	}
	return path, nil
}

// checkChallengeKey reports what can be known without creating or opening
// anything: a key file that cannot be used, or a store whose key is lost.
// missing tells that a key is to be made on start.
func checkChallengeKey(path, folder string) (missing bool, warning string, err error) {
	if path == "" {
		return false, "", nil
	}
	_, err = os.Stat(path)
	switch {
	case err == nil:
		_, warning, err = readKey32("challenge_key_file", path)
		return false, warning, err
	case !errors.Is(err, fs.ErrNotExist):
		return false, "", fmt.Errorf("challenge_key_file: %w", err)
	}
	holds, err := folderHoldsData(folder)
	if err != nil {
		return false, "", err
	}
	if holds {
		return false, "", fmt.Errorf("challenge_key_file: %s is missing, but the store %s holds data that was made with it; restore the key file", path, folder)
	}
	return true, "", nil
}

// folderHoldsData reports whether there is anything in folder.
func folderHoldsData(folder string) (bool, error) {
	if folder == "" {
		return false, nil
	}
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store path: %w", err)
	}
	return len(entries) > 0, nil
}

// resolvePath gives the one name of a file or folder that need not exist yet:
// absolute, clean, symbolic links followed as far as the path exists.
func resolvePath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for head, tail := abs, ""; ; {
		real, err := filepath.EvalSymlinks(head)
		if err == nil {
			return filepath.Join(real, tail), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if _, lerr := os.Lstat(head); lerr == nil {
			return "", fmt.Errorf("%s is a symbolic link to nowhere", head)
		}
		parent := filepath.Dir(head)
		if parent == head {
			return abs, nil
		}
		head, tail = parent, filepath.Join(filepath.Base(head), tail)
	}
}

// trimLineEnd removes one line end, as editors and echo leave it.
func trimLineEnd(b []byte) []byte {
	b, cut := bytes.CutSuffix(b, []byte("\n"))
	if cut {
		b = bytes.TrimSuffix(b, []byte("\r"))
	}
	return b
}

// syncDir makes a new name in dir durable. Windows has no such call and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
