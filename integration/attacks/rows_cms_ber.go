package main

import (
	"bytes"
	"net/http"
	"slices"

	"github.com/scepgate/scepgate/integration/wire"
)

// overrun is an element whose child claims more octets than it has.
var overrun = []byte{0x30, 0x0a, 0x30, 0x03, 0x04, 0x05, 0xaa, 0x02, 0x01, 0x07, 0x05, 0x00}

// content opens a ContentInfo: the fields of what it holds.
func contentFields(contentInfo []byte) [][]byte {
	return wire.Elements(wire.Value(wire.Value(wire.Elements(wire.Value(contentInfo))[1])))
}

// streamedEnvelope is an EnvelopedData as Apple writes it: indefinite lengths,
// the content in pieces.
func (t *try) streamedEnvelope() []byte {
	f := contentFields(t.M.Envelope.Bytes(t.settleRequest()))
	inner := wire.Elements(wire.Value(f[2]))
	inner[2] = wire.Chunks(0xa0, wire.Value(inner[2]), 512)
	f[2] = wire.Indefinite(0x30, inner...)
	return wire.Indefinite(0x30, wire.OID(wire.OIDEnvelopedData), wire.Indefinite(0xa0, wire.Indefinite(0x30, f...)))
}

// streamedMessage is a whole message in the same way, its content in pieces of n
// octets.
func (t *try) streamedMessage(n int) []byte {
	content := t.settleContent()
	f := contentFields(t.M.Bytes())
	f[2] = wire.Indefinite(0x30, wire.OID(wire.OIDData), wire.Indefinite(0xa0, wire.Chunks(0x24, content, n)))
	f[3] = wire.Streamed(f[3], 1)
	return wire.Indefinite(0x30, wire.OID(wire.OIDSignedData), wire.Indefinite(0xa0, wire.Indefinite(0x30, f...)))
}

