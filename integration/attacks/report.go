package main

import (
	"fmt"
	"io"
	"strings"
)

// report writes what an auditor wants to see: one line for each vector.
type report struct {
	out      io.Writer
	row      string
	rows     int
	vectors  int
	failures int
}

func (r *report) head(s *stage) {
	where := "a gateway of its own in front of a recording upstream"
	if s.Remote {
		where = s.Devices["wifi"]
	}
	fmt.Fprintf(r.out, "scepgate conformance suite, against %s\n\n", where)
	fmt.Fprintf(r.out, "%-3s  %-4s  %-72s  %-34s  %s\n", "row", "must", "sent", "came back", "operator saw")
}

func (r *report) vector(t *try) {
	r.vectors++
	row := t.V.row
	if row == r.row {
		row = ""
	} else {
		r.row = row
		r.rows++
	}
	must := string(t.V.want)
	if t.V.want == asDescribed {
		must = "step"
	}
	fmt.Fprintf(r.out, "%-3s  %-4s  %-72s  %-34s  %s\n", row, must, t.V.variant, runs(t.back), runs(t.operator))
	for _, p := range t.problems {
		r.failures++
		fmt.Fprintf(r.out, "     FAILED: %s\n", p)
	}
}

func (r *report) aftermath(problems []string) {
	fmt.Fprintln(r.out)
	if len(problems) == 0 {
		fmt.Fprintln(r.out, "Afterwards: no goroutine left, no panic, and no challenge in log, metrics, configuration, listings or files.")
	}
	for _, p := range problems {
		r.failures++
		fmt.Fprintf(r.out, "FAILED: %s\n", p)
	}
}

// foot sums up and reports whether all went as it must.
func (r *report) foot() bool {
	fmt.Fprintf(r.out, "%d rows of the catalogue in %d vectors: ", r.rows, r.vectors)
	if r.failures == 0 {
		fmt.Fprintln(r.out, "every answer was as required.")
	} else {
		fmt.Fprintf(r.out, "%d failures.\n", r.failures)
	}
	return r.failures == 0
}

// runs joins what happened one after the other, and counts repetitions.
func runs(list []string) string {
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j < len(list) && list[j] == list[i] {
			j++
		}
		part := list[i]
		if j-i > 1 {
			part = fmt.Sprintf("%d× %s", j-i, part)
		}
		parts = append(parts, part)
		i = j
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, ", then ")
}
