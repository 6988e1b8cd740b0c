package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/gateway"
	"github.com/scepgate/scepgate/integration/wire"
)

// The identity of a device that renews, beside its name.
const (
	renewedUPN = "ann@example.com"
	renewedSID = "S-1-5-21-1-2-3-1104"
)

func (t *try) dns() string { return t.CN + ".example.com" }

// certified is the try's device's certificate of the CA, changed by change.
func (t *try) certified(change func(t *try, c *x509.Certificate)) []byte {
	c := &x509.Certificate{
		Subject:         pkix.Name{CommonName: t.CN},
		KeyUsage:        x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{extension(t.renewedSAN()), extension(wire.SID(renewedSID))},
	}
	if change != nil {
		change(t, c)
	}
	return wire.Certificate(c, t.Device.Key, t.NDES.CA, t.NDES.CAKey())
}

func (t *try) renewedSAN() []byte { return wire.SAN(wire.DNS(t.dns()), wire.UPN(renewedUPN)) }

// extension is a whole Extension as crypto/x509 writes it.
func extension(der []byte) (e pkix.Extension) {
	if _, err := asn1.Unmarshal(der, &e); err != nil {
		panic(err)
	}
	return e
}

// Where the extensions of renewing stand.
const (
	atKeyUsage = iota
	atExtKeyUsage
	atSAN
	atSID
)

// renewing is an honest renewal of cert: a new key under the same names.
func (t *try) renewing(cert []byte) *wire.Message {
	m := wire.New(t.other().Key, cert, t.RA, t.CN, "")
	m.SignedData.Signer.Key, m.SignedData.Signer.MessageType = t.Device.Key, "17"
	m.Request.Extend(t.renewedSAN(), wire.SID(renewedSID))
	return m
}

// renews demands that a renewal is forwarded, brings a certificate, and is kept
// as one. It gives the id under which it is.
func (t *try) renews(m *wire.Message) (id string) {
	message := m.Bytes()
	t.issued(t.post(message))
	id = t.decision("ok").String("expectation_id")
	t.reached(message)
	t.demand(id != "", "the renewal is kept nowhere")
	t.state(id, "issued")
	return id
}

// refusesFor demands a refusal for this reason, of which a finding names field.
func (t *try) refusesFor(m *wire.Message, reason, field string) gateway.Line {
	l := t.refuses(m.Bytes(), reason)
	t.demand(namesField(l, field), "no finding names %q: %v", field, l["findings"])
	return l
}

// namesField reports whether a finding is about field.
func namesField(l gateway.Line, field string) bool {
	return strings.Contains(fmt.Sprint(l["findings"])+" ", "field:"+field+" ") || strings.Contains(fmt.Sprint(l["findings"]), "field:"+field+"]")
}

// postTo sends a message to another profile than the vector's.
func (t *try) postTo(profile string, message []byte) attack.Answer {
	a, err := attack.Post(t.Client, t.Devices[profile], message)
	if err != nil {
		t.failf("no answer: %v", err)
	}
	t.back = append(t.back, describe(a))
	return a
}

// file writes a file into the suite's folder.
func (t *try) file(name string, content []byte) string {
	file := filepath.Join(t.Dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.failf("%v", err)
	}
	return file
}

// hostile is a renewal that must be refused, told by what differs from an honest
// one. With any is a certificate that the CA would have made; with cert the
// certificate itself is at fault.
type hostile struct {
	row, variant, reason, field string

	cert    func(t *try, c *x509.Certificate)
	message func(t *try, m *wire.Message)
}

// hostileRenewals makes vectors of profile renew. Each is sent as RenewalReq and
// as PKCSReq; afterwards the honest renewal of the same certificate goes through,
// or where that is at fault, of the one that the device should have.
func hostileRenewals(list ...hostile) (all []vector) {
	for _, h := range list {
		all = append(all, vector{row: h.row, variant: h.variant, want: rej, profile: "renew", unregistered: true, act: func(t *try) {
			cert := t.certified(h.cert)
			for _, messageType := range []string{"17", "19"} {
				m := t.renewing(cert)
				m.SignedData.Signer.MessageType = messageType
				if h.message != nil {
					h.message(t, m)
				}
				t.refusesFor(m, h.reason, h.field)
			}
			if h.cert != nil {
				cert = t.certified(nil)
			}
			t.renews(t.renewing(cert))
		}})
	}
	return all
}

// honestRenewals makes vectors of profile renew that must be forwarded.
func honestRenewals(list ...hostile) (all []vector) {
	for _, h := range list {
		all = append(all, vector{row: h.row, variant: h.variant, want: forwarded, profile: "renew", unregistered: true, act: func(t *try) {
			m := t.renewing(t.certified(h.cert))
			if h.message != nil {
				h.message(t, m)
			}
			t.renews(m)
		}})
	}
	return all
}

// templateOID is the extension that names a template of version 2.
func templateOID(oid string) []byte {
	return wire.Extension(wire.OIDMSTemplate, false, wire.Sequence(wire.OID(oid), wire.Int(100)))
}
