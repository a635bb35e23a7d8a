package omdptest_test

import (
	"context"
	"testing"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/omdptest"
)

// greet is the handler under test.
func greet(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	return res.End("Hello, " + string(req.Bytes()))
}

func ExampleStart() {
	testGreeter := func(t *testing.T) {
		s := omdptest.Start(t, omdptest.Handlers{"greeter": greet})
		m, err := s.Call(t.Context(), "greeter", "Ada")
		if err != nil || m.String() != "Hello, Ada" {
			t.Errorf("got %q and error %v", m, err)
		}
	}
	_ = testGreeter // go test calls it
}

func ExampleConfig_Start() {
	testMany := func(t *testing.T) {
		s := omdptest.Config{
			Worker: &omdp.WorkerConfig{Concurrency: 8},
		}.Start(t, omdptest.Handlers{"greeter": greet})
		s.Worker("greeter", greet) // one more of the same service
		if _, err := s.NewClient().Call(t.Context(), "greeter", "Ada"); err != nil {
			t.Error(err)
		}
	}
	_ = testMany // go test calls it
}
