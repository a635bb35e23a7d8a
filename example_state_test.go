package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/zmq-omdp/omdp"
)

// OnState tells how a client or worker stands with its broker, OnError what
// went wrong on the connection: Node's 'error' event.
func ExampleState() {
	b := broker("tcp://127.0.0.1:*")
	states, failed := make(chan omdp.State, 10), make(chan error, 100)
	c, err := omdp.NewClient(b.Endpoint(), &omdp.ClientConfig{
		OnState: func(s omdp.State) { states <- s },
		OnError: func(err error) { failed <- err },
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Stats().State == omdp.Connecting)
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-states)
	b.Close() // it says that it leaves; the client goes on trying to reach it
	fmt.Println(<-states)
	fmt.Println(<-states)
	fmt.Println(errors.Is(<-failed, omdp.ErrBrokerLost))
	c.Close()

	for s := range states {
		switch s {
		case omdp.Ready, omdp.Lost, omdp.Draining:
			fmt.Println("not yet:", s)
		case omdp.Closed:
			fmt.Println("closed, for good")
			return
		}
	}
	// Output:
	// true
	// ready
	// draining
	// lost
	// true
	// closed, for good
}

func ExampleClient_WaitReady() {
	const endpoint = "inproc://example-wait-ready"
	c, err := omdp.NewClient(endpoint, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Start(); err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	fmt.Println(c.WaitReady(ctx)) // there is no broker yet

	defer broker(endpoint).Close()
	fmt.Println(c.WaitReady(context.Background()), c.Stats().State == omdp.Ready)
	// Output:
	// omdp: wait for broker: context deadline exceeded
	// <nil> true
}

func ExampleClient_Stats() {
	const endpoint = "inproc://example-client-stats"
	defer broker(endpoint).Close()
	defer worker(endpoint, "shout", shout).Close()
	c := client(endpoint)
	defer c.Close()

	done := make(chan struct{})
	err := c.Request(context.Background(), "shout", "hello world", nil, func(omdp.Message, error) { close(done) })
	if err != nil {
		log.Fatal(err)
	}
	<-done
	c.Call(context.Background(), "nobody", nil, omdp.FailFast())

	s := c.Stats()
	fmt.Println(s.State, s.Requests, "requests:", s.Succeeded, "succeeded,", s.Failed, "failed,", s.Outstanding, "in progress")
	fmt.Println(s.Partials, "partials by", s.Connections, "connection")
	// Output:
	// ready 2 requests: 1 succeeded, 1 failed, 0 in progress
	// 2 partials by 1 connection
}

func ExampleWorker_Stats() {
	const endpoint = "inproc://example-worker-stats"
	defer broker(endpoint).Close()
	w := worker(endpoint, "shout", shout)
	c := client(endpoint)
	defer c.Close()
	if _, err := c.Call(context.Background(), "shout", "hello world"); err != nil {
		log.Fatal(err)
	}
	w.Close() // its handlers have returned then

	s := w.Stats()
	fmt.Println(s.State, s.Requests, "request:", s.Succeeded, "succeeded,", s.Failed, "failed")
	fmt.Println(s.Partials, "partials,", s.Handlers, "handlers left,", s.Panics, "panics")
	// Output:
	// closed 1 request: 1 succeeded, 0 failed
	// 2 partials, 0 handlers left, 0 panics
}
