package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"slices"

	"github.com/scepgate/scepgate/integration/wire"
)

// issuedBefore is a certificate of the CA, and who has its key.
func (t *try) issuedBefore() (*x509.Certificate, *device) {
	for _, issue := range t.NDES.Issued() {
		for _, d := range t.Keys {
			if d.Key.PublicKey.Equal(issue.Certificate.PublicKey) {
				return issue.Certificate, d
			}
		}
	}
	panic("nothing was issued yet")
}

// signerWith is another signer of the same transaction.
func (t *try) signerWith(messageType string, d *device, certificate []byte) *wire.Signer {
	s := &t.M.SignedData.Signer
	return &wire.Signer{Key: d.Key, Certificate: certificate, MessageType: messageType, TransactionID: s.TransactionID, SenderNonce: s.SenderNonce}
}

// rowsSignerInfos: C62–C64 and C66, how many sign and how they are named.
func rowsSignerInfos() []vector {
	all := table(unanswerable("C62"), signed, []changed[wire.SignedData]{
		{"no SignerInfo: certificates only", func(_ *try, d *wire.SignedData) {
			d.Signers = [][]byte{}
			d.ContentField, d.DigestAlgorithms = []byte{}, wire.Set()
		}},
		{"no SignerInfo around an honest envelope", func(_ *try, d *wire.SignedData) { d.Signers = [][]byte{} }},
		{"no SET of SignerInfos", func(_ *try, d *wire.SignedData) { d.SignersField = []byte{} }},
	})
	all = append(all, table(unanswerable("C63"), signed, []changed[wire.SignedData]{
		{"an INTEGER in place of the SignerInfo", func(_ *try, d *wire.SignedData) { d.Signers = [][]byte{wire.Int(1)} }},
		{"an empty SignerInfo", func(_ *try, d *wire.SignedData) { d.Signers = [][]byte{wire.Sequence()} }},
		{"an INTEGER beside the SignerInfo", func(t *try, d *wire.SignedData) {
			d.Signers = [][]byte{d.Signer.Info(t.settleContent()), wire.Int(1)}
		}},
		{"SignerInfos in a SEQUENCE", func(t *try, d *wire.SignedData) {
			d.SignersField = wire.Sequence(d.Signer.Info(t.settleContent()))
		}},
		{"a malformed CRL before the SignerInfos", func(_ *try, d *wire.SignedData) { d.CRLs = wire.Explicit(1, wire.Int(1)) }},
		{"an empty field of CRLs", func(_ *try, d *wire.SignedData) { d.CRLs = wire.Explicit(1) }},
		{"a SignerInfo of version 3", func(_ *try, d *wire.SignedData) { d.Signer.Version = wire.Int(3) }},
		{"a SignedData of version 3", func(_ *try, d *wire.SignedData) { d.Version = wire.Int(3) }},
		{"a SignedData of version 99", func(_ *try, d *wire.SignedData) { d.Version = wire.Int(99) }},
		{"one element more in the SignedData", func(_ *try, d *wire.SignedData) { d.Tail = wire.Null() }},
		{"two SignedDatas in one ContentInfo", func(t *try, d *wire.SignedData) {
			second := *d
			d.ContentTail = wire.Value(wire.Elements(wire.Value(second.Bytes(t.settleContent())))[1])
		}},
	})...)
	two := func(order func(honest, other []byte) [][]byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			content, o := t.settleContent(), t.other()
			d.Certificates = [][]byte{t.Device.SelfSigned, o.SelfSigned}
			d.Signers = order(d.Signer.Info(content), t.signerWith("17", o, o.SelfSigned).Info(content))
		}
	}
	all = append(all, table(unanswerable("C64"), signed, []changed[wire.SignedData]{
		{"two signers: the device says 19, another says 17", two(func(honest, other []byte) [][]byte { return [][]byte{honest, other} })},
		{"two signers: another says 17, the device says 19", two(func(honest, other []byte) [][]byte { return [][]byte{other, honest} })},
		{"the same signer twice", two(func(honest, _ []byte) [][]byte { return [][]byte{honest, honest} })},
	})...)
	all = append(all, vector{row: "C64", variant: "two signers: the device says 19, a holder of a CA certificate says 17", want: pre, act: func(t *try) {
		certificate, holder := t.issuedBefore()
		content, d := t.settleContent(), &t.M.SignedData
		d.Certificates = [][]byte{t.Device.SelfSigned, certificate.Raw}
		d.Signers = [][]byte{d.Signer.Info(content), t.signerWith("17", holder, certificate.Raw).Info(content)}
		t.stopped(t.M.Bytes(), http.StatusBadRequest)
	}})
	keyID := wire.Implicit(0, wire.Random(20))
	return append(all, table(unanswerable("C66"), signed, []changed[wire.SignedData]{
		{"signer by subject key identifier, version 3", func(_ *try, d *wire.SignedData) {
			d.Version, d.Signer.Version, d.Signer.ID = wire.Int(3), wire.Int(3), keyID
		}},
		{"signer by subject key identifier, version 1", func(_ *try, d *wire.SignedData) { d.Signer.ID = keyID }},
		{"signer without a name", func(_ *try, d *wire.SignedData) { d.Signer.ID = []byte{} }},
	})...)
}

