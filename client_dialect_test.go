package omdp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A client of other dialects, and a broker by hand.

// fakeDialect is a client of a dialect whose links are fake.
func fakeDialect(t testing.TB, d Dialect, config *ClientConfig) (*Client, *fakeNet) {
	t.Helper()
	n := newFakeNet()
	return startDialect(t, n, d, config), n
}

func startDialect(t testing.TB, n *fakeNet, d Dialect, config *ClientConfig) *Client {
	t.Helper()
	f := ClientConfig{}
	if config != nil {
		f = *config
	}
	f.Dialect = d
	c, err := NewClient("tcp://127.0.0.1:5555", &f)
	if err != nil {
		t.Fatal(err)
	}
	for _, cn := range c.conns {
		cn.session.dial = n.dial
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer says a final with a JSON value to the request m, which a client of d sent.
func (l *fakeLink) answer(d Dialect, m, value string) {
	f := strings.Split(m, "|")
	switch d {
	case OMDP:
		l.say("C", "3", f[3], `{"status":200,"msg":`+value+`}`)
	case OMDPFinal:
		l.say("C", "3", f[3], "0", value)
	case PIGATO:
		l.say("C", "3", "", f[3], "0", value, "{}")
	case MDP02:
		l.say("MDPC02", "\x03", f[2], value)
	case MDP01:
		l.say("", "MDPC01", f[2], value)
	}
}

var requestPrefix = map[Dialect]string{OMDPFinal: "C|2|echo|", PIGATO: "C|2|echo|", MDP02: "MDPC02|\x01|echo|", MDP01: "|MDPC01|echo|"}

func eachDialect(t *testing.T, only func(w *wire) bool, f func(t *testing.T, d Dialect)) {
	for _, w := range foreignWires() {
		if only == nil || only(w) {
			t.Run(w.dialect.String(), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, w.dialect) }) })
		}
	}
}

func nameless(w *wire) bool { return !w.numbered }

// Every message that a client sends: on a fresh connection, for requests, and in
// the course of time. Nothing that is ours.
func TestDialectClientSays(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, nil)
		l := n.next(t)
		rid := c.table.prefix + "1"
		want := map[Dialect][]string{
			OMDPFinal: {"C|4", `C|2|echo|` + rid + `|"hi"|{"timeout":60000}`, "C|4", "C|4"},
			PIGATO:    {"C|4", `C|2|echo|` + rid + `|"hi"|{"timeout":60000,"retry":0}`, "C|4", "C|4"},
			MDP02:     {"MDPC02|\x01|echo|\"hi\""},
			MDP01:     {"|MDPC01|echo|\"hi\""},
		}[d]
		synctest.Wait()
		done := goCall(t.Context(), c, "echo", "hi")
		pass(2*testBeat + testBeat/2)
		wantSent(t, l, want...)
		l.answer(d, want[len(want)-len(want)/2-1], `"hi"`)
		if r := <-done; r.err != nil || r.m.String() != "hi" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done = goCall(ctx, c, "echo", []byte("\xff\x00"), WithTimeout(-1), Idempotent(), WithWindow(8192))
		m := l.awaitPrefix(t, requestPrefix[d])
		body := map[Dialect]string{
			OMDPFinal: `{"type":"Buffer","data":[255,0]}|{"timeout":-1}`, PIGATO: `{"type":"Buffer","data":[255,0]}|{"timeout":-1,"retry":0}`,
			MDP02: "\xff\x00", MDP01: "\xff\x00",
		}[d]
		if !strings.HasSuffix(m, "|"+body) {
			t.Errorf("got %q, want …%q", m, body)
		}
		cancel()
		wantError(t, "cancelled", (<-done).err, ErrCanceled, MayHaveExecuted)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wantSent(t, l)
	})
}

// PIGATO's metadata is in the options, where its broker passes it on.
func TestDialectPigatoMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := fakeDialect(t, PIGATO, nil)
		defer c.Close()
		l := n.next(t)
		if err := c.Request(t.Context(), "echo", 1, nil, nil, WithMetadata(map[string]string{"trace": "x"})); err != nil {
			t.Fatal(err)
		}
		m := l.awaitPrefix(t, "C|2|echo|")
		if want := `|1|{"timeout":60000,"retry":0,"meta":{"trace":"x"}}`; !strings.HasSuffix(m, want) {
			t.Errorf("got %s, want …%s", m, want)
		}
	})
}

