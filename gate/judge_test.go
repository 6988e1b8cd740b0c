package gate

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

func TestTheZeroDecisionRefuses(t *testing.T) {
	var d Decision
	if d.Forward || d.claim != nil || d.SenderNonces() != nil || d.Reason == OK {
		t.Errorf("%+v", d)
	}
}

func TestACompliantRequestIsForwardedOnceItIsClaimed(t *testing.T) {
	h := newHouse(t, nil, nil)
	r := compliant(1)
	d := h.enrol(r)
	want := Decision{
		ID: d.ID, Forward: true, Reason: OK, MessageType: "pkcs_req", TransactionID: "TX1",
		RequestedSubject: "CN=C02XK1 WIFI,O=Example Corp",
		RequestedSAN:     []string{"dns:C02XK1.example.com", "upn:ann@example.com", "sid:" + judgeSID},
		SPKISHA256:       spkiText(r.Message.Signer.SPKISHA256()), ChallengeFingerprint: d.ChallengeFingerprint,
		ExpectationID: h.id, ExternalID: "jamf:4711", Labels: map[string]string{"device": "C02XK1"}, RA: "ndes1",
		MatcherCalls: []MatcherCall{{"exact", "agree"}},
		claim:        d.claim, nonces: d.nonces,
	}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(Decision{}, claimRef{})); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	if len(d.ID) != 30 || !strings.HasPrefix(d.ID, "dec_") || len(d.ChallengeFingerprint) != 8 {
		t.Errorf("id %q, fingerprint %q", d.ID, d.ChallengeFingerprint)
	}
	if diff := cmp.Diff([][]byte{r.Message.SenderNonce}, d.SenderNonces()); diff != "" {
		t.Errorf("nonces (-want +got):\n%s", diff)
	}
	e := h.expectation()
	key := r.Message.Signer.SPKISHA256()
	if u := e.Use(key[:]); e.State != store.Claimed || u == nil || u.Forwards != 1 || u.ClientIP != r.ClientIP || u.UserAgent != r.UserAgent {
		t.Errorf("expectation after: %+v", e)
	}
	if h.store.finds != 1 || h.store.claims != 1 {
		t.Errorf("%d finds, %d claims", h.store.finds, h.store.claims)
	}
}

// refusals is one request, at least, for every reason that the gate can give.
var refusals = []struct {
	name    string
	request func() Request
	want    []Reason // all findings
	known   bool     // the challenge was right: the history hears of it
}{
	{"nothing at all", func() Request { return Request{} }, []Reason{MalformedMessage}, false},
	{"no signer", func() Request {
		return with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Signer = nil })
	}, []Reason{MalformedMessage}, false},
	{"not opened", func() Request { r := compliant(1); r.Opened = nil; return r }, []Reason{MalformedMessage}, false},
	{"opened to nothing", func() Request { r := compliant(1); r.Opened = &inspector.Opened{}; return r }, []Reason{MalformedRequest}, false},
	{"envelope malformed", opening(inspector.KindMessage), []Reason{MalformedMessage}, false},
	{"signature", opening(inspector.KindSignature), []Reason{BadSignature}, false},
	{"C45 undecryptable", opening(inspector.KindUndecryptable), []Reason{Undecryptable}, false},
	{"C17 PKCS#10 malformed", opening(inspector.KindRequest), []Reason{MalformedRequest}, false},
	{"an algorithm that is never accepted", opening(inspector.KindAlgorithm), []Reason{AlgorithmRefused}, false},
	{"a key that is never accepted", opening(inspector.KindKey), []Reason{KeyRefused}, false},
	{"an unknown stage", opening(99), []Reason{MalformedMessage}, false},

	{"D07 UpdateReq", typed("18"), []Reason{MessageTypeRefused}, false},
	{"D08 CertRep", typed("3"), []Reason{MessageTypeRefused}, false},
	{"D08 019", typed("019"), []Reason{MessageTypeRefused}, false},
	{"D08 19 and blank", typed("19 "), []Reason{MessageTypeRefused}, false},
	{"D21 GetCRL", typed("22"), []Reason{MessageTypeRefused}, false},
	{"D19 GetCertInitial for what nobody forwarded", func() Request { return polling(1) }, []Reason{TransactionUnknown}, false},
	{"GetCertInitial that holds no names", func() Request {
		r := polling(1)
		r.Opened = &inspector.Opened{RA: "ndes1", Err: &inspector.ParseError{Kind: inspector.KindRequest, Err: errors.New("no names")}}
		return r
	}, []Reason{MalformedRequest}, false},
	{"D20 GetCertInitial with a PKCS#10 in it", typed("20"), []Reason{MalformedRequest}, false},
	{"D20 GetCertInitial with both", func() Request {
		r := polling(1)
		r.Opened.CSR = compliant(1).Opened.CSR
		return r
	}, []Reason{MalformedRequest}, false},
	{"D20 PKCSReq with two names in it", func() Request {
		r := polling(1)
		r.Message.MessageType = "19"
		return r
	}, []Reason{MalformedRequest}, false},
	{"D20 PKCSReq with both", csr(func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) { o.Poll = polling(1).Opened.Poll }),
		[]Reason{MalformedRequest}, false},
	{"UpdateReq with two names in it", func() Request {
		r := polling(1)
		r.Message.MessageType = "18"
		return r
	}, []Reason{MessageTypeRefused, MalformedRequest}, false},

	{"C76 md5", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Digest = "md5" }), []Reason{AlgorithmRefused}, true},
	{"C76 no digest", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Digest = "" }), []Reason{AlgorithmRefused}, true},
	{"request signed with md5", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SignatureDigest = "md5" }), []Reason{AlgorithmRefused}, true},
	{"C49 des", csr(func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) { o.Cipher = "des" }), []Reason{AlgorithmRefused}, true},
	{"C49 no cipher", csr(func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) { o.Cipher = "" }), []Reason{AlgorithmRefused}, true},
	{"unknown key transport", csr(func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) { o.KeyTransport = "" }), []Reason{AlgorithmRefused}, true},
	{"C19 short key", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		k := publicKey(1)
		k.N.Rsh(k.N, 1)
		m.Signer.PublicKey, c.PublicKey = k, k
	}), []Reason{KeyRefused, KeyRefused, KeyMismatch}, true},
	{"C20 the RA's key", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		m.Signer.PublicKey, c.PublicKey = publicKey(raKeyNumber), publicKey(raKeyNumber)
	}), []Reason{KeyRefused, KeyRefused}, true},
	{"C20 the CA's key", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		m.Signer.PublicKey, c.PublicKey = publicKey(caKeyNumber), publicKey(caKeyNumber)
	}), []Reason{KeyRefused, KeyRefused}, true},

	{"a key without a modulus", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) {
		m.Signer.PublicKey = &rsa.PublicKey{}
	}), []Reason{KeyRefused}, true},
	{"A12 lifted envelope", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) {
		m.Signer.SPKI, m.Signer.PublicKey = spkiOf(2), publicKey(2)
	}), []Reason{SignerMismatch}, true},
	{"D09 D13 signed by nobody we know", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Signer.SelfSigned = false }), []Reason{RenewalSignerUntrusted}, true},
	{"D09 signed by nobody we know, without a challenge", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		m.Signer.SelfSigned, c.HasChallenge, c.Challenge = false, false, ""
	}), []Reason{RenewalSignerUntrusted}, false},
	{"D09 signed by nobody we know, with an unknown challenge", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		m.Signer.SelfSigned, c.Challenge = false, "nobody knows this one"
	}), []Reason{RenewalSignerUntrusted}, false},
	{"D09 the same as RenewalReq", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) {
		m.MessageType, m.Signer.SelfSigned = "17", false
	}), []Reason{RenewalSignerUntrusted}, true},
	{"C67 two certificates", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Certificates = 2 }), []Reason{MalformedMessage}, true},
	{"no certificate", csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Certificates = 0 }), []Reason{MalformedMessage}, true},

	{"A11 no challenge", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.HasChallenge, c.Challenge = false, ""
	}), []Reason{ChallengeMissing}, false},
	{"A11 empty challenge", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Challenge = "" }), []Reason{ChallengeMissing}, false},
	{"A11 a challenge that was not said to be there", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.HasChallenge = false }), []Reason{ChallengeMissing}, false},
	{"A11 blank challenge", challenge(" "), []Reason{ChallengeUnknown}, false},
	{"D27 another challenge", challenge("8CE317021F690068"), []Reason{ChallengeUnknown}, false},
	{"C13 challenge and blank", challenge(judgeChallenge + " "), []Reason{ChallengeUnknown}, false},
	{"C13 challenge in another case", challenge(strings.ToLower(judgeChallenge)), []Reason{ChallengeUnknown}, false},

	{"A01 subject", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.Subject[1][0].Value = "C02XK2 WIFI"
	}), []Reason{SubjectMismatch}, true},
	{"A02 SAN", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SAN[1].Value = "bob@example.com" }), []Reason{SANMismatch}, true},
	{"B37 SAN of a type that cannot be expected", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.SAN = append(c.SAN, inspector.GeneralName{Type: "other", Value: "4"})
	}), []Reason{SANMismatch}, true},
	{"B05 SID", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "S-1-5-21-1-2-3-1105" }), []Reason{SIDMismatch}, true},
	{"A04 SID left out", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" }), []Reason{SIDMismatch}, true},
	{"B07 SID twice", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.SAN = append(c.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
	}), []Reason{SIDMismatch}, true},
	{"A05 key usage", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.KeyUsage = digitalSignature }),
		[]Reason{KeyUsageMismatch, TemplateMismatch}, true},
	{"A05 key usage that selects nothing", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.KeyUsage |= keyCertSign }),
		[]Reason{KeyUsageMismatch, TemplateMismatch}, true},
	{"A06 no bits", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.KeyUsage = 0 }),
		[]Reason{KeyUsageMismatch, TemplateMismatch}, true},
	{"A06 a bit without a name", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.KeyUsage |= 1 << 12 }),
		[]Reason{KeyUsageMismatch, TemplateMismatch}, true},
	{"A07 EKU", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, "1.3.6.1.4.1.311.20.2.1")
	}), []Reason{ExtKeyUsageMismatch}, true},
	{"B10 empty EKU", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.ExtKeyUsage = nil }), []Reason{ExtKeyUsageMismatch}, true},
	{"B08 application policies", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.HasApplicationPolicies, c.ApplicationPolicies = true, []string{oidClientAuth}
	}), []Reason{ApplicationPoliciesMismatch}, true},
	{"B21 template name", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.TemplateName = "SubCA" }), []Reason{TemplateMismatch}, true},
	{"B22 template OID", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.TemplateOID = "1.2.3" }), []Reason{TemplateMismatch}, true},
	{"B14 extensions, each of them", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.UnexpectedExtensions = []string{"2.5.29.19", "critical:2.5.29.17"}
	}), []Reason{UnexpectedExtension, UnexpectedExtension}, true},
	{"B16 attributes, each of them", csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.UnexpectedAttributes = []string{"1.3.6.1.4.1.311.13.2.1", "1.2.3"}
	}), []Reason{UnexpectedAttribute, UnexpectedAttribute}, true},
	{"everything at once, in order", csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		m.Digest = "md5"
		c.Subject, c.SAN, c.SID, c.KeyUsage, c.ExtKeyUsage = nil, nil, "", 0, nil
		c.UnexpectedExtensions, c.UnexpectedAttributes = []string{"1"}, []string{"2"}
	}), []Reason{AlgorithmRefused, SubjectMismatch, SANMismatch, SIDMismatch, KeyUsageMismatch, ExtKeyUsageMismatch, TemplateMismatch,
		UnexpectedExtension, UnexpectedAttribute}, true},
}

