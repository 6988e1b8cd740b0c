// Package expression is a matcher that is one line of configuration: a CEL
// expression over the request, its expectation and the connection, which agrees
// if it is true. The expression is the operator's and trusted; the values that
// it sees are the device's and are not. The one call is [New].
package expression

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

// The codes with which an expression refuses. The first can be configured.
const (
	CodeFalse = "expression_false"
	CodeError = "expression_error" // it has no value for this request
	CodeCost  = "expression_cost"  // the request makes it too expensive

	codeField = "field_not_decided"
	codeEmpty = "request_empty"
)

// Config configures a matcher.
type Config struct {
	Expression string // of type bool
	Code       string // of a refusal because it is false; CodeFalse if empty
	Decides    []plugins.Field
	Reveal     bool // request.challenge and request.pkcs10 exist

	Now func() time.Time // the clock; time.Now if nil
}

// Matcher evaluates one expression.
type Matcher struct {
	config  Config
	ast     *cel.Ast
	program cel.Program
}

// New compiles an expression and checks its types. Its errors name line and
// column.
func New(c Config) (*Matcher, error) {
	if c.Code == "" {
		c.Code = CodeFalse
	}
	if !view.Code.MatchString(c.Code) {
		return nil, fmt.Errorf("expression: code %q is not [a-z0-9_]{1,48}", c.Code)
	}
	if err := view.CheckDecides(c.Decides); err != nil {
		return nil, fmt.Errorf("expression: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Decides = slices.Clone(c.Decides)
	ast, program, err := compile(c.Expression, c.Reveal)
	if err != nil {
		return nil, fmt.Errorf("expression: %w", err)
	}
	return &Matcher{config: c, ast: ast, program: program}, nil
}

// Info names the fields that the expression was given.
func (m *Matcher) Info() plugins.Info {
	return plugins.Info{Name: "expression", Version: "1", Decides: slices.Clone(m.config.Decides)}
}

// Match agrees if the expression is true. Whatever the request does to it (no
// value, too expensive) is a refusal: a device must not be able to make the
// gateway say that it is out of order. Only the end of ctx is an error.
func (m *Matcher) Match(ctx context.Context, r plugins.Request) (plugins.Answer, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Answer{}, fmt.Errorf("expression: %w", err)
	}
	if field, beyond := view.Beyond(m.config.Decides, r.Decides); beyond {
		return plugins.Answer{Code: codeField, Findings: []plugins.Finding{{Field: field}}}, nil
	}
	if !view.Asks(&r.Facts) {
		return plugins.Answer{Code: codeEmpty}, nil
	}
	out, _, err := m.program.ContextEval(ctx, m.variables(&r))
	if ended := ctx.Err(); ended != nil {
		return plugins.Answer{}, fmt.Errorf("expression: %w", ended)
	}
	if err != nil {
		return m.failed(&r, err), nil
	}
	if out == types.True {
		return plugins.Answer{Verdict: plugins.Agree}, nil
	}
	return plugins.Answer{Code: m.config.Code}, nil
}

// failed refuses because the expression has no value, and says where.
func (m *Matcher) failed(r *plugins.Request, err error) plugins.Answer {
	a := plugins.Answer{Code: CodeError}
	if cancelled, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && cancelled.Cause == interpreter.CostLimitExceeded {
		a.Code = CodeCost
	}
	var field plugins.Field
	if len(r.Decides) > 0 {
		field = r.Decides[0]
	}
	text := err.Error()
	if m.config.Reveal {
		text = "no value" // invariant 8: CEL quotes values, and the challenge may be one
	}
	if e, ok := errors.AsType[*types.Err](err); ok {
		if at := m.ast.NativeRep().SourceInfo().GetStartLocation(e.NodeID()); at.Line() > 0 {
			text = fmt.Sprintf("%d:%d: %s", at.Line(), at.Column()+1, text)
		}
	}
	a.Findings = []plugins.Finding{{Field: field, Expected: "a value", Got: text[:min(len(text), maxText)]}}
	return a
}

const maxText = 512 // bytes of an evaluation's error
