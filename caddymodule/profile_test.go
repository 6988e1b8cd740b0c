package caddymodule

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
)

var configTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// smallProfile is complete, and names files that nobody reads here.
func smallProfile() *Profile {
	return &Profile{
		Challenge:     &Challenge{Source: "ndes_one_time"},
		RA:            []*RA{{Name: "ndes1", Certificate: "ra.crt", Key: "ra.key"}},
		CACertificate: []string{"ca.crt"},
		Renewal:       &Renewal{Mode: "off"},
	}
}

func TestWhatIsNotConfiguredHasItsDefault(t *testing.T) {
	three := 3
	p := smallProfile()
	warnings, err := p.normalize(expandPlaceholder, configTime)
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	want := smallProfile()
	want.Challenge.TTL = caddy.Duration(55 * time.Minute)
	want.Refusal = &Refusal{Kind: "signed"}
	want.Defaults = &Defaults{KeyUsage: []string{"digitalSignature", "keyEncipherment"}, ExtKeyUsage: []string{"clientAuth"}}
	want.Algorithms = &Algorithms{
		Digest: []string{"sha1", "sha256", "sha384", "sha512"}, Cipher: []string{"des3", "aes128", "aes256"}, MinRSABits: 2048,
	}
	want.MaxMismatches = &three
	want.RetryWindow = durationOf(20 * time.Minute)
	want.Mode = &Mode{Kind: "enforce"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for source, ttl := range map[string]time.Duration{"gateway": 24 * time.Hour, "ndes_static": 24 * time.Hour} {
		p := smallProfile()
		p.Challenge = &Challenge{Source: source}
		if source == "ndes_static" {
			p.Challenge.PasswordFile = "password"
		}
		if _, err := p.normalize(expandPlaceholder, configTime); err != nil || time.Duration(p.Challenge.TTL) != ttl {
			t.Errorf("%s: ttl %v, %v", source, time.Duration(p.Challenge.TTL), err)
		}
	}
}

func TestAlgorithmsLegacyAddsDESAndSmallerKeys(t *testing.T) {
	for name, test := range map[string]struct {
		configured, want Algorithms
	}{
		"alone":             {Algorithms{Legacy: true}, Algorithms{Cipher: []string{"des3", "aes128", "aes256", "des"}, MinRSABits: 1024}},
		"with a cipher":     {Algorithms{Legacy: true, Cipher: []string{"aes256"}}, Algorithms{Cipher: []string{"aes256", "des"}, MinRSABits: 1024}},
		"with a key size":   {Algorithms{Legacy: true, MinRSABits: 3072}, Algorithms{Cipher: []string{"des3", "aes128", "aes256", "des"}, MinRSABits: 3072}},
		"des without it":    {Algorithms{Cipher: []string{"des"}}, Algorithms{Cipher: []string{"des"}, MinRSABits: 2048}},
		"nothing but a key": {Algorithms{MinRSABits: 4096}, Algorithms{Cipher: []string{"des3", "aes128", "aes256"}, MinRSABits: 4096}},
	} {
		p := smallProfile()
		p.Algorithms = &test.configured
		if _, err := p.normalize(expandPlaceholder, configTime); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(p.Algorithms.Cipher, test.want.Cipher) || p.Algorithms.MinRSABits != test.want.MinRSABits {
			t.Errorf("%s: %+v", name, p.Algorithms)
		}
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	t.Setenv("SCEPGATE_TEST_EMPTY", "")
	zero, many := 0, 1001
	for name, test := range map[string]struct {
		change func(*Profile)
		want   string
	}{
		"no challenge":                       {func(p *Profile) { p.Challenge = nil }, "challenge"},
		"an unknown source":                  {func(p *Profile) { p.Challenge.Source = "radius" }, `unknown source "radius"`},
		"the source matcher":                 {func(p *Profile) { p.Challenge.Source = "matcher" }, "challenge matcher: no matcher decides challenge"},
		"a password that is not static":      {func(p *Profile) { p.Challenge.PasswordFile = "x" }, "challenge password_file"},
		"a static source without a password": {func(p *Profile) { p.Challenge.Source = "ndes_static" }, "challenge password_file: is empty"},
		"a negative ttl":                     {func(p *Profile) { p.Challenge.TTL = -1 }, "challenge ttl"},
		"a ttl of 31 days":                   {func(p *Profile) { p.Challenge.TTL = caddy.Duration(31 * 24 * time.Hour) }, "challenge ttl"},
		"no RA":                              {func(p *Profile) { p.RA = nil }, "ra:"},
		"a null RA":                          {func(p *Profile) { p.RA = []*RA{nil} }, "ra: is empty"},
		"an RA without a name":               {func(p *Profile) { p.RA[0].Name = "" }, "ra: name"},
		"two RAs of one name":                {func(p *Profile) { p.RA = append(p.RA, p.RA[0]) }, "ra ndes1: is configured twice"},
		"an RA without a certificate":        {func(p *Profile) { p.RA[0].Certificate = "" }, "ra ndes1 certificate: is empty"},
		"an RA without a key":                {func(p *Profile) { p.RA[0].Key = " " }, "ra ndes1 key: is empty"},
		"a key from an empty variable":       {func(p *Profile) { p.RA[0].Key = "{env.SCEPGATE_TEST_EMPTY}" }, "ra ndes1 key"},
		"an upstream from an unset variable": {func(p *Profile) { p.RA[0].Upstream = "{env.SCEPGATE_TEST_UNSET}" }, "ra ndes1 upstream"},
		"an upstream without a port":         {func(p *Profile) { p.RA[0].Upstream = "ndes" }, "ra ndes1 upstream"},
		"a placeholder of a request":         {func(p *Profile) { p.RA[0].Key = "{http.request.host}" }, "ra ndes1 key"},
		"no CA":                              {func(p *Profile) { p.CACertificate = nil }, "ca_certificate"},
		"an empty CA":                        {func(p *Profile) { p.CACertificate = []string{"a", ""} }, "ca_certificate: is empty"},
		"an empty pin":                       {func(p *Profile) { p.RASigningCertificate = []string{""} }, "ra_signing_certificate: is empty"},
		"an unknown refusal":                 {func(p *Profile) { p.Refusal = &Refusal{Kind: "silent"} }, "refusal"},
		"a refusal without a kind":           {func(p *Profile) { p.Refusal = &Refusal{} }, "refusal"},
		"a refusal without a key":            {func(p *Profile) { p.Refusal = &Refusal{Kind: "signed", Certificate: "a"} }, "refusal signed key: is empty"},
		"http_403 with a key":                {func(p *Profile) { p.Refusal = &Refusal{Kind: "http_403", Key: "a"} }, "refusal http_403"},
		"templates without any":              {func(p *Profile) { p.Templates = &Templates{} }, "templates"},
		"a template without a name":          {func(p *Profile) { p.Templates = &Templates{GeneralPurpose: &Template{}} }, "templates general_purpose name: is empty"},
		"a template OID that is none":        {func(p *Profile) { p.Templates = &Templates{GeneralPurpose: &Template{Name: "a", OID: "1.2.x"}} }, "templates general_purpose oid"},
		"templates that the defaults do not meet": {
			func(p *Profile) { p.Templates = &Templates{Signature: &Template{Name: "a"}} }, "general_purpose template, which is not configured",
		},
		"an unknown key usage":             {func(p *Profile) { p.Defaults = &Defaults{KeyUsage: []string{"sign"}} }, "defaults key_usage"},
		"keyCertSign":                      {func(p *Profile) { p.Defaults = &Defaults{KeyUsage: []string{"digitalSignature", "keyCertSign"}} }, "defaults key_usage: NDES selects no template by it"},
		"a key usage that selects nothing": {func(p *Profile) { p.Defaults = &Defaults{KeyUsage: []string{"keyAgreement"}} }, "selects no template"},
		"nonRepudiation alone":             {func(p *Profile) { p.Defaults = &Defaults{KeyUsage: []string{"nonRepudiation", "keyEncipherment"}} }, "selects no template"},
		"an unknown extended key usage":    {func(p *Profile) { p.Defaults = &Defaults{ExtKeyUsage: []string{"wifi"}} }, "defaults ext_key_usage"},
		"an enrollment agent":              {func(p *Profile) { p.Defaults = &Defaults{ExtKeyUsage: []string{"1.3.6.1.4.1.311.20.2.1"}} }, "never accepted"},
		"any purpose":                      {func(p *Profile) { p.Defaults = &Defaults{ExtKeyUsage: []string{"anyExtendedKeyUsage"}} }, "never accepted"},
		"an extended key usage under 2 names": {
			func(p *Profile) { p.Defaults = &Defaults{ExtKeyUsage: []string{"clientAuth", "1.3.6.1.5.5.7.3.2"}} }, "stands twice",
		},
		"md5":                      {func(p *Profile) { p.Algorithms = &Algorithms{Digest: []string{"md5"}} }, "md5 is never accepted"},
		"rc4":                      {func(p *Profile) { p.Algorithms = &Algorithms{Cipher: []string{"rc4"}} }, "rc4 is never accepted"},
		"an unknown cipher":        {func(p *Profile) { p.Algorithms = &Algorithms{Cipher: []string{"aes192"}} }, "algorithms cipher"},
		"keys of 1023 bits":        {func(p *Profile) { p.Algorithms = &Algorithms{MinRSABits: 1023} }, "min_rsa_bits"},
		"keys of 8193 bits":        {func(p *Profile) { p.Algorithms = &Algorithms{MinRSABits: 8193} }, "min_rsa_bits"},
		"an unknown allowance":     {func(p *Profile) { p.Allow = []string{"all"} }, "allow"},
		"no mismatches":            {func(p *Profile) { p.MaxMismatches = &zero }, "max_mismatches"},
		"too many mismatches":      {func(p *Profile) { p.MaxMismatches = &many }, "max_mismatches"},
		"renewal not written":      {func(p *Profile) { p.Renewal = nil }, "renewal: must be written"},
		"renewal without a mode":   {func(p *Profile) { p.Renewal = &Renewal{Window: "33%"} }, `renewal: unknown mode ""`},
		"renewal off with options": {func(p *Profile) { p.Renewal = &Renewal{Mode: "off", RequireNewKey: true} }, "renewal off: takes no options"},
		"a window of nothing":      {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", Window: "0%"} }, "renewal window"},
		"a window of 101%":         {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", Window: "101%"} }, "renewal window"},
		"a window of -1%":          {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", Window: "-1%"} }, "renewal window"},
		"a window of -30 days":     {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", Window: "-30d"} }, "renewal window"},
		"renewal by an agent":      {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", ExtKeyUsage: []string{"1.3.6.1.4.1.311.20.2.1"}} }, "renewal ext_key_usage"},
		"a usage under 2 names": {func(p *Profile) {
			p.Renewal = &Renewal{Mode: "on", ExtKeyUsage: []string{"clientAuth", "1.3.6.1.5.5.7.3.2"}}
		}, "stands twice"},
		"an unknown name type":      {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CADrops: []string{"CNN"}} }, "renewal ca_drops"},
		"a name for a name type":    {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CADrops: []string{"CN=a,O"}} }, "renewal ca_drops"},
		"a name type twice":         {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CADrops: []string{"E", "emailAddress"}} }, "stands twice"},
		"a CRL that is nowhere":     {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CRL: []string{" "}} }, "renewal crl: is empty"},
		"a CRL by LDAP":             {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CRL: []string{"ldap://ca/x"}} }, "only files, http and https"},
		"a CRL with a password":     {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CRL: []string{"http://a:b@ca/x"}} }, "renewal crl"},
		"a CRL without a host":      {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CRL: []string{"http:///x"}} }, "renewal crl"},
		"a CRL twice":               {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", CRL: []string{"a", "a"}} }, "stands twice"},
		"an unknown registration":   {func(p *Profile) { p.Renewal = &Renewal{Mode: "on", Registration: "maybe"} }, "renewal registration"},
		"a negative retry window":   {func(p *Profile) { p.RetryWindow = durationOf(-1) }, "retry_window"},
		"a retry window over a day": {func(p *Profile) { p.RetryWindow = durationOf(24*time.Hour + 1) }, "retry_window"},
		"release after 4 minutes":   {func(p *Profile) { p.InDoubtRelease = caddy.Duration(4 * time.Minute) }, "in_doubt_release"},
		"a negative release":        {func(p *Profile) { p.InDoubtRelease = -1 }, "in_doubt_release"},
		"an unknown mode":           {func(p *Profile) { p.Mode = &Mode{Kind: "audit"} }, "mode"},
		"a mode without a kind":     {func(p *Profile) { p.Mode = &Mode{} }, "mode"},
		"enforcing with a date":     {func(p *Profile) { p.Mode = &Mode{Kind: "enforce", Until: "2030-01-01"} }, "mode enforce"},
		"observing without an end":  {func(p *Profile) { p.Mode = &Mode{Kind: "observe"} }, "mode observe until"},
		"observing until some time": {func(p *Profile) { p.Mode = &Mode{Kind: "observe", Until: "2030"} }, "mode observe until"},
	} {
		p := smallProfile()
		test.change(p)
		warnings, err := p.normalize(expandPlaceholder, configTime)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: want %q, got %v", name, test.want, err)
		}
		if warnings != nil {
			t.Errorf("%s: warnings beside an error: %q", name, warnings)
		}
	}
	if _, err := (*Profile)(nil).normalize(expandPlaceholder, configTime); err == nil {
		t.Error("a null profile was accepted")
	}
}

