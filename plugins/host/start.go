package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/scepgate/scepgate/plugins"
)

const (
	startTimeout = 10 * time.Second // until it is described and configured
	grace        = 2 * time.Second  // to end by itself
	maxMessage   = 1 << 20          // bytes, either way
)

// instance is a plugin that is ready to be asked, until done is closed.
type instance struct {
	plugin interface {
		Match(context.Context, plugins.Request) (plugins.Answer, error)
		Notified(context.Context, plugins.Outcome) error
	}
	ping func(context.Context) error
	stop func(graceful bool) // ends it and leaves nothing behind
	done <-chan struct{}
	exit func() string // how it ended, after done

	misses  atomic.Int64 // calls without an answer, in a row
	pinging atomic.Bool
	sick    chan error // what it must be killed for: one, so that nobody waits
	why     atomic.Pointer[Error]
}

// finished reports whether p answers nothing any more.
func (p *instance) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return p.why.Load() != nil
	}
}

// startProcess makes an instance of a new process, within startTimeout.
func (h *Host) startProcess(ctx context.Context) (_ *instance, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.startTimeout)
	defer cancel()
	folder, err := newFolder()
	if err != nil {
		return nil, because(CannotStart, err.Error(), err)
	}
	p := &process{cfg: &h.cfg, folder: folder.path, done: make(chan struct{})}
	// Whatever go-plugin waits for ends with the process.
	defer context.AfterFunc(ctx, p.kill)()
	said := newVoice(h.log, &h.secrets)
	conns := new(connections)
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugins.Handshake,
		VersionedPlugins: plugins.Sets(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     h.startTimeout,
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (runner.Runner, error) {
			p.env = append(slices.Clone(h.cfg.Env), spec.Env...)
			return p, nil
		},
		UnixSocketConfig:    &plugin.UnixSocketConfig{TempDir: folder.path},
		Logger:              said,
		PluginLogBufferSize: lineBuffer,
		SyncStderr:          &stderrStream{to: said.Named(voiceOfPlugin)},
		GRPCDialOptions:     conns.options(),
	})
	protocol, err := client.Client()
	if err != nil {
		err = p.misgreeted(ctx, err)
		p.kill()
		conns.close() // go-plugin keeps one that it could not use
		if p.ran() {
			<-p.done
		}
		folder.remove()
		return nil, err
	}
	stop := sync.OnceFunc(func() { end(client, p, folder, h.log) })
	i := &instance{
		done: p.done, exit: p.howItEnded, sick: make(chan error, 1),
		stop: func(graceful bool) {
			if !graceful {
				p.kill()
			}
			stop()
		},
	}
	defer func() {
		if err != nil {
			i.stop(false)
		}
	}()
	raw, err := protocol.Dispense(plugins.SetKey)
	if err != nil {
		return nil, because(NotAPlugin, err.Error(), err)
	}
	matcher, ok := raw.(*plugins.Client)
	health, overGRPC := protocol.(*plugin.GRPCClient)
	if !ok || !overGRPC {
		return nil, because(NotAPlugin, "speaks no gRPC", nil)
	}
	i.plugin = matcher
	i.ping = func(ctx context.Context) error {
		answer, err := grpc_health_v1.NewHealthClient(health.Conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
		if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("health is %s", answer.GetStatus())
		}
		return err
	}
	if err := h.introduce(ctx, matcher, p); err != nil {
		return nil, err
	}
	h.log.Info("plugin started", zap.String("path", printable(h.cfg.Path, maxDetail)), zap.Int("pid", p.pid),
		zap.String("plugin", h.described.Load().Name), zap.String("version", h.described.Load().Version))
	return i, nil
}

// introduce asks the plugin what it is, and hands it its configuration.
func (h *Host) introduce(ctx context.Context, m *plugins.Client, p *process) error {
	info, wants, err := m.Describe(ctx)
	if err != nil {
		return p.failedToStart(ctx, NotAPlugin, err)
	}
	for _, f := range h.cfg.Decides {
		if !slices.Contains(info.Decides, f) {
			return because(LacksField, fmt.Sprintf("%s does not decide %s", info.Name, f), nil)
		}
	}
	if err := m.Configure(ctx, maps.Clone(h.cfg.Config)); err != nil {
		return p.failedToStart(ctx, WrongConfiguration, err)
	}
	h.described.Store(&info)
	h.wants.Store(wants)
	return nil
}