// What can't be carried is refused, and nothing is sent.
func TestDialectRefuses(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, nil)
		defer c.Close()
		l := n.next(t)
		synctest.Wait()
		l.sent()
		options := map[string]CallOption{"FailFast": FailFast(), "WithKey": WithKey("k")}
		if d != PIGATO {
			options["WithMetadata"] = WithMetadata(map[string]string{"a": "b"})
		}
		for name, o := range options {
			_, err := c.Call(t.Context(), "echo", 1, o)
			wantError(t, name, err, ErrUnsupported, NotSent)
			if want := fmt.Sprintf("omdp: call echo: not supported by the other side: %s in the dialect %v (not sent)", name, d); fmt.Sprint(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
			wantError(t, name, c.Request(t.Context(), "echo", 1, nil, nil, o), ErrUnsupported, NotSent)
			_, err = c.RequestStream(t.Context(), "echo", 1, o).Read(make([]byte, 1))
			wantError(t, name, err, ErrUnsupported, NotSent)
		}
		up := c.OpenStream(t.Context(), "echo", 1)
		_, err := up.Write([]byte("x"))
		wantError(t, "Write", err, ErrUnsupported, NotSent)
		_, err = up.Read(make([]byte, 1))
		wantError(t, "Read", err, ErrUnsupported, NotSent)
		if _, err := c.Lookup(t.Context(), ""); OutcomeOf(err) != NotSent {
			t.Errorf("Lookup without a name: %v", err)
		}
		wantSent(t, l)
		if s := c.Stats(); s.Requests != 0 || s.Outstanding != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// PIGATO's broker answers each beat: once it did, its silence means that it is
// lost. Others may say nothing for as long as they like.
func TestDialectSilence(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		errs := make(chan error, 10)
		c, n := fakeDialect(t, d, &ClientConfig{OnError: func(err error) { errs <- err }})
		defer c.Close()
		l := n.next(t)
		synctest.Wait()
		if d != MDP01 && d != MDP02 {
			l.say("C", "4")
		}
		start := time.Now()
		pass(time.Hour)
		synctest.Wait()
		if d != PIGATO {
			if c.Stats().Connections != 1 || len(errs) > 0 {
				t.Errorf("%d connections; errors: %d", c.Stats().Connections, len(errs))
			}
			return
		}
		if err := <-errs; !errors.Is(err, ErrBrokerLost) || !strings.Contains(err.Error(), errBrokerSilent.Error()) {
			t.Errorf("got %v", err)
		}
		if c.Stats().Connections != 2 { // the next one did not say anything: it may not be one that answers
			t.Errorf("%d connections since %v", c.Stats().Connections, start)
		}
	})
}

// The interval at which the broker is asked bounds how soon its silence means
// something.
func TestDialectSilenceOfSlowBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := fakeDialect(t, PIGATO, &ClientConfig{Heartbeat: time.Hour})
		defer c.Close()
		l := n.next(t)
		for range 3 {
			l.awaitPrefix(t, "C|4")
			l.say("C", "4")
			pass(time.Hour)
		}
		synctest.Wait()
		if n := c.Stats().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// A request that was given up takes its connection with it: the next one has a
