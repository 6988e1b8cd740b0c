package plugins

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/scepgate/scepgate/plugins/proto/scepgate/matcher/v1"
)

// Handshake is what gateway and process greet each other with. The cookie is no
// security measure: it tells a process that nobody started it by hand.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "SCEP_GATEWAY_MATCHER",
	MagicCookieValue: "6d5f0c1e8f3f4f0f9a57c2f1d3b8e0a4c7196b2de58a40f3917e6c0db25f84a1",
}

// SetKey names the matcher within each of [Sets].
const SetKey = "matcher"

// Sets is go-plugin's VersionedPlugins, for both sides. The gateway passes nil;
// what it dispenses under [SetKey] is a *[Client].
func Sets(m Matcher) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{1: {SetKey: &version1{m: m}}}
}

type version1 struct {
	plugin.NetRPCUnsupportedPlugin
	m Matcher
}

func (p *version1) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if p.m == nil {
		return errors.New("no matcher to serve")
	}
	pb.RegisterMatcherServer(s, &server{m: p.m})
	return nil
}

func (p *version1) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &Client{c: pb.NewMatcherClient(conn)}, nil
}

// Client is a matcher in another process: a [Matcher], [Configurer] and
// [Notified]. Its errors carry the gRPC status, and wrap the context's error
// if that has ended.
type Client struct {
	c    pb.MatcherClient
	info atomic.Pointer[Info]
}

var (
	_ Matcher    = (*Client)(nil)
	_ Configurer = (*Client)(nil)
	_ Notified   = (*Client)(nil)
)

// limits hold whatever the connection allows: go-plugin lets 2 GiB pass.
var limits = []grpc.CallOption{grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)}

// Describe asks the process what it is, once, before anything else. It also
// tells whether the matcher wants to hear of outcomes.
func (c *Client) Describe(ctx context.Context) (Info, bool, error) {
	m, err := c.c.Describe(ctx, &pb.DescribeRequest{}, limits...)
	if err != nil {
		return Info{}, false, failure(ctx, "describe", err, "")
	}
	info := infoIn(m)
	if err := info.check(); err != nil {
		return Info{}, false, fmt.Errorf("describe: %w", err)
	}
	c.info.Store(&info)
	return info.clone(), m.GetNotified(), nil
}

// Info is what Describe was told; before that it is empty.
func (c *Client) Info() Info {
	if i := c.info.Load(); i != nil {
		return i.clone()
	}
	return Info{}
}

// Configure hands over the `config` block. A process that takes none refuses
// one that is not empty.
func (c *Client) Configure(ctx context.Context, config map[string]string) error {
	m := &pb.ConfigureRequest{Config: config}
	if code := unsendable(m); code != "" {
		return fmt.Errorf("configure: the configuration is %s", code)
	}
	if _, err := c.c.Configure(ctx, m, limits...); err != nil {
		return failure(ctx, "configure", err, "")
	}
	return nil
}

// Match asks the process. What cannot be sent as it is gets refused here: it is
// the device's doing, and to fail would let a device make others wait.
func (c *Client) Match(ctx context.Context, r Request) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("match: %w", err)
	}
	m := requestOut(&r)
	if code := unsendable(m); code != "" {
		return Answer{Verdict: Refuse, Code: code}, nil
	}
	answer, err := c.c.Match(ctx, m, limits...)
	if err != nil {
		return Answer{}, failure(ctx, "match", err, r.Challenge)
	}
	a, err := answerIn(answer, &r)
	if err != nil {
		return Answer{}, fmt.Errorf("match: %w", err)
	}
	return a, nil
}

// Notified delivers an outcome.
func (c *Client) Notified(ctx context.Context, o Outcome) error {
	m := &pb.NotifiedRequest{Outcome: outcomeOut(&o)}
	if code := unsendable(m); code != "" {
		return fmt.Errorf("notified: the outcome is %s", code)
	}
	if _, err := c.c.Notified(ctx, m, limits...); err != nil {
		return failure(ctx, "notified", err, "")
	}
	return nil
}

// failure is err with its text bounded, and without the challenge.
func failure(ctx context.Context, what string, err error, challenge string) error {
	s := status.Convert(err)
	bounded := status.Error(s.Code(), text(without(s.Message(), challenge), maxErrorText))
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w: %w", what, ended, bounded)
	}
	return fmt.Errorf("%s: %w", what, bounded)
}

// server is the author's side.
type server struct {
	pb.UnimplementedMatcherServer
	m Matcher
}

func (s *server) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	_, notified := s.m.(Notified)
	return infoOut(s.m.Info(), notified), nil
}

func (s *server) Configure(ctx context.Context, m *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	if c, ok := s.m.(Configurer); ok {
		config := m.GetConfig()
		if config == nil {
			config = map[string]string{}
		}
		if err := c.Configure(ctx, config); err != nil {
			return nil, refusal(err, codes.InvalidArgument)
		}
	} else if len(m.GetConfig()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "this matcher takes no configuration")
	}
	return &pb.ConfigureResponse{}, nil
}

func (s *server) Match(ctx context.Context, m *pb.MatchRequest) (*pb.MatchResponse, error) {
	r := requestIn(m)
	a, err := s.m.Match(ctx, r)
	if err != nil {
		return nil, refusal(err, codes.Unknown)
	}
	return answerOut(&a, m.GetFacts().GetRequestSha256()), nil
}

func (s *server) Notified(ctx context.Context, m *pb.NotifiedRequest) (*pb.NotifiedResponse, error) {
	n, ok := s.m.(Notified)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this matcher hears of no outcomes")
	}
	if err := n.Notified(ctx, outcomeIn(m.GetOutcome())); err != nil {
		return nil, refusal(err, codes.Unknown)
	}
	return &pb.NotifiedResponse{}, nil
}

// refusal is a matcher's error as a status. It is never OK, which would make an
// empty answer of it.
func refusal(err error, code codes.Code) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	default:
		if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
			code = s.Code()
		}
	}
	return status.Error(code, text(err.Error(), maxErrorText))
}

// recovered turns a panic into an error for this one request. Only the
// runtime's own text is passed on: a value that the author panics with may
// quote the request.
func recovered(logger hclog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if p := recover(); p != nil {
				what := fmt.Sprintf("panic: %T", p)
				if e, ok := p.(runtime.Error); ok {
					what = text(e.Error(), maxErrorText)
				}
				logger.Error("matcher panicked", "method", info.FullMethod, "panic", what, "stack", string(debug.Stack()))
				resp, err = nil, status.Error(codes.Internal, "matcher panicked: "+what)
			}
		}()
		return handler(ctx, req)
	}
}
