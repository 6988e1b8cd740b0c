package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

// catalogue is how many rows each section of the threat catalogue has.
var catalogue = []struct {
	section string
	rows    int
}{{"A", 20}, {"B", 44}, {"C", 79}, {"D", 33}, {"E", 35}, {"F", 36}}

func ids() []string {
	var all []string
	for _, c := range catalogue {
		for n := 1; n <= c.rows; n++ {
			all = append(all, fmt.Sprintf("%s%02d", c.section, n))
		}
	}
	return all
}

// listed gives the rows that docs/threat-model.md says no request can show.
func listed(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-F]\d\d) \| (.+) \|$`).FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("docs/threat-model.md lists %s twice", m[1])
		}
		rows[m[1]] = m[2]
	}
	return rows
}

func TestEveryRowOfTheCatalogueIsPlayedOrListedWithItsReason(t *testing.T) {
	played := map[string]bool{}
	for _, v := range vectors() {
		played[v.row] = true
	}
	exceptions := listed(t)
	for _, id := range ids() {
		reason, excepted := exceptions[id]
		switch {
		case !played[id] && !excepted:
			t.Errorf("%s has no vector, and docs/threat-model.md does not say why", id)
		case played[id] && excepted:
			t.Errorf("%s has vectors and is listed as an exception: %s", id, reason)
		case excepted && len(reason) < 30:
			t.Errorf("%s is listed without a reason: %q", id, reason)
		}
		delete(exceptions, id)
	}
	for id := range exceptions {
		t.Errorf("docs/threat-model.md lists %s, which the catalogue does not have", id)
	}
}

// The numbers above are those of the catalogue itself, where it is at hand.
func TestTheCatalogueHasTheseRows(t *testing.T) {
	shared := os.Getenv("SCEPGATE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	text, err := os.ReadFile(filepath.Join(shared, "facts", "threats.md"))
	if err != nil {
		t.Skip("no catalogue: SCEPGATE_SHARED names no folder with facts/threats.md")
	}
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-F]\d\d) \|`).FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, m[1])
	}
	slices.Sort(rows)
	if !slices.Equal(rows, ids()) {
		t.Errorf("the catalogue has %d rows: %v", len(rows), rows)
	}
}

func TestEveryVectorSaysWhatItDemands(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors() {
		name := v.row + " " + v.variant
		if v.variant == "" || seen[name] {
			t.Errorf("%q is there twice, or says nothing", name)
		}
		seen[name] = true
		ways := 0
		for _, there := range []bool{v.message != nil, v.request != nil, v.act != nil} {
			if there {
				ways++
			}
		}
		if v.want != forwarded && ways != 1 || ways > 1 {
			t.Errorf("%s: %d ways of sending", name, ways)
		}
		switch v.want {
		case rej, rejStrike:
			if v.reason == "" && v.act == nil {
				t.Errorf("%s: no reason that the operator must read", name)
			}
		case pre, failed:
			if v.status < 400 && v.act == nil {
				t.Errorf("%s: no status", name)
			}
		case cfg, asDescribed:
			if v.act == nil {
				t.Errorf("%s: nothing is done", name)
			}
		case forwarded:
		default:
			t.Errorf("%s: kind %q", name, v.want)
		}
	}
}

// The suite itself, on the real binary.
func TestEveryAttackIsAnsweredAsRequired(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the real binary")
	}
	dir := t.TempDir()
	binary, err := gateway.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := newStage(ctx, binary, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.settle(); err != nil {
		t.Fatal(err)
	}
	for i, v := range vectors() {
		for _, p := range s.play(&v, i).problems {
			t.Errorf("%s, %s: %s", v.row, v.variant, p)
		}
	}

	// The same gateway, as somebody sees it who can register nothing there.
	remote, err := newRemoteStage(s.Devices["wifi"], s.RA)
	if err != nil {
		t.Fatal(err)
	}
	remote.reference = s.reference
	n := 0
	for i, v := range vectors() {
		if !v.remote() {
			continue
		}
		n++
		for _, p := range remote.play(&v, i).problems {
			t.Errorf("from outside: %s, %s: %s", v.row, v.variant, p)
		}
	}
	if n < len(vectors())/4 {
		t.Errorf("only %d of %d vectors mean something from outside", n, len(vectors()))
	}
	remote.Client.CloseIdleConnections()
	for _, p := range s.aftermath(t.Context()) {
		t.Error(p)
	}
}

// Without a gateway in front, the same requests must fail the suite: a
// credulous server issues what is asked for.
func TestTheSuiteFailsAgainstAnUnguardedServer(t *testing.T) {
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server.Handler())
	defer h.Close()
	s, err := newRemoteStage(h.URL, server.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Client.CloseIdleConnections()
	var out bytes.Buffer
	r := report{out: &out}
	for i, v := range vectors() {
		if v.remote() && strings.HasPrefix(v.row, "C") {
			r.vector(s.play(&v, i))
		}
	}
	if r.foot() || r.failures < r.vectors/4 {
		t.Errorf("%d failures in %d vectors", r.failures, r.vectors)
	}
	if len(server.Issued()) == 0 {
		t.Error("the unguarded server issued nothing: the vectors are no attacks")
	}
}
