package interop

import (
	"crypto"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/scepgate/scepgate/integration/wire"
)

// Name attributes in the string types that clients write them in.
func printableCN(cn string) []byte {
	return wire.RDN(wire.ATV(wire.OIDCommonName, wire.Printable(cn)))
}
func utf8CN(cn string) []byte { return wire.RDN(wire.ATV(wire.OIDCommonName, wire.UTF8(cn))) }

// appleShapes: PKCS#10 version 2, 8 octets of nonce, a certificate of its own
// name with serial 1 and two critical extensions; iOS streams its CMS and
// escapes only '=' in GET.
func appleShapes() []shape {
	signer := selfSigned{
		serial: []byte{1}, digest: crypto.SHA256,
		name:       wire.Name(utf8CN("MDM SCEP SIGNER"), wire.RDN(wire.ATV(wire.OIDCountry, wire.Printable("US")))),
		extensions: [][]byte{wire.KeyUsage(7, 0x80), wire.Extension("2.5.29.37", true, wire.Sequence(wire.OID(wire.EKUClientAuth)))},
	}
	request := func(d shapeDevice, who identity, digest crypto.Hash, usage []byte) []byte {
		r := d.request(who, digest, usage)
		r.Version = wire.Int(2)
		return r.Bytes()
	}
	organization := wire.RDN(wire.ATV(wire.OIDOrganization, wire.UTF8("Example Corp")))
	payload := "com.apple.security.scep.5B0F3C0A-1F7C-4E43-9E0B-6C7B1D7A2E10"
	return []shape{{
		name: "iOS: BER, SHA-512, 3DES, GET half escaped", upperID: true,
		expect: map[string]any{
			"subject": "CN=F2LXK1ABCD,O=Example Corp", "key_usage": []string{"digitalSignature", "keyEncipherment"},
			"san": map[string]any{"dns": []string{"f2lxk1abcd.example.com"}, "email": []string{"ann@example.com"}, "upn": []string{"ann@example.com"}},
		},
		right: identity{wire.Name(organization, utf8CN("F2LXK1ABCD")), wire.SAN(wire.Email("ann@example.com"), wire.DNS("f2lxk1abcd.example.com"), wire.UPN("ann@example.com"))},
		wrong: identity{wire.Name(organization, utf8CN("F2LXK1ABCD")), wire.SAN(wire.Email("ann@example.com"), wire.DNS("f2lxk1abcd.example.com"), wire.UPN("eve@example.com"))}, reason: "san_mismatch",
		message: func(t *testing.T, d shapeDevice, who identity) []byte {
			content := berEnvelope(t, d.enveloped(request(d, who, crypto.SHA512, wire.KeyUsage(5, 0xa0)), wire.OIDDES3CBC), 1<<16)
			return berSignedData(t, d.signed(signer, crypto.SHA512, 8).Bytes(content), 1<<16)
		},
		send: get(dll, pkiOperation, "profiled/1.0 CFNetwork/811.5.4 Darwin/16.6.0", halfEscaped),
	}, {
		// A profile without Subject and Key Usage: the payload's identifier, signing only.
		name: "macOS 2016: SHA-1, 3DES, POST", upperID: true,
		expect: map[string]any{"subject": "CN=" + payload, "key_usage": []string{"digitalSignature"}},
		right:  identity{subject: wire.Name(utf8CN(payload))}, wrong: identity{subject: wire.Name(utf8CN("com.apple.security.scep.00000000"))}, reason: "subject_mismatch",
		message: func(t *testing.T, d shapeDevice, who identity) []byte {
			return d.signed(signer, crypto.SHA1, 8).Bytes(d.enveloped(request(d, who, crypto.SHA1, wire.KeyUsage(7, 0x80)), wire.OIDDES3CBC))
		},
		send: post(dll, "application/x-pki-message"),
	}}
}

