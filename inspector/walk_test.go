package inspector

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

func TestWalkRefusesWhatHasTwoReadings(t *testing.T) {
	null := derNull()
	tests := []struct {
		name string
		raw  []byte
		mode mode
	}{
		{"empty input", nil, modeBER},
		{"one byte", []byte{0x30}, modeBER},
		{"length beyond the input", []byte{0x04, 2, 0}, modeBER},
		{"C57: trailing byte", append(derSequence(null), 0), modeBER},
		{"C57: trailing element", append(derSequence(null), null...), modeBER},
		{"C57: trailing end-of-contents", append(derSequence(null), 0, 0), modeBER},
		{"C56: child overruns its parent", []byte{0x30, 0x0a, 0x30, 3, 4, 5, 0xaa, 2, 1, 7, 5, 0}, modeBER},
		{"C56: child overruns its parent by one", []byte{0x30, 4, 0x30, 3, 5, 0, 5, 0}, modeBER},
		{"C56: indefinite child runs out of a definite parent", []byte{0x30, 4, 0x30, 0x80, 5, 0, 0, 0}, modeBER},
		{"C59: length 81 03", []byte{0x04, 0x81, 3, 1, 2, 3}, modeBER},
		{"C59: length 81 7f", append([]byte{0x04, 0x81, 0x7f}, make([]byte, 0x7f)...), modeBER},
		{"C59: length 82 00 03", []byte{0x04, 0x82, 0, 3, 1, 2, 3}, modeBER},
		{"C59: length 82 00 ff", append([]byte{0x04, 0x82, 0, 0xff}, make([]byte, 0xff)...), modeBER},
		{"C59: length 84", append([]byte{0x04, 0x84, 0, 0, 1, 0}, make([]byte, 256)...), modeBER},
		{"C59: length ff", []byte{0x04, 0xff, 1, 2}, modeBER},
		{"C59: length octets cut", []byte{0x04, 0x82, 1}, modeBER},
		{"C59: high tag number", []byte{0x1f, 0x81, 1, 0}, modeBER},
		{"C59: high tag number, context class", []byte{0xbf, 0x22, 2, 5, 0}, modeBER},
		{"C59: end-of-contents in a definite element", []byte{0x30, 4, 5, 0, 0, 0}, modeBER},
		{"C59: end-of-contents alone", []byte{0, 0}, modeBER},
		{"C59: end-of-contents with a length", []byte{0x30, 0x80, 0, 1, 0, 0, 0}, modeBER},
		{"end-of-contents missing", []byte{0x30, 0x80, 5, 0}, modeBER},
		{"end-of-contents cut", []byte{0x30, 0x80, 5, 0, 0}, modeBER},
		{"indefinite primitive", []byte{0x04, 0x80, 0, 0}, modeBER},
		{"primitive SEQUENCE", []byte{0x10, 0}, modeBER},
		{"primitive SET", []byte{0x11, 0}, modeBER},
		{"constructed INTEGER", []byte{0x22, 3, 2, 1, 1}, modeBER},
		{"constructed UTF8String", []byte{0x2c, 2, 0x0c, 0}, modeBER},
		{"constructed OCTET STRING in DER", tlv(0x24, derOctets(nil)), modeDER},
		{"C58: indefinite in DER", indefinite(0x30, null), modeDER},
		{"C58: indefinite inside of DER", derSequence(indefinite(0x30, null)), modeDER},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := walk(tt.raw, tt.mode); err == nil || n != nil {
				t.Errorf("walk = %v, %v; want an error and no node", n, err)
			}
		})
	}
}