// fresh one at once, and its own answer. The broker counts as there all the while.
func TestDialectReplaced(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		states := make(chan State, 100)
		c, n := fakeDialect(t, d, &ClientConfig{MaxConnections: 1, OnState: func(s State) { states <- s }, OnError: func(err error) { t.Error(err) }})
		defer c.Close()
		l := n.next(t)
		call := goCall(t.Context(), c, "echo", 0)
		l.answer(d, l.awaitPrefix(t, requestPrefix[d]), "0")
		if r := <-call; r.err != nil {
			t.Fatal(r.err)
		}
		for i, giveUp := range []string{"cancel", "timeout", "close", "partial that is an error"} {
			if giveUp == "partial that is an error" && d == MDP01 {
				continue
			}
			start := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			var opts []CallOption
			if giveUp == "timeout" {
				opts = append(opts, WithTimeout(time.Second))
			}
			stream := c.RequestStream(ctx, "echo", "old", opts...)
			l.awaitPrefix(t, requestPrefix[d])
			switch giveUp {
			case "cancel":
				cancel()
			case "timeout":
				pass(time.Second)
				start = start.Add(time.Second)
			case "close":
				stream.Close()
			default:
				l.say("MDPC02", "\x02", "echo", `{"status":500,"msg":"x"}`)
			}
			if _, err := stream.Read(make([]byte, 1)); OutcomeOf(err) != MayHaveExecuted {
				t.Errorf("%s: %v (%v)", giveUp, err, OutcomeOf(err))
			}
			next := goCall(t.Context(), c, "echo", i)
			old := l
			l = n.next(t)
			m := l.awaitPrefix(t, requestPrefix[d])
			if !time.Now().Equal(start) {
				t.Errorf("%s: the fresh connection took %v", giveUp, time.Since(start))
			}
			old.answer(d, m, `"late"`)
			l.answer(d, m, fmt.Sprint(i))
			if r := <-next; r.err != nil || r.m.String() != fmt.Sprint(i) {
				t.Errorf("%s: got %q, %v, want %d", giveUp, r.m, r.err, i)
			}
			if s := c.Stats(); s.State != Ready || s.Endpoint == "" {
				t.Errorf("%s: %+v", giveUp, s)
			}
			cancel()
		}
		synctest.Wait()
		if s := <-states; s != Ready || len(states) > 0 {
			t.Errorf("state %v, then %d others", s, len(states))
		}
	})
}

// An answer where nothing was asked takes the connection with it: what comes after it
// would be the next request's.
func TestDialectAnsweredTwice(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, &ClientConfig{MaxConnections: 1, OnError: func(err error) { t.Error(err) }})
		defer c.Close()
		l := n.next(t)
		for i := range 3 {
			call := goCall(t.Context(), c, "echo", 0)
			m := l.awaitPrefix(t, requestPrefix[d])
			l.answer(d, m, fmt.Sprint(i))
			if r := <-call; r.err != nil || r.m.String() != fmt.Sprint(i) {
				t.Fatalf("got %q, %v, want %d", r.m, r.err, i)
			}
			old := l
			old.answer(d, m, `"again"`)
			l = n.next(t)
			synctest.Wait()
			if s := c.Stats(); s.State != Ready {
				t.Errorf("%+v", s)
			}
		}
	})
}

// If the fresh connection does not come about, the broker is not taken for there
// for ever.
func TestDialectReplacedAndGone(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, nil)
		defer c.Close()
		l := n.next(t)
		call := goCall(t.Context(), c, "echo", 0)
		l.answer(d, l.awaitPrefix(t, requestPrefix[d]), "0")
		<-call
		n.mu.Lock()
		n.blocked = true
		n.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		call = goCall(ctx, c, "echo", 1)
		l.awaitPrefix(t, requestPrefix[d])
		cancel()
		<-call
		l = n.next(t)
		synctest.Wait()
		if s := c.Stats().State; s != Ready {
			t.Errorf("at once: %v", s)
		}
		pass(testBeat)
		synctest.Wait()
		if s := c.Stats().State; s != Connecting {
			t.Errorf("after a while: %v", s)
		}
		call = goCall(t.Context(), c, "echo", 2)
		synctest.Wait()
		if s := c.Stats(); s.Waiting != 1 || s.Endpoint != "" {
			t.Errorf("while there is no connection: %+v", s)
		}
		l.hold(false)
		l.answer(d, l.awaitPrefix(t, requestPrefix[d]), "2")
		if r := <-call; r.err != nil || r.m.String() != "2" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
	})
}

