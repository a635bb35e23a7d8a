package omdp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Large values cross as they are, in both forms, also when they had to wait for
// a worker. What is held of them when all is closed is seen in TestMain.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	b := startBroker(t, "tcp://127.0.0.1:*", nil)
	c := addClient(t, b, nil)
	text := func(i int) string { return string(bytes.Repeat([]byte{'a' + byte(i)}, 5000<<(i%9))) }
	var calls []<-chan result
	for i := range 18 {
		calls = append(calls, goCall(t, c, "echo", text(i)))
	}
	gone := addClient(t, b, nil) // what it asked is dropped in the queue
	goCall(t, gone, "none", text(8))
	if err := gone.Close(); err != nil {
		t.Error(err)
	}
	addWorker(t, b, "echo", nil, echo)
	for i, done := range calls {
		if r := <-done; r.err != nil || r.msg != text(i) {
			t.Errorf("call %d: got %v, want its text of %d bytes", i, r, len(text(i)))
		}
	}
	raw := bytes.Repeat([]byte{0xFF, 0, 'x'}, 100_000)
	addWorker(t, b, "raw", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		for i := range 8 {
			if _, err := fmt.Fprintf(res, "%d", i); err != nil {
				return err
			}
			if _, err := res.Write(raw); err != nil {
				return err
			}
		}
		return res.End(nil)
	})
	s := c.RequestStream(within(t), "raw", nil)
	got, err := io.ReadAll(s)
	var want []byte
	for i := range 8 {
		want = append(fmt.Appendf(want, "%d", i), raw...)
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("stream: got %d bytes, %v, want the %d that were written", len(got), err, len(want))
	}
}