func TestWalkAcceptsWhatRealClientsSend(t *testing.T) {
	long := derOctets(make([]byte, 70000))
	tests := []struct {
		name     string
		raw      []byte
		mode     mode
		children int
	}{
		{"primitive", derNull(), modeDER, 0},
		{"empty sequence", derSequence(), modeDER, 0},
		{"length 80", derSequence(derOctets(make([]byte, 0x80))), modeDER, 1},
		{"length ff", derSequence(derOctets(make([]byte, 0xff))), modeDER, 1},
		{"three length octets", derSequence(long, long), modeDER, 2},
		{"C58: indefinite", indefinite(0x30, derNull(), derNull()), modeBER, 2},
		{"C58: indefinite and empty", indefinite(0x30), modeBER, 0},
		{"C58: nested indefinite", indefinite(0x30, indefinite(0xa0, indefinite(0x24, derOctets([]byte("x"))))), modeBER, 1},
		{"C58: indefinite in definite", derSequence(indefinite(0x30, derNull()), derNull()), modeBER, 2},
		{"zero bytes inside of a primitive child of an indefinite", indefinite(0x30, derOctets([]byte{0, 0, 0, 0})), modeBER, 1},
		{"constructed context class", tlv(0xa3, derNull()), modeDER, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := walk(tt.raw, tt.mode)
			if err != nil {
				t.Fatal(err)
			}
			if len(n.children) != tt.children || !bytes.Equal(n.raw, tt.raw) {
				t.Errorf("%d children, raw %x", len(n.children), n.raw)
			}
		})
	}
}

func TestWalkIsBounded(t *testing.T) {
	nested := func(depth int) []byte {
		b := derNull()
		for range depth - 1 {
			b = derSequence(b)
		}
		return b
	}
	if _, err := walk(nested(maxDepth), modeDER); err != nil {
		t.Errorf("depth %d: %v", maxDepth, err)
	}
	if _, err := walk(nested(maxDepth+1), modeDER); err == nil {
		t.Errorf("depth %d accepted", maxDepth+1)
	}
	if _, err := walk(derSequence(bytes.Repeat(derNull(), maxElements-1)), modeDER); err != nil {
		t.Errorf("%d elements: %v", maxElements, err)
	}
	if _, err := walk(derSequence(bytes.Repeat(derNull(), maxElements)), modeDER); err == nil {
		t.Errorf("%d elements accepted", maxElements+1)
	}
	if _, err := walk(derOctets(make([]byte, maxInput-5)), modeDER); err != nil {
		t.Errorf("input of %d: %v", maxInput, err)
	}
	if _, err := walk(derOctets(make([]byte, maxInput-4)), modeDER); err == nil {
		t.Errorf("input of %d accepted", maxInput+1)
	}
	bombs := map[string][]byte{
		"C60: 4 MiB of 30 80":             bytes.Repeat([]byte{0x30, 0x80}, 2<<20),
		"C60: input limit of 30 80":       bytes.Repeat([]byte{0x30, 0x80}, maxInput/2),
		"C61: many children, no end":      append([]byte{0x30, 0x80}, bytes.Repeat([]byte{2, 1, 1}, maxInput/3-1)...),
		"C61: many children, indefinite":  indefinite(0x30, bytes.Repeat([]byte{2, 1, 1}, maxInput/3-4)),
		"C61: many indefinite children":   indefinite(0x30, bytes.Repeat([]byte{0x30, 0x80, 0, 0}, maxInput/4-4)),
		"one element that claims 16 MiB":  {0x04, 0x83, 0xff, 0xff, 0xff},
		"one sequence that claims 16 MiB": {0x30, 0x83, 0xff, 0xff, 0xff},
	}
	for name, raw := range bombs {
		t.Run(name, func(t *testing.T) {
			allocations := testing.AllocsPerRun(1, func() {
				if _, err := walk(raw, modeBER); err == nil {
					t.Error("accepted")
				}
			})
			if allocations > 2*maxElements {
				t.Errorf("%v allocations", allocations)
			}
			if _, err := ParseMessage(raw); err == nil {
				t.Error("ParseMessage accepted it")
			}
		})
	}
}

