package inspector

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits of alternative names. threat C21
const (
	maxGeneralNames = 64   // entries of a subject alternative name. threat C42
	maxURI          = 2048 // bytes of a URI
	maxDNSName      = 253
	maxDNSLabel     = 63
	maxEmailLocal   = 64
)

// parseGeneralNames reads the value of a subject alternative name.
// threats C36–C42
func parseGeneralNames(n *node) ([]GeneralName, error) {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return nil, err
	}
	if len(n.children) == 0 || len(n.children) > maxGeneralNames {
		return nil, fmt.Errorf("%d names", len(n.children))
	}
	names := make([]GeneralName, 0, len(n.children))
	seen := make(map[string]bool, len(n.children))
	for i, child := range n.children {
		name, err := parseGeneralName(child)
		if err != nil {
			return nil, fmt.Errorf("name %d: %w", i, err)
		}
		key := duplicateKey(name, child)
		if seen[key] {
			return nil, fmt.Errorf("name %d: %s twice", i, name.Type)
		}
		seen[key] = true
		names = append(names, name)
	}
	return names, nil
}

// duplicateKey is equal for two names that a consumer may take for one.
func duplicateKey(name GeneralName, n *node) string {
	switch name.Type {
	case "dns", "email", "upn":
		return name.Type + " " + strings.ToLower(name.Value)
	}
	return string(n.raw)
}

// Tags of GeneralName (RFC 5280 §4.2.1.6).
const (
	nameOther        = 0
	nameEmail        = 1
	nameDNS          = 2
	nameX400         = 3
	nameDirectory    = 4
	nameEDIParty     = 5
	nameURI          = 6
	nameIP           = 7
	nameRegisteredID = 8
)

func parseGeneralName(n *node) (GeneralName, error) {
	none := GeneralName{}
	// threat C41: a universal tag or the other form of encoding is another
	// name to some readers and none to others.
	if n.class != classContext || n.tag > nameRegisteredID {
		return none, fmt.Errorf("%s is not a name", n.describe())
	}
	constructed := n.tag == nameOther || n.tag >= nameX400 && n.tag <= nameEDIParty
	if n.constructed != constructed {
		return none, fmt.Errorf("name of tag %d has the wrong form", n.tag)
	}
	var (
		name GeneralName
		err  error
	)
	switch n.tag {
	case nameOther:
		return parseOtherName(n)
	case nameEmail:
		name = GeneralName{"email", string(n.content)}
		err = checkEmail(name.Value)
	case nameDNS:
		name = GeneralName{"dns", string(n.content)}
		err = checkDNSName(name.Value)
	case nameURI:
		name = GeneralName{"uri", string(n.content)}
		err = checkURI(name.Value)
	case nameIP:
		name.Type = "ip"
		name.Value, err = ipText(n.content)
	case nameRegisteredID:
		if _, err := parseOID(n.content); err != nil {
			return none, err
		}
		name = GeneralName{"other", strconv.Itoa(n.tag)}
	default: // threat B37: kept as a fact that no expectation can name
		name = GeneralName{"other", strconv.Itoa(n.tag)}
	}
	if err != nil {
		return none, err
	}
	return name, nil
}

// parseOtherName reads otherName: a UPN in its exact form, any other type as a
// fact. threats B01, B02, B38
func parseOtherName(n *node) (GeneralName, error) {
	none := GeneralName{}
	f := n.fields()
	typ, err := f.next(classUniversal, tagOID)
	if err != nil {
		return none, err
	}
	oid, err := typ.oid()
	if err != nil {
		return none, err
	}
	value, err := f.next(classContext, 0)
	if err != nil {
		return none, err
	}
	if err := f.end(); err != nil {
		return none, err
	}
	if !value.constructed || len(value.children) != 1 {
		return none, errors.New("other name without exactly one value")
	}
	if oid != oidMSUPN {
		return GeneralName{"other", oid}, nil
	}
	upn, err := value.children[0].utf8Text(maxNameValue)
	if err != nil {
		return none, fmt.Errorf("UPN: %w", err)
	}
	if upn == "" {
		return none, errors.New("UPN is empty")
	}
	return GeneralName{"upn", upn}, nil
}

