// Package batch packs messages of several frames into one flat buffer.
//
// It is the form in which messages cross from Go to libzmq and back: one call
// carries a whole [Out] out and fills a whole [In]. The package is pure: it
// knows nothing of sockets, so the core of omdp can write its outbox in it.
//
// The layout, in native byte order, is for each message
//
//	uint32 number of frames
//	for each frame: uint32 length, then that many bytes;
//	or, for a [Block], 0xFFFFFFFF and its handle, a uint64
//
// internal/zsock reads and writes the same layout in C.
package batch

import "encoding/binary"

// Status is what became of one message of an [Out].
type Status uint8

const (
	Pending     Status = iota // not tried yet
	Sent                      // libzmq took it; that is not delivery
	Again                     // EAGAIN: the peer's pipe is full, or there is no connection yet
	Unreachable               // EHOSTUNREACH: a ROUTER knows no such peer
	Failed                    // anything else; the socket is of no more use
)

// Out is a batch of messages to send. The zero value is empty and ready.
// Frames are copied in, so nothing that was appended can change later.
// It is not safe for concurrent use.
type Out struct {
	B       []byte   // the packed messages; append to it only between OpenFrame and CloseFrame
	Results []Status // one a message, filled by an exchange
	// Pack makes Envelope put the frames that follow it into one: libzmq's cost
	// is by the frame. The one who appends sets it for each message.
	Pack bool
	// Bundle makes End put a message that is an envelope into one frame with those
	// before it that went to the same peer under Bundle: see Bundled. Like Pack it
	// is set for each message.
	Bundle bool
	// Store makes and finds the Blocks in which large frames travel. nil: they are
	// copied into B like all others.
	Store *Store

	starts   []int
	frames   uint32
	frame    int
	envelope int // where the open envelope's length stands; 0: none is open
	last     int // where that of the last message's frame stands, if others may join it; 0: they may not
	bundled  bool

	// What the messages refer to, in their order: each is kept once for each reference.
	blocks  []*Block
	blockOf []int // the message
	held    int   // bytes
}

// Mark is the first byte of an envelope: no frame of a header is this one.
const Mark = 1

// Reset empties the batch and keeps its memory, unless a rare large batch
// made it grow over 1 MiB.
func (o *Out) Reset() {
	if cap(o.B) > 1<<20 {
		o.B = nil
	}
	o.B, o.starts, o.Results, o.last = o.B[:0], o.starts[:0], o.Results[:0], 0
	if len(o.blocks) > 0 {
		o.drop(len(o.blocks))
	}
}

// Len is the number of messages.
func (o *Out) Len() int { return len(o.starts) }

// Begin starts a message; its frames follow, then End.
func (o *Out) Begin() {
	o.starts = append(o.starts, len(o.B))
	o.Results = append(o.Results, Pending)
	o.B = append(o.B, 0, 0, 0, 0)
	o.frames, o.envelope = 0, 0
}

// Envelope opens, if Pack is set, one frame that holds all that follow up to
// End: Mark, then for each its length as a little-endian uint32 and its bytes.
func (o *Out) Envelope() {
	if o.Pack {
		o.envelope = len(o.B)
		o.B = append(o.B, 0, 0, 0, 0, Mark)
		o.frames++
	}
}

// putLen writes the length of the frame whose length stands at i.
func (o *Out) putLen(i, n int) {
	if o.envelope > 0 {
		binary.LittleEndian.PutUint32(o.B[i:], frameLen(n))
	} else {
		binary.NativeEndian.PutUint32(o.B[i:], frameLen(n))
	}
}

// End ends the message that Begin started.
func (o *Out) End() {
	at := o.envelope
	if at > 0 {
		binary.NativeEndian.PutUint32(o.B[at:], frameLen(len(o.B)-at-4))
		o.envelope = 0
	}
	binary.NativeEndian.PutUint32(o.B[o.starts[len(o.starts)-1]:], o.frames)
	switch {
	case at == 0 || !o.Bundle:
		o.last = 0
	case o.last == 0 || !o.join(at):
		o.last, o.bundled = at, false
	}
}

// Frame appends one frame with a copy of p, or, if p is the bytes of a Block
// that Store knows, a reference to that.
func (o *Out) Frame(p []byte) {
	if len(p) >= Large && o.Store != nil && o.frameLarge(p) {
		return
	}
	o.OpenFrame()
	o.B = append(o.B, p...)
	o.putLen(o.frame, len(p))
}

// FrameString appends one frame with a copy of s.
func (o *Out) FrameString(s string) {
	o.OpenFrame()
	o.B = append(o.B, s...)
	o.putLen(o.frame, len(s))
}

// A Prefix is frames that many messages begin with, packed once for both
// forms in which they travel.
type Prefix struct {
	plain, inside string
	n             uint32
}

// NewPrefix packs frames.
func NewPrefix(frames ...string) Prefix {
	var plain, inside Out
	inside.envelope = 1
	for _, f := range frames {
		plain.FrameString(f)
		inside.FrameString(f)
	}
	return Prefix{string(plain.B), string(inside.B), uint32(len(frames))}
}

// Prefix appends the frames of p.
func (o *Out) Prefix(p *Prefix) {
	if o.envelope > 0 {
		o.B = append(o.B, p.inside...)
		return
	}
	o.B = append(o.B, p.plain...)
	o.frames += p.n
}

