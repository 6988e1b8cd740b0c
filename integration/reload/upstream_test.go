package reload

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/ndes"
)

// upstream is an NDES that can be made to wait, and that can be in the middle of
// an RA rollover: messages to another RA certificate than the simulator's are
// put into an envelope for it.
type upstream struct {
	ndes    *ndes.Server
	devices map[string]*attack.Device // by signer certificate

	mu     sync.Mutex
	gate   chan struct{} // messages wait until it is closed
	came   chan struct{} // gets one for each message that waits
	next   *raPair
	listed []*x509.Certificate // what GetCACert lists; nil: what the simulator does
}

// hold makes messages wait: came tells that one does, letGo ends it for all.
func (u *upstream) hold() (came <-chan struct{}, letGo func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	gate := make(chan struct{})
	u.gate, u.came = gate, make(chan struct{}, 16)
	return u.came, sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.gate = nil
		close(gate)
	})
}

// roll makes next's messages answered, and GetCACert list these.
func (u *upstream) roll(next *raPair, listed ...*x509.Certificate) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next, u.listed = next, listed
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	gate, came, next, listed := u.gate, u.came, u.next, u.listed
	u.mu.Unlock()
	switch operation := r.URL.Query().Get("operation"); {
	case operation == "GetCACert" && listed != nil:
		var raw []byte
		for _, c := range listed {
			raw = append(raw, c.Raw...)
		}
		p7, err := pkcs7.DegenerateCertificate(raw)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
		w.Write(p7)
		return
	case operation != "PKIOperation":
	default:
		if gate != nil {
			came <- struct{}{}
			select {
			case <-gate:
			case <-time.After(time.Minute):
			}
		}
		message, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		if translated := u.translate(message, next); translated != nil {
			message = translated
		}
		r.Body = io.NopCloser(bytes.NewReader(message))
	}
	u.ndes.Handler().ServeHTTP(w, r)
}

// translate gives the message as it would be for the simulator's own RA
// certificate; nil if it is not for next.
func (u *upstream) translate(message []byte, next *raPair) []byte {
	if next == nil {
		return nil
	}
	m, err := inspector.ParseMessage(message)
	if err != nil {
		return nil
	}
	outer, err := pkcs7.Parse(message)
	if err != nil {
		return nil
	}
	inner, err := pkcs7.Parse(outer.Content)
	if err != nil {
		return nil
	}
	request, err := inner.Decrypt(next.certificate, next.key)
	if err != nil {
		return nil
	}
	d := u.devices[string(m.Signer.Raw)]
	if d == nil {
		return nil
	}
	translated, err := inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: m.MessageType, TransactionID: m.TransactionID, SenderNonce: m.SenderNonce, Content: request,
		Recipient: u.ndes.Exchange, SignerCert: d.SelfSigned, SignerKey: d.Key,
	})
	if err != nil {
		return nil
	}
	return translated
}

// raPair is an RA encryption certificate and its key.
type raPair struct {
	certificate *x509.Certificate
	key         *rsa.PrivateKey
}

// newRAPair lets the simulated CA issue one.
func newRAPair(server *ndes.Server) (*raPair, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	name := attack.Name("NDES01-MSCEP-RA")
	signer, err := inspector.SelfSignedCertificate(name, time.Now(), key)
	if err != nil {
		return nil, err
	}
	d := &attack.Device{Key: key, SelfSigned: signer}
	m, err := d.Build(attack.Message{Request: inspector.CSRParams{
		Subject: name, KeyUsage: 1 << 2, ExtKeyUsage: []string{"1.3.6.1.4.1.311.20.2.1"}, Challenge: "none is asked for",
	}}, server.Exchange)
	if err != nil {
		return nil, err
	}
	reply, err := server.Answer(m)
	if err != nil {
		return nil, err
	}
	certificate, err := d.Certificate(attack.Answer{Body: reply})
	if err != nil {
		return nil, fmt.Errorf("the CA's answer: %w", err)
	}
	return &raPair{certificate, key}, nil
}

// write puts the pair where the configuration finds it, each file as a whole.
func (p *raPair) write(certificate, key string) error {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: p.certificate.Raw}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// countCertificates is how many a GetCACert answer holds.
func countCertificates(body []byte) int {
	p7, err := pkcs7.Parse(body)
	if err != nil {
		return 0
	}
	return len(p7.Certificates)
}
