// Command peer is this library's own client, worker and broker with the command
// lines of the foreign peers beside it (see ../README.md):
//
//	go run ./interop/peer broker -endpoint tcp://127.0.0.1:5555 -listen pigato=tcp://127.0.0.1:5556
//	go run ./interop/peer worker -endpoint tcp://127.0.0.1:5555 -service echo
//	go run ./interop/peer client -endpoint tcp://127.0.0.1:5555 -service echo -data '"hello"'
//
// With -dialect a worker or a client joins the broker of another make.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zmq-omdp/omdp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	orphaned := watchParent(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	<-orphaned
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// watchParent calls stop when the process that started this one is gone: one
// that says its id is also missed if it went before this could look.
func watchParent(ctx context.Context, stop func()) <-chan struct{} {
	parent, done := os.Getppid(), make(chan struct{})
	if starter, err := strconv.Atoi(os.Getenv("OMDP_STARTER")); err == nil {
		parent = starter
	}
	go func() {
		defer close(done)
		again := time.NewTicker(500 * time.Millisecond)
		defer again.Stop()
		for os.Getppid() == parent {
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
		stop()
	}()
	return done
}

var errUsage = errors.New("usage")

type options struct {
	endpoint, service, data         string
	dialect                         omdp.Dialect
	listen                          []string
	slow, heartbeat, timeout, count int
	stdin                           bool
	out                             *lines
	in                              io.Reader
	errors                          io.Writer
}

var roles = map[string]func(context.Context, options) error{"broker": broker, "worker": worker, "client": client}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	role := ""
	if len(args) > 0 {
		role, args = args[0], args[1:]
	}
	play, ok := roles[role]
	o := options{out: &lines{w: stdout}, in: stdin, errors: stderr}
	f := flag.NewFlagSet("peer broker|worker|client", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.endpoint, "endpoint", "", "where the broker is")
	f.StringVar(&o.service, "service", "", "`name` of the service")
	f.Func("dialect", "`NAME` of what the broker speaks, if it is of another make: omdp, omdp-final, pigato, mdp02 or mdp01", func(s string) (err error) {
		o.dialect, err = parseDialect(s)
		return err
	})
	f.IntVar(&o.heartbeat, "heartbeat", 0, "`ms` between two heartbeats (default 2500)")
	f.Func("listen", "`DIALECT=ENDPOINT` that a broker serves as well; may be given again", func(s string) error {
		o.listen = append(o.listen, s)
		return nil
	})
	f.IntVar(&o.slow, "slow", 0, "`ms` before each reply of a worker")
	f.StringVar(&o.data, "data", "", "`JSON` that a client sends")
	f.BoolVar(&o.stdin, "stdin", false, "a client is asked by lines of standard input, {\"data\":[JSON],\"count\":N,\"timeout\":MS}")
	f.IntVar(&o.count, "count", 0, "requests that a client makes, one after the other")
	f.IntVar(&o.timeout, "timeout", 0, "`ms` of a request (default 60000)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if !ok || f.NArg() > 0 || o.endpoint == "" || role != "broker" && o.service == "" {
		fmt.Fprintln(stderr, "peer: want a role (broker, worker or client), -endpoint and, but for a broker, -service")
		return errUsage
	}
	return play(ctx, o)
}

// lines writes whole lines, from any goroutine.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format+"\n", args...)
}

func (o options) interval() time.Duration { return time.Duration(o.heartbeat) * time.Millisecond }
func (o options) logger() *slog.Logger    { return slog.New(slog.NewTextHandler(o.errors, nil)) }

// broker serves every dialect that it was given an endpoint for, and says
// which endpoints it got. The services are the same at all of them.
func broker(ctx context.Context, o options) error {
	config := &omdp.BrokerConfig{Heartbeat: o.interval(), Logger: o.logger()}
	for _, s := range o.listen {
		l, err := parseListener(s)
		if err != nil {
			return err
		}
		config.Listeners = append(config.Listeners, l)
	}
	b, err := omdp.NewBroker(o.endpoint, config)
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	defer b.Close()
	o.out.printf("ready %s", strings.Join(b.Endpoints(), " "))
	<-ctx.Done()
	return nil
}