func opening(k inspector.Kind) func() Request {
	return func() Request {
		r := compliant(1)
		r.Opened = &inspector.Opened{RA: "ndes1", Err: &inspector.ParseError{Kind: k, Stage: "test", Err: errors.New("malformed")}}
		return r
	}
}

func typed(messageType string) func() Request {
	return csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.MessageType = messageType })
}

func challenge(s string) func() Request {
	return csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Challenge = s })
}

func csr(change func(*inspector.Message, *inspector.Opened, *inspector.CSR)) func() Request {
	return func() Request { return with(1, change) }
}

func TestWhateverIsNotExpectedIsRefused(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			d := h.judge(tt.request())
			if d.Forward || d.Failed || d.claim != nil {
				t.Errorf("forwarded or failed: %+v", d)
			}
			if d.ID == "" || d.Reason != tt.want[0] {
				t.Errorf("id %q, reason %s, want %s", d.ID, d.Reason, tt.want[0])
			}
			if diff := cmp.Diff(tt.want, reasonsOf(d.Findings)); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%+v", diff, d.Findings)
			}
			// Invariant 6: the store is asked once in every case.
			if h.store.finds != 1 || h.store.claims != 0 || h.store.gets != 0 {
				t.Errorf("%d finds, %d claims, %d gets", h.store.finds, h.store.claims, h.store.gets)
			}
			if l := h.store.lookups[0]; len(l.ChallengeHash) != 32 || l.IdentityHash != nil {
				t.Errorf("lookup %+v", l)
			}
			e := h.expectation()
			if e.State != store.Registered || len(e.Uses) != 0 {
				t.Errorf("expectation after: %s, %d uses", e.State, len(e.Uses))
			}
			if heard := len(e.History) > 1; heard != tt.known {
				t.Errorf("history %+v", e.History)
			}
			if got := (d.ExpectationID != ""); got != tt.known {
				t.Errorf("decision names expectation %q", d.ExpectationID)
			}
			if strings.Contains(fmt.Sprintf("%+v %+v", d, e), judgeChallenge) {
				t.Error("the challenge is in the decision or in the record")
			}
			// What was refused takes nothing from the one it is meant for.
			h.enrol(compliant(7))
		})
	}
}

func TestWhatClientsMayDoDifferently(t *testing.T) {
	for name, r := range map[string]func() Request{
		"RenewalReq with a self-signed signer": typed("17"),
		"SHA-1": csr(func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			m.Digest, c.SignatureDigest = "sha1", "sha1"
		}),
		"OAEP": csr(func(_ *inspector.Message, o *inspector.Opened, _ *inspector.CSR) { o.KeyTransport = "oaep_sha1" }),
		"no key usage": csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasKeyUsage, c.KeyUsage = false, 0
		}),
		"no EKU": csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasExtKeyUsage, c.ExtKeyUsage = false, nil
		}),
		"template extensions": csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.TemplateName, c.TemplateOID = "WiFiClient", "1.3.6.1.4.1.311.21.8.1"
		}),
		"A13 signer subject differs": csr(func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) {
			m.Signer.Subject = rawName(t, "SCEP SIGNER")
		}),
		"SID in a URI": csr(func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.SID = ""
			c.SAN = append(c.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
		}),
	} {
		t.Run(name, func(t *testing.T) { newHouse(t, nil, nil).enrol(r()) })
	}
}

func TestASIDURIIsACarrierInWhateverSpelling(t *testing.T) {
	for _, uri := range []string{
		"TAG:microsoft.com,2022-09-14:sid:" + judgeSID,
		"tag:Microsoft.com,2022-09-14:sid:" + judgeSID,
		"tag:microsoft.com,2022-09-14:SID:" + judgeSID,
		"tag%3Amicrosoft.com,2022-09-14:sid:" + judgeSID,
		"tag:microsoft.com%2C2022-09-14:sid:" + judgeSID,
		"tag:microsoft.com,2022-09-15:sid:" + judgeSID,
		sidTag + judgeSID + " ",
		sidTag,
	} {
		// Even where any URI may be asked for.
		h := newHouse(t, nil, func(e *store.Expectation) {
			e.Content.SAN = append(e.Content.SAN, store.SANRule{Type: "uri", Match: "any", Min: 0, Max: 5})
		})
		d := h.judge(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.SID = ""
			c.SAN = append(c.SAN, inspector.GeneralName{Type: "uri", Value: uri})
		}))
		if diff := cmp.Diff([]Reason{SIDMismatch}, reasonsOf(d.Findings)); d.Forward || diff != "" {
			t.Errorf("%s: %+v", uri, d)
		}
	}
}

