package caddymodule

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/scepgate/scepgate/gate"
)

// Profile is one `profile` block: what one NDES behind the gateway may issue,
// and to whom. Everything in it is checked when the configuration is loaded.
type Profile struct {
	// Who owns the challenge. Required.
	Challenge *Challenge `json:"challenge,omitempty"`

	// The RA pairs of NDES ("CEP Encryption" certificate and key), to which
	// devices encrypt. At least one; several for rollover or several nodes.
	RA []*RA `json:"ra,omitempty"`

	// Files with the issuing CA certificates and their chain, PEM or DER. At
	// least one.
	CACertificate []string `json:"ca_certificate,omitempty"`

	// Files with the only certificates that may sign NDES's answers. Default:
	// what the CA certificates vouch for.
	RASigningCertificate []string `json:"ra_signing_certificate,omitempty"`

	// How a request is refused. Default: a SCEP failure signed by the first RA.
	Refusal *Refusal `json:"refusal,omitempty"`

	// The certificate templates that NDES picks from by the request's key usage.
	Templates *Templates `json:"templates,omitempty"`

	// What an expectation that is silent about it means.
	Defaults *Defaults `json:"defaults,omitempty"`

	// The floor for algorithms and keys.
	Algorithms *Algorithms `json:"algorithms,omitempty"`

	// What is allowed beyond the default. The only word is `patterns`: values
	// that are not exact in `subject_rdns` and `san_rules`.
	Allow []string `json:"allow,omitempty"`

	// How many distinct wrong identities lock an expectation. Default: 3.
	MaxMismatches *int `json:"max_mismatches,omitempty"`

	// How a certificate may be renewed with itself instead of with a challenge.
	// Must be written before decisions are enforced.
	Renewal *Renewal `json:"renewal,omitempty"`

	// How long after a certificate was issued the same request may be sent again,
	// for a device that did not get the answer; and how long the outcome of a
	// request may be unknown before it is reported. At most 24h. Default: 20m.
	RetryWindow *caddy.Duration `json:"retry_window,omitempty"`

	// How long after its last attempt a key keeps an expectation for which no
	// answer came. At least 5m. Default: until it is released by hand.
	InDoubtRelease caddy.Duration `json:"in_doubt_release,omitempty"`

	// What has a say in who may enrol, besides `exact`, which always runs.
	Matchers []*Matcher `json:"matchers,omitempty"`

	// Whether decisions are enforced. Default: enforce.
	Mode *Mode `json:"mode,omitempty"`
}

// Challenge says who owns the challenge.
type Challenge struct {
	// `gateway`: the gateway makes or takes challenges, NDES runs with
	// EnforcePassword=0 and the gateway is the only control. `ndes_one_time`:
	// NDES made it. `ndes_static`: one password for all, found by identity.
	// `matcher`: nobody registers; a matcher that decides challenge vouches for
	// challenges, NDES runs with EnforcePassword=0 and the gateway is the only control.
	Source string `json:"source,omitempty"`

	// How long an expectation lives that does not say so itself. Default: 24h;
	// 55m for `ndes_one_time`, 30 days for `matcher` (whose source knows better). At
	// most 30 days.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// The file with NDES's password; only for `ndes_static`. One line end is
	// ignored. Must not be readable by everybody.
	PasswordFile string `json:"password_file,omitempty"`
}

// RA is one RA pair.
type RA struct {
	// A name for logs and metrics.
	Name string `json:"name,omitempty"`

	// The file with the certificate: PEM, DER or PKCS#12.
	Certificate string `json:"certificate,omitempty"`

	// The file with the RSA key: PEM or DER (PKCS#1, PKCS#8), or PKCS#12. Must
	// not be readable by everybody.
	Key string `json:"key,omitempty"`

	// The file with the password of the PKCS#12 file.
	PasswordFile string `json:"password_file,omitempty"`

	// The address (`host:port`) of the NDES node that has this pair, for the
	// placeholder `{http.scep_gateway.upstream}`.
	Upstream string `json:"upstream,omitempty"`
}

