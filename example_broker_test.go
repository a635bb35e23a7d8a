package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

func ExampleNewBroker() {
	b, err := omdp.NewBroker("tcp://127.0.0.1:*", &omdp.BrokerConfig{ // the system chooses the port
		Timeout:    10 * time.Second, // of requests whose client gives none; the default is 60 s
		MaxTimeout: time.Minute,      // whatever a client asks for
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Start(); err != nil { // it serves when Start returns
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(b.Endpoint(), "tcp://127.0.0.1:"))

	defer worker(b.Endpoint(), "echo", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	}).Close()
	c := client(b.Endpoint())
	m, err := c.Call(context.Background(), "echo", "hello")
	fmt.Println(m, err)
	c.Close()

	// Shutdown lets requests in progress finish; Close does not.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(b.Shutdown(ctx), b.Close())

	// What is wrong with a config is said before anything is opened.
	_, err = omdp.NewBroker("tcp://*:5555", &omdp.BrokerConfig{Heartbeat: time.Millisecond})
	fmt.Println(err)
	// Output:
	// true
	// hello <nil>
	// <nil> <nil>
	// omdp: new broker: Heartbeat: 1ms is not from 10ms to 24h
}

// Workers that keep something in memory, such as the documents that are edited,
// are given the requests for the same one.
func ExampleWithKey() {
	b, err := omdp.NewBroker("inproc://example-with-key", &omdp.BrokerConfig{Dispatch: map[string]omdp.DispatchPolicy{
		"document": omdp.Sticky,
		"render":   omdp.LeastLoaded,
		"":         omdp.LeastRecentlyUsed, // of all others; that is the default
	}})
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Start(); err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	for i := range 3 {
		w := worker(b.Endpoint(), "document", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			return res.End(i)
		})
		defer w.Close()
		if err := w.WaitReady(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	c := client(b.Endpoint())
	defer c.Close()
	ctx := context.Background()
	m, err := c.Call(ctx, "document", "open", omdp.WithKey("letter.txt"))
	again, err2 := c.Call(ctx, "document", "edit", omdp.WithKey("letter.txt"))
	fmt.Println(m.String() == again.String(), err, err2)
	fmt.Println(omdp.Sticky, omdp.LeastLoaded, omdp.DispatchPolicy(7))
	// Output:
	// true <nil> <nil>
	// Sticky LeastLoaded DispatchPolicy(7)
}

// A broker is three lines in any program.
func ExampleBroker_Run() {
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	b, err := omdp.NewBroker("inproc://example-broker-run", nil)
	if err != nil {
		log.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { fmt.Println("run:", b.Run(ctx)) })

	w := worker("inproc://example-broker-run", "echo", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	})
	c := client("inproc://example-broker-run") // waits for the broker and the worker
	fmt.Println(c.Call(ctx, "echo", "hello"))
	c.Close()
	w.Close()
	stop()
	wg.Wait()
	// Output:
	// hello <nil>
	// run: <nil>
}

// One broker serves peers of every dialect. An endpoint is Auto if nothing else
// is said: peers of this library and of the Majordomo Protocol are told apart
// there. Node's own clients begin alike, so those of PIGATO and of zmq-omdp's
// last revision need an endpoint that says who they are.
func ExampleListener() {
	b, err := omdp.NewBroker("inproc://example-anybody", &omdp.BrokerConfig{
		Dialect: omdp.Auto, // omdp.OMDP, omdp.MDP02, omdp.MDP01, and PIGATO's workers
		Listeners: []omdp.Listener{
			{Endpoint: "inproc://example-pigato", Dialect: omdp.PIGATO},
			{Endpoint: "inproc://example-final", Dialect: omdp.OMDPFinal},
			{Endpoint: "inproc://example-rfc18", Dialect: omdp.MDP02},
			{Endpoint: "inproc://example-rfc7", Dialect: omdp.MDP01},
			{Endpoint: "inproc://example-ours", Dialect: omdp.OMDP}, // and nobody else
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Start(); err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	for i, d := range []omdp.Dialect{omdp.Auto, omdp.PIGATO, omdp.OMDPFinal, omdp.MDP02, omdp.MDP01, omdp.OMDP} {
		fmt.Println(d, b.Endpoints()[i])
	}
	// Output:
	// auto inproc://example-anybody
	// pigato inproc://example-pigato
	// omdp-final inproc://example-final
	// mdp02 inproc://example-rfc18
	// mdp01 inproc://example-rfc7
	// omdp inproc://example-ours
}

// A broker may listen on several endpoints, and holds no more than its limits.
func ExampleBroker_Stats() {
	b, err := omdp.NewBroker("inproc://example-clients", &omdp.BrokerConfig{
		Listeners: []omdp.Listener{{Endpoint: "inproc://example-workers"}},
		Limits:    omdp.Limits{ServiceQueue: 1}, // zero fields have their defaults
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Start(); err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Endpoints())

	// Without a worker a request waits, up to its timeout.
	c := client("inproc://example-clients")
	defer c.Close()
	ctx := context.Background()
	done := make(chan struct{})
	err = c.Request(ctx, "double", 21, nil, func(m omdp.Message, err error) {
		fmt.Println("final", m, err)
		close(done)
	})
	if err != nil {
		log.Fatal(err)
	}
	// The next one is over the limit.
	_, err = c.Call(ctx, "double", 22)
	fmt.Println(errors.Is(err, omdp.ErrOverloaded), omdp.OutcomeOf(err))
	s := b.Stats()
	fmt.Println(s.Clients, "client,", s.Workers, "workers,", s.Queued, "queued,", s.Overloaded, "refused")

	defer worker("inproc://example-workers", "double", omdp.HandleJSON(func(_ context.Context, n int) (int, error) {
		return 2 * n, nil
	})).Close()
	<-done
	d := b.Stats().Services["double"]
	fmt.Println(d.Workers, "worker,", d.Queued, "queued,", d.Completed, "completed")
	// Output:
	// [inproc://example-clients inproc://example-workers]
	// true not executed
	// 1 client, 0 workers, 1 queued, 1 refused
	// final 42 <nil>
	// 1 worker, 0 queued, 1 completed
}
