package badgerstore

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/storetest"
)

func benchStore(b *testing.B) *Store {
	s, err := Open(Options{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// fill registers n expectations from many goroutines.
func fill(b *testing.B, s *Store, n int) []store.Expectation {
	out := make([]store.Expectation, n)
	var next atomic.Int64
	done := make(chan error)
	for range 64 {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					done <- nil
					return
				}
				var err error
				if out[i], err = s.Register(ctx, storetest.Example(i, "wifi", fmt.Sprint(i), time.Now().Add(24*time.Hour))); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range 64 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return out
}

func BenchmarkRegister(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	b.ResetTimer()
	fill(b, s, b.N)
}

func BenchmarkClaim(b *testing.B) {
	s := benchStore(b)
	all := fill(b, s, b.N)
	var next atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e := all[next.Add(1)-1]
			c := store.Claim{
				Profile: e.Profile, ID: e.ID, Generation: e.Generation,
				Key: []byte(e.ID), Identity: []byte("i"), TransactionID: e.ID, SenderNonce: []byte(e.ID)[:16],
			}
			if _, _, err := s.Claim(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	s := benchStore(b)
	all := fill(b, s, 10_000)
	for _, c := range []struct {
		name string
		hash func(i int) []byte
	}{
		{"hit", func(i int) []byte { return all[i%len(all)].ChallengeHash }},
		{"miss", func(i int) []byte { return fmt.Appendf(nil, "%032d", i) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				f, err := s.Find(ctx, store.Lookup{Profile: "wifi", ChallengeHash: c.hash(i * 7919), TransactionID: "tx"})
				if err != nil || (f.Expectation != nil) != (c.name == "hit") {
					b.Fatal(err)
				}
			}
		})
	}
}
