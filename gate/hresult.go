package gate

import (
	"fmt"

	"github.com/scepgate/scepgate/inspector"
)

// transient reports whether a HRESULT says nothing lasting: the CA, its
// revocation information or the network was away (architecture, "The life of an
// expectation").
func transient(code uint32) bool {
	switch code {
	case 0x80092012, 0x80092013, 0x800705b4:
		return true
	}
	return code >= 0x80070600 && code <= 0x800706ff // RPC
}

// meanings says what NDES and the CA mean by the codes that operators meet.
var meanings = map[uint32]string{
	0x80004005: "unspecified error at NDES or the CA",
	0x80070002: "NDES lacks a setting or a file",
	0x80070057: "NDES did not accept a parameter",
	0x80070005: "NDES has no access to the CA or the template",
	0x80070490: "NDES does not know this password (expired, used or never made)",
	0x800705b4: "the CA did not answer in time",
	0x800706ba: "the CA cannot be reached (RPC)",
	0x80090005: "NDES could not decrypt the request",
	0x80092012: "revocation could not be checked",
	0x80092013: "the revocation server is offline",
	0x80094001: "the CA did not accept the subject",
	0x80094012: "NDES may not enrol for the template",
	0x80094014: "a manager of the CA denied the request",
	0x80094800: "the CA does not offer the template",
	0x80094811: "the key is too short for the template",
	0x80096004: "NDES wanted a challenge and found none",
	0x800b0109: "a certificate chain ends in an untrusted root",
	0x800b0110: "challenge already used at NDES",
}

// hresult renders the Microsoft error attributes of an answer for operators.
func hresult(rep *inspector.CertRep) (code, text string) {
	text = rep.ServerMessage
	if rep.HasHRESULT {
		code = fmt.Sprintf("0x%08x", rep.HRESULT)
		meaning := meanings[rep.HRESULT]
		switch {
		case meaning != "" && text != "":
			text = meaning + ": " + text
		case meaning != "":
			text = meaning
		}
	}
	return code, safe(text, maxFieldText)
}
