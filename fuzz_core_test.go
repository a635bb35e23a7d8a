package omdp

import (
	"slices"
	"testing"
	"time"
)

// Fuzz targets for what has a state: a history is decoded from bytes, and after
// every event the state machine says itself whether it is consistent.

// FuzzCore plays the bytes as a history (dispatch_world_test.go).
func FuzzCore(f *testing.F) {
	for n := range 20 {
		src := make([]byte, 50+20*n)
		for i := range src {
			src[i] = byte(i*i*(n+3) + i>>3 + n)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 600 {
			return
		}
		w := newWorld(t, slices.Clone(src)).play()
		if len(src)%4 == 0 { // minutes of quiet cost more than the history itself
			w.heal()
		}
	})
}

// FuzzPending plays the bytes against a client's table of requests: each leaves
// it once, none stays past its deadline, and ids find their own alone.
func FuzzPending(f *testing.F) {
	f.Add([]byte{0, 10, 0, 200, 4, 5, 0, 3, 7, 9, 6, 3, 50, 2, 0, 0, 0, 8, 6, 1, 9, 255})
	for n := range 8 {
		src := make([]byte, 60+30*n)
		for i := range src {
			src[i] = byte(i*(n+5) + i*i>>2 + n)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) <= 2000 {
			newPendingWorld(t, src).play()
		}
	})
}

// pendingWorld keeps its own books of a table.
type pendingWorld struct {
	t     *testing.T
	src   []byte
	table *pendingTable
	now   instant
	seq   uint64
	open  bool
	live  []*pending // in the order of their making
	turn  clientTurn
}

func newPendingWorld(t *testing.T, src []byte) *pendingWorld {
	return &pendingWorld{t: t, src: src, table: newTestTable()}
}

func (w *pendingWorld) next() int {
	if len(w.src) == 0 {
		return 0
	}
	b := w.src[0]
	w.src = w.src[1:]
	return int(b)
}

func (w *pendingWorld) left(p *pending) {
	i := slices.Index(w.live, p)
	if i < 0 {
		w.t.Fatalf("request %d left twice, or was never there", p.n)
	}
	w.live = slices.Delete(w.live, i, i+1)
}

// send puts p on the link as the client does.
func (w *pendingWorld) send(p *pending) {
	w.table.send(p, w.now, w.seq)
	w.seq++
}

func (w *pendingWorld) play() {
	for n := uint64(1); len(w.src) > 0; n++ {
		w.event(n)
		if err := w.table.check(); err != nil {
			w.t.Fatal(err)
		}
		if got, want := w.table.len(), len(w.live); got != want {
			w.t.Fatalf("the table has %d requests, want %d", got, want)
		}
	}
	w.now += time.Hour
	w.pass()
	for _, p := range w.live {
		if p.deadline != never {
			w.t.Fatalf("request %d with a deadline at %v is there at %v", p.n, p.deadline, w.now)
		}
		w.table.remove(p)
	}
	if w.table.len() != 0 || w.table.onLink != 0 || w.table.head != nil || len(w.table.heap) != 0 {
		w.t.Fatalf("an empty table has %d entries, %d on the link, %d in the heap", w.table.len(), w.table.onLink, len(w.table.heap))
	}
}

func (w *pendingWorld) event(n uint64) {
	switch op := w.next() % 10; op {
	case 0, 1, 2:
		p := &pending{n: n, deadline: never}
		if ms := w.next(); ms > 0 { // equal ones, later ones and sooner ones
			p.deadline = w.now + instant(ms%8*ms)*10*time.Millisecond
			p.slack = instant(ms%3) * 20 * time.Millisecond
		}
		p.rid = string(w.table.appendRID(nil, n))
		if sooner := w.table.add(p); p.deadline < w.table.alarm {
			w.t.Fatalf("due at %v, after the alarm at %v, sooner: %v", p.deadline, w.table.alarm, sooner)
		}
		w.live = append(w.live, p)
		if w.open && op < 2 {
			w.send(p)
		}
	case 3:
		if len(w.live) > 0 {
			p := w.live[w.next()%len(w.live)]
			if w.table.find([]byte(p.rid)) != p {
				w.t.Fatalf("%s does not find its request", p.rid)
			}
			w.table.remove(p)
			w.left(p)
			if w.table.find([]byte(p.rid)) != nil {
				w.t.Fatalf("%s finds a request that has left", p.rid)
			}
		}
	case 4: // a fresh link, and what waits goes out
		if !w.open {
			w.table.opened()
			w.open, w.seq = true, 1
			w.table.connected(w.now)
			for p := range w.table.waiting {
				w.send(p)
			}
		}
	case 5:
		if w.open {
			w.open = false
			sent := uint64(w.next()) % (w.seq + 1)
			for _, p := range w.table.lost(sent) {
				if p.seq >= sent {
					w.t.Fatalf("request %d ended with a link that never sent it", p.n)
				}
				w.left(p)
			}
		}
	case 6:
		if w.open {
			w.table.answered(w.now, time.Duration(1+w.next())*50*time.Millisecond)
		}
	case 7:
		if w.open && len(w.live) > 0 {
			p := w.live[w.next()%len(w.live)]
			w.table.heard, p.heard, p.confirmed = w.now, w.now, true
		}
	case 8:
		w.now += time.Duration(w.next()) * time.Duration(w.next()) * time.Millisecond
		w.pass()
	case 9: // ids of anybody
		rid := append([]byte(w.table.prefix), w.src[:min(w.next()%24, len(w.src))]...)
		if p := w.table.find(rid); p != nil && p.rid != string(rid) {
			w.t.Fatalf("%q finds %s", rid, p.rid)
		}
	}
}

// pass is one turn of the timers.
func (w *pendingWorld) pass() {
	w.table.turn(w.now, &w.turn)
	for _, p := range slices.Concat(w.turn.expired, w.turn.silent) {
		w.left(p)
	}
	for _, p := range w.turn.beats {
		if p.gen == 0 || slices.Index(w.live, p) < 0 {
			w.t.Fatalf("a beat for request %d, which is not on the link", p.n)
		}
	}
	for _, p := range w.live {
		if p.due <= w.now {
			w.t.Fatalf("request %d, due at %v, is there at %v", p.n, p.due, w.now)
		}
	}
	if w.table.alarm <= w.now && !w.turn.lost {
		w.t.Fatalf("the alarm is at %v, it is %v", w.table.alarm, w.now)
	}
	if w.turn.lost && !w.open {
		w.t.Fatalf("a link was given up that is not there")
	}
}