func TestASelfSignedSignerMayNotNameTheCAAsItsIssuer(t *testing.T) {
	for _, issuer := range [][]byte{
		rawName(t, "Example CA"),
		rawName(t, "EXAMPLE  ca"),
		{0x30, 0x15, 0x31, 0x13, 0x30, 0x11, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x0a, 'E', 'x', 'a', 'm', 'p', 'l', 'e', ' ', 'C', 'A'},
	} {
		h := newHouse(t, nil, nil)
		d := h.judge(with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Signer.Issuer = issuer }))
		if d.Forward || d.Reason != RenewalSignerUntrusted {
			t.Errorf("%x: %+v", issuer, d)
		}
	}
}

func TestNobodyEnrolsAsSomebodyForbiddenWhateverAPatternAllows(t *testing.T) {
	h := newHouse(t, func(p *Profile) { p.MaxMismatches = 10 }, func(e *store.Expectation) {
		e.Content.Subject = [][]store.Value{{{Type: "2.5.4.3", Match: "any"}}}
		e.Content.SAN = []store.SANRule{{Type: "upn", Match: "any", Min: 0, Max: 1}}
		e.Content.SID = ""
	})
	ask := func(cn, upn string) Decision {
		return h.judge(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.SID, c.SAN = "", []inspector.GeneralName{{Type: "upn", Value: upn}}
			c.Subject = []inspector.RDN{{{Type: "2.5.4.3", Value: cn}}}
		}))
	}
	for _, tt := range []struct {
		cn, upn string
		want    Reason
	}{
		{"Administrator", "ann@example.com", SubjectMismatch},
		{"ann", "KRBTGT@example.com", SANMismatch},
		{"ndes1-mscep-ra", "ann@example.com", SubjectMismatch},
		{"ann", "ann@example.com", OK},
	} {
		if d := ask(tt.cn, tt.upn); d.Reason != tt.want || d.Forward != (tt.want == OK) {
			t.Errorf("%s, %s: %+v", tt.cn, tt.upn, d)
		}
	}
}

func TestARegistrationFallsWithItsClient(t *testing.T) {
	tests := []struct {
		name        string
		constraints func(string) (*Constraints, bool)
		want        []Reason
	}{
		{"client gone", func(string) (*Constraints, bool) { return nil, false }, []Reason{ChallengeRevoked}},
		{"nothing allowed any more", func(string) (*Constraints, bool) { return &Constraints{}, true },
			[]Reason{SubjectMismatch, SANMismatch, SIDMismatch}},
		{"another organisation", func(string) (*Constraints, bool) {
			return &Constraints{
				Subject:     map[string][]string{"CN": {"C02XK1 WIFI"}, "O": {"Other"}},
				DNSSuffixes: []string{"example.com"}, UPNSuffixes: []string{"example.com"}, SIDPrefixes: []string{"S-1-5-21-1-2-3"},
				CertificateTemplates: []string{"WiFiClient"}, ExtKeyUsage: []string{oidClientAuth},
			}, true
		}, []Reason{SubjectMismatch}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, func(p *Profile) { p.Constraints = tt.constraints }, nil)
			d := h.judge(compliant(1))
			if diff := cmp.Diff(tt.want, slices.Compact(reasonsOf(d.Findings))); d.Forward || diff != "" {
				t.Errorf("findings (-want +got):\n%s%+v", diff, d)
			}
			if e := h.expectation(); len(e.Mismatches) != 0 {
				t.Error("the device was blamed for it")
			}
		})
	}
}

func TestThreeDistinctWrongIdentitiesLock(t *testing.T) {
	h := newHouse(t, nil, nil)
	wrong := func(cn string) Decision {
		return h.judge(with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Subject[1][0].Value = cn }))
	}
	for i, cn := range []string{"a", "a", "a", "b", "a", "b"} {
		if d := wrong(cn); d.Locked || d.Reason != SubjectMismatch {
			t.Fatalf("attempt %d: %+v", i, d)
		}
	}
	// Refusals that say nothing about identity are no strikes.
	for range 5 {
		h.judge(with(1, func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { m.Digest, c.Subject = "md5", nil }))
	}
	if d := wrong("c"); !d.Locked || d.Reason != SubjectMismatch || d.Forward {
		t.Fatalf("third: %+v", d)
	}
	if d := h.judge(compliant(1)); d.Reason != ChallengeLocked || d.Forward || d.Locked {
		t.Errorf("after: %+v", d)
	}
}

func TestMoreUsesForMoreKeys(t *testing.T) {
	h := newHouse(t, nil, func(e *store.Expectation) { e.MaxUses = 2 })
	one := h.enrol(compliant(1))
	if d := h.judge(with(1, func(m *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.HasExtKeyUsage, c.ExtKeyUsage = false, nil
	})); d.Reason != ChallengeUsed {
		t.Errorf("same key, other identity, uses left: %+v", d)
	}
	h.enrol(compliant(1))
	h.settle(one, rep("0"))
	h.enrol(compliant(1)) // its answer may have been lost
	h.clock.advance(20 * time.Minute)
	if d := h.judge(compliant(1)); d.Reason != ChallengeUsed {
		t.Errorf("same key after issue, uses left: %+v", d)
	}
	h.enrol(compliant(2))
	if d := h.judge(compliant(3)); d.Reason != ChallengeInUse {
		t.Errorf("third key: %+v", d)
	}
}

func TestUsesThatAreLeftExpire(t *testing.T) {
	h := newHouse(t, nil, func(e *store.Expectation) { e.MaxUses = 2 })
	h.enrol(compliant(1))
	h.clock.advance(48 * time.Hour)
	if d := h.judge(compliant(2)); d.Forward || d.Reason != ChallengeExpired || d.TheftSuspected {
		t.Errorf("new key: %+v", d)
	}
	h.enrol(compliant(1)) // its outcome is open
}

func TestAConstraintRefusesByTheFieldItIsAbout(t *testing.T) {
	for pointer, want := range map[string]Reason{
		"/subject_rdns/0/1": SubjectMismatch, "/san_rules/3": SANMismatch, "/sid": SIDMismatch, "/key_usage": KeyUsageMismatch,
		"/ext_key_usage/0": ExtKeyUsageMismatch, "/application_policies/0": ApplicationPoliciesMismatch,
		"/certificate_template": TemplateMismatch, "/key/min_bits": KeyMismatch, "": ChallengeRevoked, "/other": ChallengeRevoked,
	} {
		if got := reasonAt(pointer); got != want {
			t.Errorf("%s: %s, want %s", pointer, got, want)
		}
	}
}

