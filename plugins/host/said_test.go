//go:build !windows

package host

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestWhatAPluginSaysIsBoundedEscapedAndAtItsLevel(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	c := config(t)
	c.Logger = zap.New(core)
	h := host(t, c)
	if _, err := h.Match(t.Context(), question("levels")); err != nil {
		t.Fatal(err)
	}
	for text, level := range map[string]zapcore.Level{
		"said at debug": zap.DebugLevel, "said at info": zap.InfoLevel, "said at warn": zap.WarnLevel, `said at error \u{001B}[31meee`: zap.ErrorLevel,
	} {
		var entry *observer.LoggedEntry
		eventually(t, text, func() bool {
			for _, e := range logs.All() {
				if said, _ := e.ContextMap()["said"].(string); strings.HasPrefix(said, text) {
					entry = &e
					return true
				}
			}
			return false
		})
		if entry.Level != level || entry.Message != toldMessage {
			t.Errorf("%s: %s %q", text, entry.Level, entry.Message)
		}
		if level == zap.InfoLevel {
			if with, _ := entry.ContextMap()["with"].(string); !strings.Contains(with, "key=value") {
				t.Errorf("fields: %v", entry.ContextMap())
			}
		}
	}
	for _, e := range logs.All() {
		for k, v := range e.ContextMap() {
			if s := fmt.Sprint(v); len(s) > maxLine || strings.ContainsAny(s, "\x1b\n") {
				t.Errorf("%s: unfit for a log: %.80q", k, s)
			}
		}
		if e.ContextMap()["level"] != nil || e.ContextMap()["key"] != nil {
			t.Errorf("the plugin writes fields of its own: %v", e.ContextMap())
		}
	}
}

func TestNoRevealedChallengeComesOutOfAPlugin(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	c := config(t)
	c.Logger = zap.New(core)
	h := host(t, c)
	const canary = "8CE317021F690069"
	ask := func(command string) string {
		r := question(command)
		r.Challenge = canary
		a, err := h.Match(t.Context(), r)
		return fmt.Sprintf("%+v %v", a, err)
	}
	said := ask("leak") + ask("panic")
	eventually(t, "both lines", func() bool {
		n := 0
		for _, e := range logs.All() {
			n += strings.Count(fmt.Sprint(e.ContextMap()), redacted)
		}
		return n >= 3 // message, field, and the plain line
	})
	h.Close()
	for _, e := range logs.All() {
		said += e.Message + fmt.Sprint(e.ContextMap())
	}
	if strings.Contains(said, canary) {
		t.Errorf("the challenge is in %s", said)
	}
}
