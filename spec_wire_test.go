package omdp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// "Broker MAY track Worker/Client/Request relation."
func TestSpecBrokerTracksRelations(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		workers := []*rawPeer{dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())}
		clients := []*rawPeer{dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())}
		var held [][]string
		for i, w := range workers {
			w.say(fmt.Sprint("W|1|service", i))
			clients[i].say(fmt.Sprintf(`C|2|service%d|1|"x"|{}`, i))
			held = append(held, w.next(t))
			clients[i].want(t, "C|4|1")
		}
		if s := b.Stats(); s.InProgress != 2 || s.Services["service0"].InProgress != 1 || s.Services["service1"].InProgress != 1 {
			t.Errorf("got %+v, want one request in progress at each service", s.Services)
		}
		workers[0].say("W|5") // its client is told, the other is not
		clients[0].want(t, `C|3|1|{"status":"W_ERROR"}`)
		clients[1].quiet(t)
		workers[1].send("W", "3", held[1][2], "1", `{"status":200,"msg":"y"}`)
		clients[1].want(t, `C|3|1|{"status":200,"msg":"y"}`)
		clients[0].quiet(t)
	})
}

// "Broker MAY notify Client on Request dispatch to Worker."
func TestSpecDispatchIsNotified(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		c := dialRaw(t, b.Endpoint())
		c.say(`C|2|echo|1|"x"|{}`)
		c.quiet(t) // not while it is queued
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		c.want(t, "C|4|1")
		if m := w.next(t); m[3] != "1" {
			t.Errorf("got %q, want the request", m)
		}
	})
}

// "Client MAY assign a timeout to a Request."
func TestSpecTimeout(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		w, c := dialRaw(t, b.Endpoint()), addClient(t, b, nil)
		w.say(`W|1|echo|{"v":1,"id":"life","hb":50}`)
		w.next(t)
		deadline, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for _, k := range []struct {
			name      string
			ctx       context.Context
			opts      []omdp.CallOption
			options   func(ms int64) bool // of the timeout on the wire; -1: none, 0: absent
			remaining func(ms int64) bool // what the worker is told
		}{
			{"default", t.Context(), nil, func(ms int64) bool { return ms == 0 }, func(ms int64) bool { return ms > 50_000 && ms <= 60_000 }},
			{"own", t.Context(), []omdp.CallOption{omdp.WithTimeout(30 * time.Second)}, func(ms int64) bool { return ms > 20_000 && ms <= 30_000 }, func(ms int64) bool { return ms > 20_000 && ms <= 30_000 }},
			{"none", t.Context(), []omdp.CallOption{omdp.WithTimeout(-1)}, func(ms int64) bool { return ms == -1 }, func(ms int64) bool { return ms == -1 }},
			{"context", deadline, []omdp.CallOption{omdp.WithTimeout(-1)}, func(ms int64) bool { return ms > 3_500_000 && ms <= 3_600_000 }, func(ms int64) bool { return ms > 3_500_000 && ms <= 3_600_000 }},
			{"sooner", deadline, []omdp.CallOption{omdp.WithTimeout(30 * time.Second)}, func(ms int64) bool { return ms > 20_000 && ms <= 30_000 }, func(ms int64) bool { return ms > 20_000 && ms <= 30_000 }},
		} {
			s := c.RequestStream(k.ctx, "echo", k.name, k.opts...)
			m := w.next(t)
			for m[1] != "2" {
				m = w.next(t)
			}
			var options, extra struct{ Timeout, Remaining int64 }
			if err := errors.Join(json.Unmarshal([]byte(m[5]), &options), json.Unmarshal([]byte(m[6]), &extra)); err != nil {
				t.Fatal(err)
			}
			if !k.options(options.Timeout) || !k.remaining(extra.Remaining) {
				t.Errorf("%s: got options %s and %s", k.name, m[5], m[6])
			}
			w.send("W", "3", m[2], m[3], `{"status":200,"msg":null}`)
			if _, err := io.ReadAll(s); err != nil {
				t.Error(err)
			}
		}
	})
}

// "Broker MAY decide to drop expired Requests (client timeout reached)."
func TestSpecExpiredIsDropped(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		c := dialRaw(t, b.Endpoint())
		c.say(`C|2|echo|1|"expires"|{"timeout":20}`)
		c.say(`C|2|echo|2|"stays"|{"timeout":-1}`)
		c.want(t, `C|3|1|{"status":"TIMEOUT","executed":false}`)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		if m := w.next(t); m[4] != `"stays"` {
			t.Errorf("got %q, want the one that stays", m)
		}
		if s := b.Stats(); s.Expired != 1 || s.Dispatched != 1 {
			t.Errorf("got %d expired, %d dispatched; want 1, 1", s.Expired, s.Dispatched)
		}
	})
}

// "Client MAY decide to timeout an inactive Request (tracks liveness for
// Request)." Behind a broker of this library the broker tracks it. A client
// gives up a request by its timeout in any case, also when the broker, which
// lives, says nothing of it.
func TestSpecInactiveRequest(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		fake := bindRaw(t, newEndpoint(t, transport))
		c := startClient(t, fake.endpoint, nil)
		r := goCall(t, c, "echo", "x", omdp.WithTimeout(4*beat))
		m := fake.next(t, "C", "2")
		fake.send(m[0], "C", "4", m[4])
		failed(t, receive(t, "the call's end", r).err, omdp.ErrTimeout, omdp.MayHaveExecuted)
		fake.send(m[0], "C", "3", m[4], `{"status":200,"msg":"late"}`) // changes nothing any more
		eventually(t, "the late answer is counted", func() bool { return c.Stats().Late == 1 })
	})
}

// "Worker SHALL NOT send more W_REPLY (for a Request) after sending first
// W_REPLY message."
func TestSpecOneReply(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		fake := bindRaw(t, newEndpoint(t, transport))
		after := make(chan error, 10)
		startWorker(t, fake.endpoint, "echo", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			if string(req.Bytes()) == "panic" {
				res.End("first")
				panic("after the end")
			}
			res.End("first")
			after <- res.End("second")
			after <- res.Error(errors.New("second"))
			after <- res.Send("second")
			_, err := res.Write([]byte("second"))
			after <- err
			after <- res.Heartbeat()
			if res.Active() || !res.Ended() {
				t.Error("the response does not know that it ended")
			}
			return errors.New("second")
		})
		m := fake.next(t, "W", "1")
		for i, data := range []string{"x", "panic", "y"} {
			fake.send(m[0], "W", "2", "client", fmt.Sprint(i), `"`+data+`"`, "{}")
			got := fake.next(t, "W", "3")
			if want := []string{m[0], "W", "3", "client", fmt.Sprint(i), `{"status":200,"msg":"first"}`}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		for range 5 { // heartbeats of the worker alone, and nothing of a request
			if got := receive(t, "a heartbeat", fake.in); strings.Join(got[1:], "|") != "W|4" {
				t.Errorf("got %q after the finals, want W|4", got)
			}
		}
		for range 10 {
			if err := receive(t, "what a write after the end gives", after); !errors.Is(err, omdp.ErrEnded) {
				t.Errorf("got %v, want ErrEnded", err)
			}
		}
	})
}
