package inspector

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCSRRefusesExtensions(t *testing.T) {
	name := func(element []byte) []byte { return san(element) }
	many := make([][]byte, maxGeneralNames+1)
	for i := range many {
		many[i] = dnsName(fmt.Sprintf("h%d.example.com", i))
	}
	manyPurposes := make([][]byte, maxPurposes+1)
	manyExtensions := make([][]byte, maxExtensions+1)
	for i := range manyPurposes {
		manyPurposes[i] = derOID(fmt.Sprintf("1.2.3.%d", i))
	}
	for i := range manyExtensions {
		manyExtensions[i] = extension(fmt.Sprintf("1.2.3.%d", i), derNull())
	}
	eku := func(parts ...[]byte) []byte { return extension(oidExtKeyUsage, derSequence(parts...)) }
	policies := func(parts ...[]byte) []byte {
		return extension(oidMSApplicationPolicies, derSequence(parts...))
	}
	keyUsage := func(content ...byte) []byte { return extension(oidKeyUsage, tlv(3, content)) }
	sid := func(s string) []byte { return sidExtension(derOctets([]byte(s))) }
	clientAuth := derOID("1.3.6.1.5.5.7.3.2")
	value := derOctets([]byte("S-1-5-21-1-2-3-500"))
	templateOID := func(parts ...[]byte) []byte { return extension(oidMSTemplateOID, derSequence(parts...)) }

	for what, extensions := range map[string][][]byte{
		"empty list":                           {},
		"more extensions than the limit":       manyExtensions,
		"extension twice (C09)":                {san(dnsName("a.example.com")), san(dnsName("b.example.com"))},
		"unknown extension twice":              {extension("1.2.3", derNull()), extension("1.2.3", derNull())},
		"critical FALSE written (B40)":         {derSequence(derOID(oidKeyUsage), []byte{1, 1, 0}, derOctets([]byte{3, 2, 7, 0x80}))},
		"critical 01 (C23)":                    {derSequence(derOID(oidKeyUsage), []byte{1, 1, 1}, derOctets([]byte{3, 2, 7, 0x80}))},
		"critical of two bytes":                {derSequence(derOID(oidKeyUsage), []byte{1, 2, 0xff, 0xff}, derOctets([]byte{3, 2, 7, 0x80}))},
		"value is no OCTET STRING":             {derSequence(derOID(oidKeyUsage), []byte{3, 2, 7, 0x80})},
		"value is missing":                     {derSequence(derOID(oidKeyUsage))},
		"extension with a fourth element":      {derSequence(derOID("1.2.3"), []byte{1, 1, 0xff}, derOctets(nil), derNull())},
		"extension as a SET":                   {derSet(derOID("1.2.3"), derOctets(nil))},
		"identifier is none":                   {derSequence(derNull(), derOctets(nil))},
		"two SANs in one value (C08)":          {extension(oidSubjectAltName, append(derSequence(dnsName("a.example.com")), derSequence(dnsName("b.example.com"))...))},
		"garbage after the SAN (C08)":          {extension(oidSubjectAltName, append(derSequence(dnsName("a.example.com")), 0))},
		"BER in the value (C23)":               {extension(oidSubjectAltName, indefinite(0x30, dnsName("a.example.com")))},
		"empty value":                          {extension(oidSubjectAltName, nil)},
		"empty SAN (C42)":                      {san()},
		"SAN as a SET":                         {extension(oidSubjectAltName, derSet(dnsName("a.example.com")))},
		"SAN longer than the limit (C42)":      {san(many...)},
		"a name twice (C42)":                   {san(dnsName("a.example.com"), dnsName("a.example.com"))},
		"a name twice in another case":         {san(dnsName("a.example.com"), dnsName("A.example.com"))},
		"an other name twice":                  {san(tlv(0xa4, derName("a")), tlv(0xa4, derName("a")))},
		"constructed DNS name (C41)":           {name(tlv(0xa2, derIA5("a.example.com")))},
		"universal tag (C41)":                  {name(tlv(0x02, []byte("a.example.com")))},
		"high tag form (C41)":                  {name(append([]byte{0x9f, 2, 13}, "a.example.com"...))},
		"tag 9 (C41)":                          {name(implicitTag(9, []byte("x")))},
		"application class":                    {name(tlv(0x42, []byte("x")))},
		"primitive other name":                 {name(implicitTag(0, []byte("x")))},
		"primitive directory name":             {name(implicitTag(4, []byte("x")))},
		"constructed registered identifier":    {name(explicitTag(8, derOID("1.2.3")))},
		"registered identifier malformed":      {name(implicitTag(8, []byte{0x80}))},
		"UPN as IA5String (B02)":               {name(upn(derIA5("a@b")))},
		"UPN as BMPString (B02)":               {name(upn(derBMP("a@b")))},
		"UPN as PrintableString (B02)":         {name(upn(derPrintable("a")))},
		"UPN with a double tag (B02)":          {name(upn(explicitTag(0, derUTF8("a@b"))))},
		"UPN with NUL (B02)":                   {name(upn(derUTF8("a@b\x00")))},
		"UPN with LF (B32)":                    {name(upn(derUTF8("a@b\nSAN:upn=admin")))},
		"UPN with two values":                  {name(explicitTag(0, derOID(oidMSUPN), explicitTag(0, derUTF8("a@b"), derUTF8("c@d"))))},
		"UPN without a value":                  {name(explicitTag(0, derOID(oidMSUPN), explicitTag(0)))},
		"UPN empty":                            {name(upn(derUTF8("")))},
		"UPN too long":                         {name(upn(derUTF8(strings.Repeat("a", maxNameValue+1))))},
		"UPN under a primitive tag":            {name(explicitTag(0, derOID(oidMSUPN), implicitTag(0, []byte("a@b"))))},
		"UPN with a third element":             {name(explicitTag(0, derOID(oidMSUPN), explicitTag(0, derUTF8("a@b")), derNull()))},
		"other name without identifier":        {name(explicitTag(0, explicitTag(0, derUTF8("a@b"))))},
		"other name without value":             {name(explicitTag(0, derOID("1.2.3")))},
		"IP address of 5 octets (C38)":         {name(implicitTag(7, []byte{1, 2, 3, 4, 5}))},
		"IP address of 8 octets (C38)":         {name(implicitTag(7, make([]byte, 8)))},
		"IP address of no octets (C38)":        {name(implicitTag(7, nil))},
		"IPv4-mapped address (C38)":            {name(implicitTag(7, append(append(make([]byte, 10), 0xff, 0xff), 10, 0, 0, 1)))},
		"key usage empty (A06)":                {keyUsage(0)},
		"key usage of no octet":                {keyUsage()},
		"key usage zero":                       {keyUsage(0, 0)},
		"key usage with a trailing zero (A06)": {keyUsage(4, 0xa0)},
		"key usage with a set unused bit":      {keyUsage(5, 0xb0)},
		"key usage with eight unused bits":     {keyUsage(8, 0x80)},
		"key usage with an empty last octet":   {keyUsage(7, 0x80, 0x00)},
		"key usage of ten bits":                {keyUsage(6, 0x80, 0x40)},
		"key usage of three octets":            {keyUsage(7, 0x80, 0x80, 0x80)},
		"key usage as OCTET STRING":            {extension(oidKeyUsage, derOctets([]byte{7, 0x80}))},
		"EKU empty (B10)":                      {eku()},
		"EKU twice the same (A07)":             {eku(clientAuth, clientAuth)},
		"EKU over the limit":                   {eku(manyPurposes...)},
		"EKU of another type":                  {eku(derUTF8("clientAuth"))},
		"EKU as a SET":                         {extension(oidExtKeyUsage, derSet(clientAuth))},
		"policies empty":                       {policies()},
		"policies twice the same":              {policies(derSequence(clientAuth), derSequence(clientAuth))},
		"policies with qualifiers (B08)":       {policies(derSequence(clientAuth, derSequence(derSequence(derOID("1.3.6.1.5.5.7.2.1"), derIA5("u")))))},
		"policies as identifiers":              {policies(clientAuth)},
		"policy empty":                         {policies(derSequence())},
		"SID of lower case (B05)":              {sid("s-1-5-21-1")},
		"SID without sub-authority":            {sid("S-1-5")},
		"SID with text after it":               {sid("S-1-5-21-1 ")},
		"SID with LF":                          {sid("S-1-5-21-1\n")},
		"SID empty":                            {sid("")},
		"SID too long":                         {sid("S-1-5-" + strings.Repeat("1", maxSID))},
		"SID as BMPString (B05)":               {sidExtension(derBMP("S-1-5-21-1"))},
		"SID as UTF8String":                    {sidExtension(derUTF8("S-1-5-21-1"))},
		"two SIDs (B05)":                       {extension(oidMSSID, derSequence(explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, value)), explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, value))))},
		"two values of a SID (B05)":            {extension(oidMSSID, derSequence(explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, value, value))))},
		"SID with a third element (B05)":       {extension(oidMSSID, derSequence(explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, value), derNull())))},
		"SID of another type":                  {extension(oidMSSID, derSequence(explicitTag(0, derOID("1.2.3"), explicitTag(0, value))))},
		"SID under another tag":                {extension(oidMSSID, derSequence(explicitTag(1, derOID(oidMSSIDValue), explicitTag(0, value))))},
		"SID bare":                             {extension(oidMSSID, value)},
		"SID of no type":                       {extension(oidMSSID, derSequence(explicitTag(0, explicitTag(0, value))))},
		"SID without value":                    {extension(oidMSSID, derSequence(explicitTag(0, derOID(oidMSSIDValue))))},
		"SID with a malformed type":            {extension(oidMSSID, derSequence(explicitTag(0, tlv(6, []byte{0x80}), explicitTag(0, value))))},
		"other name with a malformed type":     {name(explicitTag(0, tlv(6, []byte{0x80}), explicitTag(0, derUTF8("a@b"))))},
		"malformed identifier":                 {derSequence(tlv(6, []byte{0x80, 1}), derOctets(nil))},
		"SID list empty":                       {extension(oidMSSID, derSequence())},
		"template name as UTF8String (B21)":    {extension(oidMSTemplateName, derUTF8("User"))},
		"template name with NUL (B21)":         {extension(oidMSTemplateName, derBMP("User\x00"))},
		"template name empty":                  {extension(oidMSTemplateName, derBMP(""))},
		"template name of odd length":          {extension(oidMSTemplateName, tlv(0x1e, []byte{0, 'U', 0}))},
		"template name too long":               {extension(oidMSTemplateName, derBMP(strings.Repeat("a", maxNameValue+1)))},
		"template identifier missing (B22)":    {templateOID(derInt(100))},
		"template with a third number (B22)":   {templateOID(derOID("1.2.3"), derInt(1), derInt(2), derInt(3))},
		"template with a negative number":      {templateOID(derOID("1.2.3"), derInt(-1))},
		"template with a huge number":          {templateOID(derOID("1.2.3"), derInt(1<<32))},
		"template with a number not minimal":   {templateOID(derOID("1.2.3"), integerOctets(0, 1))},
		"template bare":                        {extension(oidMSTemplateOID, derOID("1.2.3"))},
		"key identifier is no OCTET STRING":    {extension(oidSubjectKeyIdentifier, derUTF8("x"))},
		"bytes after the key identifier (C08)": {extension(oidSubjectKeyIdentifier, append(derOctets(make([]byte, 20)), 0))},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRawCSR(t)
			r.withExtensions(extensions...)
			parseRefused(t, r.der(t), KindRequest)
		})
	}
	t.Run("extension list as a SET", func(t *testing.T) {
		r := newRawCSR(t)
		r.withAttributes(derAttribute(oidExtensionRequest, derSet(san(dnsName("a.example.com")))))
		parseRefused(t, r.der(t), KindRequest)
	})
}

