package omdp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// noise is n bytes that are neither text nor alike.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Data that is bytes arrives as these bytes.
func TestBytesAreBytes(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		served(t, c, "echo") // the broker has said what it reads
		for _, want := range [][]byte{{}, {0}, {0xFF}, []byte("a\xe2\x82"), []byte(`"`), []byte("\x00\xff\x00"), []byte("text"), noise(8 << 10), noise(1 << 20)} {
			got, err := c.Call(within(t), "echo", want)
			if err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%.20q came back as %.20q, %v", want, got.Bytes(), err)
			}
		}
	})
}

// Peers that do not read bytes as they are get them as JSON, and so does a
// broker that has not answered yet.
func TestBytesForForeigners(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|old")
		c := addClient(t, b, nil)
		addWorker(t, b, "old-echo", nil, echo)
		served(t, c, "old-echo")
		for data, want := range map[string]string{"text": `"text"`, "\xff\x00": `{"type":"Buffer","data":[255,0]}`, `"`: `"\""`} {
			r := goCall(t, c, "old", []byte(data))
			m := w.until2(t)
			if m[4] != want {
				t.Errorf("%q came as %s, want %s", data, m[4], want)
			}
			w.send("W", "3", m[2], m[3], `{"status":200,"msg":`+m[4]+"}")
			if got := receive(t, "the answer", r); got.err != nil || got.msg != data {
				t.Errorf("%q came back as %v", data, got)
			}
		}

		foreign := bindRaw(t, newEndpoint(t, transport))
		c = startClient(t, foreign.endpoint, nil)
		r := goCall(t, c, "old", []byte{0xFF, 0})
		m := foreign.next(t, "C", "2")
		if got, want := m[5], `{"type":"Buffer","data":[255,0]}`; got != want {
			t.Errorf("a broker that did not answer got %s, want %s", got, want)
		}
		foreign.send(m[0], "C", "3", m[4], `{"status":200,"msg":null}`)
		receive(t, "the answer", r)
	})
}

// until2 skips to the next REQUEST that a raw worker is sent.
func (p *rawPeer) until2(t testing.TB) []string {
	t.Helper()
	for {
		if m := p.next(t); m[0] == "W" && m[1] == "2" {
			return m
		}
	}
}

// value makes data of about n bytes of each kind.
func kindsOf(n int) map[string]any {
	return map[string]any{
		"bytes":  noise(n),
		"text":   strings.Repeat("wörld ", n/7),
		"object": map[string]any{"list": strings.Split(strings.Repeat("x,", n/4), ",")},
	}
}

// What is larger than a frame of the broker goes in pieces, both ways, as
// final and as partial, whoever reads it.
func TestBodiesInPieces(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 32 << 10}})
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 3}, echo)
		addWorker(t, b, "twice", &omdp.WorkerConfig{Concurrency: 3}, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			if err := res.Send(req.Message()); err != nil {
				return err
			}
			if err := res.Send("between"); err != nil {
				return err
			}
			return res.End(req.Message())
		})
		c := addClient(t, b, nil)
		served(t, c, "echo")
		for name, v := range kindsOf(1 << 20) {
			sent := c.RequestStream(within(t), "twice", v)
			want, err := c.Call(within(t), "echo", v)
			if err != nil || want.Len() < 1<<18 {
				t.Errorf("%s: %d bytes, %v", name, want.Len(), err)
				continue
			}
			if b, ok := v.([]byte); ok && !bytes.Equal(want.Bytes(), b) {
				t.Errorf("%s changed on the way", name)
			}
			n := 0
			for m, err := range sent.All() {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if n++; n == 2 && m.String() != "between" || n != 2 && !bytes.Equal(m.JSON(), want.JSON()) {
					t.Errorf("%s: message %d has %d bytes that are not as sent", name, n, m.Len())
				}
			}
			if n != 3 {
				t.Errorf("%s: %d messages, want 3", name, n)
			}
		}
		eventually(t, "all is let go", func() bool {
			s := b.Stats()
			return s.InProgress == 0 && s.OutboxBytes == 0
		})
		if n := b.Stats().Overdrawn; n != 0 {
			t.Errorf("%d requests ended for what nobody did", n)
		}
	})
}

