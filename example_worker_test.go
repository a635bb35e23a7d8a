package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// broker serves on an endpoint of this process, for an example's length.
func broker(endpoint string) *omdp.Broker {
	b, err := omdp.NewBroker(endpoint, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Start(); err != nil {
		log.Fatal(err)
	}
	return b
}

// worker serves one service, for an example's length.
func worker(endpoint, service string, h omdp.Handler) *omdp.Worker {
	w, err := omdp.NewWorker(endpoint, service, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(w.OnRequest(h), w.Start()); err != nil {
		log.Fatal(err)
	}
	return w
}

// client is ready to call, for an example's length.
func client(endpoint string) *omdp.Client {
	c, err := omdp.NewClient(endpoint, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	return c
}

func ExampleWorker_SetConcurrency() {
	const endpoint = "inproc://example-set-concurrency"
	defer broker(endpoint).Close()
	w := worker(endpoint, "echo", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	})
	defer w.Close()

	if err := w.SetConcurrency(20); err != nil { // the machine is idle: take more
		log.Fatal(err)
	}
	fmt.Println(w.Stats().Concurrency)
	fmt.Println(w.SetConcurrency(0))
	// Output:
	// 20
	// omdp: set concurrency: 0 is not from 1 to 1000
}

func ExampleNewWorker() {
	const endpoint = "inproc://example-new-worker"
	defer broker(endpoint).Close()

	w, err := omdp.NewWorker(endpoint, "echo", &omdp.WorkerConfig{
		Concurrency: 100, // requests at a time; the default is 1
		OnError:     func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	w.OnRequest(func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	})
	if err := w.Start(); err != nil {
		log.Fatal(err)
	}
	defer w.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	c := client(endpoint)
	defer c.Close()
	m, err := c.Call(ctx, "echo", "hello")
	fmt.Println(m, err)

	// Shutdown lets requests in progress finish; Close does not.
	fmt.Println(w.Shutdown(ctx))
	fmt.Println(w.Stats().Succeeded, "answered, now", w.Stats().State)
	// Output:
	// hello <nil>
	// <nil>
	// 1 answered, now closed
}

func ExampleWorker_Run() {
	const endpoint = "inproc://example-run"
	defer broker(endpoint).Close()

	w, err := omdp.NewWorker(endpoint, "time", nil)
	if err != nil {
		log.Fatal(err)
	}
	w.OnRequest(func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		return res.End(time.Unix(0, 0).UTC())
	})
	ctx, cancel := context.WithCancel(context.Background()) // or signal.NotifyContext
	var wg sync.WaitGroup
	wg.Go(func() { fmt.Println("run:", w.Run(ctx)) })

	c := client(endpoint)
	defer c.Close()
	t, err := omdp.CallJSON[time.Time](ctx, c, "time", nil)
	fmt.Println(t, err)
	cancel()
	wg.Wait()
	// Output:
	// 1970-01-01 00:00:00 +0000 UTC <nil>
	// run: <nil>
}

// A worker of two brokers: it serves both at the same time, and goes on
// when one of them is gone.
func ExampleWorkerConfig() {
	const first, second = "inproc://example-first", "inproc://example-second"
	b := broker(first)
	defer broker(second).Close()

	w, err := omdp.NewWorker(first, "echo", &omdp.WorkerConfig{
		Endpoints:   []string{second}, // besides the first
		Concurrency: 10,               // in total
	})
	if err != nil {
		log.Fatal(err)
	}
	w.OnRequest(func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	})
	if err := w.Start(); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, d := client(first), client(second)
	defer d.Close()
	fmt.Println(c.Call(ctx, "echo", "by way of the first"))
	fmt.Println(d.Call(ctx, "echo", "by way of the second"))
	c.Close()
	b.Close()
	fmt.Println(d.Call(ctx, "echo", "by way of the second again"))
	fmt.Println(w.Stats().State)

	// Shutdown leaves both brokers first, then finishes what the worker holds.
	fmt.Println(w.Shutdown(ctx))
	// Output:
	// by way of the first <nil>
	// by way of the second <nil>
	// by way of the second again <nil>
	// ready
	// <nil>
}

func ExampleHandleJSON() {
	const endpoint = "inproc://example-handle-json"
	defer broker(endpoint).Close()

	type point struct{ X, Y int }
	defer worker(endpoint, "mirror", omdp.HandleJSON(func(_ context.Context, p point) (point, error) {
		if p.X == p.Y {
			return p, &omdp.Error{Code: "409", Message: "already symmetric"}
		}
		return point{p.Y, p.X}, nil
	})).Close()

	c := client(endpoint)
	defer c.Close()
	ctx := context.Background()
	fmt.Println(omdp.CallJSON[point](ctx, c, "mirror", point{1, 2}))
	_, err := c.Call(ctx, "mirror", point{3, 3})
	fmt.Println(err)
	_, err = c.Call(ctx, "mirror", []int{1})
	fmt.Println(err)
	// Output:
	// {2 1} <nil>
	// omdp: service mirror: 409: already symmetric
	// omdp: service mirror: 400: omdp: decode message: json: cannot unmarshal array into Go value of type omdp_test.point
}

// Partials stream; a Response is an io.Writer and an io.ReaderFrom.
func ExampleResponse() {
	const endpoint = "inproc://example-response"
	defer broker(endpoint).Close()

	defer worker(endpoint, "story", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		fmt.Fprintf(res, "A story for %s: ", req.Bytes())
		if _, err := res.WriteString("once upon a time… "); err != nil {
			return err // the client left, or the time is up
		}
		if _, err := io.Copy(res, strings.NewReader("and then")); err != nil {
			return err
		}
		if err := res.Send(map[string]int{"chapters": 3}); err != nil { // one partial, any value
			return err
		}
		fmt.Println("active:", res.Active(), "ended:", res.Ended())
		return res.Close() // or End(nil), or just return nil
	}).Close()

	c := client(endpoint)
	defer c.Close()
	b, err := io.ReadAll(c.RequestStream(context.Background(), "story", "Ada"))
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// active: true ended: false
	// A story for Ada: once upon a time… and then{"chapters":3} <nil>
}

