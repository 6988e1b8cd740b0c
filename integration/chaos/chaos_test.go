package chaos

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/ndes"
)

var (
	kills = flag.Int("kills", 6, "how often the gateway is killed")
	seed  = flag.Uint64("seed", 0, "of the dice; 0: another one each time")
)

const (
	workers  = 6               // honest devices at once
	keys     = 8               // made once: what a key is worth does not matter here
	patience = 2 * time.Minute // of the last phase, in which nothing fails any more
)

func TestKilledAtRandomMomentsItKeepsItsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the real binary")
	}
	run(t, t.TempDir(), nil)
}

// The same on a disk that is full at times.
func TestKilledOnADiskThatFillsUpItKeepsItsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the real binary")
	}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", small).Run() })
	run(t, dir, &disk{small: small})
}

// disk fills up and empties at random.
type disk struct{ small string }

func (d *disk) data() string    { return filepath.Join(d.small, "data") }
func (d *disk) ballast() string { return filepath.Join(d.small, "ballast") }

func (d *disk) fill() {
	f, err := os.Create(d.ballast())
	if err != nil {
		return
	}
	defer f.Close()
	for chunk := make([]byte, 1<<16); err == nil; {
		_, err = f.Write(chunk)
	}
}

func (d *disk) empty() { os.Remove(d.ballast()) }

// world is everything that goes on.
type world struct {
	*testing.T
	ndes    *ndes.Server
	up      *upstream
	config  gateway.Config
	token   string
	keys    []*attack.Device
	http    *http.Client
	current atomic.Pointer[gateway.Gateway]

	full     bool // the disk is, at times
	mu       sync.Mutex
	accounts []*account
	stopped  atomic.Bool

	sent, stolen, unavailable, retried atomic.Int64
}

// account is one expectation and what its devices did.
type account struct {
	cn        string
	challenge string
	id        string
	honest    *attack.Device
	message   []byte // of the honest device: a retry sends it again
	issued    atomic.Bool
}

func run(t *testing.T, dir string, small *disk) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d, %d kills", *seed, *kills)
	dice := rand.New(rand.NewPCG(*seed, 1))
	w := &world{T: t, full: small != nil, http: &http.Client{Timeout: 10 * time.Second}}
	binary, err := gateway.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	if w.ndes, err = ndes.New(ndes.Config{}); err != nil {
		t.Fatal(err)
	}
	w.up = &upstream{ndes: w.ndes.Handler(), dice: rand.New(rand.NewPCG(*seed, 2))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: w.up, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	if err := w.ndes.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	clients := filepath.Join(dir, "clients.json")
	token, err := exec.Command(binary, "scep", "client", "add", "--file", clients, "--name", "mdm",
		"--profile", "wifi", "--scope", "register", "--scope", "read", "--scope", "revoke").Output()
	if err != nil {
		t.Fatalf("client add: %v", err)
	}
	w.token = string(token[:len(token)-1])
	root, err := gateway.Root()
	if err != nil {
		t.Fatal(err)
	}
	env := gateway.ExampleEnv(dir, "http://"+l.Addr().String(), clients)
	if small != nil {
		env["SCEPGATE_DATA"] = small.data()
	}
	w.config = gateway.Config{Binary: binary, Dir: dir, Env: env, Caddyfile: filepath.Join(root, "integration", "chaos", "testdata", "chaos.Caddyfile")}
	for range keys {
		d, err := attack.NewDevice()
		if err != nil {
			t.Fatal(err)
		}
		w.keys = append(w.keys, d)
	}
	w.start()

	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { w.work(rand.New(rand.NewPCG(*seed, uint64(10+i)))) })
	}
	for i := range *kills {
		time.Sleep(time.Duration(50+dice.IntN(1200)) * time.Millisecond) // the random moment
		if small != nil && dice.IntN(2) == 0 {
			small.fill()
			time.Sleep(time.Duration(dice.IntN(1000)) * time.Millisecond)
		}
		w.current.Load().Kill()
		if small != nil {
			small.empty() // a store does not open on a full disk
		}
		w.start()
		if i%50 == 49 {
			t.Logf("%d kills", i+1)
		}
	}
	time.Sleep(time.Second)
	w.up.calm.Store(true)
	w.stopped.Store(true)
	wg.Wait()
	w.verdict()
	if err := w.current.Load().Stop(30 * time.Second); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if t.Failed() {
		t.Logf("run again with -seed %d -kills %d", *seed, *kills)
	}
}

