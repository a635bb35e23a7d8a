package omdp_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

type point struct {
	X int `json:"x"`
}

// points counts up to in.X; from 100 on it fails.
func points(ctx context.Context, in point) iter.Seq2[point, error] {
	return func(yield func(point, error) bool) {
		for x := range in.X {
			if x == 100 {
				yield(point{}, &omdp.Error{Code: "416", Message: "too far"})
				return
			}
			if !yield(point{x}, nil) {
				return
			}
		}
	}
}

func TestStreamJSON(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	addWorker(t, b, "points", nil, omdp.StreamJSON(points))
	c := addClient(t, b, nil)
	var got []int
	for p, err := range omdp.RangeJSON[point](c.RequestStream(t.Context(), "points", point{4})) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.X)
	}
	if want := []int{0, 1, 2, 3}; len(got) != 4 || got[0] != want[0] || got[3] != want[3] {
		t.Errorf("got %v, want %v", got, want)
	}

	n := 0
	var last error
	for p, err := range omdp.RangeJSON[point](c.RequestStream(t.Context(), "points", point{200})) {
		if last = err; err == nil {
			n++
		} else if p != (point{}) {
			t.Errorf("a value beside an error: %v", p)
		}
	}
	var e *omdp.Error
	if !errors.As(last, &e) || e.Code != "416" || n != 100 {
		t.Errorf("%d points, then %v; want 100, then code 416", n, last)
	}

	for _, err := range omdp.RangeJSON[point](c.RequestStream(t.Context(), "points", "no point")) {
		if !errors.As(err, &e) || e.Code != "400" {
			t.Errorf("data that does not fit: %v, want code 400", err)
		}
	}
}

// A message that does not fit, and a loop that is broken off, cancel the request.
func TestRangeJSONCancels(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	ended := make(chan error, 1)
	addWorker(t, b, "ticks", nil, func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		for {
			if err := res.Send("tick"); err != nil {
				ended <- context.Cause(ctx)
				return err
			}
		}
	})
	c := addClient(t, b, nil)
	wait := func() {
		t.Helper()
		select {
		case err := <-ended:
			failed(t, err, omdp.ErrCanceled)
		case <-time.After(time.Minute):
			t.Fatal("the handler goes on")
		}
	}
	n := 0
	for _, err := range omdp.RangeJSON[int](c.RequestStream(t.Context(), "ticks", nil)) {
		if n++; err == nil || !strings.Contains(err.Error(), "decode message") || omdp.OutcomeOf(err) != omdp.MayHaveExecuted {
			t.Errorf("got %v, want that a string is no int", err)
		}
	}
	if n != 1 {
		t.Errorf("%d rounds, want 1", n)
	}
	wait()
	for tick, err := range omdp.RangeJSON[string](c.RequestStream(t.Context(), "ticks", nil)) {
		if err != nil || tick != "tick" {
			t.Fatalf("got %q, %v", tick, err)
		}
		if n++; n == 5 {
			break
		}
	}
	wait()
}
