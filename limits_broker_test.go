package omdp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Rows of the table of limits that the broker holds against its peers.

const overloaded = `{"status":"OVERLOADED","executed":false}`

// full fills a queue of three through one client and sees the fourth refused,
// and all served when there is a worker.
func full(t *testing.T, limits omdp.Limits, services ...string) {
	body := strings.Repeat("x", 1000)
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: limits})
	c, other := addClient(t, b, nil), addClient(t, b, nil)
	var calls []<-chan result
	for i := range 3 {
		calls = append(calls, goCall(t, c, services[i%len(services)], body))
		eventually(t, "it is queued", func() bool { return b.Stats().Queued == i+1 })
	}
	refusedBy(t, c, services[0], body, omdp.NotExecuted)
	if s := b.Stats(); s.Overloaded != 1 || s.Refused != 1 || s.Queued != 3 {
		t.Errorf("got %d overloaded, %d refused, %d queued; want 1, 1, 3", s.Overloaded, s.Refused, s.Queued)
	}
	for _, service := range services {
		addWorker(t, b, service, nil, echo)
	}
	for _, r := range calls {
		if r := receive(t, "an answer", r); r != (result{body, nil}) {
			t.Errorf("got %.20s, %v; want the body", r.msg, r.err)
		}
	}
	served(t, other, services[0])
	served(t, c, services[0])
}

// pour sends n requests by hand, to services in turn, with the given data. It
// keeps the connection from holding more than some MiB.
func pour(t *testing.T, p *rawPeer, n int, data string, services ...string) {
	t.Helper()
	for i := range n {
		p.send("C", "2", services[i%len(services)], fmt.Sprint(i), data, `{"timeout":-1}`)
		if p.conn.Queued() > 4<<20 {
			p.fence(t)
		}
	}
}

func limitServiceQueue(t *testing.T) {
	part(t, "ServiceQueue", func(t *testing.T) { full(t, omdp.Limits{ServiceQueue: 3}, "echo") })
	part(t, "ServiceBytes", func(t *testing.T) { full(t, omdp.Limits{ServiceBytes: 3500}, "echo") })
	part(t, "default", func(t *testing.T) { // of bytes: TestMemory
		const n = 10_000
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		p, other := dialRaw(t, b.Endpoint()), addClient(t, b, nil)
		pour(t, p, n, `"x"`, "full")
		p.quiet(t)
		one := dialRaw(t, b.Endpoint())
		one.say(`C|2|full|more|"x"|{}`)
		one.want(t, "C|3|more|"+overloaded)
		if s := b.Stats(); s.Queued != n || s.Overloaded != 1 {
			t.Errorf("got %d queued, %d overloaded; want %d, 1", s.Queued, s.Overloaded, n)
		}
		addWorker(t, b, "echo", nil, echo)
		served(t, other, "echo") // another service
	})
}

// The defaults, 100,000 and 256 MiB, are hit by the broker of TestMemory.
func limitTotalQueue(t *testing.T) {
	part(t, "TotalQueue", func(t *testing.T) { full(t, omdp.Limits{TotalQueue: 3}, "echo", "other") })
	part(t, "TotalBytes", func(t *testing.T) { full(t, omdp.Limits{TotalBytes: 3500}, "echo", "other") })
	part(t, "a free worker needs no queue", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{TotalQueue: 1}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		waits := c.RequestStream(t.Context(), "nobody", nil)
		defer waits.Close()
		eventually(t, "the queue is full", func() bool { return b.Stats().Queued == 1 })
		refusedBy(t, c, "nobody", nil, omdp.NotExecuted)
		served(t, c, "echo")
	})
}

func limitOutstanding(t *testing.T) {
	part(t, "Outstanding", func(t *testing.T) { full(t, omdp.Limits{Outstanding: 3}, "echo") })
	part(t, "default", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		addWorker(t, b, "echo", nil, echo)
		p, other := dialRaw(t, b.Endpoint()), addClient(t, b, nil)
		pour(t, p, 10_000, "1", "a", "b")
		p.send("C", "2", "c", "more", "1")
		p.want(t, "C|3|more|"+overloaded)
		p.send("C", "10", "0") // one ends, and there is room for one
		p.send("C", "2", "c", "room", "1")
		p.send("C", "2", "c", "none", "1")
		p.want(t, "C|3|none|"+overloaded)
		if s := b.Stats(); s.Queued != 10_000 || s.Canceled != 1 {
			t.Errorf("got %d queued, %d cancelled; want 10,000, 1", s.Queued, s.Canceled)
		}
		served(t, other, "echo")
	})
	part(t, "MaxOutstanding", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		addWorker(t, b, "echo", nil, echo)
		for _, n := range []int{1, 100} {
			c := addClient(t, b, &omdp.ClientConfig{MaxOutstanding: n})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, n)
			for range n {
				if err := c.Request(ctx, "nobody", nil, nil, func(_ omdp.Message, err error) { ended <- err }); err != nil {
					t.Fatal(err)
				}
			}
			refusedBy(t, c, "echo", "x", omdp.NotSent)
			if s := c.Stats(); s.Outstanding != n {
				t.Errorf("got %d outstanding, want %d", s.Outstanding, n)
			}
			served(t, addClient(t, b, nil), "echo")
			cancel()
			for range n {
				failed(t, receive(t, "a call's end", ended), omdp.ErrCanceled)
			}
			served(t, c, "echo")
		}
	})
}

