package batch

import (
	"encoding/binary"
	"math"
)

// Large is the size from which on a frame travels as a [Block], in bytes.
// libzmq receives a message of this size into memory of its own; smaller ones
// may share a receive buffer of 8 KiB, which a Block would then pin.
const Large = 8 << 10

// byReference stands in place of a frame's length: a handle of eight bytes follows.
const byReference = math.MaxUint32

// A Block is a large frame in memory that is not Go's, such as a libzmq
// message. It is counted: whoever keeps it calls Keep, and Drop when done. The
// last Drop frees the memory; nothing else does. Its bytes do not change once
// it is in a batch that is sent, or was received.
//
// A Block belongs to its Store, under whatever guards that.
type Block struct {
	Bytes  []byte
	Handle uintptr // what the memory's owner knows it by

	refs  int
	store *Store
}

// Keep counts one more who needs the bytes.
func (b *Block) Keep() { b.refs++ }

// Drop counts one less. After that the caller may not look at the bytes.
func (b *Block) Drop() {
	switch b.refs--; {
	case b.refs < 0:
		panic("omdp: BUG: a block dropped that nobody keeps")
	case b.refs == 0:
		b.store.remove(b)
	}
}

// A Store makes Blocks, and may find the one that a slice of bytes is. It is not
// safe for concurrent use. A nil Store has none.
type Store struct {
	alloc func(n int) (handle uintptr, b []byte)
	free  func(handle uintptr)
	at    map[*byte]*Block // by the first byte; nil: none is looked for
	spare []*Block
	live  int
}

// NewStore makes a Store on memory that alloc gives (nil bytes: there is none)
// and free takes back. With find, a frame that was received is passed on in
// another Out without a copy: Frame finds its Block.
func NewStore(alloc func(n int) (uintptr, []byte), free func(uintptr), find bool) *Store {
	s := &Store{alloc: alloc, free: free}
	if find {
		s.at = map[*byte]*Block{}
	}
	return s
}

// Live is the number of Blocks that are kept.
func (s *Store) Live() int {
	if s == nil {
		return 0
	}
	return s.live
}

// Add takes over memory of at least one byte; the caller keeps the Block.
func (s *Store) Add(handle uintptr, p []byte) *Block {
	var b *Block
	if n := len(s.spare); n > 0 {
		b, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		b = &Block{store: s}
	}
	b.Bytes, b.Handle, b.refs = p[:len(p):len(p)], handle, 1
	s.live++
	if s.at != nil {
		s.at[&p[0]] = b
	}
	return b
}

// Find returns the Block whose bytes p is, all of them, or nil.
func (s *Store) Find(p []byte) *Block {
	if s == nil || len(p) < Large {
		return nil
	}
	if b := s.at[&p[0]]; b != nil && len(b.Bytes) == len(p) {
		return b
	}
	return nil
}

// maxSpare bounds the Blocks, without their bytes, that a Store keeps for later.
const maxSpare = 1024

func (s *Store) remove(b *Block) {
	if s.at != nil {
		delete(s.at, &b.Bytes[0])
	}
	s.live--
	s.free(b.Handle)
	b.Bytes, b.Handle = nil, 0
	if len(s.spare) < maxSpare {
		s.spare = append(s.spare, b)
	}
}

// place returns memory for a frame of n bytes, or nil if it does not go into a
// Block. The caller keeps the Block.
func (o *Out) place(n int) *Block {
	if n < Large || o.Store == nil || o.envelope > 0 {
		return nil
	}
	handle, p := o.Store.alloc(n)
	if p == nil {
		return nil
	}
	return o.Store.Add(handle, p)
}

// FrameIn appends one frame: before, p and after, copied.
func (o *Out) FrameIn(before string, p []byte, after string) {
	if b := o.place(len(before) + len(p) + len(after)); b != nil {
		n := copy(b.Bytes, before)
		n += copy(b.Bytes[n:], p)
		copy(b.Bytes[n:], after)
		o.refer(b)
		return
	}
	o.OpenFrame()
	o.B = append(append(append(o.B, before...), p...), after...)
	o.CloseFrame()
}

// frameLarge appends p as a reference, if it can be one.
func (o *Out) frameLarge(p []byte) bool {
	if o.envelope > 0 {
		return false
	}
	b := o.Store.Find(p)
	if b != nil {
		b.Keep()
	} else if b = o.place(len(p)); b == nil {
		return false
	} else {
		copy(b.Bytes, p)
	}
	o.refer(b)
	return true
}

// refer appends a frame that is b, which the caller has kept for o.
func (o *Out) refer(b *Block) {
	o.frames++
	o.B = binary.NativeEndian.AppendUint32(o.B, byReference)
	o.B = binary.NativeEndian.AppendUint64(o.B, uint64(b.Handle))
	o.hold(b, len(o.starts)-1)
}

// hold notes that message i has b, kept.
func (o *Out) hold(b *Block, i int) {
	o.blocks = append(o.blocks, b)
	o.blockOf = append(o.blockOf, i)
	o.held += len(b.Bytes)
}

// drop lets the first n blocks go.
func (o *Out) drop(n int) {
	for _, b := range o.blocks[:n] {
		o.held -= len(b.Bytes)
		b.Drop()
	}
	k := copy(o.blocks, o.blocks[n:])
	clear(o.blocks[k:])
	o.blocks = o.blocks[:k]
	o.blockOf = o.blockOf[:copy(o.blockOf, o.blockOf[n:])]
}

// blocksOf returns the blocks of message i.
func (o *Out) blocksOf(i int) []*Block {
	if len(o.blocks) == 0 {
		return nil
	}
	from := o.firstBlock(i)
	to := from
	for to < len(o.blockOf) && o.blockOf[to] == i {
		to++
	}
	return o.blocks[from:to:to]
}

// firstBlock is the number of blocks in the messages before i.
func (o *Out) firstBlock(i int) int {
	low, high := 0, len(o.blockOf)
	for low < high {
		if mid := (low + high) / 2; o.blockOf[mid] < i {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// Bytes is the size of all messages, those outside B included.
func (o *Out) Bytes() int { return len(o.B) + o.held }

// Size is the part of message i in Bytes.
func (o *Out) Size(i int) int {
	n := len(o.Message(i))
	for _, b := range o.blocksOf(i) {
		n += len(b.Bytes)
	}
	return n
}

// Read makes in one that gives message i with Next. It borrows from o, until
// the next Begin or Reset, and is not to be invalidated.
func (o *Out) Read(i int, in *In) {
	in.B, in.pos, in.blocks, in.block, in.bundle = o.Message(i), 0, o.blocksOf(i), 0, nil
}

// AppendFrom appends message i of another batch. The two share its blocks.
func (o *Out) AppendFrom(from *Out, i int) {
	o.AppendPacked(from.Message(i))
	for _, b := range from.blocksOf(i) {
		b.Keep()
		o.hold(b, len(o.starts)-1)
	}
}

// AddBlock gives in the next block that its messages refer to, which the caller
// has kept for it: Invalidate drops it.
func (in *In) AddBlock(b *Block) { in.blocks = append(in.blocks, b) }

func (in *In) dropBlocks() {
	for _, b := range in.blocks {
		b.Drop()
	}
	clear(in.blocks)
	in.blocks, in.block = in.blocks[:0], 0
}
