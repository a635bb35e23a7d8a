package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp"
)

// shout answers with the text in capitals, a partial for each word first.
func shout(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	text := strings.ToUpper(string(req.Bytes()))
	for word := range strings.FieldsSeq(text) {
		if _, err := fmt.Fprintln(res, word); err != nil {
			return err
		}
	}
	return res.End(nil)
}

func ExampleNewClient() {
	c, err := omdp.NewClient("inproc://example-new-client", &omdp.ClientConfig{
		Timeout: 5 * time.Second, // of requests that say nothing else; the default is 60 s
		OnState: func(s omdp.State) { fmt.Println(s) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil { // the broker may come later
		log.Fatal(err)
	}
	defer broker("inproc://example-new-client").Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	// Shutdown waits for the requests in progress, and Close for callbacks.
	if err := c.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// ready
	// draining
	// closed
}

func ExampleClient_Call() {
	const endpoint = "inproc://example-call"
	defer broker(endpoint).Close()
	defer worker(endpoint, "sum", omdp.HandleJSON(func(_ context.Context, in []int) (sum int, _ error) {
		for _, n := range in {
			sum += n
		}
		if sum < 0 {
			return 0, &omdp.Error{Code: "NEGATIVE", Message: "a negative sum"}
		}
		return sum, nil
	})).Close()
	c := client(endpoint)
	defer c.Close()
	ctx := context.Background()

	m, err := c.Call(ctx, "sum", []int{1, 2, 3}, omdp.WithTimeout(10*time.Second))
	fmt.Println(m, err)

	// What the handler said is an *Error.
	_, err = c.Call(ctx, "sum", []int{-1})
	if e, ok := errors.AsType[*omdp.Error](err); ok {
		fmt.Println(e.Code, e.Message)
	}

	// Any other error says whether the work was done, and so whether it is
	// safe to try again.
	_, err = c.Call(ctx, "nothing", nil, omdp.FailFast())
	fmt.Println(errors.Is(err, omdp.ErrNoWorker), omdp.OutcomeOf(err))
	// Output:
	// 6 <nil>
	// NEGATIVE a negative sum
	// true not executed
}

func ExampleCallJSON() {
	const endpoint = "inproc://example-call-json"
	type point struct{ X, Y int }
	defer broker(endpoint).Close()
	defer worker(endpoint, "mirror", omdp.HandleJSON(func(_ context.Context, p point) (point, error) {
		return point{p.Y, p.X}, nil
	})).Close()
	c := client(endpoint)
	defer c.Close()

	p, err := omdp.CallJSON[point](context.Background(), c, "mirror", point{1, 2})
	fmt.Println(p, err)
	// Output: {2 1} <nil>
}

// What client.request('shout', data, partialCallback, finalCallback) is in Node.
func ExampleClient_Request() {
	const endpoint = "inproc://example-request"
	defer broker(endpoint).Close()
	defer worker(endpoint, "shout", shout).Close()
	c := client(endpoint)
	defer c.Close()

	done := make(chan struct{})
	err := c.Request(context.Background(), "shout", "hello world",
		func(m omdp.Message) { fmt.Printf("partial %q\n", m.String()) },
		func(m omdp.Message, err error) {
			fmt.Println("final", string(m.JSON()), err)
			close(done)
		})
	if err != nil { // nothing was sent, and no callback runs
		log.Fatal(err)
	}
	<-done
	// Output:
	// partial "HELLO\n"
	// partial "WORLD\n"
	// final null <nil>
}

// What client.requestStream('shout', data).pipe(process.stdout) is in Node.
func ExampleClient_RequestStream() {
	const endpoint = "inproc://example-request-stream"
	defer broker(endpoint).Close()
	defer worker(endpoint, "shout", shout).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "shout", "hello world")
	if _, err := io.Copy(os.Stdout, s); err != nil { // nil only after a good final
		log.Fatal(err)
	}
	// Output:
	// HELLO
	// WORLD
}

func ExampleStream_All() {
	const endpoint = "inproc://example-stream-all"
	defer broker(endpoint).Close()
	defer worker(endpoint, "count", func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		for i := 1; ; i++ {
			if err := res.Send(i); err != nil { // the client left
				return err
			}
		}
	}).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "count", nil,
		omdp.WithTimeout(-1),    // it may take as long as it likes
		omdp.WithWindow(16<<10)) // the worker may be so many bytes ahead
	for m, err := range s.All() {
		if err != nil {
			log.Fatal(err)
		}
		var n int
		if err := m.Decode(&n); err != nil {
			log.Fatal(err)
		}
		fmt.Println(n)
		if n == 3 {
			break // cancels the request at the worker
		}
	}
	// Output:
	// 1
	// 2
	// 3
}

