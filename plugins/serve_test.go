package plugins

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The test binary is also the plugin, and the gateway that starts it.
const roleEnv, dirEnv = "SCEPGATE_PLUGINS_TEST_ROLE", "SCEPGATE_PLUGINS_TEST_DIR"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "plugin":
		Serve(&fake{info: Info{Name: "test-plugin", Version: "1.2.3", Decides: []Field{Subject, SAN}}, match: misbehave})
	case "unnamed plugin":
		Serve(&fake{info: Info{Name: "Not A Name"}})
	case "gateway":
		gatewayThatIsKilled()
	default:
		goleak.VerifyTestMain(m)
	}
}

// misbehave does what the profile says.
func misbehave(_ context.Context, r Request) (Answer, error) {
	switch r.Profile {
	case "panic":
		panic("at the disco")
	case "hang":
		if err := os.WriteFile(filepath.Join(os.Getenv(dirEnv), "asked"), nil, 0o600); err != nil {
			return Answer{}, err
		}
		select {}
	}
	return Answer{Verdict: Agree}, nil
}

// started starts the plugin as a gateway would, but for what the kernel could do
// about its end.
func started(dir string, extra ...*os.File) (*plugin.Client, *Client, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{roleEnv + "=plugin", dirEnv + "=" + dir, "PLUGIN_UNIX_SOCKET_DIR=" + filepath.Join(dir, "s")}
	cmd.ExtraFiles = extra
	p := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  Handshake,
		VersionedPlugins: Sets(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Cmd:              cmd,
		Logger:           hclog.NewNullLogger(),
	})
	protocol, err := p.Client()
	if err != nil {
		p.Kill()
		return nil, nil, err
	}
	dispensed, err := protocol.Dispense(SetKey)
	if err != nil {
		p.Kill()
		return nil, nil, err
	}
	return p, dispensed.(*Client), nil
}

// gatewayThatIsKilled starts a plugin and waits for the end that it is given.
func gatewayThatIsKilled() {
	_, c, err := started(os.Getenv(dirEnv), os.NewFile(3, "alive"))
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	if os.Getenv("HANG") != "" {
		go c.Match(context.Background(), Request{Profile: "hang"})
	} else if _, err := c.Match(context.Background(), Request{}); err != nil {
		fmt.Println("failed:", err)
		return
	}
	fmt.Println("ready")
	select {}
}

func processes(t *testing.T) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir, err := os.MkdirTemp("", "plg") // short: a socket's path has at most 104 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func noSocketLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "s", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// eventually waits for what another process does; only its not happening at all fails.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not within 30 s: %s", what)
}

func TestAServedMatcherAnswersSurvivesPanicsAndEnds(t *testing.T) {
	dir := processes(t)
	p, c, err := started(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if info, notified, err := c.Describe(t.Context()); err != nil || info.Name != "test-plugin" || notified {
		t.Errorf("%v, %v, %v", info, notified, err)
	}
	for range 3 {
		if a, err := c.Match(t.Context(), Request{Profile: "panic"}); status.Code(err) != codes.Internal || a.Verdict == Agree {
			t.Errorf("panic: %v, %v", a, err)
		}
		if a, err := c.Match(t.Context(), Request{}); err != nil || a.Verdict != Agree {
			t.Errorf("after it: %v, %v", a, err)
		}
	}
	p.Kill()
	if !p.Exited() {
		t.Error("it has not ended")
	}
	if a, err := c.Match(t.Context(), Request{}); err == nil || a.Verdict == Agree {
		t.Errorf("after its end: %v, %v", a, err)
	}
	noSocketLeft(t, dir)
}

func TestAServedMatcherEndsOnSIGTERMEvenIfARequestDoesNot(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM on Windows")
	}
	for _, profile := range []string{"", "hang"} {
		t.Run("profile "+profile, func(t *testing.T) {
			dir := processes(t)
			p, c, err := started(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			failed := make(chan error, 1)
			if profile == "hang" {
				go func() {
					_, err := c.Match(t.Context(), Request{Profile: profile})
					failed <- err
				}()
				eventually(t, "asked", func() bool { _, err := os.Stat(filepath.Join(dir, "asked")); return err == nil })
			} else if _, err := c.Match(t.Context(), Request{}); err != nil {
				t.Fatal(err)
			}
			process, err := os.FindProcess(p.ReattachConfig().Pid)
			if err == nil {
				err = process.Signal(syscall.SIGTERM)
			}
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "ended", p.Exited)
			if profile == "hang" {
				if err := <-failed; err == nil {
					t.Error("the request that hangs was answered")
				}
			}
			noSocketLeft(t, dir)
		})
	}
}

