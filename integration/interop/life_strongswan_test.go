package interop

import (
	"strings"
	"testing"

	"github.com/scepgate/scepgate/integration/ndes"
)

func TestStrongSwanRenewsAndPolls(t *testing.T) {
	c := newStrongSwan(t)
	s := live(t, ndes.ModernCapabilities)
	// It waits 60 s between two polls unless it is told otherwise.
	soon := func(n int) string {
		t.Helper()
		command := c.page.command(t, n)
		if !strings.Contains(command, "pki --scep ") {
			t.Fatalf("block %d of commands sends nothing", n+1)
		}
		return strings.Replace(command, "pki --scep ", "exec pki --scep --interval 1 ", 1)
	}
	// held starts commands, and waits until their request was polled for.
	held := func(t *testing.T, d device, commands string) (transactionID string, wait func() (string, int)) {
		t.Helper()
		mark := s.Mark()
		wait, _ = c.background(t, d, commands)
		transactionID = s.waiting(t)
		s.polled(t, mark, getCertInitial, 2)
		return transactionID, wait
	}

	t.Run("renews once", func(t *testing.T) {
		d, _ := s.device(t)
		if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		old := read(t, d, c.certificate)

		other := d
		other.name = "other.example.com"
		mark := s.Mark()
		out, code := c.run(t, other, c.page.command(t, c.renew))
		if code == 0 {
			t.Errorf("another name: exit 0\n%s", out)
		}
		s.refused(t, mark, "renewal_identity_changed")
		c.page.lived("renewal under another name", c.says(out), code)

		mark = s.Mark()
		out, code = c.run(t, d, c.page.command(t, c.renew))
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.forwarded(t, mark, renewalReq, "success")
		if s.renewed(t, d, old, "new.pem") {
			t.Error("for the old key")
		}
		c.page.lived("renewal", c.says(out), code)

		mark = s.Mark()
		out, code = c.run(t, d, c.page.command(t, c.renew))
		if code == 0 {
			t.Errorf("another key: exit 0\n%s", out)
		}
		s.refused(t, mark, "renewal_used")
		c.page.lived("another renewal of the old certificate", c.says(out), code)
	})

	s.NDES.Hold(true)
	t.Run("gets by polling what was approved", func(t *testing.T) {
		d, id := s.device(t)
		transactionID, wait := held(t, d, soon(c.enrol))
		s.state(t, id, "pending")
		s.restart(t)
		mark := s.Mark()
		s.polled(t, mark, getCertInitial, 1)
		s.decide(t, transactionID, true)
		out, code := wait()
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		_, says, found := strings.Cut(out, "  SCEP request pending, ")
		if !found {
			t.Errorf("it does not say that it polls:\n%s", out)
		}
		says, _, _ = strings.Cut(says, "\n")
		c.page.lived("enrolment that waits for approval", "SCEP request pending, "+says, -1)
		c.page.lived("enrolment, polled for until it is approved", c.says(out), code)
		s.state(t, id, "issued")
		s.issued(t, d.dir+"/"+c.certificate, lifeName)

		old := read(t, d, c.certificate)
		transactionID, wait = held(t, d, soon(c.renew))
		s.decide(t, transactionID, true)
		if out, code = wait(); code != 0 {
			t.Fatalf("renewal: exit %d\n%s", code, out)
		}
		c.page.lived("renewal, polled for until it is approved", c.says(out), code)
		s.renewed(t, d, old, "new.pem")
	})
	t.Run("learns by polling what was denied", func(t *testing.T) {
		d, id := s.device(t)
		transactionID, wait := held(t, d, soon(c.enrol))
		s.decide(t, transactionID, false)
		out, code := wait()
		if code == 0 {
			t.Errorf("exit 0\n%s", out)
		}
		c.page.lived("enrolment, polled for until it is denied", c.says(out), code)
		s.state(t, id, "locked")
	})
	c.page.compareLife(t, c.version)
}
