package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/store"
)

// Renewal is what a profile demands of a renewal (contract §2, `renewal`).
type Renewal struct {
	// The last part of a certificate's validity in which it may be renewed:
	// a share of it in percent, or a duration. Exactly one is set.
	WindowPercent int
	Window        time.Duration

	RequireNewKey bool
	ExtKeyUsage   []string // dotted OIDs: the signer's set must equal this
	CADrops       []string // dotted OIDs of RDN types that the CA leaves out of certificates
	Registered    bool     // registration required: the MDM registers each

	// Revoked reports whether a CRL lists the signer's certificate. fresh is
	// false if the CRLs of its issuer are not all there and current: then
	// nothing is renewed. Nil: no CRL is configured.
	Revoked func(s *inspector.Signer) (revoked, fresh bool)
}

func (r *Renewal) validate() error {
	switch {
	case (r.WindowPercent != 0) == (r.Window != 0):
		return errors.New("renewal window is neither a share nor a duration")
	case r.WindowPercent < 0 || r.WindowPercent > 100 || r.Window < 0:
		return errors.New("renewal window out of range")
	case len(r.ExtKeyUsage) == 0:
		return errors.New("renewal without an extended key usage")
	}
	for _, oid := range r.ExtKeyUsage {
		if _, err := ExtKeyUsageOID(oid); err != nil {
			return fmt.Errorf("renewal: %w", err)
		}
		if !IsOID(oid) {
			return fmt.Errorf("renewal: extended key usage %q is no object identifier", oid)
		}
	}
	for _, oid := range r.CADrops {
		if !IsOID(oid) {
			return fmt.Errorf("renewal: RDN type %q is no object identifier", oid)
		}
	}
	return nil
}

// renewed is the certificate that signs a renewal, or a poll for one.
type renewed struct {
	signer   *inspector.Signer
	sha256   string         // of the certificate, lower-case hex
	byHash   []byte         // the lookup keys under which its renewal is kept
	bySerial []byte         //
	identity []byte         // of what the CA has signed, without the signature: ECDSA has two of each
	content  *store.Content // what it certifies; nil if that could not be told
	stale    bool           // the CRLs are not there, or not current
}

func (g *Gate) renewed(s *inspector.Signer) *renewed {
	sum := sha256.Sum256(s.Raw)
	c := &renewed{signer: s, sha256: hex.EncodeToString(sum[:])}
	c.byHash = g.hasher.Renewal(g.profile.Name, c.sha256)
	c.identity = s.TBSSHA256()
	c.bySerial = g.hasher.RenewalSerial(g.profile.Name, s.Serial.Text(16))
	return c
}

// askRenewal judges a renewal as far as it needs no store, and asks for the
// certificate's one claim. The first new key holds it, not the signer's. A
// challenge is not looked at.
func (g *Gate) askRenewal(ctx context.Context, q *asked, r Request, d *Decision) {
	s, csr := r.Message.Signer, r.Opened.CSR
	q.request(g, csr)
	spki := csr.SPKISHA256()
	q.key, d.SPKISHA256 = spki[:], hex.EncodeToString(spki[:])
	q.old = g.renewed(s)
	q.lookup.ChallengeHash, q.lookup.IdentityHash, q.real = q.old.byHash, q.old.bySerial, true

	q.findings = append(q.findings, g.renewalSigner(q.old)...)
	q.findings = append(q.findings, g.renewalTime(s)...)
	if g.profile.Renewal.RequireNewKey && s.PublicKey.N.Cmp(csr.PublicKey.N) == 0 {
		q.findings = append(q.findings, finding(RenewalKeyReused, "key", "a new key", spkiText(spki)))
	}
	if q.old.content == nil {
		return
	}
	changed, call := g.changed(ctx, q.w, q.old.content)
	q.findings = append(q.findings, changed...)
	d.MatcherCalls = append(d.MatcherCalls, call)
}

