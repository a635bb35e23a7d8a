package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp"
)

// One long stream to a fast reader: all of it must come, and nobody may hold
// more of it than the window allows.

// longOrder asks for so many random bytes.
type longOrder struct {
	Bytes  int64
	Seed   uint64
	Window int           // of the call; 0: one that grows
	Late   time.Duration // the reader begins so long after the call; for a test that wants to see it fail
}

// longEnd is what one side says of a stream.
type longEnd struct {
	Bytes int64
	Sum   string // SHA-256 of them
	Error string
	Took  time.Duration
}

// longWorker sends the streams. It sums what it hands to the library.
type longWorker struct {
	soakWorker
	last atomic.Pointer[longEnd]
}

func newLongWorker(o orders) (*longWorker, error) {
	r := &longWorker{}
	return r, r.start(o, 1, r.serve)
}

func (r *longWorker) hear(word string, args []string) any {
	if word == "last" {
		return r.last.Load()
	}
	return r.soakWorker.hear(word, args)
}

func (r *longWorker) serve(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	var o longOrder
	if err := req.Decode(&o); err != nil {
		return err
	}
	began, h := time.Now(), sha256.New()
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(o.Seed >> (8 * i))
	}
	n, err := io.Copy(res, io.TeeReader(io.LimitReader(rand.NewChaCha8(seed), o.Bytes), h))
	r.last.Store(newLongEnd(n, h.Sum(nil), err, began))
	return err
}

func newLongEnd(n int64, sum []byte, err error, began time.Time) *longEnd {
	e := &longEnd{Bytes: n, Sum: hex.EncodeToString(sum), Took: time.Since(began)}
	if err != nil {
		e.Error = err.Error()
	}
	return e
}

// longClient reads one stream when it is told to.
type longClient struct {
	c      *omdp.Client
	ctx    context.Context
	cancel context.CancelFunc
}

