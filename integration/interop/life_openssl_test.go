package interop

import (
	"strings"
	"testing"
)

// Blocks of commands in the script's section.
const (
	opensslRenews = 1
	opensslPolls  = 2
)

// another has the script renew the certificate that signs, with a key that it makes.
func (s *lifeStage) another(t *testing.T, d device, certificate, key, messageType string) {
	t.Helper()
	mark, messages := s.Mark(), s.NDES.PKIOperations()
	out, code := newOpenssl(t).run(t, d, `scep.sh "$URL" "" "/CN=$NAME" another -san "$NAME" -type `+messageType+` -signer `+certificate+` `+key)
	if code != 2 {
		t.Errorf("another key: exit %d\n%s", code, out)
	}
	s.refused(t, mark, "renewal_used")
	if s.NDES.PKIOperations() != messages {
		t.Error("another key's renewal reached NDES")
	}
}

func TestOpensslRenewsAndPolls(t *testing.T) {
	c := newOpenssl(t)
	s := live(t, nil)
	enrolled := func(t *testing.T) device {
		t.Helper()
		d, id := s.device(t)
		if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.state(t, id, "issued")
		return d
	}
	polls := func(t *testing.T, d device, want int) (says string) {
		t.Helper()
		out, code := c.run(t, d, c.page.command(t, opensslPolls))
		if code != want {
			t.Fatalf("poll: exit %d, want %d\n%s", code, want, out)
		}
		return c.says(out)
	}

	for messageType, name := range map[string]string{"17": renewalReq, "19": pkcsReq} {
		t.Run("renews once with messageType "+messageType, func(t *testing.T) {
			d := enrolled(t)
			old := read(t, d, c.certificate)
			command := strings.Replace(c.page.command(t, opensslRenews), "-type 17", "-type "+messageType, 1)
			mark := s.Mark()
			out, code := c.run(t, d, command)
			if code != 0 {
				t.Fatalf("exit %d\n%s", code, out)
			}
			s.forwarded(t, mark, name, "success")
			if s.renewed(t, d, old, "new/cert.pem") {
				t.Error("for the old key")
			}
			says := c.says(out)
			mark = s.Mark()
			out, refused := c.run(t, d, command)
			s.refused(t, mark, "renewal_used")
			if messageType == "17" {
				c.page.lived("renewal", says, code)
				c.page.lived("another renewal of the old certificate", c.says(out), refused)
			}
		})
	}

	t.Run("keeps its name when it renews", func(t *testing.T) {
		d := enrolled(t)
		messages := s.NDES.PKIOperations()
		for _, change := range []struct{ subject, san string }{
			{"/CN=other.example.com", lifeName},
			{"/OU=Administrators/CN=" + lifeName, lifeName},
			{"/CN=" + lifeName, "other.example.com"},
		} {
			mark := s.Mark()
			out, code := c.run(t, d, `scep.sh "$URL" "" "`+change.subject+`" new -san "`+change.san+`" -type 17 -signer device/cert.pem device/key.pem`)
			if code != 2 {
				t.Errorf("%v: exit %d\n%s", change, code, out)
			}
			s.refused(t, mark, "renewal_identity_changed")
		}
		if s.NDES.PKIOperations() != messages {
			t.Error("a refused renewal reached NDES")
		}
		// None of that was a use of the certificate.
		if out, code := c.run(t, d, c.page.command(t, opensslRenews)); code != 0 {
			t.Errorf("its own name: exit %d\n%s", code, out)
		}
	})

	s.NDES.Hold(true)
	t.Run("gets by polling what was approved", func(t *testing.T) {
		d, id := s.device(t)
		out, code := c.run(t, d, c.page.command(t, c.enrol))
		if code != 3 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		c.page.lived("enrolment that waits for approval", c.says(out), code)
		s.state(t, id, "pending")
		mark := s.Mark()
		c.page.lived("poll", polls(t, d, 3), 3)
		s.forwarded(t, mark, getCertInitial, "pending")

		s.restart(t)
		s.decide(t, s.waiting(t), true)
		mark = s.Mark()
		c.page.lived("poll, approved", polls(t, d, 0), 0)
		s.forwarded(t, mark, getCertInitial, "success")
		s.state(t, id, "issued")
		s.issued(t, d.dir+"/"+c.certificate, lifeName)

		t.Run("of a renewal too", func(t *testing.T) {
			old := read(t, d, c.certificate)
			if out, code := c.run(t, d, c.page.command(t, opensslRenews)); code != 3 {
				t.Fatalf("exit %d\n%s", code, out)
			}
			poll := strings.Replace(c.page.command(t, opensslPolls), " device ", " new ", 1)
			if out, code := c.run(t, d, poll); code != 3 {
				t.Fatalf("poll: exit %d\n%s", code, out)
			}
			s.another(t, d, "device/cert.pem", "device/key.pem", "17")
			s.restart(t)
			s.decide(t, s.waiting(t), true)
			mark := s.Mark()
			if out, code := c.run(t, d, poll); code != 0 {
				t.Fatalf("poll: exit %d\n%s", code, out)
			}
			s.forwarded(t, mark, getCertInitial, "success")
			s.renewed(t, d, old, "new/cert.pem")
			s.another(t, d, "device/cert.pem", "device/key.pem", "17")
		})
	})
	t.Run("learns by polling what was denied", func(t *testing.T) {
		d, id := s.device(t)
		if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 3 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.decide(t, s.waiting(t), false)
		mark := s.Mark()
		c.page.lived("poll, denied", polls(t, d, 2), 2)
		s.forwarded(t, mark, getCertInitial, "failure")
		s.state(t, id, "locked")
		mark = s.Mark()
		polls(t, d, 2)
		s.refused(t, mark, "transaction_unknown")
	})
	t.Run("polls for nobody else", func(t *testing.T) {
		d, id := s.device(t)
		if out, code := c.run(t, d, c.page.command(t, c.enrol)); code != 3 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		thief, _ := s.device(t)
		if out, code := c.run(t, thief, "cp -r "+d.dir+"/device device && cd device && openssl genrsa -out signer.key 2048 2>/dev/null && "+
			"openssl req -x509 -key signer.key -subj /CN=thief -days 2 -out signer.pem && openssl x509 -in signer.pem -outform DER -out signer.der"); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.decide(t, s.waiting(t), true)
		mark, messages := s.Mark(), s.NDES.PKIOperations()
		polls(t, thief, 2)
		s.refused(t, mark, "transaction_unknown")
		if s.NDES.PKIOperations() != messages {
			t.Error("the stranger's poll reached NDES")
		}
		polls(t, d, 0)
		s.state(t, id, "issued")
	})
	c.page.compareLife(t, c.version)
}