// renewalSigner judges the certificate: what it is for, whether it is valid now,
// by the gateway's clock (threat D14), and not revoked (threat D15). A CA of
// ours has signed it. It sets what the certificate contains, if that can be told.
func (g *Gate) renewalSigner(old *renewed) (findings []Finding) {
	no := func(field, expected, got string) {
		findings = append(findings, finding(RenewalSignerUntrusted, field, expected, got))
	}
	s, now := old.signer, g.now()
	switch {
	case now.Before(s.NotBefore):
		findings = append(findings, finding(RenewalSignerExpired, "signer", "not before "+s.NotBefore.UTC().Format(timeLayout), ""))
	case !now.Before(s.NotAfter):
		findings = append(findings, finding(RenewalSignerExpired, "signer", "before "+s.NotAfter.UTC().Format(timeLayout), ""))
	}
	if revoked, fresh := g.revoked(s); !fresh {
		old.stale = true
	} else if revoked {
		findings = append(findings, finding(RenewalSignerRevoked, "signer", "", s.Serial.Text(16)))
	}

	c, err := s.Certified()
	if err != nil {
		no("signer", "", err.Error())
		return findings
	}
	// threat D16: a certificate of a device, and of no other kind.
	usage := keyUsageNames(c.KeyUsage)
	switch {
	case c.IsCA || c.KeyUsage&(keyCertSign|cRLSign) != 0:
		no("signer_key_usage", "no CA", strings.Join(usage, ", "))
	case c.HasKeyUsage && TemplateKind(usage) == "": // NDES has no template for it
		no("signer_key_usage", "what NDES has a template for", strings.Join(usage, ", "))
	}
	if want := g.profile.Renewal.ExtKeyUsage; !c.HasExtKeyUsage || !sameOIDs(want, c.ExtKeyUsage) {
		no("signer_ext_key_usage", strings.Join(ekuNames(want), ", "), strings.Join(ekuNames(c.ExtKeyUsage), ", "))
	}
	for _, oid := range c.ApplicationPolicies {
		if what, never := forbiddenEKUs[oid]; never { // threat B09
			no("signer_application_policies", "", what)
		}
	}
	content, why := contentOf(c)
	if why != "" {
		no(string(plugins.SID), "", why)
		return findings
	}
	id, _ := expectedIdentity(content)
	if field, why := forbiddenIdentity(&g.profile, id); why != "" { // threat F35
		no(string(field), "", why)
	}
	if t, _ := g.profile.Templates.pick(content.KeyUsage); t != nil {
		content.CertificateTemplate = t.Name
		findings = append(findings, t.signed(c)...)
	} else {
		findings = append(findings, Template{}.signed(c)...)
	}
	old.content = &content
	return findings
}

// revoked asks the CRLs. What goes wrong there means that they cannot be asked.
func (g *Gate) revoked(s *inspector.Signer) (revoked, fresh bool) {
	if g.profile.Renewal.Revoked == nil {
		return false, true
	}
	defer func() {
		if recover() != nil {
			revoked, fresh = true, false
		}
	}()
	return g.profile.Renewal.Revoked(s)
}

// renewalTime judges whether the certificate's end is near enough (threat D17).
func (g *Gate) renewalTime(s *inspector.Signer) []Finding {
	window := g.profile.Renewal.Window
	if percent := g.profile.Renewal.WindowPercent; percent != 0 {
		window = s.NotAfter.Sub(s.NotBefore) / 100 * time.Duration(percent)
	}
	if start := s.NotAfter.Add(-window); g.now().Before(start) {
		return []Finding{finding(RenewalTooEarly, "signer", "from "+start.UTC().Format(timeLayout), "")}
	}
	return nil
}

// signed judges whether a certificate was made by the template t, which NDES
// picks by its key usage, as far as it says by which. What cannot be compared is
// refused.
func (t Template) signed(c *inspector.Certified) (findings []Finding) {
	if c.TemplateName != "" && c.TemplateName != t.Name {
		findings = append(findings, finding(RenewalSignerUntrusted, "signer_template", t.Name, c.TemplateName))
	}
	if c.TemplateOID != "" && c.TemplateOID != t.OID {
		findings = append(findings, finding(RenewalSignerUntrusted, "signer_template", t.OID, c.TemplateOID))
	}
	return findings
}

// contentOf is what a certificate contains, in the words of an expectation; why
// not, if it carries a SID in two ways of which one could be read for another.
func contentOf(c *inspector.Certified) (content store.Content, why string) {
	names, sids, odd := carriers(c.SAN, c.SID)
	switch {
	case odd != "":
		return store.Content{}, "a SID in another spelling"
	case len(slices.Compact(sids)) > 1:
		return store.Content{}, "two SIDs"
	case len(sids) > 0:
		content.SID = sids[0]
	}
	for _, rdn := range c.Subject {
		var values []store.Value
		for _, a := range rdn {
			values = append(values, store.Value{Type: a.Type, Match: matchExact, Value: a.Value})
		}
		content.Subject = append(content.Subject, values)
	}
	for _, n := range names {
		content.SAN = append(content.SAN, store.SANRule{Type: n.Type, Match: matchExact, Value: foldAltName(n.Type, n.Value), Min: 1, Max: 1})
	}
	content.KeyUsage = keyUsageNames(absentKeyUsage)
	if c.HasKeyUsage {
		content.KeyUsage = keyUsageNames(c.KeyUsage)
	}
	content.ExtKeyUsage = slices.Clone(c.ExtKeyUsage)
	content.ApplicationPolicies = slices.Clone(c.ApplicationPolicies)
	return content, ""
}

