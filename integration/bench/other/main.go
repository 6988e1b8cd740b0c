// Command other is the other end of what BenchmarkMatchers compares, as a
// process: `webhook <socket>` is a webhook's server, `echo <socket>` gives back
// what it gets, and without arguments it is the in-process matcher as a plugin.
package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

func main() {
	if len(os.Args) != 3 {
		plugins.Serve(new(plugins.Exact))
		return
	}
	l, err := net.Listen("unix", os.Args[2])
	if err != nil {
		panic(err)
	}
	switch os.Args[1] {
	case "webhook":
		s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(answer)}
		panic(s.Serve(l))
	case "echo":
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		_, _ = io.Copy(c, c)
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Request json.RawMessage `json:"request"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"verdict":"agree"}`)
}
