// Package bench measures, as ratios within one run: what an enrolment costs
// beside the one RSA operation that nobody can save, what a refusal costs
// beside an acceptance, and how the embedded store behaves with a million
// expectations. It holds benchmarks only; docs/operations.md has the figures.
package bench
