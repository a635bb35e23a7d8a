package omdp

import "github.com/zmq-omdp/omdp/internal/batch"

// Data that is no single frame of JSON, pure: bytes as they are, data that is
// too large for a frame, and uploads. What goes in pieces follows its REQUEST
// once a worker has it, and as that grants it, so that no broker has to keep it.

// outflow is the data of a request that goes in pieces.
type outflow struct {
	upload  bool // its caller writes it; what the REQUEST carries is a header
	closing bool // … and has written all
	started bool // a worker took the request
	pieces  bool // it goes in pieces on the present link, if it is no upload
	over    bool // the last piece was sent
	asked   bool // the worker was told that this end waits, since it last granted
	sent    int  // bytes of data
	allow   int64
	piece   int // bytes of the largest piece
}

// maxPiece is the largest piece that is sent, in bytes: others of the same
// connection wait for no more.
const maxPiece = 256 << 10

// next is how many of n bytes may go now, and counts them as sent; 0: none.
func (f *outflow) next(n int) int {
	n = min(n, f.piece)
	if n == 0 || int64(n)+partialOverhead > f.allow {
		return 0
	}
	f.allow -= int64(n) + partialOverhead
	return n
}

// grant is what a worker's CREDIT says. The first is its window, of which a
// quarter may be withheld: pieces have to fit into the rest.
func (f *outflow) grant(n, frame int64) {
	if !f.started {
		f.started = true
		f.piece = int(min(max(n/creditShare-partialOverhead, 1), maxPiece, frame))
	}
	f.allow = min(f.allow+n, maxCredit)
	f.asked = false
}

// ask reports whether the worker is to be told that this end waits for credit.
func (f *outflow) ask() bool {
	say := f.started && !f.asked
	f.asked = f.asked || say
	return say
}

// errNotYet: what is to be sent depends on who answers on the connection.
var errNotYet error = &sentinel{text: "the broker has not answered yet"}

// defaultFrame is the largest frame of a broker, if its config does not say
// otherwise. Before it has told its own only what fits minFrame is sent.
const defaultFrame = 8 << 20

// fit says whether p can be sent on l: nil, errNotYet, or why it can't ever.
func (t *pendingTable) fit(p *pending, l *tableLink) error {
	size := int64(len(p.data))
	switch {
	case l.frame > 0 && (size <= l.frame || !p.flow.upload):
		return nil
	case l.frame > 0:
		return ErrTooLarge
	case p.flow.upload && (l.foreign || l.extended):
		return ErrUnsupported
	case p.flow.upload:
		return errNotYet
	case size <= minFrame/8: // as text, too
		return nil
	}
	if p.raw && !t.wire.opaque && (size <= minFrame || l.foreign || l.extended) {
		t.text = appendBytes(t.text[:0], p.data)
		size = int64(len(t.text))
		t.dropText()
	}
	switch {
	case size <= minFrame, size <= t.maxBody && (l.foreign || l.extended):
		return nil
	case l.foreign || l.extended:
		return ErrTooLarge
	}
	return errNotYet
}

// dropText lets a rare large text go.
func (t *pendingTable) dropText() {
	if cap(t.text) > 1<<20 {
		t.text = nil
	}
}

// hold has p wait where put does not follow add.
func (t *pendingTable) hold(p *pending) { t.timing.reschedule(p) }

// start gives what the REQUEST of p carries on l.
func (t *pendingTable) start(p *pending, l *tableLink, o *options) (data []byte, mark string) {
	f := &p.flow
	*f = outflow{upload: f.upload, closing: f.closing, pieces: l.frame > 0 && int64(len(p.data)) > l.frame}
	switch size := int64(len(p.data)); {
	case f.upload:
		o.more = moreUpload
	case f.pieces:
		o.more = size
		return nil, markOf(p.raw, true)
	}
	if p.raw && l.frame == 0 {
		t.text = appendBytes(t.text[:0], p.data)
		return t.text, ""
	}
	return p.data, markOf(p.raw, f.upload)
}

// onCredit: the worker takes more of the data of a request. It returns the
// request, nil for one that is not on l or sends no pieces.
func (t *pendingTable) onCredit(now instant, l *tableLink, m *message) *pending {
	p := t.find(m.rid)
	if p == nil || p.link != l || !p.flow.upload && !p.flow.pieces {
		return nil
	}
	p.heard, p.stirred = now, now
	p.flow.grant(m.credit, l.frame)
	return p
}

// feed appends what may be sent of p now: pieces of its data, or of an upload
// the end, if all was written before a worker took it.
func (t *pendingTable) feed(p *pending, out *batch.Out) {
	f := &p.flow
	if f.upload {
		if f.closing && f.started && !f.over {
			f.over = true
			appendClientCommand(out, opPiece, p.rid)
		}
		return
	}
	for left := p.data[f.sent:]; len(left) > 0; left = p.data[f.sent:] {
		n := f.next(len(left))
		if n == 0 {
			if f.ask() {
				appendClientCommand(out, opBlocked, p.rid)
			}
			return
		}
		out.Pack = false
		appendClientPiece(out, p.rid, left[:n])
		f.sent += n
	}
	f.over = true
}

// onPiece keeps a piece of the next payload of a request. It returns the
// request, nil if it is late; ok is false if that gets too large.
func (t *pendingTable) onPiece(now instant, l *tableLink, m *message) (p *pending, ok bool) {
	p = t.find(m.rid)
	if p == nil || p.link != l {
		return nil, false
	}
	p.heard, p.partial, p.stirred = now, true, now
	if p.size += int64(len(m.data)); p.size > t.maxBody {
		return p, false
	}
	p.join = append(p.join, append([]byte(nil), m.data...))
	return p, true
}

// takeJoin returns the pieces that came before a payload.
func (p *pending) takeJoin() [][]byte {
	join := p.join
	p.join, p.size = nil, 0
	return join
}

// counted is how many bytes a payload counts.
func (m *message) counted() int {
	if m.said == saidNative {
		return len(m.body[len(m.body)-1])
	}
	return m.size()
}

// parseJoined is parseReply of a payload with the pieces that came before it,
// which count only if it says so: else whoever sent them thought better of it.
func parseJoined(service string, join [][]byte, body [][]byte) reply {
	if len(body) != 2 {
		return parseReply(service, body)
	}
	raw := string(body[0]) == joinRawMark
	if !raw && string(body[0]) != joinMark {
		return parseReply(service, body)
	}
	n := len(body[1])
	for _, p := range join {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for _, p := range join {
		b = append(b, p...)
	}
	b = append(b, body[1]...)
	if !raw && !isJSON(b) {
		return protocolError(service, "a reply in pieces that is no JSON")
	}
	return reply{msg: Message{b: b, raw: raw}}
}
