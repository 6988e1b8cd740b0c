package bench

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/badgerstore"
)

// expectations is how many live ones BenchmarkScale registers; the figures in
// docs/operations.md are those of 1,000,000.
var expectations = flag.Int("expectations", 50_000, "live expectations in BenchmarkScale")

// few is what many is compared with.
const few = 10_000

// BenchmarkScale registers many expectations in Badger and looks some up: each
// with a challenge of its own, and all of them under one static password.
func BenchmarkScale(b *testing.B) {
	for _, source := range []gate.Source{gate.SourceGateway, gate.SourceNDESStatic} {
		b.Run(string(source), func(b *testing.B) {
			for range b.N {
				scale(b, source, *expectations)
			}
		})
	}
}

func scale(b *testing.B, source gate.Source, n int) {
	path := filepath.Join(b.TempDir(), "data")
	s := open(b, path)
	g := set(b).gate
	if source == gate.SourceNDESStatic {
		g = set(b).static(b)
	}
	lookups := make([]store.Lookup, n)
	register := func(from, to int) time.Duration {
		start := time.Now()
		each(to-from, devices, func(i int) {
			subject := fmt.Sprintf("CN=device%07d,OU=WiFi,O=Example Corp", from+i)
			p, problems := g.Prepare(gate.Registration{Subject: &subject, SAN: &gate.SAN{DNS: []string{fmt.Sprintf("device%07d.example.com", from+i)}}}, "mdm")
			if len(problems) > 0 {
				b.Error(problems)
				return
			}
			e, err := s.Register(context.Background(), p.Expectation)
			if err != nil {
				b.Error(err)
				return
			}
			lookups[from+i] = store.Lookup{Profile: e.Profile, ChallengeHash: e.ChallengeHash, IdentityHash: e.IdentityHash, TransactionID: fmt.Sprint(from + i)}
		})
		if b.Failed() {
			b.FailNow()
		}
		return time.Since(start)
	}
	first := min(few, n)
	took := register(0, first)
	p99few := percentile(b, s, lookups[:first])
	took += register(first, n)
	p99many := percentile(b, s, lookups)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	s = open(b, path)
	if _, err := s.Find(context.Background(), lookups[n/2]); err != nil {
		b.Fatal(err)
	}
	startUp := time.Since(start)
	p99again := percentile(b, s, lookups)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	memory := opened(b, path)

	b.ReportMetric(float64(n)/took.Seconds(), "registrations/s")
	b.ReportMetric(float64(p99few.Microseconds()), "p99-µs-few")
	b.ReportMetric(float64(p99many.Microseconds()), "p99-µs-many")
	b.ReportMetric(float64(p99again.Microseconds()), "p99-µs-reopened")
	b.ReportMetric(float64(p99many)/float64(p99few), "p99-many/few")
	b.ReportMetric(startUp.Seconds(), "startup-s")
	b.ReportMetric(memory["Rss"], "resident-MiB")
	b.ReportMetric(memory["Anonymous"], "anonymous-MiB")
	b.ReportMetric(float64(size(path))/(1<<20), "disk-MiB")
}

func open(b *testing.B, path string) store.Store {
	b.Helper()
	s, err := badgerstore.Open(badgerstore.Options{Path: path, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// percentile is the 99th of single lookups at random places.
func percentile(b *testing.B, s store.Store, lookups []store.Lookup) time.Duration {
	b.Helper()
	const samples = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	times := make([]time.Duration, samples)
	for i := range times {
		l := lookups[r.IntN(len(lookups))]
		start := time.Now()
		found, err := s.Find(context.Background(), l)
		times[i] = time.Since(start)
		if err != nil || found.Expectation == nil {
			b.Fatalf("lookup: %v, found %v", err, found.Expectation != nil)
		}
	}
	slices.Sort(times)
	return times[samples*99/100]
}

// openFolder in the environment makes this binary open the store there, read it
// once from end to end of its profile's first page, print its memory and end.
const openFolder = "SCEPGATE_BENCH_OPEN"

func TestMain(m *testing.M) {
	path := os.Getenv(openFolder)
	if path == "" {
		os.Exit(m.Run())
	}
	s, err := badgerstore.Open(badgerstore.Options{Path: path, Now: time.Now})
	if err == nil {
		_, err = s.List(context.Background(), store.Query{Profile: "wifi", Limit: 500})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	debug.FreeOSMemory()
	rollup, _ := os.ReadFile("/proc/self/smaps_rollup")
	os.Stdout.Write(rollup)
	s.Close()
}

// opened is what a process of its own needs with the store open, in MiB; empty
// where /proc is not.
func opened(b *testing.B, path string) map[string]float64 {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), openFolder+"="+path)
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	memory := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		var name string
		var kib int
		if n, _ := fmt.Sscanf(strings.Replace(line, ":", " ", 1), "%s %d kB", &name, &kib); n == 2 {
			memory[name] = float64(kib) / 1024
		}
	}
	return memory
}

func size(dir string) (total int64) {
	filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			total += info.Size()
		}
		return nil
	})
	return total
}
