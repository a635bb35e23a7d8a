package omdp

import (
	"context"
	"io"
	"sync"
)

// A Duplex is a request whose data is written while its reply is read: both
// are streams, each under its own credit. What is written reaches the handler
// as [Request.Body], cut and joined as it comes. Reading is that of [Stream],
// and so is Close, which cancels the request.
//
// All methods are safe for concurrent use. Writing and reading do not wait for
// one another; a handler may of course wait for the end of the one before it
// begins the other.
type Duplex struct {
	*Stream
	ctx     context.Context // ends with the request
	cancel  context.CancelFunc
	writing sync.Mutex    // held by a writer, while it waits as well
	room    chan struct{} // capacity 1: the worker takes more, or all is over
	closed  bool          // by CloseWrite; guarded by writing
}

// OpenStream asks a worker of the service with header as the data, and returns
// what is to be written to it and read from it. CloseWrite ends the one side;
// whoever does not read to the end has to call Close, or end the context.
//
// It takes a broker and workers of this library: else writing and reading fail
// with ErrUnsupported, and nothing was executed. An upload is never sent again
// once a worker has it, also if it is Idempotent.
func (c *Client) OpenStream(ctx context.Context, service string, header any, opts ...CallOption) *Duplex {
	d := &Duplex{Stream: &Stream{ready: make(chan struct{}, 1)}, room: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r := &call{client: c, kind: kindStream, stream: d.Stream, up: d}
	r.service, r.flow.upload = service, true
	d.call = r
	if err := c.begin(ctx, r, header, opts); err != nil {
		c.mu.Lock()
		r.phase = phaseEnded
		c.mu.Unlock()
		d.push(event{reply: reply{err: err}, final: true}, 0, true)
		d.end()
	}
	return d
}

// end wakes the writer for the last time.
func (d *Duplex) end() {
	d.cancel()
	d.signal()
}

// signal wakes the writer.
func (d *Duplex) signal() {
	select {
	case d.room <- struct{}{}:
	default:
	}
}

// Write sends p to the handler. It blocks while no worker has the request, and
// while the handler is behind by the window (WorkerConfig.Window), which grows. The
// error is the stream's if that ended, and ErrEnded after CloseWrite or if the
// handler has ended its response without reading on.
func (d *Duplex) Write(p []byte) (int, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	total := 0
	for {
		if d.closed {
			return total, ErrEnded
		}
		if len(p) == 0 {
			return total, nil
		}
		n, err := d.send(p)
		total += n
		p = p[n:]
		if err != nil {
			return total, err
		}
		if n == 0 {
			<-d.room // more was granted, or the request has ended
		}
	}
}

// send sends what may go of p; 0 if nothing may.
func (d *Duplex) send(p []byte) (int, error) {
	r := d.call
	c := r.client
	c.mu.Lock()
	if r.phase == phaseEnded {
		c.mu.Unlock()
		return 0, d.reason()
	}
	l := c.linkOf(&r.pending)
	if l == nil {
		c.mu.Unlock()
		return 0, nil
	}
	n := r.flow.next(len(p))
	switch {
	case n > 0:
		r.stirred = c.now()
		appendClientPiece(l.Begin(), r.rid, p[:n])
	case r.flow.ask():
		appendClientCommand(l.Begin(), opBlocked, r.rid)
	default:
		c.mu.Unlock()
		return 0, nil
	}
	c.mu.Unlock()
	l.Flush()
	if l.Queued() >= maxQueued { // else all of a large window would wait here
		_ = l.Await(d.ctx, maxQueued) // that the link or the request ended is seen next
	}
	return n, nil
}

// ReadFrom sends everything that from yields, as it comes, until io.EOF. It
// makes io.Copy to a Duplex use a buffer of 64 KiB. It does not call CloseWrite.
func (d *Duplex) ReadFrom(from io.Reader) (int64, error) {
	return copyFrom(from, defaultChunkSize, d.Write, d.stopped)
}

// CloseWrite ends what is written: the handler reads io.EOF after it. It waits
// for a Write that is going on, and for nothing else. The error is that of the
// stream if it has ended with one.
func (d *Duplex) CloseWrite() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	r := d.call
	c := r.client
	c.mu.Lock()
	if r.phase == phaseEnded {
		c.mu.Unlock()
		if err := d.reason(); err != nil && err != ErrEnded {
			return err
		}
		return nil
	}
	r.flow.closing = true
	l := c.linkOf(&r.pending)
	if l == nil {
		c.mu.Unlock()
		return nil
	}
	c.table.feed(&r.pending, l.Begin())
	c.mu.Unlock()
	l.Flush()
	return nil
}

// stopped is the reason once the request has ended.
func (d *Duplex) stopped() error {
	if d.ctx.Err() == nil {
		return nil
	}
	return d.reason()
}

// reason is why nothing can be written any more; nil if that is about to be known.
func (d *Duplex) reason() error {
	s := d.Stream
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	switch {
	case err == nil && !s.over:
		return nil
	case err == nil && s.head < len(s.queue):
		err = s.queue[len(s.queue)-1].err
	}
	if err == nil || err == io.EOF {
		return ErrEnded
	}
	return err
}

var _ interface {
	io.ReadWriteCloser
	io.ReaderFrom
	io.WriterTo
} = (*Duplex)(nil)
