package main

import (
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSID: B05 to B07, the identity that domain controllers map by (KB5014754).
func rowsSID() []vector {
	registered := map[string]any{"sid": ownSID}
	extension := func(critical bool, value []byte) []byte { return wire.Extension(wire.OIDMSSID, critical, value) }
	object := func(value []byte) []byte {
		return wire.Explicit(0, wire.OID(wire.OIDMSSIDValue), wire.Explicit(0, value))
	}
	octets := func(sid string) []byte { return wire.Octets([]byte(sid)) }
	// As the catalogue writes it, for S-1-5-21-1-2-3-500.
	literal := append([]byte{
		0x30, 0x33, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x19, 0x02, 0x04, 0x26, 0x30, 0x24, 0xa0, 0x22,
		0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x19, 0x02, 0x01, 0xa0, 0x14, 0x04, 0x12,
	}, adminSID...)
	rows := []vector{
		{row: "B05", variant: "the SID of an administrator where none is registered", want: rejStrike, reason: "sid_mismatch", finding: "sid", message: askingFor(literal)},
		{row: "B05", variant: "the SID of an administrator in place of the registered one", want: rejStrike, reason: "sid_mismatch", expect: registered, message: askingFor(literal)},
		{row: "B05", variant: "a SID with another RID", want: rejStrike, reason: "sid_mismatch", expect: registered, message: askingFor(wire.SID("S-1-5-21-1-2-3-1105"))},
		{row: "B05", variant: "a SID with another domain", want: rejStrike, reason: "sid_mismatch", expect: registered, message: askingFor(wire.SID("S-1-5-21-1-2-4-1104"))},
		{row: "B05", variant: "the registered SID with a leading zero in its RID", want: rejStrike, reason: "sid_mismatch", expect: registered,
			message: askingFor(wire.SID("S-1-5-21-1-2-3-01104"))},
		{row: "B05", variant: "the registered SID, marked critical", want: rejStrike, reason: "unexpected_extension", finding: "critical", expect: registered,
			message: askingFor(extension(true, wire.Sequence(object(octets(ownSID)))))},
		{row: "B05", variant: "the registered SID", want: forwarded, reason: "ok", expect: registered, message: askingFor(wire.SID(ownSID))},
		{row: "B05", variant: "the SIDs of administrators, registered", want: cfg, act: func(t *try) {
			for _, rid := range []string{"500", "502", "512", "516", "518", "519"} {
				t.unprocessable(map[string]any{"sid": "S-1-5-21-1-2-3-" + rid}, "identity_forbidden")
			}
			t.unprocessable(map[string]any{"sid": "S-1-5-32-544"}, "sid_syntax")
			t.unprocessable(map[string]any{"sid": "s-1-5-21-1-2-3-1104"}, "sid_syntax")
		}},
	}
	for _, v := range []struct {
		variant string
		asked   [][]byte
	}{
		{"and another in the same extension", [][]byte{extension(false, wire.Sequence(object(octets(ownSID)), object(octets(adminSID))))}},
		{"twice in the same extension", [][]byte{extension(false, wire.Sequence(object(octets(ownSID)), object(octets(ownSID))))}},
		{"and the extension once more with another", [][]byte{wire.SID(ownSID), wire.SID(adminSID)}},
		{"and the extension once more with the same", [][]byte{wire.SID(ownSID), wire.SID(ownSID)}},
		{"with a second value in the name", [][]byte{extension(false, wire.Sequence(wire.Explicit(0, wire.OID(wire.OIDMSSIDValue), wire.Explicit(0, octets(ownSID)), wire.Explicit(0, octets(adminSID)))))}},
		{"with a second string in the value", [][]byte{extension(false, wire.Sequence(wire.Explicit(0, wire.OID(wire.OIDMSSIDValue), wire.Explicit(0, octets(ownSID), octets(adminSID)))))}},
		{"with an element after the name", [][]byte{extension(false, wire.Sequence(object(octets(ownSID)), wire.Null()))}},
		{"with bytes after the value", [][]byte{extension(false, append(wire.Sequence(object(octets(ownSID))), 5, 0))}},
		{"as UTF-16", [][]byte{extension(false, wire.Sequence(object(wire.Octets(wire.BMP(ownSID)[2:]))))}},
		{"in a BMPString", [][]byte{extension(false, wire.Sequence(object(wire.BMP(ownSID))))}},
		{"in a UTF8String", [][]byte{extension(false, wire.Sequence(object(wire.UTF8(ownSID))))}},
		{"in a constructed OCTET STRING", [][]byte{extension(false, wire.Sequence(object(wire.TLV(0x24, octets(ownSID)))))}},
		{"in binary form", [][]byte{extension(false, wire.Sequence(object(wire.Octets([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0x50, 4, 0, 0}))))}},
		{"with a lower-case s", [][]byte{wire.SID("s-1-5-21-1-2-3-1104")}},
		{"with a trailing NUL", [][]byte{wire.SID(ownSID + "\x00")}},
		{"with a leading space", [][]byte{wire.SID(" " + ownSID)}},
		{"with a trailing LF", [][]byte{wire.SID(ownSID + "\n")}},
		{"with a hexadecimal authority", [][]byte{wire.SID("S-1-0x5-21-1-2-3-1104")}},
		{"under another type", [][]byte{extension(false, wire.Sequence(wire.Explicit(0, wire.OID(wire.OIDMSUPN), wire.Explicit(0, octets(ownSID)))))}},
		{"without the outer SEQUENCE", [][]byte{extension(false, object(octets(ownSID)))}},
		{"that is empty", [][]byte{wire.SID("")}},
	} {
		rows = append(rows, vector{row: "B05", variant: "the registered SID " + v.variant, want: rej, reason: "malformed_request",
			expect: registered, message: askingFor(v.asked...)})
	}

	uri := func(uris ...string) func(*try) {
		var names [][]byte
		for _, u := range uris {
			names = append(names, wire.URI(u))
		}
		return askingFor(wire.SAN(names...))
	}
	rows = append(rows,
		vector{row: "B06", variant: "the URI of an administrator's SID where none is registered", want: rejStrike, reason: "sid_mismatch", finding: "sid", message: uri(sidPrefix + adminSID)},
		vector{row: "B06", variant: "the URI of an administrator's SID in place of the registered one", want: rejStrike, reason: "sid_mismatch", expect: registered, message: uri(sidPrefix + adminSID)},
		vector{row: "B06", variant: "the URI of the registered SID", want: forwarded, reason: "ok", expect: registered, message: uri(sidPrefix + ownSID)},
		vector{row: "B06", variant: "the URI of the registered SID and another's", want: rejStrike, reason: "sid_mismatch", expect: registered, message: uri(sidPrefix+ownSID, sidPrefix+adminSID)},
		vector{row: "B06", variant: "a SID as a URI of the alternative name, registered", want: cfg, act: func(t *try) {
			for _, u := range []string{sidPrefix + ownSID, "TAG:microsoft.com,2022-09-14:sid:" + ownSID, "tag:microsoft.com,2022-09-14:sid%3A" + ownSID} {
				t.unprocessable(sanOf("uri", u), "sid_uri")
			}
		}},
		// A name twice is no list of names: structure, before the identity is judged.
		vector{row: "B06", variant: "the URI of the registered SID twice", want: rej, reason: "malformed_request", expect: registered, message: uri(sidPrefix+ownSID, sidPrefix+ownSID)})
	for _, v := range []struct{ variant, uri string }{
		{"with TAG in capitals", "TAG:microsoft.com,2022-09-14:sid:"},
		{"with Microsoft in capitals", "tag:MICROSOFT.com,2022-09-14:sid:"},
		{"with SID in capitals", "tag:microsoft.com,2022-09-14:SID:"},
		{"with an escaped colon", "tag:microsoft.com,2022-09-14:sid%3A"},
		{"with an escaped letter", "tag:microsoft.com,2022-09-14:%73id:"},
		{"with an escaped comma", "tag:microsoft.com%2C2022-09-14:sid:"},
		{"with another date", "tag:microsoft.com,2022-09-15:sid:"},
		{"without its date", "tag:microsoft.com,:sid:"},
	} {
		rows = append(rows,
			vector{row: "B06", variant: "the URI of an administrator's SID " + v.variant, want: rejStrike, reason: "sid_mismatch", message: uri(v.uri + adminSID)},
			vector{row: "B06", variant: "the URI of the registered SID " + v.variant, want: rejStrike, reason: "sid_mismatch", expect: registered, message: uri(v.uri + ownSID)})
	}

	anyURI := map[string]any{"san_rules": []any{map[string]any{"type": "uri", "match": "any", "min": 0, "max": 1}}}
	for _, u := range []string{sidPrefix, "TAG:Microsoft.com,2022-09-14:sid:", "tag:%6dicrosoft.com,2022-09-14:sid:"} {
		v := vector{row: "B06", variant: "where a pattern takes any URI, " + u + "…-500", want: rejStrike, reason: "sid_mismatch", profile: "patterns",
			expect: anyURI, message: uri(u + adminSID)}
		rows = append(rows, v)
	}
	rows = append(rows, vector{row: "B06", variant: "where a pattern takes any URI, one that is no SID", want: forwarded, reason: "ok", profile: "patterns",
		expect: anyURI, message: uri("https://pc7.corp.example/")})

	both := func(inExtension, inURI string) func(*try) {
		return askingFor(wire.SID(inExtension), wire.SAN(wire.URI(sidPrefix+inURI)))
	}
	return append(rows,
		vector{row: "B07", variant: "the registered SID in the extension, another in the URI", want: rejStrike, reason: "sid_mismatch", expect: registered, message: both(ownSID, adminSID)},
		vector{row: "B07", variant: "the registered SID in the URI, another in the extension", want: rejStrike, reason: "sid_mismatch", expect: registered, message: both(adminSID, ownSID)},
		vector{row: "B07", variant: "the registered SID in both carriers", want: rejStrike, reason: "sid_mismatch", expect: registered, message: both(ownSID, ownSID)},
		vector{row: "B07", variant: "another SID in both carriers", want: rejStrike, reason: "sid_mismatch", expect: registered, message: both(adminSID, adminSID)},
		vector{row: "B07", variant: "two SIDs where none is registered", want: rejStrike, reason: "sid_mismatch", message: both(ownSID, adminSID)})
}
