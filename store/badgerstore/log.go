package badgerstore

import (
	"fmt"
	"log/slog"
	"strings"
)

// logger gives Badger's lines to slog, one level down: its news are not an operator's.
type logger struct{ *slog.Logger }

func (l logger) Errorf(f string, a ...any)   { l.Error("badger", "text", line(f, a)) }
func (l logger) Warningf(f string, a ...any) { l.Warn("badger", "text", line(f, a)) }
func (l logger) Infof(f string, a ...any)    { l.Debug("badger", "text", line(f, a)) }
func (l logger) Debugf(string, ...any)       {} // per transaction, with keys

func line(f string, a []any) string {
	return fmt.Sprintf("%.512s", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
