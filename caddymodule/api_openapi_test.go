package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/gate"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

type openAPIDocument struct {
	OpenAPI    string                                `json:"openapi"`
	RawPaths   map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]map[string]any `json:"schemas"`
	} `json:"components"`
}

func readOpenAPI(t *testing.T) openAPIDocument {
	t.Helper()
	var d openAPIDocument
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.0.3" {
		t.Fatalf("version %s", d.OpenAPI)
	}
	return d
}

func TestOpenAPIIsServedToEverybody(t *testing.T) {
	b := newAPIBench(t)
	w := b.do("GET", "/openapi.json", "", func(r *http.Request) { r.Header.Del("Authorization") })
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != string(openAPI) {
		t.Errorf("status %d, %d bytes", w.Code, w.Body.Len())
	}
}

func TestOpenAPIDescribesTheRoutesAndNoOthers(t *testing.T) {
	d := readOpenAPI(t)
	described := make(map[string]bool)
	ids := make(map[string]bool)
	for path, methods := range d.RawPaths {
		for method, raw := range methods {
			if method == "parameters" {
				continue
			}
			described[strings.ToUpper(method)+" "+path] = true
			var op struct {
				OperationID string `json:"operationId"`
				Description string `json:"description"`
				Parameters  []struct {
					Name, In string
				} `json:"parameters"`
				Security *[]any `json:"security"`
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s: operationId %q", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
			i := slices.IndexFunc(routes, func(r route) bool { return r.path == path && strings.EqualFold(r.method, method) })
			if i < 0 {
				continue
			}
			var query []string
			for _, p := range op.Parameters {
				if p.In == "query" {
					query = append(query, p.Name)
				}
			}
			if diff := cmp.Diff(routes[i].query, query); diff != "" {
				t.Errorf("%s %s: query %s", method, path, diff)
			}
			if open := op.Security != nil && len(*op.Security) == 0; open != routes[i].open {
				t.Errorf("%s %s: open %v", method, path, open)
			}
			if scope := routes[i].scope; scope != "" && !strings.Contains(op.Description, "`"+scope+"`") {
				t.Errorf("%s %s: scope %s is not told", method, path, scope)
			}
		}
	}
	served := make(map[string]bool)
	for _, r := range routes {
		served[r.method+" "+r.path] = true
	}
	if diff := cmp.Diff(served, described); diff != "" {
		t.Error(diff)
	}
}

// schemaTypes says which Go type each schema describes.
var schemaTypes = map[string]reflect.Type{
	"Registration": typeOf[gate.Registration](), "NameRule": typeOf[gate.NameRule](), "SAN": typeOf[gate.SAN](),
	"SANRule": typeOf[gate.SANRule](), "Key": typeOf[gate.Key](),
	"Expectation": typeOf[expectationAnswer](), "NameRuleAnswer": typeOf[nameAnswer](), "SANAnswer": typeOf[sanAnswer](),
	"Renews": typeOf[gate.Renews](), "RenewsAnswer": typeOf[renewsAnswer](),
	"SANRuleAnswer": typeOf[sanRuleAnswer](), "KeyAnswer": typeOf[keyAnswer](), "Effective": typeOf[effectiveAnswer](),
	"Event": typeOf[eventAnswer](), "ExpectationList": typeOf[listAnswer](), "Extension": typeOf[extension](),
	"BatchLine": typeOf[batchAnswer](), "CheckRequest": typeOf[checkRequest](), "Check": typeOf[checkAnswer](),
	"Finding": typeOf[findingAnswer](), "Profile": typeOf[profileAnswer](), "ProfileChallenge": typeOf[profileChallenge](),
	"ProfileCA": typeOf[profileCA](), "ProfileRA": typeOf[profileRA](), "ProfileTemplate": typeOf[profileTemplate](),
	"ProfileTemplates": typeOf[profileTemplates](), "ProfileDefaults": typeOf[profileDefaults](),
	"ProfileAlgorithms": typeOf[profileAlgorithms](), "ProfileLimits": typeOf[profileLimits](),
	"Problem": typeOf[problem](), "ProblemError": typeOf[gate.Problem](),
}

func TestOpenAPISchemasAreTheGoTypes(t *testing.T) {
	d := readOpenAPI(t)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(schemaTypes)), slices.Sorted(maps.Keys(d.Components.Schemas))); diff != "" {
		t.Fatal(diff)
	}
	for name, typ := range schemaTypes {
		schema := d.Components.Schemas[name]
		properties := schema["properties"].(map[string]any)
		fields := jsonFields(typ)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(properties))); diff != "" {
			t.Errorf("%s: %s", name, diff)
			continue
		}
		required := make(map[string]bool)
		list, _ := schema["required"].([]any)
		for _, r := range list {
			required[r.(string)] = true
		}
		input := schema["additionalProperties"] == false
		for field := range typ.Fields() {
			key, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() {
				continue
			}
			if !input && required[key] == strings.Contains(options, "omitempty") {
				t.Errorf("%s.%s: required is %v", name, key, required[key])
			}
			if problem := describes(properties[key].(map[string]any), field.Type); problem != "" {
				t.Errorf("%s.%s: %s", name, key, problem)
			}
		}
	}
}

