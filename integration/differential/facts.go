package differential

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"strconv"
	"strings"
)

// Facts are what a verdict rests on, in a form that two readers can be compared
// in: texts as they are, octets in hex.
type Facts struct {
	Version              string
	Subject              [][]NameAttribute
	SPKI                 string
	Modulus, Exponent    string
	Digest               string
	HasChallenge         bool
	Challenge            string
	SAN                  []AltName
	SID                  string
	HasKeyUsage          bool
	KeyUsage             []int
	ExtKeyUsage          []string
	ApplicationPolicies  []string
	TemplateName         string
	TemplateOID          string
	UnexpectedExtensions []string // in order; "critical:" before a known one that must not be
	UnexpectedAttributes []string // in order
}

// AltName is one alternative name: an address in hex, for other its tag or type.
type AltName struct{ Type, Value string }

// Facts gives what the request says. What no field can hold is named among the
// unexpected, so that nothing of the request is missing.
func (r *Request) Facts() Facts {
	f := Facts{
		Version:  r.Version.String(),
		Subject:  r.Subject,
		SPKI:     hex.EncodeToString(r.SPKI),
		Modulus:  r.Key.N.Text(16),
		Exponent: strconv.Itoa(r.Key.E),
		Digest:   r.Digest,
	}
	for _, a := range r.Attributes {
		switch value := a.meaning.(type) {
		case tree:
			f.UnexpectedAttributes = append(f.UnexpectedAttributes, a.ID)
		case taggedText:
			// Blanks alone are no challenge.
			if a.ID == challengePassword && strings.Trim(value.value, " ") != "" {
				f.HasChallenge, f.Challenge = true, value.value
			}
		case extensionList:
			for _, e := range value {
				f.take(e, r)
			}
		}
	}
	return f
}

func (f *Facts) take(e Extension, r *Request) {
	mayBeCritical := false
	switch value := e.meaning.(type) {
	case keyUsageBits:
		f.HasKeyUsage, f.KeyUsage, mayBeCritical = true, value, true
	case purposeList:
		f.ExtKeyUsage, mayBeCritical = value, true
	case nameList:
		f.SAN, mayBeCritical = value.facts(), true
	case policyList:
		f.ApplicationPolicies = value
	case objectSID:
		f.SID = string(value)
	case templateText:
		f.TemplateName = string(value)
	case templateValue:
		f.TemplateOID = value.id
	case keyIdentifier:
		if !r.isIdentifiedBy(value) {
			f.UnexpectedExtensions = append(f.UnexpectedExtensions, e.ID)
			return
		}
	case opaque:
		// One that asks for no CA says nothing.
		if e.ID == basicConstraints && bytes.Equal(value, []byte{0x30, 0}) {
			return
		}
		f.UnexpectedExtensions = append(f.UnexpectedExtensions, e.ID)
		return
	default:
		f.UnexpectedExtensions = append(f.UnexpectedExtensions, e.ID)
		return
	}
	if e.Critical && !mayBeCritical {
		f.UnexpectedExtensions = append(f.UnexpectedExtensions, "critical:"+e.ID)
	}
}

// isIdentifiedBy asks whether id is made from the request's own key, by RFC 5280
// §4.2.1.2 (1) or (2), RFC 7093 §2 (1) or its SHA-256 uncut, or SHA-1 over the
// SubjectPublicKeyInfo.
func (r *Request) isIdentifiedBy(id []byte) bool {
	info, err := single(writePublicKey(r.Key))
	must(nil, err)
	parts, err := children(info)
	must(nil, err)
	bits, err := wholeBits(parts[1])
	must(nil, err)
	short, long := sum(crypto.SHA1, bits), sum(crypto.SHA256, bits)
	eight := append([]byte{0x40 | short[12]&0x0f}, short[13:]...)
	return bytes.Equal(id, short) || bytes.Equal(id, eight) || bytes.Equal(id, long) || bytes.Equal(id, long[:20]) ||
		bytes.Equal(id, sum(crypto.SHA1, r.SPKI))
}

func (l nameList) facts() []AltName {
	var list []AltName
	for _, n := range l {
		name := AltName{"other", strconv.Itoa(n.tag)}
		switch n.tag {
		case 0:
			name.Value = n.typ
			if n.typ == userPrincipalName {
				name = AltName{"upn", string(n.value.content)}
			}
		case 1:
			name = AltName{"email", string(n.octets)}
		case 2:
			name = AltName{"dns", string(n.octets)}
		case 6:
			name = AltName{"uri", string(n.octets)}
		case 7:
			name = AltName{"ip", hex.EncodeToString(n.octets)}
		}
		list = append(list, name)
	}
	return list
}
