package plugins

import (
	"errors"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/scepgate/scepgate/plugins/proto/scepgate/matcher/v1"
)

// What is kept of what the other side says.
const (
	maxMessage   = 1 << 20 // bytes of a gRPC message, either way
	maxFindings  = 16
	maxText      = 4 << 10 // bytes of what a finding expected or got
	maxErrorText = 512
	maxWord      = 64 // bytes of a code or of a field's name: what is longer is none, and stays none
)

// unsendable checks that m can go over the wire as it is, and gives the code of
// the refusal if not. Nothing is replaced or cut on the way out: what a matcher
// sees would differ from what it answers for.
func unsendable(m proto.Message) (code string) {
	b, err := proto.Marshal(m)
	switch {
	case err != nil: // the format takes UTF-8 only; nothing else in these messages can fail
		return "not_utf8"
	case len(b) > maxMessage:
		return "too_large"
	}
	return ""
}

func requestOut(r *Request) *pb.MatchRequest {
	return &pb.MatchRequest{
		Profile:       r.Profile,
		Decides:       fieldsOut(r.Decides),
		Facts:         factsOut(&r.Facts),
		Expectation:   expectationOut(&r.Expectation),
		MessageType:   r.MessageType,
		Renewal:       r.Renewal,
		TransactionId: r.TransactionID,
		ClientIp:      r.ClientIP,
		UserAgent:     r.UserAgent,
		Query:         r.Query,
		Challenge:     r.Challenge,
		Pkcs10:        r.PKCS10,
	}
}

func requestIn(m *pb.MatchRequest) Request {
	return Request{
		Profile:       m.GetProfile(),
		Decides:       fieldsIn(m.GetDecides()),
		Facts:         factsIn(m.GetFacts()),
		Expectation:   expectationIn(m.GetExpectation()),
		MessageType:   m.GetMessageType(),
		Renewal:       m.GetRenewal(),
		TransactionID: m.GetTransactionId(),
		ClientIP:      m.GetClientIp(),
		UserAgent:     m.GetUserAgent(),
		Query:         m.GetQuery(),
		Challenge:     m.GetChallenge(),
		PKCS10:        m.GetPkcs10(),
	}
}

func factsOut(f *Facts) *pb.Facts {
	m := &pb.Facts{
		Sids:                   f.SIDs,
		KeyUsage:               f.KeyUsage,
		HasExtKeyUsage:         f.HasExtKeyUsage,
		ExtKeyUsage:            f.ExtKeyUsage,
		HasApplicationPolicies: f.HasApplicationPolicies,
		ApplicationPolicies:    f.ApplicationPolicies,
		Template:               f.Template,
		TemplateOid:            f.TemplateOID,
		RequestTemplateName:    f.RequestTemplateName,
		RequestTemplateOid:     f.RequestTemplateOID,
		KeyBits:                int64(f.KeyBits),
		Spki:                   f.SPKI,
		SpkiSha256:             f.SPKISHA256,
		RequestSha256:          f.RequestSHA256,
	}
	for _, rdn := range f.Subject {
		out := new(pb.RelativeDistinguishedName)
		for _, a := range rdn {
			out.Attributes = append(out.Attributes, &pb.NameAttribute{Type: a.Type, Value: a.Value})
		}
		m.Subject = append(m.Subject, out)
	}
	for _, n := range f.SAN {
		m.San = append(m.San, &pb.AltName{Type: n.Type, Value: n.Value})
	}
	return m
}

