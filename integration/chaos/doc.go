// Package chaos kills the real gateway binary at random moments, under honest
// devices, thieves and retries, in front of an upstream that closes, stalls,
// truncates and answers rubbish. What must hold afterwards is read from the
// simulator's issue log, which no gateway can tell lies to: no expectation was
// honoured for more keys than it allows, none was lost, and no honest device is
// left out but by a thief who came first.
//
//	go test -v ./integration/chaos -kills 200 -seed 1
package chaos
