package omdp

import "time"

// finished remembers for a while the requests that ended, so that the same id
// again creates nothing (I21): the newest ones, up to a number and an age. It
// is a ring in the order of their ends, and a hash table without deletions'
// marks that finds them. A key is 64 bits of a keyed hash: that one stands for
// another request has a chance of 2⁻⁶⁴ for each that is remembered.
type finished struct {
	limit  int
	window time.Duration // ≤ 0: nothing is remembered

	ring  []ended
	first int // of ring: the oldest
	n     int
	slots []uint32 // index in ring + 1; 0: free
}

// ended is one request that is over.
type ended struct {
	key      uint64
	at       instant
	attempt  int32 // the highest that was seen
	reported bool  // its client was sent a worker's final
	ran      bool  // it was dispatched
}

// add remembers e, and forgets the oldest for it if there are too many.
func (f *finished) add(e ended) {
	if f.window <= 0 {
		return
	}
	if f.n == len(f.ring) {
		if f.n < f.limit {
			f.grow()
		} else {
			f.drop()
		}
	}
	at := (f.first + f.n) % len(f.ring)
	slot := &f.slots[f.probe(e.key)]
	if *slot != 0 { // an older end of the same request, by another attempt
		old := &f.ring[*slot-1]
		e.ran, e.reported = e.ran || old.ran, e.reported || old.reported
	}
	f.ring[at] = e
	f.n++
	*slot = uint32(at) + 1
}

// find gives the end of a request, if it is remembered.
func (f *finished) find(now instant, key uint64) (ended, bool) {
	if f.n == 0 {
		return ended{}, false
	}
	i := f.slots[f.probe(key)]
	if i == 0 || now-f.ring[i-1].at >= f.window {
		return ended{}, false
	}
	return f.ring[i-1], true
}

// probe is the place of key, or the free one where it belongs. At least half
// of the places are free.
func (f *finished) probe(key uint64) uint64 {
	mask := uint64(len(f.slots) - 1)
	i := key & mask
	for f.slots[i] != 0 && f.ring[f.slots[i]-1].key != key {
		i = (i + 1) & mask
	}
	return i
}

// expire forgets what is older than the window.
func (f *finished) expire(now instant) {
	for f.n > 0 && now-f.ring[f.first].at >= f.window {
		f.drop()
	}
}

// due is when expire has something to do; never if there is nothing.
func (f *finished) due() instant {
	if f.n == 0 || f.ring[f.first].at > never-f.window {
		return never
	}
	return f.ring[f.first].at + f.window
}

// drop forgets the oldest.
func (f *finished) drop() {
	at := f.first
	i := f.probe(f.ring[at].key)
	f.first = (f.first + 1) % len(f.ring)
	f.n--
	if f.slots[i] != uint32(at)+1 { // it ended again since then
		return
	}
	// What follows in the same run moves up, so that it is still found.
	mask := uint64(len(f.slots) - 1)
	for k := (i + 1) & mask; f.slots[k] != 0; k = (k + 1) & mask {
		home := f.ring[f.slots[k]-1].key & mask
		if (k-home)&mask >= (k-i)&mask {
			f.slots[i] = f.slots[k]
			i = k
		}
	}
	f.slots[i] = 0
}

func (f *finished) grow() {
	ring := make([]ended, min(max(64, 2*len(f.ring)), f.limit))
	for i := range f.n {
		ring[i] = f.ring[(f.first+i)%len(f.ring)]
	}
	f.ring, f.first = ring, 0
	size := 128
	for size < 2*len(ring) {
		size *= 2
	}
	f.slots = make([]uint32, size)
	for i := range f.n {
		f.slots[f.probe(ring[i].key)] = uint32(i) + 1
	}
}
