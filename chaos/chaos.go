package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// A slot is one process of the run, started again whenever it was killed.
type slot struct {
	w    *world
	role role
	who  int

	mu    sync.Mutex
	child *child
	life  int
	heard bool // it said ready
	goes  bool // it was told to leave
}

// A world is everything that a chaos run has: the processes, and the proxies
// between them, one for each broker and role.
type world struct {
	seed    uint64
	length  time.Duration
	dir     string // of the logs
	log     *eventLog
	spawner *spawner
	listen  []string // addresses of the brokers
	proxies map[role][]*proxy
	slots   map[role][]*slot

	mu     sync.Mutex
	counts map[string]int // what was done, by kind and role
	wrong  []string       // what the harness itself saw
	ending bool           // processes may end
}

func newWorld(seed uint64, length time.Duration, dir string) (*world, error) {
	w := &world{seed: seed, length: length, dir: dir, spawner: newSpawner(), proxies: map[role][]*proxy{}, slots: map[role][]*slot{}, counts: map[string]int{}}
	var err error
	if w.log, err = openLog(filepath.Join(dir, "harness.log")); err != nil {
		return nil, err
	}
	for range brokers {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		w.listen = append(w.listen, addr)
		for _, r := range []role{roleWorker, roleClient} {
			p, err := newProxy(addr)
			if err != nil {
				return nil, err
			}
			w.proxies[r] = append(w.proxies[r], p)
		}
	}
	return w, nil
}

