package bench

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"flag"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/integration/wire"
)

// timingSamples is how often each class is measured; the figures in
// docs/threat-model.md are those of 10,000.
var timingSamples = flag.Int("timing-samples", 500, "samples a class in BenchmarkTiming")

// variants is how many messages a class has: what is measured is to be the
// class, and not the bytes of one message.
const variants = 32

// timed is one way to be refused and the times that it took.
type timed struct {
	name     string
	against  string // the class it is compared with; "": none
	visible  bool   // everybody can tell these two apart by what was sent
	messages [][]byte
	parsed   []*inspector.Message
	took     []float64 // µs
}

// refused makes messages that are refused, for the recipient of s.
type refused struct {
	b      *testing.B
	server *ndes.Server
	device *attack.Device
}

func (r *refused) class(name, against string, build func(m *wire.Message)) *timed {
	c := &timed{name: name, against: against}
	for range variants {
		m := wire.New(r.device.Key, r.device.SelfSigned, r.server.Exchange, "device", fmt.Sprintf("%X", wire.Random(16)))
		build(m)
		raw := m.Bytes()
		parsed, err := inspector.ParseMessage(raw)
		if err != nil {
			r.b.Fatalf("%s: %v", name, err)
		}
		c.messages, c.parsed = append(c.messages, raw), append(c.parsed, parsed)
	}
	return c
}

// public is the RA's key.
func (r *refused) public() *rsa.PublicKey { return r.server.Exchange.PublicKey.(*rsa.PublicKey) }

// textbook is RSA without padding.
func (r *refused) textbook(block []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(r.public().E)), r.public().N)
	return c.FillBytes(make([]byte, r.public().Size()))
}

// pkcs1 is a block with right padding around a random key of 16 octets, changed.
func (r *refused) pkcs1(change func(block []byte)) func(*wire.Message) {
	return func(m *wire.Message) {
		block := wire.Random(r.public().Size())
		for i := range block {
			block[i] |= 1 // not zero
		}
		block[0], block[1], block[len(block)-17] = 0, 2, 0
		change(block)
		m.Envelope.Recipient.EncryptedKey = r.textbook(block)
	}
}

// oaep is an OAEP block around a random key of 16 octets, changed.
func (r *refused) oaep(change func(em, db []byte)) func(*wire.Message) {
	return func(m *wire.Message) {
		em := make([]byte, r.public().Size())
		seed, db := em[1:1+sha1.Size], em[1+sha1.Size:]
		copy(seed, wire.Random(len(seed)))
		label := sha1.Sum(nil)
		copy(db, label[:])
		db[len(db)-17] = 1
		copy(db[len(db)-16:], wire.Random(16))
		change(em, db)
		maskMGF1(db, seed)
		maskMGF1(seed, db)
		m.Envelope.Recipient.EncryptedKey = r.textbook(em)
		m.Envelope.Recipient.Algorithm = wire.Algorithm(wire.OIDRSAESOAEP, wire.Sequence())
	}
}

// maskMGF1 is XOR with MGF1 of SHA-1 (RFC 8017 §B.2.1).
func maskMGF1(out, seed []byte) {
	for i := range out {
		block := sha1.Sum(append(bytes.Clone(seed), 0, 0, 0, byte(i/sha1.Size)))
		out[i] ^= block[i%sha1.Size]
	}
}

// broken is a request whose signature does not verify: what it is after an
// attacker's change before the last block.
func broken(pad func(padded []byte, length int)) func(*wire.Message) {
	return func(m *wire.Message) {
		m.Plaintext = m.Request.Bytes()
		m.Plaintext[len(m.Plaintext)-1] ^= 1
		m.Envelope.Pad = func(plaintext []byte, block int) []byte {
			padded := wire.PadPKCS7(plaintext, block)
			pad(padded, len(plaintext))
			return padded
		}
	}
}