func newLongClient(o orders) (*longClient, error) {
	c, err := soakClient(o)
	if err != nil {
		return nil, err
	}
	r := &longClient{c: c}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// hear: "read BYTES SEED WINDOW LATE" reads one stream to its end.
func (r *longClient) hear(word string, args []string) any {
	if word != "read" {
		return nil
	}
	var o longOrder
	for i, to := range []any{&o.Bytes, &o.Seed, &o.Window, &o.Late} {
		if _, err := fmt.Sscan(args[i], to); err != nil {
			return longEnd{Error: err.Error()}
		}
	}
	opts := []omdp.CallOption{omdp.WithTimeout(longLimit(o.Bytes))}
	if o.Window > 0 {
		opts = append(opts, omdp.WithWindow(o.Window))
	}
	began, h := time.Now(), sha256.New()
	s := r.c.RequestStream(r.ctx, soakLong, o, opts...)
	defer s.Close()
	sleep(r.ctx, o.Late)
	n, err := io.Copy(h, s)
	return newLongEnd(n, h.Sum(nil), err, began)
}

func (r *longClient) leave(context.Context) error { return r.close() }

func (r *longClient) close() error {
	r.cancel()
	return r.c.Close()
}

// longLimit is how long such a stream may take: far more than it needs.
func longLimit(bytes int64) time.Duration {
	return time.Minute + time.Duration(bytes/(4<<20))*time.Second
}

// longSeen is what a run of the long stream has found.
type longSeen struct {
	order        longOrder
	sent, read   longEnd
	names        []string
	before, peak []int64 // bytes, of broker, worker, client
}

// longStream runs one long stream through three processes.
func longStream(ctx context.Context, s *spawner, o longOrder) (seen longSeen, err error) {
	ports, err := freePorts(1)
	if err != nil {
		return seen, err
	}
	f := &family{spawner: s, endpoint: fmt.Sprintf("tcp://127.0.0.1:%d", ports[0])}
	defer f.close()
	for _, c := range []orders{
		{Role: roleBroker, Listen: f.endpoint, Heartbeat: soakHeartbeat},
		{Role: roleWorker, Soak: soakLong},
		{Role: roleClient, Soak: soakLong},
	} {
		if _, err := f.start(ctx, c); err != nil {
			return seen, err
		}
	}
	worker, client := f.all[1], f.all[2]
	read := func(o longOrder) (end longEnd, err error) {
		err = client.askWithin(ctx, fmt.Sprintf("read %d %d %d %d", o.Bytes, o.Seed, o.Window, o.Late), &end, longLimit(o.Bytes))
		return end, err
	}
	// A short one first, so that what every stream needs is there before.
	if _, err = read(longOrder{Bytes: 1 << 20}); err != nil {
		return seen, err
	}
	seen.order = o
	for i, c := range f.all {
		n, err := peak(c.pid)
		if err != nil {
			return seen, err
		}
		seen.before = append(seen.before, n)
		seen.names = append(seen.names, []string{"broker", "worker", "client"}[i])
	}
	if seen.read, err = read(o); err != nil {
		return seen, err
	}
	for _, c := range f.all {
		n, err := peak(c.pid)
		if err != nil {
			return seen, err
		}
		seen.peak = append(seen.peak, n)
	}
	return seen, worker.ask(ctx, "last", &seen.sent)
}

const (
	longWindow = 256 << 10 // omdp's default, of calls whose window does not grow
	longGrown  = 16 << 20  // what a client's windows grow to, by default

	// longBesides is what a process may take whatever the window: Go's heap is
	// 4 MiB before it is first collected, and there are threads, their stacks and
	// libzmq's buffers. 5 MiB were seen.
	longBesides = 12 << 20
)

// allowed is by how much each process may have grown at the most. None can hold
// more than the window, which is all that is ever on the way; and Go lets as
// much garbage stand as there is in use before it collects.
func (o longOrder) allowed() int64 {
	window := int64(longGrown)
	if o.Window > 0 {
		window = int64(o.Window)
	}
	return 2*window + longBesides
}

// longStreams are two: one whose window may grow, and one whose may not.
func longStreams(ctx context.Context, s *spawner, v *verdict, size int) (string, error) {
	var texts []string
	for i, window := range []int{0, longWindow} {
		seen, err := longStream(ctx, s, longOrder{Bytes: int64(size) << 20, Seed: uint64(i + 1), Window: window})
		if err != nil {
			return "", err
		}
		texts = append(texts, judgeLong(v, seen))
	}
	return strings.Join(texts, "; "), nil
}

func judgeLong(v *verdict, s longSeen) string {
	o, name := s.order, "a window that grows"
	if o.Window > 0 {
		name = fmt.Sprintf("a window of %d KiB", o.Window>>10)
	}
	v.note(s.sent.Error == "" && s.read.Error == "" && s.sent.Bytes == o.Bytes && s.read.Bytes == o.Bytes && s.sent.Sum == s.read.Sum,
		"long stream, %s: %d bytes sent, SHA-256 %.12s%s; %d read, %.12s%s; of %d", name,
		s.sent.Bytes, s.sent.Sum, after(": ", s.sent.Error), s.read.Bytes, s.read.Sum, after(": ", s.read.Error), o.Bytes)
	most := int64(0)
	for i, n := range s.names {
		more := s.peak[i] - s.before[i]
		most = max(most, more)
		v.note(s.before[i] > 0 && more <= o.allowed(), "long stream, %s: the %s's memory was %s, at its peak %s: %s more, allowed %s",
			name, n, mib(s.before[i]), mib(s.peak[i]), mib(more), mib(o.allowed()))
	}
	return fmt.Sprintf("%s in %v through %s, %s at the most for it in a process", mib(s.read.Bytes), s.read.Took.Round(10*time.Millisecond), name, mib(most))
}

// after is text behind a mark, if there is any.
func after(mark, text string) string {
	if text == "" {
		return ""
	}
	return mark + text
}
