package expression

import (
	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

// request is the variable request: the words of the API, and forms of the
// subject that read well in an expression.
type request struct {
	view.Facts

	CN      string  `cel:"cn"` // "" if there is none
	Subject subject `cel:"subject"`

	HasExtKeyUsage         bool `cel:"has_ext_key_usage"`
	HasApplicationPolicies bool `cel:"has_application_policies"`

	MessageType   string `cel:"message_type"`
	Renewal       bool   `cel:"renewal"`
	TransactionID string `cel:"transaction_id"`
}

// revealed is the variable request with `reveal challenge`.
type revealed struct {
	request

	Challenge string `cel:"challenge"`
	PKCS10    []byte `cel:"pkcs10"`
}

// subject is all values by type. Types has one entry for each attribute, so
// that an expression can say that there is nothing else.
type subject struct {
	Types []string `cel:"types"`

	CN                  []string `cel:"CN"`
	OU                  []string `cel:"OU"`
	O                   []string `cel:"O"`
	L                   []string `cel:"L"`
	ST                  []string `cel:"ST"`
	C                   []string `cel:"C"`
	DC                  []string `cel:"DC"`
	Street              []string `cel:"STREET"`
	EmailAddress        []string `cel:"emailAddress"`
	SerialNumber        []string `cel:"serialNumber"`
	UID                 []string `cel:"UID"`
	T                   []string `cel:"T"`
	GN                  []string `cel:"GN"`
	SN                  []string `cel:"SN"`
	UnstructuredName    []string `cel:"unstructuredName"`
	UnstructuredAddress []string `cel:"unstructuredAddress"`
	DNQualifier         []string `cel:"dnQualifier"`
}

// expectation is the variable expectation.
type expectation struct {
	view.Expectation

	Registered bool `cel:"registered"`
}

// variables are the values of one question.
func (m *Matcher) variables(r *plugins.Request) map[string]any {
	q := request{
		Facts:                  view.Of(&r.Facts),
		HasExtKeyUsage:         r.Facts.HasExtKeyUsage,
		HasApplicationPolicies: r.Facts.HasApplicationPolicies,
		MessageType:            r.MessageType,
		Renewal:                r.Renewal,
		TransactionID:          r.TransactionID,
	}
	q.Subject.fill(q.SubjectRDNs)
	if len(q.Subject.CN) == 1 {
		q.CN = q.Subject.CN[0]
	}
	var shown any = &q
	if m.config.Reveal {
		shown = &revealed{request: q, Challenge: r.Challenge, PKCS10: r.PKCS10}
	}
	return map[string]any{
		"request":     shown,
		"expectation": &expectation{Expectation: view.Expected(&r.Expectation), Registered: r.Expectation.ID != ""},
		"profile":     r.Profile,
		"client_ip":   r.ClientIP,
		"user_agent":  r.UserAgent,
		"query":       r.Query,
		"now":         m.config.Now(),
	}
}

func (s *subject) fill(rdns [][]view.Attribute) {
	lists := map[string]*[]string{
		"CN": &s.CN, "OU": &s.OU, "O": &s.O, "L": &s.L, "ST": &s.ST, "C": &s.C, "DC": &s.DC,
		"STREET": &s.Street, "emailAddress": &s.EmailAddress, "serialNumber": &s.SerialNumber,
		"UID": &s.UID, "T": &s.T, "GN": &s.GN, "SN": &s.SN, "unstructuredName": &s.UnstructuredName,
		"unstructuredAddress": &s.UnstructuredAddress, "dnQualifier": &s.DNQualifier,
	}
	for _, rdn := range rdns {
		for _, a := range rdn {
			s.Types = append(s.Types, a.Type)
			if list := lists[a.Type]; list != nil {
				*list = append(*list, a.Value)
			}
		}
	}
}
