package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A benchCase is one line of work that is the same for every stack.
type benchCase struct {
	Name     string
	Pipeline bool // one sender that keeps InFlight requests in flight, not InFlight callers that wait
	InFlight int
	Size     int  // bytes of payload, inside a JSON string
	Partials int  // in front of each final
	Services int  // asked in turn
	Standing int  // requests that stand in the broker's queue all the time
	Queue    bool // the queue sweep: the worker comes only when the queue is full
	Idle     bool
	Stream   bool // the partials are what counts: MB/s, and how evenly callers are served
	Link     bool // one stream without an end, through a relay that delays: its MB/s
	Stuck    bool // streams and calls beside a stream that nobody reads, and without it
	Each     bool // as many workers as requests in flight, each with one at a time
	Own      bool // … and each caller has a client to itself
	Stacks   []string
}

// The stacks, in the order of the tables.
var allStacks = []string{"omdp", "c", "zmq4", "nats", "nats-pipelined"}

// namedStacks are all that can be asked for.
var namedStacks = append(slices.Concat(allStacks, dialectStacks[1:]), "tcp")

// What the sweeps and the idle case run on: what can be compared there.
// NATS keeps no queue of requests, and zmq4's broker holds what c's does.
var (
	serviceStacks = []string{"omdp", "c", "zmq4", "nats"}
	queueStacks   = []string{"omdp", "c", "zmq4"}
	idleStacks    = []string{"omdp", "c", "nats"}
	streamStacks  = []string{"omdp", "c"}
	linkStacks    = []string{"omdp", "tcp"}
	stuckStacks   = []string{"omdp"}
	dialectStacks = []string{"omdp", "omdp-final", "pigato", "mdp02", "mdp01"} // our peers, in that dialect
)

// workerConcurrency is the number of requests that a worker takes at a time,
// on every stack: enough that the worker is never what limits.
const workerConcurrency = 1000

// maxIdleClients bounds the idle case; the limit of descriptors may bound it further.
const maxIdleClients = 10000

// servicesPerWorker is the number of services (and connections) of one worker process.
const servicesPerWorker = 128

// streams are n at a time, each of mib MiB in chunks of 64 KiB, worker to client, one after another.
func streams(n, mib int) benchCase {
	return benchCase{Name: fmt.Sprintf("stream-%dMiB/%d", mib, n), InFlight: n, Size: chunk, Partials: mib << 20 / chunk, Services: 1, Stream: true, Stacks: streamStacks}
}

// chunk is the size of a stream's partials, in bytes: omdp's default.
const chunk = 64 << 10

// What the delayed link is: so late in each direction, so many bytes a second.
// It carries less than the machine can do on all stacks, so that what is
// measured is the way and not the processors.
const (
	linkLate = 25 * time.Millisecond
	linkRate = 200_000_000
)

// linkWarm is the time in which a window grows to what the link needs: it
// doubles about once in a round trip, and six times from the default.
const linkWarm = time.Second

func delayedLink() benchCase {
	return benchCase{Name: "delayed-50ms/1", InFlight: 1, Size: chunk, Partials: 1 << 40, Services: 1, Link: true, Stacks: linkStacks}
}

// besideStuck are n streams of each of two clients, and n callers of the
// second, beside one stream that nobody reads.
func besideStuck(n int) benchCase {
	return benchCase{Name: "beside-stuck", InFlight: n, Size: chunk, Partials: 4 << 20 / chunk, Services: 1, Stuck: true, Stacks: stuckStacks}
}

// dialectCallers is how many callers the dialects are compared with.
const dialectCallers = 32

// dialects are n callers and n workers that have one request at a time, as the
// dialects without request ids can do no more. These need a connection for each
// caller: with own every stack has one, else the others make do with one for all.
func dialects(n int, own bool) benchCase {
	c := benchCase{Name: fmt.Sprintf("dialects-%d/16B", n), InFlight: n, Size: 16, Services: 1, Each: true, Stacks: dialectStacks}
	if own {
		c.Name, c.Own = fmt.Sprintf("dialects-%d-clients/16B", n), true
	}
	return c
}

func callers(n int, size int, name string) benchCase {
	return benchCase{Name: fmt.Sprintf("callers-%d/%s", n, name), InFlight: n, Size: size, Services: 1, Stacks: allStacks}
}

