//go:build !windows

package host

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

// script makes a file that would pass for a plugin's binary, in a folder of its own.
func script(t *testing.T, content string) Config {
	t.Helper()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "plugin")
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return Config{Path: path, SHA256: sha256.Sum256([]byte(content))}
}

func TestOnlyAFileThatIsVouchedForAndThatNobodyElseCanChangeIsTaken(t *testing.T) {
	signature := func(c *Config) []byte {
		b, err := os.ReadFile(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		return ed25519.Sign(signer, b)
	}
	asBase64 := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		alter func(t *testing.T, c *Config)
		cause Cause
		text  string
	}{
		{name: "as it must be"},
		{name: "signed, raw", alter: signed},
		{name: "signed, base64 with a line's end", alter: func(t *testing.T, c *Config) {
			signed(t, c)
			replace(t, c.Path+".sig", asBase64(signature(c))+"\r\n")
		}},
		{name: "through a symbolic link", alter: func(t *testing.T, c *Config) { link(t, c.Path, c.Path+"-current"); c.Path += "-current" }},
		{name: "relative", alter: func(_ *testing.T, c *Config) { c.Path = "plugin" }, text: "absolute path"},
		{name: "not clean", alter: func(_ *testing.T, c *Config) { c.Path = filepath.Dir(c.Path) + "/../x/plugin" }, text: "absolute path"},
		{name: "nobody vouches", alter: func(_ *testing.T, c *Config) { c.SHA256 = [32]byte{} }, text: "exactly one"},
		{name: "two vouch", alter: func(t *testing.T, c *Config) { s := c.SHA256; signed(t, c); c.SHA256 = s }, text: "exactly one"},
		{name: "half a key", alter: func(t *testing.T, c *Config) { signed(t, c); c.SignedBy = c.SignedBy[:16] }, text: "16 bytes"},
		{name: "an empty key", alter: func(t *testing.T, c *Config) { signed(t, c); c.SignedBy = ed25519.PublicKey{} }, text: "0 bytes"},
		{name: "missing", alter: func(t *testing.T, c *Config) { remove(t, c.Path) }, cause: MissingFile},
		{name: "a folder", alter: func(t *testing.T, c *Config) { remove(t, c.Path); mkdir(t, c.Path) }, cause: UnusableFile},
		{name: "a FIFO", alter: func(t *testing.T, c *Config) { remove(t, c.Path); fifo(t, c.Path) }, cause: UnusableFile},
		{name: "not executable", alter: func(t *testing.T, c *Config) { chmod(t, c.Path, 0o644) }, cause: UnusableFile, text: "not executable"},
		{name: "the group may write", alter: func(t *testing.T, c *Config) { chmod(t, c.Path, 0o775) }, cause: UnsafeFile, text: "writable by group or others"},
		{name: "others may write", alter: func(t *testing.T, c *Config) { chmod(t, c.Path, 0o757) }, cause: UnsafeFile},
		{name: "others may write its folder", alter: func(t *testing.T, c *Config) { chmod(t, filepath.Dir(c.Path), 0o777) }, cause: UnsafeFile},
		{name: "the group may write a folder above", alter: func(t *testing.T, c *Config) {
			below := filepath.Join(filepath.Dir(c.Path), "below")
			mkdir(t, below)
			chmod(t, filepath.Dir(c.Path), 0o775)
			rename(t, c.Path, filepath.Join(below, "plugin"))
			c.Path = filepath.Join(below, "plugin")
		}, cause: UnsafeFile},
		{name: "others may write where a symbolic link leads", alter: func(t *testing.T, c *Config) {
			open := filepath.Join(filepath.Dir(c.Path), "open")
			mkdir(t, open)
			chmod(t, open, 0o777)
			rename(t, c.Path, filepath.Join(open, "plugin"))
			link(t, filepath.Join(open, "plugin"), c.Path)
		}, cause: UnsafeFile, text: "/open "},
		{name: "others may write in a sticky folder", alter: func(t *testing.T, c *Config) { chmod(t, filepath.Dir(c.Path), 0o777|os.ModeSticky) }},
		{name: "somebody else's", alter: func(t *testing.T, c *Config) { chown(t, c.Path) }, cause: UnsafeFile, text: "belongs"},
		{name: "somebody else's in a sticky folder", alter: func(t *testing.T, c *Config) {
			chmod(t, filepath.Dir(c.Path), 0o777|os.ModeSticky)
			chown(t, c.Path)
		}, cause: UnsafeFile, text: "belongs"},
		{name: "another checksum", alter: func(_ *testing.T, c *Config) { c.SHA256[31] ^= 1 }, cause: WrongChecksum, text: "the file has "},
		{name: "one byte more", alter: func(t *testing.T, c *Config) { replace(t, c.Path, "#!/bin/true\n ") }, cause: WrongChecksum},
		{name: "signed by a stranger", alter: func(t *testing.T, c *Config) {
			signed(t, c)
			c.SignedBy = stranger.Public().(ed25519.PublicKey)
		}, cause: WrongSignature},
		{name: "signature of another file", alter: func(t *testing.T, c *Config) { signed(t, c); replace(t, c.Path, "#!/bin/false\n") }, cause: WrongSignature},
		{name: "signature missing", alter: func(t *testing.T, c *Config) { signed(t, c); remove(t, c.Path+".sig") }, cause: MissingFile},
		{name: "signature empty", alter: func(t *testing.T, c *Config) { signed(t, c); replace(t, c.Path+".sig", "") }, cause: WrongSignature},
		{name: "signature too short", alter: func(t *testing.T, c *Config) { signed(t, c); replace(t, c.Path+".sig", string(signature(c)[:63])) }, cause: WrongSignature},
		{name: "signature in hex", alter: func(t *testing.T, c *Config) { signed(t, c); replace(t, c.Path+".sig", strings.Repeat("ab", 64)) }, cause: WrongSignature},
		{name: "two signatures", alter: func(t *testing.T, c *Config) {
			signed(t, c)
			replace(t, c.Path+".sig", asBase64(signature(c))+"\n"+asBase64(signature(c)))
		}, cause: WrongSignature},
		{name: "signature is a FIFO", alter: func(t *testing.T, c *Config) { signed(t, c); remove(t, c.Path+".sig"); fifo(t, c.Path+".sig") }, cause: WrongSignature},
		{name: "env without a name", alter: func(_ *testing.T, c *Config) { c.Env = []string{"=x"} }, text: "NAME=VALUE"},
		{name: "env without a value", alter: func(_ *testing.T, c *Config) { c.Env = []string{"HOME"} }, text: "NAME=VALUE"},
		{name: "env with a NUL", alter: func(_ *testing.T, c *Config) { c.Env = []string{"HOME=\x00"} }, text: "NAME=VALUE"},
		{name: "env of go-plugin", alter: func(_ *testing.T, c *Config) { c.Env = []string{"PLUGIN_UNIX_SOCKET_DIR=/tmp"} }, text: "belongs to the gateway"},
		{name: "env of the handshake", alter: func(_ *testing.T, c *Config) { c.Env = []string{plugins.Handshake.MagicCookieKey + "=x"} }, text: "belongs to the gateway"},
		{name: "an argument with a NUL", alter: func(_ *testing.T, c *Config) { c.Args = []string{"\x00"} }, text: "NUL"},
		{name: "no time", alter: func(_ *testing.T, c *Config) { c.Timeout = -time.Second }, text: "negative"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := script(t, "#!/bin/true\n")
			if test.alter != nil {
				test.alter(t, &c)
			}
			h, err := New(c)
			switch {
			case test.cause == "" && test.text == "":
				if err != nil {
					t.Fatal(err)
				}
				if s := h.Stats(); s != (Stats{}) {
					t.Errorf("New did more than look: %+v", s)
				}
				h.Close()
			case err == nil || CauseOf(err) != test.cause || !strings.Contains(err.Error(), test.text):
				t.Errorf("%v, want cause %q and %q", err, test.cause, test.text)
			}
		})
	}
}

