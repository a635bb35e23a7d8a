package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp"
)

// The price of one stuck client (L4), and overload.

const (
	phase      = 5 * time.Second
	rounds     = 5
	mostRounds = 15 // as noise of the machine may ask for more
	mostAdded  = 5 * time.Millisecond
)

// stuckClient compares the others' p99 without a certain client and while
// there is much on its way to it that it does not take: because its reader
// stands still, or because its process is stopped. The phases take turns; each
// is held against the ones before and after it, and the median of the
// differences counts, so that a machine that is slow for a while touches both
// sides. A round in which it had not the time for the load says nothing, and
// is done again with as much as it has the time for.
func stuckClient(ctx context.Context, f *family, bulk *child, v *verdict) (string, error) {
	x, err := f.start(ctx, orders{Role: roleClient, Who: 9, Soak: soakFlow})
	if err != nil {
		return "", err
	}
	defer x.cont()
	if err := f.calibrate(ctx); err != nil {
		return "", err
	}
	var a added
	for n := 0; n < mostRounds && (len(a.unread) < rounds || a.most() > mostAdded); n++ {
		p99, held, err := f.stuckRound(ctx, x, bulk)
		if err == nil && !held {
			err = f.calibrate(ctx)
		}
		if err != nil {
			return "", err
		}
		if held {
			a.take(p99)
		}
	}
	if len(a.unread) < rounds {
		v.note(false, "one stuck client: the machine had the time for %d of %d rounds", len(a.unread), mostRounds)
		return "no word on a stuck client", nil
	}
	text := fmt.Sprintf("a client that does not read adds %v to the others' p99 of %v, one that is stopped %v",
		fine(median(a.unread, same)), fine(median(a.without, same)), fine(median(a.stopped, same)))
	v.note(a.most() <= mostAdded, "%s; allowed %v (medians of %d rounds with phases of %v)", text, mostAdded, len(a.unread), phase)
	return text, nil
}

// added is what a client that does not read, and one that is stopped, added in
// each round, and what there was without.
type added struct{ without, unread, stopped []time.Duration }

// take takes a round's p99: without, unread, without, stopped, without.
func (a *added) take(p99 [5]time.Duration) {
	a.without = append(a.without, p99[0], p99[2], p99[4])
	a.unread = append(a.unread, p99[1]-(p99[0]+p99[2])/2)
	a.stopped = append(a.stopped, p99[3]-(p99[2]+p99[4])/2)
}

func (a *added) most() time.Duration { return max(median(a.unread, same), median(a.stopped, same)) }

// stuckRound gives the others' p99 without x, while x does not read, without
// it, while it is stopped, and without it; and whether the load was held.
func (f *family) stuckRound(ctx context.Context, x, bulk *child) (p99 [5]time.Duration, held bool, err error) {
	be := func(m manner) error { return x.ask(ctx, "manner "+string(m), new(bool)) }
	off := func() error { return be(manOff) }
	held = true
	for i, way := range []func() error{
		off,
		func() error { return errors.Join(be(manWell), flowing(ctx, x), be(manStuck), still(ctx, bulk)) },
		off,
		func() error { return errors.Join(be(manWell), flowing(ctx, x), x.stop(), still(ctx, bulk)) },
		off,
	} {
		if err := way(); err != nil {
			return p99, false, err
		}
		t, err := f.over(ctx, phase)
		x.cont()
		if err != nil {
			return p99, false, err
		}
		p99[i] = t.Good.quantile(0.99)
		held = held && steadyGood(t) && f.keepsUp(t)
	}
	return p99, held, nil
}

func same(d time.Duration) time.Duration { return d }