func limitPeers(t *testing.T) {
	part(t, "Services", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Services: 2}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		waits := c.RequestStream(t.Context(), "second", nil)
		eventually(t, "a second service", func() bool { return len(b.Stats().Services) == 2 })
		refusedBy(t, c, "third", nil, omdp.NotExecuted)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|third")
		w.want(t, "W|5")
		if s := b.Stats(); s.Overloaded != 2 || len(s.Services) != 2 {
			t.Errorf("got %d overloaded, %d services; want 2, 2", s.Overloaded, len(s.Services))
		}
		served(t, c, "echo")
		waits.Close()
		eventually(t, "a service that nobody needs is forgotten", func() bool { return len(b.Stats().Services) == 1 })
		w.say("W|1|third")
		eventually(t, "the third is there", func() bool { return b.Stats().Services["third"].Workers == 1 })
	})
	part(t, "Services, default", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		p := dialRaw(t, b.Endpoint())
		for i := range 1024 {
			p.send("C", "2", fmt.Sprint("s", i), fmt.Sprint(i), "1")
		}
		p.quiet(t)
		p.send("C", "2", "more", "more", "1")
		p.want(t, "C|3|more|"+overloaded)
		p.send("C", "2", "s7", "old", "1")
		p.quiet(t)
		if s := b.Stats(); len(s.Services) != 1024 || s.Queued != 1025 {
			t.Errorf("got %d services, %d queued; want 1,024, 1,025", len(s.Services), s.Queued)
		}
	})
	part(t, "Workers", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Workers: 1}})
		first := addWorker(t, b, "echo", nil, echo)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		w.want(t, "W|5")
		served(t, addClient(t, b, nil), "echo")
		waits := startWorker(t, b.Endpoint(), "echo", nil, echo) // it tries again
		eventually(t, "it is turned away", func() bool { return b.Stats().Overloaded >= 2 })
		closed(t, "worker", first)
		ready(t, waits)
		served(t, addClient(t, b, nil), "echo")
	})
	part(t, "Clients", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Clients: 2}})
		addWorker(t, b, "echo", nil, echo)
		one, two := addClient(t, b, nil), addClient(t, b, nil)
		p := dialRaw(t, b.Endpoint())
		p.say(`C|2|echo|1|"x"|{}`)
		p.want(t, "C|3|1|"+overloaded)
		for range 100 {
			p.say("X|garbage")
		}
		refusedBy(t, startClient(t, b.Endpoint(), nil), "echo", "x", omdp.NotExecuted)
		served(t, one, "echo")
		served(t, two, "echo")
		closed(t, "client", two)
	})
}

func limitConcurrency(t *testing.T) {
	part(t, "default", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		first, second := goCall(t, c, "echo", "1"), goCall(t, c, "echo", "1")
		eventually(t, "one at the worker, one queued", func() bool { s := b.Stats(); return s.InProgress == 1 && s.Queued == 1 })
		close(h.free)
		receive(t, "an answer", first)
		receive(t, "the other answer", second)
	})
	part(t, "most", func(t *testing.T) {
		var l logs
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Logger: l.logger()})
		if _, err := omdp.NewWorker(b.Endpoint(), "echo", &omdp.WorkerConfig{Concurrency: 1001}); err == nil || !strings.Contains(err.Error(), "Concurrency") {
			t.Errorf("got %v, want an error that names Concurrency", err)
		}
		w, c := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
		w.say(`W|1|echo|{"v":1,"id":"life","hb":1000,"concurrency":5000}`)
		w.next(t)
		pour(t, c, 1001, "1", "echo")
		eventually(t, "1,000 at the worker, one queued", func() bool { s := b.Stats(); return s.InProgress == 1000 && s.Queued == 1 })
		if n := l.count("clipped"); n != 1 {
			t.Errorf("got %d log lines, want 1", n)
		}
	})
	part(t, "of the broker", func(t *testing.T) {
		var l logs
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Logger: l.logger(), Limits: omdp.Limits{Concurrency: 2}})
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 5}, h.handle)
		c := addClient(t, b, nil)
		var calls []<-chan result
		for i := range 4 {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
		}
		eventually(t, "two at the worker, two queued", func() bool { s := b.Stats(); return s.InProgress == 2 && s.Queued == 2 })
		if n := l.count("clipped"); n != 1 {
			t.Errorf("got %d log lines, want 1", n)
		}
		close(h.free)
		for i, r := range calls {
			if r := receive(t, "an answer", r); r != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", r, i)
			}
		}
	})
}