// freePort finds a port that nobody has and that the system gives to nobody,
// so that it is free whenever the broker is away.
func freePort() (int, error) {
	top := ephemeral()
	for range 1000 {
		port := top - 1 - int(time.Now().UnixNano()/1000%8000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port found")
}

// start starts all processes and waits until each says that it is there.
func (w *world) start(ctx context.Context) error {
	for _, r := range []role{roleBroker, roleWorker, roleClient} {
		for who := range count(r) {
			s := &slot{w: w, role: r, who: who}
			w.slots[r] = append(w.slots[r], s)
			if err := s.start(); err != nil {
				return err
			}
		}
	}
	return w.ready(ctx)
}

// ready waits until every process has said that it is there.
func (w *world) ready(ctx context.Context) error {
	for _, r := range []role{roleBroker, roleWorker, roleClient} {
		for _, s := range w.slots[r] {
			if err := s.ready(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends everything that is left, at once.
func (w *world) close() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	for _, all := range w.slots {
		for _, s := range all {
			s.mu.Lock()
			if s.child != nil {
				s.child.kill()
			}
			s.mu.Unlock()
		}
	}
	for _, all := range w.proxies {
		for _, p := range all {
			p.close()
		}
	}
	w.spawner.close()
	w.log.f.Close()
}

func (w *world) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func (w *world) did(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// start starts the slot's next life. mu is held, except before all is shared.
func (s *slot) start() error {
	s.life++
	o := orders{Role: s.role, Who: s.who, Life: s.life, Seed: s.w.seed, Callers: callers}
	switch s.role {
	case roleBroker:
		o.Listen = "tcp://" + s.w.listen[s.who]
	case roleWorker, roleClient:
		o.Log = filepath.Join(s.w.dir, o.name()+".log")
		for b, p := range s.w.proxies[s.role] {
			if b == 0 || knowsBoth(s.role, s.who) {
				o.Endpoints = append(o.Endpoints, "tcp://"+p.addr())
			}
		}
		if s.role == roleWorker {
			o.Service = serviceOf(s.who)
		}
	}
	c, err := s.w.spawner.start(o.name(), o)
	if err != nil {
		return err
	}
	s.child, s.heard, s.goes = c, false, false
	s.w.log.add("spawn", o.name(), c.pid)
	go s.watch(c)
	return nil
}

// watch notices when a process ends that nobody killed.
func (s *slot) watch(c *child) {
	<-c.exited
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w.mu.Lock()
	ending := s.w.ending
	s.w.mu.Unlock()
	if ending || s.child != c || s.goes && c.err == nil {
		return
	}
	s.w.complain("%s ended by itself: %v%s", c.name, c.err, c.errors.String())
	if s.goes {
		return // leave starts the next
	}
	if err := s.start(); err != nil {
		s.w.complain("start %s again: %v", c.name, err)
	}
}

// kill kills the present life and starts the next.
func (s *slot) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.child
	s.child = nil // so that watch knows
	s.w.log.add("kill", c.name)
	c.kill()
	s.w.did("kill " + string(s.role))
	if err := s.start(); err != nil {
		s.w.complain("start %s again: %v", c.name, err)
	}
}

// leave has the present life end in its own time, and starts the next.
func (s *slot) leave() {
	s.mu.Lock()
	c := s.child
	s.goes = true
	s.mu.Unlock()
	s.w.log.add("leave", c.name)
	s.w.did("leave " + string(s.role))
	c.tell("leave")
	t := time.NewTimer(leaveLimit)
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
		s.w.complain("%s did not leave within %v", c.name, leaveLimit)
		c.kill()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != c { // it was killed meanwhile
		return
	}
	if err := s.start(); err != nil {
		s.w.complain("start %s again: %v", c.name, err)
	}
}

// leaveLimit is how long a process takes to leave at the most: its own limit,
// a stop that befalls it meanwhile, and the longest call of a client.
const leaveLimit = 30 * time.Second

// pause stops the present life for a time.
func (s *slot) pause(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	c := s.child
	s.mu.Unlock()
	if c == nil {
		return
	}
	s.w.log.add("stop", c.name, d)
	if err := c.stop(); err != nil {
		s.w.complain("%v", err)
	}
	s.w.did("stop " + string(s.role))
	sleep(ctx, d)
	c.cont()
	s.w.log.add("cont", c.name)
}

// ready waits until the present life has said that it is there.
func (s *slot) ready(ctx context.Context) error {
	s.mu.Lock()
	c, heard := s.child, s.heard
	s.mu.Unlock()
	if heard {
		return nil
	}
	if c == nil {
		return fmt.Errorf("%s %d is not there", s.role, s.who)
	}
	_, err := c.expect(ctx, "ready", 30*time.Second)
	if err == nil {
		s.mu.Lock()
		s.heard = true
		s.mu.Unlock()
	}
	return err
}

// sleep passes time until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// rage carries the schedule out, and returns when its last effect is over.
func (w *world) rage(ctx context.Context, all []action) {
	began := time.Now()
	var wg sync.WaitGroup
	for _, a := range all {
		sleep(ctx, a.at-time.Since(began))
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() { w.act(ctx, a) })
	}
	sleep(ctx, w.length-time.Since(began))
	wg.Wait()
}

func (w *world) act(ctx context.Context, a action) {
	switch a.kind {
	case actKill:
		w.slots[a.role][a.target].kill()
		return
	case actStop:
		w.slots[a.role][a.target].pause(ctx, a.lasts)
		return
	case actLeave:
		w.slots[a.role][a.target].leave()
		return
	}
	c := w.connection(ctx, a)
	if c == nil {
		return
	}
	w.log.add(string(a.kind), string(a.role), a.broker, c.near.RemoteAddr().String(), a.lasts, a.amount)
	w.did(string(a.kind))
	switch a.kind {
	case actCut:
		c.cut(a.amount == 1)
	case actHalf:
		c.halfOpen(a.amount)
		select {
		case <-c.gone:
		case <-time.After(a.lasts):
			c.cut(true)
		case <-ctx.Done():
		}
	case actDelay:
		c.delay(time.Duration(a.amount) * time.Microsecond)
		sleep(ctx, a.lasts)
		c.delay(0)
	case actThrottle:
		c.throttle(a.amount)
		sleep(ctx, a.lasts)
		c.throttle(0)
	}
}

// connection finds one to spoil: at the broker and of the role that are asked
// for, else at another broker, else as soon as there is one.
func (w *world) connection(ctx context.Context, a action) *conn {
	for range 200 {
		for i := range brokers {
			if c := w.proxies[a.role][(a.broker+i)%brokers].pick(a.target); c != nil {
				return c
			}
		}
		sleep(ctx, 10*time.Millisecond)
	}
	return nil
}

// chaos is the whole of a run: it rages, heals, looks that all is well again,
// ends everything, and has the recorder judge.
func chaos(ctx context.Context, seed uint64, length time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "omdp-chaos-")
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(dir)
		}
	}()
	fmt.Printf("chaos: %v, CHAOS_SEED=%d\n", length, seed)
	w, err := newWorld(seed, length, dir)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(ctx); err != nil {
		return err
	}
	w.rage(ctx, schedule(seed, length))
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := w.calm(ctx); err != nil {
		w.complain("%v", err)
	}
	w.finish()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	rec, err := record(dir)
	if err != nil {
		return err
	}
	keep = w.report(rec)
	if keep {
		fmt.Printf("chaos: the logs are in %s\n", dir)
		w.summary(rec)
		return errViolations
	}
	w.summary(rec)
	return nil
}

var errViolations = errors.New("violations")

// settle is how long it takes at the most until all know again of all: a lost
// peer is noticed within liveness and one beat, and the next try comes after
// the longest wait.
const settle = heartbeat*(liveness+1) + reconnectMax

// machine is what a slow machine may add to a bound.
const machine = 1500 * time.Millisecond

// calm heals the network, waits for the workers to come back (L3), and has
// every client make calls that must succeed (L1).
func (w *world) calm(ctx context.Context) error {
	for _, all := range w.proxies {
		for _, p := range all {
			p.heal()
		}
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	w.log.add("heal")
	healed := time.Now()
	got, err := w.registered(ctx, healed.Add(settle+machine))
	if err != nil {
		return err
	}
	fmt.Printf("chaos: all workers back %v after the last fault (L3 allows %v)\n", got.Sub(healed).Round(time.Millisecond), settle)
	sleep(ctx, time.Until(healed.Add(settle+machine))) // clients may take as long
	w.log.add("calm")
	var wg sync.WaitGroup
	for _, s := range w.slots[roleClient] {
		wg.Go(func() {
			var n int
			if err := s.child.ask(ctx, "calm", &n); err != nil {
				w.complain("L1: %v", err)
			}
		})
	}
	wg.Wait()
	return nil
}

// registered waits until every broker has exactly the workers that know it.
func (w *world) registered(ctx context.Context, until time.Time) (time.Time, error) {
	for {
		missing := ""
		for b, s := range w.slots[roleBroker] {
			var got omdp.BrokerStats
			if err := s.child.ask(ctx, "stats", &got); err != nil {
				return time.Time{}, err
			}
			if want := workersOf(b); got.Workers != want {
				missing += fmt.Sprintf(" broker %d has %d workers, want %d;", b, got.Workers, want)
			}
		}
		if missing == "" {
			return time.Now(), nil
		}
		if time.Now().After(until) {
			return time.Time{}, fmt.Errorf("L3: after %v:%s", settle+machine, missing)
		}
		sleep(ctx, 10*time.Millisecond)
		if err := context.Cause(ctx); err != nil {
			return time.Time{}, err
		}
	}
}

// workersOf is how many workers know a broker.
func workersOf(broker int) (n int) {
	for who := range workers {
		if broker == 0 || knowsBoth(roleWorker, who) {
			n++
		}
	}
	return n
}

// finish ends all processes in order: clients, workers, brokers.
func (w *world) finish() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	for _, r := range []role{roleClient, roleWorker, roleBroker} {
		var wg sync.WaitGroup
		for _, s := range w.slots[r] {
			wg.Go(func() {
				if err := s.child.finish(30 * time.Second); err != nil {
					w.complain("%v", err)
				}
			})
		}
		wg.Wait()
	}
}
