package omdp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// bodyGame is a core between a client and a worker that know pieces, whose
// pipes are full now and then. What it says of them is counted once more.
type bodyGame struct {
	t    testing.TB
	d    *dispatcher
	now  instant
	room map[string]int // by peer: messages that its pipe takes
	live map[string]*bodyReq
	held map[string]string // what the worker has: rid by token
	ends map[string]string // what clients were told last, by rid
	m    message
	n    int
}

// bodyReq is a request in progress, or queued while token is empty.
type bodyReq struct {
	raw, upload   bool
	data, token   string
	granted, told int64 // by the worker; to the client
	used          int64 // of that
	over          bool
	sent, got     string // pieces
	way           credit // of the reply
}

const bodyWindow = 1000

func newBodyGame(t testing.TB) *bodyGame {
	g := &bodyGame{
		t: t, d: newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500, Frame: 1 << 20}, [32]byte{9}, 1),
		room: map[string]int{"c": 1000, "w": 1000, "c2": 1000}, live: map[string]*bodyReq{}, held: map[string]string{}, ends: map[string]string{},
	}
	g.send("c", "C", "8", `{"v":1,"id":"life","hb":2500,"credit":1000,"body":100000}`)
	g.send("w", "W", "1", "s", `{"v":1,"id":"w","hb":2500,"concurrency":2,"body":100000}`)
	return g
}

func (g *bodyGame) send(id string, frames ...string) {
	var f [][]byte
	for _, s := range frames {
		f = append(f, []byte(s))
	}
	if !parseAtBroker(f, &g.m) {
		g.t.Fatalf("%q can't be read", frames)
	}
	g.d.receive(g.now, 0, []byte(id), &g.m)
	g.flush()
}

// end: what is not live any more is not looked at.
func (g *bodyGame) end(rid string) { delete(g.live, rid) }

func (g *bodyGame) flush() {
	for g.d.pending(0) {
		out := g.d.take(0)
		for i := range out.Results {
			f := frameStrings(out.Message(i))
			out.Results[i] = batch.Sent
			if g.room[f[0]]--; g.room[f[0]] < 0 {
				out.Results[i] = batch.Again
				continue
			}
			g.arrives(f[0], f[1:])
		}
		g.d.settle(g.now, 0)
	}
	if err := g.d.check(); err != nil {
		g.t.Fatal(err)
	}
	g.check()
}

func (g *bodyGame) arrives(id string, f []string) {
	switch f[0] + f[1] {
	case "W2":
		rid := f[3]
		g.held[f[2]] = rid
		r := g.live[rid]
		if r == nil {
			return
		}
		mark := ""
		if len(f) == 8 {
			mark = f[4]
		}
		if mark != markOf(r.raw, r.upload) || f[len(f)-3] != r.data {
			g.t.Fatalf("I1: %s, whose data is raw: %v, is given as %q", rid, r.raw, f)
		}
		r.token = f[2]
	case "W13":
		r := g.live[f[3]]
		switch {
		case r == nil || r.token != f[2]:
		case len(f) == 4:
			r.got += "."
		default:
			r.got += f[4]
		}
	case "C9":
		if r := g.live[f[2]]; r != nil {
			n, _ := strconv.ParseInt(f[3], 10, 64)
			r.told += n
		}
	case "C3":
		g.ends[f[2]] = f[3]
	}
}

// check: places are held by what the worker has, pieces come whole and in
// order, and no credit is lost or made up.
func (g *bodyGame) check() {
	c, w := g.d.peers[0]["c"], g.d.peers[0]["w"]
	if w != nil && w.held != len(g.held) {
		g.t.Fatalf("S2: the worker has %d requests, and %d places are taken", len(g.held), w.held)
	}
	for rid, r := range g.live {
		if r.told > r.granted || !c.backlog.blocked() && r.told != r.granted {
			g.t.Fatalf("L2: %s: the worker granted %d bytes, the client was told of %d", rid, r.granted, r.told)
		}
		if !strings.HasPrefix(r.sent, r.got) || !w.backlog.blocked() && r.sent != r.got {
			g.t.Fatalf("I4: %s: of the pieces %q came %q", rid, r.sent, r.got)
		}
	}
	if c != nil && w != nil && len(g.live)+len(g.held) == 0 && (w.windows != 0 || c.windows != 0 || c.bodies != 0) {
		g.t.Fatalf("S4: nothing is in progress, and %d, %d, %d are counted", w.windows, c.windows, c.bodies)
	}
}

// ended: what breaks the rules ends, and nothing else does.
func (g *bodyGame) ended(rid string, broke bool) {
	if live := g.d.lookup(g.d.peers[0]["c"], []byte(rid)) != nil; live == broke {
		g.t.Fatalf("I3: %s is live: %v, too much was sent: %v", rid, live, broke)
	}
	if broke {
		g.end(rid)
	}
}

func (g *bodyGame) request(t *rapid.T) {
	if len(g.live) == 4 {
		return
	}
	g.n++
	rid := fmt.Sprint("r", g.n)
	r := &bodyReq{raw: rapid.Bool().Draw(t, "raw"), upload: rapid.Bool().Draw(t, "upload"), data: fmt.Sprint(g.n), way: credit{window: bodyWindow}}
	g.live[rid] = r
	options := `{"timeout":-1}`
	if r.upload {
		options = `{"timeout":-1,"more":-1}`
	}
	if mark := markOf(r.raw, r.upload); mark != "" {
		g.send("c", "C", "2", "s", rid, mark, r.data, options)
	} else {
		g.send("c", "C", "2", "s", rid, r.data, options)
	}
}

