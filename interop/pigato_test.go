package interop_test

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// What PIGATO has besides requests and replies, asked by its own client of its
// own workers through our broker.
func TestPigatoExtras(t *testing.T) {
	needPeers(t)
	peer, endpoints := buildPeer(t), startBroker(t)
	at := endpoints[omdp.PIGATO]
	worker := func(service string) {
		start(t, "worker "+service, node("pigato", "worker", at, "--service", service)).want("ready")
	}
	ask := func(service, data string, more ...string) string {
		t.Helper()
		c := start(t, "client "+service, append(node("pigato", "client", at, "--service", service, "--data", data), more...))
		return c.next()
	}
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}

	// A wildcard serves every name that starts so, the longest first.
	worker("jobs-*")
	is(ask("jobs-print", `"x"`), `final "x"`)

	// A version serves who asks for it, or for a range that has it. (PIGATO's own
	// broker ends at a range.)
	worker("calc@1.4.2")
	is(ask("calc@1.4.2", "1"), "final 1")
	is(ask("calc@^1.0.0", "2"), "final 2")

	// The directory lists a service's workers.
	if got := ask("$dir", `"jobs-*"`); !regexp.MustCompile(`^final \["W[0-9a-f-]+"\]$`).MatchString(got) {
		t.Errorf("got %s, want the id of one worker", got)
	}
	is(ask("$dir", `"nobody"`), "final []")

	// What one worker rejects another is asked for; when all did, it is an error.
	worker("picky")
	is(ask("picky", `"reject"`), `error "REJECTED"`)
	start(t, "worker picky, omdp", []string{peer, "worker", "--endpoint", endpoints[omdp.OMDP], "--service", "picky"}).want("ready")
	for until := time.Now().Add(limit); strings.Count(ask("$dir", `"picky"`), `","`) != 1; {
		if time.Now().After(until) {
			t.Fatalf("no second worker in %v", limit)
		}
	}
	c := start(t, "client omdp", []string{peer, "client", "--endpoint", endpoints[omdp.OMDP], "--service", "picky", "--data", `"reject"`})
	is(c.next(), `final "reject"`)

	// A request for a certain worker is refused: there is no such thing here.
	is(ask("picky", `"x"`, "--options", `{"workerId":"W1"}`), `error "UNSUPPORTED"`)
}

// Our worker at PIGATO's own broker: what waits there before it comes is answered,
// though that broker gives it all at once, whatever its concurrency; and one that
// shuts down while there is no end of requests loses none.
func TestPigatoBrokerAndOurWorker(t *testing.T) {
	needPeers(t)
	_, endpoint := theirBroker(t, foreignBroker{name: "pigato"})
	c := ourClient(t, endpoint, omdp.PIGATO)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	var failed atomic.Int32
	var calls sync.WaitGroup
	ask := func() {
		if m, err := c.Call(context.Background(), "moving", "x"); err != nil || m.String() != "x" {
			failed.Add(1)
			t.Errorf("got %q, %v", m, err)
		}
	}
	for range 20 {
		calls.Go(ask)
	}
	until(t, "requests on their way", 20, func() int { return c.Stats().Outstanding - c.Stats().Waiting })
	first := ourWorker(t, endpoint, omdp.PIGATO)
	calls.Wait()
	if s := first.Stats(); s.Succeeded != 20 || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}

	stop := make(chan struct{})
	for range 20 {
		calls.Go(func() {
			for failed.Load() == 0 {
				select {
				case <-stop:
					return
				default:
					ask()
				}
			}
		})
	}
	second := ourWorker(t, endpoint, omdp.PIGATO)
	until(t, "workers of 2 at work", 2, func() (n int) {
		for _, w := range []*omdp.Worker{first, second} {
			if w.Stats().Succeeded >= 200 {
				n++
			}
		}
		return n
	})
	if err := first.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	close(stop)
	calls.Wait()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d requests failed", n)
	}
}
