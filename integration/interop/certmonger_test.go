package interop

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

func newCertmonger(t *testing.T) *client {
	needs(t, "bash", "bash")
	needs(t, "certmonger", "certmonger")
	needs(t, "certutil", "libnss3-tools")
	needs(t, "dbus-daemon", "dbus")
	return &client{
		page:        readPage(t, "certmonger"),
		version:     strings.TrimPrefix(strings.TrimSpace(output(t, "certmonger", "-v")), "certmonger "),
		enrol:       1,
		status:      2,
		renew:       3,
		certificate: "device.pem",
		says:        certmongerSays,
		start:       startCertmonger,
	}
}

// certmongerSays is what `getcert list` says of the request.
func certmongerSays(output string) (text string) {
	for line := range strings.Lines(output) {
		field, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if field == "status" || field == "ca-error" || field == "stuck" {
			text += line
		}
	}
	return text
}

// startCertmonger runs the daemon on a bus and in folders of its own, and tells
// it the gateway's address.
func startCertmonger(t *testing.T, c *client, d device) {
	t.Helper()
	config, err := filepath.Abs(filepath.Join("testdata", "session.conf"))
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	c.env = []string{"HOME=" + home}
	for _, folder := range []string{"REQUESTS_DIR", "CAS_DIR", "TMPDIR", "LOCAL_CA_DIR"} {
		path := filepath.Join(home, folder)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		c.env = append(c.env, "CERTMONGER_"+folder+"="+path)
	}
	var log bytes.Buffer
	address := startBus(t, config)
	// getcert asks on the system bus: to it, this is that bus.
	c.env = append(c.env, "DBUS_SESSION_BUS_ADDRESS="+address, "DBUS_SYSTEM_BUS_ADDRESS="+address)
	daemon, end := daemonCommand(t, c.env, "certmonger", "-s", "-n", "-d", "0")
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		daemon.Wait()
		if t.Failed() {
			t.Logf("certmonger's log:\n%s", log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out, code := c.run(t, d, "getcert list-cas")
		if code == 0 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("certmonger does not answer: %s", out)
		case <-tick.C:
		}
	}
	if out, code := c.run(t, d, c.page.command(t, 0)); code != 0 {
		t.Fatalf("adding the CA: exit %d\n%s", code, out)
	}
}

// startBus runs a D-Bus daemon and returns its address.
func startBus(t *testing.T, config string) string {
	t.Helper()
	bus, end := daemonCommand(t, nil, "dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	stdout, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		bus.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil { // it ended: its output did
		t.Fatalf("dbus-daemon printed no address: %v", err)
	}
	return strings.TrimSpace(address)
}

// daemonCommand prepares a process; end asks it to stop, and has it killed if it
// does not.
func daemonCommand(t *testing.T, env []string, name string, args ...string) (cmd *exec.Cmd, end context.CancelFunc) {
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context())) // a test's own context ends before its cleanup
	cmd = exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd, end
}

func TestCertmonger(t *testing.T) {
	c := newCertmonger(t)
	s := set(t, ndes.Config{})
	const name = "device.example.com"
	t.Run("is served as its page says", func(t *testing.T) { c.served(t, s) })

	t.Run("enrols anew once its certificate is gone, not before", func(t *testing.T) {
		d := device{t.TempDir(), s.url(defaultProfile), s.expect(t, defaultProfile, name), name}
		startCertmonger(t, c, d)
		enrol := func(commands int) {
			t.Helper()
			if out, code := c.run(t, d, c.page.command(t, commands)); code != 0 {
				t.Fatalf("exit %d\n%s", code, out)
			}
			s.issued(t, filepath.Join(d.dir, c.certificate), name)
		}
		enrol(c.enrol)
		d.challenge = s.expect(t, defaultProfile, name)
		mark := s.Mark()
		c.run(t, d, strings.Replace(c.page.command(t, c.renew), " -w", ` -L "$CHALLENGE" -w`, 1))
		s.refused(t, mark, "renewal_disabled")
		enrol(4)
	})

	// Its key identifier is then no hash of the key. threat B14
	t.Run("is refused with its key in a file", func(t *testing.T) {
		const database, files = `-d "sql:$PWD/nss" -n "$NAME"`, `-k "$PWD/device.key" -f "$PWD/device.pem"`
		command := c.page.command(t, c.enrol)
		if !strings.Contains(command, database) || !strings.Contains(c.page.text, files) {
			t.Fatalf("the command has no %s, or the page no %s", database, files)
		}
		d := device{t.TempDir(), s.url(defaultProfile), s.expect(t, defaultProfile, name), name}
		startCertmonger(t, c, d)
		mark, messages := s.Mark(), s.NDES.PKIOperations()
		if out, code := c.run(t, d, strings.Replace(command, database, files, 1)); code == 0 {
			t.Errorf("exit 0\n%s", out)
		}
		s.refused(t, mark, "unexpected_extension")
		if s.NDES.PKIOperations() != messages {
			t.Error("the refused request reached NDES")
		}
		// Nothing else of what it sends is refused.
		l := s.line(t, mark, func(l gateway.Line) bool { return l.String("msg") == "enrollment refused" })
		want := []any{map[string]any{"reason": "unexpected_extension", "field": "extension", "got": "2.5.29.14"}}
		if diff := cmp.Diff(want, l["findings"]); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
	})
}
