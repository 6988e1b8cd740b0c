package host

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// stderrStream takes what a plugin writes to os.Stderr once it serves. It comes
// over the connection then, in pieces that end anywhere, and go-plugin does not
// look into it as it does before.
type stderrStream struct {
	to   hclog.Logger
	rest []byte
}

func (s *stderrStream) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, after, whole := bytes.Cut(b, []byte("\n"))
		if room := lineBuffer - len(s.rest); len(line) > room {
			line, after, whole = line[:room], b[room:], true
		}
		s.rest = append(s.rest, line...)
		b = after
		if whole {
			say(s.to, string(s.rest))
			s.rest = s.rest[:0]
		}
	}
	return n, nil
}

// say logs a line at the level that it names, in hclog's JSON or in front.
func say(to hclog.Logger, line string) {
	line = strings.TrimRight(line, "\r")
	if line == "" {
		return
	}
	if said, fields, ok := structured(line); ok {
		to.Log(hclog.LevelFromString(said.Level), said.Message, fields...)
		return
	}
	level := hclog.Debug
	for _, l := range []hclog.Level{hclog.Info, hclog.Warn, hclog.Error} {
		if strings.HasPrefix(line, "["+strings.ToUpper(l.String())+"]") {
			level = l
		}
	}
	to.Log(level, line)
}

type entry struct {
	Level   string `json:"@level"`
	Message string `json:"@message"`
}

func structured(line string) (said entry, fields []any, ok bool) {
	var all map[string]any
	b := []byte(line)
	if json.Unmarshal(b, &said) != nil || said.Message == "" || json.Unmarshal(b, &all) != nil {
		return entry{}, nil, false
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(k, "@") {
			fields = append(fields, k, all[k])
		}
	}
	return said, fields, true
}
