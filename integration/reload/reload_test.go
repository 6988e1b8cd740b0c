package reload

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
)

var (
	long    = flag.Bool("long", false, "also wait for the watch of files, which looks every 30 s")
	reloads = flag.Int("reloads", 50, "how often the configuration is loaded under load")
)

const storePath = "path {$SCEPGATE_DATA}"

func TestTheSameStoreLoadedAgainStaysOpenAndWhatIsInFlightFinishes(t *testing.T) {
	s := set(t)
	stays := s.stays()
	before, err := s.register(nil)
	if err != nil {
		t.Fatal(err)
	}
	flying := s.depart()
	// As an operator does it, and then with other spellings of the same folder.
	if out, err := s.command(nil, "reload", "--force", "--config", s.config.Caddyfile, "--adapter", "caddyfile", "--address", s.Admin); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.config.Dir, link); err != nil {
		t.Log(err) // not everybody may on Windows
		link = s.config.Dir
	}
	for _, path := range []string{s.data() + "/", s.config.Dir + "/./x/../data", link + "/data"} {
		s.mustLoad(s.with(storePath, fmt.Sprintf("path %q", path)))
		stays()
	}
	s.arrive(flying)
	if got := s.state(flying.enrolment); got != "issued" {
		t.Errorf("what was in flight is %s", got)
	}
	if err := s.post(before); err != nil {
		t.Errorf("an expectation from before: %v", err)
	}
	stays()
}

