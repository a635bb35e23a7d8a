package omdp

import (
	"slices"
	"testing"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// A worker that sent its final and DISCONNECT and closed can't be reached any
// more while both are still to be read: what it answered is not lost, and
// neither is what could not be sent to it.
func TestUnreachableWorkerIsReadFirst(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{true, false} {
		s := readyStuck()
		s.say("c", message{op: opRequest, service: []byte("s"), rid: []byte("1"), data: []byte("1"), options: []byte("{}")})
		token := slices.Clone(s.token("c", "1"))

		// Another request finds out that the worker is gone.
		s.receive(s.now, 0, []byte("c"), &message{op: opRequest, service: []byte("s"), rid: []byte("2"), data: []byte("2"), options: []byte("{}")})
		out := s.take(0)
		for i := range out.Results {
			in := batch.In{B: out.Message(i)}
			out.Results[i] = batch.Sent
			if string(in.Next()[0]) == "w" {
				out.Results[i] = batch.Unreachable
			}
		}
		s.settleSent(s.now, 0)
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		check(t, "lost before it was read", s.stats.WorkerLost, 0)
		check(t, "queued again", s.queued, 1)
		check(t, "free workers", s.services["s"].ready.n, 0)

		if leaves {
			s.receive(s.now, 0, []byte("w"), &message{worker: true, op: opReply, token: token, rid: []byte("1"), body: [][]byte{[]byte(`{"status":200,"msg":1}`)}})
			s.receive(s.now, 0, []byte("w"), &message{worker: true, op: opDisconnect})
		}
		s.drained(s.now, 0)
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		check(t, "workers", s.workers, 0)
		check(t, "requests left", s.requests.n, 1)
		completed, lost := s.stats.Completed, s.stats.WorkerLost
		if leaves && (completed != 1 || lost != 0) || !leaves && (completed != 0 || lost != 1) {
			t.Errorf("it took its leave: %v; got %d completed and %d lost", leaves, completed, lost)
		}
	}
}
