package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scepgate/scepgate/gate"
)

// maxJSONDepth bounds nesting; the deepest document of the API has six levels.
const maxJSONDepth = 16

// maxPointer bounds a JSON pointer in an answer, in bytes.
const maxPointer = 200

// decodeStrict reads exactly one JSON document into v, which points to a
// struct or slice, and reports everything in it that encoding/json would let
// pass: unknown and duplicate keys, keys in another case, null inside a list,
// text that is not Unicode, trailing data. With a problem v is not touched.
//
// A validator and a reader behind it that disagree about a duplicate key is how
// a check is walked around, so there is no lenient reading.
func decodeStrict(data []byte, v any) []gate.Problem {
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		detail := "not one JSON document"
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			detail = fmt.Sprintf("not one JSON document: error at byte %d", syntax.Offset)
		}
		return []gate.Problem{{Code: "invalid_json", Detail: detail}}
	}
	d := strictDecoder{dec: json.NewDecoder(bytes.NewReader(data))}
	d.dec.UseNumber()
	if err := d.value("", reflect.TypeOf(v).Elem(), false, 0); err != nil {
		d.add("", "invalid_json", "not one JSON document")
	}
	if len(d.problems) > 0 {
		return d.problems
	}
	if err := json.Unmarshal(data, v); err != nil {
		return []gate.Problem{{Code: "invalid_json", Detail: "not acceptable as JSON"}}
	}
	return nil
}

type strictDecoder struct {
	dec      *json.Decoder
	problems []gate.Problem
}

// errStop ends the walk early; what was found so far is reported.
var errStop = errors.New("stop")

func (d *strictDecoder) add(pointer, code, detail string) {
	if len(d.problems) < maxProblemErrors {
		d.problems = append(d.problems, gate.Problem{Pointer: boundPointer(pointer), Code: code, Detail: detail})
	}
}

// value walks one value against t; a nil t is a subtree that was already
// refused and is only walked over.
func (d *strictDecoder) value(pointer string, t reflect.Type, nullable bool, depth int) error {
	if depth > maxJSONDepth {
		d.add(pointer, "too_deep", "nested too deeply")
		return errStop
	}
	token, err := d.dec.Token()
	if err != nil {
		return err
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return d.object(pointer, t, depth)
		}
		return d.array(pointer, t, depth)
	case string:
		d.text(pointer, token)
		switch {
		case t == nil || t.Kind() == reflect.String:
		case t == timeType:
			if _, err := time.Parse(time.RFC3339, token); err != nil || strings.ContainsRune(token, ',') { // which Go takes
				d.add(pointer, "wrong_type", "must be an RFC 3339 time")
			}
		default:
			d.wrongType(pointer, t)
		}
	case json.Number:
		switch {
		case t == nil:
		case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
			if _, err := strconv.ParseInt(token.String(), 10, t.Bits()); err != nil {
				d.add(pointer, "wrong_type", "must be a whole number in range")
			}
		default:
			d.wrongType(pointer, t)
		}
	case bool:
		if t != nil && t.Kind() != reflect.Bool {
			d.wrongType(pointer, t)
		}
	case nil:
		if t != nil && !nullable {
			d.wrongType(pointer, t)
		}
	}
	return nil
}

func (d *strictDecoder) object(pointer string, t reflect.Type, depth int) error {
	var fields map[string]reflect.Type
	var element reflect.Type
	switch {
	case t == nil:
	case t.Kind() == reflect.Struct && t != timeType:
		fields = jsonFields(t)
	case t.Kind() == reflect.Map:
		element = t.Elem()
	default:
		d.wrongType(pointer, t)
		t = nil
	}
	seen := make(map[string]bool)
	for d.dec.More() {
		token, err := d.dec.Token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return errStop
		}
		at := pointer + "/" + pointerEscaper.Replace(key)
		d.text(at, key)
		if seen[key] {
			d.add(at, "duplicate_field", "appears more than once")
		}
		seen[key] = true
		field := element
		if fields != nil {
			if field, ok = fields[key]; !ok {
				d.add(at, "unknown_field", "is not a known field")
			}
		}
		if err := d.value(at, field, fields != nil, depth+1); err != nil {
			return err
		}
	}
	_, err := d.dec.Token()
	return err
}

func (d *strictDecoder) array(pointer string, t reflect.Type, depth int) error {
	var element reflect.Type
	switch {
	case t == nil:
	case t.Kind() == reflect.Slice:
		element = t.Elem()
	default:
		d.wrongType(pointer, t)
	}
	for i := 0; d.dec.More(); i++ {
		if err := d.value(pointer+"/"+strconv.Itoa(i), element, false, depth+1); err != nil {
			return err
		}
	}
	_, err := d.dec.Token()
	return err
}

// text refuses what encoding/json silently replaces: bytes that are not UTF-8
// and lone surrogates both arrive here as U+FFFD, and two different inputs
// must never become one name.
func (d *strictDecoder) text(pointer, s string) {
	if strings.ContainsRune(s, utf8.RuneError) {
		d.add(pointer, "invalid_text", "is not valid Unicode text")
	}
}

func (d *strictDecoder) wrongType(pointer string, t reflect.Type) {
	want := "a value of another type"
	switch {
	case t == timeType:
		want = "an RFC 3339 time"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		want = "an object"
	case t.Kind() == reflect.Slice:
		want = "a list"
	case t.Kind() == reflect.String:
		want = "a string"
	case t.Kind() == reflect.Bool:
		want = "true or false"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		want = "a whole number"
	}
	d.add(pointer, "wrong_type", "must be "+want)
}

var (
	timeType       = reflect.TypeFor[time.Time]()
	pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1") // RFC 6901 §3
)

// jsonFields maps the JSON names of t's fields to their types.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "" && name != "-" {
			fields[name] = f.Type
		}
	}
	return fields
}

func boundPointer(p string) string {
	if len(p) <= maxPointer {
		return p
	}
	return strings.ToValidUTF8(p[:maxPointer], "") + "…"
}