// Only what End is given reaches the final; partials go to their own callback.
func ExampleResponse_End() {
	const endpoint = "inproc://example-end"
	defer broker(endpoint).Close()

	defer worker(endpoint, "sum", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		var numbers []int
		if err := req.Decode(&numbers); err != nil {
			return err
		}
		total := 0
		for _, n := range numbers {
			total += n
			if err := res.Send(total); err != nil {
				return err
			}
		}
		return res.End(total)
	}).Close()

	c := client(endpoint)
	defer c.Close()
	done := make(chan struct{})
	err := c.Request(context.Background(), "sum", []int{1, 2, 3},
		func(m omdp.Message) { fmt.Println("partial", m) },
		func(m omdp.Message, err error) {
			fmt.Println("final", m, err)
			close(done)
		})
	if err != nil {
		log.Fatal(err)
	}
	<-done
	// Output:
	// partial 1
	// partial 3
	// partial 6
	// final 6 <nil>
}

func ExampleResponse_Error() {
	const endpoint = "inproc://example-error"
	defer broker(endpoint).Close()

	defer worker(endpoint, "brew", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		// Returning the error does the same.
		return res.Error(&omdp.Error{Code: "418", Message: "I'm a teapot"})
	}).Close()

	c := client(endpoint)
	defer c.Close()
	_, err := c.Call(context.Background(), "brew", "coffee")
	if e, ok := errors.AsType[*omdp.Error](err); ok {
		fmt.Println(e.Code, e.Message, "–", omdp.OutcomeOf(err))
	}
	// Output: 418 I'm a teapot – executed
}

// The handler's ctx ends when the client leaves; its cause says why.
func ExampleHandler_context() {
	const endpoint = "inproc://example-context"
	defer broker(endpoint).Close()

	started, ended := make(chan struct{}), make(chan struct{})
	defer worker(endpoint, "forever", func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		defer close(ended)
		_, limited := req.Deadline()
		fmt.Println("attempt", req.Attempt(), "at", req.Service(), "for", req.Metadata()["user"], "– limited:", limited)
		res.Heartbeat() // the worker beats by itself; this is one more
		close(started)
		<-ctx.Done()
		fmt.Println(errors.Is(context.Cause(ctx), omdp.ErrCanceled), res.Active())
		return context.Cause(ctx)
	}).Close()

	c := client(endpoint)
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-started; cancel() }()
	_, err := c.Call(ctx, "forever", nil, omdp.WithMetadata(map[string]string{"user": "ada"}))
	fmt.Println(errors.Is(err, context.Canceled))
	<-ended
	// Unordered output:
	// attempt 1 at forever for ada – limited: true
	// true false
	// true
}

// A Handler is a func: middleware takes one and returns one.
func ExampleHandler() {
	const endpoint = "inproc://example-handler"
	defer broker(endpoint).Close()

	logged := func(h omdp.Handler) omdp.Handler {
		return func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			err := h(ctx, req, res)
			fmt.Printf("%s %s (id of %d bytes): %v\n", req.Service(), req.Bytes(), len(req.ID()), err)
			return err
		}
	}
	w := worker(endpoint, "shout", logged(func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(strings.ToUpper(string(req.Bytes())))
	}))

	c := client(endpoint)
	defer c.Close()
	m, err := c.Call(context.Background(), "shout", "hey")
	w.Close() // the handler has returned then
	fmt.Println(m, err)
	// Output:
	// shout hey (id of 13 bytes): <nil>
	// HEY <nil>
}
