package omdp_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// garbage is what nobody should send: whole messages, by what is wrong with them.
func garbage() map[string][][]string {
	long := strings.Repeat("x", 256)
	many := func(n int, frame string) []string { return slices.Repeat([]string{frame}, n) }
	deep := strings.Repeat("[", 100_000)
	wrap := func(frames ...string) string { return string(envelope(frames...)) }
	g := map[string][][]string{
		"nothing":         {{""}, {"", ""}, {"", "", ""}},
		"header":          {{"C"}, {"W"}, {"X", "2"}, {"CC", "2"}, {"c", "2", "echo", "1", "x"}, {"\x00", "\x01"}, {"C2"}},
		"foreign headers": {{"MDPC02", "\x01", "echo", "x"}, {"MDPW02", "\x01", "echo"}, {"", "MDPC01", "echo", "x"}, {"", "C", "2", "echo", "1", "x"}},
		"command":         {{"C", ""}, {"C", "0"}, {"C", "7"}, {"C", "12"}, {"C", "-1"}, {"C", "2.0"}, {"C", " 2"}, {"C", "99999999999999999999"}, {"C", "\xff"}, {"C", "null"}, {"C", "undefined"}},
		"truncated":       {{"C", "2"}, {"C", "2", "echo"}, {"C", "2", "echo", "1"}, {"C", "8"}, {"C", "9"}, {"C", "9", "1"}, {"C", "10"}},
		"empty fields":    {{"C", "2", "", "1", "x", "{}"}, {"C", "2", "echo", "", "x", "{}"}, {"C", "4", ""}, {"C", "10", ""}, {"C", "9", "", "1"}, {"C", "8", ""}},
		"too long":        {{"C", "2", long, "1", "x", "{}"}, {"C", "2", "echo", long[:65], "x", "{}"}, {"C", "2", "echo", strings.Repeat("r", 1<<20), "x", "{}"}, {"C", "4", long}, {"C", "10", strings.Repeat("r", 1<<20)}},
		"too many frames": {{"C", "2", "echo", "1", "x", "{}", "more"}, {"C", "4", "1", "2"}, many(17, "C"), many(1000, "C"), many(1000, ""), append([]string{"C", "2", "echo", "1"}, many(1000, "x")...)},
		"options":         {{"C", "2", "echo", "o1", `"x"`, "{"}, {"C", "2", "echo", "o2", `"x"`, "[]"}, {"C", "2", "echo", "o3", `"x"`, `"x"`}, {"C", "2", "echo", "o4", `"x"`, `{"timeout":"soon"}`}, {"C", "2", "echo", "o5", `"x"`, `{"timeout":1e999}`}, {"C", "2", "echo", "o6", `"x"`, "undefined"}, {"C", "2", "echo", "o7", `"x"`, "\xff\x00"}, {"C", "2", "echo", "o8", `"x"`, `{"a":` + deep}},
		"data":            {{"C", "2", "echo", "d1", "undefined", "{}"}, {"C", "2", "echo", "d2", "", "{}"}, {"C", "2", "echo", "d3", "{", "{}"}, {"C", "2", "echo", "d4", "\xff\xfe", "{}"}, {"C", "2", "echo", "d5", deep, "{}"}},
		"service":         {{"C", "2", "__proto__", "s1", "1", `{"timeout":20}`}, {"C", "2", "toString", "s2", "1", `{"timeout":20}`}, {"C", "2", "constructor", "s3", "1", `{"timeout":20}`}, {"C", "2", "\x00\xff", "s4", "1", `{"timeout":20}`}},
		"hello":           {{"C", "8", "x"}, {"C", "8", "{}"}, {"C", "8", "null"}, {"C", "8", `{"v":1,"id":"","hb":1}`}, {"C", "8", `{"v":1,"id":"i","hb":1e30}`}, {"C", "8", `{"v":1,"id":"i","hb":-5}`}, {"C", "8", `{"v":1,"id":"i","hb":50,"credit":-1}`}, {"C", "8", `{"v":1,"id":"i d","hb":50}`}, {"C", "8", strings.Repeat(" ", 1<<20)}, {"C", "8", deep}},
		"credit":          {{"C", "9", "1", "-5"}, {"C", "9", "1", "0"}, {"C", "9", "1", "x"}, {"C", "9", "1", "99999999999999999999"}, {"C", "9", "1", ""}, {"C", "9", "unknown", "5"}},
		"not a client's":  {{"C", "1", "echo"}, {"C", "3", "1", "x"}, {"C", "5"}, {"C", "6", "1", "x"}, {"C", "11"}},
		"no READY":        {{"W", "3", "token", "1", "x"}, {"W", "6", "token", "1", "x"}, {"W", "4"}, {"W", "4", "token", "1"}, {"W", "5"}, {"W", "11"}, {"W", "8", "{}"}},
		"worker":          {{"W", ""}, {"W", "0"}, {"W", "1"}, {"W", "1", ""}, {"W", "1", long}, {"W", "1", "echo", "x"}, {"W", "1", "echo", "{}", "x"}, {"W", "2", "token", "1", "x"}, {"W", "3"}, {"W", "3", "token"}, {"W", "3", "token", "1"}, {"W", "4", "token"}, {"W", "9", "token", "1", "5"}, {"W", "10", "token", "1", "x"}, many(1000, "W")},
		"twice":           {{"W", "1", "garbage"}, {"W", "1", "garbage"}},
		"both roles":      {{"W", "1", "garbage"}, {"C", "2", "echo", "1", "x", "{}"}, {"C", "8", `{"v":1,"id":"i","hb":50}`}},
		"roles reversed":  {{"C", "8", `{"v":1,"id":"i","hb":50}`}, {"W", "1", "garbage"}, {"W", "3", "token", "1", "x"}},
		"envelopes": {
			{wrap()}, {wrap("")}, {wrap("C")}, {wrap("C", "2", "echo", "1")}, {wrap("X", "2", "echo", "1", "x")}, {wrap(many(1000, "")...)}, {wrap(many(17, "C")...)},
			{wrap("C", "4", "1") + "\x01"}, {wrap("C", "4", "1") + "\xff\xff\xff\xff"}, {wrap("C", "4") + "\x00\x00\x00\x80"}, {wrap(wrap("C", "4", "1"))}, {wrap("C", "4"), "1"}, {"C", "4", wrap("1")},
			{wrap("W", "3", "token", "1", "x")}, {wrap("W", "4", "token")}, {wrap("C", "2", "echo", strings.Repeat("r", 1<<20), "x", "{}")},
		},
		"worker's rubble": {{"W", "1", "garbage", `{"v":1,"id":"i","hb":50,"concurrency":1000000000}`}, {"W", "8", "x"}, {"W", "1", "garbage"}, {"W", "3", "", "", ""}, {"W", "6", long, long, long}},
	}
	return g
}

