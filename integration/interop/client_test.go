package interop

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// client is a SCEP client, driven by the commands of its section in docs/clients.md.
type client struct {
	page    *page
	version string
	path    string // folder that stands first in PATH, if not empty
	env     []string

	// Blocks of commands. renew 0: it has no renewal of its own; status 0: what
	// it has to say it says at once.
	enrol, renew, status int

	certificate string // the file that it writes
	says        func(output string) string
	start       func(t *testing.T, c *client, d device) // before its first message to a profile, if not nil
}

// device is one run of a client: whose name it gives itself, and where it works.
type device struct {
	dir, url, challenge, name string
}

// run executes commands as a user's shell would, and stops at the first failure.
func (c *client) run(t *testing.T, d device, commands string) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := c.command(ctx, d, commands)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// command is a shell that executes commands where d works.
func (c *client) command(ctx context.Context, d device, commands string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "URL="+d.url, "CHALLENGE="+d.challenge, "NAME="+d.name, "LC_ALL=C")
	if c.path != "" {
		cmd.Env = append(cmd.Env, "PATH="+c.path+string(os.PathListSeparator)+os.Getenv("PATH"))
	}
	cmd.Env = append(cmd.Env, c.env...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// asked is what c says of an enrolment when it is asked afterwards.
func (c *client) asked(t *testing.T, d device) string {
	t.Helper()
	if c.status == 0 {
		return ""
	}
	out, code := c.run(t, d, c.page.command(t, c.status))
	if code != 0 {
		t.Fatalf("asking for the status: exit %d\n%s", code, out)
	}
	return out
}

// served has c enrol under its registered name and be refused under another,
// and refused renewal, for each identity that refusals can have. What its user
// sees must be what docs/clients.md says.
func (c *client) served(t *testing.T, s *stage) {
	var sends string
	for _, profile := range []string{encipherment, signature, http403} {
		ok := t.Run(profile, func(t *testing.T) {
			const name = "device.example.com"
			d := device{t.TempDir(), s.url(profile), s.expect(t, profile, name), name}
			if c.start != nil {
				c.start(t, c, d)
			}
			other := d
			other.dir, other.name = t.TempDir(), "other.example.com"
			mark, messages := s.Mark(), s.NDES.PKIOperations()
			out, code := c.run(t, other, c.page.command(t, c.enrol))
			s.refused(t, mark, "subject_mismatch")
			if code == 0 {
				t.Errorf("another name: exit 0\n%s", out)
			}
			if s.NDES.PKIOperations() != messages {
				t.Error("the refused request reached NDES")
			}
			c.page.saw("another name", profile, c.says(out+c.asked(t, other)), code)

			mark = s.Mark()
			if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 0 {
				t.Fatalf("the registered name: exit %d\n%s", code, out)
			}
			s.issued(t, filepath.Join(d.dir, c.certificate), name)
			sends = s.sent(t, mark)

			if c.renew == 0 {
				return
			}
			mark, messages = s.Mark(), s.NDES.PKIOperations()
			out, code = c.run(t, d, c.page.command(t, c.renew))
			s.refused(t, mark, "renewal_disabled")
			if s.NDES.PKIOperations() != messages {
				t.Error("the renewal reached NDES")
			}
			c.page.saw("renewal", profile, c.says(out+c.asked(t, d)), code)
		})
		if !ok {
			return
		}
	}
	c.page.compare(t, c.version, sends)
}

// needs skips a test whose program is not installed, by the Debian package's name.
func needs(t *testing.T, program, debianPackage string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real programs")
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs the Debian package %s", debianPackage)
	}
}

// output is what a program prints, whatever its exit code.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

// quoted checks that the page quotes what its user saw, line by line.
func (c *client) quoted(t *testing.T, output string) {
	t.Helper()
	if !c.page.speaksOf(t, c.version) {
		return
	}
	for line := range strings.Lines(c.says(output)) {
		if quote := "`" + strings.TrimSpace(line) + "`"; !strings.Contains(c.page.text, quote) {
			t.Errorf("docs/clients.md, %s: does not quote %s", c.page.title, quote)
		}
	}
}
