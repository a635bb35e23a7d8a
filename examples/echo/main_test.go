package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// play runs the program and returns the lines of its standard output.
func play(t *testing.T, args ...string) ([]string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), args, &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Logf("echo %q wrote to stderr:\n%s", args, stderr.String())
	}
	return strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n"), err
}

// role starts one role as a process would, until the test ends. What it logs
// can be read line by line.
func role(t *testing.T, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string, 100)
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, io.Discard, lineWriter(lines)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("echo %q: %v", args, err)
		}
	})
	return lines
}

// lineWriter gets one whole line with each Write, as logTo writes them.
type lineWriter chan<- string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- strings.TrimSuffix(string(p), "\n")
	return len(p), nil
}

func endpoint(t *testing.T) string { return "ipc://" + filepath.Join(t.TempDir(), "b") }

func TestAllRolesInOne(t *testing.T) {
	got, err := play(t)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"partial 1 hello", "partial 1 hello", "final 1 hello"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	got, err := play(t, "-n", "3", "-partials", "1", "-data", "x y")
	if err != nil {
		t.Fatal(err)
	}
	// One worker that takes one request at a time answers one client in order;
	// the client's callbacks of different requests run side by side.
	slices.Sort(got)
	want := []string{"final 1 x y", "final 2 x y", "final 3 x y", "partial 1 x y", "partial 2 x y", "partial 3 x y"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnyJSONComesBack(t *testing.T) {
	for _, v := range []string{`null`, `true`, `0`, `-1.5e300`, `""`, `"täxt \u2028 \"q\""`, `[]`, `{}`, `[1,[2,{"a":null}]]`, `{"__proto__":{"x":1}}`, `12345678901234567890`} {
		got, err := play(t, "-json", "-data", v, "-partials", "1")
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		if want := []string{"partial 1 " + v, "final 1 " + v}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestEachRoleOnItsOwnInAnyOrder(t *testing.T) {
	at := endpoint(t)
	type result struct {
		lines []string
		err   error
	}
	client := make(chan result, 1)
	go func() { // the client comes first and waits
		lines, err := play(t, "-role", "client", "-endpoint", at, "-data", "early")
		client <- result{lines, err}
	}()
	role(t, "-role", "worker", "-endpoint", at)
	broker := role(t, "-role", "broker", "-endpoint", at)
	for want := "broker: listening on " + at; <-broker != want; {
		continue // what its logger says
	}
	r := <-client
	if r.err != nil {
		t.Fatal(r.err)
	}
	if want := []string{"partial 1 early", "partial 1 early", "final 1 early"}; !slices.Equal(r.lines, want) {
		t.Errorf("got %q, want %q", r.lines, want)
	}
}

func TestConcurrency(t *testing.T) {
	at := endpoint(t)
	role(t, "-role", "broker", "-endpoint", at)
	role(t, "-role", "worker", "-endpoint", at, "-concurrency", "8", "-delay", "1ms")
	got, err := play(t, "-role", "client", "-endpoint", at, "-n", "100")
	if err != nil {
		t.Fatal(err)
	}
	finals := map[string]int{}
	for _, line := range got {
		if strings.HasPrefix(line, "final ") {
			finals[line]++
		}
	}
	for id := 1; id <= 100; id++ {
		if n := finals[fmt.Sprintf("final %d hello", id)]; n != 1 {
			t.Errorf("%d finals of request %d, want 1", n, id)
		}
	}
}

func TestErrorsAreLines(t *testing.T) {
	at := endpoint(t)
	role(t, "-role", "broker", "-endpoint", at)
	got, err := play(t, "-role", "client", "-endpoint", at, "-service", "nobody", "-timeout", "50ms")
	if err == nil {
		t.Error("no error")
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], "error 1 ") || !strings.Contains(got[0], "timed out") {
		t.Errorf("got %q, want one line: error 1, timed out", got)
	}
}

func TestNoBroker(t *testing.T) {
	got, err := play(t, "-role", "client", "-endpoint", endpoint(t), "-timeout", "50ms")
	if err == nil {
		t.Error("no error")
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], "error 1 ") {
		t.Errorf("got %q, want one line: error 1", got)
	}
}

// firstLine ends the context when the first whole line was written.
type firstLine struct {
	end context.CancelFunc
	all bytes.Buffer
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.all.Write(p)
	if bytes.Contains(p, []byte("\n")) {
		f.end()
	}
	return len(p), nil
}

func TestInterruptEndsEveryRole(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &firstLine{end: cancel}
	if err := run(ctx, []string{"-n", "0", "-concurrency", "2", "-delay", "1ms"}, out, io.Discard); err == nil {
		t.Log("every request had ended") // possible: the interrupt fell between two
	}
	if !strings.HasPrefix(out.all.String(), "partial 1 hello\n") && !strings.HasPrefix(out.all.String(), "partial 2 hello\n") {
		t.Errorf("got %q, want a partial first", out.all.String())
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-role", "queen"}, {"-n", "-1"}, {"-partials", "-1"}, {"-concurrency", "-1"}, {"-delay", "-1s"}, {"-timeout", "0"},
		{"-json", "-data", "hello"}, {"stray"}, {"-nonsense"},
	} {
		var stderr bytes.Buffer
		if err := run(t.Context(), args, io.Discard, &stderr); !errors.Is(err, errUsage) {
			t.Errorf("echo %q: got %v, want errUsage", args, err)
		}
		if !strings.Contains(stderr.String(), strings.TrimPrefix(args[0], "-")) && !strings.Contains(stderr.String(), args[len(args)-1]) {
			t.Errorf("echo %q: the message names neither flag nor value: %q", args, stderr.String())
		}
	}
}
