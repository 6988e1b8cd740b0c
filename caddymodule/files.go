package caddymodule

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

// maxFileSize bounds what is read from a configured file. A chain of fifty
// certificates fits ten times.
const maxFileSize = 1 << 20

// maxStaticPassword bounds NDES's password (contract §4.1, challenge).
const maxStaticPassword = 8192

// oidEnrollmentAgent is Microsoft's Certificate Request Agent.
var oidEnrollmentAgent = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}

// material is what a profile's files hold, read and checked, before anything is
// compiled from it.
type material struct {
	cas, pins []*x509.Certificate
	ras       []raIdentity
	refusal   *refusalIdentity
	crls      []*crl // those that are files
	password  string // ndes_static
	warnings  []string
}

// readMaterial reads every file of p. It writes nothing, and holds nothing open.
func readMaterial(p *Profile, now time.Time) (*material, error) {
	m := new(material)
	for _, step := range []func(*Profile, time.Time) error{m.readCAs, m.readRAs, m.readPins, m.readRefusal, m.readCRLs, m.readPassword} {
		if err := step(p, now); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *material) warn(format string, args ...any) {
	m.warnings = append(m.warnings, fmt.Sprintf(format, args...))
}

func (m *material) readCAs(p *Profile, now time.Time) error {
	for _, path := range p.CACertificate {
		certificates, err := readCertificates("ca_certificate", path)
		if err != nil {
			return err
		}
		for _, c := range certificates {
			if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
				return fmt.Errorf("ca_certificate: %s: %q is not the certificate of a CA", path, c.Subject)
			}
			if slices.ContainsFunc(m.cas, c.Equal) {
				m.warn("ca_certificate: %s: %q is listed twice", path, c.Subject)
				continue
			}
			m.warnValidity("ca_certificate", path, c, now)
			m.cas = append(m.cas, c)
		}
	}
	return nil
}

func (m *material) readRAs(p *Profile, now time.Time) error {
	for _, ra := range p.RA {
		option := "ra " + ra.Name
		certificate, key, err := m.readIdentity(option, ra.Certificate, ra.Key, ra.PasswordFile)
		if err != nil {
			return err
		}
		// Devices encrypt the content key to it (RFC 8894 §3.1).
		if certificate.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
			return fmt.Errorf("%s certificate: %s: lacks the key usage keyEncipherment; it is not NDES's encryption certificate", option, ra.Certificate)
		}
		for _, other := range m.ras {
			if other.certificate.Equal(certificate) {
				return fmt.Errorf("%s certificate: %s: is the certificate of ra %s as well", option, ra.Certificate, other.name)
			}
		}
		m.warnRA(option+" certificate", ra.Certificate, certificate, now)
		m.ras = append(m.ras, raIdentity{name: ra.Name, certificate: certificate, key: key, upstream: ra.Upstream})
	}
	return nil
}

func (m *material) warnRA(option, path string, c *x509.Certificate, now time.Time) {
	m.warnValidity(option, path, c, now)
	// threat F02: whoever steals this key could request certificates on behalf of others.
	if slices.ContainsFunc(c.UnknownExtKeyUsage, oidEnrollmentAgent.Equal) {
		m.warn("%s: %s: is an enrollment agent's; whoever has its key may enroll for anybody: use an RA template without that usage, and restrict enrollment agents on the CA", option, path)
	}
	if !slices.ContainsFunc(m.cas, func(ca *x509.Certificate) bool { return c.Equal(ca) || issued(ca, c) }) {
		m.warn("%s: %s: was not issued by a ca_certificate", option, path)
	}
}

// issued reports whether ca's key signed c. Old digests, which crypto/x509 does
// not verify, are believed by name: this only decides about a warning.
func issued(ca, c *x509.Certificate) bool {
	err := c.CheckSignatureFrom(ca)
	var old x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &old) && bytes.Equal(c.RawIssuer, ca.RawSubject)
}