// windowsShapes: a certificate "SCEP Protocol Certificate" with a critical AKI
// that names another key, SHA-1, OAEP and AES-128, a transactionID in lower
// case, and Microsoft's attributes in the request.
func windowsShapes() []shape {
	attributes := [][]byte{
		wire.Attribute(wire.OIDMSOSVersion, wire.IA5("10.0.19045.2")),
		wire.Attribute(wire.OIDMSRequestClientInfo, wire.Sequence(wire.Int(9), wire.UTF8("PC-0471.corp.example"), wire.UTF8(`CORP\PC-0471$`), wire.UTF8("omadmclient.exe"))),
		wire.Attribute(wire.OIDMSEnrollmentCSP, wire.Sequence(wire.Int(1), wire.BMP("Microsoft Software Key Storage Provider"), wire.TLV(0x03, []byte{0}))),
	}
	message := func(extensionsOID string) func(t *testing.T, d shapeDevice, who identity) []byte {
		return func(t *testing.T, d shapeDevice, who identity) []byte {
			keyID := sha1.Sum(wire.PublicKey(&d.key.PublicKey)[24:])
			skid := wire.Extension(wire.OIDSubjectKeyID, false, wire.Octets(keyID[:]))
			r := d.request(who, crypto.SHA256, wire.KeyUsage(5, 0xa0), wire.ExtKeyUsage(wire.EKUClientAuth), skid)
			r.Attributes, r.ExtensionsOID = attributes, extensionsOID
			certificate := selfSigned{
				serial: append([]byte{0x20}, wire.Random(15)...), name: wire.CommonName("SCEP Protocol Certificate"), digest: crypto.SHA1,
				extensions: [][]byte{wire.Extension("2.5.29.35", true, wire.Sequence(wire.Implicit(0, wire.Random(20)))), skid},
			}
			return d.signed(certificate, crypto.SHA1, 16).Bytes(d.envelopedOAEP(t, r.Bytes()))
		}
	}
	const agent = "Mozilla/4.0 (compatible; Win32; NDES client)"
	sid := "S-1-5-21-1004336348-1177238915-682003330-1104"
	subject := wire.Name(utf8CN("ann"), wire.RDN(wire.ATV(wire.OIDOrgUnit, wire.UTF8("Staff"))))
	device := wire.Name(printableCN("PC-0471.corp.example"))
	return []shape{{
		// Intune's challenge is a blob of some KiB.
		name: "Windows MDM: critical AKI, OAEP, AES-128, SHA-1, GET", challenge: strings.Repeat("MIAGCSqGSIb3DQEHA6CAMIACAQAxggFc", 150),
		expect: map[string]any{"subject": "OU=Staff,CN=ann", "san": map[string]any{"upn": []string{"ann@example.com"}}, "sid": sid},
		right:  identity{subject, wire.SAN(wire.UPN("ann@example.com"), wire.URI("tag:microsoft.com,2022-09-14:sid:"+sid))},
		wrong:  identity{subject, wire.SAN(wire.UPN("eve@example.com"), wire.URI("tag:microsoft.com,2022-09-14:sid:"+sid))}, reason: "san_mismatch",
		message: message(""), send: get(pkiclient, pkiOperation, agent, escaped),
	}, {
		name:   "Windows CertEnroll: Microsoft's extension attribute, SID extension, POST",
		expect: map[string]any{"subject": "CN=PC-0471.corp.example", "san": map[string]any{"dns": []string{"pc-0471.corp.example"}}, "sid": sid},
		right:  identity{device, append(wire.SAN(wire.DNS("pc-0471.corp.example")), wire.SID(sid)...)},
		wrong:  identity{device, append(wire.SAN(wire.DNS("pc-0471.corp.example")), wire.SID(sid[:len(sid)-4]+"1105")...)}, reason: "sid_mismatch",
		message: message(wire.OIDMSCertExtensions), send: post(pkiclient, "application/x-pki-message"),
	}}
}