func TestParseCSRRefusesNamesOfTheSAN(t *testing.T) {
	label := strings.Repeat("a", 63)
	for tag, values := range map[byte][]string{
		nameDNS: {
			"", ".", "a.example.com.", ".example.com", "a..example.com", "*.example.com", "a_b.example.com", // C36, B04
			"-a.example.com", "a-.example.com", "10.0.0.1", "::1", "example.com:443", "example.com/x", "a b.example.com",
			"a.example.com ", "a.example.com\x00.evil", "m\xc3\xbcller.example.com", label + "a.example.com", "host.1",
			label + "." + label + "." + label + "." + label,
		},
		nameEmail: { // C39
			"", "ann", "@example.com", "ann@", "a@b@example.com", "Ann <ann@example.com>", `"a b"@example.com`, "ann@example.com (x)",
			".a@example.com", "a.@example.com", "a..b@example.com", "a\n@example.com", "\xc3\xa9@example.com", "ann@[10.0.0.1]",
			strings.Repeat("a", maxEmailLocal+1) + "@example.com", "ann@*.example.com", " ann@example.com",
		},
		nameURI: { // C40
			"", "example.com/no-scheme", "https://a b/", "https://a/\x00", "https://a/\n", "https://\xc3\xbc/", "https://a/%zz",
			"https://*.example.com/", "https://a:port/", "https://" + label + "a.example/", "https://a." + label + ":8443/", "https://[fe80::1%25eth0]/",
			"https://a/" + strings.Repeat("x", maxURI), ":", "1http://a/",
		},
	} {
		for _, value := range values {
			r := newRawCSR(t)
			r.withExtensions(san(implicitTag(tag, []byte(value))))
			der := r.der(t)
			t.Run(fmt.Sprintf("%d %.40q", tag, value), func(t *testing.T) { parseRefused(t, der, KindRequest) })
		}
	}
}

