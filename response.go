package omdp

import (
	"context"
	"errors"
	"io"
	"sync"
	"unicode/utf8"
)

// maxQueued is how many bytes of partials may wait in the worker's connection
// before Write blocks. Finals never wait.
const maxQueued = 1 << 20

// A Response is a handler's answer to one request: any number of partials, then
// one final. It is an io.Writer, io.StringWriter, io.ReaderFrom and io.Closer.
//
// All methods are safe for concurrent use, also after the handler returned,
// when they do nothing but fail. Writers take turns; what one call sends is
// contiguous. None keeps the caller's bytes.
//
// MDP/0.1 has no partials ([WorkerConfig.Dialect]): there what is written or
// sent is kept until the end and goes as frames in front of the final's value, of
// which null adds none: bytes that were written one after another as one frame,
// each value that was sent as one. MaxBody bounds what is kept, and 11 the frames:
// more is ErrTooLarge. An error as the end stands alone.
//
// Errors: ErrEnded after the final; after the handler's ctx ended, its cause;
// ErrTooLarge for a value whose encoded form is over WorkerConfig.MaxBody, and
// what encoding/json says of a value that can't be encoded: of these two
// nothing was sent and the response is open still.
type Response struct {
	worker *Worker
	conn   *workerConn
	link   link // of the session in which the request came: no other ever carries the reply
	task   *task
	raw    bool  // the client reads raw bytes
	packs  bool  // the broker reads envelopes
	many   bool  // … and several of them in one frame
	frame  int64 // … and pieces, and takes frames of so many bytes; 0: no pieces
	joins  int64 // the most that the client joins of pieces, in bytes

	writing sync.Mutex // held for the whole of Write, Send and ReadFrom; before the link's lock

	// mu comes after the link's lock and after Worker.mu. ended changes only
	// with the link's lock held, so that nothing can follow the final.
	mu     sync.Mutex
	ended  bool
	cause  error // why ctx ended
	failed error // a final that could not be encoded
	credit credit
	grows  bool          // the client wants to know when a writer waits for credit
	asked  bool          // … and was told since it last gave some
	room   chan struct{} // capacity 1: a writer waits for room; nil until one did
	kept   *kept         // partials that wait for the final
	tail   [utf8.UTFMax]byte
	ntail  int // bytes of tail: the start of a character whose rest the next Write brings
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Write sends p as partials, split at WorkerConfig.ChunkSize bytes. It blocks
// while the client has no room for more. An empty p sends nothing.
//
// To clients of this library, and in MDP/0.1 and 0.2, the bytes travel as they
// are. To others they travel as JSON strings, cut between characters, even across calls: up to
// three bytes at the end of p may be sent with the next call; what is not
// UTF-8 travels as Node's Buffer prints itself.
func (r *Response) Write(p []byte) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if len(p) == 0 {
		return 0, r.stopped()
	}
	for n := 0; n < len(p); {
		var k int
		var err error
		switch {
		case !r.worker.wire.partials:
			k, err = len(p), r.keep(p, true)
		case r.raw:
			k = min(len(p)-n, r.chunk())
			err = r.partial(p[n:n+k], true, nil)
		default:
			k, err = r.writeText(p[n:])
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	return len(p), nil
}

// chunk is how many raw bytes one partial may have.
func (r *Response) chunk() int {
	if r.frame > 0 && r.frame < int64(r.worker.chunk) {
		return int(r.frame)
	}
	return r.worker.chunk
}

// textChunk is the same for JSON, whose escapes take up to 6 bytes for one.
func (r *Response) textChunk() int {
	if r.frame > 0 {
		return max(min(r.worker.textChunk, int(r.frame-64)/6), 1)
	}
	return r.worker.textChunk
}

// WriteString is Write of the bytes of s.
func (r *Response) WriteString(s string) (int, error) {
	b := getBuffer()
	defer b.put()
	b.b = append(b.b, s...)
	return r.Write(b.b)
}

// ReadFrom sends everything that from yields, as it comes, until io.EOF. It
// makes io.Copy to a Response use buffers of ChunkSize.
func (r *Response) ReadFrom(from io.Reader) (int64, error) {
	return copyFrom(from, r.worker.chunk, r.Write, r.stopped)
}

// Send sends v as exactly one partial. It blocks while the client has no room.
func (r *Response) Send(v any) error {
	b := getBuffer()
	defer b.put()
	value, raw, err := r.encode(b, v)
	if err != nil {
		return responseError("send partial", err)
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	if !r.worker.wire.partials {
		if !raw {
			value = apart(value) // it may stand alone in the end
		}
		return r.keep(value, false)
	}
	return r.partial(value, raw, nil)
}

// End sends v as the final and ends the response. Only what End is given
// reaches the client's final callback; nil is JSON null. It never blocks on
// the client. After ctx ended it is sent all the same, to free the worker's
// place at the broker, and End returns the cause.
//
// A final that can't be encoded leaves the response open; if the handler then
// returns nil, the client gets the reason as an error.
//
// A final that is larger than a frame of the broker goes in pieces, before
// which it waits as a partial does.
func (r *Response) End(v any) error {
	if r.Ended() {
		return ErrEnded
	}
	b := getBuffer()
	defer b.put()
	value, raw, err := r.encode(b, v)
	if err != nil {
		err = responseError("end response", err)
		r.mu.Lock()
		r.failed = err
		r.mu.Unlock()
		return err
	}
	if r.split(value, raw) {
		return r.finalInPieces(value, raw)
	}
	return r.final(value, raw, "")
}

// Error ends the response with an error. An [*Error] anywhere in err's chain
// chooses the code and the value; of any other the client gets code 500 and
// its text. A nil err is an error all the same, without a text.
func (r *Response) Error(err error) error {
	if err == nil {
		err = &Error{}
	}
	code, value := errorOf(err).wire()
	most := int64(r.worker.settings.maxBody)
	if r.frame > 0 { // errors are not sent in pieces
		most = min(most, r.frame)
	}
	if r.joins > 0 {
		most = min(most, r.joins)
	}
	if int64(len(value)+len(code)+jsonOverhead) > most {
		value = []byte(`"the text of the error is too large"`)
		if len(code) > maxService {
			code = "500"
		}
	}
	return r.final(value, false, code)
}

// Close ends the response with null if it has not ended.
func (r *Response) Close() error {
	if err := r.End(nil); err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	return nil
}

// Heartbeat tells the client now that the request is being worked on. The
// worker does so by itself every WorkerConfig.Heartbeat, for as long as the
// handler runs; there is rarely a need to call it.
func (r *Response) Heartbeat() error {
	o := r.link.Begin()
	err := r.stopped()
	if err == nil {
		n := 0
		if r.worker.wire.several {
			n = r.conn.level()
		}
		r.worker.wire.appendWorkerBeat(o, n, r.task.token(), r.task.rid())
	}
	r.link.Flush()
	return err
}

// Room is how many bytes the handler may write now without waiting for the
// client: at most 1 MiB, and that if the client sets no bound. Each partial
// counts 64 bytes besides its data. After the end of the response or of ctx it
// is 0.
func (r *Response) Room() int {
	queued := int64(r.link.Queued())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.cause != nil {
		return 0
	}
	return int(max(r.credit.room(maxQueued)-queued, 0))
}

// Active tells whether there is somebody to answer to: the response has not
// ended, and the client has neither cancelled nor left nor run out of time.
func (r *Response) Active() bool { return r.stopped() == nil }

// Ended tells whether the final was sent.
func (r *Response) Ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}