func TestRawGarbage(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		dialect := omdp.OMDP // a message of another dialect makes its peer one of that on an Auto listener
		if transport == "ipc" {
			dialect = omdp.Auto
		}
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Dialect: dialect})
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 4}, echo)
		c := addClient(t, b, nil)
		for kind, messages := range garbage() {
			p := dialRawRoom(t, b.Endpoint(), 1000)
			for _, m := range messages {
				p.send(m...)
			}
			served(t, c, "echo")
			for _, m := range messages { // each on a connection of its own as well
				p := dialRawRoom(t, b.Endpoint(), 1000)
				p.send(m...)
				p.send(m...)
				p.send("C", "4", "end")
				foreign, _ := otherDialect(m)
				for !foreign || dialect != omdp.Auto { // whatever it answers, it answers the end
					got := strings.Join(receive(t, kind+": an answer", p.in), "|")
					if strings.HasPrefix(got, "C|3|end|") || got == "W|5" {
						break
					}
				}
				p.close()
			}
			served(t, c, "echo")
		}
		s := b.Stats()
		if s.Malformed == 0 || s.Unregistered == 0 || s.Ignored == 0 {
			t.Errorf("got %d malformed, %d unregistered, %d ignored; want some of each", s.Malformed, s.Unregistered, s.Ignored)
		}
		eventually(t, "the garbage's requests end", func() bool {
			s := b.Stats()
			return s.Queued == 0 && s.InProgress == 0
		})
	})
}