func (m *material) warnValidity(option, path string, c *x509.Certificate, now time.Time) {
	switch {
	case now.After(c.NotAfter):
		m.warn("%s: %s: %q expired %s", option, path, c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		m.warn("%s: %s: %q is not valid before %s", option, path, c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
}

func (m *material) readPins(p *Profile, now time.Time) error {
	for _, path := range p.RASigningCertificate {
		certificates, err := readCertificates("ra_signing_certificate", path)
		if err != nil {
			return err
		}
		for _, c := range certificates {
			if slices.ContainsFunc(m.pins, c.Equal) {
				continue
			}
			m.warnValidity("ra_signing_certificate", path, c, now)
			m.pins = append(m.pins, c)
		}
	}
	return nil
}

func (m *material) readRefusal(p *Profile, now time.Time) error {
	r := p.Refusal
	if r.Kind != refusalSigned {
		return nil
	}
	option, path := "refusal signed", r.Certificate
	if path == "" {
		first := m.ras[0]
		m.refusal = &refusalIdentity{certificate: first.certificate, key: first.key.(*rsa.PrivateKey)}
		option, path = "ra "+first.name+" certificate", p.RA[0].Certificate
	} else {
		certificate, key, err := m.readIdentity(option, r.Certificate, r.Key, "")
		if err != nil {
			return err
		}
		m.warnValidity(option, path, certificate, now)
		m.refusal = &refusalIdentity{certificate: certificate, key: key}
	}
	if m.refusal.certificate.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		m.warn("%s: %s: signs refusals but lacks the key usage digitalSignature; some clients will not believe them: configure refusal signed <certificate> <key>", option, path)
	}
	return nil
}

// readCRLs reads the CRLs that are files. One that has ended loads, so that the
// gateway can start and say 503 until there is a newer one.
func (m *material) readCRLs(p *Profile, now time.Time) error {
	const option = "renewal crl"
	for _, path := range p.Renewal.crlFiles() {
		raw, _, err := readUpTo(maxCRLSize, option, path)
		if err != nil {
			return err
		}
		l, err := parseCRL(path, raw, m.cas, now)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", option, path, err)
		}
		if !l.current(now) {
			m.warn("%s: %s: expired %s; messages are answered with 503 until there is a newer one", option, path, l.nextUpdate.UTC().Format(time.RFC3339))
		}
		m.crls = append(m.crls, l)
	}
	return nil
}

func (m *material) readPassword(p *Profile, _ time.Time) error {
	if p.Challenge.Source != string(gate.SourceNDESStatic) {
		return nil
	}
	const option = "challenge password_file"
	raw, warning, err := readSecretFile(option, p.Challenge.PasswordFile)
	if err != nil {
		return err
	}
	m.addWarning(warning)
	password := trimLineEnd(raw)
	if len(password) == 0 || len(password) > maxStaticPassword {
		return fmt.Errorf("%s: %s: must hold 1 to %d characters", option, p.Challenge.PasswordFile, maxStaticPassword)
	}
	for _, c := range password {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("%s: %s: holds other than one line of printable ASCII", option, p.Challenge.PasswordFile)
		}
	}
	m.password = string(password)
	return nil
}

func (m *material) addWarning(warning string) {
	if warning != "" && !slices.Contains(m.warnings, warning) {
		m.warnings = append(m.warnings, warning)
	}
}

// readIdentity reads a certificate and the RSA key that fits it, from two files
// or from one PKCS#12 file that is named twice.
func (m *material) readIdentity(option, certificatePath, keyPath, passwordPath string) (*x509.Certificate, *rsa.PrivateKey, error) {
	var password *string
	if passwordPath != "" {
		raw, warning, err := readSecretFile(option+" password_file", passwordPath)
		if err != nil {
			return nil, nil, err
		}
		m.addWarning(warning)
		s := string(trimLineEnd(raw))
		password = &s
	}
	raw, warning, err := readSecretFile(option+" key", keyPath)
	if err != nil {
		return nil, nil, err
	}
	m.addWarning(warning)
	key, keyPFX, err := parseKey(raw, password)
	if err != nil {
		return nil, nil, fmt.Errorf("%s key: %s: %w", option, keyPath, err)
	}
	if raw, err = readFile(option+" certificate", certificatePath); err != nil {
		return nil, nil, err
	}
	certificates, certificatePFX, err := parseCertificates(raw, password)
	if err != nil {
		return nil, nil, fmt.Errorf("%s certificate: %s: %w", option, certificatePath, err)
	}
	if certificatePFX {
		// It holds the key too (threat F03).
		if _, warning, err = readSecretFile(option+" certificate", certificatePath); err != nil {
			return nil, nil, err
		}
		m.addWarning(warning)
	}
	if password != nil && !keyPFX && !certificatePFX {
		return nil, nil, fmt.Errorf("%s password_file: %s: is for a PKCS#12 file, and neither %s nor %s is one", option, passwordPath, keyPath, certificatePath)
	}
	certificate := certificates[0]
	public, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s certificate: %s: its key is not RSA", option, certificatePath)
	}
	if !public.Equal(key.Public()) {
		return nil, nil, fmt.Errorf("%s key: %s: does not fit the certificate %s", option, keyPath, certificatePath)
	}
	return certificate, key, nil
}

