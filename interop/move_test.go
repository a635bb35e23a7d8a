package interop_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// TestMove is docs/migrating.md, step by step, with peers of each make that has a
// broker: ours takes the place of theirs at the same endpoint, and their worker
// comes over by itself; a worker of ours joins it and then serves alone, theirs
// comes back and leaves again; then a client of ours asks; at last they are gone.
func TestMove(t *testing.T) {
	eachMove(t, func(t *testing.T, b foreignBroker) (last func()) {
		broker, endpoint := theirBroker(t, b)
		theirWorker := func() *proc {
			p := start(t, b.name+"-worker", node(b.name, "worker", endpoint, "--service", "moving", "--heartbeat", "300"))
			p.want("ready")
			return p
		}
		theirs := theirWorker()
		old := start(t, b.name+"-client", append(node(b.name, "client", endpoint), "--service", "moving", "--stdin"))
		ask := func() {
			t.Helper()
			old.tell(question{Data: []string{`"hello"`}})
			if got := old.answers(); len(got) == 0 || got[0] != `final "hello"` {
				t.Fatalf("%s got %s", old.name, got)
			}
		}
		ask()
		broker.kill()

		// The broker first.
		ours := ourBroker(t, b, endpoint)
		workers := func(n int) {
			t.Helper()
			until(t, "workers", n, func() int { return ours.Stats().Services["moving"].Workers })
		}
		workers(1)
		ask()

		// Then workers: both are asked in turn, then one alone.
		w := ourWorker(t, endpoint, omdp.Auto)
		workers(2)
		ask()
		ask()
		if n := w.Stats().Requests; n != 1 {
			t.Errorf("of two requests our worker had %d", n)
		}
		theirs.stop()
		workers(1)
		ask()
		if n := w.Stats().Requests; n != 2 {
			t.Errorf("alone, our worker had %d requests of 2", n)
		}

		// And back, and forth again.
		theirs = theirWorker()
		workers(2)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		workers(1)
		ask()

		// Then clients: theirs is asked, and ours.
		c := ourClient(t, endpoint, omdp.Auto)
		askOurs(t, c)
		w = ourWorker(t, endpoint, omdp.Auto)
		workers(2)
		theirs.stop()
		workers(1)
		askOurs(t, c)
		if n := w.Stats().Requests; n != 1 {
			t.Errorf("our client's request went to our worker %d times", n)
		}

		// At last the broker tells that nobody of theirs is there. Clients do not say
		// that they leave, so they stay in its count for a while.
		if s := ours.Stats(); s.Malformed != 0 || s.Dialects["omdp"] == 0 || s.Dialects[b.dialect.String()] == 0 {
			t.Errorf("%d malformed messages; peers by dialect %v", s.Malformed, s.Dialects)
		}
		old.kill()
		return func() {
			if b.dialect != omdp.OMDP {
				until(t, "peers of theirs", 0, func() int { return ours.Stats().Dialects[b.dialect.String()] })
			}
		}
	})
}

// TestMoveBrokerLast is the other way that the page has: our worker and client join
// the broker of another make, in its dialect; it moves, and they come over as they
// are; then they change to OMDP.
func TestMoveBrokerLast(t *testing.T) {
	eachMove(t, func(t *testing.T, b foreignBroker) (last func()) {
		broker, endpoint := theirBroker(t, b)
		w, c := ourWorker(t, endpoint, b.dialect), ourClient(t, endpoint, b.dialect)
		askOurs(t, c)
		broker.kill()
		ours := ourBroker(t, b, endpoint)
		until(t, "workers", 1, func() int { return ours.Stats().Services["moving"].Workers })
		askOurs(t, c)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		ourWorker(t, endpoint, omdp.OMDP)
		askOurs(t, c)
		askOurs(t, ourClient(t, endpoint, omdp.OMDP))
		if s := ours.Stats(); s.Malformed+s.WrongDialect != 0 {
			t.Errorf("%d malformed messages, %d of another dialect", s.Malformed, s.WrongDialect)
		}
		return func() {}
	})
}

// eachMove plays a move with each make; last is what only waits in the end.
func eachMove(t *testing.T, move func(t *testing.T, b foreignBroker) (last func())) {
	needPeers(t)
	for _, b := range foreignBrokers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			func() func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				return move(t, b)
			}()()
		})
	}
}

func theirBroker(t *testing.T, b foreignBroker) (broker *proc, endpoint string) {
	broker = start(t, b.name+"-broker", []string{"node", filepath.Join("js", b.name+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*", "--heartbeat", "500"})
	return broker, broker.want("ready")
}

// ourBroker takes the place of theirs. Peers of the Majordomo Protocol name
// themselves, so that others can come to the same endpoint.
func ourBroker(t *testing.T, b foreignBroker, endpoint string) *omdp.Broker {
	t.Helper()
	dialect := b.dialect
	if dialect == omdp.MDP01 || dialect == omdp.MDP02 {
		dialect = omdp.Auto
	}
	ours, err := omdp.NewBroker(endpoint, &omdp.BrokerConfig{
		Dialect: dialect, Heartbeat: 300 * time.Millisecond,
		Limits: omdp.Limits{IgnoreTime: time.Second}, // so long it remembers who was there, if that is over 15 s
	})
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(limit); ours.Start() != nil; { // its port may not be free yet
		if time.Now().After(until) {
			t.Fatal("the endpoint is not free")
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Cleanup(func() { ours.Close() })
	return ours
}

func ourWorker(t *testing.T, endpoint string, d omdp.Dialect) *omdp.Worker {
	t.Helper()
	w, err := omdp.NewWorker(endpoint, "moving", &omdp.WorkerConfig{Dialect: d, Heartbeat: 300 * time.Millisecond, ReconnectMax: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.OnRequest(func(_ context.Context, req *omdp.Request, res *omdp.Response) error { return res.End(req.Message()) })
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func ourClient(t *testing.T, endpoint string, d omdp.Dialect) *omdp.Client {
	t.Helper()
	c, err := omdp.NewClient(endpoint, &omdp.ClientConfig{Dialect: d, Timeout: limit, Heartbeat: 300 * time.Millisecond, ReconnectMax: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// askOurs asks until it is answered: a connection that was cut may only now be seen.
func askOurs(t *testing.T, c *omdp.Client) {
	t.Helper()
	m, err := c.Call(t.Context(), "moving", "hello", omdp.Idempotent())
	if err != nil || m.String() != "hello" {
		t.Fatalf("our client got %q, %v", m, err)
	}
}

func until(t *testing.T, what string, want int, get func() int) {
	t.Helper()
	for end := time.Now().Add(2 * limit); get() != want; {
		if time.Now().After(end) {
			t.Fatalf("%d %s, want %d", get(), what, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}
