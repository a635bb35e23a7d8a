package omdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A worker of other dialects, and a broker by hand.

// Every message that a worker sends of itself. Nothing that is ours.
func TestDialectWorkerSays(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		w, n := fakeDialectWorker(t, d, &WorkerConfig{Concurrency: 3, StuckAfter: -1}, func(ctx context.Context, req *Request, res *Response) error {
			<-ctx.Done()
			return ctx.Err()
		})
		l := n.next(t)
		pigato := func(n int) string { return fmt.Sprintf(`W|4||{"concurrency":%d}`, n) }
		ready := map[Dialect][]string{OMDPFinal: {"W|1|s"}, PIGATO: {"W|1|s", pigato(3)}, MDP02: {"MDPW02|\x01|s"}, MDP01: {"|MDPW01|\x01|s"}}[d]
		beat := map[Dialect]string{OMDPFinal: "W|4", PIGATO: pigato(3), MDP02: "MDPW02|\x05", MDP01: "|MDPW01|\x04"}[d]
		bye := map[Dialect]string{OMDPFinal: "W|5", PIGATO: "W|5", MDP02: "MDPW02|\x06", MDP01: "|MDPW01|\x05"}[d]
		wantSent(t, l, ready...)
		if d == PIGATO {
			l.say("W", "1")
		}
		l.work(d, "token", "rid") // it beats bare while it holds one, too
		pass(2*testBeat + testBeat/2)
		wantSent(t, l, beat, beat)
		if err := w.SetConcurrency(5); err != nil {
			t.Fatal(err)
		}
		if d == PIGATO {
			wantSent(t, l, pigato(5))
		} else {
			wantSent(t, l)
		}
		// DISCONNECT has it register anew; what it held is nobody's.
		switch d {
		case MDP02:
			l.say("MDPW02", "\x06")
		case MDP01:
			l.say("", "MDPW01", "\x05")
		default:
			l.say("W", "5")
		}
		l = n.next(t)
		ready = slices.Clone(ready)
		for i := range ready {
			ready[i] = strings.Replace(ready[i], ":3}", ":5}", 1)
		}
		wantSent(t, l, ready...)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wantSent(t, l, bye)
		if s := w.Stats(); s.Lost != 1 || s.Malformed != 0 || s.Connections != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// What handlers answer, and what becomes of data.
func TestDialectWorkerAnswers(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		w, n := fakeDialectWorker(t, d, nil, func(ctx context.Context, req *Request, res *Response) error {
			switch req.Message().String() {
			case "error":
				return errors.New("no")
			case "code":
				return &Error{Code: "418", Message: "TEAPOT"}
			case "bytes":
				return res.End([]byte("\xff\x00"))
			case "null":
				return nil
			}
			return res.End(req.Message())
		})
		defer w.Close()
		l := n.next(t)
		opaque := wires[d].opaque
		work := func(frames ...string) {
			switch d {
			case OMDPFinal:
				l.say("W", "2", "tok", "rid", frames[0])
			case PIGATO:
				l.say("W", "2", "tok", "s", "", "rid", frames[0], "{}")
			case MDP02:
				l.say(append([]string{"MDPW02", "\x02", "tok", ""}, frames...)...)
			case MDP01:
				l.say(append([]string{"", "MDPW01", "\x02", "tok", ""}, frames...)...)
			}
		}
		head := map[Dialect]string{OMDPFinal: "W|3|tok|rid|", PIGATO: "W|3|tok||rid|", MDP02: "MDPW02|\x04|tok||", MDP01: "|MDPW01|\x03|tok||"}[d]
		value := map[Dialect]string{OMDPFinal: "0|%s", PIGATO: "0|%s|{}", MDP02: "%s", MDP01: "%s"}[d]
		failure := map[Dialect]string{OMDPFinal: "%s", PIGATO: "-1|%s|undefined"}[d]
		synctest.Wait()
		l.sent() // READY
		for in, want := range map[string]string{
			`"x"`: fmt.Sprintf(value, `"x"`), `{"a":[1]}`: fmt.Sprintf(value, `{"a":[1]}`), `"null"`: fmt.Sprintf(value, "null"),
			`"error"`: fmt.Sprintf(failure, `"no"`), `"code"`: fmt.Sprintf(failure, `{"code":418,"text":"TEAPOT"}`), `"bytes"`: fmt.Sprintf(value, `{"type":"Buffer","data":[255,0]}`),
			"undefined": fmt.Sprintf(failure, `"ERR_MSG_PARSE"`),
		} {
			if opaque {
				switch in {
				case `"error"`:
					want = `{"status":500,"msg":"no"}`
				case `"code"`:
					want = `{"status":418,"msg":"TEAPOT"}`
				case `"bytes"`:
					want = "\xff\x00"
				case "undefined": // no JSON is bytes
					want = "undefined"
				}
			}
			work(in)
			synctest.Wait()
			if got := l.sent(); len(got) != 1 || got[0] != head+want {
				t.Errorf("%s: sent %q, want %q", in, got, head+want)
			}
		}
		if opaque { // several frames are an array of what each would be
			work("1", "x", "", "\xff")
			wantSent(t, l, head+`[1,"x","",{"type":"Buffer","data":[255]}]`)
			work("")
			wantSent(t, l, head)
		}
	})
}

