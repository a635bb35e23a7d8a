package omdp

import "fmt"

// check says what is inconsistent in the table; tests call it after each step.
func (t *pendingTable) check() error {
	n, unsent := 0, 0
	on := make([]int, len(t.links))
	var before *pending
	for p := t.first; p != nil; before, p = p, p.next {
		n++
		if p.link != nil {
			on[p.link.index]++
		} else {
			unsent += len(p.data)
		}
		switch {
		case t.entries[p.n] != p || p.prev != before:
			return fmt.Errorf("request %d: the list and the map disagree", p.n)
		case p.link != nil && !p.link.up:
			return fmt.Errorf("request %d: on link %d, which is not up", p.n, p.link.index)
		case p.link != nil && p.after != 0:
			return fmt.Errorf("request %d: on link %d before its time, %v", p.n, p.link.index, p.after)
		case p.due != p.dueAt():
			return fmt.Errorf("request %d: due at %v, want %v", p.n, p.due, p.dueAt())
		case p.attempt < 1 || p.attempt > t.maxAttempts || p.attempt > 1 && !p.idempotent:
			return fmt.Errorf("I20: request %d: attempt %d, idempotent %v, at most %d", p.n, p.attempt, p.idempotent, t.maxAttempts)
		}
	}
	if before != t.last || n != len(t.entries) {
		return fmt.Errorf("%d in the list, %d in the map", n, len(t.entries))
	}
	total := 0
	for i := range t.links {
		l := &t.links[i]
		total += on[i]
		switch {
		case l.index != i || on[i] != l.onLink:
			return fmt.Errorf("link %d: %d on it, counted %d", i, on[i], l.onLink)
		case l.extended && l.broker == "", l.leaving && t.best == l, !l.up && t.best == l:
			return fmt.Errorf("link %d: %+v, best %v", i, *l, t.best == l)
		case !t.wire.numbered && (on[i] > 1 || (on[i] == 1) != (l.sole != nil) || l.sole != nil && l.sole.link != l):
			return fmt.Errorf("link %d: %d on it, which is to be one at a time", i, on[i])
		case !t.wire.numbered && t.best == l && (l.sole != nil || l.spoiled), !l.started && (l.up || l.heardOf):
			return fmt.Errorf("link %d: %+v, best %v", i, *l, t.best == l)
		}
	}
	if total != t.onLinks || unsent != t.unsent {
		return fmt.Errorf("%d on links, counted %d; %d bytes wait, counted %d", total, t.onLinks, unsent, t.unsent)
	}
	return t.timing.check(t.first)
}

func (t *timing) check(first *pending) error {
	timed := 0
	for p := first; p != nil; p = p.next {
		if p.due != never {
			timed++
		}
		if (p.due == never) != (p.at == nowhere) || p.at >= len(t.heap) || p.at >= 0 && t.heap[p.at] != p {
			return fmt.Errorf("request %d: heap place %d is wrong", p.n, p.at)
		}
		if p.due < t.alarm {
			return fmt.Errorf("request %d: due at %v, the alarm is at %v", p.n, p.due, t.alarm)
		}
	}
	timed -= len(t.heap)
	var before *pending
	for p := t.head; p != nil; before, p = p, p.follow {
		if timed--; p.at != inLine || p.before != before || before != nil && before.due > p.due {
			return fmt.Errorf("request %d: wrong in the line of timers", p.n)
		}
	}
	if timed != 0 || before != t.tail {
		return fmt.Errorf("%d too few or too many timers", timed)
	}
	for i, p := range t.heap {
		if i > 0 && t.heap[(i-1)/2].due > p.due {
			return fmt.Errorf("request %d: before its parent in the heap", p.n)
		}
	}
	return nil
}
