package batch

import (
	"bytes"
	"slices"
	"testing"
)

// heap is memory that is not a batch's: what is not freed is seen, and what is
// used after that.
type heap struct {
	next uintptr
	all  map[uintptr][]byte
	none bool
}

func newHeap() *heap { return &heap{all: map[uintptr][]byte{}} }

func (h *heap) alloc(n int) (uintptr, []byte) {
	if h.none {
		return 0, nil
	}
	h.next++
	h.all[h.next] = make([]byte, n)
	return h.next, h.all[h.next]
}

func (h *heap) free(handle uintptr) {
	b, ok := h.all[handle]
	if !ok {
		panic("freed twice")
	}
	for i := range b {
		b[i] = 0xDB
	}
	delete(h.all, handle)
}

func large(c byte) []byte { return bytes.Repeat([]byte{c}, Large+int(c)) }

// putLarge appends a message of a small frame, a large one and a small one.
func putLarge(o *Out, c byte) {
	o.Begin()
	o.FrameString("id")
	o.Frame(large(c))
	o.FrameString("end")
	o.End()
}

func wantLarge(t *testing.T, o *Out, i int, c byte) {
	t.Helper()
	var in In
	o.Read(i, &in)
	m := in.Next()
	if len(m) != 3 || string(m[0]) != "id" || !bytes.Equal(m[1], large(c)) || string(m[2]) != "end" {
		t.Errorf("message %d: got %d frames, want the ones of %q", i, len(m), c)
	}
	if in.Next() != nil {
		t.Errorf("message %d: more follows", i)
	}
}

func wantHeld(t *testing.T, h *heap, s *Store, n int) {
	t.Helper()
	if len(h.all) != n || s.Live() != n {
		t.Fatalf("%d blocks are in memory, %d counted, want %d", len(h.all), s.Live(), n)
	}
}

func TestLargeFramesAreOutside(t *testing.T) {
	h := newHeap()
	o := Out{Store: NewStore(h.alloc, h.free, false)}
	for _, c := range "abcd" {
		putLarge(&o, byte(c))
		put(&o, "small")
	}
	wantHeld(t, h, o.Store, 4)
	if len(o.B) > 8*100 {
		t.Errorf("B has %d bytes, want the large frames elsewhere", len(o.B))
	}
	if got, want := o.Size(2), len(o.Message(2))+Large+'b'; got != want {
		t.Errorf("message 2: got size %d, want %d", got, want)
	}
	sum := 0
	for i := range o.Len() {
		sum += o.Size(i)
	}
	if sum != o.Bytes() || sum < 4*Large {
		t.Errorf("messages have %d bytes, the batch says %d", sum, o.Bytes())
	}
	wantLarge(t, &o, 4, 'c')

	o.DropFront(3)
	wantHeld(t, h, o.Store, 2)
	wantLarge(t, &o, 1, 'c')
	wantLarge(t, &o, 3, 'd')
	putLarge(&o, 'e')
	wantLarge(t, &o, 5, 'e')
	o.Reset()
	wantHeld(t, h, o.Store, 0)
	if o.Bytes() != 0 {
		t.Errorf("an empty batch has %d bytes", o.Bytes())
	}
}

func TestLargeFramesAreShared(t *testing.T) {
	h := newHeap()
	s := NewStore(h.alloc, h.free, true)
	a, b := Out{Store: s}, Out{Store: s}
	putLarge(&a, 'a')
	putLarge(&a, 'b')
	b.AppendFrom(&a, 1)
	b.AppendFrom(&a, 0)
	a.DropFront(1)
	wantHeld(t, h, s, 2)
	wantLarge(t, &b, 0, 'b')
	wantLarge(t, &b, 1, 'a')
	a.Reset()
	wantHeld(t, h, s, 2)
	b.DropFront(1)
	wantHeld(t, h, s, 1)

	// A frame that was received goes on without a copy, and outlives its In.
	in := In{}
	handle, p := h.alloc(Large)
	in.AddBlock(s.Add(handle, p))
	var packed Out
	packed.Begin()
	packed.refer(s.Find(p))
	in.B = append(in.B, packed.B...)
	packed.blocks = nil
	in.B[0] = 1 // frames
	m := in.Next()
	if len(m) != 1 || &m[0][0] != &p[0] {
		t.Fatalf("got %d frames, want the block's", len(m))
	}
	a.Begin()
	a.Frame(m[0])
	a.Frame(m[0][:Large-1]) // a part is not the block, nor large
	a.Frame(m[0])
	a.End()
	in.Invalidate()
	wantHeld(t, h, s, 2)
	var got In
	if a.Read(0, &got); !slices.Equal(got.Next()[0], make([]byte, Large)) {
		t.Errorf("got other bytes after the In that they came in")
	}
	a.Reset()
	b.Reset()
	wantHeld(t, h, s, 0)
	if s.Find(p) != nil {
		t.Errorf("a block is found that was freed")
	}
}

func TestFrameIn(t *testing.T) {
	h := newHeap()
	for _, o := range []*Out{{}, {Store: NewStore(h.alloc, h.free, false)}, {Store: NewStore((&heap{none: true}).alloc, h.free, false)}} {
		o.Begin()
		o.FrameIn("[", large('x'), "]")
		o.FrameIn("<", []byte("y"), ">")
		o.End()
		var in In
		o.Read(0, &in)
		m := in.Next()
		if len(m) != 2 || string(m[0]) != "["+string(large('x'))+"]" || string(m[1]) != "<y>" {
			t.Errorf("got %d frames, want [x…] and <y>", len(m))
		}
		o.Reset()
	}
	wantHeld(t, h, NewStore(h.alloc, h.free, false), 0)
}

func TestBlockDroppedTwicePanics(t *testing.T) {
	h := newHeap()
	handle, p := h.alloc(1)
	b := NewStore(h.alloc, h.free, true).Add(handle, p)
	b.Drop()
	defer func() {
		if recover() == nil {
			t.Error("no panic when a block is dropped that nobody keeps")
		}
	}()
	b.Drop()
}