// The names of the classes that others are compared with.
const (
	unknownChallenge = "unknown challenge, all else right"
	rightV15         = "v1.5: right padding, another key"
	rightOAEP        = "OAEP: right padding, another key"
	rightCBC         = "CBC: right padding, changed request"
)

func (r *refused) classes() []*timed {
	n, size := r.public().N, r.public().Size()
	all := []*timed{
		r.class(unknownChallenge, "", func(*wire.Message) {}),
		// Bleichenbacher: is the padding right?
		r.class(rightV15, unknownChallenge, r.pkcs1(func([]byte) {})),
		r.class("v1.5: not 00 02", rightV15, r.pkcs1(func(b []byte) { b[1] = 1 })),
		r.class("v1.5: first octet not 0", rightV15, r.pkcs1(func(b []byte) { b[0] = 1 })),
		r.class("v1.5: no separator", rightV15, r.pkcs1(func(b []byte) { b[size-17] = 1 })),
		r.class("v1.5: short padding", rightV15, r.pkcs1(func(b []byte) { b[5] = 0 })),
		r.class("v1.5: key of 15 octets", rightV15, r.pkcs1(func(b []byte) { b[size-17], b[size-16] = 1, 0 })),
		r.class("encrypted for another key", rightV15, func(m *wire.Message) {
			m.Envelope.Recipient.EncryptedKey = append([]byte{0x42}, wire.Random(size-1)...)
		}),
		r.class("encryptedKey ≥ N", rightV15, func(m *wire.Message) {
			m.Envelope.Recipient.EncryptedKey = new(big.Int).Add(n, new(big.Int).SetBytes(wire.Random(8))).Bytes()
		}),
		r.class("encryptedKey shorter by one", rightV15, func(m *wire.Message) { m.Envelope.Recipient.EncryptedKey = wire.Random(size - 1) }),
		// Manger: is the first octet zero?
		r.class(rightOAEP, unknownChallenge, r.oaep(func(_, _ []byte) {})),
		r.class("OAEP: first octet not 0", rightOAEP, r.oaep(func(em, _ []byte) { em[0] = 1 })),
		r.class("OAEP: another label", rightOAEP, r.oaep(func(_, db []byte) { db[3] ^= 1 })),
		r.class("OAEP: key of 15 octets", rightOAEP, r.oaep(func(_, db []byte) { db[len(db)-17], db[len(db)-16] = 0, 1 })),
		// Vaudenay: is the padding right? The key is.
		r.class(rightCBC, unknownChallenge, broken(func([]byte, int) {})),
		r.class("CBC: last octet wrong", rightCBC, broken(func(p []byte, _ int) { p[len(p)-1] = 0x80 | wire.Random(1)[0] })),
		r.class("CBC: last octet 0", rightCBC, broken(func(p []byte, _ int) { p[len(p)-1] = 0 })),
		r.class("CBC: first padding octet wrong", rightCBC, broken(func(p []byte, length int) { p[length] ^= 0x80 })),
		// What everybody can tell: the number of octets.
		r.class("CBC: part of a block", rightCBC, func(m *wire.Message) {
			m.Plaintext = m.Request.Bytes()
			m.Envelope.IV = wire.Random(16)
			content := m.Envelope.Bytes(m.Plaintext)
			m.Envelope.Ciphertext = content[len(content)-len(wire.PadPKCS7(m.Plaintext, 16)) : len(content)-1]
		}),
	}
	all[len(all)-1].visible = true
	return all
}

