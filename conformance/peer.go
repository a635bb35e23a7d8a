package conformance

import (
	"sync"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// inbox is what came for one peer and was not looked at yet.
type inbox struct {
	mu    sync.Mutex
	queue [][]string
	more  chan struct{} // has room for one
}

func newInbox() *inbox { return &inbox{more: make(chan struct{}, 1)} }

func (b *inbox) put(m []string) {
	b.mu.Lock()
	b.queue = append(b.queue, m)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) wake() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *inbox) take() (m []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 {
		m, b.queue = b.queue[0], b.queue[1:]
	}
	return m
}

// next waits for a message until the deadline; nil: none came.
func (b *inbox) next(deadline time.Time) []string {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		if m := b.take(); m != nil {
			return m
		}
		select {
		case <-b.more:
		case <-timer.C:
			return b.take()
		}
	}
}

// peer is one that the kit plays, or, where it plays the broker, one that it
// talks to.
type peer struct {
	name string
	in   *inbox
	send func(frames []string)
	shut func() // closes the socket; nil for a peer of a hub
	id   string // its routing id at a hub

	skip   [][]frame // what may come besides heartbeats; the script's goroutine's
	strict bool      // heartbeats may not

	saying sync.Mutex // what is sent, in order with what it changes

	mu    sync.Mutex
	beats []string // what is sent as a heartbeat; nil: none is due
	ready bool     // READY was said: a further one changes nothing
	left  bool     // DISCONNECT was said: none are due any more
}

// greeted begins with the heartbeats.
func (p *peer) greeted(m []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready && !p.left {
		p.ready, p.beats = true, m
	}
}

// beating sets what is sent as a heartbeat; after DISCONNECT nothing is.
func (p *peer) beating(m []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beats = m; p.left {
		p.beats = nil
	}
}

func (p *peer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats, p.left = nil, true
}

// beat sends a heartbeat if one is due.
func (p *peer) beat() {
	p.saying.Lock()
	defer p.saying.Unlock()
	p.mu.Lock()
	m := p.beats
	p.mu.Unlock()
	if m != nil {
		p.send(m)
	}
}

// set is beating for a script: what was sent before was sent when it returns.
func (p *peer) set(m []string) {
	p.saying.Lock()
	defer p.saying.Unlock()
	p.greeted(nil) // it is for the script to say from now on, also before READY
	p.beating(m)
}

// say sends a message. No heartbeat comes between it and what then changes.
func (p *peer) say(m []string, then func()) {
	p.saying.Lock()
	defer p.saying.Unlock()
	p.send(m)
	then()
}

func texts(frames [][]byte) []string {
	m := make([]string, len(frames))
	for i, f := range frames {
		m[i] = string(f)
	}
	return m
}

func pack(o *batch.Out, frames []string) {
	o.Begin()
	for _, f := range frames {
		o.FrameString(f)
	}
	o.End()
}

// dial opens a DEALER of the kit's to a broker. received sees each message
// before it is put into the inbox.
func dial(name, endpoint string, received func(p *peer, m []string)) (*peer, error) {
	p := &peer{name: name, in: newInbox()}
	c, err := zsock.Dial(zsock.ConnOptions{Endpoint: endpoint, NoMonitor: true, Deliver: func(in *batch.In) {
		for f := in.NextWhole(); f != nil; f = in.NextWhole() {
			received(p, texts(f))
		}
	}})
	if err != nil {
		return nil, err
	}
	var done sync.WaitGroup
	done.Go(func() { _ = c.Run(nil) })
	p.send = func(frames []string) {
		pack(c.Begin(), frames)
		c.Flush()
	}
	p.shut = sync.OnceFunc(func() {
		c.Stop()
		done.Wait()
		_ = c.Close()
	})
	return p, nil
}