// A request that a broker gives while it knows of no other: the one before it was
// given up, and nobody hears of it any more. Such a broker gives one at a time,
// however many the worker would take.
func TestDialectOvertaken(t *testing.T) {
	for _, concurrency := range []int{1, 3} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) { overtaken(t, concurrency) })
	}
}

func overtaken(t *testing.T, concurrency int) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 10)
		free := make(chan struct{})
		w, n := fakeDialectWorker(t, OMDPFinal, &WorkerConfig{Concurrency: concurrency}, func(ctx context.Context, req *Request, res *Response) error {
			select {
			case <-free:
			case <-ctx.Done():
				ended <- context.Cause(ctx)
			}
			return res.End(req.ID())
		})
		defer w.Close()
		l := n.next(t)
		for i := range 3 {
			l.work(OMDPFinal, "token", fmt.Sprint("r", i))
			synctest.Wait()
		}
		for range 2 {
			checkIs(t, "the one before", <-ended, ErrCanceled)
		}
		wantSent(t, l, "W|1|s")
		free <- struct{}{}
		wantSent(t, l, `W|3|token|r2|0|"r2"`)
		if s := w.Stats(); s.Requests != 3 || s.Canceled != 2 || s.Succeeded != 1 || s.Active != 0 || s.Dropped != 0 || s.Handlers != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Dialects that there are none of, and numbers out of range.
func TestDialectConfig(t *testing.T) {
	for text, f := range map[string]func() error{
		"omdp: new worker: Dialect: Dialect(9) is none": func() error {
			_, err := NewWorker("inproc://x", "s", &WorkerConfig{Dialect: 9})
			return err
		},
		"omdp: new client: Dialect: Dialect(9) is none": func() error {
			_, err := NewClient("inproc://x", &ClientConfig{Dialect: 9})
			return err
		},
		"omdp: new client: MaxConnections: -1 is not from 1 to 1000": func() error {
			_, err := NewClient("inproc://x", &ClientConfig{MaxConnections: -1})
			return err
		},
		"omdp: new client: MaxConnections: 1001 is not from 1 to 1000": func() error {
			_, err := NewClient("inproc://x", &ClientConfig{MaxConnections: 1001, Dialect: MDP01})
			return err
		},
	} {
		if got := fmt.Sprint(f()); got != text {
			t.Errorf("got %s, want %s", got, text)
		}
	}
}

