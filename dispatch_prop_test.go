package omdp

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The same cases in every run, so that a gate says the same of the same tree;
// -rapid.seed=0 looks for new ones, -rapid.checks=4000 for more.
func init() {
	if err := flag.Set("rapid.seed", "20261123"); err != nil {
		panic(err)
	}
}

// history draws the bytes of a history. Rapid favours small numbers, which
// would make dull ones, so it draws the seed; shorten does the shrinking.
func history(rt *rapid.T) []byte {
	seed := rapid.Uint64().Draw(rt, "seed")
	src := make([]byte, 100+seed%600)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range src {
		src[i] = byte(r.Uint32())
	}
	return src
}

// failure is a testing.TB that turns Fatalf into a panic, so that a history
// can be tried again.
type failure struct {
	testing.TB
	text string
}

func (f *failure) Helper() {}
func (f *failure) Fatalf(format string, a ...any) {
	f.text = fmt.Sprintf(format, a...)
	panic(f)
}

// tryHistory returns why a history fails, or nothing.
func tryHistory(src []byte) (text string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *failure:
			text = r.text
		default:
			text = fmt.Sprint("panic: ", r)
		}
	}()
	newWorld(&failure{}, slices.Clone(src)).play().heal()
	return ""
}

// shorten removes what it can from a failing history.
func shorten(src []byte) []byte {
	for n := len(src) / 2; n > 0; n /= 2 {
		for at := 0; at+n <= len(src); {
			if less := slices.Delete(slices.Clone(src), at, at+n); tryHistory(less) != "" {
				src = less
			} else {
				at += n
			}
		}
	}
	return src
}

// TestCoreHistories plays random histories: honest and hostile peers, full
// pipes, vanished peers, steps and jumps of the clock, then a healing phase.
func TestCoreHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		for _, src := range [][]byte{history(rt), history(rt), history(rt), history(rt)} {
			if tryHistory(src) != "" {
				if !testing.Short() {
					src = shorten(src)
				}
				t.Fatalf("history %#v\n%s", src, tryHistory(src))
			}
		}
	})
}

// TestCoreDeterministic: R4: the same history gives the same bytes.
func TestCoreDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		src := history(rt)
		a := newWorld(t, slices.Clone(src)).play()
		b := newWorld(t, src).play()
		if a.hash != b.hash {
			t.Fatalf("R4: two runs of one history differ:\n%v\n%v", a.trace, b.trace)
		}
	})
}
