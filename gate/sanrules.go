package gate

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The types of subject alternative names that can be expected.
const (
	sanDNS   = "dns"
	sanEmail = "email"
	sanURI   = "uri"
	sanIP    = "ip"
	sanUPN   = "upn"
)

var sanTypes = []string{sanDNS, sanEmail, sanURI, sanIP, sanUPN}

// The ways in which a value can be compared.
const (
	matchExact      = "exact"
	matchIgnoreCase = "exact_ignore_case"
	matchAnyOf      = "any_of"
	matchPrefix     = "prefix"
	matchAny        = "any"
	matchRegex      = "regex"
)

// Bounds of names. They are those of a request: what no request can carry is
// not registered (threat C21).
const (
	maxRDNs       = 64
	maxAttributes = 8   // of one RDN
	maxNameBytes  = 256 // of an attribute value or UPN
	maxAltNames   = 64  // threat C42
	maxURI        = 2048
	maxEmailLocal = 64
	maxPattern    = 256 // bytes of a regular expression
)

// altNameSyntax judges one alternative name, written out, by the grammar of a
// request (threats C36–C40). It returns it as it will be compared, or why not.
func altNameSyntax(typ, v string) (canonical, why string) {
	switch typ {
	case sanDNS:
		if !dnsName(v) {
			return "", "is not a DNS name: labels of letters, digits and inner hyphens, no dot at the end, no address"
		}
	case sanEmail:
		local, domain, _ := strings.Cut(v, "@")
		if !emailLocal(local) || !dnsName(domain) {
			return "", "is not a simple e-mail address"
		}
	case sanURI:
		return v, uriSyntax(v)
	case sanIP:
		a, err := netip.ParseAddr(v)
		switch {
		case err != nil || a.Zone() != "":
			return "", "is not an IP address"
		case a.Is4In6(): // threat C38: a second spelling of an IPv4 address
			return "", "is an IPv4 address dressed as IPv6"
		}
		return a.String(), ""
	case sanUPN:
		user, realm, _ := strings.Cut(v, "@")
		if user == "" || strings.Contains(v, " ") || len(v) > maxNameBytes || !dnsName(realm) {
			return "", "is not a user principal name: user@realm"
		}
	}
	return foldAltName(typ, v), ""
}

// dnsName reports whether s is letters, digits and hyphens in labels, and not an address.
func dnsName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Contains(l, "_") || nameLength(l, "-") != len(l) {
			return false
		}
	}
	// RFC 1123 §2.1: the last label is not a number.
	_, err := strconv.ParseUint(labels[len(labels)-1], 10, 64)
	return err != nil && len(s) <= 253
}

// emailLocal reports whether s is a dot-atom (RFC 5322 §3.2.3).
func emailLocal(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || nameLength(atom, "!#$%&'*+-/=?^`{|}~") != len(atom) {
			return false
		}
	}
	return len(s) <= maxEmailLocal
}

// uriSyntax says what is wrong with a URI, "" if nothing is (threat C40).
func uriSyntax(v string) string {
	if !printableASCII(v) || strings.ContainsAny(v, ` "<>\^{|}`+"`") {
		return "is not a URI: it has a character that must be escaped"
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme == "" {
		return "is not a URI"
	}
	if _, err := url.PathUnescape(v); err != nil { // url.Parse does not look into an opaque one
		return "is not a URI: it has a malformed escape"
	}
	if u.Host != "" {
		host := u.Hostname()
		if a, err := netip.ParseAddr(host); (err != nil || a.Zone() != "") && !dnsName(host) {
			return "is not a URI: its host is neither a name nor an address"
		}
	}
	return ""
}

// sidURI reports whether a URI could be read as one that carries a SID, however
// it is spelt (threat B06).
func sidURI(v string) bool {
	if plain, err := url.PathUnescape(v); err == nil {
		v = plain
	}
	return strings.HasPrefix(asciiLower(v), "tag:microsoft.com,")
}

// altNameKey is equal for two names that a request cannot carry both.
func altNameKey(typ, v string) string {
	if typ == sanEmail || typ == sanUPN {
		v = strings.ToLower(v)
	}
	return encode(typ, foldAltName(typ, v))
}

// sidSyntax is a SID of an account or group of a domain (S-1-5-21) or of Entra
// ID (S-1-12-1): no other stands for somebody who could enrol (threat B05).
var sidSyntax = regexp.MustCompile(`^S-1-(5-21|12-1)(-(0|[1-9][0-9]{0,9})){4}$`)

// validSID reports whether s is such a SID, in the one way to write it.
func validSID(s string) bool {
	if !sidSyntax.MatchString(s) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(s, "-")[1:], func(part string) bool {
		_, err := strconv.ParseUint(part, 10, 32)
		return err != nil
	})
}

// anchored compiles a regular expression that must match the whole value.
func anchored(pattern string) (*regexp.Regexp, error) {
	// Alone first: what is not a whole expression could break out of the anchors.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// samples are values that have nothing in common, and nobody's: a pattern that
// matches them all says nothing, one that matches any is not meant for somebody.
var samples = []string{"zq7-x.y", "zqwx", "ZQWX", "Zqwx", "4711", "q w", "zqwx@example.com", "ZQWX@example.com"}

// saysNothing reports whether a rule is met by whatever is sent.
func saysNothing(match, value string) bool {
	switch match {
	case matchAny:
		return true
	case matchRegex:
		re, err := anchored(value)
		return err == nil && !slices.ContainsFunc(samples, func(s string) bool { return !re.MatchString(s) })
	}
	return false
}

// aimsAt reports whether a pattern is meant for a privileged account. One that
// merely lets such a name pass among all others is not: it is refused when it
// is met, by forbiddenIdentity.
func aimsAt(match, value string) bool {
	switch match {
	case matchPrefix:
		p := fold(value)
		return slices.ContainsFunc(forbiddenAccounts, func(a string) bool {
			return strings.HasPrefix(p, a) || len(p) >= 5 && strings.HasPrefix(a, p)
		})
	case matchRegex:
		re, err := anchored(value)
		if err != nil || slices.ContainsFunc(samples, re.MatchString) {
			return false
		}
		for _, a := range forbiddenAccounts {
			for _, name := range []string{a, strings.ToUpper(a), strings.ToUpper(a[:1]) + a[1:]} {
				if re.MatchString(name) || re.MatchString(name+"@example.com") {
					return true
				}
			}
		}
	}
	return false
}
