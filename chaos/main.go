// Command chaos runs a broker, workers and clients as processes, with a TCP
// proxy between them, and does to them what happens on a bad day: it kills and
// stops processes, cuts, delays, throttles and half-opens connections. Every
// process writes down what it does and gets; after the run a recorder joins
// that and checks the promises of the package from outside.
//
//	chaos -time 60s [-seed N]    kill, stop and cut, then judge
//	chaos -soak 10m              steady load with slow, stuck and vanishing clients
//	chaos -stream-only           of the soak, the long streams alone
//
// docs/reliability.md says what is checked. The exit status is 1 if anything
// that was promised did not hold.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if text := os.Getenv(ordersEnv); text != "" {
		signal.Ignore(os.Interrupt) // the harness ends us
		if err := playRole(text); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
		return
	}
	length := flag.Duration("time", time.Minute, "how long chaos goes on")
	seed := flag.Uint64("seed", 0, "of the schedule of faults; 0 draws one")
	soaking := flag.Duration("soak", 0, "soak for so long instead")
	stream := flag.Int("stream", 2048, "MiB of the soak's long streams, 1 to 100000")
	streamOnly := flag.Bool("stream-only", false, "of the soak, the long streams alone")
	flag.Parse()
	if *stream < 1 || *stream > 100_000 {
		fmt.Fprintf(os.Stderr, "chaos: -stream: %d is not from 1 to 100000\n", *stream)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *streamOnly {
		err = soak(ctx, 0, *stream)
	} else if *soaking > 0 {
		err = soak(ctx, *soaking, *stream)
	} else {
		if *seed == 0 {
			*seed = rand.Uint64N(1_000_000)
		}
		err = chaos(ctx, *seed, *length)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1)
	}
}
