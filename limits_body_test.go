package omdp_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Of two that need all the room, one waits for the end of the other.
func limitTotalBody(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16 << 10}})
	h := newHeld()
	w := addWorker(t, b, "held", &omdp.WorkerConfig{Concurrency: 2, MaxBody: 64 << 10, TotalBody: 64 << 10}, h.handle)
	c := addClient(t, b, nil)
	data := make([]byte, 40<<10)
	one, two := goCall(t, c, "held", data), goCall(t, c, "held", data)
	receive(t, "the first", h.began)
	eventually(t, "both are at the worker", func() bool { return w.Stats().Active == 2 })
	if n := w.Stats().Handlers; n != 1 {
		t.Errorf("%d handlers run, there is room for one", n)
	}
	close(h.free)
	for _, r := range []<-chan result{one, two} {
		if got := receive(t, "an answer", r); got.err != nil {
			t.Error(got.err)
		}
	}
	if _, err := omdp.NewWorker("inproc://x", "x", &omdp.WorkerConfig{MaxBody: 2048, TotalBody: 2047}); err == nil {
		t.Error("a TotalBody under MaxBody was taken")
	}
}

// TestUploadIsBounded has the window; here are its bounds.
func limitUpload(t *testing.T) {
	for _, c := range []omdp.WorkerConfig{{Window: 4<<10 - 1}, {Window: 1<<30 + 1}, {Window: 64 << 10, MaxWindow: 32 << 10}, {MaxWindow: 1<<30 + 1}} {
		if _, err := omdp.NewWorker("inproc://x", "x", &c); err == nil {
			t.Errorf("windows of %d and %d were taken", c.Window, c.MaxWindow)
		}
	}
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	for _, limit := range []struct {
		config omdp.WorkerConfig
		most   int
	}{{omdp.WorkerConfig{Window: 64 << 10, MaxWindow: -1}, 64 << 10}, {omdp.WorkerConfig{Window: 64 << 10, MaxWindow: 512 << 10}, 512 << 10}} {
		s := newSlowUpload()
		w := addWorker(t, b, "slow", &limit.config, s.handle)
		c := addClient(t, b, nil)
		d := c.OpenStream(within(t), "slow", nil)
		wrote := make(chan int, 1000)
		go func() {
			for {
				n, err := d.Write(make([]byte, 16<<10))
				if err != nil {
					close(wrote)
					return
				}
				wrote <- n
			}
		}()
		receive(t, "the handler", s.began)
		ahead := 0
		for range 20 { // it reads all that there is, so that the window grows, and then no more
			s.read <- 32 << 10
			receive(t, "what it read", s.got)
			ahead -= 32 << 10
		}
		for quiet := false; !quiet; {
			select {
			case n := <-wrote:
				ahead += n
			case <-time.After(100 * time.Millisecond):
				quiet = true
			}
		}
		if ahead > limit.most {
			t.Errorf("%d bytes ahead of the handler, the window may have %d", ahead, limit.most)
		}
		_ = d.Close()
		close(s.read)
		closed(t, "worker", w)
	}
}

func limitUploadTimeout(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	s := newSlowUpload()
	addWorker(t, b, "slow", &omdp.WorkerConfig{UploadTimeout: 5 * beat}, s.handle)
	d := addClient(t, b, nil).OpenStream(within(t), "slow", nil)
	defer d.Close()
	receive(t, "the handler", s.began)
	began := time.Now()
	for range 8 { // it goes on, if slowly
		s.read <- 1
		if _, err := d.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, "what it read", s.got); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		<-time.After(beat)
	}
	wrote := make(chan int, 1000)
	go func() { // a handler that does not read is no fault of the client's
		defer close(wrote)
		for range 400 {
			n, err := d.Write(make([]byte, 1000))
			if err != nil {
				return
			}
			wrote <- n
		}
	}()
	<-time.After(8 * beat)
	for range 40 {
		s.read <- 10_000
		if err := receive(t, "what it read", s.got); err != nil {
			t.Fatalf("behind by the window: %v", err)
		}
	}
	s.read <- 1
	if err := receive(t, "what it read", s.got); !errors.Is(err, omdp.ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
	if _, err := io.ReadAll(d); err == nil {
		t.Error("the client was told nothing")
	}
}
