package omdp

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// A loop that comes a little late finds several timers due at once: a place
// that becomes free then is not given to a request whose time is over (I11).
func TestLateTurnsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{5}, 1)
		now, n := instant(0), 0
		deadlines := map[string]instant{}
		dispatched := 0
		var m message
		read := func() {
			out := d.take(0)
			for i := range out.Results {
				out.Results[i] = batch.Sent
				f := frameStrings(out.Message(i))
				if f[1]+f[2] != "W2" {
					continue
				}
				dispatched++
				if at := deadlines[f[4]]; at <= now {
					t.Fatalf("I11: %s is dispatched at %v, its deadline was %v", f[4], now, at)
				}
			}
			d.settle(now, 0)
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
			read()
		}
		send("w", "W", "1", "s", `{"v":1,"id":"w","hb":1000,"concurrency":2}`)
		for range 60 {
			d.deadline()
			now += time.Duration(rapid.IntRange(1, 900).Draw(t, "late")) * time.Millisecond
			d.expire(now)
			read()
			send("w", "W", "4") // it is well, and beats for nothing that it holds
			for range rapid.IntRange(0, 2).Draw(t, "requests") {
				n++
				ms := 1 + rapid.IntRange(0, 5000).Draw(t, "timeout")
				rid := strconv.Itoa(n)
				deadlines[rid] = now + time.Duration(ms)*time.Millisecond
				send("c", "C", "2", "s", rid, "1", fmt.Sprintf(`{"timeout":%d}`, ms))
			}
		}
		if dispatched == 0 && n > 0 {
			t.Fatal("nothing was dispatched")
		}
	})
}