func worker(ctx context.Context, o options) error {
	config := &omdp.WorkerConfig{Heartbeat: o.interval(), Logger: o.logger()}
	config.Dialect = o.dialect
	w, err := omdp.NewWorker(o.endpoint, o.service, config)
	if err != nil {
		return err
	}
	w.OnRequest(func(ctx context.Context, req *omdp.Request, res *omdp.Response) error { return o.behave(ctx, req, res) })
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Close()
	o.out.printf("ready")
	<-ctx.Done()
	return nil
}

// behave answers as every worker of the suite does.
func (o options) behave(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	var data string
	if err := req.Decode(&data); err != nil {
		data = "" // not text: to be echoed
	}
	var final any = req.Message()
	switch data {
	case "hold":
		o.out.printf("holding")
		<-ctx.Done()
		return context.Cause(ctx)
	case "fail":
		if err := o.pause(ctx); err != nil {
			return err
		}
		return &omdp.Error{Code: "418", Message: "TEAPOT"}
	case "partials":
		for i := range 3 {
			if err := o.pause(ctx); err != nil {
				return err
			}
			if err := res.Send(fmt.Sprint("partials-", i)); err != nil {
				return err
			}
		}
		final = "partials-final"
	}
	if err := o.pause(ctx); err != nil {
		return err
	}
	return res.End(final)
}

func (o options) pause(ctx context.Context) error {
	if o.slow == 0 {
		return nil
	}
	select {
	case <-time.After(time.Duration(o.slow) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// question is what a client is to ask.
type question struct {
	Texts   []string `json:"data"`
	Count   int      `json:"count"`
	Timeout int      `json:"timeout"`
}

func client(ctx context.Context, o options) error {
	config := &omdp.ClientConfig{Heartbeat: o.interval(), Logger: o.logger()}
	config.Dialect = o.dialect
	c, err := omdp.NewClient(o.endpoint, config)
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Close()
	if !o.stdin {
		return o.ask(ctx, c, question{Texts: []string{o.data}, Count: o.count, Timeout: o.timeout})
	}
	in := bufio.NewScanner(o.in)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		if err := o.ask(ctx, c, q); err != nil {
			return err
		}
		o.out.printf("end")
	}
	return in.Err()
}

// ask makes the requests of one question and prints what comes back.
func (o options) ask(ctx context.Context, c *omdp.Client, q question) error {
	if len(q.Texts) != 1 || !json.Valid([]byte(q.Texts[0])) {
		return fmt.Errorf("data %q is not one JSON value", q.Texts)
	}
	finals := 0
	for range max(q.Count, 1) {
		done := make(chan error, 1)
		err := c.Request(ctx, o.service, json.RawMessage(q.Texts[0]),
			func(m omdp.Message) { o.out.printf("partial %s", m.JSON()) },
			func(m omdp.Message, err error) {
				if err == nil {
					o.out.printf("final %s", m.JSON())
				}
				done <- err
			},
			omdp.WithTimeout(time.Duration(q.Timeout)*time.Millisecond))
		if err == nil {
			err = <-done
		}
		if err != nil {
			o.out.printf("error %s", errorJSON(err))
		} else {
			finals++
		}
	}
	if q.Count > 0 {
		o.out.printf("done %d", finals)
	}
	return nil
}

// words are those by which the protocol calls what happened to a request.
var words = map[error]string{
	omdp.ErrTimeout: "TIMEOUT", omdp.ErrWorkerLost: "W_ERROR", omdp.ErrNoWorker: "NO_WORKER",
	omdp.ErrOverloaded: "OVERLOADED", omdp.ErrBrokerLost: "LOST", omdp.ErrDenied: "DENIED",
}

// errorJSON is {"status":CODE,"msg":VALUE} of what a worker said, and the
// protocol's word for the rest.
func errorJSON(err error) string {
	if e, ok := errors.AsType[*omdp.Error](err); ok {
		code, value := strconv.Quote(e.Code), string(e.Data)
		if _, err := strconv.Atoi(e.Code); err == nil {
			code = e.Code
		}
		if e.Data == nil {
			value = strconv.Quote(e.Message)
		}
		return fmt.Sprintf(`{"status":%s,"msg":%s}`, code, value)
	}
	for is, word := range words {
		if errors.Is(err, is) {
			return strconv.Quote(word)
		}
	}
	return strconv.Quote(err.Error())
}