// cases are all of them, in the order in which they run. A stream that runs alone has mib MiB.
func cases(mib int) []benchCase {
	list := []benchCase{
		callers(1, 16, "16B"),
		callers(8, 16, "16B"),
		callers(100, 16, "16B"),
		callers(1000, 16, "16B"),
		{Name: "pipeline-1000/16B", Pipeline: true, InFlight: 1000, Size: 16, Services: 1, Stacks: allStacks},
		callers(16, 4<<10, "4KiB"),
		callers(16, 64<<10, "64KiB"),
		{Name: "partials-1000/16B", InFlight: 8, Size: 16, Partials: 1000, Services: 1, Stacks: allStacks},
		streams(1, mib),
		streams(16, 4),
		besideStuck(2),
		delayedLink(),
		dialects(dialectCallers, true),
		dialects(dialectCallers, false),
	}
	for _, n := range []int{1, 32, 1024} {
		list = append(list, benchCase{Name: "services-" + strconv.Itoa(n), Pipeline: true, InFlight: 1000, Size: 16, Services: n, Stacks: serviceStacks})
	}
	for _, n := range []int{0, 1000, 100000} {
		list = append(list, benchCase{Name: "queue-" + strconv.Itoa(n), Pipeline: true, InFlight: workerConcurrency + n, Size: 16, Services: 1, Standing: n, Queue: true, Stacks: queueStacks})
	}
	return append(list, benchCase{Name: "idle", Idle: true, InFlight: 1, Size: 16, Services: 1, Stacks: idleStacks})
}

// quickCases are the three that the quick run makes.
func quickCases() []benchCase {
	var list []benchCase
	for _, c := range cases(1) {
		switch c.Name {
		case "callers-1/16B", "callers-1000/16B", "pipeline-1000/16B":
			list = append(list, c)
		}
	}
	return list
}

// work is what one process is told to do.
type work struct {
	Stack, Role, Endpoint string
	Service               string // worker: this one instead of s<First>…
	Pipeline, Queue       bool
	InFlight, Size        int
	Partials, Standing    int
	Services, First       int
	Concurrency           int
	Clients               int // idle: connections of this process
	WarmMS, MeasureMS     int
	Profile               string // folder for a CPU profile; empty: none
	Link, Stuck           bool
	Each, Own             bool
	LateUS, Rate          int // relay: the delay in each direction, bytes a second
	MaxWindow             int // client: as in its config; for tests
}

// workOf is the part of a process's orders that the case decides.
func workOf(c benchCase, stack string, t timing) work {
	w := work{
		Stack: stack, Pipeline: c.Pipeline, Queue: c.Queue, InFlight: c.InFlight, Size: c.Size, Partials: c.Partials,
		Standing: c.Standing, Services: c.Services, Concurrency: workerConcurrency,
		WarmMS: int(t.warm.Milliseconds()), MeasureMS: int(t.measure.Milliseconds()), Profile: t.profile,
		Link: c.Link, Stuck: c.Stuck, Each: c.Each, Own: c.Own,
	}
	if c.Each {
		w.Concurrency = 1
	}
	if c.Link {
		w.LateUS, w.Rate = int(linkLate.Microseconds()), linkRate
		w.WarmMS = max(w.WarmMS, int(linkWarm.Milliseconds()))
	}
	return w
}

// cArgs are the same orders as the C program reads them.
func (w work) cArgs() []string {
	args := []string{w.Role}
	add := func(name string, n int) { args = append(args, name+"="+strconv.Itoa(n)) }
	if w.Role == "broker" {
		return args
	}
	args = append(args, "endpoint="+w.Endpoint)
	if w.Service != "" {
		args = append(args, "service="+w.Service)
	}
	queue := 0
	if w.Queue {
		queue = 1
	}
	add("inflight", max(w.InFlight, 1))
	add("size", w.Size)
	add("services", max(w.Services, 1))
	add("first", w.First)
	add("partials", w.Partials)
	add("queue", queue)
	add("warm-ms", w.WarmMS)
	add("measure-ms", w.MeasureMS)
	add("concurrency", w.Concurrency)
	add("clients", w.Clients)
	return args
}

// serviceNames are the services that a client asks, or that one worker process serves.
func (w work) serviceNames() []string {
	if w.Service != "" {
		return []string{w.Service}
	}
	names := make([]string, w.Services)
	for i := range names {
		names[i] = "s" + strconv.Itoa(w.First+i)
	}
	return names
}

// payload is the text that travels; every stack sends it as a JSON string, quotes and all.
func (w work) payload() string {
	b := make([]byte, w.Size)
	for i := range b {
		b[i] = 'a' + byte((i+1)%26)
	}
	return string(b)
}