// rowsBER: C56–C59.
func rowsBER() []vector {
	all := []vector{
		{row: "C56", variant: "a child longer than its parent, as the message", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			request: raw(func(*try) []byte { return overrun })},
		{row: "C56", variant: "a child longer than its parent, as the envelope", want: rej, reason: "malformed_message", message: func(t *try) { t.M.Content = overrun }},
		{row: "C56", variant: "a child longer than its parent, as the request", want: rej, reason: "malformed_request", message: func(t *try) { t.M.Plaintext = overrun }},
		{row: "C56", variant: "the last field of SignedData longer than SignedData", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) { d.Tail = []byte{0x04, 0x05, 0xaa}; d.After = make([]byte, 4) })},
		{row: "C56", variant: "the last field of EnvelopedData longer than EnvelopedData", want: rej, reason: "malformed_message",
			message: envelope(func(_ *try, e *wire.Envelope) { e.Tail = []byte{0x04, 0x05, 0xaa}; e.After = make([]byte, 4) })},
		{row: "C56", variant: "the last attribute longer than the attributes", want: rej, reason: "malformed_request",
			message: csr(func(_ *try, r *wire.Request) {
				r.AttributesField = wire.Explicit(0, append(r.AllAttributes(), []byte{0x30, 0x10, 0x06, 0x03})...)
			})},
		{row: "C56", variant: "the end of an indefinite length behind its parent", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			request: raw(func(*try) []byte { return []byte{0x30, 0x05, 0x30, 0x80, 0x02, 0x01, 0x07, 0x00, 0x00} })},
	}
	behind := func(after func(message []byte) []byte) func(t *try) []byte {
		return func(t *try) []byte {
			m := t.M.Bytes()
			return slices.Concat(m, after(m))
		}
	}
	all = append(all, tableOf(unanswerable("C57"), []sent{
		{"a zero octet behind the message", behind(func([]byte) []byte { return []byte{0} })},
		{"end-of-contents octets behind the message", behind(func([]byte) []byte { return []byte{0, 0} })},
		{"a line feed behind the message", behind(func([]byte) []byte { return []byte("\n") })},
		{"the message twice", behind(func(m []byte) []byte { return m })},
		{"1000 octets behind the message", behind(func([]byte) []byte { return wire.Random(1000) })},
		{"an octet behind a message of indefinite length", func(t *try) []byte { return append(t.streamedMessage(512), 0) }},
		{"an octet before the message", func(t *try) []byte { return append([]byte{0}, t.M.Bytes()...) }},
		{"the message without its last octet", func(t *try) []byte { m := t.M.Bytes(); return m[:len(m)-1] }},
		{"half of the message", func(t *try) []byte { m := t.M.Bytes(); return m[:len(m)/2] }},
	})...)

	for _, p := range []struct {
		variant string
		message func(t *try) []byte
	}{
		{"indefinite lengths in both layers and content in pieces, as Apple sends it", func(t *try) []byte { t.M.Content = t.streamedEnvelope(); return t.streamedMessage(1000) }},
		{"indefinite lengths in the outer layer", func(t *try) []byte { return t.streamedMessage(1 << 16) }},
		{"indefinite lengths in the envelope", func(t *try) []byte { t.M.Content = t.streamedEnvelope(); return t.M.Bytes() }},
		{"a signed attribute nested 12 deep", func(t *try) []byte { t.capabilities(nested(12)); return t.M.Bytes() }},
	} {
		all = append(all, vector{row: "C58", variant: p.variant, want: forwarded, act: func(t *try) { t.passes(p.message(t)) }})
	}
	all = append(all, tableOf(unanswerable("C58"), []sent{
		{"an empty SEQUENCE of indefinite length", func(*try) []byte { return []byte{0x30, 0x80, 0, 0} }},
		{"an indefinite length without an end", func(t *try) []byte { m := t.streamedMessage(1000); return m[:len(m)-2] }},
		{"an indefinite length with half an end", func(t *try) []byte { m := t.streamedMessage(1000); return m[:len(m)-1] }},
		{"a primitive element of indefinite length", func(t *try) []byte {
			t.M.SignedData.Content = append(append([]byte{0x04, 0x80}, t.settleContent()...), 0, 0)
			return t.M.Bytes()
		}},
		{"content of indefinite length in pieces that are in pieces", func(t *try) []byte {
			t.M.SignedData.Content = wire.Indefinite(0x24, wire.Chunks(0x24, t.settleContent(), 500))
			return t.M.Bytes()
		}},
		{"a SignerInfo of indefinite length", func(t *try) []byte {
			f := contentFields(t.M.Bytes())
			return wire.Sequence(wire.OID(wire.OIDSignedData), wire.Explicit(0, wire.Sequence(f[0], f[1], f[2], f[3], wire.Streamed(f[4], 2))))
		}},
		{"a certificate of indefinite length", func(t *try) []byte {
			f := contentFields(t.M.Bytes())
			return wire.Sequence(wire.OID(wire.OIDSignedData), wire.Explicit(0, wire.Sequence(f[0], f[1], f[2], wire.Streamed(f[3], 2), f[4])))
		}},
		{"a signed attribute nested 30 deep", func(t *try) []byte { t.capabilities(nested(30)); return t.M.Bytes() }},
		{"more than 4096 elements: content in pieces of one octet", func(t *try) []byte {
			t.M.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(longest))}
			return t.streamedMessage(1)
		}},
	})...)
	all = append(all,
		vector{row: "C58", variant: "more than 64 KiB, indefinite", want: pre, status: http.StatusRequestEntityTooLarge, reason: "malformed_message",
			request: raw(func(t *try) []byte { t.capabilities(wire.Octets(make([]byte, 64<<10))); return t.streamedMessage(1000) })},
		vector{row: "C58", variant: "an envelope without its end", want: rej, reason: "malformed_message",
			message: func(t *try) { c := t.streamedEnvelope(); t.M.Content = c[:len(c)-2] }},
		vector{row: "C58", variant: "a recipient of indefinite length", want: rej, reason: "malformed_message",
			message: envelope(func(_ *try, e *wire.Envelope) {
				e.Recipients = [][]byte{wire.Streamed(e.RecipientInfo(wire.Recipient{}), 1)}
			})},
	)

	outer := func(write func(value []byte) []byte) func(t *try) []byte {
		return func(t *try) []byte { return write(wire.Value(t.M.Bytes())) }
	}
	length := func(octets ...byte) func(value []byte) []byte {
		return func(v []byte) []byte {
			return slices.Concat([]byte{0x30}, octets, []byte{byte(len(v) >> 8), byte(len(v))}, v)
		}
	}
	all = append(all, tableOf(unanswerable("C59"), []sent{
		{"length 83 00 …", outer(length(0x83, 0))},
		{"length 84 00 00 …", outer(length(0x84, 0, 0))},
		{"length 88 with six leading zeros", outer(length(0x88, 0, 0, 0, 0, 0, 0))},
		{"length FF", outer(func(v []byte) []byte { return slices.Concat([]byte{0x30, 0xff}, v) })},
		{"length 84 FF FF FF FF", outer(func(v []byte) []byte { return slices.Concat([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, v) })},
		{"length 81 03 of a version", func(t *try) []byte { t.M.SignedData.Version = []byte{2, 0x81, 1, 1}; return t.M.Bytes() }},
		{"length 82 00 01 of a version", func(t *try) []byte { t.M.SignedData.Version = []byte{2, 0x82, 0, 1, 1}; return t.M.Bytes() }},
		{"a version in two octets", func(t *try) []byte { t.M.SignedData.Version = []byte{2, 2, 0, 1}; return t.M.Bytes() }},
		{"SEQUENCE under the high tag 3F 10", outer(func(v []byte) []byte {
			return slices.Concat([]byte{0x3f, 0x10, 0x82, byte(len(v) >> 8), byte(len(v))}, v)
		})},
		{"an element of high tag 1F 81 01", func(t *try) []byte { t.M.SignedData.Tail = []byte{0x1f, 0x81, 0x01, 0}; return t.M.Bytes() }},
		{"end-of-contents octets in a definite length", func(t *try) []byte { t.M.SignedData.Tail = []byte{0, 0}; return t.M.Bytes() }},
		{"end-of-contents octets with content", func(t *try) []byte { t.M.SignedData.Tail = []byte{0, 1, 0}; return t.M.Bytes() }},
		{"SEQUENCE primitive", outer(func(v []byte) []byte { return wire.TLV(0x10, v) })},
		{"SET in place of the SEQUENCE", outer(func(v []byte) []byte { return wire.TLV(0x31, v) })},
		{"the signed attributes with a long length", func(t *try) []byte {
			s := &t.M.SignedData.Signer
			s.AttributesField = wire.LongForm(0xa0, s.SignedAttributes(t.settleContent())...)
			return t.M.Bytes()
		}},
	})...)
	return append(all, table(envelopeRefused("C59"), envelope, []changed[wire.Envelope]{
		{"a long length in the recipient", func(_ *try, e *wire.Envelope) {
			e.Recipients = [][]byte{wire.LongForm(0x30, wire.Value(e.RecipientInfo(wire.Recipient{})))}
		}},
		{"a long length of the envelope", func(t *try, e *wire.Envelope) {
			t.M.Content = wire.LongForm(0x30, wire.Value(e.Bytes(t.settleRequest())))
		}},
		{"a long length of an EnvelopedData's version", func(_ *try, e *wire.Envelope) { e.Version = []byte{2, 0x81, 1, 0} }},
		{"end-of-contents octets in an EnvelopedData of definite length", func(_ *try, e *wire.Envelope) { e.Tail = []byte{0, 0} }},
		{"a high tag in an EnvelopedData", func(_ *try, e *wire.Envelope) { e.Tail = []byte{0x9f, 0x81, 0x01, 0} }},
	})...)
}

