// Command stream sends a file through omdp: the worker copies it into the
// response, the client pipes the stream to standard output, byte for byte.
//
//	go run ./examples/stream -file big.bin >copy.bin
//	go run ./examples/stream -role broker
//	go run ./examples/stream -role worker -root /srv/files
//	go run ./examples/stream -role client -file big.bin >copy.bin
//
// A client that stops reading slows the worker's copy; one that breaks off, by
// Ctrl-C or by a closed pipe, ends it at once. The worker serves what lies
// below -root and nothing else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/zmq-omdp/omdp"
)

// defaultEndpoint is where the roles meet when each is a process of its own.
const defaultEndpoint = "tcp://127.0.0.1:5555"

func main() {
	// A closed pipe is an error of Write, not the end of the process: so the
	// stream is closed in order and the worker hears of it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2) // the flag package has said why
	case err != nil:
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

type options struct {
	role, endpoint, service string
	concurrency             int
	file, root              string
	timeout                 time.Duration
}

// run plays the roles that args name until the file has been copied or ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("stream", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.role, "role", "all", "`role` to play: all, broker, worker or client")
	f.StringVar(&o.endpoint, "endpoint", "", "where the broker is (default "+defaultEndpoint+"; with -role all a free port)")
	f.StringVar(&o.service, "service", "file", "`name` of the service")
	f.IntVar(&o.concurrency, "concurrency", 4, "files that the worker sends at a time")
	f.StringVar(&o.file, "file", "", "the client's file, as the worker's -root knows it")
	f.StringVar(&o.root, "root", "", "`directory` that the worker serves (default .; with -role all the file's own)")
	f.DurationVar(&o.timeout, "timeout", 0, "of the whole transfer, the wait for broker and worker included; 0 is none")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if err := o.check(f.Args()); err != nil {
		fmt.Fprintln(stderr, "stream:", err)
		return errUsage
	}
	logf := logTo(stderr)

	switch o.role {
	case "broker":
		return runBroker(ctx, o, logf)
	case "worker":
		return runWorker(ctx, o, logf)
	case "client":
		return runClient(ctx, o, stdout)
	}
	return runAll(ctx, o, stdout, logf)
}

func (o *options) check(rest []string) error {
	switch o.role {
	case "all":
		if o.endpoint == "" {
			o.endpoint = "tcp://127.0.0.1:*"
		}
		if o.root == "" {
			o.root, o.file = filepath.Split(o.file)
		}
	case "broker", "worker", "client":
		if o.endpoint == "" {
			o.endpoint = defaultEndpoint
		}
	default:
		return fmt.Errorf("-role %q is not all, broker, worker or client", o.role)
	}
	if o.root == "" {
		o.root = "."
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is not a flag", rest[0])
	case o.file == "" && (o.role == "all" || o.role == "client"):
		return errors.New("-file is missing")
	case o.concurrency < 0:
		return fmt.Errorf("-concurrency %d is negative", o.concurrency)
	case o.timeout < 0:
		return fmt.Errorf("-timeout %v is negative", o.timeout)
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

// runAll plays all three: the end of the client's stream ends the others.
func runAll(ctx context.Context, o options, stdout io.Writer, logf func(string, ...any)) error {
	b, err := omdp.NewBroker(o.endpoint, nil)
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	defer b.Close()
	o.endpoint = b.Endpoint()

	workerCtx, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	worker := make(chan error, 1)
	go func() { worker <- runWorker(workerCtx, o, logf) }()
	err = runClient(ctx, o, stdout)
	stopWorker()
	return errors.Join(err, <-worker)
}

func runBroker(ctx context.Context, o options, logf func(string, ...any)) error {
	b, err := omdp.NewBroker(o.endpoint, nil)
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	defer b.Close()
	logf("broker: listening on %s", b.Endpoint())
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return b.Shutdown(ctx)
}

func runWorker(ctx context.Context, o options, logf func(string, ...any)) error {
	root, err := os.OpenRoot(o.root)
	if err != nil {
		return err
	}
	defer root.Close()
	w, err := omdp.NewWorker(o.endpoint, o.service, &omdp.WorkerConfig{Concurrency: o.concurrency})
	if err != nil {
		return err
	}
	w.OnRequest(serve(root, logf))
	return w.Run(ctx)
}

// serve copies the file that the request names into the response. os.Root
// refuses what leads out of the directory, by .. or by a symbolic link.
func serve(root *os.Root, logf func(string, ...any)) omdp.Handler {
	return func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		var name string
		if err := req.Decode(&name); err != nil {
			return &omdp.Error{Code: "400", Message: "the request's data is not the name of a file"}
		}
		if info, err := root.Stat(name); err != nil {
			return err
		} else if !info.Mode().IsRegular() { // to open a pipe would wait for its writer
			return &omdp.Error{Code: "403", Message: name + ": not a regular file"}
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		// Write waits while the client has no room, and fails as soon as it has
		// left: this is all that it takes to stop.
		n, err := io.Copy(res, f)
		if err != nil {
			logf("worker: %s: stopped after %d bytes: %v", name, n, err)
			return err
		}
		logf("worker: %s: sent %d bytes", name, n)
		return nil
	}
}

func runClient(ctx context.Context, o options, stdout io.Writer) error {
	c, err := omdp.NewClient(o.endpoint, nil)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Close()
	timeout := o.timeout
	if timeout == 0 {
		timeout = -1 // none, where 0 would be the default
	}
	s := c.RequestStream(ctx, o.service, o.file, omdp.WithTimeout(timeout))
	defer s.Close() // breaks the worker's copy off if it has not ended
	_, err = io.Copy(stdout, s)
	return err
}
