package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestWhatPluginInfoPrintsIsReadBackAsItIs(t *testing.T) {
	for _, s := range []string{`C:\data\`, `a\"b`, `a"b`, `{x}`, "a\nb", `\`, "`", `<<EOF`, `#x`, "", "plain", "two words"} {
		tokens, err := caddyfile.Tokenize([]byte("url "+quoted(s)+"\nnext x\n"), "f")
		if err != nil || len(tokens) != 4 || tokens[1].Text != s {
			t.Errorf("%q is printed as %s and read as %v, %v", s, quoted(s), tokens, err)
		}
	}
}
