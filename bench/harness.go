package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// timing is how long one measurement takes.
type timing struct {
	warm, measure time.Duration
	profile       string // folder for CPU profiles of the processes; empty: none
}

var (
	fullTiming  = timing{warm: 300 * time.Millisecond, measure: time.Second}
	quickTiming = timing{warm: 120 * time.Millisecond, measure: 420 * time.Millisecond}
)

// Limits of the steps of one measurement; all of them are far above what is needed.
const (
	readyLimit  = 15 * time.Second
	fillLimit   = 30 * time.Second
	resultLimit = 30 * time.Second
)

// A plan is what one run of the harness does: every case on each of its
// stacks, round by round.
type plan struct {
	cases    []benchCase
	rounds   int
	budget   time.Duration
	timing   timing
	started  time.Time
	load     float64 // average of the machine before the run
	done     int     // rounds that were completed
	progress func(format string, args ...any)
}

// A result is the rounds of one case on one stack.
type result struct {
	Case, Stack   string
	rps, p50, p99 []float64
	cpu           []float64  // µs a request
	even          []float64  // the slowest caller to the mean, of streams
	mb            float64    // of one request, of streams
	beside        [][]beside // by round
	idle          *idleResult
	failures      []error
}

// choose keeps the cases whose name contains text and the named stacks.
func (p *plan) choose(text string, names []string) error {
	for _, n := range names {
		if !slices.Contains(namedStacks, n) {
			return fmt.Errorf("no stack %q: there are %s", n, strings.Join(namedStacks, ", "))
		}
	}
	p.cases = slices.DeleteFunc(p.cases, func(c benchCase) bool { return !strings.Contains(c.Name, text) })
	if len(p.cases) == 0 {
		return fmt.Errorf("no case contains %q", text)
	}
	for i := range p.cases {
		c := &p.cases[i]
		c.Stacks = slices.DeleteFunc(slices.Clone(c.Stacks), func(s string) bool {
			return !slices.Contains(names, s) || (s != "c" && stacks[s] == nil)
		})
	}
	return nil
}

// run makes the rounds. A measurement that fails is noted and the others go on;
// then the error says so. Nothing that it started is left when it returns.
func (p *plan) run(ctx context.Context) ([]*result, error) {
	p.started, p.load = time.Now(), loadAverage()
	var (
		results []*result
		index   = map[[2]string]*result{}
		longest time.Duration
		failed  []error
	)
	for _, c := range p.cases {
		for _, s := range c.Stacks {
			r := &result{Case: c.Name, Stack: s}
			index[[2]string{c.Name, s}] = r
			results = append(results, r)
		}
	}
	for round := range p.rounds {
		begin := time.Now()
		// The first round is made in any case; another only if it fits.
		if round > 0 && time.Since(p.started)+longest > p.budget {
			p.progress("no time for more than %d rounds", round)
			break
		}
		for _, c := range p.cases {
			// Idle says what a broker holds, not how fast it is: once is enough.
			if c.Idle && round > 0 {
				continue
			}
			for i := range c.Stacks {
				// Another stack goes first in each round.
				s := c.Stacks[(i+round)%len(c.Stacks)]
				r := index[[2]string{c.Name, s}]
				if len(r.failures) > 0 {
					continue // once is enough
				}
				if err := p.measure(ctx, c, r); err != nil {
					if ctx.Err() != nil {
						return results, context.Cause(ctx)
					}
					err = fmt.Errorf("%s on %s: %w", c.Name, s, err)
					p.progress("FAILED %v", err)
					r.failures = append(r.failures, err)
					failed = append(failed, err)
				}
			}
		}
		p.done = round + 1
		longest = max(longest, time.Since(begin))
	}
	return results, errors.Join(failed...)
}

