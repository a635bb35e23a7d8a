package batch

import (
	"bytes"
	"encoding/binary"
)

// Bundled is the first byte of a frame that holds several messages: after it
// come, for each, its length as a little-endian uint32 and its envelope.
// libzmq's cost is by the message, so a thousand small ones that wait for the
// same peer go as a few.
const Bundled = 2

// maxBundle is the largest frame of several messages, in bytes: smaller than a
// Block, and what a peer that does not read costs more than one large message.
// mostBundle is what In takes.
const (
	maxBundle  = 8<<10 - 1
	mostBundle = 64 << 10
)

// join puts the message that was just ended, whose envelope's length stands at
// at, into the frame of the one before it. It reports false if it can't: the
// frame would be too large, or is another peer's.
func (o *Out) join(at int) bool {
	k := len(o.starts) - 1
	start := o.starts[k]
	if !bytes.Equal(o.B[o.starts[k-1]:o.last], o.B[start:at]) {
		return false
	}
	size, more := start-o.last-4, len(o.B)-at
	if size+more+5 > maxBundle {
		return false
	}
	if !o.bundled { // the mark, and the length of the first
		o.bundled = true
		o.B = append(o.B, 0, 0, 0, 0, 0)
		copy(o.B[o.last+9:], o.B[o.last+4:])
		o.B[o.last+4] = Bundled
		binary.LittleEndian.PutUint32(o.B[o.last+5:], uint32(size))
		start, at, size = start+5, at+5, size+5
	}
	binary.LittleEndian.PutUint32(o.B[at:], uint32(more-4))
	copy(o.B[start:], o.B[at:])
	o.B = o.B[:start+more]
	binary.NativeEndian.PutUint32(o.B[o.last:], uint32(size+more))
	o.starts, o.Results = o.starts[:k], o.Results[:k]
	return true
}

// whole tells whether a frame is a bundle of envelopes, and nothing else.
func whole(f []byte) bool {
	if len(f) > mostBundle || len(f) == 1 {
		return false
	}
	for f = f[1:]; len(f) > 0; {
		if len(f) < 4 {
			return false
		}
		n := binary.LittleEndian.Uint32(f)
		if f = f[4:]; n == 0 || uint64(n) > uint64(len(f)) || f[0] != Mark {
			return false
		}
		f = f[n:]
	}
	return true
}

// inner gives the next message of the bundle.
func (in *In) inner() [][]byte {
	n := binary.LittleEndian.Uint32(in.bundle)
	f := in.bundle[4 : 4+n : 4+n]
	in.bundle = in.bundle[4+n:]
	in.frames = in.frames[:0]
	if in.id != nil {
		in.frames = append(in.frames, in.id)
	}
	in.frames = append(in.frames, f)
	return in.frames
}