func TestParseCSRKeepsTheSANAsSent(t *testing.T) {
	longest := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 61)
	uris := []string{
		"tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
		"https://user@Example.com:8443/a?b=c#d", "https://[2001:db8::1]:8443/", "https://192.0.2.1/%41", "TAG:microsoft.com,x",
	}
	elements := [][]byte{
		dnsName("DC01.corp.EXAMPLE"), dnsName("dc01"), dnsName("xn--mller-kva.example"), dnsName(longest),
		implicitTag(nameEmail, []byte("ann+x@Example.com")),
		implicitTag(nameIP, []byte{192, 0, 2, 7}),
		implicitTag(nameIP, append([]byte{0x20, 1, 0x0d, 0xb8}, make([]byte, 12)...)),
		upn(derUTF8("Änn@example.com")),
		explicitTag(nameOther, derOID("1.3.6.1.5.2.2"), explicitTag(0, derSequence())), // B38
		explicitTag(nameX400, derNull()),                                               // B37
		explicitTag(nameDirectory, derName("admin")),
		explicitTag(nameEDIParty, derNull()),
		implicitTag(nameRegisteredID, []byte{0x2a, 3}),
	}
	want := []GeneralName{
		{"dns", "DC01.corp.EXAMPLE"}, {"dns", "dc01"}, {"dns", "xn--mller-kva.example"}, {"dns", longest},
		{"email", "ann+x@Example.com"}, {"ip", "192.0.2.7"}, {"ip", "2001:db8::"}, {"upn", "Änn@example.com"},
		{"other", "1.3.6.1.5.2.2"}, {"other", "3"}, {"other", "4"}, {"other", "5"}, {"other", "8"},
	}
	for _, uri := range uris {
		elements = append(elements, implicitTag(nameURI, []byte(uri)))
		want = append(want, GeneralName{"uri", uri})
	}
	r := newRawCSR(t)
	r.withExtensions(san(elements...))
	if diff := cmp.Diff(want, accepted(t, r.der(t)).SAN); diff != "" {
		t.Error(diff)
	}
}

