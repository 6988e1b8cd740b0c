package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scepclientWaits is what it logs before it sleeps.
func scepclientWaits(output string) string {
	for line := range strings.Lines(output) {
		if _, said, found := strings.Cut(line, " pkiStatus=PENDING "); found {
			return "pkiStatus=PENDING " + said
		}
	}
	return ""
}

func TestScepclientRenewsAndWaits(t *testing.T) {
	c := newScepclient(t)
	s := live(t, nil)
	// held starts commands, waits until NDES holds their request, and stops them
	// while they sleep.
	held := func(t *testing.T, d device, commands, messageType string) (transactionID, output string) {
		t.Helper()
		mark := s.Mark()
		said := filepath.Join(d.dir, "held.log")
		wait, stop := c.background(t, d, "exec "+commands+" >held.log 2>&1")
		transactionID = s.waiting(t)
		s.polled(t, mark, messageType, 1)
		s.until(t, "the client does not say that it waits", func() bool {
			text, err := os.ReadFile(said)
			output = string(text)
			return err == nil && scepclientWaits(output) != ""
		})
		stop()
		wait()
		return transactionID, output
	}
	enrolled := func(t *testing.T) device {
		t.Helper()
		d, _ := s.device(t)
		if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		if err := os.WriteFile(filepath.Join(d.dir, "old.pem"), contents(t, d, c.certificate), 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}

	t.Run("renews with its old key, once", func(t *testing.T) {
		d := enrolled(t)
		s.pass()
		old := read(t, d, "old.pem")
		mark := s.Mark()
		out, code := c.run(t, d, c.page.command(t, c.renew))
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.forwarded(t, mark, renewalReq, "success")
		if !s.renewed(t, d, old, c.certificate) {
			t.Error("for a new key")
		}
		c.page.lived("renewal", c.says(out), code)
		s.another(t, d, "old.pem", "device.key", "17")

		// Should the answer be lost, it has the old certificate still, and asks again.
		fresh := read(t, d, c.certificate)
		if err := os.Rename(filepath.Join(d.dir, "old.pem"), filepath.Join(d.dir, c.certificate)); err != nil {
			t.Fatal(err)
		}
		mark = s.Mark()
		if out, code := c.run(t, d, c.page.command(t, c.renew)); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.forwarded(t, mark, renewalReq, "success")
		if !read(t, d, c.certificate).Equal(fresh) {
			t.Error("the renewal sent again was answered with another certificate")
		}
	})

	s.NDES.Hold(true)
	t.Run("gets by asking again what was approved", func(t *testing.T) {
		d, id := s.device(t)
		transactionID, out := held(t, d, c.page.command(t, c.enrol), pkcsReq)
		c.page.lived("enrolment that waits for approval", scepclientWaits(out), -1)
		s.state(t, id, "pending")
		s.restart(t)
		s.decide(t, transactionID, true)
		mark := s.Mark()
		out, code := c.run(t, d, c.page.command(t, c.enrol))
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.forwarded(t, mark, pkcsReq, "success")
		s.state(t, id, "issued")
		s.issued(t, d.dir+"/"+c.certificate, lifeName)
		c.page.lived("run again, approved", c.says(out), code)

		s.pass()
		old := read(t, d, c.certificate)
		transactionID, _ = held(t, d, c.page.command(t, c.renew), renewalReq)
		s.decide(t, transactionID, true)
		if out, code := c.run(t, d, c.page.command(t, c.renew)); code != 0 {
			t.Fatalf("renewal: exit %d\n%s", code, out)
		}
		s.renewed(t, d, old, c.certificate)
	})
	t.Run("learns by asking again what was denied", func(t *testing.T) {
		d, id := s.device(t)
		transactionID, _ := held(t, d, c.page.command(t, c.enrol), pkcsReq)
		s.decide(t, transactionID, false)
		mark := s.Mark()
		out, code := c.run(t, d, c.page.command(t, c.enrol))
		s.forwarded(t, mark, pkcsReq, "failure")
		s.state(t, id, "locked")
		c.page.lived("run again, denied", c.says(out), code)
	})
	c.page.compareLife(t, c.version)

	t.Run("asks again by itself", func(t *testing.T) {
		if !*long {
			t.Skip("it sleeps for 30 s: -long")
		}
		d, id := s.device(t)
		mark := s.Mark()
		wait, _ := c.background(t, d, "exec "+c.page.command(t, c.enrol))
		transactionID := s.waiting(t)
		s.polled(t, mark, pkcsReq, 1)
		s.decide(t, transactionID, true)
		if out, code := wait(); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.state(t, id, "issued")
		s.issued(t, d.dir+"/"+c.certificate, lifeName)
	})
}
