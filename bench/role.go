package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"
)

// workEnv names the variable that carries a child's orders: a process that
// finds it set plays a role and is not the harness.
const workEnv = "OMDP_BENCH_WORK"

// A stack is one way to do the work, as the Go processes play it.
type stack interface {
	// broker serves until the process ends; it returns its endpoint when it serves.
	broker(w work) (string, error)
	// worker answers until the process ends; it returns when its services can be asked.
	worker(w work) error
	// dial gives a client of its own connection.
	dial(w work) (client, error)
}

// A client makes the requests of one connection.
type client interface {
	// call makes one request and returns when it had its final; from many goroutines.
	call(service string) error
	// pipeline keeps l.InFlight requests in flight until l is over.
	pipeline(l *load) error
}

// stacks are the stacks that are written in Go, by name.
var stacks = map[string]stack{}

// playRole is the main of a child process. It returns only with an error.
func playRole(orders string) error {
	var w work
	if err := json.Unmarshal([]byte(orders), &w); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	s := stacks[w.Stack]
	if s == nil {
		return fmt.Errorf("no stack %q", w.Stack)
	}
	if w.Profile != "" {
		f, err := os.Create(filepath.Join(w.Profile, fmt.Sprintf("%s-%s-%d.pprof", w.Stack, w.Role, os.Getpid())))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	// The harness holds the other end: when it is gone, so are we.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		pprof.StopCPUProfile()
		os.Exit(0)
	}()
	switch w.Role {
	case "broker":
		endpoint, err := s.broker(w)
		if err != nil {
			return err
		}
		fmt.Println("ready", endpoint)
	case "relay":
		r, err := newRelay(w.Endpoint, time.Duration(w.LateUS)*time.Microsecond, w.Rate)
		if err != nil {
			return err
		}
		fmt.Println("ready", r.endpoint())
	case "worker":
		if err := s.worker(w); err != nil {
			return err
		}
		fmt.Println("ready")
	case "client":
		if err := measure(s, w); err != nil {
			return err
		}
	case "idle":
		if err := idle(s, w); err != nil {
			return err
		}
		fmt.Println("ready")
	default:
		return fmt.Errorf("no role %q", w.Role)
	}
	select {}
}

// A flower is a client that can read one stream without an end.
type flower interface {
	// flow tells l of each chunk until l is over.
	flow(l *load) error
}

// measure plays the client and prints the result as one line of JSON.
func measure(s stack, w work) error {
	c, err := s.dial(w)
	if err != nil {
		return err
	}
	l := newLoad(w)
	var o outcome
	switch {
	case w.Stuck:
		o, err = measureBeside(w)
	case w.Link:
		f, ok := c.(flower)
		if !ok {
			return fmt.Errorf("%s has no stream without an end", w.Stack)
		}
		err = f.flow(l)
		o = l.result()
	case w.Pipeline:
		err = c.pipeline(l)
		o = l.result()
	default:
		err = l.callers(c)
		o = l.result()
	}
	if err != nil {
		return err
	}
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// idle opens w.Clients connections and makes sure of each by one request.
func idle(s stack, w work) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		turn  = make(chan struct{}, 16) // at a time, so that the broker's backlog is not overrun
		name  = w.serviceNames()[0]
	)
	for range w.Clients {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			c, err := s.dial(w)
			if err == nil {
				err = c.call(name)
			}
			if err == nil {
				mu.Lock()
				kept = append(kept, c)
				mu.Unlock()
				return
			}
			mu.Lock()
			if first == nil {
				first = err
			}
			mu.Unlock()
		})
	}
	wg.Wait()
	return first
}

// kept holds idle connections for the life of the process: nothing may collect them.
var kept []client
