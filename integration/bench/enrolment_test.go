package bench

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/badgerstore"
)

// devices is how many enrol at once; enrolments how many in all.
const (
	devices    = 64
	enrolments = 2000
)

// bench is a gate over Badger and prepared traffic.
type bench struct {
	gate   *gate.Gate
	opener *inspector.Opener
	store  store.Store
	server *ndes.Server
	dir    string
}

func set(b *testing.B) *bench {
	b.Helper()
	s := &bench{dir: b.TempDir()}
	var err error
	if s.server, err = ndes.New(ndes.Config{}); err != nil {
		b.Fatal(err)
	}
	hasher, err := gate.NewHasher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	if s.opener, err = inspector.NewOpener([]inspector.RAKey{{Name: "ra", Certificate: s.server.Exchange, Key: s.server.ExchangeKey()}}, hasher.SubstituteSecret()); err != nil {
		b.Fatal(err)
	}
	s.gate = s.profile(b, hasher, gate.SourceGateway, "")
	if s.store, err = badgerstore.Open(badgerstore.Options{Path: filepath.Join(s.dir, "data"), Now: time.Now}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.store.Close() })
	return s
}

func (s *bench) profile(b *testing.B, hasher *gate.Hasher, source gate.Source, password string) *gate.Gate {
	b.Helper()
	g, err := gate.New(gate.Profile{
		Name: "wifi", Source: source, StaticPassword: password, DefaultTTL: 24 * time.Hour,
		CAs: []*x509.Certificate{s.server.CA}, RAs: []*x509.Certificate{s.server.Exchange},
		KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
		Digests: []string{"sha1", "sha256", "sha384", "sha512"}, Ciphers: []string{"des3", "aes128", "aes256"}, MinRSABits: 2048, MaxMismatches: 3,
		Constraints: func(string) (*gate.Constraints, bool) { return nil, true },
	}, hasher, nil, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// static is a gate whose devices all share one password.
func (s *bench) static(b *testing.B) *gate.Gate {
	b.Helper()
	hasher, err := gate.NewHasher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	return s.profile(b, hasher, gate.SourceNDESStatic, "0123456789ABCDEF")
}

// traffic is one message and NDES's answer to it.
type traffic struct{ message, reply []byte }

// prepare registers n expectations and builds the message of each, with the
// wrong subject if hostile, and the reply. None of it is measured.
func (s *bench) prepare(b *testing.B, n int, hostile bool) []traffic {
	b.Helper()
	pool := make([]*attack.Device, 16)
	for i := range pool {
		var err error
		if pool[i], err = attack.NewDevice(); err != nil {
			b.Fatal(err)
		}
	}
	all := make([]traffic, n)
	each(n, 64, func(i int) {
		cn := fmt.Sprintf("device%d", i)
		subject := "CN=" + cn + ",O=Example Corp"
		prepared, problems := s.gate.Prepare(gate.Registration{Subject: &subject, SAN: &gate.SAN{DNS: []string{cn + ".example.com"}}}, "mdm")
		if len(problems) > 0 {
			b.Error(problems)
			return
		}
		if _, err := s.store.Register(context.Background(), prepared.Expectation); err != nil {
			b.Error(err)
			return
		}
		if hostile {
			cn = "administrator"
		}
		d := pool[i%len(pool)]
		csr, err := inspector.BuildCSR(inspector.CSRParams{
			Subject:  attack.Subject(attack.O, "Example Corp", attack.CN, cn),
			SAN:      []inspector.GeneralName{{Type: "dns", Value: fmt.Sprintf("device%d.example.com", i)}},
			KeyUsage: 1<<0 | 1<<2, Challenge: prepared.Challenge,
		}, d.Key)
		if err != nil {
			b.Error(err)
			return
		}
		if all[i].message, err = inspector.BuildPKIMessage(inspector.PKIMessage{
			MessageType: "19", TransactionID: fmt.Sprintf("%040d", i), Content: csr, Recipient: s.server.Exchange, SignerCert: d.SelfSigned, SignerKey: d.Key,
		}); err != nil {
			b.Error(err)
			return
		}
		if all[i].reply, err = s.server.Answer(all[i].message); err != nil {
			b.Error(err)
		}
	})
	if b.Failed() {
		b.FailNow()
	}
	return all
}

// each calls f for 0 … n-1 from many goroutines.
func each(n, goroutines int, f func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// enrol is everything between the device's bytes and NDES's, and back.
func (s *bench) enrol(t traffic) error {
	ctx := context.Background()
	m, err := inspector.ParseMessage(t.message)
	if err != nil {
		return err
	}
	d := s.gate.Judge(ctx, s.store, gate.Request{Message: m, Opened: s.opener.Open(m), ClientIP: "192.0.2.1", UserAgent: "bench"})
	if !d.Forward {
		return fmt.Errorf("refused: %s %v", d.Reason, d.Findings)
	}
	rep, err := inspector.ParseCertRep(t.reply)
	if err != nil {
		return err
	}
	if _, err := rep.VerifySigner([]*x509.Certificate{s.server.Signing}); err != nil {
		return err
	}
	return s.gate.Settle(ctx, s.store, d, gate.Forwarded{Sent: true, Rep: rep}).Err
}

// refuse is everything between a hostile device's bytes and its answer.
func (s *bench) refuse(t traffic) error {
	m, err := inspector.ParseMessage(t.message)
	if err != nil {
		return err
	}
	d := s.gate.Judge(context.Background(), s.store, gate.Request{Message: m, Opened: s.opener.Open(m), ClientIP: "192.0.2.1", UserAgent: "bench"})
	if d.Forward {
		return fmt.Errorf("forwarded")
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	_, err = inspector.BuildFailure(inspector.Failure{TransactionID: m.TransactionID, RecipientNonce: m.SenderNonce, SenderNonce: nonce}, s.server.Exchange, s.server.ExchangeKey())
	return err
}

// took runs f over all from many goroutines and returns how long it took.
func took(b *testing.B, all []traffic, f func(traffic) error) time.Duration {
	b.Helper()
	start := time.Now()
	each(len(all), devices, func(i int) {
		if err := f(all[i]); err != nil {
			b.Error(err)
		}
	})
	elapsed := time.Since(start)
	if b.Failed() {
		b.FailNow()
	}
	return elapsed
}

// rounds is how often two things that are compared take turns: the machine is
// not equally fast all the time.
const rounds = 5

// turns cuts all into rounds.
func turns(all []traffic) [][]traffic {
	return slices.Collect(slices.Chunk(all, (len(all)+rounds-1)/rounds))
}

// decrypts takes as many private-key operations as there is traffic, from as
// many goroutines.
func (s *bench) decrypts(b *testing.B, all []traffic) time.Duration {
	b.Helper()
	blob, err := rsa.EncryptPKCS1v15(rand.Reader, s.server.Exchange.PublicKey.(*rsa.PublicKey), make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	return took(b, all, func(traffic) error {
		_, err := s.server.ExchangeKey().Decrypt(rand.Reader, blob, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 16})
		return err
	})
}

// fsync is what a durable write costs here.
func fsync(b *testing.B, dir string) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const n = 50
	start := time.Now()
	for range n {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / n
}

// oneCore gives the measured part one core, as the figures are per core.
func oneCore(b *testing.B) {
	before := runtime.GOMAXPROCS(1)
	b.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// BenchmarkEnrolment compares enrolments per second with private-key
// operations per second, on one core with 64 devices at once.
func BenchmarkEnrolment(b *testing.B) {
	s := set(b)
	for range b.N {
		b.StopTimer()
		all := s.prepare(b, enrolments, false)
		oneCore(b)
		runtime.GC()
		var enrolling, decrypting time.Duration
		for _, turn := range turns(all) {
			decrypting += s.decrypts(b, turn)
			b.StartTimer()
			enrolling += took(b, turn, s.enrol)
			b.StopTimer()
		}
		b.ReportMetric(enrolments/enrolling.Seconds(), "enrolments/s")
		b.ReportMetric(enrolments/decrypting.Seconds(), "decrypts/s")
		b.ReportMetric(float64(decrypting)/float64(enrolling), "enrolments/decrypt")
		b.ReportMetric(float64(fsync(b, s.dir).Microseconds()), "fsync-µs")
	}
}

// BenchmarkRefusal compares the cost of a refusal, which is signed, with that
// of an acceptance.
func BenchmarkRefusal(b *testing.B) {
	s := set(b)
	for range b.N {
		b.StopTimer()
		honest, hostile := turns(s.prepare(b, enrolments, false)), turns(s.prepare(b, enrolments, true))
		oneCore(b)
		runtime.GC()
		var accepting, refusing time.Duration
		for i := range honest {
			accepting += took(b, honest[i], s.enrol)
			b.StartTimer()
			refusing += took(b, hostile[i], s.refuse)
			b.StopTimer()
		}
		b.ReportMetric(enrolments/refusing.Seconds(), "refusals/s")
		b.ReportMetric(float64(refusing)/float64(accepting), "acceptances/refusal")
	}
}