func TestAServedMatcherEndsWhenItsGatewayIsKilled(t *testing.T) {
	for _, hang := range []string{"", "1"} {
		t.Run("hangs: "+hang, func(t *testing.T) {
			dir := processes(t)
			alive, held, err := os.Pipe() // both processes hold the other end
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			gateway := exec.Command(os.Args[0])
			gateway.Env = []string{roleEnv + "=gateway", dirEnv + "=" + dir, "HANG=" + hang}
			gateway.ExtraFiles = []*os.File{held}
			out, err := gateway.StdoutPipe()
			if err == nil {
				err = gateway.Start()
			}
			held.Close()
			if err != nil {
				t.Fatal(err)
			}
			said := make([]byte, 256)
			n, _ := out.Read(said)
			if string(said[:n]) != "ready\n" {
				t.Errorf("the gateway says %q", said[:n])
			} else if hang != "" {
				eventually(t, "asked", func() bool { _, err := os.Stat(filepath.Join(dir, "asked")); return err == nil })
			}
			if err := gateway.Process.Kill(); err != nil {
				t.Error(err)
			}
			gateway.Wait()
			if err := alive.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := alive.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the plugin outlives its gateway: %v", err)
			}
			noSocketLeft(t, dir)
		})
	}
}

func TestAPluginStartedByHandSaysWhatItIs(t *testing.T) {
	for role, want := range map[string][]string{
		"plugin":         {"test-plugin 1.2.3", "subject, san", "scepgate scep plugin info " + os.Args[0]},
		"unnamed plugin": {"cannot serve: the matcher's name must be"},
	} {
		processes(t)
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{roleEnv + "=" + role}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: ended with %v", role, err)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s: on stdout: %s", role, &stdout)
		}
		for _, w := range want {
			if !strings.Contains(stderr.String(), w) {
				t.Errorf("%s: %q is not in: %s", role, w, &stderr)
			}
		}
	}
}

func TestShutdownWaitsForRequestsInFlightAndLetsNoOtherIn(t *testing.T) {
	// Within the bubble no time passes while the end waits for the request.
	synctest.Test(t, func(t *testing.T) {
		s := newServing(hclog.NewNullLogger())
		call := func(method string, handler func()) error {
			_, err := s.counted(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
				handler()
				return nil, nil
			})
			return err
		}
		const match = "/scepgate.matcher.v1.Matcher/Match"
		var order []string
		entered, leave := make(chan struct{}), make(chan struct{})
		answered, down := make(chan error), make(chan error)
		go func() {
			answered <- call(match, func() {
				close(entered)
				<-leave
				order = append(order, "answered")
			})
		}()
		<-entered
		go func() {
			down <- call("/plugin.GRPCController/Shutdown", func() { order = append(order, "shut down") })
		}()
		// The end has begun once a request is turned away.
		for err := error(nil); status.Code(err) != codes.Unavailable; {
			runtime.Gosched()
			err = call(match, func() {})
		}
		if err := call("/grpc.health.v1.Health/Check", func() {}); err != nil {
			t.Errorf("health: %v", err)
		}
		close(leave)
		if err := errors.Join(<-answered, <-down); err != nil {
			t.Error(err)
		}
		if !slices.Equal(order, []string{"answered", "shut down"}) {
			t.Errorf("order %q", order)
		}
	})
}

func TestTheHandshakeKnowsVersion1(t *testing.T) {
	set := Sets(nil)
	if len(set) != 1 || set[1][SetKey] == nil {
		t.Fatalf("sets %v", set)
	}
	if _, ok := set[1][SetKey].(plugin.GRPCPlugin); !ok {
		t.Error("not gRPC")
	}
	if _, err := set[1][SetKey].Server(nil); err == nil {
		t.Error("net/rpc is served")
	}
	if Handshake.MagicCookieKey != "SCEP_GATEWAY_MATCHER" || len(Handshake.MagicCookieValue) != 64 {
		t.Errorf("handshake %v", Handshake)
	}
}
