package omdp_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// curious is a Logger that asks the broker back, as a user's may.
type curious struct {
	slog.Handler
	ask func()
}

func (c curious) Handle(context.Context, slog.Record) error { c.ask(); return nil }

// A Logger is the user's code: it runs on no goroutine of the broker's loop.
func TestBrokerLoggerMayAskBack(t *testing.T) {
	t.Parallel()
	var b *omdp.Broker
	asked := make(chan int, 100)
	log := slog.New(curious{slog.DiscardHandler, func() { asked <- b.Stats().Workers }})
	b, err := omdp.NewBroker(newEndpoint(t, "inproc"), &omdp.BrokerConfig{Logger: slog.New(enabled{log.Handler()})})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	addWorker(t, b, "echo", nil, echo)
	if n := receive(t, "a record", asked); n != 1 {
		t.Errorf("got %d workers, want 1", n)
	}
}

type enabled struct{ slog.Handler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }
