package pluginstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listed is a matcher without fault: who is on the list gets a subject of that
// name. The tests break it in one place each.
type listed struct {
	info  func() plugins.Info
	match func(ctx context.Context, r plugins.Request) (plugins.Answer, error)
}

func newListed() *listed {
	m := &listed{info: func() plugins.Info {
		return plugins.Info{Name: "listed", Version: "1", Decides: []plugins.Field{plugins.Subject}}
	}}
	m.match = m.judge
	return m
}

func (m *listed) Info() plugins.Info { return m.info() }

func (m *listed) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	return m.match(ctx, r)
}

func (m *listed) judge(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Answer{}, err
	}
	for _, f := range r.Decides {
		if f != plugins.Subject {
			return plugins.Answer{Code: "not_decided_here"}, nil
		}
	}
	s := r.Facts.Subject
	if len(s) == 1 && len(s[0]) == 1 && s[0][0] == (plugins.NameAttribute{Type: "2.5.4.3", Value: "C02XK1"}) {
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	return plugins.Answer{Code: "not_listed", Findings: []plugins.Finding{{Field: plugins.Subject, Expected: "C02XK1"}}}, nil
}

func (m *listed) Configure(_ context.Context, config map[string]string) error {
	for key := range config {
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

func (m *listed) Notified(context.Context, plugins.Outcome) error { return nil }

func onTheList() plugins.Request {
	return plugins.Request{
		Decides: []plugins.Field{plugins.Subject},
		Facts:   plugins.Facts{Subject: [][]plugins.NameAttribute{{{Type: "2.5.4.3", Value: "C02XK1"}}}, RequestSHA256: "ab"},
	}
}

func TestAMatcherWithoutFaultPasses(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		Run(t, func(*testing.T) plugins.Matcher { return newListed() }, onTheList())
	})
	t.Run("over the wire", func(t *testing.T) {
		Run(t, func(t *testing.T) plugins.Matcher { return Serve(t, newListed()) }, onTheList())
	})
}

type answer = plugins.Answer