// An error arrives as the one that the handler returned, whatever its code and value:
// where a dialect has none, as the form by which they are known, and never as a value.
func TestDialectWorkerErrors(t *testing.T) {
	long := strings.Repeat("CODE ", 20)
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		var said *Error
		w, n := fakeDialectWorker(t, d, nil, func(ctx context.Context, req *Request, res *Response) error { return said })
		defer w.Close()
		l := n.next(t)
		synctest.Wait()
		l.sent() // READY
		for i, e := range []Error{
			{Code: "418", Message: "TEAPOT"}, {Message: "no"}, {},
			{Code: "418", Data: []byte(" {\"a\": [1]}\n")}, {Code: "NO", Data: []byte("\t5 ")}, {Data: []byte(" [1]\r\n")},
			{Code: long, Message: "x"}, {Code: `"`, Message: "x"}, {Code: "-1", Message: "x"}, {Code: "1e400", Message: "x"}, {Code: "200.0", Message: "x"},
		} {
			said = &e
			l.work(d, fmt.Sprint("T", i), fmt.Sprint("R", i))
			synctest.Wait()
			got := l.sent()
			if len(got) != 1 {
				t.Fatalf("%+v: sent %q", e, got)
			}
			var m message
			if !wires[d].parseAtBroker(split(got[0]), &m) {
				t.Fatalf("%+v: sent %q, which can't be read", e, got)
			}
			code, value := e.wire()
			if m.said != saidError || m.code != code || strings.TrimSpace(string(m.body[0])) != strings.TrimSpace(string(value)) {
				t.Errorf("%+v: sent %q, which says %v, %s, %q", e, got, m.said, m.code, m.body)
			}
		}
	})
}

// A value is none, however much it looks like one: also if it was a partial, and
// stands alone in the end.
func TestDialectWorkerNoErrors(t *testing.T) {
	eachDialect(t, nameless, func(t *testing.T, d Dialect) {
		w, n := fakeDialectWorker(t, d, nil, func(ctx context.Context, req *Request, res *Response) error {
			type record struct {
				Status any    `json:"status"`
				Msg    string `json:"msg"`
			}
			return errors.Join(res.Send(record{404, "a record"}), res.Close())
		})
		defer w.Close()
		l := n.next(t)
		synctest.Wait()
		l.sent() // READY
		l.work(d, "T", "R")
		synctest.Wait()
		got := l.sent()
		var m message
		if len(got) == 0 || !wires[d].parseAtBroker(split(got[0]), &m) || m.said != saidValue {
			t.Errorf("sent %q, which says %v", got, m.said)
		}
	})
}

// What is only nearly of the form of an error is a value.
func TestDialectNearlyErrors(t *testing.T) {
	t.Parallel()
	for _, s := range []string{`{"status":404,"Msg":"x"}`, `{"status":404,"MSG":"x"}`, `{"status":404,"gsm":"","msg":"x"}`, `{"status":404,"msg":"x" }`, `{"status":"TIMEOUT","Executed":false}`} {
		var m message
		if !m.saysFrames([][]byte{[]byte(s)}) || m.said != saidValue {
			t.Errorf("%s says %v, %s", s, m.said, m.code)
		}
	}
	var m message
	if m.saysCoded([]byte(`{"code":404,"Text":"x"}`)); m.code != "500" {
		t.Errorf("another key than text: code %s", m.code)
	}
}

