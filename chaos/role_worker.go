package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// workerRole is a worker whose handler does what the order in the call's data
// says, and writes down what it does before it does it.
type workerRole struct {
	o   orders
	log *eventLog
	w   *omdp.Worker
	n   atomic.Uint32
}

func newWorkerRole(o orders, log *eventLog) (*workerRole, error) {
	r := &workerRole{o: o, log: log}
	config := &omdp.WorkerConfig{
		Endpoints:   o.Endpoints[1:],
		Concurrency: concurrency, Heartbeat: heartbeat, Liveness: liveness,
		ReconnectMin: reconnectMin, ReconnectMax: reconnectMax, DrainTimeout: 5 * time.Second,
		OnState: func(s omdp.State) { log.add(wordState, s.String()) },
	}
	w, err := omdp.NewWorker(o.Endpoints[0], o.Service, config)
	if err != nil {
		return nil, err
	}
	r.w = w
	if err := w.OnRequest(r.handle); err != nil {
		return nil, err
	}
	return r, w.Start()
}

func (r *workerRole) hear(string, []string) any { return nil }

func (r *workerRole) leave(ctx context.Context) error { return r.w.Shutdown(ctx) }

func (r *workerRole) close() error { return r.w.Close() }

func (r *workerRole) handle(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	run := ident{uint16(r.o.Who), uint16(r.o.Life), r.n.Add(1)}
	var o order
	if err := req.Decode(&o); err != nil {
		r.log.add(wordBad, ident{}, fmt.Sprintf("run %v: the data of request %s is no order: %v", run, req.ID(), err))
		return err
	}
	r.log.add(wordStart, o.Call, run, req.Service(), req.Attempt(), req.ID())
	if want := string(appendFill(nil, o.Call, ident{}, requestIndex, len(o.Fill))); o.Fill != want {
		r.log.add(wordBad, o.Call, fmt.Sprintf("run %v: the request's content is not its own: got %.40q, want %.40q", run, o.Fill, want))
	}
	share := time.Duration(o.Work) * time.Microsecond / time.Duration(o.Partials+1)
	for i := range o.Partials {
		err := r.work(ctx, share)
		if err == nil {
			r.log.add(wordSend, o.Call, run, i)
			err = res.Send(appendFrame(nil, frame{o.Call, run, i, 0}, o.Size))
		}
		if err != nil {
			return r.giveUp(o, run, i)
		}
	}
	if r.work(ctx, share) != nil {
		return r.giveUp(o, run, o.Partials)
	}
	if o.Fail {
		return r.fail(o, run, o.Partials, "418")
	}
	r.log.add(wordFinish, o.Call, run, resultOK, o.Partials)
	final := appendFrame(nil, frame{o.Call, run, finalIndex, o.Partials}, o.Size)
	if o.Text {
		return res.End(string(final))
	}
	return res.End(final)
}

// work takes some time, unless the context ends.
func (r *workerRole) work(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// giveUp ends a handler whose context has ended: at once, or, as a handler may
// that does not look at its context, some time later.
func (r *workerRole) giveUp(o order, run ident, sent int) error {
	_ = r.work(context.Background(), time.Duration(o.Deaf)*time.Microsecond)
	return r.fail(o, run, sent, "499")
}

func (r *workerRole) fail(o order, run ident, sent int, code string) error {
	r.log.add(wordFinish, o.Call, run, resultFailed, sent)
	return &omdp.Error{Code: code, Message: string(appendFrame(nil, frame{o.Call, run, finalIndex, sent}, o.Size))}
}
