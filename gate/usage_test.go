package gate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
)

func TestTemplateIsWhatNDESPicks(t *testing.T) {
	all := Templates{Signature: &Template{Name: "S"}, Encryption: &Template{Name: "E"}, GeneralPurpose: &Template{Name: "G"}}
	const d, n, k, e = "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment"
	for _, tc := range []struct {
		usage []string
		want  string // "" if NDES cannot pick
	}{
		{[]string{d}, "S"},
		{[]string{d, n}, "S"},
		{[]string{k}, "E"},
		{[]string{k, e}, "E"},
		{[]string{d, k}, "G"},
		{[]string{k, d}, "G"},
		{[]string{d, n, k}, "G"},
		{[]string{d, k, e}, "G"},
		{[]string{d, n, k, e}, "G"},
		{nil, ""},
		{[]string{n}, ""},
		{[]string{e}, ""},
		{[]string{n, e}, ""},
		{[]string{k, n}, ""},
		{[]string{d, e}, ""},
		{[]string{d, "keyAgreement"}, ""},
		{[]string{d, "keyCertSign"}, ""},
		{[]string{k, "decipherOnly"}, ""},
		{[]string{d, d}, ""},
		{[]string{"digitalsignature"}, ""},
		{[]string{d, "unknown(9)"}, ""},
	} {
		got, ok := all.pick(tc.usage)
		if ok != (tc.want != "") || ok && got.Name != tc.want || !ok && got != nil {
			t.Errorf("pick(%v) = %v, %v, want %q", tc.usage, got, ok, tc.want)
		}
		if got, ok2 := (Templates{}).pick(tc.usage); got != nil || ok2 != ok {
			t.Errorf("pick(%v) without templates = %v, %v", tc.usage, got, ok2)
		}
	}
}

func TestKeyUsageNamesAndBitsAgree(t *testing.T) {
	for bits := range inspector.KeyUsage(1 << 9) {
		got, err := parseKeyUsage(keyUsageNames(bits))
		if err != nil || got != bits {
			t.Fatalf("%b: %b, %v", bits, got, err)
		}
	}
	if d := cmp.Diff([]string{"digitalSignature", "cRLSign", "decipherOnly"}, keyUsageNames(1|1<<6|1<<8)); d != "" {
		t.Error(d)
	}
	for bit := 9; bit < 16; bit++ {
		names := keyUsageNames(1 << bit)
		if len(names) != 1 {
			t.Fatalf("bit %d disappears", bit)
		}
		if _, err := parseKeyUsage(names); err == nil {
			t.Errorf("bit %d can be expected as %s", bit, names)
		}
	}
}

func TestObjectIdentifiersHaveOneSpelling(t *testing.T) {
	for _, s := range []string{"1.3.6.1.5.5.7.3.2", "2.5.29.37.0", "0.9.2342", "2.999.3", "1.39.1", "1.2.2147483647"} {
		if !IsOID(s) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{
		"", "1", ".", "1.", ".1", "1..2", "3.1", "1.40", "0.40.1", "1.02", "01.2", "1.+2", "1.-2", "1.2 ", " 1.2", "1.2a",
		"1.2.2147483648", "1.2.99999999999999999999", "1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18.19.20.21", "1_0.2", "0x1.2",
	} {
		if IsOID(s) {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestNamesAndObjectIdentifiersAgree(t *testing.T) {
	for _, e := range ekus {
		if oid, ok := ekuOID(e.name); !ok || oid != e.oid {
			t.Errorf("%s: %s, %v", e.name, oid, ok)
		}
		if again, ok := ekuOID(ekuName(e.oid)); !ok || again != e.oid {
			t.Errorf("%s reads back as %s", e.oid, again)
		}
	}
	for _, n := range nameTypes {
		if oid, ok := attributeOID(n.name); !ok || oid != n.oid {
			t.Errorf("%s: %s, %v", n.name, oid, ok)
		}
		if again, ok := attributeOID(attributeName(n.oid)); !ok || again != n.oid {
			t.Errorf("%s reads back as %s", n.oid, again)
		}
	}
	if a, e := attributeName("1.2.3"), ekuName("1.2.3"); a != "1.2.3" || e != "1.2.3" {
		t.Error(a, e)
	}
	if _, ok := ekuOID("clientauth"); ok {
		t.Error("a purpose in another spelling is understood")
	}
	for _, want := range []string{"CN", "OU", "O", "L", "ST", "S", "C", "DC", "STREET", "E", "emailAddress", "serialNumber", "UID",
		"T", "GN", "SN", "unstructuredName", "unstructuredAddress", "dnQualifier"} {
		if _, ok := attributeOID(want); !ok {
			t.Errorf("contract §4.1: %s is missing", want)
		}
	}
	if sn, _ := attributeOID("SN"); sn == "2.5.4.5" {
		t.Error("SN is the surname, not the serial number")
	}
}
