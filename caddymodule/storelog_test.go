package caddymodule

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestAStoreLogsWhereTheRunningConfigurationSays(t *testing.T) {
	ownCaddy(t)
	dir := t.TempDir()
	logger := slog.New(storeLog{}).WithGroup("badger").With("folder", "data")
	for _, file := range []string{dir + "/first.log", dir + "/second.log"} {
		config := fmt.Sprintf(`{"admin":{"disabled":true,"config":{"persist":false}},"logging":{"logs":{"default":{"level":"WARN","writer":{"output":"file","filename":%q,"roll":false}}}}}`, file)
		if err := caddy.Load([]byte(config), true); err != nil {
			t.Fatal(err)
		}
		logger.Warn("odd", "line", 7)
		logger.Info("not worth a line")
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"logger":"scep.store","msg":"odd"`, `"badger.folder":"data"`, `"badger.line":7`} {
			if strings.Count(string(raw), want) != 1 {
				t.Errorf("%s is not once in %s", want, raw)
			}
		}
		if strings.Contains(string(raw), "not worth") {
			t.Errorf("logged below the level: %s", raw)
		}
	}
}
