package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/scepgate/scepgate/plugins"
	pb "github.com/scepgate/scepgate/plugins/proto/scepgate/matcher/v1"
)

// serveRaw answers below what plugins.Serve would let pass.
func serveRaw(registered bool) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugins.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{1: {plugins.SetKey: &rawPlugin{registered: registered}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}), grpc.UnaryInterceptor(rubbish))...)
		},
	})
}

type rawPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	registered bool
}

func (p *rawPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if p.registered {
		pb.RegisterMatcherServer(s, new(rawServer))
	}
	return nil
}

func (p *rawPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

type rawServer struct{ pb.UnimplementedMatcherServer }

func (*rawServer) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	return &pb.DescribeResponse{Name: "raw", Decides: []string{"subject"}}, nil
}

func (*rawServer) Configure(context.Context, *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	return &pb.ConfigureResponse{}, nil
}

func (*rawServer) Match(_ context.Context, r *pb.MatchRequest) (*pb.MatchResponse, error) {
	ours := r.GetFacts().GetRequestSha256()
	switch r.GetTransactionId() {
	case "agree":
		return &pb.MatchResponse{Verdict: pb.Verdict_VERDICT_AGREE, RequestSha256: ours}, nil
	case "no_verdict":
		return &pb.MatchResponse{RequestSha256: ours}, nil
	case "unknown_verdict":
		return &pb.MatchResponse{Verdict: 4711, RequestSha256: ours}, nil
	case "oversized":
		return &pb.MatchResponse{Verdict: pb.Verdict_VERDICT_AGREE, RequestSha256: ours, Code: strings.Repeat("x", 10<<20)}, nil
	case "other_request":
		return &pb.MatchResponse{Verdict: pb.Verdict_VERDICT_AGREE, RequestSha256: "another"}, nil
	case "unavailable":
		return nil, status.Error(codes.Unavailable, "try later")
	}
	return nil, fmt.Errorf("pid %d does not know %q", os.Getpid(), r.GetTransactionId())
}

// rubbish answers with bytes that are no message.
func rubbish(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if m, ok := req.(*pb.MatchRequest); ok && m.GetTransactionId() == "rubbish" {
		return rawBytes("\xff\xff\xff\xff rubbish"), nil
	}
	return handler(ctx, req)
}

type rawBytes string

type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(rawBytes); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}
