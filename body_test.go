package omdp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// An upload and its reply are streams of their own, at the same time.
func TestUpload(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "back", &omdp.WorkerConfig{Concurrency: 2}, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			n, err := io.Copy(res, req.Body())
			if err != nil {
				return err
			}
			return res.End(fmt.Sprint(req.Message(), " ", n))
		})
		c := addClient(t, b, nil)
		for _, size := range []int{0, 1, 100, 64 << 10, 5 << 20} {
			want := noise(size)
			d := c.OpenStream(within(t), "back", "header") // also before the broker has answered
			wrote := make(chan error, 1)
			go func() {
				_, err := io.Copy(d, bytes.NewReader(want))
				if err == nil {
					err = d.CloseWrite()
				}
				wrote <- err
			}()
			got, err := io.ReadAll(d)
			if err != nil || !bytes.Equal(got, append(want, fmt.Sprint("header ", size)...)) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
			if err := receive(t, "the end of writing", wrote); err != nil {
				t.Errorf("writing %d bytes: %v", size, err)
			}
			if _, err := d.Write([]byte("x")); err != omdp.ErrEnded {
				t.Errorf("Write after CloseWrite = %v, want ErrEnded", err)
			}
		}
		if m, err := c.Call(within(t), "back", "no upload"); err != nil || m.String() != "no upload 0" {
			t.Errorf("a request that is no upload: %v, %v", m, err)
		}
	})
}

// slowUpload is a worker whose handler is told when to go on.
type slowUpload struct {
	began chan context.Context
	read  chan int   // bytes to read next; closed: end
	got   chan error // what reading gave
}

func newSlowUpload() *slowUpload {
	return &slowUpload{make(chan context.Context, 10), make(chan int), make(chan error, 10)}
}

func (s *slowUpload) handle(ctx context.Context, req *omdp.Request, _ *omdp.Response) error {
	s.began <- ctx
	for n := range s.read {
		_, err := io.ReadFull(req.Body(), make([]byte, n))
		s.got <- err
		if err != nil {
			return err
		}
	}
	return nil
}

// A handler that does not read holds up its client, by the window.
func TestUploadIsBounded(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	s := newSlowUpload()
	addWorker(t, b, "slow", &omdp.WorkerConfig{Window: 64 << 10}, s.handle)
	c := addClient(t, b, nil)
	d := c.OpenStream(within(t), "slow", nil)
	defer d.Close()
	wrote := make(chan int, 10_000)
	go func() {
		defer close(wrote)
		for {
			n, err := d.Write(make([]byte, 1<<10))
			if err != nil {
				return
			}
			wrote <- n
		}
	}()
	total := 0
	settle := func() {
		for {
			select {
			case n := <-wrote:
				total += n
				continue
			case <-time.After(200 * time.Millisecond):
			}
			return
		}
	}
	receive(t, "the handler", s.began)
	settle()
	if total < 16<<10 || total > 64<<10 {
		t.Errorf("%d bytes were written that nobody reads, the window is 64 KiB", total)
	}
	s.read <- 48 << 10
	receive(t, "what it read", s.got)
	settle()
	if total < 64<<10 || total > 48<<10+64<<10 {
		t.Errorf("%d bytes were written, 48 KiB were read and the window is 64 KiB", total)
	}
	close(s.read)
}

