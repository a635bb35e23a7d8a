package omdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// againGame is one client with three sockets at a core: the rules for an id
// that comes again (I21, I8), against a model of them.
type againGame struct {
	d    *dispatcher
	now  instant
	t    *rapid.T
	m    message
	rids map[string]*againRID
	said []string // to clients, in the present step
}

// againRID is what the model knows of one id.
type againRID struct {
	live    bool
	socket  string
	asked   int
	token   string // empty: queued
	partial bool

	known         bool // it ended, at:
	at            instant
	reported, ran bool
}

const againWindow = 4 * time.Second

func newAgainGame(t *rapid.T) *againGame {
	lim := testLimits()
	lim.window, lim.finished = againWindow, 100
	g := &againGame{d: newDispatcher(lim, caps{V: 1, ID: "broker", HB: 2500}, [32]byte{3}, 1), t: t, rids: map[string]*againRID{}}
	for i := range 3 {
		g.send(fmt.Sprint("c", i), "C", "8", `{"v":1,"id":"life","hb":2500}`)
	}
	g.send("w", "W", "1", "s", `{"v":1,"id":"w","hb":2500,"concurrency":2}`)
	g.said = nil
	return g
}

// send lets the core take one message, and reads all that it says.
func (g *againGame) send(id string, frames ...string) {
	var f [][]byte
	for _, s := range frames {
		f = append(f, []byte(s))
	}
	if !parseAtBroker(f, &g.m) {
		g.t.Fatalf("%q can't be read", frames)
	}
	g.d.receive(g.now, 0, []byte(id), &g.m)
	g.read()
}

func (g *againGame) read() {
	out := g.d.take(0)
	for i := range out.Results {
		out.Results[i] = batch.Sent
		f := frameStrings(out.Message(i))
		switch f[1] + f[2] {
		case "W2":
			r := g.rids[f[4]]
			if !r.live || r.token != "" {
				g.t.Fatalf("%s was dispatched: %+v", f[4], r)
			}
			r.token = f[3]
		case "C3", "C4", "C6":
			g.said = append(g.said, strings.Join(f, "|"))
		case "W4", "W10":
			if len(f) > 3 {
				g.said = append(g.said, strings.Join(append(f[:3:3], f[4:]...), "|")) // without the token
			}
		}
	}
	g.d.settle(g.now, 0)
}

func (g *againGame) rid() (string, *againRID) {
	rid := rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(g.t, "rid")
	if g.rids[rid] == nil {
		g.rids[rid] = &againRID{}
	}
	return rid, g.rids[rid]
}

func (g *againGame) socket() string {
	return rapid.SampledFrom([]string{"c0", "c1", "c2"}).Draw(g.t, "socket")
}

// want compares what was said in this step, and ends it.
func (g *againGame) want(want ...string) {
	g.t.Helper()
	if !slices.Equal(g.said, want) {
		g.t.Fatalf("got %q, want %q", g.said, want)
	}
	g.said = nil
	if err := g.d.check(); err != nil {
		g.t.Fatal(err)
	}
}

// counted returns which counter an event moved.
func (g *againGame) counted(event func()) string {
	was := g.d.stats
	event()
	st := &g.d.stats
	return fmt.Sprintf("accepted %d, adopted %d, duplicates %d, repeated %d, gone %d, canceled %d", st.Accepted-was.Accepted, st.Adopted-was.Adopted,
		st.Duplicates-was.Duplicates, st.Repeated-was.Repeated, st.ClientGone-was.ClientGone, st.Canceled-was.Canceled)
}

// remembered tells whether the last end is in the window.
func (r *againRID) remembered(now instant) bool { return r.known && now-r.at < againWindow }

// end: whether any attempt was dispatched is remembered with the last one.
func (r *againRID) end(now instant, reported bool) {
	ran := r.token != "" || r.remembered(now) && r.ran
	r.live, r.known, r.at, r.reported, r.ran = false, true, now, reported, ran
}

func (r *againRID) begin(socket string, asked int) {
	r.live, r.socket, r.asked, r.token, r.partial = true, socket, asked, "", false
}