// A broker that talks rubble costs its worker and client a connection at most:
// they count it, tell it once a connection, and go on.
func TestRawGarbageFromBroker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := bindRaw(t, newEndpoint(t, transport))
		var worker, client atomic.Pointer[string]
		stop, stopped := make(chan struct{}), make(chan struct{})
		defer func() { close(stop); <-stopped }()
		go func() { // a broker as far as it goes
			defer close(stopped)
			for {
				var m []string
				select {
				case m = <-b.in:
				case <-stop:
					return
				}
				switch id, command := m[0], strings.Join(m[1:min(len(m), 3)], "|"); {
				case command == "W|1":
					worker.Store(&id)
					b.send(id, "W", "8", `{"v":1,"id":"garbage","hb":50}`)
				case command == "C|8":
					client.Store(&id)
					b.send(id, "C", "8", `{"v":1,"id":"garbage","hb":50}`)
				case command == "W|4":
					b.send(id, "W", "4")
				case command == "C|2" && worker.Load() != nil:
					b.send(append([]string{*worker.Load(), "W", "2", id}, m[4:]...)...)
				case command == "W|3" || command == "W|6":
					b.send(append([]string{m[3], "C", m[2]}, m[4:]...)...)
				}
			}
		}()
		w := startWorker(t, b.endpoint, "echo", nil, echo)
		c := startClient(t, b.endpoint, nil)
		ready(t, w)
		ready(t, c)
		kinds := garbage()
		kinds["to a worker"] = [][]string{
			{"W", "2"}, {"W", "2", "token"}, {"W", "2", "token", "r"}, {"W", "2", "", "r", "x"}, {"W", "2", "token", "", "x"}, {"W", "2", "token", "r0", "undefined", "undefined", "undefined"},
			{"W", "2", "token", "r1", `"x"`, "{}", `{"remaining":1,"attempt":0,"credit":-1,"raw":maybe}`}, {"W", "2", "token", "r2", `"x"`, "{}", "{}", "{}"}, {"W", "2", "token", "r3", `"x"`, `{"timeout":{}}`},
			{"W", "9", "token", "r", "1"}, {"W", "9", "token", "r", "x"}, {"W", "10", "token", "r"}, {"W", "10", "token", "r", "cause"}, {"W", "8", `{"v":1,"id":"another","hb":50}`}, {"W", "11"}, {"W", "3", "r", "x"},
		}
		kinds["to a client"] = [][]string{
			{"C", "3"}, {"C", "3", "r"}, {"C", "3", "r", "x"}, {"C", "3", "", "x"}, {"C", "6", "r", "x", "y", "z"}, {"C", "3", "r", "{"}, {"C", "3", "r", "b", "x"}, {"C", "4", "r"}, {"C", "4", ""}, {"C", "9", "r", "1"},
			{"C", "8", `{"v":1,"id":"another","hb":50}`}, {"C", "11"}, {"W", "5"},
		}
		for kind, messages := range kinds {
			for _, m := range messages {
				b.send(append([]string{*worker.Load()}, m...)...)
				b.send(append([]string{*client.Load()}, m...)...)
			}
			// It may find the connection given up, and made anew.
			eventually(t, "a call is answered after "+kind, func() bool {
				m, err := c.Call(within(t), "echo", kind, omdp.WithTimeout(4*beat))
				return err == nil && m.String() == kind
			})
		}
		if n, k := w.Stats().Malformed, c.Stats().Malformed; n == 0 || k == 0 {
			t.Errorf("got %d malformed at the worker, %d at the client; want some", n, k)
		}
	})
}

