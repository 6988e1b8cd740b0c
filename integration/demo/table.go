package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// printTable prints the rows and, below, what went wrong; it returns how many did.
func printTable(out io.Writer, rows []*row) (failed int) {
	cells := [][]string{{"who", "what was sent", "what came back", "what the operator saw", "NDES alone"}}
	for _, r := range rows {
		cells = append(cells, []string{r.who, r.sent, r.back, r.operator, r.alone})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, line := range cells {
		var b strings.Builder
		for i, c := range line {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
		if n == 0 {
			rule := 2 * (len(widths) - 1)
			for _, w := range widths {
				rule += w
			}
			fmt.Fprintln(out, strings.Repeat("─", rule))
		}
	}
	for _, r := range rows {
		if len(r.problems) > 0 {
			failed++
			fmt.Fprintf(out, "\n%s: %s", r.who, strings.Join(r.problems, "; "))
		}
	}
	if failed > 0 {
		fmt.Fprintln(out)
		return failed
	}
	fmt.Fprintf(out, "\nAll %d rows went as they must.\n", len(rows))
	return 0
}
