// Command bench runs the same work on omdp, on plain C over libzmq, on zmq4's
// ordinary calls and on NATS, each role in a process of its own over tcp
// loopback, and compares them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if orders := os.Getenv(workEnv); orders != "" {
		fatal(playRole(orders))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// fatal ends a child, which has nothing to clean up: its sockets go with it.
func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := f.Bool("quick", false, "three cases only, in under 50 s")
	build := f.Bool("build", false, "compile the C stack and end")
	only := f.String("case", "", "run the cases that contain this text")
	which := f.String("stacks", strings.Join(namedStacks, ","), "stacks to run")
	stream := f.Int("stream", 64, "MiB of the stream that runs alone; for 2048, -measure 20s")
	rounds := f.Int("rounds", 0, "rounds of each case and stack (default 5, or as many as fit with -quick)")
	budget := f.Duration("budget", 0, "no round is begun that would end later (default 14m30s, or 45s with -quick)")
	measured := f.Duration("measure", 0, "measured time of each round and case (default 1s, or 420ms with -quick)")
	out := f.String("out", "", "folder of latest.json and latest.md (default bench/out)")
	profile := f.String("profile", "", "existing folder for a CPU profile of each Go process")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *stream < 1 || *stream > 100_000 {
		return fmt.Errorf("-stream: %d is not from 1 to 100000", *stream)
	}
	if _, err := cStack(); err != nil || *build {
		return err
	}
	p := plan{cases: cases(*stream), rounds: 5, budget: 14*time.Minute + 30*time.Second, timing: fullTiming}
	if *quick {
		p = plan{cases: quickCases(), rounds: 5, budget: 45 * time.Second, timing: quickTiming}
	}
	p.timing.profile = *profile
	if *measured > 0 {
		p.timing.measure = min(*measured, 20*time.Second) // under the limits of a step
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}
	if *budget > 0 {
		p.budget = *budget
	}
	if err := p.choose(*only, strings.Split(*which, ",")); err != nil {
		return err
	}
	dir := *out
	if dir == "" {
		base, err := benchDir()
		if err != nil {
			return err
		}
		dir = filepath.Join(base, "out")
	}
	p.progress = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	results, err := p.run(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that was started has been stopped, and nothing written")
	}
	r := newReport(results, p)
	if writeErr := r.write(dir); writeErr != nil && err == nil {
		err = writeErr
	}
	fmt.Print(r.markdown())
	return err
}
