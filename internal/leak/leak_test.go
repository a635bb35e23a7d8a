package leak

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// parked is named so that the test can find it in the report.
func parked(started, release, done chan struct{}) {
	close(started)
	<-release
	close(done)
}

// others reports the parked goroutines alone: inside a test the goroutine that
// runs the tests is of this module as well.
func others() string {
	var left []string
	for g := range strings.SplitSeq(Goroutines(), "\n\n") {
		if strings.Contains(g, "leak.parked") {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}

func TestGoroutineIsReportedWithItsStack(t *testing.T) {
	started, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go parked(started, release, done)
	<-started
	got := wait(20*time.Millisecond, []Check{others})
	for _, want := range []string{"leak.parked", "leak_test.go", "created by " + module + "/internal/leak."} {
		if !strings.Contains(got, want) {
			t.Errorf("report has no %q:\n%s", want, got)
		}
	}
	close(release)
	<-done
	if got := wait(grace, []Check{others}); got != "" {
		t.Errorf("reported after it ended:\n%s", got)
	}
}

func TestWaitEndsOnTheCondition(t *testing.T) {
	left := 3
	check := func() int { left--; return left }
	start := time.Now()
	if got := wait(grace, []Check{Count("things", check)}); got != "" {
		t.Errorf("got %q, want nothing left", got)
	}
	if d := time.Since(start); d >= grace {
		t.Errorf("waited %v, want less than the whole grace", d)
	}
}

func TestCountSaysWhatIsLeft(t *testing.T) {
	checks := []Check{
		Count("open sockets", func() int { return 2 }),
		Count("files", func() int { return 0 }),
		Count("timers", func() int { return 1 }),
	}
	if got, want := wait(0, checks), "2 open sockets left\n1 timers left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
