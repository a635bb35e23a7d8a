package omdp_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

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

// TestRawLongestBody: the longest body that a client may send is whole at a worker,
// whose dialect puts more frames around it.
func TestRawLongestBody(t *testing.T) {
	t.Parallel()
	body := strings.TrimPrefix(strings.Repeat("|x", 14), "|") + "y"
	want := "[" + strings.Repeat(`"x",`, 13) + `"xy"]`
	for _, d := range []omdp.Dialect{omdp.OMDP, omdp.MDP02, omdp.MDP01} {
		t.Run(d.String(), func(t *testing.T) {
			b := startBroker(t, newEndpoint(t, "inproc"), nil)
			got := make(chan string, 1)
			ready(t, startWorker(t, b.Endpoint(), "s", &omdp.WorkerConfig{Dialect: d}, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
				got <- string(req.Message().JSON())
				return res.End("ok")
			}))
			p := dialRaw(t, b.Endpoint())
			p.say("|MDPC01|s|" + body)
			p.want(t, `|MDPC01|s|"ok"`)
			if s := <-got; s != want {
				t.Errorf("got %s, want %s", s, want)
			}
		})
	}
}
