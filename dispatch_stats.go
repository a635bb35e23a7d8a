package omdp

import "time"

// counters count events since the broker started.
type counters struct {
	Accepted        uint64 // REQUESTs that became requests
	Refused         uint64 // REQUESTs answered with an error at once: overload, draining, FailFast
	Overloaded      uint64 // … of these, and of READYs and HELLOs, the ones over a limit
	Duplicates      uint64 // REQUESTs whose id was live: dropped
	Repeated        uint64 // REQUESTs whose id had ended: refused
	Adopted         uint64 // requests that their client sent again on a new connection while they were live
	Dispatched      uint64 // to a worker, repeats included
	Requeued        uint64 // dispatches that could not be sent and went back to the queue
	Completed       uint64 // requests that got a worker's final
	Partials        uint64 // forwarded
	Expired         uint64 // requests whose deadline passed
	Canceled        uint64 // by their clients
	Abandoned       uint64 // FailFast requests whose last worker left while they waited
	Unfit           uint64 // requests that ended because their data is more than the worker takes, or an upload and it takes none
	WorkerLost      uint64 // requests that ended because their worker went away
	Stalled         uint64 // requests taken from a worker that gave no sign of them
	ClientGone      uint64 // requests whose client went away
	SlowClients     uint64 // peers whose outbox went over its limit
	Rejected        uint64 // requests that a worker handed back
	Internal        uint64 // questions to the broker itself: mmi.service and the like
	Malformed       uint64 // messages that break the protocol
	WrongDialect    uint64 // … of these, those in a dialect that is not their sender's, or not their listener's
	Ignored         uint64 // messages of peers that are ignored for that
	Unregistered    uint64 // workers' commands before READY
	UnknownRequests uint64 // heartbeats for requests that are not held
	Stray           uint64 // cancels of, and credit for, requests that are not held: they may have crossed with the end
	Overdrawn       uint64 // requests that ended because their worker or client sent more than it may, or after the end
	StaleTokens     uint64 // workers' messages under a token that they held before
	Forged          uint64 // … that they never held
	Dropped         uint64 // messages that came after their request ended, or that a slow client has no room for
	Again           uint64 // sends for which a peer's pipe had no room
	Unreachable     uint64 // sends to peers that are gone
}

// ServiceStats is the state of one service.
type ServiceStats struct {
	Workers    int           // registered, busy ones included
	Free       int           // that can be given a request now
	Queued     int           // requests that wait
	InProgress int           // requests at workers
	OldestWait time.Duration // of the request that has waited longest
	Completed  uint64        // finals since the service appeared
}

// BrokerStats is a snapshot of a broker: what it holds now, and counters since
// it started.
type BrokerStats struct {
	Clients, Workers   int
	Queued, InProgress int   // requests
	QueuedBytes        int64 // their data
	OutboxBytes        int64 // waiting for room in peers' pipes
	Services           map[string]ServiceStats
	Dialects           map[string]int // clients and workers by what they speak, see Dialect.String
	counters
}

func (d *dispatcher) snapshot(now instant) BrokerStats {
	s := BrokerStats{
		Clients: d.clients, Workers: d.workers, Queued: d.queued, InProgress: d.requests.n - d.queued,
		QueuedBytes: d.queuedBytes, OutboxBytes: d.outboxBytes,
		Services: make(map[string]ServiceStats, len(d.services)), counters: d.stats,
		Dialects: map[string]int{},
	}
	for x, n := range d.speakers {
		if n > 0 {
			s.Dialects[Dialect(x).String()] = n
		}
	}
	for name, v := range d.services { // order does not matter: into a map
		x := ServiceStats{Workers: v.workers, Free: v.ready.n, Queued: v.queued, InProgress: v.requests - v.queued, Completed: v.completed}
		for k := v.turns.head; k != nil; k = k.next {
			x.OldestWait = max(x.OldestWait, now-k.owner.requests.front().arrived)
		}
		s.Services[name] = x
	}
	return s
}
