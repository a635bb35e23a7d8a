package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// omdpStack is the library as its users have it: the public API alone, in one of
// its dialects.
type omdpStack struct{ dialect omdp.Dialect }

func init() {
	stacks["omdp"] = omdpStack{}
	for _, d := range []omdp.Dialect{omdp.OMDPFinal, omdp.PIGATO, omdp.MDP02, omdp.MDP01} {
		stacks[d.String()] = omdpStack{d}
	}
}

// omdpReady bounds the wait for a connection or a registration.
const omdpReady = 10 * time.Second

func (s omdpStack) broker(w work) (string, error) {
	c := omdp.BrokerConfig{Dialect: s.dialect}
	if w.Queue {
		c.Limits = omdp.Limits{ServiceQueue: 200_000, TotalQueue: 200_000, Outstanding: 200_000}
	}
	// Clients that are told to be idle, those that make sure of them, and the services' workers.
	c.Limits.Clients = 2 * maxIdleClients
	c.Limits.Services = 2048
	b, err := omdp.NewBroker("tcp://127.0.0.1:*", &c)
	if err != nil {
		return "", err
	}
	if err := b.Start(); err != nil {
		return "", err
	}
	return b.Endpoint(), nil
}

func (s omdpStack) worker(w work) error {
	answer := func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(req.Message())
	}
	if w.Partials > 0 {
		answer = func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			p := req.Bytes()
			for range w.Partials {
				if _, err := res.Write(p); err != nil {
					return err
				}
			}
			return res.End(req.Message())
		}
	}
	if w.Stuck {
		answer = answerBeside(w)
	}
	ctx, cancel := context.WithTimeout(context.Background(), omdpReady)
	defer cancel()
	var all []*omdp.Worker
	names := w.serviceNames()
	if w.Each {
		names = slices.Repeat(names, w.InFlight)
	}
	for _, name := range names {
		v, err := omdp.NewWorker(w.Endpoint, name, &omdp.WorkerConfig{Concurrency: w.Concurrency, Dialect: s.dialect})
		if err != nil {
			return err
		}
		if err := errors.Join(v.OnRequest(answer), v.Start()); err != nil {
			return err
		}
		all = append(all, v)
	}
	for _, v := range all {
		if err := v.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// omdpClient is one connection, used from any number of goroutines.
type omdpClient struct {
	work
	c    *omdp.Client
	data []byte
}

func (s omdpStack) dial(w work) (client, error) {
	if !w.Own {
		return s.dialOne(w)
	}
	own := omdpClients{make(chan *omdpClient, w.InFlight)}
	for range w.InFlight {
		c, err := s.dialOne(w)
		if err != nil {
			return nil, err
		}
		own.free <- c
	}
	return own, nil
}

// omdpClients are a client for each caller.
type omdpClients struct{ free chan *omdpClient }

func (o omdpClients) call(service string) error {
	c := <-o.free
	defer func() { o.free <- c }()
	return c.call(service)
}

func (o omdpClients) pipeline(*load) error { return errors.New("no pipeline over several clients") }

func (s omdpStack) dialOne(w work) (*omdpClient, error) {
	c, err := omdp.NewClient(w.Endpoint, &omdp.ClientConfig{MaxOutstanding: -1, MaxWindow: w.MaxWindow, Dialect: s.dialect, MaxConnections: w.connections()})
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), omdpReady)
	defer cancel()
	o := &omdpClient{work: w, c: c, data: []byte(w.payload())}
	if s.dialect != omdp.Auto { // such a broker says nothing before it is asked
		_, err := c.Call(ctx, w.serviceNames()[0], o.data)
		return o, err
	}
	return o, c.WaitReady(ctx)
}

func (c *omdpClient) check(m omdp.Message) error {
	if n := len(m.Bytes()); n != len(c.data) { // in some dialects a JSON string, quotes and all
		return fmt.Errorf("a bad final of %d bytes", n)
	}
	return nil
}

func (c *omdpClient) call(service string) error {
	if c.Partials > 0 {
		return c.stream(service)
	}
	m, err := c.c.Call(context.Background(), service, c.data)
	if err != nil {
		return err
	}
	return c.check(m)
}

// stream makes a request whose partials come to a callback.
func (c *omdpClient) stream(service string) error {
	done := make(chan error, 1)
	partials := 0 // of the callbacks, which run one after another
	err := c.c.Request(context.Background(), service, c.data,
		func(omdp.Message) { partials++ },
		func(m omdp.Message, err error) {
			if err == nil {
				err = errors.Join(c.check(m), c.checkPartials(partials))
			}
			done <- err
		})
	if err != nil {
		return err
	}
	return <-done
}

// pipeline has each final's callback make the next request.
func (c *omdpClient) pipeline(l *load) error {
	var (
		sent atomic.Int64
		next func()
		over = make(chan struct{}, 1)
		one  = make(chan struct{}, 1) // the first final of a full queue
		ctx  = context.Background()
	)
	end := func() {
		select {
		case over <- struct{}{}:
		default:
		}
	}
	next = func() {
		n, started := sent.Add(1), l.now()
		err := c.c.Request(ctx, l.service(n), c.data, nil, func(m omdp.Message, err error) {
			if err == nil {
				err = c.check(m)
			}
			if l.Queue {
				select {
				case one <- struct{}{}:
				default:
				}
			}
			if !l.done(n, started, err) {
				end()
				return
			}
			next()
		})
		if err != nil {
			l.done(n, started, err)
			end()
		}
	}
	if !l.Queue {
		l.begin()
	}
	for range l.InFlight {
		next()
	}
	if l.Queue {
		// In the order of the connection: when the ping is answered, all others are queued.
		if _, err := c.c.Call(ctx, "ping", c.data); err != nil {
			return err
		}
		fmt.Println("filled")
		<-one
		l.begin()
	}
	<-over
	return l.err()
}

// connections is how many a client may open where a request needs one to itself.
func (w work) connections() int {
	if w.Each {
		return w.InFlight
	}
	return 0
}