// BenchmarkTiming measures what opening and judging take, class by class in
// random order, and compares the classes by Welch's t. Nothing hides the
// differences here: no floor, no signature of a refusal, no network.
func BenchmarkTiming(b *testing.B) {
	s := set(b)
	device, err := attack.NewDevice()
	if err != nil {
		b.Fatal(err)
	}
	r := &refused{b: b, server: s.server, device: device}
	for range b.N {
		classes := r.classes()
		runtime.LockOSThread()
		percent := debug.SetGCPercent(-1) // it runs where it is called, between the rounds
		operation := s.rsaOperation(b, r)
		for i := range *timingSamples + warmUp {
			if i%200 == 0 {
				runtime.GC()
			}
			for _, k := range rand.Perm(len(classes)) {
				c := classes[k]
				m := c.parsed[rand.IntN(variants)]
				start := time.Now()
				opened := s.opener.Open(m)
				d := s.gate.Judge(context.Background(), s.store, gate.Request{Message: m, Opened: opened, ClientIP: "192.0.2.1", UserAgent: "bench"})
				took := time.Since(start)
				if d.Forward || d.Failed || (opened.Err == nil) != (c.name == unknownChallenge) {
					b.Fatalf("%s: %+v", c.name, d)
				}
				if i >= warmUp {
					c.took = append(c.took, float64(took.Nanoseconds())/1e3)
				}
			}
		}
		debug.SetGCPercent(percent)
		runtime.UnlockOSThread()
		fmt.Printf("\n%d samples a class; one RSA decryption takes %.0f µs here\n%s", *timingSamples, operation, compare(classes, operation))
		report(b, classes)
	}
}

// warmUp is how many samples of each class are thrown away first.
const warmUp = 50

// rsaOperation is the median time of one private-key operation.
func (s *bench) rsaOperation(b *testing.B, r *refused) float64 {
	b.Helper()
	times := make([]float64, 500)
	for i := range times {
		block := r.textbook(append([]byte{0, 2}, wire.Random(r.public().Size()-2)...))
		start := time.Now()
		if _, err := s.server.ExchangeKey().Decrypt(cryptorand.Reader, block, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 16}); err != nil {
			b.Fatal(err)
		}
		times[i] = float64(time.Since(start).Nanoseconds()) / 1e3
	}
	return quantile(times, 0.5)
}

// BenchmarkTimingOverHTTP measures what a device sees of the real binary: once
// with the shortest refusal_floor that can be configured, one message at a time,
// and once with the default, some at a time: few enough that none takes longer than
// the floor, which then hides nothing.
func BenchmarkTimingOverHTTP(b *testing.B) {
	if testing.Short() {
		b.Skip("starts processes")
	}
	binary, err := gateway.Build(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for _, floor := range []struct {
		option  string
		clients int
	}{{"1ms", 1}, {"250ms", 8}} {
		b.Run("floor="+floor.option, func(b *testing.B) {
			for range b.N {
				overHTTP(b, binary, floor.option, floor.clients)
			}
		})
	}
}

func overHTTP(b *testing.B, binary, floor string, clients int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	stage, err := gateway.SetUp(ctx, gateway.Config{Binary: binary, Dir: dir, Caddyfile: caddyfile(b, dir, floor)}, server, "wifi")
	if err != nil {
		b.Fatal(err)
	}
	defer stage.Close()
	device, err := attack.NewDevice()
	if err != nil {
		b.Fatal(err)
	}
	known := fmt.Sprintf("%X", wire.Random(16))
	if err := stage.Register(ctx, map[string]any{"subject": "CN=device", "challenge": known}, nil); err != nil {
		b.Fatal(err)
	}
	r := &refused{b: b, server: server, device: device}
	classes := []*timed{
		r.class(unknownChallenge, "", func(*wire.Message) {}),
		r.class("known challenge, another subject", unknownChallenge, func(m *wire.Message) {
			m.Request.SetSubject("administrator")
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(known))}
		}),
		r.class(rightV15, unknownChallenge, r.pkcs1(func([]byte) {})),
		r.class("v1.5: not 00 02", rightV15, r.pkcs1(func(block []byte) { block[1] = 1 })),
		r.class(rightCBC, unknownChallenge, broken(func([]byte, int) {})),
		r.class("CBC: last octet wrong", rightCBC, broken(func(p []byte, _ int) { p[len(p)-1] = 0x80 | wire.Random(1)[0] })),
		r.class("another recipient: no RSA decryption", unknownChallenge, func(m *wire.Message) {
			m.Envelope.Recipient.ID = wire.Sequence(server.Exchange.RawIssuer, wire.Int(9))
		}),
	}
	var order []int
	for range *timingSamples + warmUp {
		order = append(order, rand.Perm(len(classes))...)
	}
	var mu sync.Mutex
	next, bodies := 0, map[int]bool{}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(order) {
					return
				}
				c := classes[order[i]]
				took, size, err := roundTrip(client, stage.Devices, c.messages[rand.IntN(variants)])
				if err != nil {
					b.Errorf("%s: %v", c.name, err)
					return
				}
				mu.Lock()
				bodies[size] = true
				if i >= warmUp*len(classes) {
					c.took = append(c.took, took)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	if len(bodies) != 1 {
		b.Errorf("answers of %d lengths", len(bodies))
	}
	operation := (&bench{server: server}).rsaOperation(b, r)
	fmt.Printf("\n%d samples a class, %d clients at once, refusal_floor %s; one RSA decryption takes %.0f µs here\n%s", *timingSamples, clients, floor, operation, compare(classes, operation))
	report(b, classes)
}

