package gate

import (
	"bytes"
	"testing"
)

func TestHashesAreKeyedAndSeparated(t *testing.T) {
	h := judgeHasher(t)
	other, err := NewHasher(bytes.Repeat([]byte{8}, 32))
	if err != nil {
		t.Fatal(err)
	}
	// Whatever differs in key, profile, use or text has another hash; parts that
	// only join to the same text are not the same.
	seen := map[string]string{}
	for name, sum := range map[string][]byte{
		"challenge":           h.Challenge("wifi", "12345678"),
		"other key (F24)":     other.Challenge("wifi", "12345678"),
		"other profile (A09)": h.Challenge("vpn", "12345678"),
		"other challenge":     h.Challenge("wifi", "12345679"),
		"shifted":             h.Challenge("wifi1", "2345678"),
		"identity":            h.Identity("wifi", "12345678"),
		"renewal":             h.Renewal("wifi", "12345678"),
		"renewal by serial":   h.RenewalSerial("wifi", "12345678"),
		"renewal, shifted":    h.Renewal("wifi1", "2345678"),
		"check value":         h.CheckValue(),
		"substitute":          h.SubstituteSecret(),
		"other check value":   other.CheckValue(),
		"empty challenge":     h.Challenge("wifi", ""),
		"empty profile":       h.Challenge("", "wifi"),
	} {
		if len(sum) != 32 {
			t.Errorf("%s: %d bytes", name, len(sum))
		}
		if before, ok := seen[string(sum)]; ok {
			t.Errorf("%s and %s have the same hash", name, before)
		}
		seen[string(sum)] = name
	}
	if !bytes.Equal(h.Challenge("wifi", "12345678"), judgeHasher(t).Challenge("wifi", "12345678")) {
		t.Error("a hash is not stable")
	}
}

func TestAKeyThatIsNot32BytesIsRefused(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		if h, err := NewHasher(make([]byte, n)); err == nil || h != nil {
			t.Errorf("%d bytes: accepted", n)
		}
	}
	key := make([]byte, 32)
	h, err := NewHasher(key)
	if err != nil {
		t.Fatal(err)
	}
	before := h.CheckValue()
	key[0] = 1 // the caller wipes its copy
	if !bytes.Equal(before, h.CheckValue()) {
		t.Error("the hasher holds on to the caller's slice")
	}
}

func TestAFingerprintIsEightHexDigits(t *testing.T) {
	if f := Fingerprint([]byte{0xde, 0xad, 0xbe, 0xef, 0x00}); f != "deadbeef" {
		t.Errorf("%q", f)
	}
	if f := Fingerprint(nil); f != "" {
		t.Errorf("of nothing: %q", f)
	}
}
