package caddymodule

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/scepgate/scepgate/store"
)

// These tests load real configurations. There is one Caddy per process, so none
// of them is parallel.

// caddyConfig is a configuration with nothing but the app.
func caddyConfig(t testing.TB, store map[string]any, keyFile string, profiles map[string]*Profile) []byte {
	t.Helper()
	config, err := json.Marshal(map[string]any{
		"admin":   map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "PANIC"}}},
		"apps":    map[string]any{"scep": map[string]any{"store": store, "challenge_key_file": keyFile, "profiles": profiles}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func badgerAt(path string) map[string]any { return map[string]any{"engine": "badger", "path": path} }

func (s *site) config(t testing.TB) []byte {
	return caddyConfig(t, badgerAt(s.path("data")), "", map[string]*Profile{"wifi": s.profile()})
}

func load(t testing.TB, config []byte) *App {
	t.Helper()
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	return loadedApp(t)
}

func loadedApp(t testing.TB) *App {
	t.Helper()
	app, err := caddy.ActiveContext().App("scep")
	if err != nil {
		t.Fatal(err)
	}
	return app.(*App)
}

// ownCaddy stops what a test loaded, and proves that nothing of it is left.
func ownCaddy(t *testing.T) {
	t.TempDir() // is removed after what follows: a store must not lose its folder while it is open
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		stores.Range(func(key, _ any) bool {
			t.Errorf("store %v is still open", key)
			return true
		})
		goleak.VerifyNone(t, before)
	})
}

// works proves that the app's store answers.
func works(t testing.TB, a *App) {
	t.Helper()
	lease, err := a.lease()
	if err != nil {
		t.Errorf("lease: %v", err)
		return
	}
	defer lease.release()
	if err := lease.Check(t.Context()); err != nil {
		t.Errorf("store: %v", err)
	}
}

// listing gives the names of everything under dir.
func listing(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestAReloadKeepsTheStoreOpen(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	first := load(t, s.config(t))
	works(t, first)
	open := first.current.Load()

	other := s.profile()
	other.Allow = []string{"patterns"}
	second := load(t, caddyConfig(t, badgerAt(filepath.Join(s.dir, "x", "..", "data")), "", map[string]*Profile{"wifi": other}))
	if second == first {
		t.Fatal("nothing was reloaded")
	}
	if second.current.Load() != open {
		t.Error("the store was opened again")
	}
	if n, ok := stores.References(second.poolKey); !ok || n != 1 {
		t.Errorf("%d references, %v", n, ok)
	}
	works(t, second)
	works(t, first) // a request that was in flight
}

func TestAFailedReloadLeavesTheLiveStoreAlone(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	live := load(t, s.config(t))
	open := live.current.Load()
	otherKey := s.write(t, "other.key", []byte(strings.Repeat("ab", 32)), 0o600)
	broken := s.profile()
	broken.RA[0].Key = s.path("gone.key")
	for name, config := range map[string][]byte{
		"fails before the store is known": caddyConfig(t, map[string]any{"engine": "none"}, "", nil),
		"fails while provisioning":        caddyConfig(t, badgerAt(s.path("data")), "", map[string]*Profile{"wifi": broken}),
		"fails when it binds the key":     caddyConfig(t, badgerAt(s.path("data")), otherKey, map[string]*Profile{"wifi": s.profile()}),
	} {
		if err := caddy.Load(config, true); err == nil {
			t.Errorf("%s: did not fail", name)
		}
		if loadedApp(t) != live || live.current.Load() != open {
			t.Errorf("%s: the live app was replaced", name)
		}
		if n, _ := stores.References(live.poolKey); n != 1 {
			t.Errorf("%s: %d references", name, n)
		}
		works(t, live)
	}
}

func TestValidateCreatesNothing(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	before := listing(t, s.dir)
	if err := validate(s.config(t)); err != nil {
		t.Fatal(err)
	}
	if after := listing(t, s.dir); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
}

func validate(config []byte) error {
	var c caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	return caddy.Validate(&c)
}

const validateInChild = "SCEPGATE_TEST_VALIDATE"

// TestValidateInChild is what the next test runs in a process of its own.
func TestValidateInChild(t *testing.T) {
	config := os.Getenv(validateInChild)
	if config == "" {
		t.Skip("only in a child process")
	}
	if err := validate([]byte(config)); err != nil {
		t.Fatal(err)
	}
}

func TestValidateInAnotherProcessWorksBesideALiveServer(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	live := load(t, s.config(t))
	before := listing(t, s.dir)
	child := exec.Command(os.Args[0], "-test.run=^TestValidateInChild$", "-test.v")
	child.Env = append(os.Environ(), validateInChild+"="+string(s.config(t)))
	out, err := child.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestValidateInChild")) {
		t.Errorf("%v\n%s", err, out)
	}
	if after := listing(t, s.dir); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
	works(t, live)
}

