package omdp

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Whatever its pipe has room for, a worker is told all the credit of what it
// holds as soon as there is room: else its response waits for ever.
func TestCreditReachesWorkersProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{9}, 1)
		now, room := instant(0), 1000
		granted, told := map[string]int64{}, map[string]int64{}
		var m message
		flush := func() {
			for d.pending(0) {
				out := d.take(0)
				for i := range out.Results {
					f := frameStrings(out.Message(i))
					out.Results[i] = batch.Sent
					if f[0] != "w" {
						continue
					}
					if room--; room < 0 {
						out.Results[i] = batch.Again
					} else if f[2] == "9" {
						n, _ := strconv.ParseInt(f[5], 10, 64)
						told[f[4]] += n
					}
				}
				d.settle(now, 0)
			}
			if err := d.check(); err != nil {
				t.Fatal(err)
			}
			if w := d.peers[0]["w"]; w == nil || w.backlog.blocked() {
				return
			}
			for rid, want := range granted {
				if told[rid] != want {
					t.Fatalf("L2: %s was granted %d bytes, its worker was told of %d", rid, want, told[rid])
				}
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
			flush()
		}
		send("c", "C", "8", `{"v":1,"id":"life","hb":2500,"credit":1000}`)
		send("w", "W", "1", "s", `{"v":1,"id":"w","hb":2500,"concurrency":3}`)
		for _, rid := range []string{"r1", "r2", "r3"} {
			send("c", "C", "2", "s", rid, "1", `{"timeout":-1}`)
			granted[rid] = 0
		}
		for range 30 {
			rid := rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(t, "rid")
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				n := rapid.Int64Range(1, 100).Draw(t, "n")
				if _, live := granted[rid]; live {
					granted[rid] += n
				}
				send("c", "C", "9", rid, fmt.Sprint(n))
			case 1: // something for the worker that is kept if there is no room
				if _, live := granted[rid]; live {
					delete(granted, rid)
					send("c", "C", "10", rid)
				} else {
					send("c", "C", "4")
				}
			case 2:
				room = rapid.IntRange(0, 2).Draw(t, "room")
			case 3:
				d.deadline()
				now += time.Duration(rapid.IntRange(1, 20).Draw(t, "ms")) * time.Millisecond
				d.expire(now)
				flush()
			}
		}
		room = 1000
		for range 3 {
			now += retryMax
			d.expire(now)
			flush()
		}
		if d.blocked.n > 0 {
			t.Fatal("the worker is without room though there is some")
		}
	})
}
