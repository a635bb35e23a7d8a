package omdp

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A Handler answers one request; it is what the 'request' event is in Node.
// It runs on a goroutine of its own. As a func type it is its own middleware:
// a func that takes a Handler and returns one.
//
// Returning nil without [Response.End] ends the response with null; returning
// an error is [Response.Error] of it; a panic is recovered and logged, and the
// client gets an error with code 500 and a general text. What was returned
// after End is ignored.
//
// ctx ends when the client cancels or vanishes, when the deadline passes, when
// the broker is lost, when the worker stops, and when the handler has
// returned; context.Cause says which: it is ErrCanceled, ErrTimeout,
// ErrBrokerLost, ErrClosed or ErrEnded for errors.Is. A handler that goes on
// after its ctx ended does no harm but keeps its place until it returns or
// ends its response, or until WorkerConfig.StuckAfter; one that goes on after End does so beside the next request.
type Handler func(ctx context.Context, req *Request, res *Response) error

// HandleJSON makes a Handler of a plain function: the request's data is decoded
// into In, and what f returns is the final. Data that does not fit In is an
// error with code 400. In and Out may be anything that encoding/json knows,
// and [Message].
func HandleJSON[In, Out any](f func(ctx context.Context, in In) (Out, error)) Handler {
	return func(ctx context.Context, req *Request, res *Response) error {
		var in In
		if err := req.Decode(&in); err != nil {
			return &Error{Code: "400", Message: err.Error()}
		}
		out, err := f(ctx, in)
		if err != nil {
			return err
		}
		return res.End(out)
	}
}

// A Request is what a client asks. It never changes, may be kept, and is safe
// for concurrent use.
type Request struct {
	id       string
	service  string
	data     Message
	options  []byte
	deadline time.Time // zero: none
	attempt  int
	upload   *uploaded // nil: there is none
}

// ID is the client's own id of the request: printable, and unique among the
// requests of that client alone. In MDP/0.1 and 0.2, which have none, it is a
// number that this worker counts.
func (r *Request) ID() string { return r.id }

// Service is the name of the service that was asked: the worker's own, and in
// PIGATO, where that may be a pattern, what the client wrote.
func (r *Request) Service() string { return r.service }

// Bytes is the content of the data, see [Message.Bytes]. The caller must not change it.
func (r *Request) Bytes() []byte { return r.data.Bytes() }

// Decode stores the data in v, a pointer, see [Message.Decode].
func (r *Request) Decode(v any) error { return r.data.Decode(v) }

// Message is the data itself; it may be kept and passed on.
func (r *Request) Message() Message { return r.data }

// Deadline is when the client stops waiting, and false if it waits for ever.
// It is also the ctx's deadline. Behind a broker that does not tell the
// remaining time it is counted from the arrival here.
func (r *Request) Deadline() (time.Time, bool) { return r.deadline, !r.deadline.IsZero() }

// Attempt counts how often the request was handed to a worker, by a broker that
// tells: 1 for the first. A dispatch that could not be sent does not count.
func (r *Request) Attempt() int { return r.attempt }

// Metadata is what the client attached with WithMetadata; nil if nothing. The
// map is the caller's own.
func (r *Request) Metadata() map[string]string { return parseMeta(r.options) }

// task is all of one request at a worker, in one allocation. A handler may
// keep its parts for as long as it likes: tasks are never used twice.
type task struct {
	held                               // the session's, by Worker.mu, but for the key, which never changes
	tells         bool                 // the broker tells when the client is gone; never changes
	form          form                 // of its data; never changes
	turn          turn                 // of Worker.places, by Worker.mu
	before, after *task                // that wait for a place, by Worker.mu
	late          atomic.Pointer[late] // by Worker.mu; nil: its context has not ended while it had a place
	req           Request
	res           Response
	ctx           requestContext
}

// newTask copies what a REQUEST carries. The session fills in held.
func newTask(c *workerConn, l link, m *message, x *extra) *task {
	t := &task{tells: x != nil && x.raw} // a client that advertised beats to the broker, which tells
	t.req = Request{service: c.worker.service, attempt: 1, data: Message{b: bytes.Clone(m.data), raw: m.form == formRaw}}
	if t.form = m.form; m.form >= formRaw && m.data == nil {
		t.req.data.b = []byte{}
	}
	if m.service != nil {
		t.req.service = string(m.service)
	}
	t.res.raw = c.worker.wire.opaque
	if len(m.options) > 2 { // {} is none
		t.req.options = bytes.Clone(m.options)
	}
	t.res.worker, t.res.conn, t.res.link, t.res.task = c.worker, c, l, t
	t.res.packs, t.res.many, t.res.frame = c.sess.packs, c.sess.many, c.sess.frame // under Worker.mu
	if x != nil {                                                                  // never of other dialects
		t.req.attempt = x.attempt
		t.res.raw, t.res.grows, t.res.joins, t.res.credit.window = x.raw, x.grow, x.body, x.credit
	}
	t.ctx.res = &t.res
	return t
}

// requestContext is the ctx of a handler. It makes a cancellable context only
// when somebody waits on it or derives from it: most handlers never do.
type requestContext struct{ res *Response }

func (c *requestContext) Deadline() (time.Time, bool) { return c.res.task.req.Deadline() }
func (c *requestContext) Done() <-chan struct{}       { return c.inner().Done() }

// Value has context.Cause find the cause, and derived contexts their parent.
func (c *requestContext) Value(key any) any { return c.inner().Value(key) }

func (c *requestContext) Err() error {
	c.res.mu.Lock()
	defer c.res.mu.Unlock()
	switch cause := c.res.cause; {
	case cause == nil:
		return nil
	case errors.Is(cause, context.DeadlineExceeded):
		return context.DeadlineExceeded
	}
	return context.Canceled
}

func (c *requestContext) inner() context.Context {
	r := c.res
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx == nil {
		r.ctx, r.cancel = context.WithCancelCause(context.Background())
		if r.cause != nil {
			r.cancel(r.cause)
		}
	}
	return r.ctx
}