// capabilities adds a signed attribute that is not interpreted.
func (t *try) capabilities(value []byte) {
	s := &t.M.SignedData.Signer
	s.Attributes = append(s.Attributes, wire.Attribute("1.2.840.113549.1.9.15", value))
}

// nested is a SEQUENCE within a SEQUENCE, and so on.
func nested(depth int) []byte {
	if depth == 0 {
		return wire.Null()
	}
	return wire.Sequence(nested(depth - 1))
}

// rowsBombs: C60 and C61. The process must be there afterwards, and serve.
func rowsBombs() []vector {
	children := func(n int) []byte {
		return slices.Concat([]byte{0x30, 0x80}, bytes.Repeat([]byte{2, 1, 1}, n))
	}
	bomb := func(row, what string, of func(octets int) []byte) []vector {
		survive := func(variant string, send func(t *try)) vector {
			return vector{row: row, variant: variant, want: asDescribed, act: func(t *try) {
				send(t)
				t.passes(t.message(t.Device).Bytes())
			}}
		}
		return []vector{
			survive("4 MiB of "+what+", then an honest device", func(t *try) { t.stopped(of(4<<20), http.StatusRequestEntityTooLarge) }),
			survive("64 KiB of "+what+", then an honest device", func(t *try) { t.stopped(of(64<<10), http.StatusBadRequest) }),
			survive("4 KiB of "+what+", then an honest device", func(t *try) { t.stopped(of(4<<10), http.StatusBadRequest) }),
			survive("60 KiB of "+what+" as the envelope, then an honest device", func(t *try) {
				t.M.Content = of(60 << 10)
				t.turnedAway(t.M.Bytes(), "malformed_message")
			}),
			survive("60 KiB of "+what+" as the request, then an honest device", func(t *try) {
				t.M.Plaintext = of(60 << 10)
				t.turnedAway(t.M.Bytes(), "malformed_request")
			}),
			survive("48 KiB of "+what+" as an extension's value, then an honest device", func(t *try) {
				t.M.Request.Extend(wire.Extension(wire.OIDSubjectAltName, false, of(48<<10)))
				t.turnedAway(t.M.Bytes(), "malformed_request")
			}),
		}
	}
	return slices.Concat(
		bomb("C60", "nested SEQUENCEs", func(octets int) []byte { return wire.Nested(octets / 2) }),
		bomb("C61", "INTEGERs in a SEQUENCE that does not end", func(octets int) []byte { return children((octets - 2) / 3) }),
		[]vector{
			{row: "C60", variant: "SEQUENCEs nested 25 deep, definite", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
				request: raw(func(*try) []byte { return nested(25) })},
			{row: "C60", variant: "SEQUENCEs nested 25 deep, definite, as the envelope", want: rej, reason: "malformed_message",
				message: func(t *try) { t.M.Content = nested(25) }},
			{row: "C60", variant: "SEQUENCEs nested 25 deep, definite, as an attribute's value", want: rej, reason: "malformed_request",
				message: csr(func(_ *try, r *wire.Request) {
					r.Attributes = [][]byte{wire.Attribute("1.3.6.1.4.1.99999.11", nested(25))}
				})},
			{row: "C60", variant: "SEQUENCEs nested 25 deep, definite, as a SAN", want: rej, reason: "malformed_request",
				message: csr(func(_ *try, r *wire.Request) { r.Extend(wire.Extension(wire.OIDSubjectAltName, false, nested(25))) })},
			{row: "C61", variant: "4100 INTEGERs in a SEQUENCE that ends", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
				request: raw(func(*try) []byte { return append(children(4100), 0, 0) })},
			{row: "C61", variant: "4100 INTEGERs, definite, as an attribute's value", want: rej, reason: "malformed_request",
				message: csr(func(_ *try, r *wire.Request) {
					r.Attributes = [][]byte{wire.Attribute("1.3.6.1.4.1.99999.12", wire.Sequence(bytes.Repeat(wire.Int(1), 4100)))}
				})},
		},
	)
}
