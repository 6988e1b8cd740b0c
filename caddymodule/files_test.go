package caddymodule

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// readProfile normalizes p and reads its files.
func readProfile(p *Profile) (*material, error) {
	if _, err := p.normalize(expandPlaceholder, time.Now()); err != nil {
		return nil, err
	}
	return readMaterial(p, time.Now())
}

func TestCertificatesAndKeysAreReadInEveryFormat(t *testing.T) {
	s := newSite(t)
	pfx, err := pkcs12.Modern.Encode(siteRAKey(), s.ra, []*x509.Certificate{s.ca}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	legacyPFX, err := pkcs12.LegacyDES.Encode(siteRAKey(), s.ra, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	barePFX, err := pkcs12.Modern.Encode(siteRAKey(), s.ra, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(siteRAKey())
	for name, test := range map[string]struct {
		certificate, key []byte
		password         string
	}{
		"PEM and PKCS#8":                  {certificate: pemOf(s.ra), key: pemOfKey(t, siteRAKey())},
		"PEM and PKCS#1":                  {certificate: pemOf(s.ra), key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: pkcs1})},
		"DER and PKCS#8":                  {certificate: s.ra.Raw, key: pkcs8Of(t, siteRAKey())},
		"DER and PKCS#1":                  {certificate: s.ra.Raw, key: pkcs1},
		"a key after its certificate":     {certificate: pemOf(s.ra), key: append(pemOf(s.ra), pemOfKey(t, siteRAKey())...)},
		"the first certificate of two":    {certificate: append(pemOf(s.ra), pemOf(s.ca)...), key: pemOfKey(t, siteRAKey())},
		"a PKCS#12 file for the key":      {certificate: pemOf(s.ra), key: pfx, password: "secret\n"},
		"a PKCS#12 file for both":         {certificate: pfx, key: pfx, password: "secret"},
		"a PKCS#12 file as Windows made":  {certificate: legacyPFX, key: legacyPFX, password: "secret\r\n"},
		"a PKCS#12 file without password": {certificate: barePFX, key: barePFX},
	} {
		t.Run(name, func(t *testing.T) {
			s.write(t, "ra.crt", test.certificate, 0o600)
			s.write(t, "ra.key", test.key, 0o600)
			p := s.profile()
			if test.password != "" {
				p.RA[0].PasswordFile = s.write(t, "ra.password", []byte(test.password), 0o600)
			}
			m, err := readProfile(p)
			if err != nil {
				t.Fatal(err)
			}
			if !m.ras[0].certificate.Equal(s.ra) || !siteRAKey().Equal(m.ras[0].key) {
				t.Error("another certificate or key was read")
			}
			if m.refusal == nil || !m.refusal.certificate.Equal(s.ra) {
				t.Error("refusals are not signed by the first RA")
			}
			if len(m.warnings) != 0 {
				t.Errorf("warnings: %q", m.warnings)
			}
		})
	}
}

func TestSeveralCACertificatesAreReadFromOneFile(t *testing.T) {
	s := newSite(t)
	second := issueCertificate(t, &x509.Certificate{Subject: commonName("Root"), IsCA: true, BasicConstraintsValid: true}, nil, strangerKey().Public(), strangerKey())
	s.write(t, "ca.crt", append(pemOf(s.ca), pemOf(second)...), 0o644)
	m, err := readProfile(s.profile())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.cas) != 2 || !m.cas[1].Equal(second) {
		t.Errorf("read %d CA certificates", len(m.cas))
	}
}