func TestParseCSRKeyUsage(t *testing.T) {
	for bits, content := range map[KeyUsage][]byte{
		1:           {7, 0x80}, // digitalSignature
		1 << 2:      {5, 0x20}, // keyEncipherment
		1 | 1<<2:    {5, 0xa0},
		1 << 7:      {0, 0x01},
		1 << 8:      {7, 0x00, 0x80}, // decipherOnly
		1 | 1<<8:    {7, 0x80, 0x80},
		1<<9 - 1:    {7, 0xff, 0x80},
		1<<5 | 1<<6: {1, 0x06}, // keyCertSign, cRLSign: a fact for the gate (B13)
	} {
		r := newRawCSR(t)
		r.withExtensions(extension(oidKeyUsage, tlv(3, content)))
		csr := accepted(t, r.der(t))
		if !csr.HasKeyUsage || csr.KeyUsage != bits {
			t.Errorf("%x: key usage %b, want %b", content, csr.KeyUsage, bits)
		}
		built, err := BuildCSR(CSRParams{KeyUsage: bits}, testKey(t, "device"))
		if err != nil {
			t.Fatal(err)
		}
		if got := accepted(t, built).KeyUsage; got != bits {
			t.Errorf("built: key usage %b, want %b", got, bits)
		}
	}
	if csr := accepted(t, newRawCSR(t).der(t)); csr.HasKeyUsage || csr.HasExtKeyUsage || csr.HasApplicationPolicies || csr.SAN != nil {
		t.Error("absent extensions are there")
	}
}