// Refusal says how a request is refused.
type Refusal struct {
	// `signed`: a SCEP failure; `http_403`: a bare status, for when no key may sign.
	Kind string `json:"kind,omitempty"`

	// The certificate file of the identity that signs. Default: the first RA.
	Certificate string `json:"certificate,omitempty"`

	// Its key file.
	Key string `json:"key,omitempty"`
}

// Templates is what NDES picks from the request's key usage.
type Templates struct {
	// For digitalSignature.
	Signature *Template `json:"signature,omitempty"`

	// For keyEncipherment.
	Encryption *Template `json:"encryption,omitempty"`

	// For both.
	GeneralPurpose *Template `json:"general_purpose,omitempty"`
}

// Template is a certificate template of the CA.
type Template struct {
	// Its name (not its display name).
	Name string `json:"name,omitempty"`

	// Its object identifier. Without it a request that carries one is refused.
	OID string `json:"oid,omitempty"`
}

// Defaults is what an expectation that is silent about it means.
type Defaults struct {
	// Key usage bits. Default: digitalSignature, keyEncipherment.
	KeyUsage []string `json:"key_usage,omitempty"`

	// Extended key usages, by name or object identifier. Default: clientAuth.
	ExtKeyUsage []string `json:"ext_key_usage,omitempty"`
}

// Algorithms is the floor for algorithms and keys.
type Algorithms struct {
	// Digests of signatures. Default: sha1, sha256, sha384, sha512.
	Digest []string `json:"digest,omitempty"`

	// Ciphers of the message. Default: des3, aes128, aes256.
	Cipher []string `json:"cipher,omitempty"`

	// The smallest RSA key. Default: 2048.
	MinRSABits int `json:"min_rsa_bits,omitempty"`

	// Adds the cipher des, and makes 1024 the default smallest key.
	Legacy bool `json:"legacy,omitempty"`
}

// Mode says whether decisions are enforced.
type Mode struct {
	// `enforce` or `observe`.
	Kind string `json:"kind,omitempty"`

	// When observing ends: a date, or a time in RFC 3339. Enforced from then on.
	Until string `json:"until,omitempty"`
}

// The words of the configuration.
const (
	refusalSigned  = "signed"
	refusalHTTP403 = "http_403"
	modeEnforce    = "enforce"
	modeObserve    = "observe"
	allowPatterns  = "patterns"
)

const (
	defaultTTL           = 24 * time.Hour
	defaultOneTimeTTL    = 55 * time.Minute // NDES forgets its passwords after 60
	maxTTL               = 30 * 24 * time.Hour
	defaultMinRSABits    = 2048
	legacyMinRSABits     = 1024
	maxMinRSABits        = 8192
	defaultMaxMismatches = 3
	maxMaxMismatches     = 1000
	defaultRetryWindow   = 20 * time.Minute
	maxRetryWindow       = 24 * time.Hour
	minInDoubtRelease    = 5 * time.Minute
)

var (
	knownDigests = []string{"sha1", "sha256", "sha384", "sha512"}
	knownCiphers = []string{"des", "des3", "aes128", "aes256"}
	neverDigests = []string{"md2", "md4", "md5"}
	neverCiphers = []string{"rc2", "rc4"}
)