// MaxBody bounds what goes in pieces, of whoever takes it.
func TestBodiesTooLarge(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16 << 10}})
	addWorker(t, b, "small", &omdp.WorkerConfig{MaxBody: 64 << 10}, echo)
	addWorker(t, b, "large", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(make([]byte, 200<<10))
	})
	addWorker(t, b, "error", nil, func(context.Context, *omdp.Request, *omdp.Response) error {
		return errors.New(strings.Repeat("x", 20<<10))
	})
	old := dialRaw(t, b.Endpoint())
	old.say("W|1|old")
	c := addClient(t, b, &omdp.ClientConfig{MaxBody: 128 << 10})
	served(t, c, "small")

	_, err := c.Call(within(t), "small", make([]byte, 128<<10+1))
	failed(t, err, omdp.ErrTooLarge, omdp.NotSent)
	_, err = c.Call(within(t), "small", make([]byte, 64<<10+1))
	failed(t, err, omdp.ErrTooLarge, omdp.NotExecuted)
	_, err = c.Call(within(t), "old", make([]byte, 17<<10))
	failed(t, err, omdp.ErrTooLarge, omdp.NotExecuted)
	_, err = c.Call(within(t), "old", make([]byte, 15<<10)) // as JSON it is too large for a frame
	failed(t, err, omdp.ErrTooLarge, omdp.NotExecuted)
	_, err = c.Call(within(t), "large", nil)
	if e, ok := errors.AsType[*omdp.Error](err); !ok || !strings.Contains(e.Message, "too large") {
		t.Errorf("a reply over the client's MaxBody: %v, want the handler's error", err)
	}
	_, err = c.Call(within(t), "error", nil)
	if e, ok := errors.AsType[*omdp.Error](err); !ok || !strings.Contains(e.Message, "too large") {
		t.Errorf("an error over the frame: %.80v, want one that says so", err)
	}
	if got, err := c.Call(within(t), "small", make([]byte, 63<<10)); err != nil || got.Len() != 63<<10 {
		t.Errorf("within all bounds: %d bytes, %v", got.Len(), err)
	}
}

// TotalBody bounds what a worker joins at a time: more waits at its clients,
// and whatever ends makes room.
func TestBodyRoom(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16 << 10}})
	const size = 100 << 10
	h := newHeld()
	w := addWorker(t, b, "held", &omdp.WorkerConfig{Concurrency: 5, MaxBody: 128 << 10, TotalBody: 256 << 10}, h.handle)
	c := addClient(t, b, nil)
	ctx, cancel := context.WithCancel(within(t))
	var results []<-chan result
	for i := range 5 {
		data := make([]byte, size)
		data[0] = byte(i)
		if i == 2 { // it waits for room when it is given up
			r := make(chan result, 1)
			go func() {
				m, err := c.Call(ctx, "held", data)
				r <- result{m.String(), err}
			}()
			results = append(results, r)
		} else {
			results = append(results, goCall(t, c, "held", data))
		}
		if i < 2 {
			receive(t, "a handler", h.began)
		} else {
			eventually(t, "the request is at the worker", func() bool { return w.Stats().Active == i+1 })
		}
	}
	if s := w.Stats(); s.Handlers != 2 {
		t.Errorf("%d handlers run, there is room for the data of 2", s.Handlers)
	}
	cancel()
	failed(t, receive(t, "the one that was given up", results[2]).err, omdp.ErrCanceled, omdp.MayHaveExecuted)
	h.free <- struct{}{}
	receive(t, "a handler", h.began)
	close(h.free)
	for i, r := range results {
		if i == 2 {
			continue
		}
		if got := receive(t, "an answer", r); got.err != nil {
			t.Errorf("request %d: %v", i, got.err)
		}
	}
	eventually(t, "all is let go", func() bool { return w.Stats().Active == 0 })
}

