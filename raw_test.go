package omdp_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// Peers that write their frames by hand: what the broker, a client and a
// worker do with what no peer of this library would send, and what peers of
// other libraries, which do not advertise, get to see.

// rawPeer is a DEALER.
type rawPeer struct {
	conn *zsock.Conn
	in   chan []string
	done chan struct{}
}

func dialRaw(t testing.TB, endpoint string) *rawPeer {
	t.Helper()
	p := &rawPeer{in: make(chan []string, 1<<16), done: make(chan struct{})}
	c, err := zsock.Dial(zsock.ConnOptions{Endpoint: endpoint, NoMonitor: true, Deliver: func(in *batch.In) {
		for f := in.Next(); f != nil; f = in.Next() {
			p.in <- texts(f)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.conn = c
	go func() {
		defer close(p.done)
		c.Run(nil)
	}()
	t.Cleanup(p.close)
	return p
}

func texts(frames [][]byte) []string {
	m := make([]string, len(frames))
	for i, f := range frames {
		m[i] = string(f)
	}
	return m
}

func (p *rawPeer) send(frames ...string) {
	o := p.conn.Begin()
	o.Begin()
	for _, f := range frames {
		o.FrameString(f)
	}
	o.End()
	p.conn.Flush()
}

// say sends frames without a | in them.
func (p *rawPeer) say(m string) { p.send(strings.Split(m, "|")...) }

// next is the next message but bare heartbeats of the broker.
func (p *rawPeer) next(t testing.TB) []string {
	t.Helper()
	for {
		if m := receive(t, "a message", p.in); !slices.Equal(m, []string{"W", "4"}) {
			return m
		}
	}
}

// want is next with frames that are known.
func (p *rawPeer) want(t testing.TB, want string) {
	t.Helper()
	if got := strings.Join(p.next(t), "|"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// after is want, with any number of the message skip before it: heartbeats of
// a request, which come when they are due.
func (p *rawPeer) after(t testing.TB, skip, want string) {
	t.Helper()
	got := skip
	for got == skip {
		got = strings.Join(p.next(t), "|")
	}
	if got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// fence waits until the broker has done all that came before on this
// connection, and returns what it said meanwhile: it answers a heartbeat for
// a request that it does not know, in order. For clients.
func (p *rawPeer) fence(t testing.TB) (before []string) {
	t.Helper()
	rid := fmt.Sprint("fence-", endpointCount.Add(1))
	p.send("C", "4", rid)
	for {
		m := strings.Join(p.next(t), "|")
		if m == "C|3|"+rid+`|{"status":"LOST"}` {
			return before
		}
		before = append(before, m)
	}
}

// quiet checks that the broker has said nothing more to a client.
func (p *rawPeer) quiet(t testing.TB) {
	t.Helper()
	if got := p.fence(t); got != nil {
		t.Errorf("got %q, want nothing more", got)
	}
}

// beaten waits for two heartbeats of the broker to a worker: what it had to
// say before it has said. It returns that.
func (p *rawPeer) beaten(t testing.TB) (before []string) {
	t.Helper()
	for n := 0; n < 2; {
		m := strings.Join(receive(t, "a heartbeat", p.in), "|")
		if m == "W|4" {
			n++
		} else {
			before = append(before, m)
		}
	}
	return before
}

// close leaves without a word.
func (p *rawPeer) close() {
	p.conn.Stop()
	<-p.done
	p.conn.Close()
}

// rawBroker is a ROUTER.
type rawBroker struct {
	endpoint string
	router   *zsock.Router
	in       chan []string // the routing id first

	mu   sync.Mutex
	out  batch.Out
	stop bool
}

func bindRaw(t testing.TB, endpoint string) *rawBroker {
	t.Helper()
	r, err := zsock.NewRouter(zsock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &rawBroker{router: r, in: make(chan []string, 1<<16)}
	if b.endpoint, err = r.Bind(endpoint); err != nil {
		r.Close()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		b.serve()
	}()
	t.Cleanup(func() {
		b.mu.Lock()
		b.stop = true
		b.mu.Unlock()
		r.Wake()
		<-done
	})
	return b
}

func (b *rawBroker) serve() {
	var out batch.Out
	var in batch.In
	for {
		b.mu.Lock()
		out, b.out = b.out, out
		stop := b.stop
		b.mu.Unlock()
		if stop {
			return
		}
		more, err := b.router.Exchange(&out, &in)
		out.Reset()
		for f := in.Next(); f != nil; f = in.Next() {
			b.in <- texts(f)
		}
		if err == nil && !more {
			err = b.router.Wait(time.Time{})
		}
		if err != nil {
			return
		}
	}
}

func (b *rawBroker) send(frames ...string) {
	b.mu.Lock()
	b.out.Begin()
	for _, f := range frames {
		b.out.FrameString(f)
	}
	b.out.End()
	b.mu.Unlock()
	b.router.Wake()
}

// next is the next message whose first two frames after the routing id are these.
func (b *rawBroker) next(t testing.TB, header, command string) []string {
	t.Helper()
	for {
		m := receive(t, "a message "+header+"|"+command, b.in)
		if m[1] == header && len(m) > 2 && m[2] == command {
			return m
		}
	}
}

// wire is a peer that speaks ZMTP 3.0 by hand, and so can claim what no
// library lets it claim, or stop reading.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// dialWire connects and shakes hands as a DEALER with the given identity.
func dialWire(t testing.TB, endpoint, identity string) *wire {
	t.Helper()
	w := dialTCP(t, endpoint)
	greeting := make([]byte, 64)
	copy(greeting, "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL")
	ready := []byte("\x05READY")
	for _, p := range [][2]string{{"Socket-Type", "DEALER"}, {"Identity", identity}} {
		ready = append(ready, byte(len(p[0])))
		ready = append(ready, p[0]...)
		ready = binary.BigEndian.AppendUint32(ready, uint32(len(p[1])))
		ready = append(ready, p[1]...)
	}
	w.Write(greeting)
	w.Write(append(binary.BigEndian.AppendUint64([]byte{6}, uint64(len(ready))), ready...))
	if _, err := io.ReadFull(w.r, greeting); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	if flags, _, err := w.frame(); err != nil || flags&4 == 0 {
		t.Fatalf("handshake: got flags %x, %v; want a command", flags, err)
	}
	return w
}

func dialTCP(t testing.TB, endpoint string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return &wire{c, bufio.NewReader(c)}
}

func (w *wire) frame() (flags byte, body []byte, err error) {
	if flags, err = w.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	size := make([]byte, 8)
	if flags&2 != 0 {
		_, err = io.ReadFull(w.r, size)
	} else {
		size[7], err = w.r.ReadByte()
	}
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint64(size))
	_, err = io.ReadFull(w.r, body)
	return flags, body, err
}

func (w *wire) send(frames ...string) error {
	var b []byte
	for i, f := range frames {
		more := byte(1)
		if i == len(frames)-1 {
			more = 0
		}
		if len(f) > 255 {
			b = binary.BigEndian.AppendUint64(append(b, more|2), uint64(len(f)))
		} else {
			b = append(b, more, byte(len(f)))
		}
		b = append(b, f...)
	}
	_, err := w.Write(b)
	return err
}

// next is the next message but libzmq's own commands.
func (w *wire) next() (m []string, err error) {
	for {
		flags, body, err := w.frame()
		switch {
		case err != nil:
			return nil, err
		case flags&4 != 0:
			continue
		}
		if m = append(m, string(body)); flags&1 == 0 {
			return m, nil
		}
	}
}

func TestRawSameRequestIDs(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 2}, h.handle)
		one, two := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
		one.say(`C|2|echo|1|"one"|{}`)
		two.say(`C|2|echo|1|"two"|{}`)
		receive(t, "a request", h.began)
		receive(t, "the other request", h.began)
		close(h.free)
		for p, data := range map[*rawPeer]string{one: "one", two: "two"} {
			p.want(t, "C|4|1")
			p.after(t, "C|4|1", `C|3|1|{"status":200,"msg":"`+data+`"}`)
			p.quiet(t)
		}
	})
}

// What one client cancels, grants or beats for touches nothing of another
// that uses the same id.
func TestRawClientsTouchTheirOwnOnly(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	w := dialRaw(t, b.Endpoint())
	w.say(`W|1|echo|{"v":1,"id":"worker","hb":50,"concurrency":2}`)
	w.next(t) // W|8
	owner, thief := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
	owner.say(`C|2|echo|1|"mine"|{}`)
	owner.want(t, "C|4|1")
	token := w.next(t)[2]
	for _, m := range []string{"C|10|1", "C|9|1|1000", "C|4|1"} {
		thief.say(m)
	}
	if got, want := thief.fence(t), []string{`C|3|1|{"status":"LOST"}`}; !slices.Equal(got, want) {
		t.Errorf("the thief got %q, want %q", got, want)
	}
	if got := w.beaten(t); got != nil {
		t.Errorf("the worker got %q, want nothing", got)
	}
	w.send("W", "3", token, "1", `{"status":200,"msg":"yours"}`)
	owner.want(t, `C|3|1|{"status":200,"msg":"yours"}`)
	if s := b.Stats(); s.Canceled != 0 {
		t.Errorf("got %d cancelled, want none", s.Canceled)
	}
}

func TestRawWorkerAnswersOnlyWhatItHolds(t *testing.T) {
	t.Parallel()
	for _, forged := range []string{
		`W|3|TOKEN|1|{"status":200,"msg":"forged"}`,
		`W|6|TOKEN|1|{"status":200,"msg":"forged"}`,
		`W|4|TOKEN|1`,
		`W|3|TOKEN|2|{"status":200,"msg":"another id"}`,
		`W|3|AAAAAAAAAAAAAAAAAAAAAAAAAA|1|{"status":200,"msg":"guessed"}`,
		`W|3|x|1|{"status":200,"msg":"short"}`,
	} {
		for _, service := range []string{"echo", "other"} {
			t.Run(service, func(t *testing.T) {
				t.Parallel()
				b := startBroker(t, newEndpoint(t, "inproc"), nil)
				holder, thief, c := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
				holder.say("W|1|echo")
				holder.beaten(t)
				thief.say("W|1|" + service)
				thief.beaten(t)
				c.say(`C|2|echo|1|"x"|{}`)
				c.want(t, "C|4|1")
				m := holder.next(t)
				thief.say(strings.ReplaceAll(forged, "TOKEN", m[2]))
				thief.want(t, "W|5")
				c.quiet(t)
				holder.send("W", "3", m[2], m[3], `{"status":200,"msg":"honest"}`)
				c.want(t, `C|3|1|{"status":200,"msg":"honest"}`)
				c.quiet(t)
				if s := b.Stats(); s.Forged != 1 || s.Completed != 1 || s.Workers != 1 {
					t.Errorf("got %d forged, %d completed, %d workers; want 1, 1, 1", s.Forged, s.Completed, s.Workers)
				}
			})
		}
	}
}

// A worker that answers twice, or after it lost the request, is heard by nobody.
func TestRawStaleAnswers(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	w, c := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
	w.say("W|1|echo")
	c.say(`C|2|echo|1|"x"|{}`)
	c.want(t, "C|4|1")
	m := w.next(t)
	for range 3 {
		w.send("W", "3", m[2], "1", `{"status":200,"msg":"x"}`)
	}
	c.want(t, `C|3|1|{"status":200,"msg":"x"}`)
	c.say(`C|2|echo|1|"again"|{}`) // the id is free again
	c.want(t, "C|4|1")
	again := w.next(t)
	if again[2] == m[2] {
		t.Errorf("the token %q was used twice", m[2])
	}
	w.send("W", "3", m[2], "1", `{"status":200,"msg":"stale"}`)
	w.send("W", "3", again[2], "1", `{"status":200,"msg":"again"}`)
	c.want(t, `C|3|1|{"status":200,"msg":"again"}`)
	c.quiet(t)
	if s := b.Stats(); s.StaleTokens != 3 || s.Forged != 0 || s.Completed != 2 {
		t.Errorf("got %d stale, %d forged, %d completed; want 3, 0, 2", s.StaleTokens, s.Forged, s.Completed)
	}
}

func TestRawLiveIDCreatesNothing(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 4}, h.handle)
		c := dialRaw(t, b.Endpoint())
		c.say(`C|2|echo|1|"first"|{}`)
		c.say(`C|2|echo|1|"second"|{}`)                 // in progress
		c.say(`C|2|other|1|"third"|{}`)                 // for another service
		c.say(`C|2|nobody|2|"queued"|{"timeout":-1}`)   // in the queue
		c.say(`C|2|nobody|2|"queued 2"|{"timeout":-1}`) // the same
		c.want(t, "C|4|1")
		if got := receive(t, "the request", h.began); got != "first" {
			t.Errorf("got %q, want first", got)
		}
		if got := c.fence(t); slices.ContainsFunc(got, func(m string) bool { return m != "C|4|1" }) {
			t.Errorf("got %q, want heartbeats at most", got)
		}
		if s := b.Stats(); s.Duplicates != 3 || s.Accepted != 2 || s.Dispatched != 1 || s.Queued != 1 {
			t.Errorf("got %d duplicates, %d accepted, %d dispatched, %d queued; want 3, 2, 1, 1", s.Duplicates, s.Accepted, s.Dispatched, s.Queued)
		}
		close(h.free)
		c.after(t, "C|4|1", `C|3|1|{"status":200,"msg":"first"}`)
		c.quiet(t)
	})
}

