package expression

import (
	"net/netip"
	"regexp"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

const maxPattern = 1024 // bytes of a regular expression, as in exact

// literals refuses misspelt networks and patterns where they are written.
type literals struct{}

func (literals) Name() string { return "scepgate.validator.literals" }

func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	root := ast.NavigateAST(a)
	for _, call := range ast.MatchDescendants(root, ast.FunctionMatcher("in_cidr")) {
		if args := call.AsCall().Args(); len(args) == 2 && args[1].Kind() == ast.LiteralKind {
			network(args[1], issues)
		}
	}
	for _, call := range ast.MatchDescendants(root, ast.FunctionMatcher("matches")) {
		if args := call.AsCall().Args(); len(args) > 0 {
			pattern(args[len(args)-1], issues)
		}
	}
}

func network(e ast.Expr, issues *cel.Issues) {
	text, _ := e.AsLiteral().(types.String)
	prefix, err := netip.ParsePrefix(string(text))
	switch {
	case err != nil:
		issues.ReportErrorAtID(e.ID(), "in_cidr: %q is no network", string(text))
	case prefix.Addr().Is4In6():
		issues.ReportErrorAtID(e.ID(), "in_cidr: write %q as IPv4", string(text))
	}
}

// pattern wants a pattern that stands in the expression. One that is put
// together from values would let them be more than values, and cost what they like.
func pattern(e ast.Expr, issues *cel.Issues) {
	if e.Kind() != ast.LiteralKind {
		issues.ReportErrorAtID(e.ID(), "matches: the pattern is not a literal")
		return
	}
	text, _ := e.AsLiteral().(types.String)
	if len(text) > maxPattern {
		issues.ReportErrorAtID(e.ID(), "matches: the pattern is longer than %d bytes", maxPattern)
		return
	}
	if _, err := regexp.Compile(string(text)); err != nil {
		issues.ReportErrorAtID(e.ID(), "matches: %v", err)
	}
}