// jscepShapes: Bouncy Castle streams CMS in OCTET STRINGs of 1000 octets and
// adds an attribute of its own. Intune's client for Android is made of it.
func jscepShapes() []shape {
	message := func(t *testing.T, d shapeDevice, who identity) []byte {
		content := berEnvelope(t, d.enveloped(d.request(who, crypto.SHA512, wire.KeyUsage(5, 0xa0)).Bytes(), wire.OIDDES3CBC), 1000)
		s := d.signed(selfSigned{serial: []byte{1}, name: who.subject, digest: crypto.SHA512}, crypto.SHA512, 16)
		s.Signer.Attributes = append(s.Signer.Attributes, wire.Attribute("1.2.840.113549.1.9.52", wire.Sequence(
			wire.Algorithm(wire.OIDSHA512), wire.TLV(0xa1, wire.OID(wire.OIDRSAEncryption), wire.Null()))))
		return berSignedData(t, s.Bytes(content), 1000)
	}
	subject := func(cn string) identity {
		return identity{wire.Name(wire.RDN(wire.ATV(wire.OIDCountry, wire.Printable("DE"))), wire.RDN(wire.ATV(wire.OIDOrganization, wire.UTF8("Müller & Söhne"))), utf8CN(cn)),
			wire.SAN(wire.URI("urn:uuid:9f0b4a6e-55b3-4a3e-8b7e-0b9d3a1d7c55"))}
	}
	expect := func(cn string) map[string]any {
		return map[string]any{"subject": fmt.Sprintf("CN=%s,O=Müller & Söhne,C=DE", cn), "san": map[string]any{"uri": []string{"urn:uuid:9f0b4a6e-55b3-4a3e-8b7e-0b9d3a1d7c55"}}}
	}
	const dalvik = "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8)"
	return []shape{
		{name: "Android: BER in pieces, SHA-512, 3DES, GET escaped", upperID: true, expect: expect("android1"), right: subject("android1"), wrong: subject("android2"), reason: "subject_mismatch",
			message: message, send: get(pkiclient, pkiOperation, dalvik, escaped)},
		{name: "jscep: plus not escaped in GET", upperID: true, expect: expect("android3"), right: subject("android3"), wrong: subject("android4"), reason: "subject_mismatch",
			message: message, send: get(pkiclient, pkiOperation, dalvik, halfEscaped)},
		{name: "jscep: POST as octet-stream", upperID: true, expect: expect("java1"), right: subject("java1"), wrong: subject("java2"), reason: "subject_mismatch",
			message: message, send: post(dll, "application/octet-stream")},
	}
}

// sscepShapes: the signer has the request's name and a serial number that no CA
// would give; base64 in lines; a second '?' in the URL; POST without a type.
func sscepShapes() []shape {
	message := func(serial func(id string) []byte) func(t *testing.T, d shapeDevice, who identity) []byte {
		return func(t *testing.T, d shapeDevice, who identity) []byte {
			sum := md5.Sum(wire.PublicKey(&d.key.PublicKey))
			id := strings.ToUpper(hex.EncodeToString(sum[:]))
			r := d.request(who, crypto.SHA256, wire.KeyUsage(5, 0xa0))
			r.Challenge = [][]byte{wire.ChallengePassword(wire.UTF8(d.challenge))} // OpenSSL without nombstr
			s := d.signed(selfSigned{serial: serial(id), name: who.subject, digest: crypto.SHA256}, crypto.SHA256, 16)
			s.Signer.TransactionID = id
			return s.Bytes(d.enveloped(r.Bytes(), wire.OIDAES256CBC))
		}
	}
	one := func(name string, serial func(id string) []byte, send sender) shape {
		cn := strings.ReplaceAll(strings.ToLower(name), " ", "-") + ".example.com"
		return shape{name: "sscep: " + name, expect: map[string]any{"subject": "CN=" + cn + ",O=Example Corp"},
			right:  identity{subject: wire.Name(wire.RDN(wire.ATV(wire.OIDOrganization, wire.UTF8("Example Corp"))), utf8CN(cn))},
			wrong:  identity{subject: wire.Name(wire.RDN(wire.ATV(wire.OIDOrganization, wire.UTF8("Example Corp"))), utf8CN("administrator"))},
			reason: "subject_mismatch", message: message(serial), send: send}
	}
	const doubled = "??operation=PKIOperation&message="
	return []shape{
		one("serial of 33 octets", func(string) []byte { return append([]byte{0, 0x80}, wire.Random(31)...) }, get(pkiclient, doubled, "", sscepWrapped)),
		one("serial is the transactionID as text", func(id string) []byte { return []byte(id) }, post(dll, "")),
		one("negative serial", func(string) []byte { return append([]byte{0x9c}, wire.Random(19)...) }, get("/CertSrv/mscep/mscep.dll", pkiOperation, "", sscepWrapped)),
	}
}