// What an error says of the execution: nothing was sent while there is no
// connection, or none is free.
func TestDialectOutcomes(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		n := newFakeNet()
		n.blocked = true
		c := startDialect(t, n, d, &ClientConfig{MaxConnections: 1})
		l := n.next(t)
		l.hold(true)
		call := func(opts ...CallOption) <-chan result { return goCall(t.Context(), c, "echo", 1, opts...) }
		wantError(t, "no connection", (<-call(WithTimeout(time.Second))).err, ErrTimeout, NotSent)
		l.hold(false)
		first := call()
		l.awaitPrefix(t, requestPrefix[d])
		wantError(t, "none is free", (<-call(WithTimeout(time.Second))).err, ErrTimeout, NotSent)
		waits := call(Idempotent())
		synctest.Wait()
		if s := c.Stats(); s.Outstanding != 2 || s.Waiting != 1 || s.Endpoint == "" {
			t.Errorf("stats %+v", s)
		}
		l.cut()
		wantError(t, "cut", (<-first).err, ErrBrokerLost, MayHaveExecuted)
		l = n.next(t)
		synctest.Wait() // it is open, before it is up
		l.hold(false)
		l.awaitPrefix(t, requestPrefix[d])
		l.cut() // it is idempotent, and sent again
		l = n.next(t)
		synctest.Wait() // it is open, before it is up
		l.hold(false)
		l.awaitPrefix(t, requestPrefix[d])
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wantError(t, "closed", (<-waits).err, ErrClosed, MayHaveExecuted)
	})
}

// What a connection has not taken goes out on the next one.
func TestDialectUnsent(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, nil)
		defer c.Close()
		l := n.next(t)
		synctest.Wait()
		l.hold(true)
		call := goCall(t.Context(), c, "echo", 7)
		synctest.Wait()
		l.cut()
		l = n.next(t)
		l.answer(d, l.awaitPrefix(t, requestPrefix[d]), "7")
		if r := <-call; r.err != nil || r.m.String() != "7" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
	})
}

// Requests over MaxConnections wait in the order of their making.
func TestDialectInLine(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, &ClientConfig{MaxConnections: 2})
		defer c.Close()
		var calls []<-chan result
		for i := range 6 {
			calls = append(calls, goCall(t.Context(), c, "echo", i))
			synctest.Wait()
		}
		links := []*fakeLink{n.next(t), n.next(t)}
		if s := c.Stats(); s.Connections != 2 || s.Waiting != 4 {
			t.Errorf("stats %+v", s)
		}
		for i, call := range calls {
			l := links[i%2]
			m := l.awaitPrefix(t, requestPrefix[d])
			if !strings.HasSuffix(m, fmt.Sprint("|", i)) {
				t.Errorf("got %q as request %d", m, i)
			}
			l.answer(d, m, fmt.Sprint(i))
			if r := <-call; r.err != nil || r.m.String() != fmt.Sprint(i) {
				t.Errorf("got %q, %v, want %d", r.m, r.err, i)
			}
		}
		if s := c.Stats(); s.Connections != 2 || len(n.links) > 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// The words of our broker end a call as they do in OMDP; whether it was executed
// is not known, and an idempotent one is sent again.
func TestDialectWords(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, nil)
		defer c.Close()
		l := n.next(t)
		say := func(m, word string) {
			f := strings.Split(m, "|")
			switch d {
			case OMDPFinal:
				l.say("C", "3", f[3], `"`+word+`"`)
			case PIGATO:
				l.say("C", "3", "", f[3], "-1", `"`+word+`"`, "undefined")
			default:
				l.answer(d, m, `{"status":"`+word+`","executed":false}`)
			}
		}
		for word, want := range map[string]error{"TIMEOUT": ErrTimeout, "W_ERROR": ErrWorkerLost, "OVERLOADED": ErrOverloaded, "DRAINING": ErrBrokerLost} {
			call := goCall(t.Context(), c, "echo", 1)
			say(l.awaitPrefix(t, requestPrefix[d]), word)
			wantError(t, word, (<-call).err, want, MayHaveExecuted)
		}
		call := goCall(t.Context(), c, "echo", 1, Idempotent())
		say(l.awaitPrefix(t, requestPrefix[d]), "W_ERROR")
		l.answer(d, l.awaitPrefix(t, requestPrefix[d]), "1")
		if r := <-call; r.err != nil || r.m.String() != "1" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
	})
}

