//go:build race

package omdp

// raceEnabled: allocations and speed mean nothing under the race detector.
const raceEnabled = true
