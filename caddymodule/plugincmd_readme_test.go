package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePluginOfTheREADMEWorks(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "\n## Plugins\n")
	if !ok {
		t.Fatal("README.md has no section Plugins")
	}
	_, program, ok := strings.Cut(section, "\n```go\n")
	if !ok {
		t.Fatal("no program in the section")
	}
	program, _, _ = strings.Cut(program, "```\n")
	dir := fromTemplate(t, "office")
	if err := os.Remove(filepath.Join(dir, "main_test.go")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	goTool(t, dir, "vet", "./...")
	goTool(t, dir, "build", "-o", "office", ".")
	binary := filepath.Join(dir, "office")
	if out, log, err := runPlugin(t, "test", "--conformance", binary); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, log)
	}
	info, _, err := runPlugin(t, "info", binary)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(info, "sha256")
	if !strings.Contains(section, head) {
		t.Errorf("the section does not show what info prints:\n%s", info)
	}
}