func TestAStoreThatMovesIsDrained(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	old := load(t, s.config(t))
	open := old.current.Load()
	lease, err := old.lease()
	if err != nil {
		t.Fatal(err)
	}
	reloaded := make(chan error, 1)
	go func() {
		reloaded <- caddy.Load(caddyConfig(t, badgerAt(s.path("moved")), "", map[string]*Profile{"wifi": s.profile()}), true)
	}()
	for closing := false; !closing; runtime.Gosched() {
		open.mu.Lock()
		closing = open.closing
		open.mu.Unlock()
	}
	// The new configuration is at work, and the request of the old one goes on.
	works(t, loadedApp(t))
	if err := lease.Check(t.Context()); err != nil {
		t.Errorf("a request in flight: %v", err)
	}
	if _, err := old.lease(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a new request of the old configuration: %v", err)
	}
	lease.release()
	if err := <-reloaded; err != nil {
		t.Fatal(err)
	}
	if err := lease.Check(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("the old store after the reload: %v", err)
	}
}

func TestTheChallengeKeyIsMadeOnStartAndKept(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	path := s.path("data") + ".challenge.key"
	load(t, s.config(t))
	made, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	works(t, load(t, s.config(t)))
	if kept, _ := os.ReadFile(path); !bytes.Equal(kept, made) {
		t.Error("the key changed")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}

	s.write(t, "data.challenge.key", []byte(strings.Repeat("00", 32)), 0o600)
	if err := caddy.Load(s.config(t), true); err == nil || !strings.Contains(err.Error(), store.ErrChallengeKey.Error()) || !strings.Contains(err.Error(), path) {
		t.Errorf("another key: %v", err)
	}
	os.Remove(path)
	for name, load := range map[string]func([]byte) error{"load": func(c []byte) error { return caddy.Load(c, true) }, "validate": validate} {
		if err := load(s.config(t)); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s without the key: %v", name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s made a new key", name)
		}
	}
	s.write(t, "data.challenge.key", made, 0o600)
	works(t, load(t, s.config(t)))
}

func TestUnusableKeyFilesFailTheLoad(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	good := s.write(t, "good.key", []byte(strings.Repeat("ab", 32)), 0o600)
	short := s.write(t, "short.key", []byte("ab"), 0o600)
	public := s.write(t, "public.key", []byte(strings.Repeat("ab", 32)), 0o644)
	encrypted := func(path string) map[string]any {
		b := badgerAt(s.path("data"))
		b["encryption_key_file"] = path
		return b
	}
	tests := map[string]struct {
		store   map[string]any
		keyFile string
		want    []string
	}{
		"a short challenge key":          {badgerAt(s.path("data")), short, []string{"challenge_key_file", short}},
		"a challenge key in the store":   {badgerAt(s.path("data")), s.path("data/key"), []string{"challenge_key_file", "lies in the store's folder"}},
		"a short encryption key":         {encrypted(short), good, []string{"encryption_key_file", short}},
		"a missing encryption key":       {encrypted(s.path("gone.key")), good, []string{"encryption_key_file", "gone.key"}},
		"a store that is a file":         {badgerAt(good), "", []string{"path", good, "not a folder"}},
		"an empty placeholder as path":   {badgerAt("{env.SCEPGATE_TEST_UNSET}"), "", []string{"path"}},
		"an empty placeholder as key":    {badgerAt(s.path("data")), "{env.SCEPGATE_TEST_UNSET}", []string{"challenge_key_file"}},
		"a store of an unknown engine":   {map[string]any{"engine": "bolt"}, "", []string{"bolt"}},
		"a store with an unknown option": {map[string]any{"engine": "memory", "path": "x"}, "", []string{"path"}},
		"no store":                       {nil, "", []string{"no store"}},
	}
	if runtime.GOOS != "windows" {
		tests["a public challenge key"] = struct {
			store   map[string]any
			keyFile string
			want    []string
		}{badgerAt(s.path("data")), public, []string{"challenge_key_file", public, "open to everybody"}}
	}
	before := listing(t, s.dir)
	for name, test := range tests {
		err := validate(caddyConfig(t, test.store, test.keyFile, map[string]*Profile{"wifi": s.profile()}))
		if err == nil {
			t.Errorf("%s: was accepted", name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in: %v", name, want, err)
			}
		}
	}
	if after := listing(t, s.dir); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
}

