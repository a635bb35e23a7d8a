package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// taken is what a load client saw since it was last asked.
type taken struct {
	Begun, OK, Refused int
	Others             map[string]int // ends of other kinds, by result and outcome
	Good, Bad          hist           // delays of good ends, and of refusals
	Open               int            // calls in progress now
}

func (t *taken) merge(o taken) {
	t.Begun += o.Begun
	t.OK += o.OK
	t.Refused += o.Refused
	t.Open += o.Open
	if t.Others == nil {
		t.Others = map[string]int{}
	}
	for k, n := range o.Others {
		t.Others[k] += n
	}
	t.Good.merge(o.Good)
	t.Bad.merge(o.Bad)
}

func (t *taken) others() (n int) {
	for _, k := range t.Others {
		n += k
	}
	return n
}

// loadRole calls "work": at a pace, whatever becomes of the calls before
// (delays count from when a call was due, so that no wait is left out), or so
// many at a time.
type loadRole struct {
	c    *omdp.Client
	done chan struct{}
	once sync.Once

	mu   sync.Mutex
	now  taken
	open int
	idle *sync.Cond
	pace float64 // calls a second
	from time.Time
	made int // since from
}

// loadTimeout is that of each call of the load.
const loadTimeout = 5 * time.Second

func newLoadRole(o orders) (*loadPlayer, error) {
	c, err := soakClient(o)
	if err != nil {
		return nil, err
	}
	return &loadPlayer{newLoad(c)}, nil
}

// soakClient starts a client and waits until the broker answers.
func soakClient(o orders) (*omdp.Client, error) {
	c, err := omdp.NewClient(o.Endpoints[0], &omdp.ClientConfig{
		Heartbeat: soakHeartbeat, Liveness: liveness, ReconnectMin: reconnectMin, ReconnectMax: reconnectMax,
	})
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return c, c.WaitReady(ctx)
}

func newLoad(c *omdp.Client) *loadRole {
	r := &loadRole{c: c, done: make(chan struct{})}
	r.idle = sync.NewCond(&r.mu)
	go r.run()
	return r
}

// run makes the calls that are due, every millisecond.
func (r *loadRole) run() {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-r.done:
			return
		}
		for due, ok := r.due(); ok; due, ok = r.due() {
			r.call(due, nil)
		}
	}
}

// due gives the time at which the next call was due, if it is over.
func (r *loadRole) due() (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pace <= 0 {
		return time.Time{}, false
	}
	at := r.from.Add(time.Duration(float64(r.made) / r.pace * float64(time.Second)))
	if time.Now().Before(at) {
		return time.Time{}, false
	}
	r.made++
	return at, true
}

func (r *loadRole) setPace(pace float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pace, r.from, r.made = pace, time.Now(), 0
}

// call makes one call that was due at some time; then is called at its end.
func (r *loadRole) call(due time.Time, then func()) {
	r.mu.Lock()
	r.open++
	r.now.Begun++
	r.mu.Unlock()
	end := func(_ omdp.Message, err error) {
		r.end(time.Since(due), err)
		if then != nil {
			then()
		}
	}
	if err := r.c.Request(context.Background(), soakWork, "ping", nil, end, omdp.WithTimeout(loadTimeout)); err != nil {
		end(omdp.Message{}, err)
	}
}

func (r *loadRole) end(took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.now.OK++
		r.now.Good.add(took)
	case errors.Is(err, omdp.ErrOverloaded) && omdp.OutcomeOf(err) == omdp.NotExecuted:
		r.now.Refused++
		r.now.Bad.add(took)
	default:
		if r.now.Others == nil {
			r.now.Others = map[string]int{}
		}
		r.now.Others[fmt.Sprintf("%s, %v", resultOf(err), omdp.OutcomeOf(err))]++
	}
	if r.open--; r.open == 0 {
		r.idle.Broadcast()
	}
}

// take gives what was seen since the last time.
func (r *loadRole) take() taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.now
	t.Open = r.open
	r.now = taken{}
	return t
}

// crowd keeps n calls in progress for so long.
func (r *loadRole) crowd(n int, d time.Duration) {
	until := time.Now().Add(d)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ended := make(chan struct{}, 1)
			for time.Now().Before(until) {
				r.call(time.Now(), func() { ended <- struct{}{} })
				<-ended
			}
		})
	}
	wg.Wait()
}

// settle waits until no call is in progress.
func (r *loadRole) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.open > 0 {
		r.idle.Wait()
	}
}

// A loadPlayer is a loadRole as a process.
type loadPlayer struct{ *loadRole }

// hear: "pace N" calls so often a second, "crowd N MS" keeps N calls in
// progress for so long, "settle" waits for what is in progress, and "take"
// gives what was seen.
func (p *loadPlayer) hear(word string, args []string) any {
	n := make([]float64, len(args))
	for i, s := range args {
		n[i], _ = strconv.ParseFloat(s, 64) // the harness writes numbers
	}
	switch word {
	case "pace":
		p.setPace(n[0])
		return true
	case "crowd":
		p.crowd(int(n[0]), time.Duration(n[1])*time.Millisecond)
		return true
	case "settle":
		p.settle()
		return true
	case "take":
		return p.take()
	case "self":
		return measureSelf()
	}
	return nil
}

func (p *loadPlayer) leave(context.Context) error { return p.close() }

func (p *loadPlayer) close() error {
	p.stop()
	return p.c.Close()
}

func (r *loadRole) stop() { r.once.Do(func() { close(r.done) }) }
