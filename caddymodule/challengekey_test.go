package caddymodule

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

func TestANewChallengeKeyIsAFileOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "data.challenge.key")
	key, err := createKey32(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{64}\n$`).Match(raw) {
		t.Errorf("file is not 64 hex digits and a line end: %d bytes", len(raw))
	}
	if info, _ := os.Stat(path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	again, warning, err := readKey32("challenge_key_file", path)
	if err != nil || warning != "" || !bytes.Equal(again, key) {
		t.Errorf("read back: %v, warning %q, same %v", err, warning, bytes.Equal(again, key))
	}
	if _, err := createKey32(path); err == nil {
		t.Error("an existing key was replaced")
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, raw) {
		t.Error("an existing key was touched")
	}
}

func TestAKeyIs32BytesRawOrInHex(t *testing.T) {
	key := bytes.Repeat([]byte{0xab, '\n'}, 16) // raw keys may end in what looks like a line end
	hexadecimal := hex.EncodeToString(key)
	for content, ok := range map[string]bool{
		string(key):                       true,
		hexadecimal:                       true,
		hexadecimal + "\n":                true,
		hexadecimal + "\r\n":              true,
		strings.ToUpper(hexadecimal):      true,
		"":                                false,
		"\n":                              false,
		string(key[:31]):                  false,
		string(key) + "x":                 false,
		hexadecimal[:62]:                  false,
		hexadecimal + "00":                false,
		hexadecimal + "\n\n":              false,
		" " + hexadecimal:                 false,
		strings.Repeat("g", 64):           false,
		strings.Repeat("\x00", 64) + "\n": false,
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := readKey32("challenge_key_file", path)
		if ok && (err != nil || !bytes.Equal(got, key)) {
			t.Errorf("%q: %v", content, err)
		}
		if !ok && (err == nil || got != nil || !strings.Contains(err.Error(), path)) {
			t.Errorf("%q: accepted, or an error without the file: %v", content, err)
		}
	}
}

func TestTheChallengeKeyLiesNextToTheStoreAndNeverInIt(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if got, err := challengeKeyPath("", data); err != nil || got != data+".challenge.key" {
		t.Errorf("default: %s, %v", got, err)
	}
	if got, err := challengeKeyPath("", ""); err != nil || got != "" {
		t.Errorf("without a folder: %q, %v", got, err)
	}
	if _, err := challengeKeyPath(data+"2", data); err != nil {
		t.Errorf("a neighbour with a longer name: %v", err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	inside := []string{data, filepath.Join(data, "key"), filepath.Join(data, "a", "b"), filepath.Join(dir, "x", "..", "data", "key")}
	if link := filepath.Join(dir, "link"); os.Symlink(data, link) == nil {
		inside = append(inside, filepath.Join(link, "key"))
	}
	for _, path := range inside {
		if got, err := challengeKeyPath(path, data); err == nil || !strings.Contains(err.Error(), "lies in the store's folder") {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func TestALostChallengeKeyIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	data, key := filepath.Join(dir, "data"), filepath.Join(dir, "key")

	if missing, _, err := checkChallengeKey(key, data); err != nil || !missing {
		t.Errorf("neither key nor data: missing %v, %v", missing, err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if missing, _, err := checkChallengeKey(key, data); err != nil || !missing {
		t.Errorf("an empty folder: missing %v, %v", missing, err)
	}
	if err := os.WriteFile(filepath.Join(data, "MANIFEST"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if missing, _, err := checkChallengeKey(key, data); err == nil || missing || !strings.Contains(err.Error(), "restore the key file") {
		t.Errorf("data without a key: missing %v, %v", missing, err)
	}
	if err := os.WriteFile(key, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if missing, _, err := checkChallengeKey(key, data); err == nil || missing {
		t.Errorf("a broken key: missing %v, %v", missing, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("checking created something: %v", entries)
	}
}

func TestASymbolicLinkToNowhereIsRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "gone"), link); err != nil {
		t.Skip(err)
	}
	if got, err := resolvePath(filepath.Join(link, "data")); err == nil {
		t.Errorf("resolved to %s", got)
	}
}