// hub is the ROUTER with which the kit plays the broker.
type hub struct {
	endpoint string
	router   *zsock.Router
	received func(p *peer, m []string)
	greet    func(m []string) (away []string) // tells what sends a new peer away; nil, or gives nil: it is welcome
	done     sync.WaitGroup

	mu    sync.Mutex
	out   batch.Out
	sent  []string // to whom, in the order of out
	stop  bool
	known map[string]*peer // by routing id
	fresh []*peer          // not named by the script yet
	lost  map[string]bool  // can't be reached any more
	news  *inbox           // is woken with each change
}

func bind(endpoint string, received func(p *peer, m []string), greet func(m []string) []string) (*hub, error) {
	r, err := zsock.NewRouter(zsock.Options{})
	if err != nil {
		return nil, err
	}
	h := &hub{router: r, received: received, greet: greet, known: map[string]*peer{}, lost: map[string]bool{}, news: newInbox()}
	if h.endpoint, err = r.Bind(endpoint); err != nil {
		_ = r.Close()
		return nil, err
	}
	h.done.Go(h.serve)
	return h, nil
}

func (h *hub) serve() {
	defer func() { _ = h.router.Close() }()
	var out batch.Out
	var in batch.In
	var to []string
	for {
		h.mu.Lock()
		out, h.out = h.out, out
		to, h.sent = h.sent, to[:0]
		stop := h.stop
		h.mu.Unlock()
		more, err := h.router.Exchange(&out, &in)
		h.results(&out, to)
		for f := in.NextWhole(); f != nil; f = in.NextWhole() {
			h.deliver(texts(f))
		}
		if stop || err != nil {
			return
		}
		if !more {
			if h.router.Wait(time.Time{}) != nil {
				return
			}
		}
	}
}

// results notes the peers that are gone.
func (h *hub) results(out *batch.Out, to []string) {
	h.mu.Lock()
	for i, r := range out.Results {
		if r == batch.Unreachable {
			h.lost[to[i]] = true
		}
	}
	h.mu.Unlock()
	out.Reset()
	h.news.wake()
}

func (h *hub) deliver(m []string) {
	id, m := m[0], m[1:]
	h.mu.Lock()
	p := h.known[id]
	if p == nil && h.greet != nil {
		if away := h.greet(m); away != nil {
			h.mu.Unlock()
			h.send(id, away)
			return
		}
	}
	if p == nil {
		p = &peer{id: id, in: newInbox()}
		p.send = func(frames []string) { h.send(id, frames) }
		h.known[id] = p
		h.fresh = append(h.fresh, p)
	}
	h.mu.Unlock()
	h.received(p, m)
	h.news.wake()
}

func (h *hub) send(id string, frames []string) {
	h.mu.Lock()
	pack(&h.out, append([]string{id}, frames...))
	h.sent = append(h.sent, id)
	h.mu.Unlock()
	h.router.Wake()
}

// adopt waits for a peer that has no name yet; nil: there is none until the deadline.
func (h *hub) adopt(deadline time.Time) *peer {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for over := false; ; {
		h.mu.Lock()
		if len(h.fresh) > 0 {
			p := h.fresh[0]
			h.fresh = h.fresh[1:]
			h.mu.Unlock()
			return p
		}
		h.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-h.news.more:
		case <-timer.C:
			over = true
		}
	}
}

// gone waits until a peer can't be reached; meanwhile it is sent m, again and
// again, for only so a ROUTER learns of it.
func (h *hub) gone(p *peer, m []string, deadline time.Time) bool {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for time.Now().Before(deadline) {
		h.mu.Lock()
		lost := h.lost[p.id]
		h.mu.Unlock()
		if lost {
			return true
		}
		h.send(p.id, m)
		<-again.C
	}
	return false
}

// all returns the peers that have shown up.
func (h *hub) all() (all []*peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.known {
		all = append(all, p)
	}
	return all
}

func (h *hub) close() {
	h.mu.Lock()
	h.stop = true
	h.mu.Unlock()
	h.router.Wake()
	h.done.Wait()
}
