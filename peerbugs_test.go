package omdp_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Bugs of other makes, each asked of this library in the dialect in which it
// was found. interop/README.md has the list, with the tests of those that are
// native as well.

// otherMake is how peers of a dialect say things. SERVICE, RID, CID and DATA stand
// for what they say; a worker's REQUEST is read by the frame of its CID.
type otherMake struct {
	dialect                  omdp.Dialect
	ask, ready, final, beats string
	answer                   string // to the client
	cid                      int
}

var otherMakes = []otherMake{
	{omdp.OMDPFinal, `C|2|SERVICE|RID|DATA|{"timeout":60000}`, "W|1|SERVICE", "W|3|CID|RID|0|DATA", "W|4", "C|3|RID|0|DATA", 2},
	{omdp.PIGATO, `C|2|SERVICE|RID|DATA|{"timeout":60000,"retry":0}`, "W|1|SERVICE", "W|3|CID||RID|0|DATA|{}", "W|4", "C|3||RID|0|DATA|{}", 2},
	{omdp.MDP02, "MDPC02|\x01|SERVICE|DATA", "MDPW02|\x01|SERVICE", "MDPW02|\x04|CID||DATA", "MDPW02|\x05", "MDPC02|\x03|SERVICE|DATA", 2},
	{omdp.MDP01, "|MDPC01|SERVICE|DATA", "|MDPW01|\x01|SERVICE", "|MDPW01|\x03|CID||DATA", "|MDPW01|\x04", "|MDPC01|SERVICE|DATA", 3},
}

// overMakes runs a test with peers of each, at a broker that has a listener
// for them besides its own: b.Endpoints()[1].
func overMakes(t *testing.T, f func(t *testing.T, b *omdp.Broker, x otherMake)) {
	for _, x := range otherMakes {
		t.Run(x.dialect.String(), func(t *testing.T) {
			t.Parallel()
			f(t, startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{
				Listeners: []omdp.Listener{{Endpoint: newEndpoint(t, "inproc"), Dialect: x.dialect}},
			}), x)
		})
	}
}

func put(m string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(m) }

// heard is the next message but the given ones and bare beats.
func heard(t *testing.T, p *rawPeer, skip ...string) string {
	t.Helper()
	for {
		m := strings.Join(p.next(t), "|")
		if !slices.Contains(skip, m) {
			return m
		}
	}
}

// asks is a client of the dialect; it sends one request.
func (x otherMake) asks(t *testing.T, b *omdp.Broker, service, rid, data string) *rawPeer {
	t.Helper()
	c := dialRaw(t, b.Endpoints()[1])
	c.say(put(x.ask, "SERVICE", service, "RID", rid, "DATA", data))
	return c
}

// answered waits for the answer to asks.
func (x otherMake) answered(t *testing.T, c *rawPeer, service, rid, data string) {
	t.Helper()
	if got, want := heard(t, c, "C|4"), put(x.answer, "SERVICE", service, "RID", rid, "DATA", data); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// registers is a worker of the dialect.
func (x otherMake) registers(t *testing.T, b *omdp.Broker, service string) *rawPeer {
	t.Helper()
	w := dialRaw(t, b.Endpoints()[1])
	w.say(put(x.ready, "SERVICE", service))
	return w
}

// work waits for a REQUEST and returns its frames; beats and PIGATO's answer to
// READY may come before it.
func (x otherMake) work(t *testing.T, w *rawPeer) []string {
	t.Helper()
	for {
		m := w.next(t)
		if len(m) > x.cid && (m[x.cid-1] == "2" || m[x.cid-1] == "\x02") {
			return m
		}
		if got := strings.Join(m, "|"); !strings.HasPrefix(got, x.beats) && got != put(x.ready, "|SERVICE", "") {
			t.Fatalf("got %q, want a REQUEST", got)
		}
	}
}

// ends answers a REQUEST.
func (x otherMake) ends(w *rawPeer, m []string, rid, data string) {
	w.say(put(x.final, "CID", m[x.cid], "RID", rid, "DATA", data))
}

// A missing service or id, READY without a service, short messages and replies,
// options that are not JSON, services of an object's own names, a heartbeat for
// `req`: each ended a Node broker; malformed frames ended those in C and Rust.
func TestPeerBugShortMessages(t *testing.T) {
	t.Parallel()
	digits := []string{
		"C", "C|", "C|2", "C|2|echo", "C|2|echo|1", "C|2||1|1|{}", "C|2|echo||1|{}", `C|2|echo|1|1|{`, "C|2|echo|1|1|undefined", `C|2|__proto__|1|1|{"timeout":20}`,
		`C|2|toString|2|1|{"timeout":20}`, `C|2|echo@^1.0.0|3|1|{"timeout":20}`, `C|2|*|4|1|{"timeout":20}`, "C|3|1|x", "C|4|req|1", "C|4|request|1", "C|4|worker|x", "C|9", "W", "W|", "W|1", "W|1|", "W|2|x", "W|3", "W|3|x", "W|3|x|", "W|3|x||y", "W|4|x", "W|4||{", "W|4||null",
		"W|6", "W|6|x", "W|7", "W|7|x", "W|7|x||y", "W|9", "X", "X|1",
	}
	majordomo := []string{"HEADc", "HEADc|", "HEADc|\x01", "HEADc|\x01|", "HEADc|\x01|echo", "HEADc|\x09|echo|x", "HEADc||echo|x", "HEADw", "HEADw|", "HEADw|\x01", "HEADw|\x01|", "HEADw|\x03", "HEADw|\x04|x", "HEADw|\x04|x|", "HEADw|\x04|x||y", "HEADw|\x03|x|y|z", "HEADw|\x0a|x", "HEADw|\x01\x01|echo", "HEADx|\x01|echo|x", "aaa4", "|", "||"}
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		messages := digits
		switch x.dialect {
		case omdp.MDP02:
			messages = nil
			for _, m := range majordomo {
				messages = append(messages, put(m, "HEADc", "MDPC02", "HEADw", "MDPW02", "HEADx", "MDPX02"))
			}
		case omdp.MDP01:
			messages = nil
			for _, m := range majordomo {
				messages = append(messages, put("|"+m, "HEADc", "MDPC01", "HEADw", "MDPW01", "HEADx", "MDPX01"))
			}
		}
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		for _, m := range messages {
			p := dialRaw(t, b.Endpoints()[1])
			p.say(m)
			p.say(m)
			w := x.registers(t, b, "worked") // one that ends while it is registered
			w.say(m)
			served(t, c, "echo")
		}
		x.answered(t, x.asks(t, b, "echo", "last", `"x"`), "echo", "last", `"x"`)
		if b.Stats().Malformed == 0 {
			t.Error("got no malformed message, want some")
		}
	})
}

