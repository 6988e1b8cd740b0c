package main

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRenewalLife: D17, D18: how often and when a certificate may be renewed.
func rowsRenewalLife() []vector {
	life := func(row, variant, profile string, act func(t *try)) vector {
		return vector{row: row, variant: variant, want: asDescribed, profile: profile, unregistered: true, act: act}
	}
	return []vector{
		life("D17", "before the last 1 % of its life, which is the window; then one within", "early", func(t *try) {
			t.refusesFor(t.renewing(t.certified(nil)), "renewal_too_early", "signer")
			t.renews(t.renewing(t.certified(func(_ *try, c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-1000*time.Hour), time.Now().Add(9*time.Hour)
			})))
		}),
		life("D17", "ten keys, one after the other, under one certificate", "renew", func(t *try) {
			cert := t.certified(nil)
			t.renews(t.renewing(cert))
			for n := range 10 {
				m := t.renewingTo(cert, t.third())
				m.SignedData.Signer.MessageType = []string{"17", "19"}[n%2]
				t.refuses(m.Bytes(), "renewal_used")
			}
		}),
		life("D17", "the same bytes again, the same key in another transaction", "renew", func(t *try) {
			cert := t.certified(nil)
			m := t.renewing(cert)
			message := m.Bytes()
			first := t.certificate(t.Device, t.enrols(message))
			again := t.certificate(t.Device, t.enrols(message)) // its answer may have been lost
			t.demand(first != nil && again != nil && first.Equal(again), "a second certificate for the same bytes")
			t.refuses(t.renewing(cert).Bytes(), "renewal_used")
			t.enrols(message)
		}),
		life("D17", "the same transaction in new bytes, then for another name", "renew", func(t *try) {
			cert := t.certified(nil)
			m := t.renewing(cert)
			t.enrols(m.Bytes())
			t.enrols(m.Bytes())
			m.Request.SetSubject("administrator")
			t.refusesFor(m, "renewal_identity_changed", "subject")
		}),
		life("D17", "three keys race for one certificate's renewal, five times", "renew", func(t *try) {
			for range 5 {
				t.renewalRace()
			}
		}),
		life("D17", "NDES hangs up on a renewal: another key, then the same bytes", "renew", func(t *try) {
			cert := t.certified(nil)
			message := t.renewing(cert).Bytes()
			t.answering(hangUp)
			t.status(t.post(message), http.StatusBadGateway)
			t.decision("upstream_unavailable")
			t.reached(message)
			t.Up.set(nil)
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
			t.enrols(message)
		}),
		life("D17", "another key, when the MDM has registered what is renewed already", "renew", func(t *try) {
			cert := t.certified(nil)
			t.renews(t.renewing(cert))
			t.unregistrable(renewalOf(cert), http.StatusConflict, "challenge_used")
			t.also(renewalBySerial(cert))
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
		}),
		life("D17", "two certificates of one device, renewed to one key each", "renew", func(t *try) { // its own right
			t.renews(t.renewing(t.certified(nil)))
			t.renews(t.renewingTo(t.certified(nil), t.third()))
		}),

		life("D18", "renewed to the key that it has, where a new one is required; then to a new one", "renew", func(t *try) {
			cert := t.certified(nil)
			for _, messageType := range []string{"17", "19"} {
				m := t.renewingTo(cert, t.Device)
				m.SignedData.Signer.MessageType = messageType
				t.refusesFor(m, "renewal_key_reused", "key")
			}
			t.renews(t.renewing(cert))
		}),
		life("D18", "renewed to the key that it has, where that is allowed", "renewreg", func(t *try) {
			cert := t.certified(nil)
			t.also(renewalOf(cert))
			t.renews(t.renewingTo(cert, t.Device))
		}),
		// With `registration none` whoever has the key is the device. It is once, and is seen.
		life("D18", "a stolen certificate and key renew to a new key; the device comes second", "renew", func(t *try) {
			cert := t.certified(nil)
			t.renews(t.renewing(cert))
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
		}),
		life("D18", "a stolen certificate, its renewal registered and revoked by the MDM", "renew", func(t *try) {
			cert := t.certified(nil)
			t.revokes("renew", t.also(renewalOf(cert)))
			t.refuses(t.renewing(cert).Bytes(), "renewal_not_registered")
			t.renews(t.renewing(t.certified(nil)))
		}),
	}
}

