package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// How fast everything notices. Short, so that a minute has many expiries.
const (
	heartbeat    = 250 * time.Millisecond
	liveness     = 3
	reconnectMin = 20 * time.Millisecond
	reconnectMax = 500 * time.Millisecond
	maxAttempts  = 3
	concurrency  = 64
	callers      = 16
)

// orders are what a child process is to be.
type orders struct {
	Role      role
	Who, Life int
	Log       string // the file to write events to; empty: none
	Listen    string // a broker's endpoint
	Endpoints []string
	Service   string
	Seed      uint64
	Callers   int

	Limits    omdp.Limits // of a broker
	Remember  time.Duration
	Soak      string // what a client of the soak is: see soak_client.go
	Heartbeat time.Duration
}

func (o orders) name() string { return lifeName(o.Role, o.Who, o.Life) }

func lifeName(r role, who, life int) string { return fmt.Sprintf("%s.%d.%d", r, who, life) }

// A player is one role: it answers the words that the harness says until
// "leave" or "end", when it is to close what it has.
type player interface {
	// hear answers a word with a value that is sent back as JSON; nil: nothing is.
	hear(word string, args []string) any
	// leave ends in good order within the time of ctx, close at once.
	leave(ctx context.Context) error
	close() error
}

// playRole is the main of a child process.
func playRole(text string) error {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	var log *eventLog
	if o.Log != "" {
		var err error
		if log, err = openLog(o.Log); err != nil {
			return err
		}
		log.add(wordLife, o.name(), os.Getpid())
	}
	p, err := newPlayer(o, log)
	if err != nil {
		return err
	}
	say := newSayer()
	say.line("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		word, args, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "leave":
			ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
			defer cancel()
			if err := p.leave(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			log.bye()
			return nil
		case "end":
			if err := p.close(); err != nil {
				return err
			}
			log.bye()
			return nil
		}
		go func() { // words may take long, and "end" comes when it comes
			if v := p.hear(word, strings.Fields(args)); v != nil {
				say.json(word, v)
			}
		}()
	}
	os.Exit(3) // the harness is gone
	return nil
}

// leaveWithin is how long a process that leaves lets others finish.
const leaveWithin = 2 * time.Second

func newPlayer(o orders, log *eventLog) (player, error) {
	switch {
	case o.Role == roleBroker:
		return newBrokerRole(o)
	case o.Soak != "":
		return newSoakRole(o)
	case o.Role == roleWorker:
		return newWorkerRole(o, log)
	case o.Role == roleClient:
		return newClientRole(o, log)
	}
	return nil, fmt.Errorf("no role %q", o.Role)
}

// A sayer writes whole lines to standard output.
type sayer struct{ mu sync.Mutex }

func newSayer() *sayer { return &sayer{} }

func (s *sayer) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Println(text)
}

func (s *sayer) json(word string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("chaos: answer " + word + ": " + err.Error())
	}
	s.line(word + ": " + string(b))
}

// brokerRole is a broker.
type brokerRole struct{ b *omdp.Broker }

// newBrokerRole binds; the port of a broker that was killed a moment ago may
// still be taken.
func newBrokerRole(o orders) (*brokerRole, error) {
	for until := time.Now().Add(10 * time.Second); ; {
		b, err := omdp.NewBroker(o.Listen, &omdp.BrokerConfig{Heartbeat: orHeartbeat(o.Heartbeat), Liveness: liveness, Limits: o.Limits, DuplicateWindow: o.Remember})
		if err != nil {
			return nil, err
		}
		if err = b.Start(); err == nil {
			return &brokerRole{b}, nil
		}
		if time.Now().After(until) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func orHeartbeat(d time.Duration) time.Duration {
	if d == 0 {
		return heartbeat
	}
	return d
}

func (r *brokerRole) hear(word string, _ []string) any {
	switch word {
	case "stats":
		return r.b.Stats()
	case "self":
		return measureSelf()
	}
	return nil
}

func (r *brokerRole) leave(ctx context.Context) error { return r.b.Shutdown(ctx) }

func (r *brokerRole) close() error { return r.b.Close() }
