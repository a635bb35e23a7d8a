package omdp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// largeWorld plays clients and workers with large frames against a core whose
// frames are outside Go's memory: here in a map, overwritten when freed.
type largeWorld struct {
	*dispatcher
	t     *testing.T
	r     *rand.Rand
	now   instant
	next  uintptr
	all   map[uintptr][]byte
	tasks []largeTask // what workers were sent
	seen  int         // large frames that clients got
}

type largeTask struct {
	worker string
	token  []byte
	rid    []byte
}

func newLargeWorld(t *testing.T, seed uint64) *largeWorld {
	lim := testLimits()
	lim.outboxBytes, lim.totalOutbox = 1<<20, 4<<20
	w := &largeWorld{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: 1, all: map[uintptr][]byte{}}
	w.dispatcher = newDispatcher(lim, caps{V: 1, ID: "b", HB: 2500}, [32]byte{byte(seed)}, 1)
	w.pass(batch.NewStore(w.alloc, w.free, true))
	return w
}

func (w *largeWorld) alloc(n int) (uintptr, []byte) {
	w.next++
	w.all[w.next] = make([]byte, n)
	return w.next, w.all[w.next]
}

func (w *largeWorld) free(handle uintptr) {
	p := w.all[handle]
	if p == nil {
		panic("freed twice")
	}
	clear(p)
	delete(w.all, handle)
}

// body is a large frame as it would be received, of bytes that tell whose it is.
func (w *largeWorld) body(rid []byte) (*batch.Block, []byte) {
	handle, p := w.alloc(batch.Large + int(rid[len(rid)-1]))
	for i := range p {
		p[i] = rid[i%len(rid)]
	}
	return w.store.Add(handle, p), p
}

// say gives the core a message whose large frame is held no longer than that.
func (w *largeWorld) say(id string, m message, b *batch.Block) {
	w.receive(w.now, 0, []byte(id), &m)
	if b != nil {
		b.Drop()
	}
	if err := w.check(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *largeWorld) whole(rid, p []byte) {
	if len(p) < batch.Large {
		return
	}
	for i := 0; i < len(p); i += len(rid) {
		if !bytes.HasPrefix(rid, p[i:min(i+len(rid), len(p))]) {
			w.t.Fatalf("a large frame of %q came with other bytes", rid)
		}
	}
}

// flush sends what there is, or fails to.
func (w *largeWorld) flush() {
	out := w.take(0)
	failed := map[string]batch.Status{}
	for i := range out.Results {
		var in batch.In
		out.Read(i, &in)
		f := in.Next()
		id := string(f[0])
		if _, ok := failed[id]; !ok {
			failed[id] = batch.Sent
			switch n := w.r.IntN(20); {
			case n < 6:
				failed[id] = batch.Again
			case n == 6:
				failed[id] = batch.Unreachable
			}
		}
		if out.Results[i] = failed[id]; failed[id] != batch.Sent {
			continue
		}
		var m message
		if parseAtWorker(f[1:], &m) && m.op == opRequest {
			w.whole(m.rid, m.data)
			w.tasks = append(w.tasks, largeTask{id, bytes.Clone(m.token), bytes.Clone(m.rid)})
		} else if parseAtClient(f[1:], &m) && len(m.body) == 2 {
			w.whole(m.rid, m.body[1])
			w.seen++
		}
	}
	w.settle(w.now, 0)
	if err := w.check(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *largeWorld) step(n int) {
	id := func(kind string, n int) string { return fmt.Sprint(kind, w.r.IntN(n)) }
	w.now += instant(w.r.IntN(int(20 * time.Millisecond)))
	w.expire(w.now)
	switch w.r.IntN(9) {
	case 0:
		v := id("w", 3)
		w.say(v, message{worker: true, op: opReady, service: []byte("s"), caps: fmt.Appendf(nil, `{"v":1,"id":%q,"hb":2500,"concurrency":3}`, v)}, nil)
	case 1:
		c := id("c", 4)
		w.say(c, message{op: opHello, caps: fmt.Appendf(nil, `{"v":1,"id":%q,"hb":2500,"credit":262144}`, c)}, nil)
	case 2, 3, 4:
		rid := fmt.Appendf(nil, "r%d", n)
		b, p := w.body(rid)
		w.say(id("c", 4), message{op: opRequest, service: []byte("s"), rid: rid, data: p, options: []byte(`{"timeout":400}`)}, b)
	case 5, 6, 7:
		if len(w.tasks) == 0 {
			return
		}
		k := w.r.IntN(len(w.tasks))
		v := w.tasks[k]
		b, p := w.body(v.rid)
		m := message{worker: true, op: opPartial, token: v.token, rid: v.rid, body: [][]byte{[]byte("b"), p}}
		if w.r.IntN(3) == 0 {
			m.op = opReply
			w.tasks = append(w.tasks[:k], w.tasks[k+1:]...)
		}
		w.say(v.worker, m, b)
	case 8:
		if w.r.IntN(4) == 0 {
			w.say(id("w", 3), message{worker: true, op: opDisconnect}, nil)
		}
	}
	if w.r.IntN(3) == 0 {
		w.flush()
	}
}

// Large frames arrive as they were, whatever waits, is tried again, expires or
// loses its peer, and none is held when nothing is left.
func TestLargeFramesInTheCore(t *testing.T) {
	t.Parallel()
	seen := 0
	for seed := range uint64(60) {
		w := newLargeWorld(t, seed)
		for n := range 600 {
			w.step(n)
		}
		seen += w.seen
		if w.store.Live() != len(w.all) {
			t.Fatalf("%d blocks are counted, %d there", w.store.Live(), len(w.all))
		}
		switch seed % 2 {
		case 0: // everybody falls silent
			for range 100 {
				w.now += time.Second
				w.expire(w.now)
				out := w.take(0)
				for i := range out.Results {
					out.Results[i] = batch.Sent
				}
				w.settle(w.now, 0)
			}
		default:
			w.shut(w.now)
			w.release()
		}
		if n := w.store.Live(); n != 0 {
			t.Fatalf("seed %d: %d large frames are held when nothing is left", seed, n)
		}
	}
	if seen < 500 {
		t.Errorf("clients got %d large frames, want more", seen)
	}
}
