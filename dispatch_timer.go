package omdp

// timer is one moment at which a request expires or a peer is looked at. It
// lives inside what it belongs to.
type timer struct {
	at   instant
	id   uint32 // in timers while armed, else 0
	req  *request
	peer *peer
}

func (t *timer) armed() bool { return t.id != 0 }

// timers is a heap of the armed timers, four children a node: requests mostly
// arrive in the order of their deadlines, so arming is O(1) in practice, and
// disarming moves few nodes. Times and positions stand in arrays of their own,
// so that moving a node touches no request, which with many queued ones would
// be a cache miss each.
type timers struct {
	a     []timerEntry
	pos   []int32  // by id: where in a
	of    []*timer // by id
	free  []uint32 // ids not in use
	steps uint64   // moves so far; a test finds them flat
}

type timerEntry struct {
	at instant
	id uint32
}

// next is the earliest time, or never.
func (h *timers) next() instant {
	if len(h.a) == 0 {
		return never
	}
	return h.a[0].at
}

// due returns the earliest timer if it is due at now. It stays armed.
func (h *timers) due(now instant) *timer {
	if len(h.a) == 0 || h.a[0].at > now {
		return nil
	}
	return h.of[h.a[0].id]
}

// set arms t, or moves it.
func (h *timers) set(t *timer, at instant) {
	t.at = at
	if t.id != 0 {
		i := int(h.pos[t.id])
		h.a[i].at = at
		h.fix(i)
		return
	}
	if n := len(h.free); n > 0 {
		t.id = h.free[n-1]
		h.free = h.free[:n-1]
	} else {
		if len(h.of) == 0 { // 0 is no id
			h.of, h.pos = append(h.of, nil), append(h.pos, 0)
		}
		t.id = uint32(len(h.of))
		h.of, h.pos = append(h.of, nil), append(h.pos, 0)
	}
	h.of[t.id] = t
	h.a = append(h.a, timerEntry{at, t.id})
	h.up(len(h.a) - 1)
}

// remove disarms t; it may be disarmed already.
func (h *timers) remove(t *timer) {
	if t.id == 0 {
		return
	}
	i, last := int(h.pos[t.id]), len(h.a)-1
	h.of[t.id] = nil
	h.free = append(h.free, t.id)
	t.id = 0
	e := h.a[last]
	h.a = h.a[:last]
	if i != last {
		h.a[i] = e
		h.fix(i)
	}
}

func (h *timers) fix(i int) {
	if i > 0 && h.a[i].at < h.a[(i-1)/4].at {
		h.up(i)
	} else {
		h.down(i)
	}
}

func (h *timers) up(i int) {
	e := h.a[i]
	for i > 0 {
		p := (i - 1) / 4
		if h.a[p].at <= e.at {
			break
		}
		h.put(i, h.a[p])
		i = p
	}
	h.put(i, e)
}

func (h *timers) down(i int) {
	e := h.a[i]
	for {
		first := 4*i + 1
		if first >= len(h.a) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(h.a)); c++ {
			if h.a[c].at < h.a[least].at {
				least = c
			}
		}
		if h.a[least].at >= e.at {
			break
		}
		h.put(i, h.a[least])
		i = least
	}
	h.put(i, e)
}

func (h *timers) put(i int, e timerEntry) {
	h.a[i] = e
	h.pos[e.id] = int32(i)
	h.steps++
}
