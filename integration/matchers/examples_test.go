package matchers

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/plugins/examples/intune/intunefake"
)

const devicesCSV = `serial,status,cn,o,dns
1,active,C02XK1,Example Corp,c02xk1.example.com
2,active,C02XK2,Example Corp,
3,retired,C02XK3,Example Corp,
`

// inventoryLines is the matcher of plugins/examples/inventory over a file in dir.
func inventoryLines(t *testing.T, dir, tail string) string {
	t.Helper()
	file := filepath.Join(dir, "inventory.csv")
	if _, err := os.Stat(file); err != nil {
		write(t, file, devicesCSV)
	}
	path, sum := place(t, dir, "inventory", tail)
	return fmt.Sprintf("matcher exec %s {\n name inventory\n sha256 %s\n decides subject san\n config {\n  file %s\n }\n}", path, sum, file)
}

func TestTheInventoryDecidesWhoEnrols(t *testing.T) {
	build(t)
	dir := t.TempDir()
	s := set(t, dir, inventoryLines(t, dir, ""))
	s.tries(s.differs("C02XK1", "c02xk1.example.com"), issued)
	s.refuses(s.asks("C02XK9"), "not_in_inventory")
	s.refuses(s.asks("C02XK3"), "device_retired")
	s.refuses(s.asks("C02XK1", "dc01.example.com"), "name_mismatch")
	s.refuses(s.asks("C02XK2", "c02xk1.example.com"), "name_mismatch")

	// What it does not decide is exact's as ever: nobody registered this challenge.
	line := s.tries(want{cn: "C02XK2", challenge: canary + "-nobody"}, refused)
	if line.String("reason") != "challenge_unknown" {
		t.Errorf("an unknown challenge: %s", line.String("reason"))
	}

	file := filepath.Join(dir, "inventory.csv")
	write(t, file, strings.Replace(devicesCSV, "1,active", "1,retired", 1))
	s.refuses(s.asks("C02XK1", "c02xk1.example.com"), "device_retired")
	write(t, file, devicesCSV+"4,active,C02XK1,Example Corp,\n")
	w := s.asks("C02XK2")
	s.fails(w)
	write(t, file, devicesCSV)
	s.tries(w, issued)

	if !s.counts("caddy_scep_matcher_calls_total", `matcher="inventory"`, `result="refuse"`) || !s.counts("caddy_scep_matcher_up", `matcher="inventory"`) {
		t.Error("the metrics say nothing of it")
	}
}

// socketDir is short: the path of a socket is at most 100 bytes or so.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// python is the example webhook as a process.
type python struct {
	cmd    *exec.Cmd
	exited chan struct{}

	mu    sync.Mutex
	lines []string
}

func startPython(t *testing.T, binary, socket, secret, devices string) *python {
	t.Helper()
	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	p := &python{exited: make(chan struct{})}
	p.cmd = exec.Command(binary, "-B", filepath.Join(root, "plugins", "examples", "webhook-python", "matcher.py"),
		"--socket", socket, "--secret-file", secret, "--devices", devices)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	go func() {
		defer close(p.exited)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			if scanner.Text() == "listening" {
				close(listening)
			}
			p.mu.Lock()
			p.lines = append(p.lines, scanner.Text())
			p.mu.Unlock()
		}
		p.cmd.Wait()
	}()
	t.Cleanup(p.end)
	select {
	case <-listening:
	case <-p.exited:
		t.Fatalf("it ended: %s", p.said())
	case <-time.After(30 * time.Second):
		t.Fatal("it does not listen")
	}
	return p
}

func (p *python) end() {
	p.cmd.Process.Kill()
	<-p.exited
}

func (p *python) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func needPython(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	return binary
}

