package interop

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateComparison = flag.Bool("update-comparison", false, "write the table of docs/comparison.md")

const (
	honestRow     = "**honest device**: what was registered"
	throughColumn = "through scepgate"
)

// comparison is the table: cells by row and column, the rows in order.
type comparison struct {
	rows    []string
	cells   map[string]map[string][]string
	columns []string
}

func newComparison() *comparison { return &comparison{cells: make(map[string]map[string][]string)} }

// set notes what happened; a cell that differs between servers shows each.
func (c *comparison) set(row, column, text string) {
	if c.cells[row] == nil {
		c.cells[row] = make(map[string][]string)
		c.rows = append(c.rows, row)
	}
	if !slices.Contains(c.cells[row][column], text) {
		c.cells[row][column] = append(c.cells[row][column], text)
	}
}

func (c *comparison) markdown() string {
	var b strings.Builder
	columns := append(slices.Clone(c.columns), throughColumn)
	fmt.Fprintf(&b, "| request | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, row := range c.rows {
		b.WriteString("| " + row)
		for _, column := range columns {
			b.WriteString(" | " + strings.Join(c.cells[row][column], " / "))
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// compare holds the columns of the document to what was seen, as far as their
// servers could be run, or writes the table there.
func (c *comparison) compare(t *testing.T, path string) {
	t.Helper()
	const begin, end = "<!-- begin table -->\n", "<!-- end table -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	written, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: has no place for the table", path)
	}
	if *updateComparison {
		if len(c.columns) < len(upstreams) {
			t.Fatalf("%d of %d servers were run: not written", len(c.columns), len(upstreams))
		}
		if err := os.WriteFile(path, []byte(before+begin+c.markdown()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	seen, table := cells(c.markdown()), cells(written)
	var want [][]string
	for _, line := range table {
		var kept []string
		for i, cell := range line {
			if i == 0 || i >= len(table[0]) || slices.Contains(seen[0], table[0][i]) {
				kept = append(kept, cell)
			}
		}
		want = append(want, kept)
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("%s is not what was seen (-update-comparison writes it):\n%s", path, diff)
	}
}

// cells reads a table: its header and its rows, without the line between.
func cells(table string) (lines [][]string) {
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "| "), " |")
		if !strings.HasPrefix(line, "|--") {
			lines = append(lines, strings.Split(line, " | "))
		}
	}
	return lines
}
