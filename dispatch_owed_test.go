package omdp

import (
	"fmt"
	"strconv"
	"strings"
)

// The book's last pages: what reaches clients, and what is overdue.

// reply: I1, I2, I4: exactly what is owed, in order, and one terminal.
func (b *book) reply(p *simPeer, f []string) {
	w := b.w
	k := clientKey(p, f[3])
	body := strings.Join(f[4:], "|")
	final := f[2] == "3"
	if len(f) == 6 && f[4] == "b" && !p.adv {
		w.fatalf("raw bytes for %s, which did not advertise", p.name)
	}
	for len(b.byKey[k]) > 0 {
		i := b.byKey[k][0]
		switch status, ok := brokersOwn(body); {
		case len(i.expect) > 0 && sameResult(i.expect[0], f[2], body):
			i.expect = i.expect[1:]
			if final {
				b.end(k, i)
			}
			return
		case final && ok && len(i.expect) == 0 && (!i.gone || i.late):
			b.checkStatus(i, status, body)
			b.end(k, i)
			return
		case i.gone:
			b.byKey[k] = b.byKey[k][1:] // the rest of it was lost with its client
		default:
			w.fatalf("I1, I4: %s of %s is owed %q, it got %q", f[3], p.name, i.expect, f)
		}
	}
	w.fatalf("I1, I2: %s is owed nothing for %s, it got %q", p.name, f[3], f)
}

func (b *book) end(k string, i *instance) {
	i.ended = true
	b.byKey[k] = b.byKey[k][1:]
}

func (b *book) checkStatus(i *instance, status, body string) {
	w := b.w
	no := strings.Contains(body, `"executed":false`)
	switch {
	case i.answered && i.status != "" && status != i.status:
		w.fatalf("%s got %s, want %s", i.rid, body, i.status)
	case i.answered:
		if status != statusLost && status != statusDuplicate && !no {
			w.fatalf("a refusal that does not say that nothing was executed: %s", body)
		}
	case no && i.token != nil:
		w.fatalf("%s was dispatched and is said not to have been executed: %s", i.data, body)
	case status == statusTimeout && w.now < i.deadline:
		w.fatalf("I3: %s timed out at %v, its deadline was %v", i.data, w.now, i.deadline)
	case status == statusWorkerLost && !i.emitted:
		w.fatalf("%s was at no worker and got %s", i.data, body)
	case status == statusNoWorker:
		if !no || !strings.Contains(i.options, "failFast") {
			w.fatalf("%s waits for a worker and ended with %s", i.data, body)
		}
	case status != statusTimeout && status != statusWorkerLost && status != statusSlowClient:
		w.fatalf("%s was accepted and ended with %s", i.data, body)
	}
}

// timely: after a turn nothing is overdue: I3, I17, I18, I19.
func (b *book) timely() {
	w := b.w
	grace, beat := w.d.clock.grace, w.d.lim.heartbeat
	for _, i := range b.instances {
		c := w.d.peers[i.sess.peer.l][i.sess.peer.id]
		if !i.ended && !i.gone && i.deadline <= w.now && c != nil && !c.backlog.blocked() {
			w.fatalf("I3: %s should have ended at %v", i.data, i.deadline)
		}
	}
	for p, s := range b.current {
		c := w.d.peers[p.l][p.id]
		quiet := w.now - max(s.heard, grace, s.since)
		switch {
		case s.worker && quiet >= s.limit+beat:
			w.fatalf("I17: %s was silent for %v, the limit is %v", p.name, quiet, s.limit)
		case !s.worker && s.beats && quiet > s.limit*4/3 && c.ignoredUntil <= w.now:
			w.fatalf("I17: %s was silent for %v, the limit is %v", p.name, quiet, s.limit)
		case s.worker && !c.backlog.blocked() && w.now-s.told > beat:
			w.fatalf("I18: %s heard nothing for %v", p.name, w.now-s.told)
		}
	}
	b.told()
	for _, t := range b.order {
		if quiet := w.now - max(t.progress, grace, t.sess.since); t.sess.over == never && quiet >= t.sess.limit+beat && w.liveSlot(t) != nil {
			w.fatalf("I19: nothing was heard of %s for %v, and %s still has it", t.inst.data, quiet, t.worker.name)
		}
	}
}

// told: a worker that reads is told all the credit of what it has, and of what
// it has no more that it ended (K3, L2).
func (b *book) told() {
	for _, sl := range b.w.d.slots {
		if sl.worker == nil || !sl.worker.adv || sl.worker.backlog.blocked() {
			continue
		}
		switch t := b.tokens[string(sl.token[:])]; {
		case sl.req != nil && t.granted != t.credit:
			b.w.fatalf("%s was granted %d bytes, its worker was told of %d", t.inst.data, t.granted, t.credit)
		case sl.req == nil && !t.canceled:
			b.w.fatalf("%s is over, and its worker was not told", t.inst.data)
		}
	}
}

// grant notes the credit that a client gave.
func (b *book) grant(rid, bytes string) {
	for _, i := range b.liveBefore {
		if r := b.w.live(i); i.rid == rid && r != nil && r.slot != nil && r.slot.worker.adv {
			n, _ := strconv.ParseInt(bytes, 10, 64)
			i.token.granted += n
		}
	}
}

// brokersOwn reads a status without msg.
func brokersOwn(body string) (string, bool) {
	rest, ok := strings.CutPrefix(body, `{"status":"`)
	status, _, _ := strings.Cut(rest, `"`)
	return status, ok && !strings.Contains(body, `"msg"`)
}

// sameResult compares what was said with what arrived; raw bytes may have
// become JSON for a client that did not advertise.
func sameResult(want, command, body string) bool {
	if want == command+" "+body {
		return true
	}
	raw, ok := strings.CutPrefix(want, command+" b|")
	return ok && body == fmt.Sprintf(`{"status":200,"msg":%q}`, raw)
}