// A name stands in URLs, logs and metrics.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// normalize fills in the defaults, expands placeholders and checks everything
// that needs no file. expand refuses what has no value.
func (p *Profile) normalize(expand func(option string, value *string) error, now time.Time) (warnings []string, err error) {
	if p == nil {
		return nil, errors.New("is empty")
	}
	for _, step := range []func() error{
		func() error { return p.normalizeChallenge(expand) },
		func() error { return p.normalizeRAs(expand) },
		func() error { return expandAll(expand, "ca_certificate", p.CACertificate) },
		func() error { return expandAll(expand, "ra_signing_certificate", p.RASigningCertificate) },
		func() error { return p.normalizeRefusal(expand) },
		p.normalizeAlgorithms,
		p.normalizeDefaults,
		func() error { return p.normalizeTemplates(expand) },
		p.normalizePolicy,
		p.normalizeLife,
		p.normalizeMatchers,
		func() error { return p.Renewal.normalize(expand, p.Defaults.ExtKeyUsage) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if len(p.CACertificate) == 0 {
		return nil, errors.New("ca_certificate: the issuing CA's certificate is missing")
	}
	if source := p.Challenge.Source; source == string(gate.SourceGateway) || source == string(gate.SourceMatcher) {
		warnings = append(warnings, "challenge "+source+": NDES must run with EnforcePassword=0 and be reachable through the gateway only, which is the only control")
	}
	return p.normalizeMode(now, warnings)
}

func (p *Profile) normalizeChallenge(expand func(string, *string) error) error {
	if p.Challenge == nil {
		return errors.New("challenge: who owns the challenge is not configured")
	}
	c := p.Challenge
	ttl := defaultTTL
	switch c.Source {
	case string(gate.SourceGateway), string(gate.SourceNDESStatic):
	case string(gate.SourceMatcher):
		ttl = maxTTL // the source says itself how long a challenge lives
	case string(gate.SourceNDESOneTime):
		ttl = defaultOneTimeTTL
	default:
		return fmt.Errorf("challenge: unknown source %q", c.Source)
	}
	if c.TTL == 0 {
		c.TTL = caddy.Duration(ttl)
	}
	if c.TTL < 0 || time.Duration(c.TTL) > maxTTL {
		return errors.New("challenge ttl: must be positive and at most 30 days")
	}
	if c.Source != string(gate.SourceNDESStatic) {
		if c.PasswordFile != "" {
			return errors.New("challenge password_file: is for ndes_static only")
		}
		return nil
	}
	return expand("challenge password_file", &c.PasswordFile)
}

func (p *Profile) normalizeRAs(expand func(string, *string) error) error {
	if len(p.RA) == 0 {
		return errors.New("ra: no RA pair is configured")
	}
	seen := make(map[string]bool)
	for _, ra := range p.RA {
		if ra == nil {
			return errors.New("ra: is empty")
		}
		if !namePattern.MatchString(ra.Name) {
			return fmt.Errorf("ra: name %q: must be letters, digits, '_', '.' or '-'", ra.Name)
		}
		if seen[ra.Name] {
			return fmt.Errorf("ra %s: is configured twice", ra.Name)
		}
		seen[ra.Name] = true
		option := "ra " + ra.Name + " "
		if err := errors.Join(expand(option+"certificate", &ra.Certificate), expand(option+"key", &ra.Key)); err != nil {
			return err
		}
		if ra.PasswordFile != "" {
			if err := expand(option+"password_file", &ra.PasswordFile); err != nil {
				return err
			}
		}
		if ra.Upstream != "" {
			if err := expand(option+"upstream", &ra.Upstream); err != nil {
				return err
			}
			if err := checkHostPort(ra.Upstream); err != nil {
				return fmt.Errorf("%supstream: %w", option, err)
			}
		}
	}
	return nil
}

// checkHostPort wants an address that can be dialed as it stands.
func checkHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no valid port", address)
	}
	return nil
}

func (p *Profile) normalizeRefusal(expand func(string, *string) error) error {
	if p.Refusal == nil {
		p.Refusal = &Refusal{Kind: refusalSigned}
	}
	r := p.Refusal
	switch r.Kind {
	case refusalHTTP403:
		if r.Certificate != "" || r.Key != "" {
			return errors.New("refusal http_403: takes no certificate and no key")
		}
		return nil
	case refusalSigned:
	default:
		return fmt.Errorf("refusal: unknown kind %q", r.Kind)
	}
	if r.Certificate == "" && r.Key == "" {
		return nil
	}
	return errors.Join(expand("refusal signed certificate", &r.Certificate), expand("refusal signed key", &r.Key))
}

