package differential

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"go/parser"
	"go/token"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func (w *world) request(t *testing.T, name string) request {
	t.Helper()
	i := slices.IndexFunc(w.requests, func(r request) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("no request %q", name)
	}
	return w.requests[i]
}

// What the second reader reads is written down here once, so that two readers
// that are wrong alike are noticed.
func TestSecondReaderReadsWhatTheDeviceWrote(t *testing.T) {
	w := newWorld(t, 1)
	for name, want := range map[string]Facts{
		"windows": {
			Version: "0", Digest: "sha256", HasChallenge: true, Challenge: "8CE317021F690069",
			Subject: [][]NameAttribute{{{"2.5.4.3", 19, "PC-1"}}, {{"2.5.4.11", 19, "WiFi"}}, {{"2.5.4.10", 19, "Example Corp"}}},
			SAN:     []AltName{{"upn", "ann@example.com"}}, SID: "S-1-5-21-1-2-3-1104", HasKeyUsage: true, KeyUsage: []int{0, 2},
			ExtKeyUsage:         []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"},
			ApplicationPolicies: []string{"1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"}, TemplateName: "WiFiClient",
		},
		"names": {
			Version: "0", Digest: "sha512", HasChallenge: true, Challenge: "X", Subject: [][]NameAttribute{{{"2.5.4.3", 19, "many"}}},
			SAN: []AltName{
				{"dns", "a.example.com"}, {"dns", "b.example.com"}, {"ip", "0a010203"}, {"ip", "20010db8000000000000000000000001"},
				{"uri", "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104"}, {"email", "bob@example.com"}, {"upn", "bøb@example.com"},
			},
		},
		"foreign names": {
			Version: "0", Digest: "sha256", HasChallenge: true, Challenge: "12345678", Subject: [][]NameAttribute{{{"2.5.4.3", 19, "foreign"}}},
			SAN: []AltName{{"other", "8"}, {"other", "1.3.6.1.4.1.311.25.1"}, {"other", "4"}, {"dns", "foreign.example.com"}},
		},
		"directory": {
			Version: "0", Digest: "sha384", HasChallenge: true, Challenge: "blank then text", HasKeyUsage: true, KeyUsage: []int{4, 8},
			Subject: [][]NameAttribute{
				{{"0.9.2342.19200300.100.1.25", 22, "com"}}, {{"0.9.2342.19200300.100.1.25", 22, "example"}}, {{"2.5.4.11", 12, "Geräte"}},
				{{"2.5.4.3", 12, "Zoë"}}, {{"1.2.840.113549.1.9.1", 22, "zoe@example.com"}},
			},
		},
		"template": {
			Version: "0", Digest: "sha256", HasChallenge: true, Challenge: "8CE317021F690069", ExtKeyUsage: []string{"2.5.29.37.0"},
			Subject:     [][]NameAttribute{{{"2.5.4.3", 19, "t"}}, {{"2.5.4.42", 19, "Ann"}}, {{"2.5.4.4", 19, "Example"}}},
			TemplateOID: "1.3.6.1.4.1.311.21.8.1.2.3", UnexpectedExtensions: []string{"2.5.29.32"},
			UnexpectedAttributes: []string{"1.2.3.4", "1.2.840.113549.1.9.2"},
		},
		"blank challenge": {
			Version: "0", Digest: "sha256", Subject: [][]NameAttribute{{{"2.5.4.3", 19, "d"}}}, HasKeyUsage: true, KeyUsage: []int{2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := w.request(t, name)
			r, err := DecodeRequest(base.der)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.SPKI, writePublicKey(&base.key.PublicKey)) || r.Key.N.Cmp(base.key.N) != 0 {
				t.Error("another key was read")
			}
			if diff := cmp.Diff(want, r.Facts(), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Facts{}, "SPKI", "Modulus", "Exponent")); diff != "" {
				t.Errorf("facts (-want +got):\n%s", diff)
			}
		})
	}
}

// signedAgain changes the info of a request and signs it.
func signedAgain(t *testing.T, base request, change func(info *node)) []byte {
	t.Helper()
	root := base.root.clone()
	change(root.kids[0])
	signed, err := rsa.SignPKCS1v15(nil, base.key, crypto.SHA256, sum(crypto.SHA256, root.kids[0].bytes()))
	check(t, err)
	root.kids[2].leaf = append([]byte{0}, signed...)
	return root.bytes()
}

// extensionsOf finds the list of extensions in a request's info.
func extensionsOf(info *node) *node { return info.places(isExtensions)[0].n }

