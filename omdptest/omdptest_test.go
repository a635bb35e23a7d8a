package omdptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/internal/leak"
	"github.com/zmq-omdp/omdp/internal/zsock"
	"github.com/zmq-omdp/omdp/omdptest"
)

func TestMain(m *testing.M) {
	leak.Main(m, leak.Count("open sockets", zsock.OpenSockets), leak.Count("libzmq messages", zsock.Blocks))
}

func upper(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	return res.End(strings.ToUpper(string(req.Bytes())))
}

func count(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	var n int
	if err := req.Decode(&n); err != nil {
		return err
	}
	for i := range n {
		if _, err := fmt.Fprint(res, i); err != nil {
			return err
		}
	}
	return nil
}

func TestStart(t *testing.T) {
	t.Parallel()
	s := omdptest.Start(t, omdptest.Handlers{"upper": upper, "count": count})
	m, err := s.Call(t.Context(), "upper", "abc")
	if err != nil || m.String() != "ABC" {
		t.Errorf("got %q and error %v, want ABC", m, err)
	}
	b, err := io.ReadAll(s.RequestStream(t.Context(), "count", 5))
	if err != nil || string(b) != "01234" {
		t.Errorf("got %q and error %v, want 01234", b, err)
	}
	if _, err := s.Call(t.Context(), "nobody", nil, omdp.FailFast()); !errors.Is(err, omdp.ErrNoWorker) {
		t.Errorf("got error %v, want ErrNoWorker", err)
	}
}

// Systems do not see each other, also with equal names of services.
func TestSystemsAreSeparate(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for i := range 3 {
		s := omdptest.Start(t, omdptest.Handlers{"who": func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End(i) }})
		for range 10 {
			wg.Go(func() {
				if n, err := omdp.CallJSON[int](t.Context(), s.Client, "who", nil); err != nil || n != i {
					t.Errorf("got %d and error %v, want %d", n, err, i)
				}
			})
		}
	}
	wg.Wait()
}

func TestConfigStart(t *testing.T) {
	t.Parallel()
	both := make(chan struct{})
	var once sync.WaitGroup
	once.Add(2)
	go func() { once.Wait(); close(both) }()
	s := omdptest.Config{
		Worker: &omdp.WorkerConfig{Concurrency: 2},
		Client: &omdp.ClientConfig{Timeout: time.Minute},
	}.Start(t, omdptest.Handlers{"pair": func(ctx context.Context, _ *omdp.Request, _ *omdp.Response) error {
		once.Done()
		select {
		case <-both: // two run at a time
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := s.Call(t.Context(), "pair", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A worker that leaves is replaced by another; a second client sees the same.
func TestWorkerAndClient(t *testing.T) {
	t.Parallel()
	s := omdptest.Start(t, nil)
	w := s.Worker("upper", upper)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := s.NewClient()
	s.Worker("upper", upper)
	if m, err := c.Call(t.Context(), "upper", "abc"); err != nil || m.String() != "ABC" {
		t.Errorf("got %q and error %v, want ABC", m, err)
	}
}

// Workers that are shut down one after the other lose no call.
func TestWorkersTakeOver(t *testing.T) {
	t.Parallel()
	s := omdptest.Config{Worker: &omdp.WorkerConfig{Concurrency: 5}}.Start(t, nil)
	w := s.Worker("upper", upper)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if m, err := s.Call(t.Context(), "upper", "abc"); err != nil || m.String() != "ABC" {
					t.Errorf("got %q and error %v, want ABC", m, err)
				}
			}
		})
	}
	for range 20 {
		next := s.Worker("upper", upper)
		for range 20 {
			if _, err := s.Call(t.Context(), "upper", "abc"); err != nil {
				t.Error(err)
			}
		}
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if st := w.Stats(); st.Lost+st.Failed+st.Dropped != 0 {
			t.Errorf("a worker that was shut down: %+v", st)
		}
		w = next
	}
	close(stop)
	wg.Wait()
}

func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	s := omdptest.Start(t, omdptest.Handlers{"bad": func(context.Context, *omdp.Request, *omdp.Response) error { panic("for the test's log") }})
	_, err := s.Call(t.Context(), "bad", nil)
	if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "500" || strings.Contains(e.Message, "log") {
		t.Errorf("got error %v, want code 500 without the panic's text", err)
	}
}
