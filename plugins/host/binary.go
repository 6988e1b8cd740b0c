package host

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxBinary    = 1 << 30 // bytes
	maxSignature = 1 << 10
)

// open opens the binary and returns it only if it is what the configuration
// vouches for, judged by the bytes of the opened file: a path can lead elsewhere
// a moment later, an open file cannot (threat F20). It is asked before every
// start, and what it returns is what is run.
func (c *Config) open() (_ *os.File, sum [sha256.Size]byte, err error) {
	f, err := os.OpenFile(c.Path, openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, sum, because(MissingFile, err.Error(), err)
	}
	if err != nil {
		return nil, sum, because(UnusableFile, err.Error(), err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, sum, because(UnusableFile, err.Error(), err)
	}
	if !info.Mode().IsRegular() {
		return nil, sum, because(UnusableFile, "not a regular file", nil)
	}
	if info.Size() > maxBinary {
		return nil, sum, because(UnusableFile, fmt.Sprintf("larger than %d bytes", maxBinary), nil)
	}
	if !executable(info) {
		return nil, sum, because(UnusableFile, "not executable", nil)
	}
	if err := c.guarded(info); err != nil {
		return nil, sum, err
	}
	if c.SignedBy == nil {
		sum, err = c.checksum(f)
	} else {
		sum, err = c.signature(f)
	}
	if err != nil {
		return nil, sum, err
	}
	return f, sum, nil
}

// guarded checks that nobody but root and the gateway's own user can change the
// file or put another in its place, on either way to it: the one that is
// written, and the one that symbolic links make of it.
func (c *Config) guarded(file fs.FileInfo) error {
	if why := foreign(file); why != "" {
		return because(UnsafeFile, c.Path+" "+why, nil)
	}
	real, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return because(UnusableFile, err.Error(), err)
	}
	for _, way := range []string{c.Path, real} {
		for folder := filepath.Dir(way); ; folder = filepath.Dir(folder) {
			info, err := os.Stat(folder)
			if err != nil {
				return because(UnusableFile, err.Error(), err)
			}
			if why := foreign(info); why != "" {
				return because(UnsafeFile, folder+" "+why, nil)
			}
			if folder == filepath.Dir(folder) {
				break
			}
		}
	}
	return nil
}

func (c *Config) checksum(f io.Reader) (sum [sha256.Size]byte, err error) {
	h := sha256.New() // a new one each time: go-plugin's SecureConfig keeps its state over starts, and hashes a path
	if _, err := io.Copy(h, io.LimitReader(f, maxBinary)); err != nil {
		return sum, because(UnusableFile, err.Error(), err)
	}
	h.Sum(sum[:0])
	if sum != c.SHA256 {
		return sum, because(WrongChecksum, "the file has "+hex.EncodeToString(sum[:]), nil)
	}
	return sum, nil
}

func (c *Config) signature(f io.Reader) (sum [sha256.Size]byte, err error) {
	signature, err := readSignature(c.Path + ".sig")
	if err != nil {
		return sum, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBinary))
	if err != nil {
		return sum, because(UnusableFile, err.Error(), err)
	}
	if !ed25519.Verify(c.SignedBy, b, signature) {
		return sum, because(WrongSignature, "it is not the configured key's over this file", nil)
	}
	return sha256.Sum256(b), nil
}

// readSignature takes 64 bytes, or base64 of them with white space around.
func readSignature(path string) ([]byte, error) {
	f, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, because(MissingFile, err.Error(), err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSignature))
	if err != nil {
		return nil, because(UnusableFile, err.Error(), err)
	}
	if len(b) == ed25519.SignatureSize {
		return b, nil
	}
	b, err = base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(b) != ed25519.SignatureSize {
		return nil, because(WrongSignature, path+" holds neither 64 bytes nor base64 of 64 bytes", nil)
	}
	return b, nil
}
