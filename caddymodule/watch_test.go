package caddymodule

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestChangedFilesAreTriedOncePerContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good 1")
	core, logs := observer.New(zapcore.DebugLevel)
	logger := zap.New(core)
	var w fileWatcher
	reloads := 0
	w.add("x", []string{path}, func() error {
		reloads++
		if raw, _ := os.ReadFile(path); string(raw) == "bad" {
			return errors.New("no good")
		}
		return nil
	})
	for i, step := range []struct {
		change  func()
		reloads int
		errors  int
	}{
		{func() {}, 0, 0},
		{func() { write("good 2") }, 1, 0},
		{func() {}, 1, 0},
		{func() { write("bad") }, 2, 1},
		{func() {}, 2, 1},
		{func() { write("good 2") }, 3, 1},
		{func() { os.Remove(path) }, 4, 1},
		{func() {}, 4, 1},
		{func() { write("good 2") }, 5, 1},
	} {
		step.change()
		w.check(logger)
		if reloads != step.reloads || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != step.errors {
			t.Errorf("step %d: %d reloads, %d errors", i, reloads, logs.FilterLevelExact(zapcore.ErrorLevel).Len())
		}
	}
}

func TestFilesAreLookedAtEvery30Seconds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	synctest.Test(t, func(t *testing.T) {
		var w fileWatcher
		var reloads, also atomic.Int32
		w.add("x", []string{path}, func() error { reloads.Add(1); return nil })
		w.start(zap.NewNop(), func() { also.Add(1) })
		if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(watchEvery - 1)
		synctest.Wait()
		if reloads.Load() != 0 || also.Load() != 0 {
			t.Errorf("looked early: %d, %d", reloads.Load(), also.Load())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if reloads.Load() != 1 || also.Load() != 1 {
			t.Errorf("after 30 seconds: %d, %d", reloads.Load(), also.Load())
		}
		w.halt()
		w.halt()
		os.Remove(path)
		time.Sleep(time.Hour)
		if reloads.Load() != 1 {
			t.Error("looked after it was halted")
		}
	})
}

func TestHaltingWhatNeverStartedIsHarmless(t *testing.T) {
	new(fileWatcher).halt()
}
