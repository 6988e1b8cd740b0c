package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scepgate/scepgate/integration/ndes"
)

func newOpenssl(t *testing.T) *client {
	for _, p := range []string{"bash", "curl", "openssl"} {
		needs(t, p, p)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return &client{
		page:        readPage(t, "openssl and curl"),
		version:     "openssl 3, curl 7 or newer",
		path:        here, // scep.sh
		certificate: filepath.Join("device", "cert.pem"),
		says:        strings.TrimSpace,
	}
}

func TestOpenssl(t *testing.T) {
	c := newOpenssl(t)
	s := set(t, ndes.Config{})
	t.Run("is served as its page says", func(t *testing.T) { c.served(t, s) })

	// What a profile allows when it names no algorithms, over both methods.
	const name = "device.example.com"
	for _, test := range []struct{ options, sends string }{
		{" -cipher aes-128-cbc", "POST, digest sha256, cipher aes128"},
		{" -cipher aes-256-cbc -get", "GET, digest sha256, cipher aes256"},
		{" -cipher des-ede3-cbc -get", "GET, digest sha256, cipher des3"},
	} {
		t.Run(test.options, func(t *testing.T) {
			command := strings.TrimSpace(c.page.command(t, c.enrol)) + test.options
			d := device{t.TempDir(), s.url(defaultProfile), s.expect(t, defaultProfile, name), name}
			other := d
			other.dir, other.name = t.TempDir(), "other.example.com"
			mark := s.Mark()
			if out, code := c.run(t, other, command); code != 2 {
				t.Errorf("another name: exit %d\n%s", code, out)
			}
			s.refused(t, mark, "subject_mismatch")
			mark = s.Mark()
			if out, code := c.run(t, d, command); code != 0 {
				t.Fatalf("the registered name: exit %d\n%s", code, out)
			}
			s.issued(t, filepath.Join(d.dir, c.certificate), name)
			if sends := s.sent(t, mark); sends != test.sends {
				t.Errorf("sent %s, want %s", sends, test.sends)
			}
		})
	}
}
