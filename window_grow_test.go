package omdp_test

import (
	"context"
	"io"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// A small window grows under a reader that takes all, not under one that takes
// nothing, and never where the call has set it.
func TestWindowGrows(t *testing.T) {
	const window, total = 8 << 10, 4 << 20
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	rooms := make(chan int, 1)
	w := addWorker(t, b, "flood", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		chunk := make([]byte, 4<<10)
		most := 0
		for n := 0; n < total; n += len(chunk) {
			most = max(most, res.Room())
			if _, err := res.Write(chunk); err != nil {
				break
			}
		}
		rooms <- most
		return nil
	})
	c := addClient(t, b, &omdp.ClientConfig{Window: window})

	n, err := io.Copy(io.Discard, c.RequestStream(t.Context(), "flood", nil))
	if most := <-rooms; err != nil || n != total || most <= window {
		t.Errorf("a fast reader: %d bytes, %v; there was room for %d, want more than %d", n, err, most, window)
	}
	n, err = io.Copy(io.Discard, c.RequestStream(t.Context(), "flood", nil, omdp.WithWindow(window)))
	if most := <-rooms; err != nil || n != total || most != window {
		t.Errorf("a window that was set: %d bytes, %v; there was room for %d, want %d", n, err, most, window)
	}

	before := w.Stats().Bytes
	s := c.RequestStream(t.Context(), "flood", nil)
	if _, err := s.Read(make([]byte, 1)); err != nil { // a part of the first partial, and no more
		t.Fatal(err)
	}
	eventually(t, "the window is full", func() bool { return w.Stats().Bytes-before >= window-4<<10 })
	s.Close()
	// It took all that there was once: the window may have doubled, and no more than that.
	if most, sent := <-rooms, w.Stats().Bytes-before; most > 2*window || sent > 3*window {
		t.Errorf("a stuck reader: there was room for %d, %d bytes were sent; the window is %d", most, sent, window)
	}
}

// Whatever is slow, a stream has no more than three windows in worker, broker
// and client together: what was sent and not read yet.
func TestWindowBoundsMemory(t *testing.T) {
	const window, chunk, total = 256 << 10, 64 << 10, 64 << 20
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	w := addWorker(t, b, "flood", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		_, err := io.CopyN(res, zeros{}, total)
		return err
	})
	c := addClient(t, b, &omdp.ClientConfig{Window: window})
	s := c.RequestStream(t.Context(), "flood", nil)
	buf := make([]byte, 32<<10)
	var read, most uint64
	for {
		n, err := io.ReadFull(s, buf)
		read += uint64(n)
		if sent := w.Stats().Bytes; sent > read { // it may say more a moment later, which the next round sees
			most = max(most, sent-read)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// The reader is the slow one: before it goes on, all that fits into the window is there.
		eventually(t, "the window is full", func() bool {
			came := c.Stats().Partials * chunk
			return came >= total || came >= read+2*chunk
		})
	}
	if read != total {
		t.Errorf("read %d bytes, want %d", read, total)
	}
	if most > 3*window {
		t.Errorf("%d bytes were on the way, want at most three windows of %d", most, window)
	}
	t.Logf("%d bytes were on the way at the most, the window began with %d", most, window)
}

func limitMaxWindow(t *testing.T) {
	const window, most, total = 8 << 10, 20 << 10, 4 << 20
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	rooms := make(chan int, 1)
	addWorker(t, b, "flood", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		room := 0
		for range total / 4096 {
			room = max(room, res.Room())
			if _, err := res.Write(make([]byte, 4096)); err != nil {
				break
			}
		}
		rooms <- room
		return nil
	})
	for _, limit := range []int{most, -1} {
		c := addClient(t, b, &omdp.ClientConfig{Window: window, MaxWindow: limit})
		if n, err := io.Copy(io.Discard, c.RequestStream(t.Context(), "flood", nil)); n != total || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		if room := <-rooms; room > max(limit, window) || limit > 0 && room <= window {
			t.Errorf("MaxWindow %d: there was room for %d bytes at the most, the window began with %d", limit, room, window)
		}
	}
	for _, bad := range []int{window - 1, 1<<30 + 1} {
		if _, err := omdp.NewClient("tcp://127.0.0.1:1", &omdp.ClientConfig{Window: window, MaxWindow: bad}); err == nil {
			t.Errorf("MaxWindow %d is accepted", bad)
		}
	}
}