// failedToStart finds the cause of err, which is otherwise if the plugin lives
// and there is time left.
func (p *process) failedToStart(ctx context.Context, otherwise Cause, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return because(StartTimedOut, "", ctx.Err())
	case ctx.Err() != nil:
		return because(Closed, "", ctx.Err())
	case givenUp(err) && atDeadline(ctx): // the other side's clock was the quicker one
		return because(StartTimedOut, "", err)
	case status.Code(err) == codes.Unavailable && endsSoon(ctx, p.done):
		return because(ExitedAtStart, p.howItEnded(), err)
	}
	return because(otherwise, said(err), err)
}

// givenUp reports whether err says that somebody waited no longer.
func givenUp(err error) bool {
	code := status.Code(err)
	return code == codes.DeadlineExceeded || code == codes.Canceled
}

// atDeadline reports whether ctx ends in a moment.
func atDeadline(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < aMoment
}

// endsSoon waits a moment: a socket closes before its process has ended.
func endsSoon(ctx context.Context, done <-chan struct{}) bool {
	moment := time.NewTimer(aMoment)
	defer moment.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-moment.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

const aMoment = 250 * time.Millisecond

// misgreeted finds out why go-plugin could not make friends: its errors are
// text, so what the process wrote and how it ended is looked at instead.
func (p *process) misgreeted(ctx context.Context, err error) error {
	if refused := p.refusal(); refused != nil {
		return refused
	}
	if !p.ran() {
		return because(CannotStart, err.Error(), err)
	}
	line, _, _ := strings.Cut(p.out.line(), "\n")
	parts := strings.Split(strings.TrimSpace(line), "|")
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || strings.HasPrefix(err.Error(), "timeout "):
		return because(StartTimedOut, "", err)
	case ctx.Err() != nil:
		return because(Closed, "", ctx.Err())
	case line == "" && endsSoon(ctx, p.done) && !p.killed():
		return because(ExitedAtStart, p.howItEnded(), err)
	case len(parts) >= 4 && parts[0] == strconv.Itoa(plugin.CoreProtocolVersion):
		version, notANumber := strconv.Atoi(parts[1])
		if _, known := plugins.Sets(nil)[version]; notANumber == nil && !known {
			return because(WrongProtocolVersion, fmt.Sprintf("it speaks version %d, not %d", version, slices.Sorted(maps.Keys(plugins.Sets(nil)))), err)
		}
	}
	return because(NotAPlugin, err.Error(), err)
}

// end ends the process, gracefully if it lives and complies, and leaves neither
// connection nor folder behind.
func end(client *plugin.Client, p *process, folder *folder, log *zap.Logger) {
	cleaned := make(chan struct{})
	go func() {
		defer close(cleaned)
		client.Kill() // asks it to end; what it waits for ends with the process
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
	}
	stuck := time.NewTimer(2 * grace)
	defer stuck.Stop()
	select {
	case <-cleaned:
	case <-stuck.C: // the kernel itself does not let go of it
		log.Error("plugin does not die", zap.Int("pid", p.pid))
	}
	folder.remove()
}

// said is the text of an error that came over the wire, without the wire's words.
func said(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}

// connections remembers what go-plugin has dialled: it forgets a connection,
// open, on which its first call fails.
type connections struct {
	mu   sync.Mutex
	seen []*grpc.ClientConn
}

func (c *connections) options() []grpc.DialOption {
	return []grpc.DialOption{
		// go-plugin itself would let 2 GiB pass.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: startTimeout,
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			c.mu.Lock()
			if !slices.Contains(c.seen, conn) {
				c.seen = append(c.seen, conn)
			}
			c.mu.Unlock()
			return streamer(ctx, desc, conn, method, opts...)
		}),
	}
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.seen {
		_ = conn.Close()
	}
}
