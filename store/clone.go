package store

import (
	"bytes"
	"maps"
	"slices"
)

// Clone copies e with everything it refers to.
func (e *Expectation) Clone() Expectation {
	c := *e
	c.ChallengeHash, c.IdentityHash, c.Request = bytes.Clone(e.ChallengeHash), bytes.Clone(e.IdentityHash), bytes.Clone(e.Request)
	c.Content = e.Content.clone()
	c.Labels = maps.Clone(e.Labels)
	if e.Renews != nil {
		renews := *e.Renews
		c.Renews = &renews
	}
	c.Uses = slices.Clone(e.Uses)
	for i := range c.Uses {
		c.Uses[i] = e.Uses[i].clone()
	}
	c.Mismatches = slices.Clone(e.Mismatches)
	for i, m := range c.Mismatches {
		c.Mismatches[i] = bytes.Clone(m)
	}
	c.History = slices.Clone(e.History)
	return c
}

func (c *Content) clone() Content {
	d := *c
	d.Subject = slices.Clone(c.Subject)
	for i, rdn := range d.Subject {
		d.Subject[i] = slices.Clone(rdn)
		for j, v := range d.Subject[i] {
			d.Subject[i][j].Values = slices.Clone(v.Values)
		}
	}
	d.SAN = slices.Clone(c.SAN)
	for i, r := range d.SAN {
		d.SAN[i].Values = slices.Clone(r.Values)
	}
	d.KeyUsage, d.ExtKeyUsage, d.ApplicationPolicies = slices.Clone(c.KeyUsage), slices.Clone(c.ExtKeyUsage), slices.Clone(c.ApplicationPolicies)
	return d
}
