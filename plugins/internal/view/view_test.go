package view_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/internal/view"
)

func TestAbsentIsNullAndEmptyIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		facts plugins.Facts
		want  string
	}{
		"absent": {plugins.Facts{}, `{"ext_key_usage":null,"application_policies":null,"sids":[],"subject_rdns":[]}`},
		"empty": {plugins.Facts{HasExtKeyUsage: true, HasApplicationPolicies: true},
			`{"ext_key_usage":[],"application_policies":[],"sids":[],"subject_rdns":[]}`},
		// What an extension holds that is said to be absent is nobody's business.
		"contradictory": {plugins.Facts{ExtKeyUsage: []string{"1.2.3"}}, `{"ext_key_usage":null,"application_policies":null,"sids":[],"subject_rdns":[]}`},
	} {
		text, err := json.Marshal(view.Of(&c.facts))
		if err != nil {
			t.Fatal(err)
		}
		var all, got, want map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		got = map[string]any{}
		for key := range want {
			got[key] = all[key]
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestEveryAlternativeNameIsShownOnce(t *testing.T) {
	f := plugins.Facts{SAN: []plugins.AltName{
		{Type: "dns", Value: "1"}, {Type: "email", Value: "2"}, {Type: "uri", Value: "3"}, {Type: "ip", Value: "4"},
		{Type: "upn", Value: "5"}, {Type: "other", Value: "6"}, {Type: "of tomorrow", Value: "7"}, {Type: "", Value: "8"}, {Type: "dns", Value: "9"},
	}}
	want := view.SAN{
		DNS: []string{"1", "9"}, Email: []string{"2"}, URI: []string{"3"}, IP: []string{"4"}, UPN: []string{"5"}, Other: []string{"6", "7", "8"},
	}
	if d := cmp.Diff(want, view.Of(&f).SAN); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNamesAreTheAPIs(t *testing.T) {
	for oid, want := range map[string]string{"2.5.4.3": "CN", "2.5.4.5": "serialNumber", "1.2.3": "1.2.3", "": ""} {
		if got := view.AttributeType(oid); got != want {
			t.Errorf("attribute %s = %s, want %s", oid, got, want)
		}
	}
	for oid, want := range map[string]string{"1.3.6.1.5.5.7.3.2": "clientAuth", "1.2.3": "1.2.3"} {
		if got := view.ExtKeyUsage(oid); got != want {
			t.Errorf("usage %s = %s, want %s", oid, got, want)
		}
	}
}

func TestOnlySixFieldsCanBeGivenAway(t *testing.T) {
	given := 0
	for _, f := range append([]plugins.Field{plugins.Challenge, "", "x"}, new(plugins.Exact).Info().Decides...) {
		if view.CheckDecides([]plugins.Field{f}) == nil {
			given++
		}
	}
	if given != 6 {
		t.Errorf("%d fields can be given to a matcher, want 6", given)
	}
	if view.CheckDecides([]plugins.Field{plugins.SAN, plugins.SAN}) == nil {
		t.Error("a field can be given twice")
	}
}