// A ROUTER names anonymous peers 00‖uint32, counting from rand(). Unseeded,
// the first is 00 6b8b4567, and a peer that claims it makes libzmq abort when
// the next anonymous one connects (reliability.md, fact 1).
func TestRawClaimedAutomaticIdentity(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	for i := range uint32(16) {
		id := binary.BigEndian.AppendUint32([]byte{0}, 0x6b8b4567+i)
		dialWire(t, b.Endpoint(), string(id)).send("C", "4")
	}
	for i := range 16 {
		p := dialWire(t, b.Endpoint(), "")
		p.send("C", "2", "echo", "1", fmt.Sprint(i), "{}")
		for _, want := range []string{"C|4|1", fmt.Sprintf(`C|3|1|{"status":200,"msg":%d}`, i)} {
			m, err := p.next()
			if got := strings.Join(m, "|"); err != nil || got != want {
				t.Fatalf("anonymous peer %d got %s, %v; want %s", i, got, err, want)
			}
		}
	}
	served(t, c, "echo")
}

// Any bytes may be an identity, and a second peer that claims a known one
// takes over from the first, which gets no more.
func TestRawIdentities(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	for _, id := range []string{"x", "\xff\xfe\xfd", "C", strings.Repeat("\x01", 255), "a\x00b", "__proto__"} {
		for range 2 {
			p := dialWire(t, b.Endpoint(), id)
			p.send("C", "2", "echo", "1", `"x"`, "{}")
			for _, want := range []string{"C|4|1", `C|3|1|{"status":200,"msg":"x"}`} {
				m, err := p.next()
				if got := strings.Join(m, "|"); err != nil || got != want {
					t.Fatalf("peer %q got %s, %v; want %s", id, got, err, want)
				}
			}
		}
	}
	served(t, c, "echo")
}

