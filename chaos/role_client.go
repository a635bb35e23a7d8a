package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// clientRole makes calls of every kind, one after another on each of its
// callers, and writes down what it gets.
type clientRole struct {
	o     orders
	log   *eventLog
	c     *omdp.Client
	n     atomic.Uint32
	calm  atomic.Bool
	wg    sync.WaitGroup
	pulse func() // ends feelPulse
}

func newClientRole(o orders, log *eventLog) (*clientRole, error) {
	r := &clientRole{o: o, log: log}
	config := &omdp.ClientConfig{
		Endpoints: o.Endpoints[1:], MaxAttempts: maxAttempts,
		Heartbeat: heartbeat, Liveness: liveness, ReconnectMin: reconnectMin, ReconnectMax: reconnectMax,
		OnState: func(s omdp.State) { log.add(wordState, s.String()) },
	}
	c, err := omdp.NewClient(o.Endpoints[0], config)
	if err != nil {
		return nil, err
	}
	r.c = c
	if err := c.Start(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	var pulse sync.WaitGroup
	pulse.Go(func() { r.feelPulse(ctx) })
	r.pulse = func() { stop(); pulse.Wait() }
	for i := range o.Callers {
		rnd := rand.New(rand.NewPCG(o.Seed^uint64(o.Who)<<32^uint64(o.Life)<<16, uint64(i)))
		r.wg.Go(func() {
			for !r.calm.Load() {
				r.make(r.draw(rnd))
			}
		})
	}
	return r, nil
}

// hear: "calm" ends the callers' wild calls, then makes n plain ones on each,
// all of which must succeed, and answers when all have ended.
func (r *clientRole) hear(word string, _ []string) any {
	switch word {
	case "stats":
		return r.c.Stats()
	case "calm":
		r.calm.Store(true)
		r.wg.Wait()
		for i := range r.o.Callers {
			rnd := rand.New(rand.NewPCG(r.o.Seed, uint64(i)))
			r.wg.Go(func() {
				for range calmCalls {
					r.make(r.drawCalm(rnd))
				}
			})
		}
		r.wg.Wait()
		return calmCalls * r.o.Callers
	}
	return nil
}

// calmCalls is how many calls each caller makes when all is well again.
const calmCalls = 4

func (r *clientRole) leave(ctx context.Context) error {
	r.calm.Store(true)
	err := r.c.Shutdown(ctx)
	r.wg.Wait()
	r.pulse()
	return err
}

func (r *clientRole) close() error {
	r.calm.Store(true)
	r.wg.Wait()
	err := r.c.Close()
	r.pulse()
	return err
}

// Hiccups: what this process could not have done in time.
const (
	pulseEvery = 10 * time.Millisecond
	hiccupFrom = 40 * time.Millisecond // for so long none of it ran
	waitFrom   = 5 * time.Millisecond  // for so long a thread waited for a processor …
	waitEvery  = 4                     // … within so many beats
)

// feelPulse writes down when this process did not run, because it was stopped
// or the machine had others to serve: the recorder takes that time off delays.
func (r *clientRole) feelPulse(ctx context.Context) {
	t := time.NewTicker(pulseEvery)
	defer t.Stop()
	var threads threadWatch
	last := time.Now()
	for n := 0; ; n++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if gap := now.Sub(last); gap > hiccupFrom {
			r.log.add(wordHiccup, gap)
		}
		last = now
		if n%waitEvery == 0 {
			if waited := threads.look(); waited > waitFrom {
				r.log.add(wordHiccup, waited)
			}
		}
	}
}

// make makes one call and returns when it has ended.
func (r *clientRole) make(p plan) {
	ctx, cancel := p.context()
	defer cancel()
	opts, data, call := p.options(), p.order, p.order.Call
	bound := p.limit
	if p.cancel > 0 {
		bound = min(bound, p.cancel)
	}
	r.log.add(wordBegin, call, string(p.kind), p.service, bound, p.slack(), p.flags())
	if p.cancel > 0 {
		defer time.AfterFunc(p.cancel, cancel).Stop()
	}
	made := time.Now()
	switch p.kind {
	case kindCall:
		m, err := r.c.Call(ctx, p.service, data, opts...)
		r.end(call, made, m.Bytes(), err)
	case kindRequest:
		ended := make(chan struct{}, 1)
		err := r.c.Request(ctx, p.service, data,
			func(m omdp.Message) { r.partial(call, m.Bytes()) },
			func(m omdp.Message, err error) {
				r.end(call, made, m.Bytes(), err)
				select {
				case ended <- struct{}{}:
				default: // a second final: it is in the log
				}
			}, opts...)
		if err != nil {
			r.end(call, made, nil, err)
			return
		}
		<-ended
	case kindStream:
		r.stream(ctx, p, made, opts)
	}
}

// stream reads message by message, or as bytes that run together.
func (r *clientRole) stream(ctx context.Context, p plan, made time.Time, opts []omdp.CallOption) {
	call := p.order.Call
	s := r.c.RequestStream(ctx, p.service, p.order, opts...)
	if p.bytes {
		t := &teller{r: r, call: call, slow: p.slow}
		_, err := s.WriteTo(t)
		r.end(call, made, t.b, err)
		return
	}
	var last []byte
	for m, err := range s.All() {
		if last != nil { // the one before is no final
			r.partial(call, last)
			wait(p.slow)
		}
		if err != nil {
			r.end(call, made, nil, err)
			return
		}
		last = m.Bytes()
	}
	r.end(call, made, last, nil)
}

// wait is how a slow reader passes its time.
func wait(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// A teller splits a stream of bytes into frames. Its last one is the final,
// and is still in b at the end.
type teller struct {
	r    *clientRole
	call ident
	slow time.Duration
	b    []byte
}

func (t *teller) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	for {
		f, rest, err := parseFrame(t.b)
		if errors.Is(err, errShort) || err == nil && f.index == finalIndex {
			return len(b), nil
		}
		if err != nil {
			t.r.log.add(wordBad, t.call, err.Error())
			t.b = nil
			return len(b), nil
		}
		t.r.partial(t.call, t.b[:len(t.b)-len(rest)])
		t.b = rest
		wait(t.slow)
	}
}

func (r *clientRole) partial(call ident, b []byte) {
	f, err := parseWhole(b)
	switch {
	case err != nil:
		r.log.add(wordBad, call, "partial: "+err.Error())
	case f.call != call:
		r.log.add(wordBad, call, fmt.Sprintf("partial: it is of call %v", f.call))
	default:
		r.log.add(wordPartial, call, f.run, f.index)
	}
}

// end writes down how a call ended: with the final's frame, or an error's.
func (r *clientRole) end(call ident, made time.Time, b []byte, err error) {
	took, result, text := time.Since(made), resultOf(err), ""
	if err != nil {
		text = err.Error()
	}
	e, failed := errors.AsType[*omdp.Error](err)
	if failed {
		b, text = []byte(e.Message), e.Code
	}
	var f frame
	if err == nil || failed {
		var bad error
		if f, bad = parseWhole(b); bad == nil && f.call != call {
			bad = fmt.Errorf("it is of call %v", f.call)
		}
		if bad == nil && f.index != finalIndex {
			bad = fmt.Errorf("it is partial %d", f.index)
		}
		if bad != nil {
			r.log.add(wordBad, call, fmt.Sprintf("final (%s): %v", result, bad))
		}
	}
	r.log.add(wordEnd, call, result, outcomeText(omdp.OutcomeOf(err)), f.run, f.count, took, text)
}