func TestWhatIsRunIsWhatWasVerifiedWhateverItsPathLeadsToByThen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("runs the open file on Linux only")
	}
	c := script(t, "#!/bin/sh\necho verified\n")
	file, _, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	replace(t, c.Path, "#!/bin/sh\necho exchanged\n")
	cmd := &exec.Cmd{Path: c.Path, Args: []string{c.Path}}
	confine(cmd, file)
	out, err := cmd.Output()
	if err != nil || string(out) != "verified\n" {
		t.Errorf("%q %v", out, err)
	}
}

func TestKeyChangesWithEverythingThatIsRun(t *testing.T) {
	base := func(t *testing.T) Config {
		c := script(t, "#!/bin/true\n")
		c.Args, c.Env, c.Config = []string{"a", "b"}, []string{"A=1"}, map[string]string{"x": "1", "y": "2"}
		c.Decides, c.Timeout = []plugins.Field{plugins.Subject}, time.Second
		return c
	}
	original := base(t)
	key := original.Key()
	again := original
	again.Config = map[string]string{"y": "2", "x": "1"}
	if again.Key() != key {
		t.Error("the same configuration has two keys")
	}
	seen := map[string]string{key: "the original"}
	for name, alter := range map[string]func(c *Config){
		"arguments split otherwise":   func(c *Config) { c.Args = []string{"ab"} },
		"an argument moved to env":    func(c *Config) { c.Args = []string{"a"}; c.Env = []string{"b", "A=1"} },
		"env":                         func(c *Config) { c.Env = []string{"A=2"} },
		"config":                      func(c *Config) { c.Config = map[string]string{"x": "1", "y": "3"} },
		"config split otherwise":      func(c *Config) { c.Config = map[string]string{"x": "1y", "": "2"} },
		"decides":                     func(c *Config) { c.Decides = nil },
		"timeout":                     func(c *Config) { c.Timeout = 2 * time.Second },
		"who vouches":                 func(c *Config) { signed(t, c) },
		"the same file by other name": func(c *Config) { link(t, c.Path, c.Path+"2"); c.Path += "2" },
		"the file is gone":            func(c *Config) { c.Path += "3" },
	} {
		c := original
		alter(&c)
		if other, ok := seen[c.Key()]; ok {
			t.Errorf("%s: same key as %s", name, other)
		}
		seen[c.Key()] = name
	}
}

func TestAReplacedBinaryHasAnotherKey(t *testing.T) {
	c := script(t, "#!/bin/true\n")
	signed(t, &c)
	before := c.Key()
	replace(t, c.Path, "#!/bin/false\n")
	signed(t, &c)
	if c.Key() == before {
		t.Error("same key")
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func chown(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
}

func TestASignatureOfOpenSSLIsTaken(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs the Debian package openssl")
	}
	c := script(t, "#!/bin/true\n")
	key := filepath.Join(filepath.Dir(c.Path), "ed25519.pem")
	for _, args := range [][]string{ // as docs/matchers/exec.md says
		{"genpkey", "-algorithm", "ed25519", "-out", key},
		{"pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", c.Path, "-out", c.Path + ".sig"},
	} {
		if out, err := run("openssl", args...); err != nil {
			t.Fatalf("openssl %v: %v %s", args, err, out)
		}
	}
	der, err := exec.Command("openssl", "pkey", "-in", key, "-pubout", "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	c.SHA256, c.SignedBy = [32]byte{}, der[len(der)-32:]
	if _, err := New(c); err != nil {
		t.Error(err)
	}
}
