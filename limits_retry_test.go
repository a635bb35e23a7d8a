package omdp_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// loses answers every request with W_ERROR, as a broker does whose workers die,
// until n were answered, and then as a worker would.
func loses(t *testing.T, b *rawBroker, n int) {
	t.Helper()
	for range n {
		m := b.next(t, "C", "2")
		b.send(m[0], "C", "3", m[4], `{"status":"W_ERROR"}`)
	}
}

func limitAttempts(t *testing.T) {
	for name, row := range map[string]struct {
		config   omdp.ClientConfig
		opts     []omdp.CallOption
		attempts int
	}{
		"once":          {attempts: 1},
		"by default":    {opts: []omdp.CallOption{omdp.Idempotent()}, attempts: 3},
		"as configured": {omdp.ClientConfig{MaxAttempts: 5}, []omdp.CallOption{omdp.Idempotent()}, 5},
	} {
		part(t, name, func(t *testing.T) {
			b := bindRaw(t, newEndpoint(t, "inproc"))
			c := startClient(t, b.endpoint, &row.config)
			r := goCall(t, c, "echo", "x", row.opts...)
			loses(t, b, row.attempts)
			failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
			if got := c.Stats().Retries; got != uint64(row.attempts-1) {
				t.Errorf("%d attempts besides the first, want %d", got, row.attempts-1)
			}
		})
	}
}

func limitRetries(t *testing.T) {
	b := bindRaw(t, newEndpoint(t, "inproc"))
	c := startClient(t, b.endpoint, &omdp.ClientConfig{RetryBudget: 2, MaxAttempts: 1000})
	r := goCall(t, c, "echo", "x", omdp.Idempotent())
	loses(t, b, 3)
	failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
	r = goCall(t, c, "echo", "y", omdp.Idempotent())
	loses(t, b, 1) // a call gives back a fifth
	failed(t, receive(t, "the next call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
	r = goCall(t, c, "echo", "z")
	m := b.next(t, "C", "2")
	b.send(m[0], "C", "3", m[4], `{"status":200,"msg":"z"}`)
	if got := receive(t, "another call's end", r); got != (result{"z", nil}) {
		t.Errorf("got %v, want z", got)
	}
}

func limitFinished(t *testing.T) {
	ask := func(t *testing.T, c *rawPeer, rid string, again bool) {
		t.Helper()
		c.say(`C|2|echo|` + rid + `|"x"|{}`)
		if again {
			c.want(t, "C|3|"+rid+`|{"status":"DUPLICATE","executed":true}`)
			return
		}
		c.want(t, "C|4|"+rid)
		c.want(t, "C|3|"+rid+`|{"status":200,"msg":"x"}`)
	}
	part(t, "number", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Finished: 3}})
		addWorker(t, b, "echo", nil, echo)
		c := dialRaw(t, b.Endpoint())
		for i := range 4 {
			ask(t, c, fmt.Sprint(i), false)
		}
		ask(t, c, "1", true)
		ask(t, c, "0", false)
		if s := b.Stats(); s.Repeated != 1 || s.Completed != 5 {
			t.Errorf("%d repeated, %d completed; want 1, 5", s.Repeated, s.Completed)
		}
	})
	part(t, "time", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{DuplicateWindow: 50 * time.Millisecond})
		addWorker(t, b, "echo", nil, echo)
		c := dialRaw(t, b.Endpoint())
		ask(t, c, "1", false)
		eventually(t, "the id is forgotten", func() bool {
			c.say(`C|2|echo|1|"x"|{}`)
			return b.Stats().Completed == 2
		})
	})
	part(t, "off", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{DuplicateWindow: -1})
		addWorker(t, b, "echo", nil, echo)
		c := dialRaw(t, b.Endpoint())
		ask(t, c, "1", false)
		ask(t, c, "1", false)
	})
}
