//go:build !windows

package host

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var row = regexp.MustCompile("(?m)^\\| .+ \\| ([^|]+) \\| (?:`([a-z_]+)`)? ?\\| `(\\w+)` \\|$")

func TestEveryRowOfThePageIsASubtestThatFindsWhatItSays(t *testing.T) {
	page, err := os.ReadFile("../../docs/matchers/exec.md")
	if err != nil {
		t.Fatal(err)
	}
	type line struct{ Subtest, Device, Cause string }
	var said, tested []line
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		said = append(said, line{Subtest: m[3], Device: m[1], Cause: m[2]})
	}
	for _, m := range misbehaviours {
		device := map[string]string{"": "503, the next is answered", "refused": "the uniform refusal", "goes on": "its answers"}[m.device]
		if m.down {
			device = `503\*`
		}
		tested = append(tested, line{Subtest: strings.ReplaceAll(m.name, " ", "_"), Device: device, Cause: string(m.cause)})
	}
	if diff := cmp.Diff(tested, said); diff != "" {
		t.Errorf("what is tested (-) and what the page says (+):\n%s", diff)
	}
}

func TestThePageKnowsEveryCause(t *testing.T) {
	page, err := os.ReadFile("../../docs/matchers/exec.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("cause.go")
	if err != nil {
		t.Fatal(err)
	}
	causes := regexp.MustCompile(`Cause = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(causes) < 10 {
		t.Fatalf("only %d causes found", len(causes))
	}
	for _, c := range causes {
		if !strings.Contains(string(page), "`"+c[1]+"`") {
			t.Errorf("the page does not know %s", c[1])
		}
	}
}
