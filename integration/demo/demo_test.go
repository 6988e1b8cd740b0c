package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestDemoGoesAsTheREADMESays(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the real binary")
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, false); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	// The README shows this session.
	_, table, _ := strings.Cut(out.String(), "\n\n")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table) {
		t.Errorf("the README's session is not what the demo printed:\n%s", table)
	}
}

func TestTableReportsARowThatWentWrong(t *testing.T) {
	var out bytes.Buffer
	if failed := printTable(&out, []*row{{who: "a"}, {who: "b", problems: []string{"issued"}}}); failed != 1 {
		t.Errorf("failed = %d, want 1\n%s", failed, out.String())
	}
	if !bytes.Contains(out.Bytes(), []byte("b: issued")) {
		t.Errorf("the table does not say what went wrong:\n%s", out.String())
	}
}
