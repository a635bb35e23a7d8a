// Package batch packs messages of several frames into one flat buffer.
//
// It is the form in which messages cross from Go to libzmq and back: one call
// carries a whole [Out] out and fills a whole [In]. The package is pure: it
// knows nothing of sockets, so the core of omdp can write its outbox in it.
//
// The layout, in native byte order, is for each message
//
//	uint32 number of frames
//	for each frame: uint32 length, then that many bytes
//
// internal/zsock reads and writes the same layout in C.
package batch

import (
	"encoding/binary"
	"math"
)

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
	starts  []int
	frames  uint32
	frame   int
}

// Reset empties the batch and keeps its memory, unless a rare large batch
// made it grow over 1 MiB.
func (o *Out) Reset() {
	if cap(o.B) > 1<<20 {
		o.B = nil
	}
	o.B, o.starts, o.Results = o.B[:0], o.starts[:0], o.Results[:0]
}

// Len is the number of messages.
func (o *Out) Len() int { return len(o.starts) }

// Begin starts a message; its frames follow, then End.
func (o *Out) Begin() {
	o.starts = append(o.starts, len(o.B))
	o.Results = append(o.Results, Pending)
	o.B = append(o.B, 0, 0, 0, 0)
	o.frames = 0
}

// End ends the message that Begin started.
func (o *Out) End() {
	binary.NativeEndian.PutUint32(o.B[o.starts[len(o.starts)-1]:], o.frames)
}

// Frame appends one frame with a copy of p.
func (o *Out) Frame(p []byte) {
	o.B = binary.NativeEndian.AppendUint32(o.B, frameLen(len(p)))
	o.B = append(o.B, p...)
	o.frames++
}

// FrameString appends one frame with a copy of s.
func (o *Out) FrameString(s string) {
	o.B = binary.NativeEndian.AppendUint32(o.B, frameLen(len(s)))
	o.B = append(o.B, s...)
	o.frames++
}

// OpenFrame starts a frame whose bytes the caller appends to o.B; CloseFrame ends it.
func (o *Out) OpenFrame() {
	o.frame = len(o.B)
	o.B = append(o.B, 0, 0, 0, 0)
	o.frames++
}

// CloseFrame ends the frame that OpenFrame started.
func (o *Out) CloseFrame() {
	binary.NativeEndian.PutUint32(o.B[o.frame:], frameLen(len(o.B)-o.frame-4))
}

// Message returns message i, packed. It is valid until the next Begin or Reset.
func (o *Out) Message(i int) []byte {
	if i+1 < len(o.starts) {
		return o.B[o.starts[i]:o.starts[i+1]]
	}
	return o.B[o.starts[i]:]
}

// AppendPacked appends a message that was packed before, as Message gave it.
func (o *Out) AppendPacked(m []byte) {
	o.starts = append(o.starts, len(o.B))
	o.Results = append(o.Results, Pending)
	o.B = append(o.B, m...)
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
	cut := o.starts[n]
	o.B = o.B[:copy(o.B, o.B[cut:])]
	k := copy(o.starts, o.starts[n:])
	o.starts = o.starts[:k]
	for i := range o.starts {
		o.starts[i] -= cut
	}
	o.Results = o.Results[:copy(o.Results, o.Results[n:])]
}

func frameLen(n int) uint32 {
	if uint64(n) > math.MaxUint32 {
		panic("omdp: BUG: a frame over 4 GiB")
	}
	return uint32(n)
}

// In is a batch of received messages. The zero value is empty and ready.
//
// What Next returns is borrowed: it points into the buffer and is valid until
// the next exchange fills this In again. Whoever keeps a frame copies it.
// Builds with the race detector or the tag omdp_debug catch breaches: Invalidate
// then overwrites the buffer and leaves it, so that a late reader finds 0xDB
// bytes and a concurrent one is a reported race.
type In struct {
	B      []byte // len is what was received, cap is the room
	frames [][]byte
	pos    int
}

// Next returns the frames of the next message, borrowed, or nil at the end.
// A message without frames does not occur.
func (in *In) Next() [][]byte {
	if in.pos+4 > len(in.B) {
		return nil
	}
	n := binary.NativeEndian.Uint32(in.B[in.pos:])
	p := in.pos + 4
	in.frames = in.frames[:0]
	for range n {
		l := int(binary.NativeEndian.Uint32(in.B[p:]))
		p += 4
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
	in.B, in.pos = in.B[:0], 0
}

func poison(in *In) {
	for i := range in.B {
		in.B[i] = 0xDB
	}
	in.B = make([]byte, 0, cap(in.B))
}
