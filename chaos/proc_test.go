package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

func orderedBy() string { return os.Getenv(ordersEnv) }

// playTestRole is the main of a child of a test.
func playTestRole(text string) {
	if err := playRole(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A process says that it is there, answers, survives a stop, and ends when it
// is told to, when it is killed, and when its harness is gone.
func TestChild(t *testing.T) {
	s := newSpawner()
	defer s.close()
	start := func() *child {
		t.Helper()
		c, err := s.start("broker", orders{Role: roleBroker, Listen: "tcp://127.0.0.1:*"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.kill)
		if _, err := c.expect(context.Background(), "ready", limit); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	c.cont()
	var stats omdp.BrokerStats
	if err := c.ask(context.Background(), "stats", &stats); err != nil || stats.Services == nil {
		t.Errorf("stats: got %+v, %v", stats, err)
	}
	if err := c.finish(limit); err != nil {
		t.Errorf("told to end: %v", err)
	}
	c = start()
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	c.kill() // also when it is stopped
	if c.err == nil || !strings.Contains(c.err.Error(), "killed") {
		t.Errorf("killed: it ended with %v", c.err)
	}
	c = start()
	c.stdin.Close()
	go c.drain()
	select {
	case <-c.exited:
		if c.cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("its input ended: it ended with %v, want status 3", c.err)
		}
	case <-time.After(limit):
		t.Error("its input ended, and it did not")
	}
}

// While more threads want to run than there are processors, some wait, and
// that is seen.
func TestThreadWatch(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip("this system does not tell how long threads wait")
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	for range 4 * runtime.NumCPU() {
		wg.Go(func() {
			for !stop.Load() {
			}
		})
	}
	var w threadWatch
	if got := w.look(); got != 0 {
		t.Errorf("the first look: got %v, want 0", got)
	}
	for until := time.Now().Add(limit); w.look() == 0; {
		if time.Now().After(until) {
			t.Fatalf("in %v no thread waited", limit)
		}
		runtime.Gosched()
	}
}
