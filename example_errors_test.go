package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Whether it is safe to call again.
func ExampleOutcomeOf() {
	const endpoint = "inproc://example-outcome"
	c, err := omdp.NewClient(endpoint, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	again := func(err error) string {
		switch omdp.OutcomeOf(err) {
		case omdp.NotSent, omdp.NotExecuted:
			return "safe to call again"
		case omdp.MayHaveExecuted:
			return "call again if it may run twice"
		case omdp.Executed:
			return "a handler ended: as the error says, or no error at all"
		}
		return ""
	}

	_, err = c.Call(ctx, "pay", 1)
	fmt.Println(err)
	fmt.Println("-", again(err))

	b := broker(endpoint)
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	_, err = c.Call(ctx, "pay", 2, omdp.FailFast())
	fmt.Println(err)
	fmt.Println("-", again(err))

	// The broker is lost while the handler runs.
	w := worker(endpoint, "pay", func(ctx context.Context, _ *omdp.Request, _ *omdp.Response) error {
		b.Close()
		<-ctx.Done()
		return context.Cause(ctx)
	})
	_, err = c.Call(ctx, "pay", 3)
	fmt.Println(errors.Is(err, omdp.ErrBrokerLost), omdp.OutcomeOf(err))
	fmt.Println("-", again(err))
	c.Close()
	w.Close()
	fmt.Println("-", again(nil))
	// Output:
	// omdp: call pay: not started (not sent)
	// - safe to call again
	// omdp: call pay: no worker for the service: NO_WORKER (not executed)
	// - safe to call again
	// true may have executed
	// - call again if it may run twice
	// - a handler ended: as the error says, or no error at all
}

// A handler chooses the code, the text or any value of its error.
func ExampleError() {
	const endpoint = "inproc://example-own-error"
	defer broker(endpoint).Close()
	defer worker(endpoint, "withdraw", omdp.HandleJSON(func(_ context.Context, amount int) (string, error) {
		switch {
		case amount < 0:
			return "", &omdp.Error{Code: "400", Message: "a negative amount"}
		case amount > 100:
			return "", &omdp.Error{Code: "NO_FUNDS", Data: []byte(`{"balance":100}`)}
		case amount == 13:
			return "", errors.New("out of luck") // any other error has the code 500
		}
		return "done", nil
	})).Close()
	c := client(endpoint)
	defer c.Close()

	for _, amount := range []int{10, -1, 200, 13} {
		m, err := c.Call(context.Background(), "withdraw", amount)
		if e, ok := errors.AsType[*omdp.Error](err); ok { // nothing local has this type
			fmt.Printf("%s: code %s, text %s, JSON %s\n", e.Service, e.Code, e.Message, e.Data)
			continue
		}
		fmt.Println(m, err)
	}
	// Output:
	// done <nil>
	// withdraw: code 400, text a negative amount, JSON "a negative amount"
	// withdraw: code NO_FUNDS, text {"balance":100}, JSON {"balance":100}
	// withdraw: code 500, text out of luck, JSON "out of luck"
}

func ExampleFailFast() {
	const endpoint = "inproc://example-fail-fast"
	defer broker(endpoint).Close()
	c := client(endpoint)
	defer c.Close()

	// Without it the call would wait for a worker until its timeout.
	_, err := c.Call(context.Background(), "nobody", nil, omdp.FailFast())
	fmt.Println(errors.Is(err, omdp.ErrNoWorker), omdp.OutcomeOf(err))
	// Output: true not executed
}

func ExampleWithTimeout() {
	const endpoint = "inproc://example-with-timeout"
	defer broker(endpoint).Close()
	c := client(endpoint)
	defer c.Close()

	// No worker comes in time. A sooner deadline of ctx would hold instead.
	_, err := c.Call(context.Background(), "nobody", nil, omdp.WithTimeout(500*time.Millisecond))
	fmt.Println(errors.Is(err, omdp.ErrTimeout), errors.Is(err, context.DeadlineExceeded), omdp.OutcomeOf(err))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = c.Call(ctx, "nobody", nil, omdp.WithTimeout(-1)) // none
	fmt.Println(errors.Is(err, omdp.ErrCanceled), errors.Is(err, context.Canceled), omdp.OutcomeOf(err))
	// Output:
	// true true not executed
	// true true not sent
}

// What the errors of calls and handlers are.
func Example_errors() {
	text := func(err error) string {
		e, said := errors.AsType[*omdp.Error](err)
		switch {
		case err == nil:
			return "fine"
		case said:
			return "the handler says " + e.Code
		case errors.Is(err, omdp.ErrTimeout):
			return "no answer in time"
		case errors.Is(err, omdp.ErrCanceled):
			return "the caller cancelled"
		case errors.Is(err, omdp.ErrNoWorker):
			return "nobody serves that"
		case errors.Is(err, omdp.ErrWorkerLost):
			return "the worker went away with the request"
		case errors.Is(err, omdp.ErrBrokerLost):
			return "the broker went away with the request"
		case errors.Is(err, omdp.ErrOverloaded):
			return "a limit of broker or client is reached: later, perhaps"
		case errors.Is(err, omdp.ErrTooLarge):
			return "the data is over MaxBody"
		case errors.Is(err, omdp.ErrSlowConsumer):
			return "the replies were not read in time"
		case errors.Is(err, omdp.ErrDenied):
			return "the broker does not allow it"
		case errors.Is(err, omdp.ErrProtocol):
			return "the other side speaks otherwise"
		case errors.Is(err, omdp.ErrNotStarted), errors.Is(err, omdp.ErrClosed):
			return "the client is not started yet, or closed"
		case errors.Is(err, omdp.ErrEnded):
			return "the response has had its final"
		}
		return "data that JSON does not know, or a wrong option"
	}

	const endpoint = "inproc://example-errors"
	defer broker(endpoint).Close()
	defer worker(endpoint, "write", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		if err := res.End("all there is"); err != nil {
			return err
		}
		_, err := res.Write([]byte("and more"))
		fmt.Println("handler:", text(err))
		return nil
	}).Close()
	c, err := omdp.NewClient(endpoint, &omdp.ClientConfig{MaxBody: 1 << 10, MaxOutstanding: 1})
	if err != nil {
		log.Fatal(err)
	}
	call := func(service string, data any, opts ...omdp.CallOption) {
		_, err := c.Call(context.Background(), service, data, opts...)
		fmt.Println(text(err))
	}
	call("write", "too early")
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	call("write", "hello")
	call("write", strings.Repeat("x", 2000))
	call("write", func() {})
	s := c.RequestStream(context.Background(), "nobody", "waits for a worker")
	call("write", "one at a time")
	s.Close()
	_, err = s.Read(make([]byte, 1))
	fmt.Println(text(err))
	call("nobody", "hello?", omdp.FailFast())
	call("nobody", "hello?", omdp.WithTimeout(10*time.Millisecond))
	c.Close()
	call("write", "too late")
	// Unordered output:
	// the client is not started yet, or closed
	// handler: the response has had its final
	// fine
	// the data is over MaxBody
	// data that JSON does not know, or a wrong option
	// a limit of broker or client is reached: later, perhaps
	// the caller cancelled
	// nobody serves that
	// no answer in time
	// the client is not started yet, or closed
}