func TestParseCSRReadsMicrosoftExtensions(t *testing.T) {
	r := newRawCSR(t)
	r.withExtensions(
		extension(oidExtKeyUsage, derSequence(derOID("1.3.6.1.5.5.7.3.2"), derOID("1.3.6.1.4.1.311.20.2.2"))),
		extension(oidMSApplicationPolicies, derSequence(derSequence(derOID("1.3.6.1.5.5.7.3.2")))),
		sidExtension(derOctets([]byte("S-1-5-21-1-2-3-1104"))),
		extension(oidMSTemplateName, derBMP("WiFiClient")),
		extension(oidMSTemplateOID, derSequence(derOID("1.3.6.1.4.1.311.21.8.1.2"), derInt(100), derInt(1<<32-1))),
	)
	csr := accepted(t, r.der(t))
	if diff := cmp.Diff([]string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"}, csr.ExtKeyUsage); diff != "" || !csr.HasExtKeyUsage {
		t.Error("extended key usage", diff)
	}
	if diff := cmp.Diff([]string{"1.3.6.1.5.5.7.3.2"}, csr.ApplicationPolicies); diff != "" || !csr.HasApplicationPolicies {
		t.Error("application policies", diff)
	}
	if csr.SID != "S-1-5-21-1-2-3-1104" || csr.TemplateName != "WiFiClient" || csr.TemplateOID != "1.3.6.1.4.1.311.21.8.1.2" {
		t.Errorf("sid %q, template %q %q", csr.SID, csr.TemplateName, csr.TemplateOID)
	}
	if csr.UnexpectedExtensions != nil {
		t.Errorf("unexpected %v", csr.UnexpectedExtensions)
	}
	r.withExtensions(extension(oidMSTemplateOID, derSequence(derOID("1.2.3"))))
	if got := accepted(t, r.der(t)).TemplateOID; got != "1.2.3" {
		t.Errorf("template without versions: %q", got)
	}
}

