package omdp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestFinishedAgainstModel plays random ends against a plain list.
func TestFinishedAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		f := finished{limit: 1 + r.IntN(200), window: time.Duration(1 + r.IntN(1000))}
		var all []ended // the newest last
		now := instant(0)
		keys := uint64(1 + r.IntN(300))
		for range 1000 {
			key := r.Uint64N(keys)
			switch r.IntN(8) {
			case 0:
				now += time.Duration(r.IntN(50))
			case 1:
				f.expire(now)
				for len(all) > 0 && now-all[0].at >= f.window {
					all = all[1:]
				}
			case 2, 3, 4:
				e := ended{key: key << 7, at: now, attempt: r.Int32N(5), ran: r.IntN(2) == 0} // in few runs of the table
				f.add(e)
				if len(all) == f.limit {
					all = all[1:]
				}
				for _, old := range all {
					e.ran = e.ran || old.key == e.key && old.ran
				}
				all = append(all, e)
			}
			want, known := ended{}, false
			for _, e := range all {
				if e.key == key<<7 {
					want, known = e, now-e.at < f.window
				}
			}
			if got, ok := f.find(now, key<<7); ok != known || ok && got != want {
				t.Fatalf("find(%d) at %d, of %d that end after %d: got %v %v, want %v %v", key, now, f.limit, f.window, got, ok, want, known)
			}
			if due := f.due(); f.n > 0 && due != f.ring[f.first].at+f.window {
				t.Fatalf("due: got %v, want %v", due, f.ring[f.first].at+f.window)
			}
		}
		if f.expire(now + 1000); f.n != 0 || f.due() != never {
			t.Fatalf("after the window %d are remembered, due %v", f.n, f.due())
		}
		for i, s := range f.slots {
			if s != 0 {
				t.Fatalf("place %d of the table is not free", i)
			}
		}
	}
}
