package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Ours returns the driver of this library: every script gets a broker, a worker
// or a client of its own, in this process, over tcp.
func Ours() Driver { return ours{} }

type ours struct{}

// A broker or worker that is late by half a beat, as on a busy machine, gives
// its peers time anew: shorter beats would make the silent ones hard to miss.
const (
	ourBeat    = 250 * time.Millisecond
	ourTimeout = 1000 * time.Millisecond // of requests at brokers that need one
	anyPort    = "tcp://127.0.0.1:*"
)

// deviations are requirements that this library does not meet on purpose, each
// with the reason. None of them binds.
var deviations = map[string]string{}

func (ours) Beat() time.Duration { return ourBeat }

// Expiry is that of peers which tell no interval.
func (ours) Expiry() time.Duration       { return 17 * time.Second }
func (ours) Service(fresh string) string { return fresh }
func (ours) Listen() (string, bool)      { return anyPort, false }
func (ours) Offers(role, n string) bool  { return true }

func (ours) Refuses(string, string) string { return "" }

// speaks are the dialects that the kit knows by name.
var speaks = map[string]omdp.Dialect{"mdp01": omdp.MDP01, "mdp02": omdp.MDP02, "omdp": omdp.OMDP}

func (ours) Start(s Start) (Subject, error) {
	switch s.Script.Role {
	case "broker":
		c := &omdp.BrokerConfig{Heartbeat: ourBeat}
		if slices.Contains(s.Script.Needs, "timeout") {
			c.Timeout = ourTimeout
		}
		b, err := omdp.NewBroker(anyPort, c)
		if err == nil {
			err = b.Start()
		}
		return &ourBroker{b: b}, err
	case "worker":
		return startWorker(s)
	}
	return startClient(s)
}

// noCalls is the part of a Subject that only clients have.
type noCalls struct{}

func (noCalls) Endpoint() string                         { return "" }
func (noCalls) Call(string, string, time.Duration) error { return fmt.Errorf("it is no client") }
func (noCalls) Next(string, time.Time) (string, string, error) {
	return "", "", fmt.Errorf("it is no client")
}

type ourBroker struct {
	noCalls
	b *omdp.Broker
}

func (b *ourBroker) Endpoint() string { return b.b.Endpoint() }
func (b *ourBroker) Stop() error      { return b.b.Close() }
func (b *ourBroker) Close()           { _ = b.b.Close() }

type ourWorker struct {
	noCalls
	w *omdp.Worker
}

func startWorker(s Start) (Subject, error) {
	w, err := omdp.NewWorker(s.Endpoint, s.Service, &omdp.WorkerConfig{Dialect: speaks[s.Script.Dialects[0]], Heartbeat: ourBeat, ReconnectMin: 10 * time.Millisecond})
	if err == nil {
		err = w.OnRequest(serve)
	}
	if err == nil {
		err = w.Start()
	}
	return &ourWorker{w: w}, err
}

func (w *ourWorker) Stop() error { return w.w.Close() }
func (w *ourWorker) Close()      { _ = w.w.Close() }

// serve behaves as the scripts expect of a worker: it gives back the data that
// it got, but for the words that stand here.
func serve(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	switch string(req.Bytes()) {
	case "fail":
		return &omdp.Error{Code: "418", Message: "TEAPOT"}
	case "partials":
		for i := range 3 {
			if err := res.Send(fmt.Sprint("partials-", i)); err != nil {
				return err
			}
		}
		return res.End("partials-final")
	case "hold":
		<-ctx.Done()
		return context.Cause(ctx)
	case "twice":
		_, _ = res.End("once"), res.End("twice") // the second is an error here
		_ = res.Send("thrice")
		return nil
	}
	return res.End(req.Message())
}

// ourClient is a client, and what its calls gave.
type ourClient struct {
	c       *omdp.Client
	service string
	dialect string

	calls
}

func startClient(s Start) (Subject, error) {
	c, err := omdp.NewClient(s.Endpoint, &omdp.ClientConfig{Dialect: speaks[s.Script.Dialects[0]], Heartbeat: ourBeat, ReconnectMin: 10 * time.Millisecond})
	if err == nil {
		err = c.Start()
	}
	return &ourClient{c: c, service: s.Service, dialect: s.Script.Dialects[0]}, err
}

func (c *ourClient) Endpoint() string { return "" }
func (c *ourClient) Stop() error      { return c.c.Close() }
func (c *ourClient) Close()           { _ = c.c.Close() }

func (c *ourClient) Call(name, data string, timeout time.Duration) error {
	b := c.of(name)
	var opts []omdp.CallOption
	if timeout != 0 {
		opts = append(opts, omdp.WithTimeout(timeout))
	}
	var value any = []byte(data) // a body of MDP is bytes
	if c.dialect == "omdp" {
		value = json.RawMessage(data)
	}
	return c.c.Request(context.Background(), c.service, value, func(m omdp.Message) {
		b.put([]string{"partial", string(m.JSON())})
	}, func(m omdp.Message, err error) {
		if err != nil {
			b.put([]string{"error", err.Error()})
		} else {
			b.put([]string{"final", string(m.JSON())})
		}
	}, opts...)
}
