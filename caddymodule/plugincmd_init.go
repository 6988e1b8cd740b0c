package caddymodule

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

const ownModule = "github.com/scepgate/scepgate"

//go:embed plugincmd_template
var pluginTemplates embed.FS

// What the template's files are called where they go. A go.mod, and Go code for
// another module, cannot stand in this one under their own names.
var pluginFiles = map[string]string{
	"go.mod.tmpl": "go.mod", "main.go.tmpl": "main.go", "main_test.go.tmpl": "main_test.go",
	"cases.ndjson.tmpl": "cases.ndjson", "Makefile.tmpl": "Makefile", "README.md.tmpl": "README.md", "gitignore.tmpl": ".gitignore",
}

func pluginInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init <dir>",
		Short: "Writes a plugin to begin with, in Go, with a test",
		Long: `
Writes a small matcher that compiles, with a test, cases and a Makefile, into a
folder that does not exist or is empty. The folder's name becomes the matcher's.

Exit status: 0 it was written, 1 anything else.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			return initPlugin(args[0], ownVersion(), cmd.OutOrStdout())
		},
	}
}

// pluginModule is what the template is filled with.
type pluginModule struct {
	Name        string
	Module      string // ours
	Version     string // that the running binary has
	Go          string
	Checkout    string // the folder of ours that the running binary was built in, if it is there
	Development bool
}

func initPlugin(dir string, m pluginModule, out io.Writer) error {
	path, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	m.Name = matcherName(filepath.Base(path))
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty", dir)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	templates, err := template.ParseFS(pluginTemplates, "plugincmd_template/*.tmpl")
	if err != nil {
		return err
	}
	for from, to := range pluginFiles {
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, from, m); err != nil {
			return err
		}
		if err := writeNew(filepath.Join(path, to), text.Bytes()); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "matcher %s is in %s. Next:\n\n%s", m.Name, dir, m.next(dir))
	return err
}

func (m *pluginModule) next(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tcd %s\n", dir)
	if m.Development && m.Checkout == "" {
		fmt.Fprintf(&b, "\tgo mod edit -replace %s=/path/to/scepgate   # this is a development build\n", ownModule)
	}
	fmt.Fprintf(&b, "\tgo mod tidy\n\tmake check\n\tscepgate scep plugin info ./%s\n", m.Name)
	return b.String()
}

// writeNew writes a file that must not exist.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

var notInName = regexp.MustCompile(`[^a-z0-9_-]+`)

// matcherName makes a matcher's name, and a binary's, of a folder's.
func matcherName(base string) string {
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "-"), "-_")
	if name == "" {
		return "matcher"
	}
	return name[:min(len(name), 48)]
}

// ownVersion says which version of this module runs, and where it comes from.
func ownVersion() pluginModule {
	m := pluginModule{Module: ownModule, Version: "v0.0.0", Development: true}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range append(info.Deps, &info.Main) {
			if module.Path == ownModule && module.Replace == nil && released(module.Version) {
				m.Version, m.Development = module.Version, false
			}
		}
	}
	m.Go = goVersion(runtime.Version())
	if _, file, _, ok := runtime.Caller(0); ok && m.Development && filepath.IsAbs(file) { // not with -trimpath
		root := filepath.Dir(filepath.Dir(file))
		if mod, err := os.ReadFile(filepath.Join(root, "go.mod")); err == nil && bytes.HasPrefix(mod, []byte("module "+ownModule+"\n")) {
			m.Checkout = root
		}
	}
	return m
}

var (
	release     = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)
	unpublished = regexp.MustCompile(`\d{14}-[0-9a-f]{12}$`)
	goRelease   = regexp.MustCompile(`^go(1\.\d+)`)
)

// released reports whether a version can be had by its name. What Go makes up of
// a commit may never have been published, and what ends in +dirty was not.
func released(version string) bool {
	return release.MatchString(version) && !unpublished.MatchString(version)
}

// goVersion is what a go.mod says of it: the language's.
func goVersion(running string) string {
	if m := goRelease.FindStringSubmatch(running); m != nil {
		return m[1]
	}
	return "1.26"
}