// parseKey reads an RSA key. password is for PKCS#12; nil is an empty one.
func parseKey(raw []byte, password *string) (key *rsa.PrivateKey, isPFX bool, err error) {
	der := raw
	if isPEM(raw) {
		block, err := findKeyBlock(raw)
		if err != nil {
			return nil, false, err
		}
		der = block.Bytes
	}
	var parsed any
	if parsed, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(der); err == nil {
			parsed = key
		} else if ec, ecErr := x509.ParseECPrivateKey(der); ecErr == nil {
			parsed = ec
		} else if !isPEM(raw) {
			pfx, pfxErr := decodePFX(raw, password)
			if pfxErr != nil {
				return nil, false, pfxErr
			}
			parsed, isPFX = pfx.key, true
		} else {
			return nil, false, errors.New("holds no private key that can be read")
		}
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, false, errors.New("is not an RSA key")
	}
	if err := key.Validate(); err != nil {
		return nil, false, fmt.Errorf("is not a valid RSA key: %w", err)
	}
	return key, isPFX, nil
}

func isPEM(raw []byte) bool { return bytes.Contains(raw, []byte("-----BEGIN ")) }

// findKeyBlock gives the first private key of a PEM file, which may hold
// certificates before it.
func findKeyBlock(raw []byte) (*pem.Block, error) {
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return nil, errors.New("holds no private key")
		}
		switch block.Type {
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("is an encrypted PEM key, which is not read; convert it to PKCS#12")
		case "RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("is an encrypted PEM key, which is not read; convert it to PKCS#12")
			}
			return block, nil
		}
	}
}

// parseCertificates reads one or more certificates.
func parseCertificates(raw []byte, password *string) (certificates []*x509.Certificate, isPFX bool, err error) {
	if !isPEM(raw) {
		if certificates, err = x509.ParseCertificates(raw); err == nil && len(certificates) > 0 {
			return certificates, false, nil
		}
		if pfx, pfxErr := decodePFX(raw, password); pfxErr == nil {
			return []*x509.Certificate{pfx.certificate}, true, nil
		} else if errors.Is(pfxErr, pkcs12.ErrIncorrectPassword) {
			return nil, false, pfxErr
		}
		return nil, false, errors.New("holds no certificate that can be read")
	}
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, false, err
		}
		certificates = append(certificates, c)
	}
	if len(certificates) == 0 {
		return nil, false, errors.New("holds no certificate")
	}
	return certificates, false, nil
}

func readCertificates(option, path string) ([]*x509.Certificate, error) {
	raw, err := readFile(option, path)
	if err != nil {
		return nil, err
	}
	certificates, isPFX, err := parseCertificates(raw, nil)
	if err == nil && isPFX {
		err = errors.New("is a PKCS#12 file; export the certificate alone")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", option, path, err)
	}
	return certificates, nil
}

type pfxContent struct {
	key         any
	certificate *x509.Certificate
}

// decodePFX reads a PKCS#12 file with one key. A library that panics on an odd
// file must not take the server with it on a reload.
func decodePFX(raw []byte, password *string) (content pfxContent, err error) {
	defer func() {
		if recover() != nil {
			content, err = pfxContent{}, errors.New("is not a PKCS#12 file that can be read")
		}
	}()
	var word string
	if password != nil {
		word = *password
	}
	key, certificate, _, err := pkcs12.DecodeChain(raw, word)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == nil:
		return pfxContent{}, fmt.Errorf("password_file is missing: %w", err)
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return pfxContent{}, err
	case err != nil:
		return pfxContent{}, fmt.Errorf("is not a PEM, DER or PKCS#12 file that can be read: %w", err)
	}
	return pfxContent{key: key, certificate: certificate}, nil
}

// readSecretFile reads a file that holds a secret, which not everybody may read
// (threat F03). The warning is for a group that may.
func readSecretFile(option, path string) (raw []byte, warning string, err error) {
	raw, mode, err := readBounded(option, path)
	if err != nil {
		return nil, "", err
	}
	if runtime.GOOS == "windows" {
		return raw, "", nil // has no such modes
	}
	if mode.Perm()&0o007 != 0 {
		return nil, "", fmt.Errorf("%s: %s: is open to everybody (mode %04o); make it 0600", option, path, mode.Perm())
	}
	if mode.Perm()&0o070 != 0 {
		warning = fmt.Sprintf("%s: %s: is open to its group (mode %04o); 0600 is better", option, path, mode.Perm())
	}
	return raw, warning, nil
}