// Requests are known by the client and its id, not by the id alone: two clients
// with the same one get each its own answer. (Majordomo's have no id at all.)
func TestPeerBugSameID(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 2}, h.handle)
		one, two := x.asks(t, b, "echo", "same", `"one"`), x.asks(t, b, "echo", "same", `"two"`)
		receive(t, "a request", h.began)
		receive(t, "the other request", h.began)
		close(h.free)
		x.answered(t, one, "echo", "same", `"one"`)
		x.answered(t, two, "echo", "same", `"two"`)
	})
}

// A worker that hands a request back (PIGATO's REPLY_REJECT) does not get it
// again while another is there: that broker looked at the wrong variable.
func TestPeerBugReject(t *testing.T) {
	t.Parallel()
	x := otherMakes[1]
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Listeners: []omdp.Listener{{Endpoint: newEndpoint(t, "inproc"), Dialect: x.dialect}}})
	one, two := x.registers(t, b, "echo"), x.registers(t, b, "echo")
	eventually(t, "both are registered", func() bool { return b.Stats().Workers == 2 })
	c := x.asks(t, b, "echo", "r", `"x"`)
	// Whoever is asked first rejects; the other one answers.
	var mu sync.Mutex
	asked := map[*rawPeer]int{}
	var wg sync.WaitGroup
	for _, w := range []*rawPeer{one, two} {
		wg.Go(func() {
			m := x.work(t, w)
			mu.Lock()
			defer mu.Unlock()
			asked[w]++
			if len(asked) == 1 {
				w.send("W", "7", m[x.cid], "", "r", "0", `"NOT_ME"`, "undefined")
				return
			}
			x.ends(w, m, "r", `"y"`)
		})
	}
	x.answered(t, c, "echo", "r", `"y"`)
	wg.Wait()
	if asked[one] != 1 || asked[two] != 1 {
		t.Errorf("the workers were asked %d and %d times, want once each", asked[one], asked[two])
	}
}

// A FINAL that nobody asked for, and one for a request that another holds, reach
// no client; the broker goes on.
func TestPeerBugUnexpectedFinal(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		idle, holder := x.registers(t, b, "other"), x.registers(t, b, "echo")
		c := x.asks(t, b, "echo", "r", `"x"`)
		m := x.work(t, holder)
		x.ends(idle, m, "r", `"forged"`)
		eventually(t, "the forger is gone", func() bool { s := b.Stats(); return s.Workers == 1 && s.Forged == 1 })
		x.ends(holder, m, "r", `"true"`)
		x.answered(t, c, "echo", "r", `"true"`)
		x.ends(holder, m, "r", `"again"`)
		addWorker(t, b, "go", nil, echo)
		served(t, addClient(t, b, nil), "go")
		c.say(put(x.ask, "SERVICE", "go", "RID", "r2", "DATA", `"x"`))
		x.answered(t, c, "go", "r2", `"x"`) // and nothing of the second final before
	})
}

