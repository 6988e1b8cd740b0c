package main

import (
	"crypto"
	_ "crypto/md5" // of a CA that no longer should
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"time"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRenewalSigner: D13–D16 where renewals are allowed. Whose certificate signs
// is told by the CA's key, the gateway's clock and its CRL.
func rowsRenewalSigner() []vector {
	const untrusted = "renewal_signer_untrusted"
	usage := func(u ...x509.ExtKeyUsage) func(*try, *x509.Certificate) {
		return func(_ *try, c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	having := func(extensions ...[]byte) func(*try, *x509.Certificate) {
		return func(_ *try, c *x509.Certificate) {
			for _, e := range extensions {
				c.ExtraExtensions = append(c.ExtraExtensions, extension(e))
			}
		}
	}
	valid := func(from, to time.Duration) func(*try, *x509.Certificate) {
		return func(_ *try, c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	// signing says that the message was signed at a time of the sender's choice.
	signing := func(at time.Duration) func(*try, *wire.Message) {
		return func(_ *try, m *wire.Message) {
			m.SignedData.Signer.Attributes = [][]byte{signingTime(time.Now().Add(at).UTC().Format("060102150405Z"))}
		}
	}
	const day = 24 * time.Hour
	list := hostileRenewals(
		hostile{"D14", "expired an hour ago, signingTime of yesterday", "renewal_signer_expired", "signer", valid(-300*day, -time.Hour), signing(-day)},
		hostile{"D14", "expired an hour ago, no signingTime", "renewal_signer_expired", "signer", valid(-300*day, -time.Hour), nil},
		hostile{"D14", "expired ten years ago, signingTime within its days", "renewal_signer_expired", "signer", valid(-5000*day, -3650*day), signing(-4000 * day)},
		hostile{"D14", "valid from the next hour on, signingTime of tomorrow", "renewal_signer_expired", "signer", valid(time.Hour, 300*day), signing(day)},

		hostile{"D15", "revoked by the CA's list", "renewal_signer_revoked", "signer", func(_ *try, c *x509.Certificate) { c.SerialNumber = big.NewInt(revokedSerial) }, nil},

		hostile{"D16", "of a TLS server", untrusted, "signer_ext_key_usage", usage(x509.ExtKeyUsageServerAuth), nil},
		hostile{"D16", "of a TLS server that is a client too", untrusted, "signer_ext_key_usage", usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth), nil},
		hostile{"D16", "for any purpose", untrusted, "signer_ext_key_usage", usage(x509.ExtKeyUsageAny), nil},
		hostile{"D16", "for any purpose, clientAuth named too", untrusted, "signer_ext_key_usage", usage(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny), nil},
		hostile{"D16", "without an extended key usage", untrusted, "signer_ext_key_usage", usage(), nil},
		hostile{"D16", "of a signer of code", untrusted, "signer_ext_key_usage", usage(x509.ExtKeyUsageCodeSigning), nil},
		hostile{"D16", "of an enrollment agent that is a client too", untrusted, "signer_ext_key_usage", func(_ *try, c *x509.Certificate) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 3, 6, 1, 4, 1, 311, 20, 2, 1})
		}, nil},
		hostile{"D16", "of an enrollment agent by application policy", untrusted, "signer_application_policies",
			having(wire.ApplicationPolicies(wire.EKUClientAuth, wire.EKUEnrollmentAgent)), nil},
		hostile{"D16", "of a subordinate CA", untrusted, "signer_key_usage", func(_ *try, c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, nil},
		hostile{"D16", "with keyCertSign", untrusted, "signer_key_usage", func(_ *try, c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, nil},
		hostile{"D16", "of another template, by name", untrusted, "signer_template", having(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("User"))), nil},
		hostile{"D16", "of another template, by OID", untrusted, "signer_template", having(templateOID("1.3.6.1.4.1.311.21.8.1.2.3.1")), nil},
		hostile{"D16", "of an administrator", untrusted, "subject", func(_ *try, c *x509.Certificate) { c.Subject.CommonName = "administrator" }, func(_ *try, m *wire.Message) {
			m.Request.SetSubject("administrator")
		}},
		hostile{"D16", "with a critical extension that nobody knows", untrusted, "signer", having(wire.Extension("1.2.3.4.5", true, wire.Null())), nil},
		hostile{"D16", "with one SID as extension and another in a URI", untrusted, "sid", func(t *try, c *x509.Certificate) {
			c.ExtraExtensions[0] = extension(wire.SAN(wire.DNS(t.dns()), wire.UPN(renewedUPN), wire.URI("tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1105")))
		}, nil},
	)
	list = append(list, honestRenewals(
		hostile{"D14", "valid, signingTime of this moment", "", "", nil, signing(0)},
		hostile{"D14", "an hour before its end", "", "", valid(-300*day, time.Hour), nil},
		hostile{"D15", "the serial number after the revoked one", "", "", func(_ *try, c *x509.Certificate) { c.SerialNumber = big.NewInt(revokedSerial + 1) }, nil},
		hostile{"D16", "of the configured template, by name and OID", "", "",
			having(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("WiFiClient")), templateOID("1.3.6.1.4.1.311.21.8.1.2.3.3")), nil},
	)...)
	return append(list, append(rowsRenewalChain(), rowsRenewalCRL()...)...)
}

// rowsRenewalChain: D13, D16: other CAs, and certificates beside the signer's.
func rowsRenewalChain() []vector {
	agent := func(variant, reason string, signer func(t *try) ([]byte, *rsa.PrivateKey)) vector {
		return vector{row: "D16", variant: variant, want: rej, profile: "renew", act: func(t *try) {
			cert, key := signer(t)
			for _, messageType := range []string{"17", "19"} {
				t.refuses(t.signedBy(cert, key, messageType, t.CN, t.Challenge).Bytes(), reason)
			}
			t.state(t.ID, "registered")
			t.enrols(t.M.Bytes())
		}}
	}
	// beside puts certificates around the signer's, which must be trusted or not.
	beside := func(variant string, want want, around func(t *try, genuine []byte) (signer []byte, all [][]byte)) vector {
		return vector{row: "D13", variant: variant, want: want, profile: "renew", unregistered: true, act: func(t *try) {
			genuine := t.certified(nil)
			m := t.renewing(genuine)
			m.SignedData.Signer.Certificate, m.SignedData.Certificates = around(t, genuine)
			switch want {
			case forwarded:
				t.renews(m)
				return
			case pre:
				t.status(t.post(m.Bytes()), http.StatusBadRequest)
				t.decision("malformed_message")
				t.reached()
			default:
				t.refuses(m.Bytes(), "renewal_signer_untrusted")
			}
			t.renews(t.renewing(genuine))
		}}
	}
	signedBy := func(t *try, digest crypto.Hash, oid string) []byte {
		c := wire.RawCertificate{
			Key: t.Device.Key, Serial: wire.BigInt(new(big.Int).SetBytes(append([]byte{1}, wire.Random(10)...))),
			Issuer: t.NDES.CA.RawSubject, Subject: wire.CommonName(t.CN),
			InnerAlgorithm: wire.Algorithm(oid), OuterAlgorithm: wire.Algorithm(oid),
			Sign: func(tbs []byte) []byte { return wire.SignRSA(t.NDES.CAKey(), digest, tbs) },
			Extensions: [][]byte{
				wire.KeyUsage(5, 0xa0), wire.ExtKeyUsage(wire.EKUClientAuth), t.renewedSAN(), wire.SID(renewedSID),
			},
		}
		return c.Bytes()
	}
	return []vector{
		agent("signed with the CA's certificate and key, renewals allowed", "key_refused", func(t *try) ([]byte, *rsa.PrivateKey) {
			return t.NDES.CA.Raw, t.NDES.CAKey()
		}),
		agent("signed with NDES's encryption certificate and key, renewals allowed", "key_refused", func(t *try) ([]byte, *rsa.PrivateKey) {
			return t.NDES.Exchange.Raw, t.NDES.ExchangeKey()
		}),
		agent("signed with NDES's enrollment-agent certificate and key, renewals allowed", "renewal_signer_untrusted", func(t *try) ([]byte, *rsa.PrivateKey) {
			return t.NDES.Signing.Raw, t.NDES.SigningKey()
		}),
		agent("self-signed in the CA's name with a valid challenge, renewals allowed", "renewal_signer_untrusted", func(t *try) ([]byte, *rsa.PrivateKey) {
			return wire.Certificate(&x509.Certificate{RawSubject: t.NDES.CA.RawSubject}, t.Device.Key, nil, nil), t.Device.Key
		}),

		beside("of a CA below the CA, which stands beside it", rej, func(t *try, _ []byte) ([]byte, [][]byte) {
			below := wire.Certificate(&x509.Certificate{
				Subject: pkix.Name{CommonName: "Sub CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			}, t.other().Key, t.NDES.CA, t.NDES.CAKey())
			leaf := t.leafOf(mustParse(below))
			return leaf, [][]byte{leaf, below, t.NDES.CA.Raw}
		}),
		beside("a stranger's certificate, between genuine ones and the CA's", rej, func(t *try, genuine []byte) ([]byte, [][]byte) {
			leaf := t.leafOf(&x509.Certificate{RawSubject: t.NDES.CA.RawSubject})
			return leaf, [][]byte{genuine, leaf, t.NDES.CA.Raw}
		}),
		beside("a stranger's, with issuer and serial number of the genuine one after it", pre, func(t *try, genuine []byte) ([]byte, [][]byte) {
			twin := t.twinOf(genuine)
			return twin, [][]byte{twin, genuine}
		}),
		beside("a stranger's, with issuer and serial number of the genuine one before it", pre, func(t *try, genuine []byte) ([]byte, [][]byte) {
			twin := t.twinOf(genuine)
			return twin, [][]byte{genuine, twin}
		}),
		beside("the genuine certificate among five", pre, func(t *try, genuine []byte) ([]byte, [][]byte) {
			return genuine, [][]byte{genuine, t.NDES.CA.Raw, t.NDES.Signing.Raw, t.NDES.Exchange.Raw, t.Device.SelfSigned}
		}),
		beside("the genuine certificate after the CA's and a stranger's", forwarded, func(t *try, genuine []byte) ([]byte, [][]byte) {
			return genuine, [][]byte{t.NDES.CA.Raw, t.leafOf(&x509.Certificate{Subject: pkix.Name{CommonName: "Somebody Else's CA"}}), genuine}
		}),
		beside("a certificate that the CA's key signed with MD5", rej, func(t *try, _ []byte) ([]byte, [][]byte) {
			return signedBy(t, crypto.MD5, wire.OIDMD5WithRSA), nil
		}),
		beside("a certificate that the CA's key signed with SHA-1", forwarded, func(t *try, _ []byte) ([]byte, [][]byte) { // old CAs do
			return signedBy(t, crypto.SHA1, wire.OIDSHA1WithRSA), nil
		}),
	}
}

// twinOf is a certificate for the try's device with issuer and serial number of
// a genuine one, which a stranger made.
func (t *try) twinOf(genuine []byte) []byte {
	c := mustParse(genuine)
	return wire.Certificate(&x509.Certificate{
		SerialNumber: c.SerialNumber, Subject: c.Subject, KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage,
	}, t.Device.Key, &x509.Certificate{RawSubject: c.RawIssuer}, t.other().Key)
}

// rowsRenewalCRL: D15, the lists themselves.
func rowsRenewalCRL() []vector {
	unlisted := func(variant, words string, make func(t *try) ([]byte, error)) vector {
		return vector{row: "D15", variant: variant, want: cfg, act: func(t *try) {
			der, err := make(t)
			if err != nil {
				t.failf("making the list: %v", err)
			}
			t.unloadable(t.Config, words, "RENEW_CRL="+t.file("changed.crl", der))
		}}
	}
	list := func(t *try, change func(l *x509.RevocationList), ca *x509.Certificate, key *rsa.PrivateKey) ([]byte, error) {
		l := &x509.RevocationList{Number: big.NewInt(2), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
		if change != nil {
			change(l)
		}
		return x509.CreateRevocationList(rand.Reader, l, ca, key)
	}
	return []vector{
		{row: "D15", variant: "the CA's list has ended: renewal, enrolment; another profile goes on", want: failed, profile: staleProfile, act: func(t *try) {
			stop := func(m *wire.Message) {
				t.status(t.post(m.Bytes()), http.StatusServiceUnavailable)
				l := t.decision("upstream_unavailable")
				t.demand(namesField(l, "crl"), "no finding names the list: %v", l["findings"])
				t.reached()
			}
			stop(t.renewing(t.certified(nil)))
			stop(t.M)
			t.untouched(staleProfile, t.ID)
			t.registers("wifi", nil)
			m := t.M.Bytes()
			t.issued(t.postTo("wifi", m))
			t.decision("ok")
			t.reached(m)
		}},
		unlisted("a list that a stranger signed in the CA's name", "not signed by the key of a ca_certificate", func(t *try) ([]byte, error) {
			return list(t, nil, &x509.Certificate{RawSubject: t.NDES.CA.RawSubject, SubjectKeyId: t.NDES.CA.SubjectKeyId, KeyUsage: x509.KeyUsageCRLSign}, t.other().Key)
		}),
		unlisted("another CA's list", "the issuer is another", func(t *try) ([]byte, error) {
			return list(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "Somebody Else's CA"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}, t.other().Key)
		}),
		unlisted("a delta of a list", "delta CRL", func(t *try) ([]byte, error) {
			return list(t, func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{extension(wire.Extension("2.5.29.27", true, wire.Int(1)))}
			}, t.NDES.CA, t.NDES.CAKey())
		}),
		unlisted("a list of CAs only", "covers only a part", func(t *try) ([]byte, error) {
			return list(t, func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{extension(wire.Extension("2.5.29.28", true, wire.Sequence(wire.Implicit(2, []byte{0xff}))))}
			}, t.NDES.CA, t.NDES.CAKey())
		}),
		{row: "D15", variant: "no list where one is configured", want: cfg, act: func(t *try) {
			t.unloadable(t.Config, "renewal crl", "RENEW_CRL="+t.Dir+"/none.crl")
		}},
	}
}
