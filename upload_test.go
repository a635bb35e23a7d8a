package omdp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

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
	addWorker(t, b, "slow", &omdp.WorkerConfig{Window: 64 << 10, MaxWindow: -1}, s.handle)
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

// A Duplex of a request that was never made fails at once.
func TestUploadNotBegun(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	c := addClient(t, b, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	unstarted, err := omdp.NewClient(b.Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*omdp.Duplex{
		"its context has ended":         c.OpenStream(ended, "x", nil),
		"no service":                    c.OpenStream(t.Context(), "", nil),
		"no JSON":                       c.OpenStream(t.Context(), "x", func() {}),
		"a client that was not started": unstarted.OpenStream(t.Context(), "x", nil),
	} {
		wrote := make(chan error, 1)
		go func() {
			_, err := io.Copy(d, strings.NewReader("x"))
			wrote <- err
		}()
		if err := receive(t, name, wrote); err == nil || errors.Is(err, omdp.ErrEnded) {
			t.Errorf("%s: Write = %v", name, err)
		}
		if err := d.CloseWrite(); err == nil {
			t.Errorf("%s: CloseWrite told nothing", name)
		}
	}
}
