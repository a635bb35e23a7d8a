package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestMain also plays the roles: the harness under test starts this binary.
func TestMain(m *testing.M) {
	if orders := os.Getenv(workEnv); orders != "" {
		fatal(playRole(orders))
	}
	// A process with the race detector lingers for a second at its end, each of them, unless told not to.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	code := m.Run()
	if left := childProcesses(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes left behind: %v\n", left)
		code = 1
	}
	os.Exit(code)
}

// childProcesses are the processes, dead ones that nobody waited for included,
// whose parent is this one.
func childProcesses() []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue // gone meanwhile
		}
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(os.Getpid()) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			pids = append(pids, pid)
		}
	}
	return pids
}

var tiny = timing{warm: 20 * time.Millisecond, measure: 60 * time.Millisecond}

// needStack skips where the stack can't be run: C needs its compiler and libzmq's headers.
func needStack(t *testing.T, name string) {
	t.Helper()
	if name == "c" {
		if exec.Command("pkg-config", "--exists", "libzmq").Run() != nil {
			t.Skip("no pkg-config with libzmq")
		}
		if _, err := exec.LookPath("cc"); err != nil {
			t.Skip("no C compiler")
		}
		return
	}
	if stacks[name] == nil {
		t.Skipf("no stack %s", name)
	}
}

// A smoke of every stack: callers, a pipeline, partials, several services and
// a standing queue, each of them tiny.
func TestStacks(t *testing.T) {
	small := []benchCase{
		{Name: "callers-1", InFlight: 1, Size: 16, Services: 1},
		{Name: "callers-4", InFlight: 4, Size: 4096, Services: 1},
		{Name: "pipeline", Pipeline: true, InFlight: 50, Size: 16, Services: 1},
		{Name: "partials", InFlight: 2, Size: 16, Partials: 10, Services: 1},
		{Name: "services", Pipeline: true, InFlight: 50, Size: 16, Services: 5},
		{Name: "queue", Pipeline: true, Queue: true, InFlight: workerConcurrency + 500, Size: 16, Services: 1},
	}
	for _, s := range dialectStacks {
		for _, own := range []bool{true, false} {
			c := dialects(4, own)
			t.Run(c.Name+"/"+s, func(t *testing.T) {
				if o, err := measureOnce(t.Context(), workOf(c, s, tiny)); err != nil || o.P50 <= 0 {
					t.Errorf("got p50 %v µs, %v", o.P50, err)
				}
			})
		}
	}
	for _, s := range allStacks {
		t.Run(s, func(t *testing.T) {
			needStack(t, s)
			for _, c := range small {
				if c.Queue && !slices.Contains(queueStacks, s) {
					continue
				}
				o, err := measureOnce(t.Context(), workOf(c, s, tiny))
				if err != nil {
					t.Errorf("%s: %v", c.Name, err)
					continue
				}
				if o.P50 <= 0 || o.P99 < o.P50 {
					t.Errorf("%s: got p50 %v and p99 %v µs, want 0 < p50 <= p99", c.Name, o.P50, o.P99)
				}
			}
		})
	}
}

func TestIdleClientsConnectAndEnd(t *testing.T) {
	for _, s := range idleStacks {
		t.Run(s, func(t *testing.T) {
			needStack(t, s)
			var f family
			t.Cleanup(f.stop)
			w := workOf(benchCase{InFlight: 1, Size: 16, Services: 1}, s, timing{})
			endpoint, pid, err := startBroker(t.Context(), &f, w)
			if err != nil {
				t.Fatal(err)
			}
			w.Endpoint = endpoint
			if err := startWorkers(t.Context(), &f, w); err != nil {
				t.Fatal(err)
			}
			w.Role, w.Clients = "idle", 20
			c, err := f.start(w)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.expect(t.Context(), "ready", readyLimit); err != nil {
				t.Fatal(err)
			}
			if mib, err := residentMiB(pid); err != nil || mib <= 0 {
				t.Errorf("resident memory: got %v MiB, %v", mib, err)
			}
			if _, err := cpuTime(pid); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInterruptedRunLeavesNothing(t *testing.T) {
	needStack(t, "zmq4")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stopped by the test")
	p := plan{rounds: 1, budget: time.Minute, timing: timing{measure: time.Minute}}
	p.cases = []benchCase{{Name: "pipeline", Pipeline: true, InFlight: 10, Size: 16, Services: 1, Stacks: []string{"zmq4"}}}
	p.progress = func(string, ...any) {}
	done := make(chan error, 1)
	go func() {
		_, err := p.run(ctx)
		done <- err
	}()
	// The broker, the worker and the client, which would run for a minute.
	until(t, "three children", func() bool { return len(childProcesses()) == 3 })
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("run: got %v, want %v", err, why)
	}
	if left := childProcesses(); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func TestFailingChildIsReported(t *testing.T) {
	p := plan{rounds: 2, budget: time.Minute, timing: tiny}
	p.cases = []benchCase{{Name: "callers-1", InFlight: 1, Size: 16, Services: 1, Stacks: []string{"nothing"}}}
	p.progress = func(string, ...any) {}
	results, err := p.run(t.Context())
	if err == nil || len(results) != 1 || len(results[0].failures) != 1 {
		t.Fatalf("got %v and %v, want one failure", results, err)
	}
	r := newReport(results, p)
	if len(r.rows) != 1 || !r.rows[0].failed {
		t.Errorf("got rows %+v, want one that failed", r.rows)
	}
}

// A child that does not end by itself is killed.
func TestStopKillsAHangingChild(t *testing.T) {
	var f family
	if _, pid, err := startBroker(t.Context(), &f, work{Stack: "zmq4"}); err != nil {
		t.Fatal(err)
	} else if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.stop()
	if left := childProcesses(); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("no %s within 10 s", what)
		}
	}
}
