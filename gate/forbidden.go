package gate

import (
	"crypto/x509"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/scepgate/scepgate/plugins"
)

// Whom nobody may enrol as, whatever was registered (threat F35).
var (
	forbiddenAccounts = []string{"administrator", "krbtgt"}
	// The relative ids of Administrator, krbtgt, Domain Admins, Domain
	// Controllers, Schema Admins and Enterprise Admins.
	forbiddenRIDs = []string{"500", "502", "512", "516", "518", "519"}
)

// forbiddenIdentity says which field of id nobody may ever have, and why; ""
// if there is none. Registration asks it of every value that is written out. A
// pattern can only be asked when it has been met: the judge asks it of every request.
func forbiddenIdentity(p *Profile, id identity) (plugins.Field, string) {
	for _, rdn := range id.Subject {
		for _, a := range rdn {
			if a.Type != oidCN {
				continue
			}
			if why := forbiddenCN(p, a.Value); why != "" {
				return plugins.Subject, why
			}
		}
	}
	if why := forbiddenSubject(p, id.Subject); why != "" {
		return plugins.Subject, why
	}
	for _, n := range id.SAN {
		if n.Type != sanUPN {
			continue
		}
		if why := forbiddenUPN(n.Value); why != "" {
			return plugins.SAN, why
		}
	}
	if why := forbiddenSID(id.SID); why != "" {
		return plugins.SID, why
	}
	return "", ""
}

// forbiddenCN says why nobody may have this common name, "" if somebody may.
func forbiddenCN(p *Profile, cn string) string {
	if forbiddenAccount(cn) {
		return "the name of a privileged account"
	}
	for _, c := range authorities(p) {
		if name := fold(c.Subject.CommonName); name != "" && name == fold(cn) {
			return "the name of a CA or RA certificate"
		}
	}
	return ""
}

// forbiddenSubject says why nobody may have this subject as a whole, "" if somebody may.
func forbiddenSubject(p *Profile, subject [][]attr) string {
	var have []string
	for _, rdn := range subject {
		for _, a := range rdn {
			have = append(have, encode(a.Type, fold(a.Value)))
		}
	}
	if len(have) == 0 {
		return ""
	}
	slices.Sort(have)
	for _, c := range authorities(p) {
		var names []string
		for _, n := range c.Subject.Names {
			text, _ := n.Value.(string)
			names = append(names, encode(n.Type.String(), fold(text)))
		}
		slices.Sort(names)
		if slices.Equal(have, names) {
			return "the subject of a CA or RA certificate"
		}
	}
	return ""
}

// forbiddenUPN says why nobody may have this user principal name, "" if somebody may.
func forbiddenUPN(upn string) string {
	if forbiddenAccount(upn) {
		return "the name of a privileged account"
	}
	return ""
}

// forbiddenSID says why nobody may have this SID, "" if somebody may.
func forbiddenSID(sid string) string {
	rid := strings.TrimLeft(sid[strings.LastIndexByte(sid, '-')+1:], "0")
	if slices.Contains(forbiddenRIDs, rid) {
		return "the SID of a privileged account or group"
	}
	return ""
}

// forbiddenAccount reports whether name is a privileged account's, bare, with a
// domain before it or with a realm behind it.
func forbiddenAccount(name string) bool {
	n, _, _ := strings.Cut(fold(name), "@")
	return slices.Contains(forbiddenAccounts, n[strings.LastIndexByte(n, '\\')+1:])
}

func authorities(p *Profile) []*x509.Certificate {
	return slices.DeleteFunc(slices.Concat(p.CAs, p.RAs), func(c *x509.Certificate) bool { return c == nil })
}

// fold makes names equal that a directory may take for one another: case,
// width, accents, spaces and dots do not count (threats C34 C35). It is for
// refusing only: two names that fold alike are not the same to anything else.
func fold(s string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		if r == '.' || unicode.IsSpace(r) || unicode.Is(unicode.Mn, r) || !plainRune(r) {
			continue
		}
		b.WriteRune(unicode.ToLower(unicode.ToUpper(r)))
	}
	return b.String()
}
