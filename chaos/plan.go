package main

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp"
)

type callKind string

const (
	kindCall    callKind = "call"
	kindRequest callKind = "request"
	kindStream  callKind = "stream"
)

// A plan is one call: what is asked and how.
type plan struct {
	kind     callKind
	service  string
	order    order
	limit    time.Duration
	byCtx    bool          // the limit is the context's, not an option
	cancel   time.Duration // the context ends after so long; 0: it does not
	failFast bool
	idem     bool
	calm     bool
	window   int
	slow     time.Duration // a stream's reader waits so long after each partial
	bytes    bool          // a stream is read as bytes, not message by message
}

// draw makes up the next call.
func (r *clientRole) draw(rnd *rand.Rand) plan {
	p := plan{
		kind:     pick(rnd, kindCall, kindCall, kindRequest, kindStream),
		service:  pick(rnd, services[:]...),
		limit:    skewed(rnd, 50*time.Millisecond, 10*time.Second),
		byCtx:    chance(rnd, 4),
		failFast: chance(rnd, 8),
		idem:     chance(rnd, 2),
	}
	p.order = order{
		Call: r.next(), Fail: chance(rnd, 16), Text: chance(rnd, 2),
		Work: int(workTime(rnd).Microseconds()), Size: rnd.IntN(200),
	}
	if chance(rnd, 10) {
		p.cancel = skewed(rnd, time.Millisecond, 500*time.Millisecond)
	}
	if chance(rnd, 8) {
		p.order.Deaf = int(rand64(rnd, 0, 100*time.Millisecond).Microseconds())
	}
	fill := rnd.IntN(200)
	if chance(rnd, 50) {
		fill = rnd.IntN(32 << 10)
	}
	p.order.Fill = string(appendFill(nil, p.order.Call, ident{}, requestIndex, fill))
	if p.kind == kindCall && !chance(rnd, 8) { // those few have partials that nobody wants
		return p
	}
	p.order.Partials = rnd.IntN(12)
	if chance(rnd, 4) {
		p.order.Size = rnd.IntN(8 << 10)
	}
	if p.kind == kindStream {
		p.bytes = chance(rnd, 2)
		if chance(rnd, 4) {
			p.slow = rand64(rnd, 0, 10*time.Millisecond)
		}
	}
	if chance(rnd, 3) {
		p.window = 4<<10 + rnd.IntN(16<<10)
	}
	return p
}

// drawCalm makes up a call that must succeed.
func (r *clientRole) drawCalm(rnd *rand.Rand) plan {
	p := plan{
		kind: pick(rnd, kindCall, kindRequest, kindStream), service: pick(rnd, services[:]...),
		limit: 20 * time.Second, calm: true,
		order: order{Call: r.next(), Size: 100, Work: rnd.IntN(5000)},
	}
	if p.kind != kindCall {
		p.order.Partials = rnd.IntN(5)
	}
	return p
}

func (r *clientRole) next() ident {
	return ident{uint16(r.o.Who), uint16(r.o.Life), r.n.Add(1)}
}

// chance is true once in n times.
func chance(rnd *rand.Rand, n int) bool { return rnd.IntN(n) == 0 }

func pick[T any](rnd *rand.Rand, all ...T) T { return all[rnd.IntN(len(all))] }

// skewed is a time between two, short ones as often as long ones: each factor
// of two has the same share.
func skewed(rnd *rand.Rand, lo, hi time.Duration) time.Duration {
	return time.Duration(float64(lo) * math.Pow(float64(hi)/float64(lo), rnd.Float64()))
}

// workTime is how long a handler takes: half of them no time, a few up to 200 ms.
func workTime(rnd *rand.Rand) time.Duration {
	switch rnd.IntN(8) {
	case 0:
		return rand64(rnd, 0, 200*time.Millisecond)
	case 1, 2, 3:
		return rand64(rnd, 0, 20*time.Millisecond)
	}
	return 0
}

// context is the call's, with its limit if no option has it.
func (p *plan) context() (context.Context, context.CancelFunc) {
	if p.byCtx {
		return context.WithTimeout(context.Background(), p.limit)
	}
	return context.WithCancel(context.Background())
}

func (p *plan) options() []omdp.CallOption {
	var opts []omdp.CallOption
	if !p.byCtx {
		opts = append(opts, omdp.WithTimeout(p.limit))
	}
	if p.failFast {
		opts = append(opts, omdp.FailFast())
	}
	if p.window > 0 {
		opts = append(opts, omdp.WithWindow(p.window))
	}
	if p.idem {
		opts = append(opts, omdp.Idempotent())
	}
	return opts
}

// slack is how long a reader takes for what it was sent in time.
func (p *plan) slack() time.Duration { return time.Duration(p.order.Partials) * (p.slow + p.slow/2) }

// Flags of a call in its log line.
const (
	flagIdem = "idem"
	flagFast = "fast"
	flagCalm = "calm"
)

func (p *plan) flags() string {
	flags := []string{"-"}
	if p.idem {
		flags = append(flags, flagIdem)
	}
	if p.failFast {
		flags = append(flags, flagFast)
	}
	if p.calm {
		flags = append(flags, flagCalm)
	}
	return strings.Join(flags, ",")
}

// Results of calls and of handlers in the logs.
const (
	resultOK     = "ok"
	resultFailed = "failed" // the handler said so
	resultOther  = "other"  // an error that this package does not promise
)

var results = []struct {
	err  error
	name string
}{
	{omdp.ErrTimeout, "timeout"}, {omdp.ErrCanceled, "canceled"}, {omdp.ErrNoWorker, "no_worker"},
	{omdp.ErrWorkerLost, "worker_lost"}, {omdp.ErrBrokerLost, "broker_lost"}, {omdp.ErrOverloaded, "overloaded"},
	{omdp.ErrSlowConsumer, "slow_consumer"}, {omdp.ErrClosed, "closed"},
}

func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	if _, ok := errors.AsType[*omdp.Error](err); ok {
		return resultFailed
	}
	for _, r := range results {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return resultOther
}

// The outcomes, as one word.
const (
	outcomeExecuted = "executed"
	outcomeNot      = "not_executed"
	outcomeNotSent  = "not_sent"
	outcomeMay      = "may_have_executed"
)

func outcomeText(o omdp.Outcome) string { return strings.ReplaceAll(o.String(), " ", "_") }
