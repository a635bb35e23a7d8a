package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// The roles of the soak, by orders.Soak. The service "work" takes a fixed time
// on a fixed number of places, so that its capacity is known and does not
// depend on the machine; "bulk" streams, so that there is much on the way.
const (
	soakWork   = "work"   // a worker of that service
	soakBulk   = "bulk"   // a worker of that service
	soakLoad   = "load"   // a client that calls "work" at a given pace
	soakFlow   = "flow"   // a client that reads streams of "bulk"
	soakSlow   = "slow"   // … reads them slowly
	soakStuck  = "stuck"  // … opens them and reads nothing
	soakVanish = "vanish" // a client that does both, until it is killed
	soakLong   = "long"   // one long stream: a worker and a client
)

const (
	workTakes   = 16 * time.Millisecond
	workPlaces  = 4 // of each worker
	workWorkers = 4
	bulkPlaces  = 128

	soakHeartbeat = time.Second
)

func newSoakRole(o orders) (player, error) {
	switch o.Soak {
	case soakLong:
		if o.Role == roleClient {
			return newLongClient(o)
		}
		return newLongWorker(o)
	case soakWork, soakBulk:
		return newSoakWorker(o)
	case soakLoad:
		return newLoadRole(o)
	case soakFlow, soakSlow, soakStuck, soakVanish:
		return newBulkRole(o)
	}
	return nil, fmt.Errorf("no role %q of the soak", o.Soak)
}

// selfUse is what a process knows of itself, after it gave back what it could.
type selfUse struct {
	Goroutines int
	Heap       int64 // bytes in use
}

func measureSelf() any {
	debug.FreeOSMemory() // collects first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return selfUse{runtime.NumGoroutine(), int64(m.HeapInuse)}
}

// soakWorker serves "work" or "bulk".
type soakWorker struct {
	w    *omdp.Worker
	runs atomic.Int64
}

func newSoakWorker(o orders) (*soakWorker, error) {
	r := &soakWorker{}
	places, handler := workPlaces, r.work
	if o.Soak == soakBulk {
		places, handler = bulkPlaces, r.bulk
	}
	return r, r.start(o, places, handler)
}

func (r *soakWorker) start(o orders, places int, handler omdp.Handler) error {
	w, err := omdp.NewWorker(o.Endpoints[0], o.Soak, &omdp.WorkerConfig{
		Concurrency: places, Heartbeat: soakHeartbeat, Liveness: liveness,
		ReconnectMin: reconnectMin, ReconnectMax: reconnectMax,
	})
	if err != nil {
		return err
	}
	r.w = w
	if err := w.OnRequest(handler); err != nil {
		return err
	}
	if err := w.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return w.WaitReady(ctx)
}

func (r *soakWorker) hear(word string, _ []string) any {
	switch word {
	case "self":
		return measureSelf()
	case "sent":
		return r.w.Stats().Bytes
	case "runs":
		return r.runs.Load()
	}
	return nil
}

func (r *soakWorker) leave(context.Context) error { return r.close() }

func (r *soakWorker) close() error { return r.w.Close() }

func (r *soakWorker) work(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	r.runs.Add(1)
	t := time.NewTimer(workTakes)
	defer t.Stop()
	select {
	case <-t.C:
		return res.End(req.Message())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bulkOrder asks for chunks of partials, one every so often.
type bulkOrder struct{ Chunks, Size, EveryUS int }

func (r *soakWorker) bulk(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	var o bulkOrder
	if err := req.Decode(&o); err != nil {
		return err
	}
	b := make([]byte, o.Size)
	t := time.NewTicker(time.Duration(o.EveryUS) * time.Microsecond)
	defer t.Stop()
	for range o.Chunks {
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if _, err := res.Write(b); err != nil {
			return err
		}
	}
	return nil
}
