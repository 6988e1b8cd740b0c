package inspector

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// certsOnly is a degenerate SignedData.
func certsOnly(certificates ...[]byte) []byte { return certsOnlyOf(derSet(), certificates...) }

func certsOnlyOf(signerInfos []byte, certificates ...[]byte) []byte {
	return derSequence(derOID(oidSignedData), explicitTag(0, derSequence(
		derInt(1), derSet(), derSequence(derOID(oidData)), explicitTag(0, certificates...), signerInfos)))
}

func TestParseCACert(t *testing.T) {
	a := testCertificate(t, testKey(t, "ra"), "CA", big.NewInt(1))
	b := testCertificate(t, testKey(t, "other"), "CA", big.NewInt(2))
	n, err := walk(certsOnly(a.Raw, b.Raw), modeDER)
	if err != nil {
		t.Fatal(err)
	}
	signedData := n.children[1].children[0]
	for name, c := range map[string]struct {
		body []byte
		want [][]byte
	}{
		"bare certificate": {a.Raw, [][]byte{a.Raw}},
		"one":              {certsOnly(a.Raw), [][]byte{a.Raw}},
		"two in order":     {certsOnly(b.Raw, a.Raw), [][]byte{b.Raw, a.Raw}},
		"indefinite lengths": {
			indefinite(0x30, n.children[0].raw, indefinite(0xa0, indefinite(0x30, signedData.content))),
			[][]byte{a.Raw, b.Raw},
		},
		"empty CRLs": {derSequence(derOID(oidSignedData), explicitTag(0, derSequence(
			derInt(1), derSet(), derSequence(derOID(oidData)), explicitTag(0, a.Raw), explicitTag(1), derSet()))), [][]byte{a.Raw}},
		"as many as the limit": {certsOnly(bytes.Repeat(a.Raw, maxCACertificates)), many(a.Raw, maxCACertificates)},
	} {
		t.Run(name, func(t *testing.T) {
			certificates, err := ParseCACert(c.body)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]byte
			for _, certificate := range certificates {
				got = append(got, certificate.Raw)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func many(b []byte, n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = b
	}
	return list
}

func TestParseCACertRefuses(t *testing.T) {
	a := testCertificate(t, testKey(t, "ra"), "CA", big.NewInt(1)).Raw
	signedData := func(parts ...[]byte) []byte {
		return derSequence(derOID(oidSignedData), explicitTag(0, derSequence(parts...)))
	}
	data := derSequence(derOID(oidData))
	for name, body := range map[string][]byte{
		"nothing":                      nil,
		"CRLs":                         signedData(derInt(1), derSet(), data, explicitTag(0, a), explicitTag(1, a), derSet()),
		"a content":                    signedData(derInt(1), derSet(), derSequence(derOID(oidData), explicitTag(0, derOctets(certsOnly(a)))), explicitTag(0, a), derSet()),
		"a content that is no string":  signedData(derInt(1), derSet(), derSequence(derOID(oidData), explicitTag(0, a)), explicitTag(0, a), derSet()),
		"more after the content":       signedData(derInt(1), derSet(), derSequence(derOID(oidData), explicitTag(0, derOctets(nil)), a), explicitTag(0, a), derSet()),
		"a page":                       []byte("<html></html>"),
		"an empty SEQUENCE":            derSequence(),
		"bytes after a certificate":    append(bytes.Clone(a), 0),
		"bytes after the message":      append(certsOnly(a), 0),
		"cut short":                    certsOnly(a)[:100],
		"no certificate":               certsOnly(),
		"more than the limit":          certsOnly(bytes.Repeat(a, maxCACertificates+1)),
		"a signer":                     certsOnlyOf(derSet(derSequence()), a),
		"a digest":                     signedData(derInt(1), derSet(derAlgorithm(oidSHA1)), data, explicitTag(0, a), derSet()),
		"version 3":                    signedData(derInt(3), derSet(), data, explicitTag(0, a), derSet()),
		"another content type":         signedData(derInt(1), derSet(), derSequence(derOID(oidEnvelopedData)), explicitTag(0, a), derSet()),
		"certificates missing":         signedData(derInt(1), derSet(), data, derSet()),
		"certificates primitive":       signedData(derInt(1), derSet(), data, implicitTag(0, a), derSet()),
		"signers missing":              signedData(derInt(1), derSet(), data, explicitTag(0, a)),
		"an element after the signers": signedData(derInt(1), derSet(), data, explicitTag(0, a), derSet(), derNull()),
		"an attribute certificate":     certsOnly(explicitTag(2, derSequence())),
		"a malformed certificate":      certsOnly(derSequence(derSequence(derInt(1)))),
		"an envelope":                  envelopeOf(t),
		"nested too deep":              nested(maxDepth + 1),
	} {
		t.Run(name, func(t *testing.T) {
			if certificates, err := ParseCACert(body); err == nil || certificates != nil {
				t.Errorf("accepted %d certificates", len(certificates))
			}
		})
	}
}

func TestParseCACaps(t *testing.T) {
	var flood strings.Builder
	for i := range 3 * maxCapabilities {
		flood.WriteString(strings.Repeat("x", i%50+1) + strings.Repeat("y", i/50) + "\n")
	}
	for name, c := range map[string]struct {
		body string
		want Capabilities
	}{
		"LF":                  {"POSTPKIOperation\nRenewal\nSHA-512\nSHA-256\nSHA-1\nDES3\n", caps("POSTPKIOperation", "Renewal", "SHA-512", "SHA-256", "SHA-1", "DES3")},
		"CRLF":                {"AES\r\nSCEPStandard\r\n", caps("AES", "SCEPStandard")},
		"CR":                  {"AES\rDES3", caps("AES", "DES3")},
		"any case":            {"postpkioperation\naes\nSha-256", caps("POSTPKIOperation", "AES", "SHA-256")},
		"blanks and no lines": {"\n\n  AES \t\n\r\n", caps("AES")},
		"unknown is kept":     {"X-Vendor\nAES", caps("X-Vendor", "AES")},
		"too long is dropped": {strings.Repeat("A", maxCapability+1) + "\nAES", caps("AES")},
		"nothing":             {"", caps()},
	} {
		if diff := cmp.Diff(c.want, ParseCACaps([]byte(c.body))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got := len(ParseCACaps([]byte(flood.String()))); got != maxCapabilities {
		t.Errorf("%d of a flood kept", got)
	}
}

func caps(keywords ...string) Capabilities {
	c := Capabilities{}
	for _, k := range keywords {
		c[k] = true
	}
	return c
}
