package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"
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
	ports, err := freePorts(brokers)
	if err != nil {
		return nil, err
	}
	for _, port := range ports {
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

// freePorts finds ports that nobody has and that the system gives to nobody,
// so that they are free whenever their broker is away.
func freePorts(n int) (ports []int, err error) {
	top := ephemeral()
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := top - 1 - rand.IntN(8000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // until all are found, so that none is found twice
		ports = append(ports, port)
	}
	return nil, errors.New("no free port found")
}

// start starts all processes and waits until each says that it is there.
func (w *world) start(ctx context.Context) error {
	for _, r := range []role{roleBroker, roleWorker, roleClient} {
		for who := range count(r) {
			s := &slot{w: w, role: r, who: who}
			w.slots[r] = append(w.slots[r], s)
			s.mu.Lock()
			err := s.start()
			s.mu.Unlock()
			if err != nil {
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

// start starts the slot's next life. mu is held.
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
	if c == nil { // it could not be started again
		return
	}
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
	c, err := s.present()
	if err != nil {
		return
	}
	s.mu.Lock()
	s.goes = s.child == c
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
	c, err := s.present()
	if err != nil {
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

// present is the present life.
func (s *slot) present() (*child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return nil, fmt.Errorf("%s %d is not there", s.role, s.who)
	}
	return s.child, nil
}

// ask asks the present life, see child.ask.
func (s *slot) ask(ctx context.Context, line string, v any) error {
	c, err := s.present()
	if err != nil {
		return err
	}
	return c.ask(ctx, line, v)
}

// ready waits until the present life has said that it is there.
func (s *slot) ready(ctx context.Context) error {
	c, err := s.present()
	if err != nil {
		return err
	}
	s.mu.Lock()
	heard := s.heard
	s.mu.Unlock()
	if heard {
		return nil
	}
	if _, err = c.expect(ctx, "ready", 30*time.Second); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = s.child == c
	return nil
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
