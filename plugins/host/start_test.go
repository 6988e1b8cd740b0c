package host

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

func TestAConnectionWhoseFirstCallFailsIsClosed(t *testing.T) {
	c := new(connections)
	conn, err := grpc.NewClient("passthrough:///nowhere", append(c.options(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody listens") }),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio"); err == nil {
		t.Fatal("somebody listens")
	}
	c.close()
	if s := conn.GetState(); s != connectivity.Shutdown {
		t.Errorf("the connection is %s", s)
	}
}

func TestOnlyItsOwnSocketIsConnectedTo(t *testing.T) {
	if !unixSockets {
		t.Skip("no unix sockets here")
	}
	p := &process{folder: "/tmp/scepgate-1"}
	for address, mine := range map[string]bool{
		"/tmp/scepgate-1/plugin-dir2/plugin3":        true,
		"/tmp/scepgate-1/plugin3":                    true,
		"/tmp/scepgate-1/../scepgate-2/plugin-dir/p": false,
		"/tmp/scepgate-10/plugin3":                   false,
		"/run/docker.sock":                           false,
		"plugin3":                                    false,
		"":                                           false,
		"@abstract":                                  false,
		"/tmp/scepgate-1/plugin-dir2/../../../run/x":  false,
		"/tmp/scepgate-1/plugin-dir2/../plugin-dir/x": true,
	} {
		if _, _, err := p.PluginToHost("unix", address); (err == nil) != mine {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, network := range []string{"tcp", "tcp4", "unixgram", ""} {
		if _, _, err := p.PluginToHost(network, "127.0.0.1:1234"); err == nil {
			t.Errorf("%q is connected to", network)
		}
	}
}
