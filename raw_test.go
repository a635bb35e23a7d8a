package omdp_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
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
	return dialRawRoom(t, endpoint, 1<<16)
}

// dialRawRoom is dialRaw with room for so many messages that nobody has read.
func dialRawRoom(t testing.TB, endpoint string, room int) *rawPeer {
	t.Helper()
	p := &rawPeer{in: make(chan []string, room), done: make(chan struct{})}
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
	return dialTCP(t, endpoint).shakeHands(t, identity)
}

func (w *wire) shakeHands(t testing.TB, identity string) *wire {
	t.Helper()
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
	n := binary.BigEndian.Uint64(size)
	if n > 1<<30 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	body = make([]byte, n)
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
	c.say(`C|2|echo|1|"again"|{}`) // the id is not free for a while
	c.want(t, `C|3|1|{"status":"DUPLICATE","executed":true}`)
	c.say(`C|2|echo|2|"again"|{}`)
	c.want(t, "C|4|2")
	again := w.next(t)
	if again[2] == m[2] {
		t.Errorf("the token %q was used twice", m[2])
	}
	w.send("W", "3", m[2], "1", `{"status":200,"msg":"stale"}`)
	w.send("W", "3", again[2], "2", `{"status":200,"msg":"again"}`)
	c.want(t, `C|3|2|{"status":200,"msg":"again"}`)
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
		for _, rid := range []string{"1", "2"} {
			p := dialWire(t, b.Endpoint(), id)
			p.send("C", "2", "echo", rid, `"x"`, "{}")
			for _, want := range []string{"C|4|" + rid, "C|3|" + rid + `|{"status":200,"msg":"x"}`} {
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
