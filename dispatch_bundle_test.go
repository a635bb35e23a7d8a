package omdp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Replies that go in one message are in order and complete, whatever goes
// between them, and also when there is no room for them at first.
func TestBundlesAtTheCoreProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{7}, 1)
		now := instant(0)
		full := map[string]bool{}
		said, got := map[string][]string{}, map[string][]string{}
		tokens := map[string]string{} // of what is in progress, by its rid
		var m message
		flush := func() {
			for d.pending(0) {
				out := d.take(0)
				for i := range out.Results {
					var in batch.In
					out.Read(i, &in)
					for f := in.Next(); f != nil; f = in.Next() {
						id := string(f[0])
						out.Results[i] = batch.Sent
						if id == "w" {
							if parseAtWorker(f[1:], &m) && m.op == opRequest {
								tokens[string(m.rid)] = string(m.token)
							}
							continue
						}
						if full[id] {
							out.Results[i] = batch.Again
							continue
						}
						if !parseAtClient(f[1:], &m) {
							t.Fatalf("%s is sent what nobody can read: %q", id, f)
						}
						if m.op == opPartial || m.op == opReply {
							got[id] = append(got[id], fmt.Sprint(m.op, " ", string(m.rid), " ", string(m.body[len(m.body)-1])))
						}
					}
				}
				d.settle(now, 0)
			}
			if err := d.check(); err != nil {
				t.Fatal(err)
			}
		}
		send := func(id string, frames ...string) {
			var f [][]byte
			for _, s := range frames {
				f = append(f, []byte(s))
			}
			if !parseAtBroker(f, &m) {
				t.Fatalf("%q can't be read", frames)
			}
			d.receive(now, 0, []byte(id), &m)
		}
		send("w", "W", "1", "s", `{"v":1,"id":"w","hb":1000000,"concurrency":8,"pack":2}`)
		for _, c := range []string{"a", "b"} {
			send(c, "C", "8", fmt.Sprintf(`{"v":1,"id":"%s","hb":1000000,"pack":2}`, c))
		}
		n := 0
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				n++
				c := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "client")
				send(c, "C", "2", "s", fmt.Sprint(c, n), "1", `{"timeout":-1}`)
			case 1:
				c := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "client")
				full[c] = !full[c]
			case 2:
				flush()
			case 3:
				now += time.Duration(rapid.IntRange(1, 20).Draw(t, "ms")) * time.Millisecond
				d.deadline()
				d.expire(now)
			default:
				for _, rid := range slices.Sorted(maps.Keys(tokens)) {
					token := tokens[rid]
					op := "6"
					if rapid.IntRange(0, 9).Draw(t, "ends") == 0 {
						op = "3"
						delete(tokens, rid)
					}
					size := rapid.SampledFrom([]int{1, 100, 3000, 5000}).Draw(t, "size")
					n++
					body := fmt.Sprint(n) + strings.Repeat("x", size)
					send("w", "W", op, token, rid, "b", body)
					said[rid[:1]] = append(said[rid[:1]], op+" "+rid+" "+body)
				}
			}
		}
		clear(full)
		for range 20 {
			flush()
			now += 50 * time.Millisecond
			d.deadline()
			d.expire(now)
		}
		for _, c := range []string{"a", "b"} {
			if len(said[c]) != len(got[c]) {
				t.Fatalf("%s was sent %d of %d replies", c, len(got[c]), len(said[c]))
			}
			for i := range said[c] {
				if said[c][i] != got[c][i] {
					t.Fatalf("%s got %.40q as reply %d, want %.40q", c, got[c][i], i, said[c][i])
				}
			}
		}
	})
}
