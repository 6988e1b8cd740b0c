// Package matchers holds tests of the real binary with real matchers: the
// examples of plugins/examples as processes and behind a socket, and what must
// hold when they die, hang, are replaced or are away. It has no code of its own.
package matchers
