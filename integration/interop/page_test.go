package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// page is one client's section of docs/clients.md. Its commands are what the
// test runs, and its table is compared with what the test saw: neither rots.
type page struct {
	title    string
	text     string
	commands []string // the blocks marked sh, in order
	seen     []string // rows of the tables, as they should be
	life     []string
}

func readPage(t *testing.T, title string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+title+"\n")
	if !found {
		t.Fatalf("docs/clients.md has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	p := &page{title: title, text: section}
	for i, part := range strings.Split(section, "\n```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			p.commands = append(p.commands, block)
		}
	}
	return p
}

// command is the nth block of commands.
func (p *page) command(t *testing.T, n int) string {
	t.Helper()
	if n >= len(p.commands) {
		t.Fatalf("docs/clients.md, %s: no block %d of commands", p.title, n+1)
	}
	return p.commands[n]
}

// identityNames are how the tables call what signs a refusal.
var identityNames = map[string]string{
	encipherment: "keyEncipherment",
	signature:    "digitalSignature",
	http403:      "`http_403`",
}

// The tables of a section.
const (
	refusals  = "| refused | refusals signed with | what the user sees | exit |"
	lifeSteps = "| renewal and approval | what the user sees | exit |"
)

// saw notes what a client told its user.
func (p *page) saw(refused, profile, says string, code int) {
	p.seen = append(p.seen, fmt.Sprintf("| %s | %s | %s | %d |", refused, identityNames[profile], quotes(says), code))
}

// lived notes what a client told its user of a renewal, or of waiting. It runs
// on if code is negative.
func (p *page) lived(step, says string, code int) {
	exit := "-"
	if code >= 0 {
		exit = strconv.Itoa(code)
	}
	p.life = append(p.life, fmt.Sprintf("| %s | %s | %s |", step, quotes(dates.ReplaceAllString(says, "…")), exit))
}

// dates are as strongSwan prints them.
var dates = regexp.MustCompile(`[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \d{4}`)

func quotes(says string) string {
	var lines []string
	for line := range strings.Lines(says) {
		lines = append(lines, "`"+strings.TrimSpace(line)+"`")
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, "<br>")
}

// speaksOf is whether the section is about the version that is installed: the
// words of another one may differ.
func (p *page) speaksOf(t *testing.T, installed string) bool {
	t.Helper()
	if strings.Contains(p.text, "\nVersion: "+installed+".\n") {
		return true
	}
	t.Logf("docs/clients.md, %s speaks of another version than %s: it is not compared", p.title, installed)
	return false
}

// compare holds the section to what was seen.
func (p *page) compare(t *testing.T, installed, sends string) {
	t.Helper()
	if t.Failed() {
		return
	}
	if !p.speaksOf(t, installed) {
		return
	}
	p.compareTable(t, refusals, p.seen)
	if want := "It sends: " + sends + ".\n"; !strings.Contains(p.text, want) {
		t.Errorf("docs/clients.md, %s: does not say %q", p.title, want)
	}
}

// compareLife holds the section to what was seen of renewals and of waiting.
func (p *page) compareLife(t *testing.T, installed string) {
	t.Helper()
	if t.Failed() || !p.speaksOf(t, installed) {
		return
	}
	p.compareTable(t, lifeSteps, p.life)
}

func (p *page) compareTable(t *testing.T, header string, seen []string) {
	t.Helper()
	var rows []string
	if _, table, found := strings.Cut(p.text, header+"\n"); found {
		for line := range strings.Lines(table) {
			if !strings.HasPrefix(line, "|") {
				break
			}
			if strings.HasPrefix(line, "| ") {
				rows = append(rows, strings.TrimSpace(line))
			}
		}
	}
	if diff := cmp.Diff(seen, rows); diff != "" {
		t.Errorf("docs/clients.md, %s: the table %s is not what was seen (-seen +written):\n%s\nwhat was seen:\n%s", p.title, header, diff, strings.Join(seen, "\n"))
	}
}
