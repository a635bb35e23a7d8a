package omdp

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// How a Response sends: encoding, waiting for room, and the order in which
// frames and the end of the response exclude each other.

// stopped says why nothing may be sent any more, or nil.
func (r *Response) stopped() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return ErrEnded
	}
	return r.cause
}

// jsonOverhead is what a JSON payload has besides code and value.
const jsonOverhead = len(`{"status":,"msg":}`)

// encode gives v as JSON or, if the client reads it, as raw bytes. The result
// may be v's own memory or b's.
func (r *Response) encode(b *buffer, v any) (value []byte, raw bool, err error) {
	switch v := v.(type) {
	case []byte:
		if r.raw {
			value, raw = v, true
		}
	case Message:
		switch {
		case !v.raw && v.b != nil:
			value = v.b
		case v.raw && r.raw:
			value, raw = v.b, true
		}
	case json.RawMessage:
		if !isJSON(v) {
			return nil, false, errNotJSON
		}
		value = v
	}
	if value == nil && !raw {
		if value, err = appendValue(b.b, v); err != nil {
			return nil, false, err
		}
		b.b = value
	}
	n := payloadLen(value, raw)
	if n > r.worker.settings.maxBody {
		return nil, false, fmt.Errorf("%w: %d bytes encoded, over MaxBody, %d", ErrTooLarge, n, r.worker.settings.maxBody)
	}
	if size := int64(len(value)); r.joins > 0 && size > r.joins || r.joins == 0 && r.split(value, raw) {
		return nil, false, fmt.Errorf("%w: %d bytes encoded: the client takes %d, a frame of the broker %d", ErrTooLarge, size, r.joins, r.frame)
	}
	return value, raw, nil
}

// split tells whether a value is too large for a frame of the broker.
func (r *Response) split(value []byte, raw bool) bool {
	return r.frame > 0 && int64(payloadLen(value, raw)) > r.frame
}

// pieces sends all but the last part of a value as pieces, and returns that
// part with its mark. writing is held.
func (r *Response) pieces(value []byte, raw bool) (last []byte, mark string, err error) {
	mark = markOf(raw, true)
	r.mu.Lock()
	size := int(min(maxPiece, r.frame))
	if w := r.credit.window; w > 0 {
		size = int(min(int64(size), max(w/2-partialOverhead, 1)))
	}
	r.mu.Unlock()
	for ; len(value) > size; value = value[size:] {
		if err := r.reserve(int64(size) + partialOverhead); err != nil {
			return nil, "", err
		}
		o := r.link.Begin()
		if err = r.stopped(); err == nil {
			r.worker.bytes.Add(uint64(size))
			appendWorkerPiece(o, r.task.token(), r.task.rid(), value[:size])
		}
		r.link.Flush()
		if err != nil {
			return nil, "", err
		}
	}
	return value, mark, nil
}

// finalInPieces sends a final that is too large for a frame.
func (r *Response) finalInPieces(value []byte, raw bool) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	last, mark, err := r.pieces(value, raw)
	if err != nil {
		if err != ErrEnded { // its place has to be freed all the same
			r.Error(err)
		}
		return err
	}
	return r.finalMarked(last, mark, "")
}

// payloadLen is the size of the last payload frame of a good reply, which is
// what credit counts.
func payloadLen(value []byte, raw bool) int {
	if raw {
		return len(value)
	}
	return len(value) + len("200") + jsonOverhead
}

// partial sends one partial as soon as there is room. writing is held. tail is
// what writeText keeps for the next call; nil: the value has no part of the
// present one, which goes out before it.
func (r *Response) partial(value []byte, raw bool, tail []byte) error {
	mark := markOf(raw, false)
	if r.split(value, raw) {
		var err error
		if value, mark, err = r.pieces(value, raw); err != nil {
			return err
		}
		raw = true
	}
	n := payloadLen(value, raw)
	if err := r.reserve(int64(n) + partialOverhead); err != nil {
		return err
	}
	o := r.link.Begin()
	err := r.stopped()
	if err == nil {
		if tail == nil {
			r.flushTail(o)
		} else {
			r.mu.Lock()
			r.ntail = copy(r.tail[:], tail)
			r.mu.Unlock()
		}
		r.appendReply(o, opPartial, "200", value, mark)
		r.worker.partials.Add(1)
		r.worker.bytes.Add(uint64(n))
	}
	r.link.Flush()
	return err
}

// flushTail appends the character that was never completed, as bytes. The
// link's lock is held.
func (r *Response) flushTail(o *batch.Out) {
	r.mu.Lock()
	tail, n := r.tail, r.ntail
	r.ntail = 0
	r.mu.Unlock()
	if n > 0 {
		r.appendReply(o, opPartial, "200", appendBytes(nil, tail[:n]), "")
	}
}

