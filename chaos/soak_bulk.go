package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// How a bulkRole reads its streams.
type manner string

const (
	manWell  manner = "well"
	manSlow  manner = "slow"
	manStuck manner = "stuck" // not at all
	manOff   manner = "off"   // there are no streams
)

// What streams there are, and how long each lasts at the most.
const (
	flowStreams = 8
	flowChunk   = 16 << 10
	flowEvery   = 20 * time.Millisecond
	flowChunks  = 500
	flowWindow  = 1 << 20 // of each: so much is on its way to a client that is stuck
	flowTimeout = 20 * time.Second
	slowPause   = 50 * time.Millisecond
)

// bulkRole reads streams of "bulk", in the manner that it is told.
type bulkRole struct {
	o      orders
	c      *omdp.Client
	load   *loadRole // of one that vanishes
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	bytes  atomic.Int64

	mu      sync.Mutex
	manner  manner
	changed chan struct{} // closed when manner changes
}

func newBulkRole(o orders) (*bulkRole, error) {
	c, err := soakClient(o)
	if err != nil {
		return nil, err
	}
	r := &bulkRole{o: o, c: c, manner: manWell, changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	streams := flowStreams
	switch o.Soak {
	case soakSlow:
		r.manner = manSlow
	case soakStuck:
		r.manner = manStuck
	case soakVanish:
		streams = 2
		r.load = newLoad(c)
		r.load.setPace(20)
	}
	for range streams {
		r.wg.Go(func() {
			for r.behave(r.ctx) {
				r.read()
			}
		})
	}
	return r, nil
}

// hear: "manner M" changes the manner, "bytes" gives what was read so far.
func (r *bulkRole) hear(word string, args []string) any {
	switch word {
	case "manner":
		r.mu.Lock()
		defer r.mu.Unlock()
		r.manner = manner(args[0])
		close(r.changed)
		r.changed = make(chan struct{})
		return true
	case "bytes":
		return r.bytes.Load()
	case "self":
		return measureSelf()
	}
	return nil
}

func (r *bulkRole) leave(context.Context) error { return r.close() }

func (r *bulkRole) close() error {
	if r.load != nil {
		r.load.stop()
	}
	r.cancel()
	r.wg.Wait()
	return r.c.Close()
}

// read reads one stream to its end, or does not.
func (r *bulkRole) read() {
	ctx, cancel := context.WithTimeout(r.ctx, flowTimeout)
	defer cancel()
	order := bulkOrder{Chunks: flowChunks, Size: flowChunk, EveryUS: int(flowEvery / time.Microsecond)}
	for m, err := range r.c.RequestStream(ctx, soakBulk, order, omdp.WithWindow(flowWindow)).All() {
		if err != nil {
			sleep(r.ctx, 10*time.Millisecond)
			return
		}
		r.bytes.Add(int64(m.Len()))
		if how, _ := r.how(); how == manOff || !r.pause(ctx) {
			return
		}
	}
}

func (r *bulkRole) how() (manner, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.manner, r.changed
}

// behave waits while there are to be no streams, and reports false at the end.
func (r *bulkRole) behave(ctx context.Context) bool {
	for {
		how, changed := r.how()
		if how != manOff {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// pause waits between two messages as the manner asks, and reports false when
// the stream is over.
func (r *bulkRole) pause(ctx context.Context) bool {
	for {
		how, changed := r.how()
		switch how {
		case manWell:
			return true
		case manSlow:
			sleep(ctx, slowPause)
			return ctx.Err() == nil
		case manOff:
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