func factsIn(m *pb.Facts) Facts {
	f := Facts{
		SIDs:                   m.GetSids(),
		KeyUsage:               m.GetKeyUsage(),
		HasExtKeyUsage:         m.GetHasExtKeyUsage(),
		ExtKeyUsage:            m.GetExtKeyUsage(),
		HasApplicationPolicies: m.GetHasApplicationPolicies(),
		ApplicationPolicies:    m.GetApplicationPolicies(),
		Template:               m.GetTemplate(),
		TemplateOID:            m.GetTemplateOid(),
		RequestTemplateName:    m.GetRequestTemplateName(),
		RequestTemplateOID:     m.GetRequestTemplateOid(),
		KeyBits:                number(m.GetKeyBits()),
		SPKI:                   m.GetSpki(),
		SPKISHA256:             m.GetSpkiSha256(),
		RequestSHA256:          m.GetRequestSha256(),
	}
	for _, rdn := range m.GetSubject() {
		var in []NameAttribute
		for _, a := range rdn.GetAttributes() {
			in = append(in, NameAttribute{Type: a.GetType(), Value: a.GetValue()})
		}
		f.Subject = append(f.Subject, in)
	}
	for _, n := range m.GetSan() {
		f.SAN = append(f.SAN, AltName{Type: n.GetType(), Value: n.GetValue()})
	}
	return f
}

func expectationOut(e *Expectation) *pb.Expectation {
	m := &pb.Expectation{
		Id:                  e.ID,
		ExternalId:          e.ExternalID,
		Sid:                 e.SID,
		CertificateTemplate: e.CertificateTemplate,
		KeyUsage:            e.KeyUsage,
		ExtKeyUsage:         e.ExtKeyUsage,
		ApplicationPolicies: e.ApplicationPolicies,
		MinKeyBits:          int64(e.MinKeyBits),
		SpkiSha256:          e.SPKISHA256,
		Labels:              e.Labels,
	}
	for _, rdn := range e.Subject {
		out := new(pb.ExpectedRelativeDistinguishedName)
		for _, a := range rdn {
			out.Attributes = append(out.Attributes, &pb.ExpectedAttribute{Type: a.Type, Match: a.Match, Value: a.Value, Values: a.Values})
		}
		m.Subject = append(m.Subject, out)
	}
	for _, n := range e.SAN {
		m.San = append(m.San, &pb.ExpectedAltNames{
			Type: n.Type, Match: n.Match, Value: n.Value, Values: n.Values, Min: int64(n.Min), Max: int64(n.Max),
		})
	}
	return m
}

func expectationIn(m *pb.Expectation) Expectation {
	e := Expectation{
		ID:                  m.GetId(),
		ExternalID:          m.GetExternalId(),
		SID:                 m.GetSid(),
		CertificateTemplate: m.GetCertificateTemplate(),
		KeyUsage:            m.GetKeyUsage(),
		ExtKeyUsage:         m.GetExtKeyUsage(),
		ApplicationPolicies: m.GetApplicationPolicies(),
		MinKeyBits:          number(m.GetMinKeyBits()),
		SPKISHA256:          m.GetSpkiSha256(),
		Labels:              m.GetLabels(),
	}
	for _, rdn := range m.GetSubject() {
		var in []ExpectedAttribute
		for _, a := range rdn.GetAttributes() {
			in = append(in, ExpectedAttribute{Type: a.GetType(), Match: a.GetMatch(), Value: a.GetValue(), Values: a.GetValues()})
		}
		e.Subject = append(e.Subject, in)
	}
	for _, n := range m.GetSan() {
		e.SAN = append(e.SAN, ExpectedAltNames{
			Type: n.GetType(), Match: n.GetMatch(), Value: n.GetValue(), Values: n.GetValues(), Min: number(n.GetMin()), Max: number(n.GetMax()),
		})
	}
	return e
}

// answerOut is written by the author's side, whose text may be anything.
func answerOut(a *Answer, requestSHA256 string) *pb.MatchResponse {
	m := &pb.MatchResponse{Code: text(a.Code, maxWord), RequestSha256: requestSHA256}
	switch a.Verdict {
	case Agree:
		m.Verdict = pb.Verdict_VERDICT_AGREE
	case NotMine:
		m.Verdict = pb.Verdict_VERDICT_NOT_MINE
	default:
		m.Verdict = pb.Verdict_VERDICT_REFUSE
	}
	for _, f := range a.Findings[:min(len(a.Findings), maxFindings)] {
		m.Findings = append(m.Findings, &pb.Finding{
			Field: text(string(f.Field), maxWord), Expected: text(f.Expected, maxText), Got: text(f.Got, maxText),
		})
	}
	return m
}

var errOtherRequest = errors.New("the answer is for another request")