func TestABrokenConfigurationUnderTrafficChangesNothing(t *testing.T) {
	s := set(t)
	file := filepath.Join(s.config.Dir, "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(t.TempDir(), "busy") // of another process
	other := set(t)
	other.mustLoad(other.with(storePath, fmt.Sprintf("path %q", busy)))
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")

	const nowhere = "\nhttp://:1 {\n\tbind 203.0.113.7\n\trespond ok\n}\n" // RFC 5737
	type fault struct{ text, says string }
	broken := map[string]fault{
		"a brace too many":                       {s.text + "}\n", "adapting config"},
		"an unknown option":                      {s.with("challenge gateway", "challenge gateway\n\t\t\tunheard_of on"), "unheard_of"},
		"a profile that says nothing of renewal": {s.with("renewal off", ""), "renewal: must be written"},
		"no such RA certificate":                 {s.with("certificate {$SCEPGATE_RA_CERT}", "certificate ./missing.pem"), "missing.pem"},
		"a key that does not fit":                {s.with("certificate {$SCEPGATE_RA_CERT}", "certificate {$SCEPGATE_CA_CERT}"), "does not fit"},
		"a store that is a file":                 {s.with(storePath, fmt.Sprintf("path %q", file)), "is not a folder"},
		"another challenge key":                  {s.with("{$SCEPGATE_CHALLENGE_KEY}", filepath.Join(s.config.Dir, "other.key")), "challenge_key_file"},
		"a profile that is not there":            {s.with("scep_gateway wifi", "scep_gateway lan"), "no profile"},
		// This fails only once the new configuration has begun to work.
		"an address that nobody has": {s.text + nowhere, "cannot assign"},
	}
	// So do these, with another store: Caddy starts the parts of a configuration
	// in no order, and for some milliseconds a listener of the one that is about
	// to fail may take a request and find nobody registered. They have no traffic
	// beside them.
	strangers := map[string]fault{
		"an address that nobody has, with another store": {s.with(storePath, fmt.Sprintf("path %q", elsewhere)) + nowhere, "cannot assign"},
		"the store of another process":                   {s.with(storePath, fmt.Sprintf("path %q", busy)), "busy"},
	}
	stays, theirs := s.stays(), lockState(t, busy)
	try := func(name string, f fault) {
		if err := s.load(f.text); err == nil || !strings.Contains(err.Error(), f.says) {
			t.Errorf("%s: loaded, or refused for another reason: %v", name, err)
		}
	}
	s.underTraffic(func() {
		for name, f := range broken {
			try(name, f)
			s.goesOn()
			stays()
		}
		if out, err := s.command([]string{"SCEPGATE_RA_CERT="}, "reload", "--force", "--config", s.config.Caddyfile, "--adapter", "caddyfile", "--address", s.Admin); err == nil {
			t.Errorf("a reload by command without an RA certificate worked:\n%s", out)
		}
	})
	for name, f := range strangers {
		try(name, f)
		stays()
		s.mustEnrol("after "+name, nil)
	}
	if got := lockState(t, busy); got != theirs {
		t.Errorf("the other process's store: lock %s, was %s", got, theirs)
	}
	if _, err := lockOf(elsewhere); err == nil {
		t.Error("the store of a configuration that never worked is still open")
	}
	other.mustEnrol("the other process", nil)
	s.mustLoad(s.text)
	s.mustEnrol("after all that", nil)
}

func lockState(t *testing.T, data string) string {
	t.Helper()
	info, err := lockOf(data)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(data, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s of %s", info.ModTime(), strings.TrimSpace(string(pid)))
}

func TestAStoreThatMovesWaitsForWhatIsInFlight(t *testing.T) {
	s := set(t)
	stays := s.stays()
	moved := filepath.Join(s.config.Dir, "moved")
	flying := s.depart()
	loaded := make(chan error, 1)
	go func() { loaded <- s.load(s.with(storePath, fmt.Sprintf("path %q", moved))) }()
	s.until("the new store is opened", func() bool { _, err := lockOf(moved); return err == nil })
	stays() // the request in flight still has its lease
	s.arrive(flying)
	if err := <-loaded; err != nil {
		t.Fatalf("reload: %v", err)
	}
	if got := s.state(flying.enrolment); !strings.Contains(got, "404") {
		t.Errorf("the new store knows what was registered in the old: %s", got)
	}
	s.until("the old store is closed", func() bool { _, err := lockOf(s.data()); return os.IsNotExist(err) })
	s.mustEnrol("with the new store", nil)

	s.mustLoad(s.text)
	if got := s.state(flying.enrolment); got != "issued" {
		t.Errorf("what was in flight while the store moved is %s", got)
	}
	s.mustEnrol("with the old store again", nil)
}

func TestValidateBesideALiveServerDisturbsNobody(t *testing.T) {
	s := set(t)
	stays := s.stays()
	absent := filepath.Join(s.config.Dir, "absent")
	s.underTraffic(func() {
		for _, env := range [][]string{nil, {"SCEPGATE_DATA=" + absent, "SCEPGATE_CHALLENGE_KEY=" + absent + ".key"}, nil} {
			if out, err := s.command(env, "validate", "--config", s.config.Caddyfile, "--adapter", "caddyfile"); err != nil {
				t.Errorf("validate: %v\n%s", err, out)
			}
			s.goesOn()
			stays()
		}
		if out, err := s.command([]string{"SCEPGATE_RA_KEY="}, "validate", "--config", s.config.Caddyfile, "--adapter", "caddyfile"); err == nil {
			t.Errorf("validate found nothing wrong:\n%s", out)
		}
	})
	stays()
	if left, err := filepath.Glob(absent + "*"); err != nil || len(left) > 0 {
		t.Errorf("validate left %v, %v", left, err)
	}
}

const firstRA = "key {$SCEPGATE_RA_KEY}\n\t\t\t}"

// rollover puts a second RA pair beside the first: files for it and the
// configuration that names them.
func (s *stage) rollover() (text, certificate, key string) {
	s.Helper()
	certificate, key = filepath.Join(s.config.Dir, "next.pem"), filepath.Join(s.config.Dir, "next.key")
	return s.with(firstRA, firstRA+fmt.Sprintf("\n\t\t\tra ndes2 {\n\t\t\t\tcertificate %q\n\t\t\t\tkey %q\n\t\t\t}", certificate, key)), certificate, key
}

func (s *stage) newRA() *raPair {
	s.Helper()
	p, err := newRAPair(s.up.ndes)
	if err != nil {
		s.Fatal(err)
	}
	return p
}

// caCerts asks the gateway for what it hands on of NDES's GetCACert, until it
// has so many certificates: what was asked before is kept for a while.
func (s *stage) caCerts(n int) {
	s.Helper()
	s.until(fmt.Sprintf("GetCACert lists %d certificates", n), func() bool {
		req, err := http.NewRequest(http.MethodGet, s.Devices+attack.Path+"?operation=GetCACert", nil)
		if err != nil {
			s.Fatal(err)
		}
		a, err := attack.Do(s.posts, req)
		if err != nil || a.Status != http.StatusOK {
			return false
		}
		return countCertificates(a.Body) == n
	})
}

func TestAnRAPairThatIsLoadedAddsToTheOldOne(t *testing.T) {
	s := set(t)
	stays := s.stays()
	next, ndes := s.newRA(), s.up.ndes
	text, certificate, key := s.rollover()
	if err := next.write(certificate, key); err != nil {
		t.Fatal(err)
	}
	if err := s.enrol(next); err == nil {
		t.Error("a message to an RA certificate that nobody named was let through")
	}
	s.underTraffic(func() { // of devices that know the old certificate
		s.mustLoad(text)
		s.mustEnrol("the old RA certificate before NDES lists the new", nil)
		s.goesOn()
		s.up.roll(next, ndes.Signing, ndes.Exchange, next.certificate, ndes.CA)
		s.caCerts(4)
		s.mustEnrol("the new RA certificate while NDES lists both", next)
		s.mustEnrol("the old RA certificate while NDES lists both", nil)
		s.goesOn()
	})
	s.up.roll(next, ndes.Signing, next.certificate, ndes.CA)
	s.caCerts(3)
	s.mustEnrol("the new RA certificate alone", next)
	stays()
}

// The watch cannot be told to look more often: that it notices, and swaps pairs
// only as a whole, is tested in its own package.
func TestAnRAPairThatIsReplacedInPlaceIsFoundByTheWatch(t *testing.T) {
	if !*long {
		t.Skip("takes more than 30 s; -long")
	}
	s := set(t)
	former, next, ndes := s.newRA(), s.newRA(), s.up.ndes
	text, certificate, key := s.rollover()
	if err := former.write(certificate, key); err != nil {
		t.Fatal(err)
	}
	s.mustLoad(text)
	stays := s.stays()
	mark := s.Mark()
	s.underTraffic(func() {
		if err := next.write(certificate, key); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Second) // twice the interval, if half a pair was seen
		defer cancel()
		if _, err := s.Find(ctx, mark, func(l gateway.Line) bool { return strings.HasPrefix(l.String("msg"), "changed files loaded") }); err != nil {
			t.Fatal(err)
		}
		s.goesOn() // what is in flight is checked against the files that it began with
		s.up.roll(next, ndes.Signing, ndes.Exchange, next.certificate, ndes.CA)
		s.caCerts(4)
		s.mustEnrol("the new RA certificate while NDES lists both", next)
		s.mustEnrol("the old RA certificate while NDES lists both", nil)
		s.goesOn()
	})
	if err := s.enrol(former); err == nil {
		t.Error("a message to the pair that was replaced was let through")
	}
	stays()
}

func TestReloadsUnderLoadFailNoEnrolment(t *testing.T) {
	s := set(t)
	stays := s.stays()
	variants := []string{s.text, s.with("ca_cache 1s", "ca_cache 2s"), s.with("challenge gateway", "challenge gateway {\n\t\t\t\tttl 2h\n\t\t\t}")}
	s.underTraffic(func() {
		for i := range *reloads {
			s.mustLoad(variants[i%len(variants)])
		}
		s.goesOn()
	})
	stays()
}

func TestSIGTERMLetsWhatIsInFlightFinish(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	s := set(t)
	if err := s.Stop(30 * time.Second); err != nil {
		t.Fatalf("stopping an idle gateway: %v", err)
	}
	// Once more, on the same ports, so that its exit status is seen.
	cmd := exec.Command(s.config.Binary, "run", "--config", s.config.Caddyfile, "--adapter", "caddyfile")
	cmd.Dir, cmd.Env = s.config.Dir, s.Env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	s.until("it serves again", func() bool {
		resp, err := s.posts.Get(s.Devices + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if err := s.again(func() error { return s.enrol(nil) }); err != nil {
		t.Fatal(err)
	}
	flying := s.depart()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("it takes no more connections", func() bool {
		resp, err := s.posts.Get(s.Devices + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	if _, err := lockOf(s.data()); err != nil {
		t.Errorf("the store was closed while a request was in flight: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended while a request was in flight: %v", err)
	default:
	}
	s.arrive(flying)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("exit status: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
	if _, err := lockOf(s.data()); !os.IsNotExist(err) {
		t.Errorf("the store was not closed: %v", err)
	}

	// What was settled is on disk.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := s.config
	c.Env = gateway.ExampleEnv(c.Dir, s.NDESURL, filepath.Join(c.Dir, "clients.json"))
	for k, v := range s.config.Env {
		c.Env[k] = v
	}
	again, err := gateway.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	s.Stage.Gateway = again
	if got := s.state(flying.enrolment); got != "issued" {
		t.Errorf("what was in flight is %s", got)
	}
}
