package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const maxDepth = 16

// unambiguous refuses what encoding/json lets pass: a key that stands twice, or
// in another case, and anything behind the object.
func unambiguous(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := walk(d, 0, false); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one object on the line")
	}
	return nil
}

// walk goes through one value. The keys of free are their author's own.
func walk(d *json.Decoder, depth int, free bool) error {
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := make(map[string]bool)
	for d.More() {
		labels := false
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := token.(string) // the decoder takes nothing else
			if seen[key] {
				return fmt.Errorf("%q stands twice", clip(key))
			}
			if !free && key != strings.ToLower(key) {
				return fmt.Errorf("unknown field %q", clip(key))
			}
			seen[key], labels = true, key == "labels"
		}
		if err := walk(d, depth+1, labels); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
