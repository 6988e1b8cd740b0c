package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/ndes"
)

const scepclientVersion = "v2.3.0"

// scepclientBuild is what became of `go install`, once for all tests.
var scepclientBuild struct {
	once sync.Once
	err  error
}

func newScepclient(t *testing.T) *client {
	needs(t, "bash", "bash")
	_, dir := binary(t)
	const pkg = "github.com/micromdm/scep/v2/cmd/scepclient@" + scepclientVersion
	scepclientBuild.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "install", pkg)
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
		cmd.WaitDelay = 5 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			scepclientBuild.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if scepclientBuild.err != nil {
		t.Skipf("needs a Go module proxy: go install %s: %v", pkg, scepclientBuild.err)
	}
	return &client{
		page:        readPage(t, "scepclient"),
		version:     scepclientVersion,
		path:        dir,
		enrol:       0,
		renew:       1,
		certificate: "device.pem",
		says: func(output string) (text string) {
			for line := range strings.Lines(output) {
				if !strings.HasPrefix(line, "ts=") && strings.TrimSpace(line) != "" { // its log
					text += line
				}
			}
			return text
		},
	}
}

func TestScepclient(t *testing.T) {
	c := newScepclient(t)
	s := set(t, ndes.Config{})
	t.Run("is served as its page says", func(t *testing.T) { c.served(t, s) })

	const name = "device.example.com"
	const selector = " -key-encipherment-selector"
	command := c.page.command(t, c.enrol)
	if !strings.Contains(command, selector) {
		t.Fatalf("the command has no%s", selector)
	}
	for _, test := range []struct{ what, profile, command, reason string }{
		{"is refused where DES is", defaultProfile, command, "algorithm_refused"},
		// Every certificate of the bundle is a recipient: that would be three
		// possible plaintexts.
		{"is refused without the selector", encipherment, strings.Replace(command, selector, "", 1), "malformed_message"},
	} {
		t.Run(test.what, func(t *testing.T) {
			d := device{t.TempDir(), s.url(test.profile), s.expect(t, test.profile, name), name}
			mark, messages := s.Mark(), s.NDES.PKIOperations()
			if out, code := c.run(t, d, test.command); code == 0 {
				t.Errorf("exit 0\n%s", out)
			}
			s.refused(t, mark, test.reason)
			if s.NDES.PKIOperations() != messages {
				t.Error("the refused request reached NDES")
			}
		})
	}
}
