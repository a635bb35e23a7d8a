package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// rage carries the schedule out, and returns when its last effect is over.
func (w *world) rage(ctx context.Context, all []action) {
	began := time.Now()
	var wg sync.WaitGroup
	for _, a := range all {
		sleep(ctx, a.at-time.Since(began))
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() { w.act(ctx, a) })
	}
	sleep(ctx, w.length-time.Since(began))
	wg.Wait()
}

func (w *world) act(ctx context.Context, a action) {
	switch a.kind {
	case actKill:
		w.slots[a.role][a.target].kill()
		return
	case actStop:
		w.slots[a.role][a.target].pause(ctx, a.lasts)
		return
	case actLeave:
		w.slots[a.role][a.target].leave()
		return
	}
	c := w.connection(ctx, a)
	if c == nil {
		return
	}
	w.log.add(string(a.kind), string(a.role), a.broker, c.near.RemoteAddr().String(), a.lasts, a.amount)
	w.did(string(a.kind))
	switch a.kind {
	case actCut:
		c.cut(a.amount == 1)
	case actHalf:
		c.halfOpen(a.amount)
		select {
		case <-c.gone:
		case <-time.After(a.lasts):
			c.cut(true)
		case <-ctx.Done():
		}
	case actDelay:
		c.delay(time.Duration(a.amount) * time.Microsecond)
		sleep(ctx, a.lasts)
		c.delay(0)
	case actThrottle:
		c.throttle(a.amount)
		sleep(ctx, a.lasts)
		c.throttle(0)
	}
}

// connection finds one to spoil: at the broker and of the role that are asked
// for, else at another broker, else as soon as there is one.
func (w *world) connection(ctx context.Context, a action) *conn {
	for range 200 {
		for i := range brokers {
			if c := w.proxies[a.role][(a.broker+i)%brokers].pick(a.target); c != nil {
				return c
			}
		}
		sleep(ctx, 10*time.Millisecond)
	}
	return nil
}

// chaos is the whole of a run: it rages, heals, looks that all is well again,
// ends everything, and has the recorder judge.
func chaos(ctx context.Context, seed uint64, length time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "omdp-chaos-")
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(dir)
		}
	}()
	fmt.Printf("chaos: %v, CHAOS_SEED=%d\n", length, seed)
	w, err := newWorld(seed, length, dir)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(ctx); err != nil {
		return err
	}
	w.rage(ctx, schedule(seed, length))
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := w.calm(ctx); err != nil {
		w.complain("%v", err)
	}
	w.finish()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	rec, err := record(dir)
	if err != nil {
		return err
	}
	keep = w.report(rec)
	if keep {
		fmt.Printf("chaos: the logs are in %s\n", dir)
		w.summary(rec)
		return errViolations
	}
	w.summary(rec)
	return nil
}

var errViolations = errors.New("violations")

// settle is how long it takes at the most until all know again of all: a lost
// peer is noticed within liveness and one beat, and the next try comes after
// the longest wait.
const settle = heartbeat*(liveness+1) + reconnectMax

// machine is what a slow machine may add to a bound.
const machine = 1500 * time.Millisecond

// calm heals the network, waits for the workers to come back (L3), and has
// every client make calls that must succeed (L1).
func (w *world) calm(ctx context.Context) error {
	for _, all := range w.proxies {
		for _, p := range all {
			p.heal()
		}
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	w.log.add("heal")
	healed := time.Now()
	got, err := w.registered(ctx, healed.Add(settle+machine))
	if err != nil {
		return err
	}
	fmt.Printf("chaos: all workers back %v after the last fault (L3 allows %v)\n", got.Sub(healed).Round(time.Millisecond), settle)
	sleep(ctx, time.Until(healed.Add(settle+machine))) // clients may take as long
	w.log.add("calm")
	var wg sync.WaitGroup
	for _, s := range w.slots[roleClient] {
		wg.Go(func() {
			var n int
			if err := s.ask(ctx, "calm", &n); err != nil {
				w.complain("L1: %v", err)
			}
		})
	}
	wg.Wait()
	return nil
}

// registered waits until every broker has exactly the workers that know it.
func (w *world) registered(ctx context.Context, until time.Time) (time.Time, error) {
	for {
		var missing strings.Builder
		for b, s := range w.slots[roleBroker] {
			var got omdp.BrokerStats
			if err := s.ask(ctx, "stats", &got); err != nil {
				return time.Time{}, err
			}
			if want := workersOf(b); got.Workers != want {
				missing.WriteString(fmt.Sprintf(" broker %d has %d workers, want %d;", b, got.Workers, want))
			}
		}
		if missing.String() == "" {
			return time.Now(), nil
		}
		if time.Now().After(until) {
			return time.Time{}, fmt.Errorf("L3: after %v:%s", settle+machine, missing.String())
		}
		sleep(ctx, 10*time.Millisecond)
		if err := context.Cause(ctx); err != nil {
			return time.Time{}, err
		}
	}
}

// workersOf is how many workers know a broker.
func workersOf(broker int) (n int) {
	for who := range workers {
		if broker == 0 || knowsBoth(roleWorker, who) {
			n++
		}
	}
	return n
}

// finish ends all processes in order: clients, workers, brokers.
func (w *world) finish() {
	w.mu.Lock()
	w.ending = true
	w.mu.Unlock()
	for _, r := range []role{roleClient, roleWorker, roleBroker} {
		var wg sync.WaitGroup
		for _, s := range w.slots[r] {
			wg.Go(func() {
				c, err := s.present()
				if err == nil {
					err = c.finish(30 * time.Second)
				}
				if err != nil {
					w.complain("%v", err)
				}
			})
		}
		wg.Wait()
	}
}