// renewingTo is a renewal of cert to d's key.
func (t *try) renewingTo(cert []byte, d *device) *wire.Message {
	m := t.renewing(cert)
	m.Request.Key = d.Key
	return m
}

// third is a device that is neither the honest one nor the other.
func (t *try) third() *device {
	for _, d := range t.Keys {
		if d != t.Device && d != t.other() {
			return d
		}
	}
	return t.Keys[0]
}

// renewalRace lets every key but its own ask at once for what one of them may have.
func (t *try) renewalRace() {
	cert := t.certified(nil)
	var messages [][]byte
	for _, d := range t.Keys {
		if d != t.Device {
			messages = append(messages, t.renewingTo(cert, d).Bytes())
		}
	}
	t.oneWins(messages, "renewal_used")
}

// renewalOf registers the renewal of a certificate by its hash, renewalBySerial
// by its serial number.
func renewalOf(cert []byte) map[string]any {
	sum := sha256.Sum256(cert)
	return map[string]any{"renews": map[string]any{"sha256": hex.EncodeToString(sum[:])}}
}

func renewalBySerial(cert []byte) map[string]any {
	return map[string]any{"renews": map[string]any{"serial": mustParse(cert).SerialNumber.Text(16)}}
}

// rowsRenewalRegistered: D17, D18 where the MDM registers every renewal.
func rowsRenewalRegistered() []vector {
	const missing = "renewal_not_registered"
	registered := func(variant string, act func(t *try, cert []byte)) vector {
		return vector{row: "D18", variant: variant, want: asDescribed, profile: "renewreg", unregistered: true, act: func(t *try) { act(t, t.certified(nil)) }}
	}
	unregistrable := func(variant, code string, status int, e func(t *try, cert []byte) map[string]any) vector {
		return vector{row: "D18", variant: variant, want: cfg, profile: "renewreg", act: func(t *try) { t.unregistrable(e(t, t.certified(nil)), status, code) }}
	}
	with := func(field string, value any) func(*try, []byte) map[string]any {
		return func(_ *try, cert []byte) map[string]any { return over(renewalOf(cert), map[string]any{field: value}) }
	}
	by := func(renews map[string]any) func(*try, []byte) map[string]any {
		return func(*try, []byte) map[string]any { return map[string]any{"renews": renews} }
	}
	organized := func(organization string) func(*try, *x509.Certificate) {
		return func(t *try, c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: t.CN, Organization: []string{organization}}
			c.ExtraExtensions = []pkix.Extension{extension(wire.SAN(wire.DNS(t.CN + ".tenant.example")))}
		}
	}
	return []vector{
		registered("nobody registered it: 17 and 19; then registered by the certificate's hash", func(t *try, cert []byte) {
			t.refuses(t.renewing(cert).Bytes(), missing)
			m := t.renewing(cert)
			m.SignedData.Signer.MessageType = "19"
			t.refuses(m.Bytes(), missing)
			id := t.also(renewalOf(cert))
			t.demand(t.renews(t.renewing(cert)) == id, "the renewal is not kept where it was registered")
		}),
		registered("registered by another serial number, then by its own", func(t *try, cert []byte) {
			other := t.also(renewalBySerial(t.certified(nil)))
			t.refuses(t.renewing(cert).Bytes(), missing)
			t.untouched("renewreg", other)
			id := t.also(renewalBySerial(cert))
			t.demand(t.renews(t.renewing(cert)) == id, "the renewal is not kept where it was registered")
		}),
		registered("registered by the hash of another certificate with the same serial number", func(t *try, cert []byte) {
			twin := t.certified(func(_ *try, c *x509.Certificate) {
				c.SerialNumber, c.NotAfter = mustParse(cert).SerialNumber, time.Now().Add(48*time.Hour)
			})
			t.also(renewalOf(twin))
			t.refuses(t.renewing(cert).Bytes(), missing)
			t.renews(t.renewing(twin))
		}),
		registered("registered and revoked, then registered again", func(t *try, cert []byte) {
			t.revokes("renewreg", t.also(renewalOf(cert)))
			t.refuses(t.renewing(cert).Bytes(), missing)
			t.also(renewalOf(cert))
			t.renews(t.renewing(cert))
		}),
		registered("registered in another profile", func(t *try, cert []byte) {
			_, status, refusal := t.register(t.Token, "renew", renewalOf(cert))
			t.demand(status == http.StatusCreated, "registering: %d %s", status, refusal)
			t.refuses(t.renewing(cert).Bytes(), missing)
		}),
		registered("a challenge registered for its names, and no renewal", func(t *try, cert []byte) {
			id := t.also(over(t.honest(), map[string]any{"san": map[string]any{"dns": []string{t.dns()}, "upn": []string{renewedUPN}}, "sid": renewedSID}))
			m := t.renewing(cert)
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(t.Challenge))}
			t.refuses(m.Bytes(), missing)
			t.untouched("renewreg", id)
		}),
		registered("registered, and other names asked for", func(t *try, cert []byte) {
			id := t.also(renewalOf(cert))
			m := t.renewing(cert)
			m.Request.SetSubject("administrator")
			t.refusesFor(m, "renewal_identity_changed", "subject")
			t.state(id, "registered")
			t.renews(t.renewing(cert))
		}),
		registered("registered once, renewed by two keys", func(t *try, cert []byte) {
			t.also(renewalOf(cert))
			t.renews(t.renewing(cert))
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
		}),
		registered("registered by its hash and used, then by its serial number for another key", func(t *try, cert []byte) {
			t.also(renewalOf(cert))
			t.renews(t.renewing(cert))
			t.unregistrable(renewalOf(cert), http.StatusConflict, "challenge_used")
			t.also(renewalBySerial(cert))
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
		}),
		registered("registered by its hash and by its serial number, renewed by two keys", func(t *try, cert []byte) {
			t.also(renewalOf(cert))
			t.also(renewalBySerial(cert))
			t.renews(t.renewing(cert))
			t.refuses(t.renewingTo(cert, t.third()).Bytes(), "renewal_used")
		}),
		registered("registered by a tenant: what it may not have, and what it may", func(t *try, _ []byte) {
			for _, c := range []struct{ organization, reason string }{{"Example Corp", missing}, {"Tenant Ltd", "ok"}} {
				cert := t.certified(organized(c.organization))
				id, status, refusal := t.register(t.Tenant, "renewreg", renewalOf(cert))
				t.demand(id != "", "the tenant registering: %d %s", status, refusal)
				m := wire.New(t.other().Key, cert, t.RA, t.CN, "")
				m.SignedData.Signer.Key, m.SignedData.Signer.MessageType = t.Device.Key, "17"
				m.Request.Subject = wire.Name(single(wire.OIDCommonName, t.CN), single(wire.OIDOrganization, c.organization))
				m.Request.Extend(wire.SAN(wire.DNS(t.CN + ".tenant.example")))
				if c.reason == "ok" {
					t.renews(m)
					continue
				}
				t.refuses(m.Bytes(), c.reason)
				t.state(id, "registered")
			}
		}),

		unregistrable("a renewal with a subject, registered", "not_with_renews", 422, with("subject", "CN=administrator")),
		unregistrable("a renewal with a challenge, registered", "not_with_renews", 422, with("challenge", newChallenge())),
		unregistrable("a renewal with alternative names, registered", "not_with_renews", 422, with("san", map[string]any{"upn": []string{"administrator@example.com"}})),
		unregistrable("a renewal of several uses, registered", "not_with_renews", 422, with("max_uses", 5)),
		unregistrable("a renewal of no certificate, registered", "renews_one", 422, by(map[string]any{})),
		unregistrable("a renewal by hash and serial number, registered", "renews_one", 422, by(map[string]any{"serial": "1", "sha256": strings.Repeat("0", 64)})),
		unregistrable("a renewal of serial number 0, registered", "renews_serial", 422, by(map[string]any{"serial": "00"})),
		unregistrable("a renewal of any serial number, registered", "renews_serial", 422, by(map[string]any{"serial": "*"})),
		unregistrable("a renewal by half a hash, registered", "renews_sha256", 422, by(map[string]any{"sha256": strings.Repeat("0", 32)})),
		{row: "D18", variant: "a renewal where there are none, registered", want: cfg, act: func(t *try) {
			t.unregistrable(renewalOf(t.Device.SelfSigned), 422, "renewal_disabled")
		}},
	}
}
