package omdp

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bodyTask is a request whose data comes in pieces, held by s.
func bodyTask(t *rapid.T, s *workerSession, a *arrivals, w *Worker, n int, more int64) *task {
	var got *task
	m := &message{worker: true, op: opRequest, token: fmt.Appendf(nil, "token-%d", n), rid: []byte("r"), data: []byte{}, pieces: true}
	x := extra{remaining: -1, attempt: 1, raw: true, more: more, body: 1 << 20}
	m.extra = x.append(nil)
	s.receive(0, m, a, func(m *message, x *extra) *task {
		got = newTask(w.conns[0], nil, m, x)
		return got
	})
	if got == nil {
		t.Fatal("the request was not taken")
	}
	return got
}

// However pieces come and are read: what is granted, what is unread and what
// was read and not granted anew are the window together, which a piece of 64
// bytes more than it has never leaves. And every byte arrives once, in order.
func TestBodyCreditProperty(t *testing.T) {
	w, err := NewWorker("inproc://x", "echo", &WorkerConfig{Window: 4096, MaxWindow: 16384})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := newWorkerSession(time.Second, 3, 1)
		room := w.room
		s.room = &room
		s.open()
		s.connected(0)
		var a arrivals
		upload := rapid.Bool().Draw(t, "upload")
		total := rapid.IntRange(1, 30000).Draw(t, "total")
		more := int64(total)
		if upload {
			more = moreUpload
		}
		k := bodyTask(t, &s, &a, w, 1, more)
		granted, told := int64(0), 0
		settle := func() {
			for _, g := range a.grants {
				granted += g.n
			}
			if len(a.ended) > 0 {
				t.Fatal("it was ended: ", a.ended[0].cause)
			}
			a.grants = a.grants[:0]
		}
		settle()
		var unread []int
		sent, read := 0, 0
		for sent < total {
			n := min(rapid.IntRange(1, 960).Draw(t, "n"), total-sent)
			if int64(n)+partialOverhead <= granted && rapid.Bool().Draw(t, "send") {
				granted -= int64(n) + partialOverhead
				p := make([]byte, n)
				for i := range p {
					p[i] = simByte(sent + i)
				}
				s.receive(0, &message{worker: true, op: opPiece, token: []byte("token-1"), rid: []byte("r"), data: p}, &a, nil)
				sent += n
				if upload {
					unread = append(unread, n)
					k.req.upload.unread.Add(1)
				}
			} else if int64(n)+partialOverhead > granted {
				s.receive(0, &message{worker: true, op: opBlocked, token: []byte("token-1"), rid: []byte("r")}, &a, nil)
				if told++; told > 10000 {
					t.Fatal("it waits for ever")
				}
			}
			if len(unread) > 0 && rapid.Bool().Draw(t, "read") {
				n := unread[0]
				unread = unread[1:]
				if more := s.took(0, k, int64(n)+partialOverhead, k.req.upload.unread.Add(-1) == 0); more > 0 {
					k.in.allow += more
					granted += more
				}
				read += n
			}
			for _, p := range a.pieces {
				for i, c := range p.p {
					if c != simByte(sent-len(p.p)+i) {
						t.Fatal("a byte is not the one that was sent")
					}
				}
			}
			a.pieces = a.pieces[:0]
			settle()
			f := k.in
			waits := int64(0)
			for _, n := range unread {
				waits += int64(n) + partialOverhead
			}
			if !f.over && (f.allow != granted || f.allow+waits+f.taken != f.window) {
				t.Fatalf("%d may come, %d were granted, %d wait, %d were taken, of a window of %d", f.allow, granted, waits, f.taken, f.window)
			}
			if f.window > 16384 || room.widened != f.widened {
				t.Fatalf("a window of %d, %d of it counted", f.window, room.widened)
			}
		}
		if !upload {
			for i, c := range k.req.data.b {
				if c != simByte(i) {
					t.Fatalf("byte %d is %c", i, c)
				}
			}
			if len(k.req.data.b) != total || k.gathers || len(a.run) != 1 {
				t.Fatalf("%d bytes of %d, gathers %v, runs %d times", len(k.req.data.b), total, k.gathers, len(a.run))
			}
		}
		s.release(k)
		if room.leave(k); room.used != 0 || room.widened != 0 {
			t.Fatalf("%d bytes and %d of windows are left", room.used, room.widened)
		}
	})
}

// Who waits for room gets it in the order of coming, as soon as there is enough.
func TestBodyRoomProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		room := bodyRoom{size: 100}
		var has, waits []*task
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			if all := append(append([]*task(nil), has...), waits...); len(all) > 0 && rapid.Bool().Draw(t, "leave") {
				k := rapid.SampledFrom(all).Draw(t, "who")
				next := room.leave(k)
				gone := func(o *task) bool { return o == k }
				has, waits = slices.DeleteFunc(has, gone), slices.DeleteFunc(waits, gone)
				for _, n := range next {
					if len(waits) == 0 || waits[0] != n {
						t.Fatal("out of turn")
					}
					has, waits = append(has, n), waits[1:]
				}
			} else {
				k := &task{}
				k.in = &inflow{need: int64(rapid.IntRange(1, 100).Draw(t, "need"))}
				if room.ask(k) {
					has = append(has, k)
				} else {
					waits = append(waits, k)
				}
			}
			used := int64(0)
			for _, k := range has {
				used += k.in.reserved
			}
			if used != room.used || used > room.size || len(waits) > 0 && used+waits[0].in.need <= room.size {
				t.Fatalf("%d are used, %d counted, %d wait", used, room.used, len(waits))
			}
		}
	})
}

// Pieces of a payload are dropped with the attempt that they were of.
func TestPendingJoinIsOfOneAttempt(t *testing.T) {
	table, l := tableUp()
	p := &pending{n: 1, rid: "", deadline: never, service: "s", data: []byte("1"), window: 1000}
	p.rid = string(table.appendRID(nil, 1))
	table.maxBody = 100
	table.add(p)
	table.sends(p, l, 0, 0)
	piece := &message{op: opPiece, rid: []byte(p.rid), data: []byte("old")}
	if got, ok := table.onPiece(0, l, piece); got != p || !ok {
		t.Fatal("a piece was not taken")
	}
	if _, ok := table.onPiece(0, l, &message{op: opPiece, rid: []byte(p.rid), data: make([]byte, 98)}); ok {
		t.Error("more than maxBody was joined")
	}
	p.join, p.size = [][]byte{[]byte("old")}, 3
	table.unlink(p)
	table.sends(p, l, 0, 1)
	if len(p.join) != 0 || p.size != 0 {
		t.Errorf("%q is left of a former attempt", p.join)
	}
	if got := parseJoined("s", p.takeJoin(), [][]byte{[]byte(joinMark), []byte(`"new"`)}); got.msg.String() != "new" {
		t.Errorf("joined to %q", got.msg)
	}
}