// start is a restart after a crash: the store must open.
func (w *world) start() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, err := gateway.Start(ctx, w.config)
	if err != nil {
		w.stopped.Store(true)
		w.Fatalf("the gateway does not start again (seed %d): %v", *seed, err)
	}
	w.current.Store(g)
}

// work is an MDM and its devices, one after the other, with thieves about.
func (w *world) work(dice *rand.Rand) {
	for n := 0; !w.stopped.Load(); n++ {
		a := w.register(fmt.Sprintf("dev-%x-%d", dice.Uint32(), n), dice)
		if a == nil {
			continue
		}
		var wg sync.WaitGroup
		if dice.IntN(2) == 0 {
			thief := w.keys[dice.IntN(keys)]
			wait := time.Duration(dice.IntN(60)) * time.Millisecond
			name := a.cn
			if dice.IntN(3) == 0 {
				name = "administrator"
			}
			wg.Go(func() {
				time.Sleep(wait)
				w.steal(a, thief, name)
			})
			time.Sleep(time.Duration(dice.IntN(60)) * time.Millisecond) // either may come first
		}
		w.enrol(a, 40, dice)
		wg.Wait()
	}
}

// register puts an expectation by its external id, until it is known to be there.
func (w *world) register(cn string, dice *rand.Rand) *account {
	a := &account{cn: cn, challenge: fmt.Sprintf("challenge-%016x", dice.Uint64()), honest: w.keys[dice.IntN(keys)]}
	for !w.stopped.Load() {
		var answer struct {
			ID string `json:"id"`
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := w.current.Load().Call(ctx, w.token, http.MethodPut, "/v1/profiles/wifi/expectations/by-external-id/"+cn,
			map[string]any{"subject": "CN=" + cn, "challenge": a.challenge}, &answer)
		cancel()
		if err != nil || answer.ID == "" {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		a.id = answer.ID
		var build error
		if a.message, build = w.build(a.honest, cn, a.challenge); build != nil {
			w.Error(build)
			return nil
		}
		w.mu.Lock()
		w.accounts = append(w.accounts, a)
		w.mu.Unlock()
		return a
	}
	return nil
}

// build makes a message of a transaction of its own: NDES answers what it has
// answered, as long as the transactionID is the same.
func (w *world) build(d *attack.Device, cn, challenge string) ([]byte, error) {
	csr, err := inspector.BuildCSR(inspector.CSRParams{Subject: attack.Name(cn), Challenge: challenge}, d.Key)
	if err != nil {
		return nil, err
	}
	return inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "19", TransactionID: crand.Text(), Content: csr,
		Recipient: w.ndes.Exchange, SignerCert: d.SelfSigned, SignerKey: d.Key,
	})
}

// enrol sends the honest device's message until there is a certificate, at
// most so often. A refusal does not stop it: the thief may have come first.
func (w *world) enrol(a *account, tries int, dice *rand.Rand) {
	for i := 0; i < tries; i++ {
		if i > 0 {
			w.retried.Add(1)
			time.Sleep(time.Duration(10+dice.IntN(60)) * time.Millisecond)
		}
		switch w.post(a.message) {
		case down:
			if i--; w.stopped.Load() && !w.up.calm.Load() {
				return // the gateway did not come back
			}
			time.Sleep(20 * time.Millisecond)
		case "0":
			a.issued.Store(true)
			if dice.IntN(3) > 0 {
				return // else once more: the answer may have been lost on the way
			}
		case "2":
			if i > 3 {
				return
			}
		}
	}
}

