package plugins_test

import (
	"testing"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

func TestExactConforms(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		pluginstest.Run(t, func(*testing.T) plugins.Matcher { return new(plugins.Exact) }, expected())
	})
	t.Run("over the wire", func(t *testing.T) {
		pluginstest.Run(t, func(t *testing.T) plugins.Matcher { return pluginstest.Serve(t, new(plugins.Exact)) }, expected())
	})
}

func expected() plugins.Request {
	return plugins.Request{
		Decides: new(plugins.Exact).Info().Decides,
		Facts: plugins.Facts{
			Subject:  [][]plugins.NameAttribute{{{Type: "2.5.4.3", Value: "C02XK1"}}},
			KeyUsage: []string{"digitalSignature"},
			KeyBits:  2048, SPKISHA256: "00", RequestSHA256: "11",
		},
		Expectation: plugins.Expectation{
			ID:       "exp_1",
			Subject:  [][]plugins.ExpectedAttribute{{{Type: "2.5.4.3", Match: "exact", Value: "C02XK1"}}},
			KeyUsage: []string{"digitalSignature"},
		},
	}
}
