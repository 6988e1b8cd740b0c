// Package gateway runs the real scepgate binary for the demo and for tests:
// built from this checkout, as a process of its own, on loopback, with every
// file in one folder.
package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Build compiles cmd/scepgate of this module into dir.
func Build(dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "scepgate")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/scepgate")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building scepgate: %w\n%s", err, out)
	}
	return binary, nil
}

// Root is the folder of this module.
func Root() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/scepgate/scepgate").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module's folder: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Config says what to run.
type Config struct {
	Binary    string
	Dir       string            // everything the process writes
	Caddyfile string            // path; default: Caddyfile.example of this module
	Env       map[string]string // over the defaults below
}

// Gateway is a running process.
type Gateway struct {
	Devices string // base URL for devices
	API     string // base URL for MDMs
	Admin   string // address of Caddy's admin endpoint
	Env     []string

	config Config
	cmd    *exec.Cmd
	done   chan struct{}
	err    error
	client *http.Client

	mu    sync.Mutex
	lines []Line
	grown *sync.Cond
	text  bytes.Buffer
}

// Line is one line of the process's structured log.
type Line map[string]any

// String gives a field as text.
func (l Line) String(field string) string {
	s, _ := l[field].(string)
	return s
}

// Start runs the binary and waits until devices and MDMs are served.
func Start(ctx context.Context, c Config) (*Gateway, error) {
	if c.Caddyfile == "" {
		root, err := Root()
		if err != nil {
			return nil, err
		}
		c.Caddyfile = filepath.Join(root, "Caddyfile.example")
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		Devices: fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		API:     fmt.Sprintf("https://localhost:%d", ports[1]),
		Admin:   fmt.Sprintf("127.0.0.1:%d", ports[2]),
		config:  c,
		done:    make(chan struct{}),
	}
	g.grown = sync.NewCond(&g.mu)
	env := map[string]string{
		"SCEPGATE_PORT":   fmt.Sprint(ports[0]),
		"SCEPGATE_API":    fmt.Sprintf("localhost:%d", ports[1]),
		"SCEPGATE_ADMIN":  g.Admin,
		"SCEPGATE_BIND":   "127.0.0.1",
		"SCEPGATE_DATA":   filepath.Join(c.Dir, "data"),
		"XDG_DATA_HOME":   c.Dir, // Caddy's own files go to Dir/caddy
		"XDG_CONFIG_HOME": c.Dir,
		"HOME":            c.Dir,
		"PATH":            os.Getenv("PATH"),
		"TMPDIR":          os.TempDir(),
		"SystemRoot":      os.Getenv("SystemRoot"),
	}
	for k, v := range c.Env {
		env[k] = v
	}
	for k, v := range env {
		g.Env = append(g.Env, k+"="+v)
	}
	g.cmd = exec.Command(c.Binary, "run", "--config", c.Caddyfile, "--adapter", "caddyfile")
	g.cmd.Dir, g.cmd.Env = c.Dir, g.Env
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	g.cmd.Stdout = io.Discard
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	go g.read(stderr)
	if err := g.ready(ctx); err != nil {
		g.Kill()
		return nil, fmt.Errorf("%w; its log ends:\n%s", err, g.tail())
	}
	return g, nil
}

// freePorts asks the system for ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func (g *Gateway) read(stderr io.Reader) {
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var l Line
		g.mu.Lock()
		g.text.Write(scanner.Bytes())
		g.text.WriteByte('\n')
		if json.Unmarshal(scanner.Bytes(), &l) == nil {
			g.lines = append(g.lines, l)
		}
		g.grown.Broadcast()
		g.mu.Unlock()
	}
	err := g.cmd.Wait()
	g.mu.Lock()
	g.err = err
	g.grown.Broadcast()
	g.mu.Unlock()
	close(g.done)
}

// ready polls the device port and the API until both answer, or the process
// ends, or ctx does.
func (g *Gateway) ready(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if g.answers(ctx) {
			return nil
		}
		select {
		case <-g.done:
			return fmt.Errorf("the gateway ended: %v", g.err)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the gateway: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (g *Gateway) answers(ctx context.Context) bool {
	for _, url := range []string{g.Devices + "/healthz", g.API + "/healthz"} {
		client, err := g.Client()
		if err != nil {
			return false
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false
		}
	}
	return true
}

// Client trusts the root that the gateway's `tls internal` made, and no other.
func (g *Gateway) Client() (*http.Client, error) {
	if g.client != nil {
		return g.client, nil
	}
	pem, err := os.ReadFile(filepath.Join(g.config.Dir, "caddy", "pki", "authorities", "local", "root.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the local root is no certificate")
	}
	g.client = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DisableKeepAlives: true, // a reload ends connections, perhaps under a request
	}}
	return g.client, nil
}

// PID is the process's id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Kill ends the process at once, as a crash does, and waits for it.
func (g *Gateway) Kill() {
	g.cmd.Process.Kill()
	<-g.done
}

// Stop ends the process as an operator does, and waits for it; after the
// grace period it kills.
func (g *Gateway) Stop(grace time.Duration) error {
	if err := g.cmd.Process.Signal(os.Interrupt); err != nil {
		g.Kill()
		return err
	}
	select {
	case <-g.done:
		return g.err
	case <-time.After(grace):
		g.Kill()
		return errors.New("the gateway did not stop in time")
	}
}

// Log is everything that the process wrote so far.
func (g *Gateway) Log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func (g *Gateway) tail() string {
	log := g.Log()
	if len(log) > 4096 {
		log = log[len(log)-4096:]
	}
	return log
}

// Mark is a place in the log: Find looks at what comes after it.
func (g *Gateway) Mark() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.lines)
}

// Find waits for a log line after mark that match accepts.
func (g *Gateway) Find(ctx context.Context, mark int, match func(Line) bool) (Line, error) {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.grown.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for seen := mark; ; {
		for ; seen < len(g.lines); seen++ {
			if match(g.lines[seen]) {
				return g.lines[seen], nil
			}
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no such log line: %w", ctx.Err())
		}
		g.grown.Wait()
	}
}

// Call sends JSON to the API and decodes the answer into out, if not nil.
func (g *Gateway) Call(ctx context.Context, token, method, path string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.API+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client, err := g.Client()
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	if out != nil {
		return resp.StatusCode, json.Unmarshal(answer, out)
	}
	return resp.StatusCode, nil
}

// ExampleEnv gives Caddyfile.example what it asks of the environment: the files
// that ndes.Server.WriteFiles left in dir, the server's address, the clients file.
func ExampleEnv(dir, ndesURL, clients string) map[string]string {
	return map[string]string{
		"SCEPGATE_RA_CERT": filepath.Join(dir, "ra-encryption.pem"),
		"SCEPGATE_RA_KEY":  filepath.Join(dir, "ra-encryption.key"),
		"SCEPGATE_CA_CERT": filepath.Join(dir, "ca.pem"),
		"SCEPGATE_CLIENTS": clients,
		"NDES_UPSTREAM":    strings.TrimPrefix(ndesURL, "http://"),
	}
}
