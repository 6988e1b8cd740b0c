// Command cmd runs the NDES simulator on its own, on loopback only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/ndes"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9100", "loopback address to listen on")
	dir := flag.String("dir", "", "folder for the CA and RA files (required)")
	password := flag.String("password", "off", "off, one-time, or static:PASSWORD")
	modern := flag.Bool("modern", false, "list AES and SHA-384 among the capabilities, as strongSwan wants")
	pending := flag.Bool("pending", false, "hold requests for approval")
	oaep := flag.Bool("oaep", false, "answer AES requests with RSAES-OAEP")
	flag.Parse()
	if err := run(*listen, *dir, *password, *modern, *pending, *oaep); err != nil {
		log.Fatal(err)
	}
}

func run(listen, dir, password string, modern, pending, oaep bool) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s is not a loopback address: the simulator issues to anybody", listen)
	}
	if dir == "" {
		return errors.New("-dir is required")
	}
	c := ndes.Config{Pending: pending, OAEPReplies: oaep}
	if modern {
		c.Capabilities = ndes.ModernCapabilities
	}
	switch static, isStatic := strings.CutPrefix(password, "static:"); {
	case isStatic:
		c.Password, c.StaticPassword = ndes.PasswordStatic, static
	case password == "one-time":
		c.Password = ndes.PasswordOneTime
	case password != "off":
		return fmt.Errorf("-password %s is not off, one-time or static:PASSWORD", password)
	}
	s, err := ndes.New(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.WriteFiles(dir); err != nil {
		return err
	}
	fmt.Printf("NDES simulator on http://%s/certsrv/mscep/mscep.dll, files in %s\n", listen, dir)
	return (&http.Server{Addr: listen, Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}).ListenAndServe()
}