// However one side ends it, the other learns why.
func TestUploadEnds(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	c := addClient(t, b, nil)
	n := 0
	start := func(t *testing.T, h omdp.Handler, config *omdp.WorkerConfig, opts ...omdp.CallOption) (*omdp.Duplex, *omdp.Worker) {
		n++
		service := fmt.Sprint("upload-", n)
		w := addWorker(t, b, service, config, h)
		return c.OpenStream(within(t), service, nil, opts...), w
	}
	fill := func(d *omdp.Duplex) (err error) {
		for err == nil {
			_, err = d.Write(make([]byte, 10<<10))
		}
		return err
	}

	t.Run("handler ends without reading", func(t *testing.T) {
		d, _ := start(t, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End("enough") }, nil)
		if got, err := io.ReadAll(d); string(got) != "enough" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if err := fill(d); err != omdp.ErrEnded {
			t.Errorf("Write = %v, want ErrEnded", err)
		}
		if err := d.CloseWrite(); err != nil {
			t.Errorf("CloseWrite = %v", err)
		}
	})
	t.Run("handler fails", func(t *testing.T) {
		d, _ := start(t, func(context.Context, *omdp.Request, *omdp.Response) error {
			return &omdp.Error{Code: "409", Message: "no"}
		}, nil)
		err := fill(d)
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "409" {
			t.Errorf("Write = %v, want the handler's error", err)
		}
		if e, ok := errors.AsType[*omdp.Error](d.CloseWrite()); !ok || e.Code != "409" {
			t.Errorf("CloseWrite = %v, want the handler's error", e)
		}
	})
	t.Run("client closes", func(t *testing.T) {
		s := newSlowUpload()
		d, _ := start(t, s.handle, nil)
		ctx := receive(t, "the handler", s.began)
		s.read <- 1 << 20
		_, _ = d.Write([]byte("x"))
		_ = d.Close()
		if err := receive(t, "what it read", s.got); !errors.Is(err, omdp.ErrCanceled) {
			t.Errorf("reading gave %v, want ErrCanceled", err)
		}
		<-ctx.Done()
		if _, err := d.Write([]byte("x")); !errors.Is(err, omdp.ErrCanceled) {
			t.Errorf("Write = %v, want ErrCanceled", err)
		}
	})
	t.Run("time is over", func(t *testing.T) {
		s := newSlowUpload()
		d, _ := start(t, s.handle, nil, omdp.WithTimeout(300*time.Millisecond))
		receive(t, "the handler", s.began)
		s.read <- 1 << 20
		if err := receive(t, "what it read", s.got); !errors.Is(err, omdp.ErrTimeout) {
			t.Errorf("reading gave %v, want ErrTimeout", err)
		}
		if _, err := io.ReadAll(d); !errors.Is(err, omdp.ErrTimeout) {
			t.Errorf("got %v, want ErrTimeout", err)
		}
	})
	t.Run("client goes silent", func(t *testing.T) {
		s := newSlowUpload()
		d, w := start(t, s.handle, &omdp.WorkerConfig{UploadTimeout: 300 * time.Millisecond})
		receive(t, "the handler", s.began)
		s.read <- 1 << 20
		if err := receive(t, "what it read", s.got); !errors.Is(err, omdp.ErrProtocol) {
			t.Errorf("reading gave %v, want ErrProtocol", err)
		}
		if _, err := io.ReadAll(d); err == nil {
			t.Error("the client was told nothing")
		}
		if n := w.Stats().Overdrawn; n != 1 {
			t.Errorf("%d counted, want 1", n)
		}
	})
	t.Run("worker is lost", func(t *testing.T) {
		s := newSlowUpload()
		d, w := start(t, s.handle, &omdp.WorkerConfig{DrainTimeout: -1}, omdp.Idempotent())
		receive(t, "the handler", s.began)
		_ = w.Close()
		err := fill(d)
		if err == nil || errors.Is(err, omdp.ErrTimeout) {
			t.Errorf("Write = %v, want the loss of the worker", err)
		}
		close(s.read)
	})
	t.Run("handler reads on after its end", func(t *testing.T) {
		read := make(chan error, 1)
		d, _ := start(t, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			err := res.End(nil)
			_, rerr := req.Body().Read(make([]byte, 1))
			read <- rerr
			return err
		}, nil)
		if err := receive(t, "what it read", read); err != omdp.ErrEnded {
			t.Errorf("reading gave %v, want ErrEnded", err)
		}
		_, _ = io.ReadAll(d)
	})
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