func TestUnusableFilesAreRefusedByName(t *testing.T) {
	pfx := func(t *testing.T, s *site) []byte {
		raw, err := pkcs12.Modern.Encode(siteRAKey(), s.ra, nil, "secret")
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	tests := map[string]struct {
		change func(t *testing.T, s *site, p *Profile)
		want   []string // all in the error
		unix   bool
	}{
		"a missing certificate": {
			change: func(t *testing.T, s *site, p *Profile) { os.Remove(s.path("ra.crt")) },
			want:   []string{"ra ndes1 certificate", "ra.crt", "no such file"}, unix: true,
		},
		"a key that does not fit its certificate": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.key", pemOfKey(t, strangerKey()), 0o600) },
			want:   []string{"ra ndes1 key", "ra.key", "does not fit", "ra.crt"},
		},
		"a key open to everybody": {
			change: func(t *testing.T, s *site, p *Profile) { os.Chmod(s.path("ra.key"), 0o604) },
			want:   []string{"ra ndes1 key", "ra.key", "open to everybody", "0604"}, unix: true,
		},
		"a PKCS#12 certificate open to everybody": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pfx(t, s), 0o644)
				s.write(t, "ra.key", pfx(t, s), 0o600)
				p.RA[0].PasswordFile = s.write(t, "ra.password", []byte("secret"), 0o600)
			},
			want: []string{"ra ndes1 certificate", "ra.crt", "open to everybody"}, unix: true,
		},
		"a password file open to everybody": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.key", pfx(t, s), 0o600)
				p.RA[0].PasswordFile = s.write(t, "ra.password", []byte("secret"), 0o644)
			},
			want: []string{"ra ndes1 password_file", "ra.password", "open to everybody"}, unix: true,
		},
		"a wrong PKCS#12 password": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.key", pfx(t, s), 0o600)
				p.RA[0].PasswordFile = s.write(t, "ra.password", []byte("wrong"), 0o600)
			},
			want: []string{"ra ndes1 key", "ra.key", "password incorrect"},
		},
		"a PKCS#12 file without its password": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.key", pfx(t, s), 0o600) },
			want:   []string{"ra ndes1 key", "ra.key", "password_file is missing"},
		},
		"a password for a file that needs none": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.RA[0].PasswordFile = s.write(t, "ra.password", []byte("secret"), 0o600)
			},
			want: []string{"ra ndes1 password_file", "ra.password", "PKCS#12"},
		},
		"an encrypted PEM key": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), 0o600)
			},
			want: []string{"ra ndes1 key", "ra.key", "encrypted PEM"},
		},
		"an old encrypted PEM key": {
			change: func(t *testing.T, s *site, p *Profile) {
				block := &pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "DES-EDE3-CBC,00"}, Bytes: []byte("x")}
				s.write(t, "ra.key", pem.EncodeToMemory(block), 0o600)
			},
			want: []string{"ra ndes1 key", "ra.key", "encrypted PEM"},
		},
		"an elliptic curve key": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.key", pemOfKey(t, curveKey()), 0o600) },
			want:   []string{"ra ndes1 key", "ra.key", "not an RSA key"},
		},
		"an elliptic curve certificate": {
			change: func(t *testing.T, s *site, p *Profile) {
				c := issueCertificate(t, &x509.Certificate{Subject: commonName("RA"), KeyUsage: x509.KeyUsageKeyEncipherment}, s.ca, curveKey().Public(), siteCAKey())
				s.write(t, "ra.crt", pemOf(c), 0o644)
			},
			want: []string{"ra ndes1 certificate", "ra.crt", "not RSA"},
		},
		"a key file that holds a certificate": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.key", pemOf(s.ra), 0o600) },
			want:   []string{"ra ndes1 key", "ra.key", "no private key"},
		},
		"a key file that holds noise": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.key", []byte("0\x80noise"), 0o600) },
			want:   []string{"ra ndes1 key", "ra.key"},
		},
		"an empty certificate file": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.crt", nil, 0o644) },
			want:   []string{"ra ndes1 certificate", "ra.crt", "no certificate"},
		},
		"a certificate file of endless size": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ra.crt", make([]byte, maxFileSize+1), 0o644) },
			want:   []string{"ra ndes1 certificate", "ra.crt", "larger than"},
		},
		"a folder instead of a file": {
			change: func(t *testing.T, s *site, p *Profile) { p.RA[0].Certificate = s.dir },
			want:   []string{"ra ndes1 certificate", "not a regular file"},
		},
		"an RA certificate without keyEncipherment": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })), 0o644)
			},
			want: []string{"ra ndes1 certificate", "ra.crt", "keyEncipherment"},
		},
		"an RA certificate without key usage": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, func(c *x509.Certificate) { c.KeyUsage = 0 })), 0o644)
			},
			want: []string{"ra ndes1 certificate", "ra.crt", "keyEncipherment"},
		},
		"one RA certificate in two blocks": {
			change: func(t *testing.T, s *site, p *Profile) {
				again := *p.RA[0]
				again.Name = "ndes2"
				p.RA = append(p.RA, &again)
			},
			want: []string{"ra ndes2 certificate", "ra.crt", "ra ndes1"},
		},
		"a CA certificate that is not a CA's": {
			change: func(t *testing.T, s *site, p *Profile) { s.write(t, "ca.crt", pemOf(s.ra), 0o644) },
			want:   []string{"ca_certificate", "ca.crt", "not the certificate of a CA"},
		},
		"a CA certificate that may not sign": {
			change: func(t *testing.T, s *site, p *Profile) {
				c := issueCertificate(t, &x509.Certificate{Subject: commonName("CA"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign}, nil, siteCAKey().Public(), siteCAKey())
				s.write(t, "ca.crt", pemOf(c), 0o644)
			},
			want: []string{"ca_certificate", "ca.crt", "not the certificate of a CA"},
		},
		"a PKCS#12 file as CA certificate": {
			change: func(t *testing.T, s *site, p *Profile) {
				raw, err := pkcs12.Modern.Encode(siteRAKey(), s.ra, nil, "")
				if err != nil {
					t.Fatal(err)
				}
				s.write(t, "ca.crt", raw, 0o644)
			},
			want: []string{"ca_certificate", "ca.crt", "PKCS#12"},
		},
		"a missing pin": {
			change: func(t *testing.T, s *site, p *Profile) { p.RASigningCertificate = []string{s.path("gone.crt")} },
			want:   []string{"ra_signing_certificate", "gone.crt"},
		},
		"a refusal key that does not fit": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.Refusal = &Refusal{Kind: "signed", Certificate: s.path("ra.crt"), Key: s.write(t, "refusal.key", pemOfKey(t, strangerKey()), 0o600)}
			},
			want: []string{"refusal signed key", "refusal.key", "does not fit"},
		},
		"an empty static password": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.Challenge = &Challenge{Source: "ndes_static", PasswordFile: s.write(t, "static", []byte("\n"), 0o600)}
			},
			want: []string{"challenge password_file", "static", "1 to 8192"},
		},
		"a static password that is too long": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.Challenge = &Challenge{Source: "ndes_static", PasswordFile: s.write(t, "static", bytes.Repeat([]byte("x"), 8193), 0o600)}
			},
			want: []string{"challenge password_file", "static", "1 to 8192"},
		},
		"a static password of two lines": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.Challenge = &Challenge{Source: "ndes_static", PasswordFile: s.write(t, "static", []byte("one\ntwo\n"), 0o600)}
			},
			want: []string{"challenge password_file", "static", "printable ASCII"},
		},
		"a static password open to everybody": {
			change: func(t *testing.T, s *site, p *Profile) {
				p.Challenge = &Challenge{Source: "ndes_static", PasswordFile: s.write(t, "static", []byte("password"), 0o644)}
			},
			want: []string{"challenge password_file", "static", "open to everybody"}, unix: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.unix && runtime.GOOS == "windows" {
				t.Skip("Windows has no such modes")
			}
			s := newSite(t)
			p := s.profile()
			test.change(t, s, p)
			m, err := readProfile(p)
			if err == nil {
				t.Fatal("was accepted")
			}
			if m != nil {
				t.Error("something was returned beside the error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("holds a secret: %v", err)
			}
		})
	}
}

