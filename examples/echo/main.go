// Command echo is the first program to run: a broker, a worker that answers
// with what it was sent, and a client, in one process or in one each.
//
//	go run ./examples/echo
//	go run ./examples/echo -role broker
//	go run ./examples/echo -role worker -concurrency 4
//	go run ./examples/echo -role client -data hello -n 3
//
// The client prints one line for each thing that comes back:
//
//	partial ID DATA
//	final ID DATA
//	error ID TEXT
//
// It ends with 1 if a call ended in an error. Ctrl-C ends every role in order.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/zmq-omdp/omdp"
)

// defaultEndpoint is where the roles meet when each is a process of its own.
const defaultEndpoint = "tcp://127.0.0.1:5555"

// inFlight is how many requests the client has under way unless -concurrency says.
const inFlight = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2) // the flag package has said why
	case err != nil:
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

type options struct {
	role, endpoint, service string
	concurrency, partials   int
	delay, timeout          time.Duration
	data                    string
	n                       int
	json                    bool
}

// run plays the roles that args name until the client has its answers or ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("echo", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.role, "role", "all", "`role` to play: all, broker, worker or client")
	f.StringVar(&o.endpoint, "endpoint", "", "where the broker is (default "+defaultEndpoint+"; with -role all a free port)")
	f.StringVar(&o.service, "service", "echo", "`name` of the service")
	f.IntVar(&o.concurrency, "concurrency", 0, "requests at a time: the worker's (default 1), and the client's in flight (default 1000)")
	f.IntVar(&o.partials, "partials", 2, "partials that the worker sends before the final")
	f.DurationVar(&o.delay, "delay", 0, "pause of the worker before each partial and the final")
	f.StringVar(&o.data, "data", "hello", "what the client sends")
	f.IntVar(&o.n, "n", 1, "requests that the client makes; 0 until Ctrl-C")
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "of each request, the wait for broker and worker included")
	f.BoolVar(&o.json, "json", false, "-data is JSON, and data is printed as JSON")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if err := o.check(f.Args()); err != nil {
		fmt.Fprintln(stderr, "echo:", err)
		return errUsage
	}
	logf := logTo(stderr)

	switch o.role {
	case "broker":
		return runBroker(ctx, o, stderr, logf)
	case "worker":
		return runWorker(ctx, o, logf)
	case "client":
		return runClient(ctx, o, stdout, logf)
	}
	return runAll(ctx, o, stdout)
}

func (o *options) check(rest []string) error {
	switch o.role {
	case "all":
		if o.endpoint == "" {
			o.endpoint = "tcp://127.0.0.1:*"
		}
	case "broker", "worker", "client":
		if o.endpoint == "" {
			o.endpoint = defaultEndpoint
		}
	default:
		return fmt.Errorf("-role %q is not all, broker, worker or client", o.role)
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is not a flag", rest[0])
	case o.concurrency < 0:
		return fmt.Errorf("-concurrency %d is negative", o.concurrency)
	case o.partials < 0:
		return fmt.Errorf("-partials %d is negative", o.partials)
	case o.n < 0:
		return fmt.Errorf("-n %d is negative", o.n)
	case o.delay < 0:
		return fmt.Errorf("-delay %v is negative", o.delay)
	case o.timeout <= 0:
		return fmt.Errorf("-timeout %v is not positive", o.timeout)
	case o.json && !json.Valid([]byte(o.data)):
		return fmt.Errorf("-data %q is not JSON, as -json says", o.data)
	}
	return nil
}

// logTo returns a function that writes one line to w, from any goroutine.
func logTo(w io.Writer) func(format string, args ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, format+"\n", args...)
	}
}

// runAll plays all three: the client's answers end the worker and the broker.
func runAll(ctx context.Context, o options, stdout io.Writer) error {
	b, err := omdp.NewBroker(o.endpoint, nil)
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	defer b.Close()
	o.endpoint = b.Endpoint()

	quiet := func(string, ...any) {}
	workerCtx, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	worker := make(chan error, 1)
	go func() { worker <- runWorker(workerCtx, o, quiet) }()
	err = runClient(ctx, o, stdout, quiet)
	stopWorker()
	return errors.Join(err, <-worker)
}

func runBroker(ctx context.Context, o options, stderr io.Writer, logf func(string, ...any)) error {
	b, err := omdp.NewBroker(o.endpoint, &omdp.BrokerConfig{
		Logger: slog.New(slog.NewTextHandler(stderr, nil)), // which workers come and go
	})
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	defer b.Close()
	logf("broker: listening on %s", b.Endpoint())
	<-ctx.Done()
	logf("broker: shutting down")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return b.Shutdown(ctx)
}

func runWorker(ctx context.Context, o options, logf func(string, ...any)) error {
	w, err := omdp.NewWorker(o.endpoint, o.service, &omdp.WorkerConfig{
		Concurrency: o.concurrency,
		OnState:     func(s omdp.State) { logf("worker: %v", s) },
	})
	if err != nil {
		return err
	}
	w.OnRequest(echo(o.partials, o.delay))
	return w.Run(ctx)
}

// echo answers with the request's own value: so many partials, then the final.
// The pauses end early when the client has left or the worker stops.
func echo(partials int, delay time.Duration) omdp.Handler {
	return func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		for range partials {
			if err := pause(ctx, delay); err != nil {
				return err
			}
			if err := res.Send(req.Message()); err != nil {
				return err
			}
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
		return res.End(req.Message())
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runClient makes the requests, up to a bound of them at a time, and prints
// what comes back in the order in which it comes.
func runClient(ctx context.Context, o options, stdout io.Writer, logf func(string, ...any)) error {
	c, err := omdp.NewClient(o.endpoint, &omdp.ClientConfig{
		OnState: func(s omdp.State) { logf("client: %v", s) },
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Close()

	var data any = o.data
	text := omdp.Message.String
	if o.json {
		data = json.RawMessage(o.data)
		text = func(m omdp.Message) string { return string(m.JSON()) }
	}
	bound := o.concurrency
	if bound == 0 {
		bound = inFlight
	}
	println := logTo(stdout)
	slots := make(chan struct{}, bound) // one a request under way
	var (
		mu     sync.Mutex
		failed int
	)
	// end is called once for each request: by its final callback, or here if nothing was sent.
	end := func(id int, m omdp.Message, err error) {
		if err != nil {
			println("error %d %v", id, err)
			mu.Lock()
			failed++
			mu.Unlock()
		} else {
			println("final %d %s", id, text(m))
		}
		<-slots
	}
	for id := 1; ctx.Err() == nil && (o.n == 0 || id <= o.n); id++ {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		err := c.Request(ctx, o.service, data,
			func(m omdp.Message) { println("partial %d %s", id, text(m)) },
			func(m omdp.Message, err error) { end(id, m, err) },
			omdp.WithTimeout(o.timeout))
		if err != nil {
			end(id, omdp.Message{}, err)
		}
	}
	for range bound { // until every slot is free again
		slots <- struct{}{}
	}
	if failed > 0 {
		return fmt.Errorf("%d requests failed", failed)
	}
	return nil
}
