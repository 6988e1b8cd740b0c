package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/scepgate/scepgate/plugins"
)

// table is the inventory by common name.
type table map[string]device

type device struct {
	status string
	names  plugins.Expectation // only subject and alternative names
}

// columns are those that are read, with the OIDs of those that are parts of the subject.
var columns = map[string]string{
	"serial": "", "status": "",
	"cn": "2.5.4.3", "o": "2.5.4.10", "ou": "2.5.4.11",
	"dns": "", "email": "", "upn": "", "ip": "", "uri": "",
}

var (
	needed       = []string{"serial", "status", "cn"}
	unique       = []string{"serial", "cn"}
	subjectParts = []string{"cn", "ou", "o"}
	altNames     = []string{"dns", "email", "upn", "ip", "uri"}
)

// parse reads a whole inventory or nothing of it.
func parse(text []byte) (table, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // Excel writes it
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8: save it as \"CSV UTF-8\"")
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, errors.New("ends within a line: half of it may be missing")
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("its first line, which names the columns: %w", err)
	}
	at := make(map[string]int)
	for i, name := range head {
		name = strings.ToLower(strings.TrimSpace(name))
		if _, known := columns[name]; !known {
			continue
		}
		if _, twice := at[name]; twice {
			return nil, fmt.Errorf("two columns are named %s", name)
		}
		at[name] = i
	}
	for _, name := range needed {
		if _, ok := at[name]; !ok {
			return nil, fmt.Errorf("no column is named %s, and columns are divided by commas", name)
		}
	}
	out, seen := make(table), map[string]map[string]int{}
	for _, what := range unique {
		seen[what] = make(map[string]int)
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err // it names line and column
		}
		line, _ := r.FieldPos(0)
		cells := make(map[string]string, len(at))
		for name, i := range at {
			cell, err := clean(row[i])
			if err != nil {
				return nil, fmt.Errorf("line %d, %s: %w", line, name, err)
			}
			cells[name] = cell
		}
		for _, name := range needed {
			if cells[name] == "" {
				return nil, fmt.Errorf("line %d: no %s", line, name)
			}
		}
		// Which of two rows is meant is not for this program to guess.
		for _, what := range unique {
			if first, twice := seen[what][cells[what]]; twice {
				return nil, fmt.Errorf("lines %d and %d have the same %s", first, line, what)
			}
			seen[what][strings.Clone(cells[what])] = line
		}
		out[strings.Clone(cells["cn"])] = device{status: status(cells["status"]), names: names(cells)}
	}
}

// clean is a cell without the blanks around it. What a spreadsheet would compute
// shows its owner something else than what stands in the file, so it is no name.
func clean(cell string) (string, error) {
	cell = strings.TrimSpace(cell)
	if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
		return "", fmt.Errorf("begins with %q, which a spreadsheet takes for a formula", cell[:1])
	}
	if strings.ContainsFunc(cell, unicode.IsControl) {
		return "", errors.New("holds a control character")
	}
	return cell, nil
}

func status(word string) string {
	switch word = strings.ToLower(word); word {
	case "active", "retired":
		return word
	}
	return ""
}

// names is what a row allows, as the gateway writes an expectation.
func names(cells map[string]string) (e plugins.Expectation) {
	for _, part := range subjectParts {
		if v := cells[part]; v != "" {
			e.Subject = append(e.Subject, []plugins.ExpectedAttribute{{Type: columns[part], Match: "exact", Value: strings.Clone(v)}})
		}
	}
	for _, kind := range altNames {
		values := map[string]bool{} // one that stands twice is still one name
		for v := range strings.FieldsSeq(cells[kind]) {
			values[strings.Clone(v)] = true
		}
		for _, v := range slices.Sorted(maps.Keys(values)) {
			e.SAN = append(e.SAN, plugins.ExpectedAltNames{Type: kind, Match: "exact", Value: v, Min: 1, Max: 1})
		}
	}
	return e
}
