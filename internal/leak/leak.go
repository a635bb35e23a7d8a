// Package leak fails a package's test run that leaves goroutines, or anything
// else that can be counted, behind. Every package's TestMain calls [Main]:
//
//	func TestMain(m *testing.M) {
//		leak.Main(m, leak.Count("open sockets", zsock.OpenSockets))
//	}
package leak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// module is in the stack of every goroutine that this module's code started
// or runs in: in a frame or in its "created by" line.
const module = "github.com/zmq-omdp/omdp"

// grace is how long what is ending may take to end. What Close has waited for
// is gone before; only the runtime's own last steps of a goroutine come later.
const grace = 5 * time.Second

// A Check returns "" when nothing is left, else one line that says what is.
// It is called until it does or the grace is over.
type Check func() string

// Count is a Check that fails while n returns anything but 0.
func Count(what string, n func() int) Check {
	return func() string {
		if k := n(); k != 0 {
			return fmt.Sprintf("%d %s left", k, what)
		}
		return ""
	}
}

// Main runs the tests, then waits up to 5 s until no goroutine of this module
// runs and every check is content. It ends the process: with the tests' own
// status if that is not 0, else with 1 and the stacks or the checks' lines if
// something is left. A run that failed is not checked: a test that was broken
// off may leave anything.
func Main(m *testing.M, checks ...Check) {
	code := m.Run()
	if code == 0 {
		if left := wait(grace, append(checks, Goroutines)); left != "" {
			fmt.Fprintf(os.Stderr, "leak: after %v this is left:\n%s\n", grace, left)
			code = 1
		}
	}
	os.Exit(code)
}

// wait calls the checks until all are content, for at most d, and returns what
// they last said.
func wait(d time.Duration, checks []Check) string {
	over := time.After(d)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		var left []string
		for _, c := range checks {
			if s := c(); s != "" {
				left = append(left, s)
			}
		}
		if len(left) == 0 {
			return ""
		}
		select {
		case <-over:
			return strings.Join(left, "\n")
		case <-again.C:
			runtime.Gosched()
		}
	}
}

// Goroutines is a Check for goroutines of this module other than the caller's.
func Goroutines() string {
	buf := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var ours []string
	for i, g := range strings.Split(strings.TrimSpace(string(buf)), "\n\n") {
		if i > 0 && strings.Contains(g, module) { // the first is the caller
			ours = append(ours, g)
		}
	}
	if len(ours) == 0 {
		return ""
	}
	return fmt.Sprintf("%d goroutines left:\n%s", len(ours), strings.Join(ours, "\n\n"))
}
