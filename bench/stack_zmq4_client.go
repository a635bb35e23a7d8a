package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	zmq "github.com/pebbe/zmq4"
)

// zmq4Client is one connection. Callers hand their messages to the goroutine
// that owns the socket through an inproc pipe, as a socket is for one thread;
// a single caller and the pipeline use the socket themselves.
type zmq4Client struct {
	work
	sock *zmq.Socket
	life string
	data string
	sent int64 // of the pipeline and the single caller

	out     *zmq.Socket // PUSH to the owner; nil for a single caller
	mu      sync.Mutex  // guards out and the two below
	counter int64
	waiting map[string]*zmq4Call
}

type zmq4Call struct {
	done     chan error
	partials int
}

func (zmq4Stack) dial(w work) (client, error) {
	s, id, err := zmq4Dial(w.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &zmq4Client{work: w, sock: s, life: id, data: `"` + w.payload() + `"`, waiting: map[string]*zmq4Call{}}
	if w.Pipeline || w.InFlight == 1 {
		return c, nil
	}
	address := "inproc://" + id
	in, err := zmq4Socket(zmq.PULL)
	if err != nil {
		return nil, err
	}
	if c.out, err = zmq4Socket(zmq.PUSH); err != nil {
		return nil, err
	}
	if err := errors.Join(in.Bind(address), c.out.Connect(address)); err != nil {
		return nil, err
	}
	go c.own(in)
	return c, nil
}

func (c *zmq4Client) rid(n int64) string { return fmt.Sprintf("%s-%010d", c.life, n) }

// own is the goroutine of the socket: what callers push goes out, what comes in wakes them.
func (c *zmq4Client) own(in *zmq.Socket) {
	p := zmq.NewPoller()
	p.Add(in, zmq.POLLIN)
	p.Add(c.sock, zmq.POLLIN)
	for {
		ready, err := p.Poll(-1)
		if err != nil {
			fatal(err)
		}
		for _, r := range ready {
			m, err := r.Socket.RecvMessageBytes(zmq.DONTWAIT)
			if err != nil {
				continue
			}
			if r.Socket == in {
				if _, err := c.sock.SendMessage("C", "2", m, "{}"); err != nil {
					fatal(err)
				}
				continue
			}
			c.deliver(m)
		}
	}
}

func (c *zmq4Client) deliver(m [][]byte) {
	if len(m) < 4 {
		return
	}
	c.mu.Lock()
	call := c.waiting[string(m[2])]
	final := m[1][0] == '3'
	if call != nil && final {
		delete(c.waiting, string(m[2]))
	}
	c.mu.Unlock()
	switch {
	case call == nil:
	case final:
		err := c.check(m)
		if err == nil {
			err = c.checkPartials(call.partials)
		}
		call.done <- err
	default:
		call.partials++ // this goroutine's until done is sent
	}
}

func (c *zmq4Client) check(m [][]byte) error {
	if body := m[3]; len(body) != len(c.data)+21 || !strings.HasPrefix(string(body[:14]), `{"status":200,`) {
		return fmt.Errorf("a bad final: %.80q", body)
	}
	return nil
}

func (c *zmq4Client) call(service string) error {
	if c.out == nil {
		return c.serial(service)
	}
	call := &zmq4Call{done: make(chan error, 1)}
	c.mu.Lock()
	c.counter++
	rid := c.rid(c.counter)
	c.waiting[rid] = call
	_, err := c.out.SendMessage(service, rid, c.data)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return <-call.done
}

func (c *zmq4Client) serial(service string) error {
	if err := c.send(service); err != nil {
		return err
	}
	_, err := c.await()
	return err
}

func (c *zmq4Client) send(service string) error {
	_, err := c.sock.SendMessage("C", "2", service, c.rid(c.sent), c.data, "{}")
	c.sent++
	return err
}

// await receives up to the next final and gives its number.
func (c *zmq4Client) await() (int64, error) {
	partials := 0
	for {
		m, err := c.sock.RecvMessageBytes(0)
		if err != nil {
			return 0, err
		}
		if len(m) < 4 || len(m[2]) != len(c.life)+11 {
			return 0, fmt.Errorf("an unexpected message of %d frames", len(m))
		}
		if m[1][0] != '3' {
			partials++
			continue
		}
		if err := errors.Join(c.check(m), c.checkPartials(partials)); err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(m[2][len(c.life)+1:]), 10, 64)
	}
}

func (c *zmq4Client) pipeline(l *load) error {
	started := make([]int64, l.InFlight+1)
	next := func(service string) error {
		started[c.sent%int64(len(started))] = l.now()
		return c.send(service)
	}
	for range l.InFlight {
		if err := next(l.service(c.sent)); err != nil {
			return err
		}
	}
	if l.Queue {
		// In the order of the connection: when the ping is answered, all others are queued.
		if err := next("ping"); err != nil {
			return err
		}
		if _, err := c.await(); err != nil {
			return err
		}
		fmt.Println("filled")
		if _, err := c.await(); err != nil {
			return err
		}
		if err := next(l.service(c.sent)); err != nil {
			return err
		}
	}
	l.begin()
	for {
		n, err := c.await()
		if !l.done(n, started[n%int64(len(started))], err) {
			return l.err()
		}
		if err := next(l.service(c.sent)); err != nil {
			return err
		}
	}
}