func TestEveryPropertyCanFail(t *testing.T) {
	agree := answer{Verdict: plugins.Agree}
	said := func(a answer) func(*listed) {
		return func(m *listed) {
			m.match = func(ctx context.Context, _ plugins.Request) (answer, error) { return a, ctx.Err() }
		}
	}
	// instead answers otherwise where when says so.
	instead := func(a answer, err error, when func(r plugins.Request) bool) func(*listed) {
		return func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				if when(r) {
					return a, err
				}
				return m.judge(ctx, r)
			}
		}
	}
	refusals := func(change func(a *answer)) func(*listed) {
		return func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				a, err := m.judge(ctx, r)
				if err == nil && a.Verdict == plugins.Refuse {
					change(&a)
				}
				return a, err
			}
		}
	}
	described := func(i plugins.Info) func(*listed) {
		return func(m *listed) { m.info = func() plugins.Info { return i } }
	}
	const (
		info, agreed, wellFormed = "what it says of itself is valid and constant", "what it is said to agree to it agrees to", "every answer is well-formed"
		ended, empty, unknown    = "a request that has ended is not answered", "an empty request is not agreed to", "an unknown field is not agreed to"
		same, concurrent, stay   = "the same request gets the same answer", "the same request gets the same answer concurrently", "its arguments stay as they are"
		hostile, secret          = "hostile values are answered or fail", "the challenge comes back in nothing"
	)
	tests := []struct {
		name   string
		breaks func(m *listed)
		want   string // the property that must fail
	}{
		{"no name", described(plugins.Info{}), info},
		{"decides what nobody knows", described(plugins.Info{Name: "a", Decides: []plugins.Field{"x"}}), info},
		{"decides a field twice", described(plugins.Info{Name: "a", Decides: []plugins.Field{plugins.SAN, plugins.SAN}}), info},
		{"another name each time", func(m *listed) {
			n := new(atomic.Int64)
			m.info = func() plugins.Info { return plugins.Info{Name: fmt.Sprintf("a%d", n.Add(1))} }
		}, info},
		{"hands out its own list", func(m *listed) {
			mine := []plugins.Field{plugins.Subject}
			m.info = func() plugins.Info { return plugins.Info{Name: "a", Decides: mine} }
		}, info},

		{"refuses what it should agree to", said(answer{Code: "no"}), agreed},

		{"agrees to everything", said(agree), empty},
		{"agrees to whatever it knows nothing about", instead(agree, nil, func(r plugins.Request) bool { return len(r.Facts.Subject) == 0 }), empty},
		{"agrees beside unknown fields", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				r.Decides = []plugins.Field{plugins.Subject}
				return m.judge(ctx, r)
			}
		}, unknown},
		{"agrees if a known field is among them", instead(agree, nil, func(r plugins.Request) bool {
			return len(r.Decides) > 1 && slices.Contains(r.Decides, plugins.Subject)
		}), unknown},
		{"agrees to an unknown field alone", instead(agree, nil, func(r plugins.Request) bool {
			return len(r.Decides) == 1 && r.Decides[0] == ""
		}), unknown},

		{"answers after the end", func(m *listed) {
			m.match = func(_ context.Context, r plugins.Request) (answer, error) { return m.judge(context.Background(), r) }
		}, ended},
		{"agrees beside its error", func(m *listed) {
			m.match = func(ctx context.Context, _ plugins.Request) (answer, error) { return agree, ctx.Err() }
		}, ended},

		{"no verdict", said(answer{Verdict: 3, Code: "x"}), wellFormed},
		{"agrees with findings", instead(answer{Verdict: plugins.Agree, Findings: []plugins.Finding{{Field: plugins.Subject}}}, nil,
			func(r plugins.Request) bool { return len(r.Decides) == 1 }), wellFormed},
		{"has nothing to say, with findings", said(answer{Verdict: plugins.NotMine, Findings: []plugins.Finding{{}}}), wellFormed},
		{"refuses without a code", refusals(func(a *answer) { a.Code = "" }), wellFormed},
		{"a code of capitals", refusals(func(a *answer) { a.Code = "No" }), wellFormed},
		{"a code of two lines", refusals(func(a *answer) { a.Code = "no\n" }), wellFormed},
		{"a code of 49", refusals(func(a *answer) { a.Code = strings.Repeat("a", 49) }), wellFormed},
		{"too many findings", refusals(func(a *answer) { a.Findings = make([]plugins.Finding, 100) }), wellFormed},
		{"findings of 2 MiB", refusals(func(a *answer) { a.Findings[0].Got = strings.Repeat("a", 2<<20) }), wellFormed},
		{"an error of 1 MiB", func(m *listed) {
			m.match = func(context.Context, plugins.Request) (answer, error) {
				return answer{}, errors.New(strings.Repeat("a", 1<<20))
			}
		}, wellFormed},

		{"every other time another answer", func(m *listed) {
			n := new(atomic.Int64)
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				if n.Add(1)%2 == 0 {
					return answer{Code: "even"}, ctx.Err()
				}
				return answer{Code: "odd"}, ctx.Err()
			}
		}, same},
		{"fails now and then", func(m *listed) {
			n := new(atomic.Int64)
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				if n.Add(1)%2 == 0 {
					return answer{}, errors.New("busy")
				}
				return m.judge(ctx, r)
			}
		}, same},
		{"answers otherwise while it answers another", func(m *listed) {
			alone := int64(len(questions(m, []plugins.Request{onTheList()})))
			n, another := new(atomic.Int64), make(chan struct{})
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				switch n.Add(1) {
				case alone + 1:
					<-another
					return answer{Code: "mixed_up"}, ctx.Err()
				case alone + 2:
					close(another)
				}
				return m.judge(ctx, r)
			}
		}, concurrent},

		{"turns the request's names round", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				slices.Reverse(r.Facts.SAN)
				return m.judge(ctx, r)
			}
		}, stay},
		{"notes something in the labels", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				if r.Expectation.Labels != nil {
					r.Expectation.Labels["seen"] = "yes"
				}
				return m.judge(ctx, r)
			}
		}, stay},

		{"panics on an empty name", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				for _, rdn := range r.Facts.Subject {
					_ = rdn[0]
				}
				return m.judge(ctx, r)
			}
		}, hostile},
		{"panics on more than it expects", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				_ = [1000]int{}[len(r.Facts.SAN)]
				return m.judge(ctx, r)
			}
		}, hostile},
		{"uses a device's text as its code", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				a, err := m.judge(ctx, r)
				if strings.HasPrefix(r.UserAgent, "../") {
					a = answer{Code: r.UserAgent}
				}
				return a, err
			}
		}, hostile},

		{"quotes the challenge in a finding", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				return answer{Code: "unknown", Findings: []plugins.Finding{{Got: r.Challenge}}}, ctx.Err()
			}
		}, secret},
		{"quotes the challenge in its code", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				return answer{Code: "c_" + strings.ToLower(r.Challenge)}, ctx.Err()
			}
		}, secret},
		{"quotes the PKCS#10 in its error", func(m *listed) {
			m.match = func(ctx context.Context, r plugins.Request) (answer, error) {
				return answer{}, fmt.Errorf("not found: %s", r.PKCS10)
			}
		}, secret},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := slices.IndexFunc(Properties(), func(p Property) bool { return p.Name == tt.want })
			m := newListed()
			tt.breaks(m)
			if err := Properties()[i].Check(t.Context(), m, []plugins.Request{onTheList()}); err == nil {
				t.Errorf("%q holds", tt.want)
			}
		})
	}
}

// careless takes any configuration, and no outcome twice.
type careless struct {
	*listed
	told map[string]bool
}

func (careless) Configure(context.Context, map[string]string) error { return nil }

func (c careless) Notified(_ context.Context, o plugins.Outcome) error {
	if c.told[o.ID] {
		return errors.New("already told")
	}
	c.told[o.ID] = true
	return nil
}

func TestConfigurationAndOutcomesCanFail(t *testing.T) {
	var failed []string
	for _, p := range Properties() {
		if p.Check(t.Context(), careless{newListed(), map[string]bool{}}, nil) != nil {
			failed = append(failed, p.Name)
		}
	}
	want := []string{"an unknown configuration key is an error", "an outcome may come twice, and be empty"}
	if !slices.Equal(failed, want) {
		t.Errorf("failed %q, want %q", failed, want)
	}
}

func TestAPropertyNeedsNoRequestsThatAreAgreedTo(t *testing.T) {
	for _, p := range Properties() {
		if err := p.Check(t.Context(), newListed(), nil); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestACloneSharesNothing(t *testing.T) {
	r, before := ordinary(), ordinary()
	c := clone(r)
	c.Facts.Subject[0][0].Value = "x"
	c.Facts.SPKI[0] = 1
	c.Expectation.SAN[0].Min = 9
	c.Expectation.Labels["device"] = "x"
	if fmt.Sprint(r) != fmt.Sprint(before) {
		t.Errorf("changed with its clone:\n%v\n%v", r, before)
	}
}