func TestTheLifeOfAChallenge(t *testing.T) {
	issue := func(h *house) { h.settle(h.enrol(compliant(1)), rep("0")) }
	claim := func(h *house) { h.enrol(compliant(1)) }
	tests := []struct {
		name    string
		before  func(h *house)
		request Request
		want    Reason
		theft   bool
	}{
		{"registered", func(*house) {}, compliant(1), OK, false},
		{"the last moment", func(h *house) { h.clock.advance(24*time.Hour - time.Nanosecond) }, compliant(1), OK, false},
		{"D33 at its end", func(h *house) { h.clock.advance(24 * time.Hour) }, compliant(1), ChallengeExpired, false},
		{"revoked", func(h *house) {
			if _, err := h.store.Revoke(h.t.Context(), "wifi", h.id, "jamf"); err != nil {
				h.t.Fatal(err)
			}
		}, compliant(1), ChallengeRevoked, false},

		{"retry while claimed", claim, compliant(1), OK, false},
		{"retry while claimed, other transactionID", claim, with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.TransactionID = "other" }), OK, false},
		{"retry after its end, while claimed", func(h *house) { claim(h); h.clock.advance(48 * time.Hour) }, compliant(1), OK, false},
		{"retry with another identity that is expected, too", claim, with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasExtKeyUsage, c.ExtKeyUsage = false, nil
		}), ChallengeUsed, false},
		{"retry with a wrong identity", claim, with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" }), ChallengeUsed, false},
		{"retry while pending", func(h *house) { h.settle(h.enrol(compliant(1)), rep("3")) }, compliant(1), OK, false},
		{"D01 same key and transactionID soon after issue", issue, compliant(1), OK, false},
		{"same key and transactionID until the window closes", func(h *house) { issue(h); h.clock.advance(20*time.Minute - 1) }, compliant(1), OK, false},
		{"A08 same key and transactionID after the window", func(h *house) { issue(h); h.clock.advance(20 * time.Minute) }, compliant(1), ChallengeUsed, false},
		{"A08 same key after issue, other transactionID", issue, with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.TransactionID = "other" }), ChallengeUsed, false},
		{"A08 same key after issue, other identity", issue, with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasExtKeyUsage, c.ExtKeyUsage = false, nil
		}), ChallengeUsed, false},
		{"A08 same key after issue of a retry with another transactionID", func(h *house) {
			h.settle(h.enrol(compliant(1)), rep("3"))
			h.settle(h.enrol(with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.TransactionID = "other" })), rep("0"))
		}, compliant(1), OK, false},
		{"the window does not begin again with a retry", func(h *house) {
			issue(h)
			h.clock.advance(15 * time.Minute)
			issue(h)
			h.clock.advance(15 * time.Minute)
		}, compliant(1), ChallengeUsed, false},
		{"revoked soon after issue", func(h *house) {
			issue(h)
			if _, err := h.store.Revoke(h.t.Context(), "wifi", h.id, "jamf"); err != nil {
				h.t.Fatal(err)
			}
		}, compliant(1), ChallengeRevoked, false},

		{"A14 another key while claimed, all else equal", claim, compliant(2), ChallengeInUse, false},
		{"A14 another key from another address", claim, func() Request { r := compliant(2); r.ClientIP = "198.51.100.7"; return r }(), ChallengeInUse, true},
		{"A14 another key by another agent", claim, func() Request { r := compliant(2); r.UserAgent = "curl"; return r }(), ChallengeInUse, true},
		{"A14 another key for another identity", claim, with(2, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.Subject[1][0].Value = "administrator"
		}), ChallengeInUse, true},
		{"another key while pending", func(h *house) { h.settle(h.enrol(compliant(1)), rep("3")) }, compliant(2), ChallengeInUse, false},
		{"A08 another key after issue", issue, compliant(2), ChallengeInUse, false},
		{"A08 another key after issue from elsewhere", issue, func() Request { r := compliant(2); r.ClientIP = "198.51.100.7"; return r }(), ChallengeInUse, true},

		{"another key after a definite failure", func(h *house) { h.settle(h.enrol(compliant(1)), rep("2")) }, compliant(2), OK, false},
		{"another key after a forward that never left", func(h *house) {
			h.gate.Settle(h.t.Context(), h.store, h.enrol(compliant(1)), Forwarded{})
		}, compliant(2), OK, false},
		{"another key after no answer", func(h *house) {
			h.gate.Settle(h.t.Context(), h.store, h.enrol(compliant(1)), Forwarded{Sent: true})
		}, compliant(2), ChallengeInUse, false},
		{"denied by a manager", func(h *house) {
			h.settle(h.enrol(compliant(1)), rep("3"))
			h.settle(h.enrol(compliant(1)), rep("2"))
		}, compliant(1), ChallengeLocked, false},

		{"D22 transactionID of another key", func(h *house) {
			h.settle(h.enrol(compliant(1)), rep("2"))
		}, with(2, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.TransactionID = "TX1" }), TransactionConflict, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			tt.before(h)
			claims, finds := h.store.claims, h.store.finds
			d := h.judge(tt.request)
			if d.Reason != tt.want || d.Forward != (tt.want == OK) || d.TheftSuspected != tt.theft {
				t.Errorf("%+v", d)
			}
			if h.store.finds != finds+1 || (d.Forward != (h.store.claims == claims+1)) {
				t.Errorf("%d finds, %d claims", h.store.finds-finds, h.store.claims-claims)
			}
		})
	}
}

func TestAClaimSaysWhenItIsInDoubtAndWhenItIsReleased(t *testing.T) {
	for release, want := range map[time.Duration]time.Time{0: {}, time.Hour: time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC)} {
		h := newHouse(t, func(p *Profile) { p.InDoubtRelease = release }, nil)
		h.enrol(compliant(1))
		u := h.expectation().Uses[0]
		if !u.DoubtAt.Equal(h.clock.now().Add(20*time.Minute)) || !u.ReleaseAt.Equal(want) {
			t.Errorf("%s: doubt %s, release %s", release, u.DoubtAt, u.ReleaseAt)
		}
		if !slices.Equal(u.Subject, subjectDigest(compliant(1).Opened.CSR.Subject)) {
			t.Errorf("subject %x", u.Subject)
		}
	}
}

func TestARetryKnowsTheNoncesOfItsForerunners(t *testing.T) {
	h := newHouse(t, nil, nil)
	first := compliant(1)
	h.enrol(first)
	second := compliant(1)
	second.Message.SenderNonce = []byte("another nonce")
	d := h.enrol(second)
	if diff := cmp.Diff([][]byte{first.Message.SenderNonce, second.Message.SenderNonce}, d.SenderNonces()); diff != "" {
		t.Errorf("nonces (-want +got):\n%s", diff)
	}
}

func TestAStaticPasswordFindsByIdentity(t *testing.T) {
	static := func(p *Profile) { p.Source, p.StaticPassword, p.MaxMismatches = SourceNDESStatic, judgeChallenge, 1 }
	tests := []struct {
		name string
		r    Request
		want Reason
		real bool // the store is asked for the identity
	}{
		{"right", compliant(1), OK, true},
		{"right, other order and case", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			slices.Reverse(c.Subject)
			slices.Reverse(c.SAN)
			c.SAN[0].Value = "ANN@example.com"
		}), OK, true},
		{"wrong password", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Challenge = "8CE317021F690068" }), ChallengeUnknown, false},
		{"no password", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.HasChallenge, c.Challenge = false, ""
		}), ChallengeMissing, false},
		{"nobody registered this name", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Subject[1][0].Value = "x" }), IdentityUnknown, true},
		{"nobody registered it without the SID", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" }), IdentityUnknown, true},
		{"two SIDs", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.SAN = append(c.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
		}), IdentityUnknown, true},
		{"right name, other EKU", with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
			c.ExtKeyUsage[0] = "1.3.6.1.5.5.7.3.1"
		}), ExtKeyUsageMismatch, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, static, nil)
			for range 5 { // nothing locks
				d := h.judge(tt.r)
				if d.Reason != tt.want || d.Forward != (tt.want == OK) || d.Locked {
					t.Fatalf("%+v", d)
				}
			}
			for _, l := range h.store.lookups {
				if len(l.IdentityHash) != 32 || l.ChallengeHash != nil {
					t.Errorf("lookup %+v", l)
				}
			}
			if h.store.finds != 5 {
				t.Errorf("%d finds", h.store.finds)
			}
			asked := string(h.store.lookups[0].IdentityHash) == string(h.store.lookups[1].IdentityHash)
			if asked != tt.real {
				t.Errorf("asked by identity: %v", asked)
			}
		})
	}
}

func TestABrokenStoreForwardsNothing(t *testing.T) {
	failures := map[string]func(ctx context.Context) error{
		"fails":        func(context.Context) error { return errors.New("disk full") },
		"is closed":    func(context.Context) error { return store.ErrClosed },
		"panics":       func(context.Context) error { panic("corrupt") },
		"is too slow":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"is cancelled": func(context.Context) error { return context.Canceled },
	}
	wrong := with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" })
	calls := []struct {
		name     string
		r        Request
		sabotage func(s *spy, f func(context.Context) error)
		// What is refused anyway stays the same refusal when only the history
		// cannot be written: another answer would tell who knew the challenge.
		want   Reason
		failed bool
	}{
		{"Find", compliant(1), func(s *spy, f func(context.Context) error) { s.onFind = f }, StoreUnavailable, true},
		{"Find for what is refused anyway", Request{}, func(s *spy, f func(context.Context) error) { s.onFind = f }, StoreUnavailable, true},
		{"Claim", compliant(1), func(s *spy, f func(context.Context) error) { s.onClaim = f }, StoreUnavailable, true},
		{"Get after a lost race", compliant(1), func(s *spy, f func(context.Context) error) {
			s.onClaim, s.onGet = func(context.Context) error { return store.ErrGeneration }, f
		}, StoreUnavailable, true},
		{"Mismatch", wrong, func(s *spy, f func(context.Context) error) { s.onMismatch = f }, SIDMismatch, false},
	}
	for _, c := range calls {
		for name, f := range failures {
			t.Run(c.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(t, nil, nil)
					c.sabotage(h.store, f)
					d := h.judge(c.r)
					if d.Forward || d.Failed != c.failed || d.Reason != c.want || d.Locked || d.claim != nil {
						t.Errorf("%+v", d)
					}
					if e := h.expectation(); e.State != store.Registered || e.EverClaimed {
						t.Errorf("expectation after: %+v", e)
					}
				})
			})
		}
	}
}

func TestAnAnswerThatWasNotAskedForIsNone(t *testing.T) {
	tests := map[string]func(*store.Found){
		"other profile":   func(f *store.Found) { f.Expectation.Profile = "vpn" },
		"other challenge": func(f *store.Found) { f.Expectation.ChallengeHash[0]++ },
		"no challenge":    func(f *store.Found) { f.Expectation.ChallengeHash = nil },
		"an identity":     func(f *store.Found) { f.Expectation.IdentityHash = []byte{1} },
		"no id":           func(f *store.Found) { f.Expectation.ID = "" },
		"unknown state":   func(f *store.Found) { f.Expectation.State = "open" },
		"no state":        func(f *store.Found) { f.Expectation.State = "" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil, nil)
			h.store.answer = change
			if d := h.judge(compliant(1)); d.Forward || d.Reason != StoreUnavailable || !d.Failed || h.store.claims != 0 {
				t.Errorf("%+v", d)
			}
		})
	}
	t.Run("an expectation for a random key", func(t *testing.T) {
		h := newHouse(t, nil, nil)
		e := h.expectation()
		h.store.answer = func(f *store.Found) { f.Expectation = &e }
		if d := h.judge(Request{}); d.Forward || !d.Failed {
			t.Errorf("%+v", d)
		}
	})
	t.Run("an empty expectation", func(t *testing.T) {
		h := newHouse(t, nil, nil)
		h.store.answer = func(f *store.Found) { f.Expectation.Content = store.Content{} }
		if d := h.judge(compliant(1)); d.Forward || d.Reason != SubjectMismatch || len(d.Findings) != 8 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("an expectation without an end", func(t *testing.T) {
		h := newHouse(t, nil, nil)
		h.store.answer = func(f *store.Found) { f.Expectation.ExpiresAt = time.Time{} }
		if d := h.judge(compliant(1)); d.Forward || d.Reason != ChallengeExpired {
			t.Errorf("%+v", d)
		}
	})
}

func TestAClaimThatCameTooLateIsUndone(t *testing.T) {
	h := newHouse(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	late := &lateClaim{spy: h.store, cancel: cancel}
	d := h.gate.Judge(ctx, late, compliant(1))
	if d.Forward || !d.Failed {
		t.Errorf("%+v", d)
	}
	if e := h.expectation(); e.State != store.Registered || len(e.Uses) != 0 {
		t.Errorf("expectation after: %s, %d uses", e.State, len(e.Uses))
	}
}

func TestAnAnswerThatCameTooLateIsNone(t *testing.T) {
	h := newHouse(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	h.store.answer = func(*store.Found) { cancel() }
	if d := h.gate.Judge(ctx, h.store, compliant(1)); d.Forward || !d.Failed || h.store.claims != 0 {
		t.Errorf("%+v, %d claims", d, h.store.claims)
	}
}

func TestAClaimOfSomethingElseIsNone(t *testing.T) {
	for name, change := range map[string]func(*store.Expectation, *store.Use){
		"another expectation": func(e *store.Expectation, _ *store.Use) { e.ID = "exp_2" },
		"another key":         func(_ *store.Expectation, u *store.Use) { u.Key = []byte{1} },
		"no key":              func(_ *store.Expectation, u *store.Use) { u.Key = nil },
		"an ended use":        func(_ *store.Expectation, u *store.Use) { u.State = store.Issued },
		"a pending use":       func(_ *store.Expectation, u *store.Use) { u.State = store.Pending },
	} {
		h := newHouse(t, nil, nil)
		if d := h.gate.Judge(t.Context(), &otherClaim{h.store, change}, compliant(1)); d.Forward || !d.Failed || d.claim != nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// otherClaim answers with something else than what it claimed.
type otherClaim struct {
	*spy
	change func(*store.Expectation, *store.Use)
}

func (o *otherClaim) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	e, u, err := o.spy.Claim(ctx, c)
	o.change(&e, &u)
	return e, u, err
}

// lateClaim claims, and then the caller's time is over.
type lateClaim struct {
	*spy
	cancel context.CancelFunc
}

func (l *lateClaim) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	e, u, err := l.spy.Claim(ctx, c)
	l.cancel()
	return e, u, err
}

func TestClaimConflictsRefuse(t *testing.T) {
	for _, tt := range []struct {
		err    error
		want   Reason
		failed bool
	}{
		{store.ErrKeyConflict, ChallengeInUse, false},
		{store.ErrUsed, ChallengeUsed, false},
		{store.ErrTransactionConflict, TransactionConflict, false},
		{store.ErrGeneration, StoreUnavailable, true},    // again and again
		{store.ErrNotRegistered, StoreUnavailable, true}, // and yet read as registered, again and again
		{store.ErrNotFound, StoreUnavailable, true},
	} {
		h := newHouse(t, nil, nil)
		h.store.onClaim = func(context.Context) error { return fmt.Errorf("claiming: %w", tt.err) }
		d := h.judge(compliant(1))
		if d.Forward || d.Reason != tt.want || d.Failed != tt.failed || h.store.finds != 1 || h.store.claims > maxReads {
			t.Errorf("%v: %+v, %d finds, %d claims", tt.err, d, h.store.finds, h.store.claims)
		}
	}
}

func TestALostRaceIsJudgedAnew(t *testing.T) {
	h := newHouse(t, nil, nil)
	h.store.onClaim = func(ctx context.Context) error {
		h.store.onClaim = nil
		_, err := h.store.Revoke(ctx, "wifi", h.id, "jamf")
		return err
	}
	if d := h.judge(compliant(1)); d.Forward || d.Reason != ChallengeRevoked || h.store.finds != 1 {
		t.Errorf("%+v", d)
	}
}

func TestADecisionTellsWhichMatchersWereAsked(t *testing.T) {
	exact := func(result string) []MatcherCall { return []MatcherCall{{"exact", result}} }
	for name, tt := range map[string]struct {
		r    Request
		want []MatcherCall
	}{
		"compliant":      {compliant(1), exact("agree")},
		"wrong identity": {with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" }), exact("refuse")},
		// Refused without a look at what it asks for.
		"renewal":           {with(1, func(m *inspector.Message, _ *inspector.Opened, _ *inspector.CSR) { m.Signer.SelfSigned = false }), nil},
		"unknown challenge": {with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Challenge = "nobody knows this" }), nil},
	} {
		d := newHouse(t, nil, nil).judge(tt.r)
		if diff := cmp.Diff(tt.want, d.MatcherCalls); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOneChallengeForAHundredKeysAtOnce(t *testing.T) {
	h := newHouse(t, nil, nil)
	var (
		wg        sync.WaitGroup
		mu        sync.Mutex
		forwarded int
		reasons   = map[Reason]int{}
	)
	start := make(chan struct{})
	for i := range 100 {
		wg.Go(func() {
			<-start
			d := h.gate.Judge(t.Context(), h.store, compliant(i))
			mu.Lock()
			defer mu.Unlock()
			reasons[d.Reason]++
			if d.Forward {
				forwarded++
			}
		})
	}
	close(start)
	wg.Wait()
	if diff := cmp.Diff(map[Reason]int{OK: 1, ChallengeInUse: 99}, reasons); forwarded != 1 || diff != "" {
		t.Errorf("%d forwarded (-want +got):\n%s", forwarded, diff)
	}
	if h.store.finds != 100 {
		t.Errorf("%d finds", h.store.finds)
	}
}

func TestManyKeysOfOneExpectationDoNotGetInEachOthersWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 40
		h := newHouse(t, nil, func(e *store.Expectation) { e.MaxUses = devices })
		h.store.onClaim = func(context.Context) error { time.Sleep(3 * time.Millisecond); return nil } // of the bubble's clock
		var wg sync.WaitGroup
		for i := range devices {
			wg.Go(func() {
				if d := h.gate.Judge(t.Context(), h.store, compliant(i)); !d.Forward {
					t.Errorf("device %d: %s", i, d.Reason)
				}
			})
		}
		wg.Wait()
		if d := h.judge(compliant(devices)); d.Forward || d.Reason != ChallengeInUse {
			t.Errorf("one key more than max_uses: %s", d.Reason)
		}
	})
}

// answers is a matcher that answers as it is told.
type answers func(context.Context, plugins.Request) (plugins.Answer, error)

func (f answers) Info() plugins.Info { return plugins.Info{Name: "told", Decides: Decidable} }
func (f answers) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	return f(ctx, r)
}

