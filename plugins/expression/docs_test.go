package expression_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/expression"
)

// The page's expressions are those of its Caddyfile blocks, and the rows of its tables.
var documented = regexp.MustCompile("(?m)matcher expression `([^`]+)`|^\\| `([^`]+)` \\| agrees")

func TestThePagesExpressionsCompile(t *testing.T) {
	page, err := os.ReadFile("../../docs/matchers/expression.md")
	if err != nil {
		t.Fatal(err)
	}
	found := documented.FindAllSubmatch(page, -1)
	if len(found) < 8 {
		t.Fatalf("the page has %d expressions", len(found))
	}
	for _, f := range found {
		text := string(f[1]) + string(f[2])
		if _, err := expression.New(expression.Config{Expression: text, Reveal: true, Decides: []plugins.Field{plugins.Subject}}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
