package omdp

import (
	"fmt"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// coreRig drives a core with native peers for the benchmarks and step counts:
// every client has an id, every worker a queue of what it was given.
type coreRig struct {
	d       *dispatcher
	now     instant
	m       message
	client  []byte
	in      batch.In
	rid     [33]byte
	n       uint64
	data    []byte
	options []byte
	held    []heldRequest
	at      int
	reply   [][]byte
	finals  int
}

type heldRequest struct {
	worker, token, rid []byte
}

func testLimits() limits {
	var c BrokerConfig
	l, err := c.fill()
	if err != nil {
		panic(err)
	}
	l.totalQueue, l.serviceQueue, l.outstanding = 1<<20, 1<<20, 1<<20
	l.totalBytes, l.serviceBytes = 1<<40, 1<<40
	l.services, l.workers = 1<<20, 1<<20
	return l
}

func newCoreRig(services, workers, queued int) *coreRig {
	r := &coreRig{
		d: newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{1}, 1), client: []byte("client-1"),
		data: []byte(`"0123456789abcdef"`), options: []byte("{}"),
		reply: [][]byte{[]byte(`{"status":200,"msg":"0123456789abcdef"}`)},
	}
	copy(r.rid[:], "abcdefghijklmnopqrstuv-0000000000")
	r.recv(r.client, message{op: opHello, caps: []byte(`{"v":1,"id":"c","hb":2500,"credit":262144}`)})
	for i := range max(services, 1) {
		n := 1
		if i == 0 {
			n = workers
		}
		for j := range n {
			id := fmt.Appendf(nil, "worker-%d-%d", i, j)
			c := `{"v":1,"id":"w","hb":2500,"concurrency":1}`
			r.recv(id, message{worker: true, op: opReady, service: serviceName(i), caps: []byte(c)})
		}
	}
	r.settle()
	for range workers + queued { // fill every worker of the first service, and the queue
		r.request(0)
		r.settle()
	}
	if r.d.queued != queued {
		panic(fmt.Sprintf("queued %d, want %d", r.d.queued, queued))
	}
	return r
}

func serviceName(i int) []byte { return fmt.Appendf(nil, "service-%d", i) }

var rigService = serviceName(0)

func (r *coreRig) recv(id []byte, m message) {
	r.m = m
	r.recvSame(id)
}

// recvSame takes the message in r.m: the codec too fills one in place.
func (r *coreRig) recvSame(id []byte) {
	r.now += time.Microsecond
	r.d.receive(r.now, 0, id, &r.m)
}

func (r *coreRig) request(int) {
	r.n++
	for i, n := len(r.rid)-1, r.n; n > 0; i, n = i-1, n/10 {
		r.rid[i] = byte('0' + n%10)
	}
	m := &r.m
	m.worker, m.op, m.service, m.rid, m.data, m.options = false, opRequest, rigService, r.rid[:], r.data, r.options
	r.recvSame(r.client)
}

// settle reads the outbox as the network would: dispatches are noted.
func (r *coreRig) settle() {
	out := r.d.take(0)
	for i := range out.Results {
		out.Results[i] = batch.Sent
	}
	r.in.B = append(r.in.B[:0], out.B...)
	r.d.settle(r.now, 0)
	in := batch.In{B: r.in.B}
	for f := in.Next(); f != nil; f = in.Next() {
		switch {
		case string(f[1]) == "W" && string(f[2]) == "2":
			r.hold(f)
		case string(f[1]) == "C" && string(f[2]) == "3":
			r.finals++
		}
	}
}

func (r *coreRig) hold(f [][]byte) {
	h := heldRequest{}
	if n := len(r.held); r.at > 0 && n == cap(r.held) { // reuse what was answered
		n = copy(r.held, r.held[r.at:])
		r.held, r.at = r.held[:n], 0
	}
	h.worker = append(h.worker, f[0]...)
	h.token = append(h.token, f[3]...)
	h.rid = append(h.rid, f[4]...)
	r.held = append(r.held, h)
}

// step is one request and one reply in the steady state. The outbox is not
// read: the benchmark measures the core, the harness would cost as much.
func (r *coreRig) step() {
	r.request(0)
	if r.at == len(r.held) {
		r.settle()
	}
	h := &r.held[r.at]
	m := &r.m
	m.worker, m.op, m.token, m.rid, m.body = true, opReply, h.token, h.rid, r.reply
	r.recvSame(h.worker)
	r.refill(h)
}

// refill takes the outbox; the answered slot's place takes the new dispatch.
func (r *coreRig) refill(h *heldRequest) {
	out := r.d.take(0)
	for i := range out.Results {
		out.Results[i] = batch.Sent
		if m := out.Message(i); m[4+4+len(h.worker)+4] == 'W' { // id of the same length, then the header
			p := 4
			next := func() []byte {
				n := int(m[p]) | int(m[p+1])<<8
				b := m[p+4 : p+4+n]
				p += 4 + n
				return b
			}
			h.worker = append(h.worker[:0], next()...)
			next()
			next()
			h.token = append(h.token[:0], next()...)
			h.rid = append(h.rid[:0], next()...)
		} else {
			r.finals++
		}
	}
	r.d.settle(r.now, 0)
	if r.at++; r.at == len(r.held) {
		r.at = 0
	}
}

func BenchmarkCore(b *testing.B) {
	run := func(services, workers, queued int) {
		b.Run(fmt.Sprintf("services=%d/workers=%d/queued=%d", services, workers, queued), func(b *testing.B) {
			r := newCoreRig(services, workers, queued)
			for range 2 * (queued + workers) {
				r.step()
			}
			b.ReportAllocs()
			for b.Loop() {
				r.step()
			}
		})
	}
	run(1, 1, 0)
	run(1024, 1, 0)
	run(1, 1000, 0)
	run(1, 1, 1000)
	run(1, 1, 100_000)
}
