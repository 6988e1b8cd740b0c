package inspector

import (
	"strings"
	"testing"
	"unicode/utf16"
)

func TestNameSkeletonIsTheSameWhateverTheString(t *testing.T) {
	const ca = "Corp_Issuing CA Ł1"
	name := func(tag byte, value string) []byte {
		return tlv(0x30, tlv(0x31, tlv(0x30, tlv(0x06, []byte{0x55, 4, 3}), tlv(tag, []byte(value)))))
	}
	var bmp, universal strings.Builder
	for _, u := range utf16.Encode([]rune(ca)) {
		bmp.Write([]byte{byte(u >> 8), byte(u)})
	}
	for _, r := range ca {
		universal.Write([]byte{byte(r >> 24), byte(r >> 16), byte(r >> 8), byte(r)})
	}
	want := NameSkeleton(name(0x0c, ca))
	if want != "/2.5.4.3=corpissuingcał1" {
		t.Fatalf("skeleton %q", want)
	}
	for form, raw := range map[string][]byte{
		"VisibleString":        name(0x1a, ca),
		"PrintableString":      name(0x13, ca),
		"GeneralString":        name(0x1b, ca),
		"UTF8String, NUL":      name(0x0c, ca+"\x00"),
		"upper case and blank": name(0x0c, " "+strings.ToUpper(ca)+" "),
		"BMPString":            name(0x1e, bmp.String()),
		"UniversalString":      name(0x1c, universal.String()),
	} {
		if got := NameSkeleton(raw); got != want {
			t.Errorf("%s: %q, want %q", form, got, want)
		}
	}
	if NameSkeleton(name(0x14, "Z\xfcrich CA")) != NameSkeleton(name(0x0c, "Zürich CA")) {
		t.Error("TeletexString differs")
	}
	if NameSkeleton(name(0x0c, "another")) == want {
		t.Error("another name is the same")
	}
	for _, raw := range [][]byte{nil, {0x30}, {0x30, 0x80, 0, 0}, tlv(0x31), tlv(0x30, tlv(0x31, tlv(0x30)))} {
		if got := NameSkeleton(raw); got != "" {
			t.Errorf("%x: %q", raw, got)
		}
	}
}