// envelope packs frames into one, as peers that advertise it may send them.
func envelope(frames ...string) []byte {
	b := []byte{batch.Mark}
	for _, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// Envelopes are read from everybody, and sent to those alone who say that they
// read them.
func TestRawEnvelopes(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		w, packs, native := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
		w.send(string(envelope("W", "1", "echo")))
		packs.say(`C|8|{"v":1,"id":"packs","hb":60000,"pack":1}`)
		packs.next(t)
		native.say(`C|8|{"v":1,"id":"native","hb":60000}`)
		native.next(t)
		for _, k := range []struct {
			c    *rawPeer
			read func(m []string) string
		}{
			{packs, func(m []string) string {
				if len(m) != 1 {
					t.Errorf("got %q, want one frame", m)
				}
				return m[0]
			}},
			{native, func(m []string) string { return string(envelope(m...)) }},
		} {
			k.c.send(string(envelope("C", "2", "echo", "1", `"x"`, "{}")))
			m := w.next(t)
			if len(m) != 6 || m[4] != `"x"` {
				t.Fatalf("the worker got %q, want the native frames", m)
			}
			w.send(string(envelope("W", "3", m[2], "1", `{"status":200,"msg":"y"}`)))
			if got, want := k.read(k.c.next(t)), string(envelope("C", "3", "1", `{"status":200,"msg":"y"}`)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

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
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 4}, echo)
		c := addClient(t, b, nil)
		for kind, messages := range garbage() {
			p := dialRaw(t, b.Endpoint())
			for _, m := range messages {
				p.send(m...)
			}
			served(t, c, "echo")
			for _, m := range messages { // each on a connection of its own as well
				p := dialRaw(t, b.Endpoint())
				p.send(m...)
				p.send(m...)
				p.send("C", "4", "end")
				for { // whatever it answers, it answers the end
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
		`{"status":"DENIED"}`: omdp.ErrDenied, `{"status":"NO_WORKER"}`: omdp.ErrNoWorker, `{"status":"TOO_LARGE"}`: omdp.ErrTooLarge, `{"status":"DRAINING"}`: omdp.ErrBrokerLost,
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

// A client that does not advertise, as Node's, gets the native frames and none
// of the extensions, also from a worker that has them.
func TestRawForeignClient(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		next := make(chan struct{}, 2)
		addWorker(t, b, "parts", &omdp.WorkerConfig{Concurrency: 4}, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			fmt.Fprint(res, "text")
			res.Write([]byte{0xff, 0})
			res.Send(map[string]int{"n": 1})
			receive(t, "leave to end", next)
			return res.End([]byte("end"))
		})
		addWorker(t, b, "error", nil, func(context.Context, *omdp.Request, *omdp.Response) error {
			return &omdp.Error{Code: "TEAPOT", Data: []byte(`{"short":true}`)}
		})
		c := dialRaw(t, b.Endpoint())
		c.say(`C|4`) // a bare heartbeat is not answered
		c.say(`C|2|parts|rid-1|"x"|{"timeout":60000}`)
		for _, want := range []string{
			"C|4|rid-1", `C|6|rid-1|{"status":200,"msg":"text"}`,
			`C|6|rid-1|{"status":200,"msg":{"type":"Buffer","data":[255,0]}}`, `C|6|rid-1|{"status":200,"msg":{"n":1}}`,
		} {
			c.want(t, want)
		}
		c.want(t, "C|4|rid-1") // the worker's heartbeat for it
		next <- struct{}{}
		c.after(t, "C|4|rid-1", `C|3|rid-1|{"status":200,"msg":"end"}`)
		c.say(`C|2|error|rid-2|"x"`) // options may be missing
		c.want(t, "C|4|rid-2")
		c.want(t, `C|3|rid-2|{"status":"TEAPOT","msg":{"short":true}}`)
		c.say(`C|2|error|rid-3|undefined|{}`)
		c.want(t, "C|4|rid-3")
		c.want(t, `C|3|rid-3|{"status":500,"msg":"ERR_MSG_PARSE"}`)
		c.say(`C|2|nobody|rid-4|"x"|{"timeout":20}`)
		c.want(t, `C|3|rid-4|{"status":"TIMEOUT","executed":false}`)
		c.quiet(t)

		c.say(`C|2|parts|rid-5|"x"|{"timeout":-1}`)
		for range 4 {
			c.next(t)
		}
		go b.Shutdown(within(t))
		eventually(t, "the broker drains", func() bool {
			rid := fmt.Sprint("late-", endpointCount.Add(1))
			c.say("C|2|nobody|" + rid + `|"x"|{"failFast":true}`)
			for {
				m := strings.Join(c.next(t), "|")
				switch status, answered := strings.CutPrefix(m, "C|3|"+rid+"|"); {
				case answered && status == `{"status":"DRAINING","executed":false}`:
					return true
				case answered && status == `{"status":"NO_WORKER","executed":false}`:
					return false
				case m != "C|4|rid-5":
					t.Errorf("got %s", m)
				}
			}
		})
		close(next)
	})
}

// A worker that does not advertise, as Node's, gets the native frames and none
// of the extensions, also when the client has them.
func TestRawForeignWorker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		if got := w.beaten(t); got != nil {
			t.Errorf("READY was answered by %q, want heartbeats alone", got)
		}
		c := addClient(t, b, nil)
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		first := make(chan result, 1)
		s := c.RequestStream(ctx, "echo", "hi", omdp.WithTimeout(time.Minute), omdp.WithMetadata(map[string]string{"k": "v"}))
		go func() {
			b, err := io.ReadAll(s)
			first <- result{string(b), err}
		}()
		m := w.next(t)
		if len(m) != 6 || m[0] != "W" || m[1] != "2" || m[4] != `"hi"` || !strings.HasSuffix(m[5], `"meta":{"k":"v"}}`) {
			t.Fatalf("got %q, want W|2|token|rid|data|options", m)
		}
		for i := range m[2] + m[3] {
			if c := (m[2] + m[3])[i]; c <= ' ' || c > '~' {
				t.Errorf("token %q and id %q are not printable", m[2], m[3])
			}
		}
		beats := 0
		for beats < 3 { // the client's heartbeats for its request are forwarded
			got := strings.Join(w.next(t), "|")
			if got != "W|4|"+m[2]+"|"+m[3] {
				t.Fatalf("got %s, want heartbeats for the request", got)
			}
			beats++
		}
		big := strings.Repeat("x", 100_000) // more than a window, without credit
		for range 5 {
			w.send("W", "6", m[2], m[3], `{"status":200,"msg":"`+big+`"}`)
		}
		w.send("W", "3", m[2], m[3], `{"status":200,"msg":null}`)
		if r := receive(t, "the stream's end", first); r.err != nil || r.msg != strings.Repeat(big, 5) {
			t.Errorf("got %d bytes, %v; want %d", len(r.msg), r.err, 5*len(big))
		}

		// It is not told of a cancel, so its place drains until it says so.
		first2 := c.RequestStream(ctx, "echo", "cancelled")
		m = w.next(t)
		for m[1] == "4" {
			m = w.next(t)
		}
		first2.Close()
		second := goCall(t, c, "echo", "second")
		eventually(t, "the second is queued", func() bool { return b.Stats().Queued == 1 })
		for _, got := range w.beaten(t) {
			if got != "W|4|"+m[2]+"|"+m[3] {
				t.Errorf("got %s, want nothing but heartbeats", got)
			}
		}
		w.send("W", "3", m[2], m[3], `{"status":200,"msg":"too late"}`)
		m = w.next(t)
		for m[1] == "4" {
			m = w.next(t)
		}
		if m[1] != "2" || m[4] != `"second"` || m[5] == "" {
			t.Fatalf("got %q, want the second request", m)
		}
		w.send("W", "3", m[2], m[3], `{"status":200,"msg":"done"}`)
		if r := receive(t, "the second's end", second); r != (result{"done", nil}) {
			t.Errorf("got %v, want done", r)
		}
		go b.Shutdown(within(t))
		for got := strings.Join(w.next(t), "|"); got != "W|5"; got = strings.Join(w.next(t), "|") {
			if got != "W|4|"+m[2]+"|"+m[3] {
				t.Fatalf("got %s, want W|5 alone", got)
			}
		}
	})
}

