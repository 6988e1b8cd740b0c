package host

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestTooManyLinesAreCountedInsteadOfLogged(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	v := newVoice(zap.New(core), new(secrets)).Named(voiceOfPlugin)
	for range 10 * lineBurst {
		v.Warn("again")
	}
	if n := logs.Len(); n < lineBurst || n > 2*lineBurst {
		t.Errorf("%d lines", n)
	}
	v.(*voice).limit.SetBurst(100 * lineBurst)
	v.(*voice).limit.SetLimit(1e9)
	eventually(t, "room for a line", func() bool { v.Warn("once more"); return logs.FilterMessage("plugin says too much").Len() == 1 })
	if n, _ := logs.FilterMessage("plugin says too much").All()[0].ContextMap()["lines_dropped"].(uint64); n < 8*lineBurst {
		t.Errorf("%d dropped", n)
	}
}

func TestWhatIsNotLoggedCostsNoLine(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	v := newVoice(zap.New(core), new(secrets)).Named(voiceOfPlugin)
	if v.GetLevel() != hclog.Info {
		t.Errorf("go-plugin would format for %s", v.GetLevel())
	}
	for range 10 * lineBurst {
		v.Debug("not at this level")
	}
	v.Info("but this")
	if logs.Len() != 1 {
		t.Errorf("%d lines", logs.Len())
	}
}

func TestTheLastChallengesAreKnownAndNoText(t *testing.T) {
	s := new(secrets)
	s.hold("e")() // would tear up every text
	s.hold("")()
	inFlight := s.hold("Held \"7\"/x")
	for i := range 2 * maxSecrets {
		s.hold(fmt.Sprintf("challenge%04d", i))()
	}
	got := s.without(fmt.Sprintf("see challenge%04d and challenge%04d, not challenge%04d", 2*maxSecrets-1, maxSecrets, maxSecrets-1))
	if want := fmt.Sprintf("see [challenge] and [challenge], not challenge%04d", maxSecrets-1); got != want {
		t.Errorf("%q", got)
	}
	for _, form := range []string{`Held "7"/x`, `held "7"/x`, `Held \"7\"/x`, "Held+%227%22%2Fx"} {
		if got := s.without("a " + form + " b"); got != "a [challenge] b" {
			t.Errorf("%q", got)
		}
	}
	inFlight()
	if got := s.without(`Held "7"/x`); got != redacted {
		t.Errorf("just after: %q", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"plain … text":          "plain … text",
		"a\nb\x1b[31m\xff\t":    `a\u{000A}b\u{001B}[31m\xFF\u{0009}`,
		"right\u202eleft\u200b": `right\u{202E}left\u{200B}`,
		strings.Repeat("x", 41): strings.Repeat("x", 37) + "…",
		strings.Repeat("x", 40): strings.Repeat("x", 40),
		strings.Repeat("\n", 9): strings.Repeat(`\u{000A}`, 4) + "…",
	} {
		if got := printable(in, 40); got != want || len(got) > 40 {
			t.Errorf("%q gives %q (%d)", in, got, len(got))
		}
	}
}

func TestLinesComeOutWholeHoweverTheyWereSent(t *testing.T) {
	long := strings.Repeat("x", 2*lineBuffer+1)
	sent := "[WARN] plain\n\n{\"@level\":\"error\",\"@message\":\"structured\",\"b\":2,\"a\":[1]}\r\n{\"@level\":\"error\"\n" + long + "\n[INFO] last\n"
	for _, size := range []int{1, 2, 7, 1024, len(sent)} {
		core, logs := observer.New(zap.DebugLevel)
		s := &stderrStream{to: newVoice(zap.New(core), new(secrets)).Named(voiceOfPlugin)}
		for b := []byte(sent); len(b) > 0; {
			n := min(size, len(b))
			if wrote, err := s.Write(b[:n]); wrote != n || err != nil {
				t.Fatal(wrote, err)
			}
			b = b[n:]
		}
		var got []string
		for _, e := range logs.All() {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %.30s %v", e.Level, e.ContextMap()["said"], e.ContextMap()["with"])))
		}
		x := "debug " + strings.Repeat("x", 30) + " <nil>"
		want := []string{"warn [WARN] plain <nil>", "error structured a=[1] b=2", `debug {"@level":"error" <nil>`, x, x, "debug x <nil>", "info [INFO] last <nil>"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes at a time: %s", size, diff)
		}
	}
}