func TestThePythonExamplePassesItsOwnTests(t *testing.T) {
	if testing.Short() {
		t.Skip("runs another program")
	}
	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, needPython(t), "-B", "-W", "error::ResourceWarning", "-m", "unittest")
	cmd.Dir = filepath.Join(root, "plugins", "examples", "webhook-python")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nOK") || strings.Contains(string(out), "Ran 0 tests") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAWebhookInPythonDecidesWhoEnrols(t *testing.T) {
	binary := needPython(t)
	build(t)
	dir, run := t.TempDir(), socketDir(t)
	socket := filepath.Join(run, "s")
	secret := write(t, filepath.Join(dir, "webhook.secret"), "what only the two of us know\n")
	write(t, secret, strings.ReplaceAll("what only the two of us know\n", " ", "-"))
	devices := write(t, filepath.Join(dir, "devices.json"), `{"devices": [
		{"status": "active", "subject": [["CN", "C02XK1"], ["O", "Example Corp"]], "san": {"dns": ["c02xk1.example.com"]}},
		{"status": "active", "subject": [["CN", "C02XK2"], ["O", "Example Corp"]]},
		{"status": "retired", "subject": [["CN", "C02XK3"], ["O", "Example Corp"]]}
	]}`)
	p := startPython(t, binary, socket, secret, devices)
	s := set(t, dir, fmt.Sprintf("matcher webhook unix/%s {\n decides subject san\n secret_file %s\n notify\n}", socket, secret))
	first := s.tries(s.differs("C02XK1", "c02xk1.example.com"), issued)
	s.refuses(s.asks("C02XK9"), "not_in_inventory")
	s.refuses(s.asks("C02XK3"), "device_retired")
	s.refuses(s.asks("C02XK1", "dc01.example.com"), "name_mismatch")
	s.until("it hears of the outcomes", func() bool {
		said := p.said()
		return strings.Contains(said, `"result": "issued"`) && strings.Contains(said, first.String("transaction_id")) && strings.Count(said, `"result": "refused"`) >= 3
	})

	// It is away, and comes back: nobody enrols meanwhile, nobody is refused.
	p.end()
	w := s.asks("C02XK2")
	for range 7 { // over the breaker's threshold
		s.fails(w)
	}
	if !s.counts("caddy_scep_matcher_calls_total", `matcher="webhook"`, `result="failed"`) || !s.counts("caddy_scep_decisions_total", `reason="matcher_failed"`, `decision="failed"`) {
		t.Error("the metrics say nothing of it")
	}
	p = startPython(t, binary, socket, secret, devices) // over the socket that was left behind
	s.until("it is asked again", func() bool {
		got, err := s.post(s.message(w))
		if err != nil || got != again && got != issued {
			t.Fatalf("%s, %v", got, err)
		}
		return got == issued
	})
	if said := p.said(); strings.Contains(said, canary) {
		t.Errorf("the challenge was not revealed, and it knows it: %s", said)
	}
}

// intuneLines is the matcher of plugins/examples/intune in front of a fake.
func intuneLines(t *testing.T, dir string, fake *intunefake.Server) string {
	t.Helper()
	path, sum := place(t, dir, "intune", "")
	secret := write(t, filepath.Join(dir, "intune.secret"), intunefake.ClientSecret+"\n")
	config := fake.Config()
	return fmt.Sprintf(`challenge matcher
			matcher exec %s {
				name intune
				sha256 %s
				decides challenge
				reveal challenge
				config {
					tenant %s
					client_id %s
					client_secret {file.%s}
					login_url %s
					graph_url %s
				}
			}`, path, sum, config["tenant"], config["client_id"], secret, config["login_url"], config["graph_url"])
}

func TestIntuneVouchesForWhomNobodyRegistered(t *testing.T) {
	build(t)
	dir, fake := t.TempDir(), intunefake.New(t)
	fake.Promise(canary+"-one", "C02XK1", "c02xk1.example.com")
	fake.Promise(canary+"-two", "C02XK2")
	fake.Refuse(canary+"-old", "ChallengeExpired")
	s := set(t, dir, intuneLines(t, dir, fake))

	s.refuses(want{cn: "C02XK1", challenge: canary + "-made-up"}, "challenge_decryption_error")
	s.refuses(want{cn: "C02XK1", challenge: canary + "-old"}, "challenge_expired")
	s.refuses(want{cn: "C02XK9", challenge: canary + "-one"}, "subject_name_mismatch")
	s.refuses(want{cn: "C02XK1", dns: []string{"dc01.example.com"}, challenge: canary + "-one"}, "subject_alt_name_mismatch")

	honest := want{cn: "C02XK1", dns: []string{"c02xk1.example.com"}, challenge: canary + "-one"}
	message := s.message(honest)
	s.sends(message, "an honest device", issued)
	asked := len(fake.Calls("validateRequest"))
	taken := func(when string) {
		t.Helper()
		thief := honest
		thief.device = 1
		if line := s.tries(thief, refused); line.String("reason") != "challenge_in_use" && line.String("reason") != "challenge_used" {
			t.Errorf("%s, another key: %s", when, line.String("reason"))
		}
		if line := s.tries(honest, refused); line.String("reason") != "challenge_used" {
			t.Errorf("%s, the same key in another transaction: %s", when, line.String("reason"))
		}
	}
	taken("at once")
	if now := len(fake.Calls("validateRequest")); now != asked {
		t.Errorf("Intune was asked %d times about a challenge that is known to be taken", now-asked)
	}

	// What was refused is told, with the request; what was issued cannot be.
	s.until("Intune hears of the refusals", func() bool { return len(fake.Calls("failureNotification")) >= 4 })
	for _, c := range fake.Calls("failureNotification") {
		if len(c.Request) == 0 || c.HResult != 0x80070005 || c.ErrorDescription != "refused by scepgate: matcher_refused" {
			t.Errorf("Intune was told %+v", c)
		}
	}

	s.Kill()
	s.restart()
	taken("after a crash")

	// Nothing can be decided while Intune is away, and its secret is nowhere.
	fake.CloseClientConnections()
	fake.Listener.Close()
	s.fails(want{cn: "C02XK2", challenge: canary + "-two"})
	if text := s.fetch("/config/") + s.fetch("/metrics") + s.Gateway.Log(); strings.Contains(text, intunefake.ClientSecret) || strings.Contains(text, "token-") {
		t.Error("a secret of the plugin was seen")
	}
}
