package omdp

import (
	"fmt"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// TestManyStuckPeersCostLittle: however many peers do not read, a batch tries
// few of them (an exchange remembers 64 refusals and then refuses all that
// follow, also what goes to peers that read), each gets its turn, and the tries
// of all together do not take the broker's time.
func TestManyStuckPeersCostLittle(t *testing.T) {
	const peers = 200
	s := newTestScript(t, func(l *limits) { l.concurrency, l.clients = peers, 2*peers })
	s.do(`w> W|1|s|{"v":1,"id":"w","hb":600000,"concurrency":200}`)
	for i := range peers {
		id := fmt.Sprint("c", i)
		s.do(id + `> C|2|s|r|1|{"timeout":-1}`)
		s.full[id] = true
		var m message // not by s.send: among so many tokens one has the text of another's name
		if !parseAtBroker([][]byte{[]byte("W"), []byte("6"), []byte(s.tokens[i]), []byte("r"), []byte("1")}, &m) {
			t.Fatal("malformed")
		}
		s.d.receive(s.now, 0, []byte("w"), &m)
		s.flush()
	}
	if n := s.d.blocked.n; n != peers {
		t.Fatalf("%d peers wait for room, want %d", n, peers)
	}
	most, tries := 0, map[string]int{}
	end := s.now + time.Second
	for due := s.d.deadline(); due <= end; due = s.d.deadline() {
		s.now = max(due, s.now)
		s.d.expire(s.now)
		out := s.d.take(0)
		stuck := map[string]bool{}
		for i := range out.Results {
			id := frameStrings(out.Message(i))[0]
			out.Results[i] = batch.Sent
			if s.full[id] {
				out.Results[i] = batch.Again
				stuck[id] = true
				tries[id]++
			}
		}
		most = max(most, len(stuck))
		s.d.settle(s.now, 0)
	}
	if most > 32 {
		t.Errorf("one batch tried %d stuck peers", most)
	}
	all := 0
	for _, n := range tries {
		all += n
	}
	if len(tries) != peers || all > 25_000 {
		t.Errorf("%d peers were tried %d times in a second, want all %d of them, and at most 25,000 times", len(tries), all, peers)
	}
}
