package interop

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/wire"
)

// refusedShapes asks for what was registered, in forms that NDES would take but
// no client needs that is to be served, or that the defaults leave out.
func refusedShapes(t *testing.T, s *gateway.Stage) {
	certificate := func(digest crypto.Hash) selfSigned {
		return selfSigned{serial: []byte{1}, name: wire.CommonName("device"), digest: digest}
	}
	router := func(address []byte) []byte {
		return wire.Name(printableCN("r1"), wire.RDN(wire.ATV(wire.OIDUnstructuredAddress, address)))
	}
	const oldCisco = "old Cisco IOS: MD5"
	for _, c := range []struct {
		name    string
		subject string
		bits    int
		reason  string
		message func(d shapeDevice) []byte
	}{
		{oldCisco, "CN=md5", 2048, "algorithm_refused", func(d shapeDevice) []byte {
			r := d.request(identity{subject: wire.CommonName("md5")}, crypto.MD5)
			return d.signed(certificate(crypto.MD5), crypto.MD5, 16).Bytes(d.enveloped(r.Bytes(), wire.OIDDES3CBC))
		}},
		{"old sscep and certmonger: DES", "CN=des", 2048, "algorithm_refused", func(d shapeDevice) []byte {
			r := d.request(identity{subject: wire.CommonName("des")}, crypto.SHA256)
			return d.signed(certificate(crypto.SHA256), crypto.SHA256, 16).Bytes(d.enveloped(r.Bytes(), wire.OIDDESCBC))
		}},
		{"Apple's default key size", "CN=small", 1024, "key_refused", func(d shapeDevice) []byte {
			return plain(t, d, identity{subject: wire.CommonName("small")})
		}},
		{"encryptedData as the type inside the envelope", "CN=inner", 2048, "malformed_message", func(d shapeDevice) []byte {
			r := d.request(identity{subject: wire.CommonName("inner")}, crypto.SHA256)
			e := wire.Envelope{To: d.to, InnerType: wire.OID(wire.OIDEncryptedData)}
			return d.signed(certificate(crypto.SHA256), crypto.SHA256, 16).Bytes(e.Bytes(r.Bytes()))
		}},
		{"unstructuredAddress as IA5String", "CN=r1,unstructuredAddress=192.0.2.1", 2048, "malformed_request", func(d shapeDevice) []byte {
			return plain(t, d, identity{subject: router(wire.IA5("192.0.2.1"))})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := rsa.GenerateKey(rand.Reader, c.bits)
			if err != nil {
				t.Fatal(err)
			}
			var registered struct {
				Challenge string `json:"challenge"`
			}
			if err := s.Register(t.Context(), map[string]any{"subject": c.subject}, &registered); err != nil {
				t.Fatal(err)
			}
			seen, mark := s.NDES.PKIOperations(), s.Mark()
			message := c.message(shapeDevice{key: key, to: s.NDES.Exchange, challenge: registered.Challenge})
			a := post(dll, "application/x-pki-message")(t, s.Devices, message)
			if a.Status != http.StatusOK || a.Rep == nil || a.Rep.PKIStatus != "2" || a.Rep.FailInfo != "2" {
				t.Errorf("%d %q", a.Status, a.Body[:min(len(a.Body), 80)])
			}
			told(t, s, mark, "enrollment refused", c.reason)
			if s.NDES.PKIOperations() != seen {
				t.Error("it reached NDES")
			}
			// The simulator, asked directly, shows that the message is sound; MD5 it
			// cannot verify.
			if c.name == oldCisco {
				return
			}
			direct, err := s.NDES.Twin().Answer(message)
			if err != nil {
				t.Fatalf("NDES alone: %v", err)
			}
			if rep, err := inspector.ParseCertRep(direct); err != nil || rep.PKIStatus != "0" {
				t.Errorf("NDES alone does not issue: %v, %v", rep, err)
			}
		})
	}
}

// caQueries: whatever a client writes into `message`, and however it asks, it
// gets what NDES answers; NDES is asked once, without `message`.
func caQueries(t *testing.T, s *gateway.Stage) {
	want := map[string]attack.Answer{}
	for _, operation := range []string{"GetCACert", "GetCACaps"} {
		want[operation] = ask(t, http.MethodGet, s.NDESURL+dll+"?operation="+operation, nil)
	}
	start := len(s.NDES.Requests())
	for _, operation := range []string{"GetCACert", "GetCACaps"} {
		for name, query := range map[string]string{
			"strongSwan, sscep: no message":   "?operation=" + operation,
			"Windows":                         "?operation=" + operation + "&message=default",
			"Android":                         "?operation=" + operation + "&message=ca",
			"iOS: the payload's name":         "?operation=" + operation + "&message=SCEP%20Authority",
			"a plus in it":                    "?operation=" + operation + "&message=SCEP+Authority",
			"certmonger":                      "?operation=" + operation + "&message=0",
			"scepclient: nothing in it":       "?operation=" + operation + "&message=",
			"Cisco: the trustpoint's label":   "?operation=" + operation + "&message=CAIdentifier",
			"message first":                   "?message=CAIdentifier&operation=" + operation,
			"sscep, Samba: a second '?'":      "??operation=" + operation,
			"a second '?', and message":       "??operation=" + operation + "&message=default",
			"Unicode in the payload's name":   "?operation=" + operation + "&message=M%C3%BCller",
			"punctuation that nobody escapes": "?operation=" + operation + "&message=Example_CA-1.2~(3)*!",
		} {
			t.Run(operation+" "+name, func(t *testing.T) {
				for _, path := range []string{dll, pkiclient, "/certsrv/mscep", "/certsrv/mscep/", "/CertSrv/mscep/mscep.dll"} {
					same(t, operation, path, want[operation], ask(t, http.MethodGet, s.Devices+path+query, nil))
				}
				if head := ask(t, http.MethodHead, s.Devices+dll+query, nil); head.Status != http.StatusOK || len(head.Body) != 0 {
					t.Errorf("HEAD: %d, %d bytes", head.Status, len(head.Body))
				}
				same(t, operation, "HTTP/1.0", want[operation], http10(t, s.Devices, "GET "+pkiclient+query, []string{"User-Agent: Mozilla/4.0 (compatible; MSIE 5.0; Cisco PKI)"}, nil))
			})
		}
	}
	asked := map[string]int{}
	for _, r := range s.NDES.Requests()[start:] {
		asked[r.RawQuery]++
	}
	for query, n := range asked {
		if n > 1 || !strings.HasPrefix(query, "operation=GetCAC") || strings.Contains(query, "&") {
			t.Errorf("NDES was asked %q %d times", query, n)
		}
	}
}

func same(t *testing.T, operation, how string, want, got attack.Answer) {
	t.Helper()
	if got.Status != http.StatusOK {
		t.Errorf("%s: %d", how, got.Status)
		return
	}
	if operation == "GetCACert" && (got.ContentType != want.ContentType || !bytes.Equal(got.Body, want.Body)) {
		t.Errorf("%s: another answer than NDES's: %s, %d bytes", how, got.ContentType, len(got.Body))
	}
	if diff := cmp.Diff(strings.Fields(string(want.Body)), strings.Fields(string(got.Body))); operation == "GetCACaps" && diff != "" {
		t.Errorf("%s: %s", how, diff)
	}
}