// A broker that does not advertise, as Node's: our peers send it the native
// frames, and what those brokers ignore (HELLO, the extra READY frame).
func TestRawForeignBroker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := bindRaw(t, newEndpoint(t, transport))
		gone := make(chan error, 1)
		w := startWorker(t, b.endpoint, "echo", &omdp.WorkerConfig{Concurrency: 3}, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			fmt.Fprint(res, "part")
			if string(req.Bytes()) == "long" {
				<-ctx.Done()
				gone <- context.Cause(ctx)
			}
			return res.End(req.Message())
		})
		m := b.next(t, "W", "1")
		if len(m) != 5 || m[3] != "echo" || !strings.Contains(m[4], `"concurrency":3`) {
			t.Errorf("got %q, want W|1|echo|caps", m)
		}
		worker := m[0]
		if len(worker) != 22 {
			t.Errorf("got identity %q, want 22 printable characters", worker)
		}
		b.send(worker, "W", "4")
		ready(t, w)
		c := startClient(t, b.endpoint, nil)
		m = b.next(t, "C", "8")
		client := m[0]
		answer := goCall(t, c, "echo", "hi", omdp.WithTimeout(time.Second))
		m = b.next(t, "C", "2")
		if len(m) != 7 || m[0] != client || m[3] != "echo" || m[5] != `"hi"` || m[6] != `{"timeout":1000}` {
			t.Fatalf("got %q, want C|2|echo|rid|\"hi\"|{\"timeout\":1000}", m)
		}
		rid := m[4]
		if len(rid) > 64 || strings.ContainsFunc(rid, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("got request id %q, want printable, 64 bytes at most", rid)
		}
		b.send(worker, "W", "2", client, rid, m[5], m[6])
		b.send(client, "C", "4", rid)
		ready(t, c)
		for _, want := range []string{`6|` + client + "|" + rid + `|{"status":200,"msg":"part"}`, `3|` + client + "|" + rid + `|{"status":200,"msg":"hi"}`} {
			m = b.next(t, "W", want[:1])
			if got := strings.Join(m[2:], "|"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			b.send(client, "C", m[2], rid, m[5])
		}
		if r := receive(t, "the answer", answer); r != (result{"hi", nil}) {
			t.Errorf("got %v, want hi", r)
		}

		// Heartbeats of a request, both ways; a cancel is kept from the broker.
		ctx, cancel := context.WithCancel(within(t))
		long := c.RequestStream(ctx, "echo", "long")
		m = b.next(t, "C", "2")
		rid = m[4]
		b.send(worker, "W", "2", client, rid, m[5], m[6])
		if m = b.next(t, "W", "4"); len(m) == 3 {
			for len(m) == 3 {
				m = b.next(t, "W", "4")
			}
		}
		if got := strings.Join(m[3:], "|"); got != client+"|"+rid {
			t.Errorf("got a heartbeat for %s, want %s|%s", got, client, rid)
		}
		for m = b.next(t, "C", "4"); len(m) < 4 || m[3] != rid; m = b.next(t, "C", "4") {
		}
		cancel()
		if _, err := io.ReadAll(long); err == nil {
			t.Error("the cancelled stream ended well")
		}
		done := make(chan error, 1)
		stop, end := context.WithTimeout(context.Background(), 2*beat)
		defer end()
		go func() { done <- w.Shutdown(stop) }()
		for {
			m := receive(t, "DISCONNECT", b.in)
			switch k := strings.Join(m[1:min(len(m), 3)], "|"); k {
			case "W|5":
				receive(t, "the shutdown's end", done)
				receive(t, "the handler's end", gone)
				return
			case "W|4", "W|6", "W|3", "C|4", "C|8":
			default:
				t.Errorf("got %q, which a Node broker does not know", m)
			}
		}
	})
}

// "Client MAY send heartbeat for active request": one for a request that the
// broker does not hold is answered LOST, to a stranger as well.
func TestRawUnknownRequestIsLost(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		stranger, c := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
		stranger.say("C|4|x-1")
		stranger.want(t, `C|3|x-1|{"status":"LOST"}`)
		c.say(`C|8|{"v":1,"id":"life","hb":60000}`)
		c.next(t)
		c.say("C|4|y-1")
		c.want(t, `C|3|y-1|{"status":"LOST"}`)
		c.say(`C|2|nobody|y-2|1|{"timeout":-1}`)
		c.say("C|4|y-2") // held: nothing to say
		c.say("C|10|y-2")
		c.say("C|4|y-2") // cancelled: not held any more
		c.want(t, `C|3|y-2|{"status":"LOST"}`)
		c.quiet(t)
		if s := b.Stats(); s.UnknownRequests != 4 || s.Canceled != 1 {
			t.Errorf("got %d unknown, %d cancelled; want 4, 1", s.UnknownRequests, s.Canceled)
		}
	})
}
