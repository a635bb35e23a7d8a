package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// natsStack is a real nats-server and its own client. Plain, a request is
// nc.Request; pipelined, it is a publish with a reply inbox that we keep by
// hand, as one who wants speed writes it.
type natsStack struct{ pipelined bool }

func init() {
	stacks["nats"] = natsStack{}
	stacks["nats-pipelined"] = natsStack{pipelined: true}
}

const natsTimeout = 30 * time.Second

func (natsStack) broker(work) (string, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxConn: 2 * maxIdleClients})
	if err != nil {
		return "", err
	}
	s.Start()
	if !s.ReadyForConnections(5 * time.Second) {
		return "", errors.New("nats-server is not ready after 5 s")
	}
	return s.ClientURL(), nil
}

func natsDial(w work) (*nats.Conn, error) {
	return nats.Connect(w.Endpoint, nats.NoReconnect(), nats.Timeout(10*time.Second))
}

func (natsStack) worker(w work) error {
	nc, err := natsDial(w)
	if err != nil {
		return err
	}
	for _, name := range w.serviceNames() {
		sub, err := nc.QueueSubscribe(name, "workers", func(m *nats.Msg) {
			for range w.Partials {
				if err := nc.Publish(m.Reply, m.Data[1:len(m.Data)-1]); err != nil {
					fatal(err)
				}
			}
			if err := m.Respond(m.Data); err != nil {
				fatal(err)
			}
		})
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil {
			return err
		}
	}
	return nc.Flush()
}

// natsClient is one connection.
type natsClient struct {
	work
	nc   *nats.Conn
	data []byte

	// The inbox by hand: prefix.N is the reply subject of request N.
	prefix  string
	counter atomic.Int64
	waiting sync.Map    // N → *natsCall
	onFinal func(int64) // of the pipeline, instead of waiting
}

type natsCall struct {
	done     chan error
	partials int
}

func (s natsStack) dial(w work) (client, error) {
	nc, err := natsDial(w)
	if err != nil {
		return nil, err
	}
	c := &natsClient{work: w, nc: nc, data: []byte(`"` + w.payload() + `"`)}
	// Partials have no nc.Request: both kinds keep the inbox by hand there.
	if !s.pipelined && w.Partials == 0 {
		return c, nil
	}
	c.prefix = nats.NewInbox() + "."
	sub, err := nc.Subscribe(c.prefix+"*", c.deliver)
	if err != nil {
		return nil, err
	}
	return c, errors.Join(sub.SetPendingLimits(-1, -1), nc.Flush())
}

func (c *natsClient) check(data []byte) error {
	if len(data) != len(c.data) {
		return fmt.Errorf("a bad final of %d bytes", len(data))
	}
	return nil
}

// deliver runs on the subscription's goroutine. A partial is the bare payload,
// a final the payload as it was sent, two bytes longer.
func (c *natsClient) deliver(m *nats.Msg) {
	n, err := strconv.ParseInt(strings.TrimPrefix(m.Subject, c.prefix), 10, 64)
	if err != nil {
		fatal(err)
	}
	if c.onFinal != nil {
		if err := c.check(m.Data); err != nil {
			fatal(err)
		}
		c.onFinal(n)
		return
	}
	v, ok := c.waiting.Load(n)
	if !ok {
		return
	}
	call := v.(*natsCall)
	if c.Partials > 0 && len(m.Data) == len(c.data)-2 {
		call.partials++
		return
	}
	c.waiting.Delete(n)
	call.done <- errors.Join(c.check(m.Data), c.checkPartials(call.partials))
}

func (c *natsClient) call(service string) error {
	if c.prefix == "" {
		m, err := c.nc.Request(service, c.data, natsTimeout)
		if err != nil {
			return err
		}
		return c.check(m.Data)
	}
	call := &natsCall{done: make(chan error, 1)}
	n := c.counter.Add(1)
	c.waiting.Store(n, call)
	if err := c.publish(service, n); err != nil {
		return err
	}
	return <-call.done
}

func (c *natsClient) publish(service string, n int64) error {
	return c.nc.PublishRequest(service, c.prefix+strconv.FormatInt(n, 10), c.data)
}

// pipeline: nc.Request has no asynchronous form, so there it is as many
// goroutines as requests; by hand, each final sends the next request.
func (c *natsClient) pipeline(l *load) error {
	if c.prefix == "" {
		return l.callers(c)
	}
	started := make([]int64, l.InFlight)
	over := make(chan struct{}, 1)
	var sent int64 // of the subscription's goroutine, after the first are out
	c.onFinal = func(n int64) {
		if !l.done(n, started[n%int64(len(started))], nil) {
			select {
			case over <- struct{}{}:
			default:
			}
			return
		}
		// Slots by number: the finals of one service may overtake another's.
		started[n%int64(len(started))] = l.now()
		sent++
		if err := c.publish(l.service(sent), n); err != nil {
			fatal(err)
		}
	}
	l.begin()
	for n := range int64(l.InFlight) {
		started[n] = l.now()
		if err := c.publish(l.service(n), n); err != nil {
			return err
		}
	}
	<-over
	return l.err()
}