// describes says what is wrong with a schema for values of t.
func describes(schema map[string]any, t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		return describes(schema, t.Elem())
	}
	if all, ok := schema["allOf"].([]any); ok {
		return describes(all[0].(map[string]any), t)
	}
	if ref, ok := schema["$ref"].(string); ok {
		if name := strings.TrimPrefix(ref, "#/components/schemas/"); schemaTypes[name] != t {
			return fmt.Sprintf("refers to %s for %s", name, t)
		}
		return ""
	}
	want := map[reflect.Kind]string{reflect.String: "string", reflect.Int: "integer", reflect.Int64: "integer",
		reflect.Bool: "boolean", reflect.Slice: "array", reflect.Map: "object"}[t.Kind()]
	if t == timeType {
		if schema["format"] != "date-time" {
			return "is not a date-time"
		}
		want = "string"
	}
	if schema["type"] != want {
		return fmt.Sprintf("type %v, want %s", schema["type"], want)
	}
	if t.Kind() == reflect.Slice {
		return describes(schema["items"].(map[string]any), t.Elem())
	}
	return ""
}

func TestAnswersThatMayBeNullSaySo(t *testing.T) {
	d := readOpenAPI(t)
	for name, typ := range schemaTypes {
		if d.Components.Schemas[name]["additionalProperties"] == false {
			continue
		}
		for field := range typ.Fields() {
			key, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || strings.Contains(options, "omitempty") || field.Type.Kind() != reflect.Pointer {
				continue
			}
			if d.Components.Schemas[name]["properties"].(map[string]any)[key].(map[string]any)["nullable"] != true {
				t.Errorf("%s.%s is not nullable", name, key)
			}
		}
	}
}

func FuzzDecodeStrict(f *testing.F) {
	for _, seed := range []string{simpleBody, `{}`, `{"san":{"dns":["a"]},"labels":{"a":"b"}}`, `{"a":1,"a":2}`, `[[[[`, `{"expires_at":"2026-01-01T00:00:00Z"}`, `{"key":{"min_bits":1e3}}`, `{"subject":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r gate.Registration
		problems := decodeStrict(data, &r)
		if len(problems) > maxProblemErrors {
			t.Fatalf("%d problems", len(problems))
		}
		for _, p := range problems {
			if p.Code == "" || p.Detail == "" || len(p.Pointer) > maxPointer+4 {
				t.Fatalf("problem %+v", p)
			}
		}
		if len(problems) > 0 {
			if !reflect.DeepEqual(r, gate.Registration{}) {
				t.Fatal("touched although refused")
			}
			return
		}
		// What is accepted has one reading: it comes back as it went in.
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var second gate.Registration
		if problems := decodeStrict(again, &second); len(problems) > 0 {
			t.Fatalf("%s: %v", again, problems)
		}
	})
}