// reserve waits until the client and the connection have room for n bytes.
func (r *Response) reserve(n int64) error {
	for {
		r.mu.Lock()
		err, ok := r.cause, false
		switch {
		case r.ended:
			err = ErrEnded
		case err == nil:
			ok = r.credit.take(n)
		}
		if err == nil && !ok && r.room == nil {
			r.room = make(chan struct{}, 1)
		}
		room := r.room
		ask := err == nil && !ok && r.grows && !r.asked
		r.asked = r.asked || ask
		r.mu.Unlock()
		if err != nil {
			return err
		}
		if ok {
			break
		}
		if ask {
			r.ask()
		}
		<-room // granted, ended or cancelled
	}
	if r.link.Queued() < maxQueued {
		return nil
	}
	err := r.link.Await(&r.task.ctx, maxQueued)
	if err == nil {
		return nil
	}
	if cause := r.stopped(); cause != nil {
		return cause
	}
	return errLinkLost
}

// final sends the final: a good one if code is empty. Also when ctx has ended
// it goes out, to free this worker's place at the broker; the result is then
// the cause.
func (r *Response) final(value []byte, raw bool, code string) error {
	return r.finalMarked(value, markOf(raw, false), code)
}

func (r *Response) finalMarked(value []byte, mark, code string) error {
	good := code == ""
	if good {
		code = "200"
	}
	o := r.link.Begin()
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		r.link.Flush()
		return ErrEnded
	}
	r.ended = true
	cause := r.cause
	r.signal()
	if u := r.task.req.upload; u != nil {
		u.fail(ErrEnded)
	}
	r.mu.Unlock()
	held, depart := r.conn.release(r.task, good, payloadLen(value, mark != ""))
	if held {
		r.flushTail(o)
		r.appendReply(o, opReply, code, value, mark)
	}
	if depart {
		r.worker.wire.appendLeave(o)
	}
	r.link.Flush()
	return cause
}

func (r *Response) appendReply(o *batch.Out, c op, code string, value []byte, mark string) {
	if !r.worker.wire.extends {
		r.appendForeign(o, c, code, value, mark)
		return
	}
	o.Pack, o.Bundle = r.packs, r.many
	if mark != "" {
		appendReplyRaw(o, c, r.task.token(), r.task.rid(), mark, value)
		return
	}
	appendReplyJSON(o, c, r.task.token(), r.task.rid(), code, value)
}

// signal wakes the writer that waits for room. mu is held.
func (r *Response) signal() {
	if r.room == nil {
		return
	}
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// grant takes the client's CREDIT.
func (r *Response) grant(n, window int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.credit.grant(n, window)
	r.asked = false
	r.signal()
}

// ask tells the client that this end waits for credit: its window may grow.
func (r *Response) ask() {
	o := r.link.Begin()
	if r.stopped() == nil {
		appendWorkerCommand(o, opBlocked, r.task.token(), r.task.rid())
	}
	r.link.Flush()
}

// stop ends the handler's context. It reports false if it had ended.
func (r *Response) stop(cause error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return false
	}
	r.cause = cause
	if r.cancel != nil {
		r.cancel(cause)
	}
	r.signal()
	if u := r.task.req.upload; u != nil {
		u.fail(cause)
	}
	return true
}

// finish gives the final that the handler left to the library. A handler that
// gave up because its ctx ended and returned nil does not mean null.
func (r *Response) finish(err error) {
	r.mu.Lock()
	ended, failed, cause := r.ended, r.failed, r.cause
	r.mu.Unlock()
	switch {
	case ended:
	case err != nil:
		r.Error(err)
	case failed != nil:
		r.Error(failed)
	case cause != nil:
		r.Error(cause)
	default:
		r.final([]byte("null"), false, "")
	}
	r.stop(errHandlerDone)
}

// buffer is memory for one encoding, from a pool.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

// put gives the memory back, unless a rare large value made it big.
func (b *buffer) put() {
	if cap(b.b) > 1<<20 {
		b.b = nil
	}
	b.b = b.b[:0]
	buffers.Put(b)
}

// responseErr is why a value could not be sent.
type responseErr struct {
	verb string
	err  error
}

func responseError(verb string, err error) error { return &responseErr{verb, err} }

func (e *responseErr) Error() string {
	return "omdp: " + e.verb + ": " + strings.TrimPrefix(e.err.Error(), "omdp: ")
}

func (e *responseErr) Unwrap() error { return e.err }

// writeText sends the first chunk of p, with what is left of the chunk before,
// as one partial in JSON. It returns how much of p it took.
func (r *Response) writeText(p []byte) (int, error) {
	joined, value := getBuffer(), getBuffer()
	defer joined.put()
	defer value.put()
	r.mu.Lock()
	k := min(len(p), max(r.textChunk()-r.ntail, 1))
	chunk := p[:k]
	if r.ntail > 0 {
		joined.b = append(append(joined.b, r.tail[:r.ntail]...), chunk...)
		chunk = joined.b
	}
	r.mu.Unlock()
	cut := len(chunk) - openRune(chunk)
	if !utf8.Valid(chunk[:cut]) { // not text: all of it goes as bytes
		cut = len(chunk)
	}
	if cut == 0 {
		r.mu.Lock()
		r.ntail = copy(r.tail[:], chunk)
		r.mu.Unlock()
		return k, r.stopped()
	}
	value.b = appendBytes(value.b, chunk[:cut])
	return k, r.partial(value.b, false, chunk[cut:])
}

// openRune is how many bytes at the end of b are the start of a character that
// is not complete.
func openRune(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if utf8.FullRune(b[len(b)-i:]) {
				return 0
			}
			return i
		}
	}
	return 0
}