// threats B13–B15, B39, B40
func TestParseCSRListsUnexpectedExtensions(t *testing.T) {
	r := newRawCSR(t)
	sid := derSequence(explicitTag(0, derOID(oidMSSIDValue), explicitTag(0, derOctets([]byte("S-1-5-21-1")))))
	r.withExtensions(
		criticalExtension("2.5.29.19", derSequence([]byte{1, 1, 0xff})), // basicConstraints CA
		extension("2.5.29.7", derSequence(dnsName("dc01.example.com"))), // the old subjectAltName
		criticalExtension(oidSubjectAltName, derSequence(dnsName("a.example.com"))),
		criticalExtension(oidKeyUsage, tlv(3, []byte{7, 0x80})),
		criticalExtension(oidExtKeyUsage, derSequence(derOID("1.3.6.1.5.5.7.3.2"))),
		criticalExtension(oidMSSID, sid),
		criticalExtension(oidMSApplicationPolicies, derSequence(derSequence(derOID("1.2.3")))),
		criticalExtension(oidMSTemplateName, derBMP("User")),
		criticalExtension(oidMSTemplateOID, derSequence(derOID("1.2.3"))),
	)
	want := []string{
		"2.5.29.19", "2.5.29.7", "critical:" + oidMSSID, "critical:" + oidMSApplicationPolicies,
		"critical:" + oidMSTemplateName, "critical:" + oidMSTemplateOID,
	}
	if diff := cmp.Diff(want, accepted(t, r.der(t)).UnexpectedExtensions); diff != "" {
		t.Error(diff)
	}
}

func TestParseCSRTakesABasicConstraintsThatSaysNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		extension []byte
		known     bool
	}{
		"empty":               {criticalExtension(oidBasicConstraints, derSequence()), true},
		"empty, not critical": {extension(oidBasicConstraints, derSequence()), true},
		"cA":                  {extension(oidBasicConstraints, derSequence([]byte{1, 1, 0xff})), false},
		"cA false":            {extension(oidBasicConstraints, derSequence([]byte{1, 1, 0})), false},
		"a length":            {extension(oidBasicConstraints, derSequence(derInt(0))), false},
		"no sequence":         {extension(oidBasicConstraints, derNull()), false},
		"a set":               {extension(oidBasicConstraints, derSet()), false},
	} {
		r := newRawCSR(t)
		r.withExtensions(tc.extension)
		if got := accepted(t, r.der(t)).UnexpectedExtensions; (len(got) == 0) != tc.known {
			t.Errorf("%s: unexpected %v", name, got)
		}
	}
}

func TestParseCSRKnowsTheKeyIdentifiersOfItsOwnKey(t *testing.T) {
	spki := spkiOf(t, testKey(t, "device"))
	n, err := walk(spki, modeDER)
	if err != nil {
		t.Fatal(err)
	}
	bits, err := n.children[1].wholeOctets()
	if err != nil {
		t.Fatal(err)
	}
	method1, whole, long := sha1.Sum(bits), sha1.Sum(spki), sha256.Sum256(bits)
	method2 := bytes.Clone(method1[12:])
	method2[0] = 0x40 | method2[0]&0x0f
	foreign := sha1.Sum([]byte("another key"))
	for name, c := range map[string]struct {
		id   []byte
		want []string
	}{
		"method 1":            {method1[:], nil},
		"method 2":            {method2, nil},
		"whole key info":      {whole[:], nil},
		"SHA-256":             {long[:], nil},
		"SHA-256 cut":         {long[:20], nil},
		"another key's (B14)": {foreign[:], []string{oidSubjectKeyIdentifier}},
		"empty":               {nil, []string{oidSubjectKeyIdentifier}},
		"cut short":           {method1[:19], []string{oidSubjectKeyIdentifier}},
	} {
		r := newRawCSR(t)
		r.withExtensions(extension(oidSubjectKeyIdentifier, derOctets(c.id)))
		if diff := cmp.Diff(c.want, accepted(t, r.der(t)).UnexpectedExtensions); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	r := newRawCSR(t)
	r.withExtensions(criticalExtension(oidSubjectKeyIdentifier, derOctets(method1[:])))
	if diff := cmp.Diff([]string{"critical:" + oidSubjectKeyIdentifier}, accepted(t, r.der(t)).UnexpectedExtensions); diff != "" {
		t.Error(diff)
	}
}