// withAttributes writes the signed attributes in any order and form.
func withAttributes(field func(attributes [][]byte) []byte) func(*try, *wire.SignedData) {
	return func(t *try, d *wire.SignedData) {
		d.Signer.AttributesField = field(d.Signer.SignedAttributes(t.settleContent()))
	}
}

// replaced puts these Attributes in the place of the honest one.
func replaced(oid string, attributes ...[]byte) func(*try, *wire.SignedData) {
	return func(_ *try, d *wire.SignedData) { d.Signer.Replace(oid, attributes...) }
}

// twice is an attribute with two values, in two attributes or in one SET, in
// either order.
func twice(row, name, oid string, first, second func(t *try) []byte) []vector {
	both := func(write func(a, b []byte) [][]byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) { d.Signer.Replace(oid, write(first(t), second(t))...) }
	}
	backwards := func(change func(*try, *wire.SignedData)) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			change(t, d)
			withAttributes(func(a [][]byte) []byte { slices.Reverse(a); return wire.Explicit(0, a...) })(t, d)
		}
	}
	apart := both(func(a, b []byte) [][]byte { return [][]byte{wire.Attribute(oid, a), wire.Attribute(oid, b)} })
	return table(unanswerable(row), signed, []changed[wire.SignedData]{
		{"two attributes " + name, apart},
		{"two attributes " + name + ", in the other order", backwards(apart)},
		{"two values in one " + name, both(func(a, b []byte) [][]byte { return [][]byte{wire.Attribute(oid, a, b)} })},
		{"two values in one " + name + ", in the other order", both(func(a, b []byte) [][]byte { return [][]byte{wire.Attribute(oid, b, a)} })},
	})
}