func (p *Profile) normalizeAlgorithms() error {
	if p.Algorithms == nil {
		p.Algorithms = new(Algorithms)
	}
	a := p.Algorithms
	if err := checkWords("algorithms digest", a.Digest, knownDigests, neverDigests); err != nil {
		return err
	}
	if err := checkWords("algorithms cipher", a.Cipher, knownCiphers, neverCiphers); err != nil {
		return err
	}
	if len(a.Digest) == 0 {
		a.Digest = slices.Clone(knownDigests)
	}
	if len(a.Cipher) == 0 {
		a.Cipher = []string{"des3", "aes128", "aes256"}
	}
	if a.MinRSABits == 0 {
		a.MinRSABits = defaultMinRSABits
		if a.Legacy {
			a.MinRSABits = legacyMinRSABits
		}
	}
	if a.Legacy && !slices.Contains(a.Cipher, "des") {
		a.Cipher = append(a.Cipher, "des")
	}
	if a.MinRSABits < legacyMinRSABits || a.MinRSABits > maxMinRSABits {
		return fmt.Errorf("algorithms min_rsa_bits: must be from %d to %d", legacyMinRSABits, maxMinRSABits)
	}
	return nil
}

// checkWords wants each word to be known, and once.
func checkWords(option string, words, known, never []string) error {
	for i, word := range words {
		switch {
		case slices.Contains(never, word):
			return fmt.Errorf("%s: %s is never accepted", option, word)
		case !slices.Contains(known, word):
			return fmt.Errorf("%s: unknown word %q; known: %s", option, word, strings.Join(known, " "))
		case slices.Contains(words[:i], word):
			return fmt.Errorf("%s: %s stands twice", option, word)
		}
	}
	return nil
}

func (p *Profile) normalizeDefaults() error {
	if p.Defaults == nil {
		p.Defaults = new(Defaults)
	}
	d := p.Defaults
	if len(d.KeyUsage) == 0 {
		d.KeyUsage = []string{"digitalSignature", "keyEncipherment"}
	}
	if err := gate.CheckKeyUsage(d.KeyUsage); err != nil {
		return fmt.Errorf("defaults key_usage: %w", err)
	}
	if gate.TemplateKind(d.KeyUsage) == "" {
		return errors.New("defaults key_usage: NDES selects no template by it; needs digitalSignature (and nonRepudiation), keyEncipherment (and dataEncipherment), or both")
	}
	if len(d.ExtKeyUsage) == 0 {
		d.ExtKeyUsage = []string{"clientAuth"}
	}
	_, err := oidsOf("defaults ext_key_usage", d.ExtKeyUsage, gate.ExtKeyUsageOID)
	return err
}

func (p *Profile) normalizeTemplates(expand func(string, *string) error) error {
	if p.Templates == nil {
		return nil
	}
	kinds := map[string]*Template{
		"signature": p.Templates.Signature, "encryption": p.Templates.Encryption, "general_purpose": p.Templates.GeneralPurpose,
	}
	var configured int
	for _, kind := range []string{"signature", "encryption", "general_purpose"} {
		t := kinds[kind]
		if t == nil {
			continue
		}
		configured++
		option := "templates " + kind + " "
		if err := expand(option+"name", &t.Name); err != nil {
			return err
		}
		if t.OID == "" {
			continue
		}
		if err := expand(option+"oid", &t.OID); err != nil {
			return err
		}
		if !gate.IsOID(t.OID) {
			return fmt.Errorf("%soid: %q is not an object identifier", option, t.OID)
		}
	}
	if configured == 0 {
		return errors.New("templates: none is configured")
	}
	if kind := gate.TemplateKind(p.Defaults.KeyUsage); kinds[kind] == nil {
		return fmt.Errorf("templates: the key usage of defaults selects the %s template, which is not configured", kind)
	}
	return nil
}

