package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp"
)

// A family is the processes of one phase of the soak: a broker, workers and
// the clients of the load, and what else is started.
type family struct {
	spawner  *spawner
	endpoint string
	broker   *child
	work     []*child
	loads    []*child
	all      []*child // in the order of their start
	rate     float64  // calls a second that the load clients make
}

// remember is for how long the broker remembers finished requests: so that
// before the first look at its memory it holds as many as it ever will.
const remember = 10 * time.Second

// loadClients is how many processes share the load.
const loadClients = 2

// startFamily starts broker, workers and load clients, and waits until they
// are there.
func startFamily(ctx context.Context, s *spawner, limits omdp.Limits) (*family, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	f := &family{spawner: s, endpoint: fmt.Sprintf("tcp://127.0.0.1:%d", ports[0])}
	f.broker, err = f.start(ctx, orders{Role: roleBroker, Listen: f.endpoint, Limits: limits, Heartbeat: soakHeartbeat, Remember: remember})
	for i := 0; err == nil && i < workWorkers; i++ {
		var c *child
		c, err = f.start(ctx, orders{Role: roleWorker, Who: i, Soak: soakWork})
		f.work = append(f.work, c)
	}
	for i := 0; err == nil && i < loadClients; i++ {
		var c *child
		c, err = f.start(ctx, orders{Role: roleClient, Who: i, Soak: soakLoad})
		f.loads = append(f.loads, c)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// start starts one process and waits until it is there.
func (f *family) start(ctx context.Context, o orders) (*child, error) {
	o.Endpoints = []string{f.endpoint}
	name := o.Soak
	if o.Role == roleBroker {
		name = string(roleBroker)
	} else if o.Soak == soakWork || o.Soak == soakLoad {
		name += fmt.Sprint(" ", o.Who)
	}
	c, err := f.spawner.start(name, o)
	if err != nil {
		return nil, err
	}
	f.all = append(f.all, c)
	_, err = c.expect(ctx, "ready", 30*time.Second)
	return c, err
}

// close ends all at once.
func (f *family) close() {
	for _, c := range slices.Backward(f.all) {
		c.kill()
	}
}

// each asks all the load clients at the same time.
func (f *family) each(ctx context.Context, line string, answer func(i int) any) error {
	errs := make([]error, len(f.loads))
	var wg sync.WaitGroup
	for i, c := range f.loads {
		wg.Go(func() { errs[i] = c.ask(ctx, line, answer(i)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *family) order(ctx context.Context, format string, args ...any) error {
	return f.each(ctx, fmt.Sprintf(format, args...), func(int) any { return new(bool) })
}

// pace sets the calls a second of all load clients together.
func (f *family) pace(ctx context.Context, rate float64) error {
	f.rate = rate
	return f.order(ctx, "pace %.3f", rate/loadClients)
}

// take gives what all load clients saw since the last time.
func (f *family) take(ctx context.Context) (taken, error) {
	parts := make([]taken, len(f.loads))
	err := f.each(ctx, "take", func(i int) any { return &parts[i] })
	var sum taken
	for _, p := range parts {
		sum.merge(p)
	}
	return sum, err
}

// over gives what the load clients see in the next d.
func (f *family) over(ctx context.Context, d time.Duration) (taken, error) {
	if _, err := f.take(ctx); err != nil {
		return taken{}, err
	}
	sleep(ctx, d)
	if err := context.Cause(ctx); err != nil {
		return taken{}, err
	}
	return f.take(ctx)
}

// crowd keeps n calls in progress for d, and gives the good ends a second.
func (f *family) crowd(ctx context.Context, n int, d time.Duration) (rate float64, t taken, err error) {
	if _, err = f.take(ctx); err != nil {
		return 0, t, err
	}
	if err = f.order(ctx, "crowd %d %d", n/loadClients, d.Milliseconds()); err != nil {
		return 0, t, err
	}
	t, err = f.take(ctx)
	return float64(t.OK) / d.Seconds(), t, err
}

// places is how many calls the workers serve at a time.
const places = workWorkers * workPlaces

// A verdict collects what was found, and what was not as it must be.
type verdict struct {
	quiet  bool // prints nothing
	failed []string
}

func (v *verdict) note(ok bool, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !v.quiet {
		fmt.Println("soak: " + line)
	}
	if !ok {
		v.failed = append(v.failed, line)
	}
}

// soak runs its phases: the long streams, of so many MiB, the steady load, for
// so long, then one stuck client, then overload; about three minutes more in
// all. Without a length there are the long streams alone.
func soak(ctx context.Context, length time.Duration, stream int) error {
	s := newSpawner()
	defer s.close()
	s.env = thrifty
	v := &verdict{}
	began := time.Now()
	text, err := longStreams(ctx, s, v, stream)
	if err != nil {
		return err
	}
	if length > 0 {
		steadyText, err := steady(ctx, s, v, length)
		if err != nil {
			return err
		}
		overText, err := overload(ctx, s, v)
		if err != nil {
			return err
		}
		text += "; " + steadyText + "; " + overText
	}
	verdict := "all as promised"
	if len(v.failed) > 0 {
		verdict = fmt.Sprintf("%d NOT AS PROMISED: %s", len(v.failed), strings.Join(v.failed, "; "))
	}
	fmt.Printf("soak: %v of steady load (%v in all): %s; %s\n", length, time.Since(began).Round(time.Second), text, verdict)
	if len(v.failed) > 0 {
		return errViolations
	}
	return nil
}

// thrifty has glibc, which libzmq's memory is from, give back what is free.
// Without that it keeps most of what a burst took: 2 to 4 MiB of a broker's
// after a slow moment of the machine, seen while Go's heap did not grow at all.
var thrifty = []string{"MALLOC_ARENA_MAX=1", "MALLOC_TRIM_THRESHOLD_=4096", "MALLOC_TOP_PAD_=0"}

// calibration is how long the capacity is measured for.
const calibration = 5 * time.Second

// steady is the load at 80 %, with clients that are slow, stuck and vanish;
// then, on the same processes, the price of one stuck client.
func steady(ctx context.Context, s *spawner, v *verdict, length time.Duration) (string, error) {
	f, err := startFamily(ctx, s, omdp.Limits{})
	if err != nil {
		return "", err
	}
	defer f.close()
	bulk, err := f.start(ctx, orders{Role: roleWorker, Soak: soakBulk})
	if err != nil {
		return "", err
	}
	if _, _, err := f.crowd(ctx, places, time.Second); err != nil { // warm
		return "", err
	}
	if err := f.calibrate(ctx); err != nil {
		return "", err
	}
	text, err := steadyLoad(ctx, f, v, length)
	if err != nil {
		return "", err
	}
	stuck, err := stuckClient(ctx, f, bulk, v)
	return text + "; " + stuck, err
}

// calibrate measures what the workers serve, and sets the load to 80 % of it.
func (f *family) calibrate(ctx context.Context) error {
	err := errors.Join(f.pace(ctx, 0), f.order(ctx, "settle"))
	if err != nil {
		return err
	}
	capacity, _, err := f.crowd(ctx, 4*places, calibration)
	if err != nil {
		return err
	}
	fmt.Printf("soak: the workers serve %.0f calls/s (%d places, %v each); the load is 80 %% of that\n", capacity, places, workTakes)
	return f.pace(ctx, 0.8*capacity)
}

// keepsUp tells whether no more calls are in progress than are made in half a
// second: else they are made faster than this machine serves them now.
func (f *family) keepsUp(t taken) bool { return float64(t.Open) < f.rate/2 }

// company is the clients besides the load.
type company struct {
	f                 *family
	slow, stuck, flow *child
	vanishing         *child
	stopped, vanished int

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    error // of the goroutine; read after wg
}

func startCompany(ctx context.Context, f *family) (*company, error) {
	c := &company{f: f}
	var errs [4]error
	c.slow, errs[0] = f.start(ctx, orders{Role: roleClient, Soak: soakSlow})
	c.stuck, errs[1] = f.start(ctx, orders{Role: roleClient, Soak: soakStuck})
	c.flow, errs[2] = f.start(ctx, orders{Role: roleClient, Soak: soakFlow})
	c.vanishing, errs[3] = f.start(ctx, orders{Role: roleClient, Soak: soakVanish})
	return c, errors.Join(errs[:]...)
}

// misbehave goes on until rest: one client is stopped and continued, another
// killed and started again.
func (c *company) misbehave(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.wg.Go(func() {
		for c.ctx.Err() == nil {
			_ = c.stuck.stop()
			c.stopped++
			sleep(c.ctx, 2*time.Second)
			c.stuck.cont()
			sleep(c.ctx, time.Second)
			c.vanishing.kill()
			c.vanished++
			next, err := c.f.start(ctx, orders{Role: roleClient, Soak: soakVanish})
			if err != nil {
				c.err = err
				return
			}
			c.f.all = slices.DeleteFunc(c.f.all, func(k *child) bool { return k == c.vanishing })
			c.vanishing = next
		}
	})
}

// rest returns when all are there and well.
func (c *company) rest() error {
	c.cancel()
	c.wg.Wait()
	return c.err
}

// end has them all gone.
func (c *company) end() {
	for _, k := range []*child{c.slow, c.stuck, c.flow, c.vanishing} {
		k.kill()
		c.f.all = slices.DeleteFunc(c.f.all, func(o *child) bool { return o == k })
	}
}

// steadyGood tells whether the load was held: nearly all calls were good, and
// the others ran out of time. (More of them than that: the machine has not the
// time for such a load, and what was measured says nothing.)
func steadyGood(t taken) bool {
	late := 0
	for kind, n := range t.Others {
		if strings.HasPrefix(kind, "timeout,") {
			late += n
		}
	}
	return t.Refused == 0 && t.others() == late && 100*late <= t.Begun
}

// steadyLoad holds memory, goroutines and descriptors against those after the
// first minute, or the first third of a shorter run.
func steadyLoad(ctx context.Context, f *family, v *verdict, length time.Duration) (string, error) {
	c, err := startCompany(ctx, f)
	if err != nil {
		return "", err
	}
	first := min(time.Minute, length/3)
	window := min(20*time.Second, first/2)
	began := time.Now()
	var p99 [2]time.Duration
	var use [2][]usage
	var all taken
	for i, at := range []time.Duration{first, length} {
		c.misbehave(ctx)
		sleep(ctx, time.Until(began.Add(at-window)))
		t, err := f.take(ctx)
		if err != nil {
			return "", err
		}
		all.merge(t)
		if t, err = f.over(ctx, window); err != nil {
			return "", err
		}
		all.merge(t)
		p99[i] = t.Good.quantile(0.99)
		if err := c.rest(); err != nil {
			return "", err
		}
		if use[i], err = measure(ctx, f); err != nil {
			return "", err
		}
	}
	c.end()
	bad := compare(v, use[0], use[1])
	v.note(steadyGood(all), "%d calls, %d ok, %d refused, others %v; p99 %v after the first %v, %v at the end; %d stops, %d kills",
		all.Begun, all.OK, all.Refused, all.Others, fine(p99[0]), first, fine(p99[1]), c.stopped, c.vanished)
	return fmt.Sprintf("%.0f calls/s, %d in all, p99 %v, then %v; %s", f.rate, all.Begun, fine(p99[0]), fine(p99[1]), bad), nil
}
