package omdp

import (
	"io"
	"sync"
	"sync/atomic"
)

// uploaded is what a client uploads to one request, as its handler reads it:
// [Request.Body].
type uploaded struct {
	task   *task
	unread atomic.Int32 // pieces in queue

	reading sync.Mutex // held by a reader, while it waits as well
	rest    []byte     // of the piece being read; by reading

	mu    sync.Mutex
	queue [][]byte
	head  int
	err   error         // what follows the queue
	cut   bool          // the queue counts no more: err comes at once
	ready chan struct{} // capacity 1: something was pushed
}

func newUploaded(t *task) *uploaded { return &uploaded{task: t, ready: make(chan struct{}, 1)} }

// push adds a piece, which it keeps; nil is the end.
func (u *uploaded) push(p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.err != nil:
	case p == nil:
		u.err = io.EOF
	default:
		u.queue = append(u.queue, p)
		u.unread.Add(1)
	}
	u.wake()
}

// fail ends it: what was not read is dropped.
func (u *uploaded) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil || u.err == io.EOF && u.head < len(u.queue) {
		u.err, u.cut = err, true
		clear(u.queue)
		u.queue, u.head = nil, 0
	}
	u.wake()
}

// wake is called with mu held.
func (u *uploaded) wake() {
	select {
	case u.ready <- struct{}{}:
	default:
	}
}

// take returns the next piece; nil if there is none yet.
func (u *uploaded) take() (p []byte, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.head == len(u.queue) {
		if u.err != nil {
			u.wake() // for others that wait
		}
		return nil, u.err
	}
	p = u.queue[u.head]
	u.queue[u.head] = nil
	if u.head++; u.head == len(u.queue) {
		u.queue, u.head = u.queue[:0], 0
	} else if u.head >= 64 && u.head*2 >= len(u.queue) { // a reader that is always behind
		n := copy(u.queue, u.queue[u.head:])
		clear(u.queue[n:])
		u.queue, u.head = u.queue[:n], 0
	}
	return p, nil
}

// fill sees to it that rest is not empty. reading is held.
func (u *uploaded) fill() error {
	if len(u.rest) > 0 {
		u.mu.Lock()
		cut := u.cut
		u.mu.Unlock()
		if !cut {
			return nil
		}
		u.rest = nil
	}
	for {
		p, err := u.take()
		switch {
		case err != nil:
			return err
		case p != nil:
			u.rest = p
			u.task.res.conn.tookPiece(u.task, len(p), u.unread.Add(-1) == 0)
			return nil
		}
		<-u.ready
	}
}

func (u *uploaded) Read(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := u.fill(); err != nil {
		return 0, err
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// WriteTo writes what comes to w, piece by piece, without copying.
func (u *uploaded) WriteTo(w io.Writer) (int64, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	written, _, err := copyTo(w, &u.rest, u.fill)
	return written, err
}

// noBody is the body of what is no upload.
type noBody struct{}

func (noBody) Read([]byte) (int, error)             { return 0, io.EOF }
func (noBody) WriteTo(io.Writer) (n int64, _ error) { return 0, nil }

// Body is what the client uploads ([Client.OpenStream]), as it comes, until
// io.EOF; it is an [io.WriterTo] as well. It is the same reader each time. A
// request that is no upload has an empty one. When the handler's ctx or its
// response ends, reading fails with the cause, and with ErrProtocol if the
// client broke the rules or sent nothing for WorkerConfig.UploadTimeout.
func (r *Request) Body() io.Reader {
	if r.upload == nil {
		return noBody{}
	}
	return r.upload
}