// Where one of the others is not of this library, nothing is sent to a worker.
func TestUploadUnsupported(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	w := dialRaw(t, b.Endpoint())
	w.say("W|1|old")
	c := addClient(t, b, nil)
	d := c.OpenStream(within(t), "old", nil)
	_, err := io.ReadAll(d)
	failed(t, err, omdp.ErrUnsupported, omdp.NotExecuted)
	if _, werr := d.Write([]byte("x")); !errors.Is(werr, errors.ErrUnsupported) {
		t.Errorf("Write = %v, want ErrUnsupported", werr)
	}
	if n := b.Stats().Dispatched; n != 0 {
		t.Errorf("%d requests went to the worker", n)
	}

	foreign := bindRaw(t, newEndpoint(t, "inproc"))
	c = startClient(t, foreign.endpoint, &omdp.ClientConfig{Heartbeat: 50 * time.Millisecond})
	_, err = io.ReadAll(c.OpenStream(within(t), "old", nil))
	failed(t, err, omdp.ErrUnsupported, omdp.NotSent)
}

// A worker that ignores credit loses that one request; nobody else notices.
func TestWorkerIgnoresCredit(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	w := dialRaw(t, b.Endpoint())
	w.say(`W|1|flood|{"v":1,"id":"w","hb":2500,"concurrency":2}`)
	c := addClient(t, b, &omdp.ClientConfig{Window: 4 << 10})
	addWorker(t, b, "echo", nil, echo)
	served(t, c, "echo")
	bad, good := c.RequestStream(within(t), "flood", 1), c.RequestStream(within(t), "flood", 2)
	defer bad.Close()
	one, two := w.until2(t), w.until2(t)
	if one[4] != "1" {
		one, two = two, one
	}
	for range 10 {
		w.send("W", "6", one[2], one[3], "b", strings.Repeat("x", 1000))
	}
	for m := w.next(t); m[1] != "10"; m = w.next(t) {
	}
	w.send("W", "6", one[2], one[3], "b", "after the end")
	w.send("W", "3", one[2], one[3], "b", "too late")
	w.send("W", "6", one[2], one[3], "b", "after the final")
	_, err := io.ReadAll(bad)
	failed(t, err, omdp.ErrProtocol, omdp.MayHaveExecuted)
	w.send("W", "6", two[2], two[3], "b", "well ")
	w.send("W", "3", two[2], two[3], "b", "behaved")
	if got, err := io.ReadAll(good); string(got) != "well behaved" || err != nil {
		t.Errorf("the other request: %q, %v", got, err)
	}
	if s := b.Stats(); s.Overdrawn != 1 || s.Workers != 2 {
		t.Errorf("got %d ended and %d workers, want 1 and 2", s.Overdrawn, s.Workers)
	}
}

// A client that ignores credit, or goes on after the end, loses that request.
func TestClientIgnoresCredit(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	s := newSlowUpload()
	addWorker(t, b, "slow", &omdp.WorkerConfig{Concurrency: 4}, s.handle)
	for name, spoil := range map[string]func(p *rawPeer){
		"more than granted": func(p *rawPeer) { p.send("C", "13", "r", strings.Repeat("x", 1<<20)) },
		"after the end":     func(p *rawPeer) { p.say("C|13|r"); p.say("C|13|r|x") },
		"two ends":          func(p *rawPeer) { p.say("C|13|r"); p.say("C|13|r") },
	} {
		p := dialRaw(t, b.Endpoint())
		p.say(`C|8|{"v":1,"id":"raw-` + strings.ReplaceAll(name, " ", "-") + `","hb":2500,"body":1000}`)
		p.say(`C|2|slow|r|p|null|{"timeout":-1,"more":-1}`)
		ctx := receive(t, "the handler", s.began)
		for m := p.next(t); m[1] != "9"; m = p.next(t) {
		}
		p.say("C|13|r|good")
		spoil(p)
		for {
			m := p.next(t)
			if m[1] == "3" {
				if m[3] != `{"status":"PROTOCOL"}` {
					t.Errorf("%s: it was told %q", name, m)
				}
				break
			}
		}
		<-ctx.Done()
		if err := context.Cause(ctx); !errors.Is(err, omdp.ErrProtocol) {
			t.Errorf("%s: the handler's context ended with %v", name, err)
		}
	}
	close(s.read)
}

