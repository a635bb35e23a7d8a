package omdp

import "fmt"

// SetConcurrency changes [WorkerConfig.Concurrency], 1 to 1,000, also while the
// worker runs. Brokers of this library and PIGATO's are told; each keeps to it
// from the moment at which it reads it. Brokers of other makes go on with one at a time.
//
// More places are taken at once by requests that wait in the worker. With
// fewer, nothing is taken back: what runs goes on, and nothing new begins until
// less runs than n. It returns ErrClosed after Close.
func (w *Worker) SetConcurrency(n int) error {
	if n < 1 || n > maxConcurrency {
		return fmt.Errorf("omdp: set concurrency: %d is not from 1 to %d", n, maxConcurrency)
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return fmt.Errorf("omdp: set concurrency: %w", ErrClosed)
	}
	w.self.Concurrency = n // READY of later connections says it
	w.runners.add(w.places.resize(n))
	links := make([]link, len(w.conns))
	for i, c := range w.conns {
		c.sess.setConcurrency(n)
		links[i] = c.link
	}
	w.mu.Unlock()
	for i, c := range w.conns {
		if links[i] != nil {
			c.tell(links[i])
		}
	}
	return nil
}

// level is what beats tell the broker.
func (c *workerConn) level() int {
	c.worker.mu.Lock()
	defer c.worker.mu.Unlock()
	return c.sess.level()
}

// tell says the present concurrency on l, unless the broker knows it, or knows
// no such command, or l is not the present link any more.
func (c *workerConn) tell(l link) {
	o := l.Begin()
	defer l.Flush()
	c.worker.mu.Lock()
	defer c.worker.mu.Unlock()
	if c.link == l && c.leaving != departed && c.sess.unsaid() {
		c.sess.say()
		c.sess.appendLevel(o, &c.worker.self)
	}
}
