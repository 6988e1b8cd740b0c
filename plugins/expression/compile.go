package expression

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
)

const (
	maxExpression  = 16 << 10 // characters
	maxNesting     = 3        // comprehensions (all, exists, map, filter) in each other
	maxCost        = 100_000  // units of CEL's cost model; a common expression needs less than 100. Counting is quadratic
	interruptEvery = 100      // steps of a comprehension between two looks at the context
	maxIssues      = 3        // that one error tells
)

// compile reads and checks an expression. There is nothing of type dyn in its
// environment: what is misspelt does not compile.
func compile(expression string, reveal bool) (ast *cel.Ast, program cel.Program, err error) {
	defer func() {
		if recover() != nil { // no panic can be reached from configuration
			ast, program, err = nil, nil, errors.New("cannot be compiled")
		}
	}()
	if strings.TrimSpace(expression) == "" {
		return nil, nil, errors.New("is empty")
	}
	env, err := environment(reveal)
	if err != nil {
		return nil, nil, err
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, nil, positions(issues)
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, nil, fmt.Errorf("1:1: is of type %s, not bool", ast.OutputType())
	}
	program, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(interruptEvery))
	if err != nil {
		return nil, nil, err
	}
	return ast, program, nil
}

func environment(reveal bool) (*cel.Env, error) {
	asked := reflect.TypeFor[request]()
	if reveal {
		asked = reflect.TypeFor[revealed]()
	}
	return cel.NewEnv(
		ext.NativeTypes(asked, reflect.TypeFor[expectation](), ext.ParseStructTags(true)),
		cel.Variable("request", cel.ObjectType("expression."+asked.Name())),
		cel.Variable("expectation", cel.ObjectType("expression.expectation")),
		cel.Variable("profile", cel.StringType),
		cel.Variable("client_ip", cel.StringType),
		cel.Variable("user_agent", cel.StringType),
		cel.Variable("query", cel.StringType),
		cel.Variable("now", cel.TimestampType),
		cel.OptionalTypes(),
		ext.Strings(),
		ext.Sets(),
		inCIDR(),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting),
			literals{},
		),
	)
}

// positions is one line that names line and column of each mistake.
func positions(issues *cel.Issues) error {
	var texts []string
	for _, e := range issues.Errors() {
		if len(texts) == maxIssues {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, fmt.Sprintf("%d:%d: %s", e.Location.Line(), e.Location.Column()+1, strings.Join(strings.Fields(e.Message), " ")))
	}
	return errors.New(strings.Join(texts, "; "))
}
