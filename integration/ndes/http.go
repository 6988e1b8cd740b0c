package ndes

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf16"
)

// Handler is the HTTP surface: the device application and the admin
// application, which IIS runs from the same folder.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "Microsoft-IIS/10.0")
		chunked := len(r.TransferEncoding) > 0
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, Request{Method: r.Method, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header.Clone(), Host: r.Host, Chunked: chunked, Body: body})
		s.mu.Unlock()

		// A real server survives what crashes its DLL by restarting a worker.
		defer func() {
			if recover() != nil {
				htmlError(w, http.StatusInternalServerError)
			}
		}()
		path := strings.ToLower(r.URL.Path) // IIS ignores case
		switch {
		case path == "/certsrv/mscep", path == "/certsrv/mscep_admin":
			target := r.URL.Path + "/"
			if r.URL.RawQuery != "" {
				target += "?" + r.URL.RawQuery
			}
			http.Redirect(w, r, target, http.StatusMovedPermanently)
		case path == "/certsrv/mscep/", strings.HasPrefix(path, "/certsrv/mscep/mscep.dll"):
			s.device(w, r, chunked, body)
		case path == "/certsrv/mscep_admin/", strings.HasPrefix(path, "/certsrv/mscep_admin/mscep.dll"):
			s.admin(w, r)
		default:
			htmlError(w, http.StatusNotFound)
		}
	})
}

// operation reads the operation as NDES does; message is taken raw, because
// NDES does not decode '+' to a space.
func operation(rawQuery string) string {
	op, _ := parameter(rawQuery, "operation")
	return op
}

func parameter(rawQuery, name string) (string, bool) {
	for pair := range strings.SplitSeq(strings.TrimPrefix(rawQuery, "?"), "&") {
		if k, v, ok := strings.Cut(pair, "="); ok && k == name {
			u, err := url.PathUnescape(v)
			return u, err == nil
		}
	}
	return "", false
}

func (s *Server) device(w http.ResponseWriter, r *http.Request, chunked bool, body []byte) {
	if len(r.URL.RawQuery) > maxQuery {
		htmlError(w, http.StatusNotFound) // 404.15
		return
	}
	switch operation(r.URL.RawQuery) {
	case "GetCACaps":
		io.WriteString(w, strings.Join(s.config.Capabilities, "\n"))
	case "GetCACert":
		w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
		certs := [][]byte{s.Signing.Raw, s.Exchange.Raw, s.CA.Raw}
		if s.Root != nil {
			certs = append(certs, s.Root.Raw)
		}
		w.Write(certsOnly(certs))
	case "PKIOperation":
		if chunked {
			htmlError(w, http.StatusLengthRequired)
			return
		}
		message := body
		if r.Method == http.MethodGet {
			text, ok := parameter(r.URL.RawQuery, "message")
			if !ok {
				htmlError(w, http.StatusInternalServerError) // event 16
				return
			}
			text = strings.NewReplacer("\r", "", "\n", "", " ", "+").Replace(text)
			var err error
			if message, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); err != nil {
				htmlError(w, http.StatusInternalServerError)
				return
			}
		}
		reply, err := s.pkiOperation(message)
		if err != nil {
			htmlError(w, http.StatusInternalServerError) // events 16 to 18
			return
		}
		w.Header().Set("Content-Type", "application/x-pki-message")
		w.Header().Set("Content-Length", fmt.Sprint(len(reply)))
		w.Write(reply)
	case "NDESGenerateChallenge":
		// Exists where a policy module is registered; it mints a challenge.
		if !s.config.PolicyModule {
			htmlError(w, http.StatusNotFound)
			return
		}
		p, _ := s.NewPassword()
		io.WriteString(w, p)
	case "":
		if s.config.PolicyModule {
			htmlError(w, http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<HTML><Body><P>Network Device Enrollment Service</P><P>This URL is used by network devices to submit certificate requests.</P></Body></HTML>")
	default:
		htmlError(w, http.StatusNotFound)
	}
}

// admin is mscep_admin without its Windows authentication: what an attacker
// sees who has relayed somebody's NTLM, or whose proxy logs in for him.
func (s *Server) admin(w http.ResponseWriter, r *http.Request) {
	if op := operation(r.URL.RawQuery); op != "" {
		s.device(w, r, false, nil)
		return
	}
	sum := md5.Sum(s.CA.Raw)
	thumb := fmt.Sprintf("%X %X %X %X", sum[0:4], sum[4:8], sum[8:12], sum[12:16])
	page := "<HTML><Head><Meta HTTP-Equiv=\"Content-Type\" Content=\"text/html; charset=UTF-8\"><Title>Network Device Enrollment Service</Title></Head><Body>"
	switch p, ok := s.adminPassword(); {
	case !ok:
		page += "<P> The password cache is full. <P> Wait for a password to expire, or use one of the existing passwords."
	case s.config.Password == PasswordStatic:
		page += "<P> The thumbprint (hash value) for the CA certificate is: <B> " + thumb + " </B> <P> The enrollment challenge password is: <B> " + p + " </B> <P> This password will not expire."
	default:
		page += "<P> The thumbprint (hash value) for the CA certificate is: <B> " + thumb + " </B> <P> The enrollment challenge password is: <B> " + p + " </B> <P> This password can be used only once and will expire within 60 minutes."
	}
	page += "</Body></HTML>"
	w.Header().Set("Content-Type", "text/html")
	var b bytes.Buffer
	for _, u := range utf16.Encode([]rune(page)) {
		binary.Write(&b, binary.LittleEndian, u) // the header claims UTF-8, the wire is UTF-16LE
	}
	w.Write(b.Bytes())
}

func (s *Server) adminPassword() (string, bool) {
	if s.config.Password == PasswordStatic {
		return s.config.StaticPassword, true
	}
	return s.NewPassword()
}

func htmlError(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<HTML><Body><H2>%d - %s</H2></Body></HTML>", status, http.StatusText(status))
}