// OpenFrame starts a frame whose bytes the caller appends to o.B; CloseFrame ends it.
func (o *Out) OpenFrame() {
	o.frame = len(o.B)
	o.B = append(o.B, 0, 0, 0, 0)
	if o.envelope == 0 {
		o.frames++
	}
}

// CloseFrame ends the frame that OpenFrame started.
func (o *Out) CloseFrame() {
	o.putLen(o.frame, len(o.B)-o.frame-4)
}

// Message returns message i, packed. It is valid until the next Begin or Reset.
func (o *Out) Message(i int) []byte {
	if i+1 < len(o.starts) {
		return o.B[o.starts[i]:o.starts[i+1]]
	}
	return o.B[o.starts[i]:]
}

// AppendPacked appends a message that was packed before, as Message gave it,
// and has no blocks.
func (o *Out) AppendPacked(m []byte) {
	o.starts = append(o.starts, len(o.B))
	o.Results = append(o.Results, Pending)
	o.B = append(o.B, m...)
	o.last = 0
}

// DropFront removes the first n messages, which were sent.
func (o *Out) DropFront(n int) {
	if n <= 0 {
		return
	}
	if n >= len(o.starts) {
		o.Reset()
		return
	}
	o.last = 0
	if len(o.blocks) > 0 {
		o.drop(o.firstBlock(n))
		for i := range o.blockOf {
			o.blockOf[i] -= n
		}
	}
	cut := o.starts[n]
	o.B = o.B[:copy(o.B, o.B[cut:])]
	k := copy(o.starts, o.starts[n:])
	o.starts = o.starts[:k]
	for i := range o.starts {
		o.starts[i] -= cut
	}
	o.Results = o.Results[:copy(o.Results, o.Results[n:])]
}

// Unpack appends to frames the ones that an envelope holds, borrowed. It
// reports false for what is no envelope, is not whole, or holds more than most.
func Unpack(b []byte, frames [][]byte, most int) ([][]byte, bool) {
	if len(b) == 0 || b[0] != Mark {
		return frames, false
	}
	for b = b[1:]; len(b) > 0; {
		if len(b) < 4 || most == 0 {
			return frames, false
		}
		n := binary.LittleEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) {
			return frames, false
		}
		frames = append(frames, b[:n:n])
		b = b[n:]
		most--
	}
	return frames, true
}

func frameLen(n int) uint32 {
	if uint64(n) >= byReference {
		panic("omdp: BUG: a frame over 4 GiB")
	}
	return uint32(n)
}

// In is a batch of received messages. The zero value is empty and ready.
//
// What Next returns is borrowed: it points into the buffer and is valid until
// the next exchange fills this In again. Whoever keeps a frame copies it, or
// keeps its Block.
// Builds with the race detector or the tag omdp_debug catch breaches: Invalidate
// then overwrites the buffer and leaves it, so that a late reader finds 0xDB
// bytes and a concurrent one is a reported race.
type In struct {
	B      []byte // len is what was received, cap is the room
	frames [][]byte
	pos    int

	blocks []*Block // what the messages refer to, in their order, kept
	block  int      // the next one

	bundle []byte // what Next has not given yet of a bundle
	id     []byte // … and the frame before it; nil: none
}

// Next returns the frames of the next message, borrowed, or nil at the end.
// A message without frames does not occur. Of a bundle, alone or behind a routing
// id, it gives the messages one by one.
func (in *In) Next() [][]byte {
	if len(in.bundle) > 0 {
		return in.inner()
	}
	frames := in.NextWhole()
	if k := len(frames); k == 1 || k == 2 {
		if f := frames[k-1]; len(f) > 0 && f[0] == Bundled && whole(f) {
			in.bundle, in.id = f[1:], nil
			if k == 2 {
				in.id = frames[0]
			}
			return in.inner()
		}
	}
	return frames
}

// NextWhole is Next that gives a bundle as the message that it is.
func (in *In) NextWhole() [][]byte {
	in.bundle = nil
	if in.pos+4 > len(in.B) {
		return nil
	}
	n := binary.NativeEndian.Uint32(in.B[in.pos:])
	p := in.pos + 4
	in.frames = in.frames[:0]
	for range n {
		l := int(binary.NativeEndian.Uint32(in.B[p:]))
		p += 4
		if l == byReference {
			in.frames = append(in.frames, in.blocks[in.block].Bytes)
			in.block++
			p += 8
			continue
		}
		in.frames = append(in.frames, in.B[p:p+l:p+l])
		p += l
	}
	in.pos = p
	return in.frames
}

// Empty tells whether nothing was received.
func (in *In) Empty() bool { return len(in.B) == 0 }

// Invalidate ends the borrow of everything that Next returned and empties in.
// An exchange calls it before it receives.
func (in *In) Invalidate() {
	if checkBorrows && len(in.B) > 0 {
		poison(in)
	}
	in.B, in.pos, in.bundle, in.id = in.B[:0], 0, nil, nil
	if len(in.blocks) > 0 {
		in.dropBlocks()
	}
}

func poison(in *In) {
	for i := range in.B {
		in.B[i] = 0xDB
	}
	in.B = make([]byte, 0, cap(in.B))
}
