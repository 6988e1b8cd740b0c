// Package bench measures, as ratios within one run: what an enrolment costs
// beside the one RSA operation that nobody can save, what a refusal costs
// beside an acceptance, and how the embedded store behaves with a million
// expectations; and, statistically, what the time of a refusal tells.
// docs/operations.md and docs/threat-model.md have the figures.
package bench
