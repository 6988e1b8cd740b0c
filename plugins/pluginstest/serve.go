package pluginstest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/scepgate/scepgate/plugins"
)

// Serve puts m behind the wire that the gateway speaks with a process, within
// this one: the same conversions, limits and errors. The matcher that it
// returns is a *plugins.Client, described.
func Serve(t testing.TB, m plugins.Matcher) plugins.Matcher {
	t.Helper()
	set := plugins.Sets(m)[1][plugins.SetKey].(plugin.GRPCPlugin)
	server := plugins.NewGRPCServer(nil)
	if err := set.GRPCServer(nil, server); err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(64 << 10)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		wg.Wait()
	})
	conn, err := grpc.NewClient("passthrough:///matcher",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	dispensed, err := set.GRPCClient(t.Context(), nil, conn)
	if err != nil {
		t.Fatal(err)
	}
	client := dispensed.(*plugins.Client)
	if _, _, err := client.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}
