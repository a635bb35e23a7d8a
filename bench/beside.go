package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// What others of one worker get beside a stream that nobody reads. All run the
// whole time, the stuck stream every other slice of it; each slice with it is
// held against the ones before and after it.

// besideKinds are who those others are: streams in MB/s, calls as they are.
var besideKinds = []string{"streams, same client", "streams, another client", "calls, another client"}

// beside is what one kind got: medians over the slices, and of with to without.
type beside struct {
	Without float64 `json:"without"`
	With    float64 `json:"with"`
	Ratio   float64 `json:"ratio"`
}

const (
	besideSlices = 4                     // with the stuck stream; one more without
	besideShare  = 4                     // a slice is so much of the measured time,
	besideMost   = time.Second           // and no more than this: all slices are one step
	besideSettle = 50 * time.Millisecond // after each change, before what counts
	besideCall   = "call"                // the data of a call; a stream's is longer
)

// answerBeside echoes calls and streams to others.
func answerBeside(w work) omdp.Handler {
	return func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		p := req.Bytes()
		if len(p) > len(besideCall) {
			for range w.Partials {
				if _, err := res.Write(p); err != nil {
					return err
				}
			}
		}
		return res.End(besideCall)
	}
}

// besides is the client of the case: two connections, and what they got so far.
type besides struct {
	work
	same, other *omdp.Client
	data        string
	got         [3]atomic.Int64 // by besideKinds: bytes, bytes, calls
	ctx         context.Context
	fail        context.CancelCauseFunc
}

// measureBeside plays the client: w.InFlight of each kind.
func measureBeside(w work) (o outcome, err error) {
	b := &besides{work: w, data: w.payload()}
	for _, to := range []**omdp.Client{&b.same, &b.other} {
		c, err := omdpStack{}.dial(w)
		if err != nil {
			return o, err
		}
		*to = c.(*omdpClient).c
	}
	b.ctx, b.fail = context.WithCancelCause(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer b.fail(errOver)
	again := func(once func() error) {
		wg.Go(func() {
			for b.ctx.Err() == nil {
				if err := once(); err != nil {
					b.fail(err) // of no effect if it is over
				}
			}
		})
	}
	for range w.InFlight {
		again(func() error { return b.stream(b.same, &b.got[0]) })
		again(func() error { return b.stream(b.other, &b.got[1]) })
		again(func() error { return b.call(b.other, &b.got[2]) })
	}
	fmt.Println("begin")
	if err := b.pause(time.Duration(w.WarmMS) * time.Millisecond); err != nil {
		return o, err
	}
	began := time.Now()
	var slices [2*besideSlices + 1][3]float64
	for i := range slices {
		if slices[i], err = b.slice(i%2 == 1); err != nil {
			return o, err
		}
	}
	calls := b.got[2].Load()
	o = outcome{Count: calls, Total: calls, Seconds: time.Since(began).Seconds()}
	for kind := range besideKinds {
		o.Beside = append(o.Beside, besideOf(slices[:], kind))
	}
	return o, nil
}

// besideOf is what the slices, by turns without and with, say of one kind.
func besideOf(slices [][3]float64, kind int) beside {
	var without, with, ratio []float64
	for i, s := range slices {
		if i%2 == 0 {
			without = append(without, s[kind])
			continue
		}
		with = append(with, s[kind])
		if around := (slices[i-1][kind] + slices[i+1][kind]) / 2; around > 0 {
			ratio = append(ratio, s[kind]/around)
		}
	}
	return beside{Without: median(without), With: median(with), Ratio: median(ratio)}
}

// slice gives what each kind gets in a second.
func (b *besides) slice(stuck bool) (rates [3]float64, err error) {
	if stuck {
		s := b.same.RequestStream(b.ctx, b.serviceNames()[0], b.data)
		defer s.Close()
		defer func() { // it was there, and waited: its first bytes are
			if err == nil {
				late := time.AfterFunc(time.Second, func() { s.Close() })
				defer late.Stop()
				if _, readErr := s.Read(make([]byte, 1)); readErr != nil {
					err = fmt.Errorf("the stuck stream was not served: %w", readErr)
				}
			}
		}()
	}
	if err := b.pause(besideSettle); err != nil {
		return rates, err
	}
	var before [3]int64
	for i := range before {
		before[i] = b.got[i].Load()
	}
	began := time.Now()
	err = b.pause(min(time.Duration(b.MeasureMS)*time.Millisecond/besideShare, besideMost))
	for i := range rates {
		rates[i] = float64(b.got[i].Load()-before[i]) / time.Since(began).Seconds()
	}
	rates[0], rates[1] = rates[0]/1e6, rates[1]/1e6
	return rates, err
}

// pause waits, and ends early with the error of what has failed.
func (b *besides) pause(d time.Duration) error { return wait(b.ctx, d) }

func (b *besides) stream(c *omdp.Client, got *atomic.Int64) error {
	s := c.RequestStream(b.ctx, b.serviceNames()[0], b.data)
	defer s.Close()
	n, err := io.Copy(tally{got}, s)
	if want := int64(b.Partials*b.Size + len(besideCall)); err == nil && n != want {
		err = fmt.Errorf("a stream of %d bytes, want %d", n, want)
	}
	return err
}

func (b *besides) call(c *omdp.Client, got *atomic.Int64) error {
	m, err := c.Call(b.ctx, b.serviceNames()[0], besideCall)
	if err == nil && m.String() != besideCall {
		err = errors.New("a call had another answer")
	}
	got.Add(1)
	return err
}

// tally counts the bytes that are written to it.
type tally struct{ n *atomic.Int64 }

func (t tally) Write(p []byte) (int, error) {
	t.n.Add(int64(len(p)))
	return len(p), nil
}
