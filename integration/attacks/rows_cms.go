package main

import (
	"crypto/x509"
	"math/big"
	"net/http"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsCMS: C3, the CMS layers. What stands in the way of an answer, the outer
// layer, gets a bare 400 (contract §3) where the catalogue has a refusal.
func rowsCMS() []vector {
	return byRow(
		rowsRecipients(), rowsEnvelopeProfile(), rowsContentTypes(),
		rowsContentCipher(), rowsPadding(),
		rowsBER(), rowsBombs(),
		rowsSignerInfos(), rowsSignerCertificates(), rowsSignedAttributes(), rowsSignedContent(), rowsDigests(),
		rowsKeyTransport(), rowsOddCertificates(),
	)
}

// envelopeRefused is a refusal for the form of the envelope.
func envelopeRefused(row string) vector {
	return vector{row: row, want: rej, reason: "malformed_message"}
}

// unanswerable is the answer to an outer layer that gives nothing to answer with.
func unanswerable(row string) vector {
	return vector{row: row, want: pre, status: http.StatusBadRequest, reason: "malformed_message"}
}

// rowsRecipients: C44–C46, for whom the content key is.
func rowsRecipients() []vector {
	// foreign is a recipient that nobody here knows, with a key for nobody.
	foreign := func(t *try, e *wire.Envelope) []byte {
		return e.RecipientInfo(wire.Recipient{ID: serialOf(t, 4711), EncryptedKey: wire.Random(256)})
	}
	all := table(envelopeRefused("C44"), envelope, []changed[wire.Envelope]{
		{"two recipients, both the RA, with different content keys", func(_ *try, e *wire.Envelope) {
			other := wire.Envelope{To: e.To}
			e.Recipients = [][]byte{e.RecipientInfo(wire.Recipient{}), other.RecipientInfo(wire.Recipient{})}
		}},
		{"two recipients, both the RA, the right content key last", func(_ *try, e *wire.Envelope) {
			other := wire.Envelope{To: e.To}
			e.Recipients = [][]byte{other.RecipientInfo(wire.Recipient{}), e.RecipientInfo(wire.Recipient{})}
		}},
		{"the same recipient twice", func(_ *try, e *wire.Envelope) {
			r := e.RecipientInfo(wire.Recipient{})
			e.Recipients = [][]byte{r, r}
		}},
		{"two recipients: a foreign one, then the RA", func(t *try, e *wire.Envelope) {
			e.Recipients = [][]byte{foreign(t, e), e.RecipientInfo(wire.Recipient{})}
		}},
		{"two recipients: the RA, then a foreign one", func(t *try, e *wire.Envelope) {
			e.Recipients = [][]byte{e.RecipientInfo(wire.Recipient{}), foreign(t, e)}
		}},
		{"no recipient", func(_ *try, e *wire.Envelope) { e.Recipients = [][]byte{} }},
	})

	all = append(all, table(vector{row: "C45", want: rej, reason: "undecryptable"}, envelope, []changed[wire.Envelope]{
		{"a recipient of the RA's issuer and another serial number", func(t *try, e *wire.Envelope) { e.Recipient.ID = serialOf(t, 4711) }},
		{"a recipient of another issuer and the RA's serial number", func(t *try, e *wire.Envelope) {
			e.Recipient.ID = wire.Sequence(wire.CommonName("Another CA"), wire.BigInt(t.RA.SerialNumber))
		}},
		{"a recipient of an issuer without a name", func(t *try, e *wire.Envelope) {
			e.Recipient.ID = wire.Sequence(wire.Name(), wire.BigInt(t.RA.SerialNumber))
		}},
		{"the RA's serial number, negative", func(t *try, e *wire.Envelope) {
			e.Recipient.ID = wire.Sequence(t.RA.RawIssuer, wire.BigInt(new(big.Int).Neg(t.RA.SerialNumber)))
		}},
	})...)
	for _, r := range []struct {
		variant string
		to      func(t *try) *x509.Certificate
	}{
		{"encrypted to the RA's other certificate, the enrollment agent's", func(t *try) *x509.Certificate { return t.NDES.Signing }},
		{"encrypted to the CA certificate", func(t *try) *x509.Certificate { return t.NDES.CA }},
		{"encrypted to the RA's key, in the name of an expired RA certificate", func(t *try) *x509.Certificate {
			expired := *t.RA
			expired.SerialNumber = big.NewInt(2)
			return &expired
		}},
	} {
		all = append(all, vector{row: "C45", variant: r.variant, want: rej, act: func(t *try) {
			t.M.Envelope.To = r.to(t)
			t.turnedAway(t.M.Bytes(), "undecryptable")
		}})
	}

	keyWrap := wire.Sequence(wire.OID("2.16.840.1.101.3.4.1.5"))
	only := func(info func(t *try, e *wire.Envelope) []byte) func(*try, *wire.Envelope) {
		return func(t *try, e *wire.Envelope) { e.Recipients = [][]byte{info(t, e)} }
	}
	return append(all, table(envelopeRefused("C46"), envelope, []changed[wire.Envelope]{
		{"recipient by subject key identifier, version 2", only(func(t *try, e *wire.Envelope) []byte {
			return e.RecipientInfo(wire.Recipient{Version: wire.Int(2), ID: wire.Implicit(0, t.RA.SubjectKeyId)})
		})},
		{"recipient by subject key identifier, version 0", only(func(t *try, e *wire.Envelope) []byte {
			return e.RecipientInfo(wire.Recipient{ID: wire.Implicit(0, t.RA.SubjectKeyId)})
		})},
		{"KeyAgreeRecipientInfo [1]", only(func(t *try, _ *wire.Envelope) []byte {
			return wire.Explicit(1, wire.Int(3), wire.Explicit(0, wire.IssuerAndSerial(t.RA)), keyWrap,
				wire.Sequence(wire.Sequence(wire.IssuerAndSerial(t.RA), wire.Octets(wire.Random(24)))))
		})},
		{"KEKRecipientInfo [2]", only(func(*try, *wire.Envelope) []byte {
			return wire.Explicit(2, wire.Int(4), wire.Sequence(wire.Octets([]byte("kek"))), keyWrap, wire.Octets(wire.Random(24)))
		})},
		{"PasswordRecipientInfo [3], the challenge as password", only(func(*try, *wire.Envelope) []byte {
			pbkdf2 := wire.Value(wire.Sequence(wire.OID("1.2.840.113549.1.5.12"), wire.Sequence(wire.Octets(wire.Random(8)), wire.Int(2048))))
			return wire.Explicit(3, wire.Int(0), wire.Explicit(0, pbkdf2), wire.Sequence(wire.OID("1.2.840.113549.1.9.16.3.9"), keyWrap), wire.Octets(wire.Random(32)))
		})},
		{"OtherRecipientInfo [4]", only(func(*try, *wire.Envelope) []byte {
			return wire.Explicit(4, wire.OID("1.3.6.1.4.1.99999.4"), wire.Null())
		})},
		{"a PasswordRecipientInfo beside the RA", func(_ *try, e *wire.Envelope) {
			e.Recipients = [][]byte{e.RecipientInfo(wire.Recipient{}), wire.Explicit(3, wire.Int(0), keyWrap, wire.Octets(wire.Random(32)))}
		}},
	})...)
}

// serialOf names a certificate that the RA's issuer did not issue.
func serialOf(t *try, serial int64) []byte {
	return wire.Sequence(t.RA.RawIssuer, wire.Int(serial))
}

// rowsEnvelopeProfile: C47, what an EnvelopedData may carry besides.
func rowsEnvelopeProfile() []vector {
	version := func(n int64) func(*try, *wire.Envelope) {
		return func(_ *try, e *wire.Envelope) { e.Version = wire.Int(n) }
	}
	return table(envelopeRefused("C47"), envelope, []changed[wire.Envelope]{
		{"originatorInfo [0]", func(t *try, e *wire.Envelope) { e.Originator = wire.Explicit(0, wire.Explicit(0, t.Device.SelfSigned)) }},
		{"an empty originatorInfo [0]", func(_ *try, e *wire.Envelope) { e.Originator = wire.Explicit(0) }},
		{"unprotectedAttrs [1]", func(_ *try, e *wire.Envelope) {
			e.Unprotected = wire.Explicit(1, wire.Attribute(wire.OIDMessageType, wire.Printable("17")))
		}},
		{"EnvelopedData of version 1", version(1)},
		{"EnvelopedData of version 2", version(2)},
		{"EnvelopedData of version 99", version(99)},
		{"EnvelopedData without a version", func(_ *try, e *wire.Envelope) { e.Version = []byte{} }},
		{"RecipientInfo of version 7", func(_ *try, e *wire.Envelope) { e.Recipient.Version = wire.Int(7) }},
		{"one element more in the RecipientInfo", func(_ *try, e *wire.Envelope) { e.Recipient.Tail = wire.Null() }},
		{"one element more in the EncryptedContentInfo", func(_ *try, e *wire.Envelope) { e.InnerTail = wire.Null() }},
		{"one element more in the EnvelopedData", func(_ *try, e *wire.Envelope) { e.Tail = wire.Null() }},
		{"two EnvelopedDatas in one ContentInfo", func(t *try, e *wire.Envelope) {
			second := wire.Envelope{To: e.To}
			r := t.M.Request
			r.SetSubject("administrator")
			e.ContentTail = wire.Value(wire.Elements(wire.Value(second.Bytes(r.Bytes())))[1])
		}},
		{"one element more in the ContentInfo", func(t *try, e *wire.Envelope) {
			t.M.Content = wire.Sequence(wire.Value(e.Bytes(t.settleRequest())), wire.Null())
		}},
		{"an octet behind the ContentInfo", func(_ *try, e *wire.Envelope) { e.After = []byte{0} }},
		{"a second ContentInfo behind the first", func(t *try, e *wire.Envelope) {
			second := wire.Envelope{To: e.To}
			e.After = second.Bytes(t.settleRequest())
		}},
		{"encrypted contentType signedData", func(_ *try, e *wire.Envelope) { e.InnerType = wire.OID(wire.OIDSignedData) }},
		{"encrypted contentType envelopedData", func(_ *try, e *wire.Envelope) { e.InnerType = wire.OID(wire.OIDEnvelopedData) }},
		{"encrypted contentType that nobody knows", func(_ *try, e *wire.Envelope) { e.InnerType = wire.OID("1.3.6.1.4.1.99999.5") }},
		{"no encrypted content", func(_ *try, e *wire.Envelope) { e.ContentField = []byte{} }},
		{"encrypted content as OCTET STRING", func(_ *try, e *wire.Envelope) { e.ContentField = wire.Octets(wire.Random(64)) }},
		{"recipients in a SEQUENCE", func(t *try, e *wire.Envelope) {
			v := wire.Elements(wire.Value(wire.Value(wire.Elements(wire.Value(e.Bytes(t.settleRequest())))[1])))
			v[1] = wire.Sequence(wire.Value(v[1]))
			t.M.Content = wire.Sequence(wire.OID(wire.OIDEnvelopedData), wire.Explicit(0, wire.Sequence(v...)))
		}},
	})
}

// rowsContentTypes: C48, other kinds of CMS within, and in place of, the two.
func rowsContentTypes() []vector {
	info := func(oid string, content ...[]byte) []byte {
		return wire.Sequence(wire.OID(oid), wire.Explicit(0, wire.Sequence(content...)))
	}
	gcm := wire.Sequence(wire.OID(wire.OIDAES128GCM), wire.Sequence(wire.Octets(wire.Random(12)), wire.Int(16)))
	kinds := []struct {
		name string
		make func(t *try) []byte
	}{
		{"AuthEnvelopedData", func(t *try) []byte {
			return info(wire.OIDAuthEnvelopedData, wire.Int(0), wire.Set(t.M.Envelope.RecipientInfo(wire.Recipient{})),
				wire.Sequence(wire.OID(wire.OIDData), gcm, wire.Implicit(0, wire.Random(512))), wire.Octets(wire.Random(16)))
		}},
		{"AuthEnvelopedData with a nonce of 1024 octets", func(t *try) []byte {
			long := wire.Sequence(wire.OID(wire.OIDAES128GCM), wire.Sequence(wire.Octets(wire.Random(1024)), wire.Int(16)))
			return info(wire.OIDAuthEnvelopedData, wire.Int(0), wire.Set(t.M.Envelope.RecipientInfo(wire.Recipient{})),
				wire.Sequence(wire.OID(wire.OIDData), long, wire.Implicit(0, wire.Random(512))), wire.Octets(wire.Random(16)))
		}},
		{"EncryptedData", func(*try) []byte {
			return info(wire.OIDEncryptedData, wire.Int(0),
				wire.Sequence(wire.OID(wire.OIDData), wire.Algorithm(wire.OIDAES128CBC, wire.Octets(wire.Random(16))), wire.Implicit(0, wire.Random(512))))
		}},
		{"CompressedData", func(t *try) []byte {
			return info(wire.OIDCompressedData, wire.Int(0), wire.Sequence(wire.OID("1.2.840.113549.1.9.16.3.8")),
				wire.Sequence(wire.OID(wire.OIDData), wire.Explicit(0, wire.Octets(deflated(t.settleRequest())))))
		}},
		{"CompressedData of zeros, 8 MiB in 8 KiB", func(*try) []byte {
			return info(wire.OIDCompressedData, wire.Int(0), wire.Sequence(wire.OID("1.2.840.113549.1.9.16.3.8")),
				wire.Sequence(wire.OID(wire.OIDData), wire.Explicit(0, wire.Octets(deflated(make([]byte, 8<<20))))))
		}},
		{"DigestedData", func(t *try) []byte {
			return info(wire.OIDDigestedData, wire.Int(0), wire.Algorithm(wire.OIDSHA256),
				wire.Sequence(wire.OID(wire.OIDData), wire.Explicit(0, wire.Octets(t.settleRequest()))), wire.Octets(wire.Random(32)))
		}},
		{"bare data, the PKCS#10", func(t *try) []byte {
			return wire.Sequence(wire.OID(wire.OIDData), wire.Explicit(0, wire.Octets(t.settleRequest())))
		}},
		{"the bare PKCS#10", func(t *try) []byte { return t.settleRequest() }},
	}
	var all []vector
	for _, k := range kinds {
		within := envelopeRefused("C48")
		within.variant, within.message = k.name+" within the SignedData", func(t *try) { t.M.Content = k.make(t) }
		instead := unanswerable("C48")
		instead.variant, instead.request = k.name+" in place of the SignedData", raw(k.make)
		all = append(all, within, instead)
	}
	return append(all,
		vector{row: "C48", variant: "SignedData within the SignedData", want: rej, reason: "malformed_message", message: func(t *try) {
			inner := *t.M
			t.M.Content = inner.Bytes()
		}},
		vector{row: "C48", variant: "EnvelopedData in place of the SignedData", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			request: raw(func(t *try) []byte { return t.settleContent() })},
		vector{row: "C48", variant: "SignedData under the name of EnvelopedData", want: pre, status: http.StatusBadRequest, reason: "malformed_message",
			message: signed(func(_ *try, d *wire.SignedData) { d.ContentType = wire.OID(wire.OIDEnvelopedData) })},
		vector{row: "C48", variant: "EnvelopedData under the name of EncryptedData", want: rej, reason: "malformed_message",
			message: envelope(func(_ *try, e *wire.Envelope) { e.ContentType = wire.OID(wire.OIDEncryptedData) })},
	)
}