// ciscoShapes: the signer's certificate has another name than the request,
// whose last RDN holds the device's own attributes, the host name as IA5String;
// GET by HTTP/1.0 in lines.
func ciscoShapes() []shape {
	const host, agent = "r1.example.com", "User-Agent: Mozilla/4.0 (compatible; MSIE 5.0; Cisco PKI)"
	hostname := func(name string) []byte { return wire.ATV(wire.OIDUnstructuredName, wire.IA5(name)) }
	serial := wire.ATV(wire.OIDSerialNumber, wire.Printable("FTX1234ABCD"))
	address := wire.ATV(wire.OIDUnstructuredAddress, wire.Printable("192.0.2.10"))
	org := wire.RDN(wire.ATV(wire.OIDOrganization, wire.Printable("Example Corp")))
	der := func(certificate selfSigned) func(t *testing.T, d shapeDevice, who identity) []byte {
		return func(t *testing.T, d shapeDevice, who identity) []byte {
			request := d.request(who, crypto.SHA1, wire.KeyUsage(5, 0xa0)).Bytes()
			return d.signed(certificate, crypto.SHA1, 16).Bytes(d.enveloped(request, wire.OIDDES3CBC))
		}
	}
	routerName := wire.Name(wire.RDN(serial, wire.ATV(wire.OIDCommonName, wire.Printable(host)), hostname(host)))
	return []shape{{
		name: "Cisco IOS: multi-valued RDN, other signer name, HTTP 1.0 without Host", upperID: true,
		expect:  map[string]any{"subject": "CN=" + host + ",serialNumber=FTX1234ABCD+unstructuredName=" + host},
		right:   identity{subject: wire.Name(printableCN(host), wire.RDN(serial, hostname(host)))},
		wrong:   identity{subject: wire.Name(printableCN(host), wire.RDN(serial, hostname("r2.example.com")))},
		reason:  "subject_mismatch",
		message: der(selfSigned{v1: true, serial: []byte{3}, name: wire.Name(printableCN(host)), digest: crypto.SHA1}),
		send:    getHTTP10(pkiclient, ciscoWrapped, agent),
	}, {
		name: "Cisco IOS: signer named by the host name alone", upperID: true,
		expect:  map[string]any{"subject": "unstructuredName=" + host},
		right:   identity{subject: wire.Name(wire.RDN(hostname(host)))},
		wrong:   identity{subject: wire.Name(wire.RDN(serial, hostname(host)))},
		reason:  "subject_mismatch",
		message: der(selfSigned{v1: true, serial: []byte{3}, name: wire.Name(wire.RDN(hostname(host))), digest: crypto.SHA1}),
		send:    getHTTP10(dll, ciscoWrapped),
	}, {
		name:   "Cisco PIX: BER throughout, one RDN of three, serial is the transactionID as text",
		expect: map[string]any{"subject": "serialNumber=FTX1234ABCD+CN=" + host + "+unstructuredName=" + host},
		right:  identity{subject: routerName},
		wrong:  identity{subject: wire.Name(wire.RDN(serial), printableCN(host), wire.RDN(hostname(host)))}, // the same attributes, but apart
		reason: "subject_mismatch",
		message: func(t *testing.T, d shapeDevice, who identity) []byte {
			id := d.transactionID()[:32]
			content := berEnvelope(t, d.enveloped(d.request(who, crypto.SHA1, wire.KeyUsage(5, 0xa0)).Bytes(), wire.OIDDES3CBC), 1<<16)
			s := d.signed(selfSigned{v1: true, serial: []byte(id), name: routerName, digest: crypto.SHA1}, crypto.SHA1, 16)
			s.Signer.TransactionID, s.Signer.Attributes = id, nil // no signingTime
			return berSignedData(t, s.Bytes(content), 1<<16)
		},
		send: getHTTP10(pkiclient, ciscoWrapped, agent, "Host: ndes.example.com"),
	}, {
		name: "Cisco ASA: address and host name in one RDN, DNS name", upperID: true,
		expect:  map[string]any{"subject": "O=Example Corp,CN=asa.example.com,unstructuredAddress=192.0.2.10+unstructuredName=asa.example.com", "san": map[string]any{"dns": []string{"asa.example.com"}}},
		right:   identity{wire.Name(org, printableCN("asa.example.com"), wire.RDN(address, hostname("asa.example.com"))), wire.SAN(wire.DNS("asa.example.com"))},
		wrong:   identity{wire.Name(org, printableCN("asa.example.com"), wire.RDN(address, hostname("asa.example.com"))), wire.SAN(wire.DNS("dc01.example.com"))},
		reason:  "san_mismatch",
		message: der(selfSigned{serial: []byte{2}, name: wire.Name(printableCN("asa.example.com")), digest: crypto.SHA1}),
		send:    postHTTP10(pkiclient, "Content-Type: application/x-pki-message"),
	}}
}