// checkDNSName wants letters, digits, hyphens. threats C36, C37, B04
func checkDNSName(s string) error {
	if len(s) == 0 || len(s) > maxDNSName {
		return fmt.Errorf("DNS name of %d bytes", len(s))
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if len(label) == 0 || len(label) > maxDNSLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("DNS name has a malformed label")
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return errors.New("DNS name has a character outside of letters, digits, hyphen")
			}
		}
	}
	// RFC 1123 §2.1: the last label is not a number, so that an address in
	// text is no name.
	if _, err := strconv.ParseUint(labels[len(labels)-1], 10, 64); err == nil {
		return errors.New("DNS name ends in a number")
	}
	return nil
}

// checkEmail wants one dot-atom, one '@', one DNS name. threat C39
func checkEmail(s string) error {
	local, domain, found := strings.Cut(s, "@")
	if !found || strings.Contains(domain, "@") {
		return errors.New("e-mail address without exactly one @")
	}
	if len(local) > maxEmailLocal {
		return fmt.Errorf("e-mail local part of %d bytes", len(local))
	}
	for _, atom := range strings.Split(local, ".") {
		if atom == "" {
			return errors.New("e-mail local part is not a dot-atom")
		}
		for i := 0; i < len(atom); i++ {
			c := atom[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
				strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 { // RFC 5322 §3.2.3 atext
				return errors.New("e-mail local part is not a dot-atom")
			}
		}
	}
	if err := checkDNSName(domain); err != nil {
		return fmt.Errorf("e-mail domain: %w", err)
	}
	return nil
}

// checkURI wants visible ASCII with a scheme and well-formed escapes. The
// bytes are what is compared, never a rendering. threats C40, B06
func checkURI(s string) error {
	if len(s) == 0 || len(s) > maxURI {
		return fmt.Errorf("URI of %d bytes", len(s))
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= 0x20 || s[i] > 0x7e {
			return errors.New("URI with a character outside of visible ASCII")
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return errors.New("URI malformed") // the cause would quote it
	}
	if _, err := url.PathUnescape(s); err != nil { // url.Parse does not look into an opaque one
		return errors.New("URI with a malformed escape")
	}
	if u.Host != "" && checkURIHost(u) != nil {
		return errors.New("URI with a malformed host")
	}
	return nil
}

// checkURIHost wants an address without zone or a DNS name, and a port that
// does not stretch the last label beyond what crypto/x509 reads.
func checkURIHost(u *url.URL) error {
	if address, err := netip.ParseAddr(u.Hostname()); err == nil && address.Zone() == "" {
		return nil
	}
	if last := u.Host[strings.LastIndexByte(u.Host, '.')+1:]; len(last) > maxDNSLabel {
		return errors.New("host label with port too long")
	}
	return checkDNSName(u.Hostname())
}

// ipText renders 4 or 16 octets. An IPv4 address dressed as IPv6 is refused: it
// would be two spellings of one address. threat C38
func ipText(b []byte) (string, error) {
	address, ok := netip.AddrFromSlice(b)
	if !ok {
		return "", fmt.Errorf("IP address of %d bytes", len(b))
	}
	if address.Is4In6() {
		return "", errors.New("IP address is IPv4-mapped")
	}
	return address.String(), nil
}

// addGeneralNames writes the value of a subject alternative name.
func addGeneralNames(b *cryptobyte.Builder, names []GeneralName) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, name := range names {
			switch name.Type {
			case "email":
				addString(b, implicit(nameEmail), name.Value)
			case "dns":
				addString(b, implicit(nameDNS), name.Value)
			case "uri":
				addString(b, implicit(nameURI), name.Value)
			case "ip":
				address, err := netip.ParseAddr(name.Value)
				if err != nil {
					b.SetError(err)
					return
				}
				addString(b, implicit(nameIP), string(address.AsSlice()))
			case "upn":
				b.AddASN1(explicit(nameOther), func(b *cryptobyte.Builder) {
					addOID(b, oidMSUPN)
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { addString(b, cbasn1.UTF8String, name.Value) })
				})
			default:
				b.SetError(fmt.Errorf("alternative name type %q can not be written", name.Type))
				return
			}
		}
	})
}

// implicit is the primitive context-specific tag n.
func implicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }
