package omdp

import "time"

// Requests whose data comes in pieces, as the session of a worker knows them,
// pure. It grants credit: of an upload as the handler reads, of data that is
// joined before the handler runs as it comes, once there is room for all of it.

// inflow is the data of one request that comes in pieces.
type inflow struct {
	upload   bool
	ask      bool  // the client waits for credit, and nothing came since it said so
	over     bool  // all came
	need     int64 // bytes that are to come, if it is no upload
	allow    int64 // granted, and not used
	window   int64 // what may be on the way, or unread
	widened  int64 // … of which it has grown by so many
	reserved int64 // of bodyRoom
	taken    int64 // read, and not granted anew
	heard    instant
}

// errIdleUpload ends a request of which nothing more came.
var errIdleUpload = causeOf(ErrProtocol, "the client does not go on with its upload")

// errOverdrawn ends a request whose client sent what it may not.
var errOverdrawn = causeOf(ErrProtocol, "the client sent more than it may")

// bodyRoom bounds the data that is joined: what there is no room for waits in
// line. The zero value has no room.
type bodyRoom struct {
	size, used int64
	line       []*task // wait; nil: went away
	widened    int64   // by which windows have grown
	window     int64   // of each, at first …
	maxWindow  int64   // … and at the most
}

// ask has t's data wait for room, or reports that there is.
func (b *bodyRoom) ask(t *task) bool {
	if len(b.line) > 0 || b.used+t.in.need > b.size {
		b.line = append(b.line, t)
		return false
	}
	b.used += t.in.need
	t.in.reserved = t.in.need
	return true
}

// leave frees the room of t, or its place in the line, and returns those that
// have room now.
func (b *bodyRoom) leave(t *task) (next []*task) {
	f := t.in
	if f == nil {
		return nil
	}
	b.widened -= f.widened
	f.widened = 0
	if f.upload {
		return nil
	}
	if f.reserved == 0 {
		for i, o := range b.line {
			if o == t {
				b.line = append(b.line[:i], b.line[i+1:]...)
				break
			}
		}
	}
	b.used -= f.reserved
	f.reserved = 0
	for len(b.line) > 0 {
		n := b.line[0]
		if b.used+n.in.need > b.size {
			break
		}
		b.line = b.line[1:]
		b.used += n.in.need
		n.in.reserved = n.in.need
		next = append(next, n)
	}
	return next
}

// expect takes a request whose data comes in pieces. It reports false for one
// that runs at once: an upload, or one that is too large.
func (s *workerSession) expect(now instant, t *task, more int64, a *arrivals) (waits bool) {
	f := &inflow{upload: more == moreUpload, need: max(more, 0), window: s.room.window, heard: now}
	switch {
	case f.upload:
		t.in = f
		t.req.upload = newUploaded(t)
		s.grant(t, f.window, a)
		return false
	case int64(len(t.req.data.b))+more > s.maxBody:
		t.told = true
		t.res.stop(ErrTooLarge) // before it runs: its handler does not
		return false
	}
	t.in, t.gathers = f, true
	if s.room.ask(t) {
		s.begin(now, t, a)
	}
	return true
}

// begin lets the data of a request come that is joined.
func (s *workerSession) begin(now instant, t *task, a *arrivals) {
	t.in.heard = now
	s.grant(t, t.in.window, a)
}

func (s *workerSession) grant(t *task, n int64, a *arrivals) {
	t.in.allow += n
	a.grants = append(a.grants, creditTo{t: t, n: n})
}

// onPiece takes a piece, or the end of an upload.
func (s *workerSession) onPiece(now instant, m *message, a *arrivals) {
	t := s.find(m)
	if t == nil || t.told { // it has ended
		return
	}
	f, n := t.in, int64(len(m.data))
	if m.data != nil {
		n += partialOverhead
	}
	switch {
	case f == nil, f.over, n > f.allow, !f.upload && (m.data == nil || int64(len(m.data)) > f.need):
		s.overdrawn++
		t.told = true
		a.ended = append(a.ended, ending{t, errOverdrawn})
		return
	}
	f.allow -= n
	f.heard = now
	f.ask = false
	switch {
	case m.data == nil:
		f.over = true
		a.pieces = append(a.pieces, pieceTo{t, nil})
	case f.upload:
		a.pieces = append(a.pieces, pieceTo{t, append([]byte(nil), m.data...)})
	default:
		if b := t.req.data.b; len(b)+len(m.data) > cap(b) { // as much as has come, so that nobody takes memory by promises
			t.req.data.b = append(make([]byte, 0, len(b)+max(int(min(f.need, int64(len(b)))), len(m.data))), b...)
		}
		t.req.data.b = append(t.req.data.b, m.data...)
		if f.need -= int64(len(m.data)); f.need > 0 {
			if n := s.took(now, t, n, true); n > 0 {
				s.grant(t, n, a)
			}
			return
		}
		f.over, t.gathers = true, false
		a.run = append(a.run, t)
	}
}

// took counts bytes that were read, and returns how many more may come: a share
// of the window at a time. idle tells that nothing else waits to be read: a
// window that the client waits for grows then, by doubling.
func (s *workerSession) took(now instant, t *task, n int64, idle bool) int64 {
	f := t.in
	f.taken += n
	if idle && f.ask {
		f.ask = false
		b := s.room
		if more := min(f.window, b.maxWindow-f.window, widenShare*b.maxWindow-b.widened); more > 0 {
			f.window += more
			f.widened += more
			b.widened += more
			f.taken += more
		}
	} else if f.taken < f.window/creditShare {
		return 0
	}
	n, f.taken = f.taken, 0
	f.heard = now // it may have had no room before
	return n
}

// onClientBlocked: the client waits for credit.
func (s *workerSession) onClientBlocked(now instant, m *message, a *arrivals) {
	t := s.find(m)
	if t == nil || t.told || t.in == nil || t.in.over || t.in.allow == 0 && t.in.window == 0 {
		return
	}
	t.in.ask = true
	if t.gathers && t.in.reserved == 0 || t.req.upload != nil && t.req.upload.unread.Load() > 0 { // its reader is what it waits for
		return
	}
	if n := s.took(now, t, 0, true); n > 0 {
		s.grant(t, n, a)
	}
}

// quietAt is when a request whose client may send more and does not is ended.
// With less than a quarter of the window its next piece may not fit.
func (s *workerSession) quietAt(t *task) instant {
	f := t.in
	if f == nil || f.over || f.allow < f.window/creditShare || f.allow == 0 || s.quiet <= 0 {
		return never
	}
	return s.clock.silentSince(f.heard) + s.quiet
}

const defaultUploadTimeout = time.Minute

// The shell's part.

// tookPiece notes that a handler has read a piece.
func (c *workerConn) tookPiece(t *task, size int, idle bool) {
	w := c.worker
	o := t.res.link.Begin()
	w.mu.Lock()
	var n int64
	if t.at >= 0 && !t.in.over {
		if n = c.sess.took(c.session.now(), t, int64(size)+partialOverhead, idle); n > 0 {
			t.in.allow += n
		}
	}
	w.mu.Unlock()
	if n > 0 {
		appendWorkerCredit(o, t.token(), t.rid(), n)
	}
	t.res.link.Flush()
}

// leaveRoom frees what the data of a request took, and has others come for
// which there is room now. Their links are not touched here. mu is held.
func (w *Worker) leaveRoom(t *task) {
	if t.in == nil {
		return
	}
	for _, n := range w.room.leave(t) {
		c := n.res.conn
		c.sess.roomy = append(c.sess.roomy, n)
		c.session.wake()
	}
}
