package inspector

import "strings"

// Capabilities are the keywords of GetCACaps (RFC 8894 §3.5.2): the known ones
// in the RFC's spelling, however the server spelled them, others as sent.
type Capabilities map[string]bool

// knownCapabilities are the keywords of RFC 8894 §3.5.2, "SHA-384" which some
// servers add, and "Update" of older drafts.
var knownCapabilities = []string{
	"AES", "DES3", "GetNextCACert", "POSTPKIOperation", "Renewal",
	"SHA-1", "SHA-256", "SHA-384", "SHA-512", "SCEPStandard", "Update",
}

// Bounds of what is kept; real lists have about ten keywords.
const (
	maxCapabilities = 64
	maxCapability   = 64 // bytes of one keyword
)

// ParseCACaps reads one keyword per line, whatever ends the line. What is too
// long or too many is dropped: a capability that is not seen is not used.
func ParseCACaps(body []byte) Capabilities {
	capabilities := Capabilities{}
	isLineEnd := func(r rune) bool { return r == '\r' || r == '\n' } // RFC 8894 §3.5.2 allows LF and CRLF; certmonger takes CR too
	for line := range strings.FieldsFuncSeq(string(body[:min(len(body), maxInput)]), isLineEnd) {
		keyword := strings.TrimSpace(line)
		if keyword == "" || len(keyword) > maxCapability || len(capabilities) == maxCapabilities {
			continue
		}
		for _, known := range knownCapabilities {
			if strings.EqualFold(keyword, known) {
				keyword = known
			}
		}
		capabilities[keyword] = true
	}
	return capabilities
}