// fine rounds a duration for the eye.
func fine(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// flowing waits until much comes to a client again.
func flowing(ctx context.Context, x *child) error {
	const much = 2 << 20
	var was, is int64
	if err := x.ask(ctx, "bytes", &was); err != nil {
		return err
	}
	for until := time.Now().Add(30 * time.Second); is < was+much; {
		if time.Now().After(until) {
			return fmt.Errorf("%s: %d bytes in 30 s, want %d", x.name, is-was, much)
		}
		sleep(ctx, 50*time.Millisecond)
		if err := x.ask(ctx, "bytes", &is); err != nil {
			return err
		}
	}
	return nil
}

// still waits until the worker has sent what it may, and waits for the client.
func still(ctx context.Context, bulk *child) error {
	var was, is int64 = -1, -2
	for until := time.Now().Add(10 * time.Second); is != was && time.Now().Before(until); {
		was = is
		sleep(ctx, 10*flowEvery)
		if err := bulk.ask(ctx, "sent", &is); err != nil {
			return err
		}
	}
	return nil
}

// queueLimit is the broker's in the overloaded family: what the workers serve
// in four turns.
const queueLimit = 4 * places

// overload compares a queue that is just full with an offer of twice the
// capacity: of that, what is over must be refused at once and say that it did
// not run, and what is accepted must wait no longer than in the full queue.
func overload(ctx context.Context, s *spawner, v *verdict) (string, error) {
	f, err := startFamily(ctx, s, omdp.Limits{ServiceQueue: queueLimit})
	if err != nil {
		return "", err
	}
	defer f.close()
	if _, _, err := f.crowd(ctx, places, time.Second); err != nil { // warm
		return "", err
	}
	var sum taken
	before, err := f.runs(ctx)
	if err != nil {
		return "", err
	}
	var full, over, refused []time.Duration
	ratio := func() float64 { return float64(median(over, same)) / float64(median(full, same)) }
	var capacity float64
	for n := 0; n < 3 || n < 9 && ratio() > 2; n++ {
		rate, t, err := f.crowd(ctx, places+queueLimit, phase)
		if err != nil {
			return "", err
		}
		capacity = max(capacity, rate)
		full = append(full, t.Good.quantile(0.99))
		sum.merge(t)
		if err := f.pace(ctx, 2*rate); err != nil {
			return "", err
		}
		sleep(ctx, time.Second) // until the queue is full
		if t, err = f.take(ctx); err != nil {
			return "", err
		}
		sum.merge(t)
		sleep(ctx, phase)
		if t, err = f.take(ctx); err != nil {
			return "", err
		}
		sum.merge(t)
		over, refused = append(over, t.Good.quantile(0.99)), append(refused, t.Bad.quantile(0.99))
		if err := f.pace(ctx, 0); err != nil {
			return "", err
		}
		if err := f.order(ctx, "settle"); err != nil {
			return "", err
		}
		if t, err = f.take(ctx); err != nil {
			return "", err
		}
		sum.merge(t)
	}
	ran, err := f.runs(ctx)
	if err != nil {
		return "", err
	}
	return judgeOverload(v, sum, ran-before, capacity, full, over, refused), nil
}

// runs is how many handlers of "work" have run.
func (f *family) runs(ctx context.Context) (all int64, err error) {
	for _, c := range f.work {
		var n int64
		if err := c.ask(ctx, "runs", &n); err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

func judgeOverload(v *verdict, sum taken, ran int64, capacity float64, full, over, refused []time.Duration) string {
	a, b := median(full, same), median(over, same)
	text := fmt.Sprintf("overload at 2 × %.0f/s: %d calls, %d ok, %d refused, others %v; p99 of the accepted %v, %.2f × the %v of a queue just full",
		capacity, sum.Begun, sum.OK, sum.Refused, sum.Others, fine(b), float64(b)/float64(a), fine(a))
	v.note(b <= 2*a, "%s; p99 of refusals %v", text, fine(median(refused, same)))
	lost := sum.Begun - sum.OK - sum.Refused - sum.others()
	v.note(lost == 0, "overload: %d of %d calls have not ended", lost, sum.Begun)
	v.note(sum.Refused > 0, "overload: %d calls were refused", sum.Refused)
	may := 0
	for kind, n := range sum.Others {
		if kind == "timeout, "+omdp.MayHaveExecuted.String() {
			may += n
		} else if kind != "timeout, "+omdp.NotExecuted.String() {
			v.note(false, "overload: %d calls ended as %s", n, kind)
		}
	}
	v.note(ran >= int64(sum.OK) && ran <= int64(sum.OK+may), "overload: %d handlers ran, %d calls say that theirs did, %d that it may have", ran, sum.OK, may)
	return text
}