// deciding is f as a profile uses it.
func deciding(name string, f answers, fields ...plugins.Field) Matcher {
	return Matcher{Matcher: f, Name: name, Decides: fields, Timeout: 2 * time.Second}
}

// says always gives the same answer.
func says(a plugins.Answer) answers {
	return func(context.Context, plugins.Request) (plugins.Answer, error) { return a, nil }
}

var agrees = says(plugins.Answer{Verdict: plugins.Agree})

func TestMatchersTakeOverOnlyWhatTheyDecide(t *testing.T) {
	type change = func(*inspector.Message, *inspector.Opened, *inspector.CSR)
	none := func(*inspector.Message, *inspector.Opened, *inspector.CSR) {}
	otherName := func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Subject[1][0].Value = "x" }
	otherSID := func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.SID = "" }
	both := func(m *inspector.Message, o *inspector.Opened, c *inspector.CSR) {
		otherName(m, o, c)
		otherSID(m, o, c)
	}
	refuses := says(plugins.Answer{Code: "not_in_inventory"})
	gone := func(context.Context, plugins.Request) (plugins.Answer, error) {
		return plugins.Answer{Verdict: plugins.Agree}, errors.New("gone")
	}
	panics := func(context.Context, plugins.Request) (plugins.Answer, error) { panic("gone") }
	hangs := func(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
		<-ctx.Done()
		return plugins.Answer{}, ctx.Err()
	}
	late := func(ctx context.Context, _ plugins.Request) (plugins.Answer, error) {
		<-ctx.Done()
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	subject := []plugins.Field{plugins.Subject}
	tests := []struct {
		name    string
		match   answers
		decides []plugins.Field
		change  change
		want    Reason
	}{
		{"agrees to a field that it decides", agrees, subject, otherName, OK},
		{"agrees to several", agrees, []plugins.Field{plugins.SID, plugins.Subject}, both, OK},
		{"refuses a field that it decides", refuses, subject, none, MatcherRefused},
		{"refuses what exact would refuse too: it has decided", refuses, subject, otherName, MatcherRefused},
		{"agrees, and decides another field", agrees, subject, otherSID, SIDMismatch},
		{"agrees, and decides nothing", agrees, nil, otherName, SubjectMismatch},
		{"objects, and decides nothing", refuses, nil, none, MatcherRefused},
		{"has nothing to say, and exact agrees", says(plugins.Answer{Verdict: plugins.NotMine}), subject, none, OK},
		{"has nothing to say, and exact does not agree", says(plugins.Answer{Verdict: plugins.NotMine}), subject, otherName, SubjectMismatch},
		{"has nothing to say, and finds a difference", says(plugins.Answer{Verdict: plugins.NotMine, Findings: []plugins.Finding{{Field: plugins.Subject}}}), subject, none, MatcherRefused},
		{"agrees and finds a difference", says(plugins.Answer{Verdict: plugins.Agree, Findings: []plugins.Finding{{Field: plugins.Subject}}}), subject, none, MatcherRefused},
		{"F19 unknown verdict", says(plugins.Answer{Verdict: 3}), subject, none, MatcherRefused},
		{"F19 negative verdict", says(plugins.Answer{Verdict: -1}), subject, none, MatcherRefused},
		{"F19 empty answer", says(plugins.Answer{}), subject, none, MatcherRefused},
		{"F18 error", gone, subject, none, MatcherFailed},
		{"F18 panic", panics, subject, none, MatcherFailed},
		{"F18 hangs", hangs, subject, none, MatcherFailed},
		{"F14 agrees too late", late, subject, none, MatcherFailed},
		{"fails, and decides nothing", gone, nil, none, MatcherFailed},
		{"is not asked about what is refused anyway", panics, subject, otherSID, SIDMismatch},
		{"changes what it was shown", func(_ context.Context, r plugins.Request) (plugins.Answer, error) {
			r.Facts.SIDs[0] = "S-1-5-21-1-2-3-500"
			r.Expectation.SID, r.Expectation.KeyUsage[0] = "S-1-5-21-1-2-3-500", ""
			r.Expectation.Labels["device"] = "x"
			return plugins.Answer{Verdict: plugins.Agree}, nil
		}, subject, none, OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, nil, nil)
				h.rebuild(h.profile, deciding("told", tt.match, tt.decides...))
				d := h.judge(with(1, tt.change))
				// What could not be decided is nobody's fault: the device may come again.
				if d.Failed != (tt.want == MatcherFailed) || d.Forward != (tt.want == OK) || d.Reason != tt.want {
					t.Errorf("%+v", d)
				}
				if tt.want == MatcherRefused || tt.want == MatcherFailed {
					if f := d.Findings[0]; f.Matcher != "told" || tt.name == "refuses a field that it decides" && f.Code != "not_in_inventory" {
						t.Errorf("finding %+v", f)
					}
				}
				e := h.expectation()
				entries := 2
				if d.Failed {
					entries = 1
				}
				if e.EverClaimed != d.Forward || len(e.History) != entries {
					t.Errorf("expectation after: %+v", e)
				}
				strike := len(d.Findings) > 0 && d.Findings[0].aboutIdentity()
				if got := len(e.Mismatches) == 1; got != strike || tt.decides == nil && tt.want == MatcherRefused && got {
					t.Errorf("strike %v for %+v", got, d.Findings)
				}
			})
		})
	}
}

func TestOfSeveralMatchersAllWhoHaveSomethingToSayMustAgree(t *testing.T) {
	notMine, refuses := says(plugins.Answer{Verdict: plugins.NotMine}), says(plugins.Answer{})
	other := func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { c.Subject[1][0].Value = "x" }
	for _, tt := range []struct {
		name string
		a, b answers
		want Reason
	}{
		{"both agree", agrees, agrees, OK},
		{"one agrees, one has nothing to say", agrees, notMine, OK},
		{"one has nothing to say, one agrees", notMine, agrees, OK},
		{"one agrees, one refuses", agrees, refuses, MatcherRefused},
		{"one refuses, one agrees", refuses, agrees, MatcherRefused},
		{"none has anything to say", notMine, notMine, SubjectMismatch},
	} {
		h := newHouse(t, nil, nil)
		h.rebuild(h.profile, deciding("a", tt.a, plugins.Subject), deciding("b", tt.b, plugins.Subject))
		if d := h.judge(with(1, other)); d.Reason != tt.want || d.Forward != (tt.want == OK) {
			t.Errorf("%s: %+v", tt.name, d)
		}
	}
}

func TestTheChallengeAndTheRequestAreShownOnlyToWhomTheyAreRevealed(t *testing.T) {
	h := newHouse(t, nil, nil)
	var shown []plugins.Request
	sees := func(_ context.Context, r plugins.Request) (plugins.Answer, error) {
		shown = append(shown, r)
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	open := deciding("open", sees, plugins.SAN)
	open.Reveal = true
	h.rebuild(h.profile, deciding("shut", sees, plugins.Subject), open)
	r := with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) {
		c.Raw = []byte("pkcs10 with " + judgeChallenge)
	})
	r.Query = "operation=PKIOperation"
	h.enrol(r)
	if len(shown) != 2 {
		t.Fatalf("%d were asked", len(shown))
	}
	if text := fmt.Sprintf("%+v", shown[0]); strings.Contains(text, judgeChallenge) || shown[0].PKCS10 != nil {
		t.Errorf("shown without being revealed: %s", text)
	}
	if shown[1].Challenge != judgeChallenge || string(shown[1].PKCS10) != "pkcs10 with "+judgeChallenge {
		t.Errorf("not shown: %+v", shown[1])
	}
	for i, r := range shown {
		if r.ClientIP != "192.0.2.1" || r.UserAgent != "profiled/1.0" || r.Query != "operation=PKIOperation" || r.TransactionID != "TX1" ||
			r.MessageType != "pkcs_req" || r.Renewal || r.Expectation.ID != h.id || len(r.Facts.SPKI) == 0 || len(r.Facts.RequestSHA256) != 64 ||
			len(r.Decides) != 1 {
			t.Errorf("question %d: %+v", i, r)
		}
	}
}