// measure adds one round of a case on one stack to its result.
func (p *plan) measure(ctx context.Context, c benchCase, r *result) error {
	if c.Idle {
		idle, err := measureIdle(ctx, c, r.Stack)
		if err != nil {
			return err
		}
		r.idle = idle
		p.progress("%-20s %-15s %d clients, broker %.1f MiB, %.2f %% CPU", c.Name, r.Stack, idle.clients, idle.mib, idle.cpu)
		return nil
	}
	o, err := measureOnce(ctx, workOf(c, r.Stack, p.timing))
	if err != nil {
		return err
	}
	r.rps = append(r.rps, float64(o.Count)/o.Seconds)
	r.p50 = append(r.p50, o.P50)
	r.p99 = append(r.p99, o.P99)
	r.cpu = append(r.cpu, o.cpu)
	if c.Stuck {
		r.beside = append(r.beside, o.Beside)
		for i, b := range o.Beside {
			p.progress("%-20s %-15s %-24s %9.1f, beside it %9.1f: %.2f", c.Name, r.Stack, besideKinds[i], b.Without, b.With, b.Ratio)
		}
		return nil
	}
	if c.Link {
		r.mb = float64(c.Size) / 1e6
		p.progress("%-20s %-15s %9.0f MB/s  CPU %6.1f us a MB", c.Name, r.Stack, r.mb*float64(o.Count)/o.Seconds, o.cpu/r.mb)
		return nil
	}
	if c.Stream {
		r.even = append(r.even, o.Even)
		r.mb = float64(c.Size*c.Partials) / 1e6
		p.progress("%-20s %-15s %9.0f MB/s  slowest to mean %.2f  CPU %6.1f us a MB", c.Name, r.Stack, r.mb*float64(o.Count)/o.Seconds, o.Even, o.cpu/r.mb)
		return nil
	}
	p.progress("%-20s %-15s %9.0f/s  p50 %8.1f us  p99 %8.1f us  CPU %6.1f us", c.Name, r.Stack, float64(o.Count)/o.Seconds, o.P50, o.P99, o.cpu)
	return nil
}

// measureOnce starts the processes of one stack, lets the client run, and stops them all.
func measureOnce(ctx context.Context, w work) (outcome, error) {
	var (
		f family
		o outcome
	)
	defer f.stop()
	endpoint, _, err := startBroker(ctx, &f, w)
	if err != nil {
		return o, err
	}
	w.Endpoint = endpoint
	c := w
	c.Role = "client"
	if w.Link { // it lies between the client and the others
		if c.Endpoint, err = startRelay(ctx, &f, w); err != nil {
			return o, err
		}
	}
	var client *child
	if w.Queue {
		// The queue is filled while no worker is there; another service's worker tells when.
		ping := w
		ping.Service, ping.Services = "ping", 1
		if err := startWorkers(ctx, &f, ping); err != nil {
			return o, err
		}
		if client, err = f.start(c); err != nil {
			return o, err
		}
		if _, err := client.expect(ctx, "filled", fillLimit); err != nil {
			return o, err
		}
	}
	if err := startWorkers(ctx, &f, w); err != nil {
		return o, err
	}
	if client == nil {
		if client, err = f.start(c); err != nil {
			return o, err
		}
	}
	if _, err := client.expect(ctx, "begin", resultLimit); err != nil {
		return o, err
	}
	before := f.cpuTime()
	line, err := client.expect(ctx, "{", resultLimit)
	if err != nil {
		return o, err
	}
	used := f.cpuTime() - before
	if err := json.Unmarshal([]byte("{"+line), &o); err != nil {
		return o, fmt.Errorf("%s said {%s: %w", client.name, line, err)
	}
	if o.Count == 0 {
		return o, errors.New("no request ended within the measured time")
	}
	o.cpu = float64(used.Microseconds()) / float64(o.Total)
	return o, nil
}

func startBroker(ctx context.Context, f *family, w work) (endpoint string, pid int, err error) {
	w.Role = "broker"
	b, err := f.start(w)
	if err != nil {
		return "", 0, err
	}
	endpoint, err = b.expect(ctx, "ready", readyLimit)
	return endpoint, b.cmd.Process.Pid, err
}

// startRelay puts a relay in front of the broker and gives its endpoint.
func startRelay(ctx context.Context, f *family, w work) (endpoint string, err error) {
	w.Role = "relay"
	if w.Stack == "c" {
		return "", errors.New("the relay is not written in C")
	}
	r, err := f.start(w)
	if err != nil {
		return "", err
	}
	return r.expect(ctx, "ready", readyLimit)
}

// startWorkers starts as many worker processes as the services need and waits for all.
func startWorkers(ctx context.Context, f *family, w work) error {
	w.Role = "worker"
	var all []*child
	for first, left := 0, w.Services; left > 0; {
		w.First, w.Services = first, min(left, servicesPerWorker)
		c, err := f.start(w)
		if err != nil {
			return err
		}
		all = append(all, c)
		first, left = first+w.Services, left-w.Services
	}
	for _, c := range all {
		if _, err := c.expect(ctx, "ready", readyLimit); err != nil {
			return err
		}
	}
	return nil
}