func mustWalk(t testing.TB, raw []byte, m mode) *node {
	t.Helper()
	n, err := walk(raw, m)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestIntegersAreMinimal(t *testing.T) {
	tests := []struct {
		content []byte
		want    string // "" is an error
	}{
		{[]byte{0}, "0"}, {[]byte{0x7f}, "127"}, {[]byte{0x80}, "-128"}, {[]byte{0, 0x80}, "128"},
		{[]byte{0xff}, "-1"}, {[]byte{0xff, 0x7f}, "-129"}, {[]byte{1, 0}, "256"},
		{nil, ""}, {[]byte{0, 0}, ""}, {[]byte{0, 0x7f}, ""}, {[]byte{0xff, 0x80}, ""}, {make([]byte, 2049), ""},
	}
	for _, tt := range tests {
		got, err := mustWalk(t, tlv(2, tt.content), modeDER).integer()
		if tt.want == "" {
			if err == nil {
				t.Errorf("%x accepted", tt.content)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%x = %v, %v; want %s", tt.content, got, err, tt.want)
		}
	}
}

func TestObjectIdentifiersHaveOneSpelling(t *testing.T) {
	for _, want := range []string{"0.0", "0.39", "1.2.840.113549.1.1.1", "1.3.6.1.4.1.311.21.8.2147483647", "2.5.29.15", "2.16.840.1.113733.1.9.2", "2.999.1", "2.40"} {
		if got, err := mustWalk(t, derOID(want), modeDER).oid(); err != nil || got != want {
			t.Errorf("%s read as %q, %v", want, got, err)
		}
	}
	long := strings.Repeat(".1", maxArcs)
	bad := map[string][]byte{
		"empty":              tlv(6),
		"arc cut":            tlv(6, []byte{0x2a, 0x86}),
		"arc not minimal":    tlv(6, []byte{0x2a, 0x80, 1}),
		"first not minimal":  tlv(6, []byte{0x80, 0x2a}),
		"arc over 2^31":      derOID("1.2.2147483648"),
		"arc over 2^64":      tlv(6, []byte{0x2a}, bytes.Repeat([]byte{0xff}, 30), []byte{1}),
		"one arc too many":   derOID("1" + long),
		"not an identifier":  derNull(),
		"relative, context":  tlv(0x86, []byte{0x2a}),
		"first arc over max": tlv(6, []byte{0x88, 0x80, 0x80, 0x80, 0}),
	}
	for name, raw := range bad {
		if got, err := mustWalk(t, raw, modeDER).oid(); err == nil {
			t.Errorf("%s: read as %s", name, got)
		}
	}
	if _, err := mustWalk(t, derOID("1"+long[2:]), modeDER).oid(); err != nil {
		t.Errorf("%d arcs: %v", maxArcs, err)
	}
}

func TestConstructedStringsHaveOnlyPrimitiveChunks(t *testing.T) {
	good := tlv(0x24, derOctets([]byte("ab")), derOctets(nil), derOctets([]byte("c")))
	if got, err := mustWalk(t, good, modeBER).octets(); err != nil || string(got) != "abc" {
		t.Errorf("joined %q, %v", got, err)
	}
	bad := map[string][]byte{
		"C55: INTEGER between": tlv(0x24, derOctets([]byte("a")), derInt(5), derOctets([]byte("b"))),
		"nested constructed":   tlv(0x24, tlv(0x24, derOctets([]byte("a")))),
		"context chunk":        tlv(0x24, tlv(0x84, []byte("a"))),
		"not a string":         derNull(),
	}
	for name, raw := range bad {
		if got, err := mustWalk(t, raw, modeBER).octets(); err == nil {
			t.Errorf("%s: read %q", name, got)
		}
	}
}

func TestSmallTypesAreDER(t *testing.T) {
	for _, raw := range [][]byte{tlv(1), tlv(1, []byte{1}), tlv(1, []byte{0, 0}), derNull()} {
		if _, err := mustWalk(t, raw, modeDER).boolean(); err == nil {
			t.Errorf("boolean %x accepted", raw)
		}
	}
	for _, raw := range [][]byte{tlv(5, []byte{0}), derInt(0)} {
		if err := mustWalk(t, raw, modeDER).null(); err == nil {
			t.Errorf("null %x accepted", raw)
		}
	}
	for _, raw := range [][]byte{tlv(3), tlv(3, []byte{8, 0}), tlv(3, []byte{1}), tlv(3, []byte{4, 0x08}), derNull()} {
		if _, _, err := mustWalk(t, raw, modeDER).bitString(); err == nil {
			t.Errorf("bit string %x accepted", raw)
		}
	}
	if bits, unused, err := mustWalk(t, tlv(3, []byte{5, 0xa0}), modeDER).bitString(); err != nil || unused != 5 || !bytes.Equal(bits, []byte{0xa0}) {
		t.Errorf("bit string = %x, %d, %v", bits, unused, err)
	}
	if _, err := mustWalk(t, tlv(3, []byte{5, 0xa0}), modeDER).wholeOctets(); err == nil {
		t.Error("unused bits accepted in whole octets")
	}
	for _, text := range []string{"a*b", "a@b", "a_b", "a\x00", "ä", "a&b"} {
		if _, err := mustWalk(t, derPrintable(text), modeDER).printable(); err == nil {
			t.Errorf("PrintableString %q accepted", text)
		}
	}
}

func TestTimesHaveSecondsAndZ(t *testing.T) {
	tests := []struct {
		tag  byte
		text string
		want string
	}{
		{23, "490101000000Z", "2049-01-01 00:00:00 +0000 UTC"},
		{23, "500101000000Z", "1950-01-01 00:00:00 +0000 UTC"},
		{23, "991231235959Z", "1999-12-31 23:59:59 +0000 UTC"},
		{24, "20500101000000Z", "2050-01-01 00:00:00 +0000 UTC"},
		{23, "4901010000Z", ""}, {23, "490101000000+0100", ""}, {23, "20490101000000Z", ""}, {23, "491301000000Z", ""},
		{24, "20500101000000.5Z", ""}, {24, "490101000000Z", ""}, {24, "20500230000000Z", ""}, {23, "", ""}, {19, "490101000000Z", ""},
	}
	for _, tt := range tests {
		got, err := mustWalk(t, tlv(tt.tag, []byte(tt.text)), modeDER).time()
		if tt.want == "" {
			if err == nil {
				t.Errorf("%q accepted as %v", tt.text, got)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%q = %v, %v", tt.text, got, err)
		}
	}
}

// FuzzWalk holds that an accepted tree covers its input without gap or
// overlap, and that DER as accepted here is DER to encoding/asn1 too.
func FuzzWalk(f *testing.F) {
	for _, seed := range [][]byte{
		derNull(), derSequence(derInt(1), derOID("1.2.3")), indefinite(0x30, indefinite(0x24, derOctets([]byte("x")))),
		{0x30, 0x0a, 0x30, 3, 4, 5, 0xaa, 2, 1, 7, 5, 0}, {0x30, 0x80, 0x30, 0x80}, {0x1f, 0x81, 1, 0}, {0x04, 0x81, 3, 1, 2, 3},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, m := range []mode{modeDER, modeBER} {
			n, err := walk(raw, m)
			if (err == nil) != (n != nil) {
				t.Fatalf("node %v with error %v", n, err)
			}
			if err != nil {
				continue
			}
			if !bytes.Equal(n.raw, raw) {
				t.Fatal("root does not cover the input")
			}
			checkTree(t, n)
			if m != modeDER {
				continue
			}
			var value asn1.RawValue
			if rest, err := asn1.Unmarshal(raw, &value); err != nil || len(rest) != 0 {
				t.Fatalf("encoding/asn1 reads it otherwise: %v, rest %x", err, rest)
			}
			if !bytes.Equal(value.Bytes, n.content) || value.Tag != n.tag || value.Class != n.class || value.IsCompound != n.constructed {
				t.Fatal("encoding/asn1 reads another element")
			}
		}
	})
}

func checkTree(t *testing.T, n *node) {
	t.Helper()
	if !n.constructed {
		if n.children != nil || n.indefinite {
			t.Fatal("primitive with children or without length")
		}
		return
	}
	var joined []byte
	for _, c := range n.children {
		joined = append(joined, c.raw...)
		checkTree(t, c)
	}
	if !bytes.Equal(joined, n.content) {
		t.Fatal("children do not cover their parent")
	}
	if _, err := n.chunks(); err == nil && len(n.children) > 0 && n.children[0].tag != tagOctetString {
		t.Fatal(errors.New("chunk of another type joined"))
	}
}