// What is sent before the broker has told how much it takes does not cost the connection.
func TestLargeBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16 << 10}})
	addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 8}, echo)
	for range 5 {
		c, err := omdp.NewClient(b.Endpoint(), &omdp.ClientConfig{Heartbeat: patience})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var results []<-chan result
		for _, n := range []int{1 << 10, 5 << 10, 15 << 10, 17 << 10, 100 << 10, 200 << 10} {
			results = append(results, goCall(t, c, "echo", make([]byte, n)), goCall(t, c, "echo", strings.Repeat("\"", n)))
		}
		for i, r := range results {
			if got := receive(t, "an answer", r); got.err != nil {
				t.Errorf("call %d: %v", i, got.err)
			}
		}
		closed(t, "client", c)
	}
}

// A client that sends larger pieces than there may be, and a worker whose
// answers are more than their client takes, lose that request alone.
func TestTooLargeForOthers(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	s := newSlowUpload()
	w := addWorker(t, b, "slow", &omdp.WorkerConfig{Concurrency: 2, MaxBody: 16 << 10, ChunkSize: 1 << 10, Window: 1 << 20}, s.handle)
	p := dialRaw(t, b.Endpoint())
	p.say(`C|8|{"v":1,"id":"raw","hb":2500,"body":1000}`)
	p.say(`C|2|slow|r|p|null|{"timeout":-1,"more":-1}`)
	receive(t, "the handler", s.began)
	for m := p.next(t); m[1] != "9"; m = p.next(t) {
	}
	p.send("C", "13", "r", strings.Repeat("x", 256<<10+1))
	for m := p.next(t); ; m = p.next(t) {
		if m[1] == "3" {
			if m[3] != `{"status":"PROTOCOL"}` {
				t.Errorf("it was told %q", m)
			}
			break
		}
	}
	s.read <- 1
	if err := receive(t, "what its handler read", s.got); !errors.Is(err, omdp.ErrProtocol) {
		t.Errorf("its handler read %v, want ErrProtocol", err)
	}
	c := addClient(t, b, &omdp.ClientConfig{MaxBody: 64 << 10})
	d := c.OpenStream(within(t), "slow", nil) // an honest one, whose pieces are larger than the worker's MaxBody
	receive(t, "the handler", s.began)
	go func() {
		for range 8 {
			_, _ = d.Write(make([]byte, 128<<10))
		}
	}()
	s.read <- 1 << 20
	if err := receive(t, "what it read", s.got); err != nil {
		t.Errorf("an upload: %v", err)
	}
	_ = d.Close()
	close(s.read)

	bad := dialRaw(t, b.Endpoint())
	bad.say(`W|1|large|{"v":1,"id":"w","hb":2500}`)
	r := goCall(t, c, "large", "x")
	m := bad.until2(t)
	bad.send("W", "3", m[2], m[3], "b", strings.Repeat("x", 1<<20))
	failed(t, receive(t, "the answer", r).err, omdp.ErrProtocol, omdp.MayHaveExecuted)
	if n := w.Stats().Connections + c.Stats().Connections; n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
}

// In a mixed fleet what only some workers take goes to one of them.
func TestBodiesInAMixedFleet(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	old := dialRaw(t, b.Endpoint())
	old.say("W|1|mixed")
	eventually(t, "it is there", func() bool { return b.Stats().Workers == 1 })
	addWorker(t, b, "mixed", &omdp.WorkerConfig{MaxBody: 1 << 10}, echo)
	large := addWorker(t, b, "mixed", &omdp.WorkerConfig{Concurrency: 4}, echo)
	c := addClient(t, b, nil)
	for range 4 {
		if got, err := c.Call(within(t), "mixed", make([]byte, 9<<20)); err != nil || got.Len() != 9<<20 {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	}
	if n := large.Stats().Requests; n != 4 {
		t.Errorf("the worker that takes them had %d, want 4", n)
	}
}
