package interop

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/scepgate/scepgate/integration/ndes"
)

func newStrongSwan(t *testing.T) *client {
	needs(t, "bash", "bash")
	needs(t, "openssl", "openssl")
	needs(t, "pki", "strongswan-pki")
	for plugin, debianPackage := range map[string]string{"curl": "libstrongswan-extra-plugins", "openssl": "libstrongswan-standard-plugins"} {
		if found, _ := filepath.Glob("/usr/lib/*/plugins/libstrongswan-" + plugin + ".so"); len(found) == 0 {
			t.Skipf("needs the Debian package %s", debianPackage)
		}
	}
	usage := output(t, "pki", "--help")
	if _, after, found := strings.Cut(usage, "strongSwan "); found {
		usage, _, _ = strings.Cut(after, " ")
	}
	return &client{
		page:        readPage(t, "strongSwan"),
		version:     usage,
		enrol:       0,
		renew:       1,
		certificate: "device.pem",
		says:        strongSwanSays,
	}
}

// strongSwanSays leaves out complaints of plugins, and what is indented: how it
// verified certificates.
func strongSwanSays(output string) (text string) {
	if i := strings.LastIndex(output, "transaction ID: "); i >= 0 {
		_, output, _ = strings.Cut(output[i:], "\n")
	} else if i := strings.LastIndex(output, "plugin '"); i >= 0 {
		_, output, _ = strings.Cut(output[i:], "\n")
	}
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "  ") {
			text += line
		}
	}
	return text
}

func TestStrongSwan(t *testing.T) {
	c := newStrongSwan(t)
	s := set(t, ndes.Config{Capabilities: ndes.ModernCapabilities})
	t.Run("is served as its page says", func(t *testing.T) { c.served(t, s) })

	// It looks for the refusal's signer among what it is given for other purposes.
	t.Run("cannot read a refusal without its signer", func(t *testing.T) {
		const extra = " --cacert encryption.pem"
		command := c.page.command(t, c.enrol)
		if !strings.Contains(command, extra) {
			t.Fatalf("the command has no%s", extra)
		}
		d := device{t.TempDir(), s.url(encipherment), s.expect(t, encipherment, "device.example.com"), "other.example.com"}
		mark := s.Mark()
		out, code := c.run(t, d, strings.Replace(command, extra, "", 1))
		if code == 0 {
			t.Errorf("exit 0\n%s", out)
		}
		s.refused(t, mark, "subject_mismatch")
		c.quoted(t, out)
	})
}

// Against the list that NDES is believed to send, no cipher satisfies it.
func TestStrongSwanFindsNoCipherInTheCapabilitiesOfNDES(t *testing.T) {
	c := newStrongSwan(t)
	s := set(t, ndes.Config{})
	const name = "device.example.com"
	for _, cipher := range []string{"", " --cipher des3"} {
		d := device{t.TempDir(), s.url(encipherment), s.expect(t, encipherment, name), name}
		out, code := c.run(t, d, strings.Replace(c.page.command(t, c.enrol), " --scep ", " --scep"+cipher+" ", 1))
		if code == 0 || s.NDES.PKIOperations() != 0 {
			t.Errorf("%s: exit %d\n%s", cipher, code, out)
		}
		c.quoted(t, out)
	}
}
