package plugins

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	pb "github.com/scepgate/scepgate/plugins/proto/scepgate/matcher/v1"
)

// full sets every field below v to something that is not zero, and different.
func full(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(*n), 7).UTC()))
			return
		}
		for i := range v.NumField() {
			full(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			full(v.Index(i), n)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		full(key, n)
		full(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprintf("value \u00e9 %d", *n))
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Uint8:
		v.SetUint(uint64(*n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic(v.Kind())
	}
}

func TestTheWireLosesNothing(t *testing.T) {
	n := 0
	var r Request
	full(reflect.ValueOf(&r).Elem(), &n)
	if d := cmp.Diff(r, requestIn(through(t, requestOut(&r), new(pb.MatchRequest)))); d != "" {
		t.Errorf("request (-sent +received):\n%s", d)
	}
	var o Outcome
	full(reflect.ValueOf(&o).Elem(), &n)
	if d := cmp.Diff(o, outcomeIn(through(t, outcomeOut(&o), new(pb.Outcome)))); d != "" {
		t.Errorf("outcome (-sent +received):\n%s", d)
	}
	var i Info
	full(reflect.ValueOf(&i).Elem(), &n)
	if d := cmp.Diff(i, infoIn(through(t, infoOut(i, false), new(pb.DescribeResponse)))); d != "" {
		t.Errorf("info (-sent +received):\n%s", d)
	}
	for _, v := range []Verdict{Agree, Refuse, NotMine} {
		a := Answer{Verdict: v, Code: "some_code", Findings: []Finding{{SAN, "a", "b"}, {"x", "\u00e9", ""}}}
		got, err := answerIn(through(t, answerOut(&a, r.Facts.RequestSHA256), new(pb.MatchResponse)), &r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, got); d != "" {
			t.Errorf("answer (-sent +received):\n%s", d)
		}
	}
}

func TestZeroValuesCrossTheWireAsTheyAre(t *testing.T) {
	if d := cmp.Diff(Request{}, requestIn(through(t, requestOut(&Request{}), new(pb.MatchRequest)))); d != "" {
		t.Errorf("request:\n%s", d)
	}
	if d := cmp.Diff(Request{}, requestIn(nil)); d != "" {
		t.Errorf("no request:\n%s", d)
	}
	if d := cmp.Diff(Outcome{}, outcomeIn(through(t, outcomeOut(&Outcome{}), new(pb.Outcome)))); d != "" {
		t.Errorf("outcome:\n%s", d)
	}
	if a, err := answerIn(nil, &Request{}); err != nil || a.Verdict != Refuse {
		t.Errorf("no answer: %v, %v", a, err)
	}
	empty := Request{Facts: Facts{Subject: [][]NameAttribute{{}, {{}}}, SAN: []AltName{{}}, SIDs: []string{""}}}
	if d := cmp.Diff(empty, requestIn(through(t, requestOut(&empty), new(pb.MatchRequest))), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("empty parts:\n%s", d)
	}
}

func through[M proto.Message](t *testing.T, m, into M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err == nil {
		err = proto.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
	return into
}

func TestAVerdictOnTheWireIsARefusalUnlessItIsNamed(t *testing.T) {
	named := map[pb.Verdict]Verdict{pb.Verdict_VERDICT_AGREE: Agree, pb.Verdict_VERDICT_NOT_MINE: NotMine}
	for n := range pb.Verdict(64) {
		for _, v := range []pb.Verdict{n, -n, n + 1<<8, n + 1<<16} {
			a, err := answerIn(&pb.MatchResponse{Verdict: v}, &Request{})
			if err != nil || a.Verdict != named[v] { // the zero value refuses
				t.Errorf("%d is %v, %v", v, a.Verdict, err)
			}
		}
	}
	a, _ := answerIn(&pb.MatchResponse{Verdict: 9, Code: "fine"}, &Request{})
	if d := cmp.Diff(Answer{Verdict: Refuse, Code: "unknown_verdict"}, a); d != "" {
		t.Error(d)
	}
	// The author's side knows no other either.
	for _, v := range []Verdict{3, -1, 99} {
		if m := answerOut(&Answer{Verdict: v}, ""); m.Verdict != pb.Verdict_VERDICT_REFUSE {
			t.Errorf("verdict %d is sent as %s", v, m.Verdict)
		}
	}
}

func TestAnAnswerIsBoundedOnReceipt(t *testing.T) {
	m := &pb.MatchResponse{Verdict: pb.Verdict_VERDICT_REFUSE, Code: strings.Repeat("a", 1<<16)}
	for range 1000 {
		m.Findings = append(m.Findings, &pb.Finding{
			Field: strings.Repeat("f", 100), Expected: strings.Repeat("\u20ac", maxText), Got: strings.Repeat("x", 1<<10),
		})
	}
	m.Findings[1] = nil
	a, err := answerIn(m, &Request{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Code) != maxWord || len(a.Findings) != maxFindings {
		t.Errorf("a code of %d, %d findings", len(a.Code), len(a.Findings))
	}
	for i, f := range a.Findings {
		if len(f.Field) > maxWord || len(f.Expected) > maxText || !utf8.ValidString(f.Expected) || len(f.Got) > maxText {
			t.Errorf("finding %d: %d, %d, %d bytes", i, len(f.Field), len(f.Expected), len(f.Got))
		}
	}
}

func TestAnAnswerForAnotherRequestIsNone(t *testing.T) {
	r := Request{Facts: Facts{RequestSHA256: "a"}}
	for _, echo := range []string{"", "b", "A", "aa"} {
		a, err := answerIn(&pb.MatchResponse{Verdict: pb.Verdict_VERDICT_AGREE, RequestSha256: echo}, &r)
		if !errors.Is(err, errOtherRequest) || a.Verdict == Agree {
			t.Errorf("echo %q: %v, %v", echo, a, err)
		}
	}
}

func TestTheChallengeComesBackInNothing(t *testing.T) {
	const challenge = "4F7A0C91D2E83B66"
	r := Request{Challenge: challenge}
	a, err := answerIn(&pb.MatchResponse{
		Code:     "c_" + strings.ToLower(challenge),
		Findings: []*pb.Finding{{Field: "challenge", Expected: "not " + challenge + challenge, Got: strings.Repeat("x", maxText-8) + challenge}},
	}, &r)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprint(a, failure(t.Context(), "match", status.Error(codes.Unknown, "cannot look up "+challenge), challenge))
	if strings.Contains(strings.ToUpper(said), challenge[:8]) {
		t.Errorf("said %s", said)
	}
}

func TestNumbersDoNotComeRound(t *testing.T) {
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1 << 32, 1<<32 + 1, -1 << 32} {
		got := number(n)
		if (got < 0) != (n < 0) || (got == 0) != (n == 0) || int64(got) != n && got != math.MaxInt && got != math.MinInt {
			t.Errorf("%d is %d", n, got)
		}
	}
}

// fake is a matcher of functions; those that are nil do nothing.
type fake struct {
	info      Info
	match     func(ctx context.Context, r Request) (Answer, error)
	configure func(ctx context.Context, config map[string]string) error
	notified  func(ctx context.Context, o Outcome) error
}

func (f *fake) Info() Info { return f.info }

func (f *fake) Match(ctx context.Context, r Request) (Answer, error) { return f.match(ctx, r) }

type fullFake struct{ fake }

func (f *fullFake) Configure(ctx context.Context, c map[string]string) error {
	return f.configure(ctx, c)
}
func (f *fullFake) Notified(ctx context.Context, o Outcome) error { return f.notified(ctx, o) }

// over puts register's services behind a connection, with what Serve puts before them.
func over(t *testing.T, register func(*grpc.Server)) *Client {
	t.Helper()
	s := NewGRPCServer(nil)
	register(s)
	l := bufconn.Listen(1 << 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	conn, err := grpc.NewClient("passthrough:///x",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c, err := (&version1{}).GRPCClient(t.Context(), nil, conn)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Client)
}

func connected(t *testing.T, m Matcher) *Client {
	t.Helper()
	return over(t, func(s *grpc.Server) {
		if err := (&version1{m: m}).GRPCServer(nil, s); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAClientSaysWhatItsProcessIs(t *testing.T) {
	want := Info{Name: "acme", Version: "1.4.0", Decides: []Field{Subject, "a field of tomorrow"}}
	for notified, m := range map[bool]Matcher{false: &fake{info: want}, true: &fullFake{fake{info: want}}} {
		c := connected(t, m)
		if got := c.Info(); got.Name != "" || got.Decides != nil {
			t.Errorf("before it is described: %v", got)
		}
		got, wants, err := c.Describe(t.Context())
		if err != nil || wants != notified {
			t.Errorf("wants outcomes: %v, %v", wants, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("described (-want +got):\n%s", d)
		}
		c.Info().Decides[0] = "changed"
		if d := cmp.Diff(want, c.Info()); d != "" {
			t.Errorf("info (-want +got):\n%s", d)
		}
	}
}

func TestAProcessThatIsOddlyNamedIsNotTaken(t *testing.T) {
	long := make([]Field, maxDecides+1)
	for i := range long {
		long[i] = Subject
	}
	for _, i := range []Info{
		{}, {Name: "Acme"}, {Name: "a b"}, {Name: "a\n"}, {Name: "a\x00"}, {Name: strings.Repeat("a", 49)}, {Name: "\u0430"},
		{Name: "a", Version: "1\n2"}, {Name: "a", Version: strings.Repeat("1", 65)}, {Name: "a", Version: "\u00e9"},
		{Name: "a", Decides: long}, {Name: "a", Decides: []Field{""}}, {Name: "a", Decides: []Field{"x\n"}}, {Name: "a", Decides: []Field{Field(strings.Repeat("x", 65))}},
	} {
		c := connected(t, &fake{info: i})
		if got, _, err := c.Describe(t.Context()); err == nil || c.Info().Name != "" {
			t.Errorf("%q: %v, %v", i, got, err)
		}
		if i.Validate() == nil {
			t.Errorf("%q is valid", i)
		}
	}
	for _, i := range []Info{{Name: "a", Decides: []Field{"x"}}, {Name: "a", Decides: []Field{SAN, SAN}}} {
		if i.Validate() == nil {
			t.Errorf("%q is valid", i)
		}
	}
	if err := (Info{Name: "a-b_9", Decides: []Field{Challenge, Subject, SAN, SID, KeyUsage, ExtKeyUsage}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeSentIsRefusedWithoutAsking(t *testing.T) {
	c := connected(t, &fake{match: func(context.Context, Request) (Answer, error) {
		t.Error("asked")
		return Answer{Verdict: Agree}, nil
	}})
	for name, tt := range map[string]struct {
		r    Request
		code string
	}{
		"User-Agent":       {Request{UserAgent: "a\xff"}, "not_utf8"},
		"query":            {Request{Query: "\xc0\x80"}, "not_utf8"},
		"subject":          {Request{Facts: Facts{Subject: [][]NameAttribute{{{"2.5.4.3", "\xed\xa0\x80"}}}}}, "not_utf8"},
		"label":            {Request{Expectation: Expectation{Labels: map[string]string{"\xff": ""}}}, "not_utf8"},
		"challenge":        {Request{Challenge: "\xff"}, "not_utf8"},
		"more than 1 MiB":  {Request{PKCS10: make([]byte, maxMessage)}, "too_large"},
		"many small parts": {Request{Facts: Facts{SIDs: make([]string, maxMessage)}}, "too_large"},
	} {
		a, err := c.Match(t.Context(), tt.r)
		if d := cmp.Diff(Answer{Verdict: Refuse, Code: tt.code}, a); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	if err := c.Configure(t.Context(), map[string]string{"a": "\xff"}); err == nil {
		t.Error("configured with text that is not UTF-8")
	}
	if err := c.Notified(t.Context(), Outcome{Text: "\xff"}); err == nil {
		t.Error("told of an outcome with text that is not UTF-8")
	}
}

func TestAnErrorIsNoAnswerAndBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want codes.Code
	}{
		"plain":        {errors.New("database is locked"), codes.Unknown},
		"status":       {status.Error(codes.Unavailable, "database is locked"), codes.Unavailable},
		"wrapped":      {fmt.Errorf("query: %w", status.Error(codes.NotFound, "database is locked")), codes.NotFound},
		"says OK":      {saysOK{}, codes.Unknown},
		"its deadline": {fmt.Errorf("database is locked: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"its cancel":   {fmt.Errorf("database is locked: %w", context.Canceled), codes.Canceled},
		"long":         {errors.New("database is locked" + strings.Repeat("\u20ac", 1<<20)), codes.Unknown},
		"not UTF-8":    {errors.New("database is locked\xff"), codes.Unknown},
	} {
		c := connected(t, &fake{match: func(context.Context, Request) (Answer, error) { return Answer{Verdict: Agree}, tt.err }})
		a, err := c.Match(t.Context(), Request{})
		if err == nil || a.Verdict == Agree {
			t.Errorf("%s: %v, %v", name, a, err)
			continue
		}
		if status.Code(err) != tt.want || !strings.Contains(err.Error(), "database is locked") || len(err.Error()) > 1024 {
			t.Errorf("%s: %d bytes: %.200v", name, len(err.Error()), err)
		}
	}
}

type saysOK struct{}

func (saysOK) Error() string              { return "database is locked" }
func (saysOK) GRPCStatus() *status.Status { return status.New(codes.OK, "") }

func TestAPanicIsAnErrorForOneRequest(t *testing.T) {
	c := connected(t, &fullFake{fake{
		match: func(_ context.Context, r Request) (Answer, error) {
			switch r.Profile {
			case "nil":
				return Answer{Code: r.Decides[7].upper()}, nil
			case "value":
				panic("with " + r.Challenge)
			}
			return Answer{Verdict: Agree}, nil
		},
		notified:  func(context.Context, Outcome) error { panic("x") },
		configure: func(context.Context, map[string]string) error { panic("x") },
	}})
	for _, profile := range []string{"nil", "value"} {
		a, err := c.Match(t.Context(), Request{Profile: profile, Challenge: "s3cretchallenge"})
		if status.Code(err) != codes.Internal || a.Verdict == Agree || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, %v", a, err)
		}
		if a, err := c.Match(t.Context(), Request{}); err != nil || a.Verdict != Agree {
			t.Errorf("the next request: %v, %v", a, err)
		}
	}
	if err := c.Notified(t.Context(), Outcome{}); status.Code(err) != codes.Internal {
		t.Error(err)
	}
	if err := c.Configure(t.Context(), nil); status.Code(err) != codes.Internal {
		t.Error(err)
	}
}

func (f Field) upper() string { return strings.ToUpper(string(f)) }

func TestAnEndedRequestIsAnErrorOfItsContext(t *testing.T) {
	asked, released := make(chan struct{}), make(chan struct{})
	c := connected(t, &fake{match: func(ctx context.Context, _ Request) (Answer, error) {
		close(asked)
		<-ctx.Done() // the end is told to the process
		close(released)
		return Answer{Verdict: Agree}, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	a, err := c.Match(ctx, Request{})
	if !errors.Is(err, context.Canceled) || a.Verdict == Agree {
		t.Errorf("%v, %v", a, err)
	}
	<-released
}

func TestAnAnswerOverTheLimitIsAnError(t *testing.T) {
	for name, m := range map[string]*pb.MatchResponse{
		"code":     {Verdict: pb.Verdict_VERDICT_AGREE, Code: strings.Repeat("a", maxMessage)},
		"findings": {Verdict: pb.Verdict_VERDICT_AGREE, Findings: slices.Repeat([]*pb.Finding{{}}, maxMessage)},
	} {
		// Not one of ours: it sends what it likes.
		c := over(t, func(s *grpc.Server) { pb.RegisterMatcherServer(s, raw{m: m}) })
		if a, err := c.Match(t.Context(), Request{}); err == nil || a.Verdict == Agree {
			t.Errorf("%s: %v, %v", name, a.Verdict, err)
		}
	}
}

type raw struct {
	pb.UnimplementedMatcherServer
	m *pb.MatchResponse
}

func (r raw) Match(context.Context, *pb.MatchRequest) (*pb.MatchResponse, error) { return r.m, nil }

func TestConfigurationAndOutcomesArriveOrFail(t *testing.T) {
	var config map[string]string
	var outcome Outcome
	c := connected(t, &fullFake{fake{
		configure: func(_ context.Context, c map[string]string) error { config = c; return nil },
		notified:  func(_ context.Context, o Outcome) error { outcome = o; return nil },
	}})
	want := map[string]string{"url": "https://cmdb.example.com", "": "\n"}
	if err := c.Configure(t.Context(), want); err != nil || cmp.Diff(want, config) != "" {
		t.Errorf("configured with %v, %v", config, err)
	}
	if err := c.Configure(t.Context(), nil); err != nil || config == nil {
		t.Errorf("configured with nothing: %v, %v", config, err)
	}
	o := Outcome{ID: "1", Result: Issued}
	if err := c.Notified(t.Context(), o); err != nil || cmp.Diff(o, outcome) != "" {
		t.Errorf("told %v, %v", outcome, err)
	}

	bad := connected(t, &fullFake{fake{
		configure: func(context.Context, map[string]string) error { return errors.New("no such key") },
		notified:  func(context.Context, Outcome) error { return errors.New("later") },
	}})
	if err := bad.Configure(t.Context(), nil); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if err := bad.Notified(t.Context(), o); status.Code(err) != codes.Unknown {
		t.Error(err)
	}

	plain := connected(t, &fake{})
	if err := plain.Configure(t.Context(), map[string]string{}); err != nil {
		t.Errorf("nothing to configure, and nothing wanted: %v", err)
	}
	if err := plain.Configure(t.Context(), want); status.Code(err) != codes.InvalidArgument {
		t.Errorf("configured although it takes nothing: %v", err)
	}
	if err := plain.Notified(t.Context(), o); status.Code(err) != codes.Unimplemented {
		t.Errorf("told although it does not listen: %v", err)
	}
}

func TestNoMatcherIsNotServed(t *testing.T) {
	if err := (&version1{}).GRPCServer(nil, NewGRPCServer(nil)); err == nil {
		t.Error("served")
	}
	if _, err := described(nil); err == nil {
		t.Error("described")
	}
	if _, err := described((*fake)(nil)); err == nil {
		t.Error("described a nil pointer")
	}
}

// FuzzAnswer holds that no bytes of an answer panic, or agree other than by verdict 1.
func FuzzAnswer(f *testing.F) {
	for _, v := range []pb.Verdict{0, 1, 2, 3, 4, -1} {
		b, _ := proto.Marshal(&pb.MatchResponse{Verdict: v, Code: "c", RequestSha256: "a", Findings: []*pb.Finding{{Field: "san"}}})
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.MatchResponse
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		a, err := answerIn(&m, &Request{Facts: Facts{RequestSHA256: "a"}})
		if a.Verdict == Agree && (err != nil || m.Verdict != 1 || m.RequestSha256 != "a") {
			t.Errorf("agreed: %v, %v", &m, err)
		}
	})
}