// Two brokers: the first that is there is asked, the other while that is gone.
func TestDialectEndpoints(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, &ClientConfig{Endpoints: []string{"tcp://127.0.0.1:5556"}, MaxConnections: 2})
		defer c.Close()
		links := map[string]*fakeLink{}
		next := func() {
			l := n.next(t)
			links[l.opts.Endpoint[len(l.opts.Endpoint)-1:]] = l
		}
		next()
		next()
		synctest.Wait()
		ask := func(at string) {
			t.Helper()
			call := goCall(t.Context(), c, "echo", at)
			l := links[at]
			l.answer(d, l.awaitPrefix(t, requestPrefix[d]), at)
			if r := <-call; r.err != nil || r.m.String() != at {
				t.Errorf("got %q, %v from %s", r.m, r.err, at)
			}
		}
		ask("5")
		n.mu.Lock()
		n.refuse = errors.New("it is gone")
		n.mu.Unlock()
		links["5"].cut()
		synctest.Wait()
		ask("6")
		n.mu.Lock()
		n.refuse = nil
		n.mu.Unlock()
		next()
		synctest.Wait()
		ask("6") // it answers; of the other that is not known again
	})
}

// What brokers may answer to the question whether there is a worker.
func TestLookupAnswers(t *testing.T) {
	for _, w := range append(foreignWires(), wires[OMDP]) {
		t.Run(w.dialect.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, n := fakeDialect(t, w.dialect, &ClientConfig{Timeout: -1})
				defer c.Close()
				l := n.next(t)
				ask := func() (string, <-chan error, *bool) {
					found, end := new(bool), make(chan error, 1)
					go func() {
						ok, err := c.Lookup(t.Context(), "a name")
						*found = ok
						end <- err
					}()
					return l.await(t, "question", func(m string) bool { return strings.Contains(m, "|mmi.service|") }), end, found
				}
				for answer, want := range map[string]bool{"200": true, `"200"`: true, "404": false, `"404"`: false} {
					m, end, found := ask()
					if !strings.Contains(m, map[bool]string{true: "|a name", false: `|"a name"|`}[w.opaque]) {
						t.Errorf("asked %q", m)
					}
					l.answer(w.dialect, m, answer)
					if err := <-end; err != nil || *found != want {
						t.Errorf("%s: got %v, %v", answer, *found, err)
					}
				}
				for answer, outcome := range map[string]Outcome{"501": NotExecuted, `"501"`: NotExecuted, "null": MayHaveExecuted, "[]": MayHaveExecuted, "true": MayHaveExecuted, "2000": MayHaveExecuted, `"` + strings.Repeat("x", 1000) + `"`: MayHaveExecuted} {
					m, end, _ := ask()
					l.answer(w.dialect, m, answer)
					wantError(t, answer, <-end, ErrUnsupported, outcome)
				}
				m, end, _ := ask()
				f := strings.Split(m, "|")
				switch w.dialect {
				case OMDP:
					l.say("C", "3", f[3], `{"status":418,"msg":"TEAPOT"}`)
				case OMDPFinal:
					l.say("C", "3", f[3], `{"code":418,"text":"TEAPOT"}`)
				case PIGATO:
					l.say("C", "3", "", f[3], "-1", `{"code":418,"text":"TEAPOT"}`, "undefined")
				default:
					l.answer(w.dialect, m, `{"status":418,"msg":"TEAPOT"}`)
				}
				wantError(t, "a handler's error", <-end, ErrUnsupported, Executed)
				// One that does not know the question has it wait for a worker.
				start := time.Now()
				_, end, _ = ask()
				wantError(t, "no answer", <-end, ErrTimeout, MayHaveExecuted)
				if d := time.Since(start); d < time.Minute || d > time.Minute+maxSlack {
					t.Errorf("after %v", d)
				}
			})
		})
	}
}

// All connections that are needed are opened at once, not one after the other.
func TestDialectOpensTogether(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		c, n := fakeDialect(t, d, &ClientConfig{MaxConnections: 4})
		defer c.Close()
		n.mu.Lock()
		n.blocked = true
		n.mu.Unlock()
		l := n.next(t)
		for i := range 6 {
			goCall(t.Context(), c, "echo", i)
		}
		synctest.Wait()
		l.hold(false)
		l.awaitPrefix(t, requestPrefix[d])
		synctest.Wait()
		if len(n.links) != 3 {
			t.Errorf("%d more connections are being made, want 3", len(n.links))
		}
	})
}
