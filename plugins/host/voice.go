package host

import (
	"fmt"
	"net/url"
	"strconv"
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
	maxSecrets  = 256
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

// secrets are the challenges that are revealed to the plugin, and those that
// were lately. It may say them in its log; the gateway's does not.
type secrets struct {
	mu   sync.Mutex
	held map[string]int // of calls in flight
	last [maxSecrets]string
	next int
}

// hold hides challenge while a call is in flight, and for a while after it:
// release is called when it has ended.
func (s *secrets) hold(challenge string) (release func()) {
	if len(challenge) < minSecret {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(map[string]int)
	}
	s.held[challenge]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[challenge]--; s.held[challenge] <= 0 {
			delete(s.held, challenge)
		}
		s.last[s.next%maxSecrets] = challenge
		s.next++
	}
}

// without is text with every such challenge taken out, also as %q and a URL
// would write it.
func (s *secrets) without(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hide := func(challenge string) {
		quoted := strconv.Quote(challenge)
		for _, form := range []string{challenge, quoted[1 : len(quoted)-1], url.QueryEscape(challenge), url.PathEscape(challenge), strings.ToLower(challenge), strings.ToUpper(challenge)} {
			text = strings.ReplaceAll(text, form, redacted)
		}
	}
	for challenge := range s.held {
		hide(challenge)
	}
	for _, challenge := range s.last {
		if challenge != "" {
			hide(challenge)
		}
	}
	return text
}
