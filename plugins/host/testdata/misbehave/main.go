// Command misbehave is a plugin that does wrong on command: its first argument
// says how it starts, and a request's transactionID what Match does.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/scepgate/scepgate/plugins"
)

func main() {
	mode := "obey"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	folder := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	switch mode {
	case "exact":
		plugins.Serve(new(plugins.Exact))
	case "obey":
		plugins.Serve(new(obedient))
	case "shy":
		plugins.Serve(&obedient{decides: []plugins.Field{plugins.SID}})
	case "exits":
		fmt.Fprintln(os.Stderr, "no licence")
		os.Exit(3)
	case "sleeps":
		forever()
	case "shuts_stdout":
		os.Stdout.Close()
		forever()
	case "rubbish":
		fmt.Println("Hello, world!")
		forever()
	case "endless_stdout":
		for {
			os.Stdout.Write(make([]byte, 4096))
		}
	case "netrpc":
		fmt.Printf("1|1|unix|%s|netrpc|\n", filepath.Join(folder, "x"))
		forever()
	case "elsewhere":
		fmt.Printf("1|1|unix|%s|grpc|\n", os.Args[2])
		forever()
	case "remote":
		fmt.Printf("1|1|tcp|%s|grpc|\n", os.Args[2])
		forever()
	case "deaf":
		listen(folder)
		forever()
	case "imposter":
		l := listen(folder)
		cert, _ := selfSigned() // not the one it announced
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
		}
	case "other_version":
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  plugins.Handshake,
			VersionedPlugins: map[int]plugin.PluginSet{99: plugins.Sets(new(obedient))[1]},
			GRPCServer:       plugin.DefaultGRPCServer,
		})
	case "other_service":
		serveRaw(false)
	case "raw":
		serveRaw(true)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		plugins.Serve(new(obedient))
		forever()
	case "noisy":
		go func() {
			for i := 0; ; i++ {
				fmt.Fprintf(os.Stderr, "line %d \x1b[31m%s\n", i, strings.Repeat("x", 3000))
			}
		}()
		plugins.Serve(new(obedient))
	case "blurts":
		plugins.Serve(&obedient{first: func() {
			for {
				syscall.Write(1, make([]byte, 100<<10))
			}
		}})
	case "prints":
		plugins.Serve(&obedient{first: func() {
			for {
				fmt.Println(strings.Repeat("y", 1000))
				fmt.Fprintln(os.Stderr, strings.Repeat("z", 1000))
			}
		}})
	case "parent", "parent_of_runaway":
		child := exec.Command("/proc/self/exe", "sleeps")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: mode == "parent_of_runaway"}
		if err := child.Start(); err != nil {
			panic(err)
		}
		plugins.Serve(&obedient{child: child.Process.Pid})
	default:
		fmt.Fprintln(os.Stderr, "unknown mode", mode)
		os.Exit(2)
	}
}

func forever() { time.Sleep(time.Hour) }

// listen greets correctly.
func listen(folder string) net.Listener {
	_, der := selfSigned()
	path := filepath.Join(folder, "p")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|grpc|%s\n", path, base64.RawStdEncoding.EncodeToString(der))
	return l
}

func selfSigned() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der
}

// obedient does what the transactionID says.
type obedient struct {
	decides []plugins.Field
	child   int
	first   func() // runs beside everything from the first question on
	calls   atomic.Int64
	config  map[string]string
	heard   atomic.Int64
}

func (o *obedient) Info() plugins.Info {
	decides := o.decides
	if decides == nil {
		decides = []plugins.Field{plugins.Subject, plugins.SAN}
	}
	return plugins.Info{Name: "misbehave", Version: "1.2.3", Decides: decides}
}

func (o *obedient) Configure(_ context.Context, config map[string]string) error {
	switch config["start"] {
	case "refuse":
		return errors.New("url: \x1b[31mnot a URL\n" + strings.Repeat("!", 5000))
	case "crash":
		os.Exit(9)
	case "hang":
		forever()
	}
	o.config = config
	return nil
}

func (o *obedient) Notified(_ context.Context, out plugins.Outcome) error {
	if out.Reason == "again" {
		return errors.New("again later")
	}
	o.heard.Add(1)
	return nil
}

func (o *obedient) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	n := o.calls.Add(1)
	if n == 1 && o.first != nil {
		go o.first()
	}
	tell := func(s string) (plugins.Answer, error) {
		return plugins.Answer{Verdict: plugins.Refuse, Code: "told", Findings: []plugins.Finding{{Field: plugins.Subject, Got: s}}}, nil
	}
	switch r.TransactionID {
	case "agree":
		return plugins.Answer{Verdict: plugins.Agree}, nil
	case "agree_every_third_crashes":
		if n%3 == 0 {
			os.Exit(5)
		}
		return plugins.Answer{Verdict: plugins.Agree}, nil
	case "not_mine":
		return plugins.Answer{Verdict: plugins.NotMine}, nil
	case "crash":
		os.Exit(7)
	case "crash_in_goroutine":
		go func() { panic("a goroutine of its own") }()
		forever()
	case "panic":
		panic("in Match, with " + r.Challenge)
	case "hang":
		forever()
	case "stop": // all of it, so that not even a ping is answered
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		forever() // it reaches this thread a moment later
	case "slow":
		<-ctx.Done()
		return plugins.Answer{Verdict: plugins.Agree}, ctx.Err()
	case "error":
		return plugins.Answer{Verdict: plugins.Agree}, errors.New("cmdb: \x1b[31mno such host")
	case "leak":
		hclog.New(&hclog.LoggerOptions{JSONFormat: true, Output: os.Stderr}).Warn("asked with "+r.Challenge, "challenge", r.Challenge)
		fmt.Fprintln(os.Stderr, "[ERROR] challenge="+r.Challenge)
		return plugins.Answer{Verdict: plugins.Refuse, Code: "leaked", Findings: []plugins.Finding{{Field: plugins.Subject, Got: r.Challenge}}}, nil
	case "levels":
		log := hclog.New(&hclog.LoggerOptions{JSONFormat: true, Output: os.Stderr, Level: hclog.Trace})
		log.Debug("said at debug")
		log.Info("said at info", "key", "value", "level", "fake")
		log.Warn("said at warn")
		log.Error("said at error \x1b[31m" + strings.Repeat("e", 9000))
	case "pid":
		return tell(strconv.Itoa(os.Getpid()))
	case "child":
		return tell(strconv.Itoa(o.child))
	case "environment":
		return tell(strings.Join(os.Environ(), "\x1e"))
	case "arguments":
		return tell(strings.Join(os.Args, " "))
	case "config":
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(o.config)) {
			fmt.Fprintf(&b, "%s=%s;", k, o.config[k])
		}
		return tell(b.String())
	case "heard":
		return tell(strconv.FormatInt(o.heard.Load(), 10))
	case "stdin":
		b := make([]byte, 100)
		n, err := os.Stdin.Read(b)
		return tell(fmt.Sprintf("%q %v", b[:n], err))
	case "folder":
		wd, _ := os.Getwd()
		info, err := os.Stat(filepath.Dir(os.Getenv("PLUGIN_UNIX_SOCKET_DIR")))
		if err != nil {
			return plugins.Answer{}, err
		}
		return tell(wd + " " + info.Mode().String())
	}
	return plugins.Answer{Verdict: plugins.Refuse, Code: "told_so"}, nil
}
