package interop_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// TestMove is docs/migrating.md, step by step, with peers of each make that has a
// broker: ours takes the place of theirs at the same endpoint, and their worker
// comes over by itself; a worker of ours joins it and then serves alone; then a
// client of ours asks.
func TestMove(t *testing.T) {
	needPeers(t)
	peer := buildPeer(t)
	for _, b := range foreignBrokers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			broker := start(t, b.name+"-broker", []string{"node", filepath.Join("js", b.name+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*", "--heartbeat", "500"})
			endpoint := broker.want("ready")
			theirs := start(t, b.name+"-worker", node(b.name, "worker", endpoint, "--service", "moving", "--heartbeat", "300"))
			theirs.want("ready")
			old := start(t, b.name+"-client", append(node(b.name, "client", endpoint), "--service", "moving", "--stdin"))
			ask := func(c *proc) {
				t.Helper()
				c.tell(question{Data: []string{`"hello"`}})
				if got := c.answers(); len(got) == 0 || got[0] != `final "hello"` {
					t.Fatalf("%s got %s", c.name, got)
				}
			}
			ask(old)
			broker.kill()

			// The broker first. Peers of the Majordomo Protocol name themselves, so that
			// others can come to the same endpoint.
			dialect := b.dialect
			if dialect == omdp.MDP01 || dialect == omdp.MDP02 {
				dialect = omdp.Auto
			}
			ours, err := omdp.NewBroker(endpoint, &omdp.BrokerConfig{Dialect: dialect, Heartbeat: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			for until := time.Now().Add(limit); ours.Start() != nil; { // its port may not be free yet
				if time.Now().After(until) {
					t.Fatal("the endpoint is not free")
				}
				<-time.After(50 * time.Millisecond)
			}
			defer ours.Close()
			workers := func(n int) {
				t.Helper()
				for until := time.Now().Add(limit); ours.Stats().Services["moving"].Workers != n; {
					if time.Now().After(until) {
						t.Fatalf("%d workers, want %d", ours.Stats().Services["moving"].Workers, n)
					}
					<-time.After(10 * time.Millisecond)
				}
			}
			workers(1)
			ask(old)

			// Then workers.
			start(t, "omdp-worker", []string{peer, "worker", "--endpoint", endpoint, "--service", "moving"}).want("ready")
			workers(2)
			ask(old)
			ask(old)
			theirs.stop()
			workers(1)
			ask(old)

			// Then clients.
			ask(start(t, "omdp-client", []string{peer, "client", "--endpoint", endpoint, "--service", "moving", "--stdin"}))
			if s := ours.Stats(); s.Malformed != 0 || s.Dialects["omdp"] == 0 {
				t.Errorf("%d malformed messages; peers by dialect %v", s.Malformed, s.Dialects)
			}
		})
	}
}