func TestSecondReaderRefusesWhatHasTwoReadings(t *testing.T) {
	w := newWorld(t, 1)
	base := w.request(t, "windows")
	if _, err := DecodeRequest(signedAgain(t, base, func(*node) {})); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(info *node){
		"attribute twice": func(info *node) { info.kids[3].kids = append(info.kids[3].kids, info.kids[3].kids[0].clone()) },
		"two values": func(info *node) {
			set := info.kids[3].kids[0].kids[1]
			set.kids = append(set.kids, set.kids[0].clone())
		},
		"no value":        func(info *node) { info.kids[3].kids[0].kids[1].kids = nil },
		"extension twice": func(info *node) { l := extensionsOf(info); l.kids = append(l.kids, l.kids[0].clone()) },
		"critical written though false": func(info *node) {
			e := extensionsOf(info).kids[1]
			e.kids = slices.Insert(e.kids, 1, &node{id: 1, leaf: []byte{0}})
		},
		"element after the value":     func(info *node) { e := extensionsOf(info).kids[1].kids[1]; e.kids = append(e.kids, e.kids[0].clone()) },
		"element too many in a name":  func(info *node) { a := info.kids[1].kids[0].kids[0]; a.kids = append(a.kids, a.kids[0].clone()) },
		"empty RDN":                   func(info *node) { info.kids[1].kids[0].kids = nil },
		"long form of a short length": func(info *node) { info.kids[1].kids[0].extra = 1 },
		"indefinite length":           func(info *node) { info.kids[3].indefinite = true },
		"identifier with a padded arc": func(info *node) {
			o := info.kids[3].kids[0].kids[0]
			o.leaf = slices.Insert(slices.Clone(o.leaf), 1, 0x80)
		},
		"integer with a superfluous 00":  func(info *node) { info.kids[0].leaf = []byte{0, 0} },
		"value of a type without a name": func(info *node) { info.kids[1].kids[0].kids[0].kids[1].id = 0x1e },
		"attributes absent":              func(info *node) { info.kids = info.kids[:3] },
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := DecodeRequest(signedAgain(t, base, change)); err == nil {
				t.Errorf("read %+v", r.Facts())
			}
		})
	}
	t.Run("signature of another", func(t *testing.T) {
		root := base.root.clone()
		root.kids[0].kids[1].kids[0].kids[0].kids[1].leaf = []byte("PC-2")
		if _, err := DecodeRequest(root.bytes()); err == nil {
			t.Error("signature is not looked at")
		}
	})
}

// What is written otherwise than it is read is what P10 must see: here two SETs
// out of order.
func TestWritingAgainShowsASecondSpelling(t *testing.T) {
	w := newWorld(t, 1)
	base := w.request(t, "router")
	base.hash = crypto.SHA256
	der := signedAgain(t, base, func(info *node) { slices.Reverse(info.kids[1].kids[0].kids) })
	root := parseNodes(der)[0]
	root.kids[1].kids[0] = parseNodes(writeOID("1.2.840.113549.1.1.11"))[0]
	der = root.bytes()
	r, err := DecodeRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(r.DER(), der) {
		t.Error("an RDN out of order is written as it was read")
	}
}

func TestDefiniteUndoesIndefinite(t *testing.T) {
	w := newWorld(t, 1)
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for _, m := range w.messages {
		root := m.root.clone()
		p := partsOf(root)
		indefinitely(r, p.outer)
		ber := root.bytes()
		if bytes.Equal(ber, m.der) || !bytes.HasPrefix(ber, []byte{0x30, 0x80}) {
			t.Fatalf("%s is not BER", m.name)
		}
		if got, err := definite(ber); err != nil || !bytes.Equal(got, m.der) {
			t.Errorf("%s: %v", m.name, err)
		}
		root = m.root.clone()
		p = partsOf(root)
		want := p.content.kids[0].bytes()
		indefinitely(r, p.inner)
		if got, err := definiteEnvelope(p.content.kids[0].bytes()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, envelope: %v", m.name, err)
		}
	}
}

// A second reader that shares code with the first proves nothing.
func TestSecondReaderSharesNoCodeWithTheInspector(t *testing.T) {
	files, err := filepath.Glob("*.go")
	check(t, err)
	looked := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		looked++
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		check(t, err)
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			check(t, err)
			if strings.Contains(path, ".") || path == "crypto/x509" {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
	if looked == 0 {
		t.Error("no file was looked at")
	}
}

// vector reads a captured message; the captures are no part of the project.
func vector(t *testing.T, name string) []byte {
	t.Helper()
	shared := os.Getenv("SCEPGATE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	b, err := os.ReadFile(filepath.Join(shared, "vectors", name))
	if os.IsNotExist(err) {
		t.Skipf("no captured messages: SCEPGATE_SHARED names no folder with vectors/%s", name)
	}
	check(t, err)
	return b
}

func TestCapturedInputsMeanTheSameToBothReaders(t *testing.T) {
	w := newWorld(t, 1)
	t.Run("request", func(t *testing.T) {
		if accepted, problem := compareRequest(vector(t, "apple_2016_csr.der")); !accepted || problem != "" {
			t.Errorf("accepted %t, %s", accepted, problem)
		}
	})
	t.Run("message", func(t *testing.T) {
		if f, problem := w.compareMessage(vector(t, "PKCSReq.der")); f == nil || problem != "" {
			t.Errorf("%+v, %s", f, problem)
		}
	})
}
