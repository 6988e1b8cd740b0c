package interop

import (
	"strings"
	"testing"
)

// Blocks of commands in certmonger's section.
const (
	certmongerAnew    = 4
	certmongerRefresh = 5
)

func TestCertmongerRenewsAndPolls(t *testing.T) {
	c := newCertmonger(t)
	needs(t, "pk12util", "libnss3-tools")
	s := live(t, nil)
	d, id := s.device(t)
	startCertmonger(t, c, d)
	const export = `certutil -L -d "sql:$PWD/nss" -n "$NAME" -a > `
	do := func(t *testing.T, commands string) {
		t.Helper()
		if out, code := c.run(t, d, commands); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
	}
	// told waits until the daemon says so, and returns all it says.
	told := func(t *testing.T, status string) (says string) {
		t.Helper()
		s.until(t, "its status never is "+status, func() bool {
			says = c.says(c.asked(t, d))
			return strings.Contains(says, "status: "+status+"\n")
		})
		return says
	}
	// held starts a request that NDES holds; with -w, getcert would wait for its end.
	held := func(t *testing.T, block int) (transactionID, says string) {
		t.Helper()
		command, _, found := strings.Cut(c.page.command(t, block), " -w")
		if !found {
			t.Fatalf("block %d of commands does not wait", block+1)
		}
		do(t, command)
		transactionID = s.waiting(t)
		return transactionID, told(t, "CA_WORKING")
	}
	// refresh has it ask again, for which it sends its request again.
	refresh := func(t *testing.T, answer string) {
		t.Helper()
		mark := s.Mark()
		do(t, c.page.command(t, certmongerRefresh))
		s.forwarded(t, mark, pkcsReq, answer)
	}

	s.NDES.Hold(true)
	if !t.Run("gets by asking again what was approved", func(t *testing.T) {
		transactionID, says := held(t, c.enrol)
		c.page.lived("enrolment that waits for approval", says, -1)
		s.state(t, id, "pending")
		refresh(t, "pending")
		s.restart(t)
		s.decide(t, transactionID, true)
		refresh(t, "success")
		c.page.lived("refreshed, approved", told(t, "MONITORING"), 0)
		s.state(t, id, "issued")
		do(t, export+"device.pem")
		s.issued(t, d.dir+"/device.pem", lifeName)
	}) {
		return
	}

	s.NDES.Hold(false)
	t.Run("renews with its old key, once", func(t *testing.T) {
		do(t, export+`old.pem
pk12util -o old.p12 -d "sql:$PWD/nss" -n "$NAME" -K "" -W ""
openssl pkcs12 -in old.p12 -passin pass: -nocerts -noenc -out old.key`)
		s.pass()
		mark := s.Mark()
		out, code := c.run(t, d, c.page.command(t, c.renew))
		if code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		s.forwarded(t, mark, pkcsReq, "success")
		c.page.lived("renewal", told(t, "MONITORING"), code)
		do(t, export+"device.pem")
		if !s.renewed(t, d, read(t, d, "old.pem"), "device.pem") {
			t.Error("for a new key")
		}
		s.another(t, d, "old.pem", "old.key", "19")
	})

	s.NDES.Hold(true)
	t.Run("renews what was approved", func(t *testing.T) {
		old := read(t, d, "device.pem")
		s.pass()
		transactionID, says := held(t, c.renew)
		c.page.lived("renewal that waits for approval", says, -1)
		s.decide(t, transactionID, true)
		refresh(t, "success")
		told(t, "MONITORING")
		do(t, export+"device.pem")
		s.renewed(t, d, old, "device.pem")
	})

	// The key identifier that it then asks for is no hash of the new key. threat B14
	t.Run("is refused a renewal with a new key", func(t *testing.T) {
		mark, messages := s.Mark(), s.NDES.PKIOperations()
		out, code := c.run(t, d, strings.Replace(c.page.command(t, c.renew), "resubmit", "rekey", 1))
		s.refused(t, mark, "unexpected_extension")
		if s.NDES.PKIOperations() != messages {
			t.Error("the refused renewal reached NDES")
		}
		if !strings.Contains(c.page.text, "`getcert rekey`") {
			t.Errorf("docs/clients.md does not say so: exit %d\n%s", code, out)
		}
	})

	t.Run("learns by asking again what was denied", func(t *testing.T) {
		var challenge string
		id, challenge = s.register(t, lifeProfile, lifeName)
		d.challenge = challenge
		transactionID, _ := held(t, certmongerAnew)
		s.decide(t, transactionID, false)
		refresh(t, "failure")
		c.page.lived("refreshed, denied", told(t, "CA_REJECTED"), 0)
		s.state(t, id, "locked")
	})
	c.page.compareLife(t, c.version)
}