// What a broker says of a request in progress that can't be read ends that
// request alone.
func TestRawBadReplies(t *testing.T) {
	t.Parallel()
	b := bindRaw(t, newEndpoint(t, "inproc"))
	c := startClient(t, b.endpoint, nil)
	for payload, want := range map[string]error{
		"": omdp.ErrProtocol, "x": omdp.ErrProtocol, "{": omdp.ErrProtocol, "[]": omdp.ErrProtocol, "null": omdp.ErrProtocol, "{}": omdp.ErrProtocol, `{"status":null}`: omdp.ErrProtocol,
		`{"status":"UNHEARD_OF"}`: omdp.ErrProtocol, `{"status":200,"msg":}`: omdp.ErrProtocol, `{"status":200,"msg":1}}`: omdp.ErrProtocol,
		`{"status":"TIMEOUT"}`: omdp.ErrTimeout, `{"status":"W_ERROR"}`: omdp.ErrWorkerLost, `{"status":"LOST"}`: omdp.ErrBrokerLost, `{"status":"OVERLOADED"}`: omdp.ErrOverloaded,
		`{"status":"DENIED"}`: omdp.ErrDenied, `{"status":"NO_WORKER"}`: omdp.ErrNoWorker, `{"status":"TOO_LARGE"}`: omdp.ErrTooLarge, // DRAINING has the client leave: client_retry_test.go

		`{"status":"SLOW_CLIENT"}`: omdp.ErrSlowConsumer, `{"status":"DUPLICATE"}`: omdp.ErrBrokerLost, `{"status":"MALFORMED"}`: omdp.ErrProtocol,
		"TIMEOUT":                     omdp.ErrTimeout, // zmq-omdp 955b90d
		`{"status":200,"msg":"good"}`: nil, `{"status":"200","msg":"good"}`: nil, `{"msg":"good","status":200}`: nil, `{ "status": 200, "msg": "good" }`: nil,
	} {
		other := goCall(t, c, "echo", "other")
		first := b.next(t, "C", "2")
		r := goCall(t, c, "echo", payload)
		m := b.next(t, "C", "2")
		b.send(m[0], "C", "3", m[4], payload)
		got := receive(t, "the call's end", r)
		if want == nil && got != (result{"good", nil}) || want != nil && !errors.Is(got.err, want) {
			t.Errorf("%s: got %v, want %v", payload, got, want)
		}
		b.send(first[0], "C", "3", first[4], `{"status":200,"msg":"other"}`)
		if r := receive(t, "the other call's end", other); r != (result{"other", nil}) {
			t.Errorf("%s: got %v for another call, want other", payload, r)
		}
	}
	if s := c.Stats(); s.Connections != 1 {
		t.Errorf("got %d connections, want 1", s.Connections)
	}
}

// Random frames out of the protocol's own pieces, from many peers at a time.
func TestRawRandomFrames(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{Malformed: 1 << 30, Clients: 16}})
	addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 4}, echo)
	c := addClient(t, b, nil)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{
		string(envelope("C", "4", "r1")), string(envelope("C", "2", "echo", "r3", `"x"`)), string(envelope("W", "1", "x")), string(envelope("C", "2"))[:5],
		"C", "W", "", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "\x01", "\x02", "b", "200", "0", "-1",
		"echo", "x", "__proto__", "mmi.service", "r1", "r2", `"data"`, "undefined", "null", "{}", `{"timeout":5}`, `{"timeout":-1}`, `{"failFast":true}`,
		`{"v":1,"id":"life","hb":10}`, `{"v":1,"id":"life2","hb":60000,"concurrency":9,"credit":1}`, `{"status":200,"msg":1}`, `{"status":"TIMEOUT"}`, "\xff\xfe", strings.Repeat("x", 300),
	}
	peers := make([]*rawPeer, 6)
	for i := range 1200 {
		k := rng.IntN(len(peers))
		if peers[k] == nil || rng.IntN(100) == 0 {
			if peers[k] != nil {
				peers[k].close()
			}
			peers[k] = dialRaw(t, b.Endpoint())
		}
		p := peers[k]
		var m []string
		switch rng.IntN(4) {
		case 0: // a worker that is given requests and answers them by chance
			m = []string{"W", "1", "x"}
			select {
			case got := <-p.in:
				if len(got) > 3 {
					m = []string{"W", pieces[rng.IntN(len(pieces))], got[2], got[3], `{"status":200,"msg":1}`}
				}
			default:
			}
		case 1:
			m = []string{"C", "2", pieces[rng.IntN(len(pieces))], pieces[rng.IntN(len(pieces))], pieces[rng.IntN(len(pieces))], pieces[rng.IntN(len(pieces))]}
		default:
			for range 1 + rng.IntN(8) {
				m = append(m, pieces[rng.IntN(len(pieces))])
			}
		}
		p.send(m...)
		if i%50 == 0 {
			served(t, c, "echo")
		}
	}
	served(t, c, "echo")
}