func TestBrokenProfilesFailTheLoadByName(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	config := func(profiles string) []byte {
		return fmt.Appendf(nil, `{"admin":{"disabled":true},"apps":{"scep":{"store":{"engine":"memory"},"profiles":%s}}}`, profiles)
	}
	good, err := json.Marshal(s.profile())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		profiles string
		want     string
	}{
		"a null profile":        {`{"wifi":null}`, "profile wifi"},
		"an empty profile":      {`{"wifi":{}}`, "profile wifi: challenge"},
		"a name for no URL":     {fmt.Sprintf(`{"a/b":%s}`, good), "profile a/b: name"},
		"an unknown field":      {`{"wifi":{"chalenge":{}}}`, "chalenge"},
		"a later version's":     {`{"wifi":{"matcher":{}}}`, "matcher"},
		"renewal as a word":     {`{"wifi":{"renewal":"off"}}`, "renewal"},
		"one good and one null": {fmt.Sprintf(`{"a":%s,"b":null}`, good), "profile b"},
	} {
		if err := validate(config(test.profiles)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: want %q, got %v", name, test.want, err)
		}
	}
	if err := validate(config(fmt.Sprintf(`{"wifi":%s}`, good))); err != nil {
		t.Errorf("the good profile: %v", err)
	}
}

func TestAMemoryStoreLivesOverReloads(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	config := func(profile string) []byte {
		return caddyConfig(t, map[string]any{"engine": "memory"}, "", map[string]*Profile{profile: s.profile()})
	}
	first := load(t, config("wifi"))
	second := load(t, config("vpn"))
	if first == second || first.current.Load() != second.current.Load() {
		t.Error("the store did not live on")
	}
	if first.hasher.CheckValue() == nil || !bytes.Equal(first.hasher.CheckValue(), second.hasher.CheckValue()) {
		t.Error("the challenge key did not live on")
	}
	if second.profile("wifi") != nil || second.profile("vpn") == nil {
		t.Error("profiles are not those of the new configuration")
	}
}

func TestOptionsOfAnOpenStoreAreKeptWithAWarning(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	live := load(t, s.config(t))
	a := provisioned(t, s, func(a *App) {
		key := s.write(t, "store.key", []byte(strings.Repeat("ab", 32)), 0o600)
		a.StoreRaw = json.RawMessage(fmt.Sprintf(`{"engine":"badger","path":%q,"encryption_key_file":%q}`, s.path("data"), key))
	})
	logs := observe(a)
	if err := a.ready(); err != nil {
		t.Fatal(err)
	}
	if a.current.Load() != live.current.Load() {
		t.Error("the store was opened again")
	}
	if logs.FilterMessageSnippet("restart to change them").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}

// provisioned gives an app beside Caddy's own, as it is before Start.
func provisioned(t *testing.T, s *site, change func(*App)) *App {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	a := &App{
		StoreRaw: json.RawMessage(fmt.Sprintf(`{"engine":"badger","path":%q}`, s.path("data"))),
		Profiles: map[string]*Profile{"wifi": s.profile()},
	}
	if change != nil {
		change(a)
	}
	if err := a.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
		cancel()
	})
	return a
}

func observe(a *App) *observer.ObservedLogs {
	core, logs := observer.New(zapcore.DebugLevel)
	a.logger = zap.New(core)
	return logs
}