func ExampleWithMetadata() {
	const endpoint = "inproc://example-metadata"
	defer broker(endpoint).Close()
	defer worker(endpoint, "trace", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Metadata()["traceparent"])
	}).Close()
	c := client(endpoint)
	defer c.Close()

	m, err := c.Call(context.Background(), "trace", nil, omdp.WithMetadata(map[string]string{"traceparent": "00-4bf9"}))
	fmt.Println(m, err)
	// Output: 00-4bf9 <nil>
}

func ExampleClient_Run() {
	const endpoint = "inproc://example-client-run"
	defer broker(endpoint).Close()
	c, err := omdp.NewClient(endpoint, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	stop()
	fmt.Println(<-done, c.Stats().State)
	// Output: <nil> closed
}

func ExampleIdempotent() {
	const endpoint = "inproc://example-idempotent"
	defer broker(endpoint).Close()
	started := make(chan int, 2)
	handler := func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		started <- req.Attempt()
		if req.Attempt() == 1 {
			<-ctx.Done() // as if it took long
			return ctx.Err()
		}
		return res.End("done")
	}
	first := worker(endpoint, "slow", handler)
	c := client(endpoint)
	defer c.Close()

	err := c.Request(context.Background(), "slow", nil, nil, func(m omdp.Message, err error) {
		fmt.Println(m, err)
		started <- 0
	}, omdp.Idempotent())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("attempt", <-started)
	first.Close() // it holds the request, which is given to the next worker
	defer worker(endpoint, "slow", handler).Close()
	fmt.Println("attempt", <-started)
	<-started
	// Output:
	// attempt 1
	// attempt 2
	// done <nil>
}

// A client of two brokers: new requests go to the first that is well.
func ExampleClientConfig_endpoints() {
	const preferred, standby = "inproc://example-preferred", "inproc://example-standby"
	echo := func(_ context.Context, req *omdp.Request, res *omdp.Response) error { return res.End(req.Message()) }
	b := broker(preferred)
	defer broker(standby).Close()
	defer worker(preferred, "echo", echo).Close()
	defer worker(standby, "echo", echo).Close()

	c, err := omdp.NewClient(preferred, &omdp.ClientConfig{Endpoints: []string{standby}})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	fmt.Println(c.Call(ctx, "echo", "hello"))
	if err := b.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Call(ctx, "echo", "hello again", omdp.Idempotent()))
	// Output:
	// hello <nil>
	// hello again <nil>
}

// A worker and a client of a broker of another make: here the Majordomo Protocol
// 0.2, spoken by a broker of this library. Lookup asks it who is there.
func ExampleClient_Lookup() {
	const at = "inproc://example-lookup"
	b, err := omdp.NewBroker(at, nil) // Auto: the Majordomo Protocol names itself
	if err != nil {
		log.Fatal(err)
	}
	w, err := omdp.NewWorker(at, "echo", &omdp.WorkerConfig{Dialect: omdp.MDP02})
	if err != nil {
		log.Fatal(err)
	}
	c, err := omdp.NewClient(at, &omdp.ClientConfig{Dialect: omdp.MDP02, MaxConnections: 4})
	if err != nil {
		log.Fatal(err)
	}
	w.OnRequest(func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Bytes())
	})
	if err := errors.Join(b.Start(), w.Start(), c.Start()); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	fmt.Println(c.Call(ctx, "echo", []byte("hello"))) // waits for the worker
	fmt.Println(c.Lookup(ctx, "echo"))
	fmt.Println(c.Lookup(ctx, "nobody"))
	_, err = c.Call(ctx, "echo", "hello", omdp.FailFast())
	fmt.Println(err)
	if err := errors.Join(c.Close(), w.Close(), b.Close()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello <nil>
	// true <nil>
	// false <nil>
	// omdp: call echo: not supported by the other side: FailFast in the dialect mdp02 (not sent)
}