// The next request is dispatched by the FINAL of the one before, without waiting
// for anything else. (The reference in C forgot to.)
func TestPeerBugNextAfterFinal(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		w := x.registers(t, b, "echo")
		if x.dialect == omdp.PIGATO {
			w.say(`W|4||{"concurrency":1}`)
		}
		eventually(t, "it is registered", func() bool { return b.Stats().Workers == 1 })
		var clients []*rawPeer
		for i := range 3 {
			clients = append(clients, x.asks(t, b, "echo", fmt.Sprint("r", i), fmt.Sprint(i)))
			eventually(t, "it is accepted", func() bool { return b.Stats().Accepted == uint64(i+1) })
		}
		for i, c := range clients {
			x.ends(w, x.work(t, w), fmt.Sprint("r", i), fmt.Sprint(10+i))
			x.answered(t, c, "echo", fmt.Sprint("r", i), fmt.Sprint(10+i))
		}
	})
}

// mmi.service counts workers that are busy: ports of the zguide answered 404.
func TestPeerBugBusyIsThere(t *testing.T) {
	t.Parallel()
	for _, x := range otherMakes[2:] {
		t.Run(x.dialect.String(), func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Listeners: []omdp.Listener{{Endpoint: newEndpoint(t, "inproc"), Dialect: x.dialect}}})
			x.answered(t, x.asks(t, b, "mmi.service", "", "echo"), "mmi.service", "", "404")
			w := x.registers(t, b, "echo")
			c := x.asks(t, b, "echo", "", "x")
			m := x.work(t, w)
			x.answered(t, x.asks(t, b, "mmi.service", "", "echo"), "mmi.service", "", "200")
			x.ends(w, m, "", "y")
			x.answered(t, c, "echo", "", "y")
			x.answered(t, x.asks(t, b, "mmi.service", "", "echo"), "mmi.service", "", "200")
			x.answered(t, x.asks(t, b, "mmi.other", "", "echo"), "mmi.other", "", "501")
		})
	}
}

// A worker that is lost ends its requests; other brokers forget them, or keep
// them for ever.
func TestPeerBugLostWorker(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		w := x.registers(t, b, "echo")
		c := x.asks(t, b, "echo", "r", `"x"`)
		x.work(t, w)
		w.close()
		want := map[omdp.Dialect]string{
			omdp.OMDPFinal: `C|3|r|"W_ERROR"`, omdp.PIGATO: `C|3||r|-1|"W_ERROR"|undefined`,
			omdp.MDP02: "MDPC02|\x03|echo|" + `{"status":"W_ERROR"}`, omdp.MDP01: "|MDPC01|echo|" + `{"status":"W_ERROR"}`,
		}[x.dialect]
		if got := heard(t, c, "C|4"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		eventually(t, "nothing is left", func() bool { s := b.Stats(); return s.InProgress == 0 && s.Queued == 0 })
	})
}

// A request that expires is told to its client, in the queue and after dispatch;
// others drop it without a word, or never end it.
func TestPeerBugExpiryIsTold(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, _ *omdp.Broker, x otherMake) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{
			Timeout: 2 * beat, MaxTimeout: 2 * beat, // Majordomo's clients name none, and the others' is cut
			Listeners: []omdp.Listener{{Endpoint: newEndpoint(t, "inproc"), Dialect: x.dialect}},
		})
		want := map[omdp.Dialect]string{
			omdp.OMDPFinal: `C|3|r|"TIMEOUT"`, omdp.PIGATO: `C|3||r|-1|"TIMEOUT"|undefined`,
			omdp.MDP02: "MDPC02|\x03|SERVICE|" + `{"status":"TIMEOUT"`, omdp.MDP01: "|MDPC01|SERVICE|" + `{"status":"TIMEOUT"`,
		}[x.dialect]
		w := x.registers(t, b, "held")
		for _, service := range []string{"nobody", "held"} {
			c := x.asks(t, b, service, "r", `"x"`)
			if service == "held" {
				x.work(t, w)
			}
			if got, want := heard(t, c, "C|4"), put(want, "SERVICE", service); !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %q, want %q", service, got, want)
			}
		}
	})
}

// A final without a value is a final: that of zmq-omdp's last revision was not
// sent.
func TestPeerBugEndWithoutData(t *testing.T) {
	t.Parallel()
	overMakes(t, func(t *testing.T, b *omdp.Broker, x otherMake) {
		addWorker(t, b, "echo", nil, func(context.Context, *omdp.Request, *omdp.Response) error { return nil })
		x.answered(t, x.asks(t, b, "echo", "r", `"x"`), "echo", "r", "null")
	})
}

// Closing a broker while its peers leave: to unbind a ROUTER then aborts the
// process inside libzmq. It is closed, never unbound.
func TestPeerBugCloseAmongLeaving(t *testing.T) {
	t.Parallel()
	for range 20 {
		b := startBroker(t, newEndpoint(t, "tcp"), nil)
		var wg sync.WaitGroup
		for range 8 {
			p := dialRaw(t, b.Endpoint())
			p.say("W|1|echo")
			wg.Go(p.close)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}
