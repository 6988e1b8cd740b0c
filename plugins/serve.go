package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/scepgate/scepgate/plugins/proto/scepgate/matcher/v1"
)

// drainTime is how long requests in flight may take once the process is asked
// to end. go-plugin kills it two seconds after.
const drainTime = 2 * time.Second

// Serve makes a matcher of this process; main calls it and does nothing after.
// It returns when the gateway has no more need of the process, and ends the
// process by itself if m cannot be served, if it was started by hand, and when
// the gateway has died. A panic in m is an error for that request alone.
//
// Standard output belongs to go-plugin. Log to standard error.
func Serve(m Matcher) {
	if err := serve(m, os.Stderr); err != nil {
		os.Exit(1)
	}
}

func serve(m Matcher, stderr io.Writer) error {
	info, err := described(m)
	if err != nil {
		fmt.Fprintf(stderr, "cannot serve: %v\n", err)
		return err
	}
	if os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue {
		fmt.Fprint(stderr, byHand(info))
		return errors.New("started by hand")
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: info.Name, Level: hclog.Info, Output: stderr, JSONFormat: true})
	s := newServing(logger)

	// SIGINT reaches the whole process group and go-plugin drops it: the gateway
	// decides when to end. SIGTERM is meant for this process.
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	defer signal.Stop(term)
	go func() {
		<-term
		s.end()
	}()
	go func() {
		parentEnds()
		s.end()
	}()

	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  Handshake,
		VersionedPlugins: Sets(m),
		GRPCServer:       s.start,
		Logger:           logger,
	})
	// go-plugin logs what kept it from serving, and returns as if all were well.
	if !s.started() {
		return errors.New("not served")
	}
	return nil
}

// described asks m what it is, and survives what a nil or half-made one does.
func described(m Matcher) (info Info, err error) {
	if m == nil {
		return Info{}, errors.New("no matcher")
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("matcher's Info panicked: %v", p)
		}
	}()
	info = m.Info()
	return info, info.Validate()
}

func byHand(info Info) string {
	decides := make([]string, len(info.Decides))
	for i, f := range info.Decides {
		decides[i] = string(f)
	}
	return fmt.Sprintf(`%s %s is a matcher for scepgate, which starts it: by hand it does nothing.
It can decide: %s.
The lines for the Caddyfile: scepgate scep plugin info %s
`, info.Name, info.Version, cmp.Or(strings.Join(decides, ", "), "nothing, it only objects"), os.Args[0])
}

// NewGRPCServer makes the server that Serve serves on, with bounded messages,
// and panics as errors: for go-plugin's ServeConfig where a test serves in process.
func NewGRPCServer(opts []grpc.ServerOption) *grpc.Server {
	return newServing(hclog.New(&hclog.LoggerOptions{Name: "matcher", Level: hclog.Info, JSONFormat: true})).start(opts)
}

// serving is the gRPC server of this process, and the way to end it.
type serving struct {
	logger hclog.Logger

	// Held for reading by each request to the matcher; drained takes it for
	// writing, for good: then none is left, and none is let in any more.
	flight  sync.RWMutex
	drained func() <-chan struct{}

	mu     sync.Mutex
	server *grpc.Server
	ending sync.Once
}

func newServing(logger hclog.Logger) *serving {
	s := &serving{logger: logger}
	s.drained = sync.OnceValue(func() <-chan struct{} {
		none := make(chan struct{})
		go func() {
			s.flight.Lock()
			close(none)
		}()
		return none
	})
	return s
}

func (s *serving) start(opts []grpc.ServerOption) *grpc.Server {
	opts = append(opts,
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.ChainUnaryInterceptor(s.counted, recovered(s.logger)),
	)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = grpc.NewServer(opts...)
	return s.server
}

func (s *serving) started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server != nil
}

// counted lets requests in until the end begins. go-plugin's own Shutdown cuts
// what is in flight, so that waits first.
func (s *serving) counted(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch {
	case strings.HasPrefix(info.FullMethod, "/"+pb.Matcher_ServiceDesc.ServiceName+"/"):
		if !s.flight.TryRLock() {
			return nil, status.Error(codes.Unavailable, "matcher is ending")
		}
		defer s.flight.RUnlock()
	case info.FullMethod == "/plugin.GRPCController/Shutdown":
		s.drain()
	}
	return handler(ctx, req)
}

// drain waits for the requests in flight, and lets no other in.
func (s *serving) drain() {
	select {
	case <-s.drained():
	case <-time.After(drainTime):
	}
}

// end stops serving, so that Serve returns and takes the socket with it. What
// does not end by then is ended.
func (s *serving) end() {
	s.ending.Do(func() {
		time.AfterFunc(2*drainTime, func() { os.Exit(1) })
		s.drain()
		s.mu.Lock()
		server := s.server
		s.mu.Unlock()
		if server == nil {
			os.Exit(1)
		}
		server.Stop()
	})
}
