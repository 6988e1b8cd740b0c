package caddymodule

import (
	"context"
	"log/slog"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// storeLogger gives a logger of whatever configuration runs now: the one that
// opened the store may be gone, and its writers closed.
func storeLogger() *zap.Logger { return caddy.Log().Named("scep.store") }

// storeLog carries what an engine logs to storeLogger.
type storeLog struct {
	group string
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (storeLog) Enabled(_ context.Context, level slog.Level) bool {
	return storeLogger().Core().Enabled(zapLevel(level))
}

// Handle implements slog.Handler.
func (l storeLog) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(l.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, l.inGroup(a))
		return true
	})
	fields := make([]zap.Field, len(attrs))
	for i, a := range attrs {
		fields[i] = zap.Any(a.Key, a.Value.Resolve().Any())
	}
	storeLogger().Log(zapLevel(r.Level), r.Message, fields...)
	return nil
}

// WithAttrs implements slog.Handler.
func (l storeLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	l.attrs = slices.Clone(l.attrs)
	for _, a := range attrs {
		l.attrs = append(l.attrs, l.inGroup(a))
	}
	return l
}

// WithGroup implements slog.Handler.
func (l storeLog) WithGroup(name string) slog.Handler {
	l.group += name + "."
	return l
}

func (l storeLog) inGroup(a slog.Attr) slog.Attr {
	a.Key = l.group + a.Key
	return a
}

func zapLevel(level slog.Level) zapcore.Level {
	switch {
	case level >= slog.LevelError:
		return zapcore.ErrorLevel
	case level >= slog.LevelWarn:
		return zapcore.WarnLevel
	case level >= slog.LevelInfo:
		return zapcore.InfoLevel
	}
	return zapcore.DebugLevel
}

// Interface guard
var _ slog.Handler = storeLog{}