func readFile(option, path string) ([]byte, error) {
	raw, _, err := readBounded(option, path)
	return raw, err
}

// maxShownPath is the longest name of a missing file that an error quotes. No
// RSA key is that short.
const maxShownPath = 255

func readBounded(option, path string) ([]byte, os.FileMode, error) {
	return readUpTo(maxFileSize, option, path)
}

// readUpTo reads a regular file: a pipe would stop the server.
func readUpTo(limit int64, option, path string) ([]byte, os.FileMode, error) {
	if path == "" {
		return nil, 0, fmt.Errorf("%s: no file is named", option)
	}
	info, err := os.Stat(path)
	if err != nil && len(path) > maxShownPath {
		// Somebody may have put the key itself where its file's name belongs. threat F03
		return nil, 0, fmt.Errorf("%s: no such file; a name of %d characters is not shown", option, len(path))
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", path)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", option, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", option, err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", option, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s: is larger than %d bytes", path, limit)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", option, err)
	}
	return raw, info.Mode(), nil
}

// compile makes the gate and the opener of a profile, and proves that every key
// works.
func (m *material) compile(r *running, h *gate.Hasher, constraints func(owner string) (*gate.Constraints, bool), now func() time.Time) (*profileFiles, error) {
	p := r.config
	usages, err := oidsOf("defaults ext_key_usage", p.Defaults.ExtKeyUsage, gate.ExtKeyUsageOID)
	if err != nil {
		return nil, err
	}
	crls := m.revocation(r, now)
	renewal, err := p.Renewal.compile(crls)
	if err != nil {
		return nil, err
	}
	profile := gate.Profile{
		Name:           r.name,
		Source:         gate.Source(p.Challenge.Source),
		DefaultTTL:     time.Duration(p.Challenge.TTL),
		StaticPassword: m.password,
		CAs:            m.cas,
		KeyUsage:       p.Defaults.KeyUsage,
		ExtKeyUsage:    usages,
		Digests:        p.Algorithms.Digest,
		Ciphers:        p.Algorithms.Cipher,
		MinRSABits:     p.Algorithms.MinRSABits,
		AllowPatterns:  p.allowsPatterns(),
		MaxMismatches:  *p.MaxMismatches,
		ObserveUntil:   p.observeUntil(),
		RetryWindow:    time.Duration(*p.RetryWindow),
		InDoubtRelease: time.Duration(p.InDoubtRelease),
		Renewal:        renewal,
		Constraints:    constraints,
	}
	if t := p.Templates; t != nil {
		profile.Templates = gate.Templates{
			Signature: t.Signature.compile(), Encryption: t.Encryption.compile(), GeneralPurpose: t.GeneralPurpose.compile(),
		}
	}
	keys := make([]inspector.RAKey, 0, len(m.ras))
	for _, ra := range m.ras {
		profile.RAs = append(profile.RAs, ra.certificate)
		keys = append(keys, inspector.RAKey{Name: ra.name, Certificate: ra.certificate, Key: ra.key})
	}
	g, err := gate.New(profile, h, r.matchers, now)
	if err != nil {
		return nil, err
	}
	opener, err := inspector.NewOpener(keys, h.SubstituteSecret())
	if err != nil {
		return nil, fmt.Errorf("ra: %w", err)
	}
	if err := opener.SelfTest(); err != nil {
		return nil, fmt.Errorf("ra: key self-test: %w", err)
	}
	refusal := m.refusal
	if refusal != nil {
		refusal = &refusalIdentity{certificate: refusal.certificate, key: refusal.key, secret: h.RefusalSecret()}
	}
	return &profileFiles{gate: g, opener: opener, cas: m.cas, ras: m.ras, pins: m.pins, refusal: refusal, crls: crls}, nil
}

// revocation joins the CRLs that were read with those that are fetched.
func (m *material) revocation(r *running, now func() time.Time) *revocation {
	if r.config.Renewal.off() || len(r.config.Renewal.CRL) == 0 {
		return nil
	}
	return &revocation{cas: m.cas, read: m.crls, fetched: r.fetcher.fetched(), now: now}
}

func (t *Template) compile() *gate.Template {
	if t == nil {
		return nil
	}
	return &gate.Template{Name: t.Name, OID: t.OID}
}