// What is no ZMTP at all, or only begins as such, is cut off and harms nobody.
func TestRawBytesOnTheSocket(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{Handshake: 200 * time.Millisecond, MaxFrame: 1 << 20}})
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	random := make([]byte, 1<<16)
	rand.NewChaCha8([32]byte{2}).Read(random)
	for _, text := range []string{
		"", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL" + strings.Repeat("\x00", 48) + "\x04\xff" + strings.Repeat("\xff", 255), string(random),
	} {
		p := dialTCP(t, b.Endpoint())
		p.Write([]byte(text))
		if _, err := io.Copy(io.Discard, p.r); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%.20q: the connection was not closed", text)
		}
		served(t, c, "echo")
	}

	// A frame over the limit, announced or sent, costs the connection.
	for _, frame := range []string{"\x02\x7f\xff\xff\xff\xff\xff\xff\xff", "\x02\x00\x00\x00\x00\x00\x20\x00\x00" + strings.Repeat("x", 2<<20)} {
		p := dialWire(t, b.Endpoint(), "large")
		p.Write([]byte(frame))
		if _, err := p.next(); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("a frame over MaxFrame: got %v, want the connection closed", err)
		}
		served(t, c, "echo")
	}
}

// Malformed messages are counted and logged once a peer; at the limit the peer
// is ignored for a while, and nobody else.
func TestRawMalformedIsIgnored(t *testing.T) {
	t.Parallel()
	var l logs
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{
		Logger: l.logger(),
		Limits: omdp.Limits{Malformed: 3, IgnoreTime: 300 * time.Millisecond},
	})
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	p := dialRaw(t, b.Endpoint())
	p.say("C|2")
	p.say("C|2")
	p.quiet(t)
	p.say("C|2")
	p.say(`C|2|echo|ignored|"x"|{}`)
	eventually(t, "a message is ignored", func() bool { return b.Stats().Ignored == 1 })
	served(t, c, "echo")
	eventually(t, "it is heard again", func() bool {
		p.say("C|4|back")
		select {
		case m := <-p.in:
			return strings.Join(m, "|") == `C|3|back|{"status":"LOST"}`
		default:
			return false
		}
	})
	if s := b.Stats(); s.Malformed != 3 || s.Accepted != 1 {
		t.Errorf("got %d malformed, %d accepted; want 3, 1", s.Malformed, s.Accepted)
	}
	if n := l.count("malformed message;"); n != 1 {
		t.Errorf("got %d log lines of malformed messages, want 1", n)
	}
	if n := l.count("peer ignored"); n != 1 {
		t.Errorf("got %d log lines of an ignored peer, want 1", n)
	}
}

// A breach of protocol by a worker: "Broker SHALL force disconnect … if any
// error occurs". What it held ends, and the next of its kind is served.
func TestRawWorkerBreaches(t *testing.T) {
	t.Parallel()
	for name, breach := range map[string]string{
		"second READY": "W|1|echo", "second READY, another service": "W|1|other", "malformed": "W|3|x",
		"unknown command": "W|12", "as a client": `C|2|echo|1|"x"|{}`, "caps": "W|8|x", "token": "W|4|x|y",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, "inproc"), nil)
			w, c := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
			w.say("W|1|echo")
			c.say(`C|2|echo|1|"x"|{}`)
			w.next(t)
			w.say(breach)
			w.want(t, "W|5")
			c.want(t, "C|4|1")
			c.want(t, `C|3|1|{"status":"W_ERROR"}`)
			c.quiet(t)
			if s := b.Stats(); s.Workers != 0 || s.WorkerLost != 1 || s.InProgress != 0 {
				t.Errorf("got %d workers, %d lost, %d in progress; want 0, 1, 0", s.Workers, s.WorkerLost, s.InProgress)
			}
			w.say("W|1|echo") // it starts anew
			c.say(`C|2|echo|2|"x"|{}`)
			m := w.next(t)
			w.send("W", "3", m[2], m[3], `{"status":200,"msg":"x"}`)
			c.want(t, "C|4|2")
			c.want(t, `C|3|2|{"status":200,"msg":"x"}`)
		})
	}
}

// A command before READY is answered with DISCONNECT, so that the worker
// registers; a DISCONNECT is not answered.
func TestRawBeforeReady(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	for _, m := range []string{"W|4", "W|3|token|1|x", "W|6|token|1|x", "W|4|token|1", "W|11", `W|8|{"v":1,"id":"i","hb":50}`} {
		p := dialRaw(t, b.Endpoint())
		p.say("W|5")
		p.say(m)
		p.want(t, "W|5")
		p.say("W|1|echo")
		if got := p.beaten(t); got != nil {
			t.Errorf("after %s and READY: got %q, want heartbeats alone", m, got)
		}
	}
}