func limitMalformed(t *testing.T) {
	bad := map[string]string{"client": "C|2", "worker": "W|3|x"}
	for role, m := range bad {
		part(t, "default, "+role, func(t *testing.T) { // 10 in 10 s; 60 s are not waited for here
			b := startBroker(t, newEndpoint(t, "inproc"), nil)
			addWorker(t, b, "echo", nil, echo)
			c := addClient(t, b, nil)
			p := dialRaw(t, b.Endpoint())
			say := func(n int, m string) {
				for range n {
					p.say(m)
				}
			}
			say(9, m)
			eventually(t, "nine are counted", func() bool { return b.Stats().Malformed == 9 })
			if role == "client" {
				p.say(`C|2|echo|heard|"x"|{}`) // the peer is heard still
				p.want(t, "C|4|heard")
				p.after(t, "C|4|heard", `C|3|heard|{"status":200,"msg":"x"}`)
			} else {
				for range 9 {
					p.want(t, "W|5")
				}
				p.say("W|1|other")
				eventually(t, "it is heard still", func() bool { return b.Stats().Workers == 2 })
			}
			say(1, m)
			say(5, "C|4|ignored")
			eventually(t, "it is ignored", func() bool { return b.Stats().Ignored == 5 })
			if s := b.Stats(); s.Malformed != 10 || s.Workers != 1 {
				t.Errorf("got %d malformed, %d workers; want 10, 1", s.Malformed, s.Workers)
			}
			served(t, c, "echo")
		})
	}
	part(t, "MalformedTime", func(t *testing.T) { // rarely enough, for ever
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Malformed: 2, MalformedTime: time.Millisecond}})
		p := dialRaw(t, b.Endpoint())
		for range 10 {
			p.say("C|2")
			p.quiet(t)
			start := time.Now()
			eventually(t, "its time is over", func() bool { return time.Since(start) > 10*time.Millisecond })
		}
		if s := b.Stats(); s.Malformed != 10 || s.Ignored != 0 {
			t.Errorf("got %d malformed, %d ignored; want 10, 0", s.Malformed, s.Ignored)
		}
	})
}

// standsStill tells whether every thread of a process is stopped, where the
// system says so: a signal is sent before it takes effect.
func standsStill(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if i := bytes.LastIndexByte(b, ')'); err != nil || i < 0 || !bytes.HasPrefix(b[i:], []byte(") T")) {
			return false
		}
	}
	return true
}

func limitHandshake(t *testing.T) {
	part(t, "Handshake", func(t *testing.T) {
		const limit = 300 * time.Millisecond
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{Handshake: limit}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		start := time.Now()
		for _, text := range []string{"", "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"} {
			p := dialTCP(t, b.Endpoint())
			p.Write([]byte(text))
			if _, err := io.Copy(io.Discard, p.r); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("%q: got %v, want the connection closed", text, err)
			}
			if d := time.Since(start); d < limit-5*time.Millisecond { // libzmq's clock counts milliseconds
				t.Errorf("%q: closed after %v, want %v", text, d, limit)
			}
		}
		served(t, c, "echo")
	})
	// A broker that is stopped accepts nobody: as many as the backlog holds wait
	// in the system, the next gets no connection, and all is well when it goes on.
	part(t, "Backlog", func(t *testing.T) {
		b := startLimited(t, newEndpoint(t, "tcp"), omdp.Limits{Backlog: 3})
		w := startWorker(t, b.endpoint, "echo", nil, echo)
		ready(t, w)
		signal(t, b.cmd, syscall.SIGSTOP)
		eventually(t, "each of its threads stands still", func() bool { return standsStill(b.cmd.Process.Pid) })
		waiting, refused := 0, 0
		for range 20 {
			c, err := net.DialTimeout("tcp", strings.TrimPrefix(b.endpoint, "tcp://"), 4*beat)
			if err != nil {
				if !os.IsTimeout(err) {
					t.Errorf("got %v, want a timeout", err)
				}
				if refused++; refused == 2 {
					break
				}
				continue
			}
			waiting++
			defer c.Close()
		}
		if waiting < 3 || refused == 0 { // Linux takes one more than it is told
			t.Errorf("%d connections were taken and %d not, with a backlog of 3", waiting, refused)
		}
		signal(t, b.cmd, syscall.SIGCONT)
		c := startClient(t, b.endpoint, nil)
		ready(t, c)
		served(t, c, "echo")
	})
}
