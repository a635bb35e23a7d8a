package omdp

import "sync"

// runners runs tasks on goroutines of their own, and keeps those that are idle
// for the next ones, since a fresh goroutine has to grow its stack again.
//
// Every task gets its goroutine at once, however long the others take; yet a
// burst of short ones does not wake one goroutine each: one is on its way at
// any time while there is work, and it gets the next going before it begins.
type runners struct {
	do func(*task) // never panics, but may end its goroutine

	mu     sync.Mutex
	queue  []*task
	head   int       // queue[:head] is taken
	idle   []*runner // the one that was used last is taken first
	coming bool      // a goroutine is on its way to the queue
	low    int       // the fewest idle since trim
	active int       // tasks queued or running
	alive  int       // goroutines
	closed bool      // idle goroutines end
	quiet  chan struct{}
	gone   chan struct{}
}

type runner struct {
	wake chan struct{} // capacity 1; closed: end
}

// add runs tasks. It never blocks.
func (p *runners) add(ts []*task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, ts...)
	p.active += len(ts)
	p.rouse()
}

// rouse gets one goroutine on its way if there is work and none is coming. mu is held.
func (p *runners) rouse() {
	if p.coming || p.head == len(p.queue) {
		return
	}
	p.coming = true
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.low = min(p.low, n-1)
		r.wake <- struct{}{}
		return
	}
	p.alive++
	go p.loop(&runner{wake: make(chan struct{}, 1)})
}

// next takes a task, if there is one. mu is held.
func (p *runners) next() *task {
	if p.head == len(p.queue) {
		return nil
	}
	t := p.queue[p.head]
	p.queue[p.head] = nil
	p.head++
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	} else if p.head >= 1024 && p.head*2 >= len(p.queue) { // it never ran empty for long
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	return t
}

func (p *runners) loop(r *runner) {
	p.mu.Lock()
	p.coming = false
	running := false
	defer func() { // also when a handler ended the goroutine (runtime.Goexit, t.FailNow)
		if running {
			p.mu.Lock()
			p.done()
		}
		p.alive--
		p.announce()
		p.mu.Unlock()
	}()
	for {
		for t := p.next(); t != nil; t = p.next() {
			p.rouse()
			running = true
			p.mu.Unlock()
			p.do(t)
			p.mu.Lock()
			running = false
			p.done()
		}
		if p.closed {
			return
		}
		p.idle = append(p.idle, r)
		p.mu.Unlock()
		_, ok := <-r.wake
		p.mu.Lock()
		if !ok {
			return
		}
		p.coming = false
	}
}

// done counts a task that is over. mu is held.
func (p *runners) done() {
	p.active--
	p.announce()
}

// announce tells those who wait that nothing is running, or left. mu is held.
func (p *runners) announce() {
	if p.active == 0 && p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
	if p.alive == 0 && p.closed && p.gone != nil {
		close(p.gone)
		p.gone = nil
	}
}

// running counts the tasks that are queued or running.
func (p *runners) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active
}

// whenQuiet is closed when no task is queued or running.
func (p *runners) whenQuiet() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet == nil {
		p.quiet = make(chan struct{})
	}
	c := p.quiet
	p.announce()
	return c
}

// trim ends the goroutines that were idle ever since the last trim.
func (p *runners) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(p.low)
	p.low = len(p.idle)
}

// end ends n of the idle goroutines, those used longest ago. mu is held.
func (p *runners) end(n int) {
	for _, r := range p.idle[:n] {
		close(r.wake)
	}
	p.idle = p.idle[:copy(p.idle, p.idle[n:])]
}

// close ends the idle goroutines, and the others when their task is over.
// What it returns is closed when all are gone.
func (p *runners) close() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.end(len(p.idle))
	if p.gone == nil {
		p.gone = make(chan struct{})
	}
	c := p.gone
	p.announce()
	return c
}