// rowsSignedAttributes: C68–C73.
func rowsSignedAttributes() []vector {
	text := func(s string) func(*try) []byte { return func(*try) []byte { return wire.Printable(s) } }
	octets := func(o func(t *try) []byte) func(*try) []byte {
		return func(t *try) []byte { return wire.Octets(o(t)) }
	}
	own := func(t *try) []byte { return t.M.SignedData.Signer.SenderNonce }
	digest := func(t *try) []byte { sum := sha256.Sum256(t.settleContent()); return sum[:] }
	random := func(n int) func(*try) []byte { return func(*try) []byte { return wire.Random(n) } }

	all := table(unanswerable("C68"), signed, []changed[wire.SignedData]{
		{"no signed attributes, a signature over the content", func(_ *try, d *wire.SignedData) { d.Signer.AttributesField = []byte{} }},
		{"no signed attributes, the content being what others sign", func(t *try, d *wire.SignedData) {
			content := wire.Set(d.Signer.SignedAttributes(t.settleContent())...)
			t.M.Content, d.Signer.AttributesField = content, []byte{}
		}},
		{"signed attributes, empty", withAttributes(func([][]byte) []byte { return wire.Explicit(0) })},
		{"signed attributes primitive", withAttributes(func(a [][]byte) []byte { return wire.Implicit(0, slices.Concat(a...)) })},
		{"signed attributes as a SET", withAttributes(func(a [][]byte) []byte { return wire.Set(a...) })},
	})
	all = append(all, table(unanswerable("C69"), signed, []changed[wire.SignedData]{
		{"no contentType", replaced(wire.OIDContentType)},
		{"contentType envelopedData around data", replaced(wire.OIDContentType, wire.Attribute(wire.OIDContentType, wire.OID(wire.OIDEnvelopedData)))},
		{"contentType as text", replaced(wire.OIDContentType, wire.Attribute(wire.OIDContentType, wire.Printable(wire.OIDData)))},
		{"eContentType envelopedData, contentType data", func(_ *try, d *wire.SignedData) { d.InnerType = wire.OID(wire.OIDEnvelopedData) }},
		{"eContentType that nobody knows, contentType data", func(_ *try, d *wire.SignedData) { d.InnerType = wire.OID("1.3.6.1.4.1.99999.7") }},
		{"eContentType and contentType envelopedData", func(_ *try, d *wire.SignedData) {
			d.InnerType = wire.OID(wire.OIDEnvelopedData)
			d.Signer.Replace(wire.OIDContentType, wire.Attribute(wire.OIDContentType, wire.OID(wire.OIDEnvelopedData)))
		}},
	})...)
	all = append(all, twice("C69", "contentType", wire.OIDContentType,
		func(*try) []byte { return wire.OID(wire.OIDData) }, func(*try) []byte { return wire.OID(wire.OIDEnvelopedData) })...)

	all = append(all, table(unanswerable("C70"), signed, []changed[wire.SignedData]{
		{"no messageDigest", replaced(wire.OIDMessageDigest)},
		{"messageDigest as BIT STRING", func(t *try, d *wire.SignedData) {
			d.Signer.Replace(wire.OIDMessageDigest, wire.Attribute(wire.OIDMessageDigest, wire.Bits(digest(t))))
		}},
		{"messageDigest without a value", replaced(wire.OIDMessageDigest, wire.Attribute(wire.OIDMessageDigest))},
	})...)
	all = append(all, twice("C70", "messageDigest", wire.OIDMessageDigest, octets(digest), octets(random(32)))...)
	unverified := unanswerable("C70")
	unverified.reason = "bad_signature"
	sum := func(change func(sum []byte) []byte) func(*try, *wire.SignedData) {
		return func(t *try, d *wire.SignedData) {
			d.Signer.Replace(wire.OIDMessageDigest, wire.Attribute(wire.OIDMessageDigest, wire.Octets(change(digest(t)))))
		}
	}
	all = append(all, table(unverified, signed, []changed[wire.SignedData]{
		{"messageDigest of other content", sum(func([]byte) []byte { return wire.Random(32) })},
		{"messageDigest without its last octet", sum(func(s []byte) []byte { return s[:31] })},
		{"messageDigest with an octet more", sum(func(s []byte) []byte { return append(s, 0) })},
		{"messageDigest empty", sum(func([]byte) []byte { return nil })},
		{"one bit of the signature flipped", func(_ *try, d *wire.SignedData) {
			key := d.Signer.Key
			d.Signer.Sign = func(b []byte) []byte { s := wire.SignRSA(key, crypto.SHA256, b); s[0] ^= 1; return s }
		}},
		{"a signature over the attributes under their own tag", func(_ *try, d *wire.SignedData) {
			key := d.Signer.Key
			d.Signer.Sign = func(b []byte) []byte {
				return wire.SignRSA(key, crypto.SHA256, append([]byte{0xa0}, b[1:]...))
			}
		}},
	})...)

	all = append(all, twice("C71", "messageType, 19 and 17", wire.OIDMessageType, text("19"), text("17"))...)
	all = append(all, twice("C71", "messageType, 19 and 19", wire.OIDMessageType, text("19"), text("19"))...)
	all = append(all, twice("C71", "transactionID", wire.OIDTransactionID,
		func(t *try) []byte { return wire.Printable(t.M.SignedData.Signer.TransactionID) }, text("another-transaction"))...)
	all = append(all, twice("C71", "senderNonce", wire.OIDSenderNonce, octets(own), octets(random(16)))...)

	messageType := func(value []byte) func(*try, *wire.SignedData) {
		return replaced(wire.OIDMessageType, wire.Attribute(wire.OIDMessageType, value))
	}
	all = append(all, table(unanswerable("C72"), signed, []changed[wire.SignedData]{
		{"messageType as UTF8String", messageType(wire.UTF8("19"))},
		{"messageType as IA5String", messageType(wire.IA5("19"))},
		{"messageType as INTEGER", messageType(wire.Int(19))},
		{"messageType as BMPString", messageType(wire.BMP("19"))},
		{"messageType 19 and a NUL", messageType(wire.Printable("19\x00"))},
		{"messageType empty", messageType(wire.Printable(""))},
		{"messageType of nine digits", messageType(wire.Printable("000000019"))},
		{"no messageType", replaced(wire.OIDMessageType)},
		{"messageType in a SEQUENCE in place of its SET", replaced(wire.OIDMessageType,
			wire.Sequence(wire.OID(wire.OIDMessageType), wire.Sequence(wire.Printable("19"))))},
		{"transactionID as UTF8String", func(_ *try, d *wire.SignedData) {
			d.Signer.Replace(wire.OIDTransactionID, wire.Attribute(wire.OIDTransactionID, wire.UTF8(d.Signer.TransactionID)))
		}},
		{"senderNonce as PrintableString", replaced(wire.OIDSenderNonce, wire.Attribute(wire.OIDSenderNonce, wire.Printable("0123456789ABCDEF")))},
		{"one element more in the messageType", replaced(wire.OIDMessageType,
			wire.Sequence(wire.OID(wire.OIDMessageType), wire.Set(wire.Printable("19")), wire.Null()))},
	})...)
	// These can be answered, so they are refused.
	all = append(all, table(vector{row: "C72", want: rej, reason: "message_type_refused"}, signed, []changed[wire.SignedData]{
		{"messageType 019", messageType(wire.Printable("019"))},
		{"messageType 19 after a space", messageType(wire.Printable(" 19"))},
		{"messageType 19 before a space", messageType(wire.Printable("19 "))},
		{"messageType +19", messageType(wire.Printable("+19"))},
		{"messageType PKCSReq", messageType(wire.Printable("PKCSReq"))},
	})...)

	unsigned := func(attributes ...[]byte) func(*try, *wire.SignedData) {
		return func(_ *try, d *wire.SignedData) { d.Signer.Unsigned = wire.Explicit(1, attributes...) }
	}
	renewal := wire.Attribute(wire.OIDMessageType, wire.Printable("17"))
	return append(all, table(unanswerable("C73"), signed, []changed[wire.SignedData]{
		{"messageType 17 among unsigned attributes", unsigned(renewal)},
		{"another transactionID among unsigned attributes", unsigned(wire.Attribute(wire.OIDTransactionID, wire.Printable("another-transaction")))},
		{"messageType among unsigned attributes only", func(t *try, d *wire.SignedData) {
			d.Signer.Replace(wire.OIDMessageType)
			unsigned(wire.Attribute(wire.OIDMessageType, wire.Printable("19")))(t, d)
		}},
		{"an unsigned attribute that nobody knows", unsigned(wire.Attribute("1.3.6.1.4.1.99999.8", wire.Null()))},
		{"unsigned attributes, empty", unsigned()},
		{"a signed attribute that nobody knows", func(_ *try, d *wire.SignedData) {
			d.Signer.Attributes = [][]byte{wire.Attribute("1.3.6.1.4.1.99999.8", wire.Null())}
		}},
		{"an extensionRequest among the signed attributes", func(_ *try, d *wire.SignedData) {
			d.Signer.Attributes = [][]byte{wire.Attribute(wire.OIDExtensionRequest, wire.Sequence(wire.SAN(wire.DNS(evil))))}
		}},
	})...)
}
