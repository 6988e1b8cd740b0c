// Package pluginstest holds what must be true of every matcher, whatever it
// decides and wherever it runs: [Run] in a test of the matcher, once as it is
// and once behind [Serve]. It trusts nothing that the matcher returns.
package pluginstest

import (
	"context"
	"testing"

	"github.com/scepgate/scepgate/plugins"
)

// Run tests the matchers that factory makes, one for each property. Requests
// that such a matcher agrees to make the suite sharper: it then changes what
// must no longer be agreed to.
func Run(t *testing.T, factory func(t *testing.T) plugins.Matcher, agreed ...plugins.Request) {
	t.Helper()
	for _, p := range Properties() {
		t.Run(p.Name, func(t *testing.T) {
			if err := p.Check(t.Context(), factory(t), agreed); err != nil {
				t.Error(err)
			}
		})
	}
}

// Property is one thing that must hold.
type Property struct {
	Name string

	// Check returns how m breaks it. The requests are some that m agrees to.
	Check func(ctx context.Context, m plugins.Matcher, agreed []plugins.Request) error
}

// Properties is the suite, for those who run it without a *testing.T.
func Properties() []Property {
	return []Property{
		{"what it says of itself is valid and constant", infoIsConstant},
		{"what it is said to agree to it agrees to", agreesToAgreed},
		{"every answer is well-formed", answersAreWellFormed},
		{"a request that has ended is not answered", endedIsNotAnswered},
		{"an empty request is not agreed to", emptyIsNotAgreed},
		{"an unknown field is not agreed to", unknownFieldIsNotAgreed},
		{"the same request gets the same answer", sameAnswer},
		{"the same request gets the same answer concurrently", sameAnswerConcurrently},
		{"its arguments stay as they are", argumentsStay},
		{"hostile values are answered or fail", hostileIsSurvived},
		{"the challenge comes back in nothing", challengeStays},
		{"an unknown configuration key is an error", unknownKeyIsAnError},
		{"an outcome may come twice, and be empty", outcomesMayRepeat},
	}
}