func TestARequestMayComeBeforeStart(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	a := provisioned(t, s, nil)
	r := a.profile("wifi")
	if r.keysHealthy() || r.files.Load() != nil {
		t.Fatal("the profile works before there is a challenge key")
	}
	works(t, a)
	if !r.keysHealthy() || r.files.Load().gate == nil || r.files.Load().opener == nil || !a.storeHealthy() {
		t.Fatal("the profile does not work after the first lease")
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	if n, _ := stores.References(a.poolKey); n != 1 {
		t.Errorf("%d references", n)
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	works(t, a) // requests in flight
	if err := errors.Join(a.Cleanup(), a.Cleanup()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.lease(); err == nil {
		t.Error("a lease after the store was closed")
	}
}

func TestNothingIsOpenedAfterCleanup(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	a := provisioned(t, s, nil)
	if err := a.Cleanup(); err != nil {
		t.Fatal(err)
	}
	before := listing(t, s.dir)
	if lease, err := a.lease(); err == nil || lease.Store != nil || lease.release != nil {
		t.Errorf("lease: %v", err)
	}
	if a.storeHealthy() {
		t.Error("healthy")
	}
	if err := a.Start(); err == nil {
		t.Error("started")
	}
	if after := listing(t, s.dir); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
}

func TestTheZeroAppRefusesAndEndsQuietly(t *testing.T) {
	a := new(App)
	if _, err := a.lease(); err == nil {
		t.Error("a lease")
	}
	if a.storeHealthy() || a.profile("wifi") != nil || a.profile("wifi").keysHealthy() || a.storeEngine() != "" {
		t.Error("something is healthy")
	}
	a.storeFailed(errors.New("x"))
	if err := errors.Join(a.Stop(), a.Cleanup()); err != nil {
		t.Error(err)
	}
}

func TestAStoreThatFailedIsNotHealthy(t *testing.T) {
	ownCaddy(t)
	a := provisioned(t, newSite(t), nil)
	if !a.storeHealthy() {
		t.Fatal("not healthy at first")
	}
	a.storeFailed(store.ErrGeneration)
	if !a.storeHealthy() {
		t.Error("an answer of the store took it down")
	}
	a.storeFailed(errors.New("i/o error"))
	if a.storeHealthy() {
		t.Error("healthy after a failure")
	}
}

func TestChangedFilesAreSwappedAsAWholeOrNotAtAll(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	a := provisioned(t, s, nil)
	logs := observe(a)
	r := a.profile("wifi")
	var seen []*profileFiles
	a.onFiles(func(got *running, files *profileFiles) {
		if got != r {
			t.Errorf("files of %v", got)
		}
		seen = append(seen, files)
	})
	if err := a.ready(); err != nil {
		t.Fatal(err)
	}
	inFlight := r.files.Load()

	next := issueCertificate(t, &x509.Certificate{Subject: commonName("Next RA"), KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature}, s.ca, strangerKey().Public(), siteCAKey())
	s.write(t, "ra.crt", pemOf(next), 0o644)
	a.watcher.check(a.logger)
	a.watcher.check(a.logger)
	if r.files.Load() != inFlight {
		t.Fatal("half a pair was used")
	}
	kept := logs.FilterLevelExact(zapcore.ErrorLevel).All()
	if len(kept) != 1 || !strings.Contains(fmt.Sprint(kept[0].ContextMap()), "does not fit") {
		t.Errorf("log: %v", kept)
	}

	s.write(t, "ra.key", pemOfKey(t, strangerKey()), 0o600)
	a.watcher.check(a.logger)
	now := r.files.Load()
	if now == inFlight || !now.ras[0].certificate.Equal(next) || !strangerKey().Equal(now.ras[0].key) {
		t.Fatal("the new pair is not used")
	}
	if !inFlight.ras[0].certificate.Equal(s.ra) {
		t.Error("what a request in flight holds was modified")
	}
	if len(seen) != 2 || seen[0] != inFlight || seen[1] != now {
		t.Errorf("onFiles was called %d times", len(seen))
	}
	var late []*profileFiles
	a.onFiles(func(_ *running, files *profileFiles) { late = append(late, files) })
	if len(late) != 1 || late[0] != now {
		t.Errorf("a late onFiles was called %d times", len(late))
	}
	for _, name := range []string{"ra.crt", "ra.key", "ca.crt"} {
		os.Remove(s.path(name))
		a.watcher.check(a.logger)
		if r.files.Load() != now {
			t.Errorf("%s is gone, and other files are used", name)
		}
	}
}

func TestAFileThatOnlyItsModeMadeUnusableIsTriedAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	ownCaddy(t)
	s := newSite(t)
	a := provisioned(t, s, nil)
	if err := a.ready(); err != nil {
		t.Fatal(err)
	}
	r := a.profile("wifi")
	before := r.files.Load()
	s.write(t, "ra.key", append(pemOfKey(t, siteRAKey()), '\n'), 0o604)
	a.watcher.check(a.logger)
	if r.files.Load() != before {
		t.Fatal("a key that everybody may read is used")
	}
	if err := os.Chmod(s.path("ra.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.watcher.check(a.logger)
	if r.files.Load() == before {
		t.Error("the key is still not used")
	}
}

func TestObservingIsNaggedAboutHourly(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	now := time.Now()
	a := provisioned(t, s, func(a *App) {
		a.now = func() time.Time { return now }
		a.Profiles["wifi"].Mode = &Mode{Kind: "observe", Until: now.Add(150 * time.Minute).UTC().Format(time.RFC3339)}
	})
	logs := observe(a)
	for i, want := range []int{1, 1, 2, 2, 3, 3, 3} { // every half hour
		a.nag()
		if got := logs.FilterMessageSnippet("mode observe").Len(); got != want {
			t.Errorf("after %d half hours: %d warnings, want %d", i, got, want)
		}
		now = now.Add(30 * time.Minute)
	}
}

func TestAnEncryptedStoreOpensWithItsKey(t *testing.T) {
	ownCaddy(t)
	s := newSite(t)
	key := bytes.Repeat([]byte{7}, 32)
	config := func(path string) []byte {
		b := badgerAt(s.path("data"))
		b["encryption_key_file"] = path
		return caddyConfig(t, b, "", map[string]*Profile{"wifi": s.profile()})
	}
	works(t, load(t, config(s.write(t, "raw.key", key, 0o600))))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	works(t, load(t, config(s.write(t, "hex.key", []byte(hex.EncodeToString(key)+"\n"), 0o600))))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config(s.write(t, "wrong.key", bytes.Repeat([]byte{8}, 32), 0o600)), true); err == nil {
		t.Error("opened with another key")
	}
	if err := caddy.Load(s.config(t), true); err == nil {
		t.Error("opened without a key")
	}
}

func TestOptionsKeepTheirNames(t *testing.T) {
	// The JSON names are the Caddyfile's; scripts rely on both.
	raw, err := json.Marshal(&Profile{
		Challenge: &Challenge{Source: "gateway"}, RA: []*RA{{Name: "a"}}, CACertificate: []string{"a"}, RASigningCertificate: []string{"a"},
		Refusal: &Refusal{Kind: "signed"}, Templates: &Templates{}, Defaults: &Defaults{}, Algorithms: &Algorithms{}, Allow: []string{"patterns"},
		MaxMismatches: new(int), Renewal: &Renewal{
			Mode: "on", Window: "33%", RequireNewKey: true, ExtKeyUsage: []string{"clientAuth"}, CADrops: []string{"E"},
			CRL: []string{"a"}, Registration: "none",
		},
		RetryWindow: durationOf(0), InDoubtRelease: caddy.Duration(time.Hour), Mode: &Mode{Kind: "enforce"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	want := []string{"algorithms", "allow", "ca_certificate", "challenge", "defaults", "in_doubt_release", "max_mismatches", "mode", "ra", "ra_signing_certificate", "refusal", "renewal", "retry_window", "templates"}
	if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	want = []string{"ca_drops", "crl", "ext_key_usage", "mode", "registration", "require_new_key", "window"}
	if got := slices.Sorted(maps.Keys(fields["renewal"].(map[string]any))); !slices.Equal(got, want) {
		t.Errorf("renewal: %q", got)
	}
}
