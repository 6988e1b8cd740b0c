package host

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// What is kept of what a plugin logs.
const (
	maxLine     = 1 << 10 // bytes of a message, and of its fields
	maxPairs    = 16
	lineRate    = 20 // lines a second, in the long run
	lineBurst   = 200
	lineBuffer  = 16 << 10 // a longer line comes in pieces
	maxSecrets  = 64
	minSecret   = 8 // contract §4.1; what is shorter is no challenge, and would tear up the text
	redacted    = "[challenge]"
	toldMessage = "plugin says"
)

// voiceOfPlugin is the name under which go-plugin logs what the plugin wrote.
const voiceOfPlugin = "plugin"

// voice is go-plugin's logger. What the plugin says comes out bounded, escaped,
// not too often, at its own level and within one field, so that it cannot pass
// for the gateway's words. What go-plugin itself says is for debugging.
type voice struct {
	hclog.Logger // none: for what go-plugin never calls
	log          *zap.Logger
	secrets      *secrets
	plugin       bool
	limit        *rate.Limiter
	dropped      *dropped
}

type dropped struct {
	mu sync.Mutex
	n  uint64
}

func newVoice(log *zap.Logger, s *secrets) *voice {
	return &voice{
		Logger: hclog.NewNullLogger(), log: log, secrets: s,
		limit: rate.NewLimiter(lineRate, lineBurst), dropped: new(dropped),
	}
}

func (v *voice) Named(name string) hclog.Logger {
	sub := *v
	sub.plugin = name == voiceOfPlugin
	return &sub
}

func (v *voice) With(...any) hclog.Logger { return v }

func (v *voice) GetLevel() hclog.Level {
	if v.log.Core().Enabled(zapcore.DebugLevel) {
		return hclog.Trace
	}
	return hclog.Info
}

func (v *voice) Trace(msg string, args ...any) { v.Log(hclog.Trace, msg, args...) }
func (v *voice) Debug(msg string, args ...any) { v.Log(hclog.Debug, msg, args...) }
func (v *voice) Info(msg string, args ...any)  { v.Log(hclog.Info, msg, args...) }
func (v *voice) Warn(msg string, args ...any)  { v.Log(hclog.Warn, msg, args...) }
func (v *voice) Error(msg string, args ...any) { v.Log(hclog.Error, msg, args...) }

func (v *voice) Log(level hclog.Level, msg string, args ...any) {
	at := zapcore.DebugLevel
	if v.plugin {
		switch level {
		case hclog.Info:
			at = zapcore.InfoLevel
		case hclog.Warn:
			at = zapcore.WarnLevel
		case hclog.Error:
			at = zapcore.ErrorLevel
		}
	}
	if !v.log.Core().Enabled(at) || !v.allowed() {
		return
	}
	about := toldMessage
	if !v.plugin {
		about = "plugin connection"
	}
	fields := []zap.Field{zap.String("said", v.line(msg))}
	if len(args) > 1 {
		fields = append(fields, zap.String("with", v.line(pairs(args))))
	}
	v.log.Log(at, about, fields...)
}

// allowed counts what is too much, and says so when there is room again.
func (v *voice) allowed() bool {
	v.dropped.mu.Lock()
	defer v.dropped.mu.Unlock()
	if !v.limit.Allow() {
		v.dropped.n++
		return false
	}
	if v.dropped.n > 0 {
		v.log.Warn("plugin says too much", zap.Uint64("lines_dropped", v.dropped.n))
		v.dropped.n = 0
	}
	return true
}

func (v *voice) line(s string) string { return printable(v.secrets.without(s), maxLine) }

func pairs(args []any) string {
	var b strings.Builder
	for i := 0; i+1 < len(args) && i < 2*maxPairs; i += 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%v=%v", args[i], args[i+1])
	}
	return b.String()
}

// secrets are the challenges that were revealed to the plugin lately. It may
// know them; the log may not, so what it says is searched for them (invariant 8).
type secrets struct {
	mu   sync.Mutex
	last [maxSecrets]string
	next int
}

func (s *secrets) add(challenge string) {
	if len(challenge) < minSecret {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[s.next%maxSecrets] = challenge
	s.next++
}

func (s *secrets) without(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, challenge := range s.last {
		if challenge != "" {
			text = strings.ReplaceAll(text, challenge, redacted)
		}
	}
	return text
}