func (g *againGame) request() {
	rid, r := g.rid()
	socket, asked := g.socket(), rapid.IntRange(1, 4).Draw(g.t, "attempt")
	var want []string
	counts := [6]int{}
	switch {
	case r.live && (r.socket == socket || asked <= r.asked):
		counts[2] = 1
	case r.live && r.partial:
		want = append(want, "w|W|10|"+rid+"|gone")
		counts[0], counts[4] = 1, 1
		r.end(g.now, false)
		r.begin(socket, asked)
	case r.live:
		counts[1] = 1
		r.socket, r.asked = socket, asked
	case r.remembered(g.now) && (r.reported || asked <= r.asked):
		executed := ""
		if r.reported {
			executed = `,"executed":true`
		} else if !r.ran {
			executed = `,"executed":false`
		}
		want = append(want, socket+"|C|3|"+rid+`|{"status":"DUPLICATE"`+executed+"}")
		counts[3] = 1
	default:
		counts[0] = 1
		r.begin(socket, asked)
	}
	got := g.counted(func() {
		g.send(socket, "C", "2", "s", rid, "1", fmt.Sprintf(`{"timeout":-1,"attempt":%d}`, asked))
	})
	if w := fmt.Sprintf("accepted %d, adopted %d, duplicates %d, repeated %d, gone %d, canceled %d", counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]); got != w {
		g.t.Fatalf("I21: attempt %d of %s on %s: got %s, want %s", asked, rid, socket, got, w)
	}
	g.want(want...)
}

// held lists what the worker has by the core: token, id, and whether it drains.
func (g *againGame) held() (all [][2]string) {
	for _, sl := range g.d.slots {
		if sl.worker != nil {
			all = append(all, [2]string{string(sl.token[:]), string(sl.rid[:sl.ridLen])})
		}
	}
	return all
}

func (g *againGame) reply(command string) {
	held := g.held()
	if len(held) == 0 {
		g.t.Skip("no worker holds a request")
	}
	h := rapid.SampledFrom(held).Draw(g.t, "held")
	r := g.rids[h[1]]
	body := `{"status":200,"msg":1}`
	var want []string
	if r.live && r.token == h[0] {
		want = append(want, r.socket+"|C|"+command+"|"+h[1]+"|"+body)
		r.partial = r.partial || command == "6"
		if command == "3" {
			r.end(g.now, true)
		}
	}
	g.send("w", "W", command, h[0], h[1], body)
	g.want(want...)
}

func (g *againGame) cancel() {
	rid, r := g.rid()
	socket := g.socket()
	var want []string
	if r.live && r.socket == socket {
		if r.token != "" {
			want = append(want, "w|W|10|"+rid+"|client")
		}
		r.end(g.now, false)
	}
	g.send(socket, "C", "10", rid)
	g.want(want...)
}

// beat: I8: it goes to the worker of the sender's own request, and no other.
func (g *againGame) beat() {
	rid, r := g.rid()
	socket := g.socket()
	var want []string
	switch {
	case !r.live || r.socket != socket:
		want = append(want, socket+"|C|3|"+rid+`|{"status":"LOST"}`)
	case r.token != "":
		want = append(want, "w|W|4|"+rid)
	}
	g.send(socket, "C", "4", rid)
	g.want(want...)
}

// wait lets time pass, in which everybody beats.
func (g *againGame) wait() {
	for range rapid.IntRange(1, 6).Draw(g.t, "seconds") {
		g.d.deadline()
		g.now += time.Second
		g.d.expire(g.now)
		g.read()
		for i := range 3 {
			g.send(fmt.Sprint("c", i), "C", "4")
		}
		g.send("w", "W", "4")
		for _, h := range g.held() {
			g.said = nil
			var want []string
			if r := g.rids[h[1]]; r.live && r.token == h[0] {
				want = append(want, r.socket+"|C|4|"+h[1])
			}
			g.send("w", "W", "4", h[0], h[1])
			g.want(want...)
		}
	}
	g.want()
}

// A client may send an id again, on whichever of its sockets: what is live
// answers to the one with the latest attempt, and what ended is known for a while.
func TestAgainProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newAgainGame(t)
		act := func(f func()) func(*rapid.T) { return func(t *rapid.T) { g.t = t; f() } }
		t.Repeat(map[string]func(*rapid.T){
			"request": act(g.request), "request again": act(g.request),
			"partial": act(func() { g.reply("6") }), "final": act(func() { g.reply("3") }),
			"cancel": act(g.cancel), "beat": act(g.beat), "wait": act(g.wait),
		})
	})
}