func TestAMatcherThatRepeatsTheChallengeDoesNotSpreadIt(t *testing.T) {
	repeat := []plugins.Answer{
		{Code: judgeChallenge},
		{Findings: []plugins.Finding{{Field: judgeChallenge, Expected: "x" + judgeChallenge, Got: judgeChallenge}}},
	}
	for _, f := range []answers{says(repeat[0]), says(repeat[1]), func(context.Context, plugins.Request) (plugins.Answer, error) {
		return plugins.Answer{}, errors.New("cannot ask about " + judgeChallenge)
	}} {
		h := newHouse(t, nil, nil)
		m := deciding("told", f, plugins.Subject)
		m.Reveal = true
		h.rebuild(h.profile, m)
		d := h.judge(compliant(1))
		if text := fmt.Sprintf("%+v %+v", d, h.expectation()); d.Forward || strings.Contains(text, judgeChallenge) {
			t.Errorf("%s", text)
		}
	}
}

func TestAGateTakesNoMatcherThatDecidesWhatItMayNot(t *testing.T) {
	h := newHouse(t, nil, nil)
	slow := deciding("x", agrees, plugins.Subject)
	slow.Timeout = MaxMatcherTimeout + 1
	never := deciding("x", agrees, plugins.Subject)
	never.Timeout = 0
	for name, m := range map[string][]Matcher{
		"nil":                      {{Name: "x", Timeout: time.Second}},
		"no name":                  {deciding("", agrees)},
		"exact's name":             {deciding("exact", agrees)},
		"a name twice":             {deciding("x", agrees), deciding("x", agrees)},
		"key":                      {deciding("x", agrees, plugins.Key)},
		"certificate_template":     {deciding("x", agrees, plugins.CertificateTemplate)},
		"application_policies":     {deciding("x", agrees, plugins.ApplicationPolicies)},
		"no field":                 {deciding("x", agrees, "everything")},
		"a field twice":            {deciding("x", agrees, plugins.Subject, plugins.Subject)},
		"challenge without source": {deciding("x", agrees, plugins.Challenge)},
		"more time than there is":  {slow},
		"no time":                  {never},
	} {
		if _, err := New(h.profile, judgeHasher(t), m, h.clock.now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	p := h.profile
	p.Source = SourceMatcher
	if _, err := New(p, judgeHasher(t), []Matcher{deciding("x", agrees, plugins.Subject)}, h.clock.now); err == nil {
		t.Error("challenge matcher without a matcher that decides it: taken")
	}
}

func TestWhatIsShownToMatchersIsACopy(t *testing.T) {
	h := newHouse(t, nil, nil)
	calls := 0
	h.rebuild(h.profile, deciding("told", func(_ context.Context, r plugins.Request) (plugins.Answer, error) {
		calls++
		r.Facts.SIDs[0], r.Facts.KeyUsage[0], r.Facts.ExtKeyUsage[0], r.Facts.SAN[0].Value = "x", "x", "x", "x"
		r.Facts.SPKI[0]++
		r.Decides[0] = plugins.SID
		r.Expectation.Labels["device"] = "x"
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}, plugins.Subject))
	h.store.onClaim = func(context.Context) error { // judged a second time
		h.store.onClaim = nil
		return store.ErrGeneration
	}
	if d := h.enrol(compliant(1)); calls != 2 || d.Labels["device"] != "C02XK1" {
		t.Errorf("%d calls, labels %v", calls, d.Labels)
	}
}

func TestNoMatcherAllowsWhatNDESCannotTake(t *testing.T) {
	for name, tt := range map[string]struct {
		want   Reason
		change func(*inspector.CSR)
	}{
		"key usage of a CA": {KeyUsageMismatch, func(c *inspector.CSR) { c.KeyUsage |= keyCertSign }},
		"a SID in odd spelling": {SIDMismatch, func(c *inspector.CSR) {
			c.SID, c.SAN = "", []inspector.GeneralName{{Type: "uri", Value: strings.ToUpper(sidTag) + judgeSID}}
		}},
		"two SIDs": {SIDMismatch, func(c *inspector.CSR) {
			c.SAN = append(c.SAN, inspector.GeneralName{Type: "uri", Value: sidTag + judgeSID})
		}},
		"an administrator":       {SubjectMismatch, func(c *inspector.CSR) { c.Subject[1][0].Value = "Administrator" }},
		"two common names":       {SubjectMismatch, func(c *inspector.CSR) { c.Subject = append(c.Subject, c.Subject[1]) }},
		"an empty RDN":           {SubjectMismatch, func(c *inspector.CSR) { c.Subject = append(c.Subject, inspector.RDN{}) }},
		"nobody":                 {SubjectMismatch, func(c *inspector.CSR) { c.Subject, c.SAN, c.SID = nil, nil, "" }},
		"a name of another type": {SANMismatch, func(c *inspector.CSR) { c.SAN = append(c.SAN, inspector.GeneralName{Type: "other", Value: "x"}) }},
		"a name twice":           {SANMismatch, func(c *inspector.CSR) { c.SAN = append(c.SAN, c.SAN[0]) }},
		"an agent":               {ExtKeyUsageMismatch, func(c *inspector.CSR) { c.ExtKeyUsage = []string{"1.3.6.1.4.1.311.20.2.1"} }},
		"an EKU twice":           {ExtKeyUsageMismatch, func(c *inspector.CSR) { c.ExtKeyUsage = []string{oidClientAuth, oidClientAuth} }},
		"application policies": {ApplicationPoliciesMismatch, func(c *inspector.CSR) {
			c.HasApplicationPolicies, c.ApplicationPolicies = true, []string{oidClientAuth}
		}},
		"a template":   {TemplateMismatch, func(c *inspector.CSR) { c.TemplateName = "SubCA" }},
		"an extension": {UnexpectedExtension, func(c *inspector.CSR) { c.UnexpectedExtensions = []string{"1.2"} }},
		"an attribute": {UnexpectedAttribute, func(c *inspector.CSR) { c.UnexpectedAttributes = []string{"1.2"} }},
	} {
		r := with(1, func(_ *inspector.Message, _ *inspector.Opened, c *inspector.CSR) { tt.change(c) })
		h := newHouse(t, nil, nil)
		h.rebuild(h.profile, deciding("told", agrees, Decidable[1:]...))
		if d := h.judge(r); d.Forward || d.Reason != tt.want {
			t.Errorf("%s: %+v", name, d)
		}
		p := h.profile
		p.Source = SourceMatcher
		h.rebuild(p, deciding("told", agrees, Decidable...))
		r.Opened.CSR.Challenge = "a challenge that nobody registered"
		if d := h.judge(r); d.Forward || d.Reason != tt.want {
			t.Errorf("%s, vouched for: %+v", name, d)
		}
	}
}

func TestAPanicRefuses(t *testing.T) {
	h := newHouse(t, func(p *Profile) {
		p.Constraints = func(string) (*Constraints, bool) { panic("broken") }
	}, nil)
	if d := h.judge(compliant(1)); d.Forward || d.Reason != MalformedRequest || d.ID == "" {
		t.Errorf("%+v", d)
	}
	if v := h.gate.Check(t.Context(), nil, store.Expectation{}, false); v.Verdict != "refuse" {
		t.Errorf("%+v", v)
	}
}

func TestObserveForwardsAndRecordsUntilItsDate(t *testing.T) {
	until := time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)
	observe := func(p *Profile) { p.ObserveUntil = until }
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, observe, nil)
			r := tt.request()
			for range 5 {
				d := h.judge(r)
				if r.Message == nil {
					if d.Forward {
						t.Fatal("forwarded nothing")
					}
					continue
				}
				if !d.Forward || !d.Observed || d.Failed || d.Locked || d.claim != nil || d.Reason != tt.want[0] {
					t.Fatalf("%+v", d)
				}
				if unopened := r.Opened == nil || r.Opened.Err != nil; d.Unjudged != unopened {
					t.Errorf("unjudged %v", d.Unjudged)
				}
				if diff := cmp.Diff(tt.want, reasonsOf(d.Findings)); diff != "" {
					t.Errorf("findings (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([][]byte{r.Message.SenderNonce}, d.SenderNonces()); diff != "" {
					t.Errorf("nonces (-want +got):\n%s", diff)
				}
				if s := h.gate.Settle(t.Context(), h.store, d, Forwarded{Sent: true, Rep: rep("0")}); s != (Settled{}) {
					t.Errorf("settled %+v", s)
				}
			}
			if e := h.expectation(); e.State != store.Registered || e.EverClaimed || len(e.Mismatches) != 0 {
				t.Errorf("expectation after: %+v", e)
			}
			if len(h.store.settles) != 0 {
				t.Error("settled what was not claimed")
			}
			// The date needs no reload.
			h.clock.advance(until.Sub(h.clock.now()))
			if d := h.judge(r); d.Forward || d.Observed || d.Unjudged {
				t.Errorf("after the date: %+v", d)
			}
		})
	}
	t.Run("a compliant request is claimed", func(t *testing.T) {
		h := newHouse(t, observe, nil)
		d := h.enrol(compliant(1))
		if d.Observed || d.claim == nil || h.expectation().State != store.Claimed {
			t.Errorf("%+v", d)
		}
		if d := h.judge(compliant(2)); !d.Forward || !d.Observed || d.Reason != ChallengeInUse {
			t.Errorf("second key: %+v", d)
		}
	})
	t.Run("a broken store", func(t *testing.T) {
		h := newHouse(t, observe, nil)
		h.store.onFind = func(context.Context) error { return store.ErrClosed }
		if d := h.judge(compliant(1)); !d.Forward || !d.Observed || !d.Unjudged || d.Failed || d.Reason != StoreUnavailable || d.claim != nil {
			t.Errorf("%+v", d)
		}
	})
}

