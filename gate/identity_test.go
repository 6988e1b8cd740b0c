package gate

import (
	"bytes"
	"testing"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

func TestCanonicalIdentity(t *testing.T) {
	const ou, o = "2.5.4.11", "2.5.4.10"
	base := identity{
		Subject: [][]attr{{{oidCN, "a"}, {ou, "b"}}, {{o, "c"}}, {{o, "c"}}},
		SAN:     []altName{{"dns", "a.example.com"}, {"email", "Ann@example.com"}, {"upn", "ann@example.com"}, {"uri", "urn:x"}},
		SID:     "S-1-5-21-1-2-3-1104",
	}
	for name, same := range map[string]identity{
		"order of RDNs, of their attributes and of names": {
			Subject: [][]attr{{{o, "c"}}, {{ou, "b"}, {oidCN, "a"}}, {{o, "c"}}},
			SAN:     []altName{{"uri", "urn:x"}, {"upn", "ann@example.com"}, {"email", "Ann@example.com"}, {"dns", "a.example.com"}},
			SID:     base.SID,
		},
		"case where it does not count, and a name twice": {
			Subject: base.Subject,
			SAN: []altName{{"dns", "A.Example.COM"}, {"email", "Ann@EXAMPLE.com"}, {"upn", "ANN@example.com"}, {"uri", "urn:x"},
				{"dns", "a.example.com"}},
			SID: base.SID,
		},
	} {
		if same.canonical() != base.canonical() || !bytes.Equal(same.digest("x"), base.digest("x")) {
			t.Errorf("%s makes a difference", name)
		}
	}
	change := func(f func(*identity)) identity {
		i := identity{SID: base.SID, SAN: append([]altName{}, base.SAN...)}
		for _, rdn := range base.Subject {
			i.Subject = append(i.Subject, append([]attr{}, rdn...))
		}
		f(&i)
		return i
	}
	for name, other := range map[string]identity{
		"a value":                        change(func(i *identity) { i.Subject[0][0].Value = "A" }),
		"a type":                         change(func(i *identity) { i.Subject[1][0].Type = ou }),
		"multiplicity of an RDN":         change(func(i *identity) { i.Subject = i.Subject[:2] }),
		"a multi-valued RDN split":       change(func(i *identity) { i.Subject = [][]attr{{{oidCN, "a"}}, {{ou, "b"}}, {{o, "c"}}, {{o, "c"}}} }),
		"an alternative name less":       change(func(i *identity) { i.SAN = i.SAN[1:] }),
		"an alternative name's type":     change(func(i *identity) { i.SAN[3].Type = "dns" }),
		"case of an e-mail's local part": change(func(i *identity) { i.SAN[1].Value = "ann@example.com" }),
		"case of a URI":                  change(func(i *identity) { i.SAN[3].Value = "urn:X" }),
		"Kelvin sign for k":              change(func(i *identity) { i.SAN[2].Value = "\u212aann@example.com" }),
		"the SID":                        change(func(i *identity) { i.SID = "" }),
	} {
		if other.canonical() == base.canonical() {
			t.Errorf("%s makes no difference", name)
		}
	}
	k, kelvin := identity{SAN: []altName{{"upn", "k@x"}}}, identity{SAN: []altName{{"upn", "\u212a@x"}}}
	if k.canonical() == kelvin.canonical() {
		t.Error("the Kelvin sign is a k")
	}
	if a, b := (identity{SAN: []altName{{"upn", "\xff@x"}}}), (identity{SAN: []altName{{"upn", "\xfe@x"}}}); a.canonical() == b.canonical() {
		t.Error("bytes that are not UTF-8 are all the same")
	}
	if bytes.Equal(base.digest("a", "b"), base.digest("ab")) || bytes.Equal(base.digest("a"), base.digest()) {
		t.Error("extra parts run into one another")
	}
}

func TestValuesCannotPassForStructure(t *testing.T) {
	ids := []identity{
		{},
		{SID: "x"},
		{Subject: [][]attr{{}}},
		{Subject: [][]attr{{{"", ""}}}},
		{Subject: [][]attr{{{"a", "b"}}}},
		{Subject: [][]attr{{{"ab", ""}}}},
		{Subject: [][]attr{{{"", "ab"}}}},
		{Subject: [][]attr{{{"a", "b"}, {"a", "b"}}}},
		{Subject: [][]attr{{{"a", "b"}}, {{"a", "b"}}}},
		{Subject: [][]attr{{{"a", encode("b", "c")}}}},
		{SAN: []altName{{"a", "b"}}},
		{SAN: []altName{{"ab", ""}}},
	}
	seen := map[string]int{}
	for i, id := range ids {
		if j, twice := seen[id.canonical()]; twice {
			t.Errorf("identities %d and %d are the same", i, j)
		}
		seen[id.canonical()] = i
	}
}

func TestRequestAndExpectationHaveTheSameIdentity(t *testing.T) {
	request := requestIdentity(
		[]inspector.RDN{{{Type: "2.5.4.10", Value: "o", Tag: 19}}, {{Type: oidCN, Value: "a", Tag: 12}}},
		[]inspector.GeneralName{{Type: "dns", Value: "A.example.com"}}, "S-1-5-21-1-2-3-4")
	content := store.Content{
		Subject: [][]store.Value{{{Type: oidCN, Value: "a", Match: "exact"}}, {{Type: "2.5.4.10", Value: "o", Match: "exact"}}},
		SAN:     []store.SANRule{{Type: "dns", Value: "a.example.com", Match: "exact", Min: 1, Max: 1}},
		SID:     "S-1-5-21-1-2-3-4",
	}
	expected, ok := expectedIdentity(content)
	if !ok || expected.canonical() != request.canonical() {
		t.Errorf("%v, %q and %q", ok, expected.canonical(), request.canonical())
	}
	content.SAN[0].Match = "any"
	if _, ok := expectedIdentity(content); ok {
		t.Error("a pattern has an identity")
	}
	content.SAN = nil
	content.Subject[0][0].Match = ""
	if _, ok := expectedIdentity(content); ok {
		t.Error("an attribute without a way to match has an identity")
	}
}

func TestIdentityHashIsKeyedAndBoundToTheProfile(t *testing.T) {
	a, _ := NewHasher(bytes.Repeat([]byte{1}, 32))
	b, _ := NewHasher(bytes.Repeat([]byte{2}, 32))
	c := identity{SID: "x"}.canonical()
	h := a.Identity("wifi", c)
	for name, other := range map[string][]byte{
		"another key":      b.Identity("wifi", c),
		"another profile":  a.Identity("vpn", c),
		"another identity": a.Identity("wifi", identity{}.canonical()),
		"a challenge":      a.Challenge("wifi", c),
	} {
		if bytes.Equal(h, other) {
			t.Errorf("%s has the same hash", name)
		}
	}
}