// changed lists how a request differs from the certificate that it renews, by
// the comparison that enrolments have. Of the key usage only counts which
// template NDES picks by it, of the subject what the CA puts into certificates.
// (threats D11, D12)
func (g *Gate) changed(ctx context.Context, w *wanted, c *store.Content) (findings []Finding, call MatcherCall) {
	ctx, cancel := context.WithTimeout(ctx, matcherTimeout)
	defer cancel()
	kept, expected := *w, *c
	csr := *w.csr
	csr.Subject = without(csr.Subject, g.profile.Renewal.CADrops)
	kept.csr = &csr
	if kind := TemplateKind(c.KeyUsage); kind != "" && kind == TemplateKind(w.keyUsage) {
		expected.KeyUsage = w.keyUsage
	}
	findings, call = g.exact(ctx, exactly, &kept, &store.Expectation{Content: expected})
	for i := range findings {
		if findings[i].Reason != MatcherFailed {
			findings[i].Reason = RenewalIdentityChanged
		}
	}
	return append(findings, w.unexpected()...), call
}

// without leaves out attributes of these types, and RDNs that are empty then.
func without(subject []inspector.RDN, drops []string) []inspector.RDN {
	var kept []inspector.RDN
	for _, rdn := range subject {
		rdn = slices.DeleteFunc(slices.Clone(rdn), func(a inspector.AttributeTypeAndValue) bool {
			return slices.Contains(drops, a.Type)
		})
		if len(rdn) > 0 {
			kept = append(kept, rdn)
		}
	}
	return kept
}

// startRenewal is the record that holds a certificate to one renewal, where
// nobody registers them. It is kept as long as the certificate could sign.
func (g *Gate) startRenewal(old *renewed) *store.Expectation {
	now := g.now().UTC()
	return &store.Expectation{
		ID: newID(now), Profile: g.profile.Name, ChallengeHash: old.byHash,
		Renews: &store.Renews{SHA256: old.sha256}, Request: []byte("{}"), Content: *old.content,
		MaxUses: 1, CreatedAt: now, ExpiresAt: old.signer.NotAfter, RetainUntil: old.signer.NotAfter,
		State: store.Registered, Generation: 1,
	}
}

// againstRenewal judges a renewal against e, registered or made here.
func (g *Gate) againstRenewal(ctx context.Context, q *asked, e *store.Expectation, d *Decision) (findings []Finding, theft bool, err error) {
	ended, theft, err := g.life(q, e)
	if err != nil {
		return nil, false, err
	}
	findings = append(slices.Clone(q.findings), ended...)
	findings = append(findings, g.permittedRenewal(e, q.old.content)...)
	if len(findings) > 0 {
		return findings, theft, nil
	}
	findings, calls := g.objections(ctx, q, e)
	d.MatcherCalls = append(d.MatcherCalls, calls...)
	return findings, theft, nil
}

// permittedRenewal judges whether the client that registered e still might, for
// what the certificate contains: effective values count (contract §4.2). What
// the gateway made itself has no client, and does where nobody must register.
func (g *Gate) permittedRenewal(e *store.Expectation, content *store.Content) (findings []Finding) {
	if e.Owner == "" {
		if g.profile.Renewal.Registered {
			return []Finding{finding(RenewalNotRegistered, "renewal", "", "")}
		}
		return nil
	}
	c, ok := g.profile.Constraints(e.Owner)
	if !ok {
		return []Finding{finding(RenewalNotRegistered, "owner", "", e.Owner)}
	}
	if content == nil {
		return nil // refused already
	}
	effective := *e
	effective.Content = *content
	for _, p := range c.Violations(effective) {
		findings = append(findings, finding(RenewalNotRegistered, strings.TrimPrefix(p.Pointer, "/"), "", p.Detail))
	}
	return findings
}

// sameOIDs compares two sets.
func sameOIDs(a, b []string) bool {
	return encodeSet(a) == encodeSet(b)
}