// A worker of PIGATO that shuts down asks for nothing more, serves what was on its
// way, and leaves with the last final; else its broker would give it request after
// request.
func TestDialectPigatoShutdown(t *testing.T) {
	const none = `W|4||{"concurrency":0}`
	start := func(t *testing.T) (w *Worker, l *fakeLink, free chan struct{}, done chan error) {
		free, done = make(chan struct{}), make(chan error, 1)
		w, n := fakeDialectWorker(t, PIGATO, &WorkerConfig{Concurrency: 3}, func(ctx context.Context, req *Request, res *Response) error {
			<-free
			return res.Heartbeat()
		})
		l = n.next(t)
		l.say("W", "1")
		synctest.Wait()
		l.sent()
		return w, l, free, done
	}
	shutdown := func(w *Worker, done chan error) {
		go func() { done <- w.Shutdown(context.Background()) }()
		synctest.Wait()
	}
	final := func(rid string) string { return "W|3|T||" + rid + "|0|null|{}" }
	t.Run("busy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, l, free, done := start(t)
			l.work(PIGATO, "T", "r1")
			shutdown(w, done)
			wantSent(t, l, none)
			l.work(PIGATO, "T", "r2") // it was on its way
			free <- struct{}{}
			wantSent(t, l, none, final("r1"))
			l.say("W", "4")
			pass(testBeat + testBeat/2)
			wantSent(t, l, none)
			free <- struct{}{}
			wantSent(t, l, none, final("r2"), "W|5")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("no broker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, n := fakeDialectWorker(t, PIGATO, nil, func(context.Context, *Request, *Response) error { return nil })
			n.next(t)
			synctest.Wait()
			since := time.Now()
			if err := w.Shutdown(context.Background()); err != nil || time.Since(since) > drainSettle {
				t.Errorf("it took %v: %v", time.Since(since), err)
			}
		})
	})
	t.Run("idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, l, free, done := start(t)
			shutdown(w, done)
			wantSent(t, l, none)
			l.work(PIGATO, "T", "r1")
			free <- struct{}{}
			wantSent(t, l, none, final("r1"))
			l.say("W", "4")
			synctest.Wait()
			wantSent(t, l, "W|5")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

// Whoever does the exchange in which the connection comes, the worker beats from then on.
func TestBeatsWhoeverConnects(t *testing.T) {
	for _, d := range []Dialect{OMDP, OMDPFinal, PIGATO, MDP02, MDP01} {
		bubble(t, d.String(), func(t *testing.T) {
			n := newFakeNet()
			n.blocked = true
			w := stagedWorker(t, n, d, &WorkerConfig{Heartbeat: testBeat}, echo)
			defer w.Close()
			l := n.next(t)
			synctest.Wait() // its session has nothing to wait for
			l.hold(false)   // on this goroutine
			l.sent()
			pass(testBeat + testBeat/2)
			if got := l.sent(); len(got) != 1 {
				t.Errorf("sent %q, want a beat", got)
			}
		})
	}
}

// A broker of another make does not tell its interval: it is the worker's, as agreed,
// so one that is slow by agreement is not lost after 15 s.
func TestDialectSlowBroker(t *testing.T) {
	eachDialect(t, nil, func(t *testing.T, d Dialect) {
		w, n := fakeDialectWorker(t, d, &WorkerConfig{Heartbeat: time.Minute}, func(context.Context, *Request, *Response) error { return nil })
		defer w.Close()
		l := n.next(t)
		beat := func() {
			switch d {
			case MDP02:
				l.say("MDPW02", "\x05")
			case MDP01:
				l.say("", "MDPW01", "\x04")
			default:
				l.say("W", "4")
			}
		}
		for range 5 {
			beat()
			pass(time.Minute)
		}
		synctest.Wait()
		if s := w.Stats(); s.Connections != 1 || s.State != Ready {
			t.Errorf("stats %+v", s)
		}
		pass(3 * time.Minute)
		synctest.Wait()
		if s := w.Stats(); s.State != Lost {
			t.Errorf("silent for three intervals: %v", s.State)
		}
	})
}

// PIGATO's broker takes a worker that it has only READY of for one with a concurrency
// of 100, and gives it what waits before it reads more. What is dropped keeps its
// place there for ever.
func TestDialectPigatoGivesMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := make(chan struct{})
		w, n := fakeDialectWorker(t, PIGATO, nil, func(context.Context, *Request, *Response) error {
			<-given
			return nil
		})
		defer w.Close()
		l := n.next(t)
		synctest.Wait()
		l.sent() // READY and the concurrency of 1
		for i := range 100 {
			l.work(PIGATO, "T", fmt.Sprint("r", i))
		}
		synctest.Wait()
		if s := w.Stats(); s.Handlers != 1 || s.Waiting != 99 {
			t.Errorf("given all: %+v", s)
		}
		close(given)
		synctest.Wait()
		if s, sent := w.Stats(), l.sent(); s.Dropped != 0 || s.Succeeded != 100 || len(sent) != 100 || sent[99] != "W|3|T||r99|0|null|{}" {
			t.Errorf("%d finals; stats %+v", len(sent), s)
		}
	})
}
