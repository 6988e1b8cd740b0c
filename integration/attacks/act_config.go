package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commandPatience bounds a command of the binary.
const commandPatience = time.Minute

// changed is the suite's Caddyfile with the first occurrence of each old text
// replaced by the new one that follows it.
func (t *try) changed(oldNew ...string) string {
	text := t.Config
	for i := 0; i+1 < len(oldNew); i += 2 {
		if !strings.Contains(text, oldNew[i]) {
			t.failf("the suite's Caddyfile has no %q", oldNew[i])
		}
		text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
	}
	return text
}

// scepgate runs a command of the binary in the suite's folder and environment,
// with NAME=value on top.
func (t *try) scepgate(env []string, args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Binary, args...)
	cmd.Dir, cmd.Env = t.Dir, append(append([]string(nil), t.Env...), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// caddyfile writes a configuration for a command.
func (t *try) caddyfile(text string) string {
	file := filepath.Join(t.Dir, "changed.Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.failf("%v", err)
	}
	return file
}

// validated is what `scepgate validate` says of a configuration.
func (t *try) validated(text string, env ...string) (output string, err error) {
	return t.scepgate(env, "validate", "--config", t.caddyfile(text), "--adapter", "caddyfile")
}

// unloadable demands that a configuration does not load, in these words.
func (t *try) unloadable(text, words string, env ...string) {
	t.demands++
	out, err := t.validated(text, env...)
	switch {
	case err == nil:
		t.back = append(t.back, "loads")
		t.failf("the configuration loads")
		return
	case !strings.Contains(out, words):
		t.failf("the configuration is refused for another reason than %q: %s", words, lastLines(out))
	}
	t.back = append(t.back, "load refused")
	t.operator = append(t.operator, words)
}

// loadable demands that a configuration loads, and that the operator reads these
// words on the way.
func (t *try) loadable(text, words string, env ...string) {
	t.demands++
	out, err := t.validated(text, env...)
	if err != nil {
		t.failf("the configuration does not load: %s", lastLines(out))
		return
	}
	if !strings.Contains(out, words) {
		t.failf("nothing says %q: %s", words, lastLines(out))
	}
	t.back = append(t.back, "loads")
	if words != "" {
		t.operator = append(t.operator, words)
	}
}

// reload gives the running process another configuration.
func (t *try) reload(text string) (output string, err error) {
	return t.scepgate(nil, "reload", "--config", t.caddyfile(text), "--adapter", "caddyfile", "--address", t.Admin)
}

func lastLines(out string) string {
	if len(out) > 600 {
		out = out[len(out)-600:]
	}
	return strings.TrimSpace(out)
}
