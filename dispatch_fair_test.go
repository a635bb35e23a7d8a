package omdp

import (
	"fmt"
	"testing"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// stuck is a core whose listener has no room for the peers named.
type stuck struct {
	*dispatcher
	now  instant
	full map[string]bool
}

func newStuck(lim limits, full ...string) *stuck {
	s := &stuck{newDispatcher(lim, caps{V: 1, ID: "b", HB: 2500}, [32]byte{1}, 1), 1, map[string]bool{}}
	for _, id := range full {
		s.full[id] = true
	}
	return s
}

func (s *stuck) say(id string, m message) {
	s.now++
	s.receive(s.now, 0, []byte(id), &m)
	out := s.take(0)
	for i := range out.Results {
		in := batch.In{B: out.Message(i)}
		out.Results[i] = batch.Sent
		if s.full[string(in.Next()[0])] {
			out.Results[i] = batch.Again
		}
	}
	s.settle(s.now, 0)
}

// stream makes client ask for a stream of n MiB, under a window that allows it.
func (s *stuck) stream(client string, n int) {
	s.say(client, message{op: opHello, caps: fmt.Appendf(nil, `{"v":1,"id":%q,"hb":2500,"credit":262144}`, client)})
	s.say(client, message{op: opRequest, service: []byte("s"), rid: []byte("big"), data: []byte("1"), options: fmt.Appendf(nil, `{"credit":%d}`, (n+1)<<20)})
	token := s.token(client, "big")
	for range n {
		s.say("w", message{worker: true, op: opPartial, token: token, rid: []byte("big"), body: [][]byte{[]byte("b"), make([]byte, 1<<20)}})
	}
}

func (s *stuck) token(client, rid string) []byte {
	return s.lookup(s.peers[0][client], []byte(rid)).slot.token[:]
}

func readyStuck(full ...string) *stuck {
	lim := testLimits()
	lim.outboxBytes, lim.totalOutbox = 8<<20, 128<<20
	s := newStuck(lim, full...)
	s.say("w", message{worker: true, op: opReady, service: []byte("s"), caps: []byte(`{"v":1,"id":"w","hb":2500,"concurrency":100}`)})
	return s
}

// What a client may have waiting does not shrink while it waits: the end of a
// stream with a large window is no reason to end its other requests.
func TestOutboxKeepsItsAllowance(t *testing.T) {
	s := readyStuck("c")
	s.stream("c", 24)
	s.say("c", message{op: opRequest, service: []byte("s"), rid: []byte("small"), data: []byte("1")})
	s.say("w", message{worker: true, op: opReply, token: s.token("c", "big"), rid: []byte("big"), body: [][]byte{[]byte("b"), []byte("end")}})
	s.say("c", message{op: opHello, caps: []byte(`{"v":1,"id":"c","hb":2500,"credit":262144}`)})
	if s.stats.SlowClients != 0 || s.peers[0]["c"].outstanding != 1 {
		t.Errorf("%d slow, %d requests left; want 0 and the small one", s.stats.SlowClients, s.peers[0]["c"].outstanding)
	}
}

// The limit on all outboxes together is held against those that take more
// than their share, not against whoever comes next.
func TestTotalOutboxIsShared(t *testing.T) {
	s := readyStuck("a", "b", "c", "d", "e", "f", "innocent")
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		s.stream(id, 24)
	}
	s.say("innocent", message{op: opHello, caps: []byte(`{"v":1,"id":"i","hb":2500,"credit":262144}`)})
	s.say("innocent", message{op: opRequest, service: []byte("s"), rid: []byte("r"), data: []byte("1")})
	s.say("w", message{worker: true, op: opPartial, token: s.token("innocent", "r"), rid: []byte("r"), body: [][]byte{[]byte("b"), []byte("x")}})
	if s.outboxBytes <= s.lim.totalOutbox/2 {
		t.Fatalf("only %d bytes wait", s.outboxBytes)
	}
	if s.stats.SlowClients == 0 || s.peers[0]["innocent"].backlog.slow {
		t.Errorf("%d slow, the innocent one: %v; want some others", s.stats.SlowClients, s.peers[0]["innocent"].backlog.slow)
	}
}

// Options of a user's own are none of ours, whatever their case and type.
func TestOptionsOfUsers(t *testing.T) {
	for text, want := range map[string]options{
		`{"Timeout":"soon"}`: {}, `{"TIMEOUT":5}`: {}, `{"FAILFAST":true}`: {}, `{"failFast":"yes"}`: {}, `{"credit":1e400}`: {}, `{"credit":"gold","timeout":7}`: {timeout: 7e6},
		`{"failFast":true,"credit":4096}`: {failFast: true, credit: 4096},
	} {
		if got, ok := parseOptions([]byte(text)); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, ok, want)
		}
	}
	if _, ok := parseOptions([]byte(`{"timeout":1e400}`)); ok {
		t.Error("a timeout that is no number was taken")
	}
}