func (g *bodyGame) pick(t *rapid.T) (string, *bodyReq) {
	var all []string
	for rid, r := range g.live {
		if r.token != "" {
			all = append(all, rid)
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	slices.Sort(all)
	rid := rapid.SampledFrom(all).Draw(t, "rid")
	return rid, g.live[rid]
}

func (g *bodyGame) play(t *rapid.T) {
	rid, r := g.pick(t)
	event := rapid.IntRange(0, 10).Draw(t, "event")
	n := rapid.Int64Range(1, 600).Draw(t, "n")
	switch {
	case event == 0:
		g.request(t)
	case event == 1:
		g.room["c"] = rapid.SampledFrom([]int{0, 1, 1000, 1000}).Draw(t, "room")
	case event == 2:
		g.room["w"] = rapid.SampledFrom([]int{0, 1, 1000, 1000}).Draw(t, "room")
	case event == 3:
		g.d.deadline()
		g.now += time.Duration(rapid.IntRange(1, 10).Draw(t, "ms")) * time.Millisecond
		g.d.expire(g.now)
		g.flush()
	case r == nil:
		g.request(t)
	case event == 4: // the worker grants
		if r.upload && !r.over {
			r.granted += n
		}
		g.send("w", "W", "9", r.token, rid, fmt.Sprint(n))
	case event == 5 || event == 6: // the client sends a piece, or the end
		if event == 6 && rapid.IntRange(0, 3).Draw(t, "may") > 0 {
			n = min(n, r.granted-r.used-partialOverhead)
		}
		switch broke := !r.upload || r.over; {
		case n <= 0 && broke:
		case n <= 0:
			r.over = true
			r.sent += "."
			g.send("c", "C", "13", rid)
			g.ended(rid, false)
		default:
			broke = broke || n+partialOverhead > r.granted-r.used
			r.used += n + partialOverhead
			p := strings.Repeat(string(rune('a'+g.n%26)), int(n))
			if !broke {
				r.sent += p
			} else {
				g.end(rid)
			}
			g.send("c", "C", "13", rid, p)
			g.ended(rid, broke)
		}
	case event == 7: // the worker sends a partial, or a piece
		ok := r.way.take(n + partialOverhead)
		if !ok {
			g.end(rid)
		}
		if rapid.Bool().Draw(t, "piece") {
			g.send("w", "W", "13", r.token, rid, strings.Repeat("x", int(n)))
		} else {
			g.send("w", "W", "6", r.token, rid, "b", strings.Repeat("x", int(n)))
		}
		g.ended(rid, !ok)
	case event == 8: // the client grants
		r.way.grant(n, 0)
		g.send("c", "C", "9", rid, fmt.Sprint(n))
	case event == 9:
		g.end(rid)
		g.send("c", "C", "10", rid)
	default:
		g.final(r.token)
	}
}

func (g *bodyGame) final(token string) {
	rid := g.held[token]
	delete(g.held, token)
	g.end(rid)
	g.send("w", "W", "3", token, rid, "1")
}

// Whatever is granted, sent and cancelled, and whatever pipes have room for:
// a request's data comes once and in order, credit is told as it is given,
// whoever sends more ends that request alone, and nothing is left behind.
func TestBodyCoreProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newBodyGame(t)
		for range 40 {
			g.play(rt)
			for _, token := range g.over() { // a worker answers what was cancelled
				if rapid.Bool().Draw(rt, "answers") {
					g.final(token)
				}
			}
		}
		g.room["c"], g.room["w"] = 1000, 1000
		for range 4 {
			g.now += retryMax
			g.d.expire(g.now)
			g.flush()
		}
		for len(g.held) > 0 {
			tokens := []string{}
			for token := range g.held {
				tokens = append(tokens, token)
			}
			slices.Sort(tokens)
			g.final(tokens[0])
		}
		if len(g.live) > 0 {
			t.Fatalf("L1: %d requests were not given to a worker", len(g.live))
		}
	})
}

// over are the tokens whose requests have ended.
func (g *bodyGame) over() (tokens []string) {
	for token, rid := range g.held {
		if g.live[rid] == nil {
			tokens = append(tokens, token)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// What a client sent a part of on its former socket starts anew on the next:
// what follows there would be joined to it.
func TestBodyNotAdopted(t *testing.T) {
	g := newBodyGame(t)
	const options = `{"timeout":-1,"more":500}`
	g.live["r"] = &bodyReq{data: "1", upload: true}
	g.send("c", "C", "2", "s", "r", "p", "1", options)
	first := g.live["r"].token
	g.end("r")
	g.send("w", "W", "9", first, "r", "200")
	g.send("c", "C", "13", "r", "abc")
	g.send("c2", "C", "8", `{"v":1,"id":"life","hb":2500,"credit":1000,"body":100000}`)
	g.send("c2", "C", "2", "s", "r", "p", "1", `{"timeout":-1,"attempt":2,"more":500}`)
	if len(g.held) != 2 || g.d.stats.Adopted != 0 {
		t.Errorf("I4: the request was given %d times and adopted %d times; want it given anew", len(g.held), g.d.stats.Adopted)
	}
}