func TestTheStaticPasswordLosesOneLineEnd(t *testing.T) {
	s := newSite(t)
	for content, want := range map[string]string{
		"pass word": "pass word", "password\n": "password", "password\r\n": "password", " password ": " password ", "x": "x",
	} {
		p := s.profile()
		p.Challenge = &Challenge{Source: "ndes_static", PasswordFile: s.write(t, "static", []byte(content), 0o600)}
		m, err := readProfile(p)
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		if m.password != want {
			t.Errorf("%q was read as %q", content, m.password)
		}
	}
}

func TestDoubtfulFilesAreWarnedAbout(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, s *site, p *Profile)
		want   []string
		unix   bool
	}{
		"an enrollment agent": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, enrollmentAgent)), 0o644)
			},
			want: []string{"ra ndes1 certificate", "enrollment agent"},
		},
		"an expired RA": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, func(c *x509.Certificate) {
					c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
				})), 0o644)
			},
			want: []string{"ra ndes1 certificate", "expired"},
		},
		"an RA of tomorrow": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), 0o644)
			},
			want: []string{"ra ndes1 certificate", "not valid before"},
		},
		"an RA of another CA": {
			change: func(t *testing.T, s *site, p *Profile) {
				c := issueCertificate(t, &x509.Certificate{Subject: commonName("RA"), KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature}, nil, siteRAKey().Public(), siteRAKey())
				s.write(t, "ra.crt", pemOf(c), 0o644)
			},
			want: []string{"ra ndes1 certificate", "not issued by a ca_certificate"},
		},
		"an RA that signs refusals and may not sign": {
			change: func(t *testing.T, s *site, p *Profile) {
				s.write(t, "ra.crt", pemOf(newSiteRA(t, s.ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })), 0o644)
			},
			want: []string{"ra ndes1 certificate", "lacks the key usage digitalSignature"},
		},
		"a CA certificate listed twice": {
			change: func(t *testing.T, s *site, p *Profile) { p.CACertificate = append(p.CACertificate, p.CACertificate[0]) },
			want:   []string{"ca_certificate", "twice"},
		},
		"a key open to its group": {
			change: func(t *testing.T, s *site, p *Profile) { os.Chmod(s.path("ra.key"), 0o640) },
			want:   []string{"ra ndes1 key", "open to its group"}, unix: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.unix && runtime.GOOS == "windows" {
				t.Skip("Windows has no such modes")
			}
			s := newSite(t)
			p := s.profile()
			test.change(t, s, p)
			m, err := readProfile(p)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.warnings) != 1 {
				t.Fatalf("warnings: %q", m.warnings)
			}
			for _, want := range test.want {
				if !strings.Contains(m.warnings[0], want) {
					t.Errorf("%q is not in: %s", want, m.warnings[0])
				}
			}
		})
	}
}