func (p *Profile) normalizePolicy() error {
	if err := checkWords("allow", p.Allow, []string{allowPatterns}, nil); err != nil {
		return err
	}
	if p.MaxMismatches == nil {
		n := defaultMaxMismatches
		p.MaxMismatches = &n
	}
	if *p.MaxMismatches < 1 || *p.MaxMismatches > maxMaxMismatches {
		return fmt.Errorf("max_mismatches: must be from 1 to %d", maxMaxMismatches)
	}
	return nil
}

func (p *Profile) normalizeLife() error {
	if p.RetryWindow == nil {
		window := caddy.Duration(defaultRetryWindow)
		p.RetryWindow = &window
	}
	if err := checkRetryWindow(time.Duration(*p.RetryWindow)); err != nil {
		return err
	}
	if p.InDoubtRelease == 0 {
		return nil
	}
	return checkInDoubtRelease(time.Duration(p.InDoubtRelease))
}

func checkRetryWindow(d time.Duration) error {
	if d < 0 || d > maxRetryWindow {
		return errors.New("retry_window: must be from 0s to 24h")
	}
	return nil
}

func checkInDoubtRelease(d time.Duration) error {
	if d < minInDoubtRelease {
		return errors.New("in_doubt_release: must be off, or at least 5m")
	}
	return nil
}

// normalizeMode wants enforcing to be asked for with everything it needs.
func (p *Profile) normalizeMode(now time.Time, warnings []string) ([]string, error) {
	if p.Mode == nil {
		p.Mode = &Mode{Kind: modeEnforce}
	}
	switch p.Mode.Kind {
	case modeEnforce:
		if p.Mode.Until != "" {
			return nil, errors.New("mode enforce: takes no date")
		}
		if p.Renewal == nil {
			return nil, errors.New("renewal: must be written (renewal off, or a block) before mode enforce")
		}
		return warnings, nil
	case modeObserve:
	default:
		return nil, fmt.Errorf("mode: unknown mode %q", p.Mode.Kind)
	}
	until, err := parseUntil(p.Mode.Until)
	if err != nil {
		return nil, fmt.Errorf("mode observe until: %w", err)
	}
	if !now.Before(until) {
		warnings = append(warnings, fmt.Sprintf("mode observe: ended %s; decisions are enforced", until.Format(time.RFC3339)))
	}
	return warnings, nil
}

// parseUntil reads a time, or the first moment of a day (UTC).
func parseUntil(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a date (2006-01-02) nor a time in RFC 3339", s)
}

// observeUntil is when observing ends; zero: enforce.
func (p *Profile) observeUntil() time.Time {
	if p.Mode == nil || p.Mode.Kind != modeObserve {
		return time.Time{}
	}
	until, err := parseUntil(p.Mode.Until)
	if err != nil {
		return time.Time{} // whatever cannot be read enforces
	}
	return until
}

// allowsPatterns reports whether values may be other than exact.
func (p *Profile) allowsPatterns() bool { return slices.Contains(p.Allow, allowPatterns) }

// paths lists every file that the profile names.
func (p *Profile) paths() []string {
	paths := []string{p.Challenge.PasswordFile, p.Refusal.Certificate, p.Refusal.Key}
	for _, ra := range p.RA {
		paths = append(paths, ra.Certificate, ra.Key, ra.PasswordFile)
	}
	paths = slices.Concat(paths, p.CACertificate, p.RASigningCertificate, p.Renewal.crlFiles())
	return slices.DeleteFunc(paths, func(path string) bool { return path == "" })
}

func expandAll(expand func(string, *string) error, option string, values []string) error {
	for i := range values {
		if err := expand(option, &values[i]); err != nil {
			return err
		}
	}
	return nil
}

// expandPlaceholder expands {env.…} and {file.…}. Nothing may come out empty: an
// address or file that is not there must not become another one.
func expandPlaceholder(option string, value *string) error {
	expanded, err := caddy.NewReplacer().ReplaceOrErr(*value, true, true)
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	if strings.TrimSpace(expanded) == "" {
		return fmt.Errorf("%s: is empty", option)
	}
	*value = expanded
	return nil
}