// caddyfile is the example with this floor, and its log in a file.
func caddyfile(b *testing.B, dir, floor string) string {
	b.Helper()
	root, err := gateway.Root()
	if err != nil {
		b.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(root, "Caddyfile.example"))
	if err != nil {
		b.Fatal(err)
	}
	text := strings.ReplaceAll(string(example), "\tlog {\n", "\tlog {\n\t\toutput file "+filepath.Join(dir, "scepgate.log")+"\n")
	text = strings.Replace(text, "health /healthz\n", "health /healthz\n\t\trefusal_floor "+floor+"\n", 1)
	if strings.Count(text, "refusal_floor") != 1 || strings.Count(text, "output file") != 2 {
		b.Fatal("the example is not what it was")
	}
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// roundTrip gives the time from before the request to after the answer, in µs.
func roundTrip(client *http.Client, base string, message []byte) (took float64, size int, err error) {
	req, err := http.NewRequest(http.MethodPost, base+attack.Path+"?operation=PKIOperation", bytes.NewReader(message))
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took = float64(time.Since(start).Nanoseconds()) / 1e3
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return took, len(body), err
}

// crops are the parts of all samples of two classes, the fastest, that the
// t-test looks at: what the machine does beside makes some slow.
var crops = []float64{1, 0.99, 0.95, 0.9, 0.75, 0.5}

// compare makes a table, which goes to the standard output because a benchmark's
// log is cut: each class with the one it is compared with.
func compare(classes []*timed, operation float64) string {
	var t strings.Builder
	t.WriteString("| class | compared with | median µs | difference of medians µs | of means below the 90th percentile µs | of one RSA decryption | t, all | t, below the 90th percentile | largest \\|t\\| | t would be 4.5 at µs |\n")
	t.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range classes {
		other := find(classes, c.against)
		if other == nil {
			fmt.Fprintf(&t, "| %s | | %.1f | | | | | | | |\n", c.name, quantile(c.took, 0.5))
			continue
		}
		all, _, _ := welch(c.took, other.took, 1)
		most, difference, sharp := welch(c.took, other.took, 0.9)
		fmt.Fprintf(&t, "| %s | %s | %.1f | %+.1f | %+.1f | %.2f %% | %.1f | %.1f | %.1f | %.1f |\n",
			c.name, c.against, quantile(c.took, 0.5), quantile(c.took, 0.5)-quantile(other.took, 0.5),
			difference, 100*math.Abs(difference)/operation, all, most, largest(c, other), sharp)
	}
	return t.String()
}

// report gives the largest |t| of any pair as a metric, but for what is visible anyway.
func report(b *testing.B, classes []*timed) {
	for _, against := range []string{unknownChallenge, rightV15, rightOAEP, rightCBC} {
		worst := -1.0
		for _, c := range classes {
			if other := find(classes, c.against); other != nil && c.against == against && !c.visible {
				worst = max(worst, largest(c, other))
			}
		}
		if name, _, ok := strings.Cut(against, ":"); ok && worst >= 0 {
			b.ReportMetric(worst, "max-t-"+strings.ReplaceAll(name, ".", ""))
		} else if worst >= 0 {
			b.ReportMetric(worst, "max-t-opened")
		}
	}
}

func find(classes []*timed, name string) *timed {
	i := slices.IndexFunc(classes, func(c *timed) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return classes[i]
}

func largest(a, b *timed) (t float64) {
	for _, crop := range crops {
		one, _, _ := welch(a.took, b.took, crop)
		t = max(t, math.Abs(one))
	}
	return t
}

// welch is Welch's t of a against b over the samples of both that are below the
// given quantile of all of them, the difference of the means, and what
// difference would have made t 4.5, which is taken for a leak as a rule.
func welch(a, b []float64, crop float64) (t, difference, sharp float64) {
	limit := quantile(slices.Concat(a, b), crop)
	mean := func(x []float64) (mean, variance, n float64) {
		for _, v := range x {
			if v <= limit {
				n++
				delta := v - mean
				mean += delta / n
				variance += delta * (v - mean)
			}
		}
		return mean, variance / (n - 1), n
	}
	ma, va, na := mean(a)
	mb, vb, nb := mean(b)
	deviation := math.Sqrt(va/na + vb/nb)
	if na < 2 || nb < 2 || deviation == 0 {
		return 0, 0, math.Inf(1)
	}
	return (ma - mb) / deviation, ma - mb, 4.5 * deviation
}

func quantile(x []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(x))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// The statistics must find what is there, and not what is not.
func TestWelchFindsALeak(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(shift float64) []float64 {
		x := make([]float64, 10_000)
		for i := range x {
			x[i] = 1000 + shift + 20*r.NormFloat64()
			if r.IntN(50) == 0 { // the machine was busy
				x[i] += 5000 * r.Float64()
			}
		}
		return x
	}
	a, same, other := &timed{took: noise(0)}, &timed{took: noise(0)}, &timed{took: noise(3)}
	if got := largest(a, same); got > 4.5 {
		t.Errorf("t = %.1f where there is no difference", got)
	}
	if got := largest(a, other); got < 4.5 {
		t.Errorf("t = %.1f where there is one", got)
	}
	if _, difference, sharp := welch(other.took, a.took, 0.9); difference < 1 || difference > 5 || sharp > 3 {
		t.Errorf("a difference of 3 is measured as %.1f, visible from %.1f", difference, sharp)
	}
	if got, difference, _ := welch([]float64{1}, nil, 1); got != 0 || difference != 0 {
		t.Errorf("of nothing: %v %v", got, difference)
	}
}

// The blocks of these classes must be what their names say.
func TestTheTimedBlocksArePaddedAsTheyAreNamed(t *testing.T) {
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := &refused{server: server}
	var m wire.Message
	r.pkcs1(func([]byte) {})(&m)
	if key, err := server.ExchangeKey().Decrypt(nil, m.Envelope.Recipient.EncryptedKey, &rsa.PKCS1v15DecryptOptions{}); err != nil || len(key) != 16 {
		t.Errorf("PKCS#1 v1.5: %d octets, %v", len(key), err)
	}
	r.oaep(func(_, _ []byte) {})(&m)
	if key, err := server.ExchangeKey().Decrypt(nil, m.Envelope.Recipient.EncryptedKey, &rsa.OAEPOptions{Hash: crypto.SHA1}); err != nil || len(key) != 16 {
		t.Errorf("OAEP: %d octets, %v", len(key), err)
	}
}