func TestNewRefusesWhatCouldNotBeEnforced(t *testing.T) {
	ok := judgeProfile(t)
	h := judgeHasher(t)
	tests := map[string]func(p *Profile){
		"zero profile":            func(p *Profile) { *p = Profile{} },
		"no name":                 func(p *Profile) { p.Name = "" },
		"unknown source":          func(p *Profile) { p.Source = "matcher" },
		"static without password": func(p *Profile) { p.Source = SourceNDESStatic },
		"password where none is":  func(p *Profile) { p.StaticPassword = "x" },
		"no CA":                   func(p *Profile) { p.CAs = nil },
		"nil CA":                  func(p *Profile) { p.CAs = []*x509.Certificate{nil} },
		"no RA":                   func(p *Profile) { p.RAs = nil },
		"nil RA":                  func(p *Profile) { p.RAs = []*x509.Certificate{nil} },
		"no digest":               func(p *Profile) { p.Digests = nil },
		"md5":                     func(p *Profile) { p.Digests = []string{"md5"} },
		"no cipher":               func(p *Profile) { p.Ciphers = nil },
		"rc4":                     func(p *Profile) { p.Ciphers = []string{"aes128", "rc4"} },
		"short keys":              func(p *Profile) { p.MinRSABits = 1023 },
		"no strikes":              func(p *Profile) { p.MaxMismatches = 0 },
		"no constraints":          func(p *Profile) { p.Constraints = nil },
		"negative retry window":   func(p *Profile) { p.RetryWindow = -1 },
		"retry window of days":    func(p *Profile) { p.RetryWindow = 24*time.Hour + 1 },
		"released at once":        func(p *Profile) { p.InDoubtRelease = 5*time.Minute - 1 },
		"released before it was":  func(p *Profile) { p.InDoubtRelease = -time.Hour },
		"zero renewal":            func(p *Profile) { p.Renewal = &Renewal{} },
		"renewal at any time":     func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.WindowPercent = 0 }) },
		"two renewal windows":     func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.Window = time.Hour }) },
		"window before the start": func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.WindowPercent = 101 }) },
		"negative percentage":     func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.WindowPercent = -1 }) },
		"negative window": func(p *Profile) {
			p.Renewal = renews(func(r *Renewal) { r.WindowPercent, r.Window = 0, -time.Hour })
		},
		"renewal for any purpose": func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.ExtKeyUsage = nil }) },
		"renewal by agents": func(p *Profile) {
			p.Renewal = renews(func(r *Renewal) { r.ExtKeyUsage = []string{"1.3.6.1.4.1.311.20.2.1"} })
		},
		"renewal for a purpose named": func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.ExtKeyUsage = []string{"clientAuth"} }) },
		"RDN type named":              func(p *Profile) { p.Renewal = renews(func(r *Renewal) { r.CADrops = []string{"OU"} }) },
	}
	for name, change := range tests {
		p := ok
		change(&p)
		if g, err := New(p, h, nil, time.Now); err == nil || g != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(ok, nil, nil, time.Now); err == nil {
		t.Error("no hasher: accepted")
	}
	if _, err := New(ok, h, nil, nil); err == nil {
		t.Error("no clock: accepted")
	}
}

func TestEveryReasonOfTheGateHasARefusal(t *testing.T) {
	seen := map[Reason]bool{
		// In tests of their own.
		OK: true, TransactionConflict: true, IdentityUnknown: true, MatcherRefused: true, MatcherFailed: true, StoreUnavailable: true, RenewalDisabled: true,
		RenewalUsed: true, RenewalNotRegistered: true,
		ChallengeExpired: true, ChallengeRevoked: true, ChallengeLocked: true, ChallengeUsed: true, ChallengeInUse: true,
		// Given by the edge.
		KeyUnavailable: true, UpstreamUnavailable: true, UpstreamInvalid: true, Overloaded: true,
	}
	for _, tt := range refusals {
		for _, r := range tt.want {
			seen[r] = true
		}
	}
	for _, tt := range renewalRefusals {
		for _, r := range tt.want {
			seen[r] = true
		}
	}
	for _, r := range Reasons() {
		if !seen[r] {
			t.Errorf("no test reaches %s", r)
		}
	}
}

func TestWhatIsLoggedIsEscapedAndBounded(t *testing.T) {
	h := newHouse(t, nil, nil)
	evil := "x\r\n\x1b[31m\u202e" + strings.Repeat("A", 10_000)
	d := h.judge(with(1, func(m *inspector.Message, o *inspector.Opened, c *inspector.CSR) {
		m.TransactionID, o.RA = evil, evil
		c.Subject[1][0].Value, c.SAN[0].Value, c.SID, c.TemplateName = evil, evil, evil, evil
		for range 1000 {
			c.UnexpectedExtensions = append(c.UnexpectedExtensions, evil)
			c.SAN = append(c.SAN, inspector.GeneralName{Type: "dns", Value: evil})
		}
	}))
	if d.Forward {
		t.Fatal("forwarded")
	}
	text := fmt.Sprintf("%+v", d)
	if i := strings.IndexFunc(text, func(r rune) bool { return !plainRune(r) }); i >= 0 {
		t.Errorf("unescaped %q", text[i:min(len(text), i+10)])
	}
	if len(d.Findings) > maxFindings || len(text) > 64<<10 {
		t.Errorf("%d findings, %d bytes", len(d.Findings), len(text))
	}
	for _, ev := range h.expectation().History {
		if strings.ContainsFunc(fmt.Sprint(ev), func(r rune) bool { return !plainRune(r) }) {
			t.Errorf("history %q", fmt.Sprint(ev))
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	g, err := New(judgeProfile(b), judgeHasher(b), nil, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	e := store.Expectation{
		ID: "exp_1", Profile: "wifi", Owner: "jamf", Content: judgeContent(), MaxUses: 1, State: store.Registered,
		ChallengeHash: judgeHasher(b).Challenge("wifi", judgeChallenge), ExpiresAt: time.Now().Add(time.Hour),
	}
	s := instant{e: e}
	r := compliant(1)
	b.ReportAllocs()
	for b.Loop() {
		if d := g.Judge(b.Context(), s, r); !d.Forward {
			b.Fatalf("%+v", d)
		}
	}
}

// instant is a store that costs nothing.
type instant struct {
	store.Store
	e store.Expectation
}

func (s instant) Find(context.Context, store.Lookup) (store.Found, error) {
	return store.Found{Expectation: &s.e}, nil
}

func (s instant) Claim(_ context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	return s.e, store.Use{State: store.Claimed, Key: c.Key}, nil
}