// answerIn reads an answer to r. Whatever is not one of the named verdicts is a
// refusal (threat F19), and the challenge that r may reveal comes back in nothing.
func answerIn(m *pb.MatchResponse, r *Request) (Answer, error) {
	if m.GetRequestSha256() != r.Facts.RequestSHA256 { // threat F19
		return Answer{}, errOtherRequest
	}
	a := Answer{Code: text(m.GetCode(), maxWord)}
	switch m.GetVerdict() {
	case pb.Verdict_VERDICT_AGREE:
		a.Verdict = Agree
	case pb.Verdict_VERDICT_NOT_MINE:
		a.Verdict = NotMine
	case pb.Verdict_VERDICT_REFUSE, pb.Verdict_VERDICT_UNSPECIFIED:
		a.Verdict = Refuse
	default:
		a.Verdict, a.Code = Refuse, "unknown_verdict"
	}
	if r.Challenge != "" && strings.Contains(a.Code, strings.ToLower(r.Challenge)) {
		a.Code = ""
	}
	findings := m.GetFindings()
	for _, f := range findings[:min(len(findings), maxFindings)] {
		a.Findings = append(a.Findings, Finding{
			Field:    Field(text(f.GetField(), maxWord)),
			Expected: text(without(f.GetExpected(), r.Challenge), maxText),
			Got:      text(without(f.GetGot(), r.Challenge), maxText),
		})
	}
	return a, nil
}

func infoOut(i Info, notified bool) *pb.DescribeResponse {
	return &pb.DescribeResponse{Name: i.Name, Version: i.Version, Decides: fieldsOut(i.Decides), Notified: notified}
}

func infoIn(m *pb.DescribeResponse) Info {
	return Info{Name: m.GetName(), Version: m.GetVersion(), Decides: fieldsIn(m.GetDecides())}
}

func outcomeOut(o *Outcome) *pb.Outcome {
	m := &pb.Outcome{
		Id:            o.ID,
		Profile:       o.Profile,
		Result:        string(o.Result),
		Reason:        o.Reason,
		Hresult:       o.HRESULT,
		Text:          o.Text,
		TransactionId: o.TransactionID,
		ExpectationId: o.ExpectationID,
		ExternalId:    o.ExternalID,
		SpkiSha256:    o.SPKISHA256,
		RequestSha256: o.RequestSHA256,
		Pkcs10:        o.PKCS10,
	}
	if !o.Time.IsZero() {
		m.Time = timestamppb.New(o.Time)
	}
	return m
}

func outcomeIn(m *pb.Outcome) Outcome {
	o := Outcome{
		ID:            m.GetId(),
		Profile:       m.GetProfile(),
		Result:        Result(m.GetResult()),
		Reason:        m.GetReason(),
		HRESULT:       m.GetHresult(),
		Text:          m.GetText(),
		TransactionID: m.GetTransactionId(),
		ExpectationID: m.GetExpectationId(),
		ExternalID:    m.GetExternalId(),
		SPKISHA256:    m.GetSpkiSha256(),
		RequestSHA256: m.GetRequestSha256(),
		PKCS10:        m.GetPkcs10(),
	}
	if t := m.GetTime(); t != nil && t.IsValid() {
		o.Time = t.AsTime()
	}
	return o
}

// fieldsOut and fieldsIn keep words that this side does not know: dropping one
// would turn a question into a smaller one.
func fieldsOut(fields []Field) []string {
	var s []string
	for _, f := range fields {
		s = append(s, string(f))
	}
	return s
}

func fieldsIn(s []string) []Field {
	var fields []Field
	for _, f := range s {
		fields = append(fields, Field(f))
	}
	return fields
}

// number keeps what an int of 32 bits cannot hold at its end, instead of
// letting it come round as a small one.
func number(n int64) int {
	return int(min(max(n, math.MinInt), math.MaxInt))
}

// text makes s UTF-8 of at most limit bytes.
func text(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "?") // never longer than what it replaces
}

// without takes a challenge out of what a matcher says about a request.
func without(s, challenge string) string {
	if challenge == "" {
		return s
	}
	return strings.ReplaceAll(s, challenge, "[challenge]")
}
