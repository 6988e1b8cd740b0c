package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// drainPipes is how long what a plugin wrote before it ended is still read, if
// something that it left behind keeps its output open.
const drainPipes = time.Second

// process is one run of the binary: go-plugin's runner. It is ours so that what
// is run is the file that was verified, by a thread that outlives it, and so
// that go-plugin connects nowhere but to the plugin's own socket.
type process struct {
	cfg    *Config
	env    []string // the plugin's, with what go-plugin adds
	folder string   // where its socket must be

	out  *greeting
	err  *os.File
	done chan struct{} // closed when it has ended and is reaped
	exit error         // why, once done is closed

	mu      sync.Mutex
	cmd     *exec.Cmd // nil until it runs
	pid     int
	over    bool // it has ended, and its number may be another's soon
	doomed  bool // it shall not run (any more)
	refused error
}

var _ runner.Runner = (*process)(nil)

// launch verifies and runs the binary. The file that it verifies is the one
// that runs, on systems that can run an open file.
func (p *process) launch() (err error) {
	file, _, err := p.cfg.open()
	if err != nil {
		return err
	}
	defer file.Close()
	stdoutR, stdoutW, err := os.Pipe()
	if err != nil {
		return because(CannotStart, err.Error(), err)
	}
	defer stdoutW.Close()
	stderrR, stderrW, err := os.Pipe()
	if err != nil {
		_ = stdoutR.Close()
		return because(CannotStart, err.Error(), err)
	}
	defer stderrW.Close()
	defer func() {
		if err != nil {
			_ = stdoutR.Close()
			_ = stderrR.Close()
		}
	}()
	cmd := &exec.Cmd{
		Path:   p.cfg.Path,
		Args:   append([]string{p.cfg.Path}, p.cfg.Args...),
		Env:    append([]string{}, p.env...), // never nil, which would mean the gateway's own
		Dir:    filepath.Dir(p.cfg.Path),
		Stdin:  nil, // the null device; go-plugin would pass on the gateway's
		Stdout: stdoutW,
		Stderr: stderrW,
	}
	confine(cmd, file)

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doomed {
		return because(CannotStart, "given up", context.Canceled)
	}
	if err := cmd.Start(); err != nil {
		return because(UnusableFile, err.Error(), err)
	}
	p.cmd, p.pid = cmd, cmd.Process.Pid
	p.out, p.err = &greeting{f: stdoutR}, stderrR
	return nil
}

// reap waits for the end of the process.
func (p *process) reap() {
	p.exit = p.awaitEnd()
	deadline := time.Now().Add(drainPipes)
	_ = p.out.f.SetReadDeadline(deadline)
	_ = p.err.SetReadDeadline(deadline)
	close(p.done)
}

// kill ends the process now, or keeps it from running.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doomed = true
	if p.cmd != nil && !p.over {
		killGroup(p.cmd)
	}
}

// ran reports whether there was a process at all.
func (p *process) ran() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// killed reports whether it was us who ended it; only after done.
func (p *process) killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doomed && p.cmd.ProcessState.ExitCode() < 0
}

// howItEnded is for the log; only after done.
func (p *process) howItEnded() string {
	if p.exit == nil {
		return "exit status 0"
	}
	return p.exit.Error()
}

// Start runs the binary. Whoever starts it also waits for it: see startAndReap.
func (p *process) Start(context.Context) error {
	err := p.startAndReap()
	if err != nil {
		p.mu.Lock()
		p.refused = err
		p.mu.Unlock()
	}
	return err
}

// refusal is why it was not even run.
func (p *process) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Wait is called once all output was read.
func (p *process) Wait(context.Context) error {
	<-p.done
	_ = p.out.Close()
	_ = p.err.Close()
	return p.exit
}

// PluginToHost is asked where to connect to. Other than to its own socket the
// gateway connects to nothing that a plugin names.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	switch network {
	case "unix":
		if rel, err := filepath.Rel(p.folder, address); err != nil || !filepath.IsLocal(rel) {
			return "", "", errors.New("its socket is not in the folder that it was given")
		}
	case "tcp":
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); unixSockets || err != nil || ip == nil || !ip.IsLoopback() {
			return "", "", errors.New("it names an address that is not its own")
		}
	default:
		return "", "", fmt.Errorf("it listens on %q", network)
	}
	return network, address, nil
}

// HostToPlugin is PluginToHost's other way; nothing of ours listens.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// Name is what go-plugin names the logger after that speaks for the plugin.
func (p *process) Name() string                    { return voiceOfPlugin }
func (p *process) Stdout() io.ReadCloser           { return p.out }
func (p *process) Stderr() io.ReadCloser           { return p.err }
func (p *process) ID() string                      { return strconv.Itoa(p.pid) }
func (p *process) Kill(context.Context) error      { p.kill(); return nil }
func (p *process) Diagnose(context.Context) string { return "" }

// greeting is a plugin's standard output. Its beginning, the handshake, is
// passed on. The rest is swallowed, so that the plugin never waits for a reader.
type greeting struct {
	f      *os.File
	mu     sync.Mutex
	head   []byte
	passed int
	whole  bool // a line has ended
}

const (
	maxGreeting = 16 << 10
	maxHead     = 256
)

func (g *greeting) Read(b []byte) (int, error) {
	for {
		n, err := g.f.Read(b)
		pass := g.take(b[:n])
		if pass > 0 || err != nil {
			return pass, err
		}
		if n > 0 && !g.greeted() {
			return 0, errors.New("no handshake in what it writes")
		}
	}
}

func (g *greeting) take(b []byte) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	pass := min(len(b), maxGreeting-g.passed)
	g.passed += pass
	g.whole = g.whole || bytes.IndexByte(b[:pass], '\n') >= 0
	if left := min(pass, maxHead-len(g.head)); left > 0 {
		g.head = append(g.head, b[:left]...)
	}
	return pass
}

func (g *greeting) greeted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.whole
}

// line is the beginning of what it wrote.
func (g *greeting) line() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.head)
}

func (g *greeting) Close() error { return g.f.Close() }
