package omdp

import (
	"fmt"
	"strings"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What a Response says in other dialects than OMDP.

// appendForeign writes a PARTIAL or REPLY; its arguments are as appendReply's.
// The link's lock is held.
func (r *Response) appendForeign(o *batch.Out, c op, code string, value []byte, mark string) {
	m := &message{op: c, token: []byte(r.task.token()), rid: []byte(r.task.rid())}
	switch {
	case mark != "":
		m.says(saidValue, "", formRaw, value)
	case code == "200":
		m.says(saidValue, "", formJSON, value)
	case value == nil: // no handler began
		m.says(saidStatus, strings.Trim(code, `"`), formJSON, nil)
		m.executed = "false"
	default:
		m.says(saidError, code, formJSON, value)
	}
	if c == opReply && m.said == saidValue {
		r.mu.Lock()
		r.kept.lead(m)
		r.mu.Unlock()
	}
	r.conn.said.Store(true)
	r.worker.wire.appendResult(o, m)
}

// maxKept is how many frames of partials may go in front of a final: with those
// around them they have to fit a message.
const maxKept = maxFrames - 5

// kept is partials that go with the final, in a dialect that has none.
type kept struct {
	frames [][]byte
	size   int
	open   bool // the last frame is of bytes that were written: more may join it
}

// keep keeps a partial for the final; one that was written may have others join it.
func (r *Response) keep(value []byte, written bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		r.kept = new(kept)
	}
	k, most := r.kept, r.worker.settings.maxBody
	joins := written && k.open
	switch {
	case r.ended:
		return ErrEnded
	case r.cause != nil:
		return r.cause
	case k.size+len(value) > most:
		return responseError("keep partial", fmt.Errorf("%w: %d bytes with those before it, which wait for the final: MaxBody is %d", ErrTooLarge, k.size+len(value), most))
	case !joins && len(k.frames) == maxKept:
		return responseError("keep partial", fmt.Errorf("%w: %d partials wait for the final, which takes no more", ErrTooLarge, maxKept))
	}
	if joins {
		last := &k.frames[len(k.frames)-1]
		*last = append(*last, value...)
	} else {
		k.frames = append(k.frames, append([]byte{}, value...))
	}
	k.open = written
	k.size += len(value)
	r.worker.partials.Add(1)
	return nil
}

// lead puts what was kept in front of a final's value.
func (k *kept) lead(m *message) {
	if k == nil || len(k.frames) == 0 {
		return
	}
	if m.form == formRaw || string(m.body[0]) != "null" {
		k.frames = append(k.frames, m.body[0])
	}
	m.form, m.body = formLoose, k.frames
}