// steal asks with the challenge of a and another key.
func (w *world) steal(a *account, thief *attack.Device, cn string) {
	if thief == a.honest {
		return
	}
	m, err := w.build(thief, cn, a.challenge)
	if err != nil {
		w.Error(err)
		return
	}
	for range 3 {
		w.stolen.Add(1)
		switch w.post(m) {
		case "0":
			return
		case down:
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// down is what post gives while there is no gateway.
const down = "down"

// post gives pkiStatus, "" where there is none.
func (w *world) post(message []byte) string {
	w.sent.Add(1)
	answer, err := attack.Post(w.http, w.current.Load().Devices, message)
	if err != nil {
		return down
	}
	if answer.Rep == nil {
		w.unavailable.Add(1)
		return ""
	}
	return answer.Rep.PKIStatus
}

// verdict compares what the CA issued with what was promised.
func (w *world) verdict() {
	byName := map[string]map[[32]byte]bool{}
	for _, issue := range w.ndes.Issued() {
		cn := issue.Certificate.Subject.CommonName
		if byName[cn] == nil {
			byName[cn] = map[[32]byte]bool{}
		}
		byName[cn][issue.SPKISHA256] = true
	}
	if len(byName["administrator"]) > 0 {
		w.Error("the CA issued to an administrator")
	}
	delete(byName, "administrator")
	dice := rand.New(rand.NewPCG(*seed, 3))
	honest, thieves, left, settledLater := 0, 0, 0, 0
	known := map[string]bool{}
	for _, a := range w.accounts {
		known[a.cn] = true
		if n := len(byName[a.cn]); n > 1 { // invariant 3
			w.Errorf("%s was honoured for %d keys", a.cn, n)
		}
		e, err := w.read(a.id)
		if err != nil { // none lost
			w.Errorf("%s: %v", a.cn, err)
			continue
		}
		spki, err := x509.MarshalPKIXPublicKey(&a.honest.Key.PublicKey)
		if err != nil {
			w.Fatal(err)
		}
		mine := byName[a.cn][sha256.Sum256(spki)]
		if a.issued.Load() && !mine {
			w.Errorf("%s was told SUCCESS, and the CA has issued nothing to its key", a.cn)
		}
		switch {
		case mine && a.issued.Load():
			honest++
			if w.full && e["state"] == "claimed" {
				// The outcome could not be written down, so it is in doubt: a retry settles it.
				if w.post(a.message) == "0" {
					settledLater++
					e, _ = w.read(a.id)
				}
			}
			if e["state"] != "issued" {
				w.Errorf("%s has its certificate and is %v", a.cn, e["state"])
			}
		case len(byName[a.cn]) == 1 && !mine:
			thieves++ // a stolen challenge with the right name: nobody can tell
		default:
			// In doubt, or never got through: now that nothing fails it must.
			before := a.issued.Load()
			for end := time.Now().Add(patience); !a.issued.Load() && time.Now().Before(end); {
				if w.enrol(a, 2, dice); !a.issued.Load() && w.heldByAnother(a) {
					break
				}
			}
			if a.issued.Load() {
				left++
				break
			}
			if !before && !w.heldByAnother(a) {
				e, _ := w.read(a.id)
				w.Errorf("%s cannot enrol any more: %v", a.cn, e)
			}
			thieves++
		}
	}
	for cn := range byName {
		if !known[cn] {
			w.Errorf("the CA issued %s, which nobody registered", cn)
		}
	}
	w.Logf("%d expectations: %d enrolled under fire (%d in doubt until they came again), %d when it was over, %d held by a thief; %d messages, %d of them thieves', %d retries, %d without an answer",
		len(w.accounts), honest, settledLater, left, thieves, w.sent.Load(), w.stolen.Load(), w.retried.Load(), w.unavailable.Load())
	for i, name := range faultNames {
		w.Logf("upstream %s: %d", name, w.up.fault[i].Load())
	}
	if len(w.accounts) < *kills {
		w.Errorf("only %d expectations in %d lives: nothing went on", len(w.accounts), *kills)
	}
}

func (w *world) read(id string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var e map[string]any
	_, err := w.current.Load().Call(ctx, w.token, http.MethodGet, "/v1/profiles/wifi/expectations/"+id, nil, &e)
	if err == nil && e["id"] != id {
		err = errors.New("another expectation was returned")
	}
	return e, err
}

// heldByAnother reports whether a thief's key has the expectation.
func (w *world) heldByAnother(a *account) bool {
	e, err := w.read(a.id)
	if err != nil {
		return false
	}
	history, _ := e["history"].([]any)
	spki, err := x509.MarshalPKIXPublicKey(&a.honest.Key.PublicKey)
	if err != nil {
		return false
	}
	mine := fmt.Sprintf("%x", sha256.Sum256(spki))
	for i := len(history) - 1; i >= 0; i-- {
		ev, _ := history[i].(map[string]any)
		if ev["what"] == "claimed" || ev["what"] == "retried" {
			return ev["spki_sha256"] != mine && e["state"] != "registered"
		}
	}
	return false
}
