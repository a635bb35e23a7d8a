package omdp

import (
	"context"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// A Stream is the reply of a request, read as it comes: its partials, then the
// final's value if that is not null. It is an io.ReadCloser and io.WriterTo,
// and All gives its messages one by one; the ways share one position. A value
// that is a string or bytes reads as its content, any other as its JSON text.
//
// io.EOF comes only after a good final. Whoever stops reading before must call
// Close, or end the context: that cancels the request at the worker. A reader
// that is slow slows its worker, by the window, and nobody else.
//
// All methods are safe for concurrent use; concurrent reads take turns.
type Stream struct {
	call *call

	reading sync.Mutex // held by a reader, while it waits as well
	rest    []byte     // of the message being read

	cut atomic.Bool // what was not read is dropped

	mu       sync.Mutex
	queue    []event
	head     int // the first of queue that was not taken
	buffered int // bytes in queue
	over     bool
	closed   bool          // by Close, before told
	told     bool          // a reader was given err
	err      error         // how it ended, io.EOF if well; set when the end was read or dropped
	ready    chan struct{} // capacity 1: something was pushed
}

// RequestStream sends data to a worker of the service and returns the stream
// of its reply. An error, also one before anything was sent, is what reading gives.
// If ctx ends, the request is cancelled and reading fails at once.
func (c *Client) RequestStream(ctx context.Context, service string, data any, opts ...CallOption) *Stream {
	s := &Stream{ready: make(chan struct{}, 1)}
	s.call = &call{client: c, kind: kindStream, stream: s}
	s.call.service = service
	if err := c.begin(ctx, s.call, data, opts); err != nil {
		s.push(event{reply: reply{err: err}, final: true}, 0, true)
	}
	return s
}

// push adds what came, as callbacks.push does for a Request.
func (s *Stream) push(e event, bound int, drop bool) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if bound > 0 && s.buffered > 0 && s.buffered+e.size > bound {
		return true
	}
	if drop {
		clear(s.queue)
		s.queue, s.head, s.buffered = s.queue[:0], 0, 0
		s.cut.Store(true)
	}
	s.over = e.final
	s.buffered += e.size
	s.queue = append(s.queue, e)
	if s.closed {
		s.discard()
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return false
}

// next waits for the next message and takes it. The error is how the stream
// ended, and stays. It is called with reading held.
func (s *Stream) next() (Message, error) {
	for {
		e, ok, err := s.take()
		switch {
		case err != nil:
			return Message{}, err
		case !ok:
			<-s.ready
		case !e.final:
			s.call.read(e.size)
			return e.msg, nil
		case e.err == nil && !e.msg.IsNull():
			return e.msg, nil
		}
	}
}

func (s *Stream) take() (e event, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == len(s.queue) {
		s.told = s.err != nil
		return event{}, false, s.err
	}
	e = s.queue[s.head]
	s.queue[s.head] = event{}
	s.buffered -= e.size
	if s.head++; s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	} else if s.head >= 64 && s.head*2 >= len(s.queue) { // a reader that is always behind
		n := copy(s.queue, s.queue[s.head:])
		clear(s.queue[n:])
		s.queue, s.head = s.queue[:n], 0
	}
	if e.final {
		if s.err = e.err; s.err == nil {
			s.err = io.EOF
		}
	}
	return e, true, nil
}

// Read reads what the worker wrote, in order. It waits for at least one byte.
// Errors are those of Call; io.EOF is the good end.
func (s *Stream) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// fill sees to it that rest is not empty.
func (s *Stream) fill() error {
	if s.cut.Load() {
		s.rest = nil
	}
	for len(s.rest) == 0 {
		m, err := s.next()
		if err != nil {
			return err
		}
		s.rest = m.Bytes()
	}
	return nil
}

// WriteTo writes the whole of the stream to w, message by message, without
// copying. The error is the stream's, nil at its good end, or w's; after an
// error of w the request is cancelled.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	written, broken, err := copyTo(w, &s.rest, s.fill)
	if broken {
		_ = s.Close()
	}
	return written, err
}

// All gives the messages of the stream one by one: each partial, and the
// final's value if it is not null. An error is the last pair. Breaking off the
// loop is Close.
func (s *Stream) All() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := s.message()
			switch {
			case err == io.EOF:
				return
			case err != nil:
				yield(Message{}, err)
				return
			case !yield(m, nil):
				_ = s.Close()
				return
			}
		}
	}
}

// message is next for All: after a Read that took a part of a message it is
// what Read left of it.
func (s *Stream) message() (Message, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if rest := s.rest; len(rest) > 0 && !s.cut.Load() {
		s.rest = nil
		return Message{b: rest, raw: true}, nil
	}
	return s.next()
}

// Close cancels the request, if it has not ended: its handler's context ends.
// What was not read is dropped, and reading fails with ErrCanceled, or with the
// error that the request had ended with; after io.EOF was read, Close does
// nothing. The error is always nil.
func (s *Stream) Close() error {
	r := s.call
	r.client.abort(r, &callError{err: ErrCanceled, service: r.service, detail: streamClosed}, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told {
		s.closed = true
		s.cut.Store(true)
		s.discard()
	}
	return nil
}

const streamClosed = "stream closed"

// discard drops what is queued for Close, and keeps how the stream ended: a
// good end that nobody has read is none. It is called with mu held.
func (s *Stream) discard() {
	if s.over && s.head < len(s.queue) {
		s.err = s.queue[len(s.queue)-1].err
	}
	clear(s.queue)
	s.queue, s.head, s.buffered = s.queue[:0], 0, 0
	if s.over && (s.err == nil || s.err == io.EOF) {
		s.err = &callError{err: ErrCanceled, service: s.call.service, outcome: Executed, detail: streamClosed}
	}
}

var _ interface {
	io.ReadCloser
	io.WriterTo
} = (*Stream)(nil)