func TestRefusalHTTP403NeedsNoIdentity(t *testing.T) {
	s := newSite(t)
	p := s.profile()
	p.Refusal = &Refusal{Kind: "http_403"}
	m, err := readProfile(p)
	if err != nil {
		t.Fatal(err)
	}
	if m.refusal != nil {
		t.Error("an identity was read")
	}
}

// FuzzParseFiles: no content of a key or certificate file panics, and nothing is
// returned beside an error.
func FuzzParseFiles(f *testing.F) {
	ca := newSiteCA(f)
	pfx, err := pkcs12.Modern.Encode(siteRAKey(), ca, nil, "")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{pemOf(ca), ca.Raw, pemOfKey(f, siteRAKey()), x509.MarshalPKCS1PrivateKey(siteRAKey()), pfx, []byte("-----BEGIN "), {0x30, 0x80}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if isPEM(raw) || len(raw) < 2 || raw[0] != 0x30 { // PKCS#12 key derivation may be made to take for ever
			if key, _, err := parseKey(raw, nil); (key == nil) != (err != nil) {
				t.Errorf("key %v with error %v", key != nil, err)
			}
			if certificates, _, err := parseCertificates(raw, nil); (len(certificates) == 0) != (err != nil) {
				t.Errorf("%d certificates with error %v", len(certificates), err)
			}
		}
	})
}