func durationOf(d time.Duration) *caddy.Duration {
	c := caddy.Duration(d)
	return &c
}

func TestPlaceholdersAreExpandedWhenTheConfigurationLoads(t *testing.T) {
	t.Setenv("SCEPGATE_TEST_KEY", "/keys/ra.key")
	t.Setenv("SCEPGATE_TEST_UPSTREAM", "ndes:80")
	p := smallProfile()
	p.RA[0].Key, p.RA[0].Upstream = "{env.SCEPGATE_TEST_KEY}", "{env.SCEPGATE_TEST_UPSTREAM}"
	if _, err := p.normalize(expandPlaceholder, configTime); err != nil {
		t.Fatal(err)
	}
	if p.RA[0].Key != "/keys/ra.key" || p.RA[0].Upstream != "ndes:80" {
		t.Errorf("%+v", p.RA[0])
	}
}

func TestObservingEnds(t *testing.T) {
	for until, observing := range map[string]bool{
		"2026-05-02":                true,
		"2026-05-01":                false, // its first moment has passed
		"2026-05-01T12:00:00Z":      false,
		"2026-05-01T12:00:01Z":      true,
		"2026-05-01T14:00:01+02:00": true,
		"2020-01-01":                false,
	} {
		p := smallProfile()
		p.Mode, p.Renewal = &Mode{Kind: "observe", Until: until}, nil
		warnings, err := p.normalize(expandPlaceholder, configTime)
		if err != nil {
			t.Errorf("%s: %v", until, err)
			continue
		}
		if got := (&running{config: p}).observing(configTime); got != observing {
			t.Errorf("%s: observing %v", until, got)
		}
		if (len(warnings) == 1) == observing {
			t.Errorf("%s: warnings %q", until, warnings)
		}
	}
	enforced := smallProfile()
	if _, err := enforced.normalize(expandPlaceholder, configTime); err != nil || (&running{config: enforced}).observing(time.Time{}) {
		t.Errorf("enforcing observes: %v", err)
	}
}

func TestAGatewayOwnedChallengeIsWarnedAbout(t *testing.T) {
	p := smallProfile()
	p.Challenge.Source = "gateway"
	warnings, err := p.normalize(expandPlaceholder, configTime)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "EnforcePassword=0") {
		t.Errorf("%q, %v", warnings, err)
	}
}
